//! The machine's file system.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{DirectoryEntry, Disk, DiskFile, FileIdentity, FileKind, Metadata, Open};

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = match how {
            Open::Read => options.read(true).open(path)?,
            Open::Append { mode } => options.read(true).append(true).create(true).mode(mode).open(path)?,
            Open::New { mode } => {
                // 0600 first: with a generous mask or not, nobody else reads it before its mode is set.
                let file = options.read(true).append(true).create_new(true).mode(mode & 0o600).open(path)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file
            }
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // It may have been removed just now.
            let kind = match entry.file_type() {
                Ok(kind) => kind_of(kind),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirectoryEntry { name: entry.file_name(), kind });
        }
        entries.sort();
        Ok(entries)
    }

    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path).map(|found| metadata_of(&found))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn unused_name(&self) -> String {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        format!("{}.{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
    }
}

impl DiskFile for RealFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = i64::try_from(length).map_err(io::Error::other)?;
        Ok(nix::fcntl::posix_fallocate(&self.0, 0, length)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata().map(|found| metadata_of(&found))
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    }
}

fn metadata_of(found: &fs::Metadata) -> Metadata {
    Metadata {
        kind: kind_of(found.file_type()),
        length: found.len(),
        owner: found.uid(),
        mode: found.mode() & 0o7777,
        identity: FileIdentity { device: found.dev(), inode: found.ino() },
    }
}
