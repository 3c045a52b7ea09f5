//! What is known of every host that was asked: a pure state machine over reports and time.
//!
//! ```text
//!            running report             finished report
//!  pending ────────────────► running ────────────────────► succeeded, failed, timed_out, refused, cancelled
//!     │ finished report ─────────────────────────────────►
//!     │ start timeout           │ run timeout
//!     ▼                         ▼
//!  no_reply                 timed_out                       not_started  (could not be asked)
//! ```
//!
//! Final states absorb: what comes after one is recorded as late and changes nothing. Arrival order
//! and repeats of a host's reports do not change how it ends. The report `refused/replayed` only says
//! that the host has seen the request twice, so it never decides anything while a real one may come. Where a
//! command is sent that may have been sent before ([`Rules::settle_ms`]), that time is short.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use muster_protocol::code::{NEEDS_APPROVAL, REPLAYED, SHUTTING_DOWN, STILL_RUNNING, UNKNOWN_REQUEST};
use muster_protocol::{
    ActionResult, CountedAs, HostName, Identity, Outcome, ProgressReport, ReportState, RequestId, TaskState, Timestamp,
};
use serde_json::Value;

use crate::aside::{Aside, Piece};
use crate::output::Output;
use crate::sequence::{Inserted, Sequences};

/// Most names kept of hosts that answered without being expected. More are only counted.
const STRANGERS_MAX: usize = 1000;

/// Memory for the output of all hosts together, in bytes; a host gets its share of it.
const OUTPUT_BYTES_ALL: usize = 256 * 1024 * 1024;

/// How long the end of a request is still waited for once its host says that it knows nothing of it any more, in
/// milliseconds: a report that waits on the host is sent again within five seconds.
const FORGOTTEN_MS: i64 = 8_000;

/// Memory for the data of all hosts' results together, in bytes as they lie in memory: a megabyte of small numbers on
/// the wire is some thirty there, and every host may send one.
const RESULTS_BYTES_ALL: usize = 512 * 1024 * 1024;

/// Shortest data of a result that are set aside, in bytes of JSON. Shorter ones take less room where they are.
const DATA_ASIDE_BYTES_MIN: usize = 256;

/// How many bytes are kept of each stream of a host where there is a place for them.
const OUTPUT_BYTES_ASIDE: usize = 16 * 1024 * 1024;

/// Largest piece of output that is held before it is set aside, in bytes.
const OUTPUT_PIECE_BYTES_MAX: usize = 64 * 1024;

/// Memory for the output of all hosts that is not set aside yet, in bytes, where there is a place for the rest.
const OUTPUT_HELD_BYTES_ALL: usize = 16 * 1024 * 1024;

/// How many bytes are kept of each stream of a host when `hosts` of them are asked: a share of
/// 256 MiB, at least 4 KiB and at most 64 MiB.
#[must_use]
pub fn output_bytes_per_stream(hosts: usize) -> usize {
    (OUTPUT_BYTES_ALL / 2 / hosts.max(1)).clamp(4 * 1024, 64 * 1024 * 1024)
}

/// Who is expected to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// These hosts and nobody else.
    Hosts(BTreeSet<HostName>),
    /// Whoever the target's expression is true on; nobody here knows how many.
    Anyone,
}

/// The clocks and bounds of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a host may take until its first report, in milliseconds; then it is `no_reply`.
    /// With [`Expected::Anyone`] this is the window in which answers are taken.
    pub start_timeout_ms: i64,
    /// How long a host that has started may take until its last report, in milliseconds, the way of
    /// the report included; then it is `timed_out`.
    pub run_timeout_ms: i64,
    /// How many bytes of each output stream of a host are kept.
    pub output_bytes_max: usize,
    /// Whether a stream begins wherever its first piece does.
    pub output_from_anywhere: bool,
    /// How long after a host has said that it had the request before something else is still taken for its answer, in
    /// milliseconds; without it, for the whole start timeout.
    pub settle_ms: Option<i64>,
    /// Whether a host may want signatures of what was sent *before*: such a report can have waited on the host for its
    /// reader. The first one is no answer then, unless nothing else comes for [`settle_ms`](Self::settle_ms).
    pub sent_before: bool,
}

