//! Consumers come and go, and `basic.get`.

use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};

use super::keys::ConsumerKey;
use super::peers::Consumer;
use super::queue::Queue;
use super::queues::count;
use super::refusals::{limit, no_channel};
use super::unacked::Delivery;
use super::{ChannelOf, ConsumerSpec, Engine, short};
use crate::fault::Fault;
use crate::outlet::{Outlet, Output};

impl Engine {
    /// `basic.consume`: says `consume-ok` through the outlet, before the first delivery, and gives the tag.
    ///
    /// # Errors
    /// 404, 405, 403 if exclusive use is not possible, 530 for a tag in use, 506 at the limit.
    pub fn consume(&mut self, spec: ConsumerSpec, now_ms: i64, outlet: &mut impl Outlet) -> Result<Arc<str>, Fault> {
        let channel_key = self.channel_at((spec.connection, spec.channel)).ok_or_else(no_channel)?;
        // Before the queue is looked for, as RabbitMQ does.
        if self.channels.get(channel_key).is_some_and(|channel| channel.consumers.contains_key(&spec.tag)) {
            return Err(Fault::not_allowed(format_args!("attempt to reuse consumer tag '{}'", spec.tag)));
        }
        let queue_key = self.queue_of(spec.connection, &spec.queue)?;
        let Some(channel) = self.channels.get_mut(channel_key) else { return Err(no_channel()) };
        let Some(connection) = self.connections.get_mut(channel.connection) else { return Err(no_channel()) };
        if connection.consumers >= self.limits.consumers_max {
            return Err(limit("consumers on this connection", self.limits.consumers_max));
        }
        let Some(queue) = self.queues.get_mut(queue_key) else { return Err(self.no_queue(&spec.queue)) };
        if queue.exclusively_consumed || (spec.exclusive && !queue.consumers.is_empty()) {
            let what = self.queue_named(&spec.queue);
            return Err(Fault::access_refused(format_args!("{what} in exclusive use")));
        }
        let tag = if spec.tag.is_empty() {
            loop {
                channel.tags_made += 1;
                let tag: Arc<str> = format!("amq.ctag-{}.{}", spec.channel, channel.tags_made).into();
                if !channel.consumers.contains_key(&tag) {
                    break tag;
                }
            }
        } else {
            spec.tag
        };
        let key = self.consumers.insert(Consumer {
            queue: queue_key,
            channel: channel_key,
            connection: channel.connection,
            tag: tag.clone(),
            no_ack: spec.no_ack,
            exclusive: spec.exclusive,
            prefetch: channel.prefetch_each,
            unacked: 0,
            resting: false,
        });
        channel.consumers.insert(tag.clone(), key);
        connection.consumers += 1;
        queue.consumers.push(key);
        queue.available.push_back(key);
        queue.exclusively_consumed = spec.exclusive;
        if !spec.no_wait {
            let method = AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag: short(&tag) }));
            outlet.send(spec.connection, Output::Method { channel: spec.channel, method: Box::new(method) });
        }
        self.pump(queue_key, now_ms, outlet);
        Ok(tag)
    }

    /// `basic.cancel`. A tag that is not there is nothing.
    pub fn cancel(&mut self, at: ChannelOf, tag: &str, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(channel) = self.channel_at(at).and_then(|key| self.channels.get(key)) else { return };
        if let Some(&consumer) = channel.consumers.get(tag) {
            self.remove_consumer(consumer, now_ms, outlet);
        }
    }

    /// A consumer goes. What it has not acknowledged stays with its channel. Its queue may go with it.
    pub(super) fn remove_consumer(&mut self, key: ConsumerKey, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(consumer) = self.forget_consumer(key) else { return };
        let Some(queue) = self.queues.get_mut(consumer.queue) else { return };
        if let Some(at) = queue.consumers.iter().position(|&other| other == key) {
            queue.consumers.swap_remove(at);
        }
        if !consumer.resting
            && let Some(at) = queue.available.iter().position(|&other| other == key)
        {
            queue.available.remove(at);
        }
        queue.exclusively_consumed &= !consumer.exclusive;
        if !queue.consumers.is_empty() {
            return;
        }
        queue.available.shrink_to_fit();
        if queue.spec.auto_delete {
            self.remove_queue(consumer.queue, outlet);
        } else {
            queue.used_ms = Some(now_ms);
            self.schedule(consumer.queue);
        }
    }

    /// Takes a consumer out of its channel and connection, not out of its queue.
    pub(super) fn forget_consumer(&mut self, key: ConsumerKey) -> Option<Consumer> {
        let consumer = self.consumers.remove(key)?;
        if let Some(channel) = self.channels.get_mut(consumer.channel) {
            channel.consumers.remove(&consumer.tag);
            channel.resting -= u32::from(consumer.resting);
        }
        if let Some(connection) = self.connections.get_mut(consumer.connection) {
            connection.consumers -= 1;
        }
        Some(consumer)
    }

    /// `basic.get`: a `get-ok` or `get-empty` goes to the outlet.
    ///
    /// # Errors
    /// 404, 405.
    pub fn get(
        &mut self,
        at: ChannelOf,
        queue: &str,
        no_ack: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        let channel_key = self.channel_at(at).ok_or_else(no_channel)?;
        let key = self.queue_of(at.0, queue)?;
        self.queue_used(key, now_ms);
        self.drop_expired(key, now_ms, outlet);
        let entry = self.queues.get_mut(key).and_then(Queue::pop);
        let message = entry.and_then(|entry| self.store.message(entry.stored).cloned());
        let (Some(entry), Some(message)) = (entry, message) else {
            let method = AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {}));
            outlet.send(at.0, Output::Method { channel: at.1, method: Box::new(method) });
            return Ok(());
        };
        let left = self.queues.get(key).map_or(0, |queue| count(queue.ready.len()));
        let Some(channel) = self.channels.get_mut(channel_key) else { return Ok(()) };
        let tag = channel.tag();
        if !no_ack {
            channel.unacked.push(Delivery { tag, queue: key, consumer: None, entry });
            if let Some(queue) = self.queues.get_mut(key) {
                queue.unacked_bytes += u64::from(entry.body_bytes);
            }
            if let Some(connection) = self.connections.get(channel.connection) {
                connection.account.keep(&entry);
            }
        }
        let (connection, channel, redelivered) = (channel.connection, channel.number, entry.redelivered);
        let output = |message| Output::GetOk { channel, tag, redelivered, left, message };
        self.put_out(connection, entry.stored, message, output, outlet);
        if no_ack {
            self.let_go(key, entry.stored, outlet);
        }
        self.schedule(key);
        Ok(())
    }
}
