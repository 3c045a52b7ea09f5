//! What the parts of a running agent share. Each lock is held for a moment and never across a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_bus::{Bus, Link};
use muster_daemon::{Blocking, Clock, Panicked, TaskKind, Tasks};
use muster_pki::sealing::SealingKey;
use muster_pki::{Credentials, Trust};
use muster_plugin_api::Registry;
use muster_protocol::{Command, HostName, Identity, Inventory, RequestId, SealingContext, Timestamp};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::admit::{Limits, Refusal, RunningAction, masked, secret_names};
use crate::audit::{Audit, AuditError, Durability, Event, rotate_shared};
use crate::config::Config;
use crate::counters::Counters;
use crate::detached::{Changes, Live, Runner};
use crate::facts::{FactStore, Facts};
use crate::journal::{Journal, JournalError, Started, compact_shared};
use crate::plugins::{Fixed, Shelf};
use crate::policy::Policy;
use crate::profiles::Due;
use crate::reserve::{RESERVE_BYTES, Reserve};
use crate::results::Results;
use crate::spool::{Spool, SpoolError};
use crate::state::{StateDirectory, files};
use crate::status::Pulse;
use crate::watching::Feed;

/// What a reload replaces together: who we are, whom we trust, how we reach the broker, who may do what.
#[derive(Clone)]
pub struct Materials {
    /// The way to the broker, as this host.
    pub bus: Arc<dyn Bus>,
    /// The host's certificate and key.
    pub credentials: Credentials,
    /// The CA and its revocation lists.
    pub trust: Trust,
    /// The host's policy.
    pub policy: Arc<Policy>,
}

impl fmt::Debug for Materials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Materials").field("bus", &self.bus.describe()).finish_non_exhaustive()
    }
}

/// Whether the agent is connected, for whoever started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Not yet, or not any more; it tries.
    Connecting {
        /// What went wrong last time; empty at the beginning.
        why: String,
    },
    /// It takes commands.
    Online {
        /// The broker, for people.
        broker: String,
        /// Since when.
        since: Timestamp,
    },
    /// It is going down.
    Stopping,
}

/// Why an action is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody cancelled it.
    Cancelled {
        /// Who.
        by: Identity,
    },
    /// Its time is over.
    TimedOut,
    /// What it runs in stops.
    Shutdown,
}

/// A running action, as the rest of the agent sees it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) action: RunningAction,
    /// Says once that it is to stop, and why.
    pub(crate) stop: watch::Sender<Option<StopReason>>,
    /// It has ended and is only being reported: it takes no room any more and cannot be cancelled.
    pub(crate) ended: bool,
    /// Since when.
    pub(crate) since: Timestamp,
    /// How long it may take.
    pub(crate) time_limit: Duration,
    /// The agent waits for it when it stops; what runs in a process of its own goes on instead.
    pub(crate) holds_up_stop: bool,
    /// Tells those who watch it, where it runs in the agent.
    pub(crate) feed: Option<broadcast::Sender<Feed>>,
}

/// The plugins with the names of those that can work here.
#[derive(Debug)]
pub(crate) struct Plugins {
    pub(crate) registry: Registry,
    pub(crate) names: BTreeSet<String>,
}

impl Plugins {
    fn new(registry: Registry) -> Self {
        let names = registry.installed().into_iter().map(|plugin| plugin.name.to_string()).collect();
        Self { registry, names }
    }
}

/// The inventory with its digest, made anew when facts change.
#[derive(Debug, Default)]
pub(crate) struct InventorySnapshot {
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) digest: String,
}

pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) host: HostName,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_at: Timestamp,
    pub(crate) materials: Mutex<Materials>,
    /// Replaced as a whole when plugins are read again; who works with it keeps the one it has.
    plugins: Mutex<Arc<Plugins>>,
    /// Those of them that do not come from directories.
    pub(crate) fixed_plugins: Fixed,
    /// What is known of the others.
    pub(crate) shelf: Mutex<Shelf>,
    /// Held while plugins are read again or changed.
    pub(crate) plugin_changes: tokio::sync::Mutex<()>,
    /// The inventory is another one and should be announced at once.
    pub(crate) inventory_changed: Notify,
    /// The host's own certificate may not be believed any more: there is another revocation list.
    pub(crate) certificate_doubted: Notify,
    /// The plugins that are to be asked what they watch.
    pub(crate) profiles_due: Due,
    /// Revocation lists in force are not written down for the next start.
    pub(crate) revocations_unkept: AtomicBool,
    pub(crate) facts: FactStore,
    pub(crate) inventory: Mutex<Arc<InventorySnapshot>>,
    pub(crate) state: StateDirectory,
    /// For files that actions need while they run.
    pub(crate) work_directory: PathBuf,
    /// The key that secret arguments for this host are sealed to.
    pub(crate) sealing_key: SealingKey,
    pub(crate) journal: Arc<Mutex<Journal>>,
    pub(crate) audit: Arc<Mutex<Audit>>,
    pub(crate) spool: Arc<Mutex<Spool>>,
    /// Room on the disk for the ends of actions.
    pub(crate) reserve: Arc<Reserve>,
    /// Where work is done that waits for the disk.
    pub(crate) blocking: Blocking,
    /// Held by whoever sends from the spool.
    pub(crate) spool_sending: tokio::sync::Mutex<()>,
    /// Something was put into the spool, or may be sent again.
    pub(crate) spool_changed: Notify,
    pub(crate) running: Mutex<BTreeMap<RequestId, Running>>,
    /// How actions get processes of their own; without it all run in this one.
    pub(crate) runner: Option<Runner>,
    /// Where those have their directories.
    pub(crate) actions_directory: PathBuf,
    /// Actions in processes of their own, until their end was told.
    pub(crate) detached: Mutex<BTreeMap<RequestId, Arc<Live>>>,
    /// What the kernel tells about their directories.
    pub(crate) changes: Changes,
    /// Ended actions that are kept.
    pub(crate) results: Mutex<Results>,
    /// One more action has ended.
    pub(crate) running_changed: Notify,
    pub(crate) link: watch::Sender<Option<Arc<dyn Link>>>,
    pub(crate) connection: watch::Sender<Connection>,
    pub(crate) counters: Counters,
    /// Notes for whoever asks how the agent is.
    pub(crate) pulse: Pulse,
    pub(crate) tasks: Tasks,
    /// The agent takes nothing new.
    pub(crate) shutdown: CancellationToken,
    random: Mutex<SmallRng>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Locks, also when another thread panicked while it held the lock: the data behind these locks is
/// consistent after each statement.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What [`Core`] is made of, besides what starts out empty.
pub(crate) struct CoreParts {
    pub(crate) config: Config,
    pub(crate) host: HostName,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) materials: Materials,
    pub(crate) registry: Registry,
    pub(crate) facts: FactStore,
    pub(crate) state: StateDirectory,
    pub(crate) sealing_key: SealingKey,
    pub(crate) runner: Option<Runner>,
    pub(crate) journal: Journal,
    pub(crate) audit: Audit,
    pub(crate) spool: Spool,
    pub(crate) blocking: Blocking,
    pub(crate) random_seed: u64,
}

