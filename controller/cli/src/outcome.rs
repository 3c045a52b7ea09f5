//! What came of asking: one row a host, and equal rows grouped, so that what differs is seen.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_client::aside::{Piece, digest};
use muster_client::collect::Data;
use muster_client::output::StreamOutput;
use muster_client::{Cause, Counts, HostRecord};
use muster_protocol::code::{POLICY_DENIED, STILL_RUNNING};
use muster_protocol::ddl::Action;
use muster_protocol::{ActionResult, HostName, OutputStream, RequestId, TaskState};
use serde_json::Value;

use crate::ask::stranger::NO_QUEUE;
use crate::output::{ExitCode, Tolerated, number};

/// Longest headline, in characters. More is said by `--format wide` and JSON.
const HEADLINE_CHARACTERS_MAX: usize = 160;

/// What stands for the host's own name when texts of several hosts are compared.
const HOST_MASK: &str = "HOST";

/// What came of one host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) host: HostName,
    pub(crate) state: TaskState,
    /// Why it is in this state, where the host did not say so itself.
    pub(crate) reason: Option<Reason>,
    pub(crate) result: Option<ActionResult>,
    pub(crate) stdout: Option<Written>,
    pub(crate) stderr: Option<Written>,
    /// Milliseconds from asking to the first answer.
    pub(crate) reply_ms: Option<i64>,
    /// Reports that never came.
    pub(crate) missing_reports: u32,
    /// The command it was asked with.
    pub(crate) request: Option<RequestId>,
    /// More about the reason.
    pub(crate) detail: Option<String>,
    /// Whether what it wrote was shown while it came.
    pub(crate) shown: bool,
    /// The data of its result, where there are so many that they were set aside.
    pub(crate) aside: Option<Piece>,
}

/// Why a host is in a state that it did not report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It gave no answer when the hosts were searched, so it was not asked; it was there before.
    SilentInSearch,
    /// Asked, and silent.
    Silent,
    /// Asked, silent, and answered when it was too late.
    Late,
    /// The broker has no queue for it.
    NoQueue,
    /// It has started and its end was not heard in time.
    Unfinished,
    /// The broker did not take the command for it.
    NotSent,
    /// Silent, and the broker has not confirmed the command for it.
    Unconfirmed,
    /// A wave before its own met the stop rule.
    StopRule,
    /// The operator stopped before its wave.
    NotReached,
    /// It lacks what the action needs, such as a key for secrets.
    NotAble,
}

impl Reason {
    /// The word in documents.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::SilentInSearch => "silent_in_search",
            Self::Silent => "silent",
            Self::Late => "late",
            Self::NoQueue => "no_queue",
            Self::Unfinished => "unfinished",
            Self::NotSent => "not_sent",
            Self::Unconfirmed => "unconfirmed",
            Self::StopRule => "stop_rule",
            Self::NotReached => "not_reached",
            Self::NotAble => "not_able",
        }
    }

    /// The words for people; empty where the state says it all.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SilentInSearch | Self::Silent => "",
            Self::Late => "answered too late",
            Self::NoQueue => NO_QUEUE,
            Self::Unfinished => "started, and its end was not heard",
            Self::NotSent => "the broker did not take the command",
            Self::Unconfirmed => "the broker did not confirm the command in time",
            Self::StopRule => "stop rule",
            Self::NotReached => "its wave was not sent",
            Self::NotAble => "not able",
        }
    }
}

/// What an action wrote to one stream. The text may be on disk, so it is read when it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    output: StreamOutput,
    /// How many bytes it wrote, missing ones included.
    pub(crate) bytes: u64,
    pub(crate) missing_bytes: u64,
}

impl Written {
    fn of(output: &StreamOutput) -> Self {
        Self { output: output.clone(), bytes: output.length(), missing_bytes: output.missing_bytes() }
    }

    /// The text, with a line for every part that is missing.
    pub(crate) fn text(&self) -> String {
        self.output.text()
    }

    /// The bytes up to the first missing one in base64, where they are not UTF-8.
    pub(crate) fn base64(&self) -> Option<String> {
        let beginning = self.output.beginning();
        std::str::from_utf8(&beginning).is_err().then(|| BASE64.encode(&beginning))
    }
}

