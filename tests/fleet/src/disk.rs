//! The disk of a fleet's agents: the real one, except that room which is only kept free is not taken.
//!
//! Every agent keeps two megabytes for a full disk. In the memory of one machine, ten thousand of them would hold 20 GB
//! of nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use muster_daemon::disk::{DirectoryEntry, DiskFile, Metadata, Open};
use muster_daemon::{Disk, RealDisk};

/// The real disk without kept room.
#[derive(Debug, Default)]
pub(crate) struct FleetDisk(RealDisk);

#[derive(Debug)]
struct FleetFile(Arc<dyn DiskFile>);

impl Disk for FleetDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FleetFile(self.0.open(path, how)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.0.remove_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.0.list(path)
    }

    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        self.0.make_private_directory(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.0.metadata(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.sync_directory(path)
    }

    fn unused_name(&self) -> String {
        self.0.unused_name()
    }
}

impl DiskFile for FleetFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }

    /// As long as asked for, with a hole instead of room.
    fn allocate(&self, length: u64) -> io::Result<()> {
        if self.0.metadata()?.length < length { self.0.set_length(length) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn room_that_is_kept_is_not_taken_and_what_is_written_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let file = FleetDisk::default().open(&path, Open::Append { mode: 0o600 }).unwrap();
        file.allocate(2 * 1024 * 1024).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.len(), found.blocks()), (2 * 1024 * 1024, 0));
        file.allocate(1).unwrap();
        file.append(b"abc").unwrap();
        let mut read = [0; 3];
        file.read_at(2 * 1024 * 1024, &mut read).unwrap();
        assert_eq!(&read, b"abc", "a shorter reserve cuts nothing");
    }
}
