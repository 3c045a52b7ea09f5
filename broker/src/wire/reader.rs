//! Bytes to frames (AMQP 0-9-1 section 4.2.3).

use std::fmt::Write as _;

use crate::fault::Fault;
use crate::ids::ChannelNumber;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
pub(super) const END: u8 = 0xCE;

/// Type, channel and size.
const FRAME_HEADER_BYTES: usize = 7;

/// What a frame needs beside its payload.
pub(crate) const FRAME_EXTRA_BYTES: u32 = 8;

/// Bytes of a payload that a refusal shows.
const SHOWN_BYTES: usize = 16;

/// A frame, or a part of a content body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first eight bytes of a connection.
    ProtocolHeader([u8; 8]),
    /// A method with its arguments.
    Method {
        /// The channel.
        channel: ChannelNumber,
        /// Class, method, arguments.
        payload: &'a [u8],
    },
    /// A content header.
    ContentHeader {
        /// The channel.
        channel: ChannelNumber,
        /// Class, weight, size, properties.
        payload: &'a [u8],
    },
    /// Some of a content body's frame. Bodies are not kept here until their frame is complete, since whoever puts the
    /// content together keeps them anyway.
    Body {
        /// The channel.
        channel: ChannelNumber,
        /// What has come of the frame; never empty.
        payload: &'a [u8],
    },
    /// The end of a content body's frame.
    BodyEnd {
        /// The channel.
        channel: ChannelNumber,
    },
    /// A heartbeat.
    Heartbeat {
        /// The channel, which is to be 0.
        channel: ChannelNumber,
    },
}

/// Takes bytes as they come and gives frames. Keeps at most one incomplete frame.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// The beginning of a frame whose rest has not come.
    held: Vec<u8>,
    /// Whether `held` has been given out.
    given: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    ProtocolHeader,
    Frame,
    /// In a body's frame.
    Body {
        channel: ChannelNumber,
        size: usize,
        left: usize,
        /// The first bytes, for a refusal.
        first: [u8; SHOWN_BYTES],
    },
}

impl Reader {
    /// A reader at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that are kept for a frame whose rest has not come.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        if self.given { 0 } else { self.held.len() }
    }

    /// The next frame from what is kept and `bytes`, which moves on. `None` when more has to come; all of `bytes` is taken
    /// then.
    ///
    /// `frame_bytes_max` is what was agreed on. A frame's type and size are judged as soon as they are there.
    ///
    /// # Errors
    /// 501, after which the stream cannot be read any more.
    pub fn next<'s, 'b: 's>(
        &'s mut self,
        bytes: &mut &'b [u8],
        frame_bytes_max: u32,
    ) -> Result<Option<Frame<'s>>, Fault> {
        if std::mem::take(&mut self.given) {
            // Incomplete frames are rare, and a connection at rest is not to keep a buffer.
            self.held = Vec::new();
        }
        match self.state {
            State::ProtocolHeader => {
                if !self.fill(bytes, 8) {
                    return Ok(None);
                }
                self.state = State::Frame;
                let header = self.taken(bytes, 8).try_into().expect("eight bytes were taken");
                Ok(Some(Frame::ProtocolHeader(header)))
            }
            State::Frame => self.frame(bytes, frame_bytes_max),
            State::Body { .. } => self.body(bytes),
        }
    }

    fn frame<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8], frame_bytes_max: u32) -> Result<Option<Frame<'s>>, Fault> {
        if !self.fill(bytes, FRAME_HEADER_BYTES) {
            return Ok(None);
        }
        let header = if self.held.is_empty() { *bytes } else { &self.held };
        let kind = header[0];
        let channel = u16::from_be_bytes([header[1], header[2]]);
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) || (kind == HEARTBEAT && size > 0) {
            return Err(unreadable(kind, &[], "unknown_frame"));
        }
        // RabbitMQ forgets the eight bytes around the payload here, so clients may rely on it.
        if size > frame_bytes_max {
            let why = format!("{{frame_too_large,{size},{}}}", frame_bytes_max - FRAME_EXTRA_BYTES);
            return Err(unreadable(kind, &[], &why));
        }
        let size = usize::try_from(size).expect("bounded by the largest frame");
        if kind == BODY {
            let _ = self.taken(bytes, FRAME_HEADER_BYTES);
            self.state = State::Body { channel, size, left: size, first: [0; SHOWN_BYTES] };
            return self.body(bytes);
        }
        let whole = FRAME_HEADER_BYTES + size + 1;
        if !self.fill(bytes, whole) {
            return Ok(None);
        }
        let frame = self.taken(bytes, whole);
        let payload = &frame[FRAME_HEADER_BYTES..whole - 1];
        if frame[whole - 1] != END {
            return Err(bad_end(frame[whole - 1], &shortened(kind, payload)));
        }
        Ok(Some(match kind {
            METHOD => Frame::Method { channel, payload },
            HEADER => Frame::ContentHeader { channel, payload },
            _ => Frame::Heartbeat { channel },
        }))
    }

    fn body<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Fault> {
        // What was kept of the frame's header has been used.
        self.held = Vec::new();
        self.given = false;
        let State::Body { channel, size, left, first } = &mut self.state else { return Ok(None) };
        let channel = *channel;
        let (payload, rest) = bytes.split_at((*left).min(bytes.len()));
        // What is wrong with the end is found after the payload was given, however the bytes were cut.
        if !payload.is_empty() {
            for (to, octet) in first.iter_mut().skip(*size - *left).zip(payload) {
                *to = *octet;
            }
            *left -= payload.len();
            *bytes = rest;
            return Ok(Some(Frame::Body { channel, payload }));
        }
        let Some((end, after)) = rest.split_first().filter(|_| *left == 0) else { return Ok(None) };
        if *end != END {
            let text = described(BODY, &first[..(*size).min(SHOWN_BYTES)], *size > SHOWN_BYTES);
            return Err(bad_end(*end, &text));
        }
        *bytes = after;
        self.state = State::Frame;
        Ok(Some(Frame::BodyEnd { channel }))
    }

    /// Whether `count` bytes are there, in one piece: in `bytes` alone if nothing is kept, else in what is kept.
    fn fill(&mut self, bytes: &mut &[u8], count: usize) -> bool {
        if self.held.is_empty() && bytes.len() >= count {
            return true;
        }
        let missing = count.saturating_sub(self.held.len());
        let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
        self.held.extend_from_slice(taken);
        *bytes = rest;
        self.held.len() >= count
    }

    /// Takes what [`Self::fill`] found.
    fn taken<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8], count: usize) -> &'s [u8] {
        if self.held.is_empty() {
            let (taken, rest) = bytes.split_at(count);
            *bytes = rest;
            return taken;
        }
        self.given = true;
        &self.held[..count]
    }
}

