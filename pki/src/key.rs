//! Ed25519 keys (RFC 8032), stored as PKCS#8 (RFC 8410).

use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::EdwardsPoint;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{PkiError, file};

/// SHA-256 as lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The public half of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads the 32 bytes of RFC 8032. Points of small order are refused: a signature under such a
    /// key says nothing about the message.
    ///
    /// # Errors
    /// When the bytes are no point of the curve or one of small order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PkiError> {
        let refuse = |why: &str| PkiError::malformed("public key", why);
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| refuse("an Ed25519 key has 32 bytes"))?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| refuse("not a point of the curve"))?;
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(refuse("a point in another form than RFC 8032 gives it"));
        }
        if key.is_weak() {
            return Err(refuse("a point of small order"));
        }
        Ok(Self(key))
    }

    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The point of the curve that it is.
    pub(crate) fn to_point(&self) -> EdwardsPoint {
        self.0.to_edwards()
    }

    /// SHA-256 of the 32 key bytes, lower-case hexadecimal: what two people compare by telephone.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        sha256_hex(self.as_bytes())
    }

    /// Checks a signature strictly (RFC 8032 with canonical values and no small-order points), so that one
    /// message and key have one signature.
    ///
    /// The arithmetic is aws-lc's, which does it in four fifths of the time. It compares the bytes of `R`, so a point in
    /// another form does not pass, and refuses an `s` that is too large; a point of small order is refused here.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let is_small = signature.get(..32).is_none_or(|r| SMALL_ORDER.iter().any(|point| point == r));
        !is_small && UnparsedPublicKey::new(&ED25519, self.as_bytes()).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex(self.as_bytes()))
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// The eight points of small order, as RFC 8032 writes them.
static SMALL_ORDER: LazyLock<[[u8; 32]; 8]> = LazyLock::new(|| EIGHT_TORSION.map(|point| point.compress().to_bytes()));

/// A private key. Wiped from memory when dropped; `Debug` shows the public half only.
pub struct PrivateKey {
    key: SigningKey,
    /// The same key where it signs: aws-lc takes three fifths of the time for it.
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    fn new(key: SigningKey) -> Self {
        let pair = Ed25519KeyPair::from_seed_and_public_key(key.as_bytes(), key.verifying_key().as_bytes());
        Self { pair: pair.expect("the public half belongs to the private one"), key }
    }

