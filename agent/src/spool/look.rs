//! Looking at the spool of a host, as another process than the agent may do at any time.

use std::io;
use std::path::{Path, PathBuf};

use muster_daemon::Disk;
use muster_daemon::disk::FileKind;
use muster_protocol::{RequestId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Kept, Parcel, Read, SpoolError, read};

/// Longest file with the state of a spool that is read.
const STATE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a report waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was not sent yet.
    NotTried,
    /// There is no connection, or it broke before the broker had confirmed.
    Unconfirmed,
    /// Its reader has no queue.
    Unroutable,
    /// The broker refuses it for now: the reader's queue is full.
    Refused,
}

impl Why {
    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotTried => "not sent yet",
            Self::Unconfirmed => "not confirmed by the broker",
            Self::Unroutable => "its reader has no queue",
            Self::Refused => "its reader's queue is full",
        }
    }
}

/// A report that waits on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The request it answers.
    pub request_id: RequestId,
    /// Whether it survives a restart.
    pub on_disk: bool,
    /// Since when it waits, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_since_ms: Option<Timestamp>,
    /// How often it was sent in vain since the agent started.
    pub tries: u32,
    /// Why it waits.
    pub why: Why,
    /// Since when its reader has no queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unroutable_since_ms: Option<Timestamp>,
}

/// What the agent knows about its spool beyond the files. It writes this down for whoever looks; nothing depends on
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolState {
    /// When it was so.
    pub at_ms: Timestamp,
    /// Reports on disk and in memory.
    pub reports: usize,
    /// Their bodies together, in bytes.
    pub bytes: usize,
    /// Those of them that are in memory only.
    pub in_memory: usize,
    /// Those on disk.
    pub waiting: Vec<Waiting>,
}

impl SpoolState {
    /// Whether nothing but the time is different.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        Self { at_ms: self.at_ms, ..other.clone() } == *self
    }
}

/// What the agent wrote down last about its spool; `None` if it has not, or that cannot be read.
#[must_use]
pub fn read_state(disk: &dyn Disk, path: &Path) -> Option<SpoolState> {
    serde_json::from_slice(&disk.read(path, STATE_BYTES_MAX).ok()?).ok()
}

/// A file of a spool, for whoever looks at it.
#[derive(Debug)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The report; `None` if the file is not one.
    pub parcel: Option<Parcel>,
    /// Since when the report waits, if the file says so.
    pub kept_since: Option<Timestamp>,
}

/// Reads the files of a spool without touching them. Reports in the agent's memory are not among them.
///
/// # Errors
/// When the directory, or a file in it, cannot be read.
pub fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<Listed>, SpoolError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| SpoolError::Io { action, path, source }
    };
    let entries = match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", directory))?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        let path = directory.join(entry.name);
        let is_report = path.extension().is_some_and(|extension| extension == "json");
        let is_damaged = path.extension().is_some_and(|extension| extension == "damaged");
        if entry.kind != FileKind::File || !(is_report || is_damaged) {
            continue;
        }
        let looked = disk.metadata(&path).and_then(|found| {
            let read = if is_report { read(disk, &path)? } else { Read::Damaged };
            Ok((found.length, read))
        });
        let (bytes, read) = match looked {
            // It was confirmed and removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            looked => looked.map_err(failed("read", &path))?,
        };
        let (parcel, kept_since) = match read {
            Read::Report(kept) => {
                let Kept { parcel, since } = *kept;
                (Some(parcel), since)
            }
            Read::Damaged => (None, None),
        };
        listed.push(Listed { path, bytes, parcel, kept_since });
    }
    Ok(listed)
}