fn bad_end(end: u8, frame: &str) -> Fault {
    Fault::frame_error(format_args!("{frame}: {{invalid_frame_end_marker,{end}}}"))
}

/// A frame that cannot be read, as RabbitMQ puts it.
pub(crate) fn unreadable(kind: u8, payload: &[u8], why: &str) -> Fault {
    Fault::frame_error(format_args!("{}: {why}", shortened(kind, payload)))
}

impl Frame<'_> {
    /// Refuses a frame that cannot be read, as RabbitMQ does.
    pub(crate) fn unknown(&self) -> Fault {
        let (kind, payload) = self.parts();
        unreadable(kind, payload, "unknown_frame")
    }

    /// Refuses a frame that cannot come now, as RabbitMQ does; but of a body's frame, which need not be complete, nothing is
    /// shown.
    pub(crate) fn unexpected(&self) -> Fault {
        match self {
            Self::Body { .. } | Self::BodyEnd { .. } => Fault::unexpected_frame(format_args!("type {BODY}")),
            _ => {
                let (kind, payload) = self.parts();
                Fault::unexpected_frame(shortened(kind, payload))
            }
        }
    }

    fn parts(&self) -> (u8, &[u8]) {
        match *self {
            Self::ProtocolHeader(_) => (b'A', &[]),
            Self::Method { payload, .. } => (METHOD, payload),
            Self::ContentHeader { payload, .. } => (HEADER, payload),
            Self::Body { payload, .. } => (BODY, payload),
            Self::BodyEnd { .. } => (BODY, &[]),
            Self::Heartbeat { .. } => (HEARTBEAT, &[]),
        }
    }
}

fn shortened(kind: u8, payload: &[u8]) -> String {
    described(kind, &payload[..payload.len().min(SHOWN_BYTES)], payload.len() > SHOWN_BYTES)
}

fn described(kind: u8, shown: &[u8], more: bool) -> String {
    let amount = if more { "first 16" } else { "all" };
    let mut text = format!("type {kind}, {amount} octets = <<");
    for (index, octet) in shown.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{octet}").expect("writing to a string succeeds");
    }
    text.push_str(">>");
    text
}