/// Why a host is in a state that no report of its own gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The broker has no queue for the host: it was never there, or has been away for long.
    NoQueue,
    /// It was asked and has not confirmed the start in time.
    Silent,
    /// It has started and its end was not heard in time.
    Unfinished,
    /// The command could not be handed to the broker.
    NotSent,
    /// The broker has not confirmed the command and nothing was heard of the host: it may have it or not.
    Unconfirmed,
}

/// How long reports are waited for that the end of their host has overtaken, in milliseconds.
const OVERTAKEN_MS: i64 = 2_000;

/// What is known of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRecord {
    /// Its state.
    pub state: TaskState,
    /// Why it is in it, where the host did not say so itself.
    pub cause: Option<Cause>,
    /// Milliseconds from asking to its first report.
    pub first_report_ms: Option<i64>,
    /// Milliseconds from asking to its end.
    pub ended_ms: Option<i64>,
    /// Its result, once finished.
    pub result: Option<ActionResult>,
    /// What its action wrote.
    pub output: Output,
    /// Reports that came again.
    pub duplicates: u32,
    /// Reports that came after the end and changed nothing.
    pub late: u32,
    /// The result that came too late, so that a silent host that did answer can be told apart.
    pub late_result: Option<ActionResult>,
    sequences: Sequences,
    /// The watch that was sent after a time without a connection, and which of its reports have come.
    attached: Option<(RequestId, Sequences)>,
    finished_sequence: Option<u32>,
    replayed: Option<ActionResult>,
    /// From when on that is its answer.
    settle_at: Option<Timestamp>,
    /// Memory that the data of its results take.
    results_bytes: usize,
    /// The data of its result, where they were set aside.
    data: Option<Piece>,
    /// The broker has not confirmed the command for it.
    unconfirmed: bool,
    /// When it is given up; only while it runs.
    run_deadline: Option<Timestamp>,
    /// Until when reports from before its end are waited for.
    overtaken_until: Option<Timestamp>,
}

impl HostRecord {
    fn new() -> Self {
        Self {
            state: TaskState::Pending,
            cause: None,
            first_report_ms: None,
            ended_ms: None,
            result: None,
            output: Output::default(),
            duplicates: 0,
            late: 0,
            late_result: None,
            sequences: Sequences::default(),
            attached: None,
            finished_sequence: None,
            replayed: None,
            settle_at: None,
            results_bytes: 0,
            data: None,
            unconfirmed: false,
            run_deadline: None,
            overtaken_until: None,
        }
    }

    /// The data of its result: also those that were set aside, which its `result` has not.
    #[must_use]
    pub fn data(&self) -> Cow<'_, Value> {
        Data { result: self.result.as_ref(), piece: self.data.as_ref() }.read()
    }

    /// The data of its result, where they were set aside.
    #[must_use]
    pub fn data_aside(&self) -> Option<&Piece> {
        self.data.as_ref()
    }

    /// Sets aside what is long.
    fn set_aside(&mut self, aside: &Aside, piece_bytes: usize) -> io::Result<()> {
        self.output.set_aside(aside, piece_bytes, piece_bytes.saturating_mul(2))?;
        // A refusal's data are the protocol's own, and looked at.
        let long = |result: &&mut ActionResult| !result.data.is_null() && !result.outcome.never_started();
        let Some(result) = self.result.as_mut().filter(long) else { return Ok(()) };
        let bytes = serde_json::to_vec(&result.data)?;
        if bytes.len() >= DATA_ASIDE_BYTES_MIN {
            self.data = Some(aside.put(&bytes)?);
            result.data = Value::Null;
        }
        Ok(())
    }

    /// Leaves out the data of its results where they take more memory than `room`, and says so in them.
    fn keep_within(&mut self, room: usize) {
        let results = || [&self.result, &self.late_result, &self.replayed].into_iter().flatten();
        self.results_bytes = results().map(|result| bytes_in_memory(&result.data)).sum();
        if self.results_bytes <= room {
            return;
        }
        for result in [&mut self.result, &mut self.late_result, &mut self.replayed].into_iter().flatten() {
            let bytes = bytes_in_memory(&std::mem::take(&mut result.data));
            result.truncated_from_bytes = result.truncated_from_bytes.max(u64::try_from(bytes).ok());
            if !result.message.is_empty() {
                result.message.push_str("; ");
            }
            result.message.push_str("its data were left out: the answers of all hosts take too much memory");
        }
        self.results_bytes = 0;
    }

    /// Reports that were sent before the latest one and never came. What a watch has told again is not missing.
    #[must_use]
    pub fn missing_reports(&self) -> u32 {
        self.attached.as_ref().map_or(&self.sequences, |(_, sequences)| sequences).missing()
    }

    /// Whether everything is known about the host that can be: it is in a final state.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.state.is_final()
    }
}

