//! The files that leave the CA directory: what a host, user or broker gets.

use std::path::{Path, PathBuf};

use muster_protocol::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{Authority, Record, file_stem};
use crate::crl::Crl;
use crate::key::PrivateKey;
use crate::profile::Order;
use crate::request::Request;
use crate::{PkiError, file, pem};

/// What was written for one identity, ready to be carried to where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// `KIND-NAME.pem`, the certificate.
    pub certificate: PathBuf,
    /// `KIND-NAME.key`, mode 0600, if the key was made here.
    pub key: Option<PathBuf>,
    /// `ca.pem`, the authority's certificate.
    pub ca: PathBuf,
    /// `crl.pem`, the newest revocation list.
    pub crl: PathBuf,
}

impl Delivered {
    fn places(order: &Order, directory: &Path, with_key: bool) -> Self {
        let stem = file_stem(&order.identity);
        Self {
            certificate: directory.join(format!("{stem}.pem")),
            key: with_key.then(|| directory.join(format!("{stem}.key"))),
            ca: directory.join("ca.pem"),
            crl: directory.join("crl.pem"),
        }
    }
}

impl Authority {
    /// Makes a key and a certificate and writes both, with `ca.pem` and `crl.pem`, into `directory`.
    ///
    /// # Errors
    /// As [`Self::issue`]; and when a file is there already, or belongs to another authority.
    pub fn issue_into(
        &mut self,
        order: &Order,
        directory: &Path,
        now: Timestamp,
    ) -> Result<(Record, Delivered), PkiError> {
        let places = Delivered::places(order, directory, true);
        self.check(order, now)?;
        self.prepare(&places)?;
        file::create_directory(directory)?;
        let key = PrivateKey::generate();
        // The key first: a crash leaves a key without a certificate, which is worth nothing, and
        // not a certificate in force whose key nobody has.
        let path = places.key.as_deref().unwrap_or(&places.certificate);
        key.save(path)?;
        match self.certify(order, &key.public(), now) {
            Ok(record) => {
                self.deliver(&record, &places)?;
                Ok((record, places))
            }
            Err(error) => {
                // Nobody certified it. If it cannot be removed, the next attempt says that it exists.
                drop(std::fs::remove_file(path));
                Err(error)
            }
        }
    }

    /// Certifies the key of a request and writes the certificate, with `ca.pem` and `crl.pem`, into `directory`.
    ///
    /// # Errors
    /// As [`Self::issue_into`].
    pub fn sign_request_into(
        &mut self,
        request: &Request,
        order: &Order,
        directory: &Path,
        now: Timestamp,
    ) -> Result<(Record, Delivered), PkiError> {
        let places = Delivered::places(order, directory, false);
        self.check(order, now)?;
        self.prepare(&places)?;
        file::create_directory(directory)?;
        let record = self.sign_request(request, order, now)?;
        self.deliver(&record, &places)?;
        Ok((record, places))
    }

    /// Refuses before anything is certified what could not be written afterwards.
    fn prepare(&self, places: &Delivered) -> Result<(), PkiError> {
        file::must_not_exist(&places.certificate)?;
        if let Some(key) = &places.key {
            file::must_not_exist(key)?;
        }
        self.place_ca(&places.ca, false)?;
        self.place_crl(&places.crl, false)
    }

    fn deliver(&self, record: &Record, places: &Delivered) -> Result<(), PkiError> {
        let text = pem::encode(pem::CERTIFICATE, &record.der);
        file::create(&places.certificate, file::PUBLIC, text.as_bytes())?;
        self.place_ca(&places.ca, true)?;
        self.place_crl(&places.crl, true)
    }

    /// Several identities may share a directory, so our own certificate may be there already, alone or
    /// beside another authority's during a rotation.
    fn place_ca(&self, path: &Path, write: bool) -> Result<(), PkiError> {
        if path.exists() {
            let known = pem::certificates(&file::read(path)?, path)?;
            let ours = CertificateDer::from(self.certificate.der().to_vec());
            return if known.contains(&ours) { Ok(()) } else { Err(PkiError::Exists { path: path.to_owned() }) };
        }
        if write {
            file::create(path, file::PUBLIC, self.certificate.to_pem().as_bytes())?;
        }
        Ok(())
    }

    /// An older list of ours gives way to the newest; anything else is somebody else's file.
    fn place_crl(&self, path: &Path, write: bool) -> Result<(), PkiError> {
        let (text, info) = self.crl()?;
        if path.exists() {
            let object = format!("revocation list `{}`", path.display());
            let lists = pem::crls(&file::read(path)?, &object)?;
            let [list] = lists.as_slice() else {
                return Err(PkiError::Exists { path: path.to_owned() });
            };
            let known = Crl::peek(list, &object)?;
            if known.issuer != info.issuer {
                return Err(PkiError::Exists { path: path.to_owned() });
            }
            if known.number >= info.number {
                return Ok(());
            }
        }
        if write {
            file::replace(path, file::PUBLIC, text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes the newest revocation list into a file, replacing an older one of this authority.
    ///
    /// # Errors
    /// When the file holds something else or cannot be written.
    pub fn write_crl(&self, path: &Path) -> Result<(), PkiError> {
        self.place_crl(path, true)
    }
}
