//! The archive itself: a gzipped tar file with regular files in it, read and written within bounds.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};

use crate::error::PackError;
use crate::manifest::{FILES_MAX, PATH_BYTES_MAX, check_path, name};
use crate::pack::{PACK_BYTES_MAX, UNPACKED_BYTES_MAX};

/// Bytes that one entry takes beside its content, at most: a header, padding, and a long name.
const ENTRY_BYTES_EXTRA: u64 = 4 * 512;

/// "Unknown", so that the machine on which it was packed does not show.
const OPERATING_SYSTEM: u8 = 255;

/// Writes files, in the order of their names, so that the same files give the same bytes.
pub(crate) fn write(files: &[(String, bool, &[u8])]) -> Result<Vec<u8>, PackError> {
    let failed = |error: io::Error| PackError::malformed(format!("it cannot be written: {error}"));
    let gzip = GzBuilder::new().mtime(0).operating_system(OPERATING_SYSTEM).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gzip);
    tar.mode(tar::HeaderMode::Deterministic);
    for (path, executable, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if *executable { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, path, *content).map_err(failed)?;
    }
    let mut gzip = tar.into_inner().map_err(failed)?;
    gzip.flush().map_err(failed)?;
    gzip.finish().map_err(failed)
}

/// Reads all files. Whatever the archive claims, no more is read or kept than the bounds allow.
pub(crate) fn read(bytes: &[u8]) -> Result<BTreeMap<String, (bool, Vec<u8>)>, PackError> {
    if bytes.len() > PACK_BYTES_MAX {
        return Err(PackError::TooMuch { what: format!("{} bytes", bytes.len()), max: PACK_BYTES_MAX as u64 });
    }
    let most = UNPACKED_BYTES_MAX + (FILES_MAX as u64 + 2) * ENTRY_BYTES_EXTRA;
    let mut bounded = Bounded { inner: GzDecoder::new(bytes), left: most, exceeded: false };
    let result = entries(&mut bounded);
    if bounded.exceeded {
        return Err(PackError::TooMuch { what: "more unpacked bytes".to_owned(), max: UNPACKED_BYTES_MAX });
    }
    let files = result?;
    // The end of the tar file is reached; what follows has to be its padding and nothing else.
    let mut rest = Vec::new();
    let tail = bounded.read_to_end(&mut rest);
    if bounded.exceeded || rest.iter().any(|byte| *byte != 0) {
        return Err(PackError::malformed("something follows the end of the archive"));
    }
    tail.map_err(unreadable)?;
    if !bounded.inner.into_inner().is_empty() {
        return Err(PackError::malformed("something follows the end of the archive"));
    }
    Ok(files)
}

fn unreadable(error: io::Error) -> PackError {
    PackError::malformed(format!("it is not a gzipped tar file: {error}"))
}

fn entries(reader: &mut impl Read) -> Result<BTreeMap<String, (bool, Vec<u8>)>, PackError> {
    let mut files = BTreeMap::new();
    let mut total = 0u64;
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path_bytes();
        let path = std::str::from_utf8(&path).map_err(|_| PackError::malformed("a file's name is not UTF-8"))?;
        let path = path.chars().take(2 * PATH_BYTES_MAX).collect::<String>();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(name(&path, "is not a regular file's"));
        }
        check_path(&path)?;
        if files.contains_key(&path) {
            return Err(name(&path, "stands there twice"));
        }
        // Manifest and signature beside the plugin's own files.
        if files.len() == FILES_MAX + 2 {
            return Err(PackError::TooMuch { what: "more files".to_owned(), max: FILES_MAX as u64 });
        }
        total = total.saturating_add(entry.size());
        if total > UNPACKED_BYTES_MAX {
            return Err(PackError::TooMuch { what: "more unpacked bytes".to_owned(), max: UNPACKED_BYTES_MAX });
        }
        let executable = entry.header().mode().map_err(unreadable)? & 0o111 != 0;
        let mut content = Vec::new();
        let size = entry.size();
        entry.read_to_end(&mut content).map_err(unreadable)?;
        if content.len() as u64 != size {
            return Err(PackError::malformed("it ends in the middle of a file"));
        }
        files.insert(path, (executable, content));
    }
    Ok(files)
}

/// A reader that gives an error instead of more than it may, and remembers that.
struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::Error::other("it unpacks to more than is allowed"));
            }
        }
        Ok(count)
    }
}
