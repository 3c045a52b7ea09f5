//! A simple model of what is durable, and a stream of changes that an engine could bring about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::engine::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueLimits, QueueSpec};
use crate::journal::Record;
use crate::message::Message;

/// What is durable, compared as a whole. A queue's messages are in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Model {
    pub(super) exchanges: BTreeSet<String>,
    /// With what is in each: number, time of expiry, body.
    pub(super) queues: BTreeMap<String, BTreeMap<u64, (Option<i64>, Bytes)>>,
    /// Source, destination, key, and whether it leads to a queue.
    pub(super) bindings: BTreeSet<(String, String, String, bool)>,
}

fn binding(spec: &BindingSpec) -> (String, String, String, bool) {
    let (name, is_queue) = match &spec.destination {
        Destination::Queue(name) => (name, true),
        Destination::Exchange(name) => (name, false),
    };
    (spec.source.to_string(), name.to_string(), spec.key.to_string(), is_queue)
}

impl Model {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut model = Self::default();
        records.iter().for_each(|record| model.apply(record));
        model
    }

    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::ExchangeDeclared(spec) => drop(self.exchanges.insert(spec.name.to_string())),
            Record::ExchangeDeleted { name } => {
                self.exchanges.remove(&**name);
                self.bindings.retain(|(source, to, _, is_queue)| **source != **name && (*is_queue || **to != **name));
            }
            Record::QueueDeclared(spec) => drop(self.queues.entry(spec.name.to_string()).or_default()),
            Record::QueueDeleted { name } => {
                self.queues.remove(&**name);
                self.bindings.retain(|(_, to, _, is_queue)| !is_queue || **to != **name);
            }
            Record::Bound(spec) => drop(self.bindings.insert(binding(spec))),
            Record::Unbound(spec) => drop(self.bindings.remove(&binding(spec))),
            Record::Enqueued { message, expires_ms, content, queues } => {
                for queue in queues {
                    let queue = self.queues.get_mut(&**queue).expect("a queue that is known");
                    let before = queue.insert(*message, (*expires_ms, content.body.clone()));
                    assert!(before.is_none(), "message {message} twice in one queue");
                }
            }
            Record::Removed { message, queue } => {
                if let Some(queue) = self.queues.get_mut(&**queue) {
                    queue.remove(message);
                }
            }
        }
    }

    pub(super) fn expire(&mut self, now_ms: i64) {
        for queue in self.queues.values_mut() {
            queue.retain(|_, (at, _)| at.is_none_or(|at| at > now_ms));
        }
    }

    pub(super) fn messages(&self) -> BTreeSet<(String, u64)> {
        let of = |(name, queue): (&String, &BTreeMap<u64, _>)| {
            queue.keys().map(|number| (name.clone(), *number)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }
}

/// Makes changes as an engine would: only about what is there, each number once.
pub(super) struct Changes {
    random: SmallRng,
    next: u64,
    body_bytes_max: usize,
}

impl Changes {
    pub(super) fn new(seed: u64, first_number: u64, body_bytes_max: usize) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), next: first_number, body_bytes_max }
    }

    pub(super) fn numbers(&self) -> u64 {
        self.next
    }

    fn pick<T: Clone>(&mut self, from: impl Iterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.collect();
        if all.is_empty() { None } else { Some(all[self.random.random_range(0..all.len())].clone()) }
    }

    fn exchange(&mut self) -> Arc<str> {
        format!("exchange-{}", self.random.random_range(0..2)).into()
    }

    fn queue(&mut self) -> Arc<str> {
        format!("agent.host-{}", self.random.random_range(0..5)).into()
    }

    /// The next changes of one turn, which belong together.
    pub(super) fn next(&mut self, model: &Model) -> Vec<Record> {
        match self.random.random_range(0..20) {
            0 => {
                let spec = ExchangeSpec {
                    name: self.exchange(),
                    kind: ExchangeKind::Topic,
                    durable: true,
                    auto_delete: false,
                    internal: false,
                };
                if model.exchanges.contains(&*spec.name) {
                    vec![]
                } else {
                    vec![Record::ExchangeDeclared(Arc::new(spec))]
                }
            }
            1 => match self.random.random_range(0..4) {
                // `cmd` is the configuration's: it has bindings and no record.
                0 => vec![Record::ExchangeDeleted { name: "cmd".into() }],
                1 => {
                    let name = self.pick(model.exchanges.iter());
                    name.map(|name| Record::ExchangeDeleted { name: name.as_str().into() }).into_iter().collect()
                }
                _ => vec![],
            },
            2..5 => {
                let spec = QueueSpec {
                    name: self.queue(),
                    durable: true,
                    exclusive: false,
                    auto_delete: false,
                    limits: QueueLimits { expires_ms: Some(86_400_000), ..QueueLimits::default() },
                };
                if model.queues.contains_key(&*spec.name) {
                    vec![]
                } else {
                    vec![Record::QueueDeclared(Arc::new(spec))]
                }
            }
            5 => {
                let name = self.pick(model.queues.keys());
                name.map(|name| Record::QueueDeleted { name: name.as_str().into() }).into_iter().collect()
            }
            6..8 => {
                let queue = self.pick(model.queues.keys()).map(|name| Destination::Queue(name.as_str().into()));
                let exchange =
                    self.pick(model.exchanges.iter()).map(|name| Destination::Exchange(name.as_str().into()));
                let source = self.pick(model.exchanges.iter().map(String::as_str).chain(["cmd"])).unwrap_or("cmd");
                let source: Arc<str> = source.into();
                let key: Arc<str> = format!("host.{}", self.random.random_range(0..3)).into();
                let destination = if self.random.random_ratio(1, 4) { exchange } else { queue };
                let bound = |destination| {
                    let arguments = Default::default();
                    Record::Bound(Arc::new(BindingSpec { source, destination, key, arguments }))
                };
                destination.map(bound).into_iter().collect()
            }
            8 => {
                let bound = self.pick(model.bindings.iter());
                let unbound = |(source, to, key, is_queue): &(String, String, String, bool)| {
                    let to: Arc<str> = to.as_str().into();
                    Record::Unbound(Arc::new(BindingSpec {
                        source: source.as_str().into(),
                        destination: if *is_queue { Destination::Queue(to) } else { Destination::Exchange(to) },
                        key: key.as_str().into(),
                        arguments: Default::default(),
                    }))
                };
                bound.map(unbound).into_iter().collect()
            }
            9..15 => self.publish(model),
            _ => {
                let messages = model.messages();
                let Some((queue, message)) = self.pick(messages.iter()) else { return vec![] };
                vec![Record::Removed { message: *message, queue: queue.as_str().into() }]
            }
        }
    }

    fn publish(&mut self, model: &Model) -> Vec<Record> {
        let queues: Vec<Arc<str>> =
            model.queues.keys().filter(|_| self.random.random_bool(0.6)).map(|name| name.as_str().into()).collect();
        if queues.is_empty() {
            return vec![];
        }
        let message = self.next;
        self.next += 1;
        let bytes = self.random.random_range(0..=self.body_bytes_max);
        let body: Vec<u8> = message.to_le_bytes().into_iter().cycle().take(8 + bytes).collect();
        let content = Arc::new(Message {
            exchange: "cmd".to_owned(),
            routing_key: "all".to_owned(),
            properties: Bytes::from_static(b"\x10\x00\x02"),
            body: body.into(),
            persistent: true,
            expiration_ms: None,
        });
        // Some queues drop it at one time, some at another.
        let (soon, late) = queues.split_at(self.random.random_range(0..=queues.len()));
        let enqueued = |expires_ms, queues: &[Arc<str>]| {
            let (content, queues) = (content.clone(), queues.to_vec());
            (!queues.is_empty()).then_some(Record::Enqueued { message, expires_ms, content, queues })
        };
        let at = self.random.random_range(1..1_000);
        [enqueued(Some(at), soon), enqueued(None, late)].into_iter().flatten().collect()
    }
}
