//! Counts messages in a stream of frames without copying or understanding them.

use anyhow::{Result, bail};

/// Type, channel and size.
const FRAME_HEAD: usize = 7;

/// How much of a payload is looked at: class and method, or class, weight and size of the body.
const LOOKED_AT: usize = 12;

const FRAME_END: u8 = 0xce;
const FRAME_METHOD: u8 = 1;
const FRAME_HEADER: u8 = 2;
const FRAME_BODY: u8 = 3;
const FRAME_HEARTBEAT: u8 = 8;

/// Class `basic` with `publish`, and with `deliver`.
const BEGINS_MESSAGE: [(u16, u16); 2] = [(60, 40), (60, 60)];

/// A message that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// First byte of the body; 0 if it is empty.
    pub(super) first: u8,
    /// Bytes of the body.
    pub(super) bytes: u64,
}

/// Where in the stream we are.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Head of the current frame and what is looked at of its payload.
    seen: [u8; FRAME_HEAD + LOOKED_AT],
    seen_bytes: usize,
    /// Payload and end of the current frame that have not come yet, once its head has.
    left: usize,
    /// The message of which the header has come.
    message: Option<Message>,
    /// Bytes of its body that have not come yet.
    body_left: u64,
}

impl Scanner {
    /// Takes the next bytes and calls `each` for each message that is complete with them.
    ///
    /// # Errors
    /// The broker says something else than messages, such as that it closes the channel.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Message)) -> Result<()> {
        while !bytes.is_empty() {
            if self.seen_bytes < FRAME_HEAD {
                let taken = bytes.len().min(FRAME_HEAD - self.seen_bytes);
                self.seen[self.seen_bytes..self.seen_bytes + taken].copy_from_slice(&bytes[..taken]);
                self.seen_bytes += taken;
                bytes = &bytes[taken..];
                if self.seen_bytes == FRAME_HEAD {
                    let size = u32::from_be_bytes([self.seen[3], self.seen[4], self.seen[5], self.seen[6]]);
                    self.left = usize::try_from(size)? + 1;
                }
                continue;
            }
            let taken = bytes.len().min(self.left);
            let room = self.seen.len() - self.seen_bytes;
            let looked_at = taken.min(room);
            self.seen[self.seen_bytes..self.seen_bytes + looked_at].copy_from_slice(&bytes[..looked_at]);
            self.seen_bytes += looked_at;
            self.left -= taken;
            if self.left == 0 {
                if bytes[taken - 1] != FRAME_END {
                    bail!("a frame does not end where it should");
                }
                self.end_of_frame(&mut each)?;
                self.seen_bytes = 0;
            }
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn end_of_frame(&mut self, each: &mut impl FnMut(Message)) -> Result<()> {
        let payload = &self.seen[FRAME_HEAD..];
        let size = u32::from_be_bytes([self.seen[3], self.seen[4], self.seen[5], self.seen[6]]);
        match self.seen[0] {
            FRAME_METHOD if size < 4 => bail!("a method of {size} bytes"),
            FRAME_HEADER if size < 12 => bail!("a header of {size} bytes"),
            FRAME_METHOD => {
                let method =
                    (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
                if !BEGINS_MESSAGE.contains(&method) {
                    bail!("the broker says {}.{} in the middle of a measurement", method.0, method.1);
                }
            }
            FRAME_HEADER => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&payload[4..12]);
                self.body_left = u64::from_be_bytes(bytes);
                let message = Message { first: 0, bytes: self.body_left };
                if self.body_left == 0 {
                    each(message);
                } else {
                    self.message = Some(message);
                }
            }
            FRAME_BODY => {
                let Some(message) = &mut self.message else { bail!("a body without a header") };
                if self.body_left == message.bytes && size > 0 {
                    message.first = payload[0];
                }
                self.body_left = self.body_left.saturating_sub(u64::from(size));
                if self.body_left == 0 {
                    each(*message);
                    self.message = None;
                }
            }
            FRAME_HEARTBEAT => {}
            kind => bail!("frame of type {kind}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(FRAME_END);
        frame
    }

    fn delivery(bodies: &[&[u8]]) -> Vec<u8> {
        let size: usize = bodies.iter().map(|body| body.len()).sum();
        let mut bytes = frame(FRAME_METHOD, &[0, 60, 0, 60, 1, b'c', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let header = [&[0, 60, 0, 0], &u64::try_from(size).unwrap().to_be_bytes()[..], &[0, 0]].concat();
        bytes.extend(frame(FRAME_HEADER, &header));
        bodies.iter().for_each(|body| bytes.extend(frame(FRAME_BODY, body)));
        bytes
    }

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let stream =
            [delivery(&[b"abc"]), frame(FRAME_HEARTBEAT, b""), delivery(&[]), delivery(&[b"x", b"yz"])].concat();
        let expected =
            [Message { first: b'a', bytes: 3 }, Message { first: 0, bytes: 0 }, Message { first: b'x', bytes: 3 }];
        for piece in 1..=stream.len() {
            let mut seen = Vec::new();
            let mut scanner = Scanner::default();
            for bytes in stream.chunks(piece) {
                scanner.feed(bytes, |message| seen.push(message)).unwrap();
            }
            assert_eq!(seen, expected, "in pieces of {piece} bytes");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let mut cut = delivery(&[b"abc"]);
        *cut.last_mut().unwrap() = 0;
        let cases: [(&str, Vec<u8>, &str); 6] = [
            ("channel.close", frame(FRAME_METHOD, &[0, 20, 0, 40, 0, 0]), "20.40"),
            ("a body alone", frame(FRAME_BODY, b"abc"), "without a header"),
            ("an unknown frame", frame(5, b""), "type 5"),
            ("a short method", frame(FRAME_METHOD, &[0, 60]), "method of 2"),
            ("a short header", frame(FRAME_HEADER, &[0, 60, 0, 0]), "header of 4"),
            ("a wrong end", cut, "does not end"),
        ];
        for (what, bytes, why) in cases {
            let error = Scanner::default().feed(&bytes, |_| {}).unwrap_err().to_string();
            assert!(error.contains(why), "{what}: {error}");
        }
    }
}
