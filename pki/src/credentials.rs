//! A program's own certificate and key.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::envelope::pre_authentication_encoding;
use muster_protocol::{GroupName, Identity, Signature, Timestamp};

use crate::certificate::Certificate;
use crate::key::PrivateKey;
use crate::{PkiError, file};

/// A certificate together with its private key: who this program is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    certificate: Certificate,
    identity: Identity,
    groups: BTreeSet<GroupName>,
    key: PrivateKey,
    /// The leaf as it goes into every signature.
    chain: Vec<String>,
}

impl Credentials {
    /// Loads a certificate (PEM or DER, the first one in the file) and its key.
    ///
    /// # Errors
    /// When a file is unreadable, the key is open to group or others, the two do not belong together,
    /// or the certificate names no identity.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let object = format!("certificate `{}`", certificate.display());
        let parsed = Certificate::load(certificate)?;
        let private = PrivateKey::load(key)?;
        if parsed.public_key() != Some(&private.public()) {
            return Err(PkiError::KeyMismatch { key: key.to_owned(), certificate: certificate.to_owned() });
        }
        Self::new(parsed, private, &object)
    }

    /// Joins a certificate and a key that are in memory. `object` names the certificate in errors.
    ///
    /// # Errors
    /// When they do not belong together or the certificate names no identity.
    pub fn new(certificate: Certificate, key: PrivateKey, object: &str) -> Result<Self, PkiError> {
        if certificate.public_key() != Some(&key.public()) {
            return Err(PkiError::malformed(object, "the key belongs to another certificate"));
        }
        let named = |source| PkiError::Identity { object: object.to_owned(), source };
        let identity = certificate.identity().map_err(named)?;
        let groups = certificate.groups().map_err(named)?;
        let chain = vec![BASE64.encode(certificate.der())];
        Ok(Self { inner: Arc::new(Inner { certificate, identity, groups, key, chain }) })
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Its groups.
    #[must_use]
    pub fn groups(&self) -> &BTreeSet<GroupName> {
        &self.inner.groups
    }

    /// SHA-256 of the certificate's DER, lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.inner.certificate.fingerprint()
    }

    /// First moment of the certificate's validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.inner.certificate.not_before()
    }

    /// Last second of the certificate's validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.inner.certificate.not_after()
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.inner.certificate
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.inner.key
    }

    /// Signs `body` as a message of type `payload_type` (the AMQP content type).
    #[must_use]
    pub fn sign(&self, payload_type: &str, body: &[u8]) -> Signature {
        let signature = self.inner.key.sign(&pre_authentication_encoding(payload_type, body));
        Signature {
            keyid: self.fingerprint().to_owned(),
            sig: BASE64.encode(signature),
            chain: self.inner.chain.clone(),
        }
    }

    /// Writes certificate and key into new files; the key with mode 0600.
    ///
    /// # Errors
    /// When a file exists or cannot be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        file::must_not_exist(certificate)?;
        self.inner.key.save(key)?;
        file::create(certificate, file::PUBLIC, self.inner.certificate.to_pem().as_bytes())
    }
}
