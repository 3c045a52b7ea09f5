//! What the agent is doing right now, for whoever asks on the host itself.
//!
//! # The data and how it flows
//!
//! [`Status`] is the whole answer, plain data that serialises. `Handle::status` makes one of a running agent: every
//! lock is only tried, so that it neither waits for the disk nor for anybody who does; what could not be looked at is
//! named in [`Status::held`]. [`socket`] gives it to whoever connects to a socket in the directory of state, from a
//! thread of its own, since a thread that hangs is what one may want to hear of.
//!
//! # Invariants
//!
//! - Nothing here takes part in the work: no message is lost or late because somebody looked.
//! - An answer is bounded: long lists are cut, and say so.
//! - No secret is in it: arguments are not, and addresses have no passwords.

mod gather;
mod pulse;
pub mod show;
pub mod socket;

use std::collections::BTreeMap;

use muster_protocol::{HostName, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use pulse::{AtHand, BEAT, Pulse};

/// Version of the document. A field more is no new version.
pub const FORMAT: &str = "muster.status/v1";

/// Most requests that are listed.
pub const REQUESTS_MAX: usize = 200;

/// The agent as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`FORMAT`].
    pub format: String,
    /// The host.
    pub host: HostName,
    /// The agent's program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When this was looked at, by the host's clock.
    pub now_ms: Timestamp,
    /// When the agent started.
    pub started_at_ms: Timestamp,
    /// The way to the broker.
    pub connection: ConnectionStatus,
    /// Addresses of the brokers, from the configuration.
    pub brokers: Vec<String>,
    /// Its certificate.
    pub certificate: CertificateStatus,
    /// Revocation lists in force.
    pub revocation_lists: Vec<RevocationStatus>,
    /// Who may do what.
    pub policy: PolicyStatus,
    /// What is known of the host.
    pub facts: FactsStatus,
    /// Plugins that can be used, with their versions.
    pub plugins: BTreeMap<String, String>,
    /// Requests at work, the oldest first, at most [`REQUESTS_MAX`].
    pub requests: Vec<RequestStatus>,
    /// How many requests there are.
    pub requests_count: usize,
    /// What waits inside.
    pub queues: QueueStatus,
    /// Everything that was counted since the start.
    pub counters: BTreeMap<String, u64>,
    /// Refusals by their code.
    pub refused: BTreeMap<String, u64>,
    /// Tasks by name, and how many of each there are.
    pub tasks: BTreeMap<String, usize>,
    /// Milliseconds since the agent's own thread took a turn. Some hundred are usual; more than a few thousand mean
    /// that something holds it up.
    pub stalled_ms: u64,
    /// What somebody else held at that moment, so that it could not be looked at. Held again and again, it is a disk
    /// that does not answer.
    pub held: Vec<String>,
    /// What does not work and has no end of its own.
    pub problems: Vec<String>,
    /// Memory of the process, in bytes.
    pub memory_bytes: u64,
    /// The last warnings and errors of its log, the newest last. Empty where the log is not remembered.
    #[serde(default)]
    pub log: Vec<LogLine>,
}

/// A remembered line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at_ms: Timestamp,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// What it says, with its fields.
    pub text: String,
}

/// The way to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ConnectionStatus {
    /// There is none.
    Connecting {
        /// Since when; absent before the first failure.
        since_ms: Option<Timestamp>,
        /// Tries since then.
        tries: u64,
        /// Why the last one failed; empty before the first.
        why: String,
        /// When the next one is due; absent while one is made.
        next_try_ms: Option<Timestamp>,
    },
    /// It takes commands.
    Online {
        /// The broker, without any secret.
        broker: String,
        /// Since when.
        since_ms: Timestamp,
        /// The last failure before, if there was one.
        last_error: Option<LastError>,
    },
    /// The agent stops.
    Stopping,
}

/// A failure that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at_ms: Timestamp,
    /// What.
    pub why: String,
}

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Whose.
    pub identity: String,
    /// SHA-256 of it.
    pub fingerprint: String,
    /// Valid from.
    pub not_before_ms: Timestamp,
    /// Valid until.
    pub not_after_ms: Timestamp,
}

/// A revocation list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationStatus {
    /// The authority.
    pub issuer: String,
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub made_ms: Timestamp,
    /// When a newer one was due or is.
    pub next_ms: Timestamp,
    /// Certificates it revokes.
    pub revoked: usize,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The file.
    pub file: String,
    /// When it was read.
    pub loaded_at_ms: Timestamp,
    /// SHA-256 of its text, as `sha256sum` prints it.
    pub sha256: String,
    /// How many rules it has.
    pub rules: usize,
}

/// The facts in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsStatus {
    /// When they were collected last; absent before the first time.
    pub collected_at_ms: Option<Timestamp>,
    /// Top-level facts.
    pub count: usize,
    /// Sources that failed.
    pub errors: usize,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The policy and the other checks are asked.
    Deciding,
    /// It is being written down; the disk is waited for.
    Recording,
    /// Its process is being started.
    Starting,
    /// It runs.
    Running,
    /// It was told to stop and has not yet.
    Stopping,
    /// It has ended and is being reported.
    Reporting,
}

impl Phase {
    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deciding => "deciding",
            Self::Recording => "recording",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Reporting => "reporting",
        }
    }
}

/// A request at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Its id.
    pub id: String,
    /// Who asked.
    pub caller: String,
    /// `plugin.action`, or `watch`.
    pub action: String,
    /// Where it stands.
    pub phase: Phase,
    /// Since when.
    pub since_ms: Timestamp,
    /// How long it may take; absent where nobody has decided yet.
    pub time_limit_ms: Option<u64>,
    /// Whether it runs in a process of its own.
    pub detached: bool,
    /// When and how it ended, where its last report is still to be made: what it wrote before has to leave first.
    #[serde(default)]
    pub ended: Option<EndedStatus>,
}

/// How an action ended of which nobody was told yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedStatus {
    /// When.
    pub at_ms: Timestamp,
    /// The stable code.
    pub code: String,
}

/// What waits inside, and what it may come to. `None`: it was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Final reports that the broker has not confirmed.
    pub spool: Option<Used>,
    /// How many of them are on disk.
    pub spool_on_disk: Option<usize>,
    /// Actions in processes of their own that have ended and whose last report is not among them yet.
    #[serde(default)]
    pub ends_untold: Option<usize>,
    /// When the next of them is tried again that was put off.
    pub spool_next_try_s: Option<u64>,
    /// Ids remembered, by kind.
    pub journal: Option<BTreeMap<String, Used>>,
    /// Results kept for watches: how many, and their bytes on disk.
    pub results: Option<Used>,
    /// Lines of the audit log so far.
    pub audit_lines: Option<u64>,
    /// Plugins that wait to be asked for their profiles.
    pub profiles_due: Option<usize>,
}

/// How much of a bound is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// How many there are.
    pub count: usize,
    /// How many there may be; absent where only bytes are bounded.
    pub count_max: Option<usize>,
    /// Their bytes, where those are bounded.
    pub bytes: Option<u64>,
    /// How many bytes there may be.
    pub bytes_max: Option<u64>,
}
