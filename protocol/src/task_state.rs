//! The state of a request on one host as people see it: one set of words and glyphs for command
//! line, API, console and documents.

use serde::{Deserialize, Serialize};

use crate::report::Outcome;

/// State of a task. The words are those of the wire and of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for its wave, slot, start time or the host.
    Pending,
    /// The host confirmed the start.
    Running,
    /// Done as asked.
    Succeeded,
    /// Ended otherwise: an exit code or an error.
    Failed,
    /// Started, not done in the time limit.
    TimedOut,
    /// Sent, never confirmed.
    NoReply,
    /// Policy or trust said no.
    Refused,
    /// Cancelled before or during.
    Cancelled,
    /// Never started: offline, not able, stop rule, job cancelled first.
    NotStarted,
}

/// How a state counts in a summary. The four add up to the matched hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedAs {
    /// Done as asked.
    Succeeded,
    /// Ended otherwise, silent or refused.
    Failed,
    /// Not ended yet.
    Pending,
    /// Never ran to an end.
    NotRun,
}

impl TaskState {
    /// All states, in the order summaries show them.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::NoReply,
        Self::Refused,
        Self::Cancelled,
        Self::NotStarted,
    ];

    /// The word of the wire: `timed_out`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NoReply => "no_reply",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::NotStarted => "not_started",
        }
    }

    /// The words for people: `timed out`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timed out",
            Self::NoReply => "no reply",
            Self::NotStarted => "not started",
            _ => self.word(),
        }
    }

    /// The glyph, and its twin for terminals without Unicode.
    #[must_use]
    pub fn glyph(self, ascii: bool) -> &'static str {
        let (unicode, plain) = match self {
            Self::Pending => ("○", "."),
            Self::Running => ("◐", ">"),
            Self::Succeeded => ("✓", "+"),
            Self::Failed => ("✗", "x"),
            Self::TimedOut => ("!", "!"),
            Self::NoReply => ("?", "?"),
            Self::Refused => ("⊘", "-"),
            Self::Cancelled => ("/", "/"),
            Self::NotStarted => ("·", "~"),
        };
        if ascii { plain } else { unicode }
    }

    /// How the state counts.
    #[must_use]
    pub fn counted_as(self) -> CountedAs {
        match self {
            Self::Pending | Self::Running => CountedAs::Pending,
            Self::Succeeded => CountedAs::Succeeded,
            Self::Failed | Self::TimedOut | Self::NoReply | Self::Refused => CountedAs::Failed,
            Self::Cancelled | Self::NotStarted => CountedAs::NotRun,
        }
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.counted_as() != CountedAs::Pending
    }
}

impl From<&Outcome> for TaskState {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Refused => Self::Refused,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Failed | Outcome::Invalid | Outcome::Interrupted | Outcome::Unknown(_) => Self::Failed,
        }
    }
}
