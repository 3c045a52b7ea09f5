//! Each reason not to believe a message, by its code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_pki::testing::{TestAuthority, uris};
use muster_pki::{Credentials, PrivateKey, Trust, VerifyError};
use muster_protocol::{Identity, Signature, Timestamp};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use crate::{COMMAND, DAY_MS, NOW, REPORT, SECOND_MS, authority};

const BODY: &[u8] = b"{\"exact\": \"bytes\"}";

#[track_caller]
fn refused(trust: &Trust, signatures: &[Signature], now: Timestamp, code: &str) -> VerifyError {
    let error = trust.verify(COMMAND, BODY, signatures, now).expect_err("must be refused");
    assert_eq!(error.code().code, code, "{error}");
    assert!(!error.is_transient());
    error
}

/// A certificate of ours with anything in it, and its signature over the body.
fn forged(authority: &TestAuthority, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Signature {
    let key = PrivateKey::generate();
    let certificate = authority.forge(&key, change).unwrap();
    Signature {
        keyid: certificate.fingerprint().to_owned(),
        sig: BASE64.encode(key.sign(&muster_protocol::envelope::pre_authentication_encoding(COMMAND, BODY))),
        chain: vec![BASE64.encode(certificate.der())],
    }
}

#[test]
fn a_good_message_names_its_signers_in_order() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials_with_groups("user/lea", &["ops", "dba"]).unwrap();
    let jobs = authority.credentials("service/jobs").unwrap();
    let web = authority.credentials("host/web1.example.com").unwrap();
    let signatures = [&jobs, &lea, &web].map(|it| it.sign(COMMAND, BODY));
    for _ in 0..2 {
        let signers = trust.verify(COMMAND, BODY, &signatures, NOW).unwrap();
        let names: Vec<_> = signers.iter().map(|signer| signer.identity.short()).collect();
        assert_eq!(names, ["service/jobs", "user/lea", "host/web1.example.com"]);
        assert_eq!(signers[1].groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(), ["dba", "ops"]);
        assert_eq!(signers[1].fingerprint, lea.fingerprint());
        assert_eq!(signers[1].not_after, lea.not_after());
    }
}

#[test]
fn a_hosts_certificate_speaks_for_that_host_only() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let web = authority.credentials("host/web1").unwrap();
    // Whatever the body claims, the signer is the host, and a host is no controller.
    let body = br#"{"caller":"muster:user/lea"}"#;
    let signers = trust.verify(COMMAND, body, &[web.sign(COMMAND, body)], NOW).unwrap();
    assert_eq!(signers[0].identity, "host/web1".parse::<Identity>().unwrap());
    assert!(!signers[0].identity.is_controller());
}

#[test]
fn unsigned_and_unreadable_signatures() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let web = authority.credentials("host/web1").unwrap();
    let good = lea.sign(COMMAND, BODY);
    refused(&trust, &[], NOW, "unsigned");

    let truncated = BASE64.encode(&BASE64.decode(&good.sig).unwrap()[..63]);
    let longer = BASE64.encode([BASE64.decode(&good.sig).unwrap(), vec![0]].concat());
    let bad = |change: &dyn Fn(&mut Signature)| {
        let mut signature = good.clone();
        change(&mut signature);
        signature
    };
    let cases = [
        bad(&|it| it.sig = truncated.clone()),
        bad(&|it| it.sig = longer.clone()),
        bad(&|it| it.sig.clear()),
        bad(&|it| it.sig = "!".repeat(88)),
        bad(&|it| it.sig.push('\n')),
        bad(&|it| it.keyid = web.fingerprint().to_owned()),
        bad(&|it| it.keyid = it.keyid.to_uppercase()),
        bad(&|it| it.keyid.clear()),
        bad(&|it| it.chain.clear()),
        bad(&|it| it.chain = vec![it.chain[0].clone(), BASE64.encode(trust.authorities()[0].der())]),
        bad(&|it| it.chain = vec!["AA==".to_owned()]),
        bad(&|it| it.chain = vec!["*".to_owned()]),
        bad(&|it| it.chain = vec![BASE64.encode(vec![0x30; 20_000])]),
        bad(&|it| {
            let mut der = BASE64.decode(&it.chain[0]).unwrap();
            der.push(0);
            it.keyid = sha256_hex(&der);
            it.chain = vec![BASE64.encode(der)];
        }),
    ];
    for (number, signature) in cases.into_iter().enumerate() {
        let error = refused(&trust, &[signature], NOW, "bad-envelope");
        assert!(error.to_string().starts_with("signature 1 cannot be read: "), "case {number}: {error}");
    }
    refused(&trust, &vec![good.clone(); 9], NOW, "bad-envelope");
    let twice = refused(&trust, &[good.clone(), good], NOW, "bad-envelope");
    assert_eq!(twice.to_string(), "`user/lea` signed more than once");
}

