//! What the system must allow for so many hosts, and which setting does not.

use std::fs;

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files of one agent: journal, audit log, lock, connection with its second handle, and what it opens in passing.
pub(crate) const FILES_PER_AGENT: u64 = 6;

/// Open files of a process besides its agents' or connections.
const FILES_BESIDES: u64 = 1_024;

/// Most hosts in one process, whatever the system allows.
const HOSTS_PER_PROCESS_MAX: u64 = 2_500;

/// Threads of one agent: lapin has one for each connection.
const THREADS_PER_AGENT: u64 = 1;

/// Threads and processes besides the agents': the broker's and everybody else's.
const THREADS_BESIDES: u64 = 2_048;

/// Mappings of one agent: stack and guard of its thread, buffers. Measured 4.6.
const MAPPINGS_PER_AGENT: u64 = 6;

/// Mappings of a process besides its agents'.
const MAPPINGS_BESIDES: u64 = 2_000;

/// Memory of one agent, its connection in the broker and its queue, in KiB. Measured 700 to 850.
const KIB_PER_AGENT: u64 = 1_000;

/// Memory of broker and fleet without hosts, in KiB.
const KIB_BESIDES: u64 = 400 * 1_024;

/// What a system allows. `None` where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Allowed {
    /// Files that one process may have open.
    pub(crate) files: Option<u64>,
    /// Processes and threads of this user.
    pub(crate) user_processes: Option<u64>,
    /// Threads of the system.
    pub(crate) threads_max: Option<u64>,
    /// Numbers for processes and threads.
    pub(crate) pid_max: Option<u64>,
    /// Processes and threads of this control group.
    pub(crate) group_pids: Option<u64>,
    /// Mappings of one process.
    pub(crate) mappings: Option<u64>,
    /// Memory that is free, in KiB.
    pub(crate) memory_kib: Option<u64>,
}

impl Allowed {
    /// Asks the system, and takes as many open files as it gives.
    pub(crate) fn by_system() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        // The kernel's word for no limit is a number that is none.
        let limit = |resource| getrlimit(resource).ok().map(|(_, hard)| hard);
        Self {
            files: open_files(),
            user_processes: limit(Resource::RLIMIT_NPROC),
            threads_max: number("/proc/sys/kernel/threads-max"),
            pid_max: number("/proc/sys/kernel/pid_max"),
            group_pids: group_pids(),
            mappings: number("/proc/sys/vm/max_map_count"),
            memory_kib: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_available(&text)),
        }
    }

    /// How many hosts one process may have.
    pub(crate) fn hosts_per_process(&self) -> usize {
        let room = |allowed: Option<u64>, besides: u64, each: u64| {
            allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(besides) / each)
        };
        let fit = room(self.files, FILES_BESIDES, FILES_PER_AGENT)
            .min(room(self.mappings, MAPPINGS_BESIDES, MAPPINGS_PER_AGENT))
            .min(HOSTS_PER_PROCESS_MAX);
        usize::try_from(fit).unwrap_or(usize::MAX)
    }

    /// What is missing for so many hosts, each with the command that changes it.
    pub(crate) fn missing(&self, hosts: usize) -> Vec<String> {
        let hosts = u64::try_from(hosts).unwrap_or(u64::MAX);
        // The broker has one for each connection, and so has a raw echo.
        let files = hosts.saturating_add(FILES_BESIDES);
        let threads = hosts.saturating_mul(THREADS_PER_AGENT).saturating_add(THREADS_BESIDES);
        let memory_kib = hosts.saturating_mul(KIB_PER_AGENT).saturating_add(KIB_BESIDES);
        let rows = [
            (self.files, files, "open files in one process", format!("ulimit -n {files}, as root before")),
            (self.user_processes, threads, "threads of one user", format!("ulimit -u {threads}, as root before")),
            (self.threads_max, threads, "threads", format!("sysctl -w kernel.threads-max={threads}")),
            (self.pid_max, threads, "numbers for threads", format!("sysctl -w kernel.pid_max={threads}")),
            (
                self.group_pids,
                threads,
                "threads in this control group",
                format!("systemd-run --scope -p TasksMax={threads} in front of the command"),
            ),
            (
                self.memory_kib,
                memory_kib,
                "KiB of free memory",
                "a larger machine, fewer hosts, or end what else runs".to_owned(),
            ),
        ];
        let mut missing: Vec<String> = rows
            .into_iter()
            .filter_map(|(allowed, wanted, what, remedy)| {
                let allowed = allowed.filter(|allowed| *allowed < wanted)?;
                Some(format!("{wanted} {what} are needed and {allowed} are allowed: {remedy}"))
            })
            .collect();
        if self.hosts_per_process() == 0 {
            missing
                .push("one process may not hold a single agent: raise `ulimit -n` and `vm.max_map_count`".to_owned());
        }
        missing
    }
}