impl Row {
    /// The row of a host that was asked.
    pub(crate) fn of(host: &HostName, record: &HostRecord, request: Option<RequestId>) -> Self {
        let reason = record.cause.map(|cause| match cause {
            Cause::NoQueue => Reason::NoQueue,
            Cause::Silent if record.late > 0 => Reason::Late,
            Cause::Silent => Reason::Silent,
            Cause::Unfinished => Reason::Unfinished,
            Cause::NotSent => Reason::NotSent,
            Cause::Unconfirmed => Reason::Unconfirmed,
        });
        let written = |stream| record.output.stream(stream).map(Written::of);
        // A watch that does not follow: the answer came, the request has not ended.
        let runs = record.result.as_ref().is_some_and(|result| result.code == STILL_RUNNING.code);
        Self {
            host: host.clone(),
            state: if runs { TaskState::Running } else { record.state },
            reason,
            result: record.result.clone(),
            stdout: written(OutputStream::Stdout),
            stderr: written(OutputStream::Stderr),
            reply_ms: record.first_report_ms,
            missing_reports: record.missing_reports(),
            request,
            detail: None,
            shown: false,
            aside: record.data_aside().cloned(),
        }
    }

    /// The data of its result, wherever they are.
    pub(crate) fn data(&self) -> Cow<'_, Value> {
        Data { result: self.result.as_ref(), piece: self.aside.as_ref() }.read()
    }

    /// The row of a host that was not asked.
    pub(crate) fn not_asked(host: HostName, state: TaskState, reason: Reason) -> Self {
        Self {
            host,
            state,
            reason: Some(reason),
            result: None,
            stdout: None,
            stderr: None,
            reply_ms: None,
            missing_reports: 0,
            request: None,
            detail: None,
            shown: false,
            aside: None,
        }
    }
}

/// Makes the one line that says what came of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headline<'a> {
    /// The action's description, which names the outputs that people look at first.
    pub(crate) action: Option<&'a Action>,
}

impl Headline<'_> {
    /// The line: for a success the outputs that the description sums up, else the data, the first
    /// line written, or the message; for everything else what went wrong.
    pub(crate) fn of(&self, row: &Row) -> String {
        let line = match (row.state, &row.result) {
            (TaskState::Succeeded, Some(result)) => self.success(row, result),
            (TaskState::Running, Some(result)) => result.message.clone(),
            (_, Some(result)) => failure(row, result),
            (_, None) => {
                let label = row.reason.map(Reason::label).unwrap_or_default();
                let detail = row.detail.as_deref().unwrap_or_default();
                if detail.is_empty() { label.to_owned() } else { format!("{label}: {detail}") }
            }
        };
        let mut characters = line.chars();
        let cut: String = characters.by_ref().take(HEADLINE_CHARACTERS_MAX).collect();
        if characters.next().is_some() { format!("{cut}...") } else { cut }
    }

    fn success(&self, row: &Row, result: &ActionResult) -> String {
        if let Some(written) = self.streamed(row) {
            let text = written.text();
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let first = lines.next().unwrap_or_default();
            return match lines.count() {
                0 => first.to_owned(),
                more => format!("{first}  (+{})", number::counted(more, "line", "lines")),
            };
        }
        let data = row.data();
        let summed: Vec<String> = self
            .action
            .into_iter()
            .flat_map(|action| &action.aggregate)
            .filter(|aggregate| aggregate.function == "summary" || aggregate.function == "boolean_summary")
            .filter_map(|aggregate| data.get(aggregate.output()?))
            .map(short)
            .filter(|text| !text.is_empty())
            .collect();
        if !summed.is_empty() {
            return summed.join(" · ");
        }
        let data = short(&data);
        let written = row.stdout.as_ref().and_then(|written| first_line(&written.text())).unwrap_or_default();
        [data.as_str(), written.as_str(), result.message.as_str()]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or("done")
            .to_owned()
    }

    /// What must be equal for two hosts to be in one group, apart from the state. The host's own
    /// name does not count, since it differs everywhere.
    fn key(&self, row: &Row) -> String {
        if row.state == TaskState::Succeeded && self.streamed(row).is_some() {
            // What it wrote is the outcome. Its data has times and numbers that differ everywhere.
            let text = |written: &Option<Written>| written.as_ref().map(Written::text).unwrap_or_default();
            return shortened(masked(&format!("{}\0{}", text(&row.stdout), text(&row.stderr)), &row.host));
        }
        let whole_matters = row.state == TaskState::Succeeded && !self.sums_up(row);
        let written = |written: &Option<Written>| written.as_ref().map(Written::text).unwrap_or_default();
        let text = match whole_matters {
            true => {
                let data = row.result.as_ref().map(|_| row.data().to_string()).unwrap_or_default();
                format!("{}\0{data}\0{}\0{}", self.of(row), written(&row.stdout), written(&row.stderr))
            }
            false => self.of(row),
        };
        shortened(masked(&text, &row.host))
    }

    /// What the host wrote, where writing is what the action is for.
    fn streamed<'r>(&self, row: &'r Row) -> Option<&'r Written> {
        let streams = self.action.is_some_and(|action| action.muster.supports.stream);
        row.stdout.as_ref().filter(|written| streams && !written.text().trim().is_empty())
    }

    fn sums_up(&self, row: &Row) -> bool {
        self.action.filter(|action| !action.aggregate.is_empty()).is_some_and(|action| {
            let data = row.data();
            let mut outputs = action.aggregate.iter().filter_map(|aggregate| aggregate.output());
            outputs.any(|output| data.get(output).is_some())
        })
    }
}

