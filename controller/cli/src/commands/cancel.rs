//! `muster cancel REQUEST`: tells the hosts of a request to stop it.
//!
//! Telling is not stopping: a host answers at once, then stops the action politely, and how it ended is what
//! `muster watch` shows. A host on which the request does not run has nothing to stop; that is said, and
//! is no failure unless it is so everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use clap::Args;
use muster_client::{End, FollowUp, HostRecord, REPLY_TIMEOUT_MS_DEFAULT, Wish};
use muster_protocol::code::{NOT_RUNNING, UNKNOWN_REQUEST};
use muster_protocol::{HostName, Outcome, RequestId, TaskState};
use serde::Serialize;

use crate::ask::WaitArguments;
use crate::ask::confirm::{Guard, confirm};
use crate::ask::counter::Counter;
use crate::ask::follow::{Stop, follow};
use crate::ask::meant::{self, Meant, RequestArguments};
use crate::ask::record::{EndRecord, RequestRecord};
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::{self, Look};
use crate::invocation::Invocation;
use crate::outcome::{Group, Headline, Reason, Row};
use crate::output::{Column, ExitCode, Failure, Format, Table, Text, number, time};
use crate::requests::Requests;
use crate::session::{client_failure, failure_after};
use crate::target::Target;

/// Schema of its documents.
const SCHEMA: &str = "muster.cancel/v1";

/// Arguments of `cancel`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster cancel last\n  \
    muster cancel 9f3c21ab -H web1.example.com\n  \
    muster cancel 019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab -t 'role = web'")]
pub(crate) struct CancelArguments {
    #[command(flatten)]
    pub(crate) request: RequestArguments,
    /// Go on only if exactly so many hosts are meant.
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<usize>,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// What a host answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    ToldToStop,
    Failed,
    NotRunning,
    NoReply,
    Refused,
    Unheard,
}

impl Answer {
    fn of(row: &Row) -> Self {
        let code = row.result.as_ref().map(|result| result.code.as_str()).unwrap_or_default();
        match (row.state, row.result.as_ref().map(|result| &result.outcome)) {
            (_, Some(Outcome::Succeeded)) => Self::ToldToStop,
            (_, Some(_)) if code == NOT_RUNNING.code || code == UNKNOWN_REQUEST.code => Self::NotRunning,
            (TaskState::Refused, _) => Self::Refused,
            (TaskState::NoReply | TaskState::NotStarted, _) => Self::NoReply,
            (TaskState::Pending | TaskState::Running, _) => Self::Unheard,
            _ => Self::Failed,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::ToldToStop => "told to stop",
            Self::Failed => "failed",
            Self::NotRunning => "not running",
            Self::NoReply => "no reply",
            Self::Refused => "refused",
            Self::Unheard => "not heard yet",
        }
    }

