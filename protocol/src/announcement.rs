//! What a host says of itself without being asked: that it is there, that it goes, what it has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::decode::{Message, MessageError};
use crate::envelope::PayloadType;
use crate::id::Timestamp;
use crate::name::{CollectiveName, HostName, PluginName};
use crate::version::ProtocolVersion;

/// Why a host announces itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AnnouncementKind {
    /// The agent has connected.
    Online,
    /// Still there; sent at an interval with jitter.
    Alive,
    /// The agent stops on purpose.
    Offline,
    /// Something a plugin watches has changed: see [`Announcement::profile`].
    Profile,
    /// A kind that a newer agent knows.
    Unknown(String),
}

impl From<String> for AnnouncementKind {
    fn from(word: String) -> Self {
        match word.as_str() {
            "online" => Self::Online,
            "alive" => Self::Alive,
            "offline" => Self::Offline,
            "profile" => Self::Profile,
            _ => Self::Unknown(word.chars().take(32).collect()),
        }
    }
}

impl From<AnnouncementKind> for String {
    fn from(kind: AnnouncementKind) -> String {
        match kind {
            AnnouncementKind::Online => "online".to_owned(),
            AnnouncementKind::Alive => "alive".to_owned(),
            AnnouncementKind::Offline => "offline".to_owned(),
            AnnouncementKind::Profile => "profile".to_owned(),
            AnnouncementKind::Unknown(word) => word,
        }
    }
}

/// Presence and inventory of one host. The inventory is left out while its digest has not changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Version of the protocol.
    pub protocol: ProtocolVersion,
    /// The host that speaks. Must be the identity of the signature.
    pub host: HostName,
    /// Why it speaks.
    pub kind: AnnouncementKind,
    /// When, by the host's clock.
    pub created_at_ms: Timestamp,
    /// When the agent started. With `created_at_ms` it orders announcements of one host.
    pub started_at_ms: Timestamp,
    /// Version of the agent's program.
    pub agent_version: String,
    /// Digest of the inventory: two announcements with the same digest have the same inventory.
    pub inventory_digest: String,
    /// What the host has, where it is news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// What has changed, in an announcement of kind `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The state of something that a plugin watches as a whole, such as all installed packages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The plugin that made it.
    pub plugin: PluginName,
    /// Which of its profiles, such as `packages` or `repositories`.
    pub name: String,
    /// Digest of `data`: two profiles with the same digest say the same.
    pub digest: String,
    /// What there is, in the plugin's own layout.
    pub data: Value,
}

/// What a host has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The collectives it listens to.
    #[serde(default)]
    pub collectives: BTreeSet<CollectiveName>,
    /// Its configuration classes.
    #[serde(default)]
    pub classes: BTreeSet<String>,
    /// The plugins it can run.
    #[serde(default)]
    pub plugins: Vec<InstalledPlugin>,
    /// Its facts.
    #[serde(default)]
    pub facts: Map<String, Value>,
}

/// One plugin on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstalledPlugin {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: String,
}

impl Message for Announcement {
    const TYPE: PayloadType = PayloadType::Announcement;

    fn check(&self) -> Result<(), MessageError> {
        if self.inventory_digest.len() > 128 {
            return Err(MessageError::invalid("inventory_digest", "has more than 128 bytes"));
        }
        match (&self.kind, &self.profile) {
            (AnnouncementKind::Profile, None) => Err(MessageError::invalid("profile", "is missing")),
            (_, Some(profile)) if profile.name.len() > 64 || profile.digest.len() > 128 => {
                Err(MessageError::invalid("profile", "has a name of more than 64 or a digest of more than 128 bytes"))
            }
            _ => Ok(()),
        }
    }
}
