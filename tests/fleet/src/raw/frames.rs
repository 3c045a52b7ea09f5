//! Frames to send, written before the clock runs.

use std::collections::BTreeMap;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::basic::{self, AMQPProperties};
use amq_protocol::protocol::{AMQPClass, channel, queue};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};
use anyhow::{Context as _, Result};
use muster_bus::Outgoing;
use muster_protocol::envelope::SIGNATURES_HEADER;

/// The only channel that is used.
pub(super) const CHANNEL: u16 = 1;

/// Type, channel, size and end of a frame.
const FRAME_OVERHEAD: usize = 8;

/// Class `basic`.
const CLASS_BASIC: u16 = 60;

/// Appends a frame.
pub(super) fn write(into: Vec<u8>, frame: &AMQPFrame) -> Result<Vec<u8>> {
    let written = gen_frame(frame)(WriteContext::from(into)).context("write a frame")?;
    Ok(written.into_inner().0)
}

/// A short string, if it is one.
pub(super) fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).with_context(|| format!("`{text}` is too long for AMQP"))
}

/// What a connection reads from.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) queue: String,
    pub(super) exchange: &'static str,
    pub(super) keys: Vec<String>,
    /// An agent's outlives everything, a controller's only lives with its connection.
    pub(super) durable: bool,
}

impl Subscription {
    /// Opens the channel, declares, binds and consumes, all at once: only the end has an answer worth waiting for. Without
    /// acknowledgements, which is the least that a broker can be asked to do.
    pub(super) fn frames(&self) -> Result<Vec<AMQPFrame>> {
        let mut methods = vec![
            AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
            AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                queue: short(&self.queue)?,
                passive: false,
                durable: self.durable,
                exclusive: !self.durable,
                auto_delete: !self.durable,
                nowait: true,
                arguments: FieldTable::default(),
            })),
        ];
        for key in &self.keys {
            methods.push(AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                queue: short(&self.queue)?,
                exchange: short(self.exchange)?,
                routing_key: short(key)?,
                nowait: true,
                arguments: FieldTable::default(),
            })));
        }
        methods.push(AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
            queue: short(&self.queue)?,
            consumer_tag: short("")?,
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
            arguments: FieldTable::default(),
        })));
        Ok(methods.into_iter().map(|method| AMQPFrame::Method(CHANNEL, method)).collect())
    }
}

/// The method and the header of a message like this one, from `user` with this key: what differs from host to host.
pub(super) fn head(message: &Outgoing, user: &str, key: &str) -> Result<Vec<u8>> {
    let publish = basic::Publish {
        exchange: short(message.exchange)?,
        routing_key: short(key)?,
        mandatory: message.mandatory,
        immediate: false,
    };
    let method = AMQPFrame::Method(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    let header = AMQPContentHeader {
        class_id: CLASS_BASIC,
        body_size: u64::try_from(message.body.len())?,
        properties: properties(message, user)?,
    };
    write(write(Vec::new(), &method)?, &AMQPFrame::Header(CHANNEL, header))
}

/// The properties that the bus would give it.
pub(super) fn properties(message: &Outgoing, user: &str) -> Result<AMQPProperties> {
    let mut properties = AMQPProperties::default()
        .with_content_type(short(&message.content_type)?)
        .with_delivery_mode(if message.persistent { 2 } else { 1 })
        .with_user_id(short(user)?);
    if !message.signatures.is_empty() {
        let signatures = AMQPValue::LongString(LongString::from(message.signatures.to_vec()));
        properties =
            properties.with_headers(FieldTable::from(BTreeMap::from([(short(SIGNATURES_HEADER)?, signatures)])));
    }
    if let Some(expiration_ms) = message.expiration_ms {
        properties = properties.with_expiration(short(&expiration_ms.to_string())?);
    }
    if let Some(correlation_id) = &message.correlation_id {
        properties = properties.with_correlation_id(short(correlation_id)?);
    }
    if message.mandatory {
        properties = properties.with_message_id(short("1")?);
    }
    Ok(properties)
}

/// The frames of a body, which are the same for all hosts.
pub(super) fn body(message: &[u8], frame_bytes_max: usize) -> Result<Vec<u8>> {
    let piece = frame_bytes_max.saturating_sub(FRAME_OVERHEAD).max(1);
    message.chunks(piece).try_fold(Vec::new(), |frames, piece| write(frames, &AMQPFrame::Body(CHANNEL, piece.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::scanner::{Message, Scanner};

    fn message(bytes: usize) -> Outgoing {
        Outgoing {
            exchange: "reply",
            routing_key: String::new(),
            content_type: "application/json".to_owned(),
            body: vec![b'{'; bytes].into(),
            signatures: b"[]".as_slice().into(),
            expiration_ms: Some(500),
            persistent: true,
            mandatory: true,
            correlation_id: Some("x".to_owned()),
        }
    }

    #[test]
    fn a_body_is_cut_into_frames_that_the_broker_takes() {
        // Body, largest frame, frames.
        for (bytes, frame_bytes_max, frames) in
            [(1, 4_096, 1), (4_088, 4_096, 1), (4_089, 4_096, 2), (65_536, 16_384, 5)]
        {
            let written = body(&vec![b'x'; bytes], frame_bytes_max).unwrap();
            assert_eq!(written.len(), bytes + frames * FRAME_OVERHEAD, "{bytes} bytes in frames of {frame_bytes_max}");
        }
        assert!(body(b"", 4_096).unwrap().is_empty(), "no body, no frame");
    }

    #[test]
    fn what_is_written_is_what_the_scanner_counts() {
        let message = message(10_000);
        let mut frames = head(&message, "host/a", "user/lea.1.a").unwrap();
        frames.extend(body(&message.body, 4_096).unwrap());
        let mut seen = Vec::new();
        Scanner::default().feed(&frames, |message| seen.push(message)).unwrap();
        assert_eq!(seen, [Message { first: b'{', bytes: 10_000 }]);
        let long = "k".repeat(256);
        assert!(head(&message, "host/a", &long).unwrap_err().to_string().contains("too long"));
    }
}
