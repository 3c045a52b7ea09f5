//! The audit log: one JSON object a line, each with the hash of the line before.
//!
//! Every decision about a message is in it, allowed or not, and every end of an action. A line that
//! was changed, removed or put in between breaks the chain and [`verify`] says where. What a chain
//! alone cannot show is that its *last* lines were cut off: compare `lines` and `last_hash` with what
//! was noted elsewhere, as [`Verified`] reports them.
//!
//! # Durability
//!
//! The line that allows an action which changes something is on the disk before the action starts.
//! All other lines are written without waiting for the disk: whoever floods a host with messages it
//! refuses would otherwise make it sync for each of them.
//!
//! # Injection
//!
//! Everything that came from outside is a JSON string, in which line ends and control characters are
//! escaped. Nothing a caller sends can begin a line of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use muster_protocol::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::sha256_hex;

/// What the first line names as the hash of the line before it.
pub const FIRST_PREVIOUS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Longest line that is written or read, in bytes. Arguments of a command may have a megabyte, and
/// escaping can lengthen them.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most lines a minute about messages whose sender could not be verified. Beyond it they are counted
/// and one line tells how many, so that a stranger cannot fill the disk.
pub const UNVERIFIED_LINES_PER_MINUTE: u32 = 60;

/// Longest arguments of a refused command, in bytes of JSON. Whoever may do nothing must not fill the disk
/// with what they ask for; `body_sha256` still says which message it was.
pub const REFUSED_ARGUMENTS_BYTES_MAX: usize = 1024;

/// Why the audit log could not be opened, written or verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file operation failed.
    #[error("{action} audit log `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A line does not fit the one before, or is not an audit line at all.
    #[error("audit log `{path}` line {line}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `command`, `cancel`, `finished`, `report`, `agent`, `revocation_list`.
    pub event: String,
    /// `allowed`, `refused`, `ignored`, or the outcome where something ended.
    pub decision: String,
    /// The protocol's code, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who asked, if the signature was right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The caller's groups, from its certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// All signers, the caller first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// SHA-256 of the caller's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// `plugin.action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The arguments, as the action gets or would have got them. Of a refused command at most
    /// [`REFUSED_ARGUMENTS_BYTES_MAX`]; longer ones become `cut` (their beginning) and `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Map<String, Value>>,
    /// Whether it was to be tried without effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noop: bool,
    /// The user it was to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_user: Option<String>,
    /// The policy rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// More in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// SHA-256 of the body, so that the line can be matched with a captured message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
}

impl Event {
    /// An event with nothing but its kind and decision.
    #[must_use]
    pub fn new(event: &str, decision: &str) -> Self {
        Self {
            event: event.to_owned(),
            decision: decision.to_owned(),
            code: None,
            request_id: None,
            caller: None,
            groups: Vec::new(),
            signers: Vec::new(),
            certificate: None,
            action: None,
            arguments: None,
            noop: false,
            effective_user: None,
            rule: None,
            message: String::new(),
            body_sha256: None,
        }
    }

    /// The same event with `message`.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Cuts the arguments of a refused command.
    fn cut_refused_arguments(&mut self) -> Result<(), serde_json::Error> {
        let Some(arguments) = self.arguments.as_ref().filter(|_| self.decision == "refused") else { return Ok(()) };
        let text = serde_json::to_string(arguments)?;
        if text.len() > REFUSED_ARGUMENTS_BYTES_MAX {
            let beginning = &text[..text.floor_char_boundary(REFUSED_ARGUMENTS_BYTES_MAX)];
            self.arguments = Some(Map::from_iter([
                ("cut".to_owned(), Value::from(beginning)),
                ("bytes".to_owned(), Value::from(text.len())),
            ]));
        }
        Ok(())
    }
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// SHA-256 of the line before, without its line end.
    previous: String,
    /// Number of the line, from 1.
    sequence: u64,
    /// When, by the host's clock.
    at_ms: Timestamp,
    /// The host.
    host: String,
    /// What happened.
    details: Event,
}

/// How durable a line must be before the caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk.
    Synced,
    /// With the kernel.
    Written,
}

/// The open audit log of one host.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    host: String,
    previous: String,
    sequence: u64,
    length: u64,
    unverified: Unverified,
}

/// Counts lines about unverified senders within the current minute.
#[derive(Debug, Default)]
struct Unverified {
    minute: i64,
    written: u32,
    left_out: u64,
}

