//! Starting a runner, and watching over it until its end.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_plugins::process::{Detached, end_recorded, start_detached};
use muster_protocol::code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Map;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::watch;

use super::directory::{ActionDirectory, Reply};
use super::live::Live;
use super::runner::Secrets;
use super::state::{Effect, Event, Loss};
use crate::core::{Core, StopReason, lock, report_error};
use crate::report::Ending;

/// How often a runner is looked at without a reason: whether it is overdue.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The same where the kernel does not tell of changes.
const LOOK_OFTEN: Duration = Duration::from_millis(100);

/// What the processes that a killed runner has left get between the polite signal and the other.
const LEFT_GRACE: Duration = Duration::from_secs(5);

/// How long a runner may take to read what goes through the pipe, which it does first.
const INPUT_PATIENCE: Duration = Duration::from_secs(60);

/// How runners are started: the program, and what stands before the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runner {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the action's directory is added behind them.
    pub arguments: Vec<OsString>,
    /// Its environment, besides `PATH`.
    pub environment: Vec<(OsString, OsString)>,
}

impl Runner {
    fn start(&self, directory: &ActionDirectory) -> io::Result<(Detached, ChildStdin)> {
        let mut arguments = self.arguments.clone();
        arguments.push(directory.path().as_os_str().to_owned());
        start_detached(&self.program, &arguments, &self.environment)
    }
}

/// The process that this agent started, if it did and has not seen its end.
pub(super) struct Starter(Option<Detached>);

impl Starter {
    /// None of ours: found at start.
    pub(super) fn found() -> Self {
        Self(None)
    }

    fn is_gone(&self) -> bool {
        self.0.is_none()
    }

    /// Waits for its end; for ever if it is not ours. Safe to cancel.
    async fn ended(&mut self) {
        match &mut self.0 {
            Some(child) => {
                // A child that cannot be waited for has nothing more to tell.
                drop(child.ended().await);
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }
}

/// Starts the runner and gives it what must not be on disk. If that fails, says so in the reply.
pub(super) async fn start(core: &Arc<Core>, live: &Arc<Live>, secrets: Map<String, serde_json::Value>) -> Starter {
    let started = match &core.runner {
        Some(runner) => runner.start(&live.directory),
        None => Err(io::Error::other("this agent runs no actions apart from itself")),
    };
    match started {
        Ok((child, mut stdin)) => {
            let text = serde_json::to_vec(&Secrets { secrets }).unwrap_or_default();
            // One that does not take it does not begin, or has ended already: its lock says so.
            match tokio::time::timeout(INPUT_PATIENCE, stdin.write_all(&text)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(request.id = %live.order.request_id, %error, "A runner did not take its input");
                }
                Err(_) => {
                    tracing::warn!(request.id = %live.order.request_id, "A runner did not take its input in time")
                }
            }
            Starter(Some(child))
        }
        Err(error) => {
            report_error("Could not start a runner", &error);
            let ending = Ending::new(&code::START_FAILED, format!("the action's runner could not be started: {error}"));
            write_reply(core, live, ending).await;
            Starter(None)
        }
    }
}

/// Watches over an action until it has ended or the agent stops; the action goes on then.
pub(super) async fn attend(
    core: &Arc<Core>,
    live: &Arc<Live>,
    mut starter: Starter,
    mut stopped: watch::Receiver<Option<StopReason>>,
) {
    let told = core.changes.tell(live);
    let interval = if told.is_some() { LOOK_INTERVAL } else { LOOK_OFTEN };
    let mut seen = live.seen.subscribe();
    let mut stop_open = true;
    loop {
        seen.mark_unchanged();
        look(core, live, starter.is_gone()).await;
        if *live.ended.borrow() {
            return;
        }
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            changed = stopped.changed(), if stop_open => {
                stop_open = changed.is_ok();
                let reason = stopped.borrow_and_update().clone();
                if let Some(reason) = reason {
                    let effects = live.apply(Event::StopAsked(reason), &*core.clock);
                    perform(core, live, effects).await;
                }
            }
            changed = seen.changed() => if changed.is_err() { return },
            () = starter.ended() => {}
            // Also in case the kernel has stopped telling.
            () = tokio::time::sleep(interval) => live.output.send_modify(|count| *count += 1),
        }
    }
}

/// Looks, and does what follows from it.
pub(super) async fn look(core: &Arc<Core>, live: &Arc<Live>, starter_gone: bool) {
    match live.look(starter_gone, core.now()) {
        Ok(sighting) => {
            let effects = live.apply(Event::Looked(sighting), &*core.clock);
            perform(core, live, effects).await;
        }
        Err(error) => {
            tracing::warn!(request.id = %live.order.request_id, %error, "Could not look at a running action");
        }
    }
}

async fn perform(core: &Arc<Core>, live: &Arc<Live>, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::TellRunner(reason) => tell_runner(core, live, reason).await,
            Effect::KillRunner => {
                tracing::error!(request.id = %live.order.request_id, "Killing a runner that should have ended");
                signal_runner(live, Signal::SIGKILL);
            }
            Effect::Close(loss) => Box::pin(close(core, live, loss)).await,
            Effect::Release => {
                super::tell::note_end(core, live);
                if let Some(running) = lock(&core.running).get_mut(&live.order.request_id) {
                    running.ended = true;
                }
                core.running_changed.notify_waiters();
            }
            // Those belong to whoever tells of the action.
            Effect::Conclude | Effect::Settle => {}
        }
    }
}

