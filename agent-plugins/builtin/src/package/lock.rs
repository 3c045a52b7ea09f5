//! Who holds the package manager's lock.
//!
//! Looking is done without taking anything: record locks are asked for with `F_GETLK`, locks on whole files
//! are read from `/proc/locks`. Our own actions queue up behind one lock of ours, on the directory of the
//! database: it needs no file, disturbs no package manager, and goes with the process that holds it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

/// How a package manager locks a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockKind {
    /// With a record lock, `fcntl(2)`: dpkg, apt and rpm.
    Record,
    /// As a whole, `flock(2)`: apk, and ourselves.
    Whole,
    /// With its process number in the file, which may be left from a process that is gone: zypper. Says who, when
    /// it is known from elsewhere that somebody is at work; never that somebody is.
    Number,
}

/// A file that is locked while packages are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockFile {
    pub(super) path: PathBuf,
    pub(super) kind: LockKind,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Holder {
    /// The locked file.
    pub(super) lock: PathBuf,
    /// The process; null where the kernel does not tell.
    pub(super) pid: Option<i32>,
    /// Its program and command, such as `apt-get install`.
    pub(super) command: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) if self.command.is_empty() => write!(f, "process {pid}"),
            Some(pid) => write!(f, "process {pid} (`{}`)", self.command),
            None => write!(f, "a process that cannot be seen from here"),
        }
    }
}

impl LockFile {
    /// A record lock.
    pub(super) fn record(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: LockKind::Record }
    }

    /// Who holds it now. A lock file that is not there is held by nobody.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub(super) fn holder(&self) -> io::Result<Option<Holder>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let pid = match self.kind {
            LockKind::Record => record_holder(&file)?,
            LockKind::Whole => whole_holder(&file)?,
            LockKind::Number => return Ok(None),
        };
        Ok(pid.map(|pid| self.held_by(pid)))
    }

    /// Who is said to be at work, when it is known that somebody is.
    pub(super) fn suspect(&self) -> Option<Holder> {
        match self.kind {
            LockKind::Number => {
                let pid = fs::read_to_string(&self.path).ok()?.trim().parse().ok()?;
                Path::new("/proc").join(format!("{pid}")).is_dir().then(|| self.held_by(pid))
            }
            LockKind::Record | LockKind::Whole => self.holder().ok().flatten(),
        }
    }

    fn held_by(&self, pid: i32) -> Holder {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // 0 and below stand for processes in another namespace, and for locks without an owner.
        Holder { lock: self.path.clone(), pid: (pid > 0).then_some(pid), command: shown_command(&command) }
    }
}

/// The process that would be in the way of a record lock on the whole file.
fn record_holder(file: &File) -> io::Result<Option<i32>> {
    let mut wanted = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_GETLK(&mut wanted))?;
    Ok((wanted.l_type != libc::F_UNLCK as libc::c_short).then_some(wanted.l_pid))
}

/// The process that has locked the whole file, from the kernel's table of locks.
fn whole_holder(file: &File) -> io::Result<Option<i32>> {
    let meta = file.metadata()?;
    let (major, minor) = (nix::sys::stat::major(meta.dev()), nix::sys::stat::minor(meta.dev()));
    let table = fs::read_to_string("/proc/locks")?;
    Ok(parse_locks(&table, major, minor, meta.ino()))
}

/// Finds a lock on a whole file in `/proc/locks` (proc(5)): `1: FLOCK  ADVISORY  WRITE 123 08:01:456 0 EOF`.
/// Lines with `->` wait for the lock instead of holding it.
pub(super) fn parse_locks(table: &str, major: u64, minor: u64, inode: u64) -> Option<i32> {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    table.lines().find_map(|line| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
        _ => None,
    })
}

/// The program, and its command or, after an interpreter, its script; without directories. Other words may be
/// nobody's business.
pub(super) fn shown_command(command: &[u8]) -> String {
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).filter(|word| !word.is_empty());
    let shown = |word: &str| -> String {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.chars().filter(|c| !c.is_control()).take(40).collect()
    };
    let Some(program) = words.next() else { return String::new() };
    let rest: Vec<_> = words.collect();
    let is_command = |word: &str| !word.starts_with('-') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let script = rest.first().filter(|word| word.starts_with('/'));
    let second = script.or_else(|| rest.iter().find(|word| is_command(word)));
    second.map_or_else(|| shown(&program), |second| format!("{} {}", shown(&program), shown(second)))
}

/// Our own place in the queue. Dropping it lets the next action go on.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: Flock<File>,
}

/// Takes our own lock on a directory if it is free; otherwise says who has it.
///
/// # Errors
/// When the directory cannot be opened or locked at all.
pub(super) fn take_turn(directory: &Path) -> io::Result<Result<Turn, Holder>> {
    let file = File::open(directory)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(Turn { _lock: lock })),
        Err((file, Errno::EWOULDBLOCK)) => {
            let own = LockFile { path: directory.to_owned(), kind: LockKind::Whole };
            let pid = whole_holder(&file).ok().flatten().unwrap_or_default();
            Ok(Err(own.held_by(pid)))
        }
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table() {
        let table = "1: POSIX  ADVISORY  WRITE 100 08:01:7 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 200 08:01:8 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 300 08:01:8 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 400 fd:1f:9 0 EOF\n";
        assert_eq!(parse_locks(table, 8, 1, 8), Some(200));
        assert_eq!(parse_locks(table, 0xfd, 0x1f, 9), Some(400));
        assert_eq!(parse_locks(table, 8, 1, 7), None, "another kind of lock");
        assert_eq!(parse_locks("garbage\n\n", 8, 1, 8), None);
    }

    #[test]
    fn a_command_is_shown_without_its_options() {
        assert_eq!(shown_command(b"/usr/bin/apt-get\0-y\0install\0--secret=x\0"), "apt-get install");
        assert_eq!(shown_command(b"/usr/bin/python3\0/usr/bin/unattended-upgrade\0"), "python3 unattended-upgrade");
        assert_eq!(shown_command(b"rpm\0--root\0/tmp/x.1\0-U\0"), "rpm");
        assert_eq!(shown_command(b""), "");
    }

    #[test]
    fn two_turns_on_one_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = take_turn(directory.path()).unwrap().unwrap();
        let holder = take_turn(directory.path()).unwrap().unwrap_err();
        assert_eq!(holder.pid, Some(i32::try_from(std::process::id()).unwrap()));
        drop(first);
        assert!(take_turn(directory.path()).unwrap().is_ok());
    }
}
