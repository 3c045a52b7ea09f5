//! Exchanges and limits of queues, from the description that RabbitMQ's are generated from.

use std::sync::Arc;

use muster_broker_config::{Definitions, Site, definitions};
use serde_json::Value;

use crate::engine::{ExchangeKind, ExchangeSpec, Overflow, Policy, QueueLimits};

/// What the engine begins with.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Exchanges of the site.
    pub exchanges: Vec<ExchangeSpec>,
    /// Limits of queues by name.
    pub policies: Vec<Policy>,
}

/// Why a description cannot be served by this broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` in the description of the broker: {why}")]
pub struct Unserved {
    /// The exchange or policy.
    pub name: String,
    /// What this broker does not do.
    pub why: String,
}

impl Topology {
    /// What `muster-broker-config` describes for a virtual host with this name.
    ///
    /// # Errors
    /// It describes something that this broker does not do. A test keeps that from happening.
    pub fn generated(vhost: &str) -> Result<Self, Unserved> {
        Self::of(&definitions(&Site { vhost: vhost.to_owned(), ..Site::new(std::iter::empty()) }))
    }

    fn of(definitions: &Definitions) -> Result<Self, Unserved> {
        let exchanges = definitions.exchanges.iter().map(|exchange| {
            let kind = match exchange.kind.as_str() {
                "direct" => ExchangeKind::Direct,
                "fanout" => ExchangeKind::Fanout,
                "topic" => ExchangeKind::Topic,
                other => return Err(unserved(&exchange.name, format!("exchanges of kind `{other}`"))),
            };
            if !exchange.arguments.is_empty() {
                return Err(unserved(&exchange.name, "arguments of exchanges".to_owned()));
            }
            Ok(ExchangeSpec {
                name: Arc::from(exchange.name.as_str()),
                kind,
                durable: exchange.durable,
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
            })
        });
        let policies = definitions.policies.iter().map(|policy| {
            let unserved = |why: String| unserved(&policy.name, why);
            let prefix = prefix(&policy.pattern).ok_or_else(|| {
                unserved(format!("the pattern `{}`, which is no beginning of a name", policy.pattern))
            })?;
            let mut limits = QueueLimits::default();
            for (key, value) in &policy.definition {
                limit(&mut limits, key, value).ok_or_else(|| unserved(format!("`{key}` with {value}")))?;
            }
            Ok(Policy { prefix, limits })
        });
        Ok(Self { exchanges: exchanges.collect::<Result<_, _>>()?, policies: policies.collect::<Result<_, _>>()? })
    }
}

fn unserved(name: &str, why: String) -> Unserved {
    Unserved { name: name.to_owned(), why }
}

/// The beginning of names that a regular expression stands for, if it is one.
fn prefix(pattern: &str) -> Option<String> {
    let mut rest = pattern.strip_prefix('^')?.chars();
    let mut prefix = String::new();
    while let Some(character) = rest.next() {
        match character {
            '\\' => prefix.push(rest.next().filter(char::is_ascii_punctuation)?),
            '/' | '_' | '-' => prefix.push(character),
            plain if plain.is_ascii_alphanumeric() => prefix.push(plain),
            _ => return None,
        }
    }
    Some(prefix)
}

fn limit(limits: &mut QueueLimits, key: &str, value: &Value) -> Option<()> {
    match key {
        "expires" => limits.expires_ms = Some(value.as_u64()?),
        "message-ttl" => limits.message_ttl_ms = Some(value.as_u64()?),
        "max-length" => limits.length_max = Some(value.as_u64()?),
        "max-length-bytes" => limits.bytes_max = Some(value.as_u64()?),
        "overflow" => {
            limits.overflow = Some(match value.as_str()? {
                "drop-head" => Overflow::DropHead,
                "reject-publish" => Overflow::RejectPublish,
                _ => return None,
            });
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_for_rabbitmq_is_served() {
        let topology = Topology::generated("muster").unwrap();
        let names: Vec<&str> = topology.exchanges.iter().map(|exchange| &*exchange.name).collect();
        assert_eq!(names, ["cmd", "reply"]);
        assert!(topology.exchanges.iter().all(|it| it.kind == ExchangeKind::Topic && it.durable && !it.internal));
        let limits = |prefix: &str| topology.policies.iter().find(|policy| policy.prefix == prefix).unwrap().limits;
        let agent = limits("agent.");
        assert_eq!((agent.expires_ms, agent.length_max), (Some(86_400_000), Some(1_000)));
        assert_eq!((agent.message_ttl_ms, agent.overflow), (Some(86_400_000), Some(Overflow::DropHead)));
        assert_eq!(limits("reply.user/").overflow, Some(Overflow::RejectPublish));
        assert_eq!(limits("reply.service/").expires_ms, Some(86_400_000));
        assert_eq!(topology.policies.len(), 3);
    }

    #[test]
    fn a_pattern_is_a_beginning_or_nothing() {
        for (pattern, expected) in [
            (r"^agent\.", Some("agent.")),
            (r"^reply\.user/", Some("reply.user/")),
            (r"agent\.", None),
            ("^agent.", None),
            ("^a(b|c)", None),
            ("^a$", None),
            (r"^a\d", None),
            (r"^a\", None),
        ] {
            assert_eq!(prefix(pattern).as_deref(), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_done_is_said() {
        let mut site = definitions(&Site::new(std::iter::empty()));
        site.policies[0].definition.insert("dead-letter-exchange".to_owned(), "x".into());
        assert!(Topology::of(&site).unwrap_err().to_string().contains("dead-letter-exchange"));
        let mut site = definitions(&Site::new(std::iter::empty()));
        site.exchanges[0].kind = "headers".to_owned();
        assert!(Topology::of(&site).unwrap_err().to_string().contains("headers"));
    }
}
