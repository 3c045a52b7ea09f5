//! The protocol's version: `muster/1`.

use serde::{Deserialize, Serialize};

/// The version a message is written in. Additions keep it; a change that an old reader would get
/// wrong makes `muster/2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ProtocolVersion {
    /// `muster/1`
    V1,
    /// A version this program does not speak, kept so that a refusal can name it.
    Unknown(String),
}

impl From<String> for ProtocolVersion {
    fn from(text: String) -> Self {
        if text == "muster/1" { Self::V1 } else { Self::Unknown(text.chars().take(32).collect()) }
    }
}

impl From<ProtocolVersion> for String {
    fn from(version: ProtocolVersion) -> String {
        match version {
            ProtocolVersion::V1 => "muster/1".to_owned(),
            ProtocolVersion::Unknown(text) => text,
        }
    }
}
