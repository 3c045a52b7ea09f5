//! Carries a program's output to where it is wanted, and its input to it.
//!
//! A pump reads a piece, keeps what is to be kept, and hands it to the sink before it reads the next
//! one. While the sink waits, the pipe fills up and the program waits: memory does not grow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use muster_plugin_api::{CancellationToken, OutputSink};
use muster_protocol::OutputStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::outcome::Captured;

/// Bytes of one piece of output at most.
const PIECE_BYTES: usize = 16 * 1024;

/// After so many looks at which the pumps were reading and not waiting for the sink, they have long read what was
/// in the pipes: what still comes is from a writer that lives on, however little it writes.
const UNHINDERED_LOOKS_MAX: u32 = 5;

/// Where the output of a program goes, shared by its two pumps.
#[derive(Debug)]
pub(super) struct Drain<'a> {
    pub(super) sink: Option<&'a OutputSink>,
    pub(super) kept_bytes_max: usize,
    /// Fires when the sink has had its time: output is then only counted and kept.
    pub(super) give_up: CancellationToken,
    pub(super) progress: Progress,
}

/// What the pumps are doing, for those who wait for them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    read_bytes: AtomicU64,
    unstreamed_bytes: AtomicU64,
    at_the_sink: [AtomicBool; 2],
}

impl Progress {
    /// Bytes read so far from both pipes.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the sink did not take in time.
    pub(super) fn unstreamed_bytes(&self) -> u64 {
        self.unstreamed_bytes.load(Ordering::Relaxed)
    }

    /// Ends when nothing was read for a time although nobody waited for the sink; or when more was read than can
    /// have been there, more than `bytes_max` or for longer than that takes: the writer is then one that lives on.
    pub(super) async fn quiet(&self, patience: Duration, bytes_max: u64) {
        let first = self.read_bytes();
        let mut before = first;
        let mut unhindered = 0;
        loop {
            tokio::time::sleep(patience).await;
            let now = self.read_bytes();
            let waits = self.at_the_sink.iter().any(|waits| waits.load(Ordering::Relaxed));
            unhindered = if waits { 0 } else { unhindered + 1 };
            if (now == before && !waits) || now - first > bytes_max || unhindered == UNHINDERED_LOOKS_MAX {
                return;
            }
            before = now;
        }
    }
}

impl Drain<'_> {
    /// Reads one stream to its end.
    pub(super) async fn pump<R: AsyncRead + Unpin>(
        &self,
        reader: Option<R>,
        stream: OutputStream,
        captured: &mut Captured,
    ) {
        let Some(mut reader) = reader else { return };
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            captured.push(&buffer[..count], self.kept_bytes_max);
            self.progress.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
            if let Some(sink) = self.sink {
                self.hand_over(sink, stream, buffer[..count].to_vec()).await;
            }
        }
    }

    async fn hand_over(&self, sink: &OutputSink, stream: OutputStream, piece: Vec<u8>) {
        let count = piece.len() as u64;
        let waits = &self.progress.at_the_sink[usize::from(stream == OutputStream::Stderr)];
        waits.store(true, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = sink.write(stream, piece) => {}
            () = self.give_up.cancelled() => {
                self.progress.unstreamed_bytes.fetch_add(count, Ordering::Relaxed);
            }
        }
        waits.store(false, Ordering::Relaxed);
    }
}

/// Gives a program its input and closes it. A program that does not want it all is no failure.
pub(super) async fn feed<W: AsyncWrite + Unpin>(writer: Option<W>, input: &[u8]) {
    if let Some(mut writer) = writer {
        let _not_wanted = writer.write_all(input).await;
        let _not_wanted = writer.shutdown().await;
    }
}
