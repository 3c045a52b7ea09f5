//! What a plugin may see of the agent it runs in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use muster_protocol::{HostName, Inventory, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::PluginStore;

/// The agent as a plugin sees it. Every answer is a snapshot and cheap.
pub trait HostView: Send + Sync {
    /// The host's name.
    fn host(&self) -> &HostName;

    /// The time now, by the agent's clock.
    fn now(&self) -> Timestamp;

    /// The host's facts.
    fn facts(&self) -> Arc<Map<String, Value>>;

    /// Collectives, classes, plugins and facts.
    fn inventory(&self) -> Arc<Inventory>;

    /// Digest of the inventory, as in the agent's announcements.
    fn inventory_digest(&self) -> String;

    /// A directory for files that an action needs while it runs; only root can look into it. Whoever
    /// puts something there takes it away again.
    fn work_directory(&self) -> &Path;

    /// The public key to which secret arguments for this host are sealed, in the form that
    /// `muster-pki` writes; `None` where the agent has none.
    fn sealing_key(&self) -> Option<String>;

    /// The agent's plugins, where they can be changed: in the agent itself, and not in a process of an
    /// action's own.
    fn plugin_store(&self) -> Option<&dyn PluginStore> {
        None
    }

    /// How the agent itself is doing.
    fn agent_status(&self) -> AgentStatus;

    /// Version of the agent's program: of [`HostView::agent_status`], which costs much more, that alone.
    fn agent_version(&self) -> String {
        self.agent_status().version
    }
}

/// How an agent is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Version of the agent's program.
    pub version: String,
    /// When it started.
    pub started_at_ms: Timestamp,
    /// The broker it is connected to, without any secret; empty if it is not connected.
    pub broker: String,
    /// Since when it is connected.
    pub connected_at_ms: Option<Timestamp>,
    /// Memory that its process holds, in bytes.
    pub memory_bytes: u64,
    /// Actions that run now, the asking one included.
    pub running_actions: u64,
    /// Final reports on disk that the broker has not confirmed yet.
    pub spooled_reports: u64,
    /// What it has counted since its start, such as `commands_received` or `commands_refused`.
    pub counters: BTreeMap<String, u64>,
    /// What does not work and has no end of its own, such as facts that cannot be read; one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Head of the audit log, `NUMBER:HASH` of its last line: whoever keeps it elsewhere can prove later that the log
    /// was whole up to there.
    #[serde(default)]
    pub audit_head: String,
    /// SHA-256 of the policy in force, as `sha256sum` prints it for its file.
    #[serde(default)]
    pub policy_sha256: String,
    /// Revocation lists in force, one for each authority that has one.
    #[serde(default)]
    pub revocation_lists: Vec<RevocationList>,
}

/// A revocation list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// The authority.
    pub issuer: String,
    /// Its number; a newer list has a higher one.
    pub number: u64,
}
