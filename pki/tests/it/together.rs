//! Messages checked together are judged as each alone would be, whatever is among them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use muster_pki::batch::{Claim, all_verify};
use muster_pki::testing::{TestAuthority, uris};
use muster_pki::{Certificate, Credentials, PrivateKey, PublicKey, Signed, Trust};
use muster_protocol::Signature;
use muster_protocol::envelope::pre_authentication_encoding;
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};

use crate::{NOW, REPORT, authority};

/// The secret number behind a key, as its holder knows it.
fn secret(key: &PrivateKey) -> Scalar {
    let pem = key.to_pem();
    let text: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = BASE64.decode(text).unwrap();
    let hash = Sha512::digest(&der[der.len() - 32..]);
    Scalar::from_bytes_mod_order(clamp_integer(hash[..32].try_into().unwrap()))
}

fn hash(r: &[u8; 32], key: &PublicKey, message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(key.as_bytes()).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// A signature whose R is off by a point of order 8, 4 or 2. Only the holder of the secret can make it: `s` belongs to this R.
fn with_torsion(secret: Scalar, key: &PublicKey, message: &[u8], torsion: EdwardsPoint) -> [u8; 64] {
    let nonce = Scalar::from_bytes_mod_order(Sha512::digest(message)[..32].try_into().unwrap());
    let r = (ED25519_BASEPOINT_POINT * nonce + torsion).compress().to_bytes();
    let s = nonce + hash(&r, key, message) * secret;
    [r, s.to_bytes()].concat().try_into().unwrap()
}

fn signed_with(certificate: &Certificate, bytes: &[u8; 64]) -> Signature {
    Signature {
        keyid: certificate.fingerprint().to_owned(),
        sig: BASE64.encode(bytes),
        chain: vec![BASE64.encode(certificate.der())],
    }
}

/// What a message of the mix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    GoodAgain,
    OtherBody,
    OtherType,
    OthersSignature,
    Revoked,
    Expired,
    NotYetValid,
    OtherAuthority,
    OtherAuthorityOfTheSameName,
    Unsigned,
    Twice,
    /// `s` plus the order of the group: the same number, written otherwise.
    SecondWriting,
    /// R moved by a point of small order by a stranger, who cannot make an `s` for it.
    StrangersTorsion,
    /// R is a point of small order.
    SmallR,
    /// One of two signatures whose errors cancel each other where both are simply added.
    Cancelling,
    /// A certificate whose own signature was changed.
    ForgedCertificate,
}

const KINDS: [Kind; 17] = [
    Kind::Good,
    Kind::GoodAgain,
    Kind::OtherBody,
    Kind::OtherType,
    Kind::OthersSignature,
    Kind::Revoked,
    Kind::Expired,
    Kind::NotYetValid,
    Kind::OtherAuthority,
    Kind::OtherAuthorityOfTheSameName,
    Kind::Unsigned,
    Kind::Twice,
    Kind::SecondWriting,
    Kind::StrangersTorsion,
    Kind::SmallR,
    Kind::Cancelling,
    Kind::ForgedCertificate,
];

/// Identities of every sort, made once.
struct People {
    good: Vec<Credentials>,
    revoked: Credentials,
    expired: Credentials,
    early: Credentials,
    foreign: Credentials,
    namesake: Credentials,
    trust: TestAuthority,
    ours_twice: Trust,
}

impl People {
    fn new() -> Self {
        let (trust, other) = (authority(), authority());
        let host = |n: usize| trust.credentials(&format!("host/h{n}.example.com")).unwrap();
        let good = (0..8).map(host).collect();
        let revoked = trust.revoked("host/revoked").unwrap();
        let namesake_pem = format!("{}{}", trust.ca_pem(), other.ca_pem());
        let ours_twice = Trust::from_pem(&namesake_pem).unwrap();
        Self {
            good,
            revoked,
            expired: trust.expired("host/expired").unwrap(),
            early: trust.not_yet_valid("host/early").unwrap(),
            foreign: authority().credentials("host/foreign").unwrap(),
            namesake: other.credentials("host/namesake").unwrap(),
            ours_twice,
            trust,
        }
    }

