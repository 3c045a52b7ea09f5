//! What queues, exchanges, bindings and consumers are asked to be.

use std::sync::Arc;

use amq_protocol::types::FieldTable;

use crate::ids::{ChannelNumber, ConnectionId};

/// How an exchange finds its queues (AMQP 0-9-1 section 3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// The key is the binding key.
    Direct,
    /// Every binding.
    Fanout,
    /// Words with `*` and `#`.
    Topic,
}

/// An exchange as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: Arc<str>,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes away with its last binding.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Drops its oldest message.
    #[default]
    DropHead,
    /// Refuses the newest, with a negative confirm.
    RejectPublish,
}

/// Limits of a queue, from its arguments (`x-expires`, `x-message-ttl`, `x-max-length`, `x-max-length-bytes`,
/// `x-overflow`) or from a policy. Of both, the smaller number holds, as with RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueLimits {
    /// Without consumers for so long, it is deleted.
    pub expires_ms: Option<u64>,
    /// A message is dropped after so long.
    pub message_ttl_ms: Option<u64>,
    /// Messages that wait.
    pub length_max: Option<u64>,
    /// Bytes of bodies that wait.
    pub bytes_max: Option<u64>,
    /// What happens beyond.
    pub overflow: Option<Overflow>,
}

/// A queue as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Its name; empty asks the broker for one (`amq.gen-...`).
    pub name: Arc<str>,
    /// Survives a restart.
    pub durable: bool,
    /// Of this connection only, and goes with it.
    pub exclusive: bool,
    /// Goes away with its last consumer.
    pub auto_delete: bool,
    /// Limits from its arguments.
    pub limits: QueueLimits,
}

/// Limits for queues by name, as `muster-broker-config` generates them for RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The beginning of the names it is for.
    pub prefix: String,
    /// The limits.
    pub limits: QueueLimits,
}

/// What a binding leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue.
    Queue(Arc<str>),
    /// Another exchange.
    Exchange(Arc<str>),
}

/// A binding.
#[derive(Debug, Clone, PartialEq)]
pub struct BindingSpec {
    /// The exchange that sends.
    pub source: Arc<str>,
    /// What receives.
    pub destination: Destination,
    /// The binding key.
    pub key: Arc<str>,
    /// Arguments, which make bindings with the same key different ones.
    pub arguments: FieldTable,
}

/// A consumer as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerSpec {
    /// The connection.
    pub connection: ConnectionId,
    /// The channel.
    pub channel: ChannelNumber,
    /// The queue.
    pub queue: Arc<str>,
    /// Its tag; empty asks the broker for one (`amq.ctag-...`).
    pub tag: Arc<str>,
    /// Deliveries count as acknowledged.
    pub no_ack: bool,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// No `consume-ok` is sent.
    pub no_wait: bool,
}
