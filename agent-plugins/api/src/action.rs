//! One request to an action, and its answer.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use muster_protocol::code;
use muster_protocol::ddl::Action;
use muster_protocol::{ActionName, Code, Identity, RequestId};
use serde_json::{Map, Value};

/// What a plugin is asked to do. The arguments are validated and complete.
#[derive(Clone, PartialEq)]
pub struct ActionRequest {
    /// The command's id.
    pub request_id: RequestId,
    /// Who asks. For the record only: whether they may was decided before.
    pub caller: Identity,
    /// The action to run.
    pub action: ActionName,
    /// The arguments, defaults filled in.
    pub arguments: Map<String, Value>,
    /// Names of the arguments whose values are secrets. A plugin keeps those out of argument vectors,
    /// logs, messages and data.
    pub secrets: BTreeSet<String>,
    /// Say what would be done, and do nothing.
    pub noop: bool,
    /// Run as this user.
    pub effective_user: Option<String>,
    /// How long the action may take.
    pub time_limit: Duration,
}

/// Shows no secret.
impl fmt::Debug for ActionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionRequest")
            .field("request_id", &self.request_id)
            .field("caller", &self.caller)
            .field("action", &self.action)
            .field("arguments", &self.masked_arguments())
            .field("noop", &self.noop)
            .field("effective_user", &self.effective_user)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// What stands where a secret's value would.
pub const MASK: &str = "***";

impl ActionRequest {
    /// The arguments with every secret masked, for logs and records.
    #[must_use]
    pub fn masked_arguments(&self) -> Map<String, Value> {
        let masked = |(name, value): (&String, &Value)| {
            let value = if self.secrets.contains(name) { Value::from(MASK) } else { value.clone() };
            (name.clone(), value)
        };
        self.arguments.iter().map(masked).collect()
    }

    /// A text argument.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(Value::as_str)
    }

    /// The texts of an array argument; empty if it is not there.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<&str> {
        let elements = self.arguments.get(name).and_then(Value::as_array);
        elements.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// How an action ends.
pub type ActionReply = Result<ActionOk, ActionFailure>;

/// The answer of an action that did what it was asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActionOk {
    /// An object with the keys that the description names as output.
    pub data: Value,
    /// One line for people; may be empty.
    pub message: String,
}

impl ActionOk {
    /// An answer of data alone.
    #[must_use]
    pub fn data(data: impl Into<Value>) -> Self {
        Self { data: data.into(), message: String::new() }
    }

    /// Adds a line for people.
    #[must_use]
    pub fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }
}

/// The answer of an action that did not. What it found out until then is in `data`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ActionFailure {
    /// Why, as a stable code: usually `failed`, `timed-out`, `cancelled`, `start-failed` or `not-activated`.
    pub code: &'static Code,
    /// What happened, for people.
    pub message: String,
    /// Exit code of the program that decided it, if one did.
    pub exit_code: Option<i32>,
    /// An object with output keys, or null.
    pub data: Value,
}

impl ActionFailure {
    /// A failure with a code and a message.
    #[must_use]
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), exit_code: None, data: Value::Null }
    }

    /// A failure of the action itself: code `failed`.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(&code::FAILED, message)
    }

    /// The answer to an action that the plugin's code does not know although it was called.
    #[must_use]
    pub fn unknown_action(action: &ActionName) -> Self {
        Self::new(&code::UNKNOWN_ACTION, format!("there is no action `{action}`"))
    }

    /// Adds what was found out.
    #[must_use]
    pub fn with_data(self, data: impl Into<Value>) -> Self {
        Self { data: data.into(), ..self }
    }

    /// Adds the exit code of the program that decided it.
    #[must_use]
    pub fn with_exit_code(self, exit_code: i32) -> Self {
        Self { exit_code: Some(exit_code), ..self }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        self.code
    }

    /// Whether trying again later may help without anybody changing anything: after a time-out.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        *self.code == code::TIMED_OUT || *self.code == code::BUSY
    }
}

/// Refuses options that an action does not support, so that none is ever ignored.
///
/// # Errors
/// With the code `unsupported-option`, naming the option.
pub fn check_options(action: &Action, noop: bool, effective_user: Option<&str>) -> Result<(), ActionFailure> {
    let refuse = |what: &str| {
        let message = format!("action `{}` does not support {what}", action.name);
        Err(ActionFailure::new(&code::UNSUPPORTED_OPTION, message))
    };
    let supports = action.muster.supports;
    if noop && !supports.noop {
        return refuse("noop");
    }
    if effective_user.is_some() && !supports.effective_user {
        return refuse("an effective user");
    }
    Ok(())
}
