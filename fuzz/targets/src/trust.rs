//! Certificates, revocation lists, requests for certificates, and signatures.

use std::sync::OnceLock;

use bytes::Bytes;
use muster_agent::admit::{Incoming, Received, verify};
use muster_pki::request::Request;
use muster_pki::sealing::SealingPublicKey;
use muster_pki::testing::TestAuthority;
use muster_pki::{Certificate, Credentials, PrivateKey, Trust, crl};
use muster_plugin_pack::{Content, Pack};
use muster_protocol::{GroupName, PayloadType, Timestamp};

use crate::Target;
use crate::input::Input;

/// When everything happens.
const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// Who vouches, and whom for. The keys are new in each process; no law depends on them.
struct Cast {
    _authority: TestAuthority,
    trust: Trust,
    lea: Credentials,
    stranger: Credentials,
}

fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(|| {
        let make = || {
            let (ours, theirs) = (TestAuthority::new(NOW)?, TestAuthority::new(NOW)?);
            let trust = ours.trust()?;
            let lea = ours.credentials_with_groups("user/lea", &["packers"])?;
            Ok::<_, muster_pki::PkiError>(Cast {
                trust,
                lea,
                stranger: theirs.credentials("user/lea")?,
                _authority: ours,
            })
        };
        make().expect("a test authority can be made")
    })
}

/// Certificates and their kin, in DER or PEM.
pub(crate) const PKI: Target = Target {
    name: "pki",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/pki/"],
    words: &[
        "-----BEGIN CERTIFICATE-----\n",
        "-----END CERTIFICATE-----\n",
        "-----BEGIN X509 CRL-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        "-----BEGIN PRIVATE KEY-----\n",
        "muster:host/",
        "muster:user/",
        "muster:group/",
        "\u{30}\u{3}\u{2}\u{1}\u{2}",
        "20261121000000Z",
        "99991231235959Z",
    ],
    run: pki,
};

fn pki(input: &[u8]) {
    let mut input = Input(input);
    let cast = cast();
    match input.byte() {
        b'c' => {
            if let Ok(certificate) = Certificate::from_der(input.rest(), "input") {
                certificate_laws(&certificate);
            }
        }
        b't' => {
            if let Ok(trust) = Trust::from_pem(&input.rest_text()) {
                assert!(!trust.authorities().is_empty());
                trust.authorities().iter().for_each(certificate_laws);
                let signature = cast.stranger.sign("x", b"x");
                assert!(trust.verify("x", b"x", &[signature], NOW).is_err(), "nobody of theirs is in it");
            }
        }
        b'l' => {
            if let Ok(info) = crl::inspect(input.rest(), "input") {
                let _ = (info.is_stale(NOW), info.days_left(NOW));
            }
            // Only the authority's own list is taken, and its key is new.
            assert!(cast.trust.install_crl(input.rest(), NOW).is_err(), "nobody can write a list for our authority");
        }
        b'r' => {
            if let Ok(request) = Request::read(input.rest(), "input") {
                let _ = (request.identity(), request.public_key().fingerprint());
            }
        }
        b'k' => {
            if let Ok(key) = PrivateKey::from_pem(&input.rest_text(), "input") {
                let again = PrivateKey::from_pem(&key.to_pem(), "input").expect("a written key is read");
                assert_eq!(again.public().as_bytes(), key.public().as_bytes());
                assert!(key.public().verifies(b"x", &key.sign(b"x")));
            }
        }
        _ => {
            let text = input.rest_text();
            if let Ok(key) = text.parse::<SealingPublicKey>() {
                assert_eq!(key.to_string().parse::<SealingPublicKey>().as_ref(), Ok(&key));
            }
        }
    }
}

