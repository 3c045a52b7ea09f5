//! Nobody matches: which part of the target no host has, and what is near to it.
//!
//! Said from what is remembered of the hosts, which the hosts were asked for just before. Where
//! nothing is known, only what was asked is said.

use muster_client::cache::HostCache;
use muster_client::discover::{audience, note_pings, ping};
use muster_protocol::expr::{Comparison, Expression, Literal, Node, Operand, did_you_mean};

use super::follow::follow;
use super::scene::Scene;
use crate::output::{ExitCode, Failure, number};
use crate::target::{Target, quoted};

/// How long is waited for any host at all, in milliseconds, where none is known.
const ANYBODY_MS: i64 = 1_000;

/// Learns what there is to learn in a moment, and makes the error of it.
pub(crate) async fn explain(scene: &mut Scene<'_>, target: &Target, command: &str, silent: usize) -> Failure {
    if target.expression.is_some() {
        learn(scene).await;
    }
    failure(scene.cache, target, command, silent)
}

async fn learn(scene: &mut Scene<'_>) {
    if scene.cache.hosts().is_empty()
        && let Ok(mut asking) = scene.controller.ask(&ping(audience(None), ANYBODY_MS, Default::default()))
    {
        follow(&mut asking, &mut scene.stop, |_, _| {}).await;
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
fn failure(cache: &mut HostCache, target: &Target, command: &str, silent: usize) -> Failure {
    let no_match = |what: &str| Failure::new(ExitCode::NoMatch, "no-match", what);
    let silent_note = |failure: Failure| match silent {
        0 => failure,
        _ => failure
            .why("note", format!("{} before and silent now", number::counted(silent, "host matched", "hosts matched"))),
    };
    let Some(expression) = &target.expression else {
        let failure = match (&target.hosts, silent) {
            (Some(_), _) => no_match("no host is left of the target").why("target", target.shown()),
            (None, 0) => no_match("no host answered").why("note", "nobody is connected, or nobody may answer you"),
            (None, _) => silent_note(no_match("no host answered")),
        };
        return failure.hint("muster doctor");
    };
    let shown = target.shown();
    let failure = no_match("no host matches this target");
    let known = cache.inventories().len();
    let failure = match blame(cache, expression) {
        _ if known == 0 => {
            failure.why("target", shown).why("note", "no host told its facts, so the part that fails is not known")
        }
        Some(blame) => {
            let place = locate(&shown, &blame.part);
            match place {
                Some((start, length)) => {
                    let carets = format!("{}{} {}", " ".repeat(start), "^".repeat(length), blame.why);
                    failure.why("target", format!("{shown}\n{carets}"))
                }
                None => failure.why("target", shown).why("part", format!("{}  {}", blame.part, blame.why)),
            }
        }
        None => failure.why("target", shown).why("note", together(cache, expression)),
    };
    let failure = silent_note(failure);
    let better = blame(cache, expression).and_then(|blame| blame.instead);
    let query = better.unwrap_or_else(|| target.shown());
    let verb = if command == "ping" || command.starts_with("run") { "find" } else { command };
    failure.hint(format!("muster {verb} -t {}", quoted(&query)))
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
        let names = cache.names();
        let nearest = did_you_mean(&path_text, names.iter().map(String::as_str))?.to_owned();
        let fixed = Expression::parse(&format!("has({nearest})")).ok().and_then(|has| match has.root() {
            Node::Has(operand) => Some(Node::Compare { operand: operand.clone(), comparison: comparison.clone() }),
            _ => None,
        });
        return Some((format!("; no fact is called `{path_text}`, nearest: {nearest}"), fixed));
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
            let few: Vec<String> =
                known.into_iter().take(3).map(|(value, count)| format!("{value} ({count})")).collect();
            Some((format!("; there are: {}", few.join(", ")), None))
        }
    }
}

fn replaced(expression: &Expression, part: &Node, fixed: Node) -> Option<String> {
    let root = match expression.root() {
        Node::And(parts) => Node::and(parts.iter().map(|node| if node == part { fixed.clone() } else { node.clone() })),
        _ => fixed,
    };
    Expression::from_node(root).ok().map(|expression| expression.as_str().to_owned())
}

/// Every part holds somewhere: on how many hosts each.
fn together(cache: &mut HostCache, expression: &Expression) -> String {
    let mut counted = Vec::new();
    for part in parts(expression) {
        if let Ok(condition) = Expression::from_node(part.clone())
            && condition.calls().next().is_none()
        {
            counted.push(format!("{} ({})", condition.as_str(), number::count(cache.count(&condition))));
        }
    }
    format!("each part holds on some hosts, all of them together on none: {}", counted.join(", "))
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

    fn screen(cache: &mut HostCache, query: &str) -> String {
        let target = Target {
            expression: Some(Expression::parse(query).unwrap()),
            typed: query.to_owned(),
            hosts: None,
            excluded: Default::default(),
            limit: None,
            seed: None,
        };
        let failure = failure(cache, &target, "run package.status", 0);
        assert_eq!(failure.exit, ExitCode::NoMatch);
        failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_failing_part_is_pointed_at() {
        insta::assert_snapshot!("no_match_value", screen(&mut cache(), "os.family=Debain and role=web"));
        insta::assert_snapshot!("no_match_name", screen(&mut cache(), "role=web and os.famly = 'Debian'"));
        insta::assert_snapshot!("no_match_values", screen(&mut cache(), "os.family=Windows"));
        insta::assert_snapshot!("no_match_together", screen(&mut cache(), "os.family=Debian and name ~ '^redhat'"));
    }

    #[test]
    fn nothing_known_is_said_so() {
        insta::assert_snapshot!("no_match_unknown", screen(&mut HostCache::none(), "os.family=Debain"));
    }
}
