//! What is left to say after the results: who goes on and how to hear of it, what silence may mean, what is missing.

use std::path::Path;

use muster_protocol::code::{NEEDS_APPROVAL, REPLAYED};
use muster_protocol::ddl::Action;
use muster_protocol::{HostName, RequestId, TaskState, Timestamp};

use super::action::Wanted;
use super::details;
use super::record::EndRecord;
use super::scene::Scene;
use super::stranger;
use super::stream::Live;
use crate::commands::run::WayArguments;
use crate::outcome::{Reason, Row, count, summary};
use crate::output::{ExitCode, Failure, Format, Printer, Text, fold, number, time};
use crate::requests::outcome::was_refused;
use crate::target::quoted;

/// Exit 1: raw bytes that look whole and are not.
///
/// # Errors
/// Some are missing, and nothing else has gone wrong.
pub(crate) fn say_incomplete(
    live: Live,
    missing_bytes: u64,
    exit: ExitCode,
    request: Option<RequestId>,
) -> Result<(), Failure> {
    if live != Live::Raw || missing_bytes == 0 || exit != ExitCode::Success {
        return Ok(());
    }
    let bytes = number::count(usize::try_from(missing_bytes).unwrap_or(usize::MAX));
    let what = format!("{bytes} bytes of the output never came");
    let failure = Failure::new(ExitCode::Unexpected, "incomplete-output", what);
    Err(failure.hint(request.map_or_else(|| "run it again".to_owned(), |id| format!("muster watch {id} --raw"))))
}

/// After raw output: what did not go well, on standard error.
pub(crate) fn say_raw(printer: &Printer, rows: &[Row], action: Option<&Action>) {
    let ascii = printer.ascii();
    for row in rows.iter().filter(|row| row.state != TaskState::Succeeded || printer.verbose() > 0) {
        let lines = details::lines(row, action, ascii);
        lines.into_iter().for_each(|line| printer.note(line));
    }
}

/// How to hear of hosts that go on, and how to stop them.
pub(crate) fn say_go_on(printer: &Printer, request: Option<RequestId>) {
    if let Some(request) = request {
        let command = |words: String| printer.command(&words);
        printer.note(format!("  see how it ends: {}", command(format!("muster watch {request}"))));
        printer.note(format!("  stop it:         {}", command(format!("muster cancel {request}"))));
    }
}

/// After an early end: what goes on, and how to see more.
pub(crate) fn say_stop(scene: &Scene<'_>, rows: &[Row], way: &WayArguments, end: &EndRecord) {
    let counts = count(rows);
    let unfinished = counts.pending + counts.running;
    let printer = scene.printer;
    match scene.stop.stopped() {
        Some(stopped) if unfinished > 0 => {
            let hosts = number::counted(unfinished, "host that was asked goes on", "hosts that were asked go on");
            printer.note(format!("{}; {hosts}", stopped.words()));
            say_go_on(printer, end.request_id);
        }
        None if end.end == "detached" => {
            if let (Some(request), Format::Table | Format::Wide) = (end.request_id, printer.format()) {
                printer.line(Text::from("request ").strong(request.to_string()));
            }
            if unfinished > 0 {
                say_go_on(printer, end.request_id);
            }
        }
        _ => {}
    }
    let failures = rows.iter().any(|row| row.reason == Some(Reason::StopRule));
    if failures && let Some(after) = way.stop_after {
        printer.note(format!("stopped by --stop-after {after}: {}", summary(&counts, ", ")));
    }
}

/// What silence may mean: a command that waits in a queue, or a name that is not one.
pub(crate) fn say_silent(scene: &Scene<'_>, rows: &[Row], wanted: &Wanted<'_>, alive_until: Option<Timestamp>) {
    let of = |reason: Reason| rows.iter().filter(move |row| row.reason == Some(reason)).map(|row| &row.host);
    let queued: Vec<&str> = of(Reason::Silent).chain(of(Reason::Unconfirmed)).map(HostName::as_str).collect();
    let harmless = wanted.action.muster.read_only || wanted.options.noop;
    if let Some(until) = alive_until.filter(|_| !queued.is_empty() && !harmless) {
        let hosts = number::counted(queued.len(), "silent host has", "silent hosts have");
        let until = time::rfc3339(until);
        let names = quoted(&fold::fold(queued).join(","));
        scene.printer.note(format!("{hosts} the command queued and may still run it until {until} (--ttl)"));
        let ping = scene.printer.command(&format!("muster ping -H {names}"));
        scene.printer.note(format!("  see who is back: {ping}"));
    }
    stranger::warn(scene.printer, scene.cache, of(Reason::NoQueue));
}

