//! A disk in memory that fails when it is told to.
//!
//! # What it models
//!
//! What the process wrote and what is on the disk are two things. Bytes that were appended become durable with a
//! sync of their file, names with a sync of their directory, and not before; although the kernel may have written
//! any of it earlier, nobody can rely on that. So when the *process* ends nothing is lost, and when the *host* does
//! ([`SimulatedDisk::end_host`]) a seed chooses: of each file's unsynced changes a beginning is kept, the last of
//! them torn, perhaps followed by zeros; of the unsynced names any subset, in their order.
//!
//! A sync that fails loses what it was to write for good, at the seed's choice, although the process still reads it
//! and a second sync succeeds.
//!
//! # How it is driven
//!
//! Each use of the disk is an operation with a number, from 1. A [`Fault`] is injected at a number, or from a number
//! on. After [`Fault::Crash`] everything fails until the harness has ended the process or the host and mounted the
//! disk anew; whatever was mounted before never works again, so a task of the process that "crashed" cannot write.
//!
//! # Non-goals
//!
//! No links, no permissions that are checked, no time. Nothing makes anybody wait.

mod files;
mod platter;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{DirectoryEntry, Disk, DiskFile, Metadata, Open};
use files::SimulatedFile;
use platter::Platter;

/// What goes wrong at an operation. One that does not fit the operation does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation does not happen, or of a write only a part, and nothing does after it.
    Crash,
    /// `ENOSPC`, of whatever needs room.
    NoRoom,
    /// `EIO`. Of a sync: what it was to write may be lost.
    InputOutput,
    /// A part is written, then `ENOSPC`.
    ShortWrite,
    /// `EIO` of a sync, and what it was to write may be lost.
    FailedSync,
}

/// What an operation does, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Look,
    Change,
    NeedsRoom,
    Append,
    Sync,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimulatedDisk {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    platter: Platter,
    random: SmallRng,
    /// Whoever was mounted before this many ends of the process is dead.
    incarnation: u64,
    is_down: bool,
    operations: u64,
    faults: Vec<(u64, Fault)>,
    faults_from: Option<(u64, Fault)>,
    faults_fired: u64,
    unused_names: u64,
}

