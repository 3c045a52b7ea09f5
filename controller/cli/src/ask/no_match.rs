//! Nobody matches: which part of the target no host has, and what is near to it.
//!
//! Said from what is remembered of the hosts, which the hosts were asked for just before. Where
//! nothing is known, only what was asked is said.

use std::collections::BTreeSet;

use muster_client::cache::HostCache;
use muster_client::discover::{audience, note_pings, ping};
use muster_protocol::HostName;
use muster_protocol::expr::{Call, Comparison, Expression, Literal, Node, Operand, did_you_mean};

use super::follow::follow;
use super::scene::Scene;
use super::search::unwilling_words;
use super::stranger;
use crate::catalogue::Catalogue;
use crate::output::{ExitCode, Failure, fold, number};
use crate::target::{Target, quoted};

/// How long is waited for any host at all, in milliseconds, where none is known.
const ANYBODY_MS: i64 = 1_000;

/// Most named hosts that have a line of their own.
const NAMED_MAX: usize = 5;

/// Most names of facts or values that are listed.
const LISTED_MAX: usize = 3;

/// Names of a target that are no facts.
const RESERVED: [&str; 4] = ["name", "class", "plugin", "collective"];

/// What is known of those who are not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nobody {
    /// Hosts that matched before and are silent now, or were named and are silent.
    pub(crate) silent: BTreeSet<HostName>,
    /// Those of them that the broker has no queue for.
    pub(crate) no_queue: BTreeSet<HostName>,
    /// Hosts that match the condition, and are not named or are left out.
    pub(crate) outside: BTreeSet<HostName>,
    /// Hosts that refuse to be asked whether they match.
    pub(crate) unwilling: BTreeSet<HostName>,
}

/// Learns what there is to learn in a moment, and makes the error of it.
pub(crate) async fn explain(scene: &mut Scene<'_>, target: &Target, nobody: &Nobody) -> Failure {
    if target.expression.is_some() && nobody.outside.is_empty() {
        learn(scene).await;
    }
    let catalogue = Catalogue::load(Some(scene.context)).unwrap_or_else(|_| Catalogue::builtin());
    let failure = failure(scene.cache, &catalogue, target, nobody);
    match nobody.unwilling.is_empty() {
        true => failure,
        false => failure.why("note", unwilling_words(&nobody.unwilling)),
    }
}

async fn learn(scene: &mut Scene<'_>) {
    if scene.cache.hosts().is_empty()
        && let Ok(mut asking) = scene.controller.ask(&ping(audience(None), ANYBODY_MS, Default::default()))
    {
        follow(&mut asking, &mut scene.stop, |_, _| std::ops::ControlFlow::Continue(())).await;
        let summary = asking.into_summary();
        let now = scene.now();
        note_pings(scene.cache, &summary, now);
    }
    if scene.stop.stopped().is_none() {
        let hosts: Vec<_> = scene.cache.hosts().keys().cloned().collect();
        scene.learn(hosts).await;
    }
}

/// The error, from what is remembered.
fn failure(cache: &mut HostCache, catalogue: &Catalogue, target: &Target, nobody: &Nobody) -> Failure {
    if let Some(left_out) = left_out(target, nobody) {
        return left_out;
    }
    match (&target.expression, &target.hosts) {
        (None, Some(names)) => nobody_named(cache, names, nobody),
        (None, None) => {
            let failure = no_match("no host answered");
            let failure = match nobody.silent.is_empty() {
                true => failure.why("note", "nobody is connected, or nobody may answer you"),
                false => silent_note(failure, nobody),
            };
            failure.hint("muster doctor")
        }
        (Some(expression), names) => {
            let failure = no_match("no host matches this target");
            match names {
                Some(_) if !nobody.outside.is_empty() => {
                    let others = number::counted(nobody.outside.len(), "other host", "other hosts");
                    let failure = failure
                        .why("target", target.shown())
                        .why("note", format!("it holds on {others}, and on none of those named with -H"));
                    silent_note(failure, nobody).hint(find(&target.shown()))
                }
                _ => condition(cache, catalogue, failure, target, expression, nobody),
            }
        }
    }
}

fn no_match(what: &str) -> Failure {
    Failure::new(ExitCode::NoMatch, "no-match", what)
}

fn find(query: &str) -> String {
    format!("muster find -t {}", quoted(query))
}

