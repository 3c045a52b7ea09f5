//! What all connections share: exchanges, bindings, queues, consumers, and what is unacknowledged.
//!
//! A plain value without I/O, tasks or a clock. Times are milliseconds since the epoch, given with each call. Whether an
//! identity may do something is decided before ([`crate::access`]); whether it is possible, here.
//!
//! # The data and how it flows
//!
//! A publication finds its queues ([`routing`]): an exchange has a table from binding keys to targets, a tree of words for
//! topics, and results with many queues are remembered until a binding changes. Each queue either hands the message to the
//! consumer whose turn it is ([`delivery`]) or keeps an entry for it. The message itself is in the [`store`], once for all
//! queues, channels and outboxes that refer to it, and the store counts its bytes. What a consumer was given is in its
//! channel's list ([`unacked`]) until it is acknowledged or put back at its place. A consumer that has no room when its turn
//! comes rests, and is no longer asked, until an acknowledgement or a written outbox gives it room.
//!
//! What an identity's queues, channels and outboxes hold together has a bound of its own ([`accounts`]).
//!
//! Everything is found by keys, numbers that lead to a place in a table; names are looked up once for a method, never for
//! a delivery.
//!
//! # Invariants
//!
//! - Between two calls, a queue has messages that wait or consumers with room, never both.
//! - Nothing that goes out depends on the order of a hash table: the same calls with the same times give the same outputs.
//! - What a client can make the engine do in one call is bounded by what there is, not by how cleverly it is arranged.

mod accounts;
mod acknowledging;
mod bindings;
mod connections;
mod consuming;
mod deadlines;
mod delivery;
mod durable;
mod exchange;
mod exchanges;
mod keys;
mod look;
mod peers;
mod publishing;
mod queue;
mod queues;
mod refusals;
mod routing;
mod specs;
mod store;
mod topic;
mod unacked;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use amq_protocol::types::ShortString;
use slotmap::SlotMap;

use self::accounts::Account;
use self::exchange::Exchange;
use self::keys::{ChannelKey, ConnectionKey, ConsumerKey, ExchangeKey, QueueKey, StoredKey, Target};
use self::peers::{Channel, Connection, Consumer};
use self::queue::Queue;
use self::routing::Remembered;
use self::store::Store;
use crate::ids::{ChannelNumber, ConnectionId};

pub use accounts::{AccountLook, OwnerOf, Share};
pub use look::{BindingLook, QueueLook};
pub use specs::{
    BindingSpec, ConsumerSpec, Destination, ExchangeKind, ExchangeSpec, Overflow, Policy, QueueLimits, QueueSpec,
};

/// Bounds of the engine. Each refusal names the one that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Queues at once.
    pub queues_max: usize,
    /// Bindings at once.
    pub bindings_max: usize,
    /// Exchanges at once.
    pub exchanges_max: usize,
    /// Consumers of one connection.
    pub consumers_max: usize,
    /// Bytes of messages in all queues and outboxes: beyond, publishers are blocked.
    pub message_bytes_max: usize,
    /// Bytes that wait in the outbox of one connection: beyond, its consumers get nothing more until it has read.
    pub outbox_bytes_max: usize,
    /// Bytes of one host in queues, unacknowledged and in outboxes: see [`Share`].
    pub host_bytes_max: usize,
    /// The same of a user, a service or another broker.
    pub controller_bytes_max: usize,
}

/// How much of something there is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCount {
    /// Messages that wait for a consumer.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A queue that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name, which may be the broker's choice.
    pub name: Arc<str>,
    /// What is in it.
    pub count: QueueCount,
}

/// A channel, as the engine knows it: consumers, what is unacknowledged, prefetch, confirms.
pub type ChannelOf = (ConnectionId, ChannelNumber);

/// What there is now, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections.
    pub connections: usize,
    /// Channels.
    pub channels: usize,
    /// Consumers.
    pub consumers: usize,
    /// Exchanges, AMQP's own among them.
    pub exchanges: usize,
    /// Queues.
    pub queues: usize,
    /// Bindings.
    pub bindings: usize,
    /// Messages that wait, in all queues: one in two queues is two.
    pub ready: usize,
    /// Messages that were delivered and not acknowledged.
    pub unacknowledged: usize,
    /// Bytes of messages in queues, channels and outboxes, each message once.
    pub message_bytes: usize,
    /// Connections whose outbox is above its bound.
    pub slow: usize,
}

