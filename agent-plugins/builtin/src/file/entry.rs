//! What is at a path, held open so that it stays the same thing.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use muster_plugin_api::ActionFailure;
use muster_protocol::code;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::{Gid, Group, Uid, User};
use sha2::{Digest as _, Sha256};

use super::work::Steps;
use crate::digest;

/// Bytes that are read or written between two looks at whether to go on.
pub(super) const STEP_BYTES: usize = 256 * 1024;

/// Permissions without set-user-id, set-group-id and the sticky bit.
pub(super) const PERMISSIONS: u32 = 0o777;

/// A thing in the file system.
#[derive(Debug)]
pub(super) struct Entry {
    handle: OwnedFd,
    state: FileStat,
    pub(super) kind: Kind,
    pub(super) size_bytes: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_ms: i64,
}

/// What kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
    Unknown,
}

impl Kind {
    fn of(mode: u32) -> Self {
        match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::File,
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFLNK => Self::Symlink,
            SFlag::S_IFIFO => Self::Fifo,
            SFlag::S_IFSOCK => Self::Socket,
            SFlag::S_IFCHR => Self::CharacterDevice,
            SFlag::S_IFBLK => Self::BlockDevice,
            _ => Self::Unknown,
        }
    }

    /// As in the description of `file.status`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharacterDevice => "character_device",
            Self::BlockDevice => "block_device",
            Self::Unknown => "unknown",
        }
    }
}

impl Entry {
    /// Looks at what a handle stands for.
    pub(super) fn of(handle: OwnedFd) -> nix::Result<Self> {
        let state = fstat(&handle)?;
        Ok(Self {
            handle,
            kind: Kind::of(state.st_mode),
            size_bytes: u64::try_from(state.st_size).unwrap_or(0),
            mode: state.st_mode & 0o7777,
            uid: state.st_uid,
            gid: state.st_gid,
            mtime_ms: state.st_mtime.saturating_mul(1000).saturating_add(state.st_mtime_nsec / 1_000_000),
            state,
        })
    }

    pub(super) fn is_link(handle: impl AsFd) -> nix::Result<bool> {
        Ok(Kind::of(fstat(handle)?.st_mode) == Kind::Symlink)
    }

    /// Whether this is still that very file with that very content, as far as the file system can tell.
    pub(super) fn is(&self, now: &FileStat) -> bool {
        let of = |state: &FileStat| {
            let changed = (state.st_mtime, state.st_mtime_nsec, state.st_ctime, state.st_ctime_nsec);
            (state.st_dev, state.st_ino, state.st_size, changed)
        };
        of(&self.state) == of(now)
    }

    pub(super) fn mode_text(&self) -> String {
        format!("{:04o}", self.mode)
    }

    /// Opens the file to read it. Only plain files are opened at all.
    pub(super) fn open(&self) -> Result<File, ActionFailure> {
        if self.kind != Kind::File {
            return Err(ActionFailure::failed(format!("it is a {}, not a file", self.kind.word().replace('_', " "))));
        }
        // The handle cannot be read from; its name under /proc leads to the same file, wherever that is now.
        let name = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(name);
        opened.map_err(|error| ActionFailure::failed(format!("it cannot be read: {error}")))
    }

    /// The checksum of the content.
    pub(super) fn sha256(&self, bytes_max: u64, steps: &Steps) -> Result<String, ActionFailure> {
        self.check_size(bytes_max)?;
        let mut file = self.open()?.take(bytes_max.saturating_add(1));
        let (mut hash, mut buffer, mut total) = (Sha256::new(), vec![0; STEP_BYTES], 0_u64);
        loop {
            steps.go_on()?;
            let count = file.read(&mut buffer);
            let count = count.map_err(|error| ActionFailure::failed(format!("it cannot be read: {error}")))?;
            if count == 0 {
                return Ok(digest::finish(hash));
            }
            total += count as u64;
            if total > bytes_max {
                return Err(too_large(total, bytes_max));
            }
            hash.update(&buffer[..count]);
        }
    }

    /// Refuses files beyond the host's bound.
    pub(super) fn check_size(&self, bytes_max: u64) -> Result<(), ActionFailure> {
        if self.size_bytes > bytes_max { Err(too_large(self.size_bytes, bytes_max)) } else { Ok(()) }
    }
}

pub(super) fn too_large(bytes: u64, bytes_max: u64) -> ActionFailure {
    let why = format!("{bytes} bytes are more than the {bytes_max} of `plugins.file.bytes_max`");
    ActionFailure::new(&code::LIMIT_EXCEEDED, why)
}

/// The name of a user, or the number of one that has none.
pub(super) fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// The name of a group, or the number of one that has none.
pub(super) fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}
