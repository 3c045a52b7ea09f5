//! An agent from its start to its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use muster_bus::Link;
use muster_daemon::{Blocking, Clock, Disk, TaskKind, Tasks};
use muster_pki::PkiError;
use muster_plugin_api::Registry;
use muster_protocol::{AnnouncementKind, HostName, Identity, RequestId, code};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, AuditError, Durability, Event};
use crate::config::Config;
use crate::core::{Connection, Core, CoreParts, Materials, StopReason, chain, lock};
use crate::detached::{self, Runner};
use crate::facts::{self, FactStore};
use crate::journal::{Journal, JournalError, Started};
use crate::outbox::Care;
use crate::presence::{self, Presence};
use crate::profiles;
use crate::report::{Address, Ending};
use crate::sealing_key;
use crate::session;
use crate::spool::{Spool, SpoolError};
use crate::state::{StateDirectory, StateError, files, make_private_directory};
use crate::status::{BEAT, Status};

/// How long the last reports may take to be confirmed when the agent stops. What is left waits on disk.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long actions that were told to stop, and their reports, may take beyond the configured time.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(8);

/// What an agent is made of, besides its configuration.
pub struct Parts {
    /// Certificates, policy and the way to the broker.
    pub materials: Materials,
    /// The plugins.
    pub registry: Registry,
    /// Where facts come from.
    pub facts: facts::Sources,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where everything lies that the agent keeps, but for actions in processes of their own, their results and
    /// plugin packs: those cross processes and stay on the machine's own disk.
    pub disk: Arc<dyn Disk>,
    /// Where work is done that waits for the disk.
    pub blocking: Blocking,
    /// Seed of the agent's random pauses.
    pub random_seed: u64,
    /// How actions get processes of their own; `None` if all run in this one.
    pub runner: Option<Runner>,
    /// Makes new materials for a reload; `None` if there is nothing to read again.
    pub reload: Option<ReloadMaterials>,
}

/// Reads certificates, revocation lists and policy again. Says why it cannot.
pub type ReloadMaterials = Box<dyn Fn() -> Result<Materials, String> + Send + Sync>;

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("materials", &self.materials)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate is not a host's.
    #[error("the certificate is of `{}`, and an agent needs one of a host", .0.short())]
    NotAHost(Identity),
    /// The certificate is another host's.
    #[error("the certificate is of host `{certificate}`, and the configuration says `{configured}`")]
    OtherHost {
        /// The name in the certificate.
        certificate: HostName,
        /// The name in the configuration.
        configured: HostName,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key for secret arguments cannot be used.
    #[error(transparent)]
    SealingKey(#[from] PkiError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Requests whose actions did not end in time and were interrupted.
    pub interrupted: usize,
    /// Final reports that wait on disk for the next start.
    pub reports_left: usize,
    /// A task that everything depends on and that panicked, if one did.
    pub failed: Option<&'static str>,
}

/// The host's name, which its certificate says and the configuration may repeat.
///
/// # Errors
/// When the certificate is not a host's, or another host's than the configuration expects.
pub fn host_name(config: &Config, materials: &Materials) -> Result<HostName, StartError> {
    let certificate = match materials.credentials.identity() {
        Identity::Host(name) => name.clone(),
        other => return Err(StartError::NotAHost(other.clone())),
    };
    match config.host() {
        Some(configured) if *configured != certificate => {
            Err(StartError::OtherHost { certificate, configured: configured.clone() })
        }
        _ => Ok(certificate),
    }
}

/// Makes the directory for actions' files, and removes what actions of an agent that was killed left there.
fn empty_work_directory(path: &Path) -> Result<(), StartError> {
    let failed = |action: &'static str| {
        let path = path.to_owned();
        move |source| StartError::from(StateError::Io { action, path, source })
    };
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("empty")(error)),
        _ => {}
    }
    make_private_directory(path).map_err(failed("make"))
}

/// An agent that has opened its state and not begun to work.
#[derive(Debug)]
pub struct Agent {
    core: Arc<Core>,
    reload: Option<ReloadSlot>,
    reloads: watch::Sender<u64>,
    reloads_done: watch::Sender<u64>,
}

struct ReloadSlot(ReloadMaterials);

impl std::fmt::Debug for ReloadSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReloadSlot")
    }
}

/// A way to talk to an agent that runs. Clones are the same way.
#[derive(Debug, Clone)]
pub struct Handle {
    core: Weak<Core>,
    tasks: Tasks,
    connection: watch::Receiver<Connection>,
    reloads: watch::Sender<u64>,
    reloads_done: watch::Receiver<u64>,
}

impl Handle {
    /// Whether it is connected, now and whenever that changes.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Drops everything that the agent does beside [`Agent::run`], where it is, as a crash of its process would.
    /// Whoever simulates a crash drops the future of `run` in the same breath.
    pub fn kill(&self) {
        self.tasks.kill();
    }

