//! Counts how a fleet connects.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Counts attempts to connect and what became of them. All agents of a fleet share one.
#[derive(Debug)]
pub struct Meter(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    counted: Counted,
}

/// What was counted since the last [`Meter::restart`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Attempts to connect.
    pub attempts: u64,
    /// Those that came to a connection.
    pub connected: u64,
    /// Those that did not, by the code of what went wrong.
    pub failed: BTreeMap<String, u64>,
    /// Attempts begun in each second.
    pub attempts_per_second: Vec<u64>,
    /// Connections that came about in each second.
    pub connected_per_second: Vec<u64>,
}

impl Counted {
    /// Adds what another meter counted in the same seconds.
    pub(crate) fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.connected += other.connected;
        for (code, count) in &other.failed {
            *self.failed.entry(code.clone()).or_default() += count;
        }
        let seconds = [
            (&mut self.attempts_per_second, &other.attempts_per_second),
            (&mut self.connected_per_second, &other.connected_per_second),
        ];
        for (sum, counts) in seconds {
            sum.resize(sum.len().max(counts.len()), 0);
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// The most attempts in one second.
    #[must_use]
    pub fn attempts_peak(&self) -> u64 {
        self.attempts_per_second.iter().copied().max().unwrap_or(0)
    }

    /// The most connections in one second.
    #[must_use]
    pub fn connected_peak(&self) -> u64 {
        self.connected_per_second.iter().copied().max().unwrap_or(0)
    }

    /// All attempts that failed.
    #[must_use]
    pub fn failed_all(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), counted: Counted::default() }))
    }
}

impl Meter {
    /// Counts from zero again.
    pub fn restart(&self) {
        *self.lock() = State { since: Instant::now(), counted: Counted::default() };
    }

    /// What was counted since the last restart.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.lock().counted.clone()
    }

    /// Somebody begins to connect.
    pub(crate) fn attempt(&self) {
        let mut state = self.lock();
        state.counted.attempts += 1;
        let second = state.second();
        add_one(&mut state.counted.attempts_per_second, second);
    }

    /// It worked, or failed with this code.
    pub(crate) fn outcome(&self, failure: Option<&'static str>) {
        let mut state = self.lock();
        match failure {
            Some(code) => *state.counted.failed.entry(code.to_owned()).or_default() += 1,
            None => {
                state.counted.connected += 1;
                let second = state.second();
                add_one(&mut state.counted.connected_per_second, second);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn second(&self) -> usize {
        usize::try_from(self.since.elapsed().as_secs()).unwrap_or(usize::MAX).min(SECONDS_MAX)
    }
}

/// The last second that is counted apart; what comes later is counted with it.
const SECONDS_MAX: usize = 3_600;

fn add_one(seconds: &mut Vec<u64>, second: usize) {
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_outcomes_are_counted_by_second_and_code() {
        let meter = Meter::default();
        for failure in [None, Some("broker-unreachable"), Some("broker-unreachable"), None] {
            meter.attempt();
            meter.outcome(failure);
        }
        let counted = meter.counted();
        assert_eq!((counted.attempts, counted.connected, counted.failed_all()), (4, 2, 2));
        assert_eq!((counted.attempts_per_second.iter().sum::<u64>(), counted.failed["broker-unreachable"]), (4, 2));
        meter.restart();
        assert_eq!(meter.counted(), Counted::default());
    }

    #[test]
    fn counts_of_several_processes_are_added_second_by_second() {
        let counted = |attempts_per_second: &[u64], code: &str| Counted {
            attempts: attempts_per_second.iter().sum(),
            failed: BTreeMap::from([(code.to_owned(), 1)]),
            attempts_per_second: attempts_per_second.to_vec(),
            ..Counted::default()
        };
        // Two processes, their sum.
        for (one, other, sum) in [(vec![1, 2], vec![3], vec![4, 2]), (vec![], vec![0, 5], vec![0, 5])] {
            let mut all = counted(&one, "a");
            all.add(&counted(&other, "b"));
            assert_eq!((all.attempts, &all.attempts_per_second), (sum.iter().sum(), &sum), "{one:?} and {other:?}");
            assert_eq!(all.failed_all(), 2);
        }
    }
}
