//! What can be wrong with an archive, or in the way of putting it in place.

use std::io;
use std::path::PathBuf;

use muster_pki::VerifyError;
use muster_protocol::{Code, PluginName, code};

/// Why an archive cannot be made, is not accepted, or cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or directory cannot be read or written.
    #[error("{action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// More than a bound allows.
    #[error("the pack has {what}; at most {max} are allowed")]
    TooMuch {
        /// What there is too much of, with its number if that is known.
        what: String,
        /// The bound.
        max: u64,
    },
    /// Not an archive, or one with something in it that has no place there.
    #[error("the pack is malformed: {why}")]
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// A name that could mean something else, or nothing.
    #[error("the pack has a file `{path}`, whose name {why}")]
    Name {
        /// The name, escaped and cut.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file is not as the manifest says.
    #[error("file `{path}` of the pack is not what its manifest says")]
    Checksum {
        /// The file.
        path: String,
    },
    /// The signature is wrong, or the certificate not to be believed.
    #[error("the pack's signature is not accepted")]
    Signature {
        /// Why.
        #[source]
        source: VerifyError,
    },
    /// Signed, but by nobody who may.
    #[error("the pack is signed by {}, who is in none of the groups that may: {}", signers.join(", "), list(groups))]
    Signer {
        /// Who signed.
        signers: Vec<String>,
        /// Who may.
        groups: Vec<String>,
    },
    /// A newer version, or another content of the same version, is in place.
    #[error("plugin `{name}` {installed} is installed, and the pack has {given}{}", if installed == given { " with another content" } else { "" })]
    NotNewer {
        /// The plugin.
        name: PluginName,
        /// The version in place.
        installed: String,
        /// The version in the archive.
        given: String,
    },
    /// There is nothing to remove.
    #[error("no pack of plugin `{name}` is installed here")]
    NotInstalled {
        /// The plugin.
        name: PluginName,
    },
    /// Something that did not come from an archive has the plugin's place.
    #[error("`{path}` did not come from a pack and is left alone")]
    Foreign {
        /// What stands there.
        path: PathBuf,
    },
}

fn list(groups: &[String]) -> String {
    if groups.is_empty() { "there are none".to_owned() } else { groups.join(", ") }
}

impl PackError {
    /// Whether trying again may help: where the disk was in the way.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::TooMuch { .. }
            | Self::Malformed { .. }
            | Self::Name { .. }
            | Self::Checksum { .. }
            | Self::Signature { .. }
            | Self::Signer { .. }
            | Self::NotNewer { .. }
            | Self::NotInstalled { .. }
            | Self::Foreign { .. } => false,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Io { .. } | Self::NotInstalled { .. } => &code::FAILED,
            Self::TooMuch { .. } => &code::LIMIT_EXCEEDED,
            Self::Malformed { .. } | Self::Name { .. } => &code::INVALID_ARGUMENT,
            Self::Checksum { .. } => &code::CHECKSUM_MISMATCH,
            Self::Signature { .. } | Self::Signer { .. } => &code::UNTRUSTED_PACK,
            Self::NotNewer { .. } | Self::Foreign { .. } => &code::CONFLICT,
        }
    }

    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed { why: why.into() }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
