//! Connections, channels and consumers, as the engine knows them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::accounts::Account;
use super::keys::{ChannelKey, ConnectionKey, ConsumerKey, QueueKey, StoredKey};
use super::unacked::Unacked;
use crate::ids::{ChannelNumber, ConnectionId, DeliveryTag};

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// Who is charged with what it has.
    pub(super) account: Arc<Account>,
    /// Bytes of messages that wait in its outbox.
    pub(super) outbox_bytes: usize,
    /// More waits than may, so its consumers get nothing.
    pub(super) slow: bool,
    /// It is being taken away: nothing is sent to it.
    pub(super) gone: bool,
    /// The messages in the outbox, each with its bytes.
    pub(super) outbox: VecDeque<(StoredKey, u32)>,
    /// Bytes written of the first of them.
    pub(super) written: usize,
    pub(super) channels: BTreeMap<ChannelNumber, ChannelKey>,
    /// Queues that are its own.
    pub(super) queues: BTreeSet<QueueKey>,
    pub(super) consumers: usize,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, account: Arc<Account>) -> Self {
        Self {
            id,
            account,
            outbox_bytes: 0,
            slow: false,
            gone: false,
            outbox: VecDeque::new(),
            written: 0,
            channels: BTreeMap::new(),
            queues: BTreeSet::new(),
            consumers: 0,
        }
    }
}

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) connection: ConnectionKey,
    pub(super) number: ChannelNumber,
    /// The last delivery.
    pub(super) tag_last: DeliveryTag,
    /// The bound for all consumers together; 0 for none.
    pub(super) prefetch: u16,
    /// What consumers have not acknowledged.
    pub(super) outstanding: u32,
    /// The client lets deliveries flow.
    pub(super) flowing: bool,
    /// Consumers that had no room when it was their turn.
    pub(super) resting: u32,
    /// The last publication since `confirm.select`.
    pub(super) confirmed: Option<DeliveryTag>,
    pub(super) unacked: Unacked,
    /// The bound for each consumer that begins from now on.
    pub(super) prefetch_each: u16,
    pub(super) consumers: BTreeMap<Arc<str>, ConsumerKey>,
    /// Consumers without a name of their own so far.
    pub(super) tags_made: u64,
}

impl Channel {
    pub(super) fn new(connection: ConnectionKey, number: ChannelNumber) -> Self {
        Self {
            connection,
            number,
            tag_last: 0,
            prefetch: 0,
            outstanding: 0,
            flowing: true,
            resting: 0,
            confirmed: None,
            unacked: Unacked::default(),
            prefetch_each: 0,
            consumers: BTreeMap::new(),
            tags_made: 0,
        }
    }

    pub(super) fn tag(&mut self) -> DeliveryTag {
        self.tag_last += 1;
        self.tag_last
    }
}

/// A consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) queue: QueueKey,
    pub(super) channel: ChannelKey,
    pub(super) connection: ConnectionKey,
    pub(super) tag: Arc<str>,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) prefetch: u16,
    pub(super) unacked: u32,
    /// Not in its queue's list of those whose turn may be next.
    pub(super) resting: bool,
}

impl Consumer {
    /// Whether it can be given something now.
    pub(super) fn has_room(&self, channel: &Channel, connection: &Connection) -> bool {
        if connection.slow || connection.account.is_slow() || !channel.flowing {
            return false;
        }
        self.no_ack
            || ((self.prefetch == 0 || self.unacked < u32::from(self.prefetch))
                && (channel.prefetch == 0 || channel.outstanding < u32::from(channel.prefetch)))
    }
}
