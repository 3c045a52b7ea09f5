//! SHA-256 in the form in which this crate writes it everywhere: lower-case hexadecimal.

use sha2::{Digest as _, Sha256};

/// SHA-256 of `bytes`, 64 hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal. By a table: the formatter of the standard library takes thirty times as long, and each
/// command has half a dozen digests.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

const CHECKSUM_DIGITS: usize = 16;

fn checksum(json: &[u8]) -> String {
    let mut text = sha256_hex(json);
    text.truncate(CHECKSUM_DIGITS);
    text
}

/// A line `CHECKSUM LENGTH JSON` with its end. The checksum is the first 16 hexadecimal digits of SHA-256 over the
/// JSON, the length its bytes in decimal.
pub(crate) fn checked_line(json: &[u8]) -> Vec<u8> {
    let mut line = format!("{} {} ", checksum(json), json.len()).into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

/// The JSON of such a line, given without its end; `None` if it is not what was written.
pub(crate) fn unchecked(line: &[u8]) -> Option<&[u8]> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (sum, length, json) = (parts.next()?, parts.next()?, parts.next()?);
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    (length == json.len() && sum == checksum(json).as_bytes()).then_some(json)
}
