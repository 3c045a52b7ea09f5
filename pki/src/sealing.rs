//! Secret arguments: sealed by a controller so that only the target hosts can open them.
//!
//! The layout is [`muster_protocol::SealedArguments`]; the cryptography is HPKE (RFC 9180) as rustls
//! offers it over aws-lc, in base mode and single shot. It says nothing about who sealed: the signature
//! over the command that the sealed values stand in does.
//!
//! A host has one key pair for this and nothing else, made at its first start and kept in a file of mode
//! 0600. Its public half reaches controllers in a report that the host signs.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::{
    Code, HostName, INFO_KEY, INFO_VALUES, SealedArguments, SealedBox, SealedKey, SealingContext, code,
};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::PkiError;
use crate::key::sha256_hex;

/// What a public key's text begins with.
const PREFIX: &str = "x25519:";

/// First line of a key file.
const FILE_HEADER: &str = "muster sealing key 1";

/// Bytes of a key, private or public.
const KEY_BYTES: usize = 32;

/// Digits of a key's id.
const KEY_ID_DIGITS: usize = 16;

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// Not the text of a public key.
    #[error("`{text}` is not a sealing key; one is written `{PREFIX}` and 32 bytes in base64")]
    BadKey {
        /// The text.
        text: String,
    },
    /// The cryptographic library would not. It does not say why.
    #[error("seal the secret arguments")]
    SealFailed,
    /// The arguments were not sealed to this host at all.
    #[error("the secret arguments are not sealed to host `{host}`")]
    NotARecipient {
        /// This host.
        host: HostName,
    },
    /// They were sealed to another key of this host.
    #[error("the secret arguments are sealed to key {sealed_to}; this host's key is {present}")]
    OtherKey {
        /// The key's id in the command.
        sealed_to: String,
        /// The id of the key that the host has.
        present: String,
    },
    /// They were made for another command, or changed on the way.
    #[error("the secret arguments do not open: they were changed, or sealed for another command")]
    DoesNotOpen,
    /// What was inside is not what its label says.
    #[error("the secret arguments are not what their names say: {why}")]
    WrongContents {
        /// What is wrong, without any value.
        why: &'static str,
    },
}

impl SealingError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        match self {
            Self::BadKey { .. } => &code::MALFORMED,
            Self::SealFailed => &code::FAILED,
            Self::NotARecipient { .. } | Self::OtherKey { .. } | Self::DoesNotOpen | Self::WrongContents { .. } => {
                &code::CANNOT_UNSEAL
            }
        }
    }

    /// Never: the same bytes give the same answer. A new command, sealed to the host's present key, may open.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}

fn suite() -> &'static dyn Hpke {
    DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305
}

/// The public half of a host's sealing key. Its text is `x25519:` and 32 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingPublicKey([u8; KEY_BYTES]);

impl SealingPublicKey {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The first 16 hexadecimal digits of the key's SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        let mut digits = sha256_hex(&self.0);
        digits.truncate(KEY_ID_DIGITS);
        digits
    }

    fn hpke(&self) -> HpkePublicKey {
        HpkePublicKey(self.0.to_vec())
    }
}

impl fmt::Display for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublicKey({self})")
    }
}

impl FromStr for SealingPublicKey {
    type Err = SealingError;

    fn from_str(text: &str) -> Result<Self, SealingError> {
        let bytes = text.strip_prefix(PREFIX).and_then(|encoded| BASE64.decode(encoded).ok());
        bytes.and_then(|bytes| Self::from_bytes(&bytes)).ok_or_else(|| SealingError::BadKey {
            text: text.chars().take(80).flat_map(char::escape_default).collect(),
        })
    }
}

/// A host's sealing key.
pub struct SealingKey {
    private: Zeroizing<Vec<u8>>,
    public: SealingPublicKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SealingKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, SealingError> {
        let (public, private) = suite().generate_key_pair().map_err(|_| SealingError::SealFailed)?;
        let public = SealingPublicKey::from_bytes(&public.0).ok_or(SealingError::SealFailed)?;
        Ok(Self { private: Zeroizing::new(private.secret_bytes().to_vec()), public })
    }

