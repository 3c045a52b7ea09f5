//! Reading and writing a file that is dispensable.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::de::DeserializeOwned;

/// Most bytes read of a file. More is not ours.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The bytes of a file; nothing if it is missing or has more than `bytes_max`.
#[must_use]
pub fn read_bytes(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(bytes_max)).ok()?);
    file.take(bytes_max + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= bytes_max).then_some(bytes)
}

/// What is in a file; nothing if it is missing, too large or not understood.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = read_bytes(path, BYTES_MAX)?;
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
///
/// # Errors
/// The directory cannot be made or written.
pub fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
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

/// Adds to the end of a file. Gives how long it is then.
pub(super) fn append(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<u64> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(name))?;
    file.write_all(bytes)?;
    Ok(file.metadata()?.len())
}
