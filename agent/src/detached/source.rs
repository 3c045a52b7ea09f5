//! Output on its way from the disk into reports: which bytes come next, and where they are.

use std::collections::VecDeque;
use std::io;

use muster_protocol::limits::OUTPUT_CHUNK_BYTES_MAX;
use muster_protocol::{OutputChunk, OutputStream};

use super::cursor::{Place, Sent};
use super::directory::{ActionDirectory, Totals};
use super::output::{Next, OutputReader};
use crate::report::OutputBuffer;

/// Most bytes of each stream that wait in memory: a full chunk, and a frame that came on top.
const BUFFER_BYTES_MAX: usize = 2 * OUTPUT_CHUNK_BYTES_MAX;

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

/// Output of one action, read in order.
#[derive(Debug)]
pub(crate) struct Source {
    directory: ActionDirectory,
    reader: OutputReader,
    /// Bytes of the streams before the reader.
    read: Totals,
    /// Bytes that were taken, or that nobody wants.
    taken: Totals,
    buffer: OutputBuffer,
    /// Frames with bytes that were read and not taken, oldest first, and where each ends in its stream.
    waiting: VecDeque<(Place, OutputStream, u64)>,
    skipped: bool,
}

/// Output for one report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Portion {
    pub(crate) chunks: Vec<OutputChunk>,
    pub(crate) place: Place,
    pub(crate) from: Totals,
    pub(crate) to: Totals,
}

impl Source {
    /// From a place on, without what lies before `taken`.
    pub(crate) fn open(directory: &ActionDirectory, place: Place, taken: Totals) -> io::Result<Self> {
        Ok(Self {
            directory: directory.clone(),
            reader: OutputReader::open(&directory.output(), place.position)?,
            read: place.at,
            taken,
            buffer: OutputBuffer::starting_at(BUFFER_BYTES_MAX, taken),
            waiting: VecDeque::new(),
            skipped: false,
        })
    }

    /// From the beginning.
    pub(crate) fn beginning(directory: &ActionDirectory) -> io::Result<Self> {
        Self::open(directory, Place::default(), Totals::default())
    }

    /// From behind a report on.
    pub(crate) fn behind(directory: &ActionDirectory, sent: &Sent) -> io::Result<Self> {
        let mut source = Self::open(directory, sent.place, sent.to)?;
        source.skipped = sent.skipped;
        Ok(source)
    }

    /// The output of a report that was made before, from where it was.
    pub(crate) fn again(directory: &ActionDirectory, sent: &Sent) -> io::Result<Vec<OutputChunk>> {
        let mut source = Self::open(directory, sent.place, sent.from)?;
        let missing = |taken: Totals| STREAMS.iter().any(|stream| taken.of(*stream) < sent.to.of(*stream));
        let mut chunks = Vec::new();
        let mut pieces = [Vec::new(), Vec::new()];
        while missing(source.read) {
            let Next::Frame { stream, bytes, length } = source.reader.next(true)? else { break };
            let start = source.read.of(stream);
            source.read.add(stream, length);
            let begin = sent.from.of(stream).saturating_sub(start).min(length);
            let end = sent.to.of(stream).saturating_sub(start).min(length);
            if begin < end {
                let range = usize::try_from(begin).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
                pieces[index(stream)].extend_from_slice(&bytes[range]);
            }
        }
        for stream in STREAMS {
            let bytes = std::mem::take(&mut pieces[index(stream)]);
            if !bytes.is_empty() {
                chunks.push(crate::report::chunk(stream, sent.from.of(stream), bytes));
            }
        }
        Ok(chunks)
    }

    /// Reads until a chunk is full or nothing more is there. Returns whether it stopped for the latter.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        if !self.reader.has_file() {
            self.reader = OutputReader::open(&self.directory.output(), self.reader.position())?;
        }
        while !self.buffer.is_full() {
            let place = self.here();
            let Next::Frame { stream, bytes, length } = self.reader.next(true)? else { return Ok(true) };
            let start = self.read.of(stream);
            self.read.add(stream, length);
            let wanted_from = self.taken.of(stream).saturating_sub(start).min(length);
            if wanted_from < length {
                self.buffer.push(stream, &bytes[usize::try_from(wanted_from).unwrap_or(0)..]);
                self.waiting.push_back((place, stream, start + length));
            }
        }
        Ok(false)
    }

    fn here(&self) -> Place {
        Place { position: self.reader.position(), at: self.read }
    }

    /// Whether a chunk is full.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.is_full()
    }

    /// Whether nothing waits in memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether output was left out.
    pub(crate) fn has_skipped(&self) -> bool {
        self.skipped
    }

    /// Bytes of the file that were not read yet.
    pub(crate) fn behind_bytes(&self) -> io::Result<u64> {
        Ok(self.reader.length()?.saturating_sub(self.reader.position()))
    }

    /// Takes what the next report carries. While more may come the beginning of a character at the end waits
    /// for the rest of it.
    pub(crate) fn take(&mut self, last: bool) -> Portion {
        while let Some((_, stream, end)) = self.waiting.front()
            && *end <= self.taken.of(*stream)
        {
            self.waiting.pop_front();
        }
        let place = self.waiting.front().map_or(self.here(), |(place, ..)| *place);
        let from = self.taken;
        let chunks = self.buffer.take(last);
        self.taken = self.buffer.offsets();
        Portion { chunks, place, from, to: self.taken }
    }

    /// Leaves out output until at most `behind_max` bytes of the file are left to read.
    pub(crate) fn skip(&mut self, behind_max: u64) -> io::Result<()> {
        let before = self.reader.position();
        while self.behind_bytes()? > behind_max {
            let Next::Frame { stream, length, .. } = self.reader.next(false)? else { break };
            self.read.add(stream, length);
        }
        if self.reader.position() > before {
            self.skipped = true;
            self.forget();
        }
        Ok(())
    }

    /// Leaves out all output that is there now.
    pub(crate) fn skip_to_end(&mut self) -> io::Result<()> {
        while let Next::Frame { stream, length, .. } = self.reader.next(false)? {
            self.read.add(stream, length);
        }
        self.forget();
        Ok(())
    }

    /// Drops what waits in memory: it was left out too.
    fn forget(&mut self) {
        self.taken = self.read;
        self.buffer = OutputBuffer::starting_at(BUFFER_BYTES_MAX, self.taken);
        self.waiting.clear();
    }
}

