//! Revocation lists: what is in force, what replaces it, what does not.

use muster_pki::testing::TestAuthority;
use muster_pki::{Certificate, Credentials, PkiError, PrivateKey, Trust};
use muster_protocol::Timestamp;

use crate::{COMMAND, DAY_MS, NOW, authority, list};

#[track_caller]
fn code(trust: &Trust, credentials: &muster_pki::Credentials, now: Timestamp) -> &'static str {
    match trust.verify(COMMAND, b"{}", &[credentials.sign(COMMAND, b"{}")], now) {
        Ok(_) => "ok",
        Err(error) => error.code().code,
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_the_others_are_not() {
    let authority = authority();
    let lea = authority.credentials("user/lea").unwrap();
    let max = authority.credentials("user/max").unwrap();
    let gone = authority.revoked("user/gone").unwrap();
    let trust = authority.trust().unwrap();
    assert_eq!(code(&trust, &gone, NOW), "revoked-certificate");
    assert_eq!(code(&trust, &lea, NOW), "ok");
    assert_eq!(code(&trust, &max, NOW), "ok");
}

#[test]
fn what_was_checked_before_ends_with_the_revocation() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let clone = trust.clone();
    let lea = authority.credentials("user/lea").unwrap();
    for _ in 0..3 {
        assert_eq!(code(&trust, &lea, NOW), "ok");
    }
    authority.revoke(&lea).unwrap();
    assert_eq!(code(&trust, &lea, NOW), "ok", "nobody told this trust yet");
    let status = trust.install_crl(authority.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    assert!(status.changed && !status.stale);
    assert_eq!((status.info.number, status.info.revoked), (2, 1));
    assert_eq!(code(&trust, &lea, NOW), "revoked-certificate");
    assert_eq!(code(&clone, &lea, NOW), "revoked-certificate", "clones share the list");
    // And the cache does not outlive the certificate either.
    let max = authority.credentials("user/max").unwrap();
    assert_eq!(code(&trust, &max, max.not_after()), "ok");
    assert_eq!(code(&trust, &max, max.not_after().plus_ms(1000)), "expired-certificate");
    assert_eq!(code(&trust, &max, max.not_after()), "ok");
}

#[test]
fn numbers_only_go_up() {
    let authority = authority();
    let first = authority.crl_pem().unwrap();
    let lea = authority.revoked("user/lea").unwrap();
    let second = authority.crl_pem().unwrap();
    let trust = authority.trust().unwrap();
    let error = trust.install_crl(first.as_bytes(), NOW).unwrap_err();
    assert!(matches!(error, PkiError::CrlRollback { given: 1, known: 2 }), "{error:?}");
    assert_eq!(error.code(), "crl-rollback");
    assert_eq!(code(&trust, &lea, NOW), "revoked-certificate");
    let again = trust.install_crl(second.as_bytes(), NOW).unwrap();
    assert!(!again.changed);
    assert_eq!(trust.crl_info()[0].number, 2);
    authority.renew_crl(30).unwrap();
    assert!(trust.install_crl(authority.crl_pem().unwrap().as_bytes(), NOW).unwrap().changed);
    assert_eq!(trust.crl_info()[0].number, 3);
    assert_eq!(trust.crl_pem(), authority.crl_pem().unwrap());
}

#[test]
fn only_our_authority_revokes() {
    let ours = authority();
    let theirs = authority();
    let trust = ours.trust().unwrap();
    theirs.renew_crl(30).unwrap();
    let foreign = theirs.crl_pem().unwrap();
    let error = trust.install_crl(foreign.as_bytes(), NOW).unwrap_err();
    assert_eq!(error.code(), "foreign-crl", "{error}");
    let directory = ours.ca_directory();
    let path = directory.join("foreign.pem");
    std::fs::write(&path, &foreign).unwrap();
    let error = Trust::load(&directory.join("ca.pem"), Some(&path)).unwrap_err();
    assert_eq!(error.code(), "foreign-crl", "{error}");

    let der = pem_to_der(&ours.crl_pem().unwrap());
    for at in [der.len() - 1, der.len() / 2, 20] {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let error = trust.install_crl(&changed, NOW).unwrap_err();
        assert!(matches!(error.code(), "foreign-crl" | "bad-file"), "byte {at}: {error}");
    }
    for garbage in [&b""[..], b"0", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", &der[..40]] {
        assert_eq!(trust.install_crl(garbage, NOW).unwrap_err().code(), "bad-file");
    }
    assert_eq!(trust.install_crl(&der, NOW).map(|status| status.changed).ok(), Some(false), "DER and PEM are the same");
}

#[test]
fn a_stale_list_is_still_in_force() {
    let authority = authority();
    let gone = authority.revoked("user/gone").unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let trust = authority.trust().unwrap();
    let later = NOW.plus_ms(31 * DAY_MS);
    let info = &trust.crl_info()[0];
    assert!(!info.is_stale(NOW) && info.is_stale(later));
    assert_eq!((info.days_left(NOW), info.days_left(later)), (30, -1));
    assert_eq!(code(&trust, &gone, later), "revoked-certificate");
    assert_eq!(code(&trust, &lea, later), "ok");
    assert!(trust.install_crl(authority.crl_pem().unwrap().as_bytes(), later).unwrap().stale);
}

#[test]
fn during_a_rotation_each_authority_has_its_own_list() {
    let old = authority();
    let new = authority();
    let by_old = old.revoked("user/lea").unwrap();
    let by_new = new.credentials("user/lea").unwrap();
    let directory = old.ca_directory();
    std::fs::write(directory.join("both.pem"), old.ca_pem() + &new.ca_pem()).unwrap();
    std::fs::write(directory.join("both-crl.pem"), new.crl_pem().unwrap() + &old.crl_pem().unwrap()).unwrap();
    let trust = Trust::load(&directory.join("both.pem"), Some(&directory.join("both-crl.pem"))).unwrap();
    assert_eq!(code(&trust, &by_old, NOW), "revoked-certificate");
    assert_eq!(code(&trust, &by_new, NOW), "ok");
    new.revoke(&by_new).unwrap();
    trust.install_crl(new.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    assert_eq!(code(&trust, &by_new, NOW), "revoked-certificate");
    assert_eq!(code(&trust, &by_old, NOW), "revoked-certificate");
    let numbers: Vec<_> = trust.crl_info().iter().map(|info| info.number).collect();
    assert_eq!(numbers, [2, 2]);
}

#[test]
fn without_a_list_nothing_is_revoked_yet() {
    let authority = authority();
    let gone = authority.revoked("user/gone").unwrap();
    let trust = Trust::load(&authority.ca_directory().join("ca.pem"), None).unwrap();
    assert!(trust.crl_info().is_empty());
    assert_eq!(code(&trust, &gone, NOW), "ok");
}

/// A serial of 16 bytes.
fn serial(first: [u8; 2], last: u8) -> Vec<u8> {
    let mut serial = vec![0x5a; 16];
    serial[..2].copy_from_slice(&first);
    serial[15] = last;
    serial
}

fn with_serial(authority: &TestAuthority, serial: &[u8]) -> Credentials {
    let key = PrivateKey::generate();
    let serial = rcgen::SerialNumber::from_slice(serial);
    let certificate = authority.forge(&key, |parameters| parameters.serial_number = Some(serial)).unwrap();
    Credentials::new(certificate, key, "test certificate").unwrap()
}

#[test]
fn a_serial_is_revoked_whatever_its_first_byte() {
    let authority = authority();
    let firsts = [[0, 0], [0, 0x7f], [0, 0x80], [0, 0xff], [1, 0], [0x7f, 0xff], [0x80, 0], [0x80, 0xff], [0xff, 0xff]];
    let serials: Vec<_> = firsts.into_iter().map(|first| serial(first, 1)).collect();
    let revoked: Vec<_> = serials.iter().map(|serial| with_serial(&authority, serial)).collect();
    let neighbours: Vec<_> = firsts.into_iter().map(|first| with_serial(&authority, &serial(first, 2))).collect();
    let trust = authority.trust().unwrap();
    for credentials in revoked.iter().chain(&neighbours) {
        assert_eq!(code(&trust, credentials, NOW), "ok", "{}", credentials.certificate().serial());
    }
    let status = trust.install_crl(&list(&authority, &serials, NOW), NOW).unwrap();
    assert_eq!(status.info.revoked, serials.len());
    for credentials in &revoked {
        assert_eq!(code(&trust, credentials, NOW), "revoked-certificate", "{}", credentials.certificate().serial());
    }
    for credentials in &neighbours {
        assert_eq!(code(&trust, credentials, NOW), "ok", "{}", credentials.certificate().serial());
    }
}

/// Overwrites the first byte of a serial in what the authority signed, and signs it again.
fn resigned(authority: &TestAuthority, der: &[u8], body: &[u8], serial: &[u8], first: u8) -> Vec<u8> {
    let ca_key = PrivateKey::load(&authority.ca_directory().join("ca.key")).unwrap();
    let find = |part: &[u8]| der.windows(part.len()).position(|window| window == part).unwrap();
    let start = find(body);
    let mut changed = der.to_vec();
    changed[find(serial)] = first;
    let signature = ca_key.sign(&changed[start..start + body.len()]);
    let end = changed.len() - signature.len();
    changed[end..].copy_from_slice(&signature);
    changed
}

#[test]
fn zeros_that_der_does_not_want_hide_no_revocation() {
    use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
    let authority = authority();
    let long = serial([0x41, 0x42], 1);
    let short = &long[1..];

    // The certificate has the zero, the list has not.
    let key = PrivateKey::generate();
    let number = rcgen::SerialNumber::from_slice(&long);
    let certificate = authority.forge(&key, |parameters| parameters.serial_number = Some(number)).unwrap();
    let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
    let padded = resigned(&authority, certificate.der(), parsed.tbs_certificate.as_ref(), &long, 0);
    let padded = Certificate::from_der(&padded, "test certificate").unwrap();
    let padded = Credentials::new(padded, key, "test certificate").unwrap();
    let trust = authority.trust().unwrap();
    assert_eq!(code(&trust, &padded, NOW), "ok");
    trust.install_crl(&list(&authority, &[short.to_vec()], NOW), NOW).unwrap();
    assert_eq!(code(&trust, &padded, NOW), "revoked-certificate");

    // The list has the zero, the certificate has not.
    let der = list(&authority, std::slice::from_ref(&long), NOW);
    let (_, parsed) = CertificateRevocationList::from_der(&der).unwrap();
    let der = resigned(&authority, &der, parsed.tbs_cert_list.as_ref(), &long, 0);
    let plain = with_serial(&authority, short);
    let trust = authority.trust().unwrap();
    trust.install_crl(&der, NOW).unwrap();
    assert_eq!(code(&trust, &plain, NOW), "revoked-certificate");
    assert_eq!(code(&trust, &with_serial(&authority, &long), NOW), "ok");
}

fn pem_to_der(text: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateRevocationListDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
}
