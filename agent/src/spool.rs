//! Final reports that the broker has not confirmed yet.
//!
//! A report is put here before it is published and leaves when the broker has confirmed it, when it
//! is too old to be of use, or when its reader is gone for good. Reports of actions that change
//! something are files, so they survive a restart of the agent; reports of read-only actions are kept
//! in memory only, since asking again is as good.
//!
//! # Files
//!
//! Each file is one report: `REQUEST-ID.json`, a line `CHECKSUM LENGTH JSON` as in the [journal](crate::journal) with
//! the routing facts and the DSSE envelope as signed. The envelope's signature would show damage too, but only to
//! the reader, who cannot ask for the report again. Files of the first agents have no checksum and are still read.
//! What is damaged is renamed to `*.damaged` on opening and kept, [`DAMAGED_MAX`] of them; what cannot be read at that
//! moment stays for the next start.
//!
//! # Bounds
//!
//! [`REPORTS_MAX`] reports with [`BYTES_MAX`] bytes of bodies together, on disk and in memory. Nothing goes without a
//! record: what has expired, what gives way to others and what is given up is removed only after the audit log says
//! so ([`Spool::put`] asks a witness; [`Spool::expired`] leaves removing to the caller).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use muster_daemon::Disk;
use muster_daemon::disk::write_atomic;
use muster_protocol::{Envelope, RequestId, Signature, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::digest::{checked_line, unchecked};

mod look;

pub use look::{Listed, SpoolState, Waiting, Why, list, read_state};

/// Most reports kept at once, on disk and in memory together.
pub const REPORTS_MAX: usize = 1_000;

/// Most bytes of report bodies kept at once: some forty of the largest, thousands of ordinary ones.
pub const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most damaged files that are kept as evidence, and most bytes of them together.
pub const DAMAGED_MAX: usize = 100;

/// See [`DAMAGED_MAX`].
pub const DAMAGED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How long a report whose reader has no queue is tried again, in milliseconds: as long as the
/// broker keeps an unused reply queue.
pub const UNROUTABLE_KEEP_MS: i64 = 5 * 60 * 1000;

/// Version of the files' format.
pub const FORMAT_VERSION: u32 = 2;

/// Longest file that is read: a report of the largest size, in base64 and with its signatures.
const FILE_BYTES_MAX: u64 = 2 * BYTES_MAX as u64;

/// Why a report could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file operation failed.
    #[error("{action} spool file `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// No room.
    #[error("the spool holds {reports} unconfirmed reports with {bytes} bytes and takes no more")]
    Full {
        /// How many it holds.
        reports: usize,
        /// Their size.
        bytes: usize,
    },
}

impl SpoolError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Full { .. } => true,
        }
    }
}

/// A signed report on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The request it answers.
    pub request_id: RequestId,
    /// Where it goes.
    pub routing_key: String,
    /// Its content type, which is signed with it.
    pub content_type: String,
    /// The exact bytes that were signed.
    pub body: Bytes,
    /// Who signed.
    pub signatures: Vec<Signature>,
    /// From when on nobody wants it any more.
    pub expires_at: Timestamp,
}

/// Which report: a request has one outcome, and may have refusals of further copies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    request_id: RequestId,
    /// 0 is the one on disk.
    copy: u32,
}

impl Key {
    /// The request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// Whether it is the outcome that lies on disk.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.copy == 0
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct SpoolFile {
    format: u32,
    request_id: RequestId,
    routing_key: String,
    /// Since when it waits; files of the first agents do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept_since_ms: Option<Timestamp>,
    expires_at_ms: Timestamp,
    envelope: Envelope,
}

#[derive(Debug)]
struct Entry {
    parcel: Parcel,
    on_disk: bool,
    kept_since: Option<Timestamp>,
    /// How often it was tried to send it, and why that failed the last time.
    tries: u32,
    why: Option<Why>,
    unroutable_since: Option<Timestamp>,
    /// Not tried again before this.
    retry_at: Option<Instant>,
}

/// Where a report lives until it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// On disk: it survives a restart.
    OnDisk,
    /// In memory.
    InMemory,
}

