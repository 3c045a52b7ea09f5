//! The config files: where they are, what is in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use muster_daemon::config::{ConfigError, Loaded, Sources, load};
use serde::{Deserialize, Serialize};

use super::Selection;
use crate::output::{ExitCode, Failure, word};

/// The file for everybody on this machine.
const SYSTEM_FILE: &str = "/etc/muster/config.toml";

/// Where the config files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locations {
    /// Read first; absent with `--config`.
    pub(crate) system: Option<PathBuf>,
    /// Read last, and the one that is written. `None` where there is no home directory.
    pub(crate) user: Option<PathBuf>,
    /// Whether the operator named the file, so that it must exist.
    pub(crate) named: bool,
}

impl Locations {
    /// `--config` or `MUSTER_CONFIG` name the only file; else the system's file and the user's.
    pub(crate) fn detect(selection: &Selection, variables: &BTreeMap<String, String>) -> Self {
        let named = selection.config.clone().or_else(|| variables.get("MUSTER_CONFIG").map(PathBuf::from));
        if let Some(named) = named {
            return Self { system: None, user: Some(named), named: true };
        }
        Self { system: Some(SYSTEM_FILE.into()), user: user_file(variables), named: false }
    }

    /// The files in the order in which they are read.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Path> {
        self.system.iter().chain(&self.user).map(PathBuf::as_path)
    }
}

/// `$XDG_CONFIG_HOME/muster/config.toml`, or the same below `~/.config`. Relative values do not count (XDG base directories).
fn user_file(variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let absolute = |name: &str| variables.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(directory.join("muster/config.toml"))
}

/// What stands in the files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Raw {
    /// The context that is used when nobody says otherwise.
    #[serde(default)]
    pub(crate) current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub(crate) context: BTreeMap<String, RawContext>,
}

/// A context as it stands in the files; any value may come from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RawContext {
    #[serde(default)]
    pub(crate) broker: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) collective: Option<String>,
    #[serde(default)]
    pub(crate) ca: Option<String>,
    #[serde(default)]
    pub(crate) crl: Option<String>,
    #[serde(default)]
    pub(crate) certificate: Option<String>,
    #[serde(default)]
    pub(crate) key: Option<String>,
    #[serde(default)]
    pub(crate) confirm_above: Option<usize>,
    #[serde(default)]
    pub(crate) production: Option<bool>,
    #[serde(default)]
    pub(crate) ddl_directory: Option<String>,
}

/// The files' content, merged, with the origin of each value.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The merged content.
    pub(crate) raw: Raw,
    /// `FILE:LINE` by dotted key, such as `context.prod.ca`.
    pub(crate) origins: BTreeMap<String, String>,
}

impl Files {
    /// Reads the files that are there.
    ///
    /// # Errors
    /// A file cannot be read, is not TOML, or has unknown keys or wrong values; a file that was named is missing.
    pub(crate) fn read(locations: &Locations) -> Result<Self, Failure> {
        let mut sources = Sources::new();
        for path in locations.all() {
            sources = if locations.named { sources.file(path) } else { sources.optional_file(path) };
        }
        let loaded: Loaded<Raw> = load(sources).map_err(|error| failure(&error))?;
        Ok(Self { raw: loaded.value, origins: loaded.origins })
    }

    /// Where a context's value stands.
    pub(crate) fn origin(&self, context: &str, key: &str) -> Option<&str> {
        self.origins.get(&format!("context.{context}.{key}")).map(String::as_str)
    }
}

/// Exit 2: the files are wrong.
pub(crate) fn failure(error: &ConfigError) -> Failure {
    let failure = match error {
        ConfigError::Invalid { problems } => {
            let failure = Failure::new(ExitCode::Usage, error.code(), "the config file has wrong keys or values");
            problems.iter().fold(failure, |failure, problem| failure.why("why", problem.to_string()))
        }
        ConfigError::Syntax { .. } => {
            Failure::new(ExitCode::Usage, error.code(), "the config file is not valid TOML").because(error)
        }
        _ => Failure::new(ExitCode::Usage, error.code(), "the config file cannot be used").because(error),
    };
    let failure = failure.hint("muster explain ".to_owned() + error.code());
    let closed = match error {
        ConfigError::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            closed_above(path, |part| fs::symlink_metadata(part).map(drop))
        }
        _ => None,
    };
    closed.iter().fold(failure, |failure, closed| with_closed(failure, closed))
}

/// What to do about a directory that does not let us in.
fn with_closed(failure: Failure, closed: &Path) -> Failure {
    let directory = word(&closed.display().to_string());
    failure
        .why("closed", format!("you may not enter the directory `{}`", closed.display()))
        .hint(format!("sudo chmod a+rx {directory}  # the files in it keep their own modes"))
        .hint(format!("ls -ld {directory}"))
}

/// The uppermost directory on the way to a file that does not let us look into it.
fn closed_above(path: &Path, look: impl Fn(&Path) -> io::Result<()>) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let way: Vec<&Path> = path.ancestors().collect();
    let denied = |part: &Path| look(part).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    way.into_iter().rev().find(|part| denied(part)).and_then(Path::parent).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_is_closed_is_named() {
        let check = |denied: &str, expected: Option<&str>| {
            let look = |part: &Path| match part.starts_with(denied) {
                true => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
                false => Ok(()),
            };
            assert_eq!(
                closed_above(Path::new("/etc/muster/config.toml"), look),
                expected.map(PathBuf::from),
                "{denied}"
            );
        };
        // Whoever may not enter a directory may not look at what is in it.
        check("/etc/muster/config.toml", Some("/etc/muster"));
        check("/etc/muster", Some("/etc"));
        // The file itself is what cannot be read.
        check("/srv", None);
    }

    #[test]
    fn a_closed_directory_comes_with_commands() {
        let failure = with_closed(Failure::usage("x"), Path::new("/etc/my files"));
        let said = failure.lines().iter().map(crate::output::Text::to_plain).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(said, @r"
        error[bad-usage]: x
          closed  you may not enter the directory `/etc/my files`
          or      sudo chmod a+rx '/etc/my files'  # the files in it keep their own modes
          try     ls -ld '/etc/my files'
        ");
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let open = super::failure(&ConfigError::Read { path: "/".into(), source });
        assert_eq!(open.hints, ["muster explain config-unreadable"]);
    }
}