fn silent_note(failure: Failure, nobody: &Nobody) -> Failure {
    match nobody.silent.len() {
        0 => failure,
        silent => failure
            .why("note", format!("{} before and silent now", number::counted(silent, "host matched", "hosts matched"))),
    }
}

/// `--exclude` has left nobody: that is no riddle.
fn left_out(target: &Target, nobody: &Nobody) -> Option<Failure> {
    let excluded = |hosts: &BTreeSet<HostName>| !hosts.is_empty() && hosts.is_subset(&target.excluded);
    let all = match (&target.expression, &target.hosts) {
        (None, Some(names)) => excluded(names),
        _ => nobody.silent.is_empty() && excluded(&nobody.outside),
    };
    all.then(|| {
        let names = fold::fold_line(target.excluded.iter().map(HostName::as_str));
        no_match("every host of the target is excluded").why("target", target.shown()).why("exclude", names)
    })
}

/// Names alone, and none of them answers.
fn nobody_named(cache: &HostCache, names: &BTreeSet<HostName>, nobody: &Nobody) -> Failure {
    let mut failure = no_match("no host that was named answers");
    for host in names.iter().take(NAMED_MAX) {
        let why = match nobody.no_queue.contains(host) {
            true => stranger::no_queue(cache, host),
            false => "silent".to_owned(),
        };
        failure = failure.why(host.as_str(), why);
    }
    if names.len() > NAMED_MAX {
        failure = failure.why("note", format!("and {} more", number::count(names.len() - NAMED_MAX)));
    }
    // Somebody has a queue and is silent: that is for the doctor. Else only the names are wrong.
    match nobody.no_queue.is_superset(names) {
        true => failure.hint("muster host list"),
        false => failure.hint("muster doctor"),
    }
}

/// A condition that holds nowhere.
fn condition(
    cache: &mut HostCache,
    catalogue: &Catalogue,
    failure: Failure,
    target: &Target,
    expression: &Expression,
    nobody: &Nobody,
) -> Failure {
    let shown = target.shown();
    let known = cache.inventories().len();
    let blame =
        unknown_call(catalogue, expression).or_else(|| if known == 0 { None } else { blame(cache, expression) });
    let (failure, better) = match blame {
        Some(blame) => {
            let failure = match locate(&shown, &blame.part) {
                Some((start, length)) => {
                    let carets = format!("{}{} {}", " ".repeat(start), "^".repeat(length), blame.why);
                    failure.why("target", format!("{shown}\n{carets}"))
                }
                None => failure.why("target", shown).why("part", format!("{}  {}", blame.part, blame.why)),
            };
            (failure, blame.instead)
        }
        None if known == 0 => {
            let note = "no host told its facts, so the part that fails is not known";
            (failure.why("target", shown).why("note", note), None)
        }
        None => {
            let (note, better) = together(cache, expression, nobody);
            let failure = failure.why("target", shown);
            (note.into_iter().fold(failure, |failure, note| failure.why("note", note)), better)
        }
    };
    let failure = silent_note(failure, nobody);
    match better {
        Some(query) => failure.hint(find(&query)),
        None if known == 0 => failure.hint("muster find --all"),
        None => failure,
    }
}

/// The part of a target that is to blame.
struct Blame {
    /// Its canonical text.
    part: String,
    /// What is wrong with it.
    why: String,
    /// The whole target with the nearest thing in its place.
    instead: Option<String>,
}

/// A data call that no description knows. A host may know it all the same, but a slip is more likely.
fn unknown_call(catalogue: &Catalogue, expression: &Expression) -> Option<Blame> {
    let queries: Vec<&str> =
        catalogue.iter().flat_map(|ddl| ddl.muster.data.iter().map(|query| query.name.as_str())).collect();
    let call = expression.calls().find(|call| !queries.contains(&call.function()))?;
    let mut why = format!("no plugin known here answers `{}`", call.function());
    let mut instead = None;
    match did_you_mean(call.function(), queries.iter().copied()) {
        Some(nearest) => {
            why.push_str(&format!("; nearest: {nearest}"));
            let root = renamed(expression.root(), call.function(), nearest);
            instead = Expression::from_node(root).ok().map(|better| better.as_str().to_owned());
        }
        None if !queries.is_empty() => why.push_str(&format!("; there are: {}", queries.join(", "))),
        None => {}
    }
    Some(Blame { part: call.canonical(), why, instead })
}