#[test]
fn every_signature_must_be_right() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let jobs = authority.credentials("service/jobs").unwrap();
    let wrong = jobs.sign(COMMAND, b"another body");
    let error = refused(&trust, &[lea.sign(COMMAND, BODY), wrong.clone()], NOW, "bad-signature");
    assert_eq!(error.to_string(), "the signature in the name of `service/jobs` does not fit the message");
    refused(&trust, &[wrong, lea.sign(COMMAND, BODY)], NOW, "bad-signature");
}

#[test]
fn one_key_under_two_names_is_one_hand() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let key = PrivateKey::generate();
    let sign = |identity: &str| {
        let name = format!("muster:{identity}");
        let certificate = authority.forge(&key, |params| params.subject_alt_names = uris(&[&name])).unwrap();
        Signature {
            keyid: certificate.fingerprint().to_owned(),
            sig: BASE64.encode(key.sign(&muster_protocol::envelope::pre_authentication_encoding(COMMAND, BODY))),
            chain: vec![BASE64.encode(certificate.der())],
        }
    };
    let (lea, max) = (sign("user/lea"), sign("user/max"));
    for one in [&lea, &max] {
        trust.verify(COMMAND, BODY, std::slice::from_ref(one), NOW).unwrap();
    }
    let error = refused(&trust, &[lea.clone(), max.clone()], NOW, "bad-envelope");
    assert_eq!(error.to_string(), "`user/lea` and `user/max` signed with the same key");
    let eve = authority.credentials("user/eve").unwrap().sign(COMMAND, BODY);
    refused(&trust, &[lea, eve, max], NOW, "bad-envelope");
}

#[test]
fn a_signature_fits_one_body_one_type_and_one_key() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let max = authority.credentials("user/max").unwrap();
    refused(&trust, &[lea.sign(COMMAND, b"{\"exact\": \"bytes\"} ")], NOW, "bad-signature");
    refused(&trust, &[lea.sign(REPORT, BODY)], NOW, "bad-signature");
    // Another's certificate over one's own signature.
    let stolen = Signature { sig: max.sign(COMMAND, BODY).sig, ..lea.sign(COMMAND, BODY) };
    refused(&trust, &[stolen], NOW, "bad-signature");
}

#[test]
fn a_signature_has_one_form() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let good = lea.sign(COMMAND, BODY);
    // S + L is the same number modulo the group's order L; RFC 8032 wants S below L.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = BASE64.decode(&good.sig).unwrap();
    let mut carry = 0u16;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    refused(&trust, &[Signature { sig: BASE64.encode(&bytes), ..good.clone() }], NOW, "bad-signature");
    // R of small order (the neutral element), S zero.
    let mut small = vec![0u8; 64];
    small[0] = 1;
    refused(&trust, &[Signature { sig: BASE64.encode(small), ..good }], NOW, "bad-signature");
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let key = PrivateKey::generate();
    let certificate = authority.forge(&key, |_| {}).unwrap();
    // The certificate is signed, so swapping its key needs the CA: here the CA is careless.
    let der = certificate.der().to_vec();
    let at = der.windows(32).position(|window| window == key.public().as_bytes()).unwrap();
    let mut weak = der;
    weak[at..at + 32].fill(0);
    weak[at] = 1;
    let signature = Signature {
        keyid: sha256_hex(&weak),
        sig: BASE64.encode([&[1u8][..], &[0u8; 63][..]].concat()),
        chain: vec![BASE64.encode(&weak)],
    };
    refused(&trust, &[signature], NOW, "untrusted-certificate");
}

#[test]
fn another_authority() {
    let ours = authority();
    let theirs = authority();
    let trust = ours.trust().unwrap();
    let lea = theirs.credentials("user/lea").unwrap();
    let error = refused(&trust, &[lea.sign(COMMAND, BODY)], NOW, "untrusted-certificate");
    assert!(error.to_string().contains("is unknown here"), "{error}");
    // A stranger's expired certificate is a stranger's, not an expired one of ours.
    let old = theirs.expired("user/lea").unwrap();
    refused(&trust, &[old.sign(COMMAND, BODY)], NOW, "untrusted-certificate");
    // With both trusted, as during a rotation, both are believed.
    let both = Trust::from_pem(&(ours.ca_pem() + &theirs.ca_pem())).unwrap();
    let max = ours.credentials("user/max").unwrap();
    assert_eq!(both.verify(COMMAND, BODY, &[lea.sign(COMMAND, BODY), max.sign(COMMAND, BODY)], NOW).unwrap().len(), 2);
}

