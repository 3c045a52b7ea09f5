//! Which report of a detached action carried what, written down before the report is sent.
//!
//! An agent that starts again sends the last report once more, the same bytes of output under the same
//! number, and goes on behind it. The controller drops a number that it has.
//!
//! One JSON object a line. A line that is torn was not followed by a report.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::directory::Totals;

/// Every so many numbers the file is forced to disk. A crash of the host loses at most that many lines, and
/// numbers go on beyond them, so none is used twice for different reports.
pub const SYNC_EVERY: u32 = 64;

/// A place in the output file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where a frame starts, in bytes of the file.
    pub position: u64,
    /// Bytes of the streams before it.
    pub at: Totals,
}

/// One report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its number.
    pub sequence: u32,
    /// A place at or before everything in it.
    pub place: Place,
    /// Where its output begins in the streams.
    pub from: Totals,
    /// Where it ends.
    pub to: Totals,
    /// Whether output before it was left out.
    pub skipped: bool,
    /// Whether it is the last report.
    pub last: bool,
}

/// The file, open for more lines.
#[derive(Debug)]
pub struct CursorLog {
    file: File,
}

impl CursorLog {
    /// Opens it, and reads its last good line.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path) -> io::Result<(Self, Option<Sent>)> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            // So that the next line does not stand behind half of another.
            file.write_all(b"\n")?;
        }
        Ok((Self { file }, last(&bytes)))
    }

    /// Writes a line. Only after `Ok` may the report be sent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, sent: &Sent) -> io::Result<()> {
        let mut line = serde_json::to_vec(sent)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        if sent.sequence.is_multiple_of(SYNC_EVERY) || sent.last { self.file.sync_data() } else { Ok(()) }
    }
}

/// The last line that is whole.
fn last(bytes: &[u8]) -> Option<Sent> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &bytes[..end]);
    whole.split(|byte| *byte == b'\n').rev().find_map(|line| serde_json::from_slice(line).ok())
}

/// The number of the first report after a crash of the host, when lines may be lost.
#[must_use]
pub fn after_lost_lines(last: Option<&Sent>) -> u32 {
    last.map_or(0, |sent| (sent.sequence / SYNC_EVERY + 1).saturating_mul(SYNC_EVERY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sequence: u32) -> Sent {
        let to = Totals { stdout: u64::from(sequence) * 10, stderr: 3 };
        Sent { sequence, place: Place::default(), from: Totals::default(), to, skipped: false, last: false }
    }

    #[test]
    fn the_last_whole_line_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cursor");
        let reopened = || CursorLog::open(&path).unwrap();
        assert_eq!(reopened().1, None);
        let (mut log, _) = reopened();
        log.note(&sent(0)).unwrap();
        log.note(&sent(1)).unwrap();
        assert_eq!(reopened().1, Some(sent(1)));
        for torn in ["{\"sequence\":2,", "rubbish", "\0\0\0"] {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
            let (mut log, last) = reopened();
            assert_eq!(last, Some(sent(1)), "{torn:?}");
            log.note(&sent(7)).unwrap();
            assert_eq!(reopened().1, Some(sent(7)), "{torn:?}");
            log.note(&sent(1)).unwrap();
        }
    }

    #[test]
    fn numbers_that_may_be_lost_are_not_used_again() {
        assert_eq!(after_lost_lines(None), 0);
        for sequence in [0, 1, 63] {
            assert_eq!(after_lost_lines(Some(&sent(sequence))), 64);
        }
        assert_eq!(after_lost_lines(Some(&sent(64))), 128);
    }
}
