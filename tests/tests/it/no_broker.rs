//! The AMQP bus against everything that is no broker, or none that can be trusted.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use muster_bus::{AmqpBus, AmqpSettings, BrokerUrl, Bus as _, BusError, Link, TlsProblem};
use muster_pki::profile::Order;
use muster_pki::{Credentials, Trust};
use muster_protocol::Timestamp;
use muster_tests::pki::{self, Member, Site};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn settings(url: &str, credentials: &Credentials, trust: Trust) -> AmqpSettings {
    AmqpSettings::new(vec![url.parse().unwrap()], credentials.clone(), trust)
}

pub(crate) async fn connect(settings: AmqpSettings) -> Result<Arc<dyn Link>, BusError> {
    tokio::time::timeout(LIMIT, AmqpBus::new(settings).connect()).await.expect("connecting has a deadline")
}

pub(crate) async fn refused(settings: AmqpSettings) -> BusError {
    match connect(settings).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

/// A port where nobody listens, at least not a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_with_each_address() {
    let site = pki::site();
    let member = site.member("user/lea");
    let (first, second) = (free_port(), free_port());
    let mut settings = settings(&format!("amqps://127.0.0.1:{first}/muster"), &member.credentials, site.trust());
    settings.urls.push(BrokerUrl::new("127.0.0.1", second, "muster"));
    settings.urls.push(BrokerUrl::new("no-such-broker.invalid", 5671, "muster"));
    let error = refused(settings).await;
    assert!(error.is_transient());
    assert_eq!(error.code(), "broker-unreachable");
    let BusError::Unreachable { tries } = &error else { panic!("{error:?}") };
    let mut addresses: Vec<_> = tries.iter().map(|one| one.address.as_str()).collect();
    addresses.sort_unstable();
    let mut expected =
        vec![format!("127.0.0.1:{first}"), format!("127.0.0.1:{second}"), "no-such-broker.invalid:5671".to_owned()];
    expected.sort_unstable();
    assert_eq!(addresses, expected);
    let text = error.to_string();
    assert!(text.contains(&format!("`127.0.0.1:{first}` refuses connections (nothing listens there)")), "{text}");
    assert!(text.contains("`no-such-broker.invalid:5671` does not resolve"), "{text}");
}

/// Serves one TLS handshake with these files, on a port of its own.
fn tls_server(member: &Member) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let certificates = CertificateDer::pem_file_iter(&member.files.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&member.files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        // The client ends it, with an alert.
        while connection.complete_io(&mut stream).is_ok() {}
    });
    port
}

#[tokio::test]
async fn a_broker_that_cannot_be_trusted_is_not_trusted() {
    let site = Site::new().unwrap();
    let other = Site::new().unwrap();
    let authority = site.authority();
    let lea = site.member("user/lea");
    let now = authority_now(&lea);
    let order = |names: &[&str]| {
        let mut order = Order::new("broker/b".parse().unwrap());
        order.dns_names.extend(names.iter().map(|&name| name.to_owned()));
        order
    };
    let for_other_name = site.keep("other-name", authority.order(&order(&["other.example.com"]), now).unwrap());
    let day_ms = 24 * 60 * 60 * 1000;
    let expired = Order { days: Some(1), ..order(&["localhost"]) };
    let expired = site.keep("expired", authority.order(&expired, now.plus_ms(-2 * day_ms)).unwrap());
    let early = site.keep("early", authority.order(&order(&["localhost"]), now.plus_ms(day_ms)).unwrap());
    let revoked = authority.order(&order(&["localhost"]), now).unwrap();
    authority.revoke(&revoked).unwrap();
    let revoked = site.keep("revoked", revoked);
    let trust = site.trust();
    let wrong_name = TlsProblem::WrongName {
        expected: "localhost".to_owned(),
        presented: vec!["b".to_owned(), "other.example.com".to_owned()],
    };
    for (what, member, expected) in [
        ("another CA", &other.broker(), TlsProblem::UnknownCa),
        ("another name", &for_other_name, wrong_name),
        ("expired", &expired, TlsProblem::Expired),
        ("not yet valid", &early, TlsProblem::NotYetValid),
        ("revoked", &revoked, TlsProblem::Revoked),
    ] {
        let url = format!("amqps://localhost:{}/muster", tls_server(member));
        let error = refused(settings(&url, &lea.credentials, trust.clone())).await;
        match &error {
            BusError::Tls { problem, .. } => assert_eq!(*problem, expected, "{what}"),
            error => panic!("{what}: {error:?}"),
        }
        assert!(!error.is_transient() && !error.hint().is_empty());
    }
    // A host's certificate serves nothing, even under the right name.
    let url = format!("amqps://localhost:{}/muster", tls_server(&site.member("host/localhost")));
    let error = refused(settings(&url, &lea.credentials, trust)).await;
    assert!(matches!(error, BusError::Tls { .. }), "{error:?}");
}

/// When the throw-away authority of a member was made: its certificates begin five minutes before.
fn authority_now(member: &Member) -> Timestamp {
    member.credentials.not_before().plus_ms(5 * 60 * 1000)
}

#[tokio::test]
async fn something_else_on_the_port_has_a_clear_end() {
    let site = pki::site();
    let member = site.member("user/lea");
    let serve = |answer: Option<&'static [u8]>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            match answer {
                Some(answer) => stream.write_all(answer).unwrap(),
                // Silence, until the other side gives up.
                None => while stream.read(&mut [0; 1024]).is_ok_and(|bytes| bytes > 0) {},
            }
        });
        port
    };
    for (answer, expected) in [
        (None, "did not answer in time (TLS)"),
        (Some(&b""[..]), "hung up during the handshake"),
        (Some(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]), "it does not speak TLS on this port"),
    ] {
        let url = format!("amqps://127.0.0.1:{}/muster", serve(answer));
        let settings = AmqpSettings {
            connect_timeout: Duration::from_secs(1),
            ..settings(&url, &member.credentials, site.trust())
        };
        let error = refused(settings).await;
        assert!(error.to_string().contains(expected), "{error}");
    }
}
