//! Somebody's signature over a pending command that lies elsewhere.

use muster_protocol::Signature;
use muster_protocol::limits::SIGNATURES_MAX;
use serde::{Deserialize, Serialize};

use super::error::PendingError;
use super::{COMMANDS_MAX, PENDING_BYTES_MAX};

/// One signature, and the bytes it is for. At rest one line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// SHA-256 of the command's bytes, lower-case hexadecimal. Only tells which command is meant; the signature proves it.
    #[serde(rename = "payloadSha256")]
    pub payload_sha256: String,
    /// The signature.
    pub signature: Signature,
}

impl Approval {
    /// The text of a file with these.
    #[must_use]
    pub fn to_bytes(approvals: &[Self]) -> Vec<u8> {
        let line = |one: &Self| serde_json::to_string(one).expect("an approval is plain strings") + "\n";
        approvals.iter().map(line).collect::<String>().into_bytes()
    }

    /// Whether a text looks like one of these, and not like a pending command. Says nothing about whether it is right.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        let beginning = &bytes[..bytes.len().min(64)];
        beginning.windows(15).any(|window| window == b"\"payloadSha256\"")
    }

    /// Reads them.
    ///
    /// # Errors
    /// Too large, too many, or not of this form.
    pub fn read(bytes: &[u8]) -> Result<Vec<Self>, PendingError> {
        if bytes.len() > PENDING_BYTES_MAX {
            return Err(PendingError::TooLarge { bytes: bytes.len() });
        }
        let mut found = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let bad = |why: String| PendingError::Malformed { number: index + 1, why };
            if index >= COMMANDS_MAX * SIGNATURES_MAX {
                return Err(bad("there are too many".to_owned()));
            }
            found.push(serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?);
        }
        if found.is_empty() { Err(PendingError::Empty) } else { Ok(found) }
    }
}
