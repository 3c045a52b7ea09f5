//! What an agent answers: [`ProgressReport`], and what is made of many: [`AccumulatedProgressReport`].
//!
//! A host's reports to one request are numbered from 0. Any number of `running` ones, then exactly
//! one `finished`. A gap in the numbers means that something was lost on the way, and is shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decode::{Message, MessageError};
use crate::envelope::PayloadType;
use crate::id::{RequestId, Timestamp};
use crate::limits::MESSAGE_TEXT_BYTES_MAX;
use crate::name::{HostName, Identity};
use crate::version::ProtocolVersion;

/// Whether more reports will follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// The action has started and goes on.
    Running,
    /// This is the last report of this host to this request.
    Finished,
}

/// How a request ended on a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Outcome {
    /// The action did what it was asked.
    Succeeded,
    /// The action ran, or tried to, and did not.
    Failed,
    /// The action was stopped because its time was over.
    TimedOut,
    /// The host would not: trust, time window, replay or policy. Nothing was started.
    Refused,
    /// The host could not make sense of it: unknown plugin, action or argument. Nothing was started.
    Invalid,
    /// Somebody cancelled it.
    Cancelled,
    /// The agent or the host went down while the action ran. What the action did is not known.
    Interrupted,
    /// An outcome that a newer agent knows. Counts as failed.
    Unknown(String),
}

impl Outcome {
    /// The word on the wire and on screen.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Unknown(word) => word,
        }
    }

    /// Whether the action is known never to have started.
    #[must_use]
    pub fn never_started(&self) -> bool {
        matches!(self, Self::Refused | Self::Invalid)
    }
}

impl From<String> for Outcome {
    fn from(word: String) -> Self {
        match word.as_str() {
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "timed_out" => Self::TimedOut,
            "refused" => Self::Refused,
            "invalid" => Self::Invalid,
            "cancelled" => Self::Cancelled,
            "interrupted" => Self::Interrupted,
            _ => Self::Unknown(word.chars().take(32).collect()),
        }
    }
}

impl From<Outcome> for String {
    fn from(outcome: Outcome) -> String {
        outcome.as_str().to_owned()
    }
}

/// One piece of output, in the order it was written per stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    /// Which of the action's streams.
    pub stream: OutputStream,
    /// Position of the first byte in that stream, counted from 0.
    pub offset: u64,
    /// How `data` is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// The bytes: as they are where they are UTF-8, else base64.
    pub data: String,
}

/// A stream of the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How output bytes are written into JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The text itself.
    #[default]
    Text,
    /// Standard base64 of bytes that are not UTF-8.
    Base64,
}

/// How it ended, why, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    /// The end in one word.
    pub outcome: Outcome,
    /// Stable machine code, such as `ok`, `policy-denied`, `unknown-action`. See [`crate::Code`].
    pub code: String,
    /// One line for people. Empty where the code says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Exit status of the action's process, where it had one that exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The action's outputs as its DDL names them; `null` where there are none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Set when `data` or output was cut to fit; says how much there was, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated_from_bytes: Option<u64>,
    /// How long the action ran, in milliseconds. 0 where it never started.
    #[serde(default)]
    pub duration_ms: u64,
}

/// What one host says about one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Version of the protocol.
    pub protocol: ProtocolVersion,
    /// The request it answers.
    pub request_id: RequestId,
    /// Who asked. A controller takes no report made out to another.
    pub caller: Identity,
    /// The host that speaks. Must be the identity of the signature.
    pub host: HostName,
    /// The report's number, from 0.
    pub sequence: u32,
    /// When it was made, by the host's clock.
    pub created_at_ms: Timestamp,
    /// Whether more will follow.
    pub state: ReportState,
    /// Output since the report before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<OutputChunk>,
    /// Present exactly when `state` is `finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ActionResult>,
}

impl Message for ProgressReport {
    const TYPE: PayloadType = PayloadType::Report;

    fn check(&self) -> Result<(), MessageError> {
        check_result(self.state, self.result.as_ref())
    }
}

fn check_result(state: ReportState, result: Option<&ActionResult>) -> Result<(), MessageError> {
    match (state, result) {
        (ReportState::Running, Some(_)) => Err(MessageError::invalid("result", "is present while running")),
        (ReportState::Finished, None) => Err(MessageError::invalid("result", "is missing in a finished report")),
        (_, Some(result)) if result.message.len() > MESSAGE_TEXT_BYTES_MAX => {
            Err(MessageError::invalid("result.message", "has more than 4096 bytes"))
        }
        _ => Ok(()),
    }
}

/// A host's reports folded into one: what has come since the last folding (a delta, not the whole),
/// numbered of its own. Sent by an execution service in lists, one entry a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccumulatedProgressReport {
    /// Version of the protocol.
    pub protocol: ProtocolVersion,
    /// The request.
    pub request_id: RequestId,
    /// The host.
    pub host: HostName,
    /// The folding's number for this host, from 0.
    pub sequence: u32,
    /// Number of the first report folded in.
    pub first_report: u32,
    /// Number of the last report folded in.
    pub last_report: u32,
    /// Reports in between that never came.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_reports: u32,
    /// When it was folded.
    pub created_at_ms: Timestamp,
    /// `finished` when the host's last report is in.
    pub state: ReportState,
    /// Output since the last folding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<OutputChunk>,
    /// The host's result, once finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ActionResult>,
    /// Whether it succeeded; absent while running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Message for AccumulatedProgressReport {
    const TYPE: PayloadType = PayloadType::AccumulatedReport;

    fn check(&self) -> Result<(), MessageError> {
        check_result(self.state, self.result.as_ref())?;
        if self.last_report < self.first_report {
            return Err(MessageError::invalid("last_report", "is before first_report"));
        }
        let succeeded = self.result.as_ref().map(|result| result.outcome == Outcome::Succeeded);
        if self.success != succeeded {
            return Err(MessageError::invalid("success", "does not agree with the result"));
        }
        Ok(())
    }
}
