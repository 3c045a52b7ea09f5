//! The journal without its thread: records in, groups on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_daemon::disk::{FileKind, Open};
use muster_daemon::{Disk, DiskFile};

use super::codec::{Commit, Writer};
use super::error::JournalError;
use super::reading::{self, Found};
use super::record::Record;
use super::segment::{self, Frames, Header};
use super::state::{Counts, Key, Source, State};

/// Held locked by the broker that runs.
const LOCK: &str = "lock";
/// Mode of every file.
const MODE: u32 = 0o600;
/// Damaged segments that are kept; of more, the newest.
const DAMAGED_KEPT: usize = 4;
/// Bytes that are moved out of an old segment with one group, at least one thing: the rest of the group need not wait long.
const MOVED_BYTES: u64 = 1024 * 1024;
/// Segments' worth of bytes that may be of no use before old segments are emptied.
const SLACK_SEGMENTS: u64 = 4;
/// Segments' worth of bytes that the bound leaves for what is on its way when publishers are told to wait.
const MARGIN_SEGMENTS: u64 = 8;
/// Memory for a group that is kept for the next one.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// Bounds of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all segments together.
    pub bytes_max: u64,
    /// A segment with so many bytes is followed by another one.
    pub segment_bytes: u64,
}

/// Smallest and largest segments that are made for a bound: many small files cost syncs of their directory, large ones wait
/// long until all that is in them is of no use.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;

impl Default for Bounds {
    /// One gibibyte, so that some hundred megabytes can wait for consumers.
    fn default() -> Self {
        Self::of(1024 * 1024 * 1024)
    }
}

impl Bounds {
    /// All segments together may have so many bytes. With less than the smallest segments need, publishers always wait.
    #[must_use]
    pub fn of(bytes_max: u64) -> Self {
        let segment_bytes = (bytes_max / (4 * MARGIN_SEGMENTS)).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        Self { bytes_max, segment_bytes }
    }

    /// Bytes of use from which on publishers wait: twice as much and the margin stay within the bound.
    #[must_use]
    pub fn live_bytes_max(&self) -> u64 {
        self.bytes_max.saturating_sub(MARGIN_SEGMENTS * self.segment_bytes) / 2
    }
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    number: u64,
    file: Arc<dyn DiskFile>,
}

/// What lies on the disk, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    pub(super) segments: usize,
    pub(super) bytes: u64,
    pub(super) live_bytes: u64,
    pub(super) counts: Counts,
}

/// Segments, and what they say.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    bounds: Bounds,
    state: State,
    /// How many bytes of each segment are on the disk and count.
    segments: BTreeMap<u64, u64>,
    active: Option<Active>,
    next: u64,
    /// What the last commit on the disk says is the oldest that is needed.
    oldest: u64,
    /// Files that are to be deleted, and are in no chain.
    useless: BTreeSet<u64>,
    /// Segments that are kept under another name once nothing needs them.
    damaged: BTreeSet<u64>,
    /// Everything in segments up to here is to be written anew.
    rewrite_through: u64,
    /// What is still to be moved out of the oldest segment, and which that is.
    moving: (u64, Vec<Key>),
    buffer: Vec<u8>,
    _lock: Arc<dyn DiskFile>,
}

