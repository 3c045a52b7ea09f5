//! Certificate requests (PKCS #10, RFC 2986): a host proves that it has a key and says who it would like to be.

use std::path::{Path, PathBuf};

use muster_protocol::Identity;
use rcgen::{CertificateParams, SanType};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::authority::file_stem;
use crate::key::{PrivateKey, PublicKey};
use crate::profile::common_name;
use crate::{PkiError, file, pem};

/// A request whose own signature is right: its maker has the private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    public_key: PublicKey,
    identity: Option<Identity>,
}

impl Request {
    /// Reads a request (PEM or DER) and checks its signature. `object` names it in errors.
    ///
    /// Of its contents only the key and the wished identity are read; names, purposes and lifetimes it may ask for
    /// are the authority's business and looked at by nobody.
    ///
    /// # Errors
    /// When it is not a request, its key not Ed25519, or its signature wrong.
    pub fn read(bytes: &[u8], object: &str) -> Result<Self, PkiError> {
        let wrong = |why: String| PkiError::malformed(object, why);
        let der = pem::request(bytes, object)?;
        let (rest, parsed) =
            X509CertificationRequest::from_der(&der).map_err(|error| wrong(format!("not a request: {error}")))?;
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes follow the request", rest.len())));
        }
        let info = &parsed.certification_request_info;
        let ed25519 = x509_parser::oid_registry::OID_SIG_ED25519;
        if info.subject_pki.algorithm.algorithm != ed25519 || parsed.signature_algorithm.algorithm != ed25519 {
            return Err(wrong("its key is not Ed25519".to_owned()));
        }
        let public_key = PublicKey::from_bytes(&info.subject_pki.subject_public_key.data)
            .map_err(|_| wrong("its key is not a usable Ed25519 key".to_owned()))?;
        if !public_key.verifies(info.raw, &parsed.signature_value.data) {
            return Err(wrong("its signature does not fit its contents".to_owned()));
        }
        Ok(Self { public_key, identity: wished(&parsed) })
    }

    /// The key to be certified.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Who the maker would like to be. A wish, not a fact.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// Makes a request for `identity` with this key, in PEM.
///
/// # Errors
/// When the library refuses, which no valid identity makes it do.
pub fn create(identity: &Identity, key: &PrivateKey) -> Result<String, PkiError> {
    let build = |source| PkiError::Build { what: "the certificate request", source };
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = common_name(&identity.short());
    parameters.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(build)?)];
    let request = parameters.serialize_request(key).map_err(build)?;
    Ok(pem::encode(pem::REQUEST, request.der()))
}

/// Makes a request and writes it as `KIND-NAME.csr` into `directory`; with no `key` given, also makes one and writes it
/// as `KIND-NAME.key`, mode 0600. Answers both paths and the key's fingerprint.
///
/// # Errors
/// When a file is there already, cannot be written, or the given key cannot be used.
pub fn create_into(identity: &Identity, key: Option<&Path>, directory: &Path) -> Result<Created, PkiError> {
    let stem = file_stem(identity);
    let request_path = directory.join(format!("{stem}.csr"));
    file::must_not_exist(&request_path)?;
    let (key, key_path) = match key {
        Some(path) => (PrivateKey::load(path)?, path.to_owned()),
        None => {
            let path = directory.join(format!("{stem}.key"));
            file::create_directory(directory)?;
            let key = PrivateKey::generate();
            key.save(&path)?;
            (key, path)
        }
    };
    file::create_directory(directory)?;
    file::create(&request_path, file::PUBLIC, create(identity, &key)?.as_bytes())?;
    Ok(Created { request: request_path, key: key_path, key_fingerprint: key.public().fingerprint() })
}

/// What [`create_into`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The request, to be carried to the authority.
    pub request: PathBuf,
    /// The private key, which stays.
    pub key: PathBuf,
    /// SHA-256 of the public key, to be compared with what the operator sees.
    pub key_fingerprint: String,
}

/// The first SAN URI that is an identity, or else the common name.
fn wished(request: &X509CertificationRequest<'_>) -> Option<Identity> {
    let uri = request.requested_extensions().into_iter().flatten().find_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Identity::try_from((*uri).to_owned()).ok(),
            _ => None,
        }),
        _ => None,
    });
    uri.or_else(|| {
        let subject = &request.certification_request_info.subject;
        subject.iter_common_name().next().and_then(|name| name.as_str().ok()).and_then(|name| name.parse().ok())
    })
}