    /// What it is doing. Waits for no part of the agent, but a moment for each lock, so it belongs on a thread of its own.
    /// `None` once it has ended.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        Some(self.core.upgrade()?.status())
    }

    /// Asks it to read certificates, revocation lists, policy and facts again, and waits until it has
    /// done so or ended. Whether it worked is in the log and in the audit log.
    pub async fn reload(&self) {
        let mut number = 0;
        self.reloads.send_modify(|count| {
            *count += 1;
            number = *count;
        });
        // An agent that has ended reloads nothing any more.
        drop(self.reloads_done.clone().wait_for(|done| *done >= number).await);
    }
}

impl Agent {
    /// Opens the state of an agent: directory, journal, audit log, spool.
    ///
    /// # Errors
    /// When the certificate does not fit, or something of the state cannot be read or written. An
    /// agent that could not keep its promises does not start.
    pub fn new(config: Config, parts: Parts) -> Result<Self, StartError> {
        let host = host_name(&config, &parts.materials)?;
        let now = muster_protocol::Timestamp(parts.clock.now_ms());
        let state = StateDirectory::open(&parts.disk, config.state_dir())?;
        empty_work_directory(&state.file(files::WORK))?;
        let actions = state.file(files::ACTIONS);
        make_private_directory(&actions).map_err(|source| StateError::Io { action: "make", path: actions, source })?;
        let sealing_key = sealing_key::load_or_create(&*parts.disk, &state.file(files::SEALING_KEY))?;
        let (journal, opened) = Journal::open(&parts.disk, &state.file(files::JOURNAL), now)?;
        let mut found = Vec::new();
        if opened.torn_bytes > 0 || opened.damaged_lines > 0 {
            let kept = opened.kept_at.as_ref().map(|path| path.display().to_string());
            tracing::warn!(
                torn_bytes = opened.torn_bytes,
                damaged_lines = opened.damaged_lines,
                kept,
                "The journal had damage"
            );
            found.push(format!(
                "the journal had {} bytes of an unfinished record at its end and {} damaged lines",
                opened.torn_bytes, opened.damaged_lines
            ));
        }
        let mut audit = Audit::open(&parts.disk, config.audit_file(), host.as_str(), now, config.audit_rotation())?;
        let (spool, opened) = Spool::open(&parts.disk, &state.file(files::SPOOL))?;
        for path in &opened.damaged {
            tracing::warn!(path = %path.display(), "A file in the spool is not a report; it was set aside");
            found.push(format!("a file in the spool is not a report; it is now `{}`", path.display()));
        }
        for path in &opened.surplus {
            found.push(format!(
                "a damaged file of the spool is removed, since there are too many: `{}`",
                path.display()
            ));
        }
        for path in &opened.unreadable {
            found.push(format!("a file in the spool could not be read: `{}`", path.display()));
        }
        // Evidence that is lost is told where evidence is looked for.
        for message in found {
            audit.write(now, Event::new("agent", "recovered").with_message(message), Durability::Written)?;
        }
        opened.surplus.iter().for_each(|path| spool.remove_damaged(path));
        let core = Arc::new(Core::new(CoreParts {
            facts: FactStore::new(parts.facts),
            config,
            host,
            clock: parts.clock,
            materials: parts.materials,
            registry: parts.registry,
            state,
            sealing_key,
            runner: parts.runner,
            journal,
            audit,
            spool,
            blocking: parts.blocking,
            random_seed: parts.random_seed,
        }));
        core.restore_revocation_lists()?;
        Ok(Self {
            core,
            reload: parts.reload.map(ReloadSlot),
            reloads: watch::Sender::new(0),
            reloads_done: watch::Sender::new(0),
        })
    }

