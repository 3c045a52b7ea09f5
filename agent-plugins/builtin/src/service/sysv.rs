//! Services through init scripts, as the LSB describes them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use muster_plugin_api::{ActionFailure, CancellationToken};

use super::{ServicePaths, Status};
use crate::process::{Program, is_executable};

/// The runlevels in which a host does its work; a service is enabled if one of them starts it.
const RUNLEVELS: &[&str] = &["rc2.d", "rc3.d", "rc4.d", "rc5.d", "rcS.d"];

pub(super) async fn status(
    paths: &ServicePaths,
    name: &str,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Option<Status>, ActionFailure> {
    // The description lets no `/` into a name, so it cannot lead elsewhere.
    let script = paths.init_scripts.join(name);
    if !is_executable(&script) {
        return Ok(None);
    }
    let program = Program::new(&script, limit).argument("status");
    let run = program.run(cancel).await;
    let code = run.exit_code(&program)?;
    let pid = running_pid(paths, name);
    let enabled = is_enabled(&paths.runlevels, name);
    let status = status_word(code);
    Ok(Some(Status {
        name: name.to_owned(),
        status,
        enabled: Some(enabled),
        enabled_state: if enabled { "enabled" } else { "disabled" }.to_owned(),
        pid: pid.filter(|_| status == "running"),
        since_ms: None,
        state: format!("exit code {code}"),
        unit: script.display().to_string(),
        provider: "sysv",
    }))
}

/// LSB core specification, "init script actions": the exit codes of `status`.
fn status_word(exit_code: i32) -> &'static str {
    match exit_code {
        0 => "running",
        // Dead, but its pid file or lock file exists: it did not stop by itself.
        1 | 2 => "failed",
        3 => "stopped",
        _ => "unknown",
    }
}

/// Whether a link `S??name` starts it in one of the runlevels.
fn is_enabled(runlevels: &Path, name: &str) -> bool {
    let starts = |entry: &fs::DirEntry| {
        let file = entry.file_name();
        let link = file.to_str().and_then(|file| file.strip_prefix('S')).and_then(|rest| rest.split_at_checked(2));
        link.is_some_and(|(order, rest)| order.bytes().all(|b| b.is_ascii_digit()) && rest == name)
    };
    RUNLEVELS
        .iter()
        .filter_map(|level| fs::read_dir(runlevels.join(level)).ok())
        .any(|entries| entries.flatten().any(|entry| starts(&entry)))
}

/// What its pid file says, if that process exists.
fn running_pid(paths: &ServicePaths, name: &str) -> Option<u32> {
    let text = fs::read_to_string(paths.pid_files.join(format!("{name}.pid"))).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    paths.processes.join(pid.to_string()).is_dir().then_some(pid)
}
