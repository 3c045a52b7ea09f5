//! The disk, as a value that is passed in.
//!
//! # Purpose
//!
//! What a program keeps has to survive crashes of the program and of the host, disks that are full and disks that
//! fail. Whether it does can be shown only where each of these can be made to happen at each step. So whatever
//! keeps state works through [`Disk`]: in production that is [`RealDisk`], the machine's file system; in tests and
//! in the simulated fleet a [`SimulatedDisk`], which lies in memory and fails when it is told to.
//!
//! # The data and how it flows
//!
//! [`Disk`] names files by path: read a small file whole, open one ([`Open`]), rename, remove, list, force a
//! directory to disk. An open file is a [`DiskFile`]: append, read at a place, cut, force to disk, lock.
//! [`write_atomic`] is made of these steps, so that a crash can come between any two of them.
//!
//! # Non-goals
//!
//! No whole file system: only what state needs. No writing in the middle of a file, no links, no permissions beyond
//! the mode a file is made with. Programs that are run, their directories, sockets and locks shared with other
//! processes stay on the machine's own file system.
//!
//! # Invariants
//!
//! - What is written is with the kernel: it survives the end of the process, not of the host.
//! - [`DiskFile::sync_data`] makes a file's bytes survive the host, not its name; [`Disk::sync_directory`] makes the
//!   names in a directory survive.
//! - Lists are in the order of names, so that nothing depends on a file system's own order.

mod real;
mod simulated;
mod write;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;
pub use simulated::{Fault, SimulatedDisk};
pub use write::{WriteError, write_atomic, write_beside, write_unsynced};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// To read what is there.
    Read,
    /// To append to it and to read it; it is made with this mode where it is missing.
    Append {
        /// Permissions of a file that is made, such as `0o600`.
        mode: u32,
    },
    /// To append to a file that must not be there yet, made with this mode.
    New {
        /// Its permissions, whatever the process's mask.
        mode: u32,
    },
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a link, a socket, a device.
    Other,
}

/// Tells one file from another, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
}

/// What is known about a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub length: u64,
    /// The user it belongs to.
    pub owner: u32,
    /// Its permissions: the lowest twelve bits.
    pub mode: u32,
    /// Which file it is.
    pub identity: FileIdentity,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    /// The name, without the directory.
    pub name: OsString,
    /// What it stands for. Links are not followed.
    pub kind: FileKind,
}

/// A file system, as far as state needs one. All errors are those of the system's calls.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// It is missing, there already, or cannot be opened.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file a new name, in place of whatever had that name.
    ///
    /// # Errors
    /// The file is missing, or the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// It is missing, or the system refuses.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it. Links are removed, not followed.
    ///
    /// # Errors
    /// It is missing, or the system refuses.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in their order.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>>;

    /// Makes a directory that only the process's user can enter (mode 0700), with its parents. One that is there
    /// stays as it is.
    ///
    /// # Errors
    /// The system refuses.
    fn make_private_directory(&self, path: &Path) -> io::Result<()>;

    /// What is known about a file or directory. Links are followed.
    ///
    /// # Errors
    /// It is missing or cannot be looked at.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Waits until the names in a directory are on the disk.
    ///
    /// # Errors
    /// Nobody knows whether they are.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// A piece of a temporary file's name that nobody else uses.
    fn unused_name(&self) -> String;
}

/// An open file. Clones of the pointer are the same file; it is closed, and a lock on it released, with the last.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes behind the end of the file.
    ///
    /// # Errors
    /// The system's. A part of the bytes may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Reads from a place on, and gives how many bytes there were; less than asked for only at the end.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Cuts the file, or fills it up with zeros.
    ///
    /// # Errors
    /// The system's.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes the file at least so long, with room on the disk for all of it.
    ///
    /// # Errors
    /// There is no room.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Waits until the file's bytes and length are on the disk.
    ///
    /// # Errors
    /// Nobody knows what the disk holds of what was written since the last success, and another try that succeeds
    /// says nothing about it.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](Self::sync_data), with the file's mode.
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// What is known about the file.
    ///
    /// # Errors
    /// The system's.
    fn metadata(&self) -> io::Result<Metadata>;

    /// Takes the file's lock until it is closed or the process ends, however it ends. False if another has it.
    ///
    /// # Errors
    /// The system's.
    fn try_lock(&self) -> io::Result<bool>;
}

impl dyn Disk + '_ {
    /// Reads a whole file of at most so many bytes.
    ///
    /// # Errors
    /// It cannot be read, or is longer ([`io::ErrorKind::FileTooLarge`]).
    pub fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.open(path, Open::Read)?.read_all(bytes_max)
    }

    /// Makes a directory as [`make_private_directory`](Disk::make_private_directory) does, and waits until the
    /// names of what was made are on the disk: files that are synced in a directory whose name is lost are lost.
    ///
    /// # Errors
    /// The system refuses.
    pub fn make_private_directory_durably(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut ancestor = Some(path);
        while let Some(directory) = ancestor.filter(|directory| !directory.as_os_str().is_empty()) {
            if self.exists(directory)? {
                // Whoever made it may have ended before its name was on the disk.
                match self.sync_directory(directory_of(directory)) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    synced => synced?,
                }
                break;
            }
            missing.push(directory);
            ancestor = directory.parent();
        }
        missing.iter().rev().try_for_each(|directory| {
            self.make_private_directory(directory)?;
            self.sync_directory(directory_of(directory))
        })
    }

    /// Removes what a crash left of files that [`write_atomic`] was writing in a directory. Nobody may be writing
    /// there now.
    ///
    /// # Errors
    /// The directory cannot be read, or a file not removed.
    pub fn remove_temporary_files(&self, directory: &Path) -> io::Result<()> {
        for entry in self.list(directory)? {
            if entry.kind == FileKind::File && write::is_temporary(&entry.name) {
                self.remove_file(&directory.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// Whether something has this name.
    ///
    /// # Errors
    /// It cannot be looked at for another reason than that it is missing.
    pub fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl dyn DiskFile + '_ {
    /// Reads all of it, if that is at most so many bytes.
    ///
    /// # Errors
    /// It cannot be read, or is longer ([`io::ErrorKind::FileTooLarge`]).
    pub fn read_all(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let length = self.metadata()?.length;
        let bytes = self.read_range(0, length.min(bytes_max).saturating_add(1))?;
        if bytes.len() as u64 > bytes_max {
            let why = format!("it has {length} bytes, and at most {bytes_max} are read");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(bytes)
    }

    /// Reads so many bytes from a place on, or as many as there are.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_range(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = vec![0; length];
        let read = self.read_at(offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// A file as a stream, from its beginning, for readers of lines.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl FileReader {
    /// Reads this file.
    #[must_use]
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }
}

impl io::Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The directory that a path lies in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
