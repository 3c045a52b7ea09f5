//! What an operator can see and do.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use muster_protocol::{Identity, Timestamp};

use super::status::{
    BindingStatus, Connected, ConnectionStatus, Counts, IdentityStatus, MembersStatus, QueueStatus, ReloadRefused,
    RevocationListStatus, Status, Used,
};
use super::upkeep::{resident_bytes, said};
use super::{Server, ServerError, Settings};
use crate::access::Members;
use crate::control::{Answer, Request};
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::session::Shared as _;

impl Server {
    /// How the broker is; with its bindings if they are asked for. Takes the lock for as long as it takes to copy all lists.
    #[must_use]
    pub fn status(&self, with_bindings: bool) -> Status {
        let inner = &*self.inner;
        let materials = inner.materials();
        let (counts, limits, queues, accounts, bindings) = {
            let mut turn = inner.hub.turn(None);
            let engine = &turn.lock().0.engine;
            let bindings = with_bindings.then(|| engine.bindings());
            (engine.counts(), engine.limits(), engine.queues(), engine.accounts(), bindings)
        };
        let (_, blocked) = inner.hub.counts();
        let used = |(count, max): (usize, usize)| Used { count: wide(count), max: wide(max) };
        let mut connections: Vec<ConnectionStatus> = inner
            .hub
            .lines()
            .iter()
            .map(|line| {
                let ((received_bytes, sent_bytes), (open, channels)) = (line.traffic(), line.session());
                ConnectionStatus {
                    id: line.id.0,
                    identity: line.client.identity.short(),
                    peer: line.peer,
                    since_ms: Timestamp(line.since_ms),
                    certificate_until_ms: line.client.valid_until,
                    open,
                    channels,
                    received_bytes,
                    sent_bytes,
                    waiting: line.waiting(),
                }
            })
            .collect();
        connections.sort_unstable_by(|a, b| (&a.identity, a.id).cmp(&(&b.identity, b.id)));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            identity: materials.credentials.identity().short(),
            certificate_not_after_ms: materials.credentials.not_after(),
            started_at_ms: Timestamp(inner.started_ms),
            now_ms: Timestamp(inner.hub.now_ms()),
            virtual_host: inner.session.vhost.clone(),
            listen: inner.addresses.clone(),
            members: match &materials.rules.members {
                Members::Issued => MembersStatus::Issued,
                Members::Listed(listed) => MembersStatus::Listed { count: listed.len() },
            },
            full: self.why_full(counts.message_bytes, limits.message_bytes_max),
            connected: Connected {
                open: used(inner.gate.open()),
                handshaking: used(inner.gate.handshaking()),
                blocked: wide(blocked),
                slow: wide(counts.slow),
                accepted_total: inner.gate.accepted.load(Ordering::Relaxed),
                admitted_total: inner.gate.admitted.load(Ordering::Relaxed),
                admitted_per_second: inner.admitted_per_second.load(Ordering::Relaxed),
                refused: inner.gate.refused(),
            },
            counts: Counts {
                channels: wide(counts.channels),
                consumers: wide(counts.consumers),
                exchanges: used((counts.exchanges, limits.exchanges_max)),
                queues: used((counts.queues, limits.queues_max)),
                bindings: used((counts.bindings, limits.bindings_max)),
                ready: wide(counts.ready),
                unacknowledged: wide(counts.unacknowledged),
                message_bytes: used((counts.message_bytes, limits.message_bytes_max)),
            },
            memory_bytes: resident_bytes(),
            revocation_lists: materials
                .trust
                .crl_info()
                .into_iter()
                .map(|list| RevocationListStatus {
                    number: list.number,
                    revoked: list.revoked,
                    made_ms: list.this_update,
                    next_ms: list.next_update,
                })
                .collect(),
            revocation_file: inner.files().crl,
            file_troubles: inner.file_troubles.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            reload_refused: inner.reload_refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            journal: inner.journal.as_ref().and_then(|journal| serde_json::to_value(journal.status()).ok()),
            queues: queues
                .into_iter()
                .map(|queue| QueueStatus {
                    name: queue.name.to_string(),
                    durable: queue.durable,
                    exclusive: queue.exclusive,
                    ready: queue.ready,
                    ready_bytes: queue.ready_bytes,
                    unacknowledged: queue.unacknowledged,
                    consumers: queue.consumers,
                })
                .collect(),
            identities: accounts
                .into_iter()
                .map(|account| IdentityStatus {
                    identity: account
                        .user
                        .parse::<Identity>()
                        .map_or_else(|_| account.user.to_string(), |identity| identity.short()),
                    connections: wide(account.connections),
                    queues: wide(account.queues),
                    kept_bytes: wide(account.kept_bytes),
                    outbox_bytes: wide(account.outbox_bytes),
                    bytes_max: wide(account.bytes_max),
                    refused_total: wide(account.refused),
                })
                .collect(),
            connections,
            bindings: bindings.map(|bindings| {
                bindings
                    .into_iter()
                    .map(|binding| BindingStatus {
                        source: binding.source.to_string(),
                        destination_kind: binding.destination_kind.to_owned(),
                        destination: binding.destination.to_string(),
                        key: binding.key.to_string(),
                    })
                    .collect()
            }),
        }
    }

    fn why_full(&self, bytes: usize, bytes_max: usize) -> Vec<String> {
        if !self.inner.hub.is_full() {
            return Vec::new();
        }
        let mut reasons = Vec::new();
        if let Some(pressure) = self.inner.journal.as_ref().and_then(|journal| journal.pressure()) {
            reasons.push(pressure.reason());
        }
        if self.inner.hub.is_disk_short() {
            reasons.push("what is durable takes more of the disk than `limits.disk_bytes`".to_owned());
        }
        // From the bound on until four fifths of it.
        if reasons.is_empty() || bytes > bytes_max / 5 * 4 {
            reasons.push(format!("messages take {bytes} of {bytes_max} bytes (`limits.memory_bytes`)"));
        }
        reasons
    }

    /// Deletes a queue with what is in it, also one of a connection. Tells how many messages that were.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn delete_queue(&self, name: &str) -> Result<u32, Fault> {
        let now_ms = self.inner.hub.now_ms();
        let mut turn = self.inner.hub.turn(None);
        let (broker, outlet) = turn.lock();
        broker.engine.check_queue(ConnectionId::OPERATOR, name, now_ms)?;
        broker.engine.delete_queue(ConnectionId::OPERATOR, name, false, false, now_ms, outlet)
    }

    /// Removes what waits in a queue. Tells how many messages that were.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn purge_queue(&self, name: &str) -> Result<u32, Fault> {
        let now_ms = self.inner.hub.now_ms();
        let mut turn = self.inner.hub.turn(None);
        let (broker, outlet) = turn.lock();
        broker.engine.purge_queue(ConnectionId::OPERATOR, name, now_ms, outlet)
    }

    /// Closes the connections of an identity, or all, with 320 and this reason. Tells how many.
    pub fn close_connections(&self, of: Option<&Identity>, reason: &str) -> usize {
        let fault = Fault::connection_forced(reason);
        let lines = self.inner.hub.lines();
        let mut closed = 0;
        for line in lines.iter().filter(|line| of.is_none_or(|identity| line.client.identity == *identity)) {
            line.close(fault.clone());
            closed += 1;
        }
        tracing::info!(
            connections = closed,
            of = of.map(Identity::short),
            reason,
            "Closing connections for an operator"
        );
        closed
    }
}

