//! The session of a started program: who is in it, and how to end them all.
//!
//! A group alone is not enough: a shell with job control gives each job a group of its own. They
//! all stay in the session, unless they leave it on purpose, as daemons do. Who left it can only be
//! found where this process inherits orphans ([`become_subreaper`]), which the agent itself does not:
//! there they belong to process 1, like any daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use process_wrap::tokio::ChildWrapper;
use tokio::time::Instant;

use super::LeaveBehind;
use super::strays::Strays;

/// How long to wait for the end of a process after the signal that cannot be ignored: only one
/// that sits in the kernel, on a dead network disk for example, survives that.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// Time between two looks at what is left.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Whether orphans of programs come to this process.
static SUBREAPER: AtomicBool = AtomicBool::new(false);

/// Programs that this process started and somebody waits for. Who is a child of ours and not in here
/// is an orphan. Locked while a program starts, so that a new one is never taken for an orphan.
static LEADERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Makes this process inherit every descendant whose parent ends, so that the sweep after a program
/// also finds daemons that left its session.
///
/// For a process that runs one action and ends. With two programs at once, an orphan of the one may
/// be counted to the other.
///
/// # Errors
/// When the kernel cannot (before Linux 3.4).
pub fn become_subreaper() -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    SUBREAPER.store(true, Ordering::SeqCst);
    Ok(())
}

fn leaders() -> MutexGuard<'static, BTreeSet<i32>> {
    // Nothing that holds the lock leaves the set half changed.
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program as the leader of a session.
pub(super) fn start(
    leave_behind: LeaveBehind,
    spawn: impl FnOnce() -> io::Result<Box<dyn ChildWrapper>>,
) -> io::Result<(Box<dyn ChildWrapper>, Session)> {
    let mut leaders = leaders();
    let child = spawn()?;
    // Without an id the child was reaped already, which nobody can have done yet.
    let leader = child.id().and_then(|id| i32::try_from(id).ok());
    leaders.extend(leader);
    Ok((child, Session { leader: leader.map(Pid::from_raw), leave_behind, swept: false }))
}

/// A session that a started program leads. Dropping it before [`Session::sweep`] ended kills everybody in it.
#[derive(Debug)]
pub(super) struct Session {
    leader: Option<Pid>,
    leave_behind: LeaveBehind,
    swept: bool,
}

