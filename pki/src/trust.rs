//! Whom we believe: our authorities, their revocation lists, and the check of a message against them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::envelope::pre_authentication_encoding;
use muster_protocol::limits::SIGNATURES_MAX;
use muster_protocol::{Identity, Signature, Timestamp};
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::cache::{Cache, Checked};
use crate::certificate::Certificate;
use crate::crl::{Crl, CrlInfo, CrlStatus};
use crate::key::{PublicKey, sha256_hex};
use crate::time_text::{seconds, utc};
use crate::verify::{Client, Signer, VerifyError};
use crate::{PkiError, file, pem};

/// The contents of the object identifier id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Largest certificate in a signature, in bytes. One with 16 groups has about 1.5 KiB.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// The authorities we believe and what they have revoked. Clones share everything, a newly
/// installed revocation list included.
#[derive(Debug, Clone)]
pub struct Trust {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: ArcSwap<State>,
    /// Held while a new list is compared with the one in force and takes its place.
    update: Mutex<()>,
}

/// One consistent set. A new list makes a new set, with an empty cache.
#[derive(Debug)]
pub(crate) struct State {
    anchors: Vec<Anchor>,
    pub(crate) cache: Cache,
    /// Built when the first TLS connection asks for it.
    pub(crate) tls: OnceLock<Arc<WebPkiServerVerifier>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    authority: Arc<Authority>,
    crl: Option<Arc<Crl>>,
}

#[derive(Debug)]
struct Authority {
    der: CertificateDer<'static>,
    certificate: Certificate,
    anchor: TrustAnchor<'static>,
    /// The raw DER of the subject, as lists repeat it in their issuer.
    subject: Vec<u8>,
    key: PublicKey,
}

/// What is wrong with a server's certificate where no authority has anything to say about it.
const NOBODY: &str = "there is no authority to check it against";

/// Why a certificate is none with which a server is believed.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// No trusted authority has issued it.
    Foreign,
    /// Anything else, in words.
    Other(String),
}

impl Trust {
    /// Loads the authorities (one or, during a rotation, several certificates in one PEM file) and
    /// their revocation lists.
    ///
    /// # Errors
    /// When a file is unreadable, a certificate is not an Ed25519 authority's, or a list is not
    /// signed by one of them. Without a list nothing counts as revoked until one is installed.
    pub fn load(authorities: &Path, crl: Option<&Path>) -> Result<Self, PkiError> {
        let ders = pem::certificates(&file::read(authorities)?, authorities)?;
        let trust = Self::new(ders, &format!("certificate `{}`", authorities.display()))?;
        if let Some(path) = crl {
            let object = format!("revocation list `{}`", path.display());
            for der in pem::crls(&file::read(path)?, &object)? {
                trust.install(&der, &object)?;
            }
        }
        Ok(trust)
    }

