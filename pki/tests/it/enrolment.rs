//! Requests, and what an authority makes of them.

use std::os::unix::fs::PermissionsExt;

use muster_pki::authority::Authority;
use muster_pki::profile::Order;
use muster_pki::request::{self, Request};
use muster_pki::testing::uris;
use muster_pki::{Certificate, Credentials, PkiError, PrivateKey};
use muster_protocol::Identity;

use crate::{COMMAND, DAY_MS, NOW, authority};

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

#[test]
fn a_key_that_never_left_its_host_is_certified() {
    let authority = authority();
    let key = PrivateKey::generate();
    let text = request::create(&identity("host/web1.example.com"), &key).unwrap();
    let request = Request::read(text.as_bytes(), "request").unwrap();
    assert_eq!(request.identity(), Some(&identity("host/web1.example.com")));
    assert_eq!(request.public_key(), &key.public());
    let certificate = authority.sign(&text).unwrap();
    let credentials = Credentials::new(certificate, key, "web1").unwrap();
    let trust = authority.trust().unwrap();
    let signers = trust.verify(COMMAND, b"{}", &[credentials.sign(COMMAND, b"{}")], NOW).unwrap();
    assert_eq!(signers[0].identity, identity("host/web1.example.com"));
}

#[test]
fn only_the_key_comes_from_the_request() {
    let authority = authority();
    let key = PrivateKey::generate();
    let mut wishes = rcgen::CertificateParams::default();
    wishes.subject_alt_names = uris(&["muster:host/web1", "muster:group/admins", "muster:user/lea"]);
    wishes.subject_alt_names.push(rcgen::SanType::DnsName("broker.example.com".try_into().unwrap()));
    wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wishes.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    wishes.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let text = wishes.serialize_request(&key).unwrap().pem().unwrap();
    let certificate = authority.sign(&text).unwrap();
    assert_eq!(certificate.identity().unwrap(), identity("host/web1"));
    assert!(certificate.groups().unwrap().is_empty());
    assert!(certificate.dns_names().is_empty());
    assert!(!certificate.is_authority() && !certificate.is_for_servers());
    assert!(certificate.is_for_clients() && certificate.may_sign());
    assert_eq!(certificate.not_after(), NOW.plus_ms(825 * DAY_MS));
    assert_eq!(certificate.not_before(), NOW.plus_ms(-5 * 60 * 1000));
    assert_eq!(certificate.serial().len(), 32);
}

#[test]
fn the_common_name_serves_where_no_uri_is() {
    let key = PrivateKey::generate();
    let mut wishes = rcgen::CertificateParams::default();
    wishes.distinguished_name.push(rcgen::DnType::CommonName, "host/web7");
    let text = wishes.serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(Request::read(text.as_bytes(), "r").unwrap().identity(), Some(&identity("host/web7")));
    wishes.distinguished_name.push(rcgen::DnType::CommonName, "web7");
    let text = wishes.serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(Request::read(text.as_bytes(), "r").unwrap().identity(), None);
}

#[test]
fn a_request_must_prove_its_key() {
    let key = PrivateKey::generate();
    let text = request::create(&identity("host/web1"), &key).unwrap();
    use rustls_pki_types::pem::PemObject;
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
    assert!(Request::read(&der, "r").is_ok(), "DER is read too");
    // Somebody else's public key in one's own request.
    let at = der.windows(32).position(|window| window == key.public().as_bytes()).unwrap();
    let mut stolen = der.clone();
    stolen[at..at + 32].copy_from_slice(PrivateKey::generate().public().as_bytes());
    let mut renamed = der.clone();
    let at = der.windows(4).position(|window| window == b"web1").unwrap();
    renamed[at + 3] = b'2';
    let mut cut = der.clone();
    cut.truncate(der.len() - 1);
    let longer = [der.clone(), vec![0]].concat();
    for (bytes, why) in [
        (stolen, "signature does not fit"),
        (renamed, "signature does not fit"),
        (cut, "not a request"),
        (longer, "follow the request"),
        (b"hello".to_vec(), "is not usable"),
    ] {
        let error = Request::read(&bytes, "request `x.csr`").unwrap_err();
        assert_eq!(error.code(), "bad-file");
        assert!(error.to_string().contains(why), "{error}");
    }
    let other = rcgen::KeyPair::generate().unwrap();
    let text = rcgen::CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
    assert!(Request::read(text.as_bytes(), "r").unwrap_err().to_string().contains("not Ed25519"));
}