impl Audit {
    /// Opens the log in `path`, or begins one. A half-written last line is cut off and that fact
    /// becomes the next line.
    ///
    /// # Errors
    /// When the file cannot be read or written, or its last line is not an audit line: appending to
    /// it would hide that.
    pub fn open(path: &Path, host: &str, now: Timestamp) -> Result<Self, AuditError> {
        let failed = |action| {
            let path = path.to_owned();
            move |source| AuditError::Io { action, path, source }
        };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed("open"))?;
        let tail = read_tail(&mut file).map_err(failed("read"))?;
        let (previous, sequence) = match &tail.last_line {
            None => (FIRST_PREVIOUS.to_owned(), 0),
            Some(bytes) => {
                let line: Line = serde_json::from_slice(bytes).map_err(|error| AuditError::Broken {
                    path: path.to_owned(),
                    line: 0,
                    why: format!("the last line is not an audit line: {error}"),
                })?;
                (sha256_hex(bytes), line.sequence)
            }
        };
        if tail.torn_bytes > 0 {
            file.set_len(tail.length).map_err(failed("cut the torn end of"))?;
        }
        let mut audit = Self {
            path: path.to_owned(),
            file,
            host: host.to_owned(),
            previous,
            sequence,
            length: tail.length,
            unverified: Unverified::default(),
        };
        if tail.torn_bytes > 0 {
            let message = format!("cut {} bytes of an unfinished line off the end", tail.torn_bytes);
            audit.write(now, Event::new("agent", "recovered").with_message(message), Durability::Written)?;
        }
        Ok(audit)
    }

    /// Number of the last line, and its hash: the head of the chain.
    #[must_use]
    pub fn head(&self) -> (u64, &str) {
        (self.sequence, &self.previous)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When the line could not be written as durably as asked; nothing of it is left in the file
    /// unless cutting it off failed too.
    pub fn write(&mut self, now: Timestamp, mut event: Event, durability: Durability) -> Result<(), AuditError> {
        event.cut_refused_arguments().map_err(|source| self.failed("encode a line of")(source.into()))?;
        let line = Line {
            previous: self.previous.clone(),
            sequence: self.sequence + 1,
            at_ms: now,
            host: self.host.clone(),
            details: event,
        };
        let mut bytes = serde_json::to_vec(&line).map_err(|source| self.failed("encode a line of")(source.into()))?;
        let hash = sha256_hex(&bytes);
        bytes.push(b'\n');
        if let Err(error) = self.append(&bytes, durability) {
            let failed = self.failed("write")(error);
            // A half line would break the chain for every line after it.
            if let Err(error) = self.file.set_len(self.length) {
                tracing::error!(path = %self.path.display(), %error, "Could not cut a half-written audit line off");
            }
            return Err(failed);
        }
        self.length += bytes.len() as u64;
        self.previous = hash;
        self.sequence += 1;
        Ok(())
    }

    /// Appends a line about a message whose sender is not verified, at most
    /// [`UNVERIFIED_LINES_PER_MINUTE`] of them; the rest is counted and told in one line later.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_unverified(&mut self, now: Timestamp, event: Event) -> Result<(), AuditError> {
        let minute = now.as_millis().div_euclid(60_000);
        if minute != self.unverified.minute {
            let left_out = std::mem::take(&mut self.unverified).left_out;
            self.unverified.minute = minute;
            if left_out > 0 {
                let message = format!("{left_out} more messages from unverified senders in the minute before");
                self.write(now, Event::new("command", "ignored").with_message(message), Durability::Written)?;
            }
        }
        if self.unverified.written >= UNVERIFIED_LINES_PER_MINUTE {
            self.unverified.left_out += 1;
            return Ok(());
        }
        self.unverified.written += 1;
        self.write(now, event, Durability::Written)
    }

    fn append(&mut self, bytes: &[u8], durability: Durability) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        match durability {
            Durability::Synced => self.file.sync_data(),
            Durability::Written => Ok(()),
        }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> AuditError + use<> {
        let path = self.path.clone();
        move |source| AuditError::Io { action, path, source }
    }
}

struct Tail {
    /// Length of the file up to the last line end.
    length: u64,
    torn_bytes: u64,
    last_line: Option<Vec<u8>>,
}

/// Reads only the end of the file: an audit log grows for years and is opened at each start.
fn read_tail(file: &mut File) -> std::io::Result<Tail> {
    let end = file.metadata()?.len();
    let mut window: u64 = 64 * 1024;
    loop {
        let from = end.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&*file).take(end - from).read_to_end(&mut bytes)?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let body = &bytes[..complete.saturating_sub(1)];
        let start = body.iter().rposition(|byte| *byte == b'\n').map(|index| index + 1);
        if from == 0 || start.is_some() || window > LINE_BYTES_MAX as u64 * 2 {
            let length = from + complete as u64;
            let last_line = (complete > 0).then(|| body[start.unwrap_or(0)..].to_vec());
            return Ok(Tail { length, torn_bytes: end - length, last_line });
        }
        window *= 4;
    }
}

/// What [`verify`] found in a whole log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many lines.
    pub lines: u64,
    /// Hash of the last line: note it elsewhere to be able to prove that nothing was cut off.
    pub last_hash: String,
    /// Bytes after the last line end: a line that was being written when the host stopped.
    pub torn_bytes: u64,
}

/// Reads a log from its beginning and checks that each line is complete, numbered and carries the
/// hash of the one before.
///
/// # Errors
/// The first line that breaks the chain, and how.
pub fn verify(path: &Path) -> Result<Verified, AuditError> {
    let failed = |action| {
        let path = path.to_owned();
        move |source| AuditError::Io { action, path, source }
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed("open"))?);
    let mut verified = Verified { lines: 0, last_hash: FIRST_PREVIOUS.to_owned(), torn_bytes: 0 };
    loop {
        let mut bytes = Vec::new();
        let limit = LINE_BYTES_MAX as u64;
        reader.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(failed("read"))?;
        if bytes.is_empty() {
            return Ok(verified);
        }
        let number = verified.lines + 1;
        let broken = |why: String| AuditError::Broken { path: path.to_owned(), line: number, why };
        if bytes.pop_if(|byte| *byte == b'\n').is_none() {
            if bytes.len() as u64 == limit {
                return Err(broken("is longer than any audit line".to_owned()));
            }
            verified.torn_bytes = bytes.len() as u64;
            return Ok(verified);
        }
        let line: Line =
            serde_json::from_slice(&bytes).map_err(|error| broken(format!("is not an audit line: {error}")))?;
        if line.previous != verified.last_hash {
            return Err(broken("does not carry the hash of the line before: a line was changed or removed".to_owned()));
        }
        if line.sequence != number {
            return Err(broken(format!("has the number {}", line.sequence)));
        }
        verified.lines = number;
        verified.last_hash = sha256_hex(&bytes);
    }
}
