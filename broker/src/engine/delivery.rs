//! From queues to consumers.
//!
//! Invariant: between two calls of the engine, a queue has messages that wait or consumers with room, never both, unless too
//! much of it is unacknowledged.

use std::sync::Arc;

use super::Engine;
use super::keys::{ChannelKey, ConnectionKey, ConsumerKey, QueueKey, StoredKey};
use super::peers::Consumer;
use super::queue::{Entry, Queue};
use super::unacked::Delivery;
use crate::journal::Record;
use crate::message::Message;
use crate::outlet::{Outlet, Output};

impl Engine {
    /// The consumer whose turn it is, of those with room. It is the last one afterwards.
    pub(super) fn next_consumer(&mut self, key: QueueKey) -> Option<ConsumerKey> {
        let queue = self.queues.get_mut(key)?;
        queue.held_back = queue.is_owed_too_much();
        if queue.held_back {
            return None;
        }
        while let Some(candidate) = queue.available.pop_front() {
            let Some(consumer) = self.consumers.get_mut(candidate) else { continue };
            let Some(channel) = self.channels.get_mut(consumer.channel) else { continue };
            let Some(connection) = self.connections.get(consumer.connection) else { continue };
            if consumer.has_room(channel, connection) {
                queue.available.push_back(candidate);
                return Some(candidate);
            }
            consumer.resting = true;
            channel.resting += 1;
        }
        None
    }

    /// Gives a consumer a message. The entry's reference goes with it.
    pub(super) fn hand_over(
        &mut self,
        queue: QueueKey,
        to: ConsumerKey,
        entry: Entry,
        message: Arc<Message>,
        outlet: &mut impl Outlet,
    ) {
        let Some(consumer) = self.consumers.get_mut(to) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        let tag = channel.tag();
        if !consumer.no_ack {
            consumer.unacked += 1;
            channel.outstanding += 1;
            channel.unacked.push(Delivery { tag, queue, consumer: Some(to), entry });
            if let Some(queue) = self.queues.get_mut(queue) {
                queue.unacked_bytes += u64::from(entry.body_bytes);
            }
            if let Some(connection) = self.connections.get(consumer.connection) {
                connection.account.keep(&entry);
            }
        }
        let (number, connection, no_ack) = (channel.number, consumer.connection, consumer.no_ack);
        let (tag_of, redelivered) = (consumer.tag.clone(), entry.redelivered);
        let output = |message| Output::Deliver { channel: number, consumer: tag_of, tag, redelivered, message };
        self.put_out(connection, entry.stored, message, output, outlet);
        if no_ack {
            self.let_go(queue, entry.stored, outlet);
        }
    }

    /// Puts a message into a connection's outbox.
    pub(super) fn put_out(
        &mut self,
        connection: ConnectionKey,
        stored: StoredKey,
        message: Arc<Message>,
        output: impl FnOnce(Arc<Message>) -> Output,
        outlet: &mut impl Outlet,
    ) {
        let Some(connection) = self.connections.get_mut(connection) else { return };
        let bytes = message.size();
        connection.outbox_bytes += bytes;
        connection.slow |= connection.outbox_bytes > self.limits.outbox_bytes_max;
        connection.account.put_out(bytes, &self.limits);
        connection.outbox.push_back((stored, u32::try_from(bytes).unwrap_or(u32::MAX)));
        self.store.hold(stored);
        outlet.send(connection.id, output(message));
    }

    /// Gives what waits in a queue to consumers with room, after dropping what has expired.
    pub(super) fn pump(&mut self, key: QueueKey, now_ms: i64, outlet: &mut impl Outlet) {
        loop {
            self.drop_expired(key, now_ms, outlet);
            let Some(queue) = self.queues.get(key) else { return };
            if queue.ready.is_empty() {
                return;
            }
            let Some(consumer) = self.next_consumer(key) else { break };
            let Some(entry) = self.queues.get_mut(key).and_then(Queue::pop) else { return };
            let Some(message) = self.store.message(entry.stored).cloned() else { continue };
            self.hand_over(key, consumer, entry, message, outlet);
        }
        self.schedule(key);
    }

    /// Drops what has expired, from the head on.
    pub(super) fn drop_expired(&mut self, key: QueueKey, now_ms: i64, outlet: &mut impl Outlet) {
        while let Some(entry) = self.queues.get_mut(key).and_then(|queue| queue.pop_expired(now_ms)) {
            self.let_go(key, entry.stored, outlet);
        }
    }

