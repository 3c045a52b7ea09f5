//! Processes of an earlier run that were not stopped: found by the configuration file on their command line, which lies
//! in a directory that is locked, so that no other run can have started them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process with one of our configuration files, held so that its number cannot come to mean another one.
#[derive(Debug)]
struct Leftover {
    handle: OwnedFd,
}

/// Finds the processes of this user that were started with a configuration file below `hosts`.
fn find(hosts: &Path) -> Vec<Leftover> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(|number| at(number, hosts)).collect()
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
    Some(Leftover { handle })
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
