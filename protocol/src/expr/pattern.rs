//! Regular expressions and globs, compiled once and bounded.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

use crate::limits::{PATTERN_COMPILED_BYTES_MAX, PATTERN_NESTING_MAX};

/// A regular expression. Found anywhere in the text unless it begins with `^` and ends with `$`.
///
/// The dialect is that of the `regex-lite` crate: no look-around and no back-references, so matching
/// takes time proportional to pattern times text. Case counts unless the pattern says `(?i)`;
/// `\d`, `\w` and `\s` are ASCII.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// Why a text is not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the regular expression is not valid: {why}")]
pub struct PatternError {
    /// What the compiler says.
    pub why: String,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// When it is not a regular expression, nests too deeply or compiles to too much.
    pub fn new(text: impl Into<String>) -> Result<Self, PatternError> {
        let text = text.into();
        let regex = RegexBuilder::new(&text)
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .nest_limit(PATTERN_NESTING_MAX)
            .build()
            .map_err(|error| PatternError { why: error.to_string() })?;
        Ok(Self { text, regex })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is found in `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// A glob: `*` stands for any characters, `?` for exactly one, `\` takes the next one as it is. It has
/// to fit the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Exactly(char),
    One,
    Any,
}

impl Glob {
    /// Reads a pattern. Every text is one; a `\` at the end stands for itself.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            pieces.push(match c {
                '*' if pieces.last() == Some(&Piece::Any) => continue,
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' => Piece::Exactly(characters.next().unwrap_or('\\')),
                other => Piece::Exactly(other),
            });
        }
        Self { text, pieces }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What one byte of text costs, compared with a plain search: its time grows with pattern times text.
    pub(crate) fn weight(&self) -> usize {
        1 + self.pieces.len() / 64
    }

    /// Whether all of `text` fits. Takes at most pattern times text steps: only the last `*` is ever
    /// widened, which is enough because an earlier one gains nothing from being wider.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        let (mut piece, mut rest) = (0, text);
        let mut retry: Option<(usize, &str)> = None;
        loop {
            let mut characters = rest.chars();
            let next = characters.next();
            match (self.pieces.get(piece), next) {
                (None, None) => return true,
                (Some(Piece::Any), _) => {
                    piece += 1;
                    retry = Some((piece, rest));
                    continue;
                }
                (Some(Piece::One), Some(_)) => {
                    (piece, rest) = (piece + 1, characters.as_str());
                    continue;
                }
                (Some(Piece::Exactly(expected)), Some(c)) if *expected == c => {
                    (piece, rest) = (piece + 1, characters.as_str());
                    continue;
                }
                _ => {}
            }
            let Some((after_any, from)) = retry else { return false };
            let mut wider = from.chars();
            if wider.next().is_none() {
                return false;
            }
            (piece, rest) = (after_any, wider.as_str());
            retry = Some((after_any, wider.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Expression, MapScope, Truth};
    use proptest::prelude::*;

    #[test]
    fn patterns_look_at_a_bounded_amount_of_text() {
        let large = "a".repeat(crate::limits::PATTERN_TEXT_BYTES_MAX);
        let scope =
            MapScope::new().set("small", Some(serde_json::json!("abc"))).set("large", Some(serde_json::json!(large)));
        let check = |text: &str, expected: Truth| {
            assert_eq!(Expression::parse(text).unwrap().evaluate(&scope), expected, "{text}");
        };
        check("large ~ \"a$\"", Truth::True);
        check("small ~ \"c\" and large ~ \"a$\"", Truth::Unknown);
        check("not (large ~ \"b\" or large ~ \"b\")", Truth::Unknown);
        check("small like a*c or large ~ \"b\"", Truth::True);
        assert!(Expression::parse("small ~ \"(?:a?){4000}Z\"").is_err(), "a large pattern is no pattern");
    }

    #[test]
    fn a_glob_fits_the_whole_text() {
        let cases = [
            ("web-*", "web-1", true),
            ("web-*", "web-", true),
            ("web-*", "xweb-1", false),
            ("web-?", "web-1", true),
            ("web-?", "web-12", false),
            ("web-?", "web-ä", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*.example.com", "a.b.example.com", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "aXb", false),
            (r"a\", r"a\", true),
            ("**?**", "", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).is_match(text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_regular_expression_is_bounded() {
        assert!(Pattern::new("a{1,50}").is_ok());
        for bad in ["(", "a**{", "((a{1000}){1000}){1000}", &"(".repeat(200), r"(a)\1", "(?=a)"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        let slow = Pattern::new("(a*)*b").unwrap();
        assert!(!slow.is_match(&"a".repeat(2_000)), "no exponential backtracking");
    }

    proptest! {
        #[test]
        fn a_glob_agrees_with_its_regular_expression(pattern in r"[ab*?]{0,12}", text in "[ab]{0,16}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            prop_assert_eq!(Glob::new(&*pattern).is_match(&text), Regex::new(&regex).unwrap().is_match(&text));
        }
    }
}
