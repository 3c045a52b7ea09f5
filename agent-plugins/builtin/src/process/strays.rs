//! Programs that a program runs in sessions of their own, and what becomes of them when it is stopped.
//!
//! Some programs give each program they run a session, so that the signals to theirs do not reach it.
//! Who they are can be seen only while the starter lives: afterwards they are orphans, like any daemon.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::session::{self, KILL_PATIENCE};

/// Time between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Processes below a program, outside of its session, each with its start, which tells it from a later
/// process of the same number.
#[derive(Debug, Default)]
pub(super) struct Strays(Vec<(Pid, u64)>);

impl Strays {
    /// Those there are below the leader of a session now.
    pub(super) fn below(leader: Pid) -> Self {
        let elsewhere = session::below_elsewhere(leader);
        Self(elsewhere.into_iter().filter_map(|pid| Some((pid, started(pid)?))).collect())
    }

    fn alive(&self) -> Vec<Pid> {
        let same = |(pid, start): &&(Pid, u64)| started(*pid) == Some(*start);
        self.0.iter().filter(same).map(|(pid, _)| *pid).collect()
    }

    /// Lets them end by themselves for some time, then stops them, politely and then not. What they have
    /// started meanwhile goes with them. Returns how many had to be stopped.
    pub(super) async fn end(mut self, finish: Duration, grace: Duration) -> usize {
        let mut stopped = BTreeSet::new();
        for (signal, patience) in
            [(None, finish), (Some(Signal::SIGTERM), grace), (Some(Signal::SIGKILL), KILL_PATIENCE)]
        {
            if let Some(signal) = signal {
                let born: Vec<_> = self.alive().into_iter().flat_map(|pid| Self::below(pid).0).collect();
                self.0.extend(born);
                for pid in self.alive() {
                    stopped.insert(pid);
                    let _gone = kill(pid, signal);
                }
            }
            let deadline = Instant::now() + patience;
            while !self.alive().is_empty() {
                if Instant::now() >= deadline {
                    break;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        stopped.len()
    }
}

/// When a process that is not over began, in ticks since the boot (proc(5), field 22).
fn started(pid: Pid) -> Option<u64> {
    parse_started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

pub(super) fn parse_started(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        assert_eq!(parse_started("7 (a) b) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9"), Some(4711));
        assert_eq!(parse_started("7 (a) Z 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9"), None);
        assert_eq!(parse_started("7 (a) S 1"), None);
        assert_eq!(parse_started(""), None);
    }
}
