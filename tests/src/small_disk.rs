//! Disks of a few megabytes: one in memory, that a test can fill, empty and take the right to write away from, and one
//! whose file system finds an error of its own and takes nothing more.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cleanup::UnmountAtExit;
use crate::programs::PATIENCE;

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

/// An ext4 file system in a file, whose superblock says `errors=remount-ro` as Debian's installer does it. Unmounted when
/// dropped, or when this process ends. Only root can make one, where there are loop devices.
#[derive(Debug)]
pub struct FailingDisk {
    image: PathBuf,
    directory: PathBuf,
    at_exit: Option<UnmountAtExit>,
}

impl FailingDisk {
    /// Makes one with so many bytes in `image` and mounts it on a directory, which is made.
    ///
    /// # Errors
    /// It cannot be made or mounted; says what it takes.
    pub fn mount(image: &Path, directory: &Path, bytes: u64) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(image);
        file.and_then(|file| file.set_len(bytes)).with_context(|| format!("make `{}`", image.display()))?;
        fs::create_dir_all(directory).with_context(|| format!("create `{}`", directory.display()))?;
        let mut disk = Self { image: image.to_owned(), directory: directory.to_owned(), at_exit: None };
        disk.call("mkfs.ext4", &["-q", "-F", "-e", "remount-ro"], &[image]).context("Debian package e2fsprogs")?;
        disk.put_in()?;
        Ok(disk)
    }

    fn call(&self, program: &str, words: &[&str], paths: &[&Path]) -> Result<String> {
        let output = Command::new(program).args(words).args(paths).output();
        let output = output.with_context(|| format!("run `{program}`"))?;
        // e2fsck(8): 1 is "errors were corrected".
        let is_repaired = program == "e2fsck" && output.status.code() == Some(1);
        if !output.status.success() && !is_repaired {
            bail!("`{program}` said: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn put_in(&mut self) -> Result<()> {
        self.call("mount", &["-o", "loop"], &[&self.image, &self.directory])
            .context("a test with a failing disk needs root, the right to mount (CAP_SYS_ADMIN) and loop devices")?;
        self.at_exit = Some(UnmountAtExit::new(&self.directory)?);
        Ok(())
    }

    /// Has the kernel find an error in the file system, as a bad block would: nothing can be written from now on, also
    /// not through files that are open.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn fail(&self) -> Result<()> {
        let device = self.call("findmnt", &["-n", "-o", "SOURCE"], &[&self.directory])?;
        let name = Path::new(&device).file_name().context("a device has a name")?;
        let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        fs::write(&trigger, "1").with_context(|| format!("write `{}`", trigger.display()))
    }

    /// Repairs it, as an administrator does: out, checked, in again. Waits for those who have files on it open and end.
    ///
    /// # Errors
    /// When somebody stays, or it cannot be repaired.
    pub fn repair(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.call("umount", &[], &[&self.directory]) {
            if Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(mut at_exit) = self.at_exit.take() {
            at_exit.call_off();
        }
        self.call("e2fsck", &["-p", "-f"], &[&self.image])?;
        self.put_in()
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        self.call("umount", &["-l"], &[&self.directory]).ok();
        if let Some(mut at_exit) = self.at_exit.take() {
            at_exit.call_off();
        }
    }
}
