//! Actions that outlive the agent: each in a process of its own, with everything about it on disk.
//!
//! # The data and how it flows
//!
//! ```text
//! agent ── request.json, secrets through a pipe ──► musterd run-action DIRECTORY ──► plugin
//!   ▲                                                  │ output, reply.json
//!   │ inotify                                          ▼
//!   └──── reports, numbered in cursor ◄──── state_dir/actions/REQUEST-ID/
//! ```
//!
//! [`start`] makes the directory ([`directory`]) and starts the runner ([`run_action`]). One task watches over
//! the runner (`attend`), with the pure [`state`] saying what follows from what it sees; another one tells of
//! the output and the end (`tell`). An agent that starts decides for each directory what to make of it
//! ([`recovery`], pure) and goes on with the same two tasks.
//!
//! # Invariants
//!
//! - A runner lives exactly as long as the lock of its directory is held. Nobody goes by a process id alone. Where
//!   somebody has removed the directory, its process, by id, start and boot, takes the place of the lock.
//! - A directory's action begins at most once, and has at most one reply: both are written under the lock.
//! - The runner ends by itself, whether an agent is there or not.
//! - A report's number and place in the output are on disk before the report is sent.

mod attend;
pub mod cursor;
pub mod directory;
mod live;
pub mod look;
mod notice;
pub mod output;
pub mod recovery;
mod runner;
mod snapshot;
mod source;
pub mod state;
mod tell;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_daemon::TaskKind;
use muster_plugin_api::HostView;
use muster_protocol::{Command, RequestId, code};
use serde_json::Map;
use tokio::sync::watch;

pub use attend::Runner;
pub use directory::{ActionDirectory, Order, Totals};
pub(crate) use live::{Changes, Live};
pub use runner::{RunnerError, run_action};
pub use snapshot::HostFile;
pub(crate) use source::{Source, total};
pub(crate) use tell::{Cut, Teller};

use crate::admit::{Authorized, RunningAction};
use crate::core::{Core, Running, StopReason, chain, lock, report_error};
use crate::execute::stop_grace;
use crate::outbox::Care;
use crate::report::Ending;
use attend::Starter;
use directory::{FORMAT_VERSION, Found};
use recovery::{BegunThen, Recovery, Remains, Written, recover};
use state::State;

