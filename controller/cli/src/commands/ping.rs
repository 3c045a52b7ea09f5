//! `muster ping`: who is there, and how fast.

use std::collections::BTreeSet;

use clap::Args;
use muster_client::discover::{audience, awaited, learn, note_pings, ping, probe_silent};
use muster_client::{Audience, ClientError, End, Event, Summary, WINDOW_MS_DEFAULT};
use muster_plugin_api::builtin_ddls;
use muster_protocol::{HostName, TaskState, Timestamp};

use crate::ask::WaitArguments;
use crate::ask::counter::Counter;
use crate::ask::follow::{Stop, Stopped, follow};
use crate::ask::no_match;
use crate::ask::record::{CountsRecord, EndRecord, GroupRecord, Plan, SCHEMA, Task, Whole};
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::{self, Look};
use crate::invocation::Invocation;
use crate::outcome::{Headline, Reason, Row, count, exit_code, group};
use crate::output::{Column, ExitCode, Failure, Format, Table, Text, number, time};
use crate::session::client_failure;
use crate::target::{Target, TargetArguments};

/// Up to so many hosts are listed one by one.
const LISTED_MAX: usize = 20;

/// Arguments of `ping`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster ping --all\n  \
    muster ping -t 'role = web and dc = ams1'\n  \
    muster ping -H web1.example.com,web2.example.com --reply-timeout 5s")]
pub(crate) struct PingArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// Pings the target.
///
/// # Errors
/// No target, nobody matches, no broker.
pub(crate) async fn run(arguments: &PingArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let target = arguments.target.read("ping")?;
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let mut stage = Stage::open(invocation, &mut stop).await?;
    let result = execute(&target, &arguments.wait, &mut stage.scene(&invocation.printer, stop)).await;
    stage.close(&invocation.printer).await;
    result
}

pub(crate) async fn execute(target: &Target, wait: &WaitArguments, scene: &mut Scene<'_>) -> Result<ExitCode, Failure> {
    let window_ms = wait.reply_timeout.map_or(WINDOW_MS_DEFAULT, |length| length.as_millis());
    let printer = scene.printer;
    let condition = target.expression.as_ref();
    let (question, likely) = if target.needs_discovery() {
        let likely = scene.cache.likely(condition);
        let known = target.keep(likely.iter().cloned()).len();
        let wait = format!("waiting {} for replies", time::span(window_ms));
        let line = match known {
            0 => wait,
            _ => format!("{}{}{wait}", number::counted(known, "host matches", "hosts match"), Look::of(printer).dot()),
        };
        if let Format::Table | Format::Wide = printer.format() {
            printer.note(line);
        }
        (ping(audience(condition), window_ms, awaited(scene.cache, &likely, scene.now())), likely)
    } else {
        let named = target.keep(target.hosts.iter().flatten().cloned());
        let named = target.choose(named, scene.fresh_seed).hosts;
        if named.is_empty() {
            return Err(no_match::explain(scene, target, "ping", 0).await);
        }
        (ping(Audience::Hosts(named.clone()), window_ms, Default::default()), named)
    };
    let context = scene.context;
    let failed = |error| client_failure(&error, context);
    let mut asking = scene.controller.ask(&question).map_err(failed)?;
    {
        let mut counter = Counter::new(printer, likely.len(), "answered");
        follow(&mut asking, &mut scene.stop, |asking, event| {
            if matches!(event, Event::Finished(_) | Event::GivenUp(_)) {
                let counts = asking.collector().counts();
                counter.update(counts.total() - counts.pending, Text::new);
            }
        })
        .await;
    }
    let summary = asking.into_summary();
    let now = scene.now();
    let (rows, summary) = rows(scene, target, &likely, summary, now).await.map_err(failed)?;
    if let End::Failed(error) = &summary.end
        && rows.iter().all(|row| row.reply_ms.is_none())
    {
        return Err(failed(error.clone()));
    }
    if rows.iter().all(|row| row.reason == Some(Reason::SilentInSearch)) && scene.stop.stopped().is_none() {
        return Err(no_match::explain(scene, target, "ping", rows.len()).await);
    }
    let exit = exit(&rows, wait, &summary, scene.stop.stopped());
    show(scene, target, &question, &rows, &summary, exit);
    if let End::Failed(error) = &summary.end {
        return Err(failed(error.clone()));
    }
    if scene.stop.stopped().is_none() {
        let answered = rows.iter().filter(|row| row.reply_ms.is_some()).map(|row| row.host.clone());
        scene.learn(answered).await;
    }
    Ok(exit)
}

/// The rows of all hosts that the target allows, the silent ones included.
async fn rows(
    scene: &mut Scene<'_>,
    target: &Target,
    likely: &BTreeSet<HostName>,
    summary: Summary,
    now: Timestamp,
) -> Result<(Vec<Row>, Summary), ClientError> {
    let request = summary.requests.first().copied();
    if !target.needs_discovery() {
        note_pings(scene.cache, &summary, now);
        let rows = summary.hosts.iter().map(|(host, record)| Row::of(host, record, request)).collect();
        return Ok((rows, summary));
    }
    let condition = target.expression.as_ref();
    let mut found = learn(scene.cache, condition, likely, summary, now);
    if found.summary.end == End::Complete {
        probe_silent(scene.controller, scene.cache, condition, &mut found).await?;
    }
    let chosen = target.choose(target.keep(found.hosts.union(&found.silent).cloned()), scene.fresh_seed);
    let mut rows: Vec<Row> = found
        .summary
        .hosts
        .iter()
        .filter(|(host, _)| chosen.hosts.contains(*host))
        .map(|(host, record)| Row::of(host, record, request))
        .collect();
    let silent = found.silent.into_iter().filter(|host| chosen.hosts.contains(host));
    rows.extend(silent.map(|host| Row::not_asked(host, TaskState::NoReply, Reason::SilentInSearch)));
    rows.sort_by(|one, other| one.host.cmp(&other.host));
    Ok((rows, found.summary))
}

