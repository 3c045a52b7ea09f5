//! Steps 1 to 5: from bytes to a message that somebody known has signed.

use muster_pki::{Signer, Trust};
use muster_protocol::envelope::{EnvelopeError, parse_signatures};
use muster_protocol::limits::BODY_BYTES_MAX;
use muster_protocol::{
    Cancel, Code, Command, Message, MessageError, PayloadType, Signature, Timestamp, Watch, code, decode,
};

use super::lapsed::{self, Lapsed};
use super::{Addressed, Received, Refusal, Verified};
use crate::core::chain;
use crate::digest::sha256_hex;

/// A verified message an agent obeys.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives for a moment, while its delivery is decided")]
pub enum Incoming {
    /// Run an action.
    Command(Verified<Command>),
    /// Stop one.
    Cancel(Verified<Cancel>),
    /// Tell about one.
    Watch(Verified<Watch>),
}

/// A message that got no further than its signature or shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Why. Not answered, unless `lapsed` says to whom.
    pub refusal: Refusal,
    /// Who signed, if that is known.
    pub signers: Vec<Signer>,
    /// SHA-256 of the body.
    pub body_sha256: String,
    /// Whom to tell, if only the validity of a certificate is in the way.
    pub lapsed: Option<Box<Lapsed>>,
}

/// Checks size, type, signatures and shape.
///
/// # Errors
/// The first check that fails. Its sender is not told, except as [`Rejected::lapsed`] says.
pub fn verify(received: &Received, trust: &Trust, now: Timestamp) -> Result<Incoming, Box<Rejected>> {
    let (mut signers, mut lapsed) = (Vec::new(), None);
    open(received, trust, now, &mut signers, &mut lapsed).map_err(|refusal| {
        let body_sha256 = sha256_hex(&received.body);
        Box::new(Rejected { refusal: refusal.unanswered(), signers, body_sha256, lapsed })
    })
}

fn open(
    received: &Received,
    trust: &Trust,
    now: Timestamp,
    signers: &mut Vec<Signer>,
    lapsed: &mut Option<Box<Lapsed>>,
) -> Result<Incoming, Refusal> {
    check_size(received)?;
    let kind = check_type(&received.content_type)?;
    let signatures = read_signatures(&received.signatures)?;
    *signers = trust.verify(kind.as_str(), &received.body, &signatures, now).map_err(|error| {
        let refusal = Refusal::new(error.code(), chain(&error));
        *lapsed = lapsed::read(received, kind, &signatures, &refusal, trust);
        refusal
    })?;
    Ok(match kind {
        PayloadType::Command => Incoming::Command(read(received, signers)?),
        PayloadType::Cancel => Incoming::Cancel(read(received, signers)?),
        PayloadType::Watch => Incoming::Watch(read(received, signers)?),
        PayloadType::Report | PayloadType::AccumulatedReport | PayloadType::Announcement => {
            return Err(not_for_agents(kind.as_str()));
        }
    })
}

fn check_size(received: &Received) -> Result<(), Refusal> {
    match received.oversized.unwrap_or(received.body.len()) {
        bytes if received.oversized.is_some() || bytes > BODY_BYTES_MAX => {
            Err(Refusal::new(&code::TOO_LARGE, format!("the message has {bytes} bytes")))
        }
        _ => Ok(()),
    }
}

fn check_type(content_type: &str) -> Result<PayloadType, Refusal> {
    match PayloadType::from_content_type(content_type) {
        Some(kind @ (PayloadType::Command | PayloadType::Cancel | PayloadType::Watch)) => Ok(kind),
        Some(_) | None => Err(not_for_agents(content_type)),
    }
}

fn not_for_agents(content_type: &str) -> Refusal {
    let shown: String = content_type.chars().take(80).flat_map(char::escape_default).collect();
    Refusal::new(&code::UNKNOWN_TYPE, format!("`{shown}` is not a type of message that agents obey"))
}

fn read_signatures(header: &[u8]) -> Result<Vec<Signature>, Refusal> {
    parse_signatures(header).map_err(|error| {
        let code = match &error {
            EnvelopeError::Unsigned => &code::UNSIGNED,
            EnvelopeError::TooLarge { .. } => &code::TOO_LARGE,
            EnvelopeError::TooMany { .. } | EnvelopeError::Malformed { .. } => &code::BAD_ENVELOPE,
        };
        Refusal::new(code, error.to_string())
    })
}

fn read<M: Message + Addressed>(received: &Received, signers: &[Signer]) -> Result<Verified<M>, Refusal> {
    let message = decode(&received.body).map_err(|error| Refusal::new(code_of(&error), error.to_string()))?;
    Ok(Verified {
        message,
        signers: signers.to_vec(),
        body_sha256: sha256_hex(&received.body),
        redelivered: received.redelivered,
    })
}

fn code_of(error: &MessageError) -> &'static Code {
    match error {
        MessageError::TooLarge { .. } => &code::TOO_LARGE,
        MessageError::TooDeep => &code::TOO_DEEP,
        MessageError::Version { .. } => &code::UNSUPPORTED_VERSION,
        MessageError::Invalid { field: "caller" | "reply_to", .. } => &code::WRONG_IDENTITY,
        MessageError::Malformed { .. } | MessageError::Invalid { .. } => &code::MALFORMED,
    }
}
