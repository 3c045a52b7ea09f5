//! The socket on which a broker obeys its operator: one line of JSON in, one out, and the connection ends.
//!
//! One thread serves it, one connection after the other, apart from everything else the broker does. Only root and the
//! broker's own user are answered, whatever the mode of the socket is.

mod ask;
mod serve;

use std::io;
use std::path::PathBuf;

use muster_protocol::Identity;
use serde::{Deserialize, Serialize};

use crate::server::status::Status;

pub use ask::ask;
pub use serve::ControlSocket;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask", deny_unknown_fields)]
pub enum Request {
    /// How the broker is.
    Status {
        /// With its bindings.
        bindings: bool,
    },
    /// Reads the configuration and the files that it names again.
    Reload,
    /// Closes connections.
    Close {
        /// Of whom; of everybody if nobody is named.
        identity: Option<Identity>,
        /// What the clients are told.
        reason: String,
    },
    /// Deletes a queue with what is in it.
    DeleteQueue {
        /// Its name.
        name: String,
    },
    /// Removes what waits in a queue.
    PurgeQueue {
        /// Its name.
        name: String,
    },
}

/// What the broker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    /// How it is.
    Status {
        /// The document.
        status: Box<Status>,
    },
    /// It was done.
    Done {
        /// Connections, messages; 0 where nothing is counted.
        count: u64,
        /// What is to be known beside.
        notes: Vec<String>,
    },
    /// It was not done.
    Refused {
        /// Stable machine code.
        code: String,
        /// Why.
        why: String,
    },
}

/// Longest wait for the other end.
const WAIT_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Most bytes of a request.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Most bytes of an answer: the status of a broker with a hundred thousand connections and as many queues.
const ANSWER_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Why there is no socket, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It cannot be made or used.
    #[error("{action} control socket `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another broker listens there, or the path belongs to something else.
    #[error("control socket `{path}` is taken by {by}")]
    Taken {
        /// The socket.
        path: PathBuf,
        /// By whom.
        by: &'static str,
    },
    /// Nobody listens.
    #[error("no broker listens at `{path}`")]
    NobodyListens {
        /// The socket.
        path: PathBuf,
    },
    /// Whoever listens does not answer, or not as a broker does.
    #[error("the broker at `{path}` does not answer")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
}

impl ControlError {
    /// Stable machine code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "control-socket",
            Self::Taken { .. } => "control-socket-taken",
            Self::NobodyListens { .. } => "no-broker-here",
            Self::NoAnswer { .. } => "broker-no-answer",
        }
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NobodyListens { .. } | Self::NoAnswer { .. } => true,
            Self::Io { .. } | Self::Taken { .. } => false,
        }
    }
}
