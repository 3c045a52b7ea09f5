//! Why a journal cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// Why the journal's directory cannot be used at all. What goes wrong later is no error but a [`Pressure`](super::Pressure):
/// the broker goes on and takes nothing until it is over.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refuses.
    #[error("{action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another broker runs on it.
    #[error("journal directory `{path}` is in use by another broker; each needs a directory of its own")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Others can read or write in it.
    #[error(
        "journal directory `{path}` has mode {mode:04o}: messages in it could be read or changed by others; make it 0700"
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A newer broker has written it.
    #[error("`{path}` has format {found}, and this broker reads format {known}: a newer broker has written it")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest that can be read.
        known: u16,
    },
    /// Something else with a right checksum: not damage, but not ours either.
    #[error("record at byte {offset} of `{path}` is whole and cannot be read: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// Why.
        why: &'static str,
    },
    /// The journal's thread cannot be started.
    #[error("start the journal's thread")]
    Thread(#[source] io::Error),
}

impl JournalError {
    /// A stable word for what went wrong.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "journal-unusable",
            Self::InUse { .. } => "journal-in-use",
            Self::Exposed { .. } => "journal-exposed",
            Self::NewerFormat { .. } => "journal-newer-format",
            Self::Unreadable { .. } => "journal-unreadable",
            Self::Thread(_) => "journal-no-thread",
        }
    }

    /// Whether the same may work later without anybody doing something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Thread(source) => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WouldBlock
                )
            }
            Self::InUse { .. } => true,
            Self::Exposed { .. } | Self::NewerFormat { .. } | Self::Unreadable { .. } => false,
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