/// The tree with another name for a data call.
fn renamed(node: &Node, from: &str, to: &str) -> Node {
    let operand = |operand: &Operand| match operand {
        Operand::Call { call, fields } if call.function() == from => {
            let call = Call::new(to, call.arguments().to_vec()).unwrap_or_else(|_| call.clone());
            Operand::Call { call, fields: fields.clone() }
        }
        other => other.clone(),
    };
    match node {
        Node::Constant(value) => Node::Constant(*value),
        Node::And(parts) => Node::and(parts.iter().map(|part| renamed(part, from, to))),
        Node::Or(parts) => Node::or(parts.iter().map(|part| renamed(part, from, to))),
        Node::Not(part) => Node::negated(renamed(part, from, to)),
        Node::Has(has) => Node::Has(operand(has)),
        Node::Compare { operand: left, comparison } => {
            Node::Compare { operand: operand(left), comparison: comparison.clone() }
        }
    }
}

/// The first of the conditions that must all hold that holds on no known host.
fn blame(cache: &mut HostCache, expression: &Expression) -> Option<Blame> {
    let known = cache.inventories().len();
    for part in parts(expression) {
        let Ok(condition) = Expression::from_node(part.clone()) else { continue };
        // What a plugin would answer is not remembered.
        if condition.calls().next().is_some() || cache.count(&condition) > 0 {
            continue;
        }
        let hosts = number::counted(known, "host", "hosts");
        let mut why = format!("none of {hosts} has this");
        let mut instead = None;
        if let Some((nearest, fixed)) = nearest(cache, part) {
            why.push_str(&nearest);
            instead = fixed.and_then(|fixed| replaced(expression, part, fixed));
        }
        return Some(Blame { part: condition.as_str().to_owned(), why, instead });
    }
    None
}

/// The conditions that must all hold.
fn parts(expression: &Expression) -> Vec<&Node> {
    match expression.root() {
        Node::And(parts) => parts.iter().collect(),
        node => vec![node],
    }
}

/// The nearest known value or name for a comparison, and the comparison with it.
fn nearest(cache: &mut HostCache, part: &Node) -> Option<(String, Option<Node>)> {
    let Node::Compare { operand: Operand::Path(path), comparison } = part else { return None };
    let path_text = path.to_string();
    let values = cache.values(&path_text);
    if values.is_empty() {
        if RESERVED.contains(&path_text.as_str()) {
            return Some((format!("; no known host has any {path_text}"), None));
        }
        return nearest_name(cache, &path_text, comparison);
    }
    let Comparison::Equal(literal) = comparison else { return None };
    let wanted = match literal {
        Literal::Text(text) => text.clone(),
        other => other.to_string(),
    };
    match did_you_mean(&wanted, values.keys().map(String::as_str)) {
        Some(nearest) => {
            let hosts = number::counted(values[nearest], "host", "hosts");
            let comparison = Comparison::Equal(Literal::text(nearest));
            let fixed = Node::Compare { operand: Operand::Path(path.clone()), comparison };
            Some((format!("; nearest: {nearest} ({hosts})"), Some(fixed)))
        }
        None => {
            let mut known: Vec<(&String, &usize)> = values.iter().collect();
            known.sort_by_key(|(value, count)| (usize::MAX - **count, (*value).clone()));
            let more = if known.len() > LISTED_MAX { ", ..." } else { "" };
            // Every host has its own name, so its number says nothing.
            let shown = |(value, count): (&String, &usize)| match path_text.as_str() {
                "name" => value.clone(),
                _ => format!("{value} ({count})"),
            };
            let few: Vec<String> = known.into_iter().take(LISTED_MAX).map(shown).collect();
            Some((format!("; there are: {}{more}", few.join(", ")), None))
        }
    }
}