/// Everything that connections share.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    policies: Vec<Policy>,
    vhost: Arc<str>,
    exchanges: SlotMap<ExchangeKey, Exchange>,
    exchange_names: HashMap<Arc<str>, ExchangeKey>,
    queues: SlotMap<QueueKey, Queue>,
    queue_names: HashMap<Arc<str>, QueueKey>,
    bindings: usize,
    connections: SlotMap<ConnectionKey, Connection>,
    connections_by_id: HashMap<ConnectionId, ConnectionKey>,
    channels: SlotMap<ChannelKey, Channel>,
    consumers: SlotMap<ConsumerKey, Consumer>,
    accounts: HashMap<Arc<str>, Arc<Account>>,
    /// Whose a queue is that was there before the restart, by its name.
    owner_of: OwnerOf,
    store: Store,
    /// Publishers wait for something outside.
    pressed: bool,
    remembered: Remembered,
    /// Each queue that has a time at which something is due, once.
    deadlines: BTreeSet<(i64, QueueKey)>,
    /// Walks through the exchanges so far; each marks what it has seen.
    walks: u64,
    seed: u64,
    names_made: u64,
    /// A record is replayed now.
    replaying: bool,
    /// By their numbers, from the first replayed record to the first connection.
    replayed: HashMap<u64, StoredKey>,
    /// Room for a walk, kept from one to the next.
    found_targets: Vec<Target>,
    found_queues: Vec<QueueKey>,
}

impl Engine {
    /// An engine with these limits, policies for queues, and exchanges of the site beside AMQP's own (`""`, `amq.direct`,
    /// `amq.fanout`, `amq.topic`). Of several policies for a name, the one with the longest prefix holds.
    #[must_use]
    pub fn new(limits: Limits, policies: Vec<Policy>, exchanges: Vec<ExchangeSpec>) -> Self {
        let mut engine = Self {
            limits,
            policies,
            vhost: muster_protocol::routing::VHOST_DEFAULT.into(),
            exchanges: SlotMap::with_key(),
            exchange_names: HashMap::new(),
            queues: SlotMap::with_key(),
            queue_names: HashMap::new(),
            bindings: 0,
            connections: SlotMap::with_key(),
            connections_by_id: HashMap::new(),
            channels: SlotMap::with_key(),
            consumers: SlotMap::with_key(),
            accounts: HashMap::new(),
            owner_of: |_| None,
            store: Store::new(limits.message_bytes_max),
            pressed: false,
            remembered: Remembered::default(),
            deadlines: BTreeSet::new(),
            walks: 0,
            seed: 0,
            names_made: 0,
            replaying: false,
            replayed: HashMap::new(),
            found_targets: Vec::new(),
            found_queues: Vec::new(),
        };
        let own = [
            ("", ExchangeKind::Direct),
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
        ];
        for (name, kind) in own {
            let spec = ExchangeSpec { name: name.into(), kind, durable: true, auto_delete: false, internal: false };
            engine.add_exchange(spec, true);
        }
        for spec in exchanges {
            if !engine.exchange_names.contains_key(&spec.name) {
                engine.add_exchange(spec, true);
            }
        }
        engine
    }

    /// With the name of the virtual host, which refusals tell (default `muster`), and a random number that makes the names
    /// it gives to queues differ from those of the run before.
    #[must_use]
    pub fn named(self, vhost: &str, seed: u64) -> Self {
        Self { vhost: vhost.into(), seed, ..self }
    }

    /// Whether bytes in memory are above the bound, so that publishers are to wait. Falls again at four fifths of it.
    /// Also while somebody [presses](Engine::press).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pressed || self.store.is_full()
    }

    /// What there is now. Goes through all queues, so not for each message.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.connections.len(),
            channels: self.channels.len(),
            consumers: self.consumers.len(),
            exchanges: self.exchanges.len(),
            queues: self.queues.len(),
            bindings: self.bindings,
            ready: self.queues.values().map(|queue| queue.ready.len()).sum(),
            unacknowledged: self.channels.values().map(|channel| channel.unacked.len()).sum(),
            message_bytes: self.store.bytes(),
            slow: self.connections.values().filter(|connection| connection.slow).count(),
        }
    }
}

/// A text of a method. Names and tags came as short strings, or were made shorter than that.
fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
