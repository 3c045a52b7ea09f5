//! The output of one host, put together from chunks in any order and never more than a bound.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::{Encoding, OutputChunk, OutputStream};

use crate::aside::{Aside, Piece};

/// Most separate pieces kept of one stream. A host that writes normally makes one; the bound is
/// against a host that sends every second byte.
const FRAGMENTS_MAX: usize = 1024;

/// All streams of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    streams: BTreeMap<OutputStream, StreamOutput>,
}

impl Output {
    /// Puts a chunk into its place. Bytes at or beyond `bytes_max` of a stream are counted, not kept.
    pub fn insert(&mut self, chunk: &OutputChunk, bytes_max: usize) {
        let stream = self.streams.entry(chunk.stream).or_default();
        match chunk.encoding {
            Encoding::Text => stream.insert(chunk.offset, chunk.data.as_bytes(), bytes_max),
            Encoding::Base64 => match BASE64.decode(&chunk.data) {
                Ok(bytes) => stream.insert(chunk.offset, &bytes, bytes_max),
                Err(_) => stream.unreadable_chunks = stream.unreadable_chunks.saturating_add(1),
            },
        }
    }

    /// Takes a chunk's place for the beginning of its stream, if nothing came before.
    pub fn begin_at(&mut self, chunk: &OutputChunk) {
        self.streams
            .entry(chunk.stream)
            .or_insert_with(|| StreamOutput { base: chunk.offset, ..StreamOutput::default() });
    }

    /// One stream, if the host wrote anything to it.
    #[must_use]
    pub fn stream(&self, stream: OutputStream) -> Option<&StreamOutput> {
        self.streams.get(&stream)
    }

    /// Whether nothing came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Sets aside what has become long: pieces of `piece_bytes` and more, and all of them where a stream holds more than
    /// `held_bytes_max` in memory.
    ///
    /// # Errors
    /// What could not be set aside is still here.
    pub fn set_aside(&mut self, aside: &Aside, piece_bytes: usize, held_bytes_max: usize) -> io::Result<()> {
        self.streams.values_mut().try_for_each(|stream| stream.set_aside(aside, piece_bytes, held_bytes_max))
    }

    /// How many bytes it holds in memory.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.streams.values().map(StreamOutput::held_bytes).sum()
    }
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fragment {
    /// In memory, and grows.
    Held(VecDeque<u8>),
    /// Set aside, in parts one behind the other.
    Aside { parts: Vec<Piece>, length: u64 },
}

impl Fragment {
    fn len(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::Aside { length, .. } => *length,
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Held(bytes) => bytes.len(),
            Self::Aside { .. } => 0,
        }
    }

    /// Its bytes; none if they cannot be read back.
    fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Held(bytes) => Some(contiguous(bytes)),
            Self::Aside { parts, .. } => {
                let mut all = Vec::new();
                for part in parts {
                    match part.read() {
                        Ok(bytes) => all.extend(bytes),
                        Err(error) => {
                            tracing::warn!(%error, "Output that was set aside cannot be read back");
                            return None;
                        }
                    }
                }
                Some(Cow::Owned(all))
            }
        }
    }
}

/// One stream of one host: what came of its first bytes, and how long it is known to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamOutput {
    /// Pieces by offset: not touching, not overlapping, none beyond the bound.
    fragments: BTreeMap<u64, Fragment>,
    /// Offset of the first byte that was asked for; all others count from it.
    base: u64,
    end: u64,
    unreadable_chunks: u32,
}

impl StreamOutput {
    fn insert(&mut self, offset: u64, bytes: &[u8], bytes_max: usize) {
        let before = to_index(self.base.saturating_sub(offset)).min(bytes.len());
        let (offset, bytes) = (offset.saturating_sub(self.base), &bytes[before..]);
        let end = offset.saturating_add(bytes.len() as u64);
        self.end = self.end.max(end);
        let bound = bytes_max as u64;
        let mut at = offset;
        let stop = end.min(bound);
        // Fill only the holes: a byte that is there stays, so a repeat changes nothing.
        while at < stop {
            let covered_to = self
                .fragments
                .range(..=at)
                .next_back()
                .map(|(start, piece)| start + piece.len())
                .filter(|piece_end| *piece_end > at);
            if let Some(piece_end) = covered_to {
                at = piece_end;
                continue;
            }
            let hole_end = self.fragments.range(at..).next().map_or(stop, |(start, _)| (*start).min(stop));
            let (from, to) = (to_index(at - offset), to_index(hole_end - offset));
            self.put(at, &bytes[from..to]);
            at = hole_end;
        }
    }

