//! Doors for the fuzzer: a journal of one segment whose bytes it makes up.

use std::path::Path;

use muster_daemon::disk::SimulatedDisk;

use super::codec::{Commit, Writer};
use super::error::JournalError;
use super::log::{Bounds, Log};
use super::reading::Found;
use super::record::Record;
use super::segment::{self, Frames, Header};

const DIRECTORY: &str = "/journal";

/// Bytes of a segment in which these entries are frames with right checksums, and each `None` is the end of a group.
#[must_use]
pub fn segment(number: u64, previous: u64, entries: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { number, previous, previous_length: segment::HEADER_BYTES as u64 }.write(&mut bytes);
    let mut synced = bytes.len() as u64;
    let mut frames = Frames::new(number, 0, &mut bytes);
    let mut length = synced;
    for entry in entries {
        length += match entry {
            Some(entry) => frames.push(|bytes| bytes.extend_from_slice(entry)),
            None => frames.push(|bytes| Writer(bytes).commit(Commit { synced, oldest: number })),
        };
        if entry.is_none() {
            synced = length;
        }
    }
    bytes
}

/// A disk with a journal.
#[derive(Debug)]
pub struct Kept(SimulatedDisk);

/// What a start found.
#[derive(Debug)]
pub struct Started {
    /// The durable state.
    pub records: Vec<Record>,
    /// What it says about the bytes.
    pub found: Found,
}

impl Kept {
    /// A journal of these segments, the first with number 1.
    #[must_use]
    pub fn new(segments: &[&[u8]]) -> Self {
        let disk = SimulatedDisk::new(0);
        // In memory there is room.
        drop(disk.mount().make_private_directory(Path::new(DIRECTORY)));
        for (number, bytes) in (1..).zip(segments) {
            drop(disk.put(&Path::new(DIRECTORY).join(segment::file_name(number)), bytes));
        }
        Self(disk)
    }

    /// Reads it. If told so, also writes whatever is to be written anew, and ends as a broker does.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn start(&self, writes: bool) -> Result<Started, JournalError> {
        let (mut log, found) = Log::open(self.0.mount(), Path::new(DIRECTORY), Bounds::default(), 0)?;
        let records = log.records()?;
        if writes {
            let failed = JournalError::io("write", Path::new(DIRECTORY));
            let mut written = Ok(true);
            while log.has_work() && written.is_ok() {
                written = log.commit();
            }
            written.and_then(|_| log.close()).map_err(failed)?;
        }
        Ok(Started { records, found })
    }
}
