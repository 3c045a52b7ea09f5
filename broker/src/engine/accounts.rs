//! What one identity takes of the broker's memory, over all of its connections and queues.
//!
//! An account counts two things: what is kept for the identity, which is what lies in its queues and what its channels have
//! not acknowledged; and what waits to be written to its connections. A message counts in each place where it is, with the
//! size that it has in memory, although the broker holds it only once: so an account is never less than what would
//! become free if the identity were not there.
//!
//! Three quarters of a share are for what is kept. Beyond, a queue that refuses what is too much refuses, one that drops its
//! oldest message does so, and no queue is added. A quarter is for what waits to be written. Beyond, no consumer of the
//! identity gets anything until half of that has been read. So a delivery never makes what is kept more, and whoever reads
//! and acknowledges always comes down again.
//!
//! Invariant: an account is the sum over its queues, channels and outboxes; it is 0 and forgotten when there are none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::keys::{ChannelKey, ConnectionKey};
use super::queue::Entry;
use super::store::REFERENCE_BYTES;
use super::{Engine, Limits};
use crate::fault::Fault;
use crate::outlet::Outlet;

/// How large an identity's share is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A host's: one queue, and what it has not read.
    Host,
    /// That of users, services and other brokers, who hear from many hosts.
    Controller,
}

/// Whose a queue is, by its name: the user, and how large its share is.
pub type OwnerOf = fn(&str) -> Option<(Arc<str>, Share)>;

/// Bytes that a queue takes without any message.
pub(super) const QUEUE_BYTES: usize = 512;

/// The part of all queues, as a divisor, that one identity may have.
const QUEUES_PART: usize = 4;

/// So many it may have in any case.
const QUEUES_MIN: usize = 100;

/// A number that only the engine changes, whose methods have it for themselves. It is atomic so that the engine can be sent
/// to another thread.
#[derive(Default)]
struct Gauge(AtomicUsize);

impl Gauge {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, amount: usize) {
        self.0.store(self.get() + amount, Ordering::Relaxed);
    }

    fn take(&self, amount: usize) {
        self.0.store(self.get() - amount, Ordering::Relaxed);
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(formatter)
    }
}

/// The account of an identity. Its queues and connections hold it.
#[derive(Debug)]
pub(super) struct Account {
    user: Arc<str>,
    share: Share,
    kept_bytes: Gauge,
    outbox_bytes: Gauge,
    queues: Gauge,
    connections: Gauge,
    /// Messages that were refused or dropped because its share was used up.
    refused: Gauge,
    /// More waits to be written than may, so its consumers get nothing.
    slow: AtomicBool,
}

/// What an entry takes.
pub(super) fn bytes_of(size: usize) -> usize {
    size + REFERENCE_BYTES
}

impl Account {
    /// An entry lies in a queue or a list of what is unacknowledged now.
    pub(super) fn keep(&self, entry: &Entry) {
        self.kept_bytes.add(bytes_of(entry.size as usize));
    }

    /// It does not any more.
    pub(super) fn give_up(&self, entry: &Entry) {
        self.kept_bytes.take(bytes_of(entry.size as usize));
    }

    /// A message of this size was put into the outbox of one of its connections.
    pub(super) fn put_out(&self, size: usize, limits: &Limits) {
        self.outbox_bytes.add(bytes_of(size));
        if self.outbox_bytes.get() > limits.outboxes_bytes_max(self.share) {
            self.slow.store(true, Ordering::Relaxed);
        }
    }

    /// It was written, or its connection is gone.
    pub(super) fn written(&self, size: usize) {
        self.outbox_bytes.take(bytes_of(size));
    }

    /// Whether its consumers get nothing now.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether one more message of this size would be more than may be kept for it.
    pub(super) fn would_overflow(&self, size: usize, limits: &Limits) -> bool {
        self.kept_bytes.get() + bytes_of(size) > limits.kept_bytes_max(self.share)
    }

    /// Whether more is kept for it than may be.
    pub(super) fn overflows(&self, limits: &Limits) -> bool {
        self.kept_bytes.get() > limits.kept_bytes_max(self.share)
    }

    /// Something was refused or dropped because of that.
    pub(super) fn count_refused(&self) {
        self.refused.add(1);
    }

    /// Takes note of a new queue.
    pub(super) fn add_queue(&self) {
        self.queues.add(1);
        self.kept_bytes.add(QUEUE_BYTES);
    }

    /// Takes note that a queue is gone, with what is in it.
    pub(super) fn remove_queue<'a>(&self, ready: impl IntoIterator<Item = &'a Entry>) {
        self.queues.take(1);
        self.kept_bytes.take(QUEUE_BYTES);
        ready.into_iter().for_each(|entry| self.give_up(entry));
    }

    /// Whether another queue is too much.
    ///
    /// # Errors
    /// 506, with what there is and which bound it is.
    pub(super) fn check_queue(&self, limits: &Limits) -> Result<(), Fault> {
        let (kept, kept_max) = (self.kept_bytes.get(), limits.kept_bytes_max(self.share));
        if kept + QUEUE_BYTES > kept_max {
            return Err(Fault::resource_error(format_args!(
                "{kept} bytes are kept for '{}' in queues or unacknowledged, and {kept_max} may be (`limits.{}`)",
                self.user,
                self.share.key()
            )));
        }
        let queues_max = (limits.queues_max / QUEUES_PART).max(QUEUES_MIN);
        if self.queues.get() >= queues_max {
            return Err(Fault::resource_error(format_args!(
                "'{}' has {queues_max} queues, and the broker may have {} in all (`limits.queues`)",
                self.user, limits.queues_max
            )));
        }
        Ok(())
    }
}

impl Share {
    /// The key of the configuration that says how large it is.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Host => "host_bytes",
            Self::Controller => "controller_bytes",
        }
    }
}

