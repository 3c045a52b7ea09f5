//! The agent's directory of state: who may see it, and that only one agent uses it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_daemon::disk::{self, Open, write_atomic};
use muster_daemon::trusted::judge;
use muster_daemon::{Disk, DiskFile, RealDisk};

pub use muster_daemon::trusted::check_trusted;
pub(crate) use muster_daemon::trusted::check_way;

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
    /// What waits in the spool and why, for whoever looks: [`crate::spool::SpoolState`].
    pub const SPOOL_STATE: &str = "spool.json";
    /// The audit log, unless the configuration names another place: [`crate::audit`].
    pub const AUDIT: &str = "audit.jsonl";
    /// The newest revocation list that came over the bus.
    pub const REVOCATION_LIST: &str = "crl.pem";
    /// The numbers of the lists that were in force, by authority: one that is gone is missed.
    pub const REVOCATION_NUMBERS: &str = "crl-numbers.json";
    /// The private key that secret arguments are sealed to.
    pub const SEALING_KEY: &str = "sealing.key";
    /// Files that actions need while they run; emptied at start.
    pub const WORK: &str = "work";
    /// Actions in processes of their own, and results: [`crate::detached`], [`crate::results`].
    pub const ACTIONS: &str = "actions";
    /// Digests of the profiles that were announced: [`crate::profiles`].
    pub const PROFILES: &str = "profiles.json";
    /// The socket on which the agent tells how it is: [`crate::status`].
    pub const STATUS_SOCKET: &str = "status.sock";
    /// The collectives bound last time, so that bindings no longer wanted can be taken off.
    pub const COLLECTIVES: &str = "collectives.json";
}

/// Longest file that is read whole: a revocation list of 100,000 certificates fits.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

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
    disk: Arc<dyn Disk>,
    _lock: Arc<dyn DiskFile>,
}

impl StateDirectory {
    /// Makes the directory where it is missing (mode 0700) and locks it. The kernel gives the lock
    /// back when the process ends, however it ends. Then removes what an agent that was killed had begun to write.
    ///
    /// # Errors
    /// When it cannot be made, or another process has it.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self, StateError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { action, path, source }
        };
        disk.make_private_directory_durably(path).map_err(failed("make state directory", path))?;
        let found = disk.metadata(path).map_err(failed("trust state directory", path))?;
        judge(path, &found).map_err(failed("trust state directory", path))?;
        let lock_path = path.join(files::LOCK);
        let lock = disk.open(&lock_path, Open::Append { mode: 0o600 }).map_err(failed("open", &lock_path))?;
        for tries_left in (0..LOCK_TRIES).rev() {
            if lock.try_lock().map_err(failed("lock", &lock_path))? {
                disk.remove_temporary_files(path).map_err(failed("clear up", path))?;
                return Ok(Self { path: path.to_owned(), disk: disk.clone(), _lock: lock });
            }
            if tries_left > 0 {
                std::thread::sleep(LOCK_PAUSE);
            }
        }
        Err(StateError::InUse { path: path.to_owned() })
    }

    /// The path of a file inside.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The disk it is on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Reads a file inside; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is longer than a file of this kind can be.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.disk.read(&self.file(name), FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`write`](Self::write), without waiting for the disk: for what only tells how it is now.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_unsynced(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        Ok(disk::write_unsynced(&*self.disk, &self.file(name), 0o600, bytes)?)
    }

    /// Replaces a file inside, mode 0600.
    ///
    /// # Errors
    /// It cannot be written; the old one is as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        Ok(write_atomic(&*self.disk, &self.file(name), 0o600, bytes)?)
    }
}

/// Makes a directory on the machine's own disk that only the agent's user can enter, with its parents.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    RealDisk.make_private_directory(path)
}
