//! What the engine wants kept.

use std::sync::Arc;

use crate::engine::{BindingSpec, ExchangeSpec, QueueSpec};
use crate::message::Message;

/// A change of what is durable. Replayed in order, records give the durable part of the engine again.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A durable exchange was declared.
    ExchangeDeclared(Arc<ExchangeSpec>),
    /// A durable exchange, with its bindings, went.
    ExchangeDeleted {
        /// Its name.
        name: Arc<str>,
    },
    /// A durable queue was declared.
    QueueDeclared(Arc<QueueSpec>),
    /// A durable queue, with its bindings and messages, went.
    QueueDeleted {
        /// Its name.
        name: Arc<str>,
    },
    /// A durable queue or exchange was bound to a durable exchange.
    Bound(Arc<BindingSpec>),
    /// Such a binding went.
    Unbound(Arc<BindingSpec>),
    /// A persistent message is in durable queues now. One record for all of them that drop it at the same time.
    Enqueued {
        /// The number of the message, later ones have higher ones.
        message: u64,
        /// When it is dropped, in milliseconds since the epoch, if ever, by its own expiration or a queue's; the soonest is
        /// each queue's own business after a replay.
        expires_ms: Option<i64>,
        /// What.
        content: Arc<Message>,
        /// In which queues.
        queues: Vec<Arc<str>>,
    },
    /// A persistent message left a queue: acknowledged, dropped, expired or purged.
    Removed {
        /// The number of the message.
        message: u64,
        /// The queue.
        queue: Arc<str>,
    },
}