/// How many hosts are in each state. Adds up to the hosts that were asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Asked, nothing heard.
    pub pending: usize,
    /// Started.
    pub running: usize,
    /// Done as asked.
    pub succeeded: usize,
    /// Ended otherwise.
    pub failed: usize,
    /// Not done in time.
    pub timed_out: usize,
    /// Never confirmed.
    pub no_reply: usize,
    /// The host would not.
    pub refused: usize,
    /// Cancelled by somebody.
    pub cancelled: usize,
    /// Never asked or never started.
    pub not_started: usize,
}

impl Counts {
    /// The number of hosts in a state.
    #[must_use]
    pub fn of(&self, state: TaskState) -> usize {
        match state {
            TaskState::Pending => self.pending,
            TaskState::Running => self.running,
            TaskState::Succeeded => self.succeeded,
            TaskState::Failed => self.failed,
            TaskState::TimedOut => self.timed_out,
            TaskState::NoReply => self.no_reply,
            TaskState::Refused => self.refused,
            TaskState::Cancelled => self.cancelled,
            TaskState::NotStarted => self.not_started,
        }
    }

    /// The place of a state's number, to change it.
    pub fn of_mut(&mut self, state: TaskState) -> &mut usize {
        match state {
            TaskState::Pending => &mut self.pending,
            TaskState::Running => &mut self.running,
            TaskState::Succeeded => &mut self.succeeded,
            TaskState::Failed => &mut self.failed,
            TaskState::TimedOut => &mut self.timed_out,
            TaskState::NoReply => &mut self.no_reply,
            TaskState::Refused => &mut self.refused,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::NotStarted => &mut self.not_started,
        }
    }

    /// The number of hosts in the states that count as `kind`.
    #[must_use]
    pub fn counted(&self, kind: CountedAs) -> usize {
        TaskState::ALL.into_iter().filter(|state| state.counted_as() == kind).map(|state| self.of(state)).sum()
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        TaskState::ALL.into_iter().map(|state| self.of(state)).sum()
    }

    /// Both added up, as for the waves of one question.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for state in TaskState::ALL {
            *self.of_mut(state) += other.of(state);
        }
        self
    }
}

/// What a report was to the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The host's first report, and more will follow.
    Started,
    /// News of a running action, or a missing piece of a finished one.
    Progress,
    /// The host's last report: it is in a final state now.
    Finished,
    /// It had come before.
    Duplicate,
    /// The host says that it saw the request twice, or what it may have said before; another answer stands.
    Replayed,
    /// The host was asked again about a request and cannot say how it ended; nothing changed.
    Untold,
    /// It came after the end.
    Late,
    /// A host that was not asked. The report was not taken.
    Stranger,
    /// It answers another request or another caller. The report was not taken.
    ForAnother,
    /// The host sends numbers without any order. The report was not taken.
    Disorderly,
}

/// Collects the reports to one question.
#[derive(Debug)]
pub struct Collector {
    requests: BTreeSet<RequestId>,
    /// Watches of these requests, sent after a time without a connection.
    watches: BTreeSet<RequestId>,
    caller: Identity,
    rules: Rules,
    anyone: bool,
    asked_at: Timestamp,
    /// From when the start timeout counts.
    sent_at: Timestamp,
    closed: bool,
    hosts: BTreeMap<HostName, HostRecord>,
    counts: Counts,
    /// When each running host is given up.
    running: BTreeSet<(Timestamp, HostName)>,
    /// From when on what a host said of an earlier time is its answer.
    settling: BTreeSet<(Timestamp, HostName)>,
    /// Until when each host is waited for whose end has overtaken earlier reports.
    overtaken: BTreeSet<(Timestamp, HostName)>,
    /// Hosts for which that is over, not told yet.
    whole: Vec<HostName>,
    strangers: BTreeMap<HostName, u32>,
    stranger_reports: u64,
    for_another: u64,
    /// Memory that the data of all results take, and may take.
    results_bytes: usize,
    results_bytes_max: usize,
    aside: Option<Aside>,
    /// Why nothing is set aside any more.
    aside_error: Option<String>,
}

