//! The lock of a run: whether one goes on, and whose it is.
//!
//! Puppet writes its process number into a file and removes it at the end. A run that was killed, or
//! a host that went down, leaves the file behind, and sooner or later the number belongs to somebody
//! else. Puppet looks whether the process is one of Puppet's by its name; so does this, and it also
//! compares times: a process that began after the file was written has not written it.

use std::fs;
use std::path::Path;

use muster_plugin_api::ActionFailure;

use super::files;

/// How much later than the lock a process may seem to begin and still have written it: the start of
/// a process is kept in hundredths of a second since the boot, and the time of the boot in seconds.
const CLOCK_TOLERANCE_MS: i64 = 10_000;

/// Units in which `/proc/PID/stat` counts, per second: always 100 on the architectures Linux runs on today.
const TICKS_PER_S: i64 = 100;

/// Longest command line that is repeated, in characters.
const COMMAND_CHARACTERS_MAX: usize = 300;

/// The lock of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lock {
    /// There is none.
    Free,
    /// A run goes on.
    Held(Holder),
    /// The file is there, but the run is not.
    Stale {
        /// What the file says, if it is a process number.
        pid: Option<u32>,
        /// Why it is not believed, in words that follow "the lock is stale:".
        why: String,
    },
}

/// The process that runs Puppet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// Since when it holds the lock.
    pub(super) since_ms: Option<i64>,
    /// Its command line.
    pub(super) command: String,
    /// `daemon` for a run of the daemon, `onetime` for one that somebody started.
    pub(super) mode: &'static str,
    /// The name of the process that started it.
    pub(super) parent: Option<String>,
}

/// A process as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    name: String,
    command: String,
    parent: u32,
    started_ms: Option<i64>,
}

impl Lock {
    /// Reads the lock and looks at the process it names.
    pub(super) fn read(path: &Path, processes: &Path) -> Result<Self, ActionFailure> {
        let Some(content) = files::text(path)? else { return Ok(Self::Free) };
        let written_ms = files::written_ms(path);
        let pid = content.trim().parse::<u32>().ok();
        let process = pid.and_then(|pid| Process::read(processes, pid));
        let lock = Self::judge(&content, written_ms, process.as_ref());
        // Whoever ended between the two readings took the lock along.
        if matches!(lock, Self::Stale { .. }) && files::text(path)?.is_none_or(|now| now != content) {
            return Ok(Self::Free);
        }
        Ok(match lock {
            Self::Held(holder) => {
                let parent = process.and_then(|process| Process::read(processes, process.parent));
                Self::Held(Holder { parent: parent.map(|parent| parent.name), ..holder })
            }
            other => other,
        })
    }

    pub(super) fn judge(content: &str, written_ms: Option<i64>, process: Option<&Process>) -> Self {
        let stale = |pid, why: String| Self::Stale { pid, why };
        let Ok(pid) = content.trim().parse::<u32>() else {
            return stale(None, "it holds no process number".to_owned());
        };
        let Some(process) = process else { return stale(Some(pid), format!("there is no process {pid}")) };
        if !process.is_puppet() {
            return stale(Some(pid), format!("process {pid} is `{}`, not Puppet", process.name));
        }
        if let (Some(started), Some(written)) = (process.started_ms, written_ms)
            && started > written.saturating_add(CLOCK_TOLERANCE_MS)
        {
            let later_s = (started - written) / 1000;
            return stale(Some(pid), format!("process {pid} began {later_s} s after the lock was written"));
        }
        Self::Held(Holder {
            pid,
            since_ms: written_ms,
            command: files::cut(&process.command, COMMAND_CHARACTERS_MAX),
            mode: if process.command.starts_with("puppet agent: ") { "daemon" } else { "onetime" },
            parent: None,
        })
    }

    /// The holder, if a run goes on.
    pub(super) fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held(holder) => Some(holder),
            Self::Free | Self::Stale { .. } => None,
        }
    }

    /// In one word: free, held or stale.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held(_) => "held",
            Self::Stale { .. } => "stale",
        }
    }

    /// Why the lock is not believed, if it is not.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Stale { why, .. } => Some(why.clone()),
            Self::Free | Self::Held(_) => None,
        }
    }
}

/// The process number of the daemon, if it runs.
pub(super) fn daemon(path: &Path, processes: &Path) -> Result<Option<u32>, ActionFailure> {
    // The file is written when the daemon starts, so that the same rules hold.
    Ok(Lock::read(path, processes)?.holder().map(|holder| holder.pid))
}

impl Holder {
    /// Who it is, for a message: `process 4711 (`puppet agent: applying configuration`, started by `cron`)`.
    pub(super) fn shown(&self) -> String {
        let parent = self.parent.as_ref().map(|parent| format!(", started by `{parent}`")).unwrap_or_default();
        format!("process {} (`{}`{parent})", self.pid, self.command)
    }
}

