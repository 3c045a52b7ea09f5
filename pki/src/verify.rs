//! What comes out of checking a message's signatures.

use std::collections::BTreeSet;

use muster_protocol::{Code, GroupName, Identity, Timestamp, code};

use crate::certificate::IdentityError;
use crate::time_text::utc;

/// Who signed a message: checked, not claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The identity in the certificate.
    pub identity: Identity,
    /// The groups in the certificate.
    pub groups: BTreeSet<GroupName>,
    /// SHA-256 of the certificate's DER, lower-case hexadecimal.
    pub fingerprint: String,
    /// Last second of the certificate's validity.
    pub not_after: Timestamp,
}

/// Who shows a certificate on a connection: checked, not claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The identity in the certificate: a host, a user or a service.
    pub identity: Identity,
    /// SHA-256 of the certificate's DER, lower-case hexadecimal.
    pub fingerprint: String,
    /// The earlier of the certificate's and its authority's last second.
    pub valid_until: Timestamp,
}

/// Why a message is not accepted as signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is no signature.
    #[error("the message carries no signature")]
    Unsigned,
    /// A signature that cannot be read.
    #[error("signature {number} cannot be read: {why}")]
    Malformed {
        /// Which signature, counted from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// The same identity signed twice, which would count as two people.
    #[error("`{}` signed more than once", identity.short())]
    Repeated {
        /// Who.
        identity: Box<Identity>,
    },
    /// Two identities signed with one key, so one hand would count as two people.
    #[error("`{}` and `{}` signed with the same key", first.short(), second.short())]
    SharedKey {
        /// Who signed first.
        first: Box<Identity>,
        /// Who signed with the same key after that.
        second: Box<Identity>,
    },
    /// The signature does not fit message, type and key.
    #[error("the signature in the name of `{}` does not fit the message", identity.short())]
    BadSignature {
        /// In whose name; the certificate is right, the signature is not.
        identity: Box<Identity>,
    },
    /// The certificate does not come from our authority or is not made for signing messages.
    #[error("certificate {fingerprint} is not trusted: {why}")]
    Untrusted {
        /// The first digits of the certificate's fingerprint.
        fingerprint: String,
        /// What is wrong with it.
        why: String,
    },
    /// After the end of the certificate's validity, or of its authority's.
    #[error("the certificate of `{}` expired at {}; here it is {}", identity.short(), utc(*not_after), utc(*now))]
    Expired {
        /// Whose certificate.
        identity: Box<Identity>,
        /// Its last second.
        not_after: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// Before the beginning of the certificate's validity.
    #[error("the certificate of `{}` is not valid before {}; here it is {}", identity.short(), utc(*not_before), utc(*now))]
    NotYetValid {
        /// Whose certificate.
        identity: Box<Identity>,
        /// Its first second.
        not_before: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// On the authority's revocation list.
    #[error("certificate {serial} of `{}` is revoked", identity.short())]
    Revoked {
        /// Whose certificate.
        identity: Box<Identity>,
        /// Its serial.
        serial: String,
    },
    /// The certificate is from our authority but names nobody we know.
    #[error("certificate {fingerprint} names no usable identity")]
    NoIdentity {
        /// The first digits of the certificate's fingerprint.
        fingerprint: String,
        /// What is wrong with the name.
        #[source]
        source: IdentityError,
    },
    /// The identity is of a kind that signs no messages.
    #[error("`{}` is a broker, and brokers sign no messages", identity.short())]
    NotASigner {
        /// Who.
        identity: Box<Identity>,
    },
}

impl VerifyError {
    /// The protocol's code for it.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Unsigned => &code::UNSIGNED,
            Self::Malformed { .. } | Self::Repeated { .. } | Self::SharedKey { .. } => &code::BAD_ENVELOPE,
            Self::BadSignature { .. } => &code::BAD_SIGNATURE,
            Self::Untrusted { .. } => &code::UNTRUSTED_CERTIFICATE,
            Self::Expired { .. } | Self::NotYetValid { .. } => &code::EXPIRED_CERTIFICATE,
            Self::Revoked { .. } => &code::REVOKED_CERTIFICATE,
            Self::NoIdentity { .. } | Self::NotASigner { .. } => &code::WRONG_IDENTITY,
        }
    }

    /// Whether the same message may be accepted later: never, a refused message stays refused.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}
