//! The host's own policy: who may do what here. The host has the last word.
//!
//! A policy is a list of rules. The first rule whose condition holds decides; if none does, the
//! answer is no. Conditions are written in the language of targets, over the names below.
//!
//! | name | value |
//! |---|---|
//! | `caller`, `caller.kind`, `caller.name` | the first signer: `muster:user/lea`, `user`, `lea` |
//! | `group` | list of the groups in the caller's certificate |
//! | `signer`, `signatures` | list of all signers; how many there are |
//! | `plugin`, `action` | `package`, `package.status`; both `cancel` for cancelling somebody else's request |
//! | `read_only` | whether the action's description says that it changes nothing |
//! | `arg.NAME` | an argument, defaults filled in |
//! | `noop`, `effective_user` | the command's options |
//! | `name`, `class`, `collective`, `fact.NAME` | this host |
//!
//! # When a value is missing
//!
//! A condition can come out as unknown, because it compares something that is not there. An `allow`
//! rule then does not apply. A `deny` rule then *does* apply: whoever wrote it wanted to stop
//! something, and a missing value must not be the way around it. Write `has(arg.force) and ...` where a
//! rule is meant to concern only requests that have the value.

use std::path::{Path, PathBuf};

use muster_pki::Signer;
use muster_protocol::expr::{Expression, HostScope, MapScope, Segment, Truth, did_you_mean};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Most rules of a policy: each is evaluated for each command.
pub const RULES_MAX: usize = 1_000;

/// Largest policy file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The policy that ships with the agent.
pub const STARTER: &str = include_str!("../../dist/etc/policy.toml");

/// Names a condition may begin with.
const ROOTS: &[&str] = &[
    "caller",
    "group",
    "signer",
    "signatures",
    "plugin",
    "action",
    "read_only",
    "arg",
    "noop",
    "effective_user",
    "name",
    "class",
    "collective",
    "fact",
];

/// Why a policy cannot be used. An agent without a policy does not start.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("read policy `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Too large.
    #[error("policy `{path}` has {bytes} bytes; at most {FILE_BYTES_MAX} are allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Something in it is wrong.
    #[error("policy `{path}` line {line}, column {column}: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters.
        column: usize,
        /// What is wrong.
        why: String,
    },
}

/// What a rule does when its condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Lets it pass.
    Allow,
    /// Stops it.
    Deny,
}

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
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, which refusals and the audit log mention.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    /// When.
    pub when: Expression,
}

/// A policy that parsed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// What is asked of a policy.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who signed, the caller first.
    pub signers: &'a [Signer],
    /// The plugin's name.
    pub plugin: &'a str,
    /// `plugin.action`.
    pub action: &'a str,
    /// Whether the action only reads; `None` if it is not known here.
    pub read_only: Option<bool>,
    /// The arguments.
    pub arguments: &'a Map<String, Value>,
    /// Whether it is only to be tried.
    pub noop: bool,
    /// The user it is to run as.
    pub effective_user: Option<&'a str>,
}

/// What a policy answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This rule allows it.
    Allowed {
        /// Its name.
        rule: String,
    },
    /// This rule denies it.
    Denied {
        /// Its name.
        rule: String,
        /// `false` if the condition came out as unknown.
        certain: bool,
    },
    /// No rule applies, so it is denied.
    NoRule,
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

    fn read(path: &Path) -> Result<String, PolicyError> {
        let failed = |source| PolicyError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        crate::state::check_trusted(path).map_err(failed)?;
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
            let source = rule.when.get_ref();
            let place = |column: usize| offset_in_value(text, rule.when.span(), source, column);
            let when = Expression::parse(source)
                .map_err(|error| wrong(place(error.column), format!("rule `{name}`: {}", described(&error))))
                .and_then(|when| match check_names(&when) {
                    Ok(()) => Ok(when),
                    Err(why) => Err(wrong(place(1), format!("rule `{name}`: {why}"))),
                });
            match (when, effect) {
                (Ok(when), Some(effect)) => rules.push(Rule { name: name.clone(), effect, when }),
                (Ok(_), None) => {}
                (Err(error), _) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self { rules }) } else { Err(errors) }
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Asks the policy. `host` gives the host's own names.
    #[must_use]
    pub fn ask(&self, question: &Question<'_>, host: &HostScope<'_>) -> Verdict {
        let scope = question.scope(host);
        for rule in &self.rules {
            match (rule.effect, rule.when.evaluate(&scope)) {
                (Effect::Allow, Truth::True) => return Verdict::Allowed { rule: rule.name.clone() },
                (Effect::Deny, Truth::True) => return Verdict::Denied { rule: rule.name.clone(), certain: true },
                (Effect::Deny, Truth::Unknown) => return Verdict::Denied { rule: rule.name.clone(), certain: false },
                (Effect::Allow, Truth::Unknown | Truth::False) | (Effect::Deny, Truth::False) => {}
            }
        }
        Verdict::NoRule
    }
}

impl Question<'_> {
    fn scope<'a>(&self, host: &'a HostScope<'a>) -> MapScope<'a> {
        let caller = self.signers.first();
        let identity = caller.map(|signer| &signer.identity);
        let groups =
            caller.map(|signer| signer.groups.iter().map(|group| Value::from(group.as_str())).collect::<Value>());
        let signers: Value = self.signers.iter().map(|signer| Value::from(signer.identity.to_string())).collect();
        MapScope::over(host)
            .set("caller", identity.map(|identity| Value::from(identity.to_string())))
            .set("caller.kind", identity.map(|identity| Value::from(identity.kind())))
            .set("caller.name", identity.map(|identity| Value::from(identity.name())))
            .set("group", groups)
            .set("signer", signers)
            .set("signatures", Value::from(self.signers.len()))
            .set("plugin", Value::from(self.plugin))
            .set("action", Value::from(self.action))
            .set("read_only", self.read_only.map(Value::from))
            .set("arg", Value::Object(self.arguments.clone()))
            .set("noop", Value::from(self.noop))
            .set("effective_user", self.effective_user.map(Value::from))
    }
}

/// Refuses names that would never have a value, so that a misspelt one is found by whoever wrote it.
fn check_names(expression: &Expression) -> Result<(), String> {
    if let Some(call) = expression.calls().next() {
        return Err(format!("`{call}` asks a plugin; a policy cannot, since it decides before plugins are asked"));
    }
    for path in expression.paths() {
        let root = path.root();
        if !ROOTS.contains(&root) {
            let near = did_you_mean(root, ROOTS.iter().copied());
            let near = near.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
            return Err(format!("a policy knows no `{root}`; {near}a fact is written `fact.{path}`"));
        }
        let second = path.segments().get(1);
        let fits = match (root, second) {
            ("caller", Some(Segment::Name(name))) => name == "kind" || name == "name",
            ("arg" | "fact", None) => false,
            ("arg" | "fact" | "group" | "signer" | "class" | "collective" | "caller", _) | (_, None) => true,
            (_, Some(_)) => false,
        };
        if !fits {
            return Err(format!("a policy knows no `{path}`"));
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

/// Where a column of a string's content lies in the file. Exact where the string is written without
/// escapes, else the beginning of the string.
fn offset_in_value(text: &str, span: std::ops::Range<usize>, value: &str, column: usize) -> usize {
    let literal = text.get(span.clone()).unwrap_or_default();
    match literal.find(value) {
        Some(start) if !value.is_empty() => {
            let within: usize = value.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
            span.start + start + within
        }
        _ => span.start,
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
