//! Many messages checked at once, as a controller has them when a fleet answers.
//!
//! All that can be said of a message without arithmetic is found out first, certificate included. What is left are
//! claims, two for a host that is seen for the first time: the authority signed its certificate, and it signed the message.
//! They are checked in one go (see [`crate::batch`]). Whatever is not plainly right is checked alone and decided by
//! [`Trust::verify`], so there is one place that refuses, and one set of reasons.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::envelope::pre_authentication_head;
use muster_protocol::{Signature, Timestamp};
use rand::Rng;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use crate::batch::{Claim, all_verify};
use crate::cache::Checked;
use crate::key::PublicKey;
use crate::trust::{State, Trust, decode_leaf};
use crate::verify::{Signer, VerifyError};

/// Fewest messages that are worth one equation. One alone is as cheap without.
const MESSAGES_MIN: usize = 2;

/// A message with its signatures.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The AMQP content type.
    pub payload_type: &'a str,
    /// The exact bytes that were signed.
    pub body: &'a [u8],
    /// Who signed them.
    pub signatures: &'a [Signature],
}

/// A message of which everything is right but the signatures, which were not looked at.
struct Likely<'a> {
    number: usize,
    head: Vec<u8>,
    body: &'a [u8],
    signature: [u8; 64],
    checked: Arc<Checked>,
    /// The certificate is not known yet.
    vouched: Option<Vouching>,
}

/// An authority's signature under a certificate.
struct Vouching {
    authority: PublicKey,
    certificate: Vec<u8>,
    signature: [u8; 64],
}

impl Trust {
    /// Does what [`Self::verify`] does with many messages, in their order, at about half the cost for those that are
    /// believed.
    ///
    /// `random` must be one that nobody can foresee.
    #[must_use]
    pub fn verify_many(
        &self,
        messages: &[Signed<'_>],
        now: Timestamp,
        random: &mut impl Rng,
    ) -> Vec<Result<Vec<Signer>, VerifyError>> {
        let state = self.state();
        let mut likely: Vec<Likely<'_>> = Vec::new();
        if messages.len() >= MESSAGES_MIN {
            likely
                .extend(messages.iter().enumerate().filter_map(|(number, message)| state.likely(number, message, now)));
        }
        if !all_verify(&claims(&likely), random) {
            likely.clear();
        }
        let mut believed = likely.into_iter().peekable();
        let decide = |(number, message): (usize, &Signed<'_>)| match believed.next_if(|one| one.number == number) {
            Some(one) => {
                if one.vouched.is_some() {
                    state.cache.insert(&one.checked);
                }
                Ok(vec![one.checked.signer.clone()])
            }
            None => self.verify(message.payload_type, message.body, message.signatures, now),
        };
        messages.iter().enumerate().map(decide).collect()
    }
}

impl State {
    /// Finds out whether nothing but the signatures is left to be checked. Messages with several signatures are rare, and
    /// checked alone.
    fn likely<'a>(&self, number: usize, message: &Signed<'a>, now: Timestamp) -> Option<Likely<'a>> {
        let [signature] = message.signatures else { return None };
        let malformed = |why: String| VerifyError::Malformed { number: 1, why };
        let (der, fingerprint) = decode_leaf(signature, &malformed).ok()?;
        let bytes = decode_signature(&signature.sig)?;
        let (checked, vouched) = match self.cache.get(&fingerprint) {
            Some(checked) => (checked, None),
            None => {
                let later = Later::default();
                let vouched = self.vouch(der, &fingerprint, now, &later, &malformed).ok()?;
                let (certificate, signature) = later.seen()?;
                let authority = vouched.authority.clone();
                (Arc::new(vouched.standing().ok()?), Some(Vouching { authority, certificate, signature }))
            }
        };
        checked.in_time(now).ok()?;
        let head = pre_authentication_head(message.payload_type, message.body.len()).into_bytes();
        Some(Likely { number, head, body: message.body, signature: bytes, checked, vouched })
    }
}

fn decode_signature(text: &str) -> Option<[u8; 64]> {
    let mut bytes = [0; 66];
    let length = BASE64.decode_slice(text, &mut bytes).ok()?;
    bytes.get(..length)?.try_into().ok()
}

/// What the signatures claim.
fn claims<'a>(likely: &'a [Likely<'_>]) -> Vec<Claim<'a>> {
    let mut claims = Vec::with_capacity(2 * likely.len());
    for one in likely {
        if let Some(Vouching { authority, certificate, signature }) = &one.vouched {
            claims.push(Claim { key: authority, message: [certificate, b""], signature: *signature });
        }
        let message = [one.head.as_slice(), one.body];
        claims.push(Claim { key: &one.checked.key, message, signature: one.signature });
    }
    claims
}

/// What was signed, and the signature if it is one of Ed25519.
type Seen = (Vec<u8>, Option<[u8; 64]>);

/// Takes note of the one signature that is looked at on the way to a certificate's authority, and lets it pass for now.
#[derive(Debug, Default)]
struct Later {
    seen: Mutex<Vec<Seen>>,
}

impl Later {
    /// What was signed, and the signature. None if there was not exactly one.
    fn seen(self) -> Option<(Vec<u8>, [u8; 64])> {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        match <[_; 1]>::try_from(seen) {
            Ok([(message, Some(signature))]) => Some((message, signature)),
            _ => None,
        }
    }
}

impl SignatureVerificationAlgorithm for Later {
    fn verify_signature(&self, _key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((message.to_vec(), signature.try_into().ok()));
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        webpki::aws_lc_rs::ED25519.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        webpki::aws_lc_rs::ED25519.signature_alg_id()
    }
}
