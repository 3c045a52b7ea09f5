//! The broker's side: its own certificate, and whoever logs in with one of ours.

use std::fmt;
use std::sync::Arc;

use muster_protocol::{Identity, Timestamp};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, InvalidMessage, OtherError, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::trust::Unfit;
use crate::{Certificate, Credentials, PkiError, Trust, VerifyError};

/// What a broker needs to serve: its own certificate, and TLS 1.3 with clients of our authority only.
///
/// A client must show a certificate for which [`Trust::check_client`] vouches, asked at every handshake, so a
/// configuration that is kept learns of new revocations. Sessions are never resumed: a resumed one shows no certificate.
///
/// # Errors
/// When the certificate is not a broker's for servers, is not from this authority, out of its time or revoked at `now`,
/// since no client of ours would connect; or when the TLS library refuses it.
pub fn server_config(credentials: &Credentials, trust: &Trust, now: Timestamp) -> Result<Arc<ServerConfig>, PkiError> {
    let failed = |source: rustls::Error| PkiError::Tls { source: Box::new(source) };
    let certificate = credentials.certificate();
    let unfit = |why: String| PkiError::NotServing { identity: Box::new(credentials.identity().clone()), why };
    if !matches!(credentials.identity(), Identity::Broker(_)) {
        return Err(unfit("only a broker's does".to_owned()));
    }
    if !certificate.is_for_servers() {
        return Err(unfit("it is not for servers (extended key usage serverAuth)".to_owned()));
    }
    trust.check_server(certificate, now).map_err(|why| match why {
        Unfit::Foreign => PkiError::ForeignServer {
            identity: Box::new(credentials.identity().clone()),
            issuer: certificate.issuer().to_owned(),
            trusted: trust.authorities().iter().map(named).collect(),
        },
        Unfit::Other(why) => unfit(why),
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credentials.key().to_der().to_vec()));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(ClientVerifier { trust: trust.clone(), provider }))
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// An authority as somebody can compare it with another one.
fn named(authority: &Certificate) -> String {
    format!("`{}` (fingerprint {})", authority.subject(), authority.fingerprint())
}

/// Asks the trust about each client. Its names are not sent as hints: a client of ours has one certificate.
struct ClientVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let now = Timestamp(i64::try_from(now.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX));
        match self.trust.check_client(end_entity, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(refusal(error)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The library's words decide which alert a client is told.
fn refusal(error: VerifyError) -> rustls::Error {
    rustls::Error::InvalidCertificate(match error {
        VerifyError::Expired { .. } => CertificateError::Expired,
        VerifyError::NotYetValid { .. } => CertificateError::NotValidYet,
        VerifyError::Revoked { .. } => CertificateError::Revoked,
        VerifyError::Malformed { .. } => CertificateError::BadEncoding,
        VerifyError::Untrusted { .. } => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}
