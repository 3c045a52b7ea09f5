//! From bytes to a message: size, then depth, then JSON, then the version, then the type's own rules.
//!
//! This comes *after* the signature check: verify first, parse second.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::PayloadType;
use crate::limits::{BODY_BYTES_MAX, JSON_DEPTH_MAX};
use crate::version::ProtocolVersion;

/// Why a body is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// More bytes than a message may have.
    #[error("the body has {bytes} bytes; at most {BODY_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// More nesting than a message may have.
    #[error("the body nests deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// Not JSON, or not of this shape.
    #[error("the body is malformed: {why}")]
    Malformed {
        /// What the reader says, with line and column.
        why: String,
    },
    /// A version this program does not speak.
    #[error("the message is in protocol version `{given}`; this program speaks muster/1")]
    Version {
        /// The version in the message.
        given: String,
    },
    /// Well-formed, but against a rule of its type.
    #[error("field `{field}` {why}")]
    Invalid {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl MessageError {
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }
}

/// A signed message of the protocol.
pub trait Message: Serialize + DeserializeOwned {
    /// Its content type.
    const TYPE: PayloadType;

    /// The rules that its types alone cannot hold. Run on both sides: before signing, after verifying.
    ///
    /// # Errors
    /// Names the field and what is wrong with it.
    fn check(&self) -> Result<(), MessageError>;
}

/// Reads a message from the bytes that were signed.
///
/// # Errors
/// In this order: too large, too deep, malformed or another version, against the type's rules.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, MessageError> {
    check_bounds(body)?;
    check_version(body)?;
    let message: M =
        serde_json::from_slice(body).map_err(|error| MessageError::Malformed { why: error.to_string() })?;
    message.check()?;
    Ok(message)
}

/// Writes the bytes that are to be signed.
///
/// # Errors
/// When the message breaks its own rules or a limit, so that nobody signs what nobody would accept.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, MessageError> {
    message.check()?;
    let body = serde_json::to_vec(message).map_err(|error| MessageError::Malformed { why: error.to_string() })?;
    check_bounds(&body)?;
    Ok(body)
}

/// The version is read on its own first: a newer message may well not fit today's types, and the
/// answer to that is "version", not "malformed".
fn check_version(body: &[u8]) -> Result<(), MessageError> {
    #[derive(serde::Deserialize)]
    struct Head {
        protocol: ProtocolVersion,
    }
    let head: Head =
        serde_json::from_slice(body).map_err(|error| MessageError::Malformed { why: error.to_string() })?;
    match head.protocol {
        ProtocolVersion::V1 => Ok(()),
        ProtocolVersion::Unknown(given) => Err(MessageError::Version { given: given.escape_default().to_string() }),
    }
}

/// Checks size and nesting without building anything.
///
/// # Errors
/// [`MessageError::TooLarge`] or [`MessageError::TooDeep`].
pub fn check_bounds(body: &[u8]) -> Result<(), MessageError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(MessageError::TooLarge { bytes: body.len() });
    }
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in body {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(MessageError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check_bounds(nested(JSON_DEPTH_MAX).as_bytes()), Ok(()));
        assert_eq!(check_bounds(nested(JSON_DEPTH_MAX + 1).as_bytes()), Err(MessageError::TooDeep));
        let text = format!("\"\\\"{}\"", "[{".repeat(100));
        assert_eq!(check_bounds(text.as_bytes()), Ok(()));
        assert_eq!(
            check_bounds(&vec![b' '; BODY_BYTES_MAX + 1]),
            Err(MessageError::TooLarge { bytes: BODY_BYTES_MAX + 1 })
        );
    }
}
