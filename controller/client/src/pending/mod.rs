//! Pending commands: signed by their caller, not sent, waiting for other people's signatures.
//!
//! # The data and how it flows
//!
//! [`Controller::write`](crate::Controller::write) makes a [`Pending`] of a question: the commands that would have
//! been sent, signed, with the caller's reply route in them. At rest it is text, one DSSE envelope a line
//! ([`Pending::to_bytes`]). Whoever reads it ([`Pending::read`]) checks everything a host will check, and believes nothing
//! that is not signed. [`Pending::approve`] makes another person's signatures over the same bytes,
//! [`Pending::add`] puts such signatures beside those that are there, and
//! [`Controller::send`](crate::Controller::send) publishes the commands.
//!
//! # Non-goals
//!
//! Nothing here decides whether the approvals are enough: that is each host's policy. No file is touched here.
//!
//! # Invariants
//!
//! - All commands of a pending one are the same but for their ids, hosts and sealed secrets, and all have the same signers: who
//!   looks at one has seen all of them.
//! - Hosts are named, each once. No expression, and no "all", is waiting here to hit somebody who was not shown.
//! - A field that this program does not know is an error, because nobody could have been shown what it means.

mod approval;
mod error;
mod text;

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_pki::{Credentials, Signer, Trust, VerifyError};
use muster_protocol::limits::{CLOCK_SKEW_MS_DEFAULT, SIGNATURES_BYTES_MAX, SIGNATURES_MAX, TARGET_HOSTS_MAX};
use muster_protocol::{
    Command, Envelope, FEATURES, HostName, Identity, Message as _, PayloadType, RequestId, Signature, Target,
    Timestamp, decode,
};
use sha2::{Digest as _, Sha256};

pub use approval::Approval;
pub use error::PendingError;

use crate::question::{Destinations, HOSTS_PER_COMMAND, Prepared};

/// How long a pending command lives by default, in milliseconds: as long as hosts allow by default.
pub const PENDING_TTL_MS_DEFAULT: i64 = 60 * 60 * 1000;

/// Most commands of a pending one: as many as a target of the most hosts becomes.
pub const COMMANDS_MAX: usize = TARGET_HOSTS_MAX / HOSTS_PER_COMMAND;

/// Largest text of a pending command, in bytes. One with 20,000 hosts and ordinary arguments has 3 MB.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One command, as it was signed.
#[derive(Debug, Clone)]
struct Signed {
    body: Bytes,
    signatures: Vec<Signature>,
    command: Command,
    sha256: String,
}

/// A command that waits for more signatures. Everything in it is signed by its caller.
#[derive(Debug, Clone)]
pub struct Pending {
    /// At least one, in the order of their hosts' names.
    commands: Vec<Signed>,
    /// Who has signed all of them, the caller first.
    signers: Vec<Signer>,
}