    /// A way to talk to the agent while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            tasks: self.core.tasks.clone(),
            core: Arc::downgrade(&self.core),
            connection: self.core.connection.subscribe(),
            reloads: self.reloads.clone(),
            reloads_done: self.reloads_done.subscribe(),
        }
    }

    /// Works until `shutdown` fires, then stops: takes nothing new, lets running actions finish or
    /// interrupts them, sends what can be sent, says goodbye and closes the connection.
    pub async fn run(self, shutdown: CancellationToken) -> Stopped {
        let Self { core, reload, reloads, reloads_done } = self;
        tracing::info!(host = %core.host, version = env!("CARGO_PKG_VERSION"), "Starting");
        core.note(Event::new("agent", "started").with_message(env!("CARGO_PKG_VERSION")));
        core.tasks.spawn(TaskKind::Worker, "changes", detached::pass_on_changes(core.clone()));
        let recovered = detached::recover_all(&core).await;
        report_interrupted(&core, &recovered).await;
        core.reload_plugins().await;
        core.refresh_facts().await;
        detached::write_host_file(&core).await;
        core.results_clean_up().await;
        let told = tell_problems(&core, &BTreeSet::new());
        let (replaced, materials) = watch::channel(0);
        core.tasks.spawn(TaskKind::Critical, "spool", core.clone().empty_spool_forever());
        core.tasks.spawn(TaskKind::Worker, "profiles", profiles::announce_forever(core.clone()));
        core.tasks.spawn(TaskKind::Critical, "facts", refresh_facts_forever(core.clone(), told));
        core.tasks.spawn(
            TaskKind::Critical,
            "reload",
            reload_forever(core.clone(), reloads.subscribe(), reload, replaced, reloads_done),
        );
        core.tasks.spawn(TaskKind::Worker, "beat", beat_forever(core.clone()));
        core.tasks.spawn(TaskKind::Critical, "shutdown", watch_shutdown(core.clone(), shutdown));
        let last = session::serve(&core, materials).await;
        stop(&core, last).await
    }
}

/// Notes that the agent's thread takes its turns.
async fn beat_forever(core: Arc<Core>) {
    loop {
        core.pulse.beat();
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}

/// Ends when the agent should: when it is asked to, or when something it cannot do without broke.
async fn watch_shutdown(core: Arc<Core>, shutdown: CancellationToken) {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = core.tasks.stopping().cancelled() => {}
    }
    core.shutdown.cancel();
}

/// Tells about requests that had started and not ended when the agent ended last time.
async fn report_interrupted(core: &Arc<Core>, recovered: &[RequestId]) {
    let unfinished = lock(&core.journal).unfinished();
    for started in unfinished.into_iter().filter(|started| !recovered.contains(&started.id)) {
        let id = started.id;
        // The report may have been written, and only the journal not.
        if !lock(&core.spool).holds_outcome(id) {
            tell_interrupted(core, &started).await;
        }
        if !started.read_only {
            core.record_finish(id, false).await;
        }
    }
}

async fn tell_interrupted(core: &Arc<Core>, started: &Started) {
    let message = if started.read_only {
        "the agent or the host stopped while the action ran"
    } else {
        "the agent or the host stopped while the action ran; what it did is not known"
    };
    let care = if started.read_only { Care::Confirmed } else { Care::Durable };
    tracing::warn!(request.id = %started.id, action = started.action, "Interrupted by the end of the agent");
    let mut event = Event::new("finished", "interrupted").with_message(message);
    event.request_id = Some(started.id.to_string());
    event.caller = Some(started.caller.to_string());
    event.action = Some(started.action.clone());
    event.code = Some(code::INTERRUPTED.code.to_owned());
    core.note(event);
    let address =
        Address { request_id: started.id, caller: started.caller.clone(), reply_to: started.reply_to.clone() };
    let ending = Ending::new(&code::INTERRUPTED, message);
    core.send_finished(&address, started.sequence_reserved, Vec::new(), ending, care).await;
}

/// Logs what has begun to be wrong since the last time, such as a revocation list that became overdue. Sources
/// of facts log for themselves.
fn tell_problems(core: &Core, told: &BTreeSet<String>) -> BTreeSet<String> {
    let problems: BTreeSet<String> = core
        .problems()
        .into_iter()
        .filter(|problem| !problem.starts_with("facts: ") && !problem.starts_with("plugin"))
        .collect();
    for problem in problems.difference(told) {
        tracing::warn!("{problem}");
    }
    problems
}

async fn refresh_facts_forever(core: Arc<Core>, mut told: BTreeSet<String>) {
    loop {
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            () = tokio::time::sleep(presence::about(&core, core.config.facts_interval())) => {}
        }
        core.refresh_facts().await;
        detached::write_host_file(&core).await;
        core.results_clean_up().await;
        told = tell_problems(&core, &told);
    }
}

async fn reload_forever(
    core: Arc<Core>,
    mut asked: watch::Receiver<u64>,
    reload: Option<ReloadSlot>,
    replaced: watch::Sender<u64>,
    done: watch::Sender<u64>,
) {
    // What was asked for before the agent began to run is in force already.
    done.send_replace(*asked.borrow_and_update());
    loop {
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            changed = asked.changed() => if changed.is_err() { return },
        }
        let number = *asked.borrow_and_update();
        if let Some(ReloadSlot(read)) = &reload {
            core.reload(read(), &replaced);
        }
        core.reload_plugins().await;
        core.refresh_facts().await;
        core.inventory_changed.notify_one();
        done.send_replace(number);
    }
}

