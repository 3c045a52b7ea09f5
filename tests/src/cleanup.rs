//! What has to go when this process ends, however it ends: directories behind a `static`, which is never
//! dropped, and processes that would live on without us.
//!
//! A small shell reads from a pipe that only this process holds; when the pipe closes, it cleans up.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

/// Held for reading while something comes into the world that nobody watches over yet.
static UNWATCHED: RwLock<()> = RwLock::new(());

/// As long as it is held, [`end_process`] waits: for the moment between making something and having it watched over.
pub(crate) fn unwatched() -> RwLockReadGuard<'static, ()> {
    UNWATCHED.read().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process at once, from any thread and whatever the others do. What was made with this crate is cleaned up by
/// those who watch over it.
pub fn end_process(code: i32) -> ! {
    let _nothing_is_unwatched = UNWATCHED.write().unwrap_or_else(PoisonError::into_inner);
    #[expect(clippy::exit, reason = "threads that wait for a broker's start cannot be told to stop")]
    std::process::exit(code)
}

/// Makes a temporary directory that goes with this process if it is not dropped before.
///
/// # Errors
/// It cannot be made, or nobody can be started who watches over it.
pub fn watched_directory(make: impl FnOnce() -> io::Result<tempfile::TempDir>) -> io::Result<tempfile::TempDir> {
    let _unwatched = unwatched();
    let directory = make()?;
    remove_at_exit(directory.path())?;
    Ok(directory)
}

/// Starts the shell. It gives `$1` to `action` when its standard input closes, unless a line came before.
fn shell(action: &str, argument: &std::ffi::OsStr) -> io::Result<(Child, ChildStdin)> {
    use std::os::unix::process::CommandExt as _;

    let mut shell = Command::new("/bin/sh")
        .args(["-c", &format!("read -r word && exit; {action}"), "at-exit"])
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pipe = shell.stdin.take().ok_or_else(|| io::Error::other("standard input was asked for"))?;
    Ok((shell, pipe))
}

/// Removes `directory` when this process has ended.
///
/// # Errors
/// The shell cannot be started.
pub(crate) fn remove_at_exit(directory: &Path) -> io::Result<()> {
    static PIPES: Mutex<Vec<(PathBuf, ChildStdin)>> = Mutex::new(Vec::new());

    let (_, pipe) = shell("rm -rf -- \"$1\"", directory.as_os_str())?;
    PIPES.lock().unwrap_or_else(PoisonError::into_inner).push((directory.to_owned(), pipe));
    Ok(())
}

/// Unmounts a directory when this process has ended. Call it off once it is unmounted.
#[derive(Debug)]
pub(crate) struct UnmountAtExit {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl UnmountAtExit {
    /// Watches over what is mounted there.
    ///
    /// # Errors
    /// The shell cannot be started.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let (shell, pipe) = shell("umount -l -- \"$1\"", directory.as_os_str())?;
        Ok(Self { shell, pipe: Some(pipe) })
    }

    /// Leaves it alone from now on.
    pub(crate) fn call_off(&mut self) {
        call_off(&mut self.shell, self.pipe.take());
    }
}

/// Tells a shell that there is nothing to clean up any more.
fn call_off(shell: &mut Child, pipe: Option<ChildStdin>) {
    if let Some(mut pipe) = pipe {
        // A shell that is gone cleans nothing up.
        pipe.write_all(b"done\n").ok();
        drop(pipe);
        shell.wait().ok();
    }
}

/// Kills a child when this process has ended. Call it off before the child is waited for: afterwards its
/// number may belong to somebody else.
#[derive(Debug)]
pub(crate) struct KillAtExit {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl KillAtExit {
    /// Watches over the process with this id.
    ///
    /// # Errors
    /// The shell cannot be started.
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        let (shell, pipe) = shell("kill -9 \"$1\"", std::ffi::OsStr::new(&pid.to_string()))?;
        Ok(Self { shell, pipe: Some(pipe) })
    }

    /// Leaves the process alone from now on.
    pub(crate) fn call_off(&mut self) {
        call_off(&mut self.shell, self.pipe.take());
    }
}
