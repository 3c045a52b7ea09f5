//! Certificates that were checked in an earlier run of the same user's program, kept in a file.
//!
//! A command line lives for a moment, and every host's certificate comes back with every report. What was found out about
//! one is kept: the fingerprint of the exact bytes, the key, whose it is and how long it is valid. With it the next run
//! saves an authority's signature and the reading of a certificate for each host.
//!
//! # Invariants
//!
//! - Nobody who lacks the user's private key can make a file that is believed: it ends with an HMAC-SHA-256 under a key that is
//!   derived from it.
//! - The file is bound to the exact authorities and revocation lists it was made under. Where one of them has changed, whole
//!   file counts as empty. So neither an authority that was taken away nor a list that came later is ever overruled by it.
//! - It says nothing about the time: that a certificate is valid now is checked at every use, as for one that was just read.
//! - An entry is for the exact bytes of a certificate, by SHA-256. It never speaks for another one with the same name.
//!
//! Why, and what it saves, is in `docs/adr/0033-signatures-in-batches.md`.

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::hmac;
use muster_protocol::{GroupName, Identity, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::Credentials;
use crate::cache::Checked;
use crate::certificate::GROUPS_MAX;
use crate::key::{PublicKey, hex};
use crate::time_text::seconds;
use crate::trust::{State, Trust};
use crate::verify::Signer;

/// What a file begins with. Another beginning counts as empty.
const MAGIC: &[u8] = b"muster certificates 1\n";

/// What the key is derived for.
const LABEL: &[u8] = b"muster certificates 1: key of the file of checked certificates";

/// Bytes of a digest, and of a key.
const DIGEST_BYTES: usize = 32;

/// Most certificates in a file: about 12 MB.
pub const CERTIFICATES_MAX: usize = 65_536;

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Entries of a file that was found to be ours, each read when it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    bytes: Vec<u8>,
    /// Fingerprint to where the entry begins.
    places: HashMap<[u8; DIGEST_BYTES], usize>,
}

impl Memory {
    /// What is remembered of the certificate with this fingerprint.
    pub(crate) fn get(&self, fingerprint: &str) -> Option<Checked> {
        if self.places.is_empty() {
            return None;
        }
        let at = *self.places.get(&unhex(fingerprint)?)?;
        let (entry, _) = Entry::read(self.bytes.get(at..)?)?;
        entry.checked()
    }
}

/// One certificate, as it stands in the file.
struct Entry<'a> {
    fingerprint: [u8; DIGEST_BYTES],
    key: [u8; DIGEST_BYTES],
    /// From when and until when it and its authority are valid, and it alone.
    times: [i64; 3],
    identity: &'a str,
    groups: Vec<&'a str>,
}

impl<'a> Entry<'a> {
    /// Reads one entry; also gives how many bytes it takes.
    fn read(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let fingerprint = take(DIGEST_BYTES)?.try_into().ok()?;
        let key = take(DIGEST_BYTES)?.try_into().ok()?;
        let mut times = [0; 3];
        for time in &mut times {
            *time = i64::from_le_bytes(take(8)?.try_into().ok()?);
        }
        let mut text = || {
            let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
            std::str::from_utf8(take(usize::from(length))?).ok()
        };
        let identity = text()?;
        let count = text()?.parse::<usize>().ok().filter(|count| *count <= GROUPS_MAX)?;
        let groups = (0..count).map(|_| text()).collect::<Option<_>>()?;
        let length = bytes.len() - rest.len();
        Some((Self { fingerprint, key, times, identity, groups }, length))
    }

    fn write(checked: &Checked, bytes: &mut Vec<u8>) -> Option<()> {
        let signer = &checked.signer;
        bytes.extend(unhex(&signer.fingerprint)?);
        bytes.extend(checked.key.as_bytes());
        for time in [checked.valid_from, checked.valid_until, signer.not_after] {
            bytes.extend(time.0.to_le_bytes());
        }
        let mut text = |text: &str| {
            let length = u16::try_from(text.len()).ok()?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(text.as_bytes());
            Some(())
        };
        text(&signer.identity.to_string())?;
        text(&signer.groups.len().to_string())?;
        signer.groups.iter().try_for_each(|group| text(group.as_str()))
    }

