//! `musterd status`: what the agent that runs on this host is doing.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::process::ExitCode;

use muster_agent::config::Config;
use muster_agent::detached::look::untold;
use muster_agent::spool;
use muster_agent::state::files;
use muster_agent::status::socket::{SocketError, ask};
use muster_agent::status::{Status, show};
use serde_json::json;

use super::{Files, NOT_AS_IT_SHOULD_BE, complain, print};
use crate::complaint::Complaint;

/// Asks the agent, or says what can be said without it.
pub(crate) fn run(as_json: bool, files: &Files) -> ExitCode {
    let config = match files.load() {
        Ok((_, config, _)) => config,
        Err(error) => {
            complain(&error, files);
            return ExitCode::FAILURE;
        }
    };
    let printed = match ask(config.status_socket()) {
        Ok(status) => return finish(print_status(&status, as_json), ExitCode::SUCCESS),
        Err(error) => without_agent(&config, &error, as_json),
    };
    finish(printed, ExitCode::from(NOT_AS_IT_SHOULD_BE))
}

fn finish(printed: anyhow::Result<()>, code: ExitCode) -> ExitCode {
    match printed {
        Ok(()) => code,
        Err(error) => {
            Complaint::of_any(&error).print();
            ExitCode::FAILURE
        }
    }
}

fn print_status(status: &Status, as_json: bool) -> anyhow::Result<()> {
    match as_json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(status)?)),
        false => print(&show::text(status)),
    }
}

/// What the directory of state tells without its agent.
struct Remains {
    /// Whether a process has the directory; `None` if that cannot be found out.
    in_use: Option<bool>,
    /// Reports on disk with their bytes.
    spool: Option<(usize, usize)>,
    /// Bytes of the journal.
    journal_bytes: Option<u64>,
    /// Directories of detached actions, results among them.
    actions: Option<usize>,
    /// Those of them that have ended without anybody having been told.
    untold: Option<usize>,
}

impl Remains {
    fn look(state: &Path) -> Self {
        let listed = spool::list(&muster_daemon::RealDisk, &state.join(files::SPOOL)).ok();
        let spool = listed.map(|listed| {
            let bodies: Vec<usize> = listed.iter().filter_map(|one| Some(one.parcel.as_ref()?.body.len())).collect();
            (bodies.len(), bodies.iter().sum())
        });
        Self {
            in_use: is_locked(&state.join(files::LOCK)),
            spool,
            journal_bytes: std::fs::metadata(state.join(files::JOURNAL)).ok().map(|it| it.len()),
            actions: std::fs::read_dir(state.join(files::ACTIONS)).ok().map(Iterator::count),
            untold: untold(&muster_daemon::RealDisk, state).ok().map(|untold| untold.len()),
        }
    }
}

fn is_locked(path: &Path) -> Option<bool> {
    match File::open(path) {
        // Shared, so that an agent that starts at this moment is not kept from it for longer than that.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

fn without_agent(config: &Config, error: &SocketError, as_json: bool) -> anyhow::Result<()> {
    let state = config.state_dir();
    let remains = Remains::look(state);
    let mut complaint = Complaint::of(error);
    complaint = match remains.in_use {
        Some(true) if matches!(error, SocketError::NoAnswer { .. }) => complaint
            .why(format!("an agent has `{}`, and listens", state.display()))
            .hint("ps -C musterd -o pid,stat,wchan (T: somebody has stopped it, kill -CONT; D: it waits for a disk)")
            .hint("systemctl restart musterd, if it does not answer at all"),
        Some(true) => complaint
            .why(format!("an agent has `{}`: it is of an older version, or its socket is elsewhere", state.display()))
            .hint("musterd --print-config, and compare `status.socket` with the one the agent was started with")
            .hint("systemctl restart musterd, if it does not answer at all"),
        Some(false) => complaint
            .why(format!("no agent has `{}`", state.display()))
            .hint("systemctl status musterd; journalctl -u musterd")
            .hint("musterd check-config"),
        None => complaint.hint("run it as root, or as the agent's user"),
    };
    complaint.print();
    if as_json {
        let document = json!({
            "error": { "code": error.code(), "message": error.to_string() },
            "state_dir": state,
            "in_use": remains.in_use,
            "spool_reports": remains.spool.map(|(reports, _)| reports),
            "spool_bytes": remains.spool.map(|(_, bytes)| bytes),
            "journal_bytes": remains.journal_bytes,
            "actions": remains.actions,
            "ends_untold": remains.untold,
        });
        return print(&format!("{}\n", serde_json::to_string_pretty(&document)?));
    }
    let shown = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let (reports, bytes) = remains.spool.map_or((None, None), |(reports, bytes)| (Some(reports), Some(bytes)));
    let whole = |number: Option<usize>| shown(number.and_then(|number| u64::try_from(number).ok()));
    print(&format!(
        "state_dir    {}\nspool        {} reports wait on disk, {} bytes (musterd spool list)\njournal      {} bytes\n\
         actions      {} directories of detached actions and results; {} ended and not told yet\n",
        state.display(),
        whole(reports),
        whole(bytes),
        shown(remains.journal_bytes),
        whole(remains.actions),
        whole(remains.untold)
    ))
}
