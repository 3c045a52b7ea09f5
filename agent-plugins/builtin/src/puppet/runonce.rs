//! `runonce`: one run of the agent, from the question whether it may begin to what became of it.

use std::fs;
use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest};
use muster_protocol::{Timestamp, code};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::arguments::arguments;
use super::blocking;
use super::disabled::Disabled;
use super::last_run::{LastRun, Told, Trace};
use super::lock::Lock;
use super::paths::{Installed, PuppetPaths};
use super::waiting::{Waited, until_free};
use crate::process::{End, LeaveBehind, Program, Run};

/// How long Puppet may take to end after it was told to: it saves its report and sends it.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Least time that must be left for a run after waiting for another.
const RUN_TIME_MIN: Duration = Duration::from_millis(1);

/// What is told of a run beside its summary.
#[derive(Debug, Default, Serialize)]
struct Around {
    waited_s: f64,
    duration_s: f64,
    exit_code: Option<i32>,
    daemons_started: usize,
    programs_stopped: usize,
}

/// Runs Puppet once.
pub(super) async fn runonce(paths: &PuppetPaths, request: &ActionRequest, context: &ActionContext) -> ActionReply {
    let deadline = Instant::now() + request.time_limit;
    let arguments = arguments(request)?;
    let wait = request.arguments.get("wait").and_then(Value::as_bool).unwrap_or_default();
    let own_paths = paths.clone();
    let files = blocking(move || own_paths.required()).await?;
    let mut waited = Waited::default();
    loop {
        refuse_disabled(&files).await?;
        waited = not_running(paths, &files, wait, deadline, context, waited).await?;
        let time_limit = deadline.saturating_duration_since(Instant::now()).max(RUN_TIME_MIN);
        let before = trace(&files).await?;
        let program = program(&files, &arguments, time_limit, paths.finish, context);
        let run = program.run(&context.cancel).await;
        if let Some(lost) = lost_to_another(paths, &files, &run, &before).await? {
            if wait && !context.cancel.is_cancelled() {
                waited.holder = lost.holder().cloned();
                continue;
            }
            return Err(conflict(&lost, context.host.now()));
        }
        return Outcome { paths, files: &files, program: &program, run, before, waited, now: context.host.now() }
            .reply()
            .await;
    }
}

fn program(
    files: &Installed,
    arguments: &[String],
    time_limit: Duration,
    finish: Duration,
    context: &ActionContext,
) -> Program {
    Program::new(&files.program, time_limit)
        .arguments(arguments)
        // The time zone is a fact of the host, and schedules are in local time.
        .without_variable("TZ")
        .variable("LC_ALL", "C.UTF-8")
        .stream_to(context.output.clone())
        // Daemons that init scripts start belong to the host. What Puppet runs when it is stopped does not live on.
        .leave_behind(LeaveBehind::Keep)
        .finish(finish)
        .grace(STOP_GRACE)
}

async fn refuse_disabled(files: &Installed) -> Result<(), ActionFailure> {
    let path = files.disabled_lock.clone();
    let disabled = blocking(move || Ok(Disabled::read(&path))).await?;
    disabled.map_or(Ok(()), |disabled| Err(disabled.failure()))
}

async fn not_running(
    paths: &PuppetPaths,
    files: &Installed,
    wait: bool,
    deadline: Instant,
    context: &ActionContext,
    before: Waited,
) -> Result<Waited, ActionFailure> {
    if !wait {
        let lock = read_lock(paths, files).await?;
        return if lock.holder().is_some() { Err(conflict(&lock, context.host.now())) } else { Ok(before) };
    }
    let now = until_free(paths, files, deadline, context).await?;
    Ok(Waited { time: before.time + now.time, holder: now.holder.or(before.holder) })
}

fn conflict(lock: &Lock, now: Timestamp) -> ActionFailure {
    let who = lock.holder().map(super::lock::Holder::shown).unwrap_or_else(|| "somebody else".to_owned());
    let message = format!("Puppet runs already: {who}. `wait=true` waits for its end");
    let running = super::status::Running::of(lock, now);
    ActionFailure::new(&code::CONFLICT, message).with_data(serde_json::json!({ "other_run": running }))
}

async fn read_lock(paths: &PuppetPaths, files: &Installed) -> Result<Lock, ActionFailure> {
    let (path, processes) = (files.run_lock.clone(), paths.processes.clone());
    blocking(move || Lock::read(&path, &processes)).await
}

async fn trace(files: &Installed) -> Result<Trace, ActionFailure> {
    let files = files.clone();
    blocking(move || Ok(Trace::read(&files))).await
}

/// Whether somebody else began a run between our look at the lock and Puppet's own: Puppet then ends with 1,
/// and the lock is still held.
async fn lost_to_another(
    paths: &PuppetPaths,
    files: &Installed,
    run: &Run,
    before: &Trace,
) -> Result<Option<Lock>, ActionFailure> {
    if !matches!(run.end, End::Exited(1)) {
        return Ok(None);
    }
    let lock = read_lock(paths, files).await?;
    let others = lock.holder().is_some() && trace(files).await? == *before;
    Ok(others.then_some(lock))
}

