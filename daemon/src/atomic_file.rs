//! Writing a file so that a reader, or the next start after a power cut, finds the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Replaces a file's content in one step.
///
/// The bytes go to a temporary file in the same directory, which has `mode` from its first byte on, are
/// forced to disk, and take the old file's place by renaming; then the directory is forced to disk.
///
/// # Errors
/// The directory is missing, not writable or full.
pub fn write_atomic(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), WriteError> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(WriteError { step: "write", path: path.to_owned(), source });
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{}.new", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temporary = directory.join(temporary_name);
    let result = write_new(&temporary, mode, bytes).and_then(|()| {
        fs::rename(&temporary, path).map_err(|source| WriteError {
            step: "rename into place",
            path: path.to_owned(),
            source,
        })
    });
    if let Err(error) = result {
        // The file may not exist; what matters is the first error.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| WriteError {
        step: "force to disk the directory",
        path: directory.to_owned(),
        source,
    })
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), WriteError> {
    let fail = |step| move |source| WriteError { step, path: path.to_owned(), source };
    // A left-over of a crashed process with our id: it is nobody's.
    if let Err(source) = fs::remove_file(path)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(fail("remove the left-over")(source));
    }
    // 0600 first: with a generous umask or not, nobody else reads it before its mode is set.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode & 0o600).open(path).map_err(fail("create"))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
    file.write_all(bytes).map_err(fail("write"))?;
    file.sync_all().map_err(fail("force to disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_content_replaces_the_old_with_the_asked_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        for (mode, bytes) in [(0o600, "one"), (0o644, "two, longer"), (0o600, "")] {
            write_atomic(&path, mode, bytes.as_bytes()).unwrap();
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
        let error = write_atomic(&path, 0o600, b"new").unwrap_err();
        assert!(error.to_string().starts_with("rename into place `"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_atomic(&directory.path().join("no/state"), 0o600, b"").unwrap_err();
        assert!(error.to_string().contains("/no/"), "{error}");
        assert_eq!(error.io().kind(), io::ErrorKind::NotFound);
        assert!(write_atomic(Path::new("/"), 0o600, b"").is_err());
    }
}
