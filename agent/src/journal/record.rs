//! One line of the journal: `CHECKSUM LENGTH JSON`, newline.
//!
//! The checksum is the first 16 hexadecimal digits of SHA-256 over the JSON, the length its bytes in
//! decimal. JSON holds no raw newline, so a damaged line never takes its neighbours with it.

use muster_protocol::{Identity, RequestId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Kind, Started};
use crate::digest::{checked_line, unchecked};

/// Version of the file's format.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    Format { version: u32 },
    Started(Started),
    Sequence { id: RequestId, reserved: u32 },
    Finished(Finished),
    Forgotten { until_ms: Timestamp },
}

/// A request that has ended, or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    pub(super) id: RequestId,
    pub(super) keep_until_ms: Timestamp,
    /// Whose room it takes; not there in records of the first agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<Kind>,
    /// The code with which it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

impl Record {
    pub(super) fn to_line(&self) -> Vec<u8> {
        checked_line(&serde_json::to_vec(self).expect("a record has no map keys or floats that JSON cannot hold"))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Good(Record),
    /// The last line, without its end.
    Torn(usize),
    Damaged,
}

/// Reads a whole journal. Only the last line can be torn: every other one was followed by a write.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| match line.strip_suffix(b"\n") {
        None => Line::Torn(line.len()),
        Some(line) => read(line).map_or(Line::Damaged, Line::Good),
    })
}

fn read(line: &[u8]) -> Option<Record> {
    // A record that fits its checksum but is not known comes from a newer program.
    serde_json::from_slice(unchecked(line)?).ok()
}
