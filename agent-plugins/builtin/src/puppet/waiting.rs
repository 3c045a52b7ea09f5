//! Waiting until nobody runs Puppet.

use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionFailure};
use muster_protocol::code;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::lock::{Holder, Lock};
use super::paths::{Installed, PuppetPaths};
use super::{blocking, status};

/// Time between two looks at the lock: two small files each time.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What waiting was about.
#[derive(Debug, Clone, Default)]
pub(super) struct Waited {
    /// How long it took.
    pub(super) time: Duration,
    /// Whose run was waited for, the last one if there were several.
    pub(super) holder: Option<Holder>,
}

/// What `wait` answers.
#[derive(Debug, Serialize)]
pub(super) struct WaitAnswer {
    waited_s: f64,
    waited_for_pid: Option<u32>,
    last_run_result: &'static str,
    last_run_ms: Option<i64>,
}

impl WaitAnswer {
    pub(super) fn new(waited: &Waited, last: &super::last_run::LastRun) -> Self {
        Self {
            waited_s: waited.seconds(),
            waited_for_pid: waited.holder.as_ref().map(|holder| holder.pid),
            last_run_result: last.result(),
            last_run_ms: last.ended_ms(),
        }
    }
}

impl Waited {
    /// In seconds, to a tenth.
    pub(super) fn seconds(&self) -> f64 {
        (self.time.as_secs_f64() * 10.0).round() / 10.0
    }
}

/// Waits until nobody holds the lock.
///
/// # Errors
/// With the code `timed-out` and who holds it when the deadline passes; `cancelled` when the action is to stop.
pub(super) async fn until_free(
    paths: &PuppetPaths,
    files: &Installed,
    deadline: Instant,
    context: &ActionContext,
) -> Result<Waited, ActionFailure> {
    let started = Instant::now();
    let mut waited = Waited::default();
    loop {
        let (path, processes) = (files.run_lock.clone(), paths.processes.clone());
        let lock = blocking(move || Lock::read(&path, &processes)).await?;
        waited.time = started.elapsed();
        let Some(holder) = lock.holder() else { return Ok(waited) };
        let running = status::Running::of(&lock, context.host.now());
        if Instant::now() >= deadline {
            let message = format!("Puppet still runs: {}", holder.shown());
            return Err(ActionFailure::new(&code::TIMED_OUT, message).with_data(json!({ "other_run": running })));
        }
        waited.holder = Some(holder.clone());
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => {
                return Err(ActionFailure::new(&code::CANCELLED, "waiting for the run was stopped; the run goes on"));
            }
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_INTERVAL)) => {}
        }
    }
}