fn failure(row: &Row, result: &ActionResult) -> String {
    let denied = result.code == POLICY_DENIED.code && !result.message.is_empty();
    let head = match result.exit_code {
        // The rule's name says it; that the policy refused, the state says.
        None if denied => String::new(),
        Some(exit_code) => format!("exit {exit_code}"),
        None if result.code == "failed" || result.code == row.state.word().replace('_', "-") => String::new(),
        None => result.code.clone(),
    };
    let written = [&row.stderr, &row.stdout].into_iter().flatten().find_map(|written| first_line(&written.text()));
    let tail = if result.message.is_empty() { written.unwrap_or_default() } else { result.message.clone() };
    [head.as_str(), tail.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

fn first_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Longest text that groups are told apart by as it is, in bytes. Behind its beginning stands a digest of a longer one.
const KEY_BYTES_MAX: usize = 256;

/// A text that is equal where the long one is, so that thousands of long ones take no room.
fn shortened(text: String) -> String {
    if text.len() <= KEY_BYTES_MAX {
        return text;
    }
    let beginning: String = text.chars().take(KEY_BYTES_MAX / 4).collect();
    format!("{beginning}\0{}", digest(text.as_bytes()))
}

/// A value in a few words.
fn short(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| match value {
                Value::Object(inner) => format!("{name}={}", number::counted(inner.len(), "entry", "entries")),
                Value::Array(inner) => format!("{name}={}", number::counted(inner.len(), "item", "items")),
                value => format!("{name}={}", short(value)),
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// The text with the host's own name, whole or up to its first dot, replaced.
fn masked(text: &str, host: &HostName) -> String {
    let name = host.as_str();
    let masked = text.replace(name, HOST_MASK);
    match name.split_once('.') {
        Some((first, _)) if first.len() >= 4 => masked.replace(first, HOST_MASK),
        _ => masked,
    }
}

/// Hosts that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) state: TaskState,
    pub(crate) reason: Option<Reason>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) code: Option<String>,
    pub(crate) headline: String,
    pub(crate) hosts: BTreeSet<HostName>,
    /// The size of the largest group of successes, where this is a smaller one of them.
    pub(crate) differs_from: Option<usize>,
    /// What is said instead of the state.
    pub(crate) words: Option<String>,
}

/// What is equal in a group: state, reason, exit code, code and masked text.
type GroupKey = (TaskState, Option<Reason>, Option<i32>, Option<String>, String);

/// Groups rows that ended alike. Failures come first, then successes, then hosts that were silent,
/// refused or not run; among equals the larger group first.
pub(crate) fn group(rows: &[Row], headline: &Headline<'_>) -> Vec<Group> {
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    for row in rows {
        let exit_code = row.result.as_ref().and_then(|result| result.exit_code);
        let code = row.result.as_ref().map(|result| result.code.clone());
        let key = (row.state, row.reason, exit_code, code.clone(), headline.key(row));
        let group = groups.entry(key).or_insert_with(|| Group {
            state: row.state,
            reason: row.reason,
            exit_code,
            code,
            headline: headline.of(row),
            hosts: BTreeSet::new(),
            differs_from: None,
            words: None,
        });
        group.hosts.insert(row.host.clone());
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| (rank(group.state), usize::MAX - group.hosts.len()));
    let largest =
        groups.iter().filter(|group| group.state == TaskState::Succeeded).map(|group| group.hosts.len()).max();
    let mut first = true;
    for group in groups.iter_mut().filter(|group| group.state == TaskState::Succeeded) {
        if !std::mem::take(&mut first) {
            group.differs_from = largest;
        }
    }
    groups
}

fn rank(state: TaskState) -> u8 {
    match state {
        TaskState::Failed => 0,
        TaskState::TimedOut => 1,
        TaskState::Succeeded => 2,
        TaskState::Running => 3,
        TaskState::Pending => 4,
        TaskState::NoReply => 5,
        TaskState::Refused => 6,
        TaskState::Cancelled => 7,
        TaskState::NotStarted => 8,
    }
}

/// Counts the states of rows.
pub(crate) fn count(rows: &[Row]) -> Counts {
    let mut counts = Counts::default();
    for row in rows {
        *counts.of_mut(row.state) += 1;
    }
    counts
}

/// `212 succeeded · 2 no reply`: the states that occur, in the order of the summary.
pub(crate) fn summary(counts: &Counts, separator: &str) -> String {
    let order = [
        TaskState::Succeeded,
        TaskState::Failed,
        TaskState::TimedOut,
        TaskState::NoReply,
        TaskState::Refused,
        TaskState::Running,
        TaskState::Pending,
        TaskState::Cancelled,
        TaskState::NotStarted,
    ];
    let parts: Vec<String> = order
        .into_iter()
        .filter(|state| counts.of(*state) > 0)
        .map(|state| format!("{} {}", number::count(counts.of(state)), state.label()))
        .collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(separator) }
}

/// The exit code that the rows call for.
pub(crate) fn exit_code(rows: &[Row], tolerated: &[Tolerated]) -> ExitCode {
    ExitCode::choose(rows.iter().map(|row| match row.reason {
        Some(Reason::NotAble) => ExitCode::HostFailed,
        Some(Reason::NotSent) => ExitCode::Unreachable,
        _ => ExitCode::of_state(row.state, tolerated),
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use muster_protocol::{Outcome, OutputChunk};
    use serde_json::json;

    use super::*;

    pub(crate) fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    pub(crate) fn row(name: &str, outcome: Outcome, data: Value, message: &str) -> Row {
        let state = TaskState::from(&outcome);
        let code = match outcome {
            Outcome::Succeeded => "ok",
            Outcome::Refused => "policy-denied",
            _ => "failed",
        };
        let result = ActionResult {
            outcome,
            code: code.to_owned(),
            message: message.to_owned(),
            exit_code: None,
            data,
            truncated_from_bytes: None,
            duration_ms: 3,
        };
        Row { state, reason: None, result: Some(result), ..Row::not_asked(host(name), state, Reason::Silent) }
    }

    fn wrote_text(text: &str) -> Written {
        let chunk = OutputChunk {
            stream: OutputStream::Stdout,
            offset: 0,
            encoding: muster_protocol::Encoding::Text,
            data: text.to_owned(),
        };
        let mut output = muster_client::output::Output::default();
        output.insert(&chunk, 1 << 20);
        Written::of(output.stream(OutputStream::Stdout).unwrap())
    }

    fn package() -> Action {
        let ddl = muster_plugin_api::builtin_ddls().iter().find(|ddl| ddl.name().as_str() == "package").unwrap();
        ddl.action(&"status".parse().unwrap()).unwrap().clone()
    }

    fn shown(rows: &[Row], action: Option<&Action>) -> Vec<(usize, TaskState, String, Option<usize>)> {
        let groups = group(rows, &Headline { action });
        groups.into_iter().map(|group| (group.hosts.len(), group.state, group.headline, group.differs_from)).collect()
    }

    #[test]
    fn the_description_says_what_counts() {
        let action = package();
        let ok = |name: &str, ensure: &str, arch: &str| {
            row(name, Outcome::Succeeded, json!({"ensure": ensure, "arch": arch}), "")
        };
        let rows = [
            ok("a1", "3.0.11", "amd64"),
            ok("a2", "3.0.13", "amd64"),
            ok("a3", "3.0.13", "arm64"),
            Row::not_asked(host("a4"), TaskState::NoReply, Reason::SilentInSearch),
            row("a5", Outcome::Failed, Value::Null, "disk full"),
            row("a6", Outcome::Refused, Value::Null, "rule ops, line 4"),
        ];
        assert_eq!(
            shown(&rows, Some(&action)),
            [
                (1, TaskState::Failed, "disk full".to_owned(), None),
                (2, TaskState::Succeeded, "3.0.13".to_owned(), None),
                (1, TaskState::Succeeded, "3.0.11".to_owned(), Some(2)),
                (1, TaskState::NoReply, String::new(), None),
                (1, TaskState::Refused, "rule ops, line 4".to_owned(), None),
            ]
        );
        assert_eq!(summary(&count(&rows), " · "), "3 succeeded · 1 failed · 1 no reply · 1 refused");
        assert_eq!(exit_code(&rows, &[]), ExitCode::HostFailed);
    }

    #[test]
    fn the_name_of_the_host_itself_makes_no_difference() {
        let ok = |name: &str| row(name, Outcome::Succeeded, json!({"line": format!("hello from {name}")}), "");
        let rows = [ok("web1.ams1"), ok("web2.ams1"), row("web3.ams1", Outcome::Succeeded, json!({"line": "bye"}), "")];
        assert_eq!(shown(&rows, None).iter().map(|(count, ..)| *count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn without_a_description_the_data_is_the_line() {
        let line =
            |data: Value, message: &str| Headline { action: None }.of(&row("a", Outcome::Succeeded, data, message));
        assert_eq!(line(json!({"a": 1, "b": null, "c": [1, 2], "d": {"x": 1}}), ""), "a=1 c=2 items d=1 entry");
        assert_eq!(line(Value::Null, "all good"), "all good");
        assert_eq!(line(Value::Null, ""), "done");
        assert_eq!(line(json!("x".repeat(500)), "").chars().count(), HEADLINE_CHARACTERS_MAX + 3);
    }

    #[test]
    fn what_was_written_is_the_outcome_of_an_action_that_writes() {
        let ddl = muster_plugin_api::builtin_ddls().iter().find(|ddl| ddl.name().as_str() == "shell").unwrap();
        let action = ddl.action(&"run".parse().unwrap()).unwrap();
        let wrote = |name: &str, text: &str, duration_ms: u64| {
            let data = json!({"exit_code": 0, "stdout": text, "duration_ms": duration_ms});
            let stdout = Some(wrote_text(text));
            Row { stdout, ..row(name, Outcome::Succeeded, data, "") }
        };
        let rows = [
            wrote("web1.ams1", "6.1.0-18\n", 12),
            wrote("web2.ams1", "6.1.0-18\n", 900),
            wrote("web3.ams1", "6.1.0-17\n", 12),
            wrote("web4.ams1", "host web4.ams1\n\nup 3 days\n", 12),
            wrote("web5.ams1", "host web5.ams1\n\nup 3 days\n", 13),
            wrote("web6.ams1", "", 13),
        ];
        let shown: Vec<(usize, String)> =
            shown(&rows, Some(action)).into_iter().map(|(count, _, headline, _)| (count, headline)).collect();
        let expected = [(2, "6.1.0-18"), (2, "host web4.ams1  (+1 line)"), (1, "0"), (1, "6.1.0-17")];
        let mut sorted = shown.clone();
        sorted.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
        assert_eq!(sorted, expected.map(|(count, text)| (count, text.to_owned())));
    }

    #[test]
    fn a_failure_says_failed_what() {
        let line = |result: ActionResult, stderr: &str| {
            let stderr = Some(wrote_text(stderr));
            let base = row("a", result.outcome.clone(), Value::Null, "");
            Headline { action: None }.of(&Row { result: Some(result), stderr, ..base })
        };
        let result = |exit_code, code: &str, message: &str| ActionResult {
            exit_code,
            code: code.to_owned(),
            ..row("a", Outcome::Failed, Value::Null, message).result.unwrap()
        };
        assert_eq!(line(result(Some(1), "failed", ""), "\n  no space left\nmore"), "exit 1  no space left");
        assert_eq!(line(result(None, "signalled", "signal 9"), ""), "signalled  signal 9");
        assert_eq!(line(result(None, "failed", "it broke"), "noise"), "it broke");
    }
}
