//! The certificate authority: a directory that one operator at a time changes.
//!
//! | file | contents | mode |
//! |---|---|---|
//! | `ca.pem` | the authority's certificate | 0644 |
//! | `ca.key` | its private key | 0600 |
//! | `index.jsonl` | every event: issued, revoked, list signed; the truth | 0600 |
//! | `crl.pem` | the newest revocation list; follows from the index | 0644 |
//! | `issued/KIND-NAME-SERIAL.pem` | every certificate; follows from the index | 0644 |
//! | `lock` | locked while something changes | 0600 |
//!
//! An operation first appends to the index and syncs it, then writes the files that follow. A crash in
//! between is repaired by the next [`Authority::open`].

mod delivery;
mod index;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::{Identity, Timestamp};
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateDer;

use crate::certificate::Certificate;
use crate::crl::{CRL_DAYS_DEFAULT, Crl, CrlInfo, Reason};
use crate::key::{PrivateKey, PublicKey};
use crate::profile::{self, AUTHORITY_DAYS_DEFAULT, Order};
use crate::request::Request;
use crate::time_text::{DAY_MS, date, seconds};
use crate::{PkiError, file, pem};

pub use self::delivery::Delivered;
use self::index::{Event, Index, Issued};
pub use self::index::{Record, RecordState};

/// What a new authority is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// The beginning of its common name; digits of its key follow.
    pub name: String,
    /// Lifetime of its certificate, in days.
    pub days: u32,
    /// How long a revocation list is meant to be the newest, in days.
    pub crl_days: u32,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { name: "Muster CA".to_owned(), days: AUTHORITY_DAYS_DEFAULT, crl_days: CRL_DAYS_DEFAULT }
    }
}

/// Which certificates to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of an identity that are in force.
    Identity(Identity),
    /// The one whose serial begins with these hexadecimal digits.
    Serial(String),
}

/// A certificate authority in a directory.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    certificate: Certificate,
    index: Index,
}

impl Authority {
    /// Makes a new authority with its own key, certificate and an empty revocation list.
    ///
    /// # Errors
    /// When there is one already, the directory is open to others, or something cannot be written.
    pub fn init(directory: &Path, options: &InitOptions, now: Timestamp) -> Result<Self, PkiError> {
        profile::check_days(options.days)?;
        profile::check_days(options.crl_days)?;
        let name = options.name.trim();
        if name.is_empty() || name.chars().count() > 48 || name.chars().any(char::is_control) {
            return Err(PkiError::BadValue {
                what: "name",
                given: name.chars().take(80).flat_map(char::escape_default).collect(),
                expected: "1 to 48 printable characters",
            });
        }
        file::create_directory(directory)?;
        file::must_be_private(directory)?;
        let _lock = lock(directory)?;
        for existing in ["ca.key", "ca.pem", "index.jsonl", "crl.pem"] {
            file::must_not_exist(&directory.join(existing))?;
        }
        let key = PrivateKey::generate();
        let parameters =
            profile::authority_parameters(name, &key.public(), profile::random_serial(), options.days, now);
        let signed = parameters
            .self_signed(&key)
            .map_err(|source| PkiError::Build { what: "the authority's certificate", source })?;
        let certificate = Certificate::from_der(signed.der(), "authority certificate")?;
        // The key first: `ca.pem` is what makes the directory an authority.
        key.save(&directory.join("ca.key"))?;
        let mut authority = Self { directory: directory.to_owned(), certificate, index: Index::default() };
        authority.sign_crl(&key, options.crl_days, now)?;
        file::create_directory(&authority.issued())?;
        file::create(&directory.join("ca.pem"), file::PUBLIC, authority.certificate.to_pem().as_bytes())?;
        Ok(authority)
    }