    /// Trusts the authorities in a PEM text, without any revocation list yet.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_pem(authorities: &str) -> Result<Self, PkiError> {
        let ders = pem::certificates(authorities.as_bytes(), Path::new("(in memory)"))?;
        Self::new(ders, "authority certificate")
    }

    fn new(ders: Vec<CertificateDer<'static>>, object: &str) -> Result<Self, PkiError> {
        let anchors = ders
            .into_iter()
            .map(|der| Authority::new(der, object).map(|it| Anchor { authority: Arc::new(it), crl: None }))
            .collect::<Result<Vec<_>, _>>()?;
        let state = ArcSwap::from_pointee(State::new(anchors));
        Ok(Self { shared: Arc::new(Shared { state, update: Mutex::new(()) }) })
    }

    /// Checks that every signature is right and made by somebody our authority vouches for at `now`.
    /// Answers who signed, in the order of the signatures.
    ///
    /// # Errors
    /// The first reason not to believe the message.
    pub fn verify(
        &self,
        payload_type: &str,
        body: &[u8],
        signatures: &[Signature],
        now: Timestamp,
    ) -> Result<Vec<Signer>, VerifyError> {
        self.signers(payload_type, body, signatures, |state, signature, malformed| {
            state.leaf(signature, now, malformed)
        })
    }

    /// Checks that our authority vouches at `now` for whoever shows this certificate (DER) on a connection: a host, a user or
    /// a service, for clients, in time, not revoked. That they hold its key is for the handshake to show.
    ///
    /// # Errors
    /// The first reason not to let them in.
    pub fn check_client(&self, der: &[u8], now: Timestamp) -> Result<Client, VerifyError> {
        let malformed = |why: String| VerifyError::Malformed { number: 1, why };
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(malformed(format!("a certificate of {} bytes", der.len())));
        }
        let state = self.shared.state.load();
        let checked = state.known_leaf(der.to_vec(), &sha256_hex(der), now, &malformed)?;
        let signer = &checked.signer;
        Ok(Client {
            identity: signer.identity.clone(),
            fingerprint: signer.fingerprint.clone(),
            valid_until: checked.valid_until,
        })
    }

    /// Checks that our authority vouches at `now` for this certificate as a server's.
    ///
    /// # Errors
    /// Why clients of this authority would not connect.
    pub(crate) fn check_server(&self, certificate: &Certificate, now: Timestamp) -> Result<(), Unfit> {
        let state = self.shared.state.load();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds(now)).unwrap_or(0)));
        let der = CertificateDer::from(certificate.der());
        let end_entity = EndEntityCert::try_from(&der).map_err(|error| Unfit::Other(error.to_string()))?;
        let mut foreign = false;
        let mut refusal = NOBODY.to_owned();
        let vouches = |anchor: &&Anchor| {
            let anchors = std::slice::from_ref(&anchor.authority.anchor);
            let algorithms = &[webpki::aws_lc_rs::ED25519];
            let usage = KeyUsage::server_auth();
            match end_entity.verify_for_usage(algorithms, anchors, &[], time, usage, None, None) {
                Ok(_) => true,
                Err(webpki::Error::UnknownIssuer) => {
                    foreign = true;
                    false
                }
                Err(webpki::Error::CertExpired { .. }) => {
                    refusal = format!("it expired at {}", utc(certificate.not_after()));
                    false
                }
                Err(webpki::Error::CertNotValidYet { .. }) => {
                    refusal = format!("it is not valid before {}", utc(certificate.not_before()));
                    false
                }
                Err(error) => {
                    refusal = error.to_string();
                    false
                }
            }
        };
        let Some(anchor) = state.anchors.iter().find(vouches) else {
            // One that is not anybody else's is of the authority that says more about it.
            return Err(if foreign && refusal == NOBODY { Unfit::Foreign } else { Unfit::Other(refusal) });
        };
        if anchor.crl.as_ref().is_some_and(|crl| crl.revokes(certificate.serial_bytes())) {
            return Err(Unfit::Other(format!("certificate {} is revoked", certificate.serial())));
        }
        Ok(())
    }

    /// Finds out who made the signatures, also where their certificates have expired, are not valid yet
    /// or are revoked. All signatures must be right and all certificates from our authority.
    ///
    /// This is for telling people why they are refused. It is no reason to believe what they signed,
    /// and so it gives names and no [`Signer`].
    ///
    /// # Errors
    /// As [`Self::verify`], validity in time and revocation excepted.
    pub fn authors(
        &self,
        payload_type: &str,
        body: &[u8],
        signatures: &[Signature],
    ) -> Result<Vec<Identity>, VerifyError> {
        let signers = self.signers(payload_type, body, signatures, |state, signature, malformed| {
            let (der, fingerprint) = decode_leaf(signature, malformed)?;
            Ok(Arc::new(state.vouch(der, &fingerprint, Timestamp(0), webpki::aws_lc_rs::ED25519, malformed)?.checked))
        })?;
        Ok(signers.into_iter().map(|signer| signer.identity).collect())
    }

    /// Checks all signatures with the leaves that `find` accepts.
    fn signers(
        &self,
        payload_type: &str,
        body: &[u8],
        signatures: &[Signature],
        find: impl Fn(&State, &Signature, &dyn Fn(String) -> VerifyError) -> Result<Arc<Checked>, VerifyError>,
    ) -> Result<Vec<Signer>, VerifyError> {
        if signatures.is_empty() {
            return Err(VerifyError::Unsigned);
        }
        if signatures.len() > SIGNATURES_MAX {
            let why = format!("a message may have at most {SIGNATURES_MAX} signatures");
            return Err(VerifyError::Malformed { number: SIGNATURES_MAX + 1, why });
        }
        let state = self.shared.state.load();
        let message = pre_authentication_encoding(payload_type, body);
        let mut signers: Vec<Signer> = Vec::with_capacity(signatures.len());
        let mut keys: Vec<PublicKey> = Vec::with_capacity(signatures.len());
        for (index, signature) in signatures.iter().enumerate() {
            let malformed = |why: String| VerifyError::Malformed { number: index + 1, why };
            let checked = find(&state, signature, &malformed)?;
            let bytes = BASE64.decode(&signature.sig).map_err(|error| malformed(format!("`sig`: {error}")))?;
            if bytes.len() != 64 {
                return Err(malformed(format!("an Ed25519 signature has 64 bytes, this one {}", bytes.len())));
            }
            let identity = &checked.signer.identity;
            if !checked.key.verifies(&message, &bytes) {
                return Err(VerifyError::BadSignature { identity: Box::new(identity.clone()) });
            }
            if signers.iter().any(|earlier| earlier.identity == *identity) {
                return Err(VerifyError::Repeated { identity: Box::new(identity.clone()) });
            }
            // Two names in two certificates for one key are one hand.
            if let Some(same) = keys.iter().position(|earlier| *earlier == checked.key) {
                let first = Box::new(signers[same].identity.clone());
                return Err(VerifyError::SharedKey { first, second: Box::new(identity.clone()) });
            }
            keys.push(checked.key.clone());
            signers.push(checked.signer.clone());
        }
        Ok(signers)
    }

    /// Puts a revocation list (DER or PEM, one list) into force for this and all clones.
    ///
    /// # Errors
    /// When none of our authorities signed it, or a newer list, or another one with its number, is in force.
    pub fn install_crl(&self, bytes: &[u8], now: Timestamp) -> Result<CrlStatus, PkiError> {
        let object = "revocation list";
        let ders = pem::crls(bytes, object)?;
        let [der] = ders.as_slice() else {
            return Err(PkiError::malformed(object, format!("{} lists where one is expected", ders.len())));
        };
        let (changed, info) = self.install(der, object)?;
        Ok(CrlStatus { changed, stale: info.is_stale(now), info })
    }

    /// Puts all lists of a file (PEM or DER) into force, one or one for each authority.
    ///
    /// # Errors
    /// As [`Self::install_crl`], for the first list that is refused; those before it are in force.
    pub fn install_crl_file(&self, path: &Path, now: Timestamp) -> Result<Vec<CrlStatus>, PkiError> {
        let object = format!("revocation list `{}`", path.display());
        let install = |der: &rustls_pki_types::CertificateRevocationListDer<'static>| {
            let (changed, info) = self.install(der, &object)?;
            Ok(CrlStatus { changed, stale: info.is_stale(now), info })
        };
        pem::crls(&file::read(path)?, &object)?.iter().map(install).collect()
    }

    fn install(&self, der: &[u8], object: &str) -> Result<(bool, CrlInfo), PkiError> {
        let _update = self.shared.update.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.shared.state.load_full();
        let mut refusal = None;
        for (index, anchor) in state.anchors.iter().enumerate() {
            let crl = match Crl::check(der, &anchor.authority.subject, &anchor.authority.key, object) {
                Ok(crl) => crl,
                Err(error) => {
                    refusal.get_or_insert(error);
                    continue;
                }
            };
            if let Some(known) = &anchor.crl {
                if known.der == der {
                    return Ok((false, known.info.clone()));
                }
                if crl.info.number <= known.info.number {
                    return Err(PkiError::CrlRollback { given: crl.info.number, known: known.info.number });
                }
            }
            let info = crl.info.clone();
            let mut anchors = state.anchors.clone();
            anchors[index].crl = Some(Arc::new(crl));
            self.shared.state.store(Arc::new(State::new(anchors)));
            return Ok((true, info));
        }
        Err(refusal.unwrap_or_else(|| PkiError::malformed(object, "no authority to check it against")))
    }

    /// The revocation lists in force, at most one per authority. Empty if none was ever installed.
    #[must_use]
    pub fn crl_info(&self) -> Vec<CrlInfo> {
        self.shared.state.load().crls().map(|crl| crl.info.clone()).collect()
    }

    /// Every authority by the fingerprint of its certificate, with the number of its list in force, if there is one.
    #[must_use]
    pub fn crl_numbers(&self) -> BTreeMap<String, Option<u64>> {
        let state = self.shared.state.load();
        let number = |anchor: &Anchor| anchor.crl.as_ref().map(|crl| crl.info.number);
        state.anchors.iter().map(|it| (it.authority.certificate.fingerprint().to_owned(), number(it))).collect()
    }

    /// The revocation lists in force as PEM, to be kept in a file across restarts: a list that is forgotten
    /// is a revocation undone.
    #[must_use]
    pub fn crl_pem(&self) -> String {
        self.shared.state.load().crls().map(|crl| pem::encode(pem::CRL, &crl.der)).collect()
    }

    /// The authorities' certificates.
    #[must_use]
    pub fn authorities(&self) -> Vec<Certificate> {
        self.shared.state.load().anchors.iter().map(|anchor| anchor.authority.certificate.clone()).collect()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }
}

