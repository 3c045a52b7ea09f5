//! A channel as its session knows it: whether it is open, the last queue it declared, and the content that is coming in.

use amq_protocol::protocol::basic::Publish;

use crate::fault::Fault;
use crate::ids::ChannelNumber;
use crate::wire::Frame;
use crate::wire::header::ContentHeader;

/// Room that is made for a body before it has come. A peer that only announces gets no more.
const BODY_RESERVED_MAX: usize = 128 * 1024;

/// The class whose methods have content.
const BASIC: u16 = 60;

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: ChannelNumber,
    /// An exception was sent, and everything is ignored until it is answered.
    pub(super) closing: bool,
    /// The queue that an empty name means.
    pub(super) last_queue: String,
    expecting: Expecting,
}

#[derive(Debug)]
enum Expecting {
    Method,
    Header(Publish),
    Body(Box<Coming>),
}

/// A content that is not complete.
#[derive(Debug)]
struct Coming {
    publish: Publish,
    properties: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the body that have not come.
    left: u64,
    /// Nobody will have it: only its end matters.
    discarded: bool,
}

/// A content that is complete.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) publish: Publish,
    pub(super) properties: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// What a content frame did.
#[derive(Debug)]
pub(super) enum Assembled {
    /// More has to come.
    Incomplete,
    /// The body is larger than is allowed; what comes of it is discarded.
    TooLarge(u64),
    /// It is complete. `None` if it was discarded.
    Complete(Option<Content>),
}

impl Channel {
    pub(super) fn new(number: ChannelNumber) -> Self {
        Self { number, closing: false, last_queue: String::new(), expecting: Expecting::Method }
    }

    /// Whether a method may come now.
    ///
    /// # Errors
    /// 505 in the middle of a content.
    pub(super) fn check_method(&self) -> Result<(), Fault> {
        match self.expecting {
            Expecting::Method => Ok(()),
            Expecting::Header(_) => Err(no_header()),
            Expecting::Body(_) => Err(no_body()),
        }
    }

    /// `basic.publish` has come; its content follows.
    pub(super) fn expect_content(&mut self, publish: Publish) {
        self.expecting = Expecting::Header(publish);
    }

    /// Bytes that are kept for a content that is not complete.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.expecting {
            Expecting::Body(coming) => coming.properties.len() + coming.body.len(),
            Expecting::Method | Expecting::Header(_) => 0,
        }
    }

    /// Nothing of the content that is coming is wanted any more.
    pub(super) fn discard(&mut self) {
        if let Expecting::Body(coming) = &mut self.expecting {
            coming.discard();
        }
    }

    /// Takes a content header.
    ///
    /// # Errors
    /// 501 or 505 if it cannot come now.
    pub(super) fn header(&mut self, frame: &Frame<'_>, payload: &[u8], bytes_max: u64) -> Result<Assembled, Fault> {
        let publish = match std::mem::replace(&mut self.expecting, Expecting::Method) {
            Expecting::Header(publish) => publish,
            Expecting::Method => return Err(no_method()),
            Expecting::Body(_) => return Err(no_body()),
        };
        let header = ContentHeader::read(payload).map_err(|_| frame.unknown())?;
        if header.weight != 0 {
            return Err(no_header());
        }
        if header.class != BASIC {
            return Err(Fault::unexpected_frame(format_args!(
                "expected content header for class {BASIC}, got one for class {} instead",
                header.class
            )));
        }
        let mut coming = Coming {
            publish,
            properties: header.properties.to_vec(),
            body: Vec::new(),
            left: header.body_bytes,
            discarded: false,
        };
        let too_large = header.body_bytes > bytes_max;
        if self.closing || too_large {
            coming.discard();
        } else {
            coming.body.reserve_exact(usize::try_from(coming.left).unwrap_or(usize::MAX).min(BODY_RESERVED_MAX));
        }
        if coming.left == 0 {
            return Ok(Assembled::Complete(coming.complete()));
        }
        let announced = coming.left;
        self.expecting = Expecting::Body(Box::new(coming));
        Ok(if too_large && !self.closing { Assembled::TooLarge(announced) } else { Assembled::Incomplete })
    }

    /// Takes some of a content body's frame.
    ///
    /// # Errors
    /// 505 if none can come now, 501 if the body is longer than was announced.
    pub(super) fn body(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let coming = self.coming()?;
        let Some(left) = coming.left.checked_sub(payload.len() as u64) else {
            return Err(Fault::frame_error("a content body is longer than its header says"));
        };
        coming.left = left;
        if !coming.discarded {
            coming.body.extend_from_slice(payload);
        }
        Ok(())
    }

    /// Takes the end of a content body's frame.
    ///
    /// # Errors
    /// 505 if none can come now.
    pub(super) fn body_end(&mut self) -> Result<Assembled, Fault> {
        if self.coming()?.left > 0 {
            return Ok(Assembled::Incomplete);
        }
        match std::mem::replace(&mut self.expecting, Expecting::Method) {
            Expecting::Body(coming) => Ok(Assembled::Complete(coming.complete())),
            Expecting::Method | Expecting::Header(_) => Ok(Assembled::Incomplete),
        }
    }

    fn coming(&mut self) -> Result<&mut Coming, Fault> {
        match &mut self.expecting {
            Expecting::Body(coming) => Ok(coming),
            Expecting::Method => Err(no_method()),
            Expecting::Header(_) => Err(no_header()),
        }
    }
}

impl Coming {
    fn discard(&mut self) {
        self.discarded = true;
        self.properties = Vec::new();
        self.body = Vec::new();
    }

    fn complete(self) -> Option<Content> {
        let Self { publish, properties, body, discarded, .. } = self;
        (!discarded).then_some(Content { publish, properties, body })
    }
}

fn no_method() -> Fault {
    Fault::unexpected_frame("expected method frame, got non method frame instead")
}

fn no_header() -> Fault {
    Fault::unexpected_frame(format_args!(
        "expected content header for class {BASIC}, got non content header frame instead"
    ))
}

fn no_body() -> Fault {
    Fault::unexpected_frame("expected content body, got non content body frame instead")
}
