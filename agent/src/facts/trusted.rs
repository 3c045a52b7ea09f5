//! Reading only what nobody but the administrator could have written.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::Uid;

/// Group and others may not write.
const FOREIGN_WRITE_BITS: u32 = 0o022;

/// Opens a file that belongs to root or to the agent's user and that nobody else can change.
/// Symbolic links are refused: where they point to can be changed by others.
pub(super) fn open(path: &Path) -> Result<File, String> {
    // Without waiting: opening a pipe that somebody put there would hang.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| {
        match error.raw_os_error() {
            Some(code) if code == nix::errno::Errno::ELOOP as i32 => "is a symbolic link; skipped".to_owned(),
            _ => format!("cannot be opened: {error}"),
        }
    })?;
    let metadata = file.metadata().map_err(|error| format!("cannot be examined: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a regular file; skipped".to_owned());
    }
    check_owner(metadata.uid(), metadata.mode())?;
    Ok(file)
}

/// Checks a directory in the same way: who can write to it can put anything into it.
pub(super) fn check_directory(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be examined: {error}"))?;
    if !metadata.is_dir() {
        return Err("is not a directory".to_owned());
    }
    check_owner(metadata.uid(), metadata.mode())?;
    crate::state::check_way(path).map_err(|error| error.to_string())
}

pub(super) fn check_owner(owner: u32, mode: u32) -> Result<(), String> {
    let agent = Uid::effective().as_raw();
    if owner != 0 && owner != agent {
        return Err(format!("belongs to user {owner}, not to root or the agent's user; skipped"));
    }
    if mode & FOREIGN_WRITE_BITS != 0 {
        return Err(format!("can be written by others (mode {:04o}); skipped", mode & 0o7777));
    }
    Ok(())
}

/// Reads at most `limit` bytes as text.
pub(super) fn read_text(file: File, limit: usize) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > limit {
        return Err(format!("has more than {limit} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}
