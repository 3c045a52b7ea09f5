//! `host`: the host as its agent knows it.

use muster_plugin_api::{
    ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, HostView, Plugin,
};
use muster_protocol::Timestamp;
use muster_protocol::ddl::Ddl;
use serde_json::{Map, Value, json};

use crate::reply;

/// The plugin `host`. Everything it tells comes from the agent around it.
#[derive(Debug, Default)]
pub struct Host(());

impl Host {
    /// The plugin.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Plugin for Host {
    fn ddl(&self) -> &Ddl {
        reply::description("host")
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            let host = context.host.as_ref();
            Ok(ActionOk::data(match request.action.as_str() {
                "ping" => ping(host),
                "status" => status(host)?,
                "inventory" => inventory(host),
                "sealing_key" => sealing_key(host)?,
                "facts" => facts(&host.facts(), &request.texts("names"), request.text("prefix")),
                _ => return Err(ActionFailure::unknown_action(&request.action)),
            }))
        })
    }
}

fn ping(host: &dyn HostView) -> Value {
    json!({
        "time_ms": host.now(),
        "agent_version": host.agent_version(),
        "inventory_digest": host.inventory_digest(),
    })
}

fn status(host: &dyn HostView) -> Result<Value, ActionFailure> {
    let inventory = host.inventory();
    let agent = host.agent_status();
    let uptime_s = host.now().since_ms(agent.started_at_ms).max(0) / 1000;
    let connected: Option<Timestamp> = agent.connected_at_ms;
    Ok(reply::answer(&json!({
        "agent_version": agent.version,
        "uptime_s": uptime_s,
        "started_at_ms": agent.started_at_ms,
        "broker": agent.broker,
        "connected_at_ms": connected,
        "collectives": inventory.collectives,
        "plugins": inventory.plugins,
        "memory_bytes": agent.memory_bytes,
        "running_actions": agent.running_actions,
        "spooled_reports": agent.spooled_reports,
        "counters": agent.counters,
        "problems": agent.problems,
        "audit_head": agent.audit_head,
        "policy_sha256": agent.policy_sha256,
        "revocation_lists": agent.revocation_lists,
    }))?
    .data)
}

fn sealing_key(host: &dyn HostView) -> Result<Value, ActionFailure> {
    let key = host.sealing_key().ok_or_else(|| ActionFailure::failed("the agent has no sealing key"))?;
    Ok(json!({ "sealing_key": key }))
}

fn inventory(host: &dyn HostView) -> Value {
    let inventory = host.inventory();
    json!({
        "digest": host.inventory_digest(),
        "collectives": inventory.collectives,
        "classes": inventory.classes,
        "plugins": inventory.plugins,
        "facts": inventory.facts,
    })
}

/// All facts as they are nested; or a flat map of path to value for the names and for what lies below the prefix.
fn facts(facts: &Map<String, Value>, names: &[&str], prefix: Option<&str>) -> Value {
    if names.is_empty() && prefix.is_none() {
        return json!({ "facts": facts, "missing": [] });
    }
    let mut found = Map::new();
    let mut missing = Vec::new();
    for &name in names {
        match at_path(facts, name) {
            Some(value) => drop(found.insert(name.to_owned(), value.clone())),
            None => missing.push(name),
        }
    }
    if let Some(prefix) = prefix {
        match at_path(facts, prefix) {
            Some(value) => flatten(prefix, value, &mut found),
            None => missing.push(prefix),
        }
    }
    json!({ "facts": found, "missing": missing })
}

fn at_path<'a>(facts: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut steps = path.split('.');
    let first = facts.get(steps.next()?)?;
    steps.try_fold(first, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Facts nest at most as deep as a message may, so the recursion is bounded.
fn flatten(path: &str, value: &Value, found: &mut Map<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (step, below) in map {
                flatten(&format!("{path}.{step}"), below, found);
            }
        }
        leaf => drop(found.insert(path.to_owned(), leaf.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], prefix: Option<&str>, expected: Value) {
        let all =
            json!({ "os": { "family": "Debian", "release": { "major": 12 } }, "disks": [{ "size": 1 }], "cpus": 2 });
        let Value::Object(all) = all else { unreachable!() };
        assert_eq!(facts(&all, names, prefix), expected);
    }

    #[test]
    fn facts_by_name_by_prefix_or_all() {
        check(&["os.family", "cpus"], None, json!({ "facts": { "os.family": "Debian", "cpus": 2 }, "missing": [] }));
        check(
            &["os"],
            None,
            json!({ "facts": { "os": { "family": "Debian", "release": { "major": 12 } } }, "missing": [] }),
        );
        check(
            &["disks.0.size", "disks.1.size"],
            None,
            json!({ "facts": { "disks.0.size": 1 }, "missing": ["disks.1.size"] }),
        );
        check(&["cpus.x", "nothing"], None, json!({ "facts": {}, "missing": ["cpus.x", "nothing"] }));
        check(&[], Some("os"), json!({ "facts": { "os.family": "Debian", "os.release.major": 12 }, "missing": [] }));
        check(&["cpus"], Some("none"), json!({ "facts": { "cpus": 2 }, "missing": ["none"] }));
    }
}
