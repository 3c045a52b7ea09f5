//! Names and identities. Each is checked once, in its constructor, and deserialises through it.
//!
//! Two grammars serve everything. A *host name* is a lower-case DNS name (RFC 1123, plus `_`):
//! labels of `[a-z0-9_-]` joined by dots, at most 150 bytes. A *short name* is one such label,
//! beginning with a letter or digit, at most 63 bytes (32 for a session). Neither can hold the characters that mean
//! something to a routing key (`*`, `#`), a path (`/`), a regular expression or a shell.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{HOST_NAME_BYTES_MAX, SESSION_NAME_BYTES_MAX, SHORT_NAME_BYTES_MAX};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {kind} is empty")]
    Empty {
        /// What the name should have been.
        kind: &'static str,
    },
    /// More bytes than the limit.
    #[error("{kind} `{start}...` has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// What the name should have been.
        kind: &'static str,
        /// The first bytes of what was given.
        start: String,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A character outside the grammar.
    #[error("{kind} `{given}` has `{character}` at column {column}; allowed are {allowed}")]
    Character {
        /// What the name should have been.
        kind: &'static str,
        /// What was given, control characters escaped.
        given: String,
        /// The offending character, escaped.
        character: String,
        /// Its position, counted from 1 in characters.
        column: usize,
        /// The grammar in words.
        allowed: &'static str,
    },
    /// A dot with nothing on one side of it, or a label that is too long or starts with a dash.
    #[error("host name `{given}` has an empty, too long (over 63) or dash-edged label")]
    Label {
        /// What was given.
        given: String,
    },
    /// An identity without a known kind in front.
    #[error("identity `{given}` does not have the form muster:KIND/NAME with KIND one of host, user, service, broker")]
    Identity {
        /// What was given, control characters escaped.
        given: String,
    },
    /// A reply route that is not `KIND/NAME.SESSION`.
    #[error("reply route `{given}` does not have the form user/NAME.SESSION or service/NAME.SESSION")]
    ReplyRoute {
        /// What was given, control characters escaped.
        given: String,
    },
}

fn escaped(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

fn check_short(kind: &'static str, text: &str) -> Result<(), NameError> {
    check_length(kind, text, SHORT_NAME_BYTES_MAX)?;
    for (index, c) in text.chars().enumerate() {
        let plain = c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(plain || (index > 0 && (c == '_' || c == '-'))) {
            return Err(NameError::Character {
                kind,
                given: escaped(text),
                character: c.escape_debug().collect(),
                column: index + 1,
                allowed: "a-z and 0-9, then also _ and -",
            });
        }
    }
    Ok(())
}

fn check_session(kind: &'static str, text: &str) -> Result<(), NameError> {
    check_length(kind, text, SESSION_NAME_BYTES_MAX)?;
    check_short(kind, text)
}

fn check_host(kind: &'static str, text: &str) -> Result<(), NameError> {
    check_length(kind, text, HOST_NAME_BYTES_MAX)?;
    for (index, c) in text.chars().enumerate() {
        if !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.')) {
            return Err(NameError::Character {
                kind,
                given: escaped(text),
                character: c.escape_debug().collect(),
                column: index + 1,
                allowed: "a-z, 0-9, _, - and . (lower case)",
            });
        }
    }
    let bad = |label: &str| label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-');
    if text.split('.').any(bad) {
        return Err(NameError::Label { given: text.to_owned() });
    }
    Ok(())
}

fn check_length(kind: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > max {
        return Err(NameError::TooLong {
            kind,
            start: escaped(text).chars().take(32).collect(),
            bytes: text.len(),
            max,
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` against the grammar.
            ///
            /// # Errors
            /// Says which character, length or label is wrong.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check($kind, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// A managed host: a lower-case DNS name, short or fully qualified.
    HostName, "host name", check_host
);
name!(
    /// A person who sends commands.
    UserName, "user name", check_short
);
name!(
    /// A program that sends commands, such as the job service.
    ServiceName, "service name", check_short
);
name!(
    /// A set of users or services that policies speak about.
    GroupName, "group name", check_short
);
name!(
    /// A named part of the fleet that shares broadcasts.
    CollectiveName, "collective name", check_short
);
name!(
    /// A place with a broker of its own that is linked to the central one.
    SiteName, "site name", check_short
);
name!(
    /// A plugin: the namespace of its actions.
    PluginName, "plugin name", check_short
);
name!(
    /// One action of a plugin.
    ActionName, "action name", check_short
);
name!(
    /// One run of a controller: the part of a reply route that tells two terminals of one user apart.
    SessionName, "session name", check_session
);

/// Who somebody is: what the certificate's first SAN URI says, and at the same time the name of the
/// broker's user. Written `muster:KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Identity {
    /// A host that runs an agent. It may answer, never command.
    Host(HostName),
    /// A person. May command.
    User(UserName),
    /// A program. May command.
    Service(ServiceName),
    /// A broker node, named by its DNS name. May only serve TLS.
    Broker(HostName),
}

impl Identity {
    /// `host`, `user`, `service` or `broker`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::User(_) => "user",
            Self::Service(_) => "service",
            Self::Broker(_) => "broker",
        }
    }

    /// The name without its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Broker(name) => name.as_str(),
            Self::User(name) => name.as_str(),
            Self::Service(name) => name.as_str(),
        }
    }

    /// Whether this identity may send commands at all. What it may command is each host's policy.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        matches!(self, Self::User(_) | Self::Service(_))
    }

    /// The identity without the `muster:` scheme, as in `user/lea`: what people type and see.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "muster:{}/{}", self.kind(), self.name())
    }
}

