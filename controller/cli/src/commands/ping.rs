//! `muster ping`: who is there, and how fast.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use clap::Args;
use muster_client::discover::{audience, awaited, learn, note_pings, ping, probe_silent};
use muster_client::{Audience, ClientError, Counts, End, Event, Summary, WINDOW_MS_DEFAULT};
use muster_plugin_api::builtin_ddls;
use muster_protocol::{HostName, TaskState, Timestamp};

use crate::ask::WaitArguments;
use crate::ask::counter::Counter;
use crate::ask::follow::{Moment, Stop, Stopped, follow};
use crate::ask::no_match::{self, Nobody};
use crate::ask::record::{CountsRecord, EndRecord, GroupRecord, Plan, SCHEMA, Task, Tasks, Whole};
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::{self, Look};
use crate::ask::search::{matched, unwilling_note};
use crate::ask::stranger;
use crate::invocation::Invocation;
use crate::outcome::{Headline, Reason, Row, count, exit_code, group};
use crate::output::{Column, ExitCode, Failure, Format, Table, Text, number, time};
use crate::session::{client_failure, failure_after};
use crate::target::{Chosen, Target, TargetArguments};

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
    let (question, known) = if target.needs_discovery() {
        let likely = scene.cache.likely(condition);
        let known = target.keep(likely.iter().cloned()).len();
        let wait = format!("waiting {} for replies", time::span(window_ms));
        let line = match known {
            0 => wait,
            // Remembered, not counted: who is there is what is being asked.
            _ => {
                format!(
                    "asking {}{}{wait}",
                    number::counted(known, "known host", "known hosts"),
                    Look::of(printer).dot()
                )
            }
        };
        if let Format::Table | Format::Wide = printer.format() {
            printer.note(line);
        }
        (ping(audience(condition), window_ms, awaited(scene.cache, &likely, scene.now())), likely)
    } else {
        let named = choose_named(target, scene).hosts;
        if named.is_empty() {
            return Err(no_match::explain(scene, target, &Nobody::default()).await);
        }
        (ping(Audience::Hosts(named.clone()), window_ms, Default::default()), named)
    };
    let context = scene.context;
    let failed = |error| client_failure(&error, context);
    let mut asking = scene.controller.ask(&question).map_err(failed)?;
    {
        let mut counter = Counter::new(printer, target.keep(known.iter().cloned()).len(), "answered");
        follow(&mut asking, &mut scene.stop, |asking, moment| {
            if matches!(moment, Moment::Event(Event::Finished(_))) {
                counter.update(answered(asking.collector().counts()), Text::new);
            }
            ControlFlow::Continue(())
        })
        .await;
    }
    let summary = asking.into_summary();
    let now = scene.now();
    let pinged = rows(scene, target, &known, &question.likely, summary, now).await.map_err(failed)?;
    let Pinged { rows, matched, seed, nobody, summary } = pinged;
    if let End::Failed(error) = &summary.end
        && rows.iter().all(|row| row.reply_ms.is_none())
    {
        return Err(failure_after(error, &summary, context));
    }
    if rows.iter().all(|row| row.reason == Some(Reason::SilentInSearch)) && scene.stop.stopped().is_none() {
        return Err(no_match::explain(scene, target, &nobody).await);
    }
    let exit = exit(&rows, wait, &summary, scene.stop.stopped());
    show(scene, target, &question, &Shown { rows: &rows, matched, seed }, &summary, exit);
    if let Some(stopped) = scene.stop.stopped() {
        let unheard = rows.iter().filter(|row| row.state == TaskState::Pending).count();
        let rest = match (unheard, rows.is_empty()) {
            (0, true) => "nobody was heard yet".to_owned(),
            (0, false) => "others may not have been heard yet".to_owned(),
            _ => number::counted(unheard, "host not heard yet", "hosts not heard yet"),
        };
        printer.note(format!("{}; {rest}", stopped.words()));
    }
    if let End::Failed(error) = &summary.end {
        return Err(failure_after(error, &summary, context));
    }
    if scene.stop.stopped().is_none() {
        let answered = rows.iter().filter(|row| row.reply_ms.is_some()).map(|row| row.host.clone());
        scene.learn(answered).await;
    }
    Ok(exit)
}

/// How many hosts have said something, as opposed to those that were given up.
fn answered(counts: &Counts) -> usize {
    counts.total() - counts.pending - counts.no_reply - counts.not_started
}