impl Authority {
    fn new(der: CertificateDer<'static>, object: &str) -> Result<Self, PkiError> {
        let certificate = Certificate::from_der(&der, object)?;
        if !certificate.is_authority() {
            return Err(PkiError::malformed(object, "it is not an authority's certificate"));
        }
        let key = certificate
            .public_key()
            .cloned()
            .ok_or_else(|| PkiError::malformed(object, "an authority here has an Ed25519 key"))?;
        let anchor =
            webpki::anchor_from_trusted_cert(&der).map_err(|error| PkiError::malformed(object, error))?.to_owned();
        let subject = {
            use x509_parser::prelude::{FromDer, X509Certificate};
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| PkiError::malformed(object, error))?;
            parsed.subject().as_raw().to_vec()
        };
        Ok(Self { der, certificate, anchor, subject, key })
    }
}

/// A leaf that our authority made, and whether it still stands by it.
pub(crate) struct Vouched {
    checked: Checked,
    /// The authority's key.
    pub(crate) authority: PublicKey,
    serial: String,
    revoked: bool,
}

impl Vouched {
    /// What was checked, unless it is revoked.
    pub(crate) fn standing(self) -> Result<Checked, VerifyError> {
        if self.revoked {
            let identity = Box::new(self.checked.signer.identity);
            return Err(VerifyError::Revoked { identity, serial: self.serial });
        }
        Ok(self.checked)
    }
}

