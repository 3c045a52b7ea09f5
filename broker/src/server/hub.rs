//! Everything that connections share, behind one lock, and the way from there to their outboxes.
//!
//! A connection that has something to say takes the lock through [`Turn`], calls the engine, and lets go. Outputs are
//! put into the outboxes under the lock, so they have the order of the calls; the tasks that are to write them are
//! woken after it is released. What is to be kept on disk goes to the [`Journal`] meanwhile, under the lock, so that it
//! has the same order; confirms that wait for it come back through [`Hub::release`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use amq_protocol::protocol::{AMQPClass, channel};
use muster_daemon::Clock;
use tokio::sync::Notify;

use super::line::{Line, wake_all};
use super::turns::Turns;
use crate::engine::Limits;
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::journal::{Journal, Record};
use crate::outlet::{Outlet, Output};
use crate::session::{Broker, LOW_ON_MEMORY, Shared};

/// What connections share.
pub(super) struct Hub {
    /// Whose turn it is.
    pub(super) turns: Turns<Arc<Line>>,
    started: Instant,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    /// What has been written to connections and the engine does not know yet. A lock of its own, since it is taken after
    /// every write.
    drained: Mutex<Vec<(ConnectionId, usize)>>,
    any_drained: AtomicBool,
    full: AtomicBool,
    /// What is durable takes more of the disk than it may by now.
    disk_short: AtomicBool,
    /// When the engine wants its next tick; `i64::MAX` is never.
    next_tick_ms: AtomicI64,
    tick_sooner: Notify,
    /// The last connection is gone.
    emptied: Notify,
    next_id: AtomicU64,
}

struct State {
    broker: Broker,
    out: Out,
}

/// The outlet of the engine and the sessions.
pub(super) struct Out {
    lines: HashMap<ConnectionId, Arc<Line>, BuildHasherDefault<IdHasher>>,
    /// Whose outbox is not empty any more.
    woken: Vec<Arc<Line>>,
    /// Who has published while the broker was full, and is not read from.
    blocked: Vec<Arc<Line>>,
    journal: Option<Arc<Journal>>,
}

impl Outlet for Out {
    fn send(&mut self, connection: ConnectionId, output: Output) {
        let output = match (&self.journal, output) {
            (None, output) => output,
            // A confirm does not overtake those of its channel that wait for the disk, and neither does a message that comes
            // back: clients take the confirm behind it for the one of that message.
            (Some(journal), output @ (Output::Confirm { .. } | Output::Return { .. })) => {
                match journal.hold_behind_others(connection, output) {
                    Some(output) => output,
                    None => return,
                }
            }
            (Some(journal), output) => {
                // The next channel with this number has not published what the last one waits for.
                if let Output::Method { channel, method } = &output
                    && let AMQPClass::Channel(channel::AMQPMethod::Close(_) | channel::AMQPMethod::CloseOk(_)) =
                        **method
                {
                    journal.forget_channel(connection, *channel);
                }
                output
            }
        };
        self.put(connection, output);
    }

    fn record(&mut self, record: Record) {
        if let Some(journal) = &self.journal {
            journal.record(record);
        }
    }

    fn send_when_durable(&mut self, connection: ConnectionId, output: Output) {
        let output = match &self.journal {
            Some(journal) => journal.hold(connection, output),
            None => Some(output),
        };
        if let Some(output) = output {
            self.put(connection, output);
        }
    }
}

