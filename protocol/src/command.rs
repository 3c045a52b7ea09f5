//! What a controller sends: [`Command`] (the documents' `MCOCommand`), [`Cancel`] and [`Watch`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::decode::{Message, MessageError};
use crate::envelope::PayloadType;
use crate::id::{RequestId, Timestamp};
use crate::limits::{COMMAND_WINDOW_MS_MAX, EXPRESSION_BYTES_MAX, REQUIRES_MAX, TARGET_HOSTS_MAX};
use crate::name::{ActionName, CollectiveName, HostName, Identity, PluginName, ReplyRoute};
use crate::sealed::SealedArguments;
use crate::version::ProtocolVersion;

/// One action on the hosts that a target names. The same bytes go to all of them.
///
/// Everything that decides what happens is in here, and so under the signature. A reader ignores
/// fields it does not know, except that a sender lists in `requires` what must not be ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Version of the protocol.
    pub protocol: ProtocolVersion,
    /// The request's id; also what makes a repeat recognisable.
    pub id: RequestId,
    /// Who asks. Must be the identity of the first signature.
    pub caller: Identity,
    /// When it was made.
    pub created_at_ms: Timestamp,
    /// From when on nobody may start it.
    pub expires_at_ms: Timestamp,
    /// Which part of the fleet is asked.
    pub collective: CollectiveName,
    /// Which hosts of it.
    pub target: Target,
    /// The plugin.
    pub plugin: PluginName,
    /// One of its actions.
    pub action: ActionName,
    /// Arguments, checked against the action's DDL on both sides.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// Secret arguments, sealed to each host of the target. Their names are in it, their values are
    /// for the hosts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedArguments>,
    /// How to run it.
    #[serde(default)]
    pub options: Options,
    /// Where the reports go.
    pub reply_to: ReplyRoute,
    /// Names of protocol features that a host must know to obey this command. An agent that does
    /// not know one of them refuses, so a new option never turns into "ignored" on an old agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
}

/// Features this version understands in [`Command::requires`].
pub const FEATURES: &[&str] = &["noop", "effective_user", "timeout", "sealed"];

/// How an action is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Show what would be done and change nothing. Refused by actions that cannot.
    #[serde(default)]
    pub noop: bool,
    /// Run as this user of the host. Refused by actions that cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_user: Option<String>,
    /// Time limit of the action in milliseconds; the DDL's timeout where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether running reports are wanted, or only the final one.
    #[serde(default = "yes")]
    pub progress: bool,
}

fn yes() -> bool {
    true
}

impl Default for Options {
    fn default() -> Self {
        Self { noop: false, effective_user: None, timeout_ms: None, progress: true }
    }
}

/// Which hosts a command is for. A host is meant if every condition that is present holds.
/// `{}` means nobody: the whole collective has to be asked for with `all`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Every host of the collective. Excludes the other two.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// These hosts. Absent means no condition; an empty list is an error, not "everybody".
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "some_hosts")]
    pub hosts: BTreeSet<HostName>,
    /// Hosts on which this expression over their facts is true, in canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// A controller that has computed an empty list of hosts must not hit all that match the filter.
fn some_hosts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<HostName>, D::Error> {
    let hosts = BTreeSet::deserialize(deserializer)?;
    if hosts.is_empty() {
        return Err(serde::de::Error::custom("`hosts` is an empty list; leave it out, or name somebody"));
    }
    Ok(hosts)
}

impl Target {
    /// Every host of the collective.
    #[must_use]
    pub fn everyone() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The named hosts.
    #[must_use]
    pub fn named(hosts: impl IntoIterator<Item = HostName>) -> Self {
        Self { hosts: hosts.into_iter().collect(), ..Self::default() }
    }

    /// Hosts on which `filter` is true.
    #[must_use]
    pub fn matching(filter: impl Into<String>) -> Self {
        Self { filter: Some(filter.into()), ..Self::default() }
    }

    fn check(&self) -> Result<(), MessageError> {
        let wrong = |why: &str| Err(MessageError::invalid("target", why));
        match (self.all, self.hosts.is_empty(), &self.filter) {
            (false, true, None) => return wrong("names nobody; the whole collective is written {\"all\":true}"),
            (true, false, _) | (true, _, Some(_)) => return wrong("has `all` together with `hosts` or `filter`"),
            _ => {}
        }
        if self.hosts.len() > TARGET_HOSTS_MAX {
            return wrong("names more than 20000 hosts");
        }
        match &self.filter {
            Some(filter) if filter.len() > EXPRESSION_BYTES_MAX => wrong("has a filter of more than 8192 bytes"),
            _ => Ok(()),
        }
    }
}

fn check_window(created: Timestamp, expires: Timestamp) -> Result<(), MessageError> {
    match expires.since_ms(created) {
        ..=0 => Err(MessageError::invalid("expires_at_ms", "is not after created_at_ms")),
        window if window > COMMAND_WINDOW_MS_MAX => {
            Err(MessageError::invalid("expires_at_ms", "is more than 24 hours after created_at_ms"))
        }
        _ => Ok(()),
    }
}