impl Collector {
    /// Starts a collection for the requests that make up one question.
    #[must_use]
    pub fn new(
        requests: impl IntoIterator<Item = RequestId>,
        caller: Identity,
        expected: Expected,
        rules: Rules,
        asked_at: Timestamp,
    ) -> Self {
        let (anyone, hosts) = match expected {
            Expected::Anyone => (true, BTreeMap::new()),
            Expected::Hosts(names) => (false, names.into_iter().map(|name| (name, HostRecord::new())).collect()),
        };
        let counts = Counts { pending: hosts.len(), ..Counts::default() };
        Self {
            requests: requests.into_iter().collect(),
            watches: BTreeSet::new(),
            caller,
            rules,
            anyone,
            asked_at,
            sent_at: asked_at,
            closed: false,
            hosts,
            counts,
            running: BTreeSet::new(),
            settling: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            whole: Vec::new(),
            strangers: BTreeMap::new(),
            stranger_reports: 0,
            for_another: 0,
            results_bytes: 0,
            results_bytes_max: RESULTS_BYTES_ALL,
            aside: None,
            aside_error: None,
        }
    }

    /// Sets aside what is long of results and output from now on. Whoever wants a result's data asks
    /// [`HostRecord::data`] then.
    pub fn set_aside_in(&mut self, aside: Aside) {
        self.aside = Some(aside);
    }

    /// Why what came lately could not be set aside, so that memory bounds what is kept of it.
    #[must_use]
    pub fn aside_error(&self) -> Option<&str> {
        self.aside_error.as_deref()
    }

