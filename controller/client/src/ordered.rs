//! One stream of one host in the order it was written, while it comes.
//!
//! Pieces arrive with their offset, usually in order. One that comes too early waits for those before it,
//! up to a bound; then, or when the caller has waited long enough, the hole is given up and told.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_protocol::{Encoding, OutputChunk};

/// Most pieces that wait, however small they are: each costs more than its bytes.
const WAITING_MAX: usize = 4096;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Bytes that follow what came before.
    Bytes(Vec<u8>),
    /// So many bytes are not here: lost on the way, or unreadable.
    Missing(u64),
}

/// Puts the pieces of one stream into their order.
#[derive(Debug, Clone, Default)]
pub struct Ordered {
    /// Everything before was handed out; `None` until the first piece says where the stream begins.
    at: Option<u64>,
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_bytes: usize,
}

impl Ordered {
    /// A stream that begins with its first byte.
    #[must_use]
    pub fn from_start() -> Self {
        Self { at: Some(0), ..Self::default() }
    }

    /// A stream that begins wherever its first piece does: what was written before was not asked for.
    #[must_use]
    pub fn from_anywhere() -> Self {
        Self::default()
    }

    /// Takes a piece and hands out what is in order now. At most `hold_bytes` wait for an earlier piece.
    pub fn push(&mut self, chunk: &OutputChunk, hold_bytes: usize) -> Vec<Next> {
        let bytes = match chunk.encoding {
            Encoding::Text => chunk.data.clone().into_bytes(),
            // What is no base64 leaves a hole that the next piece tells.
            Encoding::Base64 => BASE64.decode(&chunk.data).unwrap_or_default(),
        };
        let at = *self.at.get_or_insert(chunk.offset);
        if bytes.is_empty() || chunk.offset.saturating_add(bytes.len() as u64) <= at {
            return Vec::new();
        }
        // The longer of two pieces with one offset says more.
        let known = self.waiting.get(&chunk.offset).map_or(0, Vec::len);
        if bytes.len() > known {
            self.waiting_bytes += bytes.len() - known;
            self.waiting.insert(chunk.offset, bytes);
        }
        let mut ready = Vec::new();
        self.drain(&mut ready);
        while self.waiting_bytes > hold_bytes || self.waiting.len() > WAITING_MAX {
            self.skip_hole(&mut ready);
            self.drain(&mut ready);
        }
        ready
    }

    /// Whether something waits for an earlier piece.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives up all holes and hands out what waits behind them.
    pub fn give_up(&mut self) -> Vec<Next> {
        let mut ready = Vec::new();
        while self.is_waiting() {
            self.skip_hole(&mut ready);
            self.drain(&mut ready);
        }
        ready
    }

