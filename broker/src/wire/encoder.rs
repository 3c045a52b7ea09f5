//! Outputs to bytes.

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{AMQPClass, basic, channel, gen_class};

use super::confirms::{Confirms, Run, Written};
use super::reader::{BODY, END, FRAME_EXTRA_BYTES, HEADER, HEARTBEAT, METHOD};
use crate::ids::ChannelNumber;
use crate::message::Message;
use crate::outlet::Output;

const BASIC: u16 = 60;

/// What was agreed on with a client about what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The largest frame in bytes, header and end included.
    pub frame_bytes_max: u32,
    /// Whether it wants to hear that a consumer is gone (`consumer_cancel_notify`).
    pub cancel_notify: bool,
}

/// Turns the outputs of one connection into bytes, in their order. Neighbouring confirms become one where that says the same.
#[derive(Debug, Default)]
pub struct Encoder {
    confirms: Confirms,
}

impl Encoder {
    /// An encoder for a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an output to `into`; a confirm may wait for its neighbours until [`Encoder::finish`].
    pub fn push(&mut self, output: &Output, terms: Terms, into: &mut Vec<u8>) {
        if let Output::Confirm { channel, tag, taken } = *output {
            if let Some(run) = self.confirms.add(channel, tag, taken) {
                self.write(run, into);
            }
            return;
        }
        self.finish(into);
        match output {
            Output::Confirm { .. } => {}
            Output::ProtocolHeader => into.extend_from_slice(b"AMQP\x00\x00\x09\x01"),
            Output::Heartbeat => frame(into, HEARTBEAT, 0, |_| {}),
            Output::Method { channel, method } => self.method(*channel, method, terms, into),
            Output::Deliver { channel, consumer, tag, redelivered, message } => {
                frame(into, METHOD, *channel, |into| {
                    numbers(into, 60);
                    short_string(into, consumer);
                    into.extend_from_slice(&tag.to_be_bytes());
                    into.push(u8::from(*redelivered));
                    short_string(into, &message.exchange);
                    short_string(into, &message.routing_key);
                });
                content(into, *channel, message, terms);
            }
            Output::GetOk { channel, tag, redelivered, left, message } => {
                frame(into, METHOD, *channel, |into| {
                    numbers(into, 71);
                    into.extend_from_slice(&tag.to_be_bytes());
                    into.push(u8::from(*redelivered));
                    short_string(into, &message.exchange);
                    short_string(into, &message.routing_key);
                    into.extend_from_slice(&left.to_be_bytes());
                });
                content(into, *channel, message, terms);
            }
            Output::Return { channel, code, text, message } => {
                frame(into, METHOD, *channel, |into| {
                    numbers(into, 50);
                    into.extend_from_slice(&code.to_be_bytes());
                    short_string(into, text);
                    short_string(into, &message.exchange);
                    short_string(into, &message.routing_key);
                });
                content(into, *channel, message, terms);
            }
        }
    }

    /// Appends what waits. To be called before the bytes are written.
    pub fn finish(&mut self, into: &mut Vec<u8>) {
        if let Some(run) = self.confirms.take() {
            self.write(run, into);
        }
    }

    fn write(&mut self, run: Run, into: &mut Vec<u8>) {
        let (tags, multiple) = match self.confirms.written(run) {
            Written::Joined(last) => (last..=last, true),
            Written::Single(first, last) => (first..=last, false),
        };
        for tag in tags {
            frame(into, METHOD, run.channel, |into| {
                numbers(into, if run.taken { 80 } else { 120 });
                into.extend_from_slice(&tag.to_be_bytes());
                into.push(u8::from(multiple));
            });
        }
    }

    fn method(&mut self, channel: ChannelNumber, method: &AMQPClass, terms: Terms, into: &mut Vec<u8>) {
        match method {
            AMQPClass::Basic(basic::AMQPMethod::Cancel(_)) if !terms.cancel_notify => return,
            AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)) => self.confirms.forget(channel),
            _ => {}
        }
        frame(into, METHOD, channel, |into| {
            let context = WriteContext::from(std::mem::take(into));
            let written = gen_class(method)(context).expect("a vector takes every byte");
            *into = written.into_inner().0;
        });
    }
}

/// Appends a frame, whose payload is what `payload` appends.
fn frame(into: &mut Vec<u8>, kind: u8, channel: ChannelNumber, payload: impl FnOnce(&mut Vec<u8>)) {
    into.push(kind);
    into.extend_from_slice(&channel.to_be_bytes());
    let size = into.len();
    into.extend_from_slice(&[0; 4]);
    payload(into);
    let bytes = u32::try_from(into.len() - size - 4).expect("a frame is made of bounded parts");
    into[size..size + 4].copy_from_slice(&bytes.to_be_bytes());
    into.push(END);
}

fn numbers(into: &mut Vec<u8>, method: u16) {
    into.extend_from_slice(&BASIC.to_be_bytes());
    into.extend_from_slice(&method.to_be_bytes());
}

/// Names come from short strings; a longer one, which cannot be, is cut rather than breaking the frame.
fn short_string(into: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
    into.push(u8::try_from(text.len()).expect("cut to 255"));
    into.extend_from_slice(text.as_bytes());
}

fn content(into: &mut Vec<u8>, channel: ChannelNumber, message: &Message, terms: Terms) {
    let part_bytes_max = usize::try_from(terms.frame_bytes_max.saturating_sub(FRAME_EXTRA_BYTES)).unwrap_or(usize::MAX);
    let part_bytes_max = part_bytes_max.max(1);
    let frames = 1 + message.body.len().div_ceil(part_bytes_max);
    into.reserve(message.properties.len() + message.body.len() + 12 + 8 * frames);
    frame(into, HEADER, channel, |into| {
        into.extend_from_slice(&BASIC.to_be_bytes());
        into.extend_from_slice(&0_u16.to_be_bytes());
        into.extend_from_slice(&(message.body.len() as u64).to_be_bytes());
        into.extend_from_slice(&message.properties);
    });
    for part in message.body.chunks(part_bytes_max) {
        frame(into, BODY, channel, |into| into.extend_from_slice(part));
    }
}
