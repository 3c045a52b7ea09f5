//! Making the journal smaller while it is in use.
//!
//! | step | holds the journal | what |
//! |---|---|---|
//! | begin | yes | ids whose windows are over are forgotten; what is left is copied in memory; from now on each record is remembered too |
//! | write | no | a new file beside the old one, on the disk |
//! | follow | a moment | who begins to wait for the disk now waits for the end; what was recorded since the beginning is taken |
//! | catch up | no | that goes behind the rest in the new file, onto the disk |
//! | swap | yes | the last few records go to the new file, which takes the old one's name |
//! | end | no | the name is on the disk; those who wait go on with the new file |
//!
//! So nothing that was promised to be durable is ever in the new file only in memory when that takes the old one's
//! place, and the journal is not held while the disk syncs. Until the swap the old file is the journal; a failure
//! leaves it so.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use muster_daemon::disk::write_beside;
use muster_daemon::{Disk, DiskFile};
use muster_protocol::Timestamp;

use super::{Journal, JournalError, directory_of};
use crate::core::lock;
use crate::synced::{Slot, Tracked};

/// Once so many bytes more than needed are in the file it is written anew.
pub(super) const SURPLUS_BYTES: u64 = 64 * 1024;

/// Makes the journal smaller if that is worth it, without holding it while the disk syncs. Returns whether it was.
///
/// # Errors
/// When the new file cannot be written; the old one stays in use if that is possible.
pub fn compact_shared(journal: &Mutex<Journal>, now: Timestamp) -> Result<bool, JournalError> {
    let Some((work, bytes)) = lock(journal).begin_compaction(now) else { return Ok(false) };
    let mut work = Working { journal, work, temporary: None, is_done: false };
    let failed = |action, path: &PathBuf| {
        let path = path.clone();
        move |source| JournalError::Io { action, path, source }
    };
    let path = work.work.path.clone();
    let written = write_beside(&*work.work.disk, &path, 0o600, &bytes);
    let (file, temporary) = written.map_err(Into::into).map_err(failed("rewrite", &path))?;
    work.temporary = Some(temporary.clone());
    let mut length = bytes.len() as u64;
    drop(bytes);
    let Some(tail) = lock(journal).follow() else { return Ok(false) };
    if !tail.is_empty() {
        file.append(&tail).and_then(|()| file.sync_data()).map_err(failed("rewrite", &path))?;
        length += tail.len() as u64;
    }
    let swapped = lock(journal).swap(&file, &temporary, length);
    if !swapped.map_err(failed("rewrite", &path))? {
        return Ok(false);
    }
    work.is_done = true;
    if let Err(source) = work.work.disk.sync_directory(directory_of(&path)) {
        // After a crash of the host the old file may be there again, without what is recorded from now on.
        lock(journal).distrust();
        return Err(failed("rewrite", &path)(source));
    }
    Ok(true)
}

/// What a compaction needs besides the journal.
#[derive(Debug)]
pub(super) struct Work {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    slot: Arc<Slot>,
}

/// Ends a compaction, however it ends.
struct Working<'a> {
    journal: &'a Mutex<Journal>,
    work: Work,
    temporary: Option<PathBuf>,
    is_done: bool,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            lock(self.journal).tail = None;
            if let Some(temporary) = &self.temporary {
                // Left behind, the next start removes it.
                drop(self.work.disk.remove_file(temporary));
            }
        }
        self.work.slot.gate.end_change();
    }
}

impl Journal {
    /// `None` if there is nothing to win, or somebody is at it.
    fn begin_compaction(&mut self, now: Timestamp) -> Option<(Work, Vec<u8>)> {
        if self.tail.is_some() {
            return None;
        }
        self.forget(now);
        self.records_since_look = 0;
        if self.length < self.live_bytes * 2 + SURPLUS_BYTES {
            return None;
        }
        self.tail = Some(Vec::new());
        let work = Work { disk: self.disk.clone(), path: self.path.clone(), slot: self.slot.clone() };
        Some((work, self.encode()))
    }

    /// What was recorded since the beginning; `None` if the file was written anew meanwhile.
    fn follow(&mut self) -> Option<Vec<u8>> {
        let tail = self.tail.as_mut().map(std::mem::take)?;
        self.slot.gate.begin_change();
        Some(tail)
    }

    /// Goes on in the new file. False if the journal was written anew meanwhile.
    fn swap(&mut self, file: &Arc<dyn DiskFile>, temporary: &std::path::Path, length: u64) -> std::io::Result<bool> {
        let Some(tail) = &self.tail else { return Ok(false) };
        let mut length = length;
        let file = Arc::new(Tracked::new(file.clone()));
        if !tail.is_empty() {
            // Counted as a record, so that whoever waits has it synced.
            file.append(tail)?;
            length += tail.len() as u64;
        }
        self.disk.rename(temporary, &self.path)?;
        self.tail = None;
        self.slot.set(file);
        self.length = length;
        self.suspect = false;
        Ok(true)
    }

    fn distrust(&mut self) {
        self.slot.current().give_up();
        self.suspect = true;
    }
}