/// Everything from which the reply is made.
struct Outcome<'a> {
    paths: &'a PuppetPaths,
    files: &'a Installed,
    program: &'a Program,
    run: Run,
    before: Trace,
    waited: Waited,
    now: Timestamp,
}

impl Outcome<'_> {
    async fn reply(self) -> ActionReply {
        let was_stopped = matches!(self.run.end, End::TimedOut | End::Cancelled | End::Signalled(_));
        if was_stopped {
            self.remove_own_lock().await?;
        }
        let after = trace(self.files).await?;
        let (last, problem) = if after == self.before { (None, None) } else { self.read_run().await };
        let told = last.as_ref().map(|last| last.told(self.now, true));
        let data = self.data(told.as_ref())?;
        if let End::Exited(exit_code) = self.run.end {
            let verdict = self.verdict(exit_code, told.as_ref(), last.as_ref(), problem).await?;
            return match verdict {
                Ok(message) => Ok(ActionOk { data, message }),
                Err(message) => Err(ActionFailure::failed(message).with_exit_code(exit_code).with_data(data)),
            };
        }
        match self.run.exit_code(self.program) {
            Err(failure) => Err(failure.with_data(data)),
            Ok(exit_code) => Err(ActionFailure::failed("Puppet did not end by itself").with_exit_code(exit_code)),
        }
    }

    /// What Puppet says about the run that was just made. What cannot be read is a problem, not a failure: the
    /// exit code is there.
    async fn read_run(&self) -> (Option<LastRun>, Option<String>) {
        let files = self.files.clone();
        match blocking(move || LastRun::read(&files)).await {
            Ok(last) => (last, None),
            Err(failure) => (None, Some(failure.message)),
        }
    }

    /// A message for success or failure. Exit codes: 0 nothing to do, 2 changed something, 4 and 6 the same with
    /// failures, 1 there was no run or no catalog. A run that was stopped from outside also ends with 0.
    async fn verdict(
        &self,
        exit_code: i32,
        told: Option<&Told>,
        last: Option<&LastRun>,
        problem: Option<String>,
    ) -> Result<Result<String, String>, ActionFailure> {
        let Some((told, last)) = told.zip(last) else {
            // Nothing was written: Puppet did not get as far as a run.
            refuse_disabled(self.files).await?;
            let said = self.run.stderr.first_line().or_else(|| self.run.stdout.first_line());
            let said = problem.or(said).unwrap_or_else(|| "it said nothing".to_owned());
            return Ok(Err(format!("Puppet ended with exit code {exit_code} and without a run: {said}")));
        };
        let total = told.total_resources.unwrap_or_default();
        let reason = last.report.as_ref().and_then(|report| {
            let failed = report.failed().first().map(|failed| format!("{}: {}", failed.resource, failed.message));
            failed.or_else(|| report.reason())
        });
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Ok(match (exit_code, told.result) {
            (_, "interrupted") => Err("the run was stopped before its end, by somebody else".to_owned()),
            (0 | 2, "failed") | (4 | 6, _) => {
                Err(format!("{} of {total} resources failed{reason}", told.failed_resources.unwrap_or_default()))
            }
            (0 | 2, result) => Ok(match last.report.as_ref().map(|report| report.pending().len()) {
                Some(pending @ 1..) => format!("{result}; {pending} resources would have changed"),
                _ => format!("{result}; {total} resources"),
            }),
            (1, _) => Err(format!("there was no catalog to apply{reason}")),
            (other, _) => Err(format!("Puppet ended with exit code {other}{reason}")),
        })
    }

    fn data(&self, told: Option<&Told>) -> Result<Value, ActionFailure> {
        let around = Around {
            waited_s: self.waited.seconds(),
            duration_s: (self.run.duration.as_secs_f64() * 10.0).round() / 10.0,
            exit_code: if let End::Exited(exit_code) = self.run.end { Some(exit_code) } else { None },
            daemons_started: if matches!(self.run.end, End::Exited(_)) { self.run.left_behind } else { 0 },
            programs_stopped: self.run.stopped_elsewhere,
        };
        let mut data = Map::new();
        for value in [serde_json::to_value(told), serde_json::to_value(around)] {
            let value = value.map_err(|error| {
                ActionFailure::new(&code::PLUGIN_ERROR, format!("the answer cannot be written: {error}"))
            })?;
            if let Value::Object(entries) = value {
                data.extend(entries);
            }
        }
        Ok(Value::Object(data))
    }

    /// Puppet takes its lock away when it ends, but not when it was killed. Nobody else can have it then: the file
    /// still names a process that is over. Puppet itself would remove it before its next run.
    async fn remove_own_lock(&self) -> Result<(), ActionFailure> {
        let (path, processes) = (self.files.run_lock.clone(), self.paths.processes.clone());
        blocking(move || {
            if let Lock::Stale { pid: Some(_), .. } = Lock::read(&path, &processes)? {
                let _removed_by_somebody_else = fs::remove_file(&path);
            }
            Ok(())
        })
        .await
    }
}
