//! The socket on which an agent tells how it is: whoever connects gets one JSON document, and the connection ends.
//!
//! One thread serves it, one connection after the other, apart from everything else the agent does. Only root and the
//! agent's own user are answered.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::Status;
use crate::state::check_trusted;

/// How long somebody who asks may take to read the answer. Meanwhile nobody else is answered.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// How long an agent may take to answer: it waits for nothing, so this is for a machine that hardly breathes.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no socket, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It cannot be made.
    #[error("{action} status socket `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent listens there, or the path belongs to something else.
    #[error("status socket `{path}` is taken by {by}")]
    Taken {
        /// The socket.
        path: PathBuf,
        /// By whom.
        by: &'static str,
    },
    /// Nobody listens.
    #[error("no agent listens at `{path}`")]
    NobodyListens {
        /// The socket.
        path: PathBuf,
    },
    /// Whoever listens does not answer, or not with a status.
    #[error("the agent at `{path}` does not answer with its status")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
}

impl SocketError {
    /// Stable machine code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "status-socket",
            Self::Taken { .. } => "status-socket-taken",
            Self::NobodyListens { .. } => "no-agent",
            Self::NoAnswer { .. } => "no-answer",
        }
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NobodyListens { .. } | Self::NoAnswer { .. } => true,
            Self::Io { .. } | Self::Taken { .. } => false,
        }
    }
}

/// The socket of a running agent. Removed from the disk when dropped.
#[derive(Debug)]
pub struct StatusSocket {
    path: PathBuf,
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // One that stays behind is recognised by the next agent.
        drop(std::fs::remove_file(&self.path));
    }
}

impl StatusSocket {
    /// Listens at `path`, mode 0600, and answers with what `look` sees, on a thread that lives as long as the process.
    ///
    /// # Errors
    /// The socket cannot be made, or somebody listens there. An agent works without it.
    pub fn serve(path: &Path, look: impl Fn() -> Option<Status> + Send + 'static) -> Result<Self, SocketError> {
        let listener = listen(path)?;
        let failed = |source| SocketError::Io { action: "serve", path: path.to_owned(), source };
        std::thread::Builder::new()
            .name("status".to_owned())
            // The document is on the heap.
            .stack_size(256 * 1024)
            .spawn(move || {
                for stream in listener.incoming() {
                    match stream {
                        Ok(stream) => answer(stream, &look),
                        // Out of descriptors, most likely: a moment later there may be one again.
                        Err(_) => std::thread::sleep(WRITE_LIMIT),
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self { path: path.to_owned() })
    }
}

fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |action: &'static str| {
        let path = path.to_owned();
        move |source| SocketError::Io { action, path, source }
    };
    // Whoever can write there can put something else in its place between two steps, which is then what is changed.
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_trusted(directory).map_err(failed("trust the directory of"))?;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::Taken { path: path.to_owned(), by: "a file that is no socket" });
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(SocketError::Taken { path: path.to_owned(), by: "another agent" });
        }
        // An agent that was killed has left it.
        Ok(_) => std::fs::remove_file(path).map_err(failed("remove the old"))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("make"))?;
    // Until then whoever could connect is refused by name.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
    Ok(listener)
}

fn answer(mut stream: UnixStream, look: &impl Fn() -> Option<Status>) {
    if !is_allowed(&stream) || stream.set_write_timeout(Some(WRITE_LIMIT)).is_err() {
        return;
    }
    let Some(Ok(mut text)) = look().map(|status| serde_json::to_vec(&status)) else { return };
    text.push(b'\n');
    // Whoever does not read gets no more.
    drop(stream.write_all(&text));
}

/// Whether the other end is root or the agent's own user, whatever the file's mode is.
fn is_allowed(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials)
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::Uid::effective().as_raw())
}

/// Asks the agent that listens at `path`.
///
/// # Errors
/// Nobody listens, nobody may ask, or no status comes within ten seconds.
pub fn ask(path: &Path) -> Result<Status, SocketError> {
    ask_within(path, ANSWER_LIMIT)
}

/// The same, with another patience.
///
/// # Errors
/// As [`ask`].
pub fn ask_within(path: &Path, limit: Duration) -> Result<Status, SocketError> {
    let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            SocketError::NobodyListens { path: path.to_owned() }
        }
        _ => SocketError::Io { action: "connect to", path: path.to_owned(), source },
    })?;
    let no_answer = |source| SocketError::NoAnswer { path: path.to_owned(), source };
    stream.set_read_timeout(Some(limit)).map_err(no_answer)?;
    let mut text = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut text).map_err(|error| match error.kind() {
        // What the system calls this says nothing to anybody.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let why = format!("it did not answer in {} s: its process is stopped, or hangs", limit.as_secs());
            no_answer(io::Error::new(io::ErrorKind::TimedOut, why))
        }
        _ => no_answer(error),
    })?;
    if text.is_empty() {
        let why = "it hung up without a word: only root and the agent's own user are answered";
        return Err(no_answer(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    serde_json::from_slice(&text).map_err(|error| no_answer(error.into()))
}
