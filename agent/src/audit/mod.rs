//! The audit log: one JSON object a line, each with its own hash and that of the line before.
//!
//! Every decision about a message is in it, allowed or not, and every end of an action. The chain of hashes goes
//! on from file to file: a line or a file that was changed, removed, put in or moved is found by [`verify`], with its
//! place. What a chain alone cannot show is that its *last* lines were cut off, or that somebody wrote all of it
//! anew: note its head elsewhere ([`Audit::head`]) and have it looked for ([`Anchor`]).
//!
//! # The data and how it flows
//!
//! [`Audit::write`] ─► [`limit`]: enough of this caller? ─► [`line`]: hash ─► the file ─► full? set aside, begin
//! the next, remove the oldest. [`verify`] and [`show`] read all files as one.
//!
//! # Durability
//!
//! The line that allows an action which changes something is on the disk before the action starts.
//! All other lines are written without waiting for the disk: whoever floods a host with messages it
//! refuses would otherwise make it sync for each of them.
//!
//! # Rotation
//!
//! | step | what | a crash behind it |
//! |---|---|---|
//! | make | an empty file `LOG.next` | the next start removes it |
//! | switch | the last line of the full file says so; the first line of the next one names it, its lines and its last hash; lines go there | the next start goes on in `LOG.next` if it follows the full file; without it, begins one |
//! | set aside | the full file gets a number behind its name | the next start goes on with the next step |
//! | in place | `LOG.next` gets the log's name | nothing is left to do but to remove |
//! | note | a line names the oldest file, its lines and its last hash | the next start notes it again |
//! | remove | the oldest file is deleted | nothing is left to do |
//!
//! The agent does it beside its work ([`rotate_shared`]); nobody waits for the disk with the log's lock.
//! So a file that rotation removed is told from one that somebody removed. If something else moves the file
//! away or empties it, the next line says so, and the chain goes on.
//!
//! # Injection
//!
//! Everything that came from outside is a JSON string, in which line ends and control characters are
//! escaped. Nothing a caller sends can begin a line of its own.

mod files;
mod limit;
mod line;
mod log;
mod rotation;
mod shorten;
pub mod show;
mod verify;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use limit::{REFUSALS_PER_WINDOW, WINDOW_MS};
pub use line::Line;
pub use log::{Audit, Durability, Rotation, Unsynced};
pub use rotation::rotate_shared;
pub use shorten::TEXT_BYTES_MAX;
pub(crate) use shorten::shortened;
pub use verify::{Anchor, Verified, verify, verify_all, verify_all_on};

/// What the first line of all names as the hash of the line before it.
pub const FIRST_PREVIOUS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Longest line that is written or read, in bytes. Arguments of a command may have a megabyte, and
/// escaping can lengthen them.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest arguments of a refused command, in bytes of JSON. Whoever may do nothing must not fill the disk
/// with what they ask for; `body_sha256` still says which message it was.
pub const REFUSED_ARGUMENTS_BYTES_MAX: usize = 1024;

/// Why the audit log could not be opened, written or verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file operation failed.
    #[error("{action} audit log `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A line is not what was written, or not where it was written.
    #[error("audit log `{path}` line {line}: {damage}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: u64,
        /// What was done.
        damage: Damage,
        /// How that shows.
        why: String,
    },
    /// Something else has put another file in the log's place.
    #[error("audit log `{path}` was replaced by a file that does not continue it")]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// A line that was noted elsewhere is not there.
    #[error("audit log `{path}` does not hold what was noted: {why}")]
    Anchor {
        /// The log.
        path: PathBuf,
        /// What is there instead.
        why: String,
    },
}

impl AuditError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Broken { .. } | Self::Replaced { .. } | Self::Anchor { .. } => false,
        }
    }

    /// The code with which the host refuses a request that it cannot audit.
    #[must_use]
    pub fn code(&self) -> &'static muster_protocol::Code {
        &muster_protocol::code::JOURNAL_FAILED
    }
}

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Damage {
    /// Bytes of a line are others.
    Changed,
    /// Lines are missing in the middle.
    Removed,
    /// A line is there that does not belong.
    Inserted,
    /// Lines changed places.
    Reordered,
    /// Lines are missing at the end of a file.
    Truncated,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
        })
    }
}

/// A file of the log, as a line about it names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Its name, if the agent gave it that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many lines it had.
    pub lines: u64,
    /// Number of its last line.
    pub last_sequence: u64,
    /// Hash of its last line.
    pub last_hash: String,
}

/// Kinds of [`Event::decision`] where [`Event::event`] is `audit`: the log about itself.
pub mod about_itself {
    /// The event.
    pub const EVENT: &str = "audit";
    /// The last line of a file that is full.
    pub const CLOSED: &str = "closed";
    /// The first line of a file that is not the first.
    pub const CONTINUED: &str = "continued";
    /// The next thing that happens is that rotation removes a file.
    pub const REMOVED: &str = "removed";
    /// Refusals that are only counted.
    pub const LEFT_OUT: &str = "left_out";
    /// Something else has cut bytes off the file.
    pub const CUT: &str = "cut";
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `command`, `cancel`, `watch`, `finished`, `report`, `agent`, `revocation_list`, `audit`.
    pub event: String,
    /// `allowed`, `refused`, `ignored`, the outcome where something ended, or one of [`about_itself`].
    pub decision: String,
    /// The protocol's code, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who asked, if the signature was right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The caller's groups, from its certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// All signers, the caller first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// SHA-256 of the caller's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// `plugin.action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The arguments, as the action gets or would have got them. Of a refused command at most
    /// [`REFUSED_ARGUMENTS_BYTES_MAX`]; longer ones become `cut` (their beginning) and `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Map<String, Value>>,
    /// Whether it was to be tried without effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noop: bool,
    /// The user it was to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_user: Option<String>,
    /// The policy rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// More in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// SHA-256 of the body, so that the line can be matched with a captured message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// The file of the log that the line is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileMark>,
    /// How many refusals were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Event {
    /// An event with nothing but its kind and decision.
    #[must_use]
    pub fn new(event: &str, decision: &str) -> Self {
        Self {
            event: event.to_owned(),
            decision: decision.to_owned(),
            code: None,
            request_id: None,
            caller: None,
            groups: Vec::new(),
            signers: Vec::new(),
            certificate: None,
            action: None,
            arguments: None,
            noop: false,
            effective_user: None,
            rule: None,
            message: String::new(),
            body_sha256: None,
            file: None,
            count: None,
        }
    }

    /// The same event with `message`.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Whether the log says this of itself.
    fn is_about_itself(&self, decision: &str) -> bool {
        self.event == about_itself::EVENT && self.decision == decision
    }

    /// Cuts the arguments of a refused command.
    fn cut_refused_arguments(&mut self) -> Result<(), serde_json::Error> {
        let Some(arguments) = self.arguments.as_ref().filter(|_| self.decision == "refused") else { return Ok(()) };
        let text = serde_json::to_string(arguments)?;
        if text.len() > REFUSED_ARGUMENTS_BYTES_MAX {
            let beginning = &text[..text.floor_char_boundary(REFUSED_ARGUMENTS_BYTES_MAX)];
            self.arguments = Some(Map::from_iter([
                ("cut".to_owned(), Value::from(beginning)),
                ("bytes".to_owned(), Value::from(text.len())),
            ]));
        }
        Ok(())
    }
}
