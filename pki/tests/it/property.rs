//! What is signed verifies; one bit changed anywhere does not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::Signature;
use proptest::prelude::*;
use sha2::Digest;

use crate::{COMMAND, NOW, authority};

#[test]
fn any_single_flipped_bit_is_refused() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        body in proptest::collection::vec(any::<u8>(), 1..200),
        payload_type in "[a-z./+]{1,40}",
        place in 0usize..4,
        bit in any::<prop::sample::Index>(),
    )| {
        let good = lea.sign(&payload_type, &body);
        let signers = trust.verify(&payload_type, &body, std::slice::from_ref(&good), NOW).unwrap();
        prop_assert_eq!(&signers[0].identity, lea.identity());

        let flip = |bytes: &mut [u8]| {
            let at = bit.index(bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
        };
        let (mut body, mut payload_type, mut signature) = (body, payload_type.into_bytes(), good);
        match place {
            0 => flip(&mut body),
            1 => flip(&mut payload_type),
            2 => {
                let mut bytes = BASE64.decode(&signature.sig).unwrap();
                flip(&mut bytes);
                signature.sig = BASE64.encode(bytes);
            }
            _ => {
                let mut der = BASE64.decode(&signature.chain[0]).unwrap();
                flip(&mut der);
                signature = Signature {
                    keyid: sha2::Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect(),
                    sig: signature.sig,
                    chain: vec![BASE64.encode(der)],
                };
            }
        }
        // A flip may leave UTF-8, then the type cannot even arrive.
        if let Ok(payload_type) = String::from_utf8(payload_type) {
            prop_assert!(trust.verify(&payload_type, &body, &[signature], NOW).is_err());
        }
    });
}

#[test]
fn garbage_never_panics() {
    let authority = authority();
    let trust = authority.trust().unwrap();
    let good = authority.credentials("user/lea").unwrap().sign(COMMAND, b"{}");
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in proptest::collection::vec(any::<u8>(), 0..600), text in ".{0,100}")| {
        let chain = vec![BASE64.encode(&bytes)];
        let keyid: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let cases = [
            Signature { keyid, sig: good.sig.clone(), chain },
            Signature { sig: text.clone(), ..good.clone() },
            Signature { keyid: text.clone(), ..good.clone() },
            Signature { chain: vec![text], ..good.clone() },
        ];
        for case in cases {
            let result = trust.verify(COMMAND, b"{}", &[case], NOW);
            prop_assert!(result.is_err());
        }
        prop_assert!(trust.install_crl(&bytes, NOW).is_err());
        prop_assert!(muster_pki::request::Request::read(&bytes, "x").is_err());
        prop_assert!(muster_pki::Certificate::from_der(&bytes, "x").is_err());
    });
}
