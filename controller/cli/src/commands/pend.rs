//! `muster run ... --pending`: the command is signed and kept in a file, and nothing is sent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use muster_client::pending::PENDING_TTL_MS_DEFAULT;
use muster_protocol::HostName;

use super::run::Journey;
use crate::ask::record::Plan;
use crate::ask::scene::Scene;
use crate::output::{ExitCode, Failure, Format, fold, number, time};
use crate::pending::{SCHEMA, View, store};
use crate::session::client_failure;
use crate::target::quoted;

/// Signs the command for these hosts and writes it. `place` is the file that was asked for; else it lies where the others do.
///
/// # Errors
/// The command breaks a rule of the protocol; the file is there already, or cannot be written.
pub(crate) fn write(
    journey: &Journey<'_>,
    place: Option<&Path>,
    hosts: &BTreeSet<HostName>,
    plan: &Plan,
    scene: &mut Scene<'_>,
) -> Result<ExitCode, Failure> {
    let (printer, context) = (scene.printer, scene.context);
    if hosts.is_empty() {
        let what = "none of the hosts can be sent secrets now; nothing was written";
        return Err(Failure::new(ExitCode::NoMatch, "no-match", what).hint("the same command with --dry-run"));
    }
    let mut question = journey.question(printer, hosts.clone());
    question.ttl_ms = journey.way.ttl.map_or(PENDING_TTL_MS_DEFAULT, |length| length.as_millis());
    let pending = scene.controller.write(&question).map_err(|error| client_failure(&error, context))?;
    let path: PathBuf = match place {
        Some(path) => path.to_owned(),
        None => scene.pending.place_for(pending.id())?,
    };
    store::create(&path, &pending.to_bytes())?;
    let now = scene.now();
    let view = View::of(&pending, &path, Some(journey.wanted.action), context, now);
    match printer.format() {
        Format::Json | Format::Jsonl => printer.document(SCHEMA, &view),
        Format::Names => view.hosts.iter().for_each(|host| printer.line(host.as_str())),
        Format::Csv | Format::Table | Format::Wide => {
            view.lines(now, false).into_iter().for_each(|line| printer.line(line))
        }
    }
    let left_out: Vec<&str> = plan.silent.iter().chain(plan.not_able.keys()).map(HostName::as_str).collect();
    if !left_out.is_empty() {
        let hosts = number::counted(
            left_out.len(),
            "host that is silent or not able is",
            "hosts that are silent or not able are",
        );
        printer.warning(format!("{hosts} left out: {}", fold::fold_line(left_out)));
    }
    if question.ttl_ms > PENDING_TTL_MS_DEFAULT {
        let asked = time::span(question.ttl_ms);
        printer.note(format!(
            "hosts take commands that live {asked} only where limits.command_window_s allows it (1 h by default)"
        ));
    }
    let file = quoted(&path.display().to_string());
    printer.note("nothing was sent; it waits for other people");
    printer.note(format!("  somebody else signs it:  muster approve {file}"));
    printer.note(format!("  then send it:            muster send {file}"));
    Ok(ExitCode::Success)
}
