//! What a permission matches: alternatives of literal text and names.
//!
//! RabbitMQ takes regular expressions and *searches* them in a name, so an unanchored `agent.web1` would
//! also allow `agent.web1x`. A [`Pattern`] is never written as text: it is built from pieces, renders to
//! one anchored expression and evaluates itself in Rust to the same answer.
//!
//! Two details are deliberate. The end is `\z`, not `$`, because `$` also matches before a final newline.
//! Names use the grammar of `muster_protocol::name` instead of `[^.]+`, so that the wildcards `*` and `#`
//! can never stand where a name is expected: a host cannot bind `collective.*`.

use std::fmt;

use muster_protocol::limits::SHORT_NAME_BYTES_MAX;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    ShortName,
    HostName,
    HostBelow(String),
    Anything,
}

/// A set of names. Renders to the regular expression that RabbitMQ gets ([`fmt::Display`]) and
/// answers by itself ([`Pattern::matches`]); both say the same for every text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pattern {
    alternatives: Vec<Vec<Piece>>,
}

impl Pattern {
    /// Matches nothing, not even the empty text (`^$` would allow an empty routing key).
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Matches everything, the empty text too.
    #[must_use]
    pub fn anything() -> Self {
        Self { alternatives: vec![vec![Piece::Anything]] }
    }

    /// Matches exactly `text`.
    #[must_use]
    pub fn exactly(text: impl Into<String>) -> Self {
        Self { alternatives: vec![vec![Piece::Literal(text.into())]] }
    }

    /// Matches `before`, then one short name (a session, a collective), then `after`.
    ///
    /// `after` must be empty or begin with a character that no short name has, such as a dot.
    #[must_use]
    pub fn short_name(before: &str, after: &str) -> Self {
        debug_assert!(!after.starts_with(is_short_name_character));
        let mut pieces = vec![Piece::Literal(before.to_owned()), Piece::ShortName];
        if !after.is_empty() {
            pieces.push(Piece::Literal(after.to_owned()));
        }
        Self { alternatives: vec![pieces] }
    }

    /// Matches `before`, then a host's name with its dots.
    #[must_use]
    pub fn host_name(before: &str) -> Self {
        Self { alternatives: vec![vec![Piece::Literal(before.to_owned()), Piece::HostName]] }
    }

    /// Matches `before`, then the name of a host below `domain`, at any depth.
    #[must_use]
    pub fn host_below(before: &str, domain: &str) -> Self {
        Self { alternatives: vec![vec![Piece::Literal(before.to_owned()), Piece::HostBelow(domain.to_owned())]] }
    }

    /// Matches what either matches.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.alternatives.extend(other.alternatives);
        self
    }

    /// Matches `before`, a short name, `between` and another short name (a caller and its session).
    ///
    /// `between` must begin with a character that no short name has.
    #[must_use]
    pub fn two_short_names(before: &str, between: &str) -> Self {
        let mut pattern = Self::short_name(before, between);
        for pieces in &mut pattern.alternatives {
            pieces.push(Piece::ShortName);
        }
        pattern
    }

    /// Puts `text` behind every alternative. It must begin with a character that no short name has.
    #[must_use]
    pub fn then(mut self, text: &str) -> Self {
        debug_assert!(!text.starts_with(is_short_name_character));
        for pieces in &mut self.alternatives {
            pieces.push(Piece::Literal(text.to_owned()));
        }
        self
    }

    /// Puts a dot and the name of a host below `domain`, at any depth, behind every alternative.
    #[must_use]
    pub fn then_host_below(mut self, domain: &str) -> Self {
        for pieces in &mut self.alternatives {
            pieces.extend([Piece::Literal(".".to_owned()), Piece::HostBelow(domain.to_owned())]);
        }
        self
    }

    /// Whether `text` belongs to the set.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.alternatives.iter().any(|pieces| matches_all(pieces, text))
    }
}

fn is_short_name_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
}

fn is_host_name_character(c: char) -> bool {
    is_short_name_character(c) || c == '.'
}

/// Consumes piece by piece. No backtracking is needed: what follows a name never begins with a
/// character the name could have taken.
fn matches_all(pieces: &[Piece], text: &str) -> bool {
    let mut rest = text;
    for piece in pieces {
        let end = |belongs: fn(char) -> bool| rest.find(|c: char| !belongs(c)).unwrap_or(rest.len());
        let taken = match piece {
            Piece::Literal(literal) if rest.starts_with(literal.as_str()) => literal.len(),
            Piece::Literal(_) => return false,
            Piece::ShortName => {
                let length = end(is_short_name_character);
                if length > SHORT_NAME_BYTES_MAX || rest.starts_with(['_', '-']) {
                    return false;
                }
                length
            }
            Piece::HostName => end(is_host_name_character),
            // Alone in its alternative.
            Piece::Anything => rest.len(),
            // Always the last piece, so that it may take everything there is.
            Piece::HostBelow(domain) => {
                let length = end(is_host_name_character);
                let before = rest[..length].strip_suffix(domain.as_str()).and_then(|text| text.strip_suffix('.'));
                if before.is_none_or(str::is_empty) {
                    return false;
                }
                length
            }
        };
        if taken == 0 && !matches!(piece, Piece::Literal(_) | Piece::Anything) {
            return false;
        }
        rest = &rest[taken..];
    }
    rest.is_empty()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alternatives: Vec<String> =
            self.alternatives.iter().map(|pieces| pieces.iter().map(expression).collect()).collect();
        match alternatives.as_slice() {
            [] => f.write_str(r"[^\s\S]"),
            [one] => write!(f, r"^{one}\z"),
            several => write!(f, r"^({})\z", several.join("|")),
        }
    }
}