/// How much output is on disk.
pub(crate) fn total(directory: &ActionDirectory) -> io::Result<Totals> {
    let mut source = Source::beginning(directory)?;
    source.skip_to_end()?;
    Ok(source.read)
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::Engine as _;
    use muster_protocol::Encoding;
    use proptest::prelude::*;

    use super::*;
    use crate::detached::output::OutputWriter;

    fn bytes(chunk: &OutputChunk) -> Vec<u8> {
        match chunk.encoding {
            Encoding::Text => chunk.data.clone().into_bytes(),
            Encoding::Base64 => base64::engine::general_purpose::STANDARD.decode(&chunk.data).unwrap(),
        }
    }

    fn action() -> (tempfile::TempDir, ActionDirectory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = ActionDirectory::at(folder.path());
        (folder, directory)
    }

    proptest! {
        /// However output comes and wherever the agent is restarted: put together, the reports carry every byte
        /// once, and a report that is made again is the same.
        #[test]
        fn every_byte_once_across_restarts(
            pieces in proptest::collection::vec(
                (any::<bool>(), 0_usize..3, 1_usize..90_000, any::<bool>(), any::<bool>()), 1..12),
        ) {
            let (_folder, directory) = action();
            let mut writer = OutputWriter::create(&directory.output(), u64::MAX).unwrap();
            let mut source = Source::beginning(&directory).unwrap();
            let mut written = [Vec::new(), Vec::new()];
            let mut carried = [Vec::new(), Vec::new()];
            let mut take_in = |portion: &Portion| {
                for chunk in &portion.chunks {
                    let stream = index(chunk.stream);
                    assert_eq!(chunk.offset as usize, carried[stream].len());
                    carried[stream].extend(bytes(chunk));
                }
            };
            for (second, kind, length, take, restart) in pieces {
                let stream = if second { OutputStream::Stderr } else { OutputStream::Stdout };
                let unit: &[u8] = [&b"a"[..], "grüße ✓".as_bytes(), &[0xff, 0, 0xc3]][kind];
                let piece: Vec<u8> = unit.iter().copied().cycle().take(length).collect();
                writer.write(stream, &piece);
                written[index(stream)].extend(piece);
                if !take {
                    continue;
                }
                source.fill().unwrap();
                let portion = source.take(false);
                take_in(&portion);
                let Portion { place, from, to, .. } = portion;
                let sent = Sent { sequence: 1, place, from, to, skipped: false, last: false };
                let again = Source::again(&directory, &sent).unwrap();
                prop_assert_eq!(
                    again.iter().map(|it| (it.stream, it.offset, bytes(it))).collect::<Vec<_>>(),
                    portion.chunks.iter().map(|it| (it.stream, it.offset, bytes(it))).collect::<Vec<_>>()
                );
                if restart {
                    source = Source::behind(&directory, &sent).unwrap();
                }
            }
            loop {
                let at_end = source.fill().unwrap();
                let portion = source.take(at_end);
                take_in(&portion);
                if at_end && source.is_empty() {
                    break;
                }
            }
            prop_assert!(carried == written);
        }
    }

    #[test]
    fn what_is_left_out_shows_in_the_offsets() {
        let (_folder, directory) = action();
        let mut writer = OutputWriter::create(&directory.output(), u64::MAX).unwrap();
        let mut source = Source::beginning(&directory).unwrap();
        for _ in 0..10 {
            writer.write(OutputStream::Stdout, &[b'x'; 1000]);
        }
        source.fill().unwrap();
        for _ in 0..10 {
            writer.write(OutputStream::Stdout, &[b'y'; 1000]);
        }
        source.skip(3_100).unwrap();
        assert!(source.fill().unwrap() && source.has_skipped());
        let portion = source.take(false);
        assert_eq!((portion.chunks[0].offset, portion.chunks[0].data.len()), (17_000, 3_000));
        assert_eq!(fs::metadata(directory.output()).unwrap().len(), source.here().position);
        let mut live = Source::beginning(&directory).unwrap();
        live.skip_to_end().unwrap();
        writer.write(OutputStream::Stderr, b"new");
        live.fill().unwrap();
        let portion = live.take(true);
        assert_eq!((portion.chunks.len(), portion.chunks[0].data.as_str(), portion.from.stdout), (1, "new", 20_000));
    }
}
