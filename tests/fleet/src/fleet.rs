//! Starting many agents, looking at them, and stopping them.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use muster_protocol::{HostName, Timestamp};
use muster_tests::programs::program;
use tokio::time::Instant;

use crate::behaviour::Behaviour;
use crate::crew::{Crew, CrewParts, CrewState, Left};
use crate::ground::Ground;
use crate::options::{Options, Progress};
use crate::process::Usage;
use crate::remote::{Remote, RemoteParts};

/// The program that agents in other processes run in.
const PROGRAM: &str = "muster-fleet";

/// How often agents are looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it is told how many are connected.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Agents that run, with their broker. Stop it with [`Fleet::stop`]; dropping it ends the agents without goodbye.
#[derive(Debug)]
pub struct Fleet {
    /// Its broker and its authority.
    pub ground: Ground,
    options: Options,
    crews: Vec<Company>,
}

/// Some of the agents.
#[derive(Debug)]
enum Company {
    Here(Crew),
    There(Box<Remote>),
}

impl Company {
    async fn state(&self, since: Timestamp) -> Result<CrewState> {
        match self {
            Self::Here(crew) => crew.state(since),
            Self::There(crew) => crew.state(since).await,
        }
    }

    async fn restart_meter(&self) -> Result<()> {
        match self {
            Self::Here(crew) => crew.restart_meter(),
            Self::There(crew) => crew.restart_meter().await?,
        }
        Ok(())
    }

    async fn stop(self) -> Result<Left> {
        match self {
            Self::Here(crew) => Ok(crew.stop().await),
            Self::There(crew) => crew.stop().await,
        }
    }
}

impl Fleet {
    /// Starts a broker and the agents, and waits until all of them take commands. Needs a runtime with several threads.
    ///
    /// # Errors
    /// The broker is not installed or not built, the system has no room for so many, or agents do not come up within `limit`.
    pub async fn start(options: Options, limit: Duration) -> Result<Self> {
        let ground = Ground::prepare_and_tell(options.broker, options.hosts, options.seed, options.tell)?;
        Self::start_on(ground, options, limit).await
    }

    /// Starts the agents of the first hosts of a ground that is there already: in this process, or in several where one may not
    /// have so many files open. Those run `muster-fleet`, which has to lie beside the running program.
    ///
    /// # Errors
    /// The ground has fewer hosts, or agents do not come up within `limit`.
    pub async fn start_on(ground: Ground, options: Options, limit: Duration) -> Result<Self> {
        ensure!(
            options.hosts <= ground.plans.len(),
            "{} hosts are asked for and {} may log in",
            options.hosts,
            ground.plans.len()
        );
        let per_process = options.hosts_per_process.unwrap_or_else(|| ground.allowed.hosts_per_process());
        let shares = shares(options.agents(), per_process);
        let mut options_of_each = options.clone();
        options_of_each.start_at_once = options.start_at_once.div_ceil(shares.len().max(1));
        let mut fleet = Self { ground, options, crews: Vec::with_capacity(shares.len()) };
        match &shares[..] {
            [only] => fleet.crews.push(Company::Here(fleet.crew(only.clone(), options_of_each)?)),
            shares => {
                let program = program(PROGRAM)?;
                for share in shares {
                    let credentials = fleet.ground.with_keys(share.clone());
                    let parts = RemoteParts {
                        url: fleet.ground.broker.url(),
                        authority: fleet.ground.site.authority().ca_directory(),
                        seed: fleet.ground.seed,
                        first: share.start,
                        credentials: &credentials,
                        options: options_of_each.clone(),
                    };
                    fleet.crews.push(Company::There(Box::new(Remote::start(&program, parts).await?)));
                }
            }
        }
        fleet.all_online(Timestamp(0), limit).await?;
        Ok(fleet)
    }

    fn crew(&self, share: Range<usize>, options: Options) -> Result<Crew> {
        let credentials = self.ground.credentials(share.end)?.iter().cloned();
        let hosts = self.ground.plans.iter().cloned().zip(credentials).skip(share.start).collect();
        let (url, trust) = (self.ground.broker.url(), self.ground.site.trust());
        Crew::start(CrewParts { url, trust, first: share.start, hosts, options })
    }

