//! Request ids and times.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
///
/// Time is always passed in; nothing in this crate asks a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time in milliseconds since the epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// `self - earlier` in milliseconds; negative if `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time moved by `ms` milliseconds, clamped to the type's range.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Why a text is not a request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request id `{given}` is not a version 7 UUID in lower-case hyphenated form")]
pub struct RequestIdError {
    given: String,
}

/// The id of one request: a UUID of version 7 (RFC 9562), so ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    /// Builds an id from a time and ten random bytes (six of their bits are given up to the version).
    #[must_use]
    pub fn from_parts(now: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The sixteen bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The last eight hexadecimal digits: enough for people to tell requests apart.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[24..].to_owned()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;
    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        let wrong = || RequestIdError { given: text.chars().take(64).flat_map(char::escape_default).collect() };
        let id = uuid::Uuid::try_parse(text).map_err(|_| wrong())?;
        // One id has one spelling, so a journal may compare texts.
        if id.get_version_num() != 7
            || id.get_variant() != uuid::Variant::RFC4122
            || id.hyphenated().to_string() != text
        {
            return Err(wrong());
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;
    fn try_from(text: String) -> Result<Self, RequestIdError> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = RequestId::from_parts(Timestamp(1_795_000_000_000), [7; 10]);
        let text = id.to_string();
        assert_eq!(text.parse::<RequestId>().unwrap(), id);
        assert!(text.to_uppercase().parse::<RequestId>().is_err());
        assert!(text.replace('-', "").parse::<RequestId>().is_err());
        assert!("00000000-0000-4000-8000-000000000000".parse::<RequestId>().is_err());
        assert!(
            "00000000-0000-7000-0000-000000000000".parse::<RequestId>().is_err(),
            "the variant is part of the form"
        );
        assert!("".parse::<RequestId>().is_err());
    }

    #[test]
    fn ids_sort_by_time() {
        let earlier = RequestId::from_parts(Timestamp(1_795_000_000_000), [255; 10]);
        let later = RequestId::from_parts(Timestamp(1_795_000_000_001), [0; 10]);
        assert!(earlier < later);
        assert!(earlier.to_string() < later.to_string());
    }
}
