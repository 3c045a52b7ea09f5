//! The journal as the server has it: records and confirms in, confirms out, and a thread that does the writing.

use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use muster_daemon::Disk;

use super::error::JournalError;
use super::held::Held;
use super::log::{Bounds, Log};
use super::reading::Found;
use super::record::Record;
use super::status::{JournalStatus, Pressure};
use crate::engine::{BindingSpec, Destination, ExchangeSpec, QueueSpec};
use crate::ids::{ChannelNumber, ConnectionId};
use crate::outlet::Output;

/// How long records that no confirm waits for are collected before they are written.
const LINGER: Duration = Duration::from_millis(100);
/// Pause before the next try after the disk has failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Bytes in memory that are not collected any longer.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes in memory beyond which publishers wait for the disk.
const BEHIND_BYTES: usize = 32 * 1024 * 1024;
/// Memory that a record takes beside a message's.
const RECORD_BYTES: usize = 96;

/// What happens when confirms may be sent, or the pressure has changed.
type Wake = Box<dyn Fn() + Send + Sync>;

/// The journal of a running broker. All calls are short; none waits for the disk but [`Journal::close`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    bounds: Bounds,
    work: Mutex<Work>,
}

/// Who writes.
#[derive(Debug)]
enum Work {
    NotStarted(Box<Log>),
    Running(JoinHandle<()>),
    Over,
}

struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    /// Whether there is a [`Pressure`], to be asked often.
    is_pressed: AtomicBool,
    /// Whether a confirm waits, to be asked for each that waits for nothing. Changed by those who hold the engine's lock.
    holds: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Inbox {
    records: Vec<Record>,
    /// About what they take in memory.
    bytes: usize,
    /// How many records there were since the start.
    recorded: u64,
    /// How many of them are on the disk.
    durable: u64,
    held: Held,
    /// A confirm waits for what is in the inbox.
    is_urgent: bool,
    is_closing: bool,
    failing: Option<Pressure>,
    is_full: bool,
    is_behind: bool,
    /// Somebody is to be woken although nothing was written.
    has_news: bool,
    status: JournalStatus,
}

impl Inbox {
    /// It falls again at four fifths, so that publishers do not stop and go with each message.
    fn note_full(&mut self) {
        let max = self.status.live_bytes_max;
        let full_from = if self.is_full { max / 5 * 4 } else { max };
        self.is_full = self.status.live_bytes >= full_from;
    }

    fn pressure(&self) -> Option<Pressure> {
        let full = || Pressure::Full { live_bytes: self.status.live_bytes, live_bytes_max: self.status.live_bytes_max };
        let behind = || Pressure::Behind { waiting_bytes: self.bytes as u64 };
        self.failing.clone().or_else(|| self.is_full.then(full)).or_else(|| self.is_behind.then(behind))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the pressure for those who only ask whether there is any.
    fn note_pressure(&self, inbox: &Inbox) -> bool {
        let is_pressed = inbox.failing.is_some() || inbox.is_full || inbox.is_behind;
        self.is_pressed.swap(is_pressed, Ordering::Relaxed) != is_pressed
    }
}

fn bytes_of(record: &Record) -> usize {
    RECORD_BYTES
        + match record {
            Record::Enqueued { content, queues, .. } => content.size() + queues.len() * size_of::<Arc<str>>(),
            Record::ExchangeDeclared(spec) => size_of::<ExchangeSpec>() + spec.name.len(),
            Record::QueueDeclared(spec) => size_of::<QueueSpec>() + spec.name.len(),
            Record::Bound(spec) | Record::Unbound(spec) => bytes_of_binding(spec),
            Record::ExchangeDeleted { name } | Record::QueueDeleted { name } => name.len(),
            Record::Removed { queue, .. } => size_of_val(queue),
        }
}

fn bytes_of_binding(spec: &BindingSpec) -> usize {
    let (Destination::Queue(destination) | Destination::Exchange(destination)) = &spec.destination;
    let names = spec.source.len() + destination.len() + spec.key.len();
    size_of::<BindingSpec>() + names + bytes_of_table(&spec.arguments)
}

/// About what a table takes in memory. How deep they are was bounded when they were read.
fn bytes_of_table(table: &FieldTable) -> usize {
    const ENTRY_BYTES: usize = 96;
    let entry = |(name, value): (&ShortString, &AMQPValue)| ENTRY_BYTES + name.as_str().len() + bytes_of_value(value);
    table.inner().iter().map(entry).sum()
}

fn bytes_of_value(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::LongString(text) => text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().len(),
        AMQPValue::FieldTable(table) => bytes_of_table(table),
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().map(|value| size_of::<AMQPValue>() + bytes_of_value(value)).sum()
        }
        _ => 0,
    }
}