/// The leaf's DER and its fingerprint.
pub(crate) fn decode_leaf(
    signature: &Signature,
    malformed: &dyn Fn(String) -> VerifyError,
) -> Result<(Vec<u8>, String), VerifyError> {
    // Our authorities issue leaves only, so a longer chain is nobody's of ours.
    let [leaf] = signature.chain.as_slice() else {
        return Err(malformed(format!(
            "the chain has {} certificates; exactly one is expected",
            signature.chain.len()
        )));
    };
    let der = BASE64.decode(leaf).map_err(|error| malformed(format!("`chain`: {error}")))?;
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(malformed(format!("a certificate of {} bytes", der.len())));
    }
    let fingerprint = sha256_hex(&der);
    if fingerprint != signature.keyid {
        return Err(malformed("`keyid` is not the fingerprint of the certificate".to_owned()));
    }
    Ok((der, fingerprint))
}

impl State {
    fn new(anchors: Vec<Anchor>) -> Self {
        Self { anchors, cache: Cache::default(), tls: OnceLock::new() }
    }

    fn crls(&self) -> impl Iterator<Item = &Arc<Crl>> {
        self.anchors.iter().filter_map(|anchor| anchor.crl.as_ref())
    }

    /// The authorities' certificates in DER.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.anchors.iter().map(|anchor| &anchor.authority.der)
    }

    /// The revocation lists in DER.
    pub(crate) fn crl_ders(&self) -> impl Iterator<Item = &[u8]> {
        self.crls().map(|crl| crl.der.as_slice())
    }

    fn leaf(
        &self,
        signature: &Signature,
        now: Timestamp,
        malformed: &dyn Fn(String) -> VerifyError,
    ) -> Result<Arc<Checked>, VerifyError> {
        let (der, fingerprint) = decode_leaf(signature, malformed)?;
        self.known_leaf(der, &fingerprint, now, malformed)
    }

    /// A leaf that is checked and valid at `now`; a chain that was checked before is not checked again.
    fn known_leaf(
        &self,
        der: Vec<u8>,
        fingerprint: &str,
        now: Timestamp,
        malformed: &dyn Fn(String) -> VerifyError,
    ) -> Result<Arc<Checked>, VerifyError> {
        let checked = match self.cache.get(fingerprint) {
            Some(checked) => checked,
            None => {
                let checked = Arc::new(self.check(der, fingerprint, now, malformed)?);
                self.cache.insert(&checked);
                checked
            }
        };
        checked.in_time(now)?;
        Ok(checked)
    }

    /// Checks everything about a leaf but the time, which changes while the cache stays.
    fn check(
        &self,
        der: Vec<u8>,
        fingerprint: &str,
        now: Timestamp,
        malformed: &dyn Fn(String) -> VerifyError,
    ) -> Result<Checked, VerifyError> {
        self.vouch(der, fingerprint, now, webpki::aws_lc_rs::ED25519, malformed)?.standing()
    }

    /// Checks that our authority made the leaf for somebody who signs messages, and tells whether it has
    /// revoked it. The authority's signature is right as far as `algorithm` says.
    pub(crate) fn vouch(
        &self,
        der: Vec<u8>,
        fingerprint: &str,
        now: Timestamp,
        algorithm: &dyn SignatureVerificationAlgorithm,
        malformed: &dyn Fn(String) -> VerifyError,
    ) -> Result<Vouched, VerifyError> {
        let certificate =
            Certificate::from_der(&der, "the certificate").map_err(|error| malformed(error.to_string()))?;
        let short = || fingerprint[..16].to_owned();
        let untrusted = |why: String| VerifyError::Untrusted { fingerprint: short(), why };

        // A time inside the certificate's validity: whether `now` is inside is decided afterwards, so that
        // a stranger's expired certificate is called a stranger's and the answer can be kept.
        let inside = seconds(now).clamp(
            seconds(certificate.not_before()),
            seconds(certificate.not_after()).max(seconds(certificate.not_before())),
        );
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(inside).unwrap_or(0)));
        let der = CertificateDer::from(der);
        let end_entity = EndEntityCert::try_from(&der).map_err(|error| malformed(error.to_string()))?;
        let mut refusal = None;
        let anchor = self.anchors.iter().find(|anchor| {
            let path = end_entity.verify_for_usage(
                &[algorithm],
                std::slice::from_ref(&anchor.authority.anchor),
                &[],
                time,
                KeyUsage::required(CLIENT_AUTH),
                None,
                None,
            );
            path.map_err(|error| refusal = Some(error)).is_ok()
        });
        let Some(anchor) = anchor else {
            return Err(match refusal {
                Some(webpki::Error::RequiredEkuNotFoundContext(_)) => {
                    untrusted("it is not for signing messages (extended key usage clientAuth)".to_owned())
                }
                Some(webpki::Error::UnknownIssuer) => {
                    untrusted(format!("its issuer `{}` is unknown here", certificate.issuer()))
                }
                Some(error) => untrusted(error.to_string()),
                None => untrusted("there is no authority to check it against".to_owned()),
            });
        };
        if !certificate.may_sign() {
            return Err(untrusted("it is not for signing (key usage digitalSignature)".to_owned()));
        }
        let key = certificate.public_key().cloned().ok_or_else(|| untrusted("its key is not Ed25519".to_owned()))?;
        let no_identity = |source| VerifyError::NoIdentity { fingerprint: short(), source };
        let identity = certificate.identity().map_err(no_identity)?;
        let groups = certificate.groups().map_err(no_identity)?;
        if matches!(identity, Identity::Broker(_)) {
            return Err(VerifyError::NotASigner { identity: Box::new(identity) });
        }
        let revoked = anchor.crl.as_ref().is_some_and(|crl| crl.revokes(certificate.serial_bytes()));
        let authority = &anchor.authority.certificate;
        let checked = Checked {
            signer: Signer {
                identity,
                groups,
                fingerprint: fingerprint.to_owned(),
                not_after: certificate.not_after(),
            },
            key,
            valid_from: certificate.not_before().max(authority.not_before()),
            valid_until: certificate.not_after().min(authority.not_after()),
        };
        Ok(Vouched { checked, authority: anchor.authority.key.clone(), serial: certificate.serial(), revoked })
    }
}
