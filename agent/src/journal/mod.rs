//! Which requests this host has seen: the memory behind "at most once".
//!
//! A request's id is written down before the delivery is acknowledged and before anything runs. A
//! second copy, whoever sends it, is recognised by its id for as long as its time window could still
//! let it through. After a crash, what was started and not finished is found here and reported as
//! interrupted; it is never run again.
//!
//! A request that is refused with an answer is recorded too, as ended: its sender was told that nothing
//! was started, and a copy that comes when the host is no longer busy must not make that untrue.
//!
//! # Durability
//!
//! The record of an action that changes something reaches the disk (`fsync`) before the action
//! starts. The record of a read-only action or of a refusal is written but not synced: it survives a crash of the
//! agent, since the kernel has it, and only a crash of the whole host can lose it. What could happen
//! then is that a repeat of the same request reads the same thing twice, which harms nobody, whereas
//! a sync for each ping of a fleet would cost every host a disk write.
//!
//! Waiting for the disk takes no lock ([`Unsynced`]): while a slow disk syncs one record, others are looked up and
//! written.
//!
//! # Hands that clear up
//!
//! A file that was removed while the agent runs is noticed before the next record and written anew from memory, so that a restart does not forget what it held.
//!
//! # Clocks that jump
//!
//! Ids are dropped once their window is over. If the clock jumps ahead and back, a dropped id could
//! be inside its window again, so the journal also remembers up to which expiry it has forgotten
//! ([`Seen::Forgotten`]): a command that expires before that point may have been seen and does not run.

mod compaction;
mod look;
mod record;
mod room;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_daemon::Disk;
use muster_daemon::disk::{write_atomic, write_beside};
use muster_protocol::{Code, Identity, ReplyRoute, RequestId, Timestamp, code};
use serde::{Deserialize, Serialize};

pub use compaction::compact_shared;
pub use look::{Summary, look};
pub use record::FORMAT_VERSION;
use record::{Finished, Line, Record};
pub use room::Kind;
use room::{Room, Share};

use crate::synced::{Place, Slot, Tracked};

/// After this many records it is worth looking whether the file can be made smaller: often enough to
/// keep it small, seldom enough to cost nothing.
const RECORDS_BETWEEN_LOOKS: usize = 512;

/// Most bytes that the records of all remembered ids take together: a thousand for each of the ids that
/// [`Kind::budget`] allows would be twice that, and an ordinary record has 300.
pub const LIVE_BYTES_MAX: u64 = 48 * 1024 * 1024;

/// Longest file, with records that are not needed any more: beyond it only ends of requests are recorded, for which
/// the [`reserve`](crate::reserve) counts too. It is reached only if the file cannot be made smaller for long.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Longest file that is read: one that is full, and all the ends that can follow.
const READ_BYTES_MAX: u64 = 2 * FILE_BYTES_MAX;

/// Why the journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file operation failed.
    #[error("{action} journal `{path}`")]
    Io {
        /// What was attempted, such as `open`.
        action: &'static str,
        /// The journal's file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Written by a newer program.
    #[error("journal `{path}` is in format {found}; this program writes format {FORMAT_VERSION}")]
    Newer {
        /// The journal's file.
        path: PathBuf,
        /// The format it is in.
        found: u32,
    },
    /// As many ids of a caller as he may have remembered.
    #[error(
        "the journal remembers {holds} {kind} of `{}` whose time windows are still open, and keeps the rest of the room for others",
        caller.short()
    )]
    Full {
        /// Who asks.
        caller: Identity,
        /// What for.
        kind: Kind,
        /// How many he has.
        holds: usize,
    },
    /// No room for one more, whoever asks.
    #[error("the journal has {bytes} bytes and takes no more requests until time windows end")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}

impl JournalError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Full { .. } | Self::TooLarge { .. } => true,
            Self::Newer { .. } => false,
        }
    }

    /// The code with which the host refuses a request that it cannot record.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        &code::JOURNAL_FAILED
    }
}

/// What is recorded before a request runs: enough to answer for it after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The request.
    pub id: RequestId,
    /// Who asked.
    pub caller: Identity,
    /// Where the answer goes.
    pub reply_to: ReplyRoute,
    /// `plugin.action`.
    pub action: String,
    /// Whether the action only reads.
    pub read_only: bool,
    /// When it was recorded.
    pub at_ms: Timestamp,
    /// Until when the id must be remembered: the command's expiry plus the allowed skew.
    pub keep_until_ms: Timestamp,
    /// Reports below this number may have been sent already.
    pub sequence_reserved: u32,
}

