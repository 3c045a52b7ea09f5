//! Output of a running action, collected into chunks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::limits::OUTPUT_CHUNK_BYTES_MAX;
use muster_protocol::{Encoding, OutputChunk, OutputStream};

use crate::detached::Totals;

/// Output that has come and has not been sent yet.
#[derive(Debug, Default)]
pub struct OutputBuffer {
    streams: [Stream; 2],
    /// Bytes that may be held; what comes beyond is counted and dropped.
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Stream {
    /// Position of the first byte of `pending` in the stream.
    offset: u64,
    pending: Vec<u8>,
    /// Bytes dropped behind `pending`.
    dropped: u64,
}

impl OutputBuffer {
    /// A buffer that holds at most `bytes_max` bytes of each stream at once.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { streams: Default::default(), bytes_max }
    }

    /// A buffer for output that begins at these positions in the streams.
    #[must_use]
    pub(crate) fn starting_at(bytes_max: usize, offsets: Totals) -> Self {
        let mut buffer = Self::new(bytes_max);
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            buffer.streams[index(stream)].offset = offsets.of(stream);
        }
        buffer
    }

    /// Positions in the streams of the first bytes that wait.
    #[must_use]
    pub(crate) fn offsets(&self) -> Totals {
        Totals { stdout: self.streams[0].offset, stderr: self.streams[1].offset }
    }

    /// Takes a piece of output.
    pub fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        let bytes_max = self.bytes_max;
        let stream = &mut self.streams[index(stream)];
        // Once something was dropped, what comes later must not stand right behind what came before.
        let room = if stream.dropped > 0 { 0 } else { bytes_max.saturating_sub(stream.pending.len()) };
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        stream.pending.extend_from_slice(kept);
        stream.dropped += dropped.len() as u64;
    }

    /// Whether a chunk is full, so that waiting for more is of no use.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.streams.iter().any(|stream| stream.pending.len() >= OUTPUT_CHUNK_BYTES_MAX)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(|stream| stream.pending.is_empty())
    }

    /// How much output there was in all, if some of it was dropped.
    #[must_use]
    pub fn truncated_from(&self) -> Option<u64> {
        let total: u64 = self.streams.iter().map(|s| s.offset + s.pending.len() as u64 + s.dropped).sum();
        self.streams.iter().any(|stream| stream.dropped > 0).then_some(total)
    }

    /// Takes at most one chunk of each stream. While more may come (`last` is false), the beginning of
    /// a character at the end waits for the rest of it, so that text stays text.
    pub fn take(&mut self, last: bool) -> Vec<OutputChunk> {
        let streams = [OutputStream::Stdout, OutputStream::Stderr];
        streams.into_iter().filter_map(|name| self.streams[index(name)].take(name, last)).collect()
    }
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

impl Stream {
    fn take(&mut self, stream: OutputStream, last: bool) -> Option<OutputChunk> {
        let mut length = self.pending.len().min(OUTPUT_CHUNK_BYTES_MAX);
        let is_end = last && length == self.pending.len();
        if !is_end && let Some(complete) = complete_characters(&self.pending[..length]) {
            length = complete;
        }
        if length == 0 {
            return None;
        }
        let bytes: Vec<u8> = self.pending.drain(..length).collect();
        let offset = self.offset;
        self.offset += length as u64;
        Some(chunk(stream, offset, bytes))
    }
}

/// Bytes of a stream as a chunk.
pub(crate) fn chunk(stream: OutputStream, offset: u64, bytes: Vec<u8>) -> OutputChunk {
    let (encoding, data) = match String::from_utf8(bytes) {
        Ok(text) => (Encoding::Text, text),
        Err(error) => (Encoding::Base64, BASE64.encode(error.as_bytes())),
    };
    OutputChunk { stream, offset, encoding, data }
}

/// Length of the bytes without an unfinished character at their end; `None` if they are not UTF-8 anyway.
fn complete_characters(bytes: &[u8]) -> Option<usize> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Some(bytes.len()),
        Err(error) if error.error_len().is_none() => Some(error.valid_up_to()),
        Err(_) => None,
    }
}