    /// The hosts, absent ones too.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.ground.hosts().take(self.options.hosts)
    }

    /// The hosts that answer.
    pub fn answering(&self) -> impl Iterator<Item = &HostName> {
        let answers = |(number, _): &(usize, &HostName)| {
            !matches!(self.options.behaviour(*number), Behaviour::Silent | Behaviour::Absent)
        };
        self.hosts().enumerate().filter(answers).map(|(_, name)| name)
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// In how many processes the agents are; 1 is this one.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.crews.len()
    }

    /// How the agents are; connected counts who has been since `since`.
    ///
    /// # Errors
    /// A process of agents has ended.
    pub async fn state(&self, since: Timestamp) -> Result<CrewState> {
        let states = try_join_all(self.crews.iter().map(|crew| crew.state(since))).await?;
        let mut all = CrewState::default();
        states.into_iter().for_each(|state| all.add(state));
        Ok(all)
    }

    /// What the agents cost: all processes that they are in, this one too if they are in it.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn usage(&self) -> Result<Usage> {
        Ok(self.state(Timestamp(0)).await?.usage)
    }

    /// Counts attempts to connect from zero again.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn restart_meter(&self) -> Result<()> {
        try_join_all(self.crews.iter().map(Company::restart_meter)).await.map(drop)
    }

    /// How many agents are connected, and have been since `since` or later.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn online(&self, since: Timestamp) -> Result<usize> {
        Ok(self.state(since).await?.online)
    }

    /// Waits until all agents are connected anew since `since`. Says how long that took.
    ///
    /// # Errors
    /// Some are not within `limit`, or could not even be started; with how many, and why one of them is not.
    pub async fn all_online(&self, since: Timestamp, limit: Duration) -> Result<Duration> {
        let (started, mut told) = (Instant::now(), None::<Instant>);
        let agents = self.options.agents();
        loop {
            let state = self.state(since).await?;
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) || state.online == agents {
                told = Some(Instant::now());
                (self.options.tell)(Progress::Connecting { online: state.online, agents, processes: self.processes() });
            }
            if let Some(why) = state.failed {
                bail!("agents cannot be started: {why}");
            }
            if state.online == agents {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                bail!(
                    "{} of {agents} agents are connected after {} s; one says: {}",
                    state.online,
                    limit.as_secs(),
                    state.why.unwrap_or_else(|| "nothing".to_owned())
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
        loop {
            let online = self.online(Timestamp(0)).await?;
            if online == 0 {
                return Ok(());
            }
            ensure!(started.elapsed() <= limit, "{online} agents still believe that they are connected");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops all agents in order, then the broker.
    ///
    /// # Errors
    /// The broker cannot be stopped, or a process of agents has ended before.
    pub async fn stop(self) -> Result<Left> {
        let (left, ground) = self.leave().await;
        ground.stop()?;
        left
    }

    /// Stops all agents in order and leaves the broker, with the agents' queues on it.
    pub async fn leave(self) -> (Result<Left>, Ground) {
        let all = try_join_all(self.crews.into_iter().map(Company::stop)).await.context("stop the agents");
        let left = all.map(|all| {
            let mut left = Left::default();
            all.into_iter().for_each(|one| left.add(one));
            left
        });
        (left, self.ground)
    }
}

/// Shares of about the same size, none larger than `most`.
fn shares(agents: usize, most: usize) -> Vec<Range<usize>> {
    let processes = agents.div_ceil(most.max(1)).max(1);
    (0..processes).map(|number| agents * number / processes..agents * (number + 1) / processes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_spread_evenly_and_nobody_is_left_out() {
        // Agents, most in one process, sizes of the shares.
        let cases: [(usize, usize, &[usize]); 5] =
            [(10_000, 2_500, &[2_500; 4]), (10, 4, &[3, 3, 4]), (3, 100, &[3]), (0, 100, &[0]), (2, 0, &[1, 1])];
        for (agents, most, sizes) in cases {
            let shares = shares(agents, most);
            assert_eq!(shares.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), sizes);
            let all: Vec<usize> = shares.into_iter().flatten().collect();
            assert_eq!(all, (0..agents).collect::<Vec<_>>());
        }
    }
}
