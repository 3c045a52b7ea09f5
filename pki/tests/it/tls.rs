//! The handshake with a broker, in memory.

use std::sync::Arc;

use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, Trust, tls};
use muster_protocol::Timestamp;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// TLS asks the system's clock, so these certificates must be valid today.
fn present() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the TLS library asks the same clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(now.as_millis()).unwrap())
}

fn authority() -> TestAuthority {
    TestAuthority::new(present()).unwrap()
}

/// A broker as RabbitMQ is set up: TLS 1.3, a client certificate of this authority required.
fn server(authority: &TestAuthority, broker: &Credentials) -> Arc<ServerConfig> {
    let directory = tempfile::tempdir().unwrap();
    let files = authority.write(broker, &directory.path().join("out")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// Carries bytes between both sides until both are done or one gives up.
fn handshake(config: Arc<rustls::ClientConfig>, server: Arc<ServerConfig>, name: &str) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(config, name)?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

fn client(authority: &TestAuthority, trust: &Trust, identity: &str) -> Arc<rustls::ClientConfig> {
    tls::client_config(&authority.credentials(identity).unwrap(), trust).unwrap()
}

#[test]
fn every_kind_of_client_reaches_the_broker_by_all_its_names() {
    tls::install_crypto_provider();
    tls::install_crypto_provider();
    let authority = authority();
    let trust = authority.trust().unwrap();
    let server = server(&authority, &authority.broker("broker/mq1.example.com").unwrap());
    for identity in ["host/web1", "user/lea", "service/jobs"] {
        for name in ["mq1.example.com", "localhost", "127.0.0.1", "::1"] {
            handshake(client(&authority, &trust, identity), Arc::clone(&server), name).unwrap();
        }
    }
}

#[track_caller]
fn refused(config: Arc<rustls::ClientConfig>, server: Arc<ServerConfig>, name: &str, expected: &str) {
    let error = handshake(config, server, name).expect_err("must be refused");
    assert!(format!("{error:?}").contains(expected), "{error:?}");
}

#[test]
fn whoever_is_not_our_broker_is_refused() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = client(&authority, &trust, "user/lea");
    let good = authority.broker("broker/mq1").unwrap();
    refused(Arc::clone(&lea), server(&authority, &good), "mq2", "NotValidForName");

    let other = self::authority();
    let foreign = other.broker("broker/mq1").unwrap();
    refused(Arc::clone(&lea), server(&other, &foreign), "localhost", "UnknownIssuer");

    let expired = {
        let mut order = muster_pki::profile::Order::new("broker/localhost".parse().unwrap());
        order.days = Some(1);
        authority.order(&order, present().plus_ms(-2 * crate::DAY_MS)).unwrap()
    };
    refused(Arc::clone(&lea), server(&authority, &expired), "localhost", "Expired");

    // A host with a broker's name in its certificate, were the authority so careless.
    let key = muster_pki::PrivateKey::generate();
    let certificate = authority
        .forge(&key, |parameters| {
            parameters.subject_alt_names = muster_pki::testing::uris(&["muster:host/web1"]);
            parameters.subject_alt_names.push(rcgen::SanType::DnsName("localhost".try_into().unwrap()));
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        })
        .unwrap();
    let host = Credentials::new(certificate, key, "host").unwrap();
    refused(Arc::clone(&lea), server(&authority, &host), "localhost", "InvalidPurpose");
    let host = authority.credentials("host/localhost").unwrap();
    refused(lea, server(&authority, &host), "localhost", "InvalidPurpose");
}

#[test]
fn a_configuration_that_is_kept_learns_of_a_revocation() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = client(&authority, &trust, "user/lea");
    let broker = authority.broker("broker/mq1").unwrap();
    let server = server(&authority, &broker);
    handshake(Arc::clone(&lea), Arc::clone(&server), "localhost").unwrap();
    authority.revoke(&broker).unwrap();
    trust.install_crl(authority.crl_pem().unwrap().as_bytes(), present()).unwrap();
    // Also where the client was before: a resumed session would not show the certificate again.
    refused(client(&authority, &trust, "user/max"), Arc::clone(&server), "localhost", "Revoked");
    refused(lea, server, "localhost", "Revoked");
}

#[test]
fn a_broker_is_revoked_whatever_the_first_byte_of_its_serial() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let serials = [0x00, 0x7f, 0x80, 0xff].map(|first| [vec![first], vec![0x81; 15]].concat());
    let servers = serials.clone().map(|serial| {
        let key = muster_pki::PrivateKey::generate();
        let certificate = authority.forge(&key, |parameters| {
            parameters.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
            parameters.subject_alt_names = muster_pki::testing::uris(&["muster:broker/mq1"]);
            parameters.subject_alt_names.push(rcgen::SanType::DnsName("localhost".try_into().unwrap()));
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        });
        server(&authority, &Credentials::new(certificate.unwrap(), key, "broker").unwrap())
    });
    let lea = client(&authority, &trust, "user/lea");
    for server in &servers {
        handshake(Arc::clone(&lea), Arc::clone(server), "localhost").unwrap();
    }
    trust.install_crl(&crate::list(&authority, &serials, present()), present()).unwrap();
    for server in servers {
        refused(Arc::clone(&lea), server, "localhost", "Revoked");
    }
}

#[test]
fn a_client_without_or_with_a_foreign_certificate_is_refused_by_the_broker() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let other = self::authority();
    let server = server(&authority, &authority.broker("broker/mq1").unwrap());
    let stranger = tls::client_config(&other.credentials("user/lea").unwrap(), &trust).unwrap();
    assert!(handshake(stranger, server, "localhost").is_err());
}