impl Pending {
    /// Reads and checks a pending command: form and bounds, signatures and certificates at `now`, and the rules above. Not its
    /// time, see [`Self::check_time`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(bytes: &[u8], trust: &Trust, now: Timestamp) -> Result<Self, PendingError> {
        let commands = text::envelopes(bytes)?;
        Self::of_envelopes(commands, trust, now)
    }

    fn of_envelopes(envelopes: Vec<Envelope>, trust: &Trust, now: Timestamp) -> Result<Self, PendingError> {
        let mut commands = Vec::with_capacity(envelopes.len());
        let mut signers: Option<Vec<Signer>> = None;
        for (index, envelope) in envelopes.into_iter().enumerate() {
            let number = index + 1;
            let bad = |why: String| PendingError::Malformed { number, why };
            if envelope.payload_type != PayloadType::Command.as_str() {
                return Err(bad("it is not a command".to_owned()));
            }
            let body = envelope.body().map_err(|error| bad(error.to_string()))?;
            let made = trust.verify(Command::TYPE.as_str(), &body, &envelope.signatures, now)?;
            let command: Command = decode(&body)?;
            check_signers(&command, &made)?;
            match &signers {
                None => signers = Some(made),
                Some(first) if *first == made => {}
                Some(_) => return Err(bad("it has other signatures than the first one".to_owned())),
            }
            let sha256 = sha256_hex(&body);
            commands.push(Signed { body: body.into(), signatures: envelope.signatures, command, sha256 });
        }
        let pending = Self { commands, signers: signers.unwrap_or_default() };
        pending.check()?;
        Ok(pending)
    }

    /// Makes one of the commands that a question became.
    pub(crate) fn of_prepared(prepared: Vec<Prepared>, trust: &Trust, now: Timestamp) -> Result<Self, PendingError> {
        let envelope = |one: Prepared| {
            let signatures = serde_json::from_slice(&one.signatures).unwrap_or_default();
            Envelope::new(one.content_type, &one.body, signatures)
        };
        Self::of_envelopes(prepared.into_iter().map(envelope).collect(), trust, now)
    }

    /// What holds for the commands together.
    fn check(&self) -> Result<(), PendingError> {
        let Some(first) = self.commands.first() else {
            return Err(PendingError::Empty);
        };
        let mut hosts: BTreeSet<&HostName> = BTreeSet::new();
        let mut ids: BTreeSet<RequestId> = BTreeSet::new();
        for (index, one) in self.commands.iter().enumerate() {
            let bad = |why: String| PendingError::Malformed { number: index + 1, why };
            let target = &one.command.target;
            if target.all || target.filter.is_some() || target.hosts.is_empty() {
                return Err(bad(
                    "its hosts are not named; only named hosts can be shown to whoever approves".to_owned()
                ));
            }
            if let Some(twice) = target.hosts.iter().find(|host| !hosts.insert(host)) {
                return Err(bad(format!("host `{twice}` is named a second time")));
            }
            if !ids.insert(one.command.id) {
                return Err(bad("it has the id of an earlier one".to_owned()));
            }
            if !alike(&first.command, &one.command) {
                return Err(bad("it is another command than the first one".to_owned()));
            }
            if let Some(field) = text::unknown_field(&one.body) {
                return Err(PendingError::UnknownField { field });
            }
            if let Some(feature) = one.command.requires.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
                return Err(PendingError::UnknownField { field: format!("requires: {feature}") });
            }
        }
        Ok(())
    }

    /// Checks that it can still be approved and sent at `now`.
    ///
    /// # Errors
    /// It has expired, or is made in the future by more than hosts tolerate.
    pub fn check_time(&self, now: Timestamp) -> Result<(), PendingError> {
        let (created_at, expires_at) = (self.command().created_at_ms, self.expires_at());
        if now.since_ms(expires_at) >= 0 {
            return Err(PendingError::Expired { expires_at });
        }
        let ahead_ms = created_at.since_ms(now);
        if ahead_ms > CLOCK_SKEW_MS_DEFAULT {
            return Err(PendingError::FromTheFuture { ahead_ms });
        }
        Ok(())
    }

    /// The text of a file with it: one DSSE envelope a line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for one in &self.commands {
            let envelope = Envelope::new(Command::TYPE.as_str(), &one.body, one.signatures.clone());
            serde_json::to_writer(&mut bytes, &envelope).expect("an envelope is plain strings, and memory takes them");
            bytes.push(b'\n');
        }
        bytes
    }

    /// Checks that these credentials can approve it at `now`, before anybody is asked whether they shall.
    ///
    /// # Errors
    /// They are its caller's or no user's, or have signed it already; its time is over; a message has no room for one more.
    pub fn check_approver(&self, credentials: &Credentials, now: Timestamp) -> Result<(), PendingError> {
        self.check_time(now)?;
        let identity = credentials.identity();
        if identity == self.caller() {
            return Err(PendingError::OwnCommand { caller: Box::new(identity.clone()) });
        }
        if !matches!(identity, Identity::User(_)) {
            return Err(PendingError::NotAnApprover { identity: Box::new(identity.clone()) });
        }
        if self.signers.iter().any(|signer| signer.identity == *identity) {
            return Err(PendingError::AlreadyApproved { identity: Box::new(identity.clone()) });
        }
        let one_more = credentials.sign(Command::TYPE.as_str(), b"");
        self.commands
            .iter()
            .try_for_each(|one| check_room(&[&one.signatures[..], std::slice::from_ref(&one_more)].concat()))
    }

    /// Signs it as somebody who approves of it, at `now`.
    ///
    /// # Errors
    /// As [`Self::check_approver`].
    pub fn approve(&self, credentials: &Credentials, now: Timestamp) -> Result<Vec<Approval>, PendingError> {
        self.check_approver(credentials, now)?;
        let sign = |one: &Signed| Approval {
            payload_sha256: one.sha256.clone(),
            signature: credentials.sign(Command::TYPE.as_str(), &one.body),
        };
        Ok(self.commands.iter().map(sign).collect())
    }

    /// Puts signatures beside those that are there, and says whose are new. Signatures of somebody who has signed already change nothing.
    ///
    /// # Errors
    /// One is missing for a command, is for another one, is wrong, or there is no room. Then nothing is changed.
    pub fn add(
        &mut self,
        approvals: &[Approval],
        trust: &Trust,
        now: Timestamp,
    ) -> Result<BTreeSet<Identity>, PendingError> {
        let strange = |approval: &Approval| !self.commands.iter().any(|one| one.sha256 == approval.payload_sha256);
        if approvals.iter().any(strange) {
            return Err(PendingError::Differs);
        }
        let mut envelopes = Vec::with_capacity(self.commands.len());
        for one in &self.commands {
            let mut signatures = one.signatures.clone();
            let body = &one.body;
            let mut signed: BTreeSet<Identity> = self.signers.iter().map(|signer| signer.identity.clone()).collect();
            for approval in approvals.iter().filter(|approval| approval.payload_sha256 == one.sha256) {
                // On its own first: the identity is what the certificate says, not what anybody claims.
                let alone = std::slice::from_ref(&approval.signature);
                for signer in trust.verify(Command::TYPE.as_str(), body, alone, now)? {
                    if signed.insert(signer.identity) {
                        signatures.push(approval.signature.clone());
                    }
                }
            }
            check_room(&signatures)?;
            envelopes.push(Envelope::new(Command::TYPE.as_str(), body, signatures));
        }
        let merged = Self::of_envelopes(envelopes, trust, now)?;
        let before: BTreeSet<Identity> = self.signers.iter().map(|signer| signer.identity.clone()).collect();
        let after = merged.signers.iter().map(|signer| signer.identity.clone());
        let new = after.filter(|identity| !before.contains(identity)).collect();
        *self = merged;
        Ok(new)
    }

    /// The signatures of everybody but the caller, to be added to another copy.
    #[must_use]
    pub fn approvals(&self) -> Vec<Approval> {
        let of = |one: &Signed| -> Vec<Approval> {
            let others = one.signatures.iter().skip(1);
            let approval =
                |signature: &Signature| Approval { payload_sha256: one.sha256.clone(), signature: signature.clone() };
            others.map(approval).collect()
        };
        self.commands.iter().flat_map(of).collect()
    }

    /// The first of the commands. The others differ in ids, hosts and sealed bytes only.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.commands[0].command
    }

    /// The id of the request that it becomes: that of its first command.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.command().id
    }

    /// Who has signed first.
    #[must_use]
    pub fn caller(&self) -> &Identity {
        &self.command().caller
    }

    /// Who has signed, the caller first. Checked, not claimed.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// From when on no host starts it.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.command().expires_at_ms
    }

    /// All hosts that are meant.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<HostName> {
        self.commands.iter().flat_map(|one| one.command.target.hosts.iter().cloned()).collect()
    }

    /// How many commands it is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// What two people compare by telephone: SHA-256 over the SHA-256 of each command's bytes, in hexadecimal; of a single command,
    /// that of its bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        match self.commands.as_slice() {
            [one] => one.sha256.clone(),
            several => {
                let all: String = several.iter().map(|one| one.sha256.as_str()).collect();
                sha256_hex(all.as_bytes())
            }
        }
    }

    /// Its commands for those of its hosts that are in `hosts`.
    pub(crate) fn prepared(&self, hosts: &BTreeSet<HostName>) -> Vec<Prepared> {
        let prepare = |one: &Signed| {
            let meant: Vec<HostName> = one.command.target.hosts.intersection(hosts).cloned().collect();
            (!meant.is_empty()).then(|| Prepared {
                id: one.command.id,
                about: one.command.id,
                content_type: Command::TYPE.as_str(),
                body: one.body.clone(),
                signatures: serde_json::to_vec(&one.signatures).expect("a signature is plain strings").into(),
                destinations: Destinations::Hosts(meant),
            })
        };
        self.commands.iter().filter_map(prepare).collect()
    }
}

