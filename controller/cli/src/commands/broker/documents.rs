//! What `muster broker status` prints for programs: the broker's own status with the times that every document of the command
//! line has.
//!
//! The broker tells its command line numbers, so that both need not be of one version to compare them; a document is for
//! somebody else. The schemas are in `docs/schemas/muster`.

use std::net::SocketAddr;

use muster_broker::server::status::{
    BindingStatus, Connected, ConnectionStatus, Counts, MembersStatus, QueueStatus, RevocationListStatus, Status,
};
use serde::Serialize;

use crate::output::time::rfc3339;

/// The whole status.
pub(super) const STATUS: &str = "muster.broker_status/v1";

/// The list of connections.
pub(super) const CONNECTIONS: &str = "muster.broker_connections/v1";

/// The list of queues.
pub(super) const QUEUES: &str = "muster.broker_queues/v1";

/// The list of bindings.
pub(super) const BINDINGS: &str = "muster.broker_bindings/v1";

/// [`STATUS`].
#[derive(Debug, Serialize)]
pub(super) struct StatusDocument<'a> {
    version: &'a str,
    pid: u32,
    identity: &'a str,
    certificate_not_after: String,
    started_at: String,
    asked_at: String,
    virtual_host: &'a str,
    listen: &'a [SocketAddr],
    members: &'a MembersStatus,
    attention: Vec<Attention<'a>>,
    full: &'a [String],
    connected: &'a Connected,
    counts: &'a Counts,
    memory_bytes: u64,
    revocation_lists: Vec<RevocationListDocument>,
    journal: Option<&'a serde_json::Value>,
    queues: &'a [QueueStatus],
    connections: Vec<ConnectionDocument<'a>>,
    bindings: Option<&'a [BindingStatus]>,
}

/// Something that somebody should look at.
#[derive(Debug, Serialize)]
struct Attention<'a> {
    what: &'a str,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct RevocationListDocument {
    number: u64,
    revoked: usize,
    made_at: String,
    next_at: String,
}

/// An element of [`CONNECTIONS`].
#[derive(Debug, Serialize)]
pub(super) struct ConnectionDocument<'a> {
    id: u64,
    identity: &'a str,
    peer: SocketAddr,
    since: String,
    certificate_not_after: String,
    open: bool,
    channels: usize,
    received_bytes: u64,
    sent_bytes: u64,
    waiting: usize,
}

/// The document of a status, with what calls for attention in it.
pub(super) fn status<'a>(status: &'a Status, attention: &'a [(&'static str, String)]) -> StatusDocument<'a> {
    StatusDocument {
        version: &status.version,
        pid: status.pid,
        identity: &status.identity,
        certificate_not_after: rfc3339(status.certificate_not_after_ms),
        started_at: rfc3339(status.started_at_ms),
        asked_at: rfc3339(status.now_ms),
        virtual_host: &status.virtual_host,
        listen: &status.listen,
        members: &status.members,
        attention: attention.iter().map(|(what, why)| Attention { what, why }).collect(),
        full: &status.full,
        connected: &status.connected,
        counts: &status.counts,
        memory_bytes: status.memory_bytes,
        revocation_lists: status.revocation_lists.iter().map(revocation_list).collect(),
        journal: status.journal.as_ref(),
        queues: &status.queues,
        connections: connections(status),
        bindings: status.bindings.as_deref(),
    }
}

/// The connections of a status.
pub(super) fn connections(status: &Status) -> Vec<ConnectionDocument<'_>> {
    status.connections.iter().map(connection).collect()
}

fn connection(connection: &ConnectionStatus) -> ConnectionDocument<'_> {
    ConnectionDocument {
        id: connection.id,
        identity: &connection.identity,
        peer: connection.peer,
        since: rfc3339(connection.since_ms),
        certificate_not_after: rfc3339(connection.certificate_until_ms),
        open: connection.open,
        channels: connection.channels,
        received_bytes: connection.received_bytes,
        sent_bytes: connection.sent_bytes,
        waiting: connection.waiting,
    }
}

fn revocation_list(list: &RevocationListStatus) -> RevocationListDocument {
    RevocationListDocument {
        number: list.number,
        revoked: list.revoked,
        made_at: rfc3339(list.made_ms),
        next_at: rfc3339(list.next_ms),
    }
}