impl Core {
    /// Puts new materials into force, all or none of them.
    fn reload(&self, read: Result<Materials, String>, replaced: &watch::Sender<u64>) {
        let checked = read.and_then(|new| match host_name(&self.config, &new) {
            Ok(name) if name == self.host => Ok(new),
            Ok(name) => Err(format!("the certificate is now of host `{name}`; that needs a restart")),
            Err(error) => Err(chain(&error)),
        });
        let new = match checked {
            Ok(new) => new,
            Err(why) => {
                tracing::error!(why, "Reload failed; everything stays as it was");
                return self.note(Event::new("agent", "reload_failed").with_message(why));
            }
        };
        let before = self.materials();
        let authorities = |materials: &Materials| -> Vec<String> {
            materials.trust.authorities().iter().map(|authority| authority.fingerprint().to_owned()).collect()
        };
        let needs_connection = before.credentials.fingerprint() != new.credentials.fingerprint()
            || authorities(&before) != authorities(&new);
        // Also if they could not be written down: who is revoked stays so.
        if let Err(error) = self.install_kept(&new.trust, &before.trust.crl_pem()) {
            tracing::error!(error = chain(&error), "A revocation list that was in force could not be taken over");
        }
        *lock(&self.materials) = new;
        self.remember_numbers();
        *lock(&self.pulse.policy_loaded_at) = self.now();
        self.certificate_doubted.notify_one();
        tracing::info!(reconnects = needs_connection, "Reloaded certificates, revocation lists and policy");
        self.note(Event::new("agent", "reloaded"));
        if needs_connection {
            replaced.send_modify(|count| *count += 1);
        }
    }
}

/// Stops everything, in the order in which nothing is lost.
async fn stop(core: &Arc<Core>, last: Option<(Arc<dyn Link>, Presence)>) -> Stopped {
    core.connection.send_replace(Connection::Stopping);
    // Nothing is consumed any more; what was delivered and not acknowledged goes back to the queue when
    // the connection closes. Reports still leave over it.
    core.link.send_replace(last.as_ref().map(|(link, _)| link.clone()));
    stop_watches(core);
    let running = lock(&core.running).values().filter(|action| action.holds_up_stop).count();
    let left_running = lock(&core.detached).values().filter(|live| live.state().is_running()).count();
    tracing::info!(running, left_running, limit_s = core.config.stop_timeout().as_secs(), "Stopping");
    let interrupted = if wait_idle(core, core.config.stop_timeout()).await { 0 } else { interrupt(core).await };
    core.spool_changed.notify_one();
    if last.is_some() {
        // A report that nobody takes is not worth waiting for: it stays on disk.
        let flushed = tokio::time::timeout(FLUSH_LIMIT, async {
            while core.empty_spool().await {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        drop(flushed.await);
    }
    let reports_left = lock(&core.spool).len();
    if let Err(error) = lock(&core.audit).settle_all(core.now()) {
        crate::core::report_error("Could not write the audit log", &error);
    }
    core.note(
        Event::new("agent", "stopped").with_message(format!("{interrupted} interrupted, {reports_left} reports left")),
    );
    if let Some((link, mut presence)) = last {
        presence.announce(core, &*link, AnnouncementKind::Offline).await;
        core.link.send_replace(None);
        link.close().await;
    }
    let failed = core.tasks.failed();
    let left = core.tasks.shutdown(FLUSH_LIMIT).await;
    tracing::info!(interrupted, reports_left, tasks_left = left.join(", "), "Stopped");
    Stopped { interrupted, reports_left, failed }
}

/// Whether nothing runs that ends with the agent.
fn is_idle(core: &Core) -> bool {
    !lock(&core.running).values().any(|running| running.holds_up_stop)
}

/// Ends all watches: nothing is lost, they can begin anew.
fn stop_watches(core: &Core) {
    for running in lock(&core.running).values().filter(|running| running.action.is_watch) {
        running.stop.send_if_modified(|reason| reason.replace(StopReason::Shutdown).is_none());
    }
}

/// Waits until nothing runs. Returns whether that came about in time.
async fn wait_idle(core: &Core, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let changed = core.running_changed.notified();
        tokio::pin!(changed);
        // Registered before the look, so that an end in between is not missed.
        changed.as_mut().enable();
        if is_idle(core) {
            return true;
        }
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            return is_idle(core);
        }
    }
}

/// Tells what still runs to stop. Returns how many there were.
async fn interrupt(core: &Arc<Core>) -> usize {
    let interrupted = {
        let running = lock(&core.running);
        let ours: Vec<_> = running.iter().filter(|(_, action)| action.holds_up_stop).collect();
        for (id, action) in &ours {
            tracing::warn!(request.id = %id, action = action.action.action, "Interrupting: it did not end in time");
            action.stop.send_if_modified(|reason| {
                let first = reason.is_none();
                if first {
                    *reason = Some(StopReason::Shutdown);
                }
                first
            });
        }
        ours.len()
    };
    wait_idle(core, INTERRUPT_LIMIT).await;
    interrupted
}