/// Starts an authorized command that has been recorded, in a process of its own.
pub(crate) fn start(core: &Arc<Core>, authorized: &Authorized<Command>) {
    let order = order(core, authorized);
    let grant = authorized.grant();
    let secrets: Map<_, _> = grant
        .arguments
        .iter()
        .filter(|(name, _)| grant.secrets.contains(*name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let stopped = enter(core, &order, None);
    let id = order.request_id;
    // Known from now on, also to a watch that comes before the directory is there.
    let directory = ActionDirectory::of(&core.actions_directory, id);
    let live = Live::new(order, directory, State::starting(core.now()));
    lock(&core.detached).insert(id, live.clone());
    core.counters.actions_started.add_one();
    let core = core.clone();
    core.tasks.clone().spawn(TaskKind::Worker, "detached", async move {
        let (all, making) = (core.actions_directory.clone(), live.clone());
        let made = core.blocking.run(move || ActionDirectory::create(&all, &making.order));
        match made.await.map_err(std::io::Error::other).and_then(|made| made) {
            Ok(_) => {
                let starter = attend::start(&core, &live, secrets).await;
                accompany(&core, &live, starter, stopped).await;
            }
            Err(error) => not_begun(&core, &live, &error).await,
        }
    });
}

/// There is not even a directory: says so, and forgets it.
async fn not_begun(core: &Arc<Core>, live: &Arc<Live>, error: &std::io::Error) {
    report_error("Could not make the directory of an action, so it does not run", error);
    let id = live.order.request_id;
    drop(live.directory.remove());
    lock(&core.running).remove(&id);
    lock(&core.detached).remove(&id);
    live.ended.send_replace(true);
    core.running_changed.notify_waiters();
    let ending =
        Ending::new(&code::START_FAILED, format!("the directory of the action cannot be made: {}", chain(error)));
    core.note(tell::finished_event(live, &ending));
    core.send_finished(&live.order.address(), 0, Vec::new(), ending, Care::Durable).await;
    core.record_finish(id, false).await;
    core.counters.actions_finished.add_one();
}

/// What a runner is told.
pub(crate) fn order(core: &Core, authorized: &Authorized<Command>) -> Order {
    let (command, grant) = (authorized.message(), authorized.grant());
    let mut arguments = grant.arguments.clone();
    arguments.retain(|name, _| !grant.secrets.contains(name));
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Order {
        format: FORMAT_VERSION,
        request_id: command.id,
        caller: command.caller.clone(),
        reply_to: command.reply_to.clone(),
        progress: command.options.progress,
        plugin: command.plugin.clone(),
        plugin_version: grant.plugin.ddl().metadata.version.clone(),
        action: command.action.clone(),
        read_only: grant.read_only,
        can_cancel: grant.can_cancel,
        arguments,
        secrets: grant.secrets.clone(),
        noop: command.options.noop,
        effective_user: command.options.effective_user.clone(),
        time_limit_ms: millis(grant.time_limit),
        stop_grace_ms: millis(stop_grace(&grant.plugin, &command.action)),
        output_bytes_max: core.config.results().output_bytes_max,
        accepted_at_ms: core.now(),
        host: core.host.clone(),
        agent_status: core.agent_status(),
    }
}

/// Puts an action on the list of what runs.
fn enter(core: &Core, order: &Order, stop: Option<&StopReason>) -> watch::Receiver<Option<StopReason>> {
    let (stop, stopped) = watch::channel(stop.cloned());
    let action = RunningAction {
        caller: order.caller.clone(),
        action: order.name(),
        can_cancel: order.can_cancel,
        read_only: order.read_only,
        is_watch: false,
    };
    let (since, time_limit) = (order.accepted_at_ms, Duration::from_millis(order.time_limit_ms));
    let running = Running { action, stop, ended: false, since, time_limit, holds_up_stop: false, feed: None };
    lock(&core.running).insert(order.request_id, running);
    stopped
}

/// Watches over an action and tells of it, at the same time, until both are done or the agent stops.
async fn accompany(core: &Arc<Core>, live: &Arc<Live>, starter: Starter, stopped: watch::Receiver<Option<StopReason>>) {
    let (watched, watching) = (core.clone(), live.clone());
    core.tasks.spawn(TaskKind::Worker, "attend", async move {
        attend::attend(&watched, &watching, starter, stopped).await;
    });
    if tell::tell(core, live).await {
        let id = live.order.request_id;
        if live.directory.path().exists() {
            core.results_add(&live.order, &live.directory).await;
        }
        lock(&core.running).remove(&id);
        lock(&core.detached).remove(&id);
        core.running_changed.notify_waiters();
    }
}

/// Goes on with every action that an agent before has left. Returns the requests that are answered for.
pub(crate) async fn recover_all(core: &Arc<Core>) -> Vec<RequestId> {
    let mut answered = Vec::new();
    let entries = match std::fs::read_dir(&core.actions_directory) {
        Ok(entries) => entries,
        Err(error) => {
            report_error("Could not look for actions that an agent before has left", &error);
            return answered;
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    // Oldest first, and not in the file system's own order.
    paths.sort();
    for path in paths {
        answered.extend(recover_one(core, &path).await);
    }
    answered
}

async fn recover_one(core: &Arc<Core>, path: &Path) -> Option<RequestId> {
    let directory = ActionDirectory::at(path);
    let order = directory.order().good();
    let found = remains(core, &directory, order.as_ref());
    let name = path.display();
    match (recover(&found, core.now()), order) {
        (Recovery::Resume(state), Some(order)) => {
            let id = order.request_id;
            tracing::info!(request.id = %id, action = order.name(), runs = found.alive, "Found an action of before");
            let stopped = enter(core, &order, found.stop.as_ref());
            let live = Live::new(order, directory, state);
            lock(&core.detached).insert(id, live.clone());
            // Before anything is asked of this agent: what has ended takes no room.
            attend::look(core, &live, true).await;
            let accompanied = core.clone();
            core.tasks.spawn(TaskKind::Worker, "detached", async move {
                accompany(&accompanied, &live, Starter::found(), stopped).await;
            });
            return Some(id);
        }
        (Recovery::Keep, Some(order)) => core.results_add(&order, &directory).await,
        (Recovery::StopAndLeave, _) => {
            tracing::error!(path = %name, "An action runs whose order cannot be read; it is told to stop");
            if let Err(error) = directory.write_stop(&StopReason::Shutdown) {
                report_error("Could not tell it to stop", &error);
            }
        }
        (Recovery::Remove, _) | (Recovery::Resume(_) | Recovery::Keep, None) => {
            tracing::info!(path = %name, "Removing what is left of an action that was not taken on");
            if let Err(error) = directory.remove() {
                tracing::warn!(path = %name, %error, "Could not remove what is left of an action");
            }
        }
    }
    None
}

fn remains(core: &Core, directory: &ActionDirectory, order: Option<&Order>) -> Remains {
    let begun = match directory.begun() {
        Found::Missing => None,
        Found::Damaged => Some(BegunThen { ends_by: None, other_boot: false }),
        Found::There(begun) => {
            let other_boot = live::is_of_another_boot(&begun);
            Some(BegunThen { ends_by: Some(begun.ends_by_ms), other_boot })
        }
    };
    Remains {
        order: order.is_some(),
        alive: directory.try_lock().is_ok_and(|lock| lock.is_none()),
        begun,
        stop: directory.stop().good().map(|stop| stop.reason),
        reply: match directory.reply() {
            Found::Missing => Written::Missing,
            Found::Damaged => Written::Damaged,
            Found::There(_) => Written::Good,
        },
        unfinished: order.is_some_and(|order| lock(&core.journal).is_unfinished(&order.request_id)),
    }
}

/// Passes on what the kernel tells about the directories, for as long as the agent lives.
pub(crate) async fn pass_on_changes(core: Arc<Core>) {
    let listener = match core.changes.listen() {
        Some(Ok(listener)) => listener,
        Some(Err(error)) => return report_error("Could not listen for changes in directories", &error),
        None => return,
    };
    loop {
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            passed = core.changes.pass_on(&listener) => if let Err(error) = passed {
                return report_error("Could not learn of changes in directories", &error);
            }
        }
    }
}

/// Writes what runners know of the host.
pub(crate) async fn write_host_file(core: &Arc<Core>) {
    let file = HostFile {
        facts: (*core.facts()).clone(),
        inventory: (*HostView::inventory(&**core)).clone(),
        inventory_digest: core.inventory_digest(),
        sealing_key: core.sealing_key(),
    };
    let actions = core.actions_directory.clone();
    match core.blocking.run(move || file.write(&actions)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => report_error("Could not write the facts for actions to come", &error),
        Err(error) => report_error("Could not write the facts for actions to come", &error),
    }
}
