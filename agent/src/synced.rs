//! A file that records are appended to, and waiting until the disk has them.
//!
//! Waiting takes no lock of the journal or audit log that is in the file. Two things make that more than a call of
//! the system:
//!
//! - A sync that fails says so once, to whoever asks first, and the next one succeeds although what was to be
//!   written is lost. So a file whose sync failed has failed for everybody, and a new one takes its place.
//! - A journal that is made smaller goes on in another file ([`crate::journal::compact_shared`]). Whoever begins to wait during
//!   the change waits for its end, and then for the new file. So does the audit log when it is rotated
//!   ([`crate::audit::rotate_shared`]).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use muster_daemon::DiskFile;

/// A file that is appended to.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// `None` before there is one.
    file: Option<Arc<dyn DiskFile>>,
    /// How many records were appended.
    appended: AtomicU64,
    /// How many of them are on the disk for certain. Held while the disk is waited for.
    synced: Mutex<u64>,
    /// Apart from that, so that whoever asks before he writes does not wait for the disk.
    has_failed: AtomicBool,
}

impl Tracked {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file: Some(file), ..Self::without_file() }
    }

    fn without_file() -> Self {
        Self { file: None, appended: AtomicU64::new(0), synced: Mutex::new(0), has_failed: AtomicBool::new(false) }
    }

    fn file(&self) -> io::Result<&dyn DiskFile> {
        self.file.as_deref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Appends; the caller holds the journal.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.file()?.append(bytes)?;
        self.appended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn set_length(&self, length: u64) -> io::Result<()> {
        self.file()?.set_length(length)
    }

    fn appended(&self) -> u64 {
        self.appended.load(Ordering::SeqCst)
    }

    /// Waits until the first so many records are on the disk. Whoever waits behind another for the same finds it
    /// done.
    fn sync(&self, upto: u64) -> io::Result<()> {
        let mut synced = lock(&self.synced);
        if self.has_failed() {
            return Err(io::Error::other("an earlier sync of the file failed"));
        }
        if *synced >= upto {
            return Ok(());
        }
        let appended = self.appended();
        match self.file()?.sync_data() {
            Ok(()) => {
                *synced = appended;
                Ok(())
            }
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    /// Whether a sync has failed, so that nobody knows what of the file is on the disk.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// A place behind all that was appended until now.
    pub(crate) fn place(self: &Arc<Self>) -> Place {
        Place { upto: self.appended(), file: self.clone() }
    }

    /// The file, to be read.
    pub(crate) fn reader(&self) -> io::Result<&dyn DiskFile> {
        self.file()
    }

    /// Nobody may rely on the file any more.
    pub(crate) fn give_up(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
    }
}

/// Whoever begins to wait for the disk while one file takes another's place waits for the end of that first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_changing: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// From now on whoever begins to wait waits for the end of the change too.
    pub(crate) fn begin_change(&self) {
        *lock(&self.is_changing) = true;
    }

    pub(crate) fn end_change(&self) {
        *lock(&self.is_changing) = false;
        self.changed.notify_all();
    }

    /// Waits for the end of the change that is under way, if one is.
    pub(crate) fn pass(&self) {
        let mut is_changing = lock(&self.is_changing);
        while *is_changing {
            is_changing = self.changed.wait(is_changing).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Where the journal is written now, shared with those who wait for the disk.
#[derive(Debug)]
pub(crate) struct Slot {
    current: Mutex<Arc<Tracked>>,
    pub(crate) gate: Gate,
}

impl Slot {
    /// Without a file.
    pub(crate) fn new() -> Self {
        Self { current: Mutex::new(Arc::new(Tracked::without_file())), gate: Gate::default() }
    }

    pub(crate) fn current(&self) -> Arc<Tracked> {
        lock(&self.current).clone()
    }

    pub(crate) fn set(&self, file: Arc<Tracked>) {
        *lock(&self.current) = file;
    }

    /// A place behind all that was appended until now.
    pub(crate) fn place(&self) -> Place {
        self.current().place()
    }

    /// Waits until what was appended before this place is on the disk, in whatever file it is by now.
    pub(crate) fn sync(&self, place: &Place) -> io::Result<()> {
        self.gate.pass();
        let current = self.current();
        // What was in the old file when it was left is in the new one.
        let upto = if Arc::ptr_eq(&current, &place.file) { place.upto } else { current.appended() };
        current.sync(upto)
    }
}

/// A place in a file.
#[derive(Debug)]
pub(crate) struct Place {
    file: Arc<Tracked>,
    upto: u64,
}

impl Place {
    /// Waits until what was appended before it is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync(self.upto)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
