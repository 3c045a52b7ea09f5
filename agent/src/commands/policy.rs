//! `musterd policy`: is a policy right, and what does it say of a request.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use muster_agent::admit::{ForeignRequest, Petition, Refusal, examine, examine_foreign};
use muster_agent::policy::{
    Effect, Known, Missing, PSEUDO_ACTIONS, Policy, PolicyError, Requirement, Rule, Step, Weight, missing,
};
use muster_pki::Signer;
use muster_protocol::expr::Truth;
use muster_protocol::limits::SIGNATURES_MAX;
use muster_protocol::{ActionName, GroupName, Identity, PluginName, RequestId, SealedArguments, SealedBox, Timestamp};
use serde_json::{Map, Value, json};

use super::surroundings::Surroundings;
use super::{Files, complain, print};
use crate::complaint::Complaint;

/// The policy, or the request, was refused.
const EXIT_REFUSED: u8 = 6;

/// The words on the command line do not fit.
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say everything that is wrong with a policy. Exit code 0 if it can be used, 1 if not.
    Check {
        /// The policy [default: the one of the configuration].
        file: Option<PathBuf>,
        /// Also fail if there are warnings.
        #[arg(long)]
        strict: bool,
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what the policy does with a request, rule by rule. Exit code 0 if it is allowed, 6 if it is refused.
    Test(Box<Test>),
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Who asks, such as user/lea.
    #[arg(long, value_name = "IDENTITY")]
    caller: Identity,
    /// A group in the caller's certificate; may be repeated.
    #[arg(long, value_name = "GROUP")]
    group: Vec<GroupName>,
    /// Who signs besides the caller, with the groups in that certificate; may be repeated.
    #[arg(long, value_name = "IDENTITY[=GROUP,..]", value_parser = cosigner)]
    signer: Vec<Cosigner>,
    /// What is asked for, such as package.install; `cancel` or `watch` for a request of somebody else.
    #[arg(long, value_name = "PLUGIN.ACTION")]
    action: String,
    /// The arguments of the action. For `cancel` and `watch`: action=PLUGIN.ACTION caller=IDENTITY.
    #[arg(value_name = "NAME=VALUE")]
    arguments: Vec<String>,
    /// The user it is to run as.
    #[arg(long, value_name = "USER")]
    effective_user: Option<String>,
    /// It is only to be tried.
    #[arg(long)]
    noop: bool,
    /// A fact, in place of what this host has; may be repeated. VALUE is JSON or text.
    #[arg(long, value_name = "NAME=VALUE")]
    fact: Vec<String>,
    /// A class of the host beside those it has; may be repeated.
    #[arg(long, value_name = "CLASS")]
    class: Vec<String>,
    /// The policy [default: the one of the configuration].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print what happened as JSON.
    #[arg(long)]
    json: bool,
}

/// Somebody who signs besides the caller.
#[derive(Debug, Clone)]
struct Cosigner {
    identity: Identity,
    groups: BTreeSet<GroupName>,
}

fn cosigner(text: &str) -> Result<Cosigner, String> {
    let (identity, groups) = text.split_once('=').unwrap_or((text, ""));
    let identity = identity.parse().map_err(|error| format!("{error}"))?;
    let names = groups.split(',').filter(|name| !name.is_empty());
    let groups = names.map(|name| name.parse().map_err(|error| format!("group `{name}`: {error}")));
    Ok(Cosigner { identity, groups: groups.collect::<Result<_, String>>()? })
}

pub(crate) fn run(command: &PolicyCommand, files: &Files) -> ExitCode {
    let done = match command {
        PolicyCommand::Check { file, strict, json } => check(files, file.as_deref(), *strict, *json),
        PolicyCommand::Test(test) => try_out(files, test),
    };
    done.unwrap_or_else(|error| {
        match error.downcast_ref::<Usage>() {
            Some(usage) => {
                Complaint::new(&usage.0).print();
                return ExitCode::from(EXIT_USAGE);
            }
            None => complain(&error, files),
        }
        ExitCode::FAILURE
    })
}

/// Words that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn usage(why: impl Into<String>) -> anyhow::Error {
    Usage(why.into()).into()
}

fn which_file(asked: Option<&Path>, surroundings: &Surroundings) -> anyhow::Result<PathBuf> {
    match asked.or(surroundings.policy_file.as_deref()) {
        Some(path) => Ok(path.to_owned()),
        None => Err(usage("there is no configuration here that names a policy: name the file")),
    }
}

