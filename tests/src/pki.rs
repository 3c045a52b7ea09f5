//! A throw-away PKI for tests: a CA, and certificates for hosts, users, services and the broker with
//! their files on disk, as the programs want them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use muster_broker_config::ServerCertificate;
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::testing::{Files, TestAuthority};
use muster_pki::{Credentials, Trust};
use muster_protocol::Timestamp;
use tempfile::TempDir;

use crate::cleanup::{remove_at_exit, unwatched};

/// A certificate authority and what it has issued. Removed from disk when dropped.
#[derive(Debug)]
pub struct Site {
    authority: TestAuthority,
    directory: TempDir,
    members: Mutex<BTreeMap<String, Member>>,
}

/// One identity: its credentials in memory and its files.
#[derive(Debug, Clone)]
pub struct Member {
    /// For signing and for TLS.
    pub credentials: Credentials,
    /// Where certificate, key, CA and revocation list lie.
    pub files: Files,
}

impl Member {
    /// The files as a broker's configuration names them.
    #[must_use]
    pub fn server_certificate(&self) -> ServerCertificate {
        ServerCertificate {
            ca: self.files.ca.clone(),
            certificate: self.files.certificate.clone(),
            key: self.files.key.clone(),
        }
    }
}

/// The site that all tests of this process share: making one costs a few milliseconds and the shared
/// broker knows only one CA. Tests that need another CA make their own with [`Site::new`].
#[must_use]
pub fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| Site::watched().expect("a temporary directory is writable, and a shell starts"))
}

impl Site {
    /// Makes a new CA in a temporary directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn new() -> Result<Self> {
        Ok(Self {
            authority: TestAuthority::new(Timestamp(SystemClock.now_ms()))?,
            directory: tempfile::Builder::new().prefix("muster-pki-").tempdir()?,
            members: Mutex::new(BTreeMap::new()),
        })
    }

    /// Makes one whose directories go with this process, however that ends.
    ///
    /// # Errors
    /// As [`Self::new`], and nobody can be started who watches over it.
    pub fn watched() -> Result<Self> {
        let _unwatched = unwatched();
        let site = Self::new()?;
        let authority = site.authority.ca_directory();
        remove_at_exit(authority.parent().unwrap_or(&authority))?;
        remove_at_exit(site.directory())?;
        Ok(site)
    }

    /// The authority, to revoke or to issue something odd.
    #[must_use]
    pub fn authority(&self) -> &TestAuthority {
        &self.authority
    }

    /// Where each member has a directory with its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Trusts this site's CA with its newest revocation list.
    ///
    /// # Panics
    /// The CA's files cannot be read.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.authority.trust().expect("the CA's files are readable")
    }

    /// The member `KIND/NAME`, issued on first use.
    ///
    /// # Panics
    /// The name is no identity.
    pub fn member(&self, identity: &str) -> Member {
        self.get(identity, || self.authority.credentials(identity))
    }

    /// The user `user/NAME` (or service) in these groups, issued on first use.
    ///
    /// # Panics
    /// The name is no identity.
    #[must_use]
    pub fn member_in(&self, identity: &str, groups: &[&str]) -> Member {
        self.get(&format!("{identity} {}", groups.join(" ")), || {
            self.authority.credentials_with_groups(identity, groups)
        })
    }

    /// The broker's certificate for `localhost` and loopback addresses.
    ///
    /// # Panics
    /// Its files cannot be written.
    #[must_use]
    pub fn broker(&self) -> Member {
        self.get("broker/localhost", || self.authority.broker("broker/localhost"))
    }

    /// The certificate of a site's broker, for loopback too, which may log in at the central one.
    ///
    /// # Panics
    /// The name is no host's, or its files cannot be written.
    #[must_use]
    pub fn linked_broker(&self, name: &str) -> Member {
        let identity = format!("broker/{name}");
        self.get(&identity, || self.authority.linked_broker(&identity))
    }

    /// Writes credentials that a test made through [`Self::authority`] into a directory of their own.
    ///
    /// # Panics
    /// The files cannot be written.
    #[must_use]
    pub fn keep(&self, name: &str, credentials: Credentials) -> Member {
        let directory: PathBuf = self.directory().join(name.replace(['/', ' '], "-"));
        let files = self.authority.write(&credentials, &directory).expect("the temporary directory is writable");
        Member { credentials, files }
    }

    fn get(&self, name: &str, issue: impl FnOnce() -> Result<Credentials, muster_pki::PkiError>) -> Member {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get(name) {
            return member.clone();
        }
        let credentials = issue().expect("the test names an identity");
        let member = self.keep(name, credentials);
        members.insert(name.to_owned(), member.clone());
        member
    }
}