    /// Makes a key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self::new(SigningKey::generate(&mut rand::rng()))
    }

    /// Reads a PKCS#8 PEM text, version 1 or 2.
    ///
    /// # Errors
    /// When it is not an unencrypted Ed25519 key.
    pub fn from_pem(text: &str, object: &str) -> Result<Self, PkiError> {
        SigningKey::from_pkcs8_pem(text)
            .map(Self::new)
            .map_err(|error| PkiError::malformed(object, format!("not an unencrypted Ed25519 key in PKCS#8: {error}")))
    }

    /// Reads a key file that only its owner may read.
    ///
    /// # Errors
    /// When it is missing, open to others, or not an Ed25519 key.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        Self::from_pem(&file::read_secret(path)?, &format!("key `{}`", path.display()))
    }

    /// The key in PKCS#8 PEM. Version 1, without the public half: OpenSSL 3 and Erlang read only that.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let bytes = KeypairBytes { secret_key: self.key.to_bytes(), public_key: None };
        bytes.to_pkcs8_pem(LineEnding::LF).expect("32 key bytes always encode")
    }

    /// A secret of 32 bytes that only who has this key can know, another one for each `label` (HMAC-SHA-256).
    pub(crate) fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*Zeroizing::new(self.key.to_bytes()));
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(hmac::sign(&key, label).as_ref());
        secret
    }

    /// The key in PKCS#8 DER.
    pub(crate) fn to_der(&self) -> Zeroizing<Vec<u8>> {
        let bytes = KeypairBytes { secret_key: self.key.to_bytes(), public_key: None };
        Zeroizing::new(bytes.to_pkcs8_der().expect("32 key bytes always encode").as_bytes().to_vec())
    }

    /// Writes the key into a new file with mode 0600.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PkiError> {
        file::create(path, file::SECRET, self.to_pem().as_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// Signs exactly these bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.key.as_ref().as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Self::sign(self, message).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let key = PrivateKey::generate();
        let secret = hex(&key.key.to_bytes());
        assert!(!format!("{key:?}").contains(&secret));
    }

    #[test]
    fn a_key_reads_what_it_wrote() {
        let key = PrivateKey::generate();
        let read = PrivateKey::from_pem(&key.to_pem(), "key").unwrap();
        assert_eq!(read.public(), key.public());
    }

    /// What aws-lc signs and believes is what ed25519-dalek signs and strictly believes, also where a bit is another one.
    #[test]
    fn two_libraries_agree() {
        use ed25519_dalek::Signer as _;
        for round in 0..32_u8 {
            let key = PrivateKey::generate();
            let message = vec![round; usize::from(round) * 40];
            let signature = key.sign(&message);
            assert_eq!(signature, key.key.sign(&message).to_bytes());
            let public = key.public();
            assert!(public.verifies(&message, &signature));
            assert!(!public.verifies(&message, &signature[..63]));
            assert!(!PrivateKey::generate().public().verifies(&message, &signature));
            for bit in (0..512).step_by(7) {
                let mut other = signature;
                other[bit / 8] ^= 1 << (bit % 8);
                let strict = public.0.verify_strict(&message, &ed25519_dalek::Signature::from_bytes(&other)).is_ok();
                assert_eq!(public.verifies(&message, &other), strict, "bit {bit}");
            }
        }
    }

    /// With `R` and `s` that anybody can choose: under a key of small order they would fit any message, and a key that is
    /// the sum of a good one and a small point has a second signature for each message.
    #[test]
    fn signatures_that_only_a_lax_check_believes_are_refused() {
        use curve25519_dalek::scalar::Scalar;
        use sha2::Sha512;
        let secret = Scalar::from_bytes_mod_order_wide(&Sha512::digest(b"secret").into());
        let message = b"message";
        for (number, small) in EIGHT_TORSION.iter().enumerate() {
            // A key with a part of small order, and R of small order with s = h * secret.
            let public =
                PublicKey::from_bytes((EdwardsPoint::mul_base(&secret) + small).compress().as_bytes()).unwrap();
            for (other, r) in EIGHT_TORSION.iter().enumerate() {
                let r = r.compress().to_bytes();
                let hash = Sha512::new().chain_update(r).chain_update(public.as_bytes()).chain_update(message);
                let s = Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * secret;
                let signature = [r, s.to_bytes()].concat();
                assert!(!public.verifies(message, &signature), "{number} {other}");
                let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
                assert!(public.0.verify_strict(message, &signature).is_err());
            }
        }
        // s + L is the same number as s.
        let key = PrivateKey::generate();
        let mut signature = key.sign(message);
        let order = (-Scalar::ONE).to_bytes();
        let mut carry = 1_u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!key.public().verifies(message, &signature));
    }

    #[test]
    fn a_key_has_one_form() {
        // 1 + p, which stands for the neutral element, and 3 + p, a point like any other.
        for y in [1_u8, 3, 18] {
            let mut bytes = [0xff; 32];
            bytes[0] = 0xed + y;
            bytes[31] = 0x7f;
            assert!(PublicKey::from_bytes(&bytes).is_err(), "{y}");
        }
    }

    #[test]
    fn points_of_small_order_are_no_keys() {
        let mut identity = [0u8; 32];
        identity[0] = 1;
        for bytes in [[0u8; 32], identity] {
            assert!(PublicKey::from_bytes(&bytes).is_err());
        }
    }
}
