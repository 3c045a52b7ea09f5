//! `basic.ack`, `basic.reject`, `basic.nack`, `basic.recover`.

use super::keys::{ChannelKey, ConsumerKey};
use super::refusals::no_channel;
use super::unacked::Delivery;
use super::{ChannelOf, Engine};
use crate::fault::Fault;
use crate::ids::DeliveryTag;
use crate::outlet::Outlet;

impl Engine {
    /// `basic.ack`. Tag 0 with `multiple` is all.
    ///
    /// # Errors
    /// 406 for an unknown tag.
    pub fn acknowledge(
        &mut self,
        at: ChannelOf,
        tag: DeliveryTag,
        multiple: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        let key = self.channel_at(at).ok_or_else(no_channel)?;
        if !multiple {
            let delivery = self.take_one(key, tag)?;
            self.let_go(delivery.queue, delivery.entry.stored, outlet);
            self.settled_one(key, delivery.consumer, now_ms, outlet);
            self.go_on(&[delivery], now_ms, outlet);
            return Ok(());
        }
        let deliveries = self.take_many(key, tag)?;
        for delivery in &deliveries {
            self.let_go(delivery.queue, delivery.entry.stored, outlet);
        }
        self.settled(key, &deliveries);
        self.wake_channel(key, now_ms, outlet);
        self.go_on(&deliveries, now_ms, outlet);
        Ok(())
    }

    /// `basic.reject` and `basic.nack`: back to its place in the queue, or gone.
    ///
    /// # Errors
    /// 406 for an unknown tag.
    pub fn reject(
        &mut self,
        at: ChannelOf,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        if !requeue {
            return self.acknowledge(at, tag, multiple, now_ms, outlet);
        }
        let key = self.channel_at(at).ok_or_else(no_channel)?;
        let deliveries = if multiple { self.take_many(key, tag)? } else { vec![self.take_one(key, tag)?] };
        self.settled(key, &deliveries);
        self.put_back(deliveries, Some(key), now_ms, outlet);
        Ok(())
    }

    /// `basic.recover` with `requeue`: everything unacknowledged of the channel goes back.
    pub fn recover(&mut self, at: ChannelOf, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(key) = self.channel_at(at) else { return };
        let Ok(deliveries) = self.take_many(key, 0) else { return };
        self.settled(key, &deliveries);
        self.put_back(deliveries, Some(key), now_ms, outlet);
    }

    fn take_one(&mut self, key: ChannelKey, tag: DeliveryTag) -> Result<Delivery, Fault> {
        let channel = self.channels.get_mut(key).ok_or_else(no_channel)?;
        let taken = channel.unacked.take(tag).ok_or_else(|| unknown(tag))?;
        let connection = channel.connection;
        self.returned(connection, &[taken]);
        Ok(taken)
    }

    fn take_many(&mut self, key: ChannelKey, tag: DeliveryTag) -> Result<Vec<Delivery>, Fault> {
        let channel = self.channels.get_mut(key).ok_or_else(no_channel)?;
        let taken = channel.unacked.take_to(tag).ok_or_else(|| unknown(tag))?;
        let connection = channel.connection;
        self.returned(connection, &taken);
        Ok(taken)
    }

    /// Counts down what consumers have not acknowledged.
    fn settled(&mut self, key: ChannelKey, deliveries: &[Delivery]) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        for consumer in deliveries.iter().filter_map(|delivery| delivery.consumer) {
            channel.outstanding -= 1;
            if let Some(consumer) = self.consumers.get_mut(consumer) {
                consumer.unacked -= 1;
            }
        }
    }

    /// The same for one; only its consumer can have got room, unless the channel has a bound for all.
    fn settled_one(&mut self, key: ChannelKey, of: Option<ConsumerKey>, now_ms: i64, outlet: &mut impl Outlet) {
        let (Some(channel), Some(of)) = (self.channels.get_mut(key), of) else { return };
        channel.outstanding -= 1;
        let all = channel.prefetch > 0;
        let Some(consumer) = self.consumers.get_mut(of) else {
            return if all {
                self.wake_channel(key, now_ms, outlet)
            };
        };
        consumer.unacked -= 1;
        if all {
            self.wake_channel(key, now_ms, outlet);
        } else if consumer.resting {
            self.wake(of, now_ms, outlet);
        }
    }
}

fn unknown(tag: DeliveryTag) -> Fault {
    Fault::precondition_failed(format_args!("unknown delivery tag {tag}"))
}