impl FromStr for Identity {
    type Err = NameError;

    /// Reads `muster:KIND/NAME`, and also `KIND/NAME` as people type it.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let rest = text.strip_prefix("muster:").unwrap_or(text);
        match rest.split_once('/') {
            Some(("host", name)) => Ok(Self::Host(HostName::new(name)?)),
            Some(("user", name)) => Ok(Self::User(UserName::new(name)?)),
            Some(("service", name)) => Ok(Self::Service(ServiceName::new(name)?)),
            Some(("broker", name)) => Ok(Self::Broker(HostName::new(name)?)),
            _ => Err(NameError::Identity { given: escaped(text) }),
        }
    }
}

impl TryFrom<String> for Identity {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        if !text.starts_with("muster:") {
            return Err(NameError::Identity { given: escaped(&text) });
        }
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

/// Where the answers to a command go: the caller and one of its sessions, `user/lea.7f3a91c2`.
/// It stands inside the signed body, so nobody on the way can redirect the answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplyRoute {
    controller: Identity,
    session: SessionName,
}

impl ReplyRoute {
    /// Joins a controller's identity and a session. `None` if the identity may not command.
    #[must_use]
    pub fn new(controller: Identity, session: SessionName) -> Option<Self> {
        controller.is_controller().then_some(Self { controller, session })
    }

    /// Who reads the answers. Must be the command's caller.
    #[must_use]
    pub fn controller(&self) -> &Identity {
        &self.controller
    }

    /// Which of the caller's sessions.
    #[must_use]
    pub fn session(&self) -> &SessionName {
        &self.session
    }
}

impl fmt::Display for ReplyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.controller.short(), self.session)
    }
}

impl FromStr for ReplyRoute {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::ReplyRoute { given: escaped(text) };
        let (controller, session) = text.split_once('.').ok_or_else(wrong)?;
        if controller.starts_with("muster:") {
            return Err(wrong());
        }
        Self::new(controller.parse()?, session.parse()?).ok_or_else(wrong)
    }
}

impl TryFrom<String> for ReplyRoute {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ReplyRoute> for String {
    fn from(route: ReplyRoute) -> String {
        route.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(result: Result<impl fmt::Debug, NameError>, expected: &str) {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_host_name_is_a_lower_case_dns_name() {
        for good in ["a", "web1", "web-0001.ams1.example.com", "_x", "1.2.3.4"] {
            assert_eq!(HostName::new(good).unwrap().as_str(), good);
        }
        refused(HostName::new(""), "a host name is empty");
        refused(
            HostName::new("Web1"),
            "host name `Web1` has `W` at column 1; allowed are a-z, 0-9, _, - and . (lower case)",
        );
        refused(HostName::new("a..b"), "host name `a..b` has an empty, too long (over 63) or dash-edged label");
        for bad in ["*", "a.#", "a/b", "a b", "a\n", "-a", "a-", ".a", "a.", "ä"] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
        assert!(HostName::new("a".repeat(64)).is_err());
        assert!(HostName::new(format!("{}aa", "a.".repeat(74))).is_ok());
        assert!(HostName::new(format!("{}aaa", "a.".repeat(74))).is_err());
    }

    #[test]
    fn a_short_name_is_one_label() {
        for good in ["lea", "a-b_c", "0", "package"] {
            assert!(UserName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "a.b", "Lea", "a/b", "a\0", "*"] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
        assert!(UserName::new("a".repeat(63)).is_ok());
        assert!(UserName::new("a".repeat(64)).is_err());
    }

    #[test]
    fn an_identity_reads_both_forms_and_writes_one() {
        for text in ["muster:host/web1.example.com", "muster:user/lea", "muster:service/jobs", "muster:broker/mq1"] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
            assert_eq!(identity.short().parse::<Identity>().unwrap(), identity);
            assert_eq!(serde_json::to_value(&identity).unwrap(), text);
        }
        assert!(serde_json::from_str::<Identity>("\"user/lea\"").is_err(), "the wire has one form");
        for bad in ["", "lea", "muster:", "muster:group/x", "muster:user/", "muster:user/a/b", "user/a.b"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reply_route_belongs_to_a_controller() {
        let route: ReplyRoute = "user/lea.7f3a".parse().unwrap();
        assert_eq!(route.controller().to_string(), "muster:user/lea");
        assert_eq!(route.to_string(), "user/lea.7f3a");
        for bad in ["host/web1.7f3a", "user/lea", "user/lea.", "user/lea.a.b", "muster:user/lea.x", "user/lea.#"] {
            assert!(bad.parse::<ReplyRoute>().is_err(), "{bad:?}");
        }
    }
}
