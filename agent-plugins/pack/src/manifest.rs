//! What an archive says that it holds. These are the bytes that are signed.

use std::collections::BTreeSet;

use muster_protocol::{PluginName, Timestamp, check_bounds};
use serde::{Deserialize, Serialize};

use crate::error::PackError;

/// The form of the manifest.
const FORMAT: &str = "muster.plugin-pack/v1";

/// Most files of one plugin.
pub const FILES_MAX: usize = 128;

/// Longest path of a file inside its plugin, in bytes.
pub const PATH_BYTES_MAX: usize = 200;

/// Most folders above a file inside its plugin.
const FOLDERS_MAX: usize = 8;

/// Longest version, in bytes.
const VERSION_BYTES_MAX: usize = 64;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `muster.plugin-pack/v1`.
    pub format: String,
    /// The plugin.
    pub name: PluginName,
    /// Its version, as in its description.
    pub version: String,
    /// When it was packed.
    pub created_at_ms: Timestamp,
    /// Who packed it, by their own word; the signature says who it was.
    pub made_by: String,
    /// The files, by path.
    pub files: Vec<FileEntry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where it is, below the plugin's folder.
    pub path: String,
    /// Whether it can be executed: mode 0755 and not 0644.
    pub executable: bool,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, lower-case hexadecimal.
    pub sha256: String,
}

impl Manifest {
    pub(crate) fn new(
        name: PluginName,
        version: String,
        created_at_ms: Timestamp,
        made_by: String,
        files: Vec<FileEntry>,
    ) -> Result<Self, PackError> {
        let manifest = Self { format: FORMAT.to_owned(), name, version, created_at_ms, made_by, files };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads a manifest within its bounds.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PackError> {
        check_bounds(bytes).map_err(|error| PackError::malformed(format!("its manifest: {error}")))?;
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| PackError::malformed(format!("its manifest cannot be read: {error}")))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), PackError> {
        if self.format != FORMAT {
            return Err(PackError::malformed(format!("its manifest is not of the form {FORMAT}")));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+~:-".contains(c);
        if self.version.is_empty() || self.version.len() > VERSION_BYTES_MAX || !self.version.chars().all(plain) {
            let why = format!("its version is not 1 to {VERSION_BYTES_MAX} letters, digits and . _ + ~ : -");
            return Err(PackError::malformed(why));
        }
        if self.files.len() > FILES_MAX {
            return Err(PackError::TooMuch { what: format!("{} files", self.files.len()), max: FILES_MAX as u64 });
        }
        let mut seen = BTreeSet::new();
        for file in &self.files {
            check_path(&file.path)?;
            if !seen.insert(file.path.as_str()) {
                return Err(name(&file.path, "stands there twice"));
            }
        }
        for file in &self.files {
            let mut above = file.path.as_str();
            while let Some((folder, _)) = above.rsplit_once('/') {
                if seen.contains(folder) {
                    return Err(name(folder, "is a file's and a folder's"));
                }
                above = folder;
            }
        }
        for needed in [format!("{}.json", self.name), self.name.to_string()] {
            let program = |path: &str| path.strip_prefix(&needed).is_some_and(|rest| rest.starts_with('-'));
            let there =
                seen.contains(needed.as_str()) || (!needed.ends_with(".json") && seen.iter().any(|path| program(path)));
            if !there {
                return Err(PackError::malformed(format!("it has no file `{needed}`")));
            }
        }
        Ok(())
    }
}

/// Checks a path below the plugin's folder: plain words between single slashes.
pub(crate) fn check_path(path: &str) -> Result<(), PackError> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return Err(name(path, "is empty or too long"));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(name(path, "has control characters or backslashes"));
    }
    if path.split('/').any(|word| word.is_empty() || word == "." || word == "..") {
        return Err(name(path, "is not a path below the plugin's folder"));
    }
    if path.split('/').any(|word| word.starts_with(['.', '-'])) {
        return Err(name(path, "has a part that begins with . or -"));
    }
    if path.split('/').count() > FOLDERS_MAX + 1 {
        return Err(name(path, "lies too deep"));
    }
    Ok(())
}

pub(crate) fn name(path: &str, why: &'static str) -> PackError {
    PackError::Name { path: path.chars().take(PATH_BYTES_MAX).flat_map(char::escape_debug).collect(), why }
}
