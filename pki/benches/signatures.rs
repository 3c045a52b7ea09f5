//! What checking a signature costs: one at a time by two libraries, and many at once.
//!
//! `cargo bench -p muster-pki --bench signatures`. Figures are the best of five rounds, in microseconds for one signature.
//! What was measured is in `docs/performance/controller.md`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal, over data that it makes itself"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey, verify_batch};
use muster_pki::batch::{Claim, all_verify};
use muster_pki::{PublicKey, Signed, Trust, testing::TestAuthority};
use muster_protocol::{Identity, Timestamp};

/// Bytes of a report to a ping, about.
const BODY_BYTES: usize = 700;

/// How long one round takes at least.
const ROUND: Duration = Duration::from_millis(60);

/// 2026-11-21T00:47:17Z, when the certificates are valid.
const NOW: Timestamp = Timestamp(1_795_222_037_000);

fn time(name: &str, each: usize, mut work: impl FnMut()) {
    work();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let mut times = 0;
        while began.elapsed() < ROUND {
            work();
            times += 1;
        }
        let done = u32::try_from(times * each).unwrap_or(u32::MAX);
        best = best.min(began.elapsed().as_secs_f64() * 1e6 / f64::from(done));
    }
    println!("{name:<52} {best:>8.2} us");
}

fn main() {
    let body = vec![b'x'; BODY_BYTES];
    let keys: Vec<SigningKey> = (0..1024).map(|_| SigningKey::generate(&mut rand::rng())).collect();
    let public: Vec<VerifyingKey> = keys.iter().map(SigningKey::verifying_key).collect();
    let ours: Vec<PublicKey> = public.iter().map(|key| PublicKey::from_bytes(key.as_bytes()).unwrap()).collect();
    let signatures: Vec<Signature> = keys.iter().map(|key| key.sign(&body)).collect();
    let messages: Vec<&[u8]> = vec![&body; keys.len()];
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % 1024;
        at
    };
    time("one, ed25519-dalek, strict", 1, || {
        let n = next();
        public[n].verify_strict(&body, &signatures[n]).unwrap();
    });
    time("one, aws-lc", 1, || {
        let n = next();
        UnparsedPublicKey::new(&ED25519, public[n].as_bytes()).verify(&body, &signatures[n].to_bytes()).unwrap();
    });
    time("one, as we do it", 1, || {
        let n = next();
        assert!(ours[n].verifies(&body, &signatures[n].to_bytes()));
    });
    time("a key from its bytes", 1, || {
        black_box(PublicKey::from_bytes(public[next()].as_bytes()).unwrap());
    });
    for size in [4, 16, 64, 128, 256, 512, 1024] {
        time(&format!("{size} at once, ed25519-dalek"), size, || {
            verify_batch(&messages[..size], &signatures[..size], &public[..size]).unwrap();
        });
        let claims: Vec<Claim<'_>> = (0..size)
            .map(|n| Claim { key: &ours[n], message: [&body, b""], signature: signatures[n].to_bytes() })
            .collect();
        time(&format!("{size} at once, ours"), size, || assert!(all_verify(&claims, &mut rand::rng())));
        // Every second signature is one and the same key's, as the authority's under certificates is.
        let by_authority = keys[0].sign(&body).to_bytes();
        let shared: Vec<Claim<'_>> = (0..size)
            .map(|n| match n % 2 {
                0 => Claim { key: &ours[0], message: [&body, b""], signature: by_authority },
                _ => claims[n].clone(),
            })
            .collect();
        time(&format!("{size} at once, ours, half by one key"), size, || {
            assert!(all_verify(&shared, &mut rand::rng()));
        });
    }
    replies(&body);
}

/// Whole reports: certificate and signature, from a header's JSON on.
fn replies(body: &[u8]) {
    const REPORT: &str = "application/vnd.muster.report.v1+json";
    let authority = TestAuthority::new(NOW).unwrap();
    let user = authority.credentials("user/lea").unwrap();
    let names: Vec<Identity> = (0..256).map(|n| format!("host/h{n}.example.com").parse().unwrap()).collect();
    let hosts = authority.fleet(&names).unwrap();
    let signatures: Vec<_> = hosts.iter().map(|host| [host.sign(REPORT, body)]).collect();
    let all: Vec<Signed<'_>> =
        signatures.iter().map(|signatures| Signed { payload_type: REPORT, body, signatures }).collect();
    let fresh = || authority.trust().unwrap();
    let known = fresh();
    known.verify_many(&all, NOW, &mut rand::rng()).into_iter().for_each(|one| drop(one.unwrap()));
    let file = known.to_memory(&user, NOW).unwrap();
    let recalled = || {
        let trust = fresh();
        assert_eq!(trust.recall(file.clone(), &user), hosts.len());
        trust
    };
    let one_by_one = |trust: &Trust| {
        all.iter().for_each(|one| drop(trust.verify(one.payload_type, one.body, one.signatures, NOW).unwrap()));
    };
    let at_once = |trust: &Trust, size: usize| {
        for part in all.chunks(size) {
            trust.verify_many(part, NOW, &mut rand::rng()).into_iter().for_each(|one| drop(one.unwrap()));
        }
    };
    time("a reply, unknown host, one by one", hosts.len(), || one_by_one(&fresh()));
    time("a reply, host of an earlier run, one by one", hosts.len(), || one_by_one(&recalled()));
    for size in [16, 64, 256] {
        time(&format!("a reply, unknown host, {size} at once"), hosts.len(), || at_once(&fresh(), size));
        time(&format!("a reply, host of an earlier run, {size} at once"), hosts.len(), || at_once(&recalled(), size));
        time(&format!("a reply, host of this run, {size} at once"), hosts.len(), || at_once(&known, size));
    }
}