#[test]
fn an_identity_is_given_once_unless_it_is_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let mut authority = Authority::init(&directory.path().join("ca"), &Default::default(), NOW).unwrap();
    let order = Order::new(identity("host/web1"));
    let (first, _) = authority.issue(&order, NOW).unwrap();
    let error = authority.issue(&order, NOW).unwrap_err();
    assert!(matches!(error, PkiError::IdentityTaken { .. }), "{error}");
    assert!(error.remedies()[0].contains("--renew"));
    // Another key for the same name, through a request: just the same.
    let request = request::create(&order.identity, &PrivateKey::generate()).unwrap();
    let request = Request::read(request.as_bytes(), "r").unwrap();
    assert_eq!(authority.sign_request(&request, &order, NOW).unwrap_err().code(), "identity-taken");
    assert_eq!(authority.list().len(), 1);

    let renewed = authority.sign_request(&request, &Order { renew: true, ..order.clone() }, NOW).unwrap();
    assert_ne!(renewed.serial, first.serial);
    assert_eq!(authority.show(&order.identity, NOW).unwrap().serial, renewed.serial);
    // Once the old ones are over, the name is free again.
    let later = NOW.plus_ms(826 * DAY_MS);
    authority.issue(&order, later).unwrap();
}

#[test]
fn what_does_not_go_together_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut authority = Authority::init(&directory.path().join("ca"), &Default::default(), NOW).unwrap();
    let mut check = |change: &dyn Fn(&mut Order), who: &str, expected: &str| {
        let mut order = Order::new(identity(who));
        change(&mut order);
        let error = authority.issue(&order, NOW).unwrap_err();
        assert_eq!(error.code(), expected, "{who}: {error}");
    };
    let group = |order: &mut Order| {
        order.groups.insert("ops".parse().unwrap());
    };
    let name = |order: &mut Order| {
        order.dns_names.insert("a.example.com".to_owned());
    };
    check(&group, "host/web1", "not-for-kind");
    check(&group, "broker/mq1", "not-for-kind");
    check(&name, "user/lea", "not-for-kind");
    check(&name, "host/web1", "not-for-kind");
    check(&|order| order.days = Some(0), "user/lea", "bad-value");
    check(&|order| order.days = Some(40_000), "user/lea", "bad-value");
    for bad in ["*.example.com", "A.example.com", "a b", ""] {
        check(&|order| order.dns_names = [bad.to_owned()].into(), "broker/mq1", "bad-value");
    }
    check(&|order| order.groups = (0..17).map(|n| format!("g{n}").parse().unwrap()).collect(), "user/lea", "bad-value");
    assert!(authority.list().is_empty());
}

#[test]
fn no_certificate_outlives_its_authority() {
    let authority = authority();
    let mut order = Order::new(identity("host/web1"));
    order.days = Some(36_500);
    let credentials = authority.order(&order, NOW).unwrap();
    assert_eq!(credentials.not_after(), NOW.plus_ms(3650 * DAY_MS));
}

