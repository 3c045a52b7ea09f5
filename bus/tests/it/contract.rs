//! The contract, shown by the broker in memory. RabbitMQ shows it in the `tests` crate.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_bus::contract::{CASES, Fixture};
use muster_bus::{Access, Bus, MemoryBroker, Permission};
use muster_protocol::Identity;

struct Memory(MemoryBroker);

impl Memory {
    fn new() -> Self {
        let broker = MemoryBroker::new();
        broker.set_permissions(allows);
        Self(broker)
    }
}

/// The part of Muster's broker permissions that the contract touches, in short.
fn allows(identity: &Identity, permission: Permission<'_>) -> bool {
    let key = permission.routing_key.unwrap_or_default();
    let host = matches!(identity, Identity::Host(_));
    let own_queue = if host { format!("agent.{}", identity.name()) } else { format!("reply.{}.", identity.short()) };
    let own_queue = if host { permission.resource == own_queue } else { permission.resource.starts_with(&own_queue) };
    match (permission.access, permission.resource) {
        (Access::Write, "cmd") => !host,
        (Access::Read, "cmd") => {
            host && (key == "all" || key.starts_with("collective.") || key == format!("host.{}", identity.name()))
        }
        (Access::Write, "reply") => host && key.ends_with(&format!(".{}", identity.name())),
        (Access::Read, "reply") => !host && key.starts_with(&format!("{}.", identity.short())),
        _ => own_queue,
    }
}

impl Fixture for Memory {
    fn identity(&self, role: &str) -> Identity {
        role.parse().unwrap()
    }

    fn bus(&self, identity: &Identity) -> Arc<dyn Bus> {
        Arc::new(self.0.bus(identity))
    }

    fn disconnect<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, ()> {
        async { assert!(self.0.disconnect(identity) > 0) }.boxed()
    }

    fn delete_queue<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        async { assert!(self.0.delete_queue(name)) }.boxed()
    }
}

#[tokio::test]
async fn the_broker_in_memory_keeps_the_contract() {
    for (name, case) in CASES {
        eprintln!("{name}");
        case(&Memory::new()).await;
    }
}
