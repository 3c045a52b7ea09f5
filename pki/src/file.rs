//! Reading with permission checks and writing atomically.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::PkiError;

/// What everybody may read: certificates and revocation lists.
pub(crate) const PUBLIC: u32 = 0o644;
/// What only the owner may read: keys.
pub(crate) const SECRET: u32 = 0o600;

/// Largest file that is read: a bundle or a revocation list with 100,000 entries fits.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Reads a whole file of at most 8 MiB.
///
/// # Errors
/// When it cannot be read or is larger.
pub fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    let file = File::open(path).map_err(PkiError::read(path))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(PkiError::read(path))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(PkiError::malformed(format!("file `{}`", path.display()), "larger than 8 MiB"));
    }
    Ok(bytes)
}

/// Reads a private key's file. The mode is asked of the open file, so it cannot change in between.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    let file = File::open(path).map_err(PkiError::read(path))?;
    let metadata = file.metadata().map_err(PkiError::read(path))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PkiError::KeyExposed { path: path.to_owned(), mode });
    }
    // Room for all of it at once: a growing buffer leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
    file.take(16 * 1024).read_to_string(&mut text).map_err(PkiError::read(path))?;
    Ok(text)
}

/// Writes a file that must not exist yet. A reader sees all of it or nothing.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), PkiError> {
    let temporary = temporary(path, mode, bytes)?;
    match temporary.persist_noclobber(path) {
        Ok(_) => sync_directory(path),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(PkiError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(PkiError::Write { path: path.to_owned(), source: error.error }),
    }
}

/// Writes a new file that everybody may read, whole or not at all.
///
/// # Errors
/// When something stands there already, or it cannot be written.
pub fn create_public(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    create(path, PUBLIC, bytes)
}

/// Writes a file, replacing what was there. A reader sees the old or the new, whole.
pub(crate) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), PkiError> {
    let temporary = temporary(path, mode, bytes)?;
    temporary.persist(path).map_err(|error| PkiError::Write { path: path.to_owned(), source: error.error })?;
    sync_directory(path)
}

/// Refuses early what [`create`] would refuse later.
pub(crate) fn must_not_exist(path: &Path) -> Result<(), PkiError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(PkiError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PkiError::Read { path: path.to_owned(), source }),
    }
}

/// Makes a directory that only the owner may enter. One that exists stays as it is.
///
/// Those above it that are missing follow the umask: `/etc/muster` has files for everybody beside a directory of keys.
pub(crate) fn create_directory(path: &Path) -> Result<(), PkiError> {
    let above = directory(path);
    DirBuilder::new().recursive(true).create(above).map_err(PkiError::write(above))?;
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(PkiError::write(path))
}

/// Refuses a directory that group or others may enter.
pub(crate) fn must_be_private(path: &Path) -> Result<(), PkiError> {
    let mode = fs::metadata(path).map_err(PkiError::read(path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PkiError::DirectoryExposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Makes a rename or a new entry in the directory of `path` survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> Result<(), PkiError> {
    let directory = directory(path);
    File::open(directory).and_then(|file| file.sync_all()).map_err(PkiError::write(directory))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary(path: &Path, mode: u32, bytes: &[u8]) -> Result<tempfile::NamedTempFile, PkiError> {
    let write = || -> io::Result<tempfile::NamedTempFile> {
        // The mode is given to open(2), so the bytes are never readable by more than they should be.
        let mut file = tempfile::Builder::new()
            .prefix(".muster-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory(path))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    write().map_err(PkiError::write(path))
}