fn exit(rows: &[Row], wait: &WaitArguments, summary: &Summary, stopped: Option<Stopped>) -> ExitCode {
    match (stopped, &summary.end) {
        (Some(Stopped::Interrupted), _) => ExitCode::Interrupted,
        (Some(Stopped::WaitedEnough), _) => ExitCode::StoppedWaiting,
        (None, End::Failed(_)) => ExitCode::Unreachable,
        (None, _) => exit_code(rows, &wait.tolerate),
    }
}

fn show(
    scene: &mut Scene<'_>,
    target: &Target,
    question: &muster_client::Question,
    rows: &[Row],
    summary: &Summary,
    exit: ExitCode,
) {
    let printer = scene.printer;
    let now = scene.now();
    let last_seen = |host: &HostName| scene.cache.last_seen(host);
    let end_word = match (&summary.end, scene.stop.stopped()) {
        (_, Some(Stopped::Interrupted)) => "interrupted",
        (_, Some(Stopped::WaitedEnough)) => "stopped_waiting",
        (End::Failed(_), _) => "failed",
        _ => "complete",
    };
    let mut end = EndRecord::new(end_word, exit, summary.elapsed_ms);
    end.note(summary);
    match printer.format() {
        Format::Json | Format::Jsonl => {
            let silent =
                rows.iter().filter(|row| row.reason == Some(Reason::SilentInSearch)).map(|row| row.host.clone());
            let plan = Plan {
                kind: "plan",
                context: scene.context.name.clone(),
                plugin: question.plugin.to_string(),
                action: question.action.to_string(),
                arguments: question.arguments.clone(),
                noop: false,
                effective_user: None,
                target: target.shown(),
                matched: rows.len(),
                hosts: rows.iter().map(|row| row.host.clone()).collect(),
                silent: silent.collect(),
                seed: None,
                waves: Vec::new(),
                dry_run: false,
            };
            let tasks = rows.iter().map(|row| Task::of(row, last_seen(&row.host)));
            let counts = CountsRecord::of(&count(rows));
            let action = builtin_ddls().iter().find(|ddl| *ddl.name() == question.plugin);
            let groups = group(rows, &Headline { action: action.and_then(|ddl| ddl.action(&question.action)) });
            if printer.format() == Format::Json {
                let groups = groups.iter().map(GroupRecord::of).collect();
                printer.document(
                    SCHEMA,
                    &Whole { kind: "job", plan, tasks: tasks.collect(), counts, groups, end: end.clone() },
                );
            } else {
                printer.record(SCHEMA, &plan);
                tasks.for_each(|task| printer.record(SCHEMA, &task));
                printer.record(SCHEMA, &counts);
                groups.iter().for_each(|group| printer.record(SCHEMA, &GroupRecord::of(group)));
                printer.record(SCHEMA, &end);
            }
        }
        Format::Names | Format::Csv => printer.table(&table(rows, None, printer.format() == Format::Names)),
        Format::Table | Format::Wide => {
            if rows.len() <= LISTED_MAX || printer.format() == Format::Wide {
                printer.table(&table(rows, Some(printer.ascii()), false));
            }
            let look = Look::of(printer);
            screen::ping(rows, last_seen, now, look).into_iter().for_each(|line| printer.line(line));
        }
    }
    end.warn(printer);
}

/// One row a host; with glyphs for people, in ASCII or not; `answered_only` for lists of names.
fn table(rows: &[Row], glyphs: Option<bool>, answered_only: bool) -> Table {
    let columns = [
        Column::new("host"),
        Column::new("state"),
        Column::new("reply_ms").right(),
        Column::new("agent"),
        Column::new("code").wide(),
    ];
    let mut table = Table::new(columns);
    for row in rows.iter().filter(|row| !answered_only || row.state == TaskState::Succeeded) {
        let word = match row.state {
            TaskState::Succeeded => "answered",
            TaskState::NoReply | TaskState::Pending => "silent",
            state => state.label(),
        };
        let state = match glyphs {
            Some(ascii) => Text::styled(screen::style(row.state), row.state.glyph(ascii)).plain(" ").plain(word),
            None => Text::from(row.state.word()),
        };
        let data = row.result.as_ref().map(|result| &result.data);
        let agent = data.and_then(|data| data.get("agent_version")).and_then(serde_json::Value::as_str);
        table.row([
            Text::from(row.host.as_str()),
            state,
            Text::from(row.reply_ms.map(|ms| ms.to_string()).unwrap_or_default()),
            Text::from(agent.unwrap_or_default()),
            Text::from(row.result.as_ref().map(|result| result.code.as_str()).unwrap_or_default()),
        ]);
    }
    table
}
