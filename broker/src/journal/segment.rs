//! A segment: a file of frames, and how it is told from what a crash or a bad disk leaves.
//!
//! ```text
//! header   magic 8 │ format 2 │ 0 2 │ number 8 │ previous 8 │ previous_length 8 │ checksum 4     (little-endian)
//! frame    checksum of the next two 4 │ length 4 │ checksum of the entry 4 │ entry
//! ```
//!
//! Checksums are CRC-32 and begin with the segment's number and the frame's place, so that a frame is whole only where it
//! was written. A header names the segment before and how much of that counts: what stands behind was never confirmed.

use std::ffi::OsStr;
use std::ops::Range;

/// The newest format that is read, and the one that is written.
pub(super) const FORMAT: u16 = 1;
/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 40;
/// Bytes of a frame before its entry.
pub(super) const FRAME_BYTES: usize = 12;

const MAGIC: [u8; 8] = *b"\x89mustr\r\n";
const PREFIX: &str = "segment-";
const DAMAGED_PREFIX: &str = "damaged-";

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

/// The name under which a damaged segment is kept.
pub(super) fn damaged_name(number: u64) -> String {
    format!("{DAMAGED_PREFIX}{number:020}")
}

/// The number in the name of a segment's file.
pub(super) fn number_of(name: &OsStr) -> Option<u64> {
    number_behind(name, PREFIX)
}

/// The number in the name of a damaged segment that was kept.
pub(super) fn damaged_number_of(name: &OsStr) -> Option<u64> {
    number_behind(name, DAMAGED_PREFIX)
}

fn number_behind(name: &OsStr, prefix: &str) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix(prefix)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The segment's number.
    pub(super) number: u64,
    /// The segment before, or 0.
    pub(super) previous: u64,
    /// How many of its bytes count.
    pub(super) previous_length: u64,
}

/// What the beginning of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Ours.
    Header(Header),
    /// Ours, of a format that is not known.
    Newer(u16),
    /// Torn or damaged.
    Unreadable,
}

impl Header {
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&MAGIC);
        into.extend_from_slice(&FORMAT.to_le_bytes());
        into.extend_from_slice(&[0; 2]);
        for number in [self.number, self.previous, self.previous_length] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32fast::hash(&into[start..]);
        into.extend_from_slice(&sum.to_le_bytes());
    }

    /// Reads the beginning of the segment with this number.
    pub(super) fn read(bytes: &[u8], number: u64) -> Beginning {
        let Some(header) = bytes.get(..HEADER_BYTES) else { return Beginning::Unreadable };
        let (fields, sum) = header.split_at(HEADER_BYTES - 4);
        if fields[..8] != MAGIC || sum != crc32fast::hash(fields).to_le_bytes() {
            return Beginning::Unreadable;
        }
        let format = u16::from_le_bytes([fields[8], fields[9]]);
        if format != FORMAT {
            return Beginning::Newer(format);
        }
        let field = |index: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&fields[12 + index * 8..20 + index * 8]);
            u64::from_le_bytes(eight)
        };
        let header = Self { number: field(0), previous: field(1), previous_length: field(2) };
        if header.number == number && header.previous < number {
            Beginning::Header(header)
        } else {
            Beginning::Unreadable
        }
    }
}

fn sum(number: u64, offset: u64, bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

/// Frames for a segment, from a place in it on.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    number: u64,
    /// Where in the segment `bytes` begins.
    base: u64,
    bytes: &'a mut Vec<u8>,
}

impl<'a> Frames<'a> {
    /// Frames that will stand at `base` in the segment; `bytes` is what stands there before them and is written with them.
    pub(super) fn new(number: u64, base: u64, bytes: &'a mut Vec<u8>) -> Self {
        Self { number, base, bytes }
    }

    /// Appends a frame; gives its length.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_BYTES]);
        write(self.bytes);
        let offset = self.base + start as u64;
        let (head, entry) = self.bytes[start..].split_at_mut(FRAME_BYTES);
        // An entry is at most a message, and those are bounded far below.
        let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[8..12].copy_from_slice(&sum(self.number, offset + FRAME_BYTES as u64, entry));
        let head_sum = sum(self.number, offset, &head[4..12]);
        head[..4].copy_from_slice(&head_sum);
        (FRAME_BYTES + entry.len()) as u64
    }
}

/// Where the entry of the frame at this place is, if one begins there.
fn entry_at(bytes: &[u8], number: u64, place: usize) -> Option<Range<usize>> {
    let head = bytes.get(place..place + FRAME_BYTES)?;
    if head[..4] != sum(number, place as u64, &head[4..12]) {
        return None;
    }
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let start = place + FRAME_BYTES;
    let end = start.checked_add(length).filter(|end| *end <= bytes.len())?;
    Some(start..end)
}

fn is_whole(bytes: &[u8], number: u64, entry: &Range<usize>) -> bool {
    bytes[entry.start - 4..entry.start] == sum(number, entry.start as u64, &bytes[entry.clone()])
}

/// What a segment's bytes hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the entries of whole frames are.
    pub(super) entries: Vec<Range<usize>>,
    /// What is in no whole frame, in order.
    pub(super) holes: Vec<Range<usize>>,
}

/// Finds all whole frames behind the header. Each byte is looked at a few times at most, whatever they are.
pub(super) fn scan(bytes: &[u8], number: u64) -> Scan {
    let mut found = Scan::default();
    let mut place = HEADER_BYTES.min(bytes.len());
    while place < bytes.len() {
        let end = match entry_at(bytes, number, place) {
            Some(entry) if is_whole(bytes, number, &entry) => {
                place = entry.end;
                found.entries.push(entry);
                continue;
            }
            // Its head is right, so the next one is known.
            Some(entry) => entry.end,
            None => {
                let next = (place + 1..bytes.len()).find(|next| entry_at(bytes, number, *next).is_some());
                next.unwrap_or(bytes.len())
            }
        };
        found.hole(place..end);
        place = end;
    }
    found
}

impl Scan {
    fn hole(&mut self, range: Range<usize>) {
        match self.holes.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.holes.push(range),
        }
    }
}