/// Asks the runner to stop: by a file, so that it is true also for a runner that has not begun, and for an
/// agent that starts again. Where no file can be written, by a signal.
async fn tell_runner(core: &Core, live: &Arc<Live>, reason: StopReason) {
    let directory = live.directory.clone();
    let written = core.blocking.run(move || directory.write_stop(&reason)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            report_error("Could not write that an action is to stop; sending its runner a signal", &error);
            signal_runner(live, Signal::SIGTERM);
        }
        Err(error) => report_error("Could not write that an action is to stop", &error),
    }
}

/// Sends a signal to exactly the process that holds the lock: the one that wrote its id and its start, and that
/// still has both.
fn signal_runner(live: &Live, signal: Signal) {
    let Some(begun) = live.begun() else { return };
    let is_locked = match live.directory.try_lock() {
        Ok(lock) => lock.is_none(),
        // Without a lock to ask for, the process itself has to do.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_locked && begun.is_process() {
        // Failing means that it ended this instant.
        let _gone = kill(Pid::from_raw(begun.pid), signal);
    }
}

/// Takes the place of a runner that is gone: cleans up after it and writes what is known.
async fn close(core: &Arc<Core>, live: &Arc<Live>, loss: Loss) {
    if loss == Loss::DirectoryRemoved {
        return close_without_directory(core, live).await;
    }
    let Ok(Some(lock)) = live.directory.try_lock() else {
        let effects = live.apply(Event::LockHeld, &*core.clock);
        return Box::pin(perform(core, live, effects)).await;
    };
    let left = if loss == Loss::RunnerGone { end_recorded(&live.directory.programs(), LEFT_GRACE).await } else { 0 };
    let what = match loss {
        Loss::NotBegun => "the action's process ended before the action began, so nothing was done".to_owned(),
        Loss::RunnerGone => "the process that ran the action was killed; what the action did is not known".to_owned(),
        Loss::HostRestarted => "the host restarted while the action ran; what it did is not known".to_owned(),
        Loss::DirectoryRemoved => DIRECTORY_REMOVED.to_owned(),
    };
    let what = match left {
        0 => what,
        1 => format!("{what}; 1 process that it had left was stopped"),
        left => format!("{what}; {left} processes that it had left were stopped"),
    };
    tracing::warn!(request.id = %live.order.request_id, action = live.order.name(), "{what}");
    let code = if loss == Loss::NotBegun { &code::START_FAILED } else { &code::INTERRUPTED };
    let mut ending = Ending::new(code, what);
    if let Some(begun) = live.begun()
        && loss == Loss::RunnerGone
    {
        ending.duration_ms = u64::try_from(core.now().since_ms(begun.at_ms)).unwrap_or(0);
    }
    if write_reply_locked(core, live, ending, lock).await {
        Box::pin(look(core, live, true)).await;
    }
}

/// What is said of an action whose directory somebody removed.
const DIRECTORY_REMOVED: &str = "the action's directory was removed while it ran, so it was stopped and nothing is left \
                                 of how it ended; what it did is not known";

/// Takes the place of a runner that is gone with its directory.
async fn close_without_directory(core: &Arc<Core>, live: &Arc<Live>) {
    tracing::warn!(request.id = %live.order.request_id, action = live.order.name(), "{DIRECTORY_REMOVED}");
    let mut ending = Ending::new(&code::INTERRUPTED, DIRECTORY_REMOVED);
    if let Some(begun) = live.begun() {
        ending.duration_ms = u64::try_from(core.now().since_ms(begun.at_ms)).unwrap_or(0);
    }
    live.keep_lost(Reply::new(&ending, core.now()));
    Box::pin(look(core, live, true)).await;
}

async fn write_reply(core: &Arc<Core>, live: &Arc<Live>, ending: Ending) {
    match live.directory.try_lock() {
        Ok(Some(lock)) => {
            // If it was not written the next look finds that nothing runs and tries again.
            write_reply_locked(core, live, ending, lock).await;
        }
        Ok(None) => {}
        Err(error) => report_error("Could not take the lock of an action", &error),
    }
}

/// Returns whether there is a reply now.
async fn write_reply_locked(
    core: &Arc<Core>,
    live: &Arc<Live>,
    ending: Ending,
    lock: super::directory::RunnerLock,
) -> bool {
    let (directory, now) = (live.directory.clone(), core.now());
    let written = core.blocking.run(move || {
        if directory.reply().good().is_some() {
            return Ok(());
        }
        let mut reply = Reply::new(&ending, now);
        let on_disk = super::source::total(&directory)?;
        (reply.written, reply.kept) = (on_disk, on_disk);
        directory.write_reply(&lock, &reply)
    });
    match written.await {
        Ok(Ok(())) => return true,
        // It is tried again at the next look.
        Ok(Err(error)) => report_error("Could not write how an action ended", &error),
        Err(error) => report_error("Could not write how an action ended", &error),
    }
    false
}