/// What the journal knows about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was recorded and has not finished.
    Started,
    /// It was recorded and has ended.
    Finished,
    /// It was refused with this code.
    Refused(&'static Code),
    /// The id is not there, but ids with this expiry have been dropped already, which happens only
    /// if the clock was further ahead before.
    Forgotten,
}

/// What happened while a journal was opened, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Bytes cut off the end: a record that was being written when the host stopped.
    pub torn_bytes: usize,
    /// Lines in the middle that do not fit their checksum.
    pub damaged_lines: usize,
    /// Where the damaged file was kept, if there was damage.
    pub kept_at: Option<PathBuf>,
}

#[derive(Debug)]
struct Entry {
    keep_until: Timestamp,
    /// Present while the request has not finished.
    running: Option<Box<Started>>,
    /// It has ended, and the record of that is not written: whether it only read.
    unwritten: Option<bool>,
    /// The code with which it was refused, if it was.
    refused: Option<&'static Code>,
    /// Whose room it takes; `None` if a record of the first agents does not say.
    share: Option<Share>,
    /// How long its record is in a file that holds nothing else.
    bytes: u64,
}

/// The journal of one host: an index in memory and an append-only file of checksummed lines.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The file, shared with those who wait for the disk.
    slot: Arc<Slot>,
    /// What was recorded since somebody began to write the journal anew beside; `None` if nobody does.
    tail: Option<Vec<u8>>,
    /// What the entries take in a file that holds nothing else, in bytes.
    live_bytes: u64,
    /// Length of the file up to the end of the last good record.
    length: u64,
    /// Records since somebody looked whether the file can be made smaller.
    records_since_look: usize,
    /// A write went wrong and could not be undone: the file is rewritten before the next record.
    suspect: bool,
    entries: BTreeMap<RequestId, Entry>,
    room: Room,
    forgotten_until: Timestamp,
}

/// A record that the kernel has and the disk may not. Waiting for the disk takes no lock, so that a slow disk holds
/// up nobody else.
#[derive(Debug)]
#[must_use]
pub struct Unsynced {
    slot: Arc<Slot>,
    place: Place,
    path: PathBuf,
}

impl Unsynced {
    /// Waits until the record is on the disk.
    ///
    /// # Errors
    /// When nobody knows whether it is. [`Journal::sync_failed`] has to be told.
    pub fn sync(&self) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { action: "sync", path: self.path.clone(), source };
        self.slot.sync(&self.place).map_err(failed)
    }
}

