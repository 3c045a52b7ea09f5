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
//! # Clocks that jump
//!
//! Ids are dropped once their window is over. If the clock jumps ahead and back, a dropped id could
//! be inside its window again, so the journal also remembers up to which expiry it has forgotten
//! ([`Seen::Forgotten`]): a command that expires before that point may have been seen and does not run.

mod record;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use muster_daemon::write_atomic;
use muster_protocol::{Code, Identity, ReplyRoute, RequestId, Timestamp, code};
use serde::{Deserialize, Serialize};

pub use record::FORMAT_VERSION;
use record::{Line, Record};

use crate::state::io_error;

/// Most ids the journal holds at once. At a command a second and the longest window of a day it
/// holds about that many; beyond it the host refuses rather than forgets.
pub const ENTRIES_MAX: usize = 100_000;

/// How full the journal may be for a refused request to be recorded in it. Whoever is allowed nothing
/// can be refused as often as he likes, and must not take the room of requests that run.
pub const REFUSED_ENTRIES_MAX: usize = ENTRIES_MAX / 2;

/// After this many records it is worth looking whether the file can be made smaller: often enough to
/// keep it small, seldom enough to cost nothing.
const RECORDS_BETWEEN_LOOKS: usize = 512;

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
    /// As many ids as it may hold.
    #[error("journal `{path}` holds {most} requests whose time windows are still open")]
    Full {
        /// The journal's file.
        path: PathBuf,
        /// How many it may hold.
        most: usize,
    },
}

impl JournalError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Full { .. } => true,
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
}

/// The journal of one host: an index in memory and an append-only file of checksummed lines.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Length of the file up to the end of the last good record.
    length: u64,
    /// Records since somebody looked whether the file can be made smaller.
    records_since_look: usize,
    /// A write went wrong and could not be undone: the file is rewritten before the next record.
    suspect: bool,
    entries: HashMap<RequestId, Entry>,
    forgotten_until: Timestamp,
}

