//! What a runner knows of its host: files that the agent wrote, since a runner collects no facts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use muster_daemon::{Clock, write_atomic};
use muster_plugin_api::{AgentStatus, HostView};
use muster_protocol::{HostName, Inventory, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::directory::Order;

/// Beside the directories of the actions.
const FILE: &str = "host.json";

/// The host as the agent knew it when it last collected facts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFile {
    /// Facts, also those that change all the time.
    pub facts: Map<String, Value>,
    /// What the agent announces.
    pub inventory: Inventory,
    /// Its digest.
    pub inventory_digest: String,
    /// The public key that secrets are sealed to.
    pub sealing_key: Option<String>,
}

impl HostFile {
    /// Writes it for the runners to come.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, actions: &Path) -> std::io::Result<()> {
        write_atomic(&actions.join(FILE), 0o600, &serde_json::to_vec(self)?).map_err(Into::into)
    }
}

#[derive(Debug, Default)]
struct Loaded {
    facts: Arc<Map<String, Value>>,
    inventory: Arc<Inventory>,
    digest: String,
    sealing_key: Option<String>,
}

/// A [`HostView`] from files. The large one is read when somebody asks for what is in it.
pub(super) struct Snapshot {
    host: HostName,
    clock: Arc<dyn Clock>,
    file: PathBuf,
    loaded: OnceLock<Loaded>,
    work: PathBuf,
    status: AgentStatus,
}

impl Snapshot {
    pub(super) fn new(order: &Order, actions: &Path, work: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            host: order.host.clone(),
            clock,
            file: actions.join(FILE),
            loaded: OnceLock::new(),
            work,
            status: order.agent_status.clone(),
        }
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.get_or_init(|| match std::fs::read(&self.file).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(HostFile { facts, inventory, inventory_digest, sealing_key })) => {
                Loaded { facts: Arc::new(facts), inventory: Arc::new(inventory), digest: inventory_digest, sealing_key }
            }
            Ok(Err(error)) => {
                tracing::warn!(path = %self.file.display(), %error, "The host's facts cannot be read");
                Loaded::default()
            }
            Err(error) => {
                tracing::warn!(path = %self.file.display(), %error, "The host's facts cannot be read");
                Loaded::default()
            }
        })
    }
}

impl HostView for Snapshot {
    fn host(&self) -> &HostName {
        &self.host
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    fn facts(&self) -> Arc<Map<String, Value>> {
        self.loaded().facts.clone()
    }

    fn inventory(&self) -> Arc<Inventory> {
        self.loaded().inventory.clone()
    }

    fn inventory_digest(&self) -> String {
        self.loaded().digest.clone()
    }

    fn work_directory(&self) -> &Path {
        &self.work
    }

    fn sealing_key(&self) -> Option<String> {
        self.loaded().sealing_key.clone()
    }

    fn agent_status(&self) -> AgentStatus {
        self.status.clone()
    }
}
