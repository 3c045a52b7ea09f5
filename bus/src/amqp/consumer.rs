//! Deliveries from a queue.
//!
//! Settlements of one channel reach the broker in the order in which they were begun, also those that are given
//! up half-way: a settlement that the broker hears twice, or behind one that settled everything up to a later tag,
//! makes it close the channel ("unknown delivery tag"). lapin's own handle runs each in a task of its own, where
//! the later may overtake the earlier, so the channel is used directly.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, ErrorKind, message};
use muster_protocol::envelope::SIGNATURES_HEADER;
use muster_protocol::limits::{BODY_BYTES_MAX, SIGNATURES_BYTES_MAX};

use super::link::State;
use crate::consumer::ConsumerEnd;
use crate::error::{BusError, Operation};
use crate::message::{Delivery, Settlement, Settler};

/// The deliveries of one consumer.
pub(crate) struct AmqpSource {
    consumer: lapin::Consumer,
    shared: Arc<Shared>,
    end: Option<ConsumerEnd>,
    why: Option<String>,
}

/// What a consumer and its deliveries share. The channel stays open until the last of them is gone, so
/// deliveries can be settled after the consumer was dropped.
struct Shared {
    channel: Channel,
    state: Arc<State>,
    queue: String,
    /// Held from the look until the settlement is in the line of what is to be sent, never longer.
    settled: Mutex<Settled>,
}

/// Which deliveries the broker was told about, and must not be told about again.
#[derive(Debug, Default)]
struct Settled {
    /// All up to this tag.
    through: u64,
    /// And these after it. As many as are settled out of turn, so at most what the broker sends ahead.
    after: BTreeSet<u64>,
}

impl Settled {
    /// Takes note of a settlement; `false` if the delivery was settled before.
    fn take(&mut self, tag: u64, through: bool) -> bool {
        if tag <= self.through || self.after.contains(&tag) {
            return false;
        }
        if through {
            self.through = tag;
            self.after = self.after.split_off(&tag);
        } else {
            self.after.insert(tag);
        }
        // The usual case: one after the other.
        while self.after.remove(&(self.through + 1)) {
            self.through += 1;
        }
        true
    }
}

impl AmqpSource {
    pub(super) fn new(consumer: lapin::Consumer, channel: Channel, state: Arc<State>, queue: &str) -> Self {
        let shared = Shared { channel, state, queue: queue.to_owned(), settled: Mutex::default() };
        Self { consumer, shared: Arc::new(shared), end: None, why: None }
    }

    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        if self.end.is_some() {
            return None;
        }
        match self.consumer.next().await {
            Some(Ok(message)) => Some(self.delivery(message)),
            // After an error only the end follows.
            Some(Err(error)) => {
                tracing::debug!(%error, queue = self.shared.queue, "The deliveries ended with an error");
                self.end = Some(match self.ended() {
                    // The state of the connection may be told a moment later than its consumers are.
                    ConsumerEnd::CancelledByBroker if ends_connection(&error) => ConsumerEnd::ConnectionLost,
                    end => end,
                });
                self.why = Some(error.to_string());
                None
            }
            None => {
                self.end = Some(self.ended());
                None
            }
        }
    }

    pub(crate) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(crate) fn ended(&self) -> ConsumerEnd {
        self.end.unwrap_or_else(|| {
            if self.shared.state.is_requested() {
                ConsumerEnd::Closed
            } else if self.shared.state.is_alive() {
                ConsumerEnd::CancelledByBroker
            } else {
                ConsumerEnd::ConnectionLost
            }
        })
    }

    fn delivery(&self, message: message::Delivery) -> Delivery {
        let properties = &message.properties;
        let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
        let signatures = properties
            .headers()
            .as_ref()
            .and_then(|headers| match headers.inner().get(SIGNATURES_HEADER) {
                Some(AMQPValue::LongString(text)) => Some(text.as_bytes()),
                _ => None,
            })
            .unwrap_or_default();
        let oversized = (message.data.len() > BODY_BYTES_MAX || signatures.len() > SIGNATURES_BYTES_MAX)
            .then_some(message.data.len() + signatures.len());
        let signatures = if oversized.is_some() { Bytes::new() } else { Bytes::copy_from_slice(signatures) };
        Delivery {
            exchange: message.exchange.to_string(),
            routing_key: message.routing_key.to_string(),
            content_type: text(properties.content_type()).unwrap_or_default(),
            sender: text(properties.user_id()),
            correlation_id: text(properties.correlation_id()),
            signatures,
            redelivered: message.redelivered,
            body: if oversized.is_some() { Bytes::new() } else { Bytes::from(message.data) },
            oversized,
            settler: Settler::Amqp(AmqpSettler { tag: message.delivery_tag, shared: Arc::clone(&self.shared) }),
        }
    }
}

/// Whether an error is one of the whole connection, not of one channel.
fn ends_connection(error: &lapin::Error) -> bool {
    error.is_io_error() || error.is_amqp_hard_error() || matches!(error.kind(), ErrorKind::MissingHeartbeatError)
}

/// Settles one delivery.
pub(crate) struct AmqpSettler {
    tag: u64,
    shared: Arc<Shared>,
}

impl AmqpSettler {
    pub(crate) async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        let (channel, tag) = (&self.shared.channel, self.tag);
        let (ack, nack) = (
            |multiple| channel.basic_ack(tag, BasicAckOptions { multiple }).boxed(),
            |requeue| channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue }).boxed(),
        );
        let settling = match settlement {
            Settlement::Ack => ack(false),
            Settlement::AckThrough => ack(true),
            Settlement::Reject => nack(false),
            Settlement::Requeue => nack(true),
        };
        let begun = {
            let mut settled = self.shared.settled.lock().unwrap_or_else(PoisonError::into_inner);
            // The broker closes the channel of who settles twice.
            if channel.status().connected() && !settled.take(tag, settlement == Settlement::AckThrough) {
                return Ok(());
            }
            // Puts it into the line. That it is written is not waited for: it says nothing about whether the broker
            // gets it, each wait wakes two threads, and what follows at once leaves in the same TLS record. The line
            // is bounded, since the broker sends no more than it has been told to ahead.
            settling.now_or_never()
        };
        match begun {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) if !matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {
                Err(self.shared.state.error(&error, Operation::Settle, &self.shared.queue).await)
            }
            Some(Err(_)) if self.shared.state.is_alive() => Err(BusError::NotFound {
                operation: Operation::Settle,
                resource: self.shared.queue.clone(),
                why: "its consumer has ended".to_owned(),
            }),
            Some(Err(_)) => Err(self.shared.state.closed_error(None).await),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("queue", &self.queue)
            .field("channel", &self.channel.id())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_told_of_each_delivery_once() {
        let mut settled = Settled::default();
        for (tag, through, expected) in [
            (1, false, true),
            (1, false, false),
            (3, false, true),
            (4, true, true),
            (2, false, false),
            (3, true, false),
            (7, false, true),
            (6, true, true),
            (7, true, false),
            (8, true, true),
        ] {
            assert_eq!(settled.take(tag, through), expected, "{tag} {through}");
        }
        assert_eq!((settled.through, settled.after.len()), (8, 0));
    }
}