/// Makes sure that the system has room for so many hosts.
///
/// # Errors
/// It has not; with every setting that is too small and the command that changes it.
pub(crate) fn require(hosts: usize) -> Result<Allowed> {
    let allowed = Allowed::by_system();
    let missing = allowed.missing(hosts);
    if missing.is_empty() {
        return Ok(allowed);
    }
    bail!("this system has no room for {hosts} hosts:\n  {}", missing.join("\n  "));
}

/// Takes as many open files as the system gives, for this process and those that it starts. Says how many.
fn open_files() -> Option<u64> {
    /// More than any fleet needs, where the limit can be raised.
    const WANTED: u64 = 262_144;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < WANTED && setrlimit(Resource::RLIMIT_NOFILE, WANTED, hard.max(WANTED)).is_err() {
        // Not for this user: then what is given without asking.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

/// The limit of this process's control group, in either layout of the file system.
fn group_pids() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    group_directories(&groups)
        .into_iter()
        .filter_map(|directory| fs::read_to_string(format!("{directory}/pids.max")).ok()?.trim().parse().ok())
        .min()
}

/// Directories of a process's control groups that may limit processes: its own and all above.
fn group_directories(groups: &str) -> Vec<String> {
    let mut directories = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            controllers if controllers.split(',').any(|name| name == "pids") => "/sys/fs/cgroup/pids",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            directories.push(format!("{root}{path}"));
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    directories
}

/// `MemAvailable` of /proc/meminfo, in KiB.
fn memory_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Allowed = Allowed {
        files: Some(20_000),
        user_processes: Some(96_000),
        threads_max: Some(190_000),
        pid_max: Some(32_768),
        group_pids: None,
        mappings: Some(65_530),
        memory_kib: Some(20_000_000),
    };

    #[test]
    fn every_setting_that_is_too_small_is_named_with_its_remedy() {
        // What the system allows, hosts, words of what is told.
        let cases: [(Allowed, usize, &[&str]); 8] = [
            (PLENTY, 10_000, &[]),
            (Allowed::default(), 10_000, &[]),
            (Allowed { files: Some(4_096), ..PLENTY }, 10_000, &["11024 open files", "4096", "ulimit -n 11024"]),
            (Allowed { pid_max: Some(8_000), ..PLENTY }, 10_000, &["kernel.pid_max=12048"]),
            (Allowed { group_pids: Some(9_000), ..PLENTY }, 10_000, &["TasksMax=12048"]),
            (Allowed { memory_kib: Some(8_000_000), ..PLENTY }, 10_000, &["KiB of free memory"]),
            (Allowed { mappings: Some(1_000), ..PLENTY }, 1, &["vm.max_map_count"]),
            (
                Allowed { user_processes: Some(100), threads_max: Some(100), ..PLENTY },
                1,
                &["ulimit -u 2049", "kernel.threads-max=2049"],
            ),
        ];
        for (allowed, hosts, words) in cases {
            let missing = allowed.missing(hosts).join("\n");
            assert_eq!(missing.is_empty(), words.is_empty(), "{missing}");
            for word in words {
                assert!(missing.contains(word), "`{word}` is not in: {missing}");
            }
        }
    }

    #[test]
    fn a_process_gets_as_many_hosts_as_its_files_and_mappings_allow() {
        let cases = [
            (PLENTY, 2_500),
            (Allowed { files: Some(7_024), ..PLENTY }, 1_000),
            (Allowed { mappings: Some(8_000), ..PLENTY }, 1_000),
            (Allowed { files: Some(1_024), ..PLENTY }, 0),
            (Allowed::default(), 2_500),
        ];
        for (allowed, hosts) in cases {
            assert_eq!(allowed.hosts_per_process(), hosts, "{allowed:?}");
        }
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let expected = ["/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"];
        assert_eq!(group_directories("0::/user.slice/a.scope\n"), expected);
        assert_eq!(group_directories("4:cpu,pids:/x\n3:memory:/y\n"), ["/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/pids"]);
        assert_eq!(memory_available("MemTotal: 9 kB\nMemAvailable:    1234 kB\n"), Some(1_234));
        assert_eq!(memory_available("MemTotal: 9 kB\n"), None);
        assert!(Allowed::by_system().files.is_some_and(|files| files > 0));
    }
}
