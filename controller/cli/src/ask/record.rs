//! The documents of `ping`, `find` and `run` for programs: `muster.job/v1`.
//!
//! With `--jsonl` one record a line as things happen; with `--json` one document with the same parts.

use std::collections::BTreeMap;

use muster_client::{Counts, Summary};
use muster_protocol::{CountedAs, HostName, Identity, Outcome, RequestId, TaskState, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::aggregates::AggregateRecord;
use crate::outcome::{Group, Reason, Row, Written};
use crate::output::{ExitCode, Printer, time};

/// Schema of all of them. Additive within v1.
pub(crate) const SCHEMA: &str = "muster.job/v1";

/// What is about to be asked.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    pub(crate) kind: &'static str,
    pub(crate) context: String,
    pub(crate) plugin: String,
    pub(crate) action: String,
    pub(crate) arguments: Map<String, Value>,
    /// Names of secret arguments. Their values are nowhere in these documents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    pub(crate) noop: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effective_user: Option<String>,
    pub(crate) target: String,
    pub(crate) matched: usize,
    pub(crate) hosts: Vec<HostName>,
    pub(crate) silent: Vec<HostName>,
    /// Hosts that lack what the action needs, and what that is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) not_able: BTreeMap<HostName, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) waves: Vec<usize>,
    pub(crate) dry_run: bool,
}

/// What came of one host.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Task {
    kind: &'static str,
    host: HostName,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Value::is_null")]
    data: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_from_bytes: Option<u64>,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    /// The bytes themselves up to the first missing one, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    /// How many bytes it wrote to each, whether they are in here or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
    /// Bytes of both streams that are not in here.
    #[serde(skip_serializing_if = "is_zero")]
    output_missing_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_ms: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    missing_reports: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Task {
    /// The record of a row. `last_seen` is for hosts that are silent.
    pub(crate) fn of(row: &Row, last_seen: Option<Timestamp>) -> Self {
        let result = row.result.as_ref();
        // What went out in records of its own is not said again.
        let [stdout, stderr] = [&row.stdout, &row.stderr].map(|written| written.as_ref().filter(|_| !row.shown));
        Self {
            kind: "task",
            host: row.host.clone(),
            state: row.state.word(),
            reason: row.reason.map(Reason::word),
            outcome: result.filter(|_| row.state.is_final()).map(|result| Outcome::as_str(&result.outcome).to_owned()),
            code: result.map(|result| result.code.clone()),
            message: result.map(|result| result.message.clone()).filter(|message| !message.is_empty()),
            exit_code: result.and_then(|result| result.exit_code),
            data: row.data().into_owned(),
            truncated_from_bytes: result.and_then(|result| result.truncated_from_bytes),
            detail: row.detail.clone(),
            stdout: stdout.map(Written::text),
            stderr: stderr.map(Written::text),
            stdout_base64: stdout.and_then(Written::base64),
            stderr_base64: stderr.and_then(Written::base64),
            stdout_bytes: row.stdout.as_ref().map(|written| written.bytes),
            stderr_bytes: row.stderr.as_ref().map(|written| written.bytes),
            output_missing_bytes: [stdout, stderr]
                .into_iter()
                .flatten()
                .fold(0, |all: u64, written| all.saturating_add(written.missing_bytes)),
            duration_ms: result.map(|result| result.duration_ms),
            reply_ms: row.reply_ms,
            missing_reports: u64::from(row.missing_reports),
            request_id: row.request.map(|request| request.to_string()),
            last_seen_at: last_seen.filter(|_| row.state == TaskState::NoReply).map(time::rfc3339),
        }
    }
}

/// How many hosts are in which state.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CountsRecord {
    kind: &'static str,
    succeeded: usize,
    failed: usize,
    pending: usize,
    not_run: usize,
    total: usize,
    /// The same broken down; states without hosts are left out.
    states: BTreeMap<&'static str, usize>,
}

impl CountsRecord {
    /// The record of counts.
    pub(crate) fn of(counts: &Counts) -> Self {
        let states = TaskState::ALL.into_iter().filter(|state| counts.of(*state) > 0);
        Self {
            kind: "counts",
            succeeded: counts.counted(CountedAs::Succeeded),
            failed: counts.counted(CountedAs::Failed),
            pending: counts.counted(CountedAs::Pending),
            not_run: counts.counted(CountedAs::NotRun),
            total: counts.total(),
            states: states.map(|state| (state.word(), counts.of(state))).collect(),
        }
    }
}

/// Hosts that ended alike.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupRecord {
    kind: &'static str,
    count: usize,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    headline: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    differs_from: Option<usize>,
    hosts: Vec<HostName>,
}

