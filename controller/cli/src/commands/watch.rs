//! `muster watch REQUEST`: attaches to a request again, shows what it wrote and writes, and ends with its results.

use clap::Args;
use muster_client::{End, FollowUp, REPLY_TIMEOUT_MS_DEFAULT, Wish};

use crate::ask::WaitArguments;
use crate::ask::aftermath::{say_go_on, say_incomplete, say_raw};
use crate::ask::conclude::{self, Head};
use crate::ask::drive::{Course, Until, drive};
use crate::ask::follow::{Stop, Stopped};
use crate::ask::meant::{self, RequestArguments};
use crate::ask::record::{EndRecord, SCHEMA};
use crate::ask::scene::{Scene, Stage};
use crate::ask::stream::Live;
use crate::catalogue::Catalogue;
use crate::commands::run::{OutputArguments, keep_outcome};
use crate::invocation::Invocation;
use crate::outcome::{Row, count, exit_code};
use crate::output::{ExitCode, Failure, Format, number};
use crate::requests::Requests;
use crate::session::failure_after;
use crate::target::Target;

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster watch last\n  \
    muster watch 9f3c21ab --no-follow\n  \
    muster watch 019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab -H web1.example.com --stream")]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    pub(crate) request: RequestArguments,
    #[command(flatten)]
    pub(crate) way: WatchWay,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// How to watch.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How to watch")]
pub(crate) struct WatchWay {
    /// Only how it stands now (exit code 10 while hosts run).
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// Not what was written before.
    #[arg(long)]
    pub(crate) no_replay: bool,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// Watches the request.
///
/// # Errors
/// No such request, nobody matches, no broker.
pub(crate) async fn run(arguments: &WatchArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let catalogue = Catalogue::load(invocation.context().ok().as_ref())?;
    let target = arguments.request.target("watch")?;
    meant::check(&Requests::of_user(), &arguments.request, &invocation.context()?.name, "watch")?;
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let mut stage = Stage::open(invocation, &mut stop).await?;
    let mut scene = stage.scene(&invocation.printer, stop);
    let result = execute(arguments, target.as_ref(), &catalogue, &mut scene).await;
    stage.close(&invocation.printer).await;
    result
}

pub(crate) async fn execute(
    arguments: &WatchArguments,
    target: Option<&Target>,
    catalogue: &Catalogue,
    scene: &mut Scene<'_>,
) -> Result<ExitCode, Failure> {
    let (way, wait) = (&arguments.way, &arguments.wait);
    let meant = meant::find(scene, &arguments.request.request, target, "watch").await?;
    let printer = scene.printer;
    let live = way.output.live(meant.hosts.len(), printer)?;
    let record = meant.record(scene);
    match printer.format() {
        Format::Table | Format::Wide => printer.note(meant.line(scene)),
        Format::Jsonl => printer.record(SCHEMA, &record),
        Format::Json | Format::Names | Format::Csv => {}
    }
    // A description that is not here any more only means fewer headings.
    let action = meant.kept.as_ref().and_then(|kept| catalogue.action(&kept.action).ok()).map(|(_, action)| action);
    let (follow, replay) = (!way.no_follow, !way.no_replay);
    let mut follow_up = FollowUp::new(Wish::Watch { replay, follow }, meant.parts.clone());
    follow_up.reply_timeout_ms = wait.reply_timeout.map_or(REPLY_TIMEOUT_MS_DEFAULT, |length| length.as_millis());
    follow_up.ttl_ms = follow_up.ttl_ms.max(follow_up.reply_timeout_ms);
    if let (true, Some(kept)) = (follow, &meant.kept) {
        // It may have begun as late as its life allowed.
        follow_up.time_limit_ms = kept.time_limit_ms.saturating_add(kept.ttl_ms);
    }
    follow_up.output = live.wish(meant.hosts.len(), !printer.format().is_json());
    follow_up.output.from_anywhere = !replay;
    let course = Course {
        label: "watching",
        total: meant.hosts.len(),
        done_before: 0,
        action,
        live,
        from_start: replay,
        until: if follow { Until::Ended } else { Until::Told },
    };
    let driven = drive(scene, |controller| controller.follow_up(&follow_up), course, |_| {}).await?;
    let mut end = EndRecord::new("complete", ExitCode::Success, driven.summary.elapsed_ms);
    end.request_id = Some(meant.id);
    end.note(&driven.summary);
    let error = match &driven.summary.end {
        End::Failed(error) => Some(failure_after(error, &driven.summary, scene.context)),
        End::Complete | End::Stopped => None,
    };
    let exit = match (scene.stop.stopped(), &error) {
        (Some(stopped), _) => stopped.exit_code(),
        (None, Some(failure)) => failure.exit,
        (None, None) => exit_code(&driven.rows, &wait.tolerate),
    };
    end.end = match (scene.stop.stopped(), &error) {
        (Some(stopped), _) => stopped.end(),
        (None, Some(_)) => "failed",
        (None, None) => "complete",
    };
    end.error = error.as_ref().map(|failure| failure.code);
    end.exit_code = exit.number();
    if live == Live::Raw {
        end.warn(printer);
        say_raw(printer, &driven.rows, action);
    } else {
        conclude::show(scene, action, Head::Request(record), &driven.rows, &end);
    }
    if let Some(kept) = meant.kept.as_ref().filter(|kept| !kept.outcome.is_empty()) {
        let told: Vec<Row> = driven.rows.iter().filter(|row| row.result.is_some()).cloned().collect();
        keep_outcome(scene, kept, &told);
    }
    if let Some(failure) = error {
        return Err(failure.why("note", "the request goes on; what had arrived stands above"));
    }
    let counts = count(&driven.rows);
    let unfinished = counts.pending + counts.running;
    if unfinished > 0 {
        let why = scene.stop.stopped().map_or("not followed", Stopped::words);
        let hosts = number::counted(unfinished, "host goes on", "hosts go on");
        printer.note(format!("{why}; {hosts}"));
        say_go_on(printer, Some(meant.id));
    }
    say_incomplete(live, driven.missing_bytes, exit, Some(meant.id))?;
    Ok(exit)
}
