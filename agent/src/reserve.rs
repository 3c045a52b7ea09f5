//! Room on the disk that is kept for the ends of actions.
//!
//! An action that has begun will end, and on a full disk its end could not be recorded: after a restart it would be
//! told as interrupted. So the agent keeps a file that holds nothing. When the record of an end finds no room, the
//! file is deleted and the record written again; once there is room the file is made anew. Nothing that only begins
//! gets this room: where it was used and cannot be made anew, no action that changes something begins.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use muster_daemon::Disk;
use muster_daemon::disk::Open;

/// How much is kept, in bytes: the largest report and some thousand records of ends.
pub const RESERVE_BYTES: u64 = 2 * 1024 * 1024;

/// The file.
#[derive(Debug)]
pub struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve in `path`. [`ensure`](Self::ensure) makes it.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, bytes: u64) -> Self {
        Self { disk, path, bytes }
    }

    /// Makes the file where it is missing or smaller than it should be.
    ///
    /// # Errors
    /// When there is no room, or no file can be made there. A file without room is not left behind.
    pub fn ensure(&self) -> io::Result<()> {
        if self.disk.metadata(&self.path).is_ok_and(|found| found.length >= self.bytes) {
            return Ok(());
        }
        let made = self.make();
        if made.is_err() {
            self.release();
        }
        made
    }

    /// Makes sure that what begins will find room for its end, if that depends on room.
    ///
    /// # Errors
    /// The disk is full. What else is in the way of a file does not count.
    pub fn check(&self) -> io::Result<()> {
        match self.ensure() {
            Err(error) if is_full(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = self.disk.open(&self.path, Open::Append { mode: 0o600 })?;
        file.allocate(self.bytes)?;
        file.sync_all()
    }

    /// Gives the room back to the disk. Returns whether there was any.
    pub fn release(&self) -> bool {
        self.disk.remove_file(&self.path).is_ok()
    }

    /// Does something that needs room on the disk, and once more with the reserve's room if there was none.
    ///
    /// # Errors
    /// What `work` fails with, the second time if there was one.
    pub fn use_for<T, E: std::error::Error + 'static>(&self, mut work: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        match work() {
            Err(error) if is_full(&error) && self.release() => {
                tracing::warn!("The disk is full; using the room that is kept for ends of actions");
                work()
            }
            done => done,
        }
    }
}

/// Whether an error comes from a disk, or a user's share of it, without room.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    })
}