    /// Opens an authority and repairs what a crash may have left unfinished.
    ///
    /// # Errors
    /// When there is none, the directory or the key is open to others, or the index is damaged.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let certificate = directory.join("ca.pem");
        if !certificate.exists() {
            return Err(PkiError::NoAuthority { directory: directory.to_owned() });
        }
        file::must_be_private(directory)?;
        let certificate = Certificate::load(&certificate)?;
        let index = Index::load(&directory.join("index.jsonl"))?;
        let mut authority = Self { directory: directory.to_owned(), certificate, index };
        if authority.is_unfinished() {
            match authority.begin(now) {
                Ok(_) => {}
                // Whoever holds the lock is finishing it right now.
                Err(PkiError::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(authority)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Where it lives.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a key and a certificate for it. The key exists only in what is returned.
    ///
    /// # Errors
    /// When the order is not possible, the identity has a certificate in force and `renew` is not set, or the directory cannot be written.
    pub fn issue(&mut self, order: &Order, now: Timestamp) -> Result<(Record, PrivateKey), PkiError> {
        let key = PrivateKey::generate();
        let record = self.certify(order, &key.public(), now)?;
        Ok((record, key))
    }

    /// Checks an order without carrying it out.
    ///
    /// # Errors
    /// As [`Self::issue`], as far as it can be known before.
    pub fn check(&self, order: &Order, now: Timestamp) -> Result<(), PkiError> {
        order.check()?;
        match self.index.in_force(&order.identity, now).last() {
            Some(record) if !order.renew => Err(PkiError::IdentityTaken {
                identity: Box::new(order.identity.clone()),
                serial: record.short_serial().to_owned(),
                not_after: record.not_after,
            }),
            _ => Ok(()),
        }
    }

    /// Certifies the key of a request. What the request wishes is looked at by the caller before it makes the order.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn sign_request(&mut self, request: &Request, order: &Order, now: Timestamp) -> Result<Record, PkiError> {
        self.certify(order, request.public_key(), now)
    }

    /// Certifies a public key whose owner is known to have the private one.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn certify(&mut self, order: &Order, public_key: &PublicKey, now: Timestamp) -> Result<Record, PkiError> {
        let (_lock, key) = self.begin(now)?;
        self.check(order, now)?;
        self.certify_locked(order, public_key, &key, now)
    }

    fn certify_locked(
        &mut self,
        order: &Order,
        public_key: &PublicKey,
        key: &PrivateKey,
        now: Timestamp,
    ) -> Result<Record, PkiError> {
        let certificate = self.build(order, public_key, key, now)?;
        let issued = Issued {
            serial: certificate.serial(),
            identity: order.identity.clone(),
            groups: order.groups.clone(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            issued_at: now,
            fingerprint: certificate.fingerprint().to_owned(),
            public_key: public_key.fingerprint(),
            certificate: BASE64.encode(certificate.der()),
        };
        self.append(&[Event::Issued(issued)])?;
        let record =
            self.index.records.last().cloned().ok_or_else(|| PkiError::NotFound { name: certificate.serial() })?;
        self.write_issued(&record)?;
        Ok(record)
    }

    /// Signs a certificate and reads back what was made: what we sign must be what everybody else will read.
    fn build(
        &self,
        order: &Order,
        public_key: &PublicKey,
        key: &PrivateKey,
        now: Timestamp,
    ) -> Result<Certificate, PkiError> {
        let parameters = order.parameters(profile::random_serial(), now, self.certificate.not_after())?;
        let signed = parameters
            .signed_by(public_key, &self.issuer(key)?)
            .map_err(|source| PkiError::Build { what: "the certificate", source })?;
        let certificate = Certificate::from_der(signed.der(), "the new certificate")?;
        let named = |source| PkiError::Identity { object: "the new certificate".to_owned(), source };
        let identity = certificate.identity().map_err(named)?;
        let groups = certificate.groups().map_err(named)?;
        if identity != order.identity || groups != order.groups || certificate.public_key() != Some(public_key) {
            return Err(PkiError::malformed("the new certificate", "it does not say what was ordered"));
        }
        Ok(certificate)
    }

    /// Signs certificates for new keys without a word in the index, for tests that need thousands at once.
    pub(crate) fn mint(&self, orders: &[Order], now: Timestamp) -> Result<Vec<(Certificate, PrivateKey)>, PkiError> {
        let ca_key = PrivateKey::load(&self.directory.join("ca.key"))?;
        let mint = |order: &Order| {
            order.check()?;
            let key = PrivateKey::generate();
            let certificate = self.build(order, &key.public(), &ca_key, now)?;
            Ok((certificate, key))
        };
        orders.iter().map(mint).collect()
    }

    /// Revokes and signs a new revocation list. Answers what was revoked.
    ///
    /// # Errors
    /// When nothing fits, a serial fits several or is revoked already, or the directory cannot be written.
    pub fn revoke(
        &mut self,
        selection: &Selection,
        reason: Reason,
        crl_days: u32,
        now: Timestamp,
    ) -> Result<Vec<Record>, PkiError> {
        profile::check_days(crl_days)?;
        let (_lock, key) = self.begin(now)?;
        let serials = self.select(selection, now)?;
        let events: Vec<_> =
            serials.iter().map(|serial| Event::Revoked { serial: serial.clone(), revoked_at: now, reason }).collect();
        self.append(&events)?;
        self.sign_crl(&key, crl_days, now)?;
        Ok(self.index.records.iter().filter(|record| serials.contains(&record.serial)).cloned().collect())
    }

    fn select(&self, selection: &Selection, now: Timestamp) -> Result<BTreeSet<String>, PkiError> {
        match selection {
            Selection::Identity(identity) => {
                let serials: BTreeSet<_> =
                    self.index.in_force(identity, now).map(|record| record.serial.clone()).collect();
                if !serials.is_empty() {
                    return Ok(serials);
                }
                match self.index.records.iter().rev().find(|record| record.identity == *identity) {
                    Some(Record { serial, revoked: Some((revoked_at, _)), .. }) => Err(PkiError::AlreadyRevoked {
                        identity: Box::new(identity.clone()),
                        serial: serial.clone(),
                        revoked_at: *revoked_at,
                    }),
                    _ => Err(PkiError::NotFound { name: identity.short() }),
                }
            }
            Selection::Serial(prefix) => {
                let record = self.by_serial(prefix)?;
                match record.revoked {
                    Some((revoked_at, _)) => Err(PkiError::AlreadyRevoked {
                        identity: Box::new(record.identity.clone()),
                        serial: record.serial.clone(),
                        revoked_at,
                    }),
                    None => Ok(BTreeSet::from([record.serial.clone()])),
                }
            }
        }
    }

    /// The certificate whose serial begins with these hexadecimal digits (at least four).
    ///
    /// # Errors
    /// When none or several fit.
    pub fn by_serial(&self, prefix: &str) -> Result<&Record, PkiError> {
        let prefix = prefix.to_ascii_lowercase().replace(':', "");
        if prefix.len() < 4 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PkiError::BadValue {
                what: "serial",
                given: prefix.chars().take(80).flat_map(char::escape_default).collect(),
                expected: "4 or more hexadecimal digits",
            });
        }
        let found: Vec<_> = self.index.records.iter().filter(|record| record.serial.starts_with(&prefix)).collect();
        match found.as_slice() {
            [record] => Ok(record),
            [] => Err(PkiError::NotFound { name: prefix }),
            several => Err(PkiError::AmbiguousSerial { prefix, count: several.len() }),
        }
    }

