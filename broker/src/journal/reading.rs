//! Reading what is on the disk: which segments count, how much of each, and what is damaged.
//!
//! # What a crash leaves
//!
//! The newest segment may end in a group whose commit is missing or torn; a segment may have been begun and have no whole
//! group; segments that were deleted may be there again. None of that was confirmed, and none of it is damage.
//!
//! # What is damage
//!
//! A hole where the disk had said that the bytes are on it: before what a later commit, or the next segment's header,
//! calls synced; or a segment that is still needed and missing. What is whole on both sides of a hole counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use muster_daemon::Disk;
use muster_daemon::disk::{FileKind, Open};

use super::codec::{self, Commit, Entry};
use super::error::JournalError;
use super::segment::{self, Beginning, FORMAT, FRAME_BYTES, HEADER_BYTES, Scan};
use super::state::{Place, Source, State};

/// Longest segment that is read. One is longer than the bound of segments by one group at most.
const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;

/// What a start found.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Found {
    /// Segments that were read.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that counted.
    pub records: u64,
    /// Bytes at the end that were written and not confirmed when the last broker ended.
    pub torn_bytes: u64,
    /// Segments that are damaged. They are kept under the name `damaged-NUMBER`.
    pub damaged_segments: u64,
    /// Bytes in them that are lost.
    pub damaged_bytes: u64,
    /// Segments that somebody removed.
    pub missing_segments: u64,
    /// Messages whose queue was lost with such bytes.
    pub orphaned_messages: u64,
    /// Bindings of such queues.
    pub orphaned_bindings: u64,
    /// Messages that expired while no broker ran.
    pub expired_messages: u64,
}

impl Found {
    /// Whether something that had been promised may be lost.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged_segments + self.missing_segments > 0
    }
}

/// What is on the disk, and what is to be done with it.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    pub(super) found: Found,
    /// Segments that count, with how many of their bytes do.
    pub(super) segments: BTreeMap<u64, u64>,
    /// Segments that do not.
    pub(super) useless: BTreeSet<u64>,
    /// Segments with damage, the newest of which everything has to be written anew up to.
    pub(super) damaged: BTreeSet<u64>,
    /// Something up to here has to be written anew, since a segment is missing.
    pub(super) rewrite_through: u64,
    /// The number for the next segment.
    pub(super) next: u64,
}

struct Segment {
    bytes: Vec<u8>,
    beginning: Beginning,
    scan: Scan,
    /// Commits, with the place behind each.
    commits: Vec<(usize, Commit)>,
}

impl Segment {
    fn read(disk: &dyn Disk, directory: &Path, number: u64) -> Result<Self, JournalError> {
        let path = directory.join(segment::file_name(number));
        let bytes = disk.read(&path, SEGMENT_BYTES_MAX).map_err(JournalError::io("read", &path))?;
        Self::look(bytes, number).map_err(|found| JournalError::NewerFormat { path, found, known: FORMAT })
    }

    fn look(bytes: Vec<u8>, number: u64) -> Result<Self, u16> {
        let beginning = segment::Header::read(&bytes, number);
        if let Beginning::Newer(found) = beginning {
            return Err(found);
        }
        let scan = segment::scan(&bytes, number);
        let commit = |entry: &Range<usize>| Some((entry.end, codec::decode_commit(&bytes[entry.clone()])?));
        let commits = scan.entries.iter().filter_map(commit).collect();
        Ok(Self { bytes, beginning, scan, commits })
    }

    /// How much of it surely was on the disk, as far as it says so itself.
    fn synced(&self) -> usize {
        let synced = self.commits.iter().map(|(_, commit)| commit.synced).max().unwrap_or(0);
        usize::try_from(synced).unwrap_or(usize::MAX).min(self.bytes.len())
    }

    /// How much of it counts, if no later segment says it: up to the last commit before the first hole that is no damage.
    fn end(&self) -> usize {
        let synced = self.synced();
        let first_hole = self.scan.holes.iter().find(|hole| hole.end > synced).map_or(usize::MAX, |hole| hole.start);
        let end = self.commits.iter().map(|(end, _)| *end).take_while(|end| *end <= first_hole).last().unwrap_or(0);
        end.max(synced)
    }
}

