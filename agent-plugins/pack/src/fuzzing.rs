//! Doors for the fuzzer.

use crate::manifest::check_path;
use crate::{FILES_MAX, Manifest, PackError, UNPACKED_BYTES_MAX, archive};

/// Reads an archive. What it gives is within the bounds and stays below a folder.
///
/// # Errors
/// As opening a pack.
pub fn archive(bytes: &[u8]) -> Result<usize, PackError> {
    let files = archive::read(bytes)?;
    assert!(files.len() <= FILES_MAX + 2);
    assert!(files.values().map(|(_, content)| content.len() as u64).sum::<u64>() <= UNPACKED_BYTES_MAX);
    for path in files.keys() {
        let parts: Vec<&str> = path.split('/').collect();
        assert!(!parts.iter().any(|part| part.is_empty() || part.starts_with('.')), "{path:?}");
    }
    Ok(files.len())
}

/// Packs files as they are, so that what reads archives gets whole ones.
///
/// # Errors
/// When they cannot be packed.
pub fn pack(files: &[(String, bool, &[u8])]) -> Result<Vec<u8>, PackError> {
    archive::write(files)
}

/// Reads a manifest, whose paths are all good ones.
///
/// # Errors
/// As opening a pack.
pub fn manifest(bytes: &[u8]) -> Result<Manifest, PackError> {
    let manifest = Manifest::parse(bytes)?;
    assert!(manifest.files.iter().all(|file| check_path(&file.path).is_ok()));
    Ok(manifest)
}