    fn checked(&self) -> Option<Checked> {
        let [valid_from, valid_until, not_after] = self.times.map(Timestamp);
        let groups = self.groups.iter().map(|name| GroupName::new(*name)).collect::<Result<BTreeSet<_>, _>>().ok()?;
        let identity: Identity = self.identity.parse().ok()?;
        let signer = Signer { identity, groups, fingerprint: hex(&self.fingerprint), not_after };
        // A key of small order is refused here as it was when the certificate was read.
        Some(Checked { signer, key: PublicKey::from_bytes(&self.key).ok()?, valid_from, valid_until })
    }
}

impl Trust {
    /// Takes over what [`Self::to_memory`] gave in an earlier run, for the same user and the same authorities and
    /// revocation lists. Gives the number of certificates; none where the file is another's, of other times, or damaged.
    ///
    /// Certificates that were checked since are not forgotten by it. A revocation list that is installed later ends it.
    pub fn recall(&self, file: Vec<u8>, user: &Credentials) -> usize {
        let state = self.state();
        let memory = read(file, &state, user).unwrap_or_default();
        let count = memory.places.len();
        if count > 0 {
            state.cache.remember(memory);
        }
        count
    }

    /// Everything that was checked or recalled and has not expired, as a file for the next run. None where nothing is new
    /// since [`Self::recall`].
    #[must_use]
    pub fn to_memory(&self, user: &Credentials, now: Timestamp) -> Option<Vec<u8>> {
        let state = self.state();
        if !state.cache.has_news() {
            return None;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(state.digest());
        let mut written = BTreeSet::new();
        let used = state.cache.all();
        let valid = |valid_until: Timestamp| seconds(now) <= seconds(valid_until);
        for checked in used.iter().filter(|checked| valid(checked.valid_until)).take(CERTIFICATES_MAX) {
            let begin = bytes.len();
            match (Entry::write(checked, &mut bytes), unhex(&checked.signer.fingerprint)) {
                (Some(()), Some(fingerprint)) => drop(written.insert(fingerprint)),
                _ => bytes.truncate(begin),
            }
        }
        if let Some(memory) = state.cache.remembered() {
            for (fingerprint, at) in &memory.places {
                let Some((entry, length)) = memory.bytes.get(*at..).and_then(Entry::read) else { continue };
                if written.len() < CERTIFICATES_MAX && valid(Timestamp(entry.times[1])) && written.insert(*fingerprint)
                {
                    bytes.extend_from_slice(&memory.bytes[*at..*at + length]);
                }
            }
        }
        let tag = hmac::sign(&key(user), &bytes);
        bytes.extend_from_slice(tag.as_ref());
        Some(bytes)
    }
}

/// The entries of a file that is ours.
fn read(file: Vec<u8>, state: &State, user: &Credentials) -> Option<Memory> {
    let length = file.len().checked_sub(DIGEST_BYTES)?;
    let (body, tag) = file.split_at(length);
    hmac::verify(&key(user), body, tag).ok()?;
    let entries = body.strip_prefix(MAGIC)?.strip_prefix(&state.digest())?;
    let mut at = body.len() - entries.len();
    let mut places = HashMap::with_capacity(entries.len() / 180);
    while at < body.len() {
        let (entry, length) = Entry::read(&body[at..])?;
        places.insert(entry.fingerprint, at);
        at += length;
    }
    Some(Memory { bytes: file, places })
}

fn key(user: &Credentials) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*user.key().derive(LABEL))
}

impl State {
    /// Which authorities and lists these are.
    fn digest(&self) -> [u8; DIGEST_BYTES] {
        let mut digest = Sha256::new();
        for part in self.roots().map(|der| der.as_ref()).chain(self.crl_ders()) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn unhex(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = [0; DIGEST_BYTES];
    if bytes.len() != 2 * DIGEST_BYTES {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}
