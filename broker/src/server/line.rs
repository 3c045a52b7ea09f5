//! One connection as the others see it: its outbox, what is asked of it, and what it has done.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use muster_pki::Client;

use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::outlet::Output;

/// A connection whose TLS handshake is done.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: ConnectionId,
    /// Who it is, by its certificate.
    pub(super) client: Client,
    /// Whether it may log in; if not, its session tells it so.
    pub(super) member: bool,
    /// The other end.
    pub(super) peer: SocketAddr,
    /// When it came.
    pub(super) since_ms: i64,
    outbox: Mutex<Outbox>,
    /// Open channels.
    channels: AtomicUsize,
    /// Whether `connection.open` was granted.
    open: AtomicBool,
    /// Bytes of plain AMQP that came.
    received_bytes: AtomicU64,
    /// Bytes of plain AMQP that were handed to TLS.
    sent_bytes: AtomicU64,
}

/// What waits for the connection's own task.
#[derive(Debug, Default)]
struct Outbox {
    outputs: VecDeque<Output>,
    orders: Orders,
    /// Whom to wake; the task is not between two polls if there is none.
    waker: Option<Waker>,
}

impl Orders {
    /// Whether nothing is asked.
    pub(super) fn is_empty(&self) -> bool {
        self.close.is_none() && !self.recheck && !self.unblock && !self.look
    }
}

/// What others ask of a connection.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// End, and tell the client why. The first reason holds.
    pub(super) close: Option<Fault>,
    /// Look at the certificate again: lists or members have changed.
    pub(super) recheck: bool,
    /// The broker is no longer full.
    pub(super) unblock: bool,
    /// See whether the client is still there, since nothing is read that would tell.
    pub(super) look: bool,
}

impl Line {
    pub(super) fn new(id: ConnectionId, client: Client, member: bool, peer: SocketAddr, since_ms: i64) -> Self {
        Self {
            id,
            client,
            member,
            peer,
            since_ms,
            outbox: Mutex::default(),
            channels: AtomicUsize::new(0),
            open: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an output at the end. Tells whether it is the only one, so that the task has to be woken.
    pub(super) fn push(&self, output: Output) -> bool {
        let mut outbox = self.outbox();
        let first = outbox.outputs.is_empty();
        outbox.outputs.push_back(output);
        first
    }

    /// Takes everything that waits. The queue that is left behind holds no memory.
    pub(super) fn take(&self) -> (VecDeque<Output>, Orders) {
        let mut outbox = self.outbox();
        (std::mem::take(&mut outbox.outputs), std::mem::take(&mut outbox.orders))
    }

    /// Remembers whom to wake. To be called before [`Line::take`], so that nothing is missed.
    pub(super) fn listen(&self, waker: &Waker) {
        let mut outbox = self.outbox();
        match &mut outbox.waker {
            Some(known) => known.clone_from(waker),
            None => outbox.waker = Some(waker.clone()),
        }
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        // Waking with the lock held would make the task wait for it at once.
        let waker = self.outbox().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks something of the connection, and wakes it.
    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.outbox().orders);
        self.wake();
    }

    /// Asks it to end with this reason, unless it was asked before.
    pub(super) fn close(&self, fault: Fault) {
        self.order(|orders| {
            orders.close.get_or_insert(fault);
        });
    }

    /// How many outputs wait for the task.
    pub(super) fn waiting(&self) -> usize {
        self.outbox().outputs.len()
    }

    /// Takes note of how the session is.
    pub(super) fn note(&self, open: bool, channels: usize) {
        self.open.store(open, Ordering::Relaxed);
        self.channels.store(channels, Ordering::Relaxed);
    }

    /// Whether it is open, and how many channels it has.
    pub(super) fn session(&self) -> (bool, usize) {
        (self.open.load(Ordering::Relaxed), self.channels.load(Ordering::Relaxed))
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Bytes of plain AMQP that came and went.
    pub(super) fn traffic(&self) -> (u64, u64) {
        (self.received_bytes.load(Ordering::Relaxed), self.sent_bytes.load(Ordering::Relaxed))
    }
}

/// Wakes connections, the one that asks excepted: it looks at its outbox anyway.
pub(super) fn wake_all(lines: &[Arc<Line>], except: Option<ConnectionId>) {
    for line in lines.iter().filter(|line| Some(line.id) != except) {
        line.wake();
    }
}