fn expression(piece: &Piece) -> String {
    match piece {
        Piece::Literal(text) => escape(text),
        Piece::ShortName => format!("[a-z0-9][a-z0-9_-]{{0,{}}}", SHORT_NAME_BYTES_MAX - 1),
        Piece::HostName => "[a-z0-9._-]+".to_owned(),
        Piece::Anything => r"[\s\S]*".to_owned(),
        Piece::HostBelow(domain) => format!("[a-z0-9._-]+{}", escape(&format!(".{domain}"))),
    }
}

/// Puts a backslash before every character that means something to PCRE outside a class.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<Pattern> {
        vec![
            Pattern::nothing(),
            Pattern::exactly("agent.web1.example.com"),
            Pattern::exactly("all").or(Pattern::short_name("collective.", "")).or(Pattern::exactly("host.web1")),
            Pattern::short_name("user/lea.", ".#"),
            Pattern::exactly("all").or(Pattern::host_name("host.")),
            Pattern::two_short_names("user/", ".").or(Pattern::exactly("presence")).then(".web1"),
            Pattern::exactly("(a+b)*[c]{1}|^$?\\"),
            Pattern::exactly("all").or(Pattern::host_below("host.", "example.com")),
            Pattern::two_short_names("user/", ".").then_host_below("example.com"),
            Pattern::anything(),
        ]
    }

    #[test]
    fn an_expression_is_anchored_and_escaped() {
        let expected = [
            r"[^\s\S]",
            r"^agent\.web1\.example\.com\z",
            r"^(all|collective\.[a-z0-9][a-z0-9_-]{0,62}|host\.web1)\z",
            r"^user/lea\.[a-z0-9][a-z0-9_-]{0,62}\.#\z",
            r"^(all|host\.[a-z0-9._-]+)\z",
            r"^(user/[a-z0-9][a-z0-9_-]{0,62}\.[a-z0-9][a-z0-9_-]{0,62}\.web1|presence\.web1)\z",
            r"^\(a\+b\)\*\[c\]\{1\}\|\^\$\?\\\z",
            r"^(all|host\.[a-z0-9._-]+\.example\.com)\z",
            r"^user/[a-z0-9][a-z0-9_-]{0,62}\.[a-z0-9][a-z0-9_-]{0,62}\.[a-z0-9._-]+\.example\.com\z",
            r"^[\s\S]*\z",
        ];
        for (pattern, expected) in sample().iter().zip(expected) {
            assert_eq!(pattern.to_string(), expected);
        }
    }

    #[test]
    fn a_wildcard_or_a_newline_is_no_name() {
        let collective = Pattern::short_name("collective.", "");
        for (text, expected) in [
            ("collective.main", true),
            ("collective.a", true),
            ("collective.", false),
            ("collective.*", false),
            ("collective.#", false),
            ("collective.a.b", false),
            ("collective.a\n", false),
            ("collective.-a", false),
            ("xcollective.a", false),
        ] {
            assert_eq!(collective.matches(text), expected, "{text:?}");
        }
        assert!(collective.matches(&format!("collective.{}", "a".repeat(63))));
        assert!(!collective.matches(&format!("collective.{}", "a".repeat(64))));
    }

    proptest! {
        #[test]
        fn rust_and_the_expression_agree(
            index in 0..9_usize,
            text in "(agent|host|collective|user/lea|user/|all|presence|reply)?[.]{0,2}[a-z0-9_.*#\n-]{0,6}(\\.web1|\\.#|\\.web1\\.example\\.com|x|\n)?",
        ) {
            let pattern = &sample()[index];
            let expression = regex_lite::Regex::new(&pattern.to_string()).unwrap();
            prop_assert_eq!(pattern.matches(&text), expression.is_match(&text));
        }

        #[test]
        fn a_literal_matches_itself_only(a in "\\PC{0,20}", b in "\\PC{0,20}") {
            let pattern = Pattern::exactly(a.clone());
            let expression = regex_lite::Regex::new(&pattern.to_string()).unwrap();
            prop_assert!(pattern.matches(&a) && expression.is_match(&a));
            prop_assert_eq!(expression.is_match(&b), a == b);
        }
    }
}
