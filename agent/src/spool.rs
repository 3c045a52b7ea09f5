//! Final reports that the broker has not confirmed yet.
//!
//! A report is put here before it is published and leaves when the broker has confirmed it, when it
//! is too old to be of use, or when its reader is gone for good. Reports of actions that change
//! something are files, so they survive a restart of the agent; reports of read-only actions are kept
//! in memory only, since asking again is as good.
//!
//! Each file is one report: `REQUEST-ID.json`, the routing facts and the DSSE envelope as signed.
//! What cannot be read on opening is set aside, never deleted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use muster_daemon::Disk;
use muster_daemon::disk::{FileKind, write_atomic};
use muster_protocol::{Envelope, RequestId, Signature, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Most reports kept at once, on disk and in memory together.
pub const REPORTS_MAX: usize = 1_000;

/// Most bytes of report bodies kept at once: some forty of the largest, thousands of ordinary ones.
pub const BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long a report whose reader has no queue is tried again, in milliseconds: as long as the
/// broker keeps an unused reply queue.
pub const UNROUTABLE_KEEP_MS: i64 = 5 * 60 * 1000;

/// Version of the files' format.
pub const FORMAT_VERSION: u32 = 1;

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
}

#[derive(Debug, Serialize, Deserialize)]
struct SpoolFile {
    format: u32,
    request_id: RequestId,
    routing_key: String,
    expires_at_ms: Timestamp,
    envelope: Envelope,
}

#[derive(Debug)]
struct Entry {
    parcel: Parcel,
    on_disk: bool,
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
                Some(parcel) => {
                    spool.bytes += parcel.body.len();
                    let key = Key { request_id: parcel.request_id, copy: 0 };
                    let entry = Entry { parcel, on_disk: true, unroutable_since: None, retry_at: None };
                    spool.entries.insert(key, entry);
                }
                None => {
                    let aside = path.with_extension("damaged");
                    if let Err(error) = disk.rename(&path, &aside) {
                        tracing::warn!(path = %path.display(), %error, "Could not set a damaged spool file aside");
                    }
                    opened.damaged.push(aside);
                }
            }
        }
        opened.reports = spool.entries.len();
        Ok((spool, opened))
    }

    /// Keeps a report. Once this returns `Ok` with [`Keep::OnDisk`] it survives a crash of the host. Where there is
    /// no room for such a report, those in memory give way, the oldest first: they are refusals and answers of
    /// actions that only read, which anybody can cause by the thousand. The ones that had to go are given back.
    ///
    /// # Errors
    /// When there is no room, or the file cannot be written.
    pub fn put(&mut self, parcel: Parcel, keep: Keep) -> Result<(Key, Vec<Parcel>), SpoolError> {
        let on_disk = keep == Keep::OnDisk;
        let evicted = if on_disk { self.make_room(parcel.body.len()) } else { Vec::new() };
        if !self.has_room(parcel.body.len()) {
            return Err(SpoolError::Full { reports: self.entries.len(), bytes: self.bytes });
        }
        if on_disk {
            let path = self.path(&parcel.request_id);
            write(&*self.disk, &path, &parcel).map_err(|source| SpoolError::Io { action: "write", path, source })?;
        }
        self.bytes += parcel.body.len();
        let key =
            Key { request_id: parcel.request_id, copy: if on_disk { 0 } else { self.next_copy(parcel.request_id) } };
        let entry = Entry { on_disk, unroutable_since: None, retry_at: None, parcel };
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= before.parcel.body.len();
        }
        Ok((key, evicted))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < REPORTS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Drops reports in memory until there is room, if that helps at all.
    fn make_room(&mut self, bytes: usize) -> Vec<Parcel> {
        let durable = || self.entries.values().filter(|entry| entry.on_disk);
        let durable_bytes: usize = durable().map(|entry| entry.parcel.body.len()).sum();
        if durable().count() >= REPORTS_MAX || durable_bytes + bytes > BYTES_MAX {
            return Vec::new();
        }
        let mut evicted = Vec::new();
        while !self.has_room(bytes) {
            let oldest = self.entries.iter().find(|(_, entry)| !entry.on_disk).map(|(key, _)| *key);
            let Some(entry) = oldest.and_then(|key| self.entries.remove(&key)) else { break };
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

    /// Removes and returns the reports that are past their expiry.
    pub fn take_expired(&mut self, now: Timestamp) -> Vec<Parcel> {
        let expired = self.entries.iter().filter(|(_, entry)| entry.parcel.expires_at <= now);
        let expired: Vec<(Key, Parcel)> = expired.map(|(key, entry)| (*key, entry.parcel.clone())).collect();
        for (key, _) in &expired {
            self.remove(*key);
        }
        expired.into_iter().map(|(_, parcel)| parcel).collect()
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

/// A file of a spool, for whoever looks at it.
#[derive(Debug)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// The report; `None` if the file is not one.
    pub parcel: Option<Parcel>,
}

/// Reads the files of a spool without touching them, as another process than the agent may do at any time. Reports
/// in the agent's memory are not among them.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<Listed>, SpoolError> {
    let failed = |source| SpoolError::Io { action: "list", path: directory.to_owned(), source };
    let entries = match disk.list(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        if entry.kind != FileKind::File {
            continue;
        }
        let path = directory.join(entry.name);
        let is_report = path.extension().is_some_and(|extension| extension == "json");
        if !is_report && path.extension().is_none_or(|extension| extension != "damaged") {
            continue;
        }
        let parcel = if is_report { read(disk, &path) } else { None };
        // It may have been confirmed and removed just now.
        if parcel.is_some() || disk.exists(&path).map_err(failed)? {
            listed.push(Listed { path, parcel });
        }
    }
    listed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(listed)
}

fn write(disk: &dyn Disk, path: &Path, parcel: &Parcel) -> std::io::Result<()> {
    let file = SpoolFile {
        format: FORMAT_VERSION,
        request_id: parcel.request_id,
        routing_key: parcel.routing_key.clone(),
        expires_at_ms: parcel.expires_at,
        envelope: Envelope::new(&parcel.content_type, &parcel.body, parcel.signatures.clone()),
    };
    Ok(write_atomic(disk, path, 0o600, &serde_json::to_vec(&file)?)?)
}

fn read(disk: &dyn Disk, path: &Path) -> Option<Parcel> {
    let bytes = disk.read(path, FILE_BYTES_MAX).ok()?;
    let file: SpoolFile = serde_json::from_slice(&bytes).ok()?;
    let named_after_it = path.file_stem().is_some_and(|stem| stem == file.request_id.to_string().as_str());
    if file.format != FORMAT_VERSION || !named_after_it {
        return None;
    }
    Some(Parcel {
        request_id: file.request_id,
        routing_key: file.routing_key,
        content_type: file.envelope.payload_type.clone(),
        body: file.envelope.body().ok()?.into(),
        signatures: file.envelope.signatures,
        expires_at: file.expires_at_ms,
    })
}