impl Journal {
    /// Locks the directory, makes it where it is missing, reads what is in it, and gives the durable state as records:
    /// exchanges, queues, bindings, and messages in the order of their numbers, without those that have expired.
    /// Nothing is written before [`start`](Self::start).
    ///
    /// # Errors
    /// [`JournalError`]. Damage is none: what is whole counts, and [`Found`] says what is not.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        bounds: Bounds,
        now_ms: i64,
    ) -> Result<(Self, Vec<Record>), JournalError> {
        let (log, found) = Log::open(disk, directory, bounds, now_ms)?;
        report(directory, &found);
        let records = log.records()?;
        let mut inbox = Inbox::default();
        inbox.status.found = found;
        inbox.status.bytes_max = bounds.bytes_max;
        inbox.status.live_bytes_max = bounds.live_bytes_max();
        note_size(&mut inbox, &log);
        let shared = Shared {
            inbox: Mutex::new(inbox),
            changed: Condvar::new(),
            is_pressed: AtomicBool::new(false),
            holds: AtomicBool::new(false),
        };
        shared.note_pressure(&shared.lock());
        Ok((Self { shared: Arc::new(shared), bounds, work: Mutex::new(Work::NotStarted(Box::new(log))) }, records))
    }

    /// Starts the thread that writes. `wake` is called on it, without a lock, when [`released`](Self::released) may give
    /// something or [`pressure`](Self::pressure) has changed.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(&self, wake: impl Fn() + Send + Sync + 'static) -> Result<(), JournalError> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::replace(&mut *work, Work::Over) {
            Work::NotStarted(log) => {
                let writer = Writer { log: *log, shared: self.shared.clone(), wake: Box::new(wake) };
                let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
                *work = Work::Running(thread.map_err(JournalError::Thread)?);
            }
            other => *work = other,
        }
        Ok(())
    }

    /// Takes a record.
    pub fn record(&self, record: Record) {
        let mut inbox = self.shared.lock();
        inbox.recorded += 1;
        if inbox.is_closing {
            return;
        }
        inbox.bytes += bytes_of(&record);
        inbox.records.push(record);
        if inbox.bytes > BEHIND_BYTES && !inbox.is_behind {
            inbox.is_behind = true;
            self.shared.note_pressure(&inbox);
        }
        let wakes = inbox.records.len() == 1 || inbox.bytes > LINGER_BYTES_MAX;
        drop(inbox);
        if wakes {
            self.shared.changed.notify_one();
        }
    }

    /// Holds a confirm until every record so far is on the disk; gives it back if it can be sent at once.
    #[must_use]
    pub fn hold(&self, connection: ConnectionId, output: Output) -> Option<Output> {
        let mut inbox = self.shared.lock();
        let after = inbox.recorded;
        if after <= inbox.durable && !inbox.held.is_behind(connection, &output) {
            return Some(output);
        }
        inbox.held.hold(after, connection, output);
        self.shared.holds.store(true, Ordering::Relaxed);
        let wakes = !inbox.is_urgent && !inbox.records.is_empty();
        inbox.is_urgent |= wakes;
        drop(inbox);
        if wakes {
            self.shared.changed.notify_one();
        }
        None
    }

    /// A confirm, or a returned message before its confirm, that waits for nothing on the disk; given back if nothing of its channel is held before it.
    #[must_use]
    pub fn hold_behind_others(&self, connection: ConnectionId, output: Output) -> Option<Output> {
        if !self.shared.holds.load(Ordering::Relaxed) {
            return Some(output);
        }
        let mut inbox = self.shared.lock();
        if !inbox.held.is_behind(connection, &output) {
            return Some(output);
        }
        inbox.held.hold(0, connection, output);
        None
    }

    /// Appends the confirms that may be sent now.
    pub fn released(&self, into: &mut Vec<(ConnectionId, Output)>) {
        let mut inbox = self.shared.lock();
        let durable = inbox.durable;
        inbox.held.release(durable, into);
        self.shared.holds.store(inbox.held.len() > 0, Ordering::Relaxed);
    }

    /// From now on all segments together may have so many bytes. Nothing is deleted for it: publishers wait until enough is
    /// taken by its consumers.
    pub fn limit(&self, bytes_max: u64) {
        let mut inbox = self.shared.lock();
        inbox.status.bytes_max = bytes_max;
        inbox.status.live_bytes_max = Bounds { bytes_max, ..self.bounds }.live_bytes_max();
        inbox.note_full();
        self.shared.note_pressure(&inbox);
        inbox.has_news = true;
        drop(inbox);
        self.shared.changed.notify_one();
    }

    /// A channel is closed: its confirms are not sent any more.
    pub fn forget_channel(&self, connection: ConnectionId, channel: ChannelNumber) {
        self.shared.lock().held.forget_channel(connection, channel);
    }

    /// A connection is gone.
    pub fn forget_connection(&self, connection: ConnectionId) {
        self.shared.lock().held.forget_connection(connection);
    }

    /// Whether publishers have to wait. Cheap.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.shared.is_pressed.load(Ordering::Relaxed)
    }

    /// Why publishers have to wait, if they do.
    #[must_use]
    pub fn pressure(&self) -> Option<Pressure> {
        self.shared.lock().pressure()
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let inbox = self.shared.lock();
        JournalStatus {
            records_total: inbox.recorded,
            waiting_confirms: inbox.held.len() as u64,
            waiting_bytes: inbox.bytes as u64,
            pressure: inbox.pressure(),
            ..inbox.status.clone()
        }
    }

    /// Writes what there is, ends the thread and gives the directory free. Waits for the disk. Confirms that were waiting
    /// may be sent if it could be written. Records that come later are not kept, and what waits for them is never released.
    pub fn close(&self) {
        let work = mem::replace(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner), Work::Over);
        if let Work::Running(thread) = work {
            self.shared.lock().is_closing = true;
            self.shared.changed.notify_one();
            // Its panic has been seen by its guard.
            drop(thread.join());
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn report(directory: &Path, found: &Found) {
    let directory = directory.display();
    if found.is_damaged() {
        tracing::error!(
            %directory,
            damaged_segments = found.damaged_segments,
            damaged_bytes = found.damaged_bytes,
            missing_segments = found.missing_segments,
            orphaned_messages = found.orphaned_messages,
            orphaned_bindings = found.orphaned_bindings,
            "The journal is damaged: what was in these bytes is lost, which can be messages, queues, bindings or \
             acknowledgements. Everything else counts. Damaged segments are kept as `damaged-NUMBER`; look at the disk"
        );
    }
    tracing::info!(
        %directory,
        segments = found.segments,
        bytes = found.bytes,
        records = found.records,
        torn_bytes = found.torn_bytes,
        expired_messages = found.expired_messages,
        "Read the journal"
    );
}

fn note_size(inbox: &mut Inbox, log: &Log) {
    let size = log.size();
    let status = &mut inbox.status;
    status.segments = size.segments as u64;
    status.bytes = size.bytes;
    status.live_bytes = size.live_bytes;
    status.exchanges = size.counts.exchanges as u64;
    status.queues = size.counts.queues as u64;
    status.bindings = size.counts.bindings as u64;
    status.messages = size.counts.messages as u64;
    inbox.note_full();
}

/// The thread.
struct Writer {
    log: Log,
    shared: Arc<Shared>,
    wake: Wake,
}

/// What the thread does next.
struct Turn {
    records: Vec<Record>,
    /// With them, so many records were taken since the start.
    recorded: u64,
    is_closing: bool,
    /// Whether the disk is tried.
    writes: bool,
}

impl Writer {
    fn run(mut self) {
        let mut guard = Guard(Some(self.shared.clone()));
        let mut retry_at = None;
        loop {
            let turn = self.next(retry_at);
            for record in &turn.records {
                self.log.apply(record);
            }
            drop(turn.records);
            if turn.writes || turn.is_closing {
                let began = Instant::now();
                let written = if turn.is_closing { self.log.close() } else { self.log.commit() };
                retry_at = written.is_err().then(|| Instant::now() + RETRY_PAUSE);
                self.note(written, turn.recorded, began.elapsed());
            }
            if turn.is_closing {
                break;
            }
        }
        // The directory is free before anybody hears that the thread has ended.
        drop(self.log);
        guard.0 = None;
    }

    /// Waits until there is something to do. While the disk fails, records are still taken in, so that what waits in
    /// memory is never more than what is durable anyway.
    fn next(&self, retry_at: Option<Instant>) -> Turn {
        let mut inbox = self.shared.lock();
        let mut linger_until: Option<Instant> = None;
        let writes = loop {
            let now = Instant::now();
            if inbox.is_closing {
                break true;
            }
            if inbox.has_news && retry_at.is_none() {
                break true;
            }
            let wait_until = match retry_at {
                Some(retry_at) if now >= retry_at => break true,
                Some(_) if !inbox.records.is_empty() => break false,
                Some(retry_at) => Some(retry_at),
                None if inbox.is_urgent || inbox.bytes > LINGER_BYTES_MAX || self.log.has_work() => break true,
                None if !inbox.records.is_empty() => {
                    let until = *linger_until.get_or_insert(now + LINGER);
                    if now >= until {
                        break true;
                    }
                    Some(until)
                }
                None => None,
            };
            inbox = match wait_until {
                Some(until) => {
                    let waited = self.shared.changed.wait_timeout(inbox, until.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            };
        };
        let inbox = &mut *inbox;
        inbox.bytes = 0;
        inbox.is_urgent = false;
        Turn { records: mem::take(&mut inbox.records), recorded: inbox.recorded, is_closing: inbox.is_closing, writes }
    }

    fn note(&self, written: std::io::Result<bool>, recorded: u64, took: Duration) {
        let mut inbox = self.shared.lock();
        let status = &mut inbox.status;
        match written {
            Ok(wrote) => {
                if wrote {
                    status.groups_total += 1;
                    status.group_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    status.group_us_max = status.group_us_max.max(status.group_us);
                }
                if inbox.failing.take().is_some() {
                    tracing::info!("The journal can be written again");
                }
                inbox.durable = recorded;
            }
            Err(error) => {
                status.failures_total += 1;
                let tries = match &inbox.failing {
                    Some(Pressure::Failing { tries, .. }) => tries + 1,
                    _ => 1,
                };
                if tries == 1 {
                    tracing::error!(%error, "The journal cannot be written; nothing is confirmed and publishers wait until it can");
                }
                inbox.failing = Some(Pressure::Failing { error: error.to_string(), tries });
            }
        }
        inbox.is_behind = inbox.bytes > BEHIND_BYTES;
        note_size(&mut inbox, &self.log);
        let told = mem::take(&mut inbox.has_news);
        let has_news = self.shared.note_pressure(&inbox) || told || inbox.held.len() > 0;
        drop(inbox);
        if has_news {
            (self.wake)();
        }
    }
}

/// Says that nothing is written any more, if the thread panics.
struct Guard(Option<Arc<Shared>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(shared) = &self.0 else { return };
        let mut inbox = shared.lock();
        inbox.failing =
            Some(Pressure::Failing { error: "its thread panicked; restart the broker".to_owned(), tries: 1 });
        shared.note_pressure(&inbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_topology_count_with_what_they_hold() {
        let long: Arc<str> = "n".repeat(255).into();
        let plain = BindingSpec {
            source: long.clone(),
            destination: Destination::Queue(long.clone()),
            key: long.clone(),
            arguments: FieldTable::default(),
        };
        let mut arguments = FieldTable::default();
        let mut inner = FieldTable::default();
        inner.insert("text".into(), AMQPValue::LongString("t".repeat(60).into()));
        arguments.insert("table".into(), AMQPValue::FieldTable(inner));
        arguments.insert("list".into(), AMQPValue::FieldArray(vec![AMQPValue::Boolean(true); 20].into()));
        let rich = BindingSpec { arguments, ..plain.clone() };
        let (plain, rich) = (bytes_of(&Record::Bound(Arc::new(plain))), bytes_of(&Record::Bound(Arc::new(rich))));
        assert!(plain > RECORD_BYTES + 3 * 255, "{plain}");
        assert!(rich > plain + 60 + 20 * size_of::<AMQPValue>(), "{rich}");
        let deleted = bytes_of(&Record::QueueDeleted { name: long.clone() });
        assert!(deleted >= RECORD_BYTES + 255, "{deleted}");
    }
}
