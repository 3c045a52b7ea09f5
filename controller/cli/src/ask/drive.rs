//! Follows one question, or one message about an earlier request, and shows how it goes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use muster_client::{Asking, ClientError, Controller, Event, Summary};
use muster_protocol::ddl::Action;
use muster_protocol::{HostName, RequestId, TaskState};

use super::counter::Counter;
use super::follow::{Moment, follow};
use super::record::{Accepted, SCHEMA, Task};
use super::scene::Scene;
use super::screen;
use super::stream::{Live, Streamer};
use crate::outcome::{Headline, Row};
use crate::output::{Failure, Format, Style, Text, fold, number, time};
use crate::session::client_failure;

/// Most failures that are told while others still run; all are told at the end.
const LIVE_FAILURES_MAX: usize = 10;

/// Most hosts that are named in the footer while they run.
const RUNNING_NAMES_MAX: usize = 3;

/// How to follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course<'a> {
    /// What is counted, such as `running`.
    pub(crate) label: &'a str,
    /// How many hosts in all, those before and after this question included.
    pub(crate) total: usize,
    /// How many of them are done.
    pub(crate) done_before: usize,
    /// The action's description.
    pub(crate) action: Option<&'a Action>,
    /// How output is shown.
    pub(crate) live: Live,
    /// Whether output begins with its first byte, or wherever it is joined.
    pub(crate) from_start: bool,
    /// When it has seen enough.
    pub(crate) until: Until,
}

/// When enough was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Every host has ended.
    Ended,
    /// Every host has said that it has begun, or how it ended.
    Begun,
    /// Every host has said how it stands, and nothing more came for a second.
    Told,
}

/// What came of it.
pub(crate) struct Driven {
    pub(crate) summary: Summary,
    /// One row a host, in the order of their names.
    pub(crate) rows: Vec<Row>,
    /// Bytes of output that should have been shown and never came.
    pub(crate) missing_bytes: u64,
}

