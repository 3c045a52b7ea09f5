//! A directory of this process for readers that take a path.

use std::path::PathBuf;
use std::sync::OnceLock;

use tempfile::TempDir;

/// In memory where the system has such a place: some readers wait for the disk.
const PLACES: [&str; 2] = ["/dev/shm", "/tmp"];

thread_local! {
    static DIRECTORY: OnceLock<TempDir> = const { OnceLock::new() };
}

/// An empty directory. The same one for each call of a thread, emptied.
///
/// # Panics
/// When it cannot be made.
pub(crate) fn empty() -> PathBuf {
    DIRECTORY.with(|directory| {
        let make = || {
            let builder = || tempfile::Builder::new().prefix("muster-fuzz-").to_owned();
            let made = PLACES.iter().find_map(|place| builder().tempdir_in(place).ok());
            made.expect("there is room for a temporary directory")
        };
        let path = directory.get_or_init(make).path().join("work");
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("empty {}: {error}", path.display()),
            _ => {}
        }
        std::fs::create_dir(&path).expect("the directory can be made");
        path
    })
}

/// A file with this content in an otherwise empty directory.
///
/// # Panics
/// When it cannot be written.
pub(crate) fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = empty().join(name);
    std::fs::write(&path, content).expect("the file can be written");
    path
}
