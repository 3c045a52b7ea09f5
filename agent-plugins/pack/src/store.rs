//! The directory into which archives are put: one folder for each plugin, replaced in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use muster_protocol::expr::Version;
use muster_protocol::{Envelope, PluginName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::PackError;
use crate::manifest::Manifest;
use crate::pack::{Pack, sha256_hex};

/// The file inside a plugin's folder that remembers its archive. No archive can hold a hidden one.
const RECORD: &str = ".pack.json";

/// Beginnings of names of folders on their way in and out. Whoever looks for plugins passes over them.
const INCOMING: &str = ".incoming-";
const OUTGOING: &str = ".outgoing-";

/// Largest record, in bytes: a manifest of all files, in base64, with its signature.
const RECORD_BYTES_MAX: u64 = 256 * 1024;

/// A directory of installed plugins.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// What may be put in the place of what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Allow {
    /// A newer version.
    #[default]
    Upgrade,
    /// Anything: an older version, or another content of the same.
    Any,
}

/// What installing changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Installed,
    /// An older version was there.
    Upgraded {
        /// Which.
        from: String,
    },
    /// A newer version was there.
    Downgraded {
        /// Which.
        from: String,
    },
    /// Another content of the same version was there.
    Replaced,
    /// The very same was there; nothing is done.
    Unchanged,
}

impl Change {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Upgraded { .. } => "upgraded",
            Self::Downgraded { .. } => "downgraded",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        }
    }

    /// The version that was there before, if it was another one.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        match self {
            Self::Upgraded { from } | Self::Downgraded { from } => Some(from),
            Self::Installed | Self::Replaced | Self::Unchanged => None,
        }
    }
}

/// A plugin that came from an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// What the archive held.
    pub manifest: Manifest,
    /// SHA-256 of the archive.
    pub sha256: String,
    /// Who had signed it, as it was verified then.
    pub signed_by: Vec<String>,
    /// When it was put in place.
    pub installed_at_ms: Timestamp,
    /// Whether its files are not as they were any more.
    pub is_modified: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    sha256: String,
    signed_by: Vec<String>,
    installed_at_ms: Timestamp,
    envelope: Envelope,
}