    /// How many bytes of results and output are held in memory: not set aside, and about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.results_bytes + self.hosts.values().map(|record| record.output.held_bytes()).sum::<usize>()
    }

    /// Everything has been handed to the broker: the start timeout of silent hosts counts from here.
    pub fn all_sent(&mut self, now: Timestamp) {
        self.sent_at = self.sent_at.max(now);
    }

    /// Takes a report whose signature is right and whose signer is the host that it names.
    pub fn take(&mut self, report: &ProgressReport, now: Timestamp) -> Taken {
        let watches = self.watches.contains(&report.request_id);
        if !(watches || self.requests.contains(&report.request_id)) || report.caller != self.caller {
            self.for_another += 1;
            return Taken::ForAnother;
        }
        if watches {
            let attached = self.hosts.get(&report.host).and_then(|record| record.attached.as_ref());
            // Of an earlier watch, or of a host that was not sent this one.
            if attached.is_none_or(|(watch, _)| *watch != report.request_id) {
                self.for_another += 1;
                return Taken::ForAnother;
            }
            if let Some(result) = report.result.as_ref().filter(|result| !tells_an_end(result)) {
                if result.code == UNKNOWN_REQUEST.code {
                    self.hasten(&report.host, now);
                }
                return Taken::Untold;
            }
        }
        if self.anyone && !self.closed && !self.hosts.contains_key(&report.host) {
            self.hosts.insert(report.host.clone(), HostRecord::new());
            self.counts.pending += 1;
        }
        let hosts = self.hosts.len();
        let Some(record) = self.hosts.get_mut(&report.host) else {
            self.stranger_reports += 1;
            if self.strangers.len() < STRANGERS_MAX || self.strangers.contains_key(&report.host) {
                let count = self.strangers.entry(report.host.clone()).or_insert(0);
                *count = count.saturating_add(1);
            }
            return Taken::Stranger;
        };
        let before = record.state;
        let is_attached = record.attached.is_some();
        let rules = match &self.aside {
            Some(_) => Rules { output_bytes_max: self.rules.output_bytes_max.max(OUTPUT_BYTES_ASIDE), ..self.rules },
            None => self.rules,
        };
        let taken = take(record, report, &rules, self.closed, now.since_ms(self.asked_at).max(0));
        let after = record.state;
        if let Some(aside) = &self.aside {
            let piece_bytes = (OUTPUT_HELD_BYTES_ALL / 4 / hosts.max(1)).clamp(256, OUTPUT_PIECE_BYTES_MAX);
            if let Err(error) = record.set_aside(aside, piece_bytes) {
                self.aside_error = Some(error.to_string());
                self.aside = None;
            }
        }
        if report.result.is_some() {
            self.results_bytes -= record.results_bytes;
            record.keep_within(self.results_bytes_max.saturating_sub(self.results_bytes));
            self.results_bytes += record.results_bytes;
        }
        self.moved(&report.host, before, after, now);
        // A watch tells more, and a copy that was sent after an outage was sent by us.
        if let Some(settle_ms) = self.rules.settle_ms.filter(|_| taken == Taken::Replayed && !is_attached) {
            self.settle(&report.host, now.plus_ms(settle_ms));
        }
        self.wait_for_overtaken(&report.host, &taken, now);
        taken
    }

    /// Has a host that has ended be waited for while reports from before its end are missing. Agents send an end and what
    /// comes before it over two channels, between which a broker keeps no order (AMQP 0-9-1, 4.7), so the end may be first.
    fn wait_for_overtaken(&mut self, host: &HostName, taken: &Taken, now: Timestamp) {
        let Some(record) = self.hosts.get_mut(host) else { return };
        // The reports of a watch have numbers of their own.
        let is_whole = record.attached.is_some() || record.sequences.missing() == 0;
        match record.overtaken_until {
            None if *taken == Taken::Finished && !is_whole && !self.closed => {
                let until = now.plus_ms(OVERTAKEN_MS);
                record.overtaken_until = Some(until);
                self.overtaken.insert((until, host.clone()));
            }
            Some(until) if is_whole => {
                record.overtaken_until = None;
                self.overtaken.remove(&(until, host.clone()));
                self.whole.push(host.clone());
            }
            _ => {}
        }
    }

    /// Whether a host has ended, and reports from before its end are waited for.
    #[must_use]
    pub fn is_overtaken(&self, host: &HostName) -> bool {
        self.hosts.get(host).is_some_and(|record| record.overtaken_until.is_some())
    }

    /// Whether any host is.
    #[must_use]
    pub fn has_overtaken(&self) -> bool {
        !self.overtaken.is_empty()
    }

    /// The hosts that were waited for after their end and no longer are: all is there, or it did not come.
    pub fn take_whole(&mut self) -> Vec<HostName> {
        std::mem::take(&mut self.whole)
    }

    fn end_overtaken(&mut self, until: impl Fn(Timestamp) -> bool) {
        while let Some((_, host)) = self.overtaken.first().filter(|(at, _)| until(*at)).cloned() {
            self.overtaken.pop_first();
            if let Some(record) = self.hosts.get_mut(&host) {
                record.overtaken_until = None;
            }
            self.whole.push(host);
        }
    }

    /// Has what a host said of an earlier time be its answer from then on.
    fn settle(&mut self, host: &HostName, at: Timestamp) {
        let Some(record) = self.hosts.get_mut(host) else { return };
        if record.state == TaskState::Pending && record.settle_at.is_none() {
            record.settle_at = Some(at);
            self.settling.insert((at, host.clone()));
        }
    }

    fn unsettle(&mut self, host: &HostName) {
        if let Some(at) = self.hosts.get_mut(host).and_then(|record| record.settle_at.take()) {
            self.settling.remove(&(at, host.clone()));
        }
    }

    /// Takes the reports of a watch of these hosts for news of them as well.
    pub fn attach(&mut self, watch: RequestId, hosts: &[HostName]) {
        self.watches.insert(watch);
        for host in hosts {
            self.unsettle(host);
            if let Some(record) = self.hosts.get_mut(host) {
                record.attached = Some((watch, Sequences::default()));
            }
        }
    }

    /// Answers can come again after a time in which none could. Silent hosts get their whole time once more, running
    /// ones at least as long as that.
    pub fn resumed(&mut self, now: Timestamp) {
        self.sent_at = self.sent_at.max(now);
        let least = now.plus_ms(self.rules.start_timeout_ms);
        let due: Vec<HostName> =
            self.running.iter().take_while(|(deadline, _)| *deadline < least).map(|(_, host)| host.clone()).collect();
        for host in due {
            self.set_deadline(&host, least);
        }
    }

    /// A running host that knows nothing of its request any more is not waited for much longer.
    fn hasten(&mut self, host: &HostName, now: Timestamp) {
        let soon = now.plus_ms(FORGOTTEN_MS);
        let deadline = self.hosts.get(host).and_then(|record| record.run_deadline);
        if deadline.is_some_and(|deadline| deadline > soon) {
            self.set_deadline(host, soon);
        }
    }

    /// Moves the deadline of a running host.
    fn set_deadline(&mut self, host: &HostName, deadline: Timestamp) {
        let Some(record) = self.hosts.get_mut(host) else { return };
        if let Some(before) = record.run_deadline.replace(deadline) {
            self.running.remove(&(before, host.clone()));
        }
        self.running.insert((deadline, host.clone()));
    }

    /// Notes that a host cannot be asked: it is `no_reply` if the broker has no queue for it,
    /// `not_started` if the command was not sent. Does nothing once something was heard of it.
    pub fn unreachable(&mut self, host: &HostName, cause: Cause, now: Timestamp) {
        let Some(record) = self.hosts.get_mut(host) else { return };
        if record.state != TaskState::Pending || self.closed {
            return;
        }
        record.state = if cause == Cause::NotSent { TaskState::NotStarted } else { TaskState::NoReply };
        record.cause = Some(cause);
        let after = record.state;
        self.moved(host, TaskState::Pending, after, now);
    }

    /// Notes that the broker has not confirmed the command for a host: if it stays silent, that may be why.
    pub fn unconfirmed(&mut self, host: &HostName) {
        if let Some(record) = self.hosts.get_mut(host) {
            record.unconfirmed = true;
        }
    }

    /// Lets time pass: gives up hosts whose clock has run out and returns them.
    pub fn advance(&mut self, now: Timestamp) -> Vec<HostName> {
        let mut given_up = Vec::new();
        if self.closed {
            return given_up;
        }
        self.end_overtaken(|at| at <= now);
        while let Some((at, host)) = self.settling.first().cloned() {
            if at > now {
                break;
            }
            self.give_up(&host, TaskState::NoReply, Cause::Silent, now);
            given_up.push(host);
        }
        while let Some((deadline, host)) = self.running.first().cloned() {
            if deadline > now {
                break;
            }
            self.give_up(&host, TaskState::TimedOut, Cause::Unfinished, now);
            given_up.push(host);
        }
        if self.counts.pending > 0 && self.start_deadline() <= now {
            let silent: Vec<HostName> = self
                .hosts
                .iter()
                .filter(|(_, record)| record.state == TaskState::Pending)
                .map(|(host, _)| host.clone())
                .collect();
            for host in silent {
                self.give_up(&host, TaskState::NoReply, Cause::Silent, now);
                given_up.push(host);
            }
        }
        given_up
    }

    fn give_up(&mut self, host: &HostName, state: TaskState, cause: Cause, now: Timestamp) {
        let Some(record) = self.hosts.get_mut(host) else { return };
        let before = record.state;
        match record.replayed.take() {
            // All it ever said is that it had seen the request before: that is its answer then.
            Some(result) if before == TaskState::Pending => {
                record.state = TaskState::from(&result.outcome);
                record.result = Some(result);
            }
            _ => {
                record.state = state;
                let unconfirmed = cause == Cause::Silent && record.unconfirmed;
                record.cause = Some(if unconfirmed { Cause::Unconfirmed } else { cause });
            }
        }
        let after = record.state;
        self.moved(host, before, after, now);
    }

    fn moved(&mut self, host: &HostName, before: TaskState, after: TaskState, now: Timestamp) {
        if before == after {
            return;
        }
        *self.counts.of_mut(before) -= 1;
        *self.counts.of_mut(after) += 1;
        self.unsettle(host);
        let Some(record) = self.hosts.get_mut(host) else { return };
        if let Some(deadline) = record.run_deadline.take() {
            self.running.remove(&(deadline, host.clone()));
        }
        if after == TaskState::Running {
            let deadline = now.plus_ms(self.rules.run_timeout_ms);
            record.run_deadline = Some(deadline);
            self.running.insert((deadline, host.clone()));
        }
    }

    fn start_deadline(&self) -> Timestamp {
        self.sent_at.plus_ms(self.rules.start_timeout_ms)
    }

    /// Whether nothing more is to be waited for: every expected host is in a final state, with all that it sent before, or has
    /// run out of time; with [`Expected::Anyone`], the window is over and nobody is still running.
    #[must_use]
    pub fn is_complete(&self, now: Timestamp) -> bool {
        let window_over = !self.anyone || self.start_deadline() <= now;
        let nobody = self.counts.pending == 0 && self.counts.running == 0 && self.overtaken.is_empty();
        self.closed || (window_over && nobody)
    }

    /// Whether [`advance`](Self::advance) would stop waiting for somebody now.
    #[must_use]
    pub fn is_anybody_due(&self, now: Timestamp) -> bool {
        let clocks = [&self.running, &self.settling, &self.overtaken];
        let is_over = |clock: &BTreeSet<(Timestamp, HostName)>| clock.first().is_some_and(|(at, _)| *at <= now);
        let nobody_started = self.counts.pending > 0 && self.start_deadline() <= now;
        !self.closed && (nobody_started || clocks.into_iter().any(is_over))
    }

    /// When there is something to do next, if nothing arrives before, once [`advance`](Self::advance) was told that it
    /// is `now`. Never a time that is over, so that nobody who waits for it turns in circles.
    #[must_use]
    pub fn next_wakeup(&self, now: Timestamp) -> Option<Timestamp> {
        if self.closed {
            return None;
        }
        let start = (self.anyone || self.counts.pending > 0).then(|| self.start_deadline());
        let run = self.running.first().map(|(deadline, _)| *deadline);
        let settle = self.settling.first().map(|(at, _)| *at);
        let overtaken = self.overtaken.first().map(|(at, _)| *at);
        start.into_iter().chain(run).chain(settle).chain(overtaken).filter(|at| *at > now).min()
    }

    /// Stops the collection. Hosts that have not ended stay as they are: they were asked and go on.
    pub fn close(&mut self) {
        self.end_overtaken(|_| true);
        self.closed = true;
    }

    /// Puts the hosts that nobody will ask any more into `not_started`.
    pub fn not_sent(&mut self, now: Timestamp) {
        let pending: Vec<HostName> =
            self.hosts.iter().filter(|(_, r)| r.state == TaskState::Pending).map(|(host, _)| host.clone()).collect();
        for host in pending {
            self.unreachable(&host, Cause::NotSent, now);
        }
    }

    /// The hosts and what is known of them, by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&HostName, &HostRecord)> {
        self.hosts.iter()
    }

    /// What is known of one host.
    #[must_use]
    pub fn host(&self, host: &HostName) -> Option<&HostRecord> {
        self.hosts.get(host)
    }

    /// How many hosts are in each state.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Hosts that answered without being expected, with the number of their reports. At most 1,000.
    #[must_use]
    pub fn strangers(&self) -> &BTreeMap<HostName, u32> {
        &self.strangers
    }

    /// All reports of strangers.
    #[must_use]
    pub fn stranger_reports(&self) -> u64 {
        self.stranger_reports
    }

    /// Reports to other requests or other callers.
    #[must_use]
    pub fn for_another(&self) -> u64 {
        self.for_another
    }

    /// Gives the records away.
    #[must_use]
    pub fn into_hosts(self) -> BTreeMap<HostName, HostRecord> {
        self.hosts
    }
}