impl Log {
    /// Locks the directory, made where it is missing, and reads what is in it. What has expired is left out.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        bounds: Bounds,
        now_ms: i64,
    ) -> Result<(Self, Found), JournalError> {
        let lock = lock(&*disk, directory)?;
        let mut state = State::default();
        let mut on_disk = reading::read(&*disk, directory, &mut state)?;
        let orphans = state.leave_out_orphans();
        on_disk.found.orphaned_messages = orphans.messages;
        on_disk.found.orphaned_bindings = orphans.bindings;
        on_disk.found.expired_messages = state.expire(now_ms);
        let log = Self {
            directory: directory.to_owned(),
            bounds,
            state,
            oldest: on_disk.segments.keys().next().copied().unwrap_or(0),
            segments: on_disk.segments,
            active: None,
            next: on_disk.next,
            useless: on_disk.useless,
            damaged: on_disk.damaged,
            rewrite_through: on_disk.rewrite_through,
            moving: (0, Vec::new()),
            buffer: Vec::new(),
            disk,
            _lock: lock,
        };
        Ok((log, on_disk.found))
    }

    /// The durable state as records, for the engine to begin with.
    pub(super) fn records(&self) -> Result<Vec<Record>, JournalError> {
        let unreadable = |why: super::codec::Malformed| JournalError::Unreadable {
            path: self.directory.clone(),
            offset: 0,
            why: why.0,
        };
        self.state.records().map_err(unreadable)
    }

    /// Takes a change; it is written with the next [`commit`](Self::commit).
    pub(super) fn apply(&mut self, record: &Record) {
        self.state.apply(record, Source::Engine);
    }

    pub(super) fn size(&self) -> Size {
        Size {
            segments: self.segments.len(),
            bytes: self.segments.values().sum(),
            live_bytes: self.state.live_bytes(),
            counts: self.state.counts(),
        }
    }

    /// Whether there is something to write or to clean up.
    pub(super) fn has_work(&self) -> bool {
        self.state.has_unwritten() || self.needs_cleaning()
    }

    /// Whether old segments are to be emptied.
    fn needs_cleaning(&self) -> bool {
        let Some(oldest) = self.segments.keys().next().copied() else { return false };
        let bytes: u64 = self.segments.values().sum();
        let is_wasteful = bytes > 2 * self.state.live_bytes() + SLACK_SEGMENTS * self.bounds.segment_bytes;
        let is_active = self.active.as_ref().is_some_and(|active| active.number == oldest);
        (is_wasteful && !is_active) || oldest <= self.rewrite_through
    }

    /// Writes everything that was applied as one group and waits until it is on the disk. Moves something out of the
    /// oldest segment with it, if that is to be emptied, and deletes what no commit on the disk needs. Whether there was
    /// anything to write.
    ///
    /// # Errors
    /// The disk's. Everything is still to be written, and will be, to another segment.
    pub(super) fn commit(&mut self) -> io::Result<bool> {
        let is_cleaning = self.needs_cleaning();
        if is_cleaning {
            self.move_some();
        }
        let writes = is_cleaning || self.state.has_unwritten();
        if writes {
            self.write_group()?;
        }
        self.delete_useless();
        Ok(writes)
    }

    /// Ends with a commit behind everything, so that the next start knows all of it to have been on the disk.
    pub(super) fn close(&mut self) -> io::Result<bool> {
        let writes = self.state.has_unwritten();
        if writes {
            self.write_group()?;
        }
        if self.active.is_some() {
            self.write_group()?;
        }
        Ok(writes)
    }

    /// Has some of what lies in the oldest segment written again.
    fn move_some(&mut self) {
        let Some(oldest) = self.segments.keys().next().copied() else { return };
        if self.active.as_ref().is_some_and(|active| active.number == oldest) {
            // Damage was found in a segment; what follows goes to another one.
            self.active = None;
        }
        if self.moving.0 != oldest {
            self.moving = (oldest, self.state.in_segment(oldest));
        }
        let mut moved = 0;
        while moved < MOVED_BYTES
            && let Some(key) = self.moving.1.pop()
        {
            moved += self.state.rewrite(key, oldest);
        }
    }

    fn write_group(&mut self) -> io::Result<()> {
        let active = self.active.as_ref().map(|active| (active.number, self.length(active.number)));
        let written = match active.filter(|(_, length)| *length < self.bounds.segment_bytes) {
            Some((number, length)) => self.append_group(number, length),
            None => self.begin_segment(),
        };
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        written.inspect_err(|_| {
            // What the file holds behind what was synced is not known, and never counts: the next segment says so.
            self.active = None;
        })
    }

    fn length(&self, number: u64) -> u64 {
        self.segments.get(&number).copied().unwrap_or(0)
    }

    /// Writes a group to the end of the active segment.
    fn append_group(&mut self, number: u64, length: u64) -> io::Result<()> {
        let Some(active) = &self.active else { return Err(io::Error::other("no segment is open")) };
        self.buffer.clear();
        let (written, oldest) = encode_group(&self.state, number, length, length, &mut self.buffer);
        active.file.append(&self.buffer)?;
        active.file.sync_data()?;
        self.segments.insert(number, length + self.buffer.len() as u64);
        self.state.written(written, number);
        self.oldest = oldest;
        Ok(())
    }

    /// Writes a group as the beginning of the next segment.
    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next;
        let (previous, previous_length) =
            self.segments.last_key_value().map_or((0, 0), |(number, length)| (*number, *length));
        self.buffer.clear();
        Header { number, previous, previous_length }.write(&mut self.buffer);
        let (written, oldest) = encode_group(&self.state, number, 0, 0, &mut self.buffer);
        let path = self.directory.join(segment::file_name(number));
        // A number is used once, whatever becomes of it.
        self.next += 1;
        let file = self.make(&path).inspect_err(|_| {
            if self.disk.remove_file(&path).is_err() {
                self.useless.insert(number);
            }
        })?;
        self.segments.insert(number, self.buffer.len() as u64);
        self.active = Some(Active { number, file });
        self.state.written(written, number);
        self.oldest = oldest;
        Ok(())
    }

    fn make(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, Open::New { mode: MODE })?;
        file.append(&self.buffer)?;
        file.sync_all()?;
        self.disk.sync_directory(&self.directory)?;
        Ok(file)
    }

    /// Deletes segments that the last commit does not need. What cannot be deleted now can be later, and does no harm.
    fn delete_useless(&mut self) {
        while let Some((&number, _)) = self.segments.first_key_value().filter(|(number, _)| **number < self.oldest) {
            self.segments.remove(&number);
            if self.damaged.remove(&number) {
                self.keep_damaged(number);
            } else {
                self.useless.insert(number);
            }
        }
        let (disk, directory) = (&self.disk, &self.directory);
        self.useless.retain(|number| match disk.remove_file(&directory.join(segment::file_name(*number))) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(segment = number, %error, "A segment of the journal that is of no use cannot be deleted");
                true
            }
        });
    }

    fn keep_damaged(&mut self, number: u64) {
        let from = self.directory.join(segment::file_name(number));
        let to = self.directory.join(segment::damaged_name(number));
        if let Err(error) = self.disk.rename(&from, &to) {
            tracing::warn!(segment = number, %error, "A damaged segment of the journal cannot be kept");
            self.useless.insert(number);
        }
        let kept = match self.disk.list(&self.directory) {
            Ok(entries) => entries,
            Err(_) => return,
        };
        let kept: Vec<u64> = kept.iter().filter_map(|entry| segment::damaged_number_of(&entry.name)).collect();
        for number in kept.iter().rev().skip(DAMAGED_KEPT) {
            // Another start tries it again.
            drop(self.disk.remove_file(&self.directory.join(segment::damaged_name(*number))));
        }
    }
}

