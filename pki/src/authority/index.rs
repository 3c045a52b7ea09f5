//! The authority's memory: one JSON line per event, appended and synced before anything else is written.
//!
//! The line holds the certificate itself, so every other file of the CA directory except the key and the
//! authority's own certificate can be written again from the index. A line is in force once its line end
//! is on disk; a torn last line is an event that did not happen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::{GroupName, Identity, Timestamp};
use serde::{Deserialize, Serialize};

use crate::crl::Reason;
use crate::time_text::{days_left, seconds};
use crate::{PkiError, file};

/// One event, as it stands in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A certificate was issued.
    Issued(Issued),
    /// A certificate was revoked.
    Revoked {
        /// Which, in hexadecimal.
        serial: String,
        /// When, in milliseconds since the epoch.
        revoked_at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// A revocation list was signed.
    Crl {
        /// Its number.
        number: u64,
        /// When, in milliseconds since the epoch.
        this_update: Timestamp,
        /// When it wants to be replaced.
        next_update: Timestamp,
    },
}

/// An issued certificate, as it stands in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) serial: String,
    pub(crate) identity: Identity,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) groups: BTreeSet<GroupName>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) issued_at: Timestamp,
    pub(crate) fingerprint: String,
    pub(crate) public_key: String,
    /// The DER in base64.
    pub(crate) certificate: String,
}

/// A certificate and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Whose.
    pub identity: Identity,
    /// Its groups.
    pub groups: BTreeSet<GroupName>,
    /// First second of validity.
    pub not_before: Timestamp,
    /// Last second of validity.
    pub not_after: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of the public key, hexadecimal.
    pub key_fingerprint: String,
    /// When and why it was revoked.
    pub revoked: Option<(Timestamp, Reason)>,
    pub(crate) der: Vec<u8>,
}

/// What a certificate is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// In force.
    Valid,
    /// Its time is over.
    Expired,
    /// The authority took it back.
    Revoked,
}

impl RecordState {
    /// The state in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Record {
    /// What it is worth at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> RecordState {
        if self.revoked.is_some() {
            RecordState::Revoked
        } else if seconds(now) > seconds(self.not_after) {
            RecordState::Expired
        } else {
            RecordState::Valid
        }
    }

    /// Whole days until it ends; negative afterwards.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        days_left(self.not_after, now)
    }

    /// The first digits of the serial, enough for people.
    #[must_use]
    pub fn short_serial(&self) -> &str {
        self.serial.get(..8).unwrap_or(&self.serial)
    }
}

/// The events folded together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// In the order of issue.
    pub(crate) records: Vec<Record>,
    by_serial: BTreeMap<String, usize>,
    /// Number and next update of the last list that was signed.
    pub(crate) crl: Option<(u64, Timestamp)>,
    /// Whether a revocation came after that list.
    pub(crate) crl_is_behind: bool,
    /// Bytes up to and including the last whole line.
    whole: u64,
    /// Whether a torn line follows.
    torn: bool,
}

impl Index {
    pub(crate) fn load(path: &Path) -> Result<Self, PkiError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(PkiError::read(path)(error)),
        };
        let mut index = Self::default();
        let mut start = 0;
        for (number, end) in
            bytes.iter().enumerate().filter_map(|(at, byte)| (*byte == b'\n').then_some(at)).enumerate()
        {
            let damaged = |why: String| PkiError::IndexDamaged { path: path.to_owned(), line: number + 1, why };
            let event: Event =
                serde_json::from_slice(&bytes[start..end]).map_err(|error| damaged(error.to_string()))?;
            index.apply(event).map_err(damaged)?;
            start = end + 1;
        }
        index.whole = u64::try_from(start).unwrap_or(u64::MAX);
        index.torn = start < bytes.len();
        Ok(index)
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Issued(issued) => {
                if self.by_serial.contains_key(&issued.serial) {
                    return Err(format!("serial {} twice", issued.serial));
                }
                let der = BASE64.decode(&issued.certificate).map_err(|error| format!("`certificate`: {error}"))?;
                if crate::key::sha256_hex(&der) != issued.fingerprint {
                    return Err("`certificate` does not have the fingerprint beside it".to_owned());
                }
                self.by_serial.insert(issued.serial.clone(), self.records.len());
                self.records.push(Record {
                    serial: issued.serial,
                    identity: issued.identity,
                    groups: issued.groups,
                    not_before: issued.not_before,
                    not_after: issued.not_after,
                    issued_at: issued.issued_at,
                    fingerprint: issued.fingerprint,
                    key_fingerprint: issued.public_key,
                    revoked: None,
                    der,
                });
            }
            Event::Revoked { serial, revoked_at, reason } => {
                let at = *self.by_serial.get(&serial).ok_or_else(|| format!("serial {serial} was never issued"))?;
                self.records[at].revoked = Some((revoked_at, reason));
                self.crl_is_behind = true;
            }
            Event::Crl { number, next_update, .. } => {
                if self.crl.is_some_and(|(known, _)| number <= known) {
                    return Err(format!("revocation list number {number} does not follow"));
                }
                self.crl = Some((number, next_update));
                self.crl_is_behind = false;
            }
        }
        Ok(())
    }

    /// Writes events behind the last whole line and waits until they are on disk. All or none.
    pub(crate) fn append(&mut self, path: &Path, events: &[Event]) -> Result<(), PkiError> {
        let mut text = String::new();
        for event in events {
            text.push_str(&serde_json::to_string(event).map_err(|error| PkiError::malformed("index entry", error))?);
            text.push('\n');
        }
        let existed = path.exists();
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(file::SECRET).open(path)?;
            if self.torn {
                file.set_len(self.whole)?;
            }
            file.seek(SeekFrom::Start(self.whole))?;
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            if let Err(error) = written {
                // A disk that is full must not leave half an event; if even this fails the line is torn, which is safe too.
                drop(file.set_len(self.whole));
                return Err(error);
            }
            Ok(())
        };
        write().map_err(PkiError::write(path))?;
        if !existed {
            file::sync_directory(path)?;
        }
        self.whole += u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.torn = false;
        for event in events {
            self.apply(event.clone()).map_err(|why| PkiError::malformed("index entry", why))?;
        }
        Ok(())
    }

    /// Certificates of an identity that are in force.
    pub(crate) fn in_force<'a>(&'a self, identity: &'a Identity, now: Timestamp) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |it| it.identity == *identity && it.state(now) == RecordState::Valid)
    }
}