/// What came of a ping.
struct Pinged {
    rows: Vec<Row>,
    /// How many hosts there were before the limit, the silent ones included.
    matched: usize,
    /// The seed of the limit, where it left somebody out.
    seed: Option<u64>,
    nobody: Nobody,
    summary: Summary,
}

/// The rows of all hosts that the target allows, the silent ones included. After an early end also
/// those of `awaited` that were not heard yet.
async fn rows(
    scene: &mut Scene<'_>,
    target: &Target,
    known: &BTreeSet<HostName>,
    awaited: &BTreeSet<HostName>,
    summary: Summary,
    now: Timestamp,
) -> Result<Pinged, ClientError> {
    let request = summary.requests.first().copied();
    if !target.needs_discovery() {
        note_pings(scene.cache, &summary, now);
        let rows = summary.hosts.iter().map(|(host, record)| Row::of(host, record, request)).collect();
        let chosen = choose_named(target, scene);
        return Ok(Pinged { rows, matched: chosen.of, seed: chosen.seed, nobody: Nobody::default(), summary });
    }
    let condition = target.expression.as_ref();
    let mut found = learn(scene.cache, condition, known, summary, now);
    if found.summary.end == End::Complete {
        probe_silent(scene.controller, scene.cache, condition, &mut found).await?;
    }
    let unheard: BTreeSet<HostName> = match found.summary.end {
        End::Stopped => awaited.difference(&found.hosts).cloned().collect(),
        End::Complete | End::Failed(_) => BTreeSet::new(),
    };
    let all = found.hosts.iter().chain(&found.silent).chain(&unheard).cloned();
    let kept = target.keep(all);
    let nobody = Nobody {
        silent: found.silent.intersection(&kept).cloned().collect(),
        no_queue: BTreeSet::new(),
        outside: found.hosts.difference(&kept).cloned().collect(),
        unwilling: target.keep(found.unwilling.iter().cloned()),
    };
    if !kept.is_empty() {
        unwilling_note(scene.printer, &nobody.unwilling);
    }
    let chosen = target.choose(kept, scene.fresh_seed);
    let mut rows: Vec<Row> = found
        .summary
        .hosts
        .iter()
        .filter(|(host, _)| chosen.hosts.contains(*host))
        .map(|(host, record)| Row::of(host, record, request))
        .collect();
    let silent = found.silent.into_iter().filter(|host| chosen.hosts.contains(host));
    rows.extend(silent.map(|host| Row::not_asked(host, TaskState::NoReply, Reason::SilentInSearch)));
    let unheard = unheard.into_iter().filter(|host| chosen.hosts.contains(host));
    rows.extend(unheard.map(|host| Row {
        reason: None,
        request,
        ..Row::not_asked(host, TaskState::Pending, Reason::Silent)
    }));
    rows.sort_by(|one, other| one.host.cmp(&other.host));
    Ok(Pinged { rows, matched: chosen.of, seed: chosen.seed, nobody, summary: found.summary })
}

/// The named hosts that the limit leaves.
fn choose_named(target: &Target, scene: &Scene<'_>) -> Chosen {
    target.choose(target.keep(target.hosts.iter().flatten().cloned()), scene.fresh_seed)
}

/// What is shown of a ping.
struct Shown<'a> {
    rows: &'a [Row],
    matched: usize,
    seed: Option<u64>,
}

fn exit(rows: &[Row], wait: &WaitArguments, summary: &Summary, stopped: Option<Stopped>) -> ExitCode {
    match (stopped, &summary.end) {
        (Some(stopped), _) => stopped.exit_code(),
        (None, End::Failed(_)) => ExitCode::Unreachable,
        (None, _) => exit_code(rows, &wait.tolerate),
    }
}

