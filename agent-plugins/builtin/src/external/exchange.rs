//! The private directory in which a call's request, reply and facts lie.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use muster_protocol::limits::BODY_BYTES_MAX;
use nix::libc;

use crate::process::EffectiveUser;

/// Largest reply, in bytes: no report could carry more.
pub(super) const REPLY_BYTES_MAX: usize = BODY_BYTES_MAX;

/// Where another user finds the files of a call: that user cannot reach the agent's own directories.
const SHARED_DIRECTORY: &str = "/tmp";

/// The files of one call. They go when this is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    directory: PathBuf,
}

/// What became of a file that the program was to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing: it is as empty as it was.
    Nothing,
    /// This.
    Bytes(Vec<u8>),
    /// More than may be.
    TooMuch,
    /// The file is gone.
    Gone,
    /// Something that is not a file stands there.
    NotAFile,
    /// It cannot be read.
    Unreadable(String),
}

impl Exchange {
    /// Makes the directory with its files: the request and the facts, and two empty ones to be written.
    /// Only the agent's user can look into it, or only `user` where there is one.
    pub(super) fn new(
        work_directory: &Path,
        user: Option<&EffectiveUser>,
        request: &[u8],
        facts: &[u8],
    ) -> io::Result<Self> {
        let parent = if user.is_some() { Path::new(SHARED_DIRECTORY) } else { work_directory };
        let exchange = Self { directory: make(parent)? };
        for (path, bytes) in [
            (exchange.request(), request),
            (exchange.facts(), facts),
            (exchange.reply(), b"".as_slice()),
            (exchange.output(), b"".as_slice()),
        ] {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            give(&path, user)?;
        }
        give(&exchange.directory, user)?;
        Ok(exchange)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn request(&self) -> PathBuf {
        self.directory.join("request.json")
    }

    pub(super) fn facts(&self) -> PathBuf {
        self.directory.join("facts.json")
    }

    pub(super) fn reply(&self) -> PathBuf {
        self.directory.join("reply.json")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    /// Reads what the program wrote. The program may have put anything there: neither a link is
    /// followed nor a pipe waited for.
    pub(super) fn read(path: &Path) -> Written {
        let unreadable = |error: io::Error| Written::Unreadable(error.to_string());
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = match open {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Written::Gone,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Written::NotAFile,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Written::NotAFile,
            Err(error) => return unreadable(error),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Written::NotAFile,
            Err(error) => return unreadable(error),
        }
        let mut bytes = Vec::new();
        match file.take(REPLY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
            Err(error) => unreadable(error),
            Ok(0) => Written::Nothing,
            Ok(count) if count > REPLY_BYTES_MAX => Written::TooMuch,
            Ok(_) => Written::Bytes(bytes),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // What the program still writes after this is lost with the directory. Where it cannot be removed
        // now, the agent's next start empties its work directory.
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// A directory of a name that is not taken, for its owner alone from its first moment on.
fn make(parent: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    // In the shared directory somebody may have taken a name; nobody can take them all in time.
    for _ in 0..1000 {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(format!("muster-call-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn give(path: &Path, user: Option<&EffectiveUser>) -> io::Result<()> {
    match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}
