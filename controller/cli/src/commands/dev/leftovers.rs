//! Processes of an earlier run that were not stopped: found by the configuration file on their command line, which lies
//! in a directory that is locked, so that no other run can have started them.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Looks that a kill takes at most.
const KILLS_MAX: usize = 3;

/// A process that was killed is gone within that, unless it waits for a disk.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// A process with one of our configuration files, held so that its number cannot come to mean another one.
#[derive(Debug)]
struct Leftover {
    number: i32,
    handle: OwnedFd,
}

/// Finds the processes of this user that were started with a configuration file below `hosts`.
fn find(hosts: &Path) -> Vec<Leftover> {
    numbers().filter_map(|number| at(number, hosts)).collect()
}

/// The numbers of all processes.
fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn at(number: i32, hosts: &Path) -> Option<Leftover> {
    let pid = Pid::from_raw(number)?;
    if pid == rustix::process::getpid() {
        return None;
    }
    let words = || fs::read(format!("/proc/{number}/cmdline")).ok();
    words().filter(|line| is_ours(line, hosts))?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Only now it is sure that the words are the ones of the process that is held.
    words().filter(|line| is_ours(line, hosts))?;
    Some(Leftover { number, handle })
}

/// Whether the words of a command line are those of an agent, or of what it has started, with a configuration of ours.
fn is_ours(line: &[u8], hosts: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| {
        let [flag, value] = pair else { return false };
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(value));
        *flag == b"--config" && path.starts_with(hosts) && path.ends_with("musterd.toml")
    })
}

impl Leftover {
    /// Waits until it has ended, at most until `deadline`. Gives whether it has.
    fn ended_by(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(1),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut waited = [PollFd::new(&self.handle, PollFlags::IN)];
            if poll(&mut waited, Some(&limit)).is_ok_and(|ready| ready > 0) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // One that is gone needs none.
        pidfd_send_signal(&self.handle, signal).ok();
    }
}

/// Kills all that is ours at once, with everything that was started by it.
pub(super) fn kill(hosts: &Path) {
    // What was started between a look and the kill is found in the next one.
    for _ in 0..KILLS_MAX {
        let found = with_descendants(find(hosts));
        if found.is_empty() {
            return;
        }
        found.iter().for_each(|process| process.signal(Signal::KILL));
        let deadline = Instant::now() + KILLED_WITHIN;
        for process in &found {
            process.ended_by(deadline);
        }
    }
}

/// Whether this is a process of ours.
pub(super) fn is_running(number: u32, hosts: &Path) -> bool {
    i32::try_from(number).is_ok_and(|number| at(number, hosts).is_some())
}

/// Adds what was started by these processes, and by those, as far as the system still knows who has started whom.
fn with_descendants(mut found: Vec<Leftover>) -> Vec<Leftover> {
    let mut ours: BTreeSet<i32> = found.iter().map(|process| process.number).collect();
    loop {
        let started: Vec<Leftover> =
            numbers().filter(|number| !ours.contains(number)).filter_map(|number| child_of(number, &ours)).collect();
        if started.is_empty() {
            return found;
        }
        ours.extend(started.iter().map(|process| process.number));
        found.extend(started);
    }
}

/// The process, held, if one of these has started it.
fn child_of(number: i32, parents: &BTreeSet<i32>) -> Option<Leftover> {
    let is_child = || parent(number).is_some_and(|parent| parents.contains(&parent));
    if !is_child() {
        return None;
    }
    let handle = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
    is_child().then_some(Leftover { number, handle })
}

/// Who has started it: the fourth field of proc_pid_stat(5). The second one may hold anything, and ends with the last `)`.
fn parent(number: i32) -> Option<i32> {
    let line = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    line.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Ends all that is left: asks, waits, kills. Gives how many there were.
pub(super) fn end(hosts: &Path, patience: Duration) -> usize {
    let mut ended = 0;
    // What an agent starts at its end is found in the second round.
    for _ in 0..2 {
        let left = find(hosts);
        ended += left.len();
        left.iter().for_each(|process| process.signal(Signal::TERM));
        let deadline = Instant::now() + patience;
        for process in &left {
            if !process.ended_by(deadline) {
                process.signal(Signal::KILL);
                process.ended_by(Instant::now() + patience);
            }
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_configuration_of_ours_is_ours() {
        let check = |line: &str, expected: bool| {
            let line = line.replace(' ', "\0") + "\0";
            assert_eq!(is_ours(line.as_bytes(), Path::new("/s/dev/hosts")), expected, "{line:?}");
        };
        check("/usr/bin/musterd --config /s/dev/hosts/web-01.ams1/musterd.toml --until-input-ends", true);
        check("/proc/self/exe --config /s/dev/hosts/web-01.ams1/musterd.toml run-action /s/dev/x", true);
        check("/usr/bin/musterd --config /etc/muster/musterd.toml", false);
        check("/usr/bin/musterd --config /s/dev2/hosts/web-01.ams1/musterd.toml", false);
        check("vi /s/dev/hosts/web-01.ams1/musterd.toml", false);
        check("tail --config /s/dev/hosts/web-01.ams1/log", false);
        check("", false);
    }

    #[test]
    fn what_was_started_by_ours_is_killed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        let mut command = std::process::Command::new("/bin/sh");
        // A child in a session of its own, which tells its number.
        command.args(["-c", "setsid sh -c 'echo $$; read -r _ < /dev/zero' & wait", "sh", "--config"]);
        command.arg(hosts.join("a/musterd.toml")).stdout(std::process::Stdio::piped());
        let mut ours = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(ours.stdout.take().unwrap()), &mut line).unwrap();
        let child: i32 = line.trim().parse().unwrap();
        let pid = u32::try_from(parent(child).unwrap()).unwrap();
        assert!(is_running(ours.id(), &hosts) && !is_running(std::process::id(), &hosts), "{pid}");
        let held = pidfd_open(Pid::from_raw(child).unwrap(), PidfdFlags::empty()).unwrap();
        kill(&hosts);
        assert!(!ours.wait().unwrap().success());
        let child = Leftover { number: child, handle: held };
        assert!(child.ended_by(Instant::now() + Duration::from_secs(30)), "the child goes on");
        assert!(!is_running(ours.id(), &hosts));
    }

    #[test]
    fn what_is_left_is_ended_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        let ours = hosts.join("a/musterd.toml");
        let start = |config: &Path| {
            // Words behind the text are the shell's own, and stand on its command line.
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", "read -r _", "sh", "--config"]).arg(config).stdin(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let mut left = start(&ours);
        let mut other = start(Path::new("/nowhere/hosts/a/musterd.toml"));
        assert_eq!(end(&hosts, Duration::from_secs(30)), 1);
        assert!(!left.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "somebody else's process was ended");
        drop(other.stdin.take());
        other.wait().unwrap();
        assert_eq!(end(&hosts, Duration::from_secs(30)), 0);
    }
}
