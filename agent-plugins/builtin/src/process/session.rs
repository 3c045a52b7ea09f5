//! The session of a started program: who is in it, and how to end them all.
//!
//! A group alone is not enough: a shell with job control gives each job a group of its own. They
//! all stay in the session, unless they leave it on purpose, as daemons do.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::time::Instant;

/// Time between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A session that a started program leads. Dropping it before [`Session::sweep`] ended kills everybody in it.
#[derive(Debug)]
pub(super) struct Session {
    leader: Option<Pid>,
    swept: bool,
}

impl Session {
    pub(super) fn new(leader: Option<u32>) -> Self {
        let leader = leader.and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { leader, swept: false }
    }

    /// Sends a signal to everybody in the session.
    ///
    /// The leader's number cannot be given to a stranger meanwhile: it is not reaped yet, or it is
    /// still the number of a group or session with somebody in it, or it became free this instant,
    /// and the kernel reuses numbers only after all others.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(leader) = self.leader else { return };
        // Failing means that nobody is there any more.
        let _nobody = killpg(leader, signal);
        for (pid, group) in members(leader) {
            if group != leader {
                let _gone = kill(pid, signal);
            }
        }
    }

    /// Ends whoever is left after the leader: politely, then not. Returns how many there were.
    pub(super) async fn sweep(&mut self, grace: Duration) -> usize {
        let Some(leader) = self.leader else { return 0 };
        let left = look(leader).await;
        if left > 0 {
            self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + grace;
            while look(leader).await > 0 && Instant::now() < deadline {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            self.signal(Signal::SIGKILL);
        }
        self.swept = true;
        left
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.swept {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// Reading the process table takes milliseconds on a host with many processes.
async fn look(leader: Pid) -> usize {
    tokio::task::spawn_blocking(move || members(leader).len()).await.unwrap_or(0)
}

/// Process and group of everybody alive in a session. Zombies are not counted: they are over, and
/// where process 1 does not reap they stay for ever.
fn members(leader: Pid) -> Vec<(Pid, Pid)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter_map(|pid| {
            let (state, group, session) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
            let alive = !matches!(state, 'Z' | 'X' | 'x');
            (alive && session == leader.as_raw()).then_some((Pid::from_raw(pid), Pid::from_raw(group)))
        })
        .collect()
}

/// State, group and session from `/proc/PID/stat` (proc(5)). The name in parentheses may hold anything, even `)`.
fn parse_stat(stat: &str) -> Option<(char, i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let _parent = fields.next()?;
    Some((state, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_confuse() {
        assert_eq!(parse_stat("12 (sh) S 1 12 7 0 -1 4194560"), Some(('S', 12, 7)));
        assert_eq!(parse_stat("12 (a) Z 9 9 9 () Z 1 13 8 0"), Some(('Z', 13, 8)));
        assert_eq!(parse_stat("12 (sh) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }
}