impl Limits {
    /// Bytes of an identity in queues, unacknowledged, and waiting for its connections to read them.
    #[must_use]
    pub fn share_bytes_max(&self, share: Share) -> usize {
        match share {
            Share::Host => self.host_bytes_max,
            Share::Controller => self.controller_bytes_max,
        }
    }

    fn outboxes_bytes_max(&self, share: Share) -> usize {
        self.share_bytes_max(share) / 4
    }

    fn kept_bytes_max(&self, share: Share) -> usize {
        self.share_bytes_max(share) - self.outboxes_bytes_max(share)
    }
}

/// An identity's account, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLook {
    /// The user's name: the identity's URI.
    pub user: Arc<str>,
    /// Connections.
    pub connections: usize,
    /// Queues.
    pub queues: usize,
    /// Bytes in its queues and unacknowledged.
    pub kept_bytes: usize,
    /// Bytes that wait for its connections to read them.
    pub outbox_bytes: usize,
    /// How many both may be together.
    pub bytes_max: usize,
    /// Messages that were refused or dropped because of that, since it has been there.
    pub refused: usize,
}

impl Engine {
    /// With this way to tell who is charged with a queue from before a restart. Without it, nobody is, until somebody
    /// declares the queue again.
    #[must_use]
    pub fn with_owners(self, owner_of: OwnerOf) -> Self {
        Self { owner_of, ..self }
    }

    /// The accounts of all who have a connection or a queue, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountLook> {
        let look = |account: &Arc<Account>| AccountLook {
            user: account.user.clone(),
            connections: account.connections.get(),
            queues: account.queues.get(),
            kept_bytes: account.kept_bytes.get(),
            outbox_bytes: account.outbox_bytes.get(),
            bytes_max: self.limits.share_bytes_max(account.share),
            refused: account.refused.get(),
        };
        let mut looks: Vec<AccountLook> = self.accounts.values().map(look).collect();
        looks.sort_unstable_by(|a, b| a.user.cmp(&b.user));
        looks
    }

    /// The account of an identity, made if it has none.
    pub(super) fn account_of(&mut self, user: &Arc<str>, share: Share) -> Arc<Account> {
        let make = || {
            Arc::new(Account {
                user: user.clone(),
                share,
                kept_bytes: Gauge::default(),
                outbox_bytes: Gauge::default(),
                queues: Gauge::default(),
                connections: Gauge::default(),
                refused: Gauge::default(),
                slow: AtomicBool::new(false),
            })
        };
        self.accounts.entry(user.clone()).or_insert_with(make).clone()
    }

    /// The account of an identity that has one more connection.
    pub(super) fn account_joined(&mut self, user: &Arc<str>, share: Share) -> Arc<Account> {
        let account = self.account_of(user, share);
        account.connections.add(1);
        account
    }

    /// A connection of the account is gone, and what waited for it.
    pub(super) fn account_left(&mut self, account: &Arc<Account>, now_ms: i64, outlet: &mut impl Outlet) {
        account.connections.take(1);
        self.account_drained(account, now_ms, outlet);
        self.forget_account(account);
    }

    /// Forgets an account that has neither connections nor queues.
    pub(super) fn forget_account(&mut self, account: &Account) {
        if account.connections.get() == 0 && account.queues.get() == 0 {
            self.accounts.remove(&account.user);
        }
    }

    /// Lets an account's consumers take their turn again if enough of what waited for its connections was read.
    pub(super) fn account_drained(&mut self, account: &Arc<Account>, now_ms: i64, outlet: &mut impl Outlet) {
        // Half: as for a connection.
        if !account.is_slow() || account.outbox_bytes.get() > self.limits.outboxes_bytes_max(account.share) / 2 {
            return;
        }
        account.slow.store(false, Ordering::Relaxed);
        let own = self.connections.iter().filter(|(_, it)| Arc::ptr_eq(&it.account, account));
        let mut connections: Vec<ConnectionKey> = own.map(|(key, _)| key).collect();
        connections.sort_unstable();
        for key in connections {
            let Some(connection) = self.connections.get(key) else { continue };
            let channels: Vec<ChannelKey> = connection.channels.values().copied().collect();
            for channel in channels {
                self.wake_channel(channel, now_ms, outlet);
            }
        }
    }

    /// The account of a connection.
    pub(super) fn account_at(&self, connection: ConnectionKey) -> Option<&Arc<Account>> {
        self.connections.get(connection).map(|connection| &connection.account)
    }
}

#[cfg(test)]
impl Engine {
    /// What each account should be, counted anew from everything there is: kept, in outboxes, queues, connections.
    pub(super) fn counted_accounts(&self) -> std::collections::BTreeMap<Arc<str>, (usize, usize, usize, usize)> {
        let mut counted = std::collections::BTreeMap::new();
        for connection in self.connections.values() {
            let of: &mut (usize, usize, usize, usize) = counted.entry(connection.account.user.clone()).or_default();
            of.3 += 1;
            of.1 += connection.outbox.iter().map(|&(_, size)| bytes_of(size as usize)).sum::<usize>();
            for channel in connection.channels.values() {
                of.0 += self.channels[*channel]
                    .unacked
                    .iter()
                    .map(|delivery| bytes_of(self.store.message(delivery.entry.stored).unwrap().size()))
                    .sum::<usize>();
            }
        }
        for queue in self.queues.values() {
            let Some(account) = &queue.account else { continue };
            let of = counted.entry(account.user.clone()).or_default();
            of.2 += 1;
            let entries = queue.ready.iter().map(|entry| bytes_of(self.store.message(entry.stored).unwrap().size()));
            of.0 += QUEUE_BYTES + entries.sum::<usize>();
        }
        counted
    }
}