/// The data of a result, wherever they are.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// The result.
    pub result: Option<&'a ActionResult>,
    /// Its data, where they were set aside.
    pub piece: Option<&'a Piece>,
}

impl<'a> Data<'a> {
    /// Reads them. Where they cannot be read back, they are a sentence that says so.
    #[must_use]
    pub fn read(self) -> Cow<'a, Value> {
        let Some(piece) = self.piece else {
            return self.result.map_or(Cow::Owned(Value::Null), |result| Cow::Borrowed(&result.data));
        };
        let read = piece.read().and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        Cow::Owned(read.unwrap_or_else(|error| {
            let length = piece.length();
            Value::String(format!("[{length} bytes that were set aside cannot be read back: {error}]"))
        }))
    }
}

/// Whether a watch's last report has the end of what it watched, not only of the watch.
fn tells_an_end(result: &ActionResult) -> bool {
    let of_the_watch = [UNKNOWN_REQUEST.code, SHUTTING_DOWN.code, STILL_RUNNING.code, REPLAYED.code];
    !matches!(result.outcome, Outcome::Refused | Outcome::Invalid) && !of_the_watch.contains(&result.code.as_str())
}

/// What a value takes in memory, about. Values nest at most as deep as a message may.
fn bytes_in_memory(value: &Value) -> usize {
    let below = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(bytes_in_memory).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| ENTRY_BYTES + name.len() + bytes_in_memory(value)).sum(),
    };
    size_of::<Value>() + below
}

