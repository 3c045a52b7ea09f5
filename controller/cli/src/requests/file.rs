//! The file of requests: bounded, shared by processes, and forgiving.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_daemon::{WriteError, write_atomic};

use super::{Line, VERSION};

/// Most lines that are kept: months of an ordinary operator.
const LINES_MAX: usize = 1_000;

/// Most bytes that are kept: a line for 10,000 hosts whose names do not fold has 300 KB.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// How much of either bound is left once it was reached, so that not every line after it rewrites the file.
const KEPT_PERCENT: usize = 75;

/// How often a file that another process holds is tried, and the pause in between: two seconds in all. Whoever holds it
/// writes a line and lets go; one that was stopped meanwhile must not hold up everybody.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why a request could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// A file or directory.
    #[error("use `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process holds it for long.
    #[error("another process holds `{path}`")]
    Held {
        /// Which.
        path: PathBuf,
    },
    /// The shortened file.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// All lines that are understood. A file that is not there, or cannot be read, has none.
pub(super) fn read(path: &Path) -> Vec<Line> {
    content(path).lines().filter_map(understood).collect()
}

fn understood(line: &str) -> Option<Line> {
    serde_json::from_str::<Line>(line).ok().filter(|line| line.version == VERSION)
}

fn content(path: &Path) -> String {
    let mut bytes = Vec::new();
    // Twice the bound: what is larger is not ours.
    let read = File::open(path).and_then(|file| file.take(2 * BYTES_MAX as u64).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "The requests of before are not known");
            String::new()
        }
    }
}

/// Adds a line; drops the oldest ones where there are too many.
pub(super) fn append(path: &Path, line: &Line) -> Result<(), RecordError> {
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| RecordError::File { path, source }
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file_error(directory))?;
    }
    let lock_path = path.with_extension("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let lock = lock.map_err(file_error(&lock_path))?;
    // Let go with the end of this function.
    take(&lock, &lock_path)?;
    let before = content(path);
    let added = serde_json::to_string(line).map_err(|error| file_error(path)(error.into()))?;
    if before.len() + added.len() >= BYTES_MAX || before.lines().count() >= LINES_MAX {
        write_atomic(path, 0o600, shortened(&before, &added).as_bytes())?;
        return Ok(());
    }
    let append = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        // A process that was killed in the middle of a line must not spoil this one.
        let start = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        file.write_all(format!("{start}{added}\n").as_bytes())
    };
    append().map_err(file_error(path))
}

fn take(lock: &File, path: &Path) -> Result<(), RecordError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(RecordError::File { path: path.to_owned(), source }),
        }
    }
    Err(RecordError::Held { path: path.to_owned() })
}

/// The newest lines within the bounds, oldest first.
fn shortened(before: &str, added: &str) -> String {
    let (lines_max, bytes_max) = (LINES_MAX * KEPT_PERCENT / 100, BYTES_MAX * KEPT_PERCENT / 100);
    let mut kept = vec![added];
    let mut bytes = added.len() + 1;
    for line in before.lines().rev().filter(|line| understood(line).is_some()) {
        bytes += line.len() + 1;
        if kept.len() >= lines_max || bytes > bytes_max {
            break;
        }
        kept.push(line);
    }
    kept.reverse();
    kept.join("\n") + "\n"
}