fn certificate_laws(certificate: &Certificate) {
    for text in [certificate.subject(), certificate.issuer()] {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    if let Ok(identity) = certificate.identity() {
        assert_eq!(identity.to_string().parse().as_ref(), Ok(&identity));
    }
    drop(certificate.groups());
    let _ = (certificate.not_before(), certificate.not_after(), certificate.serial());
    let _ = (certificate.dns_names(), certificate.ip_addresses(), certificate.is_authority(), certificate.may_sign());
    let pem = certificate.to_pem();
    if let Ok(trust) = Trust::from_pem(&pem) {
        assert_eq!(trust.authorities()[0].der(), certificate.der(), "PEM holds the same bytes");
    }
}

/// Messages with a right signature, so that what comes behind it is reached, and then with one byte changed:
/// `KIND, PLACE (2 bytes), MASK, WHERE, BODY`.
pub(crate) const SIGNED: Target = Target {
    name: "signed",
    bytes_max: 4096,
    seeds: &[
        "c\u{1}\u{0}\u{1}a=protocol/golden/muster-1/command.json",
        "n\u{1}\u{0}\u{1}b=protocol/golden/muster-1/cancel.json",
        "w\u{1}\u{0}\u{1}c=protocol/golden/muster-1/watch.json",
        "r\u{1}\u{0}\u{1}d=protocol/golden/muster-1/progress-report-finished.json",
    ],
    words: &["\"caller\":\"muster:user/lea\"", "\"reply_to\":\"user/lea.7f3a\"", "\"protocol\":\"muster/1\""],
    run: signed,
};

fn signed(input: &[u8]) {
    let mut input = Input(input);
    let cast = cast();
    let kind = match input.byte() {
        b'n' => PayloadType::Cancel,
        b'w' => PayloadType::Watch,
        b'r' => PayloadType::Report,
        b'a' => PayloadType::AccumulatedReport,
        b'p' => PayloadType::Announcement,
        _ => PayloadType::Command,
    };
    let (place, mask, part) = (usize::from(input.short()), input.byte().max(1), input.byte());
    let body = input.rest();
    let signature = cast.lea.sign(kind.as_str(), body);
    let header = serde_json::to_vec(&[&signature]).expect("a signature is JSON");
    let received = |content_type: &str, body: &[u8], header: &[u8]| Received {
        content_type: content_type.to_owned(),
        body: Bytes::copy_from_slice(body),
        signatures: Bytes::copy_from_slice(header),
        redelivered: false,
        oversized: None,
    };
    let believed = |incoming: &Incoming| match incoming {
        Incoming::Command(command) => (command.message().caller.clone(), command.signers().to_vec()),
        Incoming::Cancel(cancel) => (cancel.message().caller.clone(), cancel.signers().to_vec()),
        Incoming::Watch(watch) => (watch.message().caller.clone(), watch.signers().to_vec()),
    };
    assert!(cast.trust.verify(kind.as_str(), body, std::slice::from_ref(&signature), NOW).is_ok());
    match verify(&received(kind.as_str(), body, &header), &cast.trust, NOW) {
        Ok(incoming) => {
            let (_, signers) = believed(&incoming);
            assert_eq!(signers.len(), 1);
            assert_eq!(&signers[0].identity, cast.lea.identity());
        }
        Err(rejected) => assert!(!rejected.refusal.message.is_empty() || !rejected.refusal.code.code.is_empty()),
    }
    // The same message, changed in one place, or signed by somebody of another authority.
    let mut changed = (kind.as_str().to_owned(), body.to_vec(), signature.clone());
    let flip = |bytes: &mut Vec<u8>| {
        let length = bytes.len();
        if let Some(byte) = bytes.get_mut(place % length.max(1)) {
            *byte ^= mask;
        }
    };
    match part % 6 {
        0 => flip(&mut changed.1),
        1 => changed.1.push(mask),
        2 => {
            let other = PayloadType::ALL[place % PayloadType::ALL.len()];
            other.as_str().clone_into(&mut changed.0);
        }
        3 => changed.2 = cast.stranger.sign(kind.as_str(), body),
        4 => changed.2.sig = flipped_base64(&signature.sig, &flip),
        _ => changed.2.chain[0] = flipped_base64(&signature.chain[0], &flip),
    }
    if changed == (kind.as_str().to_owned(), body.to_vec(), signature) {
        return;
    }
    let (content_type, body, signature) = changed;
    let header = serde_json::to_vec(&[&signature]).expect("a signature is JSON");
    assert!(cast.trust.verify(&content_type, &body, &[signature], NOW).is_err(), "a changed message is not believed");
    assert!(verify(&received(&content_type, &body, &header), &cast.trust, NOW).is_err());
}

fn flipped_base64(text: &str, flip: &impl Fn(&mut Vec<u8>)) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut bytes = base64.decode(text).expect("our own signature is base64");
    flip(&mut bytes);
    base64.encode(bytes)
}

/// Archives of plugins: raw (`a`), a manifest (`m`), files that are packed first (`f`, pieces by turns name and
/// content), or a signed pack in which one byte is changed (`s`).
pub(crate) const PACK: Target = Target {
    name: "pack",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/pack/"],
    words: &["manifest.json", "signature.json", "../", "/etc/", "\u{1f}", "ustar", "\"files\":[{", "\"sha256\":\""],
    run: pack,
};

fn pack(input: &[u8]) {
    let mut input = Input(input);
    match input.byte() {
        b'm' => drop(muster_plugin_pack::fuzzing::manifest(input.rest())),
        b'f' => {
            let mut files: Vec<(String, bool, &[u8])> = Vec::new();
            while !input.is_empty() && files.len() < 200 {
                let name: String = input.text().chars().take(90).collect();
                files.push((name, files.len() % 2 == 1, input.piece()));
            }
            if let Ok(bytes) = muster_plugin_pack::fuzzing::pack(&files) {
                drop((muster_plugin_pack::fuzzing::archive(&bytes), Pack::open(&bytes)));
            }
        }
        b's' => {
            let cast = cast();
            let (place, mask) = (usize::from(input.short()), input.byte().max(1));
            let made = signed_pack();
            let mut bytes = made.bytes().to_vec();
            let length = bytes.len();
            bytes[place % length] ^= mask;
            let groups = GroupName::new("packers").into_iter().collect();
            assert!(made.verify(&cast.trust, &groups, NOW).is_ok());
            // Some bytes of gzip's header say nothing about the content, so what opens holds the same.
            if let Ok(opened) = Pack::open(&bytes)
                && opened.verify(&cast.trust, &groups, NOW).is_ok()
            {
                assert_eq!((opened.manifest(), opened.contents()), (made.manifest(), made.contents()));
            }
        }
        _ => {
            let bytes = input.rest();
            drop(muster_plugin_pack::fuzzing::archive(bytes));
            assert!(Pack::open(bytes).is_err() || bytes.len() > 100, "a pack has a signature at least");
        }
    }
}

fn signed_pack() -> &'static Pack {
    static PACK: OnceLock<Pack> = OnceLock::new();
    PACK.get_or_init(|| {
        let description = include_str!("../../seeds/pack-description.json");
        let content =
            |path: &str, executable, bytes: &[u8]| Content { path: path.to_owned(), executable, bytes: bytes.to_vec() };
        let files = vec![
            content("disk.json", false, description.as_bytes()),
            content("disk", true, b"#!/bin/sh\necho .message=well\n"),
        ];
        let name = "disk".parse().expect("a plugin's name");
        Pack::make(&name, files, &cast().lea, NOW).expect("a pack can be made")
    })
}
