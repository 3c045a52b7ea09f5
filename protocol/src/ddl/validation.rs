//! What a text argument must look like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::limits::DDL_PATTERN_BYTES_MAX;

/// Memory that one compiled pattern may take, in bytes.
const PATTERN_COMPILED_BYTES_MAX: usize = 512 * 1024;

/// The validation of a text, as the DDL's field `validation` names it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "Option<String>", into = "String")]
pub enum Validation {
    /// Nothing beyond type and length.
    #[default]
    None,
    /// `shellsafe`: see [`is_shellsafe`].
    Shellsafe,
    /// `ipv4address`.
    Ipv4Address,
    /// `ipv6address`.
    Ipv6Address,
    /// `ipaddress`: either.
    IpAddress,
    /// A regular expression that must fit the whole text.
    Pattern {
        /// As written.
        source: String,
        /// Compiled and anchored.
        regex: Regex,
    },
    /// A validator that this program does not know. Held to `shellsafe`.
    Unknown(String),
}

/// A validation pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("validation pattern `{pattern}` {why}")]
pub struct PatternError {
    /// The first characters of the pattern, escaped.
    pattern: String,
    /// What is wrong with it.
    why: String,
}

impl Validation {
    /// Reads the field `validation`.
    ///
    /// # Errors
    /// When it is a regular expression that is too long or does not compile.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        // MCollective names the type itself as validator of some inputs; the type check covers these.
        const TYPE_NAMES: &[&str] = &["string", "integer", "number", "float", "boolean", "array", "hash", "list"];
        Ok(match text {
            "" => Self::None,
            "shellsafe" => Self::Shellsafe,
            "ipv4address" => Self::Ipv4Address,
            "ipv6address" => Self::Ipv6Address,
            "ipaddress" => Self::IpAddress,
            name if TYPE_NAMES.contains(&name) => Self::None,
            name if is_validator_name(name) => Self::Unknown(name.to_owned()),
            pattern => Self::Pattern { source: pattern.to_owned(), regex: compile(pattern)? },
        })
    }

    /// Whether `text` passes.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::None => true,
            Self::Shellsafe | Self::Unknown(_) => is_shellsafe(text),
            Self::Ipv4Address => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6Address => text.parse::<Ipv6Addr>().is_ok(),
            Self::IpAddress => text.parse::<IpAddr>().is_ok(),
            Self::Pattern { regex, .. } => regex.is_match(text),
        }
    }

    /// What is accepted, in words that follow "takes".
    #[must_use]
    pub fn accepted(&self) -> String {
        match self {
            Self::None => "text".to_owned(),
            Self::Shellsafe | Self::Unknown(_) => {
                "letters, digits, blanks and _ - . , : / @ % + = (and ~ after a letter or digit)".to_owned()
            }
            Self::Ipv4Address => "an IPv4 address".to_owned(),
            Self::Ipv6Address => "an IPv6 address".to_owned(),
            Self::IpAddress => "an IPv4 or IPv6 address".to_owned(),
            Self::Pattern { source, .. } => format!("text that fits `{source}`"),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::None => "",
            Self::Shellsafe => "shellsafe",
            Self::Ipv4Address => "ipv4address",
            Self::Ipv6Address => "ipv6address",
            Self::IpAddress => "ipaddress",
            Self::Pattern { source, .. } => source,
            Self::Unknown(name) => name,
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl PartialEq for Validation {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl TryFrom<Option<String>> for Validation {
    type Error = PatternError;
    fn try_from(text: Option<String>) -> Result<Self, PatternError> {
        Self::parse(text.as_deref().unwrap_or_default())
    }
}

impl From<Validation> for String {
    fn from(validation: Validation) -> String {
        validation.as_str().to_owned()
    }
}

/// A validator's name is a lower-case word of two letters or more, as in `puppet_tags`. The pattern
/// `.` and everything with a special character is a regular expression.
fn is_validator_name(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn compile(pattern: &str) -> Result<Regex, PatternError> {
    let wrong =
        |why: String| PatternError { pattern: pattern.chars().take(60).flat_map(char::escape_default).collect(), why };
    if pattern.len() > DDL_PATTERN_BYTES_MAX {
        return Err(wrong(format!("has more than {DDL_PATTERN_BYTES_MAX} bytes")));
    }
    // Compiled alone first: `a)|(b` would otherwise escape from the group that anchors it.
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| wrong(format!("does not compile: {error}")))
    };
    build(pattern)?;
    if pattern == "." {
        return build(r"\A(?s:.+)\z");
    }
    build(&format!(r"\A(?:{pattern})\z"))
}

/// Whether a text may stand in a shell's command line without changing what the shell does, beyond
/// splitting it at blanks: letters and digits of any script, blanks, and `_ - . , : / @ % + =`, and
/// `~` inside a word as in `1.0~rc1`. Everything else is refused, so no line break, NUL, quote,
/// backslash, `&`, `;`, `|`, `$`, backtick, bracket, redirection or glob gets through.
#[must_use]
pub fn is_shellsafe(text: &str) -> bool {
    let mut previous = ' ';
    for c in text.chars() {
        let safe = c.is_alphanumeric()
            || matches!(c, ' ' | '_' | '-' | '.' | ',' | ':' | '/' | '@' | '%' | '+' | '=')
            || (c == '~' && previous.is_alphanumeric());
        if !safe {
            return false;
        }
        previous = c;
    }
    true
}
