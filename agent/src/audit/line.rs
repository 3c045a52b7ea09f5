//! One line: what it holds, and its hash.
//!
//! `{"previous":...,"sequence":...,"at_ms":...,"host":...,"details":{...},"hash":"..."}`. The hash is SHA-256 of
//! the bytes in front of `,"hash":`, so the line says of itself whether it was changed, the last one too.

use muster_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::Event;
use crate::digest::sha256_hex;

/// What stands between the hashed bytes and the hash.
const HASH_KEY: &[u8] = b",\"hash\":\"";

const HASH_DIGITS: usize = 64;

/// A line that was read, and whose hash is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The hash of the line before.
    pub previous: String,
    /// Number of the line, from 1; it goes on from file to file.
    pub sequence: u64,
    /// When, by the host's clock.
    pub at_ms: Timestamp,
    /// The host.
    pub host: String,
    /// What happened.
    pub details: Event,
    /// The line's own hash.
    pub hash: String,
}

#[derive(Serialize)]
struct Hashed<'a> {
    previous: &'a str,
    sequence: u64,
    at_ms: Timestamp,
    host: &'a str,
    details: &'a Event,
}

/// Why bytes are no line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoLine {
    /// They do not look like one.
    Shape(String),
    /// They do, and are not what was written.
    Hash,
}

/// Gives a line with its line end, and its hash.
pub(super) fn encode(
    previous: &str,
    sequence: u64,
    at_ms: Timestamp,
    host: &str,
    details: &Event,
) -> serde_json::Result<(Vec<u8>, String)> {
    let mut bytes = serde_json::to_vec(&Hashed { previous, sequence, at_ms, host, details })?;
    bytes.pop();
    let hash = sha256_hex(&bytes);
    bytes.extend_from_slice(HASH_KEY);
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(b"\"}\n");
    Ok((bytes, hash))
}

/// Reads a line without its line end.
pub(super) fn decode(bytes: &[u8]) -> Result<Line, NoLine> {
    let shape = || NoLine::Shape("it does not end in a hash".to_owned());
    let open = bytes.strip_suffix(b"\"}").ok_or_else(shape)?;
    let split = open.len().checked_sub(HASH_DIGITS + HASH_KEY.len()).ok_or_else(shape)?;
    let (hashed, rest) = open.split_at(split);
    let hash = rest.strip_prefix(HASH_KEY).ok_or_else(shape)?;
    if sha256_hex(hashed).as_bytes() != hash {
        return Err(NoLine::Hash);
    }
    serde_json::from_slice(bytes).map_err(|error| NoLine::Shape(error.to_string()))
}
