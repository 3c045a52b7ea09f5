//! Directories that belong to the whole process, such as those behind a `static`, which is never dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;

/// Removes `directory` when this process has ended, however it ends.
///
/// A small shell reads from a pipe that only this process holds; when the pipe closes it removes the directory.
///
/// # Errors
/// The shell cannot be started.
pub(crate) fn remove_at_exit(directory: &Path) -> io::Result<()> {
    use std::os::unix::process::CommandExt as _;

    static PIPES: Mutex<Vec<(PathBuf, ChildStdin)>> = Mutex::new(Vec::new());

    let mut shell = Command::new("/bin/sh")
        .args(["-c", "read -r word; rm -rf -- \"$1\"", "remove-at-exit"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pipe = shell.stdin.take().expect("standard input was asked for");
    PIPES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((directory.to_owned(), pipe));
    Ok(())
}
