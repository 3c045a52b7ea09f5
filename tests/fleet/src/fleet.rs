//! Starting many agents, looking at them, and stopping them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use muster_agent::policy::Policy;
use muster_agent::{Agent, Connection, Handle, Stopped};
use muster_bus::{AmqpBus, AmqpSettings};
use muster_daemon::{TaskKind, Tasks};
use muster_pki::Trust;
use muster_protocol::{HostName, Timestamp};
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::behaviour::{Behaviour, HostBus};
use crate::ground::Ground;
use crate::member::{self, AgentParts};
use crate::meter::Meter;
use crate::options::Options;
use crate::plugin::Ledger;

/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

/// How often agents are looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long all agents may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Agents that run, with their broker. Stop it with [`Fleet::stop`]; dropping it ends the agents without goodbye.
#[derive(Debug)]
pub struct Fleet {
    /// Its broker and its authority.
    pub ground: Ground,
    /// How the agents connect.
    pub meter: Arc<Meter>,
    /// What the plugin `fleet` ran.
    pub ledger: Ledger,
    options: Options,
    members: Vec<Member>,
    shutdown: CancellationToken,
    _ends_with_it: DropGuard,
    tasks: Tasks,
    // Removed last.
    _state: TempDir,
}

#[derive(Debug)]
struct Member {
    handle: Handle,
    stopped: oneshot::Receiver<Stopped>,
}

/// How a fleet ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Actions that were interrupted.
    pub interrupted: usize,
    /// Final reports that no broker has confirmed.
    pub reports: usize,
    /// Agents of which a task panicked, or that did not stop in time.
    pub failed: usize,
}

impl Fleet {
    /// Starts a broker and the agents, and waits until all of them take commands. Needs a runtime with several threads.
    ///
    /// # Errors
    /// RabbitMQ is not installed, the system allows too few open files, or agents do not come up within `limit`.
    pub async fn start(options: Options, limit: Duration) -> Result<Self> {
        let ground = Ground::prepare(options.hosts, options.seed)?;
        Self::start_on(ground, options, limit).await
    }

    /// Starts the agents of the first hosts of a ground that is there already.
    ///
    /// # Errors
    /// It has fewer hosts, or agents do not come up within `limit`.
    pub async fn start_on(ground: Ground, options: Options, limit: Duration) -> Result<Self> {
        ensure!(
            options.hosts <= ground.plans.len(),
            "{} hosts are asked for and {} may log in",
            options.hosts,
            ground.plans.len()
        );
        let shutdown = CancellationToken::new();
        let mut fleet = Self {
            _state: state_directory(&options)?,
            ground,
            meter: Arc::default(),
            ledger: Ledger::default(),
            members: Vec::with_capacity(options.agents()),
            _ends_with_it: shutdown.clone().drop_guard(),
            shutdown,
            tasks: Tasks::new(),
            options,
        };
        fleet.start_agents(limit).await?;
        Ok(fleet)
    }

    async fn start_agents(&mut self, limit: Duration) -> Result<()> {
        let policy = member::policy()?;
        let trust = self.ground.site.trust();
        let turns = Arc::new(Semaphore::new(self.options.start_at_once.max(1)));
        for number in 0..self.options.agents() {
            // The next one begins when one of those before is connected.
            let turn = turns.clone().acquire_owned().await?;
            let agent = self.agent(number, trust.clone(), policy.clone())?;
            let handle = agent.handle();
            let (sender, stopped) = oneshot::channel();
            let shutdown = self.shutdown.clone();
            self.tasks.spawn(TaskKind::Worker, "agent", async move {
                // Whoever does not want to know has gone.
                drop(sender.send(agent.run(shutdown).await));
            });
            let mut connection = handle.connection();
            self.tasks.spawn(TaskKind::Worker, "turn", async move {
                // An agent that ends gives its turn back, too.
                drop(connection.wait_for(|connection| matches!(connection, Connection::Online { .. })).await);
                drop(turn);
            });
            self.members.push(Member { handle, stopped });
        }
        self.all_online(Timestamp(0), limit).await.map(drop)
    }

