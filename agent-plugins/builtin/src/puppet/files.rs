//! Reading Puppet's files, and what they say about the time they were written.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use muster_plugin_api::ActionFailure;

/// Most that is read of one of Puppet's small files. A summary has 2 KB, a list of resources 60 bytes for each.
const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Whether the error says that there is no such file.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The failure to do something with a file.
pub(super) fn failure(path: &Path, what: &str, error: &io::Error) -> ActionFailure {
    ActionFailure::failed(format!("`{}` cannot be {what}: {error}", path.display()))
}

/// The text of a file, with what is not UTF-8 replaced; `None` if there is no such file.
pub(super) fn text(path: &Path) -> Result<Option<String>, ActionFailure> {
    let read = File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        let count = file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if count as u64 > TEXT_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {TEXT_BYTES_MAX} bytes")));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failure(path, "read", &error)),
    }
}

/// When a file was last written, in milliseconds since 1970; `None` if there is none.
pub(super) fn written_ms(path: &Path) -> Option<i64> {
    let since = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// At most this many characters of a text, with a mark where some were left out. Control characters other than
/// line breaks become blanks.
pub(super) fn cut(text: &str, characters_max: usize) -> String {
    let plain = |character: char| if character.is_control() && character != '\n' { ' ' } else { character };
    let mut kept: String = text.chars().take(characters_max).map(plain).collect();
    if text.chars().nth(characters_max).is_some() {
        kept.push('…');
    }
    kept
}
