//! Starting a program that is to outlive this process: the agent's own runner of detached actions.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, Command};

use super::SEARCH_PATH;

/// Starts a program that nothing here stops again: not the end of this process, and not dropping what is
/// returned. It makes itself the leader of a session as the first thing it does. Its standard error is this
/// process's, for its log; its input is a pipe, which is given back.
///
/// # Errors
/// When it cannot be started.
pub fn start_detached(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Result<(Detached, ChildStdin)> {
    let mut command = Command::new(program);
    command
        .arg0("musterd")
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH.join(":"))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().ok_or_else(|| io::Error::other("its input is no pipe"))?;
    Ok((Detached(child), stdin))
}

/// A program that was started to live on.
#[derive(Debug)]
pub struct Detached(Child);

impl Detached {
    /// Its process id, until it was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.0.id()
    }

    /// Waits for its end, which is taken from the kernel then. Safe to cancel.
    ///
    /// # Errors
    /// When it is not a child of this process.
    pub async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.0.wait().await
    }
}
