//! A queue: what waits in it, who takes from it, and its limits.

use std::collections::VecDeque;
use std::sync::Arc;

use super::accounts::Account;
use super::exchange::Bindings;
use super::keys::{ConnectionKey, ConsumerKey, StoredKey};
use super::specs::{Overflow, QueueLimits, QueueSpec};
use crate::message::Message;

/// A time that never comes.
pub(super) const NEVER: i64 = i64::MAX;

/// A message in one queue. Positions give the order; a message that comes back has its old one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) position: u64,
    /// When it is dropped; [`NEVER`] for never.
    pub(super) expires_ms: i64,
    pub(super) stored: StoredKey,
    /// Bytes of its body.
    pub(super) body_bytes: u32,
    /// Bytes of the whole message, as [`Message::size`](crate::message::Message::size) says.
    pub(super) size: u32,
    pub(super) redelivered: bool,
}

/// What holds of a queue's limits, arguments and policy taken together. What is not limited has the largest number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) message_ttl_ms: i64,
    pub(super) expires_ms: i64,
    pub(super) length: u64,
    pub(super) bytes: u64,
    /// Refuses what is too much, and does not drop what is oldest.
    pub(super) refuses: bool,
}

impl Bounds {
    /// The smaller number of both; for what happens beyond, the argument.
    pub(super) fn of(arguments: &QueueLimits, policy: Option<&QueueLimits>) -> Self {
        let smaller = |pick: fn(&QueueLimits) -> Option<u64>| {
            [pick(arguments), policy.and_then(pick)].into_iter().flatten().min().unwrap_or(u64::MAX)
        };
        let milliseconds = |value: u64| i64::try_from(value).unwrap_or(NEVER);
        Self {
            message_ttl_ms: milliseconds(smaller(|limits| limits.message_ttl_ms)),
            expires_ms: milliseconds(smaller(|limits| limits.expires_ms)),
            length: smaller(|limits| limits.length_max),
            bytes: smaller(|limits| limits.bytes_max),
            refuses: arguments.overflow.or_else(|| policy.and_then(|limits| limits.overflow))
                == Some(Overflow::RejectPublish),
        }
    }
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// In the order of positions.
    pub(super) ready: VecDeque<Entry>,
    /// Consumers whose turn may be next. Those that turn out to have no room are taken out, and come back with room.
    pub(super) available: VecDeque<ConsumerKey>,
    pub(super) bounds: Bounds,
    /// Bytes of bodies that wait.
    pub(super) ready_bytes: u64,
    /// Bytes of bodies that were delivered and are not acknowledged.
    pub(super) unacked_bytes: u64,
    /// Something waits, and nobody gets it before more is acknowledged.
    pub(super) held_back: bool,
    pub(super) position_next: u64,
    /// The last walk that came by.
    pub(super) mark: u64,
    /// Durable, and not one connection's: in the journal.
    pub(super) journaled: bool,
    /// The time under which it stands in the list of deadlines; [`NEVER`] if it does not.
    pub(super) scheduled_ms: i64,
    pub(super) spec: Arc<QueueSpec>,
    pub(super) owner: Option<ConnectionKey>,
    /// Who is charged with what lies in it; nobody if nobody is known.
    pub(super) account: Option<Arc<Account>>,
    /// All consumers.
    pub(super) consumers: Vec<ConsumerKey>,
    /// One consumer has it for itself.
    pub(super) exclusively_consumed: bool,
    /// When it was last used, for `expires`; nothing right after a restart.
    pub(super) used_ms: Option<i64>,
    pub(super) bindings: Bindings,
}

impl Queue {
    pub(super) fn new(
        spec: QueueSpec,
        bounds: Bounds,
        owner: Option<ConnectionKey>,
        account: Option<Arc<Account>>,
        used_ms: Option<i64>,
    ) -> Self {
        Self {
            ready: VecDeque::new(),
            available: VecDeque::new(),
            bounds,
            ready_bytes: 0,
            unacked_bytes: 0,
            held_back: false,
            position_next: 0,
            mark: 0,
            journaled: spec.durable && !spec.exclusive,
            scheduled_ms: NEVER,
            spec: Arc::new(spec),
            owner,
            account,
            consumers: Vec::new(),
            exclusively_consumed: false,
            used_ms,
            bindings: Bindings::new(),
        }
    }