#[test]
fn a_changed_certificate() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let good = lea.sign(COMMAND, BODY);
    let mut der = lea.certificate().der().to_vec();
    let at = der.windows(8).position(|window| window == b"user/lea").unwrap();
    der[at..at + 8].copy_from_slice(b"user/max");
    let signature = Signature { keyid: sha256_hex(&der), chain: vec![BASE64.encode(&der)], ..good };
    refused(&trust, &[signature], NOW, "untrusted-certificate");
}

#[test]
fn authors_are_named_whatever_became_of_their_certificates() {
    let authority = authority();
    let revoked = authority.revoked("user/eve").unwrap();
    let trust = authority.trust().unwrap();
    let (old, new) = (authority.expired("user/old").unwrap(), authority.not_yet_valid("user/new").unwrap());
    let signatures = [&revoked, &old, &new].map(|it| it.sign(COMMAND, BODY));
    refused(&trust, &signatures, NOW, "revoked-certificate");
    let authors = trust.authors(COMMAND, BODY, &signatures).unwrap();
    assert_eq!(authors.iter().map(Identity::short).collect::<Vec<_>>(), ["user/eve", "user/old", "user/new"]);

    let check = |signatures: &[Signature], code: &str| {
        let error = trust.authors(COMMAND, BODY, signatures).expect_err("nobody must be named");
        assert_eq!(error.code().code, code, "{error}");
    };
    check(&[], "unsigned");
    check(&[revoked.sign(REPORT, BODY)], "bad-signature");
    check(&[revoked.sign(COMMAND, b"other")], "bad-signature");
    check(&[old.sign(COMMAND, BODY), revoked.sign(COMMAND, b"other")], "bad-signature");
    check(&[old.sign(COMMAND, BODY), old.sign(COMMAND, BODY)], "bad-envelope");
    check(&[crate::authority().expired("user/old").unwrap().sign(COMMAND, BODY)], "untrusted-certificate");
    check(&[authority.broker("broker/mq1.example.com").unwrap().sign(COMMAND, BODY)], "untrusted-certificate");
    // Asking for a name makes nobody believed afterwards.
    refused(&trust, &[revoked.sign(COMMAND, BODY)], NOW, "revoked-certificate");
    refused(&trust, &[old.sign(COMMAND, BODY)], NOW, "expired-certificate");
}

#[test]
fn time() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let expired = authority.expired("user/lea").unwrap();
    let error = refused(&trust, &[expired.sign(COMMAND, BODY)], NOW, "expired-certificate");
    assert!(matches!(error, VerifyError::Expired { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "the certificate of `user/lea` expired at 2026-11-20T00:47:17Z; here it is 2026-11-21T00:47:17Z"
    );
    let early = authority.not_yet_valid("user/max").unwrap();
    let error = refused(&trust, &[early.sign(COMMAND, BODY)], NOW, "expired-certificate");
    assert!(matches!(error, VerifyError::NotYetValid { .. }), "{error}");

    // To the second, and the same whether the certificate is known or new.
    let lea = authority.credentials("user/lea").unwrap();
    let signature = [lea.sign(COMMAND, BODY)];
    let last = lea.not_after();
    let first = lea.not_before();
    for trust in [trust, authority.trust().unwrap()] {
        refused(&trust, &signature, last.plus_ms(SECOND_MS), "expired-certificate");
        trust.verify(COMMAND, BODY, &signature, last.plus_ms(SECOND_MS - 1)).unwrap();
        refused(&trust, &signature, first.plus_ms(-1), "expired-certificate");
        trust.verify(COMMAND, BODY, &signature, first).unwrap();
        refused(&trust, &signature, last.plus_ms(1000 * DAY_MS), "expired-certificate");
        refused(&trust, &signature, Timestamp(i64::MIN), "expired-certificate");
        refused(&trust, &signature, Timestamp(i64::MAX), "expired-certificate");
    }
}

#[test]
fn an_authority_that_is_over_vouches_for_nobody() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let end = trust.authorities()[0].not_after();
    let eternal = forged(&authority, |parameters| {
        parameters.not_after = rcgen::date_time_ymd(2200, 1, 1);
    });
    trust.verify(COMMAND, BODY, std::slice::from_ref(&eternal), end).unwrap();
    refused(&trust, &[eternal], end.plus_ms(SECOND_MS), "expired-certificate");
}

