//! How the journal is, for `muster broker status` and for whoever has to decide whether publishers may go on.

use serde::Serialize;

use super::reading::Found;

/// Why publishers have to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Pressure {
    /// The disk takes nothing. What was not confirmed before is not confirmed until it does.
    Failing {
        /// The system's words.
        error: String,
        /// How often it was tried since the last success.
        tries: u64,
    },
    /// What waits in durable queues takes as much of the disk as it may.
    Full {
        /// Bytes that it takes.
        live_bytes: u64,
        /// Bytes that it may take.
        live_bytes_max: u64,
    },
    /// The disk is slower than the publishers.
    Behind {
        /// Bytes in memory that wait to be written.
        waiting_bytes: u64,
    },
}

impl Pressure {
    /// What a client is told (`connection.blocked`), and an operator reads.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Failing { error, .. } => format!("the journal cannot be written: {error}"),
            Self::Full { live_bytes, live_bytes_max } => {
                format!("the journal is full: {live_bytes} of {live_bytes_max} bytes wait in durable queues")
            }
            Self::Behind { waiting_bytes } => {
                format!("the disk is slower than the publishers: {waiting_bytes} bytes wait for it")
            }
        }
    }
}

/// How the journal is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct JournalStatus {
    /// Files.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that are of use; the others go with their segment.
    pub live_bytes: u64,
    /// Bytes of use beyond which publishers wait.
    pub live_bytes_max: u64,
    /// The bound of all segments.
    pub bytes_max: u64,
    /// Durable exchanges that clients declared.
    pub exchanges: u64,
    /// Durable queues.
    pub queues: u64,
    /// Their bindings.
    pub bindings: u64,
    /// Persistent messages.
    pub messages: u64,
    /// Groups that were written since the start.
    pub groups_total: u64,
    /// Records that were taken since the start. Many are never written: the message was acknowledged first.
    pub records_total: u64,
    /// Failed tries to write since the start.
    pub failures_total: u64,
    /// Microseconds that the last group took, and the slowest one.
    pub group_us: u64,
    /// The slowest since the start.
    pub group_us_max: u64,
    /// Confirms that wait for the disk.
    pub waiting_confirms: u64,
    /// Bytes in memory that wait to be written.
    pub waiting_bytes: u64,
    /// Why publishers have to wait, if they do.
    pub pressure: Option<Pressure>,
    /// What the start found.
    pub found: Found,
}
