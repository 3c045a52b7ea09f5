//! Files of scripts that run: readable for one user, in a directory that only root can change.
//!
//! The directory is open to pass through and closed to look into (0711). A file belongs to the user it
//! is for, with mode 0400. Nobody but root can put another file, or a link, in its place, so that neither
//! making nor removing it can be led astray.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;

use crate::process::EffectiveUser;

/// Everybody may pass through, only root may list.
const DIRECTORY_MODE: u32 = 0o711;

/// The directory of scripts, checked.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

/// A script in its file, which goes when this does.
#[derive(Debug)]
pub(super) struct Stored {
    path: PathBuf,
}

impl Store {
    /// Opens the directory, or makes it. Takes away what a process that was killed has left there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            // The mask of the process may have taken something away.
            Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        check(directory)?;
        let store = Self { directory: directory.to_owned() };
        store.sweep()?;
        Ok(store)
    }

    /// Lays a script into a new file for this user.
    pub(super) fn put(&self, name: &str, script: &[u8], user: &EffectiveUser) -> io::Result<Stored> {
        let path = self.directory.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o400).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let mut file: File = options.open(&path)?;
        let stored = Stored { path };
        file.write_all(script)?;
        if user.uid != geteuid().as_raw() {
            fchown(&file, Some(user.uid), Some(user.gid))?;
        }
        Ok(stored)
    }

    /// Names begin with the number of the process that made them.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(maker) = name.to_str().and_then(maker) else { continue };
            if !Path::new("/proc").join(maker.to_string()).exists() {
                // Somebody else may have been faster.
                let _gone = fs::remove_file(self.directory.join(name));
            }
        }
        Ok(())
    }
}

/// Whether scripts can be laid into a directory; one that is not there yet can be made.
pub(super) fn check(directory: &Path) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()));
    let found = match directory.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.parent().is_some_and(Path::is_dir) => {
            return Ok(());
        }
        found => found?,
    };
    if !found.is_dir() {
        return refuse("it is not a directory");
    }
    if found.uid() != geteuid().as_raw() {
        return refuse("it belongs to somebody else");
    }
    if found.mode() & 0o022 != 0 {
        return refuse("others can write to it");
    }
    if found.mode() & 0o111 != 0o111 {
        return refuse("other users cannot pass through it");
    }
    Ok(())
}

/// The process that made a script's file.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix("script-")?.split_once('-')?.0.parse().ok()
}

impl Stored {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        // The user may have removed it already; otherwise the next one that opens the directory tries again.
        let _gone = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_scripts_are_swept() {
        assert_eq!(maker("script-17-0198c0de"), Some(17));
        for name in ["script-", "script-17", "script-x-1", "other-17-1", "script--1-2", ""] {
            assert_eq!(maker(name), None, "{name}");
        }
    }
}
