//! Reading a policy: a TOML file with a list of rules, each with a place that messages can name.

use std::path::Path;

use muster_protocol::GroupName;
use muster_protocol::expr::{Expression, Segment, did_you_mean};
use serde::Deserialize;

use crate::digest::sha256_hex;

use super::approvals::{APPROVERS_MAX, Approvals, Requirement};
use super::{Effect, FILE_BYTES_MAX, Policy, PolicyError, ROOTS, RULES_MAX, Rule};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: toml::Spanned<String>,
    effect: toml::Spanned<String>,
    when: toml::Spanned<String>,
    approvals: Option<toml::Spanned<Vec<toml::Spanned<RawRequirement>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequirement {
    group: Option<String>,
    count: Option<i64>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// When it cannot be read or one rule of it is wrong; then none of it is used.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        Self::parse(&Self::read(path)?, path)
    }

    /// Reads a policy file to find everything that is wrong with it.
    ///
    /// # Errors
    /// As [`Self::load`], but about each rule.
    pub fn load_all(path: &Path) -> Result<Self, Vec<PolicyError>> {
        Self::parse_all(&Self::read(path).map_err(|error| vec![error])?, path)
    }

    /// Reads a policy that is not in force, such as one in its author's directory. Says beside it why the
    /// agent would not trust the file, if it would not.
    ///
    /// # Errors
    /// As [`Self::load_all`].
    pub fn load_draft(path: &Path) -> Result<(Self, Option<PolicyError>), Vec<PolicyError>> {
        let distrust = crate::state::check_trusted(path).err();
        let distrust = distrust.map(|source| PolicyError::Read { path: path.to_owned(), source });
        let text = Self::read_any(path).map_err(|error| vec![error])?;
        Ok((Self::parse_all(&text, path)?, distrust))
    }

    fn read(path: &Path) -> Result<String, PolicyError> {
        let failed = |source| PolicyError::Read { path: path.to_owned(), source };
        std::fs::metadata(path).and_then(|_| crate::state::check_trusted(path)).map_err(failed)?;
        Self::read_any(path)
    }

    fn read_any(path: &Path) -> Result<String, PolicyError> {
        let failed = |source| PolicyError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(PolicyError::TooLarge { path: path.to_owned(), bytes });
        }
        std::fs::read_to_string(path).map_err(failed)
    }

    /// Parses the text of a policy; `path` is for messages.
    ///
    /// # Errors
    /// The first thing that is wrong, with line and column.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PolicyError> {
        Self::parse_all(text, path).map_err(|mut errors| errors.swap_remove(0))
    }

    /// Parses the text of a policy and says everything that is wrong with it.
    ///
    /// # Errors
    /// What is wrong, at least one thing: all of it, unless the text is no TOML or keys are unknown or missing.
    pub fn parse_all(text: &str, path: &Path) -> Result<Self, Vec<PolicyError>> {
        let wrong = |offset: usize, why: String| {
            let (line, column) = position(text, offset);
            PolicyError::Wrong { path: path.to_owned(), line, column, why }
        };
        let raw: RawPolicy = toml::from_str(text).map_err(|error| {
            vec![wrong(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', ", "))]
        })?;
        if raw.rule.len() > RULES_MAX {
            return Err(vec![wrong(text.len(), format!("more than {RULES_MAX} rules"))]);
        }
        let mut errors = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        let mut rules: Vec<Rule> = Vec::new();
        for rule in raw.rule {
            let name = rule.name.get_ref();
            let at_name = rule.name.span().start;
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                errors.push(wrong(at_name, "a rule needs a name of 1 to 128 printable bytes".to_owned()));
            } else if !names.insert(name.clone()) {
                errors.push(wrong(at_name, format!("two rules are called `{name}`")));
            }
            let effect = match rule.effect.get_ref().as_str() {
                "allow" => Some(Effect::Allow),
                "deny" => Some(Effect::Deny),
                other => {
                    let why = format!("rule `{name}`: effect {other:?}; accepted: `allow`, `deny`");
                    errors.push(wrong(rule.effect.span().start, why));
                    None
                }
            };
            let approvals = match read_approvals(rule.approvals.as_ref(), effect) {
                Ok(approvals) => approvals,
                Err((at, why)) => {
                    errors.push(wrong(at, format!("rule `{name}`: {why}")));
                    Approvals::default()
                }
            };
            let source = rule.when.get_ref();
            let condition = Condition::of(text, &rule.when);
            let wrong_at = |place: Place, why: String| PolicyError::Wrong {
                path: path.to_owned(),
                line: place.line,
                column: place.column,
                why: format!("rule `{name}`: {why}"),
            };
            let when = Expression::parse(source)
                .map_err(|error| wrong_at(condition.place(error.column), described(&error)))
                .and_then(|when| match check_names(&when) {
                    Ok(()) => Ok(when),
                    Err((word, why)) => Err(wrong_at(condition.place_of(&word), why)),
                });
            match (when, effect) {
                (Ok(when), Some(effect)) => {
                    let (line, column) = position(text, at_name);
                    let place = Place { line, column };
                    rules.push(Rule { name: name.clone(), effect, when, approvals, place, condition });
                }
                (Ok(_), None) => {}
                (Err(error), _) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self { rules, sha256: sha256_hex(text.as_bytes()) }) } else { Err(errors) }
    }
}