    /// Signs a new revocation list with the next number.
    ///
    /// # Errors
    /// When the directory cannot be written or somebody else changes it.
    pub fn renew_crl(&mut self, crl_days: u32, now: Timestamp) -> Result<CrlInfo, PkiError> {
        profile::check_days(crl_days)?;
        let (_lock, key) = self.begin(now)?;
        self.sign_crl(&key, crl_days, now)
    }

    /// The newest revocation list in PEM, and what it says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn crl(&self) -> Result<(String, CrlInfo), PkiError> {
        let path = self.directory.join("crl.pem");
        let object = format!("revocation list `{}`", path.display());
        let bytes = file::read(&path)?;
        let der = pem::crls(&bytes, &object)?;
        let info = Crl::peek(&der[0], &object)?;
        Ok((String::from_utf8_lossy(&bytes).into_owned(), info))
    }

    /// Every certificate ever issued, in the order of issue.
    #[must_use]
    pub fn list(&self) -> &[Record] {
        &self.index.records
    }

    /// The newest certificate of an identity, one in force before others.
    ///
    /// # Errors
    /// When it never had one.
    pub fn show(&self, identity: &Identity, now: Timestamp) -> Result<&Record, PkiError> {
        let of_identity = || self.index.records.iter().rev().filter(|record| record.identity == *identity);
        of_identity()
            .find(|record| record.state(now) == RecordState::Valid)
            .or_else(|| of_identity().next())
            .ok_or_else(|| PkiError::NotFound { name: identity.short() })
    }

    /// The certificate of a record, from the index.
    ///
    /// # Errors
    /// When it does not parse, which a whole index excludes.
    pub fn export(&self, record: &Record) -> Result<Certificate, PkiError> {
        Certificate::from_der(&record.der, &format!("certificate {}", record.serial))
    }

    fn issued(&self) -> PathBuf {
        self.directory.join("issued")
    }

    fn issued_path(&self, record: &Record) -> PathBuf {
        self.issued().join(format!("{}-{}.pem", file_stem(&record.identity), record.serial))
    }

    fn write_issued(&self, record: &Record) -> Result<(), PkiError> {
        file::create_directory(&self.issued())?;
        file::replace(&self.issued_path(record), file::PUBLIC, pem::encode(pem::CERTIFICATE, &record.der).as_bytes())
    }

    /// Takes the lock, reads the index again, loads the key, and finishes what a crash left.
    fn begin(&mut self, now: Timestamp) -> Result<(Lock, PrivateKey), PkiError> {
        let lock = lock(&self.directory)?;
        self.index = Index::load(&self.directory.join("index.jsonl"))?;
        let path = self.directory.join("ca.key");
        let key = PrivateKey::load(&path)?;
        if self.certificate.public_key() != Some(&key.public()) {
            return Err(PkiError::KeyMismatch { key: path, certificate: self.directory.join("ca.pem") });
        }
        if seconds(now) > seconds(self.certificate.not_after()) {
            return Err(PkiError::AuthorityExpired { not_after: self.certificate.not_after() });
        }
        for record in self.index.records.iter().filter(|record| !self.issued_path(record).exists()) {
            self.write_issued(record)?;
        }
        if self.crl_is_behind() {
            self.sign_crl(&key, CRL_DAYS_DEFAULT, now)?;
        }
        Ok((lock, key))
    }

    fn is_unfinished(&self) -> bool {
        self.crl_is_behind() || self.index.records.iter().any(|record| !self.issued_path(record).exists())
    }

    /// Whether the list on disk is not the one of the last event, or a revocation came after it.
    fn crl_is_behind(&self) -> bool {
        let on_disk = self.crl().ok().map(|(_, info)| info.number);
        self.index.crl_is_behind || on_disk.is_none() || on_disk != self.index.crl.map(|(number, _)| number)
    }

    fn sign_crl(&mut self, key: &PrivateKey, days: u32, now: Timestamp) -> Result<CrlInfo, PkiError> {
        // A list on disk with a higher number than the index knows (a restored backup) must not be undercut.
        let known = self.index.crl.map_or(0, |(number, _)| number);
        let on_disk = self.crl().map_or(0, |(_, info)| info.number);
        let number = known.max(on_disk) + 1;
        let next_update = now.plus_ms(i64::from(days) * DAY_MS);
        let revoked = self.index.records.iter().filter_map(|record| {
            let (revoked_at, reason) = record.revoked?;
            // Long expired, nobody accepts it anyway; until then it stays on the list.
            let needed = record.not_after.plus_ms(i64::from(CRL_DAYS_DEFAULT) * DAY_MS) > now;
            needed.then(|| RevokedCertParams {
                serial_number: SerialNumber::from_slice(&unhex(&record.serial)),
                revocation_time: date(revoked_at),
                reason_code: reason.in_list(),
                invalidity_date: None,
            })
        });
        let parameters = CertificateRevocationListParams {
            this_update: date(now),
            next_update: date(next_update),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = parameters
            .signed_by(&self.issuer(key)?)
            .map_err(|source| PkiError::Build { what: "the revocation list", source })?;
        let info = Crl::peek(signed.der(), "the new revocation list")?;
        self.append(&[Event::Crl { number, this_update: now, next_update }])?;
        file::replace(&self.directory.join("crl.pem"), file::PUBLIC, pem::encode(pem::CRL, signed.der()).as_bytes())?;
        Ok(info)
    }

    fn append(&mut self, events: &[Event]) -> Result<(), PkiError> {
        self.index.append(&self.directory.join("index.jsonl"), events)
    }

    fn issuer<'a>(&self, key: &'a PrivateKey) -> Result<Issuer<'static, &'a PrivateKey>, PkiError> {
        let der = CertificateDer::from(self.certificate.der().to_vec());
        Issuer::from_ca_cert_der(&der, key)
            .map_err(|source| PkiError::Build { what: "from the authority's certificate", source })
    }
}

/// The beginning of every file of an identity: `KIND-NAME`.
#[must_use]
pub fn file_stem(identity: &Identity) -> String {
    format!("{}-{}", identity.kind(), identity.name())
}

/// The lock on the directory, as long as this lives.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child that another thread is just starting has the descriptor, too, until it
        // runs its program. If this fails, closing still ends the lock a moment later.
        drop(self.0.unlock());
    }
}

fn lock(directory: &Path) -> Result<Lock, PkiError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(file::SECRET)
        .open(&path)
        .map_err(PkiError::write(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(PkiError::Locked { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(PkiError::Write { path, source }),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .filter_map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_with_its_guard_even_if_a_child_has_the_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        assert_eq!(lock(directory.path()).unwrap_err().code(), "authority-locked");
        let inherited = held.0.try_clone().unwrap();
        drop(held);
        lock(directory.path()).unwrap();
        drop(inherited);
    }
}