/// What the spool found when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Reports from before.
    pub reports: usize,
    /// Files that are not reports; they were renamed to `*.damaged`.
    pub damaged: Vec<PathBuf>,
    /// Damaged files beyond what is kept, the oldest request first: whoever opens removes them once it is written down.
    pub surplus: Vec<PathBuf>,
    /// Files that could not be read; they are tried again at the next start.
    pub unreadable: Vec<PathBuf>,
}

/// The unconfirmed final reports of one host.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    entries: BTreeMap<Key, Entry>,
    bytes: usize,
}

impl Spool {
    /// Opens the spool in `directory`, making it where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path) -> Result<(Self, Opened), SpoolError> {
        let failed = |action| {
            let path = directory.to_owned();
            move |source| SpoolError::Io { action, path, source }
        };
        disk.make_private_directory_durably(directory).map_err(failed("make"))?;
        disk.remove_temporary_files(directory).map_err(failed("clear up"))?;
        let mut spool =
            Self { disk: disk.clone(), directory: directory.to_owned(), entries: BTreeMap::new(), bytes: 0 };
        let mut opened = Opened::default();
        let names = disk.list(directory).map_err(failed("list"))?;
        let paths = names.into_iter().map(|entry| directory.join(entry.name));
        let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        for path in paths {
            match read(&**disk, &path) {
                Ok(Read::Report(kept)) => {
                    let Kept { parcel, since } = *kept;
                    let key = Key { request_id: parcel.request_id, copy: 0 };
                    spool.insert(key, Entry::new(parcel, true, since));
                }
                Ok(Read::Damaged) => {
                    let aside = path.with_extension("damaged");
                    if let Err(error) = disk.rename(&path, &aside) {
                        tracing::warn!(path = %path.display(), %error, "Could not set a damaged spool file aside");
                    }
                    opened.damaged.push(aside);
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "Could not read a spool file; it stays for the next start");
                    opened.unreadable.push(path);
                }
            }
        }
        opened.reports = spool.entries.len();
        opened.surplus = surplus_damaged(&**disk, directory).map_err(failed("list"))?;
        Ok((spool, opened))
    }

    /// Removes a damaged file for good.
    pub fn remove_damaged(&self, path: &Path) {
        if let Err(error) = self.disk.remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "Could not remove a damaged spool file");
        }
    }

    /// Keeps a report. Once this returns `Ok` with [`Keep::OnDisk`] it survives a crash of the host. Where there is
    /// no room for such a report, those in memory give way, the oldest first: they are refusals and answers of
    /// actions that only read, which anybody can cause by the thousand. The ones that had to go are given back.
    /// Before each goes `witness` records it; where that fails, it stays and there is no room.
    ///
    /// # Errors
    /// When there is no room, or the file cannot be written.
    pub fn put(
        &mut self,
        parcel: Parcel,
        keep: Keep,
        now: Timestamp,
        witness: &mut dyn FnMut(&Parcel) -> bool,
    ) -> Result<(Key, Vec<Parcel>), SpoolError> {
        let on_disk = keep == Keep::OnDisk;
        let evicted = if on_disk { self.make_room(parcel.body.len(), witness) } else { Vec::new() };
        if !self.has_room(parcel.body.len()) {
            return Err(SpoolError::Full { reports: self.entries.len(), bytes: self.bytes });
        }
        if on_disk {
            let path = self.path(&parcel.request_id);
            if let Err(source) = write(&*self.disk, &path, &parcel, now) {
                // It may have its name already, and only forcing that to the disk failed. Left behind it would be
                // sent once more after a restart, and recognised as a repeat.
                drop(self.disk.remove_file(&path));
                return Err(SpoolError::Io { action: "write", path, source });
            }
        }
        let key =
            Key { request_id: parcel.request_id, copy: if on_disk { 0 } else { self.next_copy(parcel.request_id) } };
        self.insert(key, Entry::new(parcel, on_disk, Some(now)));
        Ok((key, evicted))
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.parcel.body.len();
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= before.parcel.body.len();
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < REPORTS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Drops reports in memory until there is room, if that helps at all.
    fn make_room(&mut self, bytes: usize, witness: &mut dyn FnMut(&Parcel) -> bool) -> Vec<Parcel> {
        let durable = || self.entries.values().filter(|entry| entry.on_disk);
        let durable_bytes: usize = durable().map(|entry| entry.parcel.body.len()).sum();
        if durable().count() >= REPORTS_MAX || durable_bytes + bytes > BYTES_MAX {
            return Vec::new();
        }
        let mut evicted = Vec::new();
        while !self.has_room(bytes) {
            let oldest = self.entries.iter().find(|(_, entry)| !entry.on_disk);
            let Some((key, entry)) = oldest else { break };
            if !witness(&entry.parcel) {
                break;
            }
            let key = *key;
            let Some(entry) = self.entries.remove(&key) else { break };
            self.bytes -= entry.parcel.body.len();
            evicted.push(entry.parcel);
        }
        evicted
    }

    fn next_copy(&self, request_id: RequestId) -> u32 {
        let all = Key { request_id, copy: 1 }..=Key { request_id, copy: u32::MAX };
        self.entries.range(all).next_back().map_or(1, |(key, _)| key.copy.saturating_add(1))
    }

    /// Whether the outcome of a request waits on disk.
    #[must_use]
    pub fn holds_outcome(&self, request_id: RequestId) -> bool {
        self.entries.contains_key(&Key { request_id, copy: 0 })
    }

    /// Drops a report: it was confirmed, or nobody wants it any more.
    pub fn remove(&mut self, key: Key) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.bytes -= entry.parcel.body.len();
        if entry.on_disk {
            let path = self.path(&key.request_id);
            // Left behind it would be sent once more after a restart, and recognised as a repeat.
            if let Err(error) = self.disk.remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "Could not delete a confirmed report from the spool");
            }
        }
    }

    /// The reports that are past their expiry, which stay until they are [removed](Self::remove).
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> Vec<(Key, Parcel)> {
        let expired = self.entries.iter().filter(|(_, entry)| entry.parcel.expires_at <= now);
        expired.map(|(key, entry)| (*key, entry.parcel.clone())).collect()
    }

    /// Notes why a report was not sent.
    pub fn note_try(&mut self, key: Key, why: Why) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.tries = entry.tries.saturating_add(1);
            entry.why = Some(why);
        }
    }

    /// What waits and why, for whoever looks at the host.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> SpoolState {
        let waiting = self.entries.iter().map(|(key, entry)| Waiting {
            request_id: key.request_id,
            on_disk: entry.on_disk,
            kept_since_ms: entry.kept_since,
            tries: entry.tries,
            why: entry.why.unwrap_or(Why::NotTried),
            unroutable_since_ms: entry.unroutable_since,
        });
        SpoolState {
            at_ms: now,
            reports: self.entries.len(),
            bytes: self.bytes,
            in_memory: self.entries.values().filter(|entry| !entry.on_disk).count(),
            waiting: waiting.filter(|waiting| waiting.on_disk).collect(),
        }
    }

    /// Notes that a report's reader has no queue. Gives for how many milliseconds it has been so, or `None` once
    /// that is [`UNROUTABLE_KEEP_MS`] and the report may be given up.
    pub fn note_unroutable(&mut self, key: Key, now: Timestamp) -> Option<i64> {
        let entry = self.entries.get_mut(&key)?;
        let for_ms = now.since_ms(*entry.unroutable_since.get_or_insert(now));
        (for_ms < UNROUTABLE_KEEP_MS).then_some(for_ms)
    }

    /// The reports that wait and may be tried now, oldest request first.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> Vec<Key> {
        let is_due = |entry: &Entry| entry.retry_at.is_none_or(|at| at <= now);
        self.entries.iter().filter(|(_, entry)| is_due(entry)).map(|(key, _)| *key).collect()
    }

    /// Does not try a report again before `at`.
    pub fn put_off(&mut self, key: Key, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.retry_at = Some(at);
        }
    }

    /// Tries everything again at once, since there is a new connection.
    pub fn retry_all(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.retry_at = None);
    }

    /// When the next report that was put off may be tried; `None` if none was.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.retry_at).min()
    }

    /// The report, if it still waits.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Parcel> {
        self.entries.get(&key).map(|entry| &entry.parcel)
    }

    /// How many reports wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of their bodies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them are on disk.
    #[must_use]
    pub fn on_disk(&self) -> usize {
        self.entries.values().filter(|entry| entry.on_disk).count()
    }

    /// Whether no report waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn path(&self, id: &RequestId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