    /// Drops what is too much, oldest first.
    pub(super) fn drop_overflow(&mut self, key: QueueKey, outlet: &mut impl Outlet) {
        while let Some(queue) = self.queues.get_mut(key) {
            let beyond_share =
                !queue.bounds.refuses && queue.account.as_ref().is_some_and(|account| account.overflows(&self.limits));
            if !queue.overflows() && !beyond_share {
                return;
            }
            let Some(entry) = queue.pop() else { return };
            if beyond_share && let Some(account) = &queue.account {
                account.count_refused();
            }
            self.let_go(key, entry.stored, outlet);
        }
    }

    /// A message leaves a queue for good.
    pub(super) fn let_go(&mut self, queue: QueueKey, stored: StoredKey, outlet: &mut impl Outlet) {
        if let Some(queue) = self.queues.get(queue).filter(|queue| queue.journaled)
            && let Some(message) = self.store.journaled(stored)
        {
            outlet.record(Record::Removed { message, queue: queue.spec.name.clone() });
        }
        self.store.release(stored);
    }

    /// Puts deliveries back at their places in their queues, as delivered before. A channel that gave them back itself has
    /// room again, and takes its turn before anything is dropped as too much.
    pub(super) fn put_back(
        &mut self,
        mut deliveries: Vec<Delivery>,
        by: Option<ChannelKey>,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) {
        deliveries.sort_unstable_by_key(|delivery| (delivery.queue, delivery.entry.position));
        let mut queues = Vec::new();
        for of_queue in deliveries.chunk_by(|one, other| one.queue == other.queue) {
            let Some(key) = of_queue.first().map(|delivery| delivery.queue) else { continue };
            let Some(queue) = self.queues.get_mut(key) else {
                // The queue is gone, and its messages with it.
                of_queue.iter().for_each(|delivery| self.store.release(delivery.entry.stored));
                continue;
            };
            let entries: Vec<Entry> =
                of_queue.iter().map(|delivery| Entry { redelivered: true, ..delivery.entry }).collect();
            queue.put_back(&entries);
            queues.push(key);
        }
        if let Some(channel) = by {
            self.wake_channel(channel, now_ms, outlet);
        }
        for key in queues {
            self.pump(key, now_ms, outlet);
            if self.queues.get(key).is_some_and(|queue| !queue.bounds.refuses) {
                self.drop_overflow(key, outlet);
                self.schedule(key);
            }
        }
    }

    /// Counts what is no longer unacknowledged, before it is let go of or put back.
    pub(super) fn returned(&mut self, from: ConnectionKey, deliveries: &[Delivery]) {
        for delivery in deliveries {
            if let Some(account) = self.account_at(from) {
                account.give_up(&delivery.entry);
            }
            if let Some(queue) = self.queues.get_mut(delivery.queue) {
                queue.unacked_bytes -= u64::from(delivery.entry.body_bytes);
            }
        }
    }

    /// Lets queues deliver again that waited for acknowledgements like these.
    pub(super) fn go_on(&mut self, deliveries: &[Delivery], now_ms: i64, outlet: &mut impl Outlet) {
        for delivery in deliveries {
            if self.queues.get(delivery.queue).is_some_and(|queue| queue.held_back && !queue.is_owed_too_much()) {
                self.pump(delivery.queue, now_ms, outlet);
            }
        }
    }

    /// Lets consumers of a channel that had no room take their turn again, if they have some now.
    pub(super) fn wake_channel(&mut self, key: ChannelKey, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(channel) = self.channels.get(key).filter(|channel| channel.resting > 0) else { return };
        let resting: Vec<ConsumerKey> = channel
            .consumers
            .values()
            .copied()
            .filter(|&consumer| self.consumers.get(consumer).is_some_and(|consumer| consumer.resting))
            .collect();
        for consumer in resting {
            self.wake(consumer, now_ms, outlet);
        }
    }

    /// Lets a consumer that had no room take its turn again, if it has some now.
    pub(super) fn wake(&mut self, key: ConsumerKey, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(consumer) = self.consumers.get_mut(key).filter(|consumer| consumer.resting) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        let Some(connection) = self.connections.get(consumer.connection) else { return };
        if !consumer.has_room(channel, connection) {
            return;
        }
        consumer.resting = false;
        channel.resting -= 1;
        let &mut Consumer { queue: of, .. } = consumer;
        let Some(queue) = self.queues.get_mut(of) else { return };
        queue.available.push_back(key);
        if !queue.ready.is_empty() {
            self.pump(of, now_ms, outlet);
        }
    }
}
