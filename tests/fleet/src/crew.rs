//! The agents of one process: started one after the other, looked at, stopped.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_agent::policy::Policy;
use muster_agent::{Connection, Handle, Stopped};
use muster_bus::{AmqpBus, AmqpSettings};
use muster_daemon::{TaskKind, Tasks};
use muster_pki::{Credentials, Trust};
use muster_protocol::Timestamp;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::behaviour::HostBus;
use crate::inventory::HostPlan;
use crate::member::{self, AgentParts};
use crate::meter::{Counted, Meter};
use crate::options::Options;
use crate::plugin::Ledger;
use crate::process::{Usage, usage_of_self};

/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

/// How long all agents may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// What a crew is made of.
pub(crate) struct CrewParts {
    pub(crate) url: String,
    pub(crate) trust: Trust,
    /// Number of the first host among all hosts of the fleet.
    pub(crate) first: usize,
    /// The hosts that have an agent.
    pub(crate) hosts: Vec<(HostPlan, Credentials)>,
    pub(crate) options: Options,
}

/// Agents in this process. Dropping it ends them without goodbye.
#[derive(Debug)]
pub(crate) struct Crew {
    shared: Arc<Shared>,
    agents: usize,
    tasks: Tasks,
    shutdown: CancellationToken,
    _ends_with_it: DropGuard,
    // Removed last.
    _state: TempDir,
}

#[derive(Debug, Default)]
struct Shared {
    meter: Arc<Meter>,
    ledger: Ledger,
    members: Mutex<Vec<Member>>,
    /// Why the rest was not started.
    failed: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Member {
    handle: Handle,
    stopped: oneshot::Receiver<Stopped>,
}

/// How agents are, and what they did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CrewState {
    /// Agents that there should be.
    pub agents: usize,
    /// Those that are connected, and have been since the moment that was asked for.
    pub online: usize,
    /// Why one that is not connected is not.
    pub why: Option<String>,
    /// Why agents could not be started.
    pub failed: Option<String>,
    /// How they connected since the meter was restarted.
    pub counted: Counted,
    /// Actions of the plugin `fleet` that were started.
    pub starts: usize,
    /// Requests that started more than once on a host. There must be none.
    pub twice: usize,
    /// What their processes cost.
    pub usage: Usage,
}

impl CrewState {
    /// Adds what another crew says.
    pub(crate) fn add(&mut self, other: Self) {
        self.agents += other.agents;
        self.online += other.online;
        self.why = self.why.take().or(other.why);
        self.failed = self.failed.take().or(other.failed);
        self.counted.add(&other.counted);
        self.starts += other.starts;
        self.twice += other.twice;
        self.usage.processor += other.usage.processor;
        self.usage.resident_bytes += other.usage.resident_bytes;
    }
}

/// How agents ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Actions that were interrupted.
    pub interrupted: usize,
    /// Final reports that no broker has confirmed.
    pub reports: usize,
    /// Agents of which a task panicked, or that did not stop in time.
    pub failed: usize,
}

impl Left {
    pub(crate) fn add(&mut self, other: Self) {
        self.interrupted += other.interrupted;
        self.reports += other.reports;
        self.failed += other.failed;
    }
}

impl Crew {
    /// Begins to start the agents. [`Self::state`] tells how far it is.
    pub(crate) fn start(parts: CrewParts) -> Result<Self> {
        let (shared, shutdown, tasks) = (Arc::<Shared>::default(), CancellationToken::new(), Tasks::new());
        let state = state_directory(&parts.options)?;
        let (policy, agents) = (member::policy()?, parts.hosts.len());
        let starting =
            start_all(parts, shared.clone(), policy, state.path().to_owned(), tasks.clone(), shutdown.clone());
        let told = shared.clone();
        tasks.spawn(TaskKind::Worker, "crew", async move {
            if let Err(error) = starting.await {
                *lock(&told.failed) = Some(format!("{error:#}"));
            }
        });
        let ends_with_it = shutdown.clone().drop_guard();
        Ok(Self { shared, agents, tasks, shutdown, _ends_with_it: ends_with_it, _state: state })
    }

    /// How the agents are; connected counts who has been since `since`.
    pub(crate) fn state(&self, since: Timestamp) -> Result<CrewState> {
        let members = lock(&self.shared.members);
        let (mut online, mut why) = (0, None);
        for member in members.iter() {
            match &*member.handle.connection().borrow() {
                Connection::Online { since: at, .. } if *at >= since => online += 1,
                Connection::Connecting { why: reason } if why.is_none() => why = Some(reason.clone()),
                _ => {}
            }
        }
        drop(members);
        Ok(CrewState {
            agents: self.agents,
            online,
            why,
            failed: lock(&self.shared.failed).clone(),
            counted: self.shared.meter.counted(),
            starts: self.shared.ledger.starts(),
            twice: self.shared.ledger.twice().len(),
            usage: usage_of_self()?,
        })
    }

    pub(crate) fn restart_meter(&self) {
        self.shared.meter.restart();
    }

    /// Stops all agents in order.
    pub(crate) async fn stop(self) -> Left {
        self.shutdown.cancel();
        let mut left = Left::default();
        let deadline = Instant::now() + STOP_LIMIT;
        let members = std::mem::take(&mut *lock(&self.shared.members));
        for member in members {
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
        left
    }
}

async fn start_all(
    parts: CrewParts,
    shared: Arc<Shared>,
    policy: Arc<Policy>,
    state: std::path::PathBuf,
    tasks: Tasks,
    shutdown: CancellationToken,
) -> Result<()> {
    let CrewParts { url, trust, first, hosts, options } = parts;
    let turns = Arc::new(Semaphore::new(options.start_at_once.max(1)));
    for (number, (plan, credentials)) in (first..).zip(hosts) {
        // The next one begins when one of those before is connected.
        let turn = tokio::select! {
            turn = turns.clone().acquire_owned() => turn?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let config = member::config(&plan, &url, &options, &state)?;
        let mut settings = AmqpSettings::new(config.broker_urls().to_vec(), credentials.clone(), trust.clone());
        settings.heartbeat_s = config.heartbeat_s();
        // As `musterd` does.
        settings.one_channel = true;
        settings.connect_timeout = config.connect_timeout();
        let bus = Arc::new(HostBus {
            inner: Arc::new(AmqpBus::new(settings)),
            behaviour: options.behaviour(number),
            seed: member::seed(&options, number),
            meter: shared.meter.clone(),
        });
        let parts =
            AgentParts { config, bus, trust: trust.clone(), policy: policy.clone(), ledger: shared.ledger.clone() };
        let agent = member::agent(&plan, credentials, member::seed(&options, number), parts)?;
        let handle = agent.handle();
        let (sender, stopped) = oneshot::channel();
        let stop = shutdown.clone();
        tasks.spawn(TaskKind::Worker, "agent", async move {
            // Whoever does not want to know has gone.
            drop(sender.send(agent.run(stop).await));
        });
        let mut connection = handle.connection();
        tasks.spawn(TaskKind::Worker, "turn", async move {
            // An agent that ends gives its turn back, too.
            drop(connection.wait_for(|connection| matches!(connection, Connection::Online { .. })).await);
            drop(turn);
        });
        lock(&shared.members).push(Member { handle, stopped });
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn state_directory(options: &Options) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix("muster-fleet-");
    let make = || match &options.state {
        Some(parent) => named.tempdir_in(parent),
        None if Path::new(MEMORY).is_dir() => named.tempdir_in(MEMORY),
        None => named.tempdir(),
    };
    muster_tests::watched_directory(make).context("make a directory for the agents' states")
}