fn show(
    scene: &mut Scene<'_>,
    target: &Target,
    question: &muster_client::Question,
    shown: &Shown<'_>,
    summary: &Summary,
    exit: ExitCode,
) {
    let printer = scene.printer;
    let rows = shown.rows;
    let now = scene.now();
    let last_seen = |host: &HostName| scene.cache.last_seen(host);
    let end_word = match (&summary.end, scene.stop.stopped()) {
        (_, Some(stopped)) => stopped.end(),
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
                secrets: Vec::new(),
                not_able: BTreeMap::new(),
                arguments: question.arguments.clone(),
                noop: false,
                effective_user: None,
                target: target.shown(),
                matched: shown.matched,
                hosts: rows.iter().map(|row| row.host.clone()).collect(),
                silent: silent.collect(),
                seed: shown.seed,
                waves: Vec::new(),
                dry_run: false,
            };
            let counts = CountsRecord::of(&count(rows));
            let action = builtin_ddls().iter().find(|ddl| *ddl.name() == question.plugin);
            let groups = group(rows, &Headline { action: action.and_then(|ddl| ddl.action(&question.action)) });
            if printer.format() == Format::Json {
                let groups = groups.iter().map(GroupRecord::of).collect();
                printer.document(
                    SCHEMA,
                    &Whole {
                        kind: "job",
                        plan: Some(plan),
                        request: None,
                        tasks: Tasks { rows, last_seen: &last_seen },
                        counts,
                        groups,
                        aggregates: Vec::new(),
                        end: end.clone(),
                    },
                );
            } else {
                printer.record(SCHEMA, &plan);
                rows.iter().for_each(|row| printer.record(SCHEMA, &Task::of(row, last_seen(&row.host))));
                groups.iter().for_each(|group| printer.record(SCHEMA, &GroupRecord::of(group)));
                printer.record(SCHEMA, &counts);
                printer.record(SCHEMA, &end);
            }
        }
        Format::Names => printer.table(&table(rows, None, true)),
        Format::Csv => printer.table(&csv(rows, last_seen)),
        Format::Table | Format::Wide => {
            if let Some(seed) = shown.seed {
                let chosen = Chosen {
                    hosts: rows.iter().map(|row| row.host.clone()).collect(),
                    of: shown.matched,
                    seed: Some(seed),
                };
                printer.note(matched(target, &chosen, Look::of(printer).dot()));
            }
            if rows.len() <= LISTED_MAX || printer.format() == Format::Wide {
                printer.table(&table(rows, Some(printer.ascii()), false));
            }
            let look = Look::of(printer);
            screen::ping(rows, last_seen, now, look).into_iter().for_each(|line| printer.line(line));
            for row in rows.iter().filter(|row| row.reason == Some(Reason::NoQueue)).take(LISTED_MAX) {
                let words = stranger::no_queue(scene.cache, &row.host);
                let seen = scene.cache.last_seen(&row.host).map(|seen| format!("; last seen {}", time::ago(seen, now)));
                printer.note(format!("{}  {words}{}", row.host, seen.unwrap_or_default()));
            }
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
            TaskState::NoReply if row.reason == Some(Reason::NoQueue) => "no queue",
            TaskState::NoReply => "silent",
            TaskState::Pending => "not heard yet",
            state => state.label(),
        };
        let state = match glyphs {
            Some(ascii) => Text::styled(screen::style(row.state), row.state.glyph(ascii)).plain(" ").plain(word),
            None => Text::from(row.state.word()),
        };
        table.row([
            Text::from(row.host.as_str()),
            state,
            Text::from(row.reply_ms.map(|ms| ms.to_string()).unwrap_or_default()),
            Text::from(agent(row)),
            Text::from(row.result.as_ref().map(|result| result.code.as_str()).unwrap_or_default()),
        ]);
    }
    table
}

/// One line a host in words, with times that a program reads.
fn csv(rows: &[Row], last_seen: impl Fn(&HostName) -> Option<Timestamp>) -> Table {
    let columns = ["host", "state", "reason", "code", "reply_ms", "agent", "last_seen_at"];
    let mut table = Table::new(columns.map(Column::new));
    for row in rows {
        let result = row.result.as_ref();
        let seen = last_seen(&row.host).map(time::rfc3339).unwrap_or_default();
        table.row([
            Text::from(row.host.as_str()),
            Text::from(row.state.word()),
            Text::from(row.reason.map(Reason::word).unwrap_or_default()),
            Text::from(result.map(|result| result.code.as_str()).unwrap_or_default()),
            Text::from(row.reply_ms.map(|ms| ms.to_string()).unwrap_or_default()),
            Text::from(agent(row)),
            Text::from(seen),
        ]);
    }
    table
}

/// The version of the host's agent, as it answered.
fn agent(row: &Row) -> &str {
    let data = row.result.as_ref().map(|result| &result.data);
    data.and_then(|data| data.get("agent_version")).and_then(serde_json::Value::as_str).unwrap_or_default()
}