fn check_sender(caller: &Identity, reply_to: &ReplyRoute) -> Result<(), MessageError> {
    if !caller.is_controller() {
        return Err(MessageError::invalid("caller", "is not a user or a service"));
    }
    if reply_to.controller() != caller {
        return Err(MessageError::invalid("reply_to", "is not a route of the caller"));
    }
    Ok(())
}

/// What every message of a controller has to keep to.
fn check_head(
    caller: &Identity,
    reply_to: &ReplyRoute,
    (created, expires): (Timestamp, Timestamp),
    target: &Target,
    requires: &[String],
) -> Result<(), MessageError> {
    check_sender(caller, reply_to)?;
    check_window(created, expires)?;
    target.check()?;
    if requires.len() > REQUIRES_MAX {
        return Err(MessageError::invalid("requires", "has more than 16 entries"));
    }
    Ok(())
}

impl Message for Command {
    const TYPE: PayloadType = PayloadType::Command;

    fn check(&self) -> Result<(), MessageError> {
        let window = (self.created_at_ms, self.expires_at_ms);
        check_head(&self.caller, &self.reply_to, window, &self.target, &self.requires)?;
        if let Some(sealed) = &self.sealed {
            sealed.check(&self.arguments, &self.target)?;
        }
        if self.options.timeout_ms == Some(0) {
            return Err(MessageError::invalid("options.timeout_ms", "is 0; leave it out for the plugin's own limit"));
        }
        match &self.options.effective_user {
            Some(user) if user.is_empty() || user.len() > 256 || user.chars().any(char::is_control) => {
                Err(MessageError::invalid("options.effective_user", "is not a user name"))
            }
            _ => Ok(()),
        }
    }
}

/// Stops a request on the hosts of a target. Who may: the caller of the request, and whom a host's
/// policy allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// Version of the protocol.
    pub protocol: ProtocolVersion,
    /// The id of this message.
    pub id: RequestId,
    /// The request to stop.
    pub request_id: RequestId,
    /// Who asks. Must be the identity of the first signature.
    pub caller: Identity,
    /// When it was made.
    pub created_at_ms: Timestamp,
    /// From when on nobody may obey it.
    pub expires_at_ms: Timestamp,
    /// Which part of the fleet is asked.
    pub collective: CollectiveName,
    /// Which hosts of it.
    pub target: Target,
    /// Where the answer goes.
    pub reply_to: ReplyRoute,
    /// What must not be ignored, as in [`Command::requires`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
}

impl Message for Cancel {
    const TYPE: PayloadType = PayloadType::Cancel;

    fn check(&self) -> Result<(), MessageError> {
        let window = (self.created_at_ms, self.expires_at_ms);
        check_head(&self.caller, &self.reply_to, window, &self.target, &self.requires)
    }
}

/// Asks the hosts of a target to tell about a request that was sent before: what it wrote so far, what
/// it writes from now on, and how it ends. Who may: the caller of the request, and whom a host's policy
/// allows.
///
/// A watch is a request of its own: reports to it carry its own id and numbers, so that they never get
/// mixed up with those that answer the request itself. The result in its last report is the request's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Version of the protocol.
    pub protocol: ProtocolVersion,
    /// The id of this message, which the reports to it carry.
    pub id: RequestId,
    /// The request to tell about.
    pub request_id: RequestId,
    /// Who asks. Must be the identity of the first signature.
    pub caller: Identity,
    /// When it was made.
    pub created_at_ms: Timestamp,
    /// From when on nobody may obey it.
    pub expires_at_ms: Timestamp,
    /// Which part of the fleet is asked.
    pub collective: CollectiveName,
    /// Which hosts of it.
    pub target: Target,
    /// Where the reports go.
    pub reply_to: ReplyRoute,
    /// Whether output from before the watch is sent too.
    #[serde(default = "yes")]
    pub replay: bool,
    /// Whether to follow until the end, or to tell only how it stands now.
    #[serde(default = "yes")]
    pub follow: bool,
    /// What must not be ignored, as in [`Command::requires`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
}

impl Message for Watch {
    const TYPE: PayloadType = PayloadType::Watch;

    fn check(&self) -> Result<(), MessageError> {
        let window = (self.created_at_ms, self.expires_at_ms);
        check_head(&self.caller, &self.reply_to, window, &self.target, &self.requires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_hosts_is_not_everybody() {
        let read = |text: &str| serde_json::from_str::<Target>(text).map_err(|error| error.to_string());
        assert!(read(r#"{"hosts":[],"filter":"role = web"}"#).unwrap_err().contains("empty list"));
        assert!(read(r#"{"hosts":[]}"#).unwrap_err().contains("empty list"));
        assert_eq!(read(r#"{"filter":"role = web"}"#).unwrap(), Target::matching("role = web"));
        assert_eq!(read(r#"{"hosts":["web1"]}"#).unwrap(), Target::named(["web1".parse().unwrap()]));
    }
}
