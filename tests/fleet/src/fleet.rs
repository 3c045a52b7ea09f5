//! Starting many agents, looking at them, and stopping them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use muster_agent::config::{Config, Raw};
use muster_agent::facts::Sources;
use muster_agent::policy::Policy;
use muster_agent::{Agent, Connection, Handle, Materials, Parts, Stopped};
use muster_bus::{AmqpBus, AmqpSettings};
use muster_daemon::{Blocking, RealDisk, SystemClock, TaskKind, Tasks};
use muster_pki::{Credentials, Trust};
use muster_plugin_api::Registry;
use muster_protocol::{HostName, Identity, Timestamp};
use muster_tests::pki::Site;
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::behaviour::{Behaviour, HostBus};
use crate::broker::Broker;
use crate::inventory::{HostPlan, plan};
use crate::meter::Meter;
use crate::options::{Options, Pauses};
use crate::plugin::{FleetPlugin, Ledger};
use crate::process::raise_descriptor_limit;

/// Who commands a fleet, besides its hosts.
const OTHERS: [&str; 2] = ["user/lea", "service/registry"];

/// Everybody may do everything: what is tested is elsewhere.
const POLICY: &str = "[[rule]]\nname = \"all\"\neffect = \"allow\"\nwhen = 'true'\n";

/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

/// How often agents are looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long all agents may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Agents that run, with their broker. Stop it with [`Fleet::stop`]; dropping it ends the agents without goodbye.
#[derive(Debug)]
pub struct Fleet {
    /// The broker.
    pub broker: Broker,
    /// Who issues certificates.
    pub site: Site,
    /// How the agents connect.
    pub meter: Arc<Meter>,
    /// What the plugin `fleet` ran.
    pub ledger: Ledger,
    plans: Vec<HostPlan>,
    options: Options,
    members: Vec<Member>,
    shutdown: CancellationToken,
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
        raise_descriptor_limit(options.hosts)?;
        let plans = plan(options.hosts, options.seed);
        let site = Site::new()?;
        let hosts: Vec<Identity> = plans.iter().map(|plan| Identity::Host(plan.name.clone())).collect();
        let credentials = site.authority().fleet(&hosts)?;
        let others = OTHERS.iter().map(|name| name.parse().context("read an identity")).collect::<Result<Vec<_>>>()?;
        let broker = Broker::start(&site, hosts.into_iter().chain(others))?;
        let mut fleet = Self {
            _state: state_directory(&options)?,
            broker,
            meter: Arc::default(),
            ledger: Ledger::default(),
            members: Vec::with_capacity(options.agents()),
            shutdown: CancellationToken::new(),
            tasks: Tasks::new(),
            site,
            plans,
            options,
        };
        fleet.start_agents(credentials, limit).await?;
        Ok(fleet)
    }

    async fn start_agents(&mut self, credentials: Vec<Credentials>, limit: Duration) -> Result<()> {
        let policy = Arc::new(Policy::parse(POLICY, Path::new("policy.toml"))?);
        let trust = self.site.trust();
        let turns = Arc::new(Semaphore::new(self.options.start_at_once.max(1)));
        for (number, credentials) in credentials.into_iter().take(self.options.agents()).enumerate() {
            // The next one begins when one of those before is connected.
            let turn = turns.clone().acquire_owned().await?;
            let agent = self.agent(number, credentials, trust.clone(), policy.clone())?;
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

    fn agent(&self, number: usize, credentials: Credentials, trust: Trust, policy: Arc<Policy>) -> Result<Agent> {
        let plan = &self.plans[number];
        let url = self.broker.url().parse().context("read the broker's address")?;
        let mut raw = Raw { state_dir: self._state.path().join(plan.name.as_str()), ..Raw::default() };
        raw.broker.urls = vec![url];
        (self.options.configure)(&mut raw);
        let config = Config::from_values(raw)?;
        let mut settings = AmqpSettings::new(config.broker_urls().to_vec(), credentials.clone(), trust.clone());
        settings.heartbeat_s = config.heartbeat_s();
        settings.connect_timeout = config.connect_timeout();
        let bus = HostBus {
            inner: Arc::new(AmqpBus::new(settings)),
            behaviour: self.options.behaviour(number),
            meter: self.meter.clone(),
        };
        let mut registry = Registry::new();
        registry.register(Arc::new(muster_plugins::Host::new()))?;
        registry.register(Arc::new(FleetPlugin::new(self.ledger.clone())))?;
        let parts = Parts {
            materials: Materials { bus: Arc::new(bus), credentials, trust, policy },
            registry,
            facts: Sources::given(plan.name.clone(), plan.facts.clone(), plan.classes.clone()),
            clock: Arc::new(SystemClock),
            disk: Arc::new(RealDisk),
            blocking: Blocking::Threads,
            random_seed: match self.options.pauses {
                Pauses::Own => self.options.seed.wrapping_add(u64::try_from(number)?).wrapping_mul(SEED_FACTOR),
                Pauses::Same => self.options.seed,
            },
            runner: None,
            reload: None,
        };
        Agent::new(config, parts).with_context(|| format!("build the agent of `{}`", plan.name))
    }

    /// The hosts, absent ones too.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.plans.iter().map(|plan| &plan.name)
    }

    /// The hosts that answer.
    pub fn answering(&self) -> impl Iterator<Item = &HostName> {
        let answers =
            |number: &usize| !matches!(self.options.behaviour(*number), Behaviour::Silent | Behaviour::Absent);
        (0..self.plans.len()).filter(answers).map(|number| &self.plans[number].name)
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
    pub async fn stop(mut self) -> Result<Left> {
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
        self.broker.stop()?;
        Ok(left)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Odd, so that different numbers give different seeds that are far apart.
const SEED_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

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