/// Why something could not be recorded. A request that could not be recorded does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("there is no room on the disk for the end of an action, so none begins")]
    NoRoom(#[source] std::io::Error),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Self {
        let started_at = Timestamp(parts.clock.now_ms());
        Self {
            config: parts.config,
            host: parts.host,
            clock: parts.clock,
            started_at,
            materials: Mutex::new(parts.materials),
            fixed_plugins: Fixed::of(&parts.registry),
            plugins: Mutex::new(Arc::new(Plugins::new(parts.registry))),
            shelf: Mutex::default(),
            plugin_changes: tokio::sync::Mutex::default(),
            inventory_changed: Notify::new(),
            certificate_doubted: Notify::new(),
            profiles_due: Due::default(),
            revocations_unkept: AtomicBool::new(false),
            facts: parts.facts,
            inventory: Mutex::default(),
            work_directory: parts.state.file(files::WORK),
            reserve: Arc::new(Reserve::new(
                parts.state.disk().clone(),
                parts.state.file(files::RESERVE),
                RESERVE_BYTES,
            )),
            blocking: parts.blocking,
            sealing_key: parts.sealing_key,
            journal: Arc::new(Mutex::new(parts.journal)),
            audit: Arc::new(Mutex::new({
                let mut audit = parts.audit;
                audit.defer_rotation();
                audit
            })),
            spool: Arc::new(Mutex::new(parts.spool)),
            spool_sending: tokio::sync::Mutex::default(),
            spool_changed: Notify::new(),
            running: Mutex::default(),
            actions_directory: parts.state.file(files::ACTIONS),
            detached: Mutex::default(),
            // An instance of inotify is dear where many agents run in one process, as simulated fleets do.
            changes: if parts.runner.is_some() { Changes::new() } else { Changes::none() },
            runner: parts.runner,
            results: Mutex::default(),
            state: parts.state,
            running_changed: Notify::new(),
            link: watch::Sender::new(None),
            connection: watch::Sender::new(Connection::Connecting { why: String::new() }),
            counters: Counters::default(),
            pulse: Pulse::new(started_at),
            tasks: Tasks::new(),
            shutdown: CancellationToken::new(),
            random: Mutex::new(SmallRng::seed_from_u64(parts.random_seed)),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.config.limits()
    }

    pub(crate) fn materials(&self) -> Materials {
        lock(&self.materials).clone()
    }

    /// The plugins as they are now.
    pub(crate) fn plugins(&self) -> Arc<Plugins> {
        lock(&self.plugins).clone()
    }

    /// Puts other plugins into force. Actions that run go on with the plugin they began with; the
    /// inventory has to be made anew afterwards ([`Core::refresh_facts`]).
    pub(crate) fn replace_plugins(&self, registry: Registry) {
        *lock(&self.plugins) = Arc::new(Plugins::new(registry));
    }

    /// The arguments of a command as they may be recorded: what came sealed, and what should have, is masked.
    pub(crate) fn shown_arguments(&self, command: &Command) -> Map<String, Value> {
        let registry = &self.plugins().registry;
        let described = registry.get(&command.plugin).and_then(|it| it.plugin.ddl().action(&command.action));
        let mut secrets = described.map(secret_names).unwrap_or_default();
        let mut arguments = command.arguments.clone();
        for name in command.sealed.iter().flat_map(|sealed| &sealed.names) {
            secrets.insert(name.clone());
            arguments.insert(name.clone(), Value::Null);
        }
        masked(&arguments, &secrets)
    }

    /// Opens the secret arguments of a command.
    pub(crate) fn unseal(&self, command: &Command) -> Result<Map<String, Value>, Refusal> {
        let Some(sealed) = &command.sealed else { return Ok(Map::new()) };
        let context = SealingContext {
            request_id: command.id,
            caller: &command.caller,
            plugin: &command.plugin,
            action: &command.action,
        };
        let opened = self.sealing_key.open(sealed, &self.host, &context);
        opened.map_err(|error| Refusal::new(error.code(), error.to_string()))
    }

    pub(crate) fn with_random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut lock(&self.random))
    }

    /// The current link, if there is a connection.
    pub(crate) fn link(&self) -> Option<Arc<dyn Link>> {
        self.link.borrow().clone()
    }

    /// Collects facts and makes the inventory of them.
    pub(crate) async fn refresh_facts(&self) {
        let facts = self.facts.refresh(self.now()).await;
        let snapshot = self.snapshot(&facts);
        *lock(&self.inventory) = Arc::new(snapshot);
        self.all_profiles_due();
    }

    fn snapshot(&self, facts: &Facts) -> InventorySnapshot {
        let inventory = Inventory {
            collectives: self.config.collectives().clone(),
            classes: facts.classes.clone(),
            plugins: self.plugins().registry.installed(),
            facts: facts.stable(),
        };
        let digest = crate::digest::sha256_hex(&serde_json::to_vec(&inventory).unwrap_or_default());
        InventorySnapshot { inventory: Arc::new(inventory), digest }
    }

    /// Writes an audit line that nothing depends on. A failure is logged, once for each line that is lost.
    pub(crate) fn note(&self, event: Event) {
        let write = || lock(&self.audit).write(self.now(), event.clone(), Durability::Written);
        let written = if event.event == "finished" { self.reserve.use_for(write) } else { write() };
        if let Err(error) = written {
            report_error("Could not write the audit log", &error);
        }
        self.rotate_audit();
    }

    /// Sets the file of the audit log aside if it is full; nobody waits for that.
    pub(crate) fn rotate_audit(&self) {
        if !lock(&self.audit).is_rotation_due() {
            return;
        }
        let (audit, blocking, now) = (self.audit.clone(), self.blocking, self.now());
        self.tasks.spawn(TaskKind::Worker, "audit rotation", async move {
            match blocking.run(move || rotate_shared(&audit, now)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => report_error("Could not rotate the audit log; it goes on", &error),
                Err(error) => report_error("Could not rotate the audit log; it goes on", &error),
            }
        });
    }

    /// Has the audit log tell how many refusals it left out.
    pub(crate) fn settle_audit(&self) {
        if let Err(error) = lock(&self.audit).settle(self.now()) {
            report_error("Could not write the audit log", &error);
        }
    }

    /// Writes an audit line about a message whose sender nobody knows.
    pub(crate) fn note_unverified(&self, event: Event) {
        if let Err(error) = lock(&self.audit).write_unverified(self.now(), event) {
            report_error("Could not write the audit log", &error);
        }
        self.rotate_audit();
    }

    /// Records that a request is about to run, in the journal and in the audit log; for an action that
    /// changes something, on the disk. Only after `Ok` may it run.
    pub(crate) async fn record_start(&self, started: Started, event: Event) -> Result<(), RecordError> {
        let (journal, audit, now) = (self.journal.clone(), self.audit.clone(), self.now());
        let durable = !started.read_only;
        let reserve = self.reserve.clone();
        let write = move || {
            let id = started.id;
            if durable {
                reserve.check().map_err(RecordError::NoRoom)?;
            }
            // Locks are held for writing only, a statement each; the disk is waited for without them.
            let begun = lock(&journal).begin(started)?;
            if let Some(Err(error)) = begun.map(|unsynced| unsynced.sync()) {
                lock(&journal).sync_failed(id);
                return Err(error.into());
            }
            let written = lock(&audit).write_unsynced(now, event);
            let audited = written.and_then(|unsynced| if durable { unsynced.sync() } else { Ok(()) });
            if audited.is_err() {
                lock(&audit).sync_failed();
            }
            if audited.is_err() {
                // It will not run, so it must not look interrupted after a restart.
                lock(&journal).finish(id)?;
            }
            audited.map_err(RecordError::from)
        };
        // The disk may take its time; the connection's heartbeat must not wait for it.
        let recorded = if durable { self.blocking.run(write).await? } else { write() };
        self.rotate_audit();
        recorded
    }

    /// Records that a request has ended.
    pub(crate) async fn record_finish(&self, id: RequestId, read_only: bool) {
        let (journal, reserve, now) = (self.journal.clone(), self.reserve.clone(), self.now());
        let is_quick = read_only && !lock(&journal).is_compaction_due();
        let write = move || {
            let unsynced = reserve.use_for(|| lock(&journal).end(id))?;
            if let Some(unsynced) = unsynced {
                unsynced.sync()?;
            }
            if lock(&journal).is_compaction_due() { compact_shared(&journal, now).map(drop) } else { Ok(()) }
        };
        let written = if is_quick {
            write().map_err(RecordError::from)
        } else {
            self.blocking.run(write).await.map_or_else(|error| Err(error.into()), |done| done.map_err(Into::into))
        };
        if let Err(error) = written {
            report_error("Could not record the end of a request", &error);
        }
    }
}

/// Logs an error with its causes in one field.
pub(crate) fn report_error(what: &str, error: &dyn std::error::Error) {
    tracing::error!(error = chain(error), "{what}");
}

/// An error and its causes, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