/// Where hosts want more people to sign: what to type next.
pub(crate) fn say_needs_approval(scene: &Scene<'_>, rows: &[Row], file: Option<&Path>) {
    let wants = |row: &&Row| row.result.as_ref().is_some_and(|result| result.code == NEEDS_APPROVAL.code);
    let count = rows.iter().filter(wants).count();
    if count == 0 {
        return;
    }
    let hosts = number::counted(count, "host wants", "hosts want");
    match file {
        Some(file) => {
            let file = quoted(&file.display().to_string());
            scene.printer.note(format!("{hosts} more people to sign; nothing was started there"));
            // Whoever signs has a context of his own.
            scene.printer.note(format!("  somebody else signs it:  muster approve {file}"));
            let send = scene.printer.command(&format!("muster send {file}"));
            scene.printer.note(format!("  then send it again:      {send}"));
        }
        None => {
            scene.printer.note(format!("{hosts} other people to sign it too; nothing was started there"));
            scene.printer.note(format!("  keep it for them:  muster {}", pending_words(&scene.words)));
        }
    }
}

/// Where a pending command had been started before: how to see what came of it.
pub(crate) fn say_sent_before(scene: &Scene<'_>, rows: &[Row], request: Option<RequestId>) {
    let before = rows.iter().filter_map(|row| row.result.as_ref()).filter(|result| result.code == REPLAYED.code);
    let (refused, begun): (Vec<_>, Vec<_>) = before.partition(|result| was_refused(&result.data));
    if !refused.is_empty() {
        let hosts = number::counted(refused.len(), "host has", "hosts have");
        scene.printer.note(format!("{hosts} refused it before and will not take the same command again"));
        let run = scene.printer.command("muster run ... --pending");
        scene.printer.note(format!("  make a new one:  {run}"));
    }
    let count = begun.len();
    if let Some(request) = request.filter(|_| count > 0) {
        let hosts = number::counted(count, "host has", "hosts have");
        scene.printer.note(format!("{hosts} had it before; nothing was started a second time"));
        let watch = scene.printer.command(&format!("muster watch {request}"));
        scene.printer.note(format!("  see what came of it: {watch}"));
    }
}

/// The same command line, to make a pending command: without flags that have no meaning then.
fn pending_words(words: &[String]) -> String {
    const ALONE: &[&str] = &["--detach", "--async", "--stream", "--raw"];
    const WITH_VALUE: &[&str] = &["--wave", "--stop-after"];
    let mut line: Vec<String> = Vec::new();
    let mut words = words.iter();
    let mut asked = false;
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word.as_str()) {
            words.next();
            continue;
        }
        let joined = WITH_VALUE.iter().any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')));
        if joined || ALONE.contains(&word.as_str()) {
            continue;
        }
        // `name=ssh` needs no quotes in any shell.
        let bare = !word.starts_with('=') && quoted(&word.replace('=', "")) == word.replace('=', "");
        line.push(if bare { word.clone() } else { quoted(word) });
        if word == "run" && !asked {
            asked = true;
            line.push("--pending".to_owned());
        }
    }
    if !asked {
        // Such as `plugin install`.
        line.push("--pending".to_owned());
    }
    line.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_line_is_the_same_but_for_what_makes_it_wait() {
        let check = |typed: &str, expected: &str| {
            let words: Vec<String> = typed.split('|').map(str::to_owned).collect();
            assert_eq!(pending_words(&words), expected);
        };
        check("run|service.restart|name=ssh|-t|role = web", "run --pending service.restart name=ssh -t 'role = web'");
        check("plugin|install|x.pack|--all", "plugin install x.pack --all --pending");
        check(
            "--context|prod|run|shell.run|command=run x|--wave|1,rest|--stop-after=1|--detach|-H|a",
            "--context prod run --pending shell.run 'command=run x' -H a",
        );
    }
}
