//! A broker that is plainly right, and slow: lists, gone through from the beginning each time.
//!
//! It does not choose which consumer gets a message: the engine does, and the model checks that the choice was allowed.
//! Everything else it knows beforehand: who is refused, which queues a message reaches, what is dropped, what is confirmed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    /// Place in the queue.
    pub(super) position: u64,
    /// Which message.
    pub(super) body: String,
    pub(super) redelivered: bool,
    pub(super) persistent: bool,
    pub(super) expires_ms: i64,
}

#[derive(Debug)]
pub(super) struct ModelQueue {
    /// A queue with the same name that comes later is another one.
    pub(super) life: u64,
    pub(super) spec: QueueSpec,
    pub(super) owner: Option<u64>,
    pub(super) used_ms: i64,
    pub(super) positions: u64,
    pub(super) ready: Vec<Held>,
}

#[derive(Debug)]
pub(super) struct Given {
    pub(super) channel: (u64, u16),
    pub(super) tag: u64,
    pub(super) consumer: Option<String>,
    pub(super) queue: String,
    pub(super) life: u64,
    pub(super) held: Held,
}

#[derive(Debug, Default)]
pub(super) struct ModelChannel {
    pub(super) tag_last: u64,
    pub(super) prefetch: u16,
    pub(super) prefetch_each: u16,
    pub(super) stopped: bool,
    pub(super) confirmed: Option<u64>,
}

#[derive(Debug)]
pub(super) struct ModelConsumer {
    pub(super) channel: (u64, u16),
    pub(super) tag: String,
    pub(super) queue: String,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) prefetch: u16,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) waiting: Vec<usize>,
    pub(super) slow: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now_ms: i64,
    pub(super) lives: u64,
    pub(super) queues: BTreeMap<String, ModelQueue>,
    pub(super) exchanges: BTreeMap<String, ExchangeSpec>,
    pub(super) bindings: Vec<BindingSpec>,
    pub(super) channels: BTreeMap<(u64, u16), ModelChannel>,
    pub(super) outboxes: BTreeMap<u64, Outbox>,
    pub(super) consumers: Vec<ModelConsumer>,
    pub(super) given: Vec<Given>,
}

/// Whether a topic's binding key fits, by trying everything.
fn fits(binding: &[&str], key: &[&str]) -> bool {
    match (binding, key) {
        ([], []) => true,
        (["#", rest @ ..], _) if fits(rest, key) => true,
        (["#", ..], [_, further @ ..]) => fits(binding, further),
        (["*", rest @ ..], [_, further @ ..]) => fits(rest, further),
        ([word, rest @ ..], [other, further @ ..]) => word == other && fits(rest, further),
        _ => false,
    }
}

impl Model {
    /// The queues that a publication reaches.
    pub(super) fn reached(&self, exchange: &str, key: &str) -> BTreeSet<String> {
        if exchange.is_empty() {
            return self.queues.keys().filter(|name| *name == key).cloned().collect();
        }
        let (mut seen, mut open) = (BTreeSet::new(), vec![exchange.to_owned()]);
        let mut found = BTreeSet::new();
        while let Some(at) = open.pop() {
            if !seen.insert(at.clone()) {
                continue;
            }
            for binding in self.bindings.iter().filter(|binding| *binding.source == *at) {
                let (words, given) = (binding.key.split('.').collect::<Vec<_>>(), key.split('.').collect::<Vec<_>>());
                let fits = match self.exchanges[&at].kind {
                    ExchangeKind::Direct => *binding.key == *key,
                    ExchangeKind::Fanout => true,
                    ExchangeKind::Topic => fits(&words, &given),
                };
                match &binding.destination {
                    _ if !fits => {}
                    Destination::Queue(name) => drop(found.insert(name.to_string())),
                    Destination::Exchange(name) => open.push(name.to_string()),
                }
            }
        }
        found
    }

    /// Puts a message into queues: which refuse.
    pub(super) fn publish(&mut self, message: &Message, queues: &BTreeSet<String>) -> BTreeSet<String> {
        let (now, mut refused) = (self.now_ms, BTreeSet::new());
        for name in queues {
            let queue = self.queues.get_mut(name).unwrap();
            let limits = queue.spec.limits;
            let bytes: usize = queue.ready.iter().map(|held| held.body.len()).sum::<usize>() + message.body.len();
            let too_much = limits.length_max.is_some_and(|max| queue.ready.len() as u64 + 1 > max)
                || limits.bytes_max.is_some_and(|max| bytes as u64 > max);
            if limits.overflow == Some(Overflow::RejectPublish) && too_much {
                refused.insert(name.clone());
                continue;
            }
            let times = [limits.message_ttl_ms, message.expiration_ms];
            let ttl = times.into_iter().flatten().min();
            queue.positions += 1;
            queue.ready.push(Held {
                position: queue.positions,
                body: String::from_utf8(message.body.to_vec()).unwrap(),
                redelivered: false,
                persistent: message.persistent,
                expires_ms: ttl.map_or(i64::MAX, |ttl| now + ttl as i64),
            });
        }
        refused
    }