    /// Hands out whatever waits and is in order.
    fn drain(&mut self, ready: &mut Vec<Next>) {
        let mut at = self.at.unwrap_or(0);
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > at {
                break;
            }
            let (offset, mut bytes) = entry.remove_entry();
            self.waiting_bytes -= bytes.len();
            let known = usize::try_from(at - offset).unwrap_or(usize::MAX);
            if known >= bytes.len() {
                continue;
            }
            bytes.drain(..known);
            at = at.saturating_add(bytes.len() as u64);
            match ready.last_mut() {
                Some(Next::Bytes(before)) => before.extend_from_slice(&bytes),
                _ => ready.push(Next::Bytes(bytes)),
            }
        }
        self.at = Some(at);
    }

    fn skip_hole(&mut self, ready: &mut Vec<Next>) {
        let Some(offset) = self.waiting.keys().next().copied() else { return };
        let at = self.at.unwrap_or(0);
        if offset > at {
            ready.push(Next::Missing(offset - at));
            self.at = Some(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::OutputStream;
    use proptest::prelude::*;

    use super::*;

    fn chunk(offset: u64, data: &str) -> OutputChunk {
        OutputChunk { stream: OutputStream::Stdout, offset, encoding: Encoding::Text, data: data.to_owned() }
    }

    fn text(next: &[Next]) -> String {
        let one = |next: &Next| match next {
            Next::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Next::Missing(bytes) => format!("<{bytes}>"),
        };
        next.iter().map(one).collect::<Vec<_>>().join("|")
    }

    #[track_caller]
    fn check(mut stream: Ordered, chunks: &[(u64, &str)], expected: &[&str], rest: &str) {
        let handed: Vec<String> =
            chunks.iter().map(|(offset, data)| text(&stream.push(&chunk(*offset, data), 10))).collect();
        assert_eq!(handed, expected);
        assert_eq!(text(&stream.give_up()), rest);
        assert!(!stream.is_waiting());
    }

    #[test]
    fn single_bytes_with_holes_between_do_not_pile_up() {
        let mut stream = Ordered::from_start();
        for at in 0..100_000u64 {
            stream.push(&chunk(1 + at * 2, "x"), 1 << 20);
            assert!(stream.waiting.len() <= WAITING_MAX);
        }
    }

    #[test]
    fn pieces_come_out_in_order_and_once() {
        let start = Ordered::from_start;
        check(start(), &[(0, "ab"), (2, "cd")], &["ab", "cd"], "");
        check(start(), &[(2, "cd"), (0, "ab")], &["", "abcd"], "");
        check(start(), &[(0, "ab"), (0, "ab"), (1, "bcd")], &["ab", "", "cd"], "");
        check(start(), &[(3, "d"), (3, "def"), (0, "abc")], &["", "", "abcdef"], "");
    }

    #[test]
    fn a_hole_is_told_and_not_waited_for_without_end() {
        let start = Ordered::from_start;
        check(start(), &[(0, "ab"), (5, "f")], &["ab", ""], "<3>|f");
        check(start(), &[(5, "fghij"), (20, "uvwxyz"), (0, "a")], &["", "<5>|fghij", ""], "<10>|uvwxyz");
        check(start(), &[(1, "0123456789abc"), (0, "x")], &["<1>|0123456789abc", ""], "");
    }

    #[test]
    fn a_stream_that_is_joined_later_begins_where_it_is() {
        check(Ordered::from_anywhere(), &[(100, "ab"), (50, "no"), (102, "c")], &["ab", "", "c"], "");
    }

    #[test]
    fn bytes_that_are_no_base64_are_a_hole() {
        let mut stream = Ordered::from_start();
        let broken = OutputChunk { encoding: Encoding::Base64, ..chunk(0, "!!") };
        assert_eq!(stream.push(&broken, 10), []);
        stream.push(&chunk(4, "e"), 10);
        assert_eq!(text(&stream.give_up()), "<4>|e");
    }

    proptest! {
        #[test]
        fn whatever_the_order_the_text_is_whole(text in "[a-z]{1,80}", cuts in proptest::collection::vec(0usize..80, 0..8), swaps in proptest::collection::vec((0usize..9, 0usize..9), 0..8)) {
            let mut places: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            places.sort_unstable();
            let mut chunks: Vec<OutputChunk> = places.windows(2).map(|pair| chunk(pair[0] as u64, &text[pair[0]..pair[1]])).collect();
            for (one, other) in swaps {
                let count = chunks.len();
                chunks.swap(one % count, other % count);
            }
            let mut stream = Ordered::from_start();
            let mut written = Vec::new();
            for piece in &chunks {
                written.extend(stream.push(piece, 1_000));
            }
            prop_assert!(!stream.is_waiting());
            let bytes: Vec<u8> = written.into_iter().flat_map(|next| match next { Next::Bytes(bytes) => bytes, Next::Missing(_) => vec![b'?'] }).collect();
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
        }

        #[test]
        fn it_never_holds_more_than_it_may(offsets in proptest::collection::vec((0u64..10_000, 1usize..50), 1..80), hold in 0usize..200) {
            let mut stream = Ordered::from_start();
            for (offset, length) in offsets {
                stream.push(&chunk(offset, &"x".repeat(length)), hold);
                prop_assert!(stream.waiting_bytes <= hold);
                prop_assert_eq!(stream.waiting_bytes, stream.waiting.values().map(Vec::len).sum::<usize>());
            }
        }
    }
}
