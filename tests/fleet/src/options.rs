//! What a fleet is like.

use std::path::PathBuf;
use std::time::Duration;

use muster_agent::config::Raw;
use serde::{Deserialize, Serialize};

use crate::behaviour::{Behaviour, Latency};
use crate::broker::BrokerKind;

/// How the random pauses of the agents relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Pauses {
    /// Each agent draws its own, as in real life.
    #[default]
    Own,
    /// All draw the same ones, as if pauses were not random: what a fleet without jitter does.
    Same,
}

/// What is told while a fleet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many certificates are issued.
    Issuing {
        /// How many.
        hosts: usize,
    },
    /// The broker starts, with users and permissions for so many hosts.
    BrokerStarts {
        /// Which.
        broker: BrokerKind,
        /// How many.
        hosts: usize,
    },
    /// Agents connect, in so many processes.
    Connecting {
        /// How many are connected.
        online: usize,
        /// How many there will be.
        agents: usize,
        /// Processes that they are in; 1 is this one.
        processes: usize,
    },
}

/// A fleet to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// On which broker.
    pub broker: BrokerKind,
    /// How many hosts.
    pub hosts: usize,
    /// Seed of names, facts and pauses. The same seed makes the same fleet.
    pub seed: u64,
    /// How the agents' pauses relate.
    pub pauses: Pauses,
    /// How long every report takes before it leaves a host.
    pub latency: Duration,
    /// How much longer than that a report may take, drawn anew for each.
    pub jitter: Duration,
    /// How many hosts are slow.
    pub slow: usize,
    /// How long a report takes before it leaves a slow host.
    pub slow_latency: Duration,
    /// How many hosts take commands and say nothing.
    pub silent: usize,
    /// How many hosts have a certificate and permissions, but no agent.
    pub absent: usize,
    /// How many agents connect at the same time when the fleet starts.
    pub start_at_once: usize,
    /// Where the agents' states go. `None`: memory where the system offers it, else the temporary directory.
    pub state: Option<PathBuf>,
    /// Most hosts in one process. `None`: as many as the system lets one have files open for, at most 2,500.
    pub hosts_per_process: Option<usize>,
    /// Changes every agent's configuration. Agents in processes of their own are not reached by it.
    #[serde(skip, default = "as_it_is")]
    pub configure: fn(&mut Raw),
    /// Is told how far the start is.
    #[serde(skip, default = "to_nobody")]
    pub tell: fn(Progress),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            broker: BrokerKind::default(),
            hosts: 100,
            seed: 1,
            pauses: Pauses::Own,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            slow: 0,
            slow_latency: Duration::from_secs(3),
            silent: 0,
            absent: 0,
            start_at_once: 64,
            state: None,
            hosts_per_process: None,
            configure: |_| {},
            tell: |_| {},
        }
    }
}

fn as_it_is() -> fn(&mut Raw) {
    |_| {}
}

fn to_nobody() -> fn(Progress) {
    |_| {}
}

impl Options {
    /// So many ordinary hosts.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        Self { hosts, ..Self::default() }
    }

    /// How the host with this number behaves: the last ones are absent, those before silent, those before slow.
    #[must_use]
    pub fn behaviour(&self, number: usize) -> Behaviour {
        let from_the_end = self.hosts.saturating_sub(number);
        if from_the_end <= self.absent {
            Behaviour::Absent
        } else if from_the_end <= self.absent + self.silent {
            Behaviour::Silent
        } else if from_the_end <= self.absent + self.silent + self.slow {
            Behaviour::Late(Latency { least: self.slow_latency, jitter: self.jitter })
        } else if self.latency.is_zero() && self.jitter.is_zero() {
            Behaviour::Prompt
        } else {
            Behaviour::Late(Latency { least: self.latency, jitter: self.jitter })
        }
    }

    /// How many hosts have an agent.
    #[must_use]
    pub fn agents(&self) -> usize {
        self.hosts.saturating_sub(self.absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hosts_are_the_odd_ones() {
        let options = Options { slow: 1, silent: 2, absent: 1, ..Options::new(6) };
        let behaviours: Vec<Behaviour> = (0..6).map(|number| options.behaviour(number)).collect();
        let late = Behaviour::Late(Latency { least: options.slow_latency, jitter: Duration::ZERO });
        let expected =
            [Behaviour::Prompt, Behaviour::Prompt, late, Behaviour::Silent, Behaviour::Silent, Behaviour::Absent];
        assert_eq!(behaviours, expected);
        assert_eq!(options.agents(), 5);
        let [least, jitter] = [40, 10].map(Duration::from_millis);
        for (least, jitter) in [(least, Duration::ZERO), (Duration::ZERO, jitter), (least, jitter)] {
            let everywhere = Options { latency: least, jitter, ..Options::new(1) };
            assert_eq!(everywhere.behaviour(0), Behaviour::Late(Latency { least, jitter }));
        }
    }
}
