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

/// A broker that is ours too.
fn own_server(authority: &TestAuthority, trust: &Trust) -> Arc<ServerConfig> {
    tls::server_config(&authority.broker("broker/mq1").unwrap(), trust, present()).unwrap()
}

/// As the server sees it: a client in TLS 1.3 is done before its certificate is looked at.
#[track_caller]
fn turned_away(config: Arc<rustls::ClientConfig>, server: &Arc<ServerConfig>, expected: &str) {
    refused(config, Arc::clone(server), "localhost", expected);
}

#[test]
fn our_own_server_lets_in_hosts_users_and_services_and_nobody_else() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let server = own_server(&authority, &trust);
    for identity in ["host/web1", "user/lea", "service/jobs"] {
        handshake(client(&authority, &trust, identity), Arc::clone(&server), "localhost").unwrap();
    }
    let with = |credentials: &Credentials| tls::client_config(credentials, &trust).unwrap();
    let other = self::authority();
    turned_away(with(&other.credentials("user/lea").unwrap()), &server, "UnknownIssuer");
    turned_away(with(&authority.expired("user/lea").unwrap()), &server, "Expired");
    turned_away(with(&authority.not_yet_valid("user/lea").unwrap()), &server, "NotValidYet");
    turned_away(with(&authority.linked_broker("broker/mq2").unwrap()), &server, "NotASigner");
    // For servers only.
    turned_away(with(&authority.broker("broker/mq2").unwrap()), &server, "UnknownIssuer");
    let odd = |change: fn(&mut rcgen::CertificateParams), code: &str| {
        let certificate = authority.forge(&muster_pki::PrivateKey::generate(), change).unwrap();
        assert_eq!(trust.check_client(certificate.der(), present()).unwrap_err().code().code, code);
    };
    odd(|it| it.subject_alt_names = muster_pki::testing::uris(&["https://example.com"]), "wrong-identity");
    odd(|it| it.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth], "untrusted-certificate");
}

#[test]
fn our_own_server_asks_for_a_certificate_and_for_tls_1_3() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let server = own_server(&authority, &trust);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.trust().unwrap().authorities()[0].der().to_vec())).unwrap();
    let plain = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        Arc::new(config.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    turned_away(plain(&[&rustls::version::TLS13]), &server, "NoCertificatesPresented");
    turned_away(plain(&[&rustls::version::TLS12]), &server, "Tls12NotOffered");
}

#[test]
fn our_own_server_learns_of_a_revocation_and_resumes_nothing() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let server = own_server(&authority, &trust);
    let lea = authority.credentials("user/lea").unwrap();
    let mut config = (*tls::client_config(&lea, &trust).unwrap()).clone();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    handshake(Arc::clone(&config), Arc::clone(&server), "localhost").unwrap();
    let vouched = trust.check_client(lea.certificate().der(), present()).unwrap();
    assert_eq!((&vouched.identity, vouched.fingerprint.as_str()), (lea.identity(), lea.fingerprint()));
    assert_eq!(vouched.valid_until, lea.not_after());
    authority.revoke(&lea).unwrap();
    trust.install_crl(authority.crl_pem().unwrap().as_bytes(), present()).unwrap();
    turned_away(config, &server, "Revoked");
    let error = trust.check_client(lea.certificate().der(), present()).unwrap_err();
    assert_eq!(error.code().code, "revoked-certificate");
}

#[test]
fn a_server_does_not_start_with_a_certificate_that_no_client_accepts() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let check = |credentials: &Credentials, expected: &str| {
        let error = tls::server_config(credentials, &trust, present()).unwrap_err();
        let foreign = expected == trust.authorities()[0].fingerprint();
        assert_eq!(error.code(), if foreign { "foreign-certificate" } else { "not-a-server-certificate" });
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&authority.credentials("host/web1").unwrap(), "host/web1");
    let key = muster_pki::PrivateKey::generate();
    let only_for_clients =
        authority.forge(&key, |it| it.subject_alt_names = muster_pki::testing::uris(&["muster:broker/mq1"]));
    check(&Credentials::new(only_for_clients.unwrap(), key, "broker").unwrap(), "serverAuth");
    check(&self::authority().broker("broker/mq1").unwrap(), trust.authorities()[0].fingerprint());
    let order = |days: i64| {
        let mut order = muster_pki::profile::Order::new("broker/localhost".parse().unwrap());
        order.days = Some(1);
        authority.order(&order, present().plus_ms(days * crate::DAY_MS)).unwrap()
    };
    check(&order(-2), "expired at");
    check(&order(2), "not valid before");
    let broker = authority.broker("broker/mq2").unwrap();
    authority.revoke(&broker).unwrap();
    trust.install_crl(authority.crl_pem().unwrap().as_bytes(), present()).unwrap();
    check(&broker, "revoked");
}
