//! A disk of a few megabytes, in memory, that a test can fill, empty and take the right to write away from.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cleanup::UnmountAtExit;

/// A mounted tmpfs (tmpfs(5)). Unmounted when dropped, or when this process ends. Only root can make one.
#[derive(Debug)]
pub struct SmallDisk {
    directory: PathBuf,
    at_exit: UnmountAtExit,
}

impl SmallDisk {
    /// Mounts one with so many bytes on a directory, which is made.
    ///
    /// # Errors
    /// It cannot be mounted; says that it takes root and the right to mount.
    pub fn mount(directory: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("create `{}`", directory.display()))?;
        let at_exit = UnmountAtExit::new(directory)?;
        let mut disk = Self { directory: directory.to_owned(), at_exit };
        if let Err(error) = disk.call("mount", &["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "tmpfs"]) {
            disk.at_exit.call_off();
            return Err(error.context("a test with a small disk needs root and the right to mount (CAP_SYS_ADMIN)"));
        }
        Ok(disk)
    }

    fn call(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let output = Command::new(program).args(arguments).arg(&self.directory).output();
        let output = output.with_context(|| format!("run `{program}`"))?;
        if !output.status.success() {
            bail!("`{program}` said: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Takes all the room that is left, to the last byte.
    ///
    /// # Errors
    /// When something else than room is missing.
    pub fn fill(&self) -> Result<()> {
        let path = self.directory.join("filler");
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        for block in [64 * 1024, 4 * 1024, 1] {
            loop {
                match file.write_all(&vec![0; block]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).with_context(|| format!("fill `{}`", path.display())),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.directory.join("filler")).context("make room")
    }

    /// Takes away the right to write, or gives it back. Fails while somebody has a file open for writing.
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        self.call("mount", &["-o", if read_only { "remount,ro" } else { "remount,rw" }])
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since a program that a failed test has left behind may still have files open.
        self.call("umount", &["-l"]).ok();
        self.at_exit.call_off();
    }
}