    /// Reads the text of a key's file, which lies in `path`.
    ///
    /// # Errors
    /// When it holds no key: then leave the file as it is, since only whoever looks after the host can know what
    /// became of it.
    pub fn from_file_text(path: &Path, text: &[u8]) -> Result<Self, PkiError> {
        let wrong = |why: &str| PkiError::malformed("sealing key", format!("`{}`: {why}", path.display()));
        let text = std::str::from_utf8(text).map_err(|_| wrong("it is not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(FILE_HEADER) {
            return Err(wrong("it does not begin as a sealing key does"));
        }
        let mut bytes = || {
            let line = lines.next().unwrap_or_default();
            BASE64.decode(line).ok().filter(|bytes| bytes.len() == KEY_BYTES).map(Zeroizing::new)
        };
        let (Some(private), Some(public)) = (bytes(), bytes()) else {
            return Err(wrong("it holds no two keys of 32 bytes"));
        };
        let public = SealingPublicKey::from_bytes(&public).ok_or_else(|| wrong("the public half is no key"))?;
        let key = Self { private, public };
        if !key.halves_fit() {
            return Err(wrong("its two halves do not belong together"));
        }
        Ok(key)
    }

    fn halves_fit(&self) -> bool {
        let sealed = suite().seal(INFO_KEY, b"", b"probe", &self.public.hpke());
        let opened = sealed.and_then(|(encapsulated, ciphertext)| {
            suite().open(&encapsulated, INFO_KEY, b"", &ciphertext, &self.hpke())
        });
        opened.is_ok_and(|opened| opened == b"probe")
    }

    /// The text of the key's file, which nobody but the host may read (mode 0600).
    #[must_use]
    pub fn file_text(&self) -> Zeroizing<String> {
        let private = Zeroizing::new(BASE64.encode(&*self.private));
        Zeroizing::new(format!("{FILE_HEADER}\n{}\n{}\n", *private, BASE64.encode(self.public.0)))
    }

    fn hpke(&self) -> HpkePrivateKey {
        HpkePrivateKey::from(self.private.to_vec())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &SealingPublicKey {
        &self.public
    }

    /// Opens the secret arguments of a command for this host.
    ///
    /// # Errors
    /// When they are not for this host, this key or this command, or are not what their names say.
    pub fn open(
        &self,
        sealed: &SealedArguments,
        host: &HostName,
        context: &SealingContext<'_>,
    ) -> Result<Map<String, Value>, SealingError> {
        let recipient =
            sealed.recipients.get(host).ok_or_else(|| SealingError::NotARecipient { host: host.clone() })?;
        if recipient.key_id != self.public.id() {
            let sealed_to = recipient.key_id.chars().take(KEY_ID_DIGITS).flat_map(char::escape_default).collect();
            return Err(SealingError::OtherKey { sealed_to, present: self.public.id() });
        }
        let private = open(&recipient.sealed, INFO_KEY, &context.key(host), &self.hpke())?;
        // A wrong length would make the library panic or fail later; either way it is not our key pair's half.
        if private.len() != KEY_BYTES {
            return Err(SealingError::DoesNotOpen);
        }
        let values = open(&sealed.values, INFO_VALUES, &context.values(), &HpkePrivateKey::from(private.to_vec()))?;
        muster_protocol::check_bounds(&values)
            .map_err(|_| SealingError::WrongContents { why: "they nest too deep or are too large" })?;
        let values: Map<String, Value> = serde_json::from_slice(&values)
            .map_err(|_| SealingError::WrongContents { why: "they are not a JSON object" })?;
        if values.len() != sealed.names.len() || !sealed.names.iter().all(|name| values.contains_key(name)) {
            return Err(SealingError::WrongContents { why: "other arguments are inside" });
        }
        Ok(values)
    }
}

fn open(sealed: &SealedBox, info: &[u8], aad: &[u8], key: &HpkePrivateKey) -> Result<Zeroizing<Vec<u8>>, SealingError> {
    let (encapsulated, ciphertext) = sealed.decoded().ok_or(SealingError::DoesNotOpen)?;
    if encapsulated.len() != KEY_BYTES {
        return Err(SealingError::DoesNotOpen);
    }
    let opened = suite().open(&EncapsulatedSecret(encapsulated), info, aad, &ciphertext, key);
    opened.map(Zeroizing::new).map_err(|_| SealingError::DoesNotOpen)
}

/// Seals secret arguments to hosts.
///
/// # Errors
/// When the cryptographic library would not, as for a public key that is no point of the curve.
pub fn seal<'a>(
    values: &Map<String, Value>,
    context: &SealingContext<'_>,
    recipients: impl IntoIterator<Item = (&'a HostName, &'a SealingPublicKey)>,
) -> Result<SealedArguments, SealingError> {
    let once = SealingKey::generate()?;
    let text = Zeroizing::new(serde_json::to_vec(values).map_err(|_| SealingError::SealFailed)?);
    let put = |info: &[u8], aad: &[u8], plain: &[u8], key: &SealingPublicKey| {
        let sealed = suite().seal(info, aad, plain, &key.hpke());
        let (encapsulated, ciphertext) = sealed.map_err(|_| SealingError::SealFailed)?;
        Ok(SealedBox::encode(&encapsulated.0, &ciphertext))
    };
    let mut keys = std::collections::BTreeMap::new();
    for (host, key) in recipients {
        let sealed = put(INFO_KEY, &context.key(host), &once.private, key)?;
        keys.insert(host.clone(), SealedKey { key_id: key.id(), sealed });
    }
    Ok(SealedArguments {
        names: values.keys().cloned().collect(),
        public_key: BASE64.encode(once.public.0),
        values: put(INFO_VALUES, &context.values(), &text, &once.public)?,
        recipients: keys,
    })
}
