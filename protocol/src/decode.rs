//! From bytes to a message: size, then depth, then JSON, then the version, then the type's own rules.
//!
//! This comes *after* the signature check: verify first, parse second.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

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
    check_head(body)?;
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

/// Reads the version, which comes first: a newer message may well not fit today's types, and the answer to that is "version",
/// not "malformed". On the same way it refuses a name that stands twice in one object, anywhere: readers would differ in
/// which of the two they take, and a second reader (an approval, an audit) must see what the first one runs.
fn check_head(body: &[u8]) -> Result<(), MessageError> {
    let malformed = |error: serde_json::Error| MessageError::Malformed { why: error.to_string() };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let head = Head.deserialize(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    if let Some(ProtocolVersion::Unknown(given)) = head.protocol {
        return Err(MessageError::Version { given: given.escape_default().to_string() });
    }
    match (head.repeated, head.protocol) {
        (Some(name), _) => Err(MessageError::Malformed { why: format!("duplicate field `{name}`") }),
        (None, None) => Err(MessageError::Malformed { why: "missing field `protocol`".to_owned() }),
        (None, Some(_)) => Ok(()),
    }
}

/// What is found out on one way through a message.
#[derive(Default)]
struct Found {
    protocol: Option<ProtocolVersion>,
    /// The first name that stands twice in an object.
    repeated: Option<String>,
}

impl Found {
    fn repeats(&mut self, name: &str) {
        self.repeated.get_or_insert_with(|| name.chars().take(64).flat_map(char::escape_default).collect());
    }
}

/// A name in an object. Almost none has an escape in it, so almost none is copied.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
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
        deserializer.deserialize_str(Read)
    }
}

/// The names of one object. A handful is compared one by one, more are looked up.
#[derive(Default)]
struct Names<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

/// So many names are compared one by one.
const FEW_NAMES: usize = 16;

impl<'de> Names<'de> {
    /// Whether it was there before.
    fn repeats(&mut self, name: &str) -> bool {
        self.few.iter().any(|known| known == name) || self.many.contains(name)
    }

    fn add(&mut self, name: Cow<'de, str>) {
        if self.few.len() < FEW_NAMES {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
    }
}

/// The message itself: an object with a version.
struct Head;

impl<'de> DeserializeSeed<'de> for Head {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Head {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        let mut names = Names::default();
        while let Some(Name(name)) = entries.next_key::<Name<'de>>()? {
            if names.repeats(&name) {
                found.repeats(&name);
            }
            if name == "protocol" && found.protocol.is_none() {
                found.protocol = Some(entries.next_value()?);
            } else {
                entries.next_value_seed(Walk(&mut found))?;
            }
            names.add(name);
        }
        Ok(found)
    }
}

/// Any JSON, searched for repeated names. Keeps nothing.
struct Walk<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Walk(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(Name(name)) = entries.next_key::<Name<'de>>()? {
            if names.repeats(&name) {
                self.0.repeats(&name);
            }
            names.add(name);
            entries.next_value_seed(Walk(&mut *self.0))?;
        }
        Ok(())
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
        let check = |rest: &str, expected: Option<&str>| {
            let text = format!(r#"{{"protocol":"muster/1"{rest}}}"#);
            let found = check_head(text.as_bytes()).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(found, None, "{text}"),
                Some(name) => {
                    let found = found.unwrap_or_default();
                    assert!(found.contains(&format!("duplicate field `{name}`")), "{text}: {found}");
                }
            }
        };
        check(r#","a":{"x":1},"b":{"x":[1,-2,3.5,null,true,"x"]}"#, None);
        check(r#","a":1,"a":1"#, Some("a"));
        check(r#","protocol":"muster/1""#, Some("protocol"));
        check(r#","arguments":{"name":"openssl","name":"bash"}"#, Some("name"));
        check(r#","list":[{"later":[{"deep":{"n":1,"\u006e":2}}]}]"#, Some("n"));
        let many: String = (0..100).map(|n| format!(r#","n{n}":{n}"#)).collect();
        check(&many, None);
        for n in [0, 15, 16, 99] {
            check(&format!(r#"{many},"n{n}":0"#), Some(&format!("n{n}")));
        }
    }

    #[test]
    fn the_version_is_said_before_anything_else() {
        let check = |text: &str, expected: &str| {
            let found = check_head(text.as_bytes()).unwrap_err().to_string();
            assert!(found.contains(expected), "{text}: {found}");
        };
        check(r#"{"protocol":"muster/2","a":1,"a":2}"#, "protocol version `muster/2`");
        check(r#"{"a":1,"a":2,"protocol":"muster/2"}"#, "protocol version `muster/2`");
        check(r#"{"a":1}"#, "missing field `protocol`");
        check(r#"{"protocol":1}"#, "invalid type");
        check(r#"["muster/1"]"#, "a message, which is an object");
        check(r#"{"protocol":"muster/1"} x"#, "trailing characters");
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