/// For a name that no known host has a value of: what lies below it, or the nearest name.
fn nearest_name(cache: &mut HostCache, path: &str, comparison: &Comparison) -> Option<(String, Option<Node>)> {
    let names = cache.names();
    let (prefix, fact) = match path.strip_prefix("fact.") {
        Some(fact) => ("fact.", fact),
        None => ("", path),
    };
    let below: Vec<&str> = names
        .iter()
        .filter(|name| name.strip_prefix(fact).is_some_and(|rest| rest.starts_with('.')))
        .map(String::as_str)
        .collect();
    if !below.is_empty() {
        let more = if below.len() > LISTED_MAX { ", ..." } else { "" };
        let few = below.into_iter().take(LISTED_MAX).collect::<Vec<_>>().join(", ");
        return Some((format!("; `{path}` is no value, below it are: {few}{more}"), None));
    }
    let none = format!("; no fact is called `{path}`");
    let Some(nearest) = did_you_mean(fact, names.iter().map(String::as_str).filter(|name| *name != fact)) else {
        return Some((none, None));
    };
    let fixed = Expression::parse(&format!("has({prefix}{nearest})")).ok().and_then(|has| match has.root() {
        Node::Has(operand) => Some(Node::Compare { operand: operand.clone(), comparison: comparison.clone() }),
        _ => None,
    });
    Some((format!("{none}, nearest: {prefix}{nearest}"), fixed))
}

fn replaced(expression: &Expression, part: &Node, fixed: Node) -> Option<String> {
    let root = match expression.root() {
        Node::And(parts) => Node::and(parts.iter().map(|node| if node == part { fixed.clone() } else { node.clone() })),
        _ => fixed,
    };
    Expression::from_node(root).ok().map(|expression| expression.as_str().to_owned())
}

/// No part is to blame alone: what is known of them, and a part of the target to look at next.
fn together(cache: &mut HostCache, expression: &Expression, nobody: &Nobody) -> (Vec<String>, Option<String>) {
    let mut counted = Vec::new();
    let mut asked = Vec::new();
    for part in parts(expression) {
        let Ok(condition) = Expression::from_node(part.clone()) else { continue };
        if condition.calls().next().is_some() {
            asked.push(condition);
        } else {
            counted.push((cache.count(&condition), condition));
        }
    }
    let mut notes = Vec::new();
    let mut better = None;
    let plain = Expression::from_node(Node::and(counted.iter().map(|(_, condition)| condition.root().clone())));
    let all = plain.map(|plain| (cache.count(&plain), plain)).ok().filter(|_| !counted.is_empty());
    if let Some((count, plain)) = all {
        let hosts = |count| number::counted(count, "known host", "known hosts");
        match (count, asked.is_empty()) {
            (0, _) => {
                let list: Vec<String> = counted
                    .iter()
                    .map(|(count, part)| format!("{} ({})", part.as_str(), number::count(*count)))
                    .collect();
                let list = list.join(", ");
                notes.push(format!("each part holds on some hosts, all of them together on none: {list}"));
                better = counted.iter().min_by_key(|(count, _)| *count).map(|(_, part)| part.as_str().to_owned());
            }
            (count, true) if nobody.silent.is_empty() => {
                notes.push(format!(
                    "as far as is remembered it holds on {}, and none of them says so now",
                    hosts(count)
                ));
            }
            (_, true) => {}
            (count, false) => {
                notes.push(format!("`{}` holds on {}", plain.as_str(), hosts(count)));
                better = Some(plain.as_str().to_owned());
            }
        }
    }
    for condition in asked {
        notes.push(format!("`{}` is evaluated on the hosts; what they answer is not remembered", condition.as_str()));
    }
    (notes, better)
}

/// Where a part stands in a text, in characters, whatever spaces and quotes are between.
fn locate(text: &str, part: &str) -> Option<(usize, usize)> {
    let squeeze = |text: &str| -> Vec<(usize, char)> {
        text.chars().enumerate().filter(|(_, c)| !c.is_whitespace() && *c != '"' && *c != '\'').collect()
    };
    let (text, part) = (squeeze(text), squeeze(part));
    let found = text.windows(part.len().max(1)).position(|window| {
        window.iter().zip(&part).all(|((_, left), (_, right))| left == right) && window.len() == part.len()
    })?;
    let (start, end) = (text[found].0, text[found + part.len() - 1].0);
    Some((start, end + 1 - start))
}

