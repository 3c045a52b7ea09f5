//! Output of a detached action on disk: frames, one after the other.
//!
//! A frame is the stream (1 standard output, 2 standard error), the length of the bytes (four bytes, little
//! endian), the first four bytes of SHA-256 over stream, length and bytes, and the bytes, at most
//! [`FRAME_BYTES_MAX`]. The runner appends; agents read behind it. A frame that is not whole is being written,
//! or, where there is no runner any more, torn: nothing after it counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_protocol::OutputStream;
use muster_protocol::limits::OUTPUT_CHUNK_BYTES_MAX;
use sha2::{Digest as _, Sha256};

use super::directory::Totals;

/// Most bytes of output in one frame: what fits into one chunk of a report.
pub const FRAME_BYTES_MAX: usize = OUTPUT_CHUNK_BYTES_MAX;

const HEADER_BYTES: usize = 9;

fn mark(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

fn stream_of(mark: u8) -> Option<OutputStream> {
    match mark {
        1 => Some(OutputStream::Stdout),
        2 => Some(OutputStream::Stderr),
        _ => None,
    }
}

fn checksum(start: &[u8], bytes: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(start).chain_update(bytes).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

impl Totals {
    /// The bytes of one stream.
    #[must_use]
    pub fn of(self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }

    /// Adds to one stream.
    pub fn add(&mut self, stream: OutputStream, bytes: u64) {
        match stream {
            OutputStream::Stdout => self.stdout += bytes,
            OutputStream::Stderr => self.stderr += bytes,
        }
    }
}

/// Appends output, up to a limit. What cannot be kept is counted, and the action goes on.
#[derive(Debug)]
pub struct OutputWriter {
    file: File,
    length: u64,
    bytes_max: u64,
    written: Totals,
    kept: Totals,
    /// Something was not kept; what comes later must not stand right behind what came before.
    closed: bool,
    /// Why, if not for the limit.
    failed: Option<String>,
}

impl OutputWriter {
    /// Begins the file.
    ///
    /// # Errors
    /// When it is there already or cannot be made.
    pub fn create(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self {
            file,
            length: 0,
            bytes_max,
            written: Totals::default(),
            kept: Totals::default(),
            closed: false,
            failed: None,
        })
    }

    /// Takes output.
    pub fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.written.add(stream, bytes.len() as u64);
        for piece in bytes.chunks(FRAME_BYTES_MAX) {
            if self.closed {
                return;
            }
            let room = usize::try_from(self.bytes_max.saturating_sub(self.kept.sum())).unwrap_or(usize::MAX);
            let kept = &piece[..piece.len().min(room)];
            self.closed = kept.len() < piece.len();
            if kept.is_empty() {
                return;
            }
            match self.append(stream, kept) {
                Ok(()) => self.kept.add(stream, kept.len() as u64),
                Err(error) => {
                    self.closed = true;
                    self.failed = Some(error.to_string());
                    // Half a frame may be there. Readers stop at it anyway.
                    drop(self.file.set_len(self.length));
                }
            }
        }
    }

    fn append(&mut self, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
        frame.push(mark(stream));
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        frame.extend_from_slice(&length.to_le_bytes());
        let check = checksum(&frame, bytes);
        frame.extend_from_slice(&check);
        frame.extend_from_slice(bytes);
        // In one call, so that a reader seldom sees half of it.
        self.file.write_all(&frame)?;
        self.length += frame.len() as u64;
        Ok(())
    }

    /// How much came and how much was kept.
    #[must_use]
    pub fn totals(&self) -> (Totals, Totals) {
        (self.written, self.kept)
    }

    /// Why output was not kept although there was room.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Brings everything to the disk, before the reply says that it is there.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What comes next in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A whole frame.
    Frame {
        /// The stream.
        stream: OutputStream,
        /// Its bytes; empty where only the length was asked for.
        bytes: Vec<u8>,
        /// How many there are.
        length: u64,
    },
    /// Nothing yet, or a frame that is not whole.
    Nothing,
}

/// Reads frames behind the runner.
#[derive(Debug)]
pub struct OutputReader {
    file: Option<File>,
    position: u64,
}

impl OutputReader {
    /// Begins at a frame's start. A file that is not there yet has nothing to read.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, position: u64) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, position })
    }

    /// Where the next frame starts.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether there was a file when it was opened.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Length of the file now.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub fn length(&self) -> io::Result<u64> {
        self.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|meta| meta.len()))
    }

    /// Reads the next frame, or only looks how long it is.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self, with_bytes: bool) -> io::Result<Next> {
        let Some(file) = &mut self.file else { return Ok(Next::Nothing) };
        file.seek(SeekFrom::Start(self.position))?;
        let mut header = [0; HEADER_BYTES];
        if !read_whole(file, &mut header)? {
            return Ok(Next::Nothing);
        }
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let Some(stream) = stream_of(header[0]).filter(|_| length <= FRAME_BYTES_MAX) else {
            return Ok(Next::Nothing);
        };
        let mut bytes = vec![0; if with_bytes { length } else { 0 }];
        if with_bytes {
            if !read_whole(file, &mut bytes)? || checksum(&header[..5], &bytes) != header[5..] {
                return Ok(Next::Nothing);
            }
        } else if file.metadata()?.len() < self.position + (HEADER_BYTES + length) as u64 {
            return Ok(Next::Nothing);
        }
        self.position += (HEADER_BYTES + length) as u64;
        Ok(Next::Frame { stream, bytes, length: length as u64 })
    }
}

/// Whether the file had enough bytes.
fn read_whole(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
