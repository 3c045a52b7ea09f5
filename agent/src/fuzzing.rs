//! Doors for the fuzzer: readers of the agent that are not public otherwise.

use serde_json::{Map, Value};

use crate::facts::directory;

/// The text of a file of facts, by its ending; of what an executable wrote, for any other.
///
/// # Errors
/// What is wrong with it.
pub fn facts(extension: &str, text: &str) -> Result<Map<String, Value>, String> {
    directory::of_text(extension, text)
}

/// A line of the journal around anything, with the right checksum and length.
#[must_use]
pub fn journal_line(json: &[u8]) -> Vec<u8> {
    crate::digest::checked_line(json)
}
