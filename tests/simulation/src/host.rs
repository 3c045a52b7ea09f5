//! A host: its disk, its clock, and an agent that is started again whenever it has ended.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use muster_agent::config::{Config, Raw};
use muster_agent::facts::Sources;
use muster_agent::policy::Policy;
use muster_agent::{Agent, Connection, Handle, Materials, Parts, Stopped};
use muster_daemon::disk::{DirectoryEntry, DiskFile, Metadata, Open};
use muster_daemon::{Blocking, Disk, SimulatedDisk, TaskKind, Tasks};
use muster_pki::{Credentials, Trust};
use muster_plugin_api::Registry;
use muster_protocol::HostName;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::SimulatedClock;
use crate::plugin::Lab;
use crate::random::Random;
use crate::stage::Stage;

/// How long a service manager waits before it starts an agent again that could not start.
const RESTART: Duration = Duration::from_secs(5);

/// How something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process, which loses nothing that it wrote.
    Agent,
    /// The host with its disk, which loses what was not synced.
    Host,
}

/// A host.
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) name: HostName,
    pub(crate) credentials: Credentials,
    pub(crate) clock: SimulatedClock,
    pub(crate) disk: SimulatedDisk,
    pub(crate) directory: tempfile::TempDir,
    blocking: Blocking,
    state: Mutex<State>,
    /// Somebody wants the agent to be started.
    wanted: Notify,
    random: Mutex<Random>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// How the next crash that the disk causes ends things.
    planned: Option<Crash>,
    /// What has just crashed.
    crashed: Option<Crash>,
    /// How long it stays down.
    pause: Duration,
    trust: Option<Trust>,
    /// No more starts: the run comes to its end.
    ending: bool,
}

