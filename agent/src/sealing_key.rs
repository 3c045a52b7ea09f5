//! The file of the key that secret arguments are sealed to.

use std::io;
use std::path::Path;

use muster_daemon::Disk;
use muster_daemon::disk::{Open, write_atomic};
use muster_pki::PkiError;
use muster_pki::sealing::SealingKey;
use zeroize::Zeroizing;

/// Longest file that is read: the two halves take some hundred bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Reads the key in a file; makes one, with mode 0600, where there is none. The caller holds the lock of the
/// directory, so nobody makes one meanwhile.
///
/// # Errors
/// When the file cannot be read or written, is readable by others, or holds no key: then it is left as
/// it is, since only whoever looks after the host can know what became of it.
pub fn load_or_create(disk: &dyn Disk, path: &Path) -> Result<SealingKey, PkiError> {
    let unreadable = |source| PkiError::Read { path: path.to_owned(), source };
    match disk.open(path, Open::Read) {
        Ok(file) => {
            // The mode is asked of the open file, so it cannot change in between.
            let mode = file.metadata().map_err(unreadable)?.mode;
            if mode & 0o077 != 0 {
                return Err(PkiError::KeyExposed { path: path.to_owned(), mode });
            }
            let text = Zeroizing::new(file.read_all(FILE_BYTES_MAX).map_err(unreadable)?);
            SealingKey::from_file_text(path, &text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SealingKey::generate()
                .map_err(|error| PkiError::Malformed { object: "sealing key".to_owned(), why: error.to_string() })?;
            let written = write_atomic(disk, path, 0o600, key.file_text().as_bytes());
            written.map_err(|error| PkiError::Write { path: path.to_owned(), source: error.into() })?;
            Ok(key)
        }
        Err(error) => Err(unreadable(error)),
    }
}
