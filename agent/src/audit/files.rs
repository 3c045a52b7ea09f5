//! The files of one log: the one that is written, and those that were set aside before.
//!
//! The file that is written always has the same name, so that whoever ships it can follow it. One that is full
//! gets a number behind its name, once; the next one has a higher number. Files that something else has moved
//! away are found too, if they lie beside it and their names begin alike: the order is that of their lines.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use muster_daemon::disk::{FileKind, FileReader, Open};
use muster_daemon::{Disk, DiskFile};

use super::LINE_BYTES_MAX;
use super::line::{Line, decode};

/// The name that the file in `path` gets when it is full.
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number:06}"));
    path.with_file_name(name)
}

/// The file that a rotation begins while the full one still has the log's name.
pub(super) fn next(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".next");
    path.with_file_name(name)
}

/// Whether a file has a name as [`numbered`] gives it.
pub(super) fn is_numbered(path: &Path) -> bool {
    let digits = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands behind the log's name in a file's name, as in `.000001`.
fn suffix<'a>(path: &Path, name: &'a str) -> Option<&'a str> {
    let suffix = name.strip_prefix(path.file_name()?.to_str()?)?;
    let digits = suffix.strip_prefix(['.', '-'])?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_number.then_some(digits)
}

/// The files that were set aside beside `path`, in no order.
pub(super) fn set_aside(disk: &dyn Disk, path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in disk.list(directory(path))? {
        let is_ours = entry.name.to_str().is_some_and(|name| suffix(path, name).is_some());
        if is_ours && entry.kind == FileKind::File {
            found.push(directory(path).join(entry.name));
        }
    }
    Ok(found)
}

/// The directory of the log.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The number for the next file that is set aside.
pub(super) fn next_number(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    let names = set_aside(disk, path)?;
    let numbers = names.iter().filter_map(|found| suffix(path, found.file_name()?.to_str()?)?.parse::<u64>().ok());
    Ok(numbers.max().unwrap_or(0).saturating_add(1))
}

/// The log's name if `path` is a file of it that was set aside.
pub(super) fn log_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let at = name.rfind(['.', '-'])?;
    let log = path.with_file_name(&name[..at]);
    suffix(&log, name).map(|_| log)
}

/// The first line of a file; `None` if the file is empty.
pub(super) fn first_line(disk: &dyn Disk, path: &Path) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    open(disk, path)?.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    decode(line).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "its first line is no audit line"))
}

/// Whether lines are written to a file of the log now, or may be.
pub(super) fn is_written(log: &Path, path: &Path) -> bool {
    path == log || path == next(log)
}

/// The file that a rotation has begun and that follows the line with this hash, the last one of a full file.
pub(super) fn begun(disk: &dyn Disk, path: &Path, last_hash: &str) -> Option<PathBuf> {
    let next = next(path);
    let first = first_line(disk, &next).ok()??;
    (first.previous == last_hash).then_some(next)
}

/// Reads a file from its beginning.
pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<BufReader<FileReader>> {
    Ok(BufReader::new(FileReader::new(disk.open(path, Open::Read)?)))
}

/// The end of a file.
pub(super) struct Tail {
    /// Length of the file up to the last line end.
    pub(super) length: u64,
    /// Bytes behind it.
    pub(super) torn_bytes: u64,
    /// The last line, without its end.
    pub(super) last_line: Option<Vec<u8>>,
}

/// Reads only the end of a file: it is long, and this happens at each start.
pub(super) fn read_tail(file: &dyn DiskFile) -> io::Result<Tail> {
    let end = file.metadata()?.length;
    let mut window: u64 = 64 * 1024;
    loop {
        let from = end.saturating_sub(window);
        let bytes = file.read_range(from, end - from)?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let body = &bytes[..complete.saturating_sub(1)];
        let start = body.iter().rposition(|byte| *byte == b'\n').map(|index| index + 1);
        if from == 0 || start.is_some() || window > LINE_BYTES_MAX as u64 * 2 {
            let length = from + complete as u64;
            let last_line = (complete > 0).then(|| body[start.unwrap_or(0)..].to_vec());
            return Ok(Tail { length, torn_bytes: from + bytes.len() as u64 - length, last_line });
        }
        window *= 4;
    }
}