    /// The type, body and signatures of one message.
    fn message(&self, number: usize, kind: Kind) -> (String, Vec<u8>, Vec<Signature>) {
        let body = format!("{{\"report\": {number}, \"kind\": \"{kind:?}\"}}").into_bytes();
        let host = &self.good[number % self.good.len()];
        let good = || vec![host.sign(REPORT, &body)];
        let changed = |change: &dyn Fn(&mut [u8; 64])| {
            let mut signature = host.sign(REPORT, &body);
            let mut bytes: [u8; 64] = BASE64.decode(&signature.sig).unwrap().try_into().unwrap();
            change(&mut bytes);
            signature.sig = BASE64.encode(bytes);
            vec![signature]
        };
        let plus = |bytes: &mut [u8; 64], number: Scalar| {
            let s = Scalar::from_bytes_mod_order(bytes[32..].try_into().unwrap()) + number;
            bytes[32..].copy_from_slice(s.as_bytes());
        };
        let signatures = match kind {
            Kind::Good | Kind::GoodAgain => good(),
            Kind::OtherBody => vec![host.sign(REPORT, b"something else")],
            Kind::OtherType => vec![host.sign("another/type", &body)],
            Kind::OthersSignature => {
                let other = self.good[(number + 1) % self.good.len()].sign(REPORT, &body);
                vec![Signature { sig: other.sig, ..host.sign(REPORT, &body) }]
            }
            Kind::Revoked => vec![self.revoked.sign(REPORT, &body)],
            Kind::Expired => vec![self.expired.sign(REPORT, &body)],
            Kind::NotYetValid => vec![self.early.sign(REPORT, &body)],
            Kind::OtherAuthority => vec![self.foreign.sign(REPORT, &body)],
            Kind::OtherAuthorityOfTheSameName => vec![self.namesake.sign(REPORT, &body)],
            Kind::Unsigned => Vec::new(),
            Kind::Twice => vec![host.sign(REPORT, &body), host.sign(REPORT, &body)],
            Kind::SecondWriting => changed(&|bytes| {
                // The order of the group, little-endian.
                let order = -Scalar::ONE;
                let mut carry = 1u16;
                for (at, part) in order.as_bytes().iter().enumerate() {
                    let sum = u16::from(bytes[32 + at]) + u16::from(*part) + carry;
                    bytes[32 + at] = sum.to_le_bytes()[0];
                    carry = sum >> 8;
                }
            }),
            Kind::StrangersTorsion => changed(&|bytes| {
                let r = CompressedEdwardsY(bytes[..32].try_into().unwrap()).decompress().unwrap();
                bytes[..32].copy_from_slice((r + EIGHT_TORSION[1 + number % 7]).compress().as_bytes());
            }),
            Kind::SmallR => {
                changed(&|bytes| bytes[..32].copy_from_slice(EIGHT_TORSION[number % 8].compress().as_bytes()))
            }
            Kind::Cancelling => {
                let one = Scalar::from(7u8);
                changed(&|bytes| plus(bytes, if number.is_multiple_of(2) { one } else { -one }))
            }
            Kind::ForgedCertificate => {
                let mut der = host.certificate().der().to_vec();
                *der.last_mut().unwrap() ^= 1;
                let forged = Certificate::from_der(&der, "forged").unwrap();
                let bytes = BASE64.decode(host.sign(REPORT, &body).sig).unwrap();
                vec![signed_with(&forged, &bytes.try_into().unwrap())]
            }
        };
        (REPORT.to_owned(), body, signatures)
    }
}

#[test]
fn together_is_as_each_alone() {
    let people = People::new();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let kinds = proptest::collection::vec((proptest::sample::select(&KINDS[..]), any::<bool>()), 0..20);
    proptest!(config, |(kinds in kinds, two_authorities in any::<bool>())| {
        // Half of the time mostly good ones, or hardly a batch would be accepted.
        let messages: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(number, (kind, bad))| people.message(number, if *bad { *kind } else { Kind::Good }))
            .collect();
        let signed: Vec<Signed<'_>> = messages
            .iter()
            .map(|(payload_type, body, signatures)| Signed { payload_type, body, signatures })
            .collect();
        let trust = || if two_authorities { people.ours_twice.clone() } else { people.trust.trust().unwrap() };
        let (alone, together) = (trust(), trust());
        // Twice: certificates that are not known, then those that are.
        for _ in 0..2 {
            let found = together.verify_many(&signed, NOW, &mut rand::rng());
            prop_assert_eq!(found.len(), signed.len());
            for (one, found) in signed.iter().zip(found) {
                prop_assert_eq!(found, alone.verify(one.payload_type, one.body, one.signatures, NOW));
            }
        }
    });
}

