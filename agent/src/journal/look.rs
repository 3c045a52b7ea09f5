//! Looking at a journal, as another process than the agent may do at any time.

use std::path::Path;

use muster_daemon::Disk;
use muster_protocol::Timestamp;
use serde::Serialize;

use super::{Journal, JournalError, Kind, READ_BYTES_MAX, Replayed, Started};

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Remembered requests that change something, that only read, and that were refused.
    pub changes: usize,
    /// See [`changes`](Self::changes).
    pub reads: usize,
    /// See [`changes`](Self::changes).
    pub refusals: usize,
    /// Requests whose record does not say what they were.
    pub others: usize,
    /// Until when the last of the time windows is open.
    pub last_window_ends_at_ms: Option<Timestamp>,
    /// Requests that were started and have not ended, oldest first.
    pub unfinished: Vec<Started>,
    /// Bytes behind the last record: one that is being written just now, or was when the host stopped.
    pub torn_bytes: usize,
    /// Lines that do not fit their checksum.
    pub damaged_lines: usize,
}

/// Reads a journal without touching it; `None` if there is none.
///
/// # Errors
/// When it cannot be read, or a newer program wrote it.
pub fn look(disk: &dyn Disk, path: &Path) -> Result<Option<Summary>, JournalError> {
    let bytes = match disk.read(path, READ_BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| JournalError::Io { action: "read", path: path.to_owned(), source })?,
    };
    let Replayed { entries, opened, .. } = Journal::replay(path, &bytes)?;
    let count = |kind: Option<Kind>| {
        entries.values().filter(|entry| entry.share.as_ref().map(|share| share.kind) == kind).count()
    };
    let mut unfinished: Vec<Started> = entries.values().filter_map(|entry| entry.running.as_deref().cloned()).collect();
    unfinished.sort_by_key(|started| started.id);
    Ok(Some(Summary {
        file_bytes: bytes.len() as u64,
        changes: count(Some(Kind::Change)),
        reads: count(Some(Kind::Read)),
        refusals: count(Some(Kind::Refusal)),
        others: count(None),
        last_window_ends_at_ms: entries.values().map(|entry| entry.keep_until).max(),
        unfinished,
        torn_bytes: opened.torn_bytes,
        damaged_lines: opened.damaged_lines,
    }))
}
