//! Long arguments in the audit log: the body of a script stands there, an archive of half a megabyte does not.

use serde_json::{Map, Value};

use crate::digest::sha256_hex;

/// Longest text of an argument that stands in a line, in bytes. A script that people write is shorter.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// How much of a longer one stands there, in bytes.
const KEPT_BYTES: usize = 1024;

/// The arguments with each text of more than [`TEXT_BYTES_MAX`] bytes cut: its beginning, its length and its
/// SHA-256, by which whoever has the text can show that it was this one.
pub(crate) fn shortened(arguments: Map<String, Value>) -> Map<String, Value> {
    arguments.into_iter().map(|(name, value)| (name, shorten(value))).collect()
}

fn shorten(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > TEXT_BYTES_MAX => {
            let cut = text.floor_char_boundary(KEPT_BYTES);
            let digest = sha256_hex(text.as_bytes());
            Value::String(format!("{}... ({} bytes, sha256 {digest})", &text[..cut], text.len()))
        }
        Value::Array(elements) => elements.into_iter().map(shorten).collect(),
        Value::Object(fields) => Value::Object(shortened(fields)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_are_cut_and_others_are_not() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let just = "x".repeat(TEXT_BYTES_MAX);
        let arguments = json!({ "body": long, "just": just, "deep": [{ "list": [long] }], "count": 3 });
        let cut = shortened(arguments.as_object().unwrap().clone());
        let text = cut["body"].as_str().unwrap();
        assert!(text.starts_with("ä") && text.len() < KEPT_BYTES + 200, "{text}");
        assert!(text.ends_with(&format!("({} bytes, sha256 {})", long.len(), sha256_hex(long.as_bytes()))), "{text}");
        assert_eq!(cut["deep"][0]["list"][0], cut["body"]);
        assert_eq!((&cut["just"], &cut["count"]), (&json!(just), &json!(3)));
    }
}