impl Store {
    /// The store in a directory, which is made when something is installed.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Clears away what a crash has left: half unpacked folders go, and a folder whose replacement
    /// never came in comes back.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn recover(&self) -> Result<(), PackError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(PackError::io("read", &self.directory)(error)),
        };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else { continue };
            if let Some(plugin) = name.strip_prefix(OUTGOING) {
                let place = self.directory.join(plugin);
                if !place.exists() {
                    fs::rename(&path, &place).map_err(PackError::io("put back", &place))?;
                    continue;
                }
            }
            if name.starts_with(OUTGOING) || name.starts_with(INCOMING) {
                fs::remove_dir_all(&path).map_err(PackError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// What is installed under a name. `None` for a plugin that is not there or did not come from an archive.
    #[must_use]
    pub fn installed(&self, name: &PluginName) -> Option<Installed> {
        let folder = self.directory.join(name.as_str());
        let path = folder.join(RECORD);
        if path.metadata().ok()?.len() > RECORD_BYTES_MAX {
            return None;
        }
        let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let manifest = Manifest::parse(&record.envelope.body().ok()?).ok()?;
        let is_same = |file: &crate::FileEntry| {
            fs::read(folder.join(&file.path)).is_ok_and(|bytes| sha256_hex(&bytes) == file.sha256)
        };
        let is_modified = !manifest.files.iter().all(is_same);
        Some(Installed {
            manifest,
            sha256: record.sha256,
            signed_by: record.signed_by,
            installed_at_ms: record.installed_at_ms,
            is_modified,
        })
    }

    /// What installing an archive would change.
    ///
    /// # Errors
    /// It is not newer than what is there and only that is allowed; something that came from no
    /// archive has its place.
    pub fn plan(&self, pack: &Pack, allow: Allow) -> Result<Change, PackError> {
        let name = &pack.manifest().name;
        let Some(installed) = self.installed(name) else {
            let place = self.directory.join(name.as_str());
            return match place.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::Installed),
                _ => Err(PackError::Foreign { path: place }),
            };
        };
        let (from, to) = (&installed.manifest.version, &pack.manifest().version);
        if from == to && installed.manifest.files == pack.manifest().files && !installed.is_modified {
            return Ok(Change::Unchanged);
        }
        let change = change(from, to);
        let may = matches!(change, Change::Upgraded { .. }) || allow == Allow::Any;
        // Files that were changed here are put right by the very same archive.
        let repairs = installed.is_modified && installed.manifest.files == pack.manifest().files;
        if may || repairs {
            return Ok(change);
        }
        Err(PackError::NotNewer { name: name.clone(), installed: from.clone(), given: to.clone() })
    }

    /// Unpacks an archive beside its place, forces it to disk, and moves it in.
    ///
    /// # Errors
    /// As [`Store::plan`]; or the disk is in the way, and then what was there stays.
    pub fn install(
        &self,
        pack: &Pack,
        signed_by: Vec<String>,
        allow: Allow,
        now: Timestamp,
    ) -> Result<Change, PackError> {
        let change = self.plan(pack, allow)?;
        if change == Change::Unchanged {
            return Ok(change);
        }
        make_directory(&self.directory)?;
        self.recover()?;
        let name = pack.manifest().name.as_str();
        let incoming = self.directory.join(format!("{INCOMING}{name}"));
        let record = Record {
            sha256: pack.sha256().to_owned(),
            signed_by,
            installed_at_ms: now,
            envelope: pack.envelope().clone(),
        };
        if let Err(error) = unpack(pack, &record, &incoming).and_then(|()| self.put(name, &incoming)) {
            // The first error is the one that matters.
            drop(fs::remove_dir_all(&incoming));
            return Err(error);
        }
        Ok(change)
    }

    /// Takes a plugin away that came from an archive.
    ///
    /// # Errors
    /// There is none of that name, it came from no archive, or the disk is in the way.
    pub fn remove(&self, name: &PluginName) -> Result<Installed, PackError> {
        let installed = self.removable(name)?;
        let (place, outgoing) = (self.directory.join(name.as_str()), self.directory.join(format!("{INCOMING}{name}")));
        self.recover()?;
        // With the name of one that came in half, so that a crash in the middle ends in removal.
        fs::rename(&place, &outgoing).map_err(PackError::io("move away", &place))?;
        sync(&self.directory)?;
        fs::remove_dir_all(&outgoing).map_err(PackError::io("remove", &outgoing))?;
        Ok(installed)
    }

    /// What [`Store::remove`] would take away.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn removable(&self, name: &PluginName) -> Result<Installed, PackError> {
        let place = self.directory.join(name.as_str());
        match self.installed(name) {
            Some(installed) => Ok(installed),
            None if place.symlink_metadata().is_ok() => Err(PackError::Foreign { path: place }),
            None => Err(PackError::NotInstalled { name: name.clone() }),
        }
    }

    /// Two renames, since none replaces a folder that is not empty. After a crash in between,
    /// [`Store::recover`] puts the old one back.
    fn put(&self, name: &str, incoming: &Path) -> Result<(), PackError> {
        let (place, outgoing) = (self.directory.join(name), self.directory.join(format!("{OUTGOING}{name}")));
        let replaces = place.exists();
        if replaces {
            fs::rename(&place, &outgoing).map_err(PackError::io("move away", &place))?;
        }
        if let Err(error) = fs::rename(incoming, &place) {
            if replaces {
                fs::rename(&outgoing, &place).map_err(PackError::io("put back", &place))?;
            }
            return Err(PackError::io("move into place", &place)(error));
        }
        sync(&self.directory)?;
        if replaces {
            fs::remove_dir_all(&outgoing).map_err(PackError::io("remove", &outgoing))?;
        }
        Ok(())
    }
}

fn change(from: &str, to: &str) -> Change {
    let order = match (Version::parse(from), Version::parse(to)) {
        (Some(from), Some(to)) => from.cmp(&to),
        // Without an order only the same text is the same version; anything else has to be asked for.
        _ if from == to => std::cmp::Ordering::Equal,
        _ => std::cmp::Ordering::Greater,
    };
    match order {
        std::cmp::Ordering::Less => Change::Upgraded { from: from.to_owned() },
        std::cmp::Ordering::Equal => Change::Replaced,
        std::cmp::Ordering::Greater => Change::Downgraded { from: from.to_owned() },
    }
}

fn unpack(pack: &Pack, record: &Record, folder: &Path) -> Result<(), PackError> {
    make_directory(folder)?;
    for content in pack.contents() {
        let path = folder.join(&content.path);
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        write(&path, if content.executable { 0o755 } else { 0o644 }, &content.bytes)?;
    }
    let record = serde_json::to_vec(record).map_err(|error| PackError::malformed(error.to_string()))?;
    write(&folder.join(RECORD), 0o644, &record)?;
    sync(folder)
}

/// Not the caller's mask decides: a plugin that others can write would not be run.
fn make_directory(path: &Path) -> Result<(), PackError> {
    use std::os::unix::fs::PermissionsExt as _;
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(PackError::io("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(PackError::io("open to readers", path))
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), PackError> {
    use std::os::unix::fs::PermissionsExt as _;
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    put().map_err(PackError::io("write", path))
}

fn sync(directory: &Path) -> Result<(), PackError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(PackError::io("force to disk", directory))
}
