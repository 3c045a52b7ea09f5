//! `basic.publish`.

use std::sync::Arc;

use super::keys::{QueueKey, StoredKey};
use super::refusals::no_channel;
use super::{ChannelOf, Engine};
use crate::fault::Fault;
use crate::journal::Record;
use crate::message::Message;
use crate::outlet::{Outlet, Output};

/// What became of a message in one queue.
enum Offered {
    /// It is with a consumer that does not acknowledge, or the queue is gone.
    Passed,
    /// It waits, or is unacknowledged; when it expires.
    Kept(i64),
    /// The queue is full and refuses.
    Refused,
}

/// The part of the broker's memory for messages, as a divisor, that one queue without a consumer may fill, where it
/// refuses what is too much.
const UNATTENDED_PART: usize = 4;

impl Engine {
    /// `basic.publish`, content complete. Deliveries, a return and a confirm go to the outlet, in this order for the
    /// publisher. A message that finds no queue is returned if `mandatory` and confirmed all the same. A message that a
    /// full queue refuses is confirmed negatively, whatever other queues did.
    ///
    /// # Errors
    /// 404 for the exchange, 403 for an internal one.
    pub fn publish(
        &mut self,
        at: ChannelOf,
        message: Arc<Message>,
        mandatory: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        let from = self.channel_at(at).ok_or_else(no_channel)?;
        let exchange = self.exchange_of(&message.exchange)?;
        if self.exchanges.get(exchange).is_some_and(|exchange| exchange.spec.internal) {
            let what = self.exchange_named(&message.exchange);
            return Err(Fault::access_refused(format_args!("cannot publish to internal {what}")));
        }
        let stored = self.store.insert(message.clone());
        let (mut refused, mut unroutable, mut journaled) = (false, false, false);
        if message.exchange.is_empty() {
            match self.queue_names.get(&*message.routing_key).copied() {
                None => unroutable = true,
                Some(queue) => (refused, journaled) = self.offer_all(&[queue], stored, &message, now_ms, outlet),
            }
        } else {
            let route = self.route(exchange, &message.routing_key);
            unroutable = route.queues().is_empty();
            (refused, journaled) = self.offer_all(route.queues(), stored, &message, now_ms, outlet);
            self.routed(route);
        }
        let Some(channel) = self.channels.get_mut(from) else { return Ok(()) };
        let connection = channel.connection;
        let confirmed = channel.confirmed.as_mut().map(|last| {
            *last += 1;
            *last
        });
        if unroutable && mandatory {
            let (channel, code, text) = (at.1, 312, "NO_ROUTE");
            self.put_out(
                connection,
                stored,
                message,
                |message| Output::Return { channel, code, text, message },
                outlet,
            );
        }
        self.store.release(stored);
        if let Some(tag) = confirmed {
            let output = Output::Confirm { channel: at.1, tag, taken: !refused };
            if journaled {
                outlet.send_when_durable(at.0, output);
            } else {
                outlet.send(at.0, output);
            }
        }
        Ok(())
    }

    /// Offers a message to queues: whether one refused, and whether it is in the journal.
    fn offer_all(
        &mut self,
        queues: &[QueueKey],
        stored: StoredKey,
        message: &Arc<Message>,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> (bool, bool) {
        let mut refused = false;
        let mut durable: Vec<(i64, Arc<str>)> = Vec::new();
        // What is too much is dropped after the message is recorded: it may be this message.
        let mut over: Vec<QueueKey> = Vec::new();
        for &key in queues {
            match self.offer(key, stored, message, now_ms, &mut over, outlet) {
                Offered::Passed => {}
                Offered::Refused => refused = true,
                Offered::Kept(expires_ms) => {
                    if message.persistent
                        && let Some(queue) = self.queues.get(key).filter(|queue| queue.journaled)
                    {
                        durable.push((expires_ms, queue.spec.name.clone()));
                    }
                }
            }
        }
        if !durable.is_empty() {
            self.record_message(stored, message, &mut durable, outlet);
        }
        for key in over {
            self.drop_expired(key, now_ms, outlet);
            self.drop_overflow(key, outlet);
            self.schedule(key);
        }
        (refused, !durable.is_empty())
    }

    fn offer(
        &mut self,
        key: QueueKey,
        stored: StoredKey,
        message: &Arc<Message>,
        now_ms: i64,
        over: &mut Vec<QueueKey>,
        outlet: &mut impl Outlet,
    ) -> Offered {
        // What nobody takes must not fill the broker, which would hold up everybody: such a queue refuses before that.
        let unattended_max = (self.limits.message_bytes_max / UNATTENDED_PART) as u64;
        let Some(queue) = self.queues.get_mut(key) else { return Offered::Passed };
        let beyond_share =
            queue.account.as_ref().is_some_and(|account| account.would_overflow(message.size(), &self.limits));
        if queue.bounds.refuses && beyond_share {
            if let Some(account) = &queue.account {
                account.count_refused();
            }
            return Offered::Refused;
        }
        if queue.bounds.refuses
            && (queue.would_overflow(message.body.len())
                || queue.consumers.is_empty() && queue.ready_bytes + message.body.len() as u64 > unattended_max)
        {
            return Offered::Refused;
        }
        let entry = queue.entry(stored, message, now_ms);
        let idle = queue.ready.is_empty();
        if idle
            && !beyond_share
            && let Some(consumer) = self.next_consumer(key)
        {
            self.store.hold(stored);
            let kept = self.consumers.get(consumer).is_some_and(|consumer| !consumer.no_ack);
            self.hand_over(key, consumer, entry, message.clone(), outlet);
            return if kept { Offered::Kept(entry.expires_ms) } else { Offered::Passed };
        }
        let Some(queue) = self.queues.get_mut(key) else { return Offered::Passed };
        self.store.hold(stored);
        queue.push(entry);
        if entry.expires_ms <= now_ms || queue.overflows() || beyond_share {
            over.push(key);
        } else if idle {
            self.schedule(key);
        }
        Offered::Kept(entry.expires_ms)
    }

    /// Records a message: once for all queues in which it expires at the same time.
    fn record_message(
        &mut self,
        stored: StoredKey,
        message: &Arc<Message>,
        durable: &mut [(i64, Arc<str>)],
        outlet: &mut impl Outlet,
    ) {
        let number = self.store.number(stored);
        durable.sort_by_key(|(expires_ms, _)| *expires_ms);
        for together in durable.chunk_by(|one, other| one.0 == other.0) {
            let Some(&(expires_ms, _)) = together.first() else { continue };
            outlet.record(Record::Enqueued {
                message: number,
                expires_ms: (expires_ms != super::queue::NEVER).then_some(expires_ms),
                content: message.clone(),
                queues: together.iter().map(|(_, name)| name.clone()).collect(),
            });
        }
    }
}
