//! The agent's directory of state: who may see it, and that only one agent uses it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_daemon::WriteError;

/// Names inside the directory, in one place.
pub mod files {
    /// Held locked by the running agent.
    pub const LOCK: &str = "lock";
    /// Request ids: [`crate::journal`].
    pub const JOURNAL: &str = "journal";
    /// Room on the disk for the ends of actions: [`crate::reserve`].
    pub const RESERVE: &str = "reserve";
    /// Unconfirmed final reports: [`crate::spool`].
    pub const SPOOL: &str = "spool";
    /// The audit log, unless the configuration names another place: [`crate::audit`].
    pub const AUDIT: &str = "audit.jsonl";
    /// The newest revocation list that came over the bus.
    pub const REVOCATION_LIST: &str = "crl.pem";
    /// The private key that secret arguments are sealed to.
    pub const SEALING_KEY: &str = "sealing.key";
    /// Files that actions need while they run; emptied at start.
    pub const WORK: &str = "work";
    /// Actions in processes of their own, and results: [`crate::detached`], [`crate::results`].
    pub const ACTIONS: &str = "actions";
    /// Digests of the profiles that were announced: [`crate::profiles`].
    pub const PROFILES: &str = "profiles.json";
    /// The collectives bound last time, so that bindings no longer wanted can be taken off.
    pub const COLLECTIVES: &str = "collectives.json";
}

/// How often the lock is tried. An agent that was killed while it started a program leaves a copy of the lock in
/// that program until it runs, which is a moment.
const LOCK_TRIES: u32 = 100;

/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made or opened.
    #[error("{action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("state directory `{path}` is in use by another musterd")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// The directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory where it is missing (mode 0700) and locks it. The kernel gives the lock
    /// back when the process ends, however it ends.
    ///
    /// # Errors
    /// When it cannot be made, or another process has it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { action, path, source }
        };
        make_private_directory(path).map_err(failed("make state directory", path))?;
        check_trusted(path).map_err(failed("trust state directory", path))?;
        let lock_path = path.join(files::LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        for tries_left in (0..LOCK_TRIES).rev() {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if tries_left > 0 => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path)(error)),
            }
        }
        Err(StateError::InUse { path: path.to_owned() })
    }

    /// The path of a file inside.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a directory that only the agent's user can enter, with its parents.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Checks that a file or directory that decides what the agent does can be written by nobody but root or
/// the agent's user.
///
/// # Errors
/// It cannot be looked at, or somebody else can write it; the message says what to do.
pub fn check_trusted(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != nix::unistd::Uid::effective().as_raw() {
        return refused(format!(
            "it belongs to user {owner}, not to root or the agent's user: chown root {}",
            path.display()
        ));
    }
    if mode & 0o022 != 0 {
        return refused(format!("others can write it (mode {mode:04o}): chmod go-w {}", path.display()));
    }
    Ok(())
}

/// Keeps the kind of error that a failed atomic write had.
pub(crate) fn io_error(error: WriteError) -> io::Error {
    io::Error::new(error.io().kind(), error)
}
