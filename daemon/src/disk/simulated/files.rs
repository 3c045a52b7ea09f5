//! An open file of a simulated disk.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::{DiskFile, Metadata};
use super::platter::Platter;
use super::{Fate, Kind, Shared, is_down, lock};

#[derive(Debug)]
pub(super) struct SimulatedFile {
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) incarnation: u64,
    pub(super) inode: u64,
    pub(super) handle: u64,
    pub(super) is_read_only: bool,
}

impl SimulatedFile {
    fn with<T>(&self, kind: Kind, work: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut shared = lock(&self.shared);
        match shared.begin(self.incarnation, kind)? {
            Fate::Works => work(&mut shared.platter),
            Fate::Fails { crashes: true, .. } => Err(is_down()),
            Fate::Fails { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn must_write(&self) -> io::Result<()> {
        // As the system answers whoever writes to a descriptor that was opened to read.
        if self.is_read_only { Err(io::Error::from_raw_os_error(9)) } else { Ok(()) }
    }
}

impl DiskFile for SimulatedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.must_write()?;
        let mut shared = lock(&self.shared);
        match shared.begin(self.incarnation, Kind::Append)? {
            Fate::Works => shared.platter.append(self.inode, bytes),
            Fate::Fails { errno, share, crashes } => {
                let part = bytes.len() * share as usize / 256;
                shared.platter.append(self.inode, &bytes[..part])?;
                Err(if crashes { is_down() } else { io::Error::from_raw_os_error(errno) })
            }
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(Kind::Look, |platter| platter.read_at(self.inode, offset, buffer))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.must_write()?;
        self.with(Kind::Change, |platter| platter.set_length(self.inode, length))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.must_write()?;
        self.with(Kind::NeedsRoom, |platter| platter.allocate(self.inode, length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut shared = lock(&self.shared);
        match shared.begin(self.incarnation, Kind::Sync)? {
            Fate::Works => shared.platter.sync(self.inode),
            Fate::Fails { crashes: true, .. } => Err(is_down()),
            Fate::Fails { errno, .. } => {
                let Shared { platter, random, .. } = &mut *shared;
                platter.fail_sync(self.inode, random)?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.with(Kind::Look, |platter| platter.metadata(self.inode))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.with(Kind::Look, |platter| platter.try_lock(self.inode, self.handle))
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        // What a crash has closed is closed.
        if shared.incarnation == self.incarnation {
            shared.platter.close(self.inode, self.handle);
        }
    }
}