    /// Adds a piece that fits into a hole, joining it with neighbours it touches. Of the pieces that become one, the
    /// largest stays where it is and takes the others in, at either end: a host that writes its output backwards,
    /// byte by byte, must not make us move all of it for every byte.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let before = self
            .fragments
            .range(..offset)
            .next_back()
            .filter(|(start, piece)| matches!(piece, Fragment::Held(_)) && **start + piece.len() == offset)
            .map(|(start, _)| *start);
        let after = matches!(self.fragments.get(&end), Some(Fragment::Held(_)));
        if before.is_none() && !after && self.fragments.len() >= FRAGMENTS_MAX {
            return;
        }
        let mut take = |start: u64| match self.fragments.remove(&start) {
            Some(Fragment::Held(bytes)) => bytes,
            _ => VecDeque::new(),
        };
        let follower = if after { take(end) } else { VecDeque::new() };
        let (start, mut piece) = before.map_or((offset, VecDeque::new()), |start| (start, take(start)));
        if piece.len() >= follower.len() {
            piece.extend(bytes);
            piece.extend(follower);
        } else {
            let mut whole = follower;
            prepend(&mut whole, bytes.iter().copied().rev());
            prepend(&mut whole, piece.into_iter().rev());
            piece = whole;
        }
        self.fragments.insert(start, Fragment::Held(piece));
    }

    fn set_aside(&mut self, aside: &Aside, piece_bytes: usize, held_bytes_max: usize) -> io::Result<()> {
        let least = if self.held_bytes() > held_bytes_max { 1 } else { piece_bytes.max(1) };
        let long = |piece: &Fragment| matches!(piece, Fragment::Held(bytes) if bytes.len() >= least);
        let starts: Vec<u64> =
            self.fragments.iter().filter(|(_, piece)| long(piece)).map(|(start, _)| *start).collect();
        for start in starts {
            let Some(Fragment::Held(bytes)) = self.fragments.get(&start) else { continue };
            let (part, length) = (aside.put(&contiguous(bytes))?, bytes.len() as u64);
            self.fragments.remove(&start);
            // Neighbours that are set aside become one, or a long stream would be cut by the number of its pieces.
            match self.fragments.range_mut(..start).next_back() {
                Some((before, Fragment::Aside { parts, length: known })) if before + *known == start => {
                    parts.push(part);
                    *known += length;
                }
                _ => {
                    self.fragments.insert(start, Fragment::Aside { parts: vec![part], length });
                }
            }
        }
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        self.fragments.values().map(Fragment::held).sum()
    }

    /// How many bytes the host is known to have written, counted from the first that was asked for.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.end
    }

    /// How many of them are not here: lost on the way, or beyond the bound.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.end - self.fragments.values().map(Fragment::len).sum::<u64>()
    }

    /// Chunks that were not the base64 they claimed to be.
    #[must_use]
    pub fn unreadable_chunks(&self) -> u32 {
        self.unreadable_chunks
    }

    /// The bytes up to the first one that is missing.
    #[must_use]
    pub fn beginning(&self) -> Cow<'_, [u8]> {
        let mut all = Cow::Borrowed(&[][..]);
        let mut at = 0;
        for (start, piece) in &self.fragments {
            let Some(bytes) = piece.bytes().filter(|_| *start == at) else { break };
            at = start + piece.len();
            if all.is_empty() { all = bytes } else { all.to_mut().extend_from_slice(&bytes) }
        }
        all
    }

    /// The text as far as it is here. Bytes that are not UTF-8 become the replacement character,
    /// and every hole becomes a line that says how much is missing.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut row: Vec<u8> = Vec::new();
        let mut at = 0;
        for (start, piece) in &self.fragments {
            let Some(bytes) = piece.bytes() else { continue };
            if *start > at {
                text.push_str(&String::from_utf8_lossy(&row));
                row.clear();
                push_hole(&mut text, start - at);
            }
            // A letter of several bytes may begin in one piece and end in the next.
            row.extend_from_slice(&bytes);
            at = start + piece.len();
        }
        text.push_str(&String::from_utf8_lossy(&row));
        push_hole(&mut text, self.end - at);
        text
    }
}

