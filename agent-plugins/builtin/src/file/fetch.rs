//! `file.fetch`: a part of a file, small enough for one report.

use std::io::{Read as _, Seek as _, SeekFrom};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_plugin_api::{ActionFailure, ActionReply, ActionRequest};
use serde_json::{Value, json};

use super::entry::{self, STEP_BYTES};
use super::reach::Reach;
use super::work::Steps;
use crate::digest::sha256_hex;
use crate::execution::invalid;
use crate::reply;

/// Most bytes of one part. As base64 they take 683 KiB, less than `RESULT_BYTES_MAX`.
const PART_BYTES_MAX: u64 = 512 * 1024;

/// Which part.
#[derive(Debug)]
pub(super) struct Part {
    offset: u64,
    length: u64,
}

impl Part {
    pub(super) fn of(request: &ActionRequest) -> Result<Self, ActionFailure> {
        let number = |name: &str| request.arguments.get(name).and_then(Value::as_u64);
        let offset = number("offset").filter(|offset| i64::try_from(*offset).is_ok());
        let offset = offset.ok_or_else(|| invalid("offset", "is not a whole number from 0"))?;
        let length = number("length").filter(|length| (1..=PART_BYTES_MAX).contains(length));
        let length =
            length.ok_or_else(|| invalid("length", &format!("is not a whole number from 1 to {PART_BYTES_MAX}")))?;
        Ok(Self { offset, length })
    }

    /// Reads it.
    pub(super) fn fetch(&self, reach: &Reach, checksum: bool, bytes_max: u64, steps: &Steps) -> ActionReply {
        let path = reach.path().display().to_string();
        let found = reach.target()?;
        let entry = found.ok_or_else(|| ActionFailure::failed(format!("there is no file `{path}`")))?;
        let mut file = entry.open()?;
        entry.check_size(bytes_max)?;
        let sha256 = if checksum { Some(entry.sha256(bytes_max, steps)?) } else { None };

        let unreadable = |error: std::io::Error| ActionFailure::failed(format!("`{path}` cannot be read: {error}"));
        file.seek(SeekFrom::Start(self.offset)).map_err(unreadable)?;
        // One byte more tells whether there is more.
        let mut rest = file.take(self.length + 1);
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; STEP_BYTES]);
        loop {
            steps.go_on()?;
            match rest.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        let eof = bytes.len() as u64 <= self.length;
        bytes.truncate(usize::try_from(self.length).unwrap_or(usize::MAX));
        let (content, encoding) = written(&bytes);
        reply::answer(&json!({
            "path": path,
            "content": content,
            "encoding": encoding,
            "offset": self.offset,
            "length": bytes.len(),
            "eof": eof,
            "part_sha256": sha256_hex(&bytes),
            "size_bytes": entry.size_bytes,
            "mode": entry.mode_text(),
            "owner": entry::user_name(entry.uid),
            "group": entry::group_name(entry.gid),
            "mtime_ms": entry.mtime_ms,
            "sha256": sha256,
        }))
    }
}

/// Text where it is text and JSON does not blow it up beyond base64, which has a bound.
fn written(bytes: &[u8]) -> (String, &'static str) {
    let encoded = BASE64_STANDARD.encode(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) if Value::from(text).to_string().len() <= encoded.len() + 2 || is_plain(text) => {
            (text.to_owned(), "text")
        }
        _ => (encoded, "base64"),
    }
}

/// Short texts are for people, also where they hold a few quotes.
fn is_plain(text: &str) -> bool {
    text.len() <= 64 * 1024 && !text.chars().any(|character| character.is_control() && !"\n\r\t".contains(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_nothing_outgrows_a_report() {
        let check = |bytes: &[u8], encoding: &str| assert_eq!(written(bytes).1, encoding, "{bytes:?}");
        check(b"", "text");
        check("grün \"so\"\n".as_bytes(), "text");
        check(b"\"\"\"\"", "text");
        check(&[0xff], "base64");
        check(&[0, 1, 2], "base64");
        let longest = usize::try_from(PART_BYTES_MAX).unwrap();
        for byte in [1_u8, b'"', b'x', b'\n', 0xff] {
            let (content, _) = written(&vec![byte; longest]);
            let bytes = Value::from(content).to_string().len();
            assert!(bytes + 8192 < muster_protocol::limits::RESULT_BYTES_MAX, "{byte}: {bytes}");
        }
    }
}