    /// An entry for a message that comes now.
    pub(super) fn entry(&mut self, stored: StoredKey, message: &Message, now_ms: i64) -> Entry {
        let position = self.position_next;
        self.position_next += 1;
        let own = message.expiration_ms.map_or(NEVER, |own| i64::try_from(own).unwrap_or(NEVER));
        let time = own.min(self.bounds.message_ttl_ms);
        let expires_ms = if time == NEVER { NEVER } else { now_ms.saturating_add(time) };
        let small = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (body_bytes, size) = (small(message.body.len()), small(message.size()));
        Entry { position, expires_ms, stored, body_bytes, size, redelivered: false }
    }

    fn came(&mut self, entry: &Entry) {
        self.ready_bytes += u64::from(entry.body_bytes);
        if let Some(account) = &self.account {
            account.keep(entry);
        }
    }

    fn went(&mut self, entry: &Entry) {
        self.ready_bytes -= u64::from(entry.body_bytes);
        if let Some(account) = &self.account {
            account.give_up(entry);
        }
    }

    /// Whether one more body would be too much.
    pub(super) fn would_overflow(&self, body: usize) -> bool {
        self.ready.len() as u64 + 1 > self.bounds.length || self.ready_bytes + body as u64 > self.bounds.bytes
    }

    /// Whether there is more than it may hold.
    pub(super) fn overflows(&self) -> bool {
        self.ready.len() as u64 > self.bounds.length || self.ready_bytes > self.bounds.bytes
    }

    /// Whether so much is unacknowledged that nothing more is delivered: what a consumer keeps takes the broker's memory as
    /// what waits does, and its queue's bound is for both.
    pub(super) fn is_owed_too_much(&self) -> bool {
        self.unacked_bytes >= self.bounds.bytes.max(UNACKED_BYTES_MIN)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.came(&entry);
        self.ready.push_back(entry);
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop_front()?;
        self.went(&entry);
        if self.ready.is_empty() && self.ready.capacity() > KEPT {
            self.ready = VecDeque::new();
        }
        Some(entry)
    }

    /// Takes the head if its time is over.
    pub(super) fn pop_expired(&mut self, now_ms: i64) -> Option<Entry> {
        if self.ready.front()?.expires_ms <= now_ms { self.pop() } else { None }
    }

    /// Takes the entry of a message, which is at or near the head.
    pub(super) fn take(&mut self, stored: StoredKey) -> Option<Entry> {
        let at = self.ready.iter().position(|entry| entry.stored == stored)?;
        let entry = self.ready.remove(at)?;
        self.went(&entry);
        Some(entry)
    }

    /// Puts entries back at their places. They are sorted by position.
    pub(super) fn put_back(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        // Entries before the last one that comes back: the two sorted runs become one.
        let before = self.ready.partition_point(|entry| entry.position < last.position);
        let mut waiting: Vec<Entry> = self.ready.drain(..before).collect();
        for entry in entries.iter().rev() {
            self.came(entry);
            while let Some(later) = waiting.pop_if(|waiting| waiting.position > entry.position) {
                self.ready.push_front(later);
            }
            self.ready.push_front(*entry);
        }
        while let Some(earlier) = waiting.pop() {
            self.ready.push_front(earlier);
        }
    }

    /// When something is to be done at the earliest: the head expires, or the queue does.
    pub(super) fn deadline_ms(&self) -> i64 {
        let head = self.ready.front().map_or(NEVER, |entry| entry.expires_ms);
        head.min(self.expires_at_ms())
    }

    /// When the queue expires, if nothing happens; in the past if nobody has said since when it is unused.
    pub(super) fn expires_at_ms(&self) -> i64 {
        if self.bounds.expires_ms == NEVER || !self.consumers.is_empty() {
            return NEVER;
        }
        self.used_ms.map_or(i64::MIN, |used| used.saturating_add(self.bounds.expires_ms))
    }
}

/// So much may be unacknowledged whatever the queue's bound is: prefetch bounds what is less.
pub(super) const UNACKED_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// An empty queue keeps room for so many entries, which is 2 KB; ten thousand queues keep little then.
const KEPT: usize = 64;