/// Sends it and follows it. `sent` is given the commands before anything leaves.
///
/// # Errors
/// The message breaks a rule of the protocol. Everything later is in the summary.
pub(crate) async fn drive(
    scene: &mut Scene<'_>,
    start: impl for<'c> FnOnce(&'c mut Controller) -> Result<Asking<'c>, ClientError>,
    course: Course<'_>,
    sent: impl FnOnce(&Asking<'_>),
) -> Result<Driven, Failure> {
    let printer = scene.printer;
    let context = scene.context;
    let ascii = printer.ascii();
    let jsonl = printer.format() == Format::Jsonl;
    let shown = course.live != Live::Off;
    let headline = Headline { action: course.action };
    let mut asking = start(scene.controller).map_err(|error| client_failure(&error, context))?;
    asking.set_aside_in(scene.aside.clone());
    sent(&asking);
    let requests: Vec<RequestId> = asking.requests().collect();
    let hosts = asking.collector().counts().total();
    let mut streamer = Streamer::new(printer, course.live, hosts, course.from_start);
    let mut told = BTreeSet::new();
    let mut counter = Counter::new(printer, course.total, course.label);
    let mut failures_told = 0;
    let mut accepted = false;
    let mut quiet = true;
    let mut unread = false;
    follow(&mut asking, &mut scene.stop, |asking, moment| {
        match moment {
            Moment::Event(Event::Accepted) => {
                accepted = true;
                if jsonl {
                    let request_ids = requests.iter().map(ToString::to_string).collect();
                    printer.record(SCHEMA, &Accepted { kind: "accepted", request_ids, hosts });
                }
            }
            Moment::Event(Event::Output(host, chunks)) => streamer.take(host, chunks),
            Moment::Event(Event::Finished(host)) => {
                streamer.ended(host);
                let Some(record) = asking.collector().host(host) else { return ControlFlow::Continue(()) };
                let row = Row { shown, ..Row::of(host, record, asking.asked_about(host)) };
                // As it comes, so that whoever reads the lines can act on the first while the last is out.
                if jsonl && row.state.is_final() && told.insert(host.clone()) {
                    printer.record(SCHEMA, &Task::of(&row, None));
                }
                let tell = row.state == TaskState::Failed && course.total > 1 && printer.live();
                if tell && failures_told < LIVE_FAILURES_MAX {
                    failures_told += 1;
                    printer.note(
                        Text::styled(Style::Bad, row.state.glyph(ascii))
                            .plain(format!(" {host}  {}", headline.of(&row))),
                    );
                }
            }
            Moment::Event(Event::Disconnected(why)) => {
                printer.note(format!("no answers for now: {why}; trying again, hosts go on"));
            }
            Moment::Event(Event::Reconnected) => {
                printer.note("answers can come again; hosts that had not ended were asked how it stands");
            }
            Moment::Tick => streamer.tick(),
            Moment::Event(_) => {}
        }
        let counts = asking.collector().counts();
        let done = course.done_before + counts.total() - counts.pending - counts.running;
        counter.update(done, || footer(asking, &streamer, ascii));
        let ticked = matches!(moment, Moment::Tick);
        let enough = accepted
            && counts.pending == 0
            && match course.until {
                Until::Ended => false,
                Until::Begun => true,
                Until::Told => ticked && quiet,
            };
        quiet = ticked;
        if accepted && counts.pending + counts.running > 0 && printer.reader_is_gone() {
            unread = true;
            return ControlFlow::Break(());
        }
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    drop(counter);
    if unread {
        scene.stop.note_unread();
    }
    let missing_bytes = streamer.finish();
    if let Some(error) = asking.collector().aside_error() {
        printer.warning(format!("answers could not be set aside, so what memory does not hold was cut: {error}"));
    }
    let mut summary = asking.into_summary();
    let row = |(host, record)| Row { shown, ..Row::of(host, record, summary.asked.get(host).copied()) };
    let rows: Vec<Row> = summary.hosts.iter().map(row).collect();
    if jsonl {
        for row in rows.iter().filter(|row| !told.contains(&row.host)) {
            printer.record(SCHEMA, &Task::of(row, scene.cache.last_seen(&row.host)));
        }
    }
    let now = scene.now();
    // The rows have everything of them.
    for (host, record) in std::mem::take(&mut summary.hosts) {
        if record.first_report_ms.is_some() {
            scene.cache.seen(&host, None, now);
        }
    }
    Ok(Driven { summary, rows, missing_bytes })
}

/// `✓ 7,388  ✗ 12  ◐ 3  4m12s  web-1, web-2, db-1`: the states that occur, how long it has been going on, and
/// who is left where that is few; for one host the line that it is writing.
fn footer(asking: &Asking<'_>, streamer: &Streamer<'_>, ascii: bool) -> Text {
    let counts = asking.collector().counts();
    let states = TaskState::ALL.into_iter().filter(|state| counts.of(*state) > 0);
    let text = states.fold(Text::new(), |text, state| {
        let gap = if text.is_empty() { "" } else { "  " };
        let count = number::count(counts.of(state));
        text.plain(gap).push(screen::style(state), state.glyph(ascii)).plain(" ").plain(count)
    });
    let text = match asking.elapsed_ms() {
        0..1_000 => text,
        elapsed_ms => text.plain("  ").plain(time::took(elapsed_ms / 1_000 * 1_000)),
    };
    if let Some(line) = streamer.unfinished() {
        return text.plain("  ").dim(line);
    }
    match counts.running {
        1..=RUNNING_NAMES_MAX => {
            let running = asking.collector().hosts().filter(|(_, record)| record.state == TaskState::Running);
            text.plain("  ").dim(fold::fold_line(running.map(|(host, _): (&HostName, _)| host.as_str())))
        }
        _ => text,
    }
}