impl Out {
    fn put(&mut self, connection: ConnectionId, output: Output) {
        // A connection that is gone needs nothing more.
        if let Some(line) = self.lines.get(&connection)
            && line.push(output)
        {
            self.woken.push(Arc::clone(line));
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").field("full", &self.full).finish_non_exhaustive()
    }
}

impl Hub {
    /// Shares a broker whose engine has replayed what was kept.
    /// As many connections of those that have much to do are served at once as there are threads.
    pub(super) fn new(broker: Broker, journal: Option<Arc<Journal>>, clock: Arc<dyn Clock>, threads: usize) -> Self {
        let out = Out { lines: HashMap::default(), woken: Vec::new(), blocked: Vec::new(), journal };
        let hub = Self {
            turns: Turns::new(threads),
            started: Instant::now(),
            state: Mutex::new(State { broker, out }),
            clock,
            drained: Mutex::default(),
            any_drained: AtomicBool::new(false),
            full: AtomicBool::new(false),
            disk_short: AtomicBool::new(false),
            next_tick_ms: AtomicI64::new(i64::MAX),
            tick_sooner: Notify::new(),
            emptied: Notify::new(),
            next_id: AtomicU64::new(1),
        };
        drop(hub.turn(None));
        hub
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Microseconds since the start, by a clock that does not go back.
    pub(super) fn uptime_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A number for a new connection.
    pub(super) fn next_id(&self) -> ConnectionId {
        ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// A turn with what is shared, for a connection or for nobody in particular. Nothing is locked yet.
    pub(super) fn turn(&self, own: Option<ConnectionId>) -> Turn<'_> {
        Turn { hub: self, own, state: None }
    }

    /// From now on the connection is sent what the engine has for it.
    pub(super) fn join(&self, line: &Arc<Line>) {
        self.lock().out.lines.insert(line.id, Arc::clone(line));
    }

    /// From now on nothing is sent to the connection.
    pub(super) fn leave(&self, line: &Line) {
        let mut turn = self.turn(Some(line.id));
        let state = turn.state();
        state.out.lines.remove(&line.id);
        if let Some(journal) = &state.out.journal {
            journal.forget_connection(line.id);
        }
        state.out.blocked.retain(|blocked| blocked.id != line.id);
        // What it has not been sent is not waited for.
        drop(line.take());
        if state.out.lines.is_empty() {
            self.emptied.notify_one();
        }
    }

    /// Sends the confirms that have waited for the disk.
    pub(super) fn release(&self) {
        let mut released = Vec::new();
        let mut turn = self.turn(None);
        let out = &mut turn.state().out;
        if let Some(journal) = &out.journal {
            journal.released(&mut released);
        }
        for (connection, output) in released {
            out.put(connection, output);
        }
    }

    /// Notes bytes that were written to a connection; the engine hears of them with the next turn, whoever's it is, or
    /// at once.
    pub(super) fn drained(&self, connection: ConnectionId, bytes: usize, soon: bool) {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner).push((connection, bytes));
        self.any_drained.store(true, Ordering::Release);
        if soon {
            // More may be delivered to it now, and it looks at its outbox next.
            self.turn(Some(connection)).state();
        }
    }

    /// Takes note that the connection has published while the broker is full. `false` if it is not full any more.
    pub(super) fn block(&self, line: &Arc<Line>) -> bool {
        let mut turn = self.turn(Some(line.id));
        let state = turn.state();
        let full = state.broker.engine.is_full();
        if full {
            state.out.blocked.push(Arc::clone(line));
        }
        full
    }

    /// Takes other bounds.
    pub(super) fn set_limits(&self, limits: Limits) {
        self.turn(None).state().broker.engine.set_limits(limits);
    }

    /// Says whether what is durable takes more of the disk than it may.
    pub(super) fn set_disk_short(&self, short: bool) {
        if self.disk_short.swap(short, Ordering::Relaxed) != short {
            self.turn(None).state();
        }
    }

    /// Whether it was said.
    pub(super) fn is_disk_short(&self) -> bool {
        self.disk_short.load(Ordering::Relaxed)
    }

    /// Whether publishers wait.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Every connection that is there.
    pub(super) fn lines(&self) -> Vec<Arc<Line>> {
        self.lock().out.lines.values().map(Arc::clone).collect()
    }

    /// Connections that are there, and those of them that are not read from.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.out.lines.len(), state.out.blocked.len())
    }

    /// Connections that are not read from because they have published while the broker is full.
    pub(super) fn blocked(&self) -> Vec<Arc<Line>> {
        self.lock().out.blocked.clone()
    }

    /// Ends all connections for this reason.
    pub(super) fn close_all(&self, fault: &Fault) {
        self.lines().iter().for_each(|line| line.close(fault.clone()));
    }

