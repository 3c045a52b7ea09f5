//! A throw-away authority for tests: credentials in one call, also expired, revoked and odd ones.
//!
//! It lies in a plain module and not behind a feature because one feature more would build this crate and
//! all above it twice. Nothing in it weakens a check: its authorities are trusted by nobody who does not name them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use muster_protocol::{GroupName, Identity, Timestamp};
use rcgen::{CertificateParams, Issuer, SanType};
use rustls_pki_types::CertificateDer;

use crate::authority::{Authority, InitOptions, Selection, file_stem};
use crate::certificate::Certificate;
use crate::crl::{CRL_DAYS_DEFAULT, CrlInfo, Reason};
use crate::profile::{Order, random_serial};
use crate::request::Request;
use crate::time_text::DAY_MS;
use crate::{Credentials, PkiError, PrivateKey, PublicKey, Trust, file};

/// A throw-away authority in a temporary directory that goes when it is dropped.
#[derive(Debug)]
pub struct TestAuthority {
    directory: tempfile::TempDir,
    authority: Mutex<Authority>,
    now: Timestamp,
}

/// Where one identity's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The revocation list, as of the moment the files were written.
    pub crl: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, mode 0600.
    pub key: PathBuf,
}

impl TestAuthority {
    /// A new authority whose certificates are valid from five minutes before `now`.
    ///
    /// # Errors
    /// When the temporary directory cannot be written.
    pub fn new(now: Timestamp) -> Result<Self, PkiError> {
        let temporary = std::env::temp_dir();
        let directory = tempfile::Builder::new()
            .prefix("muster-ca-")
            .tempdir()
            .map_err(|source| PkiError::Write { path: temporary, source })?;
        let authority = Authority::init(&directory.path().join("ca"), &InitOptions::default(), now)?;
        Ok(Self { directory, authority: Mutex::new(authority), now })
    }

    /// The CA directory.
    #[must_use]
    pub fn ca_directory(&self) -> PathBuf {
        self.directory.path().join("ca")
    }