#[cfg(test)]
mod tests {
    use muster_protocol::{HostName, Inventory, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::output::Text;

    fn cache() -> HostCache {
        let mut cache = HostCache::none();
        for (count, family) in [(30, "Debian"), (12, "RedHat")] {
            for number in 0..count {
                let host = HostName::new(format!("{}-{number}", family.to_lowercase())).unwrap();
                let facts = [("os".to_owned(), json!({"family": family})), ("role".to_owned(), json!("web"))];
                let facts = facts.into_iter().collect();
                cache.seen(&host, Some("d"), Timestamp(0));
                cache.keep(&host, "d", Inventory { facts, ..Inventory::default() });
            }
        }
        cache
    }

    fn target(query: &str) -> Target {
        Target {
            expression: Some(Expression::parse(query).unwrap()),
            typed: query.to_owned(),
            hosts: None,
            excluded: Default::default(),
            limit: None,
            seed: None,
        }
    }

    fn lines(failure: &Failure) -> String {
        failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
    }

    fn screen(cache: &mut HostCache, query: &str) -> String {
        let failure = failure(cache, &Catalogue::builtin(), &target(query), &Nobody::default());
        assert_eq!(failure.exit, ExitCode::NoMatch);
        lines(&failure)
    }

    #[test]
    fn the_failing_part_is_pointed_at() {
        insta::assert_snapshot!("no_match_value", screen(&mut cache(), "os.family=Debain and role=web"));
        insta::assert_snapshot!("no_match_name", screen(&mut cache(), "role=web and os.famly = 'Debian'"));
        insta::assert_snapshot!("no_match_values", screen(&mut cache(), "os.family=Windows"));
        insta::assert_snapshot!("no_match_together", screen(&mut cache(), "os.family=Debian and name ~ '^redhat'"));
    }

    #[test]
    fn a_data_call_is_not_judged_from_memory() {
        insta::assert_snapshot!("no_match_call_unknown", screen(&mut cache(), "pakage(\"bash\").version > '5'"));
        insta::assert_snapshot!("no_match_call", screen(&mut cache(), "role=web and package(bash).version > '5'"));
        let alone = screen(&mut cache(), "package(bash).version > '5'");
        assert!(alone.contains("is evaluated on the hosts") && !alone.contains("try"), "{alone}");
    }

    #[test]
    fn reserved_words_are_no_facts() {
        let none = screen(&mut cache(), "class = apache");
        assert!(none.contains("none of 42 hosts has this; no known host has any class"), "{none}");
        let mut cache = cache();
        let host = HostName::new("debian-0").unwrap();
        let inventory = Inventory { classes: ["apache2".to_owned()].into(), ..Inventory::default() };
        cache.keep(&host, "e", inventory);
        insta::assert_snapshot!("no_match_class", screen(&mut cache, "class = apache"));
        let below = screen(&mut cache, "os = Debian");
        assert!(below.contains("`os` is no value, below it are: os.family"), "{below}");
    }

    #[test]
    fn no_proposal_is_what_has_just_failed() {
        for query in
            ["role = web and name = x", "os.family = SUSE", "name = x", "os.family=Debian and name ~ '^redhat'"]
        {
            let shown = screen(&mut cache(), query);
            let same = format!("muster find -t {}", quoted(Expression::parse(query).unwrap().as_str()));
            assert!(!shown.contains(&same) && !shown.contains(&find(query)), "{shown}");
        }
    }

    #[test]
    fn one_part_alone_is_never_together() {
        let shown = screen(&mut cache(), "role = web");
        assert!(shown.contains("as far as is remembered it holds on 42 known hosts"), "{shown}");
        assert!(!shown.contains("together"), "{shown}");
    }

    #[test]
    fn names_that_shut_the_condition_out_are_told() {
        let host = |name: &str| HostName::new(name).unwrap();
        let mut target = target("role = web");
        target.hosts = Some([host("db-1")].into());
        let nobody = Nobody { outside: [host("debian-1"), host("debian-2")].into(), ..Nobody::default() };
        insta::assert_snapshot!(lines(&failure(&mut cache(), &Catalogue::builtin(), &target, &nobody)), @r"
        error[no-match]: no host matches this target
          target  role = web
          note    it holds on 2 other hosts, and on none of those named with -H
          try     muster find -t 'role = web'
        ");
        target.hosts = None;
        target.excluded = [host("debian-1"), host("debian-2")].into();
        insta::assert_snapshot!(lines(&failure(&mut cache(), &Catalogue::builtin(), &target, &nobody)), @r"
        error[no-match]: every host of the target is excluded
          target   role = web
          exclude  debian-[1-2]
        ");
    }

    #[test]
    fn nothing_known_is_said_so() {
        insta::assert_snapshot!("no_match_unknown", screen(&mut HostCache::none(), "os.family=Debain"));
    }
}
