//! What plugins may see of the agent.

use std::path::Path;
use std::sync::Arc;

use muster_pki::time_text::utc;
use muster_plugin_api::{AgentStatus, HostView, PluginStore, RevocationList};
use muster_protocol::{HostName, Inventory, Timestamp};
use serde_json::{Map, Value};

use crate::core::{Connection, Core, lock};

impl HostView for Core {
    fn host(&self) -> &HostName {
        &self.host
    }

    fn now(&self) -> Timestamp {
        Self::now(self)
    }

    fn facts(&self) -> Arc<Map<String, Value>> {
        self.facts.current().values.clone()
    }

    fn inventory(&self) -> Arc<Inventory> {
        lock(&self.inventory).inventory.clone()
    }

    fn inventory_digest(&self) -> String {
        lock(&self.inventory).digest.clone()
    }

    fn work_directory(&self) -> &Path {
        &self.work_directory
    }

    fn sealing_key(&self) -> Option<String> {
        Some(self.sealing_key.public().to_string())
    }

    fn plugin_store(&self) -> Option<&dyn PluginStore> {
        Some(self)
    }

    fn agent_version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn agent_status(&self) -> AgentStatus {
        let (broker, connected_at_ms) = match &*self.connection.borrow() {
            Connection::Online { broker, since } => (broker.clone(), Some(*since)),
            Connection::Connecting { .. } | Connection::Stopping => (String::new(), None),
        };
        let mut counters = self.counters.all();
        counters.insert("journal_entries".to_owned(), lock(&self.journal).len() as u64);
        let (audit_lines, audit_head) = {
            let audit = lock(&self.audit);
            let (sequence, hash) = audit.head();
            (sequence, format!("{sequence}:{hash}"))
        };
        counters.insert("audit_lines".to_owned(), audit_lines);
        let materials = self.materials();
        let lists = materials.trust.crl_info().into_iter();
        let revocation_lists = lists.map(|list| RevocationList { issuer: list.issuer, number: list.number });
        AgentStatus {
            version: self.agent_version(),
            started_at_ms: self.started_at,
            broker,
            connected_at_ms,
            memory_bytes: resident_bytes().unwrap_or(0),
            running_actions: lock(&self.running).len() as u64,
            spooled_reports: lock(&self.spool).len() as u64,
            counters,
            problems: self.problems(),
            audit_head,
            policy_sha256: materials.policy.sha256().to_owned(),
            revocation_lists: revocation_lists.collect(),
        }
    }
}

impl Core {
    /// What does not work and has no end of its own.
    pub(crate) fn problems(&self) -> Vec<String> {
        let facts = self.facts.current();
        let mut problems: Vec<String> = facts.errors.iter().map(ToString::to_string).collect();
        problems.extend(self.plugin_problems());
        let now = Self::now(self);
        let materials = self.materials();
        let not_after = materials.credentials.not_after();
        if not_after.since_ms(now) < CERTIFICATE_WARNING_MS {
            problems.push(format!("the certificate of this host ends at {}", utc(not_after)));
        }
        for list in materials.trust.crl_info().iter().filter(|list| list.is_stale(now)) {
            let due = utc(list.next_update);
            problems.push(format!("revocation list {} should have been replaced by {due}", list.number));
        }
        problems
    }
}

/// From when on the end of the host's certificate is a problem: time enough to renew it by hand.
const CERTIFICATE_WARNING_MS: i64 = 21 * 24 * 60 * 60 * 1000;

/// Memory of this process, from the kernel (proc(5), `statm`).
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page_bytes).ok()?)
}
