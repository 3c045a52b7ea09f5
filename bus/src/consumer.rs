//! Reading a queue.

use std::fmt;

use crate::amqp::AmqpSource;
use crate::memory::MemorySource;
use crate::message::Delivery;

/// A stream of deliveries from one queue.
pub struct Consumer {
    pub(crate) source: Source,
}

pub(crate) enum Source {
    Amqp(AmqpSource),
    Memory(MemorySource),
}

/// Why a consumer gave its last delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerEnd {
    /// The connection is gone; connect again.
    ConnectionLost,
    /// The broker ended it while the connection lives on, because the queue was deleted or the queue's
    /// node went away. Declare, bind and consume again.
    CancelledByBroker,
    /// This side closed the link.
    Closed,
}

impl Consumer {
    /// Waits for the next delivery; `None` once the consumer has ended.
    ///
    /// Safe to cancel: a delivery is either returned or still there for the next call.
    pub async fn next(&mut self) -> Option<Delivery> {
        match &mut self.source {
            Source::Amqp(source) => source.next().await,
            Source::Memory(source) => source.next().await,
        }
    }

    /// Says why [`Consumer::next`] returned `None`. Before that, what would be said if it did now.
    #[must_use]
    pub fn ended(&self) -> ConsumerEnd {
        match &self.source {
            Source::Amqp(source) => source.ended(),
            Source::Memory(source) => source.ended(),
        }
    }

    /// The error that [`Consumer::next`] ended with, in the broker's or the system's words, where it ended with one.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match &self.source {
            Source::Amqp(source) => source.why(),
            Source::Memory(_) => None,
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Consumer").field("ended", &self.ended()).finish_non_exhaustive()
    }
}
