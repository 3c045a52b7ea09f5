//! What hosts sent and nobody looks at for now: in memory up to a bound, behind it in a file.
//!
//! Results and output of ten thousand hosts do not fit into memory, and none of it may be lost. Each piece is set aside as
//! bytes and read back when it is shown. Pieces that are alike are kept once: most hosts of a fleet answer the same.
//!
//! # Invariants
//!
//! - The file has mode 0600 and no name: it is gone with the program, however that ends, and nobody else can open it.
//! - What cannot be written is handed back to whoever wanted to set it aside; nothing is dropped.
//! - What is read back is what was set aside: each piece carries its digest.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

/// Bytes kept in memory by default, before a file is made.
pub const MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Largest file by default: ten thousand hosts with a megabyte each, and some more.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

type Fingerprint = [u8; 32];

/// Where things are set aside. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Aside {
    store: Arc<Mutex<Store>>,
}

#[derive(Debug)]
struct Store {
    directory: PathBuf,
    memory_bytes: usize,
    memory_bytes_max: usize,
    file: Option<Arc<File>>,
    file_bytes: u64,
    file_bytes_max: u64,
    known: HashMap<Fingerprint, Piece>,
}

/// A piece that was set aside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Piece {
    length: usize,
    digest: Fingerprint,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<[u8]>),
    File { file: Arc<File>, at: u64 },
}

impl Aside {
    /// Begins with nothing. The file, where one is needed, is made in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf, memory_bytes_max: usize, file_bytes_max: u64) -> Self {
        let store = Store {
            directory,
            memory_bytes: 0,
            memory_bytes_max,
            file: None,
            file_bytes: 0,
            file_bytes_max,
            known: HashMap::new(),
        };
        Self { store: Arc::new(Mutex::new(store)) }
    }

    /// Sets bytes aside.
    ///
    /// # Errors
    /// The file cannot be made or written, or is as large as it may be. The bytes are the caller's still.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Piece> {
        let digest: Fingerprint = Sha256::digest(bytes).into();
        self.store().put(bytes, digest)
    }

    /// How many bytes are in memory. Never more than the bound.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store().memory_bytes
    }

    /// How many bytes are in the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.store().file_bytes
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn put(&mut self, bytes: &[u8], digest: Fingerprint) -> io::Result<Piece> {
        if let Some(piece) = self.known.get(&digest) {
            return Ok(piece.clone());
        }
        let place = if self.memory_bytes + bytes.len() <= self.memory_bytes_max {
            self.memory_bytes += bytes.len();
            Place::Memory(bytes.into())
        } else {
            self.write(bytes)?
        };
        let piece = Piece { length: bytes.len(), digest, place };
        self.known.insert(digest, piece.clone());
        Ok(piece)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Place> {
        if self.file_bytes + bytes.len() as u64 > self.file_bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the answers take too much room on disk"));
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
                let file = Arc::new(tempfile::tempfile_in(&self.directory)?);
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        let at = self.file_bytes;
        file.write_all_at(bytes, at)?;
        self.file_bytes += bytes.len() as u64;
        Ok(Place::File { file, at })
    }
}

impl Piece {
    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Reads it back.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else than was written.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let bytes = match &self.place {
            Place::Memory(bytes) => bytes.to_vec(),
            Place::File { file, at } => {
                let mut bytes = vec![0; self.length];
                file.read_exact_at(&mut bytes, *at)?;
                bytes
            }
        };
        match <Fingerprint>::from(Sha256::digest(&bytes)) == self.digest {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what was written")),
        }
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Piece {}

/// SHA-256, lower-case hexadecimal: what is alike without being looked at.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aside(memory: usize, file: u64) -> (tempfile::TempDir, Aside) {
        let directory = tempfile::tempdir().unwrap();
        let aside = Aside::new(directory.path().to_owned(), memory, file);
        (directory, aside)
    }

    #[test]
    fn memory_is_bounded_and_the_rest_has_no_name() {
        let (directory, aside) = aside(1_000, u64::MAX);
        let pieces: Vec<_> = (0..100u8).map(|n| (n, aside.put(&[n; 99]).unwrap())).collect();
        assert_eq!((aside.memory_bytes(), aside.file_bytes()), (990, 90 * 99));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        for (n, piece) in pieces {
            assert_eq!((piece.length(), piece.read().unwrap()), (99, vec![n; 99]));
        }
    }

    #[test]
    fn what_is_alike_is_kept_once() {
        let (_directory, aside) = aside(10, u64::MAX);
        let first = aside.put(&[7; 5_000]).unwrap();
        for _ in 0..1_000 {
            assert_eq!(aside.put(&[7; 5_000]).unwrap(), first);
        }
        assert_eq!((aside.memory_bytes(), aside.file_bytes()), (0, 5_000));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_was_changed_is_noticed() {
        let (_directory, aside) = aside(0, 10);
        let piece = aside.put(b"0123456789").unwrap();
        assert_eq!(aside.put(b"x").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let Place::File { file, .. } = &piece.place else { panic!("it is in the file") };
        file.write_all_at(b"!", 3).unwrap();
        assert_eq!(piece.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let nowhere = Aside::new("/dev/null/directory".into(), 0, 10);
        assert!(nowhere.put(b"x").is_err());
    }

    proptest! {
        #[test]
        fn everything_comes_back(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..40),
            memory in 0usize..200,
        ) {
            let (_directory, aside) = aside(memory, u64::MAX);
            let kept: Vec<_> = pieces.iter().map(|bytes| aside.put(bytes).unwrap()).collect();
            prop_assert!(aside.memory_bytes() <= memory);
            for (bytes, piece) in pieces.iter().zip(kept) {
                prop_assert_eq!(&piece.read().unwrap(), bytes);
            }
        }
    }
}
