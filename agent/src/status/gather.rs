//! Looking at a running agent without waiting for any part of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use muster_protocol::{RequestId, Timestamp};
use tokio::time::Instant;

use super::{
    CertificateStatus, ConnectionStatus, EndedStatus, FORMAT, FactsStatus, Phase, PolicyStatus, QueueStatus,
    REQUESTS_MAX, RequestStatus, RevocationStatus, Status, Used,
};
use crate::core::{Connection, Core, Running};
use crate::detached::Live;
use crate::detached::state::State;
use crate::host_view::resident_bytes;
use crate::journal::Kind;
use crate::spool;

/// How long a lock is tried: far longer than anybody holds one who does not wait for a disk.
const HELD_AFTER: Duration = Duration::from_millis(50);

/// Collects the names of what was held.
struct Look {
    held: Vec<String>,
}

impl Look {
    /// Takes a lock that others hold for moments only.
    fn at<'a, T>(&mut self, name: &str, mutex: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        let deadline = std::time::Instant::now() + HELD_AFTER;
        loop {
            match mutex.try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if std::time::Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => {
                    self.held.push(name.to_owned());
                    return None;
                }
            }
        }
    }
}

impl Core {
    /// The agent as it is now. Called from a thread of its own: it waits for a lock up to 50 ms.
    pub(crate) fn status(&self) -> Status {
        let now = self.now();
        let mut look = Look { held: Vec::new() };
        let (requests, requests_count) = requests(self, &mut look);
        let queues = queues(self, &mut look);
        let materials = look.at("materials", &self.materials).map(|guard| guard.clone());
        let materials = materials.unwrap_or_else(|| self.materials());
        let credentials = &materials.credentials;
        let facts = self.facts.current();
        let plugins = self.plugins();
        let revocation_lists = materials.trust.crl_info().into_iter().map(|list| RevocationStatus {
            issuer: list.issuer,
            number: list.number,
            made_ms: list.this_update,
            next_ms: list.next_update,
            revoked: list.revoked,
        });
        let loaded_at = look.at("policy", &self.pulse.policy_loaded_at).map_or(self.started_at, |guard| *guard);
        Status {
            format: FORMAT.to_owned(),
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            now_ms: now,
            started_at_ms: self.started_at,
            connection: connection(self, &mut look),
            brokers: self.config.broker_urls().iter().map(ToString::to_string).collect(),
            certificate: CertificateStatus {
                identity: credentials.identity().short(),
                fingerprint: credentials.fingerprint().to_owned(),
                not_before_ms: credentials.not_before(),
                not_after_ms: credentials.not_after(),
            },
            revocation_lists: revocation_lists.collect(),
            policy: PolicyStatus {
                file: self.config.policy_file().display().to_string(),
                loaded_at_ms: loaded_at,
                sha256: materials.policy.sha256().to_owned(),
                rules: materials.policy.rules().len(),
            },
            facts: FactsStatus {
                collected_at_ms: facts.collected_at,
                count: facts.values.len(),
                errors: facts.errors.len(),
            },
            plugins: plugins.registry.installed().into_iter().map(|it| (it.name.to_string(), it.version)).collect(),
            requests,
            requests_count,
            queues,
            counters: self.counters.all(),
            refused: self.pulse.refused(),
            tasks: self.tasks.counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            stalled_ms: self.pulse.stalled_ms(),
            problems: self.problems(),
            held: look.held,
            memory_bytes: resident_bytes().unwrap_or(0),
            log: Vec::new(),
        }
    }
}

fn connection(core: &Core, look: &mut Look) -> ConnectionStatus {
    let trouble = look.at("connection", &core.pulse.trouble).map(|guard| guard.clone()).unwrap_or_default();
    match &*core.connection.borrow() {
        Connection::Connecting { why } => ConnectionStatus::Connecting {
            since_ms: trouble.since,
            tries: trouble.tries,
            why: why.clone(),
            next_try_ms: trouble.next_try,
        },
        Connection::Online { broker, since } => {
            ConnectionStatus::Online { broker: broker.clone(), since_ms: *since, last_error: trouble.last }
        }
        Connection::Stopping => ConnectionStatus::Stopping,
    }
}

