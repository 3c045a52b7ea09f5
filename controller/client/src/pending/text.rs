//! The text of a pending command: bounds before anything else, and what nobody could be shown.

use muster_protocol::Envelope;
use muster_protocol::limits::{BODY_BYTES_MAX, SIGNATURES_BYTES_MAX};
use serde_json::Value;

use super::error::PendingError;
use super::{COMMANDS_MAX, PENDING_BYTES_MAX};

/// Longest line, in bytes: the largest body in base64, the largest signatures, and names.
const LINE_BYTES_MAX: usize = BODY_BYTES_MAX / 3 * 4 + SIGNATURES_BYTES_MAX + 1024;

/// Every field of a command, by the object that holds it.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "protocol",
            "id",
            "caller",
            "created_at_ms",
            "expires_at_ms",
            "collective",
            "target",
            "plugin",
            "action",
            "arguments",
            "sealed",
            "options",
            "reply_to",
            "requires",
        ],
    ),
    ("target", &["all", "hosts", "filter"]),
    ("options", &["noop", "effective_user", "timeout_ms", "progress"]),
    ("sealed", &["names", "public_key", "values", "recipients"]),
];

/// The envelopes of a text, one a line.
pub(super) fn envelopes(bytes: &[u8]) -> Result<Vec<Envelope>, PendingError> {
    if bytes.len() > PENDING_BYTES_MAX {
        return Err(PendingError::TooLarge { bytes: bytes.len() });
    }
    let mut found = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let bad = |why: String| PendingError::Malformed { number: index + 1, why };
        if index >= COMMANDS_MAX {
            return Err(bad(format!("there are more than {COMMANDS_MAX}")));
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(bad(format!("its line has {} bytes; at most {LINE_BYTES_MAX} are allowed", line.len())));
        }
        found.push(serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?);
    }
    if found.is_empty() { Err(PendingError::Empty) } else { Ok(found) }
}

/// A field of a command that this program does not know. Arguments are the action's own.
pub(super) fn unknown_field(body: &[u8]) -> Option<String> {
    let whole: Value = serde_json::from_slice(body).ok()?;
    FIELDS.iter().find_map(|(object, known)| {
        let fields = if object.is_empty() { whole.as_object() } else { whole.get(object).and_then(Value::as_object) };
        let unknown = fields?.keys().find(|name| !known.contains(&name.as_str()))?;
        let shown: String = unknown.chars().take(64).collect();
        Some(if object.is_empty() { shown } else { format!("{object}.{shown}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_be_shown_is_found() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(unknown_field(text.as_bytes()).as_deref(), expected, "{text}");
        };
        check(r#"{"id": 1, "options": {"noop": true}, "arguments": {"anything": {"options": 1}}}"#, None);
        check(r#"{"id": 1, "surprise": 1}"#, Some("surprise"));
        check(r#"{"options": {"noop": true, "also_on": "db1"}}"#, Some("options.also_on"));
        check(r#"{"target": {"hosts": ["a"], "but_really": 1}}"#, Some("target.but_really"));
        check(r#"{"sealed": {"names": [], "more": 1}}"#, Some("sealed.more"));
    }

    /// Every field that a command can have is known, and those of the golden file that no command of today has are not.
    #[test]
    fn every_field_is_known() {
        let golden = include_str!("../../../../protocol/golden/muster-1/command-sealed.json");
        let mut command: muster_protocol::Command = muster_protocol::decode(golden.as_bytes()).unwrap();
        command.target.filter = Some("role = web".to_owned());
        command.options.effective_user = Some("www".to_owned());
        command.options.timeout_ms = Some(1);
        command.requires = vec!["sealed".to_owned()];
        let body = serde_json::to_vec(&command).unwrap();
        assert_eq!(unknown_field(&body), None);
        assert_eq!(unknown_field(golden.as_bytes()).as_deref(), Some("future_field"));
    }
}
