//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory cannot be read.
    #[error("read configuration `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("{}:{line}:{column}: not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The parser's words.
        message: String,
    },
    /// The sources contradict each other in a way that the merge does not understand.
    #[error("merge the sources of the configuration")]
    Merge {
        /// What the `config` crate says.
        #[source]
        source: Box<::config::ConfigError>,
    },
    /// Keys or values are wrong.
    #[error("{}", lines(problems))]
    Invalid {
        /// Each of them; never empty.
        problems: Vec<Problem>,
    },
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Nobody knows this key.
    Unknown {
        /// Where it stands.
        origin: String,
        /// The dotted key.
        key: String,
        /// The known key that resembles it most.
        suggestion: Option<String>,
        /// All keys that are known in its place.
        known: Vec<String>,
    },
    /// A key that must be there is not.
    Missing {
        /// The dotted key.
        key: String,
    },
    /// A value is wrong.
    Value {
        /// Where it stands.
        origin: String,
        /// The dotted key; empty for the configuration as a whole.
        key: String,
        /// What is there.
        found: String,
        /// What would be accepted.
        accepted: String,
    },
    /// A value has the right type and breaks a rule of its own.
    Rule {
        /// Where it stands.
        origin: String,
        /// The dotted key; empty for the configuration as a whole.
        key: String,
        /// The rule, in the words of the type.
        why: String,
    },
}

impl Problem {
    /// The dotted key it is about; empty for the configuration as a whole.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Unknown { key, .. } | Self::Missing { key } | Self::Value { key, .. } | Self::Rule { key, .. } => key,
        }
    }

    /// Whether it is about the value with this dotted key or a part of it.
    #[must_use]
    pub fn is_within(&self, key: &str) -> bool {
        self.key().strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { origin, key, suggestion: Some(suggestion), .. } => {
                write!(formatter, "{origin}: unknown key `{key}`, did you mean `{suggestion}`?")
            }
            Self::Unknown { origin, key, suggestion: None, known } if known.is_empty() => {
                write!(formatter, "{origin}: unknown key `{key}`")
            }
            Self::Unknown { origin, key, suggestion: None, known } => {
                write!(formatter, "{origin}: unknown key `{key}`, known here: {}", list(known))
            }
            Self::Missing { key } => write!(formatter, "`{key}` is not set, and it has no default"),
            Self::Value { origin, key, found, accepted } => {
                write!(formatter, "{origin}: `{key}` is {found}; accepted: {accepted}")
            }
            Self::Rule { origin, key, why } => write!(formatter, "{origin}: `{key}`: {why}"),
        }
    }
}

impl ConfigError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "config-unreadable",
            Self::Syntax { .. } | Self::Merge { .. } => "config-syntax",
            Self::Invalid { .. } => "config-invalid",
        }
    }
}

/// Names in backticks, joined by commas.
pub(super) fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