    fn agent(&self, number: usize, trust: Trust, policy: Arc<Policy>) -> Result<Agent> {
        let config = member::config(&self.ground, number, &self.options, self._state.path())?;
        let credentials = self.ground.credentials[number].clone();
        let mut settings = AmqpSettings::new(config.broker_urls().to_vec(), credentials, trust.clone());
        settings.heartbeat_s = config.heartbeat_s();
        settings.connect_timeout = config.connect_timeout();
        let bus = Arc::new(HostBus {
            inner: Arc::new(AmqpBus::new(settings)),
            behaviour: self.options.behaviour(number),
            meter: self.meter.clone(),
        });
        let parts = AgentParts { config, bus, trust, policy, ledger: self.ledger.clone() };
        member::agent(&self.ground, number, &self.options, parts)
    }

    /// The hosts, absent ones too.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.ground.hosts().take(self.options.hosts)
    }

    /// The hosts that answer.
    pub fn answering(&self) -> impl Iterator<Item = &HostName> {
        let answers =
            |number: &usize| !matches!(self.options.behaviour(*number), Behaviour::Silent | Behaviour::Absent);
        (0..self.options.hosts).filter(answers).map(|number| &self.ground.plans[number].name)
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How many agents are connected, and have been since `since` or later.
    #[must_use]
    pub fn online(&self, since: Timestamp) -> usize {
        let is_online = |member: &&Member| matches!(&*member.handle.connection().borrow(), Connection::Online { since: at, .. } if *at >= since);
        self.members.iter().filter(is_online).count()
    }

    /// Waits until all agents are connected anew since `since`. Says how long that took.
    ///
    /// # Errors
    /// Some are not within `limit`; with how many, and why one of them is not.
    pub async fn all_online(&self, since: Timestamp, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let online = self.online(since);
            if online == self.members.len() {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                let why = self.members.iter().find_map(|member| match &*member.handle.connection().borrow() {
                    Connection::Connecting { why } => Some(why.clone()),
                    _ => None,
                });
                bail!(
                    "{online} of {} agents are connected after {} s; one says: {}",
                    self.members.len(),
                    limit.as_secs(),
                    why.unwrap_or_else(|| "nothing".to_owned())
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no agent believes that it is connected.
    ///
    /// # Errors
    /// Some do after `limit`.
    pub async fn all_away(&self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        while self.online(Timestamp(0)) > 0 {
            if started.elapsed() > limit {
                bail!("{} agents still believe that they are connected", self.online(Timestamp(0)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Stops all agents in order, then the broker.
    ///
    /// # Errors
    /// The broker cannot be stopped.
    pub async fn stop(self) -> Result<Left> {
        let (left, ground) = self.leave().await;
        ground.stop()?;
        Ok(left)
    }

    /// Stops all agents in order and leaves the broker, with the agents' queues on it.
    pub async fn leave(mut self) -> (Left, Ground) {
        self.shutdown.cancel();
        let mut left = Left::default();
        let deadline = Instant::now() + STOP_LIMIT;
        for member in std::mem::take(&mut self.members) {
            match tokio::time::timeout_at(deadline, member.stopped).await {
                Ok(Ok(stopped)) => {
                    left.interrupted += stopped.interrupted;
                    left.reports += stopped.reports_left;
                    left.failed += usize::from(stopped.failed.is_some());
                }
                _ => left.failed += 1,
            }
        }
        drop(self.tasks.shutdown(Duration::from_secs(5)).await);
        (left, self.ground)
    }
}

fn state_directory(options: &Options) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix("muster-fleet-");
    let directory = match &options.state {
        Some(parent) => named.tempdir_in(parent),
        None if Path::new(MEMORY).is_dir() => named.tempdir_in(MEMORY),
        None => named.tempdir(),
    };
    directory.context("make a directory for the agents' states")
}
