//! TLS 1.3 with our authority only, both ways.

mod server;

use std::fmt;
use std::sync::Arc;

use muster_protocol::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};

use crate::certificate::Certificate;
use crate::trust::State;
use crate::{Credentials, PkiError, Trust};

pub use server::server_config;

/// Makes aws-lc-rs the process's cryptography for TLS. Call it first in `main`; again does nothing.
pub fn install_crypto_provider() {
    // Fails only if a provider is installed already, which is what we want to be true.
    drop(aws_lc_rs::default_provider().install_default());
}

/// What a client needs to reach the broker: its own certificate, no authority but ours, TLS 1.3.
///
/// The broker's certificate must name the address in use, be issued for servers by our authority, carry a
/// broker's identity and not be revoked. The last is asked of `trust` at every handshake, so a configuration
/// that is kept learns of new revocations.
///
/// # Errors
/// When the TLS library refuses the certificate or the key.
pub fn client_config(credentials: &Credentials, trust: &Trust) -> Result<Arc<ClientConfig>, PkiError> {
    let failed = |source: rustls::Error| PkiError::Tls { source: Box::new(source) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = BrokerVerifier { trust: trust.clone(), provider: Arc::clone(&provider) };
    verifier.current(&trust.state()).map_err(failed)?;
    let chain = vec![CertificateDer::from(credentials.certificate().der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credentials.key().to_der().to_vec()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(failed)?;
    // A resumed session does not show the broker's certificate again, so a revocation would go unseen.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The library's own check against the revocation lists in force now, and our identity on top.
struct BrokerVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl BrokerVerifier {
    fn current(&self, state: &State) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        if let Some(verifier) = state.tls.get() {
            return Ok(Arc::clone(verifier));
        }
        let mut roots = RootCertStore::empty();
        for root in state.roots() {
            roots.add(root.clone())?;
        }
        let crls: Vec<_> = state.crl_ders().map(|der| CertificateRevocationListDer::from(der.to_vec())).collect();
        // An authority without a list yet revokes nothing; a list past its next update is still in force.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Arc::clone(state.tls.get_or_init(|| verifier)))
    }
}

impl fmt::Debug for BrokerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerVerifier").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for BrokerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let state = self.trust.state();
        // Our authorities issue leaves only: what else a server sends (often its CA) is not needed.
        let verified = self.current(&state)?.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        let certificate = Certificate::from_der(end_entity, "the broker's certificate")
            .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        match certificate.identity() {
            Ok(Identity::Broker(_)) if certificate.is_for_servers() => Ok(verified),
            _ => Err(rustls::Error::InvalidCertificate(rustls::CertificateError::InvalidPurpose)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