fn requests(core: &Core, look: &mut Look) -> (Vec<RequestStatus>, usize) {
    let detached = detached(core, look).unwrap_or_default();
    let mut requests: Vec<RequestStatus> = look
        .at("running", &core.running)
        .map(|running| running.iter().map(|(id, it)| request(id, it, detached.get(id))).collect())
        .unwrap_or_default();
    if let Some(at_hand) = look.at("message", &core.pulse.at_hand).and_then(|guard| guard.clone()) {
        requests.push(RequestStatus {
            id: at_hand.id.to_string(),
            caller: at_hand.caller.short(),
            action: at_hand.action,
            phase: at_hand.phase,
            since_ms: at_hand.since,
            time_limit_ms: None,
            detached: false,
            ended: None,
        });
    }
    requests.sort_by_key(|request| request.since_ms);
    let count = requests.len();
    requests.truncate(REQUESTS_MAX);
    (requests, count)
}

/// An action in a process of its own.
struct Detached {
    state: State,
    /// How it ended, if its last report is not made yet.
    untold: Option<EndedStatus>,
}

fn detached(core: &Core, look: &mut Look) -> Option<BTreeMap<RequestId, Detached>> {
    let of = |live: &Live| {
        let state = live.state();
        let is_untold = matches!(state, State::Ended | State::Telling);
        let end = live.end().filter(|_| is_untold);
        Detached { state, untold: end.map(|end| EndedStatus { at_ms: end.at, code: end.code }) }
    };
    Some(look.at("detached", &core.detached)?.iter().map(|(id, live)| (*id, of(live))).collect())
}

fn request(id: &RequestId, running: &Running, detached: Option<&Detached>) -> RequestStatus {
    let is_told_to_stop = running.stop.borrow().is_some();
    let phase = match detached.map(|detached| &detached.state) {
        _ if running.ended => Phase::Reporting,
        Some(State::Closing { .. } | State::Ended | State::Telling | State::Told) => Phase::Reporting,
        _ if is_told_to_stop => Phase::Stopping,
        Some(State::Starting { .. }) => Phase::Starting,
        Some(State::Working { .. }) | None => Phase::Running,
    };
    RequestStatus {
        id: id.to_string(),
        caller: running.action.caller.short(),
        action: running.action.action.clone(),
        phase,
        since_ms: running.since,
        time_limit_ms: Some(u64::try_from(running.time_limit.as_millis()).unwrap_or(u64::MAX)),
        detached: detached.is_some(),
        ended: detached.and_then(|detached| detached.untold.clone()),
    }
}

fn queues(core: &Core, look: &mut Look) -> QueueStatus {
    let mut queues = QueueStatus {
        spool: None,
        spool_on_disk: None,
        ends_untold: None,
        spool_next_try_s: None,
        journal: None,
        results: None,
        audit_lines: None,
        profiles_due: Some(core.profiles_due.len()),
    };
    queues.ends_untold =
        detached(core, look).map(|all| all.values().filter(|detached| detached.untold.is_some()).count());
    if let Some(spool) = look.at("spool", &core.spool) {
        queues.spool = Some(Used {
            count: spool.len(),
            count_max: Some(spool::REPORTS_MAX),
            bytes: u64::try_from(spool.bytes()).ok(),
            bytes_max: u64::try_from(spool::BYTES_MAX).ok(),
        });
        queues.spool_on_disk = Some(spool.on_disk());
        let wait = spool.next_retry().map(|at| at.saturating_duration_since(Instant::now()));
        queues.spool_next_try_s = wait.map(|wait| wait.as_secs());
    }
    if let Some(journal) = look.at("journal", &core.journal) {
        let used = |kind: Kind| Used {
            count: journal.held(kind),
            count_max: Some(kind.budget()),
            bytes: None,
            bytes_max: None,
        };
        let kinds = [("change", Kind::Change), ("read", Kind::Read), ("refusal", Kind::Refusal)];
        queues.journal = Some(kinds.into_iter().map(|(name, kind)| (name.to_owned(), used(kind))).collect());
    }
    if let Some(results) = look.at("results", &core.results) {
        queues.results = Some(Used {
            count: results.len(),
            count_max: None,
            bytes: Some(results.bytes()),
            bytes_max: Some(core.config.results().bytes_max),
        });
    }
    if let Some(audit) = look.at("audit log", &core.audit) {
        queues.audit_lines = Some(audit.head().0);
    }
    queues
}

/// Seconds between two moments, not negative.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since_ms(from) / 1000).unwrap_or(0)
}
