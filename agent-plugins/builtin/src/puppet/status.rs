//! How Puppet is doing on this host, from its files alone.

use muster_plugin_api::ActionFailure;
use muster_protocol::Timestamp;
use serde::Serialize;

use super::disabled::Disabled;
use super::last_run::LastRun;
use super::lock::{self, Holder, Lock};
use super::paths::PuppetPaths;

/// What `status` answers: the keys of the description's output.
#[derive(Debug, Default, Serialize)]
pub(super) struct Status {
    status: &'static str,
    pub(super) puppet_installed: bool,
    enabled: Option<bool>,
    disabled_message: String,
    disabled_since_ms: Option<i64>,
    applying: bool,
    idling: bool,
    daemon_present: bool,
    pid: Option<u32>,
    lock: &'static str,
    lock_problem: Option<String>,
    running_since_ms: Option<i64>,
    last_run_ms: Option<i64>,
    since_last_run_s: Option<i64>,
    last_run_result: &'static str,
    environment: Option<String>,
    config_version: Option<String>,
    puppet_version: Option<String>,
    total_resources: Option<u64>,
    changed_resources: Option<u64>,
    failed_resources: Option<u64>,
    problems: Vec<String>,
}

/// What `is_running` answers.
#[derive(Debug, Serialize)]
pub(super) struct Running {
    running: bool,
    pid: Option<u32>,
    mode: Option<&'static str>,
    command: Option<String>,
    parent: Option<String>,
    since_ms: Option<i64>,
    running_for_s: Option<i64>,
    lock: &'static str,
    lock_problem: Option<String>,
}

impl Status {
    /// Reads it all. What cannot be read or does not make sense is named in `problems`, so that it does not hide
    /// the rest; whether Puppet may run and runs must be known.
    pub(super) fn read(paths: &PuppetPaths, now: Timestamp) -> Result<Self, ActionFailure> {
        let Some(files) = paths.installed()? else {
            return Ok(Self {
                status: "not_installed",
                lock: Lock::Free.word(),
                last_run_result: "unknown",
                ..Self::default()
            });
        };
        let lock = Lock::read(&files.run_lock, &paths.processes)?;
        let daemon = lock::daemon(&files.daemon_pid, &paths.processes)?;
        let disabled = Disabled::read(&files.disabled_lock);
        let mut problems: Vec<String> = disabled.iter().filter_map(|disabled| disabled.problem.clone()).collect();
        let last = LastRun::read(&files).unwrap_or_else(|failure| {
            problems.push(failure.message);
            None
        });
        let last = last.unwrap_or_default();
        let run = lock.holder();
        let (applying, daemon_present) = (run.is_some(), daemon.is_some());
        let status = match (applying, &disabled, daemon_present) {
            (true, ..) => "applying",
            (_, Some(_), _) => "disabled",
            (_, _, true) => "idling",
            _ => "stopped",
        };
        let told = last.told(now, false);
        Ok(Self {
            status,
            puppet_installed: true,
            enabled: Some(disabled.is_none()),
            disabled_since_ms: disabled.as_ref().and_then(|disabled| disabled.since_ms),
            disabled_message: disabled.map(|disabled| disabled.reason).unwrap_or_default(),
            applying,
            idling: daemon_present && !applying,
            daemon_present,
            pid: run.map(|run| run.pid).or(daemon),
            lock: lock.word(),
            lock_problem: lock.problem(),
            running_since_ms: run.and_then(|run| run.since_ms),
            last_run_ms: told.last_run_ms,
            since_last_run_s: told.since_last_run_s,
            last_run_result: told.result,
            environment: told.environment,
            config_version: told.config_version,
            puppet_version: told.puppet_version,
            total_resources: told.total_resources,
            changed_resources: told.changed_resources,
            failed_resources: told.failed_resources,
            problems,
        })
    }
}

impl Running {
    /// Whether a run goes on, and whose it is.
    pub(super) fn read(paths: &PuppetPaths, now: Timestamp) -> Result<Self, ActionFailure> {
        let lock = match paths.installed()? {
            Some(files) => Lock::read(&files.run_lock, &paths.processes)?,
            None => Lock::Free,
        };
        Ok(Self::of(&lock, now))
    }

    pub(super) fn of(lock: &Lock, now: Timestamp) -> Self {
        let holder = lock.holder();
        let since = |holder: &Holder| holder.since_ms;
        Self {
            running: holder.is_some(),
            pid: holder.map(|holder| holder.pid),
            mode: holder.map(|holder| holder.mode),
            command: holder.map(|holder| holder.command.clone()),
            parent: holder.and_then(|holder| holder.parent.clone()),
            since_ms: holder.and_then(since),
            running_for_s: holder.and_then(since).map(|since| now.since_ms(Timestamp(since)).max(0) / 1000),
            lock: lock.word(),
            lock_problem: lock.problem(),
        }
    }
}
