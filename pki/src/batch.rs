//! Many Ed25519 signatures checked with one equation.
//!
//! A signature `(R, s)` by the key `A` over a message is right when `s·B = R + h·A` with `h = SHA-512(R ‖ A ‖ message)`.
//! For many of them one checks that the sum of `z·(s·B − R − h·A)` over all is nothing, each with a random `z` of 128 bits
//! of its own that whoever made the signatures cannot know. One product of many points costs about half of as many
//! single ones, and signatures of one key share their term: all certificates of a fleet are signed with the same key.
//!
//! What is proved, and what is not, is in `docs/adr/0033-signatures-in-batches.md`. In short: a batch that is accepted
//! means, but for a chance of 2⁻¹²⁵, that the holder of each key signed each message. It does not mean that each signature
//! alone passes [`PublicKey::verifies`], which is stricter about points that only the key's holder can make. A batch that
//! is not accepted means nothing; then each signature is checked alone.

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};
use rand::Rng;
use sha2::{Digest as _, Sha512};

use crate::key::PublicKey;

/// One signature that is to be checked with others.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Whose it is said to be.
    pub key: &'a PublicKey,
    /// What was signed, in parts that belong one behind the other.
    pub message: [&'a [u8]; 2],
    /// The signature of RFC 8032.
    pub signature: [u8; 64],
}

/// Whether all of them are right. `false` says nothing about any one of them. None at all are right.
///
/// `random` must be one that nobody can foresee.
#[must_use]
pub fn all_verify(claims: &[Claim<'_>], random: &mut impl Rng) -> bool {
    let mut scalars = Vec::with_capacity(2 * claims.len() + 1);
    let mut points = Vec::with_capacity(2 * claims.len() + 1);
    let mut base = Scalar::ZERO;
    // Of the few keys that sign again and again: where their term stands.
    let mut shared: Vec<(&PublicKey, usize)> = Vec::new();
    for Claim { key, message, signature } in claims {
        let (r_bytes, s_bytes) = signature.split_at(32);
        let (Ok(r_bytes), Ok(s_bytes)) = (<[u8; 32]>::try_from(r_bytes), <[u8; 32]>::try_from(s_bytes)) else {
            return false;
        };
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s_bytes)) else { return false };
        let Some(r) = CompressedEdwardsY(r_bytes).decompress() else { return false };
        // As in a single check: one way to write a point, and no point that fits every message.
        if !is_canonical(&r_bytes) || r.is_small_order() {
            return false;
        }
        let hash = Sha512::new().chain_update(r_bytes).chain_update(key.as_bytes());
        let hash = message.iter().fold(hash, |hash, part| hash.chain_update(part));
        let h = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let mut z = [0; 16];
        random.fill_bytes(&mut z);
        let z = Scalar::from(u128::from_le_bytes(z));
        base -= z * s;
        scalars.push(z);
        points.push(r);
        match shared.iter().find(|(known, _)| known == key) {
            Some((_, at)) => scalars[*at] += z * h,
            None => {
                if shared.len() < SHARED_MAX {
                    shared.push((*key, scalars.len()));
                }
                scalars.push(z * h);
                points.push(key.to_point());
            }
        }
    }
    scalars.push(base);
    points.push(ED25519_BASEPOINT_POINT);
    EdwardsPoint::vartime_multiscalar_mul(scalars, points).is_identity()
}

/// How many keys are looked for again: the authorities', of which there are one or, for a while, two. Hosts' keys come once.
const SHARED_MAX: usize = 4;

/// Whether a point's y is below 2²⁵⁵ − 19, as RFC 8032 wants it written. The sign's bit is left out: the two points with
/// x = 0, where it could stand for nothing, are of small order.
fn is_canonical(point: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = point;
    last & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff) || *first < 0xed
}