    /// Takes from a channel what it was given, all or some, and puts it back into the queues if wanted.
    pub(super) fn settle(&mut self, takes: impl Fn(&Given) -> bool, requeue: bool) {
        let (taken, left) = std::mem::take(&mut self.given).into_iter().partition(|given| takes(given));
        self.given = left;
        for given in Vec::<Given>::into_iter(taken).filter(|_| requeue) {
            let Some(queue) = self.queues.get_mut(&given.queue).filter(|queue| queue.life == given.life) else {
                continue;
            };
            queue.ready.push(Held { redelivered: true, ..given.held });
            queue.ready.sort();
        }
    }

    /// A queue goes: the consumers that are told.
    pub(super) fn remove_queue(&mut self, name: &str) -> Vec<((u64, u16), String)> {
        self.queues.remove(name);
        let gone = self.consumers.extract_if(.., |consumer| consumer.queue == name);
        let told = gone.map(|consumer| (consumer.channel, consumer.tag)).collect();
        let destination = Destination::Queue(name.into());
        self.remove_bindings(|binding| binding.destination == destination);
        told
    }

    pub(super) fn remove_exchange(&mut self, name: &str) {
        self.exchanges.remove(name);
        let destination = Destination::Exchange(name.into());
        self.remove_bindings(|binding| *binding.source == *name || binding.destination == destination);
    }

    /// Bindings go, and exchanges that go with their last one.
    pub(super) fn remove_bindings(&mut self, goes: impl Fn(&BindingSpec) -> bool) {
        let gone: Vec<BindingSpec> = self.bindings.extract_if(.., |binding| goes(binding)).collect();
        for source in gone.iter().map(|binding| binding.source.to_string()) {
            let last = !self.bindings.iter().any(|binding| *binding.source == *source);
            if last && self.exchanges.get(&source).is_some_and(|spec| spec.auto_delete) {
                self.remove_exchange(&source);
            }
        }
    }

    /// Consumers go; queues that go with their last one.
    pub(super) fn remove_consumers(&mut self, goes: impl Fn(&ModelConsumer) -> bool) {
        let gone: Vec<ModelConsumer> = self.consumers.extract_if(.., |consumer| goes(consumer)).collect();
        for name in gone.into_iter().map(|consumer| consumer.queue) {
            let last = !self.consumers.iter().any(|consumer| consumer.queue == name);
            let Some(queue) = self.queues.get_mut(&name).filter(|_| last) else { continue };
            queue.used_ms = self.now_ms;
            if queue.spec.auto_delete {
                self.remove_queue(&name);
            }
        }
    }

    /// Whether a consumer can take something.
    pub(super) fn has_room(&self, consumer: &ModelConsumer) -> bool {
        let channel = &self.channels[&consumer.channel];
        let of_channel =
            self.given.iter().filter(|given| given.channel == consumer.channel && given.consumer.is_some());
        let all = of_channel.clone().count();
        let own = of_channel.filter(|given| given.consumer.as_ref() == Some(&consumer.tag)).count();
        !channel.stopped
            && !self.outboxes[&consumer.channel.0].slow
            && (consumer.no_ack
                || ((channel.prefetch == 0 || all < usize::from(channel.prefetch))
                    && (consumer.prefetch == 0 || own < usize::from(consumer.prefetch))))
    }

    /// Time passes: what expires.
    pub(super) fn expire(&mut self) {
        let now = self.now_ms;
        let unused: Vec<String> = self
            .queues
            .iter()
            .filter(|(name, queue)| {
                let over = |expires: u64| queue.used_ms + expires as i64 <= now;
                queue.spec.limits.expires_ms.is_some_and(over)
                    && !self.consumers.iter().any(|consumer| consumer.queue == **name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        unused.iter().for_each(|name| drop(self.remove_queue(name)));
        for queue in self.queues.values_mut() {
            while queue.ready.first().is_some_and(|held| held.expires_ms <= now) {
                queue.ready.remove(0);
            }
        }
    }

    /// Queues that drop their oldest do so.
    pub(super) fn drop_overflow(&mut self) {
        for queue in self.queues.values_mut() {
            let limits = queue.spec.limits;
            if limits.overflow == Some(Overflow::RejectPublish) {
                continue;
            }
            let bytes = |queue: &ModelQueue| queue.ready.iter().map(|held| held.body.len() as u64).sum::<u64>();
            while limits.length_max.is_some_and(|max| queue.ready.len() as u64 > max)
                || limits.bytes_max.is_some_and(|max| bytes(queue) > max)
            {
                queue.ready.remove(0);
            }
        }
    }

    /// The earliest time at which something expires.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        let heads = self.queues.values().filter_map(|queue| queue.ready.first()).map(|held| held.expires_ms);
        let queues = self.queues.iter().filter_map(|(name, queue)| {
            let used = self.consumers.iter().any(|consumer| consumer.queue == *name);
            let expires = queue.spec.limits.expires_ms.filter(|_| !used)?;
            Some(queue.used_ms + expires as i64)
        });
        heads.filter(|&at| at != i64::MAX).chain(queues).min()
    }

    /// A message went to a connection.
    pub(super) fn sent(&mut self, connection: u64, bytes: usize) {
        let outbox = self.outboxes.get_mut(&connection).unwrap();
        outbox.waiting.push(bytes);
        outbox.slow |= outbox.waiting.iter().sum::<usize>() > OUTBOX_BYTES_MAX;
    }
}

/// Some three messages.
pub(super) const OUTBOX_BYTES_MAX: usize = 600;