/// Reads everything into `state`.
pub(super) fn read(disk: &dyn Disk, directory: &Path, state: &mut State) -> Result<OnDisk, JournalError> {
    let numbers = numbers(disk, directory)?;
    let mut on_disk = OnDisk { next: numbers.last().map_or(1, |last| last + 1), ..OnDisk::default() };
    // From the newest back: each says which one is before it.
    let mut oldest = None;
    let mut wanted: Option<(u64, u64)> = None;
    let mut below = u64::MAX;
    loop {
        let number = match wanted {
            Some((number, _)) if numbers.contains(&number) => number,
            Some((number, _)) if oldest.is_some_and(|oldest| number < oldest) || number == 0 => break,
            Some((number, _)) => {
                on_disk.found.missing_segments += 1;
                on_disk.rewrite_through = on_disk.rewrite_through.max(number);
                wanted = None;
                below = number;
                continue;
            }
            None => match numbers.range(..below).next_back() {
                Some(number) => *number,
                None => break,
            },
        };
        if oldest.is_some_and(|oldest| number < oldest) {
            break;
        }
        below = number;
        let (length, beginning) = match wanted {
            Some((_, length)) => (length, read_beginning(disk, directory, number)?),
            None => {
                let segment = Segment::read(disk, directory, number)?;
                let end = segment.end();
                if oldest.is_none() {
                    on_disk.found.torn_bytes += segment.bytes.len().saturating_sub(end) as u64;
                    // Begun, and nothing in it was ever whole.
                    let Some((_, commit)) = segment.commits.iter().rfind(|(place, _)| *place <= end) else { continue };
                    oldest = Some(commit.oldest);
                }
                (end as u64, segment.beginning)
            }
        };
        on_disk.segments.insert(number, length);
        wanted = match beginning {
            Beginning::Header(header) => Some((header.previous, header.previous_length)),
            Beginning::Newer(_) | Beginning::Unreadable => None,
        };
    }
    on_disk.useless = numbers.iter().filter(|number| !on_disk.segments.contains_key(number)).copied().collect();
    for (number, length) in on_disk.segments.clone() {
        take(disk, directory, number, length, state, &mut on_disk)?;
    }
    on_disk.found.segments = on_disk.segments.len() as u64;
    on_disk.found.bytes = on_disk.segments.values().sum();
    Ok(on_disk)
}

fn numbers(disk: &dyn Disk, directory: &Path) -> Result<BTreeSet<u64>, JournalError> {
    let entries = disk.list(directory).map_err(JournalError::io("list", directory))?;
    let files = entries.iter().filter(|entry| entry.kind == FileKind::File);
    Ok(files.filter_map(|entry| segment::number_of(&entry.name)).filter(|number| *number > 0).collect())
}

fn read_beginning(disk: &dyn Disk, directory: &Path, number: u64) -> Result<Beginning, JournalError> {
    let path = directory.join(segment::file_name(number));
    let file = disk.open(&path, Open::Read).map_err(JournalError::io("open", &path))?;
    let bytes = file.read_range(0, HEADER_BYTES as u64).map_err(JournalError::io("read", &path))?;
    match segment::Header::read(&bytes, number) {
        Beginning::Newer(found) => Err(JournalError::NewerFormat { path, found, known: FORMAT }),
        beginning => Ok(beginning),
    }
}

/// Takes the records of one segment.
fn take(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
    length: u64,
    state: &mut State,
    on_disk: &mut OnDisk,
) -> Result<(), JournalError> {
    let segment = Segment::read(disk, directory, number)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut damaged: usize =
        segment.scan.holes.iter().map(|hole| hole.end.min(length).saturating_sub(hole.start)).sum();
    damaged += length.saturating_sub(segment.bytes.len());
    if !matches!(segment.beginning, Beginning::Header(_)) {
        damaged += HEADER_BYTES;
    }
    if damaged > 0 {
        on_disk.found.damaged_segments += 1;
        on_disk.found.damaged_bytes += damaged as u64;
        on_disk.damaged.insert(number);
        on_disk.rewrite_through = on_disk.rewrite_through.max(number);
    }
    for entry in segment.scan.entries.iter().take_while(|entry| entry.end <= length) {
        let offset = entry.start - FRAME_BYTES;
        let decoded = codec::decode(&segment.bytes[entry.clone()]).map_err(|malformed| JournalError::Unreadable {
            path: directory.join(segment::file_name(number)),
            offset: offset as u64,
            why: malformed.0,
        })?;
        let Entry::Record(record) = decoded else { continue };
        on_disk.found.records += 1;
        let bytes = (FRAME_BYTES + entry.len()) as u64;
        state.apply(&record, Source::Disk(Place { segment: number, bytes }));
    }
    Ok(())
}