    /// The authority's certificate in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.with(|authority| authority.certificate().to_pem())
    }

    /// A trust in this authority with its newest revocation list.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn trust(&self) -> Result<Trust, PkiError> {
        let directory = self.ca_directory();
        Trust::load(&directory.join("ca.pem"), Some(&directory.join("crl.pem")))
    }

    /// The newest revocation list in PEM.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn crl_pem(&self) -> Result<String, PkiError> {
        self.with(|authority| authority.crl().map(|(text, _)| text))
    }

    /// Credentials for `KIND/NAME`, valid now.
    ///
    /// # Errors
    /// When the name is none or the directory cannot be written.
    pub fn credentials(&self, identity: &str) -> Result<Credentials, PkiError> {
        self.credentials_with_groups(identity, &[])
    }

    /// Credentials for many identities at once, for a fleet, without a file for each. The index knows nothing of them, so they cannot be
    /// revoked.
    ///
    /// # Errors
    /// When a name is none.
    pub fn fleet(&self, identities: &[Identity]) -> Result<Vec<Credentials>, PkiError> {
        let made = self.mint(identities)?;
        made.into_iter().map(|(certificate, key)| Credentials::new(certificate, key, "test certificate")).collect()
    }

    /// The same as certificates and keys, for whoever hands them to other processes.
    ///
    /// # Errors
    /// As [`Self::fleet`].
    pub fn mint(&self, identities: &[Identity]) -> Result<Vec<(Certificate, PrivateKey)>, PkiError> {
        let orders: Vec<Order> = identities.iter().cloned().map(Order::new).collect();
        self.with(|authority| authority.mint(&orders, self.now))
    }

    /// Credentials for `KIND/NAME` in these groups, valid now.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn credentials_with_groups(&self, identity: &str, groups: &[&str]) -> Result<Credentials, PkiError> {
        let groups = groups.iter().map(|group| GroupName::new(*group)).collect::<Result<_, _>>();
        let groups = groups.map_err(|error| PkiError::malformed("test group", error))?;
        self.order(&Order { groups, ..Order::new(parse(identity)?) }, self.now)
    }

    /// Credentials for `broker/NAME` that serves `localhost`, 127.0.0.1 and ::1.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn broker(&self, identity: &str) -> Result<Credentials, PkiError> {
        self.local_broker(Order::new(parse(identity)?))
    }

    /// The same for a broker that logs in at another one.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn linked_broker(&self, identity: &str) -> Result<Credentials, PkiError> {
        self.local_broker(Order { link: true, ..Order::new(parse(identity)?) })
    }

    fn local_broker(&self, mut order: Order) -> Result<Credentials, PkiError> {
        order.dns_names.insert("localhost".to_owned());
        order.ip_addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        self.order(&order, self.now)
    }

    /// Credentials whose certificate ended a day before the authority's `now`.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn expired(&self, identity: &str) -> Result<Credentials, PkiError> {
        let order = Order { days: Some(1), ..Order::new(parse(identity)?) };
        self.order(&order, self.now.plus_ms(-2 * DAY_MS))
    }

    /// Credentials whose certificate begins a day after the authority's `now`.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn not_yet_valid(&self, identity: &str) -> Result<Credentials, PkiError> {
        self.order(&Order::new(parse(identity)?), self.now.plus_ms(DAY_MS))
    }

    /// Credentials that were revoked right after they were issued. A [`Trust`] loaded before does not know.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn revoked(&self, identity: &str) -> Result<Credentials, PkiError> {
        let credentials = self.credentials(identity)?;
        self.revoke(&credentials)?;
        Ok(credentials)
    }

    /// Revokes credentials and signs a new list.
    ///
    /// # Errors
    /// When they are not this authority's or revoked already.
    pub fn revoke(&self, credentials: &Credentials) -> Result<(), PkiError> {
        let selection = Selection::Serial(credentials.certificate().serial());
        self.with(|authority| authority.revoke(&selection, Reason::KeyCompromise, CRL_DAYS_DEFAULT, self.now))?;
        Ok(())
    }

    /// Signs a new revocation list that goes stale after `days`.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn renew_crl(&self, days: u32) -> Result<CrlInfo, PkiError> {
        self.with(|authority| authority.renew_crl(days, self.now))
    }

    /// Credentials made to order, as of `now`. The identity may have others.
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub fn order(&self, order: &Order, now: Timestamp) -> Result<Credentials, PkiError> {
        let order = Order { renew: true, ..order.clone() };
        self.with(|authority| {
            let (record, key) = authority.issue(&order, now)?;
            Credentials::new(authority.export(&record)?, key, "test certificate")
        })
    }

    /// A certificate for a request, as `muster pki sign` makes it.
    ///
    /// # Errors
    /// When the request is wrong or names nobody.
    pub fn sign(&self, request_pem: &str) -> Result<Certificate, PkiError> {
        let request = Request::read(request_pem.as_bytes(), "test request")?;
        let identity =
            request.identity().cloned().ok_or_else(|| PkiError::malformed("test request", "names nobody"))?;
        self.with(|authority| {
            let record = authority.sign_request(&request, &Order::new(identity), self.now)?;
            authority.export(&record)
        })
    }

    /// A certificate signed by this authority with anything in it, past all rules: `change` gets the parameters of an
    /// ordinary host certificate. The index knows nothing of it.
    ///
    /// # Errors
    /// When the library refuses the parameters.
    pub fn forge(
        &self,
        key: &PrivateKey,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Certificate, PkiError> {
        self.forge_for(&key.public(), change)
    }

    /// As [`Self::forge`], for a key whose private half nobody has to know.
    ///
    /// # Errors
    /// When the library refuses the parameters.
    pub fn forge_for(
        &self,
        key: &PublicKey,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Certificate, PkiError> {
        let order = Order::new(parse("host/forged")?);
        let (certificate, directory) =
            self.with(|authority| (authority.certificate().clone(), authority.directory().to_owned()));
        let mut parameters = order.parameters(random_serial(), self.now, certificate.not_after())?;
        change(&mut parameters);
        let build = |source| PkiError::Build { what: "the forged certificate", source };
        let ca_key = PrivateKey::load(&directory.join("ca.key"))?;
        let issuer =
            Issuer::from_ca_cert_der(&CertificateDer::from(certificate.der().to_vec()), &ca_key).map_err(build)?;
        let signed = parameters.signed_by(key, &issuer).map_err(build)?;
        Certificate::from_der(signed.der(), "forged certificate")
    }

    /// Writes credentials with `ca.pem` and `crl.pem` into a directory, as `muster pki issue --out` does.
    ///
    /// # Errors
    /// When the files of this identity are there already.
    pub fn write(&self, credentials: &Credentials, directory: &Path) -> Result<Files, PkiError> {
        file::create_directory(directory)?;
        let stem = file_stem(credentials.identity());
        let files = Files {
            ca: directory.join("ca.pem"),
            crl: directory.join("crl.pem"),
            certificate: directory.join(format!("{stem}.pem")),
            key: directory.join(format!("{stem}.key")),
        };
        credentials.save(&files.certificate, &files.key)?;
        file::replace(&files.ca, file::PUBLIC, self.ca_pem().as_bytes())?;
        file::replace(&files.crl, file::PUBLIC, self.crl_pem()?.as_bytes())?;
        Ok(files)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Authority) -> T) -> T {
        work(&mut self.authority.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// SAN URIs for [`TestAuthority::forge`].
///
/// # Panics
/// When a URI is not ASCII.
#[must_use]
pub fn uris(uris: &[&str]) -> Vec<SanType> {
    uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("test URIs are ASCII"))).collect()
}

fn parse(identity: &str) -> Result<Identity, PkiError> {
    identity.parse().map_err(|error| PkiError::malformed("test identity", error))
}
