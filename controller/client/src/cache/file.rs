//! Reading and writing a file that is dispensable.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::de::DeserializeOwned;

/// Most bytes read of a file. More is not ours.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is in a file; nothing if it is missing, too large or not understood.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > BYTES_MAX {
        return None;
    }
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "A cache file is not understood and counts as empty");
            None
        }
    }
}

/// Replaces a file in one step. It is not forced to disk: after a power cut an old or an empty cache
/// is as good, and waiting for the disk would cost more than a whole ping.
pub(super) fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let temporary = directory.join(format!(".{name}.{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, directory.join(name))
    };
    let result = write();
    if result.is_err() {
        // It may not exist; what matters is the first error.
        drop(fs::remove_file(&temporary));
    }
    result
}
