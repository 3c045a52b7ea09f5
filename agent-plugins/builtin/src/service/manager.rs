//! What the service managers have in common: the states of a service, what can be done to it, and the trait.

use std::any::Any;
use std::time::Duration;

use muster_plugin_api::{ActionFailure, BoxFuture, CancellationToken};
use serde::Serialize;
use tokio::time::Instant;

/// Longest line of a log that is answered, in characters.
const LOG_LINE_CHARACTERS_MAX: usize = 1000;

/// Lines of a log that are answered: enough for the reason of most failures.
pub(super) const LOG_LINES_MAX: usize = 20;

/// Until when something may take, and who may stop it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) deadline: Instant,
    pub(super) cancel: &'a CancellationToken,
}

impl<'a> Bounds<'a> {
    pub(super) fn within(limit: Duration, cancel: &'a CancellationToken) -> Self {
        Self { deadline: Instant::now() + limit, cancel }
    }

    /// What is left of the time.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same, but at most so long from now.
    pub(super) fn at_most(self, limit: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + limit), ..self }
    }
}

/// One word for what a service does, the same for all managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
    Running,
    Stopped,
    Failed,
    Starting,
    Stopping,
    Reloading,
    Unknown,
    Absent,
}

impl Condition {
    /// Whether the service does its work now.
    pub(super) fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Reloading)
    }

    /// Whether nothing of the service runs now.
    pub(super) fn is_down(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::Absent)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Reloading => "reloading",
            Self::Unknown => "unknown",
            Self::Absent => "absent",
        }
    }
}

/// What a service does at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct State {
    pub(super) status: Condition,
    /// systemd's ActiveState; null elsewhere.
    pub(super) active: Option<String>,
    /// systemd's SubState; null elsewhere.
    pub(super) sub: Option<String>,
    /// Whether it starts at boot; null where the question does not apply.
    pub(super) enabled: Option<bool>,
    pub(super) enabled_state: String,
    pub(super) pid: Option<u32>,
    pub(super) since_ms: Option<i64>,
    /// Why it ended, in systemd's word; null elsewhere.
    pub(super) result: Option<String>,
    /// Exit code of its main process, if that has ended, or of the init script's `status`.
    pub(super) exit_code: Option<i32>,
    /// How often systemd has started it again by itself.
    pub(super) restarts: Option<u64>,
}

/// A service that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The unit or the init script.
    pub(super) unit: String,
    pub(super) description: String,
    pub(super) state: State,
    pub(super) traits: Traits,
}

/// What is special about a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Traits {
    pub(super) is_masked: bool,
    /// It does its work and ends; not running afterwards is as it should be.
    pub(super) is_oneshot: bool,
    /// `None` where only trying tells.
    pub(super) can_reload: Option<bool>,
    /// Why starting and stopping is for others, or impossible here.
    pub(super) cannot_run: Option<String>,
    /// Why enabling and disabling does nothing.
    pub(super) cannot_enable: Option<String>,
    /// A condition of the unit held back its last start.
    pub(super) condition_failed: bool,
    /// Its file has changed since the manager read it.
    pub(super) is_outdated: bool,
    /// It cannot die behind its manager's back: timers and sockets are up as soon as they are.
    pub(super) settles_at_once: bool,
}

/// What a manager can be asked to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
    Reload,
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// What the manager was asked to do, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Job {
    /// systemd's number of the job; null elsewhere.
    pub(super) id: Option<u32>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// systemd's word, such as done, failed, timeout, dependency or canceled; `done` or `failed` elsewhere; null while
    /// it is not over, and where nobody knows.
    pub(super) result: Option<String>,
    /// The name of systemd's error, if it refused the job.
    pub(super) error: Option<String>,
    /// Exit code of the init script, or of systemctl where there is no bus.
    pub(super) exit_code: Option<i32>,
}

impl Job {
    pub(super) fn of(verb: Verb) -> Self {
        Self { id: None, kind: verb.word(), result: None, error: None, exit_code: None }
    }
}

/// How waiting for a job ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    /// The job is over; what became of it is in [`Job::result`].
    Over,
    /// The manager refused it, or it could not be asked.
    Refused(ActionFailure),
    /// The time to wait is over, the job is not.
    Waited,
    /// Somebody cancelled the action.
    Cancelled,
}

/// A job and what was written meanwhile.
pub(super) struct Carried {
    pub(super) job: Job,
    pub(super) ending: Ending,
    /// What the manager's program wrote; empty where the log has it.
    pub(super) lines: Vec<LogLine>,
    /// What makes the manager remember how the service ended, until it is dropped.
    pub(super) memory: Memory,
}

/// Something to hold on to.
pub(super) type Memory = Option<Box<dyn Any + Send + Sync>>;

/// A line that tells why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LogLine {
    /// When it was written, where that is known.
    pub(super) time_ms: Option<i64>,
    /// Who wrote it: a program's name, or `stdout` and `stderr` of an init script.
    pub(super) source: String,
    pub(super) text: String,
}

impl LogLine {
    pub(super) fn new(time_ms: Option<i64>, source: &str, text: &str) -> Self {
        let printable = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let text = text.trim_end().chars().take(LOG_LINE_CHARACTERS_MAX).map(printable).collect();
        Self { time_ms, source: source.to_owned(), text }
    }

    /// The last lines of what a program wrote.
    pub(super) fn of_output(source: &str, output: &str) -> Vec<Self> {
        let lines: Vec<_> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.len().saturating_sub(LOG_LINES_MAX);
        lines[last..].iter().map(|line| Self::new(None, source, line)).collect()
    }
}

/// A service in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) status: Condition,
    /// The manager's own words for the status.
    pub(super) state: String,
    pub(super) enabled: Option<bool>,
    pub(super) enabled_state: String,
    pub(super) description: String,
}

/// A service manager.
pub(super) trait Manager: Send + Sync {
    /// Its name in answers.
    fn provider(&self) -> &'static str;

    /// The service of that name; `None` if the manager does not know it.
    fn find<'a>(&'a self, name: &'a str, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Option<Found>, ActionFailure>>;

    /// Starts, stops, restarts or reloads, and waits until the manager has done with it.
    fn carry_out<'a>(&'a self, verb: Verb, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Carried>;

    /// Makes it start at boot, or not any more.
    fn set_enabled<'a>(
        &'a self,
        enabled: bool,
        found: &'a Found,
        bounds: Bounds<'a>,
    ) -> BoxFuture<'a, Result<(), ActionFailure>>;

    /// The last lines that the service or its manager wrote; empty where nobody keeps them. Never fails: it is asked
    /// about something that failed already.
    fn log<'a>(&'a self, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Vec<LogLine>>;

    /// All services.
    fn list<'a>(&'a self, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Vec<Listed>, ActionFailure>>;
}

/// How the manager's words for a state are put together where there is one field for them.
pub(super) fn words(state: &State) -> String {
    match (&state.active, &state.sub, state.exit_code) {
        (Some(active), Some(sub), _) => format!("{active}/{sub}"),
        (Some(active), None, _) => active.clone(),
        (None, _, Some(code)) => format!("exit code {code}"),
        (None, _, None) => state.status.word().to_owned(),
    }
}
