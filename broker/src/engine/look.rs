//! What there is, one by one, for whoever operates the broker; and what an operator may change while it runs.

use std::sync::Arc;

use super::keys::Target;
use super::{BindingSpec, Destination, Engine, Limits};

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLook {
    /// Its name.
    pub name: Arc<str>,
    /// Survives a restart.
    pub durable: bool,
    /// Of one connection, and goes with it.
    pub exclusive: bool,
    /// Messages that wait.
    pub ready: usize,
    /// Bytes of their bodies.
    pub ready_bytes: u64,
    /// Messages that were delivered and not acknowledged.
    pub unacknowledged: usize,
    /// Consumers.
    pub consumers: usize,
}

/// Bindings with one beginning, key and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingLook {
    /// The exchange that sends.
    pub source: Arc<str>,
    /// `queue` or `exchange`.
    pub destination_kind: &'static str,
    /// What receives.
    pub destination: Arc<str>,
    /// The binding key.
    pub key: Arc<str>,
}

impl Engine {
    /// All queues, by name.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueLook> {
        let mut unacknowledged = std::collections::HashMap::new();
        for delivery in self.channels.values().flat_map(|channel| channel.unacked.iter()) {
            *unacknowledged.entry(delivery.queue).or_insert(0) += 1;
        }
        let look = |(key, queue): (_, &super::Queue)| QueueLook {
            name: Arc::clone(&queue.spec.name),
            durable: queue.spec.durable,
            exclusive: queue.spec.exclusive,
            ready: queue.ready.len(),
            ready_bytes: queue.ready_bytes,
            unacknowledged: unacknowledged.get(&key).copied().unwrap_or(0),
            consumers: queue.consumers.len(),
        };
        let mut queues: Vec<QueueLook> = self.queues.iter().map(look).collect();
        queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    /// All bindings, by what receives.
    #[must_use]
    pub fn bindings(&self) -> Vec<BindingLook> {
        let to_queues = self.queues.values().map(|queue| ("queue", &queue.spec.name, &queue.bindings));
        let to_exchanges = self.exchanges.values().map(|it| ("exchange", &it.spec.name, &it.incoming));
        let mut looks = Vec::new();
        for (destination_kind, destination, bindings) in to_queues.chain(to_exchanges) {
            for (source, key) in bindings.keys() {
                let Some(source) = self.exchanges.get(*source) else { continue };
                looks.push(BindingLook {
                    source: Arc::clone(&source.spec.name),
                    destination_kind,
                    destination: Arc::clone(destination),
                    key: Arc::clone(key),
                });
            }
        }
        looks.sort_unstable_by(|a, b| (&a.destination, &a.source, &a.key).cmp(&(&b.destination, &b.source, &b.key)));
        looks
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Takes other bounds. What is there stays, also where it is more.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.store.set_bytes_max(limits.message_bytes_max);
    }

    /// Whether publishers wait for something that is not the engine's: somebody [presses](Engine::press).
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// Whether there is a queue of this name, whoever may use it.
    #[must_use]
    pub fn has_queue(&self, name: &str) -> bool {
        self.queue_names.contains_key(name)
    }

    /// Whether there is an exchange of this name.
    #[must_use]
    pub fn has_exchange(&self, name: &str) -> bool {
        self.exchange_names.contains_key(name)
    }

    /// Whether there would be one more thing to keep over a restart if this were bound.
    #[must_use]
    pub fn would_keep_binding(&self, binding: &BindingSpec) -> bool {
        let Some(&source) = self.exchange_names.get(&binding.source) else { return false };
        let target = match &binding.destination {
            Destination::Queue(name) => self.queue_names.get(name).map(|&queue| Target::Queue(queue)),
            Destination::Exchange(name) => self.exchange_names.get(name).map(|&exchange| Target::Exchange(exchange)),
        };
        let Some(target) = target.filter(|&target| self.is_journaled(source, target)) else { return false };
        let bindings = match target {
            Target::Queue(queue) => self.queues.get(queue).map(|queue| &queue.bindings),
            Target::Exchange(exchange) => self.exchanges.get(exchange).map(|exchange| &exchange.incoming),
        };
        let bound = bindings.and_then(|bindings| bindings.get(&(source, binding.key.clone())));
        !bound.is_some_and(|bound| bound.has(&binding.arguments))
    }

    /// Says whether publishers are to wait for something that is not the engine's, such as the disk.
    pub fn press(&mut self, pressed: bool) {
        self.pressed = pressed;
    }
}
