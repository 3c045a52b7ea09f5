//! Ed25519 keys (RFC 8032), stored as PKCS#8 (RFC 8410).

use std::fmt;
use std::path::Path;

use curve25519_dalek::edwards::EdwardsPoint;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{PkiError, file};

/// SHA-256 as lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
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
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
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

/// A private key. Wiped from memory when dropped; `Debug` shows the public half only.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Makes a key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::generate(&mut rand::rng()))
    }

    /// Reads a PKCS#8 PEM text, version 1 or 2.
    ///
    /// # Errors
    /// When it is not an unencrypted Ed25519 key.
    pub fn from_pem(text: &str, object: &str) -> Result<Self, PkiError> {
        SigningKey::from_pkcs8_pem(text)
            .map(Self)
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
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        bytes.to_pkcs8_pem(LineEnding::LF).expect("32 key bytes always encode")
    }

    /// The key in PKCS#8 DER.
    pub(crate) fn to_der(&self) -> Zeroizing<Vec<u8>> {
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
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
        PublicKey(self.0.verifying_key())
    }

    /// Signs exactly these bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_ref().as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let key = PrivateKey::generate();
        let secret = hex(&key.0.to_bytes());
        assert!(!format!("{key:?}").contains(&secret));
    }

    #[test]
    fn a_key_reads_what_it_wrote() {
        let key = PrivateKey::generate();
        let read = PrivateKey::from_pem(&key.to_pem(), "key").unwrap();
        assert_eq!(read.public(), key.public());
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