impl Server {
    /// Does what an operator asks for. What has to be read again for a reload is the caller's to know.
    pub fn obey(&self, request: Request, reload: impl FnOnce() -> Result<Settings, ServerError>) -> Answer {
        let counted = |count: Result<u32, Fault>| match count {
            Ok(count) => Answer::Done { count: count.into(), notes: Vec::new() },
            Err(fault) => Answer::Refused { code: refusal_code(&fault).to_owned(), why: fault.text.into_owned() },
        };
        match request {
            Request::Status { bindings } => Answer::Status { status: Box::new(self.status(bindings)) },
            Request::Close { identity, reason } => {
                let count = self.close_connections(identity.as_ref(), &reason);
                Answer::Done { count: wide(count), notes: Vec::new() }
            }
            Request::DeleteQueue { name } => {
                let deleted = self.delete_queue(&name);
                tell_of(&deleted, &name, "An operator has deleted a queue");
                counted(deleted)
            }
            Request::PurgeQueue { name } => {
                let purged = self.purge_queue(&name);
                tell_of(&purged, &name, "An operator has emptied a queue");
                counted(purged)
            }
            Request::Reload => match reload().and_then(|settings| self.replace(settings)) {
                Ok(later) => {
                    tracing::info!("Read the configuration again");
                    self.note_reload(None);
                    let note = |name: &&str| format!("`{name}` has changed and holds after a restart");
                    Answer::Done { count: 0, notes: later.iter().map(note).collect() }
                }
                Err(error) => {
                    let why = said(&error);
                    tracing::error!(why, "Could not read the configuration again; everything stays as it was");
                    self.note_reload(Some(why.clone()));
                    Answer::Refused { code: error.code().to_owned(), why }
                }
            },
        }
    }
}

impl Server {
    /// Remembers how the last reload ended, for the status.
    fn note_reload(&self, refused: Option<String>) {
        let at_ms = Timestamp(self.inner.hub.now_ms());
        let refused = refused.map(|why| ReloadRefused { at_ms, why });
        *self.inner.reload_refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }
}

/// How the command line calls a refusal of the engine.
fn refusal_code(fault: &Fault) -> &'static str {
    match fault.code {
        404 => "no-such-queue",
        _ => "broker-refused",
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Says in the log what an operator has done to a queue, or was refused.
fn tell_of(done: &Result<u32, Fault>, queue: &str, what: &'static str) {
    match done {
        Ok(messages) => tracing::warn!(queue, messages, "{what}"),
        Err(fault) => tracing::info!(queue, why = %fault, "An operator was refused a change of a queue"),
    }
}