impl Process {
    /// The process of that number; none if it is over, also if nobody has taken note of its end yet.
    fn read(processes: &Path, pid: u32) -> Option<Self> {
        let directory = processes.join(pid.to_string());
        let stat = fs::read(directory.join("stat")).ok()?;
        let boot_s = fs::read_to_string(processes.join("stat")).ok().and_then(|stat| boot_s(&stat));
        let words = fs::read(directory.join("cmdline")).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&stat), &words, boot_s)
    }

    /// From `/proc/PID/stat` and `/proc/PID/cmdline` (proc(5)). The name in parentheses may hold anything, even `)`.
    pub(super) fn parse(stat: &str, words: &[u8], boot_s: Option<i64>) -> Option<Self> {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X" | "x") {
            return None;
        }
        let ticks: Option<i64> = fields.get(19).and_then(|ticks| ticks.parse().ok());
        let started_ms = boot_s
            .zip(ticks)
            .map(|(boot, ticks)| boot.saturating_mul(1000).saturating_add(ticks.saturating_mul(1000) / TICKS_PER_S));
        let command = String::from_utf8_lossy(words).replace('\0', " ");
        let command: String = command.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(Self { name: name.to_owned(), command, parent: fields.get(1)?.parse().ok()?, started_ms })
    }

    /// Puppet's own rule (`Puppet::Util::Pidlock`), so that both take the same locks as held.
    fn is_puppet(&self) -> bool {
        let own_name = self.name == "puppet" || self.name.starts_with("puppet-");
        own_name || (self.name.contains("ruby") && self.command.contains("puppet"))
    }
}

/// When the system started, in seconds since 1970, from `/proc/stat`.
pub(super) fn boot_s(stat: &str) -> Option<i64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|seconds| seconds.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT_S: i64 = 1_795_000_000;

    fn process(name: &str, command: &str, started_s: i64) -> Option<Process> {
        let ticks = (started_s - BOOT_S) * 100;
        let stat = format!("301 ({name}) S 300 301 301 0 -1 4194560 1 0 0 0 9 9 0 0 20 0 1 0 {ticks} 12 13");
        Process::parse(&stat, command.as_bytes(), Some(BOOT_S))
    }

    #[track_caller]
    fn check(content: &str, process: Option<Process>, expected: &str) {
        let lock = Lock::judge(content, Some((BOOT_S + 1000) * 1000), process.as_ref());
        let shown = match &lock {
            Lock::Held(holder) => format!("{} {}", holder.mode, holder.pid),
            other => other.problem().unwrap_or_default(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn whether_a_run_goes_on() {
        let started = BOOT_S + 999;
        let onetime = process("puppet", "/usr/bin/ruby\0/usr/bin/puppet\0agent\0--test\0", started);
        check("301", onetime.clone(), "onetime 301");
        check("301\n", onetime.clone(), "onetime 301");
        check("301", process("ruby", "puppet agent: applying configuration\0", started), "daemon 301");
        check("301", process("ruby3.1", "/usr/bin/ruby3.1\0/usr/bin/puppet\0agent\0", started), "onetime 301");
        check("301", process("puppet", "puppet agent\0", BOOT_S + 1005), "onetime 301");

        check("301", None, "there is no process 301");
        check("301", process("vim", "vim\0/etc/puppet/puppet.conf\0", started), "process 301 is `vim`, not Puppet");
        check("301", process("ruby", "ruby\0app.rb\0", started), "process 301 is `ruby`, not Puppet");
        check("301", process("puppetdb", "java\0", started), "process 301 is `puppetdb`, not Puppet");
        check("301", process("puppet", "", BOOT_S + 5000), "process 301 began 4000 s after the lock was written");
        for garbage in ["", "x", "-1", "12 13", "99999999999", "1\0"] {
            check(garbage, onetime.clone(), "it holds no process number");
        }
    }

    #[test]
    fn processes_are_read() {
        assert_eq!(Process::parse("301 (a) b) Z 300 301", b"", None), None, "a zombie is over");
        let odd = Process::parse("301 (a) (b) S 300 301", b"a\0b\nc\0", None).unwrap();
        assert_eq!((odd.name.as_str(), odd.command.as_str(), odd.started_ms), ("a) (b", "a b c", None));
        for bad in ["", "301", "301 (", "301 (a)", "301 (a) S", "301 (a) S x"] {
            assert_eq!(Process::parse(bad, b"", None), None, "{bad}");
        }
        assert_eq!(boot_s("cpu 1 2\nbtime 1795000000\nprocesses 3\n"), Some(BOOT_S));
        assert_eq!(boot_s("cpu 1 2\n"), None);
    }
}
