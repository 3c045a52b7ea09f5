//! What is allowed in a policy and surely not meant: rules that can never decide, names nobody has.
//!
//! These are warnings. A rule about a plugin that is installed tomorrow is no mistake, and a rule that can
//! never decide lets nothing through.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::ddl::Ddl;
use muster_protocol::expr::{Comparison, Literal, Node, Operand, Path, Segment, did_you_mean, lookup};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CANCEL, Effect, PSEUDO_ACTIONS, Place, Policy, Rule};

/// What the checker knows of the host that the policy is for.
#[derive(Debug, Clone, Default)]
pub struct Known<'a> {
    /// The descriptions of its plugins. Without any, names of plugins and actions are not checked.
    pub descriptions: Vec<&'a Ddl>,
    /// Its facts; `None` if they are not known.
    pub facts: Option<&'a Map<String, Value>>,
}

/// How sure the checker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The rule does not do what it seems to do.
    Warning,
    /// It depends on the host.
    Hint,
}

/// Something that is surely not meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// Where it stands.
    pub place: Place,
    /// How sure it is.
    pub weight: Weight,
    /// The rule's name.
    pub rule: String,
    /// What is wrong, in words.
    pub message: String,
}

impl Policy {
    /// What is surely not meant in this policy, in the order of the file.
    #[must_use]
    pub fn warnings(&self, known: &Known<'_>) -> Vec<Warning> {
        let mut found = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            found.extend(never_decides(rule, &self.rules[..index]));
            found.extend(names(rule, known));
            found.extend(arguments(rule, known));
            found.extend(facts(rule, known));
            found.extend(unasked_approvals(rule));
        }
        found.sort();
        found.dedup();
        found
    }
}

impl Rule {
    fn warn(&self, place: Place, weight: Weight, message: String) -> Warning {
        Warning { place, weight, rule: self.name.clone(), message }
    }
}

/// Says why a rule never decides, if that is so whatever is asked.
fn never_decides(rule: &Rule, before: &[Rule]) -> Option<Warning> {
    let warn = |message: String| Some(rule.warn(rule.place, Weight::Warning, message));
    if let Some(why) = contradiction(rule.when.root()) {
        return warn(format!("can never decide: {why}"));
    }
    let earlier = before.iter().find(|earlier| is_no_more_than(rule.when.root(), earlier.when.root()))?;
    let (name, line) = (&earlier.name, earlier.place.line);
    if earlier.when.root() == &Node::Constant(true) {
        return warn(format!("can never decide: rule `{name}` (line {line}) decides everything before it"));
    }
    match (earlier.effect, rule.effect) {
        // Of a list as an argument, the one rule looks at all elements and the other at any.
        (Effect::Allow, Effect::Deny) if rule.when.paths().any(|path| path.root() == "arg") => None,
        (Effect::Allow, Effect::Deny) => warn(format!(
            "denies only where a value is missing: rule `{name}` (line {line}) allows before it whatever it is about"
        )),
        _ => warn(format!(
            "can never decide: rule `{name}` (line {line}) decides before it whenever its condition holds"
        )),
    }
}

/// Whether `narrow` never comes out greater than `wide`, in the order false, unknown, true. Says no where it
/// cannot tell.
fn is_no_more_than(narrow: &Node, wide: &Node) -> bool {
    match (narrow, wide) {
        (narrow, wide) if narrow == wide => true,
        (Node::Constant(false), _) | (_, Node::Constant(true)) => true,
        (Node::Or(parts), wide) => parts.iter().all(|part| is_no_more_than(part, wide)),
        (narrow, Node::And(parts)) => parts.iter().all(|part| is_no_more_than(narrow, part)),
        (Node::And(parts), wide) if parts.iter().any(|part| is_no_more_than(part, wide)) => true,
        (narrow, Node::Or(parts)) => parts.iter().any(|part| is_no_more_than(narrow, part)),
        _ => false,
    }
}

/// Names that have at most one value, so that two different ones cannot both hold.
const SINGLE: &[&str] =
    &["caller", "caller.kind", "caller.name", "plugin", "action", "name", "effective_user", "read_only", "noop"];

