//! Deliveries from a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use lapin::{Acker, Channel, message};
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
}

/// What a consumer and its deliveries share. The channel stays open until the last of them is gone, so
/// deliveries can be settled after the consumer was dropped.
struct Shared {
    channel: Channel,
    state: Arc<State>,
    queue: String,
    /// Deliveries up to this tag were acknowledged together.
    settled_through: AtomicU64,
    limit: Duration,
}

impl AmqpSource {
    pub(super) fn new(
        consumer: lapin::Consumer,
        channel: Channel,
        state: Arc<State>,
        queue: &str,
        limit: Duration,
    ) -> Self {
        let shared = Shared { channel, state, queue: queue.to_owned(), settled_through: AtomicU64::new(0), limit };
        Self { consumer, shared: Arc::new(shared), end: None }
    }

    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        if self.end.is_some() {
            return None;
        }
        match self.consumer.next().await {
            Some(Ok(message)) => Some(self.delivery(message)),
            // After an error only the end follows.
            Some(Err(_)) | None => {
                self.end = Some(self.ended());
                None
            }
        }
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
            settler: Settler::Amqp(AmqpSettler {
                tag: message.delivery_tag,
                acker: message.acker,
                shared: Arc::clone(&self.shared),
            }),
        }
    }
}

/// Settles one delivery.
pub(crate) struct AmqpSettler {
    tag: u64,
    acker: Acker,
    shared: Arc<Shared>,
}

impl AmqpSettler {
    pub(crate) async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        // The broker closes the channel of who settles twice.
        if self.tag <= self.shared.settled_through.load(Ordering::Acquire) {
            return Ok(());
        }
        let settling = async {
            match settlement {
                Settlement::Ack => self.acker.ack(BasicAckOptions { multiple: false }).await,
                Settlement::AckThrough => {
                    self.shared.settled_through.fetch_max(self.tag, Ordering::AcqRel);
                    self.acker.ack(BasicAckOptions { multiple: true }).await
                }
                Settlement::Reject => self.acker.nack(BasicNackOptions { multiple: false, requeue: false }).await,
                Settlement::Requeue => self.acker.nack(BasicNackOptions { multiple: false, requeue: true }).await,
            }
        };
        match tokio::time::timeout(self.shared.limit, settling).await {
            Ok(Ok(true)) => Ok(()),
            // Already settled, unless the channel is gone.
            Ok(Ok(false)) if !self.acker.poisoned() => Ok(()),
            Ok(Ok(false)) if self.shared.state.is_alive() => Err(BusError::NotFound {
                operation: Operation::Settle,
                resource: self.shared.queue.clone(),
                why: "its consumer has ended".to_owned(),
            }),
            Ok(Ok(false)) => Err(self.shared.state.closed_error(None).await),
            Ok(Err(error)) => Err(self.shared.state.error(&error, Operation::Settle, &self.shared.queue).await),
            Err(_) => Err(BusError::Timeout {
                operation: Operation::Settle,
                resource: self.shared.queue.clone(),
                limit_ms: u64::try_from(self.shared.limit.as_millis()).unwrap_or(u64::MAX),
            }),
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
