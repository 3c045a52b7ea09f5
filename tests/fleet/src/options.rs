//! What a fleet is like.

use std::path::PathBuf;
use std::time::Duration;

use muster_agent::config::Raw;

use crate::behaviour::Behaviour;

/// How the random pauses of the agents relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pauses {
    /// Each agent draws its own, as in real life.
    #[default]
    Own,
    /// All draw the same ones, as if pauses were not random: what a fleet without jitter does.
    Same,
}

/// A fleet to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many hosts.
    pub hosts: usize,
    /// Seed of names, facts and pauses. The same seed makes the same fleet.
    pub seed: u64,
    /// How the agents' pauses relate.
    pub pauses: Pauses,
    /// How long every report takes before it leaves a host.
    pub latency: Duration,
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
    /// Changes every agent's configuration.
    pub configure: fn(&mut Raw),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: 100,
            seed: 1,
            pauses: Pauses::Own,
            latency: Duration::ZERO,
            slow: 0,
            slow_latency: Duration::from_secs(3),
            silent: 0,
            absent: 0,
            start_at_once: 64,
            state: None,
            configure: |_| {},
        }
    }
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
            Behaviour::Late(self.slow_latency)
        } else if self.latency.is_zero() {
            Behaviour::Prompt
        } else {
            Behaviour::Late(self.latency)
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
        let late = Behaviour::Late(options.slow_latency);
        let expected =
            [Behaviour::Prompt, Behaviour::Prompt, late, Behaviour::Silent, Behaviour::Silent, Behaviour::Absent];
        assert_eq!(behaviours, expected);
        assert_eq!(options.agents(), 5);
        let everywhere = Options { latency: Duration::from_millis(40), ..Options::new(1) };
        assert_eq!(everywhere.behaviour(0), Behaviour::Late(Duration::from_millis(40)));
    }
}