    /// The state whose glyph and colour it has.
    fn state(self) -> TaskState {
        match self {
            Self::ToldToStop => TaskState::Cancelled,
            Self::Failed => TaskState::Failed,
            Self::NotRunning => TaskState::NotStarted,
            Self::NoReply => TaskState::NoReply,
            Self::Refused => TaskState::Refused,
            Self::Unheard => TaskState::Pending,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
struct HostAnswer {
    kind: &'static str,
    host: HostName,
    answer: Answer,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
}

#[derive(Debug, Clone, Serialize)]
struct Whole {
    kind: &'static str,
    request: RequestRecord,
    hosts: Vec<HostAnswer>,
    counts: BTreeMap<Answer, usize>,
    end: EndRecord,
}

/// Cancels the request.
///
/// # Errors
/// No such request, nobody matches, no confirmation, no broker.
pub(crate) async fn run(arguments: &CancelArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let target = arguments.request.target("cancel")?;
    meant::check(&Requests::of_user(), &arguments.request, &invocation.context()?.name, "cancel")?;
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let mut stage = Stage::open(invocation, &mut stop).await?;
    let mut scene = stage.scene(&invocation.printer, stop);
    let result = execute(arguments, target.as_ref(), &mut scene).await;
    stage.close(&invocation.printer).await;
    result
}

pub(crate) async fn execute(
    arguments: &CancelArguments,
    target: Option<&Target>,
    scene: &mut Scene<'_>,
) -> Result<ExitCode, Failure> {
    let wait = &arguments.wait;
    let meant = meant::find(scene, &arguments.request.request, target, "cancel").await?;
    let (printer, context) = (scene.printer, scene.context);
    if let Format::Table | Format::Wide = printer.format() {
        printer.note(meant.line(scene));
    }
    // Who has sent a request has confirmed it, and stopping it must be quick. Somebody else's is a different matter.
    let guard = Guard {
        count: meant.hosts.len(),
        confirm_above: context.confirm_above,
        read_only: meant.kept.is_some(),
        expect: arguments.expect,
        context: &context.name,
    };
    confirm(&guard, printer, &mut scene.stop).await?;
    let record = meant.record(scene);
    let mut follow_up = FollowUp::new(Wish::Cancel, meant.parts.clone());
    follow_up.reply_timeout_ms = wait.reply_timeout.map_or(REPLY_TIMEOUT_MS_DEFAULT, |length| length.as_millis());
    follow_up.ttl_ms = follow_up.ttl_ms.max(follow_up.reply_timeout_ms);
    let mut asking = scene.controller.follow_up(&follow_up).map_err(|error| client_failure(&error, context))?;
    {
        let mut counter = Counter::new(printer, meant.hosts.len(), "telling");
        follow(&mut asking, &mut scene.stop, |asking, _| {
            let counts = asking.collector().counts();
            counter.update(counts.total() - counts.pending - counts.running, Text::new);
            ControlFlow::Continue(())
        })
        .await;
    }
    let summary = asking.into_summary();
    let row = |(host, record): (&HostName, &HostRecord)| Row::of(host, record, summary.asked.get(host).copied());
    let rows: Vec<Row> = summary.hosts.iter().map(row).collect();
    let error = match &summary.end {
        End::Failed(error) => Some(failure_after(error, &summary, context)),
        End::Complete | End::Stopped => None,
    };
    let answers: Vec<Answer> = rows.iter().map(Answer::of).collect();
    let exit = match (scene.stop.stopped(), &error) {
        (Some(stopped), _) => stopped.exit_code(),
        (None, Some(failure)) => failure.exit,
        (None, None) => exit_of(&answers, wait),
    };
    let mut end = EndRecord::new(if error.is_some() { "failed" } else { "complete" }, exit, summary.elapsed_ms);
    end.request_id = Some(meant.id);
    end.note(&summary);
    if let Some(stopped) = scene.stop.stopped() {
        end.end = stopped.end();
    }
    end.error = error.as_ref().map(|failure| failure.code);
    show(scene, record, &rows, &end);
    if let Some(failure) = error {
        return Err(failure.why("note", "hosts that were told stop the request; what had arrived stands above"));
    }
    say_more(scene, &meant, &answers);
    Ok(exit)
}

/// What the answers come to. Where nothing runs anywhere there was nothing to cancel.
fn exit_of(answers: &[Answer], wait: &WaitArguments) -> ExitCode {
    if answers.iter().all(|answer| *answer == Answer::NotRunning) {
        return ExitCode::NoMatch;
    }
    ExitCode::choose(answers.iter().map(|answer| match answer {
        Answer::ToldToStop | Answer::NotRunning => ExitCode::Success,
        other => ExitCode::of_state(other.state(), &wait.tolerate),
    }))
}

fn show(scene: &Scene<'_>, request: RequestRecord, rows: &[Row], end: &EndRecord) {
    let printer = scene.printer;
    let host = |row: &Row| HostAnswer {
        kind: "host",
        host: row.host.clone(),
        answer: Answer::of(row),
        code: row.result.as_ref().map(|result| result.code.clone()),
        message: row.result.as_ref().map(|result| result.message.clone()).filter(|message| !message.is_empty()),
        reason: row.reason.map(Reason::word),
        request_id: row.request,
    };
    let mut counts: BTreeMap<Answer, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(Answer::of(row)).or_default() += 1);
    match printer.format() {
        Format::Json => {
            let hosts = rows.iter().map(host).collect();
            printer.document(SCHEMA, &Whole { kind: "cancel", request, hosts, counts, end: end.clone() });
        }
        Format::Jsonl => {
            printer.record(SCHEMA, &request);
            rows.iter().for_each(|row| printer.record(SCHEMA, &host(row)));
            printer.record(SCHEMA, end);
        }
        Format::Names => {
            let told = rows.iter().filter(|row| Answer::of(row) == Answer::ToldToStop);
            told.for_each(|row| printer.line(row.host.as_str()));
        }
        Format::Csv => {
            let mut table = Table::new(["host", "answer", "code", "message", "reason"].map(Column::new));
            for row in rows.iter().map(host) {
                let answer = row.answer.words().replace(' ', "_");
                let cells =
                    [row.host.to_string(), answer, row.code.unwrap_or_default(), row.message.unwrap_or_default()];
                table.row(cells.into_iter().chain([row.reason.unwrap_or_default().to_owned()]).map(Text::from));
            }
            printer.table(&table);
        }
        Format::Table | Format::Wide => {
            let look = Look::of(printer);
            screen::groups(&groups(rows), look).into_iter().for_each(|line| printer.line(line));
            let parts = counts.iter().map(|(answer, count)| format!("{} {}", number::count(*count), answer.words()));
            let parts: Vec<String> = parts.chain([time::took(end.duration_ms)]).collect();
            printer.line(parts.join(look.dot()));
        }
    }
    end.warn(printer);
}

/// Hosts with the same answer in the same words.
fn groups(rows: &[Row]) -> Vec<Group> {
    let headline = Headline { action: None };
    let mut groups: BTreeMap<(Answer, String), BTreeSet<HostName>> = BTreeMap::new();
    for row in rows {
        let answer = Answer::of(row);
        let more = match answer {
            Answer::ToldToStop | Answer::NotRunning | Answer::Unheard => String::new(),
            Answer::Failed | Answer::NoReply | Answer::Refused => headline.of(row),
        };
        let words = [answer.words(), more.as_str()].into_iter().filter(|part| !part.is_empty());
        groups.entry((answer, words.collect::<Vec<_>>().join("  "))).or_default().insert(row.host.clone());
    }
    let group = |((answer, words), hosts): ((Answer, String), BTreeSet<HostName>)| Group {
        state: answer.state(),
        reason: None,
        exit_code: None,
        code: None,
        headline: words.clone(),
        hosts,
        differs_from: None,
        words: Some(words),
    };
    groups.into_iter().map(group).collect()
}

fn say_more(scene: &Scene<'_>, meant: &Meant, answers: &[Answer]) {
    let printer = scene.printer;
    if answers.contains(&Answer::ToldToStop) {
        printer.note(format!("  see how it ends: muster watch {}", meant.id));
    } else if answers.iter().all(|answer| *answer == Answer::NotRunning) {
        printer.note("it runs nowhere any more, or never did on these hosts");
        printer.note(format!("  see how it ended: muster watch {}", meant.id));
    }
    let silent = answers.iter().filter(|answer| **answer == Answer::NoReply).count();
    if silent > 0 {
        let hosts = number::counted(silent, "silent host was", "silent hosts were");
        printer.note(format!("{hosts} not reached: what runs there goes on"));
    }
}
