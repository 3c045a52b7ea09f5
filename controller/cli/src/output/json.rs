//! JSON for programs: every document names its schema, and is safe to look at in a terminal.

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

/// JSON on one line, for a stream of records.
pub(crate) fn compact(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|json| neutral_json(&json).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