impl Journal {
    /// Opens the journal in `path`, or begins one. Drops ids whose window is over at `now` and
    /// rewrites the file, so that it starts out clean.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a newer program wrote it.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, now: Timestamp) -> Result<(Self, Opened), JournalError> {
        let failed = |action| {
            let path = path.to_owned();
            move |source| JournalError::Io { action, path, source }
        };
        let bytes = match disk.read(path, READ_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read")(error)),
        };
        let Replayed { entries, room, forgotten_until, mut opened } = Self::replay(path, &bytes)?;
        if opened.damaged_lines > 0 {
            // Whoever looks into the damage wants the bytes as they were.
            let kept = path.with_extension("damaged");
            write_atomic(&**disk, &kept, 0o600, &bytes).map_err(Into::into).map_err(failed("keep the damaged"))?;
            opened.kept_at = Some(kept);
        }
        let mut journal = Self {
            disk: disk.clone(),
            path: path.to_owned(),
            slot: Arc::new(Slot::new()),
            tail: None,
            live_bytes: 0,
            length: 0,
            records_since_look: 0,
            suspect: true,
            entries,
            room,
            forgotten_until,
        };
        journal.forget(now);
        journal.rewrite()?;
        Ok((journal, opened))
    }

    fn replay(path: &Path, bytes: &[u8]) -> Result<Replayed, JournalError> {
        let mut replayed = Replayed {
            entries: BTreeMap::new(),
            room: Room::default(),
            forgotten_until: Timestamp(i64::MIN),
            opened: Opened::default(),
        };
        for line in record::lines(bytes) {
            let record = match line {
                Line::Good(record) => record,
                Line::Torn(length) => {
                    replayed.opened.torn_bytes = length;
                    continue;
                }
                Line::Damaged => {
                    replayed.opened.damaged_lines += 1;
                    continue;
                }
            };
            match record {
                Record::Format { version } if version > FORMAT_VERSION => {
                    return Err(JournalError::Newer { path: path.to_owned(), found: version });
                }
                Record::Format { .. } => {}
                Record::Started(started) => replayed.start(started),
                Record::Sequence { id, reserved } => {
                    if let Some(running) = replayed.entries.get_mut(&id).and_then(|entry| entry.running.as_mut()) {
                        running.sequence_reserved = running.sequence_reserved.max(reserved);
                    }
                }
                Record::Finished(finished) => replayed.finish(&finished),
                Record::Forgotten { until_ms } => {
                    replayed.forgotten_until = replayed.forgotten_until.max(until_ms);
                }
            }
        }
        Ok(replayed)
    }

    /// What is known about `id`, whose command must be remembered until `keep_until`.
    #[must_use]
    pub fn seen(&self, id: &RequestId, keep_until: Timestamp) -> Option<Seen> {
        match self.entries.get(id) {
            Some(Entry { running: Some(_), .. }) => Some(Seen::Started),
            Some(Entry { refused: Some(code), .. }) => Some(Seen::Refused(code)),
            Some(_) => Some(Seen::Finished),
            None if keep_until <= self.forgotten_until => Some(Seen::Forgotten),
            None => None,
        }
    }

    /// Whether a request was started and has not finished.
    #[must_use]
    pub fn is_unfinished(&self, id: &RequestId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.running.is_some())
    }

    /// Whether a request that only reads was started and has not finished.
    #[must_use]
    pub fn is_unfinished_read(&self, id: &RequestId) -> bool {
        self.entries.get(id).and_then(|entry| entry.running.as_ref()).is_some_and(|started| started.read_only)
    }

    /// Requests that were started and have not finished, oldest first.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Started> {
        let mut list: Vec<Started> =
            self.entries.values().filter_map(|entry| entry.running.as_deref().cloned()).collect();
        list.sort_by_key(|started| started.id);
        list
    }

    /// How many ids are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them are of this kind.
    #[must_use]
    pub fn held(&self, kind: Kind) -> usize {
        self.room.held(kind)
    }

    /// Whether no id is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that a request is about to run. Only after `Ok` may it run.
    ///
    /// # Errors
    /// When the record did not reach the file (for a changing action: the disk), or the caller has as many
    /// requests remembered as he may. The request must then be refused; the id counts as not seen.
    pub fn start(&mut self, started: Started) -> Result<(), JournalError> {
        let id = started.id;
        let Some(unsynced) = self.begin(started)? else { return Ok(()) };
        unsynced.sync().inspect_err(|_| self.sync_failed(id))
    }

    /// As [`start`](Self::start), but the caller waits for the disk: the request may run once what is given back
    /// is synced. Until then it counts as started.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn begin(&mut self, started: Started) -> Result<Option<Unsynced>, JournalError> {
        let kind = if started.read_only { Kind::Read } else { Kind::Change };
        let line = Record::Started(started.clone()).to_line();
        self.check_room(&started.caller, kind, line.len(), started.at_ms)?;
        self.append(&line)?;
        let share = self.room.take(&started.caller, kind);
        let entry = Entry {
            keep_until: started.keep_until_ms,
            running: Some(Box::new(started.clone())),
            unwritten: None,
            refused: None,
            share: Some(share),
            bytes: line.len() as u64,
        };
        self.insert(started.id, entry);
        Ok((!started.read_only).then(|| self.unsynced()))
    }

    /// Takes back a request that was begun, whose record may not have reached the disk.
    pub fn sync_failed(&mut self, id: RequestId) {
        // After a failed sync nobody knows what the disk holds.
        self.suspect = true;
        self.remove(id);
    }

    /// Records a request that is refused, as one that has ended, so that a repeat of it does not run.
    /// An id that is known already stays as it is. Not synced, as for an action that only reads.
    ///
    /// # Errors
    /// When the record cannot be written, or the caller has as many refused requests remembered as he may. The id
    /// then counts as not seen.
    pub fn refuse(
        &mut self,
        id: RequestId,
        caller: &Identity,
        code: &'static Code,
        keep_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        if self.seen(&id, keep_until).is_some() {
            return Ok(());
        }
        let record = Record::Finished(Finished {
            id,
            keep_until_ms: keep_until,
            caller: Some(caller.clone()),
            kind: Some(Kind::Refusal),
            refused: Some(code.code.to_owned()),
        });
        let line = record.to_line();
        self.check_room(caller, Kind::Refusal, line.len(), now)?;
        self.append(&line)?;
        let share = Some(self.room.take(caller, Kind::Refusal));
        let bytes = line.len() as u64;
        self.insert(id, Entry { keep_until, running: None, unwritten: None, refused: Some(code), share, bytes });
        Ok(())
    }

    fn check_room(&mut self, caller: &Identity, kind: Kind, bytes: usize, now: Timestamp) -> Result<(), JournalError> {
        if self.denied(caller, kind, bytes).is_none() {
            return Ok(());
        }
        self.forget(now);
        self.denied(caller, kind, bytes).map_or(Ok(()), Err)
    }

    fn denied(&self, caller: &Identity, kind: Kind, bytes: usize) -> Option<JournalError> {
        if let Some(holds) = self.room.is_denied(caller, kind) {
            return Some(JournalError::Full { caller: caller.clone(), kind, holds });
        }
        let bytes = bytes as u64;
        if self.live_bytes + bytes > LIVE_BYTES_MAX {
            return Some(JournalError::TooLarge { bytes: self.live_bytes });
        }
        (self.length + bytes > FILE_BYTES_MAX).then_some(JournalError::TooLarge { bytes: self.length })
    }

    fn insert(&mut self, id: RequestId, entry: Entry) {
        self.live_bytes += entry.bytes;
        if let Some(before) = self.entries.insert(id, entry) {
            self.gone(&before);
        }
    }

    fn remove(&mut self, id: RequestId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.gone(&entry);
        }
    }

    fn gone(&mut self, entry: &Entry) {
        self.live_bytes -= entry.bytes;
        if let Some(share) = &entry.share {
            self.room.give_back(share);
        }
    }

    fn unsynced(&self) -> Unsynced {
        Unsynced { place: self.slot.place(), slot: self.slot.clone(), path: self.path.clone() }
    }

    /// Records that reports below `reserved` may have been sent. Not synced: it matters after a
    /// crash of the agent, not of the host.
    ///
    /// # Errors
    /// When the record cannot be written; the report may be sent all the same.
    pub fn reserve_sequence(&mut self, id: RequestId, reserved: u32) -> Result<(), JournalError> {
        if let Some(running) = self.entries.get_mut(&id).and_then(|entry| entry.running.as_mut()) {
            running.sequence_reserved = running.sequence_reserved.max(reserved);
            self.append(&Record::Sequence { id, reserved }.to_line())?;
        }
        Ok(())
    }

    /// Records that a request has ended. The id stays known until its window is over.
    ///
    /// # Errors
    /// When the record cannot be written. In memory the request counts as finished all the same, and the record
    /// can be tried again.
    pub fn finish(&mut self, id: RequestId) -> Result<(), JournalError> {
        let Some(unsynced) = self.end(id)? else { return Ok(()) };
        unsynced.sync().inspect_err(|_| self.suspect = true)
    }

    /// As [`finish`](Self::finish), but the caller waits for the disk.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn end(&mut self, id: RequestId) -> Result<Option<Unsynced>, JournalError> {
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(None) };
        if let Some(started) = entry.running.take() {
            entry.unwritten = Some(started.read_only);
        }
        let Some(read_only) = entry.unwritten else { return Ok(None) };
        let line = Record::Finished(entry.finished(id)).to_line();
        self.append(&line)?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.unwritten = None;
            self.live_bytes = self.live_bytes - entry.bytes + line.len() as u64;
            entry.bytes = line.len() as u64;
        }
        Ok((!read_only).then(|| self.unsynced()))
    }

    /// Whether enough was written that [`compact`](Self::compact) may be worth its sync.
    #[must_use]
    pub fn is_compaction_due(&self) -> bool {
        self.tail.is_none() && self.records_since_look >= RECORDS_BETWEEN_LOOKS
    }

    /// Drops ids whose window is over and writes what is left into a new file, and waits for the disk. An agent at
    /// work uses [`compact_shared`].
    ///
    /// # Errors
    /// When the new file cannot be written; the old one stays in use if that is possible.
    pub fn compact(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.forget(now);
        self.rewrite()
    }

    /// Drops ids whose window is over. A request that still runs stays, however old it is.
    pub fn forget(&mut self, now: Timestamp) {
        let (forgotten_until, room, live_bytes) = (&mut self.forgotten_until, &mut self.room, &mut self.live_bytes);
        self.entries.retain(|_, entry| {
            let keep = entry.running.is_some() || entry.keep_until > now;
            if !keep {
                *forgotten_until = (*forgotten_until).max(entry.keep_until);
                *live_bytes -= entry.bytes;
                entry.share.iter().for_each(|share| room.give_back(share));
            }
            keep
        });
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::Io { action, path, source }
    }

    fn append(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let is_gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if !self.suspect && self.disk.metadata(&self.path).is_err_and(is_gone) {
            // A record in a file that nobody finds again would be none. What it held is in memory.
            tracing::warn!(path = %self.path.display(), "The journal was removed by something else; writing it anew");
            self.suspect = true;
        }
        if self.suspect {
            self.rewrite()?;
        }
        let file = self.slot.current();
        if let Err(error) = file.append(line) {
            // Half a line may be there. Cut it off; if even that fails, start a new file next time.
            self.suspect = file.set_length(self.length).is_err();
            return Err(self.failed("write")(error));
        }
        self.length += line.len() as u64;
        self.records_since_look += 1;
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(line);
        }
        Ok(())
    }

    /// All that is needed, as it stands in a new file.
    fn encode(&mut self) -> Vec<u8> {
        let mut bytes = Record::Format { version: FORMAT_VERSION }.to_line();
        if self.forgotten_until > Timestamp(i64::MIN) {
            bytes.extend(Record::Forgotten { until_ms: self.forgotten_until }.to_line());
        }
        let mut live_bytes = 0;
        for (id, entry) in &mut self.entries {
            let record = match &entry.running {
                Some(started) => Record::Started((**started).clone()),
                None => Record::Finished(entry.finished(*id)),
            };
            let line = record.to_line();
            entry.bytes = line.len() as u64;
            live_bytes += entry.bytes;
            bytes.extend(line);
        }
        self.live_bytes = live_bytes;
        bytes
    }

    /// Writes what is still needed into a new file and puts it in the old one's place. Waits for the disk.
    fn rewrite(&mut self) -> Result<(), JournalError> {
        // Also after a failure: trying again for each record would cost a sync each time.
        self.records_since_look = 0;
        // Who writes it anew beside does so in vain.
        self.tail = None;
        let bytes = self.encode();
        let failed = self.failed("rewrite");
        let written = write_beside(&*self.disk, &self.path, 0o600, &bytes);
        let (file, temporary) = match written {
            Ok(written) => written,
            Err(error) => return Err(failed(error.into())),
        };
        if let Err(error) = self.disk.rename(&temporary, &self.path) {
            // Left behind, the next start removes it.
            drop(self.disk.remove_file(&temporary));
            return Err(failed(error));
        }
        // From here on the old file is no longer the journal. Nor is the new one, until its name is on the disk.
        self.suspect = true;
        self.slot.current().give_up();
        self.disk.sync_directory(directory_of(&self.path)).map_err(failed)?;
        self.slot.set(Arc::new(Tracked::new(file)));
        self.length = bytes.len() as u64;
        self.suspect = false;
        Ok(())
    }
}