/// Whether two commands differ in ids, hosts and sealed bytes only.
fn alike(one: &Command, other: &Command) -> bool {
    let bare = |command: &Command| Command { id: one.id, target: Target::default(), sealed: None, ..command.clone() };
    let names = |command: &Command| command.sealed.as_ref().map(|sealed| sealed.names.clone());
    bare(one) == bare(other) && names(one) == names(other)
}

/// The caller is the first signer, and only people and services have signed.
fn check_signers(command: &Command, signers: &[Signer]) -> Result<(), PendingError> {
    match signers.first() {
        Some(first) if first.identity == command.caller => {}
        Some(first) => {
            let (caller, signer) = (Box::new(command.caller.clone()), Box::new(first.identity.clone()));
            return Err(PendingError::WrongCaller { caller, signer });
        }
        None => return Err(VerifyError::Unsigned.into()),
    }
    match signers.iter().find(|signer| !signer.identity.is_controller()) {
        Some(other) => Err(PendingError::NotAnApprover { identity: Box::new(other.identity.clone()) }),
        None => Ok(()),
    }
}

/// Whether a message has room for these.
fn check_room(signatures: &[Signature]) -> Result<(), PendingError> {
    let bytes = serde_json::to_vec(signatures).expect("a signature is plain strings").len();
    if signatures.len() > SIGNATURES_MAX || bytes > SIGNATURES_BYTES_MAX {
        return Err(PendingError::NoRoom { signatures: signatures.len(), bytes });
    }
    Ok(())
}

fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
