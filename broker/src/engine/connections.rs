//! Connections and channels come and go, and say how much they can take.

use std::sync::Arc;

use super::accounts::Share;
use super::keys::ChannelKey;
use super::peers::{Channel, Connection};
use super::unacked::Delivery;
use super::{ChannelOf, Engine};
use crate::ids::ConnectionId;
use crate::outlet::Outlet;

impl Engine {
    /// A connection is there, of a user with such a share. Its consumers get deliveries until [`Engine::is_slow`].
    pub fn connect(&mut self, connection: ConnectionId, user: &Arc<str>, share: Share) {
        // Whatever was replayed is replayed now.
        self.replayed = std::collections::HashMap::new();
        if !self.connections_by_id.contains_key(&connection) {
            let account = self.account_joined(user, share);
            let key = self.connections.insert(Connection::new(connection, account));
            self.connections_by_id.insert(connection, key);
        }
    }

    /// A connection is gone: exclusive queues go, what was unacknowledged goes back.
    pub fn disconnect(&mut self, connection: ConnectionId, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(key) = self.connections_by_id.remove(&connection) else { return };
        let Some(gone) = self.connections.get_mut(key) else { return };
        // Nothing is sent to it any more.
        gone.gone = true;
        gone.slow = true;
        let (queues, channels) = (std::mem::take(&mut gone.queues), std::mem::take(&mut gone.channels));
        for queue in queues {
            self.remove_queue(queue, outlet);
        }
        // All channels first: what they give back gets its places before anybody else gets any of it.
        let mut deliveries = Vec::new();
        for channel in channels.into_values() {
            deliveries.extend(self.end_channel(channel, now_ms, outlet));
        }
        self.put_back(deliveries, None, now_ms, outlet);
        if let Some(gone) = self.connections.remove(key) {
            for &(stored, size) in &gone.outbox {
                gone.account.written(size as usize);
                self.store.release(stored);
            }
            self.account_left(&gone.account, now_ms, outlet);
        }
    }

    /// So many bytes of a connection's outbox have been written to it; counted against `outbox_bytes_max`. Bytes are those
    /// of [`Message::size`](crate::Message::size), for each `Deliver`, `GetOk` and `Return`; other outputs count nothing.
    pub fn drained(&mut self, connection: ConnectionId, bytes: usize, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(&key) = self.connections_by_id.get(&connection) else { return };
        let Some(drained) = self.connections.get_mut(key) else { return };
        drained.written += bytes;
        while let Some(&(stored, size)) = drained.outbox.front() {
            if drained.written < size as usize {
                break;
            }
            drained.written -= size as usize;
            drained.outbox_bytes -= size as usize;
            drained.outbox.pop_front();
            drained.account.written(size as usize);
            self.store.release(stored);
        }
        if drained.outbox.is_empty() {
            drained.written = 0;
            if drained.outbox.capacity() > KEPT {
                drained.outbox = std::collections::VecDeque::new();
            }
        }
        if drained.account.is_slow() {
            let account = drained.account.clone();
            self.account_drained(&account, now_ms, outlet);
        }
        let Some(drained) = self.connections.get_mut(key) else { return };
        // Half: far enough below that consumers do not start and stop with every message.
        if !drained.slow || drained.outbox_bytes > self.limits.outbox_bytes_max / 2 {
            return;
        }
        drained.slow = false;
        let channels: Vec<ChannelKey> = drained.channels.values().copied().collect();
        for channel in channels {
            self.wake_channel(channel, now_ms, outlet);
        }
    }

    /// Whether more waits in the connection's outbox than may. Its consumers get nothing, and the server had better read
    /// nothing from it either: what it publishes may come back to it.
    #[must_use]
    pub fn is_slow(&self, connection: ConnectionId) -> bool {
        let key = self.connections_by_id.get(&connection);
        key.and_then(|&key| self.connections.get(key)).is_some_and(|connection| connection.slow)
    }

    /// A channel is opened.
    pub fn open_channel(&mut self, at: ChannelOf) {
        let Some(&key) = self.connections_by_id.get(&at.0) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        let channels = &mut self.channels;
        connection.channels.entry(at.1).or_insert_with(|| channels.insert(Channel::new(key, at.1)));
    }

    /// A channel is closed: its consumers go, what was unacknowledged goes back.
    pub fn close_channel(&mut self, at: ChannelOf, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(key) = self.channel_at(at) else { return };
        let deliveries = self.end_channel(key, now_ms, outlet);
        self.put_back(deliveries, None, now_ms, outlet);
    }

    /// Removes a channel and its consumers: what it has not acknowledged.
    fn end_channel(&mut self, key: ChannelKey, now_ms: i64, outlet: &mut impl Outlet) -> Vec<Delivery> {
        let consumers = self.channels.get(key).map(|channel| channel.consumers.values().copied().collect::<Vec<_>>());
        for consumer in consumers.unwrap_or_default() {
            self.remove_consumer(consumer, now_ms, outlet);
        }
        let Some(mut channel) = self.channels.remove(key) else { return Vec::new() };
        if let Some(connection) = self.connections.get_mut(channel.connection) {
            connection.channels.remove(&channel.number);
        }
        let deliveries = channel.unacked.take_to(0).unwrap_or_default();
        self.returned(channel.connection, &deliveries);
        deliveries
    }

    /// `confirm.select`.
    pub fn confirm_select(&mut self, at: ChannelOf) {
        if let Some(channel) = self.channel_at(at).and_then(|key| self.channels.get_mut(key)) {
            channel.confirmed.get_or_insert(0);
        }
    }

    /// `basic.qos`: for each consumer that begins from now on, or for the channel if `global` (RabbitMQ's meaning). 0 is no
    /// bound.
    pub fn qos(&mut self, at: ChannelOf, prefetch: u16, global: bool, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(key) = self.channel_at(at) else { return };
        let Some(channel) = self.channels.get_mut(key) else { return };
        if global {
            channel.prefetch = prefetch;
            self.wake_channel(key, now_ms, outlet);
        } else {
            channel.prefetch_each = prefetch;
        }
    }

    /// `channel.flow` from the client.
    pub fn flow(&mut self, at: ChannelOf, active: bool, now_ms: i64, outlet: &mut impl Outlet) {
        let Some(key) = self.channel_at(at) else { return };
        if let Some(channel) = self.channels.get_mut(key) {
            channel.flowing = active;
            self.wake_channel(key, now_ms, outlet);
        }
    }

    pub(super) fn channel_at(&self, at: ChannelOf) -> Option<ChannelKey> {
        let connection = self.connections.get(*self.connections_by_id.get(&at.0)?)?;
        connection.channels.get(&at.1).copied()
    }
}

/// An outbox keeps room for so many messages.
const KEPT: usize = 32;
