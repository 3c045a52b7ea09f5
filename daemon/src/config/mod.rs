//! Configuration: files, drop-ins and environment, with the origin of every value.
//!
//! ```text
//! program's defaults  <  files in order  <  drop-in directory, sorted  <  environment
//! ```
//!
//! Tables are merged key by key; any other value replaces the one before it as a whole. The `config`
//! crate merges; this module reads the sources so that each value knows the line it came from, and
//! deserialises the result so that every problem names place, key and what would be accepted.

mod deserialize;
mod error;
mod nearest;
mod print;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

pub use error::{ConfigError, Problem};
pub use print::REDACTED;

use source::{EnvironmentLayer, FileLayer};

/// Where to look. Later sources win.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<(PathBuf, bool)>,
    drop_ins: Option<PathBuf>,
    environment: Option<EnvironmentLayer>,
}

/// A configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// Origin of each value that was set, by its dotted key: `FILE:LINE` or `environment variable NAME`.
    /// A key that is missing here has its default.
    pub origins: BTreeMap<String, String>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

impl Sources {
    /// No source: everything has its default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file that must exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), true));
        self
    }

    /// Adds a TOML file that may be missing.
    #[must_use]
    pub fn optional_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), false));
        self
    }

    /// Adds all `*.toml` files of a directory, sorted by name. The directory may be missing.
    #[must_use]
    pub fn drop_ins(mut self, directory: impl Into<PathBuf>) -> Self {
        self.drop_ins = Some(directory.into());
        self
    }

    /// Adds variables such as `PREFIX_SECTION__KEY` for the key `section.key`, from the given variables (the prefix
    /// may be given with its underscore or without; the variables are usually `std::env::vars()`). Names in `except` belong to somebody else, although they have the prefix.
    #[must_use]
    pub fn environment(
        mut self,
        prefix: &str,
        except: &[&str],
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        self.environment = Some(EnvironmentLayer::new(prefix, except, variables));
        self
    }
}

/// Reads all sources and makes a configuration of them.
///
/// # Errors
/// A file cannot be read or is not TOML, a key is unknown or missing, or a value is wrong. All unknown keys
/// are reported at once.
pub fn load<T: DeserializeOwned>(sources: Sources) -> Result<Loaded<T>, ConfigError> {
    match load_lenient(sources)? {
        (loaded, unknown) if unknown.is_empty() => Ok(loaded),
        (_, problems) => Err(ConfigError::Invalid { problems }),
    }
}

/// Does the same, but gives unknown keys back beside the configuration: a program that a newer file
/// may reach during a roll-out warns of them and goes on.
///
/// # Errors
/// As [`load`], unknown keys alone excepted.
pub fn load_lenient<T: DeserializeOwned>(sources: Sources) -> Result<(Loaded<T>, Vec<Problem>), ConfigError> {
    match load_partial(sources)? {
        (Some(loaded), problems) if problems.iter().all(|problem| matches!(problem, Problem::Unknown { .. })) => {
            Ok((loaded, problems))
        }
        (_, problems) => Err(ConfigError::Invalid { problems }),
    }
}

/// Reads all sources as far as they can be read, to find everything that is wrong with them at once: a
/// wrong value is a problem and counts as not set. There is no configuration where a key without a
/// default is missing or wrong.
///
/// # Errors
/// A file cannot be read or is not TOML.
pub fn load_partial<T: DeserializeOwned>(sources: Sources) -> Result<(Option<Loaded<T>>, Vec<Problem>), ConfigError> {
    let mut layers = Vec::new();
    for (path, required) in &sources.files {
        layers.extend(FileLayer::read(path, *required)?);
    }
    if let Some(directory) = &sources.drop_ins {
        for path in source::drop_ins(directory)? {
            layers.extend(FileLayer::read(&path, true)?);
        }
    }
    let files = layers.iter().map(|layer| layer.path().to_owned()).collect();
    let mut builder = ::config::Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    if let Some(environment) = sources.environment {
        builder = builder.add_source(environment);
    }
    let merged = builder.build().map_err(|source| ConfigError::Merge { source: Box::new(source) })?;
    let origins = source::origins(&merged.cache);
    let mut values = merged.cache;
    let mut wrong = Vec::new();
    // Reading ends at the first wrong value. Without it the next one is found, until there is none.
    loop {
        let mut problems = Vec::new();
        let problem = match deserialize::read(values.clone(), &mut problems) {
            Ok(value) => {
                problems.append(&mut wrong);
                return Ok((Some(Loaded { value, origins, files }), problems));
            }
            Err(problem) => problem,
        };
        // A misspelt key is both unknown and missing, and a wrong one that was left out is missing too; the
        // first of the two helps.
        let (removed, helps) = match &problem {
            Problem::Value { key, .. } | Problem::Rule { key, .. } => (source::remove(&mut values, key), true),
            Problem::Unknown { .. } => (false, true),
            Problem::Missing { key } => {
                (false, problems.is_empty() && !wrong.iter().any(|earlier: &Problem| earlier.is_within(key)))
            }
        };
        if helps {
            wrong.push(problem);
        }
        if !removed {
            problems.append(&mut wrong);
            return Ok((None, problems));
        }
    }
}

#[cfg(test)]
mod tests;
