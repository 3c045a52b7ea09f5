//! JSON for programs: every document names its schema, and is safe to look at in a terminal.

use std::io::{self, Write};

use serde::Serialize;

use super::escape::neutral_json;

/// A document or record: its schema first, then the value's own fields.
#[derive(Serialize)]
pub(crate) struct Document<'a, T: Serialize + ?Sized> {
    schema: &'static str,
    // Only ever written, never read: a reader would lose unknown-field checks to `flatten`.
    #[serde(flatten)]
    body: &'a T,
}

impl<'a, T: Serialize + ?Sized> Document<'a, T> {
    /// Puts `schema`, such as `muster.hosts/v1`, before the fields of a struct or map.
    pub(crate) fn new(schema: &'static str, body: &'a T) -> Self {
        Self { schema, body }
    }
}

/// JSON over several lines, for one document.
pub(crate) fn pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value).map(|json| neutral_json(&json).into_owned())
}

/// Writes JSON over several lines while it is made.
///
/// # Errors
/// A map has keys that are no strings, or `out` has an error.
pub(crate) fn write_pretty(out: &mut impl Write, value: &impl Serialize) -> Result<(), serde_json::Error> {
    let mut writer = io::BufWriter::with_capacity(64 * 1024, Neutral(out));
    serde_json::to_writer_pretty(&mut writer, value)?;
    writer.flush().map_err(serde_json::Error::io)
}

/// Makes what is written harmless. Texts come whole: they are written and buffered in pieces that end where a character ends.
struct Neutral<'a, W>(&'a mut W);

impl<W: Write> Write for Neutral<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.0.write_all(neutral_json(text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// JSON on one line, for a stream of records.
pub(crate) fn compact(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|json| neutral_json(&json).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_it_is_made_is_what_would_be_made_whole() {
        let long = "a\u{fc}\u{1b}[2J\u{202e}\u{1f600}".repeat(20_000);
        let value = serde_json::json!({"a": [long, "\u{9b}", 1, null, {"b": "\n"}], "c": "\u{fc}".repeat(70_000)});
        let mut out = Vec::new();
        write_pretty(&mut out, &value).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), pretty(&value).unwrap());
    }

    #[test]
    fn the_schema_comes_first() {
        #[derive(Serialize)]
        struct Body {
            duration_ms: u64,
        }
        let body = Body { duration_ms: 12 };
        assert_eq!(
            compact(&Document::new("muster.x/v1", &body)).unwrap(),
            r#"{"schema":"muster.x/v1","duration_ms":12}"#
        );
    }
}
