//! What a certificate says, read from its DER. Reading is not trusting: see [`crate::Trust`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use muster_protocol::{GroupName, Identity, NameError, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::key::{PublicKey, hex, sha256_hex};
use crate::{PkiError, file, pem};

/// What every name of ours in a certificate begins with.
pub const SCHEME: &str = "muster:";
/// What a group's name in a certificate begins with.
pub const GROUP_PREFIX: &str = "muster:group/";
/// Most groups in one certificate: the chain of a signature must stay small.
pub const GROUPS_MAX: usize = 16;

/// Why a certificate names nobody we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No SAN URI at all.
    #[error("it has no URI in its subject alternative name")]
    Missing,
    /// The first URI is something else.
    #[error("its first URI `{first}` is not a muster identity")]
    NotFirst {
        /// The first URI, control characters escaped.
        first: String,
    },
    /// More than one identity, or an identity and something unknown of ours.
    #[error("it names `{second}` besides its identity, which is neither a group nor allowed")]
    Second {
        /// The other name, control characters escaped.
        second: String,
    },
    /// A kind or name that is not in the grammar.
    #[error("its identity is not one we know")]
    Name {
        /// What is wrong.
        #[source]
        source: NameError,
    },
    /// More groups than a certificate may have.
    #[error("it has {count} groups; at most {GROUPS_MAX} are allowed")]
    TooManyGroups {
        /// How many it has.
        count: usize,
    },
}

/// A certificate's contents.
#[derive(Debug, Clone)]
pub struct Certificate {
    der: Vec<u8>,
    fingerprint: String,
    serial: Vec<u8>,
    subject: String,
    issuer: String,
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: Option<PublicKey>,
    uris: Vec<String>,
    dns_names: Vec<String>,
    ip_addresses: Vec<IpAddr>,
    authority: bool,
    digital_signature: bool,
    client_auth: bool,
    server_auth: bool,
}

impl Certificate {
    /// Reads one DER certificate. `object` names it in errors.
    ///
    /// # Errors
    /// When it is not a certificate of RFC 5280.
    pub fn from_der(der: &[u8], object: &str) -> Result<Self, PkiError> {
        let wrong = |why: String| PkiError::malformed(object, why);
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| wrong(format!("not X.509: {error}")))?;
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes follow the certificate", rest.len())));
        }
        let mut uris = Vec::new();
        let mut dns_names = Vec::new();
        let mut ip_addresses = Vec::new();
        let names = parsed.subject_alternative_name().map_err(|error| wrong(format!("its names: {error}")))?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => dns_names.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => ip_addresses.push(
                    ip_address(bytes).ok_or_else(|| wrong("an IP address with neither 4 nor 16 bytes".to_owned()))?,
                ),
                _ => {}
            }
        }
        let purposes = parsed.extended_key_usage().map_err(|error| wrong(format!("its purposes: {error}")))?;
        let usage = parsed.key_usage().map_err(|error| wrong(format!("its key usage: {error}")))?;
        let key = parsed.public_key();
        let ed25519 = key.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519;
        Ok(Self {
            der: der.to_vec(),
            fingerprint: sha256_hex(der),
            serial: serial_number(parsed.raw_serial()).to_vec(),
            subject: printable(&parsed.subject().to_string()),
            issuer: printable(&parsed.issuer().to_string()),
            not_before: Timestamp(parsed.validity().not_before.timestamp().saturating_mul(1000)),
            not_after: Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000)),
            public_key: ed25519.then(|| PublicKey::from_bytes(&key.subject_public_key.data).ok()).flatten(),
            uris,
            dns_names,
            ip_addresses,
            authority: parsed.is_ca(),
            digital_signature: usage.is_some_and(|extension| extension.value.digital_signature()),
            client_auth: purposes.as_ref().is_some_and(|extension| extension.value.client_auth),
            server_auth: purposes.as_ref().is_some_and(|extension| extension.value.server_auth),
        })
    }

    /// Reads the first certificate of a PEM or DER file.
    ///
    /// # Errors
    /// When the file is unreadable or holds no certificate.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let object = format!("certificate `{}`", path.display());
        let all = pem::certificates(&file::read(path)?, path)?;
        Self::from_der(&all[0], &object)
    }

    /// Who it names: the first SAN URI, which must be the only identity.
    ///
    /// # Errors
    /// When there is none, it is not first, there are several, or its kind or name is unknown.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        self.names().map(|(identity, _)| identity)
    }

    /// The groups it names.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub fn groups(&self) -> Result<BTreeSet<GroupName>, IdentityError> {
        self.names().map(|(_, groups)| groups)
    }

    fn names(&self) -> Result<(Identity, BTreeSet<GroupName>), IdentityError> {
        let (first, rest) = self.uris.split_first().ok_or(IdentityError::Missing)?;
        if !first.starts_with(SCHEME) {
            return Err(IdentityError::NotFirst { first: escaped(first) });
        }
        let identity = Identity::try_from(first.clone()).map_err(|source| IdentityError::Name { source })?;
        let mut groups = BTreeSet::new();
        // A URI of another scheme says nothing to us; one of ours that we do not understand might matter.
        for uri in rest.iter().filter(|uri| uri.get(..SCHEME.len()).is_some_and(|it| it.eq_ignore_ascii_case(SCHEME))) {
            let Some(group) = uri.strip_prefix(GROUP_PREFIX) else {
                return Err(IdentityError::Second { second: escaped(uri) });
            };
            groups.insert(GroupName::new(group).map_err(|source| IdentityError::Name { source })?);
        }
        if groups.len() > GROUPS_MAX {
            return Err(IdentityError::TooManyGroups { count: groups.len() });
        }
        Ok((identity, groups))
    }

    /// The DER bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.der)
    }

    /// SHA-256 of the DER, lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The serial number, lower-case hexadecimal without leading zero bytes.
    #[must_use]
    pub fn serial(&self) -> String {
        hex(&self.serial)
    }

    /// The serial number as [`serial_number`] has it.
    pub(crate) fn serial_bytes(&self) -> &[u8] {
        &self.serial
    }

    /// The subject's distinguished name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The issuer's distinguished name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// First moment of validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Last second of validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The key, if it is Ed25519 and not of small order.
    #[must_use]
    pub fn public_key(&self) -> Option<&PublicKey> {
        self.public_key.as_ref()
    }

    /// DNS names, for brokers.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// IP addresses, for brokers.
    #[must_use]
    pub fn ip_addresses(&self) -> &[IpAddr] {
        &self.ip_addresses
    }

    /// Whether it is an authority's certificate (basic constraints).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.authority
    }

    /// Whether its key may sign (key usage `digitalSignature`).
    #[must_use]
    pub fn may_sign(&self) -> bool {
        self.digital_signature
    }

    /// Whether it is for clients and messages (extended key usage `clientAuth`).
    #[must_use]
    pub fn is_for_clients(&self) -> bool {
        self.client_auth
    }

    /// Whether it is for TLS servers (extended key usage `serverAuth`).
    #[must_use]
    pub fn is_for_servers(&self) -> bool {
        self.server_auth
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A name out of foreign bytes, fit for a message or a log.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().take(200).map(escape).collect()
}

fn escaped(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

/// The contents of a DER INTEGER without leading zero bytes. Certificates and revocation lists are compared in this
/// form: DER puts a zero byte before a number whose first byte is 80 or higher, so that it is not read as negative.
pub(crate) fn serial_number(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    integer.get(zeros..).unwrap_or_default()
}
