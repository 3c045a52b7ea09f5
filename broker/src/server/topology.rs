//! Exchanges and limits of queues, from the data that RabbitMQ's are generated from.

use muster_broker_config::{EXCHANGES, Overflow as Full, QUEUE_POLICIES};

use crate::engine::{ExchangeKind, ExchangeSpec, Overflow, Policy, QueueLimits};

/// What the engine begins with.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Exchanges of the site.
    pub exchanges: Vec<ExchangeSpec>,
    /// Limits of queues by name.
    pub policies: Vec<Policy>,
}

impl Topology {
    /// What `muster-broker-config` describes.
    #[must_use]
    pub fn generated() -> Self {
        let exchanges = EXCHANGES.iter().map(|name| ExchangeSpec {
            name: (*name).into(),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: false,
            internal: false,
        });
        let policies = QUEUE_POLICIES.iter().map(|policy| Policy {
            prefix: policy.prefix.to_owned(),
            limits: QueueLimits {
                expires_ms: Some(policy.expires_ms),
                message_ttl_ms: policy.message_ttl_ms,
                length_max: Some(policy.messages_max),
                bytes_max: Some(policy.bytes_max),
                overflow: Some(match policy.overflow {
                    Full::DropHead => Overflow::DropHead,
                    Full::RejectPublish => Overflow::RejectPublish,
                }),
            },
        });
        Self { exchanges: exchanges.collect(), policies: policies.collect() }
    }
}

#[cfg(test)]
mod tests {
    use muster_broker_config::{Site, definitions};

    use super::*;

    /// RabbitMQ's definitions say the same, exchange by exchange and number by number.
    #[test]
    fn rabbitmq_gets_the_same() {
        let Topology { exchanges, policies } = Topology::generated();
        let definitions = definitions(&Site::new(std::iter::empty()));
        let names = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>();
        assert_eq!(
            names(&mut exchanges.iter().map(|exchange| exchange.name.to_string())),
            names(&mut definitions.exchanges.iter().map(|exchange| exchange.name.clone()))
        );
        assert!(definitions.exchanges.iter().all(|exchange| exchange.kind == "topic" && exchange.durable));
        assert_eq!(policies.len(), definitions.policies.len());
        for (ours, theirs) in policies.iter().zip(&definitions.policies) {
            let number = |key: &str| theirs.definition.get(key).and_then(serde_json::Value::as_u64);
            assert_eq!(theirs.pattern.replace('\\', ""), format!("^{}", ours.prefix));
            assert_eq!(ours.limits.expires_ms, number("expires"));
            assert_eq!(ours.limits.message_ttl_ms, number("message-ttl"));
            assert_eq!(ours.limits.length_max, number("max-length"));
            assert_eq!(ours.limits.bytes_max, number("max-length-bytes"));
            let overflow = theirs.definition["overflow"].as_str();
            let expected = match ours.limits.overflow {
                Some(Overflow::DropHead) => Some("drop-head"),
                Some(Overflow::RejectPublish) => Some("reject-publish"),
                None => None,
            };
            assert_eq!(overflow, expected);
            assert!(theirs.definition.keys().all(|key| {
                ["expires", "message-ttl", "max-length", "max-length-bytes", "overflow"].contains(&key.as_str())
            }));
        }
    }
}
