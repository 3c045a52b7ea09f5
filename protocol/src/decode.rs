//! From bytes to a message: size, then depth, then JSON, then the version, then the type's own rules.
//!
//! This comes *after* the signature check: verify first, parse second.

use std::borrow::Cow;

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
    check_repeats(body)?;
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

/// Refuses a name that stands twice in one object, anywhere: readers would differ in which of the two
/// they take, and a second reader (an approval, an audit) must see what the first one runs.
fn check_repeats(body: &[u8]) -> Result<(), MessageError> {
    serde_json::from_slice::<NoRepeats>(body)
        .map(|_| ())
        .map_err(|error| MessageError::Malformed { why: error.to_string() })
}

/// Any JSON without repeated names. Keeps nothing.
struct NoRepeats;

impl<'de> serde::Deserialize<'de> for NoRepeats {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> serde::de::Visitor<'de> for Walk {
    type Value = NoRepeats;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<NoRepeats, E> {
        Ok(NoRepeats)
    }

    fn visit_i64<E>(self, _: i64) -> Result<NoRepeats, E> {
        Ok(NoRepeats)
    }

    fn visit_u64<E>(self, _: u64) -> Result<NoRepeats, E> {
        Ok(NoRepeats)
    }

    fn visit_f64<E>(self, _: f64) -> Result<NoRepeats, E> {
        Ok(NoRepeats)
    }

    fn visit_str<E>(self, _: &str) -> Result<NoRepeats, E> {
        Ok(NoRepeats)
    }

    fn visit_unit<E>(self) -> Result<NoRepeats, E> {
        Ok(NoRepeats)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut elements: A) -> Result<NoRepeats, A::Error> {
        while elements.next_element::<NoRepeats>()?.is_some() {}
        Ok(NoRepeats)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<NoRepeats, A::Error> {
        let mut names = std::collections::BTreeSet::new();
        while let Some(Name(name)) = entries.next_key()? {
            if names.contains(&name) {
                let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
                return Err(serde::de::Error::custom(format_args!("duplicate field `{shown}`")));
            }
            names.insert(name);
            entries.next_value::<NoRepeats>()?;
        }
        Ok(NoRepeats)
    }
}

/// A name in an object, copied only where it is written with escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> serde::de::Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
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
    fn a_name_stands_once_in_an_object_at_any_depth() {
        let check = |text: &str, expected: Option<&str>| {
            let found = check_repeats(text.as_bytes()).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(found, None, "{text}"),
                Some(name) => {
                    let found = found.unwrap_or_default();
                    assert!(found.contains(&format!("duplicate field `{name}`")), "{text}: {found}");
                }
            }
        };
        check(r#"{"a":{"x":1},"b":{"x":[1,-2,3.5,null,true,"x"]}}"#, None);
        check(r#"{"a":1,"a":1}"#, Some("a"));
        check(r#"{"arguments":{"name":"openssl","name":"bash"}}"#, Some("name"));
        check(r#"[{"later":[{"deep":{"n":1,"\u006e":2}}]}]"#, Some("n"));
    }

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