/// Why a condition never holds.
fn contradiction(node: &Node) -> Option<String> {
    let parts = match node {
        Node::Constant(false) => return Some("its condition is `false`".to_owned()),
        Node::And(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut wanted: BTreeMap<String, &Literal> = BTreeMap::new();
    for part in parts {
        if let Node::Constant(false) = part {
            return Some("a part of its condition is `false`".to_owned());
        }
        let Node::Compare { operand: Operand::Path(path), comparison: Comparison::Equal(literal) } = part else {
            continue;
        };
        let name = path.to_string();
        if name == "caller.kind" && !matches!(literal, Literal::Text(kind) if kind == "user" || kind == "service") {
            return Some("a caller is a `user` or a `service`".to_owned());
        }
        if SINGLE.contains(&name.as_str())
            && let Some(other) = wanted.insert(name.clone(), literal)
            && other != literal
        {
            return Some(format!("`{name}` cannot have two values at once"));
        }
    }
    if let (Some(Literal::Text(plugin)), Some(Literal::Text(action))) = (wanted.get("plugin"), wanted.get("action"))
        && action.split('.').next() != Some(plugin)
    {
        return Some(format!("action `{action}` is not one of plugin `{plugin}`"));
    }
    None
}

/// The texts that a comparison names, if it names any.
fn literals(comparison: &Comparison) -> Vec<&str> {
    fn text(literal: &Literal) -> Option<&str> {
        match literal {
            Literal::Text(text) => Some(text),
            _ => None,
        }
    }
    match comparison {
        Comparison::Equal(literal) | Comparison::NotEqual(literal) => text(literal).into_iter().collect(),
        Comparison::In(list) | Comparison::NotIn(list) => list.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}

/// Every comparison of a path, from left to right.
fn comparisons<'a>(node: &'a Node, found: &mut Vec<(&'a Path, &'a Comparison)>) {
    match node {
        Node::And(parts) | Node::Or(parts) => parts.iter().for_each(|part| comparisons(part, found)),
        Node::Not(part) => comparisons(part, found),
        Node::Compare { operand: Operand::Path(path), comparison } => found.push((path, comparison)),
        Node::Constant(_) | Node::Has(_) | Node::Compare { .. } => {}
    }
}

/// Names of plugins and actions that nothing here has.
fn names(rule: &Rule, known: &Known<'_>) -> Vec<Warning> {
    if known.descriptions.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    comparisons(rule.when.root(), &mut found);
    let mut warnings = Vec::new();
    for (path, comparison) in found {
        let (what, accepted) = match path.to_string().as_str() {
            "plugin" => ("plugin", known.plugins()),
            "action" => ("action", known.actions()),
            _ => continue,
        };
        for name in literals(comparison) {
            if accepted.contains(name) {
                continue;
            }
            let (weight, why) = match did_you_mean(name, accepted.iter().map(String::as_str)) {
                Some(near) => (Weight::Warning, format!("; did you mean `{near}`?")),
                None if what == "action" && !name.contains('.') => {
                    (Weight::Warning, "; an action is written `plugin.action`".to_owned())
                }
                // A plugin of another host, or of tomorrow.
                None => (Weight::Hint, String::new()),
            };
            let place = rule.condition.place_of(name);
            warnings.push(rule.warn(place, weight, format!("no {what} here is called `{name}`{why}")));
        }
        if let Comparison::Like(glob) = comparison
            && !accepted.iter().any(|name| glob.is_match(name))
        {
            let place = rule.condition.place_of(glob.as_str());
            let message = format!("no {what} here fits `{}`", glob.as_str());
            warnings.push(rule.warn(place, Weight::Hint, message));
        }
    }
    warnings
}

impl Known<'_> {
    fn plugins(&self) -> BTreeSet<String> {
        let described = self.descriptions.iter().map(|ddl| ddl.name().to_string());
        described.chain(PSEUDO_ACTIONS.iter().map(ToString::to_string)).collect()
    }

    fn actions(&self) -> BTreeSet<String> {
        self.inputs().into_keys().collect()
    }

    /// The inputs of each action, and whether each is a secret.
    fn inputs(&self) -> BTreeMap<String, BTreeMap<&str, bool>> {
        let mut all = BTreeMap::new();
        for ddl in &self.descriptions {
            for action in &ddl.actions {
                let inputs = action.input.iter().map(|(name, input)| (name, super::is_secret(input))).collect();
                all.insert(format!("{}.{}", ddl.name(), action.name), inputs);
            }
        }
        for pseudo in PSEUDO_ACTIONS {
            let inputs = ["request_id", "action", "caller"].map(|name| (name, false));
            all.insert((*pseudo).to_owned(), BTreeMap::from(inputs));
        }
        all
    }
}

/// The actions a condition can hold for, as far as it names them; `None` for any.
fn actions_meant(node: &Node, all: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let those = |test: &dyn Fn(&str) -> bool| Some(all.iter().filter(|name| test(name)).cloned().collect());
    match node {
        Node::And(parts) => parts
            .iter()
            .filter_map(|part| actions_meant(part, all))
            .reduce(|these, those| these.intersection(&those).cloned().collect()),
        Node::Or(parts) => {
            let each: Option<Vec<_>> = parts.iter().map(|part| actions_meant(part, all)).collect();
            Some(each?.into_iter().flatten().collect())
        }
        Node::Compare { operand: Operand::Path(path), comparison } => {
            let plugin = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
            let part: &dyn Fn(&str) -> String = match path.to_string().as_str() {
                "action" => &ToOwned::to_owned,
                "plugin" => &plugin,
                _ => return None,
            };
            match comparison {
                Comparison::Equal(_) | Comparison::In(_) => {
                    let wanted = literals(comparison);
                    those(&|name| wanted.contains(&part(name).as_str()))
                }
                Comparison::Like(glob) => those(&|name| glob.is_match(&part(name))),
                _ => None,
            }
        }
        Node::Constant(_) | Node::Has(_) | Node::Not(_) | Node::Compare { .. } => None,
    }
}

/// Arguments that no action the rule can be about takes, and secrets, which no rule sees.
fn arguments(rule: &Rule, known: &Known<'_>) -> Vec<Warning> {
    if known.descriptions.is_empty() {
        return Vec::new();
    }
    let inputs = known.inputs();
    let all: BTreeSet<String> = inputs.keys().cloned().collect();
    let meant = actions_meant(rule.when.root(), &all);
    let meant: Vec<_> =
        inputs.iter().filter(|(name, _)| meant.as_ref().is_none_or(|meant| meant.contains(*name))).collect();
    if meant.is_empty() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for path in rule.when.paths() {
        let ("arg", Some(Segment::Name(name))) = (path.root(), path.segments().get(1)) else { continue };
        let place = rule.condition.place_of(&path.to_string());
        let taking: Vec<_> =
            meant.iter().filter_map(|(action, inputs)| Some((action, *inputs.get(name.as_str())?))).collect();
        if taking.is_empty() {
            let names: BTreeSet<&str> = meant.iter().flat_map(|(_, inputs)| inputs.keys().copied()).collect();
            let near =
                did_you_mean(name, names).map_or_else(String::new, |near| format!("; did you mean `arg.{near}`?"));
            let message = format!("no action that the rule is about takes `{name}`{near}");
            warnings.push(rule.warn(place, Weight::Warning, message));
        }
        let secret: Vec<String> =
            taking.iter().filter(|(_, secret)| *secret).map(|(action, _)| format!("`{action}`")).collect();
        if !secret.is_empty() {
            let then = match rule.effect {
                Effect::Allow => "so the rule does not apply where it depends on it",
                Effect::Deny => "so the rule denies where it depends on it",
            };
            let message =
                format!("`{path}` is a secret of {}; no rule sees it: it is unknown, {then}", secret.join(", "));
            warnings.push(rule.warn(place, Weight::Warning, message));
        }
    }
    warnings
}

/// Approvals of a rule that is only about stopping, where nobody is asked for them.
fn unasked_approvals(rule: &Rule) -> Option<Warning> {
    let all: BTreeSet<String> = PSEUDO_ACTIONS.iter().copied().chain(["any.other"]).map(ToOwned::to_owned).collect();
    let mut meant = actions_meant(rule.when.root(), &all)?;
    let only_cancel = meant.remove(CANCEL) && meant.is_empty();
    (only_cancel && !rule.approvals.is_empty()).then(|| {
        let message = "`approvals` are never asked for `cancel`: stopping takes no second person";
        rule.warn(rule.place, Weight::Warning, message.to_owned())
    })
}

/// Facts that this host does not have.
fn facts(rule: &Rule, known: &Known<'_>) -> Vec<Warning> {
    let Some(facts) = known.facts else { return Vec::new() };
    let facts = Value::Object(facts.clone());
    let mut hints = Vec::new();
    for path in rule.when.paths().filter(|path| path.root() == "fact") {
        let segments = path.segments().get(1..).unwrap_or_default();
        if lookup(&facts, segments).is_some() {
            continue;
        }
        let near = match (segments, &facts) {
            ([Segment::Name(name)], Value::Object(facts)) => did_you_mean(name, facts.keys().map(String::as_str)),
            _ => None,
        };
        let near = near.map_or_else(String::new, |near| format!("; did you mean `fact.{near}`?"));
        let message = format!("this host has no `{path}` now{near}");
        hints.push(rule.warn(rule.condition.place_of(&path.to_string()), Weight::Hint, message));
    }
    hints
}

#[cfg(test)]
mod tests {
    use muster_protocol::expr::{Expression, MapScope, Truth};
    use proptest::prelude::*;

    use super::*;

    fn condition() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec!["a = 1", "b = 1", "c = 1", "has(a)", "true", "false"]);
        leaf.prop_map(ToOwned::to_owned).prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" and "))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" or "))),
                inner.prop_map(|part| format!("not ({part})")),
            ]
        })
    }

    proptest! {
        /// What the checker calls narrower never comes out greater.
        #[test]
        fn narrower_is_never_greater(narrow in condition(), wide in condition(), values in any::<[Option<bool>; 3]>()) {
            let (narrow, wide) = (Expression::parse(&narrow).unwrap(), Expression::parse(&wide).unwrap());
            let mut scope = MapScope::new();
            for (name, value) in ["a", "b", "c"].into_iter().zip(values) {
                scope = scope.set(name, value.map(|value| Value::from(i64::from(value))));
            }
            let (less, more): (Truth, Truth) = (narrow.evaluate(&scope), wide.evaluate(&scope));
            prop_assert!(!is_no_more_than(narrow.root(), wide.root()) || less <= more, "{narrow} {wide}");
            let both = Expression::parse(&format!("({narrow}) and ({wide})")).unwrap();
            prop_assert!(is_no_more_than(both.root(), wide.root()), "{both} {wide}");
        }
    }
}
