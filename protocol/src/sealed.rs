//! Arguments that only the target hosts can read: their layout. `muster-pki` seals and opens them.
//!
//! The values, a JSON object, are encrypted once to a key pair made for this command alone; the private
//! half of it is encrypted to each host's own sealing key. Both are HPKE in base mode (RFC 9180) with
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305, single shot. The context that both are bound to
//! ([`SealingContext`]) holds the request, its caller and the action, so that nobody can lift a sealed
//! value out of one command into another of his own.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::Target;
use crate::decode::MessageError;
use crate::id::RequestId;
use crate::limits::{SEALED_BYTES_MAX, SEALED_NAMES_MAX, SEALED_RECIPIENTS_MAX};
use crate::name::{ActionName, HostName, Identity, PluginName};

/// What an HPKE operation gives: the encapsulated key and the ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBox {
    /// Encapsulated key, 32 bytes, standard base64.
    pub encapsulated: String,
    /// Ciphertext with its 16 byte tag, standard base64.
    pub ciphertext: String,
}

/// The command's private key, for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// Which of the host's sealing keys it was sealed to: the first 16 hexadecimal digits of the SHA-256
    /// of the public key.
    pub key_id: String,
    /// The sealed private key.
    pub sealed: SealedBox,
}

/// Secret arguments of one command, for all its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedArguments {
    /// The names of the arguments inside, for the DDL, the policy and the audit log.
    pub names: BTreeSet<String>,
    /// The public half of the command's key pair, 32 bytes, standard base64.
    pub public_key: String,
    /// The values, a JSON object, sealed to `public_key`.
    pub values: SealedBox,
    /// The private half, sealed to each host.
    pub recipients: BTreeMap<HostName, SealedKey>,
}

/// What sealed arguments are bound to.
#[derive(Debug, Clone, Copy)]
pub struct SealingContext<'a> {
    /// The command's id.
    pub request_id: RequestId,
    /// Who asks.
    pub caller: &'a Identity,
    /// The plugin.
    pub plugin: &'a PluginName,
    /// Its action.
    pub action: &'a ActionName,
}

impl SealingContext<'_> {
    /// The `aad` of the values: request, caller and action, one a line. No name holds a line break.
    #[must_use]
    pub fn values(&self) -> Vec<u8> {
        format!("{}\n{}\n{}.{}", self.request_id, self.caller, self.plugin, self.action).into_bytes()
    }

    /// The `aad` of the key for one host: the same, then the host.
    #[must_use]
    pub fn key(&self, host: &HostName) -> Vec<u8> {
        let mut bytes = self.values();
        bytes.push(b'\n');
        bytes.extend_from_slice(host.as_str().as_bytes());
        bytes
    }
}

/// HPKE's `info` for the values.
pub const INFO_VALUES: &[u8] = b"muster/1 sealed arguments: values";

/// HPKE's `info` for the key of a host.
pub const INFO_KEY: &[u8] = b"muster/1 sealed arguments: key";

impl SealedBox {
    /// The decoded parts, encapsulated key first.
    #[must_use]
    pub fn decoded(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((BASE64.decode(&self.encapsulated).ok()?, BASE64.decode(&self.ciphertext).ok()?))
    }

    /// Writes the parts down.
    #[must_use]
    pub fn encode(encapsulated: &[u8], ciphertext: &[u8]) -> Self {
        Self { encapsulated: BASE64.encode(encapsulated), ciphertext: BASE64.encode(ciphertext) }
    }
}

impl SealedArguments {
    /// What a reader may rely on: bounded, no name twice in the command, a target of names that all have a key.
    pub(crate) fn check(&self, arguments: &Map<String, Value>, target: &Target) -> Result<(), MessageError> {
        let wrong = |why: &str| Err(MessageError::invalid("sealed", why));
        if self.names.is_empty() || self.names.len() > SEALED_NAMES_MAX {
            return wrong("names no argument, or more than 32");
        }
        if self.values.ciphertext.len() > SEALED_BYTES_MAX {
            return wrong("has values of more than 256 KiB");
        }
        if self.recipients.len() > SEALED_RECIPIENTS_MAX {
            return wrong("has more than 1000 recipients");
        }
        if self.names.iter().any(|name| arguments.contains_key(name)) {
            return wrong("names an argument that is also there in the open");
        }
        if target.hosts.is_empty() || !target.hosts.iter().all(|host| self.recipients.contains_key(host)) {
            return wrong("is not sealed to every host of a target of names");
        }
        Ok(())
    }
}