#[test]
fn purpose() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let broker = authority.broker("broker/mq1").unwrap();
    refused(&trust, &[broker.sign(COMMAND, BODY)], NOW, "untrusted-certificate");
    let cases: [(&str, Vec<ExtendedKeyUsagePurpose>, Vec<KeyUsagePurpose>); 4] = [
        ("server only", vec![ExtendedKeyUsagePurpose::ServerAuth], vec![KeyUsagePurpose::DigitalSignature]),
        ("no purpose", vec![], vec![KeyUsagePurpose::DigitalSignature]),
        ("no key usage", vec![ExtendedKeyUsagePurpose::ClientAuth], vec![]),
        ("other usage", vec![ExtendedKeyUsagePurpose::ClientAuth], vec![KeyUsagePurpose::KeyAgreement]),
    ];
    for (name, purposes, usages) in cases {
        let signature = forged(&authority, |parameters| {
            parameters.extended_key_usages = purposes;
            parameters.key_usages = usages;
        });
        let error = trust.verify(COMMAND, BODY, &[signature], NOW).unwrap_err();
        assert_eq!(error.code().code, "untrusted-certificate", "{name}: {error}");
    }
    let authority_itself = forged(&authority, |parameters| {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    refused(&trust, &[authority_itself], NOW, "untrusted-certificate");
    // Even with the right purpose a broker signs nothing.
    let talkative = forged(&authority, |parameters| parameters.subject_alt_names = uris(&["muster:broker/mq1"]));
    refused(&trust, &[talkative], NOW, "wrong-identity");
}

#[test]
fn names() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    #[track_caller]
    fn check(authority: &TestAuthority, trust: &Trust, names: &[&str], expected: Result<&str, &str>) {
        let signature = forged(authority, |parameters| parameters.subject_alt_names = uris(names));
        let result = trust.verify(COMMAND, BODY, &[signature], NOW);
        match expected {
            Ok(identity) => assert_eq!(result.unwrap()[0].identity.to_string(), identity, "{names:?}"),
            Err(text) => {
                let error = result.unwrap_err();
                assert_eq!(error.code().code, "wrong-identity", "{names:?}: {error}");
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(source.contains(text), "{names:?}: {source}");
            }
        }
    }
    let check = |names: &[&str], expected| check(&authority, &trust, names, expected);
    check(&["muster:user/lea"], Ok("muster:user/lea"));
    check(&["muster:user/lea", "muster:group/ops"], Ok("muster:user/lea"));
    check(&["muster:user/lea", "https://example.com/"], Ok("muster:user/lea"));
    check(&[], Err("no URI"));
    check(&["https://example.com/"], Err("not a muster identity"));
    check(&["https://example.com/", "muster:user/lea"], Err("not a muster identity"));
    check(&["muster:group/ops", "muster:user/lea"], Err("not one we know"));
    check(&["muster:user/lea", "muster:user/max"], Err("besides its identity"));
    check(&["muster:user/lea", "muster:host/web1"], Err("besides its identity"));
    check(&["muster:user/lea", "muster:admin/all"], Err("besides its identity"));
    check(&["muster:user/lea", "MUSTER:group/ops"], Err("besides its identity"));
    check(&["muster:robot/r2"], Err("not one we know"));
    check(&["MUSTER:user/lea"], Err("not a muster identity"));
    check(&["muster:user/Lea"], Err("not one we know"));
    check(&["muster:user/lea", "muster:group/"], Err("not one we know"));
    check(&["muster:user/"], Err("not one we know"));
    check(&["muster:host/*"], Err("not one we know"));
    let many: Vec<String> =
        std::iter::once("muster:user/lea".to_owned()).chain((0..17).map(|n| format!("muster:group/g{n}"))).collect();
    check(&many.iter().map(String::as_str).collect::<Vec<_>>(), Err("17 groups"));
}

#[test]
fn an_intermediate_is_nobodys() {
    // Somebody makes an authority below ours: its certificates are refused with and without it in the chain.
    let authority = authority();
    let trust = authority.trust().unwrap();
    let middle_key = PrivateKey::generate();
    let middle = authority
        .forge(&middle_key, |parameters| {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            parameters.extended_key_usages = vec![];
        })
        .unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&middle.der().into(), &middle_key).unwrap();
    let key = PrivateKey::generate();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.subject_alt_names = uris(&["muster:user/lea"]);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = parameters.signed_by(&key.public(), &issuer).unwrap();
    let leaf = muster_pki::Certificate::from_der(leaf.der(), "leaf").unwrap();
    let mut signature = Credentials::new(leaf, key, "leaf").unwrap().sign(COMMAND, BODY);
    refused(&trust, &[signature.clone()], NOW, "untrusted-certificate");
    signature.chain.push(BASE64.encode(middle.der()));
    refused(&trust, &[signature], NOW, "bad-envelope");
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
