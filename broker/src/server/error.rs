//! Why a broker does not run.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use muster_pki::PkiError;

use crate::journal::JournalError;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no address to listen on.
    #[error("the broker has no address to listen on: give at least one")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Certificate, key, authority or revocation list.
    #[error("use the certificates of the broker")]
    Pki(#[from] PkiError),
    /// A file that the broker reads again and again.
    #[error("read `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer, or what is wrong in it.
        #[source]
        source: io::Error,
    },
    /// The configuration cannot be read again.
    #[error("{why}")]
    Configuration {
        /// What is wrong.
        why: String,
    },
    /// What is kept over a restart.
    #[error("use the journal of the broker")]
    Journal(#[from] JournalError),
}

impl ServerError {
    /// Stable machine code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAddress | Self::Listen { .. } => "broker-cannot-listen",
            Self::Pki(error) => error.code(),
            Self::File { .. } => "broker-file-unreadable",
            Self::Journal(error) => error.code(),
            Self::Configuration { .. } => "config-invalid",
        }
    }

    /// Whether trying again later may help: an address that is in use may become free.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Pki(error) => error.is_transient(),
            Self::Journal(error) => error.is_transient(),
            Self::NoAddress | Self::File { .. } | Self::Configuration { .. } => false,
        }
    }
}