/// An agent that runs, or is about to.
#[derive(Clone)]
struct Live {
    killed: CancellationToken,
    shutdown: CancellationToken,
    handle: Option<Handle>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Host {
    pub(crate) fn new(seed: u64, index: usize, credentials: Credentials, clock: SimulatedClock) -> io::Result<Self> {
        let mut random = Random::of(seed, &format!("host {index}"));
        let slow = random.per_mille(300);
        let time = random.pause(1, 40);
        Ok(Self {
            index,
            name: crate::site::host_name(index),
            credentials,
            clock,
            disk: SimulatedDisk::new(random.number()),
            directory: tempfile::Builder::new().prefix("muster-sim-").tempdir()?,
            blocking: if slow { Blocking::Slow(time) } else { Blocking::Inline },
            state: Mutex::default(),
            wanted: Notify::new(),
            random: Mutex::new(random),
        })
    }

    /// Facts by which hosts can be chosen.
    pub(crate) fn role(index: usize) -> &'static str {
        if index.is_multiple_of(3) { "db" } else { "web" }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).number()
    }

    /// What the agent that runs now believes, if one does.
    pub(crate) fn trust(&self) -> Option<Trust> {
        self.lock().trust.clone()
    }

    pub(crate) fn handle(&self) -> Option<Handle> {
        self.lock().live.as_ref().and_then(|live| live.handle.clone())
    }

    /// Whether its agent takes commands.
    pub(crate) fn is_online(&self) -> bool {
        self.handle().is_some_and(|handle| matches!(*handle.connection().borrow(), Connection::Online { .. }))
    }

    /// Ends the agent or the whole host, here and now, for so long.
    pub(crate) fn crash(&self, crash: Crash, pause: Duration) {
        let live = {
            let mut state = self.lock();
            state.pause = pause;
            if state.live.is_some() {
                state.crashed = Some(crash);
            }
            state.live.clone()
        };
        let Some(live) = live else { return };
        if let Some(handle) = &live.handle {
            handle.kill();
        }
        live.killed.cancel();
    }

    /// Has the disk end things at one of its next operations.
    pub(crate) fn crash_at(&self, operations: u64, crash: Crash, pause: Duration) {
        let mut state = self.lock();
        state.planned = Some(crash);
        state.pause = pause;
        drop(state);
        self.disk.inject(self.disk.operations() + operations, muster_daemon::disk::Fault::Crash);
    }

    /// Asks the agent to stop; it is started again after the pause.
    pub(crate) fn restart(&self, pause: Duration) {
        let mut state = self.lock();
        state.pause = pause;
        if let Some(live) = &state.live {
            live.shutdown.cancel();
        }
    }

    /// Has it up from now on: whoever waits to be started is started at once.
    pub(crate) fn heal(&self) {
        self.disk.clear_faults();
        self.disk.set_room(None);
        self.clock.set_wrong_by_ms(0);
        self.lock().planned = None;
        self.wanted.notify_one();
    }

    /// Stops the agent for good.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        if let Some(live) = &state.live {
            live.shutdown.cancel();
        }
    }

    /// Lives until the run ends.
    pub(crate) async fn live(self: Arc<Self>, stage: Stage) {
        loop {
            let live = Live { killed: CancellationToken::new(), shutdown: CancellationToken::new(), handle: None };
            {
                let mut state = self.lock();
                if state.ending {
                    return;
                }
                state.crashed = None;
                state.live = Some(live.clone());
            }
            let stopped = self.one_life(&stage, &live).await;
            let (crashed, mut pause) = {
                let mut state = self.lock();
                state.live = None;
                state.trust = None;
                (state.crashed.take(), state.pause)
            };
            match (crashed, stopped) {
                (Some(Crash::Agent), _) => self.disk.end_process(),
                (Some(Crash::Host), _) => {
                    self.disk.end_host(self.draw());
                    stage.world.at(self.index, |place| place.boot += 1);
                }
                (None, Some(stopped)) => {
                    self.disk.end_process();
                    stage.trace.note(format_args!("{} stopped: {stopped:?}", self.name));
                    if let Some(task) = stopped.failed {
                        stage.world.violate("no task panics", format!("{}: `{task}`", self.name));
                    }
                }
                (None, None) => {
                    self.disk.end_process();
                    pause = RESTART;
                }
            }
            // What an agent could not write down, or lost with its host, the next one cannot know.
            let kept = self.disk.content(&self.directory.path().join("state/crl.pem")).unwrap_or_default();
            if !String::from_utf8_lossy(&kept).contains(stage.site.list_after.trim()) {
                stage.world.at(self.index, |place| place.revoked_since_ms = None);
            }
            if let Some(crash) = crashed {
                stage.trace.note(format_args!("{} crashed: {crash:?}", self.name));
            }
            if self.lock().ending {
                return;
            }
            tokio::select! {
                biased;
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts an agent and waits for its end; `None` if it crashed or could not start.
    async fn one_life(self: &Arc<Self>, stage: &Stage, live: &Live) -> Option<Stopped> {
        // A crash inside of it is a panic that nobody inside catches.
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| self.build(stage)));
        let agent = match built {
            Ok(Ok(agent)) => agent,
            Ok(Err(why)) => {
                stage.tally.add("starts of agents that failed");
                stage.trace.note(format_args!("{} cannot start: {why}", self.name));
                return None;
            }
            Err(_) => return None,
        };
        let handle = agent.handle();
        if let Some(live) = &mut self.lock().live {
            live.handle = Some(handle);
        }
        stage.world.at(self.index, |place| place.life += 1);
        stage.tally.add("starts of agents");
        stage.trace.note(format_args!("{} starts", self.name));
        let running = AssertUnwindSafe(agent.run(live.shutdown.clone())).catch_unwind();
        tokio::select! {
            biased;
            () = live.killed.cancelled() => None,
            stopped = running => stopped.ok(),
        }
    }

    fn build(self: &Arc<Self>, stage: &Stage) -> Result<Agent, String> {
        let mut raw = Raw { state_dir: self.directory.path().join("state"), ..Raw::default() };
        raw.broker.urls = vec!["amqps://unused.example.com".parse().map_err(|error| format!("{error}"))?];
        let nowhere = self.directory.path().join("nowhere");
        raw.facts.directory.clone_from(&nowhere);
        raw.facts.classes_file.clone_from(&nowhere);
        raw.plugins.directories = vec![nowhere.clone()];
        raw.plugins.configuration_directory = nowhere;
        raw.broker.reconnect_max_s = 20;
        raw.limits.stop_timeout_s = 10;
        let config = Config::from_values(raw).map_err(|error| error.to_string())?;
        let facts = json!({ "role": Self::role(self.index), "number": self.index });
        let Value::Object(facts) = facts else { return Err("facts are an object".to_owned()) };
        let mut registry = Registry::new();
        let lab = Lab::new(self.index, stage.world.clone());
        registry.register(Arc::new(lab)).map_err(|error| error.to_string())?;
        let materials = self.materials(stage)?;
        let (host, reload_stage) = (Arc::downgrade(self), stage.clone());
        let parts = Parts {
            materials,
            registry,
            facts: Sources::given(self.name.clone(), facts, BTreeSet::new()),
            clock: Arc::new(self.clock.clone()),
            disk: Arc::new(Watched { host: Arc::downgrade(self), disk: self.disk.mount() }),
            blocking: self.blocking,
            random_seed: self.draw(),
            runner: None,
            reload: Some(Box::new(move || {
                let host = host.upgrade().ok_or("the host is gone")?;
                host.materials(&reload_stage)
            })),
        };
        Agent::new(config, parts).map_err(|error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            // Names of temporary directories differ from run to run.
            text.replace(&self.directory.path().display().to_string(), "")
        })
    }

    fn materials(&self, stage: &Stage) -> Result<Materials, String> {
        let trust = stage.site.trust().map_err(|error| error.to_string())?;
        self.lock().trust = Some(trust.clone());
        let rules = stage.world.at(self.index, |place| place.rules);
        let policy = Policy::parse(rules.text(), Path::new("policy.toml")).map_err(|error| error.to_string())?;
        Ok(Materials {
            bus: Arc::new(stage.broker.bus(self.credentials.identity())),
            credentials: self.credentials.clone(),
            trust,
            policy: Arc::new(policy),
        })
    }
}