/// Puts bytes in front, the last one first.
fn prepend(piece: &mut VecDeque<u8>, backwards: impl ExactSizeIterator<Item = u8>) {
    piece.reserve(backwards.len());
    backwards.for_each(|byte| piece.push_front(byte));
}

/// The bytes of a piece in one row; copied only where it has grown at its front.
fn contiguous(piece: &VecDeque<u8>) -> Cow<'_, [u8]> {
    match piece.as_slices() {
        (all, []) => Cow::Borrowed(all),
        (first, second) => Cow::Owned([first, second].concat()),
    }
}

fn push_hole(text: &mut String, bytes: u64) {
    if bytes > 0 {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("[{bytes} bytes missing]\n"));
    }
}

/// Offsets inside a chunk, whose length is a `usize`.
fn to_index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_chunk(offset: u64, data: &str) -> OutputChunk {
        OutputChunk { stream: OutputStream::Stdout, offset, encoding: Encoding::Text, data: data.to_owned() }
    }

    #[track_caller]
    fn check(chunks: &[(u64, &str)], bytes_max: usize, expected: &str, missing: u64) {
        let mut output = Output::default();
        for (offset, data) in chunks {
            output.insert(&text_chunk(*offset, data), bytes_max);
        }
        let stream = output.stream(OutputStream::Stdout).expect("something was written");
        assert_eq!(stream.text(), expected);
        assert_eq!(stream.missing_bytes(), missing);
    }

    #[test]
    fn chunks_join_by_offset() {
        check(&[(0, "one "), (4, "two")], 100, "one two", 0);
        check(&[(4, "two"), (0, "one ")], 100, "one two", 0);
        check(&[(0, "one "), (0, "one "), (4, "two")], 100, "one two", 0);
        check(&[(0, "one two"), (2, "e tw"), (5, "wo three")], 100, "one two three", 0);
        check(&[(4, "c"), (2, "b"), (0, "a"), (0, "a?b?c")], 100, "a?b?c", 0);
    }

    #[test]
    fn what_is_missing_is_said() {
        check(&[(0, "one\n"), (10, "two\n")], 100, "one\n[6 bytes missing]\ntwo\n", 6);
        check(&[(5, "late")], 100, "[5 bytes missing]\nlate", 5);
        check(&[(0, "0123456789")], 4, "0123\n[6 bytes missing]\n", 6);
        check(&[(100, "x")], 4, "[101 bytes missing]\n", 101);
    }

    #[test]
    fn a_stream_that_is_joined_later_has_no_hole_in_front() {
        let mut output = Output::default();
        for (offset, data) in [(100, "two\n"), (96, "one\ntw"), (104, "three\n")] {
            output.begin_at(&text_chunk(offset, data));
            output.insert(&text_chunk(offset, data), 100);
        }
        let stream = output.stream(OutputStream::Stdout).unwrap();
        assert_eq!((stream.text().as_str(), stream.length(), stream.missing_bytes()), ("two\nthree\n", 10, 0));
    }

    #[test]
    fn an_offset_at_the_end_of_the_world_is_harmless() {
        let mut output = Output::default();
        output.insert(&text_chunk(u64::MAX, "abc"), 100);
        assert_eq!(output.stream(OutputStream::Stdout).unwrap().length(), u64::MAX);
    }

    #[test]
    fn bytes_that_are_not_text_travel_as_base64() {
        let mut output = Output::default();
        let chunk = |data: &str| OutputChunk { encoding: Encoding::Base64, ..text_chunk(0, data) };
        output.insert(&chunk("not base64!"), 100);
        output.insert(&chunk("/0E="), 100);
        let stream = output.stream(OutputStream::Stdout).unwrap();
        assert_eq!((stream.text().as_str(), stream.unreadable_chunks()), ("\u{fffd}A", 1));
    }

    #[test]
    fn a_host_that_sends_every_second_byte_is_bounded() {
        let mut stream = StreamOutput::default();
        for at in 0..100_000u64 {
            stream.insert(at * 2, b"x", 1 << 20);
        }
        assert_eq!(stream.fragments.len(), FRAGMENTS_MAX);
    }

    /// Before, each of these moved everything that had come so far: a report of one megabyte took minutes.
    #[test]
    fn output_that_comes_backwards_byte_by_byte_is_put_together_in_time() {
        const BYTES: u64 = 4 << 20;
        let mut stream = StreamOutput::default();
        for at in (0..BYTES).rev() {
            stream.insert(at, &[b'a' + u8::try_from(at % 26).unwrap()], 64 << 20);
        }
        assert_eq!((stream.fragments.len(), stream.missing_bytes()), (1, 0));
        assert!(stream.beginning().iter().zip(0u64..).all(|(byte, at)| u64::from(*byte) == u64::from(b'a') + at % 26));
    }

    /// A piece is put aside as soon as it is long, so nothing of it may depend on when that happens.
    #[test]
    fn what_is_set_aside_is_still_there() {
        let directory = tempfile::tempdir().unwrap();
        let aside = Aside::new(directory.path().to_owned(), 0, u64::MAX);
        let mut output = Output::default();
        let text: String = (0..2_000).map(|n| format!("{n:04},")).collect();
        for (n, start) in (0..text.len()).step_by(100).enumerate() {
            let end = (start + 100).min(text.len());
            // Every third piece is late, and some come twice.
            if n % 3 != 1 {
                output.insert(&text_chunk(start as u64, &text[start..end]), 1 << 20);
            }
            output.set_aside(&aside, 150, 1_000).unwrap();
        }
        let stream = output.stream(OutputStream::Stdout).unwrap();
        assert!(stream.missing_bytes() > 3_000 && output.held_bytes() <= 1_000 && aside.file_bytes() > 5_000);
        for start in (0..text.len()).step_by(100) {
            output.insert(&text_chunk(start as u64, &text[start..(start + 100).min(text.len())]), 1 << 20);
            output.set_aside(&aside, 150, 1_000).unwrap();
        }
        let stream = output.stream(OutputStream::Stdout).unwrap();
        assert_eq!((stream.missing_bytes(), stream.text()), (0, text.clone()));
        assert_eq!(stream.beginning(), text.as_bytes());
    }

    #[test]
    fn a_letter_that_is_cut_by_pieces_is_whole_again() {
        let directory = tempfile::tempdir().unwrap();
        let aside = Aside::new(directory.path().to_owned(), 1_000, 0);
        let mut stream = StreamOutput::default();
        stream.insert(0, &[b'a', 0xc3], 100);
        stream.set_aside(&aside, 1, 0).unwrap();
        stream.insert(2, &[0xbc, b'b'], 100);
        assert_eq!((stream.text().as_str(), stream.beginning().len()), ("a\u{fc}b", 4));
    }

    proptest! {
        #[test]
        fn order_and_repeats_do_not_matter(
            text in "[a-z\n]{1,200}",
            cuts in proptest::collection::vec((0usize..200, 1usize..60), 1..20),
            bytes_max in 1usize..250,
            seed in any::<u64>(),
        ) {
            let pieces: Vec<OutputChunk> = cuts
                .iter()
                .filter(|(start, _)| *start < text.len())
                .map(|(start, length)| text_chunk(*start as u64, &text[*start..(start + length).min(text.len())]))
                .collect();
            let mut other = pieces.clone();
            other.extend(pieces.clone());
            let count = other.len() as u64;
            other.sort_by_key(|piece| (piece.offset.wrapping_mul(seed | 1) % count.max(1), piece.data.len()));
            let (mut left, mut right) = (Output::default(), Output::default());
            pieces.iter().for_each(|piece| left.insert(piece, bytes_max));
            other.iter().for_each(|piece| right.insert(piece, bytes_max));
            prop_assert_eq!(left, right);
        }
    }
}