impl SimulatedDisk {
    /// An empty disk. All that is left to chance follows from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                platter: Platter::default(),
                random: SmallRng::seed_from_u64(seed),
                incarnation: 0,
                is_down: false,
                operations: 0,
                faults: Vec::new(),
                faults_from: None,
                faults_fired: 0,
                unused_names: 0,
            })),
        }
    }

    /// The disk as the process that runs now sees it, until that ends.
    #[must_use]
    pub fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(Mounted { incarnation: self.lock().incarnation, shared: self.shared.clone() })
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Has something go wrong at an operation, counted from 1 over the disk's whole life.
    pub fn inject(&self, operation: u64, fault: Fault) {
        self.lock().faults.push((operation, fault));
    }

    /// Has something go wrong at every operation from this one on.
    pub fn inject_from(&self, operation: u64, fault: Fault) {
        self.lock().faults_from = Some((operation, fault));
    }

    /// Nothing goes wrong any more. A crash that happened stays.
    pub fn clear_faults(&self) {
        let mut shared = self.lock();
        shared.faults.clear();
        shared.faults_from = None;
    }

    /// How many faults have had an effect.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.lock().faults_fired
    }

    /// Whether a crash was injected and has happened, and nobody has ended the process or host since.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.lock().is_down
    }

    /// Ends the process, however it ends: locks are released, files closed, nothing that was written is lost.
    pub fn end_process(&self) {
        let mut shared = self.lock();
        shared.incarnation += 1;
        shared.is_down = false;
        shared.platter.close_all();
    }

    /// Ends the host: what was not synced is there or not, as the seed chooses.
    pub fn end_host(&self, seed: u64) {
        let mut shared = self.lock();
        shared.incarnation += 1;
        shared.is_down = false;
        shared.platter.close_all();
        shared.platter.lose(&mut SmallRng::seed_from_u64(seed));
    }

    /// Bounds the bytes of all files together; `None` for no bound.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.lock().platter.room = bytes;
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().platter.used()
    }

    /// All files, in order. No operation.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().platter.paths()
    }

    /// The content of a file, if it is there. No operation.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock().platter.content(path).ok().map(<[u8]>::to_vec)
    }

    /// Puts a file there, durable, as something else than the process might. No operation.
    ///
    /// # Errors
    /// Its directory is missing.
    pub fn put(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.lock().platter.put(path, content)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    /// Of a write, this share of its bytes, in 256ths; of a sync, its data may be lost.
    Fails {
        errno: i32,
        share: u32,
        crashes: bool,
    },
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

impl Shared {
    /// Counts an operation and says what happens to it.
    fn begin(&mut self, incarnation: u64, kind: Kind) -> io::Result<Fate> {
        if self.is_down || incarnation != self.incarnation {
            return Err(is_down());
        }
        self.operations += 1;
        let now = self.operations;
        let at = self.faults.iter().position(|(at, _)| *at == now).map(|index| self.faults.swap_remove(index).1);
        let fault = at.or(self.faults_from.filter(|(from, _)| now >= *from).map(|(_, fault)| fault));
        let fate = match (fault, kind) {
            (None, _) => return Ok(Fate::Works),
            (Some(Fault::Crash), Kind::Append) => {
                Fate::Fails { errno: EIO, share: self.random.random_range(0..=256), crashes: true }
            }
            (Some(Fault::Crash), _) => Fate::Fails { errno: EIO, share: 0, crashes: true },
            (Some(Fault::NoRoom), Kind::NeedsRoom | Kind::Append) => {
                Fate::Fails { errno: ENOSPC, share: 0, crashes: false }
            }
            (Some(Fault::ShortWrite), Kind::Append) => {
                Fate::Fails { errno: ENOSPC, share: self.random.random_range(1..256), crashes: false }
            }
            (Some(Fault::InputOutput), _) | (Some(Fault::FailedSync), Kind::Sync) => {
                Fate::Fails { errno: EIO, share: 0, crashes: false }
            }
            (Some(Fault::NoRoom | Fault::ShortWrite | Fault::FailedSync), _) => return Ok(Fate::Works),
        };
        self.faults_fired += 1;
        if fault == Some(Fault::Crash) {
            self.is_down = true;
        }
        Ok(fate)
    }
}

fn is_down() -> io::Error {
    io::Error::other("the simulated host is down")
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Mounted {
    shared: Arc<Mutex<Shared>>,
    incarnation: u64,
}

impl Mounted {
    fn with<T>(&self, kind: Kind, work: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut shared = lock(&self.shared);
        match shared.begin(self.incarnation, kind)? {
            Fate::Works => work(&mut shared.platter),
            Fate::Fails { crashes: true, .. } => Err(is_down()),
            Fate::Fails { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Disk for Mounted {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let kind = if how == Open::Read { Kind::Look } else { Kind::NeedsRoom };
        let (inode, handle) = self.with(kind, |platter| platter.open(path, how))?;
        Ok(Arc::new(SimulatedFile {
            shared: self.shared.clone(),
            incarnation: self.incarnation,
            inode,
            handle,
            is_read_only: how == Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(Kind::NeedsRoom, |platter| platter.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.with(Kind::Change, |platter| platter.remove(path, false))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.with(Kind::Change, |platter| platter.remove(path, true))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.with(Kind::Look, |platter| platter.list(path))
    }

    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        self.with(Kind::NeedsRoom, |platter| platter.make_directory(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.with(Kind::Look, |platter| platter.metadata_of(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.with(Kind::Sync, |platter| platter.sync_directory(path))
    }

    fn unused_name(&self) -> String {
        let mut shared = lock(&self.shared);
        shared.unused_names += 1;
        format!("0.{}", shared.unused_names)
    }
}

#[cfg(test)]
mod tests;