#[test]
fn a_new_revocation_list_holds_for_who_was_believed_before() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let hosts: Vec<_> = (0..3).map(|n| authority.credentials(&format!("host/h{n}")).unwrap()).collect();
    let signatures: Vec<_> = hosts.iter().map(|host| vec![host.sign(REPORT, b"body")]).collect();
    let messages: Vec<_> =
        signatures.iter().map(|signatures| Signed { payload_type: REPORT, body: b"body", signatures }).collect();
    let codes = |trust: &Trust| -> Vec<Option<&'static str>> {
        let found = trust.verify_many(&messages, NOW, &mut rand::rng());
        found.into_iter().map(|one| one.err().map(|error| error.code().code)).collect()
    };
    assert_eq!(codes(&trust), [None, None, None]);
    authority.revoke(&hosts[1]).unwrap();
    trust.install_crl(authority.crl_pem().unwrap().as_bytes(), NOW).unwrap();
    assert_eq!(codes(&trust), [None, Some("revoked-certificate"), None]);
}

/// A holder of a key who makes odd signatures on purpose may be believed in a batch and not alone. Nobody else is ever
/// believed in its name, and what is believed was signed by it.
#[test]
fn odd_signatures_can_only_be_made_by_the_holder_of_the_key() {
    let authority = authority();
    let key = PrivateKey::generate();
    let certificate = authority.forge(&key, |it| it.subject_alt_names = uris(&["muster:host/odd"])).unwrap();
    let mixed =
        PublicKey::from_bytes((ED25519_BASEPOINT_POINT * secret(&key) + EIGHT_TORSION[1]).compress().as_bytes())
            .unwrap();
    let mixed_certificate =
        authority.forge_for(&mixed, |it| it.subject_alt_names = uris(&["muster:host/mixed"])).unwrap();
    let honest = authority.credentials("host/honest").unwrap();
    let mut believed = 0;
    for number in 0..64 {
        let body = format!("report {number}");
        let message = pre_authentication_encoding(REPORT, body.as_bytes());
        let torsion = EIGHT_TORSION[1 + number % 7];
        let odd = [signed_with(&certificate, &with_torsion(secret(&key), &key.public(), &message, torsion))];
        let with_mixed_key = [signed_with(&mixed_certificate, &with_torsion(secret(&key), &mixed, &message, torsion))];
        let good = [honest.sign(REPORT, body.as_bytes())];
        let all = [&odd, &good, &with_mixed_key].map(|signatures| Signed {
            payload_type: REPORT,
            body: body.as_bytes(),
            signatures,
        });
        let trust = authority.trust().unwrap();
        assert!(trust.verify(REPORT, body.as_bytes(), &odd, NOW).is_err(), "alone it is refused");
        let found = trust.verify_many(&all, NOW, &mut rand::rng());
        for (found, name) in found.iter().zip(["odd", "honest", "mixed"]) {
            match found {
                Ok(signers) => {
                    assert_eq!(signers.len(), 1);
                    assert_eq!(signers[0].identity.short(), format!("host/{name}"));
                    believed += usize::from(name != "honest");
                }
                Err(error) => assert_eq!((error.code().code, name != "honest"), ("bad-signature", true)),
            }
        }
        // The same bytes over another body, which the holder did not sign, are never believed, in any company.
        let moved = [&odd, &good, &with_mixed_key].map(|signatures| Signed {
            payload_type: REPORT,
            body: b"another body",
            signatures,
        });
        assert!(trust.verify_many(&moved, NOW, &mut rand::rng()).iter().all(Result::is_err));
    }
    assert!(believed > 0, "the test has to reach what it is about");
}

/// Errors that are chosen to cancel cannot, because nobody knows the factors beforehand.
#[test]
fn errors_do_not_cancel() {
    let (one, two) = (PrivateKey::generate(), PrivateKey::generate());
    let (one_public, two_public) = (one.public(), two.public());
    let claim = |key, message, signature| Claim { key, message: [message, b""], signature };
    let good = [claim(&one_public, b"one", one.sign(b"one")), claim(&two_public, b"two", two.sign(b"two"))];
    assert!(all_verify(&good, &mut rand::rng()));
    assert!(all_verify(&[], &mut rand::rng()));
    for _ in 0..200 {
        let mut bad = good.clone();
        for (claim, number) in bad.iter_mut().zip([Scalar::ONE, -Scalar::ONE]) {
            let s = Scalar::from_bytes_mod_order(claim.signature[32..].try_into().unwrap()) + number;
            claim.signature[32..].copy_from_slice(s.as_bytes());
        }
        assert!(!all_verify(&bad, &mut rand::rng()));
    }
    // The parts of a message are one behind the other.
    let parts = Claim { key: &one_public, message: [b"o", b"ne"], signature: one.sign(b"one") };
    assert!(all_verify(&[parts], &mut rand::rng()));
}