fn check(files: &Files, file: Option<&Path>, strict: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let surroundings = Surroundings::read(files)?;
    let path = which_file(file, &surroundings)?;
    // A file that is in force has to be trusted; a draft is only told about it.
    let loaded = match file {
        Some(path) => Policy::load_draft(path),
        None => Policy::load_all(&path).map(|policy| (policy, None)),
    };
    let mut findings = Vec::new();
    let rules = match loaded {
        Ok((policy, distrust)) => {
            findings.extend(distrust.iter().map(|error| Finding::of(error, "warning")));
            let known = Known {
                descriptions: surroundings.registry.iter().map(|registered| registered.plugin.ddl()).collect(),
                facts: surroundings.facts.as_deref(),
            };
            findings.extend(policy.warnings(&known).into_iter().map(|warning| Finding {
                line: warning.place.line,
                column: warning.place.column,
                kind: if warning.weight == Weight::Hint { "hint" } else { "warning" },
                message: format!("rule `{}`: {}", warning.rule, warning.message),
            }));
            policy.rules().len()
        }
        Err(errors) => {
            findings.extend(errors.iter().map(|error| Finding::of(error, "error")));
            0
        }
    };
    let count = |kind: &str| findings.iter().filter(|finding| finding.kind == kind).count();
    let (errors, warnings) = (count("error"), count("warning"));
    let good = errors == 0 && (!strict || warnings == 0);
    if as_json {
        let list: Vec<Value> = findings.iter().map(Finding::json).collect();
        let value = json!({ "file": path, "good": good, "rules": rules, "findings": list });
        print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    } else {
        let mut text: String = findings.iter().map(|finding| finding.line(&path)).collect();
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        if errors == 0 {
            let kept = if surroundings.facts.is_none() {
                "; facts and external plugins of a host were not at hand"
            } else {
                ""
            };
            writeln!(text, "{}, {}{kept}", plural(rules, "rule"), plural(warnings, "warning"))?;
        } else {
            writeln!(text, "{}: the policy cannot be used", plural(errors, "error"))?;
        }
        print(&text)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line of what `check` says.
struct Finding {
    /// 0 if it is about the file as a whole.
    line: usize,
    column: usize,
    kind: &'static str,
    message: String,
}

impl Finding {
    fn of(error: &PolicyError, kind: &'static str) -> Self {
        match error {
            PolicyError::Wrong { line, column, why, .. } => {
                Self { line: *line, column: *column, kind, message: why.clone() }
            }
            PolicyError::Read { .. } | PolicyError::TooLarge { .. } => {
                let source = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
                Self { line: 0, column: 0, kind, message: format!("{error}{source}") }
            }
        }
    }

    fn line(&self, path: &Path) -> String {
        let place = if self.line == 0 { String::new() } else { format!(":{}:{}", self.line, self.column) };
        format!("{}{place}: {}: {}\n", path.display(), self.kind, self.message)
    }

    fn json(&self) -> Value {
        let place = |number: usize| (number > 0).then_some(number);
        json!({
            "line": place(self.line), "column": place(self.column), "kind": self.kind, "message": self.message
        })
    }
}

/// One rule on the way, as it is shown.
struct Shown<'a> {
    rule: &'a Rule,
    /// `None` for a rule behind the one that decided.
    truth: Option<Truth>,
    decides: bool,
    missing: Vec<Missing>,
}

fn try_out(files: &Files, test: &Test) -> anyhow::Result<ExitCode> {
    let mut surroundings = Surroundings::read(files)?;
    let path = which_file(test.file.as_deref(), &surroundings)?;
    let policy = match &test.file {
        Some(path) => Policy::load_draft(path).map(|(policy, _)| policy),
        None => Policy::load_all(&path),
    };
    let policy = match policy {
        Ok(policy) => policy,
        Err(errors) => {
            errors.iter().map(Complaint::of_policy).for_each(|complaint| complaint.print());
            return Ok(ExitCode::FAILURE);
        }
    };
    surroundings.classes.extend(test.class.iter().cloned());
    let mut facts = surroundings.facts.as_deref().cloned().unwrap_or_default();
    for word in &test.fact {
        let (name, value) = word.split_once('=').ok_or_else(|| usage(format!("`{word}` is no fact: NAME=VALUE")))?;
        insert(&mut facts, name, value_of(value));
    }
    let signers = signers(test)?;
    let mut looked = Vec::new();
    let mut observe = |step: &Step<'_>| {
        let missing = if step.truth == Truth::Unknown { missing(&step.rule.when, step.scope) } else { Vec::new() };
        looked.push((step.truth, step.decides, missing));
    };
    let calls = BTreeMap::new();
    let scope = surroundings.scope(&facts, &calls);
    let answer = if PSEUDO_ACTIONS.contains(&test.action.as_str()) {
        let given = pairs(&test.arguments)?;
        let text = |name: &str| given.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let caller = text("caller").ok_or_else(|| usage("whose request? Add caller=IDENTITY"))?;
        let caller: Identity = caller.parse().map_err(|error| usage(format!("`caller`: {error}")))?;
        if caller == test.caller {
            return Err(usage("whoever sent a request may cancel and watch it; no policy is asked about that"));
        }
        let action = text("action").ok_or_else(|| usage("which action does it run? Add action=PLUGIN.ACTION"))?;
        let id = match text("request_id") {
            Some(text) => text.parse().map_err(|error| usage(format!("`request_id`: {error}")))?,
            None => RequestId::from_parts(Timestamp(0), [0; 10]),
        };
        let request = ForeignRequest { id, caller: &caller, action };
        examine_foreign(&test.action, &request, &signers, &policy, &scope, &mut observe)
    } else {
        let (plugin, action) = names(&test.action)?;
        let mut arguments = typed(&surroundings, &plugin, &action, &pairs(&test.arguments)?);
        let secrets = take_secrets(&surroundings, &plugin, &action, &mut arguments);
        let sealed = (!secrets.is_empty()).then(|| sealed(&secrets));
        let petition = Petition {
            signers: &signers,
            plugin: &plugin,
            action: &action,
            arguments: &arguments,
            sealed: sealed.as_ref(),
            noop: test.noop,
            effective_user: test.effective_user.as_deref(),
        };
        examine(&petition, &surroundings.registry, &policy, &scope, &mut observe, || Ok(secrets))
            .map(|examined| examined.rule)
    };
    let mut looked = looked.into_iter();
    let shown: Vec<Shown<'_>> = policy
        .rules()
        .iter()
        .map(|rule| match looked.next() {
            Some((truth, decides, missing)) => Shown { rule, truth: Some(truth), decides, missing },
            None => Shown { rule, truth: None, decides: false, missing: Vec::new() },
        })
        .collect();
    print(&if test.json {
        as_json(test, &surroundings, &path, &shown, &answer)?
    } else {
        as_text(test, &surroundings, &path, &shown, &answer)
    })?;
    Ok(if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
}

fn signers(test: &Test) -> anyhow::Result<Vec<Signer>> {
    let caller = Cosigner { identity: test.caller.clone(), groups: test.group.iter().cloned().collect() };
    let mut signers: Vec<Signer> = Vec::new();
    for Cosigner { identity, groups } in std::iter::once(&caller).chain(&test.signer) {
        if !identity.is_controller() {
            return Err(usage(format!("`{}` is not a user or a service", identity.short())));
        }
        if signers.iter().any(|signer| signer.identity == *identity) {
            return Err(usage(format!("`{}` signs twice; such a message is refused", identity.short())));
        }
        signers.push(Signer {
            identity: identity.clone(),
            groups: groups.clone(),
            fingerprint: String::new(),
            not_after: Timestamp(i64::MAX),
        });
    }
    if signers.len() > SIGNATURES_MAX {
        return Err(usage(format!("a message has at most {SIGNATURES_MAX} signatures")));
    }
    Ok(signers)
}

fn names(text: &str) -> anyhow::Result<(PluginName, ActionName)> {
    let wrong = || usage(format!("`{text}` is not an action: PLUGIN.ACTION, or {}", PSEUDO_ACTIONS.join(", ")));
    let (plugin, action) = text.split_once('.').ok_or_else(wrong)?;
    Ok((plugin.parse().map_err(|_| wrong())?, action.parse().map_err(|_| wrong())?))
}

fn pairs(words: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let split = |word: &String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    words.iter().map(|word| split(word).ok_or_else(|| usage(format!("`{word}` is no argument: NAME=VALUE")))).collect()
}

/// The arguments with the types that the action's description gives them. What does not fit it stays as it
/// was typed, and is refused where the agent would refuse it.
fn typed(
    surroundings: &Surroundings,
    plugin: &PluginName,
    action: &ActionName,
    pairs: &[(String, String)],
) -> Map<String, Value> {
    let described = surroundings.registry.get(plugin).and_then(|it| it.plugin.ddl().action(action));
    let parsed = described.and_then(|action| action.parse_arguments(pairs).ok());
    parsed.unwrap_or_else(|| {
        pairs.iter().map(|(name, value)| (name.trim_end_matches(':').to_owned(), value_of(value))).collect()
    })
}

/// Takes out the arguments that `muster run` would seal.
fn take_secrets(
    surroundings: &Surroundings,
    plugin: &PluginName,
    action: &ActionName,
    arguments: &mut Map<String, Value>,
) -> Map<String, Value> {
    let Some(registered) = surroundings.registry.get(plugin) else { return Map::new() };
    let names = registered.plugin.ddl().secret_inputs(action);
    names.filter_map(|name| arguments.remove_entry(name)).collect()
}

/// What stands in a command for its secrets. Nobody opens this one.
fn sealed(secrets: &Map<String, Value>) -> SealedArguments {
    SealedArguments {
        names: secrets.keys().cloned().collect(),
        public_key: String::new(),
        values: SealedBox::encode(&[], &[]),
        recipients: BTreeMap::new(),
    }
}

fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Puts a value where a dotted name points.
fn insert(facts: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            facts.insert(name.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = facts.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn word(truth: Option<Truth>) -> &'static str {
    match truth {
        Some(Truth::True) => "true",
        Some(Truth::False) => "false",
        Some(Truth::Unknown) => "unknown",
        None => "not asked",
    }
}

fn effect(rule: &Rule) -> &'static str {
    match rule.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

/// `1 of group sre, 2 of any users`.
fn needs(rule: &Rule) -> String {
    let one = |one: &Requirement| match &one.group {
        Some(group) => format!("{} of group {group}", one.count),
        None => format!("{} of any users", one.count),
    };
    rule.approvals.requirements().iter().map(one).collect::<Vec<_>>().join(", ")
}

fn why(missing: &Missing) -> String {
    if missing.has_value {
        format!("`{}` has a value that cannot be compared so: {}", missing.name, missing.comparison)
    } else {
        format!("`{}` is not there: {}", missing.name, missing.comparison)
    }
}

fn as_text(
    test: &Test,
    surroundings: &Surroundings,
    path: &Path,
    shown: &[Shown<'_>],
    answer: &Result<String, Refusal>,
) -> String {
    let mut text = format!("{} asks {} for {}", test.caller.short(), surroundings.host, test.action);
    test.arguments.iter().for_each(|word| text.push_str(&format!(" {word}")));
    if surroundings.facts.is_none() {
        text.push_str("\nfacts of a host are not at hand; only those given with --fact are there");
    }
    text.push_str(&format!("\npolicy {}\n\n", path.display()));
    let width = shown.iter().map(|line| line.rule.name.chars().count()).max().unwrap_or(0);
    for line in shown {
        let mark = if line.decides { "  decides" } else { "" };
        let (name, truth) = (&line.rule.name, word(line.truth));
        let row = format!("{:>5}  {:<5}  {name:<width$}  {truth:<9}{mark}", line.rule.place.line, effect(line.rule));
        text.push_str(&format!("{}\n", row.trim_end()));
        if line.truth.is_some() && !line.rule.approvals.is_empty() {
            text.push_str(&format!("{:14}approvals: {}\n", "", needs(line.rule)));
        }
        line.missing.iter().for_each(|missing| text.push_str(&format!("{:14}{}\n", "", why(missing))));
    }
    if !shown.is_empty() {
        text.push('\n');
    }
    match answer {
        Ok(rule) => text.push_str(&format!("allowed by rule `{rule}`\n")),
        Err(refusal) => {
            text.push_str(&format!("refused; the sender is told: {}: {}\n", refusal.code.code, refusal.message));
        }
    }
    text
}

fn as_json(
    test: &Test,
    surroundings: &Surroundings,
    path: &Path,
    shown: &[Shown<'_>],
    answer: &Result<String, Refusal>,
) -> anyhow::Result<String> {
    let rules: Vec<Value> = shown
        .iter()
        .map(|line| {
            json!({
                "name": line.rule.name,
                "line": line.rule.place.line,
                "effect": effect(line.rule),
                "when": line.rule.when.as_str(),
                "approvals": line.rule.approvals,
                "truth": line.truth.map(|truth| word(Some(truth))),
                "decides": line.decides,
                "missing": line.missing,
            })
        })
        .collect();
    let refusal = answer.as_ref().err();
    let value = json!({
        "host": surroundings.host,
        "policy": path,
        "caller": test.caller,
        "groups": test.group,
        "action": test.action,
        "allowed": answer.is_ok(),
        "rule": answer.as_ref().ok().or_else(|| refusal.and_then(|refusal| refusal.rule.as_ref())),
        "code": refusal.map(|refusal| refusal.code.code),
        "message": refusal.map(|refusal| &refusal.message),
        "missing_approvals": refusal.map(|refusal| &refusal.data["missing"]),
        "rules": rules,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}
