//! A plugin's folder, read for packing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::PackError;
use crate::manifest::{FILES_MAX, check_path, name};
use crate::pack::{Content, UNPACKED_BYTES_MAX};

/// Reads all files of a folder, by path. Hidden files and what editors leave (`NAME~`) stay out;
/// anything that is neither a file nor a folder is refused.
///
/// # Errors
/// Something cannot be read, has no place in an archive, or is more than an archive may hold.
pub fn read_folder(folder: &Path) -> Result<Vec<Content>, PackError> {
    let mut contents = Vec::new();
    let mut total = 0;
    walk(folder, "", &mut contents, &mut total)?;
    contents.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(contents)
}

fn walk(folder: &Path, prefix: &str, contents: &mut Vec<Content>, total: &mut u64) -> Result<(), PackError> {
    for entry in fs::read_dir(folder).map_err(PackError::io("read folder", folder))? {
        let entry = entry.map_err(PackError::io("read folder", folder))?;
        let path = entry.path();
        let Ok(own) = entry.file_name().into_string() else {
            return Err(name(&path.display().to_string(), "is not UTF-8"));
        };
        if own.starts_with('.') || own.ends_with('~') {
            continue;
        }
        let inside = if prefix.is_empty() { own } else { format!("{prefix}/{own}") };
        check_path(&inside)?;
        let metadata = fs::symlink_metadata(&path).map_err(PackError::io("look at", &path))?;
        if metadata.is_dir() {
            // Bytecode of the machine it was tried on.
            if entry.file_name() != "__pycache__" {
                walk(&path, &inside, contents, total)?;
            }
            continue;
        }
        if !metadata.is_file() {
            return Err(name(&inside, "is not a regular file's"));
        }
        *total += metadata.len();
        if *total > UNPACKED_BYTES_MAX {
            return Err(PackError::TooMuch { what: "more unpacked bytes".to_owned(), max: UNPACKED_BYTES_MAX });
        }
        if contents.len() == FILES_MAX {
            return Err(PackError::TooMuch { what: "more files".to_owned(), max: FILES_MAX as u64 });
        }
        let bytes = fs::read(&path).map_err(PackError::io("read", &path))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        contents.push(Content { path: inside, executable, bytes });
    }
    Ok(())
}
