//! What can go wrong with keys, certificates, lists and the CA directory.

use std::io;
use std::path::{Path, PathBuf};

use muster_protocol::{Identity, Timestamp};

use crate::certificate::IdentityError;
use crate::time_text::utc;

/// Why an operation on keys, certificates, revocation lists or the CA directory failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or directory could not be read.
    #[error("read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file or directory could not be written.
    #[error("write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file stands where a new one should go.
    #[error("`{}` already exists and is never overwritten", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// The directory is not a CA directory.
    #[error("`{}` holds no certificate authority", directory.display())]
    NoAuthority {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A private key that more than its owner can read.
    #[error("key file `{}` is accessible by group or others (mode {mode:04o})", path.display())]
    KeyExposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A CA directory that more than its owner can enter.
    #[error("CA directory `{}` is accessible by group or others (mode {mode:04o})", path.display())]
    DirectoryExposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file or message part that is not what it should be.
    #[error("{object} is not usable: {why}")]
    Malformed {
        /// What it should have been and where it is, such as ``certificate `/etc/x.pem` ``.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate whose identity cannot be used.
    #[error("{object} names no usable identity")]
    Identity {
        /// Which certificate.
        object: String,
        /// What is wrong with the identity.
        #[source]
        source: IdentityError,
    },
    /// A private key that does not belong to the certificate beside it.
    #[error("key `{}` does not belong to certificate `{}`", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// Another process works on the CA directory.
    #[error("another process is changing CA directory `{}`", directory.display())]
    Locked {
        /// Which directory.
        directory: PathBuf,
    },
    /// A line of the index that is no entry.
    #[error("index `{}` is damaged at line {line}: {why}", path.display())]
    IndexDamaged {
        /// The index.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The identity already has a certificate that is valid.
    #[error("`{}` already has a certificate (serial {serial}) valid until {}", identity.short(), utc(*not_after))]
    IdentityTaken {
        /// Whose.
        identity: Box<Identity>,
        /// The serial of the certificate in force.
        serial: String,
        /// Until when it is valid.
        not_after: Timestamp,
    },
    /// The request asks for another identity than the operator expects, or for none.
    #[error("the request asks for {}, not for `{}`", requested.as_ref().map_or("no identity".to_owned(), |it| format!("`{}`", it.short())), expected.short())]
    OtherIdentity {
        /// What stands in the request.
        requested: Option<Box<Identity>>,
        /// What the operator said.
        expected: Box<Identity>,
    },
    /// An option that this kind of certificate cannot have.
    #[error("a {kind} certificate cannot have {what}")]
    NotForKind {
        /// `host`, `user`, `service` or `broker`.
        kind: &'static str,
        /// Which option.
        what: &'static str,
    },
    /// A value that is out of range or of the wrong form.
    #[error("{what} `{given}` is not {expected}")]
    BadValue {
        /// What it is.
        what: &'static str,
        /// What was given.
        given: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Nothing in the index has this name.
    #[error("the authority has no certificate for `{name}`")]
    NotFound {
        /// The identity or serial.
        name: String,
    },
    /// A serial's beginning that fits several certificates.
    #[error("serial `{prefix}` fits {count} certificates")]
    AmbiguousSerial {
        /// What was given.
        prefix: String,
        /// How many it fits.
        count: usize,
    },
    /// It is revoked already.
    #[error("certificate {serial} of `{}` was already revoked at {}", identity.short(), utc(*revoked_at))]
    AlreadyRevoked {
        /// Whose.
        identity: Box<Identity>,
        /// Which.
        serial: String,
        /// When.
        revoked_at: Timestamp,
    },
    /// The authority's own certificate is over.
    #[error("the authority's own certificate expired at {}", utc(*not_after))]
    AuthorityExpired {
        /// When.
        not_after: Timestamp,
    },
    /// A revocation list of somebody else.
    #[error("the revocation list is not signed by a trusted authority (its issuer is `{issuer}`)")]
    ForeignCrl {
        /// The issuer it names.
        issuer: String,
    },
    /// A revocation list older than the one in force.
    #[error("revocation list number {given} is not newer than number {known}, which is in force")]
    CrlRollback {
        /// The number offered.
        given: u64,
        /// The number in force.
        known: u64,
    },
    /// The library that builds certificates refused.
    #[error("build {what}")]
    Build {
        /// What was being built.
        what: &'static str,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate with which nobody serves TLS here.
    #[error("the certificate of `{}` does not serve TLS: {why}", identity.short())]
    NotServing {
        /// Whose certificate.
        identity: Box<Identity>,
        /// What it lacks.
        why: String,
    },
    /// A certificate of another authority than clients believe.
    #[error("the certificate of `{}` is of another authority: its issuer is `{issuer}`, and trusted is {}", identity.short(), trusted.join(" or "))]
    ForeignServer {
        /// Whose certificate.
        identity: Box<Identity>,
        /// The issuer it names.
        issuer: String,
        /// The authorities that are trusted, each with its fingerprint.
        trusted: Vec<String>,
    },
    /// TLS cannot be set up with these parts.
    #[error("set up TLS")]
    Tls {
        /// What the library says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PkiError {
    /// The stable code: lower case, words joined by dashes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "file-unreadable",
            Self::Write { .. } => "file-unwritable",
            Self::Exists { .. } => "file-exists",
            Self::NoAuthority { .. } => "no-authority",
            Self::KeyExposed { .. } => "key-exposed",
            Self::DirectoryExposed { .. } => "directory-exposed",
            Self::Malformed { .. } => "bad-file",
            Self::Identity { .. } => "bad-identity",
            Self::KeyMismatch { .. } => "key-mismatch",
            Self::Locked { .. } => "authority-locked",
            Self::IndexDamaged { .. } => "index-damaged",
            Self::IdentityTaken { .. } => "identity-taken",
            Self::OtherIdentity { .. } => "other-identity",
            Self::NotForKind { .. } => "not-for-kind",
            Self::BadValue { .. } => "bad-value",
            Self::NotFound { .. } => "no-certificate",
            Self::AmbiguousSerial { .. } => "ambiguous-serial",
            Self::AlreadyRevoked { .. } => "already-revoked",
            Self::AuthorityExpired { .. } => "authority-expired",
            Self::ForeignCrl { .. } => "foreign-crl",
            Self::CrlRollback { .. } => "crl-rollback",
            Self::Build { .. } => "certificate-not-built",
            Self::NotServing { .. } => "not-a-server-certificate",
            Self::ForeignServer { .. } => "foreign-certificate",
            Self::Tls { .. } => "tls-not-set-up",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Read { source, .. } | Self::Write { source, .. } => {
                matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::StorageFull)
            }
            Self::Exists { .. }
            | Self::NoAuthority { .. }
            | Self::KeyExposed { .. }
            | Self::DirectoryExposed { .. }
            | Self::Malformed { .. }
            | Self::Identity { .. }
            | Self::KeyMismatch { .. }
            | Self::IndexDamaged { .. }
            | Self::IdentityTaken { .. }
            | Self::OtherIdentity { .. }
            | Self::NotForKind { .. }
            | Self::BadValue { .. }
            | Self::NotFound { .. }
            | Self::AmbiguousSerial { .. }
            | Self::AlreadyRevoked { .. }
            | Self::AuthorityExpired { .. }
            | Self::ForeignCrl { .. }
            | Self::CrlRollback { .. }
            | Self::Build { .. }
            | Self::NotServing { .. }
            | Self::ForeignServer { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// What to do about it: commands to try or where to look, one per line.
    #[must_use]
    pub fn remedies(&self) -> Vec<String> {
        match self {
            Self::Read { path, source } | Self::Write { path, source } => vec![file_remedy(path, source)],
            Self::Exists { path } => {
                vec![format!("choose another directory, or move `{}` away if nobody needs it", path.display())]
            }
            Self::NoAuthority { directory } => vec![
                "the same command with --ca-dir DIR (or MUSTER_CA_DIR), the directory that the authority lives in"
                    .to_owned(),
                format!("muster pki init --ca-dir {}  # only where there is none yet", directory.display()),
            ],
            Self::KeyExposed { path, .. } => vec![format!("chmod 600 {}", path.display())],
            Self::DirectoryExposed { path, .. } => vec![format!("chmod 700 {}", path.display())],
            Self::Malformed { .. } => vec!["`muster pki show FILE` says what a file holds".to_owned()],
            Self::Identity { .. } => vec!["have it issued again: `muster pki issue KIND/NAME --out DIR`".to_owned()],
            Self::KeyMismatch { certificate, .. } => vec![format!(
                "use the key that was made with it; `muster pki show {}` says whose certificate it is",
                certificate.display()
            )],
            Self::Locked { .. } => vec!["wait until the other `muster pki` command has ended".to_owned()],
            Self::IdentityTaken { identity, .. } => vec![
                "to renew it, with both certificates valid for a while, add --renew".to_owned(),
                format!("muster pki revoke {}  # first, to replace a lost or stolen key", identity.short()),
            ],
            Self::OtherIdentity { .. } => {
                vec!["--identity KIND/NAME --override signs it for the identity you name".to_owned()]
            }
            Self::NotForKind { what, .. } => {
                let option = what.split(':').next().unwrap_or(what);
                vec![format!("leave out {option}, or choose another kind of identity")]
            }
            Self::BadValue { what, expected, .. } => vec![format!("{what}: give {expected}")],
            Self::NotFound { .. } => vec!["muster pki list".to_owned()],
            Self::AmbiguousSerial { .. } => {
                vec!["give more of it; `muster pki list --json` shows whole serials".to_owned()]
            }
            Self::AlreadyRevoked { serial, .. } => vec![format!("muster pki show {serial}")],
            Self::IndexDamaged { path, .. } => {
                vec![format!("restore `{}` from a backup; nothing was changed", path.display())]
            }
            Self::AuthorityExpired { .. } => {
                vec!["muster pki init --ca-dir NEW_DIR  # and change over to the new authority".to_owned()]
            }
            Self::ForeignCrl { .. } => {
                vec!["use the list of the authority in `ca.pem`: muster pki crl --out FILE".to_owned()]
            }
            Self::CrlRollback { .. } => {
                vec!["sign a newer list, where the authority is: muster pki crl --out FILE".to_owned()]
            }
            Self::ForeignServer { .. } => vec![
                "where the trusted authority is: muster pki issue broker/NAME --dns NAME --out DIR".to_owned(),
                "name the `ca.pem` that came with the certificate".to_owned(),
            ],
            Self::NotServing { .. } => {
                vec!["where the authority is: muster pki issue broker/NAME --dns NAME --out DIR".to_owned()]
            }
            Self::Build { .. } | Self::Tls { .. } => vec![format!("muster explain {}", self.code())],
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(object: impl Into<String>, why: impl ToString) -> Self {
        Self::Malformed { object: object.into(), why: why.to_string() }
    }
}

/// What to do about a file that cannot be read or written.
fn file_remedy(path: &Path, error: &io::Error) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        io::ErrorKind::NotFound => format!("ls -l {}, and look at the spelling", parent.display()),
        io::ErrorKind::PermissionDenied => format!("ls -ld {}; run it as somebody who may", path.display()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("df -h {}", parent.display()),
        _ => format!("ls -ld {}, or name another file", path.display()),
    }
}