#[test]
fn a_broker_has_its_names_and_server_purpose_only() {
    let broker = authority().broker("broker/mq1.example.com").unwrap();
    let certificate = broker.certificate();
    assert_eq!(certificate.dns_names(), ["localhost", "mq1.example.com"]);
    assert_eq!(certificate.ip_addresses().len(), 2);
    assert!(certificate.is_for_servers() && !certificate.is_for_clients());
    // A site's broker also logs in, and signs as little as any other.
    let other = authority();
    let linked = other.linked_broker("broker/mq1.example.com").unwrap();
    assert!(linked.certificate().is_for_servers() && linked.certificate().is_for_clients());
    let signature = linked.sign("application/json", b"{}");
    let refused = other.trust().unwrap().verify("application/json", b"{}", &[signature], NOW);
    assert!(matches!(refused, Err(muster_pki::VerifyError::NotASigner { .. })), "{refused:?}");
    let order = Order { link: true, ..Order::new(identity("host/web1")) };
    assert!(matches!(other.order(&order, NOW), Err(muster_pki::PkiError::NotForKind { .. })));
    let by_address = authority().broker("broker/192.0.2.7").unwrap();
    assert_eq!(by_address.certificate().dns_names(), ["localhost"]);
    assert_eq!(by_address.certificate().ip_addresses().len(), 3);
}

#[test]
fn long_names_stay_whole_in_the_uri() {
    let name = format!("{}.example.com", "a".repeat(60));
    let credentials = authority().credentials(&format!("host/{name}")).unwrap();
    assert_eq!(credentials.identity().name(), name);
    assert_eq!(credentials.certificate().subject().len(), "CN=".len() + 64);
}

#[test]
fn keys_are_for_their_owner_only() {
    let authority = authority();
    let directory = tempfile::tempdir().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let files = authority.write(&lea, &directory.path().join("out")).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(mode(&directory.path().join("out")), 0o700);
    let loaded = Credentials::load(&files.certificate, &files.key).unwrap();
    assert_eq!(loaded.identity(), lea.identity());
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
    for bits in [0o640, 0o604, 0o660, 0o610] {
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(bits)).unwrap();
        let error = Credentials::load(&files.certificate, &files.key).unwrap_err();
        assert_eq!(error.code(), "key-exposed", "{bits:o}");
        assert_eq!(error.remedies(), [format!("chmod 600 {}", files.key.display())]);
    }
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o400)).unwrap();
    Credentials::load(&files.certificate, &files.key).unwrap();

    let max = authority.write(&authority.credentials("user/max").unwrap(), &directory.path().join("out")).unwrap();
    assert_eq!(Credentials::load(&files.certificate, &max.key).unwrap_err().code(), "key-mismatch");
    assert_eq!(Credentials::load(&files.ca, &files.key).unwrap_err().code(), "key-mismatch");
    assert_eq!(Credentials::load(&files.key, &files.key).unwrap_err().code(), "bad-file");
    assert_eq!(Credentials::load(&directory.path().join("none"), &files.key).unwrap_err().code(), "file-unreadable");
}

#[test]
fn existing_files_are_never_overwritten() {
    let authority = authority();
    let directory = tempfile::tempdir().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let files = authority.write(&lea, directory.path()).unwrap();
    let before = std::fs::read(&files.key).unwrap();
    let again = authority.credentials("user/lea").unwrap();
    let error = authority.write(&again, directory.path()).unwrap_err();
    assert_eq!(error.code(), "file-exists");
    assert_eq!(std::fs::read(&files.key).unwrap(), before);
    assert_eq!(PrivateKey::generate().save(&files.key).unwrap_err().code(), "file-exists");
    let link = directory.path().join("link.key");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
    assert_eq!(PrivateKey::generate().save(&link).unwrap_err().code(), "file-exists");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".muster-")), "{left:?}");
    assert!(Certificate::load(&files.certificate).is_ok());
}

#[test]
fn a_fleet_is_made_in_one_call() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let identities: Vec<Identity> = (0..100).map(|number| identity(&format!("host/h{number}"))).collect();
    let fleet = authority.fleet(&identities).unwrap();
    for (credentials, expected) in fleet.iter().zip(&identities) {
        let signers = trust.verify(COMMAND, b"{}", &[credentials.sign(COMMAND, b"{}")], NOW).unwrap();
        assert_eq!(signers[0].identity, *expected);
    }
}
