//! How a message is signed: DSSE's pre-authentication encoding over the exact body bytes.
//!
//! On the bus the body travels as it was signed, its type is the AMQP `content-type`, and the
//! signatures are JSON in the header [`SIGNATURES_HEADER`]. At rest the same parts form one DSSE JSON
//! document ([`Envelope`]). This module knows the layout; the `pki` crate makes and checks signatures.
//!
//! Source: DSSE v1.0 (secure-systems-lab/dsse, `protocol.md` and `envelope.md`), extended by `chain`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::limits::{CHAIN_MAX, SIGNATURES_BYTES_MAX, SIGNATURES_MAX};

/// AMQP header (long string, UTF-8 JSON) that holds the list of signatures.
pub const SIGNATURES_HEADER: &str = "muster-signatures";

/// What kind of message a body is. Signed together with the body, so that a report can never be
/// replayed as a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// [`Command`](crate::Command), the `MCOCommand`.
    Command,
    /// [`Cancel`](crate::Cancel).
    Cancel,
    /// [`Watch`](crate::Watch).
    Watch,
    /// [`ProgressReport`](crate::ProgressReport).
    Report,
    /// [`AccumulatedProgressReport`](crate::AccumulatedProgressReport).
    AccumulatedReport,
    /// [`Announcement`](crate::Announcement).
    Announcement,
}

impl PayloadType {
    /// All kinds, for tables and tests.
    pub const ALL: [Self; 6] =
        [Self::Command, Self::Cancel, Self::Watch, Self::Report, Self::AccumulatedReport, Self::Announcement];

    /// The content type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "application/vnd.muster.command.v1+json",
            Self::Cancel => "application/vnd.muster.cancel.v1+json",
            Self::Watch => "application/vnd.muster.watch.v1+json",
            Self::Report => "application/vnd.muster.report.v1+json",
            Self::AccumulatedReport => "application/vnd.muster.accumulated-report.v1+json",
            Self::Announcement => "application/vnd.muster.announcement.v1+json",
        }
    }

    /// The kind with this content type, if it is one of ours.
    #[must_use]
    pub fn from_content_type(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Content type of a certificate revocation list on the bus (RFC 2585): DER, signed by the CA
/// itself, so it needs no envelope.
pub const CONTENT_TYPE_CRL: &str = "application/pkix-crl";

/// The bytes a signature covers: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`, lengths in
/// decimal ASCII bytes.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let head = pre_authentication_head(payload_type, body.len());
    let mut bytes = Vec::with_capacity(head.len() + body.len());
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// What stands in front of a body in [`pre_authentication_encoding`], for who does not want to copy the body.
#[must_use]
pub fn pre_authentication_head(payload_type: &str, body_bytes: usize) -> String {
    format!("DSSEv1 {} {payload_type} {body_bytes} ", payload_type.len())
}

/// One signature and the certificates that vouch for its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// SHA-256 of the leaf certificate's DER, lower-case hexadecimal. A hint for caches, checked
    /// against `chain` before it is used for anything.
    pub keyid: String,
    /// Ed25519 signature (RFC 8032), 64 bytes, standard base64.
    pub sig: String,
    /// Certificates in DER, standard base64, leaf first, the root left out.
    pub chain: Vec<String>,
}

/// Why a list of signatures cannot be read. Says nothing about whether they are right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The header is absent or an empty list.
    #[error("the message carries no signature")]
    Unsigned,
    /// Longer than the limit.
    #[error("the signatures take {bytes} bytes; at most {SIGNATURES_BYTES_MAX} are allowed")]
    TooLarge {
        /// Length of the header.
        bytes: usize,
    },
    /// Too many signatures or certificates.
    #[error("{count} {what}; at most {max} are allowed")]
    TooMany {
        /// `signatures` or `certificates in a chain`.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// Not the JSON or base64 it should be.
    #[error("the signatures are malformed: {why}")]
    Malformed {
        /// What the reader says.
        why: String,
    },
}