    /// Waits until no connection is there.
    pub(super) async fn empty(&self) {
        while self.counts().0 > 0 {
            self.emptied.notified().await;
        }
    }

    /// Does what the engine has to do by now, and waits until it has to do more.
    pub(super) async fn tick(&self) {
        loop {
            let at_ms = self.next_tick_ms.load(Ordering::Acquire);
            let now_ms = self.now_ms();
            if at_ms <= now_ms {
                self.do_due(now_ms);
                // Deadlines in the past must not keep others from their turn.
                tokio::task::yield_now().await;
                continue;
            }
            // At most so long, since the machine's clock can jump.
            let wait_ms = (at_ms - now_ms).clamp(1, TICK_MS_MAX);
            tokio::select! {
                biased;
                () = self.tick_sooner.notified() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(wait_ms.unsigned_abs())) => {
                    if self.any_drained.load(Ordering::Acquire) || self.is_full() {
                        self.turn(None).state();
                    }
                }
            }
        }
    }

    fn do_due(&self, now_ms: i64) {
        let mut turn = self.turn(None);
        let state = turn.state();
        state.broker.engine.tick(now_ms, &mut state.out);
    }

    /// Whether it is nobody's turn.
    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        self.state.try_lock().is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longest wait between two looks at the time of day, in milliseconds.
const TICK_MS_MAX: i64 = 1_000;

/// One connection's time with what is shared. Whatever it has brought about is passed on when it is dropped.
pub(super) struct Turn<'a> {
    hub: &'a Hub,
    own: Option<ConnectionId>,
    state: Option<MutexGuard<'a, State>>,
}

impl Turn<'_> {
    fn state(&mut self) -> &mut State {
        let hub = self.hub;
        self.state.get_or_insert_with(|| {
            let mut state = hub.lock();
            let disk_short = hub.disk_short.load(Ordering::Relaxed);
            let pressed = disk_short || state.out.journal.as_ref().is_some_and(|journal| journal.is_pressed());
            state.broker.engine.press(pressed);
            if hub.any_drained.swap(false, Ordering::AcqRel) {
                let drained = std::mem::take(&mut *hub.drained.lock().unwrap_or_else(PoisonError::into_inner));
                let now_ms = hub.now_ms();
                let State { broker, out } = &mut *state;
                for (connection, bytes) in drained {
                    broker.engine.drained(connection, bytes, now_ms, out);
                }
            }
            state
        })
    }
}

impl Shared for Turn<'_> {
    type Outlet = Out;

    fn lock(&mut self) -> (&mut Broker, &mut Out) {
        let state = self.state();
        (&mut state.broker, &mut state.out)
    }

    fn why_full(&mut self) -> Cow<'static, str> {
        let disk_short = self.hub.is_disk_short();
        match self.state().out.journal.as_ref().and_then(|journal| journal.pressure()) {
            Some(pressure) => pressure.reason().into(),
            None if disk_short => "low on disk: what is durable takes more of it than it may".into(),
            None => LOW_ON_MEMORY.into(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else { return };
        let full = state.broker.engine.is_full();
        let unblocked = if full { Vec::new() } else { std::mem::take(&mut state.out.blocked) };
        if self.hub.full.swap(full, Ordering::Relaxed) != full {
            match full {
                true => tracing::warn!("The broker is full: whoever publishes is not read from until there is room"),
                false => tracing::info!("The broker has room again"),
            }
        }
        let woken = std::mem::take(&mut state.out.woken);
        let next_ms = state.broker.engine.next_deadline().unwrap_or(i64::MAX);
        let before_ms = self.hub.next_tick_ms.swap(next_ms, Ordering::AcqRel);
        drop(state);
        if next_ms < before_ms {
            self.hub.tick_sooner.notify_one();
        }
        wake_all(&woken, self.own);
        for line in unblocked {
            line.order(|orders| orders.unblock = true);
        }
    }
}

/// Connections are numbered by us, one after the other: any bits of the number will do.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the table takes its bits from both ends.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
