//! Writing a file so that a reader, or the next start after a power cut, finds the old one or the new one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, Open, directory_of};

/// Why a file was not written. The old one, if any, is untouched.
#[derive(Debug, thiserror::Error)]
#[error("{step} `{path}`")]
pub struct WriteError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl WriteError {
    /// The system's error.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

impl From<WriteError> for io::Error {
    /// Keeps the kind of the system's error.
    fn from(error: WriteError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Replaces a file's content in one step.
///
/// The bytes go to a temporary file in the same directory, which has `mode` from its first byte on, are
/// forced to disk, and take the old file's place by renaming; then the directory is forced to disk.
///
/// # Errors
/// The directory is missing, not writable or full. If only forcing the directory to disk failed, the new file is
/// in its place for now.
pub fn write_atomic(disk: &dyn Disk, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), WriteError> {
    let (file, temporary) = write_beside(disk, path, mode, bytes)?;
    drop(file);
    put_in_place(disk, &temporary, path)?;
    let directory = directory_of(path);
    disk.sync_directory(directory).map_err(|source| WriteError {
        step: "force to disk the directory",
        path: directory.to_owned(),
        source,
    })
}

/// Replaces a file's content in one step for readers, without waiting for the disk: after a crash of the host the
/// file may be the old one, empty or torn. For what is only true now.
///
/// # Errors
/// The directory is missing, not writable or full.
pub fn write_unsynced(disk: &dyn Disk, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), WriteError> {
    let (file, temporary) = write_temporary(disk, path, mode, bytes, false)?;
    drop(file);
    put_in_place(disk, &temporary, path)
}

fn put_in_place(disk: &dyn Disk, temporary: &Path, path: &Path) -> Result<(), WriteError> {
    if let Err(source) = disk.rename(temporary, path) {
        // The file may not exist; what matters is the first error.
        drop(disk.remove_file(temporary));
        return Err(WriteError { step: "rename into place", path: path.to_owned(), source });
    }
    Ok(())
}

/// Does the first half of [`write_atomic`]: the bytes are on the disk in a temporary file beside `path`. Gives the
/// file, to append to, and its name. Whoever does not rename it has to remove it.
///
/// # Errors
/// The directory is missing, not writable or full; no file is left.
pub fn write_beside(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
    bytes: &[u8],
) -> Result<(Arc<dyn DiskFile>, PathBuf), WriteError> {
    write_temporary(disk, path, mode, bytes, true)
}

fn write_temporary(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
    bytes: &[u8],
    sync: bool,
) -> Result<(Arc<dyn DiskFile>, PathBuf), WriteError> {
    let Some(name) = path.file_name() else {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(WriteError { step: "write", path: path.to_owned(), source });
    };
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.new", disk.unused_name()));
    let temporary = directory_of(path).join(temporary_name);
    match write_new(disk, &temporary, mode, bytes, sync) {
        Ok(file) => Ok((file, temporary)),
        Err(error) => {
            // The file may not exist; what matters is the first error.
            drop(disk.remove_file(&temporary));
            Err(error)
        }
    }
}

/// Whether a file has a name as [`write_beside`] gives it: `.NAME.NUMBER.NUMBER.new`.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    let is_number =
        |part: Option<&str>| part.is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()));
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".new")) else { return false };
    let mut parts = rest.rsplitn(3, '.');
    is_number(parts.next()) && is_number(parts.next()) && parts.next().is_some_and(|name| !name.is_empty())
}

fn write_new(
    disk: &dyn Disk,
    path: &Path,
    mode: u32,
    bytes: &[u8],
    sync: bool,
) -> Result<Arc<dyn DiskFile>, WriteError> {
    let fail = |step| move |source| WriteError { step, path: path.to_owned(), source };
    // A left-over of a crashed process with our id: it is nobody's.
    if let Err(source) = disk.remove_file(path)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(fail("remove the left-over")(source));
    }
    let file = disk.open(path, Open::New { mode }).map_err(fail("create"))?;
    file.append(bytes).map_err(fail("write"))?;
    if sync {
        file.sync_all().map_err(fail("force to disk"))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::RealDisk;
    use super::*;

    #[test]
    fn the_new_content_replaces_the_old_with_the_asked_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        for (mode, bytes) in [(0o600, "one"), (0o644, "two, longer"), (0o600, "")] {
            write_atomic(&RealDisk, &path, mode, bytes.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        // A directory stands where the file should go, so the rename fails.
        let path = directory.path().join("state");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomic(&RealDisk, &path, 0o600, b"new").unwrap_err();
        assert!(error.to_string().starts_with("rename into place `"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_our_own_temporary_files_are_taken_for_such() {
        for (name, expected) in [
            (".journal.17.0.new", true),
            (".audit.jsonl.17.3.new", true),
            (".journal.new", false),
            (".17.0.new", false),
            ("journal.17.0.new", false),
            (".journal.17.x.new", false),
            (".journal.17.0", false),
        ] {
            assert_eq!(is_temporary(OsStr::new(name)), expected, "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        let (_, temporary) = write_beside(&RealDisk, &directory.path().join("state"), 0o600, b"half").unwrap();
        assert!(is_temporary(temporary.file_name().unwrap()));
        let disk: &dyn Disk = &RealDisk;
        disk.remove_temporary_files(directory.path()).unwrap();
        assert_eq!(disk.list(directory.path()).unwrap(), []);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomic(&RealDisk, &directory.path().join("no/state"), 0o600, b"").unwrap_err();
        assert!(error.to_string().contains("/no/"), "{error}");
        assert_eq!(error.io().kind(), io::ErrorKind::NotFound);
        assert!(write_atomic(&RealDisk, Path::new("/"), 0o600, b"").is_err());
    }
}
