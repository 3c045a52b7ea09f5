//! A record on disk of the programs that a process has started, for whoever has to clean up after it
//! was killed.
//!
//! One line a program: process id, start time in clock ticks since boot (proc(5), field 22), boot id. The
//! three together name one process for ever; an id alone is given to others sooner or later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid, read, write};
use tokio::time::Instant;

use super::session::{KILL_PATIENCE, LOOK_INTERVAL, of_session, table};

/// Where programs are noted as they start, if anywhere.
static RECORD: Mutex<Option<File>> = Mutex::new(None);

/// Notes every program that this process starts from now on in a file, which only root may read.
///
/// # Errors
/// When the file cannot be made.
pub fn record_programs(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    *RECORD.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// How a new process notes itself before it becomes a program. Its parent could be killed between the program's start
/// and a note of its own, and nobody would find the program then.
#[derive(Debug)]
pub(super) struct Note {
    record: File,
    boot_id: String,
}

impl Note {
    /// Opens and looks up what is needed, in the parent. Gives nothing if nothing is noted, or if that cannot be: a
    /// record that cannot be written stops no program.
    pub(super) fn prepare() -> Option<Self> {
        let record = RECORD.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { record: record.as_ref()?.try_clone().ok()?, boot_id: boot_id()? })
    }

    /// Notes the process that calls this. Neither allocates nor locks, since it is called between fork and exec.
    pub(super) fn write(&self) {
        let mut stat = [0; 1024];
        let read = open(c"/proc/self/stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(|file| read(&file, &mut stat));
        let Ok(Ok(stat)) = read.map(|length| std::str::from_utf8(&stat[..length])) else { return };
        let Some(ticks) = start_ticks(stat) else { return };
        let mut line = [0; 128];
        let mut rest = &mut line[..];
        if writeln!(rest, "{} {ticks} {}", getpid(), self.boot_id).is_ok() {
            let left = rest.len();
            let _unwritable = write(&self.record, &line[..line.len() - left]);
        }
    }
}

/// What tells a process from all others that ever had or will have its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStart {
    /// When it started, in clock ticks since boot.
    pub ticks: u64,
    /// Which boot of the host.
    pub boot_id: String,
}

impl ProcessStart {
    /// Of a process that exists now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { ticks: start_ticks(&stat)?, boot_id: boot_id()? })
    }
}

/// Which boot of the host this is (random(4)).
#[must_use]
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat`. The name in parentheses may hold anything, even `)`.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Ends what is left in the sessions of recorded programs, politely first. Returns how many processes there
/// were. Sessions of an earlier boot, and ids that have another process by now, are left alone.
pub async fn end_recorded(path: &Path, grace: Duration) -> usize {
    let text = fs::read_to_string(path).unwrap_or_default();
    let boot = boot_id();
    let leaders: Vec<Pid> = text.lines().filter_map(|line| leader(line, boot.as_deref())).collect();
    let found = members(&leaders).len();
    for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, KILL_PATIENCE)] {
        let deadline = Instant::now() + patience;
        let mut first = true;
        loop {
            let left = members(&leaders);
            if left.is_empty() {
                return found;
            }
            if first || signal == Signal::SIGKILL {
                for (leader, pid) in left {
                    let _gone = if leader == pid { killpg(leader, signal) } else { kill(pid, signal) };
                }
            }
            first = false;
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    found
}

/// The program of a line, unless its id belongs to another process by now.
fn leader(line: &str, boot: Option<&str>) -> Option<Pid> {
    let mut fields = line.split(' ');
    let pid: i32 = fields.next()?.parse().ok()?;
    let ticks: u64 = fields.next()?.parse().ok()?;
    if pid <= 1 || fields.next() != boot {
        return None;
    }
    // Who is gone may have left a session behind; its number is not given away while somebody is in it.
    match ProcessStart::of(pid) {
        Some(now) if now.ticks != ticks => None,
        _ => Some(Pid::from_raw(pid)),
    }
}

/// Leader and process of everybody alive in the sessions.
fn members(leaders: &[Pid]) -> Vec<(Pid, Pid)> {
    let table = table();
    let of_leader = |leader: &Pid| of_session(&table, *leader).into_iter().map(|(pid, _)| (*leader, pid)).collect();
    leaders.iter().flat_map(|leader| -> Vec<(Pid, Pid)> { of_leader(leader) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_process_only_in_its_own_boot_and_with_its_own_start() {
        let me = std::process::id();
        let start = ProcessStart::of(i32::try_from(me).unwrap()).unwrap();
        let boot = start.boot_id.as_str();
        let check = |line: String, expected: bool| {
            assert_eq!(leader(&line, Some(boot)).is_some(), expected, "{line}");
        };
        check(format!("{me} {} {boot}", start.ticks), true);
        check(format!("{me} {} {boot}", start.ticks + 1), false);
        check(format!("{me} {} another", start.ticks), false);
        check(format!("{me} {}", start.ticks), false);
        check(format!("1 {} {boot}", start.ticks), false);
        check("rubbish".to_owned(), false);
        check(String::new(), false);
    }

    #[test]
    fn a_process_notes_itself() {
        let record = tempfile::NamedTempFile::new().unwrap();
        let note = Note { record: record.reopen().unwrap(), boot_id: boot_id().unwrap() };
        note.write();
        let line = fs::read_to_string(record.path()).unwrap();
        assert!(line.ends_with('\n'), "{line}");
        assert_eq!(leader(line.trim_end(), boot_id().as_deref()), Some(getpid()), "{line}");
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let tail = (1..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_ticks(&format!("9 (a) b) S {tail}")), Some(19));
        assert_eq!(start_ticks("9 (a) S 1 2"), None);
    }
}