impl GroupRecord {
    /// The record of a group.
    pub(crate) fn of(group: &Group) -> Self {
        Self {
            kind: "group",
            count: group.hosts.len(),
            state: group.state.word(),
            reason: group.reason.map(Reason::word),
            code: group.code.clone(),
            exit_code: group.exit_code,
            headline: group.headline.clone(),
            differs_from: group.differs_from,
            hosts: group.hosts.iter().cloned().collect(),
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EndRecord {
    pub(crate) kind: &'static str,
    /// `complete`, `interrupted`, `stopped_waiting`, `stop_rule`, `detached` or `failed`.
    pub(crate) end: &'static str,
    /// What `muster watch` and `muster cancel` take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'static str>,
    pub(crate) exit_code: u8,
    pub(crate) duration_ms: u64,
    /// Hosts that answered without being asked, with the number of their reports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) strangers: BTreeMap<HostName, u32>,
    /// Messages that were not believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rejected: Vec<RejectedRecord>,
    /// How often the connection broke and came back; if ever, answers may be missing.
    #[serde(skip_serializing_if = "is_none_at_all")]
    pub(crate) reconnects: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_at_all(number: &u32) -> bool {
    *number == 0
}

/// Messages that were not believed, for one reason and one host.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RejectedRecord {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_host: Option<HostName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<Identity>,
    count: u64,
}

impl EndRecord {
    /// The record of an end without oddities.
    pub(crate) fn new(end: &'static str, exit: ExitCode, duration_ms: u64) -> Self {
        Self {
            kind: "end",
            end,
            request_id: None,
            error: None,
            exit_code: exit.number(),
            duration_ms,
            strangers: BTreeMap::new(),
            rejected: Vec::new(),
            reconnects: 0,
        }
    }

    /// Adds the oddities of a question.
    pub(crate) fn note(&mut self, summary: &Summary) {
        for (host, count) in &summary.strangers {
            let all = self.strangers.entry(host.clone()).or_insert(0);
            *all = all.saturating_add(*count);
        }
        self.reconnects += summary.reconnects;
        for ((code, claimed_host, signed_by), count) in &summary.rejections {
            let known = self.rejected.iter_mut().find(|known| {
                known.code == *code && known.claimed_host == *claimed_host && known.signed_by == *signed_by
            });
            match known {
                Some(known) => known.count += count,
                None => self.rejected.push(RejectedRecord {
                    code,
                    claimed_host: claimed_host.clone(),
                    signed_by: signed_by.clone(),
                    count: *count,
                }),
            }
        }
    }

    /// Says the oddities to people.
    pub(crate) fn warn(&self, printer: &Printer) {
        for rejected in &self.rejected {
            let from =
                rejected.claimed_host.as_ref().map(|host| format!(" under the name of {host}")).unwrap_or_default();
            let signer = rejected.signed_by.as_ref().map(|signer| format!(", signed by {}", signer.short()));
            let messages = crate::output::number::counted(
                usize::try_from(rejected.count).unwrap_or(usize::MAX),
                "message",
                "messages",
            );
            printer.warning(format!(
                "{messages}{from}{} not believed: {} (muster explain {})",
                signer.unwrap_or_default(),
                rejected.code,
                rejected.code
            ));
        }
        if !self.strangers.is_empty() {
            let names = crate::output::fold::fold_line(self.strangers.keys().map(HostName::as_str));
            printer.warning(format!("answers from hosts that were not asked: {names}"));
        }
    }
}

/// The records of all rows, each made when it is written: together they may not fit into memory.
pub(crate) struct Tasks<'a> {
    pub(crate) rows: &'a [Row],
    pub(crate) last_seen: &'a dyn Fn(&HostName) -> Option<Timestamp>,
}

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows.iter().map(|row| Task::of(row, (self.last_seen)(&row.host))))
    }
}

/// Everything in one document.
#[derive(Serialize)]
pub(crate) struct Whole<'a> {
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<RequestRecord>,
    pub(crate) tasks: Tasks<'a>,
    pub(crate) counts: CountsRecord,
    pub(crate) groups: Vec<GroupRecord>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) aggregates: Vec<AggregateRecord>,
    pub(crate) end: EndRecord,
}

/// The request that is watched or cancelled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RequestRecord {
    pub(crate) kind: &'static str,
    pub(crate) request_id: RequestId,
    pub(crate) context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) what: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asked_at: Option<String>,
    pub(crate) hosts: Vec<HostName>,
}

/// That the broker has taken the commands.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Accepted {
    pub(crate) kind: &'static str,
    pub(crate) request_ids: Vec<String>,
    pub(crate) hosts: usize,
}