/// What an entry of a map takes besides its name's letters and its value: the name itself, and the map's share.
const ENTRY_BYTES: usize = size_of::<String>() + 16;

/// One report on one record. Everything but bookkeeping over all hosts.
fn take(record: &mut HostRecord, report: &ProgressReport, rules: &Rules, closed: bool, elapsed_ms: i64) -> Taken {
    // Its number is that of a real report, so it must not be remembered as one.
    let may_be_of_before = |result: &&ActionResult| {
        let is_second = || record.replayed.as_ref().is_some_and(|held| held.code == NEEDS_APPROVAL.code);
        result.code == REPLAYED.code || (rules.sent_before && result.code == NEEDS_APPROVAL.code && !is_second())
    };
    if let Some(result) = report.result.as_ref().filter(may_be_of_before) {
        if record.is_final() || closed {
            record.late = record.late.saturating_add(1);
            return Taken::Late;
        }
        record.replayed = Some(result.clone());
        return Taken::Replayed;
    }
    if record.finished_sequence == Some(report.sequence) {
        record.duplicates = record.duplicates.saturating_add(1);
        return Taken::Duplicate;
    }
    let given_up = record.is_final() && record.finished_sequence.is_none();
    // What a finished host sent earlier and what only now arrives still belongs to its output.
    let after_the_end = record.finished_sequence.is_some_and(|last| report.sequence > last || report.result.is_some());
    if closed || given_up || after_the_end {
        record.late = record.late.saturating_add(1);
        if record.result.is_none() && report.result.is_some() {
            record.late_result.clone_from(&report.result);
        }
        return Taken::Late;
    }
    let sequences = match &mut record.attached {
        Some((watch, sequences)) if *watch == report.request_id => sequences,
        _ => &mut record.sequences,
    };
    match sequences.insert(report.sequence) {
        Inserted::New => {}
        Inserted::Repeat => {
            record.duplicates = record.duplicates.saturating_add(1);
            return Taken::Duplicate;
        }
        // The end still counts: without it the host would be waited for in vain.
        Inserted::Full if report.result.is_none() => return Taken::Disorderly,
        Inserted::Full => {}
    }
    for chunk in &report.output {
        if rules.output_from_anywhere {
            record.output.begin_at(chunk);
        }
        record.output.insert(chunk, rules.output_bytes_max);
    }
    record.first_report_ms.get_or_insert(elapsed_ms);
    match (&report.result, report.state) {
        (Some(result), ReportState::Finished) => {
            record.state = TaskState::from(&result.outcome);
            record.finished_sequence = Some(report.sequence);
            record.ended_ms = Some(elapsed_ms);
            record.result = Some(result.clone());
            Taken::Finished
        }
        _ if record.state == TaskState::Pending => {
            record.state = TaskState::Running;
            Taken::Started
        }
        _ => Taken::Progress,
    }
}

#[cfg(test)]
pub(crate) mod tests;
