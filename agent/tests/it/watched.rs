//! A disk that says when somebody waits for it.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use muster_daemon::disk::{DirectoryEntry, Metadata, Open};
use muster_daemon::{Disk, DiskFile};

pub(crate) type Hook = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

struct Watched {
    disk: Arc<dyn Disk>,
    hook: Hook,
}

/// The disk, which from when the hook is set on calls it each time that somebody waits.
pub(crate) fn watched(disk: Arc<dyn Disk>, hook: &Hook) -> Arc<dyn Disk> {
    Arc::new(Watched { disk, hook: hook.clone() })
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    hook: Hook,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl std::fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchedFile")
    }
}

fn tell(hook: &Hook) {
    if let Some(hook) = hook.get() {
        hook();
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(WatchedFile { file, hook: self.hook.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.disk.list(path)
    }
    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.make_private_directory(path)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        tell(&self.hook);
        self.disk.sync_directory(path)
    }
    fn unused_name(&self) -> String {
        self.disk.unused_name()
    }
}

impl DiskFile for WatchedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        tell(&self.hook);
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        tell(&self.hook);
        self.file.sync_all()
    }
    fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
