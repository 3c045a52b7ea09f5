//! Certificate revocation lists (RFC 5280 section 5): reading, checking, and what they say.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use muster_protocol::Timestamp;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::certificate::{printable, serial_number};
use crate::key::PublicKey;
use crate::time_text::days_left;
use crate::{PkiError, pem};

/// How long a list is meant to be the newest, in days.
pub const CRL_DAYS_DEFAULT: u32 = 30;

/// Why a certificate was revoked. The reasons of RFC 5280 section 5.3.1 that fit a closed CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Not said.
    #[default]
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Groups or name are not right any more.
    AffiliationChanged,
    /// A newer certificate took its place.
    Superseded,
    /// The host, person or service is gone.
    CessationOfOperation,
    /// It may not do this any more.
    PrivilegeWithdrawn,
}

impl Reason {
    /// All reasons, for help texts and tests.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The reason in words joined by dashes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    pub(crate) fn in_list(self) -> Option<rcgen::RevocationReason> {
        match self {
            // RFC 5280 section 5.3.1: leave the entry out rather than write `unspecified`.
            Self::Unspecified => None,
            Self::KeyCompromise => Some(rcgen::RevocationReason::KeyCompromise),
            Self::AffiliationChanged => Some(rcgen::RevocationReason::AffiliationChanged),
            Self::Superseded => Some(rcgen::RevocationReason::Superseded),
            Self::CessationOfOperation => Some(rcgen::RevocationReason::CessationOfOperation),
            Self::PrivilegeWithdrawn => Some(rcgen::RevocationReason::PrivilegeWithdrawn),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| PkiError::BadValue {
            what: "reason",
            given: text.to_owned(),
            expected: "unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation or privilege-withdrawn",
        })
    }
}

/// What a revocation list says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlInfo {
    /// The distinguished name of the authority.
    pub issuer: String,
    /// Its number; a newer list of the same authority has a higher one.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When a newer one should be there. The list stays in force after it.
    pub next_update: Timestamp,
    /// How many certificates it revokes.
    pub revoked: usize,
}

impl CrlInfo {
    /// Whether a newer list should have arrived by `now`. A stale list is still enforced; it is a
    /// reason to warn, because newer revocations may be missing.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now > self.next_update
    }

    /// Whole days until it becomes stale; negative afterwards.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        days_left(self.next_update, now)
    }
}

/// What became of a list that was handed to [`crate::Trust::install_crl`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlStatus {
    /// Whether the list is new; `false` if it was in force already.
    pub changed: bool,
    /// Whether it should have been replaced by a newer one by now.
    pub stale: bool,
    /// The list in force.
    pub info: CrlInfo,
}

/// Reads what a list (PEM or DER, the first one) says about itself, without asking who signed it. `object` names it
/// in errors.
///
/// # Errors
/// When it is not a revocation list.
pub fn inspect(bytes: &[u8], object: &str) -> Result<CrlInfo, PkiError> {
    let ders = pem::crls(bytes, object)?;
    Crl::peek(&ders[0], object)
}

/// A list whose signature was checked against its authority's key.
pub(crate) struct Crl {
    pub(crate) info: CrlInfo,
    pub(crate) der: Vec<u8>,
    /// The serials on it, as [`serial_number`] has them.
    revoked: HashSet<Vec<u8>>,
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Crl {
    /// Reads what the list says, without asking who signed it.
    pub(crate) fn peek(der: &[u8], object: &str) -> Result<CrlInfo, PkiError> {
        parse(der, object).map(|(_, info)| info)
    }

    /// Reads a list and checks that the authority with this `subject` (raw DER name) and `key` signed it.
    pub(crate) fn check(der: &[u8], subject: &[u8], key: &PublicKey, object: &str) -> Result<Self, PkiError> {
        let (parsed, info) = parse(der, object)?;
        let foreign = || PkiError::ForeignCrl { issuer: info.issuer.clone() };
        if parsed.tbs_cert_list.issuer.as_raw() != subject {
            return Err(foreign());
        }
        let ed25519 = x509_parser::oid_registry::OID_SIG_ED25519;
        if parsed.signature_algorithm.algorithm != ed25519
            || !key.verifies(parsed.tbs_cert_list.as_ref(), &parsed.signature_value.data)
        {
            return Err(foreign());
        }
        let unreadable =
            |error: webpki::Error| PkiError::malformed(object, format!("not a whole revocation list: {error}"));
        let list = webpki::BorrowedCertRevocationList::from_der(der).map_err(unreadable)?;
        // An entry that cannot be read makes the whole list unusable: it might be the one that matters.
        let revoked = (&list)
            .into_iter()
            .map(|entry| entry.map(|entry| serial_number(entry.serial_number).to_vec()))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        let list = webpki::CertRevocationList::from(list);
        if list.issuing_distribution_point().is_some() {
            return Err(PkiError::malformed(object, "it covers only a part of the certificates"));
        }
        Ok(Self { info, der: der.to_vec(), revoked })
    }

    /// Whether the serial, as [`serial_number`] has it, is on the list.
    pub(crate) fn revokes(&self, serial: &[u8]) -> bool {
        self.revoked.contains(serial)
    }
}

fn parse<'a>(der: &'a [u8], object: &str) -> Result<(CertificateRevocationList<'a>, CrlInfo), PkiError> {
    let wrong = |why: String| PkiError::malformed(object, why);
    let (rest, parsed) =
        CertificateRevocationList::from_der(der).map_err(|error| wrong(format!("not a revocation list: {error}")))?;
    if !rest.is_empty() {
        return Err(wrong(format!("{} bytes follow the list", rest.len())));
    }
    let number = parsed.crl_number().ok_or_else(|| wrong("it has no number".to_owned()))?;
    let number = u64::try_from(number).map_err(|_| wrong("its number has more than 64 bits".to_owned()))?;
    let next_update = parsed.next_update().ok_or_else(|| wrong("it has no time of the next update".to_owned()))?;
    let info = CrlInfo {
        issuer: printable(&parsed.issuer().to_string()),
        number,
        this_update: Timestamp(parsed.last_update().timestamp().saturating_mul(1000)),
        next_update: Timestamp(next_update.timestamp().saturating_mul(1000)),
        revoked: parsed.iter_revoked_certificates().count(),
    };
    Ok((parsed, info))
}