/// Reads the signatures header within its limits.
///
/// # Errors
/// When it is missing, too large, too many or malformed.
pub fn parse_signatures(header: &[u8]) -> Result<Vec<Signature>, EnvelopeError> {
    if header.is_empty() {
        return Err(EnvelopeError::Unsigned);
    }
    if header.len() > SIGNATURES_BYTES_MAX {
        return Err(EnvelopeError::TooLarge { bytes: header.len() });
    }
    let signatures: Vec<Signature> =
        serde_json::from_slice(header).map_err(|error| EnvelopeError::Malformed { why: error.to_string() })?;
    check_signatures(&signatures)?;
    Ok(signatures)
}

fn check_signatures(signatures: &[Signature]) -> Result<(), EnvelopeError> {
    if signatures.is_empty() {
        return Err(EnvelopeError::Unsigned);
    }
    if signatures.len() > SIGNATURES_MAX {
        return Err(EnvelopeError::TooMany { what: "signatures", count: signatures.len(), max: SIGNATURES_MAX });
    }
    match signatures.iter().map(|signature| signature.chain.len()).max() {
        Some(count) if count > CHAIN_MAX => {
            Err(EnvelopeError::TooMany { what: "certificates in a chain", count, max: CHAIN_MAX })
        }
        _ => Ok(()),
    }
}

/// A signed message at rest (audit, database, HTTP, files): the DSSE JSON envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The content type that was signed.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The body, standard base64.
    pub payload: String,
    /// Who signed.
    pub signatures: Vec<Signature>,
}

impl Envelope {
    /// Puts a message as it was on the bus into one document.
    #[must_use]
    pub fn new(payload_type: impl Into<String>, body: &[u8], signatures: Vec<Signature>) -> Self {
        Self { payload_type: payload_type.into(), payload: BASE64.encode(body), signatures }
    }

    /// The exact bytes that were signed.
    ///
    /// # Errors
    /// When the payload is not base64 or the signatures break a limit.
    pub fn body(&self) -> Result<Vec<u8>, EnvelopeError> {
        check_signatures(&self.signatures)?;
        BASE64.decode(&self.payload).map_err(|error| EnvelopeError::Malformed { why: format!("payload: {error}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pae_matches_the_example_of_the_specification() {
        // The worked example in DSSE's protocol.md.
        let bytes = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn each_kind_has_its_own_content_type() {
        for kind in PayloadType::ALL {
            assert_eq!(PayloadType::from_content_type(kind.as_str()), Some(kind));
        }
        assert_eq!(PayloadType::from_content_type("application/json"), None);
    }

    #[test]
    fn a_header_is_bounded_before_it_is_trusted() {
        assert_eq!(parse_signatures(b""), Err(EnvelopeError::Unsigned));
        assert_eq!(parse_signatures(b"[]"), Err(EnvelopeError::Unsigned));
        assert!(matches!(parse_signatures(b"{"), Err(EnvelopeError::Malformed { .. })));
        assert!(matches!(parse_signatures(&vec![b' '; SIGNATURES_BYTES_MAX + 1]), Err(EnvelopeError::TooLarge { .. })));
        let one = Signature { keyid: "00".into(), sig: "AA==".into(), chain: vec![String::new(); CHAIN_MAX + 1] };
        let text = serde_json::to_vec(std::slice::from_ref(&one)).unwrap();
        assert!(matches!(parse_signatures(&text), Err(EnvelopeError::TooMany { what: "certificates in a chain", .. })));
        let many = vec![Signature { chain: vec![], ..one }; SIGNATURES_MAX + 1];
        assert!(matches!(
            parse_signatures(&serde_json::to_vec(&many).unwrap()),
            Err(EnvelopeError::TooMany { what: "signatures", .. })
        ));
    }

    #[test]
    fn the_envelope_keeps_the_bytes() {
        let signature = Signature { keyid: "ab".into(), sig: "AA==".into(), chain: vec!["AA==".into()] };
        let envelope = Envelope::new(PayloadType::Report.as_str(), b"{ \"exact\" : 1 }\n", vec![signature]);
        let text = serde_json::to_string(&envelope).unwrap();
        assert!(text.contains("\"payloadType\":\"application/vnd.muster.report.v1+json\""), "{text}");
        let read: Envelope = serde_json::from_str(&text).unwrap();
        assert_eq!(read.body().unwrap(), b"{ \"exact\" : 1 }\n");
    }
}
