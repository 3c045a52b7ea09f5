//! The contract: what a bus and a link do.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::consumer::Consumer;
use crate::error::{BusError, CloseReason, PublishError};
use crate::message::Outgoing;

/// Knows how to reach a broker as one identity.
pub trait Bus: Send + Sync {
    /// Opens a new connection, trying every address of every configured broker once.
    ///
    /// Names are resolved anew each time. The caller repeats with back-off.
    ///
    /// # Errors
    /// Returns the most telling failure of all addresses; [`BusError::Unreachable`] lists each of them.
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>>;

    /// Names the brokers and the identity, for logs and messages.
    fn describe(&self) -> String;
}

/// One open connection.
///
/// Every method may be called concurrently. Dropping the last handle closes the connection.
pub trait Link: Send + Sync {
    /// Creates a queue, or makes sure that it exists with the same properties.
    ///
    /// # Errors
    /// [`BusError::Denied`] without permission, [`BusError::Conflict`] if it exists otherwise.
    fn declare_queue(&self, queue: QueueSpec) -> BoxFuture<'_, Result<(), BusError>>;

    /// Binds a queue to an exchange. Binding twice is the same as binding once.
    ///
    /// # Errors
    /// [`BusError::Denied`] without permission, [`BusError::NotFound`] if queue or exchange are missing.
    fn bind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>>;

    /// Creates a queue and binds it with each of the keys, as [`Link::declare_queue`] and [`Link::bind`] would, without
    /// waiting for one answer before asking the next.
    ///
    /// # Errors
    /// As those two.
    fn declare_bound<'a>(
        &'a self,
        queue: QueueSpec,
        exchange: &'a str,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<(), BusError>> {
        async move {
            let name = queue.name.clone();
            self.declare_queue(queue).await?;
            for key in keys {
                self.bind(&name, exchange, key).await?;
            }
            Ok(())
        }
        .boxed()
    }

    /// Removes a binding. Removing one that does not exist succeeds.
    ///
    /// # Errors
    /// As [`Link::bind`].
    fn unbind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>>;

    /// Starts reading a queue.
    ///
    /// # Errors
    /// [`BusError::Denied`], [`BusError::NotFound`], or [`BusError::Conflict`] if another consumer has it exclusively.
    fn consume(&self, queue: &str, options: ConsumeOptions) -> BoxFuture<'_, Result<Consumer, BusError>>;

    /// Sends a message.
    ///
    /// Many messages can be in flight at once: collect the futures and await them together. Only messages
    /// awaited one after the other are sure to keep their order.
    ///
    /// # Errors
    /// [`PublishError`] says whether the message certainly did not arrive or may have.
    fn publish(&self, message: Outgoing, guarantee: Guarantee) -> BoxFuture<'_, Result<(), PublishError>>;

    /// Resolves once the connection is gone, with the reason. May be awaited many times.
    fn closed(&self) -> BoxFuture<'_, CloseReason>;

    /// Closes the connection politely. Deliveries that are not acknowledged go back to their queue.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a message costs and what its `Ok` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// `Ok` means that the broker has taken responsibility for the message.
    Confirmed,
    /// `Ok` means that the message was handed to the connection. Cheap, for answers that may be lost.
    Fire,
}

/// A queue to declare. Lengths and lifetimes are the broker's policy, not the client's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue's name, from `muster_protocol::routing`.
    pub name: String,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Belongs to this connection and goes away with it.
    pub exclusive: bool,
    /// Goes away with its last consumer.
    pub auto_delete: bool,
}

impl QueueSpec {
    /// A queue that outlives connection and broker restarts, as an agent's.
    #[must_use]
    pub fn durable(name: impl Into<String>) -> Self {
        Self { name: name.into(), durable: true, exclusive: false, auto_delete: false }
    }

    /// A queue that lives and dies with this connection, as a command line's replies.
    #[must_use]
    pub fn exclusive(name: impl Into<String>) -> Self {
        Self { name: name.into(), durable: false, exclusive: true, auto_delete: true }
    }
}

/// How to read a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// Most deliveries the broker sends ahead of their acknowledgement. At least 1.
    pub prefetch: u16,
    /// Whether nobody else may read the queue at the same time.
    pub exclusive: bool,
}
