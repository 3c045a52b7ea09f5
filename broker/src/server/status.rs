//! What a broker tells about itself: one document, for operators, tests and `muster broker status`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use muster_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// How a broker is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Whose certificate it shows, `broker/NAME`.
    pub identity: String,
    /// The last second of that certificate.
    pub certificate_not_after_ms: Timestamp,
    /// When it started.
    pub started_at_ms: Timestamp,
    /// When this was written.
    pub now_ms: Timestamp,
    /// The virtual host.
    pub virtual_host: String,
    /// Where it listens, AMQP over mutual TLS 1.3 and nothing else.
    pub listen: Vec<SocketAddr>,
    /// Who may log in: `issued`, or how many are listed.
    pub members: MembersStatus,
    /// Why publishers wait; empty if they do not.
    pub full: Vec<String>,
    /// Connections that are there and came.
    pub connected: Connected,
    /// What there is, with the bounds.
    pub counts: Counts,
    /// Bytes in memory and on disk.
    pub memory_bytes: u64,
    /// The revocation lists in force.
    pub revocation_lists: Vec<RevocationListStatus>,
    /// The file that the revocation list is read from, if one is watched.
    #[serde(default)]
    pub revocation_file: Option<PathBuf>,
    /// Watched files that cannot be used as they are now; what they said before holds.
    #[serde(default)]
    pub file_troubles: Vec<FileTrouble>,
    /// The last reload, if it was refused.
    #[serde(default)]
    pub reload_refused: Option<ReloadRefused>,
    /// The journal, if there is one.
    pub journal: Option<serde_json::Value>,
    /// All queues, by name.
    pub queues: Vec<QueueStatus>,
    /// What each identity takes that has a connection or a queue, by name.
    #[serde(default)]
    pub identities: Vec<IdentityStatus>,
    /// All connections, by identity.
    pub connections: Vec<ConnectionStatus>,
    /// All bindings, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bindings: Option<Vec<BindingStatus>>,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MembersStatus {
    /// Everybody with a certificate.
    Issued,
    /// Those on a list.
    Listed {
        /// How many these are.
        count: usize,
    },
}

/// A number, and how high it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// What there is.
    pub count: u64,
    /// What there may be.
    pub max: u64,
}

/// Connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    /// Sockets that are open.
    pub open: Used,
    /// Those of them that are in the TLS handshake.
    pub handshaking: Used,
    /// Those that are not read from, because they have published while the broker is full.
    pub blocked: u64,
    /// Those whose consumers get nothing until they have read what waits for them.
    pub slow: u64,
    /// Sockets that were accepted since the start.
    pub accepted_total: u64,
    /// Handshakes that came to their end since the start.
    pub admitted_total: u64,
    /// Handshakes that came to their end in the last whole second.
    pub admitted_per_second: u64,
    /// Connections that were refused since the start, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// What there is, with the bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Channels.
    pub channels: u64,
    /// Consumers.
    pub consumers: u64,
    /// Exchanges.
    pub exchanges: Used,
    /// Queues.
    pub queues: Used,
    /// Bindings.
    pub bindings: Used,
    /// Messages that wait in queues.
    pub ready: u64,
    /// Messages that were delivered and not acknowledged.
    pub unacknowledged: u64,
    /// Bytes of messages in queues, channels and outboxes.
    pub message_bytes: Used,
}

/// A revocation list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationListStatus {
    /// Its number.
    pub number: u64,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// When it was made.
    pub made_ms: Timestamp,
    /// When a newer one should be there.
    pub next_ms: Timestamp,
}

/// A watched file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTrouble {
    /// What is in it.
    pub holds: WatchedFile,
    /// Which.
    pub path: PathBuf,
    /// Since when it cannot be used, as far as the broker has looked.
    pub since_ms: Timestamp,
    /// What is wrong with it.
    pub why: String,
}

/// What a watched file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchedFile {
    /// Revocation lists.
    RevocationList,
    /// Who may log in.
    Members,
}

/// A reload that was refused; what was before it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// When.
    pub at_ms: Timestamp,
    /// Why.
    pub why: String,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Its name.
    pub name: String,
    /// Survives a restart.
    pub durable: bool,
    /// Of one connection, and goes with it.
    pub exclusive: bool,
    /// Messages that wait.
    pub ready: usize,
    /// Bytes of their bodies.
    pub ready_bytes: u64,
    /// Messages that were delivered and not acknowledged.
    pub unacknowledged: usize,
    /// Consumers.
    pub consumers: usize,
}

/// What one identity takes of the broker's memory, over all of its connections and queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Who, `KIND/NAME`.
    pub identity: String,
    /// Its connections.
    pub connections: u64,
    /// Its queues.
    pub queues: u64,
    /// Bytes of messages in its queues and unacknowledged, each where it is; three quarters of its share at most.
    pub kept_bytes: u64,
    /// Bytes of messages that wait for its connections to read them; a quarter of its share at most.
    pub outbox_bytes: u64,
    /// Its share: `limits.host_bytes` or `limits.controller_bytes`.
    pub bytes_max: u64,
    /// Messages that were refused or dropped because its share was used up, since it has been there.
    pub refused_total: u64,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number, never used twice.
    pub id: u64,
    /// Whose it is, `KIND/NAME`.
    pub identity: String,
    /// The other end.
    pub peer: SocketAddr,
    /// When it came.
    pub since_ms: Timestamp,
    /// The last second of its certificate.
    pub certificate_until_ms: Timestamp,
    /// Whether it is open in AMQP's sense.
    pub open: bool,
    /// Open channels.
    pub channels: usize,
    /// Bytes of AMQP that it sent.
    pub received_bytes: u64,
    /// Bytes of AMQP that it was sent.
    pub sent_bytes: u64,
    /// What waits for it.
    pub waiting: usize,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingStatus {
    /// The exchange that sends.
    pub source: String,
    /// `queue` or `exchange`.
    pub destination_kind: String,
    /// What receives.
    pub destination: String,
    /// The binding key.
    pub key: String,
}
