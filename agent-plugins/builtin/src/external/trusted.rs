//! Whether a file or directory may decide what the agent does: nobody but root and the agent's own user can write it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Mode bits with which somebody else than the owner could write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// With this bit on a directory nobody can replace what others put into it.
const STICKY: u32 = 0o1000;

/// Why a path is not trusted, or not usable at all; follows the path in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It cannot be looked at.
    #[error("`{path}` cannot be looked at: {why}")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        why: String,
    },
    /// It belongs to somebody else.
    #[error("`{path}` belongs to user {owner}, not to root or the agent's user: chown root {path}")]
    Owner {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others may write it.
    #[error("others can write `{path}` (mode {mode:04o}): chmod go-w {path}")]
    Writable {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A link leads out of the directory.
    #[error("`{path}` leads out of its directory, to `{target}`")]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Neither a file nor a directory, or the other of the two.
    #[error("`{path}` is not {expected}")]
    Kind {
        /// The path.
        path: PathBuf,
        /// `a file` or `a directory`.
        expected: &'static str,
    },
}

/// A configured directory with its real path, once it and everything above it is trusted. `None` if it is not there.
pub(super) fn root(directory: &Path) -> Result<Option<PathBuf>, Distrust> {
    let real = match fs::canonicalize(directory) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(directory, &error)),
    };
    for above in real.ancestors().skip(1) {
        let metadata = look(above)?;
        // Its owner can replace what is in it all the same.
        owned(above, &metadata)?;
        if metadata.mode() & STICKY == 0 {
            closed(above, &metadata)?;
        }
    }
    directory_itself(&real)?;
    Ok(Some(real))
}

/// Checks one directory, nothing above it.
pub(super) fn directory_itself(path: &Path) -> Result<(), Distrust> {
    let metadata = look(path)?;
    if !metadata.is_dir() {
        return Err(Distrust::Kind { path: path.to_owned(), expected: "a directory" });
    }
    owned_and_closed(path, &metadata)
}

/// The real path of a file, which must lie below `root` and be trusted there with every directory in between.
pub(super) fn file(path: &Path, root: &Path) -> Result<PathBuf, Distrust> {
    let real = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
    if !real.starts_with(root) {
        return Err(Distrust::LeadsOut { path: path.to_owned(), target: real });
    }
    for directory in real.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
        directory_itself(directory)?;
    }
    file_itself(&real)?;
    Ok(real)
}

/// Checks one file, nothing above it.
pub(super) fn file_itself(path: &Path) -> Result<(), Distrust> {
    let metadata = look(path)?;
    if !metadata.is_file() {
        return Err(Distrust::Kind { path: path.to_owned(), expected: "a file" });
    }
    owned_and_closed(path, &metadata)
}

fn owned_and_closed(path: &Path, metadata: &Metadata) -> Result<(), Distrust> {
    owned(path, metadata)?;
    closed(path, metadata)
}

fn owned(path: &Path, metadata: &Metadata) -> Result<(), Distrust> {
    let owner = metadata.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(Distrust::Owner { path: path.to_owned(), owner });
    }
    Ok(())
}

fn closed(path: &Path, metadata: &Metadata) -> Result<(), Distrust> {
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Distrust::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

fn look(path: &Path) -> Result<Metadata, Distrust> {
    fs::symlink_metadata(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Distrust {
    Distrust::Unreadable { path: path.to_owned(), why: error.to_string() }
}