/// Reads who has to sign besides the caller; an error with where it stands.
fn read_approvals(
    raw: Option<&toml::Spanned<Vec<toml::Spanned<RawRequirement>>>>,
    effect: Option<Effect>,
) -> Result<Approvals, (usize, String)> {
    let Some(raw) = raw else { return Ok(Approvals::default()) };
    let start = raw.span().start;
    if effect == Some(Effect::Deny) {
        let why = "a rule that denies has no use for `approvals`; put them on the rule that allows";
        return Err((start, why.to_owned()));
    }
    if raw.get_ref().is_empty() {
        return Err((start, "`approvals` asks for nobody; leave it out if nobody has to approve".to_owned()));
    }
    let mut requirements = Vec::new();
    for one in raw.get_ref() {
        let at = one.span().start;
        let RawRequirement { group, count } = one.get_ref();
        let count = usize::try_from(count.unwrap_or(1)).unwrap_or(0);
        if count == 0 {
            return Err((at, "`count` is the number of people who have to approve, at least 1".to_owned()));
        }
        let group = match group {
            None => None,
            Some(text) => {
                let group = text.parse::<GroupName>();
                Some(group.map_err(|error| (at, format!("`{}` is no group: {error}", text.escape_default())))?)
            }
        };
        requirements.push(Requirement { group, count });
    }
    let approvals = Approvals::new(requirements);
    if approvals.people() > APPROVERS_MAX {
        let why = format!(
            "asks for {} approvals; a message has room for {APPROVERS_MAX} signatures besides the caller's",
            approvals.people()
        );
        return Err((start, why));
    }
    Ok(approvals)
}

/// A place in a policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

/// The text of a condition, and where in the file it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// As the author wrote it.
    source: String,
    /// Where its first character stands.
    start: Place,
    /// Whether the file holds it character for character. With escapes in it, only `start` is known.
    exact: bool,
}

impl Condition {
    fn of(text: &str, value: &toml::Spanned<String>) -> Self {
        let (span, source) = (value.span(), value.get_ref());
        let literal = text.get(span.clone()).unwrap_or_default();
        let within = literal.find(source.as_str()).filter(|_| !source.is_empty());
        let (line, column) = position(text, span.start + within.unwrap_or(0));
        Self { source: source.clone(), start: Place { line, column }, exact: within.is_some() }
    }

    /// Where a column of the condition's text, from 1, lies in the file.
    fn place(&self, column: usize) -> Place {
        if !self.exact {
            return self.start;
        }
        let before: String = self.source.chars().take(column.saturating_sub(1)).collect();
        match before.rsplit_once('\n') {
            None => Place { line: self.start.line, column: self.start.column + before.chars().count() },
            Some((lines, last)) => {
                Place { line: self.start.line + lines.matches('\n').count() + 1, column: last.chars().count() + 1 }
            }
        }
    }

    /// Where a word of the condition stands, or its beginning where it is written in another way.
    pub(super) fn place_of(&self, word: &str) -> Place {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
        let found = self.source.match_indices(word).find(|(at, _)| {
            let before = self.source[..*at].chars().next_back();
            let after = self.source[at + word.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        });
        self.place(found.map_or(0, |(at, _)| self.source[..at].chars().count()) + 1)
    }
}

/// Refuses names that would never have a value, so that a misspelt one is found by whoever wrote it.
fn check_names(expression: &Expression) -> Result<(), (String, String)> {
    if let Some(call) = expression.calls().next() {
        let why = format!("`{call}` asks a plugin; a policy cannot, since it decides before plugins are asked");
        return Err((call.function().to_owned(), why));
    }
    for path in expression.paths() {
        let root = path.root();
        if !ROOTS.contains(&root) {
            let near = did_you_mean(root, ROOTS.iter().copied());
            let near = near.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
            let why = format!("a policy knows no `{root}`; {near}a fact is written `fact.{path}`");
            return Err((path.to_string(), why));
        }
        let second = path.segments().get(1);
        let fits = match (root, second) {
            ("caller", Some(Segment::Name(name))) => name == "kind" || name == "name",
            ("arg" | "fact", None) => false,
            ("arg" | "fact" | "group" | "signer" | "class" | "collective" | "caller", _) | (_, None) => true,
            (_, Some(_)) => false,
        };
        if !fits {
            return Err((path.to_string(), format!("a policy knows no `{path}`")));
        }
    }
    Ok(())
}

fn described(error: &muster_protocol::expr::ParseError) -> String {
    match &error.suggestion {
        Some(suggestion) => format!("{}; {suggestion}", error.message),
        None => error.message.clone(),
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