impl Journal {
    /// Opens the journal in `path`, or begins one. Drops ids whose window is over at `now` and
    /// rewrites the file, so that it starts out clean.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a newer program wrote it.
    pub fn open(path: &Path, now: Timestamp) -> Result<(Self, Opened), JournalError> {
        let failed = |action| {
            let path = path.to_owned();
            move |source| JournalError::Io { action, path, source }
        };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => {
                file.read_to_end(&mut bytes).map_err(failed("read"))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("open")(error)),
        }
        let (entries, forgotten_until, mut opened) = Self::replay(path, &bytes)?;
        if opened.damaged_lines > 0 {
            // Whoever looks into the damage wants the bytes as they were.
            let kept = path.with_extension("damaged");
            write_atomic(&kept, 0o600, &bytes).map_err(io_error).map_err(failed("keep the damaged"))?;
            opened.kept_at = Some(kept);
        }
        let file = open_for_append(path).map_err(failed("open"))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            records_since_look: 0,
            suspect: true,
            entries,
            forgotten_until,
        };
        journal.forget(now);
        journal.rewrite()?;
        Ok((journal, opened))
    }

    fn replay(path: &Path, bytes: &[u8]) -> Result<(HashMap<RequestId, Entry>, Timestamp, Opened), JournalError> {
        let mut entries: HashMap<RequestId, Entry> = HashMap::new();
        let mut forgotten_until = Timestamp(i64::MIN);
        let mut opened = Opened::default();
        for line in record::lines(bytes) {
            let record = match line {
                Line::Good(record) => record,
                Line::Torn(length) => {
                    opened.torn_bytes = length;
                    continue;
                }
                Line::Damaged => {
                    opened.damaged_lines += 1;
                    continue;
                }
            };
            match record {
                Record::Format { version } if version > FORMAT_VERSION => {
                    return Err(JournalError::Newer { path: path.to_owned(), found: version });
                }
                Record::Format { .. } => {}
                Record::Started(started) => {
                    entries.insert(
                        started.id,
                        Entry { keep_until: started.keep_until_ms, running: Some(Box::new(started)) },
                    );
                }
                Record::Sequence { id, reserved } => {
                    if let Some(running) = entries.get_mut(&id).and_then(|entry| entry.running.as_mut()) {
                        running.sequence_reserved = running.sequence_reserved.max(reserved);
                    }
                }
                Record::Finished { id, keep_until_ms } => {
                    entries.insert(id, Entry { keep_until: keep_until_ms, running: None });
                }
                Record::Forgotten { until_ms } => forgotten_until = forgotten_until.max(until_ms),
            }
        }
        Ok((entries, forgotten_until, opened))
    }

    /// What is known about `id`, whose command must be remembered until `keep_until`.
    #[must_use]
    pub fn seen(&self, id: &RequestId, keep_until: Timestamp) -> Option<Seen> {
        match self.entries.get(id) {
            Some(Entry { running: Some(_), .. }) => Some(Seen::Started),
            Some(Entry { running: None, .. }) => Some(Seen::Finished),
            None if keep_until <= self.forgotten_until => Some(Seen::Forgotten),
            None => None,
        }
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

    /// Whether no id is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that a request is about to run. Only after `Ok` may it run.
    ///
    /// # Errors
    /// When the record did not reach the file (for a changing action: the disk). The request must
    /// then be refused; the id counts as not seen.
    pub fn start(&mut self, started: Started) -> Result<(), JournalError> {
        if self.entries.len() >= ENTRIES_MAX {
            self.forget(started.at_ms);
            if self.entries.len() >= ENTRIES_MAX {
                return Err(JournalError::Full { path: self.path.clone(), most: ENTRIES_MAX });
            }
        }
        let durable = !started.read_only;
        self.append(&Record::Started(started.clone()), durable)?;
        self.entries.insert(started.id, Entry { keep_until: started.keep_until_ms, running: Some(Box::new(started)) });
        Ok(())
    }

    /// Records a request that is refused, as one that has ended, so that a repeat of it does not run.
    /// An id that is known already stays as it is. Not synced, as for an action that only reads.
    ///
    /// # Errors
    /// When the record cannot be written, or so many ids are remembered that the room left is for
    /// requests that run. The id then counts as not seen.
    pub fn refuse(&mut self, id: RequestId, keep_until: Timestamp, now: Timestamp) -> Result<(), JournalError> {
        if self.seen(&id, keep_until).is_some() {
            return Ok(());
        }
        if self.entries.len() >= REFUSED_ENTRIES_MAX {
            self.forget(now);
            if self.entries.len() >= REFUSED_ENTRIES_MAX {
                return Err(JournalError::Full { path: self.path.clone(), most: REFUSED_ENTRIES_MAX });
            }
        }
        self.append(&Record::Finished { id, keep_until_ms: keep_until }, false)?;
        self.entries.insert(id, Entry { keep_until, running: None });
        Ok(())
    }

    /// Records that reports below `reserved` may have been sent. Not synced: it matters after a
    /// crash of the agent, not of the host.
    ///
    /// # Errors
    /// When the record cannot be written; the report may be sent all the same.
    pub fn reserve_sequence(&mut self, id: RequestId, reserved: u32) -> Result<(), JournalError> {
        if let Some(running) = self.entries.get_mut(&id).and_then(|entry| entry.running.as_mut()) {
            running.sequence_reserved = running.sequence_reserved.max(reserved);
            self.append(&Record::Sequence { id, reserved }, false)?;
        }
        Ok(())
    }

    /// Records that a request has ended. The id stays known until its window is over.
    ///
    /// # Errors
    /// When the record cannot be written. In memory the request counts as finished all the same.
    pub fn finish(&mut self, id: RequestId) -> Result<(), JournalError> {
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(()) };
        let Some(started) = entry.running.take() else { return Ok(()) };
        let keep_until_ms = entry.keep_until;
        self.append(&Record::Finished { id, keep_until_ms }, !started.read_only)
    }

    /// Whether enough was written that [`compact`](Self::compact) may be worth its sync.
    #[must_use]
    pub fn is_compaction_due(&self) -> bool {
        self.records_since_look >= RECORDS_BETWEEN_LOOKS
    }

    /// Drops ids whose window is over and writes what is left into a new file.
    ///
    /// # Errors
    /// When the new file cannot be written; the old one stays in use if that is possible.
    pub fn compact(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.forget(now);
        self.rewrite()
    }

    /// Drops ids whose window is over. A request that still runs stays, however old it is.
    pub fn forget(&mut self, now: Timestamp) {
        let mut forgotten_until = self.forgotten_until;
        self.entries.retain(|_, entry| {
            let keep = entry.running.is_some() || entry.keep_until > now;
            if !keep {
                forgotten_until = forgotten_until.max(entry.keep_until);
            }
            keep
        });
        self.forgotten_until = forgotten_until;
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::Io { action, path, source }
    }

    fn append(&mut self, record: &Record, durable: bool) -> Result<(), JournalError> {
        if self.suspect {
            self.rewrite()?;
        }
        let line = record.to_line();
        if let Err(error) = self.file.write_all(&line) {
            // Half a line may be there. Cut it off; if even that fails, start a new file next time.
            self.suspect = self.file.set_len(self.length).is_err();
            return Err(self.failed("write")(error));
        }
        if durable && let Err(error) = self.file.sync_data() {
            // After a failed sync nobody knows what the disk holds.
            self.suspect = true;
            return Err(self.failed("sync")(error));
        }
        self.length += line.len() as u64;
        self.records_since_look += 1;
        Ok(())
    }

    /// Writes what is still needed into a new file and puts it in the old one's place.
    fn rewrite(&mut self) -> Result<(), JournalError> {
        // Also after a failure: trying again for each record would cost a sync each time.
        self.records_since_look = 0;
        let mut bytes = Record::Format { version: FORMAT_VERSION }.to_line();
        if self.forgotten_until > Timestamp(i64::MIN) {
            bytes.extend(Record::Forgotten { until_ms: self.forgotten_until }.to_line());
        }
        for (id, entry) in &self.entries {
            let record = match &entry.running {
                Some(started) => Record::Started((**started).clone()),
                None => Record::Finished { id: *id, keep_until_ms: entry.keep_until },
            };
            bytes.extend(record.to_line());
        }
        write_atomic(&self.path, 0o600, &bytes).map_err(io_error).map_err(self.failed("rewrite"))?;
        // From here on the old file is no longer the journal.
        self.suspect = true;
        self.file = open_for_append(&self.path).map_err(self.failed("open"))?;
        self.length = bytes.len() as u64;
        self.suspect = false;
        Ok(())
    }
}

fn open_for_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