/// Starts what lives on a host.
pub(crate) fn spawn(host: &Arc<Host>, stage: &Stage, tasks: &Tasks) {
    tasks.spawn(TaskKind::Critical, "host", host.clone().live(stage.clone()));
}

/// The payload of the panic with which a crash at the disk ends the task that works on it. No message is printed.
pub(crate) struct SimulatedCrash;

/// A disk that ends the agent at the very operation at which it is told to.
struct Watched {
    host: Weak<Host>,
    disk: Arc<dyn Disk>,
}

impl Watched {
    fn after<T>(&self, result: io::Result<T>) -> io::Result<T> {
        check(&self.host, result)
    }
}

/// Ends the agent if the disk has just crashed. Nothing that it would do after that may happen.
fn check<T>(host: &Weak<Host>, result: io::Result<T>) -> io::Result<T> {
    if result.is_err()
        && let Some(host) = host.upgrade()
        && host.disk.is_down()
    {
        let (crash, pause) = {
            let mut state = host.lock();
            (state.planned.take(), state.pause)
        };
        if let Some(crash) = crash {
            host.crash(crash, pause);
        }
        std::panic::resume_unwind(Box::new(SimulatedCrash));
    }
    result
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.after(self.disk.open(path, how))?;
        Ok(Arc::new(WatchedFile { host: self.host.clone(), file }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.after(self.disk.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.after(self.disk.remove_file(path))
    }
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.after(self.disk.remove_directory(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.after(self.disk.list(path))
    }
    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        self.after(self.disk.make_private_directory(path))
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.after(self.disk.metadata(path))
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.after(self.disk.sync_directory(path))
    }
    fn unused_name(&self) -> String {
        self.disk.unused_name()
    }
}

struct WatchedFile {
    host: Weak<Host>,
    file: Arc<dyn DiskFile>,
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchedFile")
    }
}

impl DiskFile for WatchedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        check(&self.host, self.file.append(bytes))
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        check(&self.host, self.file.read_at(offset, buffer))
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        check(&self.host, self.file.set_length(length))
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        check(&self.host, self.file.allocate(length))
    }
    fn sync_data(&self) -> io::Result<()> {
        check(&self.host, self.file.sync_data())
    }
    fn sync_all(&self) -> io::Result<()> {
        check(&self.host, self.file.sync_all())
    }
    fn metadata(&self) -> io::Result<Metadata> {
        check(&self.host, self.file.metadata())
    }
    fn try_lock(&self) -> io::Result<bool> {
        check(&self.host, self.file.try_lock())
    }
}
