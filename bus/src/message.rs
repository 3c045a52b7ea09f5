//! What goes out and what comes in.

use std::fmt;

use bytes::Bytes;

use crate::amqp::AmqpSettler;
use crate::error::BusError;
use crate::memory::MemorySettler;

/// A message to publish.
#[derive(Clone)]
pub struct Outgoing {
    /// The exchange, from `muster_protocol::routing`; empty for the default exchange.
    pub exchange: &'static str,
    /// The routing key.
    pub routing_key: String,
    /// The content type, which is the signed payload type.
    pub content_type: String,
    /// The exact bytes that were signed.
    pub body: Bytes,
    /// The signatures header: JSON text. Empty means no header.
    pub signatures: Bytes,
    /// How long a queue keeps the message, in milliseconds.
    pub expiration_ms: Option<u64>,
    /// Whether a durable queue keeps it on disk.
    pub persistent: bool,
    /// Whether a message that reaches no queue comes back as `PublishError::Unroutable`.
    /// Only useful with `Guarantee::Confirmed`.
    pub mandatory: bool,
    /// What the message answers, for people who look at the broker.
    pub correlation_id: Option<String>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outgoing")
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.body.len())
            .field("signatures_bytes", &self.signatures.len())
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}

/// A message from a queue. It stays the queue's until it is acknowledged or rejected; if the
/// connection ends before, it is delivered again.
///
/// Nothing in it is trusted: who sent it is what its signatures prove. Dropping it settles nothing.
pub struct Delivery {
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The content type it claims; empty if it has none.
    pub content_type: String,
    /// The body; empty if `oversized` is set.
    pub body: Bytes,
    /// The signatures header; empty if there is none or `oversized` is set.
    pub signatures: Bytes,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// The `user-id` property, which the broker has checked against the sender's login.
    pub sender: Option<String>,
    /// The correlation id it claims.
    pub correlation_id: Option<String>,
    /// Its size in bytes, if body or signatures are larger than the protocol allows.
    /// Reject such a delivery.
    pub oversized: Option<usize>,
    pub(crate) settler: Settler,
}

/// Where acknowledgements go.
pub(crate) enum Settler {
    Amqp(AmqpSettler),
    Memory(MemorySettler),
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack,
    /// Acknowledges this and all earlier deliveries of the consumer.
    AckThrough,
    Reject,
    Requeue,
}

impl Delivery {
    /// Takes responsibility: the broker forgets the message.
    ///
    /// # Errors
    /// [`BusError::Closed`] if the connection or the consumer has ended; the message is then delivered again.
    pub async fn ack(&self) -> Result<(), BusError> {
        self.settle(Settlement::Ack).await
    }

    /// Acknowledges this and every earlier delivery of the same consumer that is not settled yet.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn ack_through(&self) -> Result<(), BusError> {
        self.settle(Settlement::AckThrough).await
    }

    /// Refuses the message for good: the broker drops it.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn reject(&self) -> Result<(), BusError> {
        self.settle(Settlement::Reject).await
    }

    /// Puts the message back into its queue.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn requeue(&self) -> Result<(), BusError> {
        self.settle(Settlement::Requeue).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        match &self.settler {
            Settler::Amqp(settler) => settler.settle(settlement).await,
            Settler::Memory(settler) => settler.settle(settlement),
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Delivery")
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.oversized.unwrap_or(self.body.len()))
            .field("redelivered", &self.redelivered)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}