impl Session {
    /// Sends a signal to everybody in the session, and to those who left it if they are to be stopped.
    ///
    /// The leader's number cannot be given to a stranger meanwhile: it is not reaped yet, or it is
    /// still the number of a group or session with somebody in it, or it became free this instant,
    /// and the kernel reuses numbers only after all others.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(leader) = self.leader else { return };
        // Failing means that nobody is there any more.
        let _nobody = killpg(leader, signal);
        for (pid, group) in members(leader, self.leave_behind == LeaveBehind::Stop) {
            if group != leader {
                let _gone = kill(pid, signal);
            }
        }
    }

    /// Programs that run below the leader in sessions of their own.
    pub(super) fn strays(&self) -> Strays {
        self.leader.map(Strays::below).unwrap_or_default()
    }

    /// Ends whoever is left after the leader, politely and then not, unless they may live on. Returns
    /// how many there were. `stopped` says that the leader did not end by itself, `reaped` that it ended.
    pub(super) async fn sweep(&mut self, grace: Duration, stopped: bool, reaped: bool) -> usize {
        let Some(leader) = self.leader else { return 0 };
        let mut left = self.look(leader, true).await;
        if stopped && left > 0 {
            // Who got the signal together with the leader may need an instant more to be gone.
            tokio::time::sleep(LOOK_INTERVAL).await;
            left = self.look(leader, true).await;
        }
        if stopped || self.leave_behind == LeaveBehind::Stop {
            self.end_all(leader, grace).await;
        }
        if reaped {
            leaders().remove(&leader.as_raw());
        }
        self.swept = true;
        left
    }

    async fn end_all(&self, leader: Pid, grace: Duration) {
        let everywhere = self.leave_behind == LeaveBehind::Stop;
        for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, KILL_PATIENCE)] {
            if self.look(leader, everywhere).await == 0 {
                return;
            }
            self.signal(signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if self.look(leader, everywhere).await == 0 {
                    return;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
                if signal == Signal::SIGKILL {
                    // Somebody may have been born between the look and the signal.
                    self.signal(signal);
                }
            }
        }
    }

    /// Reading the process table takes milliseconds on a host with many processes.
    async fn look(&self, leader: Pid, everywhere: bool) -> usize {
        tokio::task::spawn_blocking(move || members(leader, everywhere).len()).await.unwrap_or(0)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.swept {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// Process and group of everybody alive in a session; `everywhere` adds those who left it, where they
/// can be found. Zombies are not counted: they are over, and where process 1 does not reap they stay for ever.
fn members(leader: Pid, everywhere: bool) -> Vec<(Pid, Pid)> {
    if !everywhere || !SUBREAPER.load(Ordering::SeqCst) {
        return of_session(&table(), leader);
    }
    let leaders = leaders();
    let table = table();
    let ours = descendants(&table, getpid().as_raw(), &leaders, leader.as_raw());
    for process in table.iter().filter(|process| !process.alive && ours.contains(&process.pid)) {
        if process.parent == getpid().as_raw() && !leaders.contains(&process.pid) {
            // An orphan that came to us and ended: nobody else will take it away.
            let _reaped = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
    let in_session = |process: &&Process| process.session == leader.as_raw() || ours.contains(&process.pid);
    let found = table.iter().filter(|process| process.alive).filter(in_session);
    found.map(Process::pid_and_group).collect()
}

/// Everybody alive below the leader of a session who is not in the session.
pub(super) fn below_elsewhere(leader: Pid) -> Vec<Pid> {
    let table = table();
    let below = descendants(&table, leader.as_raw(), &BTreeSet::new(), leader.as_raw());
    let elsewhere = |process: &&Process| process.alive && process.session != leader.as_raw();
    let found = table.iter().filter(|process| below.contains(&process.pid)).filter(elsewhere);
    found.map(|process| Pid::from_raw(process.pid)).collect()
}

pub(super) fn of_session(table: &[Process], leader: Pid) -> Vec<(Pid, Pid)> {
    let found = table.iter().filter(|process| process.alive && process.session == leader.as_raw());
    found.map(Process::pid_and_group).collect()
}

/// Everybody below a process, except other programs of ours and what is below them.
fn descendants(table: &[Process], root: i32, leaders: &BTreeSet<i32>, leader: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut found = BTreeSet::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            let of_another = *child != leader && leaders.contains(child);
            if !of_another && found.insert(*child) {
                next.push(*child);
            }
        }
    }
    found
}

/// A line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    alive: bool,
    parent: i32,
    group: i32,
    session: i32,
}

impl Process {
    fn pid_and_group(&self) -> (Pid, Pid) {
        (Pid::from_raw(self.pid), Pid::from_raw(self.group))
    }

    /// From `/proc/PID/stat` (proc(5)). The name in parentheses may hold anything, even `)`.
    pub(super) fn parse(pid: i32, stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let alive = !matches!(fields.next()?.chars().next()?, 'Z' | 'X' | 'x');
        let mut number = || fields.next()?.parse().ok();
        Some(Self { pid, alive, parent: number()?, group: number()?, session: number()? })
    }
}

pub(super) fn table() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(|pid| Process::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, alive: true, parent, group: session, session }
    }

    #[test]
    fn the_name_of_a_process_does_not_confuse() {
        let parsed = |stat| Process::parse(9, stat).map(|process| (process.alive, process.group, process.session));
        assert_eq!(parsed("12 (sh) S 1 12 7 0 -1 4194560"), Some((true, 12, 7)));
        assert_eq!(parsed("12 (a) Z 9 9 9 () Z 1 13 8 0"), Some((false, 13, 8)));
        assert_eq!(parsed("12 (sh) S 1"), None);
        assert_eq!(parsed(""), None);
    }

    #[test]
    fn who_left_the_session_is_found_by_descent_and_other_programs_are_not_touched() {
        // 10 is us; 20 our program, 30 another one; 21 left 20's session and lost its parent, 22 is its child.
        let table = [
            process(10, 1, 10),
            process(20, 10, 20),
            process(21, 10, 21),
            process(22, 21, 21),
            process(23, 20, 20),
            process(30, 10, 30),
            process(31, 30, 30),
            process(40, 1, 40),
        ];
        let leaders = BTreeSet::from([20, 30]);
        assert_eq!(descendants(&table, 10, &leaders, 20), BTreeSet::from([20, 21, 22, 23]));
        assert_eq!(of_session(&table, Pid::from_raw(20)).len(), 2);
    }
}