impl Entry {
    fn new(parcel: Parcel, on_disk: bool, kept_since: Option<Timestamp>) -> Self {
        Self { parcel, on_disk, kept_since, tries: 0, why: None, unroutable_since: None, retry_at: None }
    }
}

fn write(disk: &dyn Disk, path: &Path, parcel: &Parcel, now: Timestamp) -> io::Result<()> {
    let file = SpoolFile {
        format: FORMAT_VERSION,
        request_id: parcel.request_id,
        routing_key: parcel.routing_key.clone(),
        kept_since_ms: Some(now),
        expires_at_ms: parcel.expires_at,
        envelope: Envelope::new(&parcel.content_type, &parcel.body, parcel.signatures.clone()),
    };
    Ok(write_atomic(disk, path, 0o600, &checked_line(&serde_json::to_vec(&file)?))?)
}

/// A report as a file holds it.
#[derive(Debug)]
struct Kept {
    parcel: Parcel,
    since: Option<Timestamp>,
}

#[derive(Debug)]
enum Read {
    Report(Box<Kept>),
    Damaged,
}

/// The damaged files that are one too many. Names begin with the time of the request.
fn surplus_damaged(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<PathBuf>> {
    let names = disk.list(directory)?.into_iter().map(|entry| directory.join(entry.name));
    let mut damaged: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|extension| extension == "damaged")).collect();
    damaged.sort();
    let (mut count, mut bytes) = (0, 0_u64);
    let mut surplus = Vec::new();
    for path in damaged.into_iter().rev() {
        count += 1;
        bytes = bytes.saturating_add(disk.metadata(&path)?.length);
        if count > DAMAGED_MAX || bytes > DAMAGED_BYTES_MAX {
            surplus.push(path);
        }
    }
    surplus.reverse();
    Ok(surplus)
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Read> {
    let bytes = match disk.read(path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(Read::Damaged),
        bytes => bytes?,
    };
    Ok(parse(path, &bytes).map_or(Read::Damaged, |kept| Read::Report(Box::new(kept))))
}

fn parse(path: &Path, bytes: &[u8]) -> Option<Kept> {
    // Files of the first agents have no checksum.
    let (json, format) = match bytes.first()? {
        b'{' => (bytes, 1),
        _ => (unchecked(bytes.strip_suffix(b"\n")?)?, FORMAT_VERSION),
    };
    let file: SpoolFile = serde_json::from_slice(json).ok()?;
    let named_after_it = path.file_stem().is_some_and(|stem| stem == file.request_id.to_string().as_str());
    if file.format != format || !named_after_it {
        return None;
    }
    let parcel = Parcel {
        request_id: file.request_id,
        routing_key: file.routing_key,
        content_type: file.envelope.payload_type.clone(),
        body: file.envelope.body().ok()?.into(),
        signatures: file.envelope.signatures,
        expires_at: file.expires_at_ms,
    };
    Some(Kept { parcel, since: file.kept_since_ms })
}
