//! What the plugin `plugin` needs of the agent: the plugins there are, and putting others in place.

use muster_protocol::PluginName;
use serde::{Deserialize, Serialize};

use crate::action::ActionFailure;
use crate::plugin::BoxFuture;

/// One plugin of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: String,
    /// `muster` for a built-in one, `external` for a program of its own.
    pub provider: String,
    /// The configured directory in which it is; null for a built-in one.
    pub directory: Option<String>,
    /// Whether it can work on the host.
    pub activated: bool,
    /// Why not; null if it can.
    pub reason: Option<String>,
    /// SHA-256 of the pack it came from; null where it came from none.
    pub sha256: Option<String>,
    /// Who had signed that pack.
    pub signed_by: Vec<String>,
    /// Whether its files are not the pack's any more.
    pub modified: bool,
}

/// What installing a pack did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// The plugin.
    pub name: PluginName,
    /// Its version now.
    pub version: String,
    /// `installed`, `upgraded`, `downgraded`, `replaced` or `unchanged`.
    pub change: String,
    /// The version before, if it was another one.
    pub previous_version: Option<String>,
    /// SHA-256 of the pack.
    pub sha256: String,
    /// Who signed it.
    pub signed_by: Vec<String>,
    /// The files.
    pub files: Vec<String>,
    /// Whether it can work on the host; null where nothing was done.
    pub activated: Option<bool>,
    /// Why it cannot.
    pub reason: Option<String>,
}

/// What removing a plugin did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveReport {
    /// The plugin.
    pub name: PluginName,
    /// The version that was there.
    pub version: String,
    /// `removed`.
    pub change: String,
}

/// The plugins of an agent, to be looked at and changed while it runs.
pub trait PluginStore: Send + Sync {
    /// All plugins, by name, and what is wrong with files that should be some.
    fn list(&self) -> BoxFuture<'_, (Vec<PluginRecord>, Vec<String>)>;

    /// Puts a pack in place and has the agent use it. With `noop` only says what would change. Older
    /// versions, and other content of the same version, need `allow_any`.
    ///
    /// # Errors
    /// The pack is not accepted, or cannot be put in place.
    fn install(
        &self,
        pack: Vec<u8>,
        allow_any: bool,
        noop: bool,
    ) -> BoxFuture<'_, Result<InstallReport, ActionFailure>>;

    /// Takes away a plugin that came from a pack, and has the agent do without it.
    ///
    /// # Errors
    /// There is none, or it did not come from a pack.
    fn remove(&self, name: PluginName, noop: bool) -> BoxFuture<'_, Result<RemoveReport, ActionFailure>>;
}