/// A group at `base` of a segment, behind what is in `buffer`. Gives what was written, and which segment its commit calls
/// the oldest that is needed.
fn encode_group(state: &State, number: u64, base: u64, synced: u64, buffer: &mut Vec<u8>) -> (Vec<(Key, u64)>, u64) {
    let mut frames = Frames::new(number, base, buffer);
    let written = state.write(&mut frames);
    // What is moved with this very group counts as where it was: one group later its segment can go.
    let oldest = state.oldest_live().unwrap_or(number).min(number);
    frames.push(|bytes| Writer(bytes).commit(Commit { synced, oldest }));
    (written, oldest)
}

/// Makes the directory where it is missing, and takes its lock.
fn lock(disk: &dyn Disk, directory: &Path) -> Result<Arc<dyn DiskFile>, JournalError> {
    disk.make_private_directory_durably(directory).map_err(JournalError::io("make journal directory", directory))?;
    let found = disk.metadata(directory).map_err(JournalError::io("look at journal directory", directory))?;
    if found.kind != FileKind::Directory {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(JournalError::io("use journal directory", directory)(error));
    }
    if found.mode & 0o077 != 0 {
        return Err(JournalError::Exposed { path: directory.to_owned(), mode: found.mode });
    }
    let path = directory.join(LOCK);
    let lock = disk.open(&path, Open::Append { mode: MODE }).map_err(JournalError::io("open", &path))?;
    match lock.try_lock() {
        Ok(true) => Ok(lock),
        Ok(false) => Err(JournalError::InUse { path: directory.to_owned() }),
        Err(error) => Err(JournalError::io("lock", &path)(error)),
    }
}