/// The directory that a file lies in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Entry {
    fn finished(&self, id: RequestId) -> Finished {
        Finished {
            id,
            keep_until_ms: self.keep_until,
            caller: self.share.as_ref().map(|share| (*share.caller).clone()),
            kind: self.share.as_ref().map(|share| share.kind),
            refused: self.refused.map(|code| code.code.to_owned()),
        }
    }
}

/// What a file says.
struct Replayed {
    entries: BTreeMap<RequestId, Entry>,
    room: Room,
    forgotten_until: Timestamp,
    opened: Opened,
}

impl Replayed {
    fn start(&mut self, started: Started) {
        let kind = if started.read_only { Kind::Read } else { Kind::Change };
        let share = self.room.take(&started.caller, kind);
        let (id, keep_until) = (started.id, started.keep_until_ms);
        self.insert(
            id,
            Entry {
                keep_until,
                running: Some(Box::new(started)),
                unwritten: None,
                refused: None,
                share: Some(share),
                bytes: 0,
            },
        );
    }

    fn finish(&mut self, finished: &Finished) {
        let share = finished.caller.as_ref().zip(finished.kind).map(|(caller, kind)| self.room.take(caller, kind));
        let refused = finished.refused.as_deref().and_then(Code::find);
        self.insert(
            finished.id,
            Entry { keep_until: finished.keep_until_ms, running: None, unwritten: None, refused, share, bytes: 0 },
        );
    }

    fn insert(&mut self, id: RequestId, entry: Entry) {
        if let Some(share) = self.entries.insert(id, entry).and_then(|before| before.share) {
            self.room.give_back(&share);
        }
    }
}
