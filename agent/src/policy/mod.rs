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
//! | `plugin`, `action` | `package`, `package.status`; both `cancel` or `watch` where somebody else's request is meant |
//! | `read_only` | whether the action's description says that it changes nothing |
//! | `arg.NAME` | an argument, defaults filled in; never one that is a secret |
//! | `noop`, `effective_user` | the command's options |
//! | `name`, `class`, `collective`, `fact.NAME` | this host |
//!
//! # When more than one person has to sign
//!
//! An `allow` rule may carry `approvals`: who has to have signed the same bytes besides the caller ([`Approvals`]).
//! Such a rule decides like any other: if its condition holds and somebody is missing, the request is refused
//! ([`Verdict::NeedsApproval`]), and no later rule is asked. Stopping or watching somebody's request never takes
//! a second person: there the approvals of a rule are not asked for.
//!
//! # When a value is missing
//!
//! A condition can come out as unknown, because it compares something that is not there. An `allow`
//! rule then does not apply. A `deny` rule then *does* apply: whoever wrote it wanted to stop
//! something, and a missing value must not be the way around it. Write `has(arg.force) and ...` where a
//! rule is meant to concern only requests that have the value.
//!
//! # When an argument is a list
//!
//! Nobody may put something forbidden beside something allowed. An `allow` rule applies if its condition holds
//! for every element of the list, a `deny` rule if it holds for one. Lists that the caller does not choose
//! (`group`, `class` and so on) are read as in targets: one element is enough.

mod approvals;
mod check;
mod explain;
mod read;

use std::path::PathBuf;

use muster_pki::Signer;
use muster_protocol::ddl::Input;
use muster_protocol::expr::{Expression, HostScope, MapScope, Reading, Scope, Truth};
use serde_json::{Map, Value};

pub use approvals::{Approvals, Requirement, Shortfall};
pub use check::{Known, Warning, Weight};
pub use explain::{Missing, missing};
use read::Condition;
pub use read::Place;

/// Most rules of a policy: each is evaluated for each command.
pub const RULES_MAX: usize = 1_000;

/// Largest policy file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The policy that ships with the agent.
pub const STARTER: &str = include_str!("../../../dist/etc/policy.toml");

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

/// Whether an argument is a secret, which no rule sees.
pub(crate) fn is_secret(input: &Input) -> bool {
    input.is_secret()
}

/// What the policy is asked about with no plugin behind it: stopping a request of somebody else, and looking
/// at one. `arg.request_id`, `arg.action` and `arg.caller` tell which.
pub const PSEUDO_ACTIONS: &[&str] = &[CANCEL, "watch"];

/// The one of them that never takes a second person.
pub const CANCEL: &str = "cancel";

/// What a rule does when its condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Lets it pass.
    Allow,
    /// Stops it.
    Deny,
}

impl Effect {
    /// How a rule with this effect reads an argument that is a list.
    pub(crate) fn reading(self) -> Reading<'static> {
        match self {
            Self::Allow => Reading::Surely("arg"),
            Self::Deny => Reading::Possibly("arg"),
        }
    }
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
    /// Who has to sign besides the caller before it lets something pass. Nobody for most rules.
    pub approvals: Approvals,
    /// Where it begins in its file.
    pub place: Place,
    condition: Condition,
}

/// A policy that parsed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    /// Of the text it was read from.
    sha256: String,
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
    /// This rule would allow it if more people had signed. No later rule is asked.
    NeedsApproval {
        /// Its name.
        rule: String,
        /// Who is missing.
        missing: Vec<Shortfall>,
    },
    /// No rule applies, so it is denied.
    NoRule,
}

impl Policy {
    /// SHA-256 of the text it was read from, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Asks the policy. `host` gives the host's own names.
    #[must_use]
    pub fn ask(&self, question: &Question<'_>, host: &HostScope<'_>) -> Verdict {
        self.ask_observed(question, host, &mut |_| {})
    }

    /// Asks the policy, and shows `observe` each rule that was looked at, the one that decides last.
    #[must_use]
    pub fn ask_observed(
        &self,
        question: &Question<'_>,
        host: &HostScope<'_>,
        observe: &mut dyn FnMut(&Step<'_>),
    ) -> Verdict {
        let scope = question.scope(host);
        for rule in &self.rules {
            let truth = rule.when.evaluate_as(rule.effect.reading(), &scope);
            let verdict = rule.verdict(truth, question.signers);
            observe(&Step { rule, truth, decides: verdict.is_some(), scope: &scope });
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        Verdict::NoRule
    }
}

impl Rule {
    /// What the rule decides if its condition comes out so.
    fn verdict(&self, truth: Truth, signers: &[Signer]) -> Option<Verdict> {
        match (self.effect, truth) {
            (Effect::Allow, Truth::True) => {
                let (rule, missing) = (self.name.clone(), self.approvals.missing(signers));
                Some(if missing.is_empty() {
                    Verdict::Allowed { rule }
                } else {
                    Verdict::NeedsApproval { rule, missing }
                })
            }
            (Effect::Deny, Truth::True) => Some(Verdict::Denied { rule: self.name.clone(), certain: true }),
            (Effect::Deny, Truth::Unknown) => Some(Verdict::Denied { rule: self.name.clone(), certain: false }),
            (Effect::Allow, Truth::Unknown | Truth::False) | (Effect::Deny, Truth::False) => None,
        }
    }
}

/// One rule that was looked at on the way to a verdict.
pub struct Step<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What its condition came to.
    pub truth: Truth,
    /// Whether the verdict is this rule's.
    pub decides: bool,
    /// The values its names had.
    pub scope: &'a dyn Scope,
}

impl std::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("rule", &self.rule.name).field("truth", &self.truth).finish_non_exhaustive()
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
