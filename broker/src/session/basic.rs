//! Methods of class `basic`: publishing, consuming, acknowledging.

use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};
use bytes::Bytes;
use muster_broker_config::Operation;

use super::channel::{Assembled, Content};
use super::methods::{REPLY_TO, no_reply_to};
use super::stalled::Stalled;
use super::talk::Talk;
use super::{Shared, arguments};
use crate::engine::ConsumerSpec;
use crate::fault::Fault;
use crate::ids::ChannelNumber;
use crate::message::Message;
use crate::wire::Frame;
use crate::wire::header::Properties;

/// Most bytes of incomplete contents on all channels of a connection, as a multiple of the largest content.
const CONTENTS_AT_ONCE: u64 = 4;

/// RabbitMQ's longest time, ten years in milliseconds.
const EXPIRATION_MS_MAX: i128 = 315_360_000_000;

impl Talk {
    pub(super) fn basic(
        &mut self,
        number: ChannelNumber,
        class: basic::AMQPMethod,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        use basic::AMQPMethod as M;
        let at = (self.id, number);
        match class {
            M::Publish(publish) => {
                if let Some(channel) = self.channel(number) {
                    channel.expect_content(publish);
                }
                Ok(())
            }
            M::Ack(ack) => {
                let (broker, outlet) = shared.lock();
                broker.engine.acknowledge(at, ack.delivery_tag, ack.multiple, now_ms, outlet)
            }
            M::Reject(reject) => {
                let (broker, outlet) = shared.lock();
                broker.engine.reject(at, reject.delivery_tag, false, reject.requeue, now_ms, outlet)
            }
            M::Nack(nack) => {
                let (broker, outlet) = shared.lock();
                broker.engine.reject(at, nack.delivery_tag, nack.multiple, nack.requeue, now_ms, outlet)
            }
            M::Qos(qos) => {
                let (broker, outlet) = shared.lock();
                broker.engine.qos(at, qos.prefetch_count, qos.global, now_ms, outlet);
                self.say(number, AMQPClass::Basic(M::QosOk(basic::QosOk {})), shared);
                Ok(())
            }
            M::Consume(consume) => self.consume(number, consume, shared, now_ms),
            M::Cancel(cancel) => {
                let (broker, outlet) = shared.lock();
                broker.engine.cancel(at, cancel.consumer_tag.as_str(), now_ms, outlet);
                let ok = M::CancelOk(basic::CancelOk { consumer_tag: cancel.consumer_tag });
                self.answer(number, cancel.nowait, AMQPClass::Basic(ok), shared);
                Ok(())
            }
            M::Get(get) => {
                let queue = self.queue_name(number, get.queue.into())?;
                self.may(&Operation::Consume { queue: &queue })?;
                let (broker, outlet) = shared.lock();
                broker.engine.get(at, &queue, get.no_ack, now_ms, outlet)
            }
            M::Recover(recover) => {
                self.recover(number, recover.requeue, shared, now_ms)?;
                self.say(number, AMQPClass::Basic(M::RecoverOk(basic::RecoverOk {})), shared);
                Ok(())
            }
            M::RecoverAsync(recover) => self.recover(number, recover.requeue, shared, now_ms),
            M::QosOk(_)
            | M::ConsumeOk(_)
            | M::CancelOk(_)
            | M::Return(_)
            | M::Deliver(_)
            | M::GetOk(_)
            | M::GetEmpty(_)
            | M::RecoverOk(_) => Err(Fault::command_invalid("unimplemented method")),
        }
    }

    fn recover(
        &mut self,
        number: ChannelNumber,
        requeue: bool,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        if !requeue {
            return Err(Fault::not_implemented("requeue=false"));
        }
        let (broker, outlet) = shared.lock();
        broker.engine.recover((self.id, number), now_ms, outlet);
        Ok(())
    }

    fn consume(
        &mut self,
        number: ChannelNumber,
        consume: basic::Consume,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        let queue = self.queue_name(number, consume.queue.into())?;
        if queue.starts_with(REPLY_TO) {
            return Err(no_reply_to());
        }
        self.may(&Operation::Consume { queue: &queue })?;
        if consume.no_local {
            return Err(Fault::not_implemented("no_local=true"));
        }
        arguments::of_consumer(&consume.arguments, &self.described(&queue))?;
        let spec = ConsumerSpec {
            connection: self.id,
            channel: number,
            queue: queue.into(),
            tag: String::from(consume.consumer_tag).into(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            no_wait: consume.nowait,
        };
        let (broker, outlet) = shared.lock();
        broker.engine.consume(spec, now_ms, outlet)?;
        Ok(())
    }

    pub(super) fn content_header(
        &mut self,
        number: ChannelNumber,
        frame: &Frame<'_>,
        payload: &[u8],
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        let bytes_max = self.settings.message_bytes_max;
        let channel = self.channel(number).ok_or_else(not_open)?;
        let assembled = channel.header(frame, payload, bytes_max)?;
        self.held_bytes += channel.held_bytes();
        self.check_held()?;
        self.assembled(number, assembled, shared, now_ms)
    }

    pub(super) fn content_body(&mut self, number: ChannelNumber, payload: &[u8]) -> Result<(), Fault> {
        let channel = self.channel(number).ok_or_else(not_open)?;
        let before = channel.held_bytes();
        channel.body(payload)?;
        let after = channel.held_bytes();
        self.held_bytes = self.held_bytes - before + after;
        self.check_held()
    }

    /// Bounds what is kept of contents that are not complete, whichever of their frames it came with.
    fn check_held(&self) -> Result<(), Fault> {
        if self.held_bytes as u64 > self.settings.message_bytes_max.saturating_mul(CONTENTS_AT_ONCE) {
            return Err(Fault::resource_error(format_args!(
                "the incomplete contents on all channels of the connection are more than {CONTENTS_AT_ONCE} of the largest \
                 size, {} bytes",
                self.settings.message_bytes_max
            )));
        }
        Ok(())
    }

    pub(super) fn content_body_end(
        &mut self,
        number: ChannelNumber,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        let channel = self.channel(number).ok_or_else(not_open)?;
        let before = channel.held_bytes();
        let assembled = channel.body_end()?;
        let after = channel.held_bytes();
        self.held_bytes = self.held_bytes - before + after;
        self.assembled(number, assembled, shared, now_ms)
    }

    fn assembled(
        &mut self,
        number: ChannelNumber,
        assembled: Assembled,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        match assembled {
            Assembled::Incomplete | Assembled::Complete(None) => Ok(()),
            Assembled::TooLarge(bytes) => Err(Fault::precondition_failed(format_args!(
                "message size {bytes} is larger than configured max size {}",
                self.settings.message_bytes_max
            ))),
            Assembled::Complete(Some(content)) => self.publish(number, content, shared, now_ms),
        }
    }

    /// Publishes, or keeps the message while the broker is full: then nothing more is taken from the connection.
    pub(super) fn publish(
        &mut self,
        number: ChannelNumber,
        content: Content,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        if shared.lock().0.engine.is_full() {
            self.stalled = Some((number, Stalled::Content(content)));
            self.block(shared);
            return Ok(());
        }
        let Content { publish, properties, body } = content;
        if publish.immediate {
            return Err(Fault::not_implemented("immediate=true"));
        }
        let (exchange, routing_key) = (String::from(publish.exchange), String::from(publish.routing_key));
        self.may_publish(&exchange, &routing_key)?;
        let (persistent, expiration_ms) = self.check_properties(&properties)?;
        let message = Arc::new(Message {
            exchange,
            routing_key,
            properties: Bytes::from(properties),
            body: Bytes::from(body),
            persistent,
            expiration_ms,
        });
        let (broker, outlet) = shared.lock();
        broker.engine.publish((self.id, number), message, publish.mandatory, now_ms, outlet)?;
        if broker.engine.is_full() {
            self.block(shared);
        }
        Ok(())
    }

    /// Whether the peer may publish so. Most publish where they just did.
    fn may_publish(&mut self, exchange: &str, key: &str) -> Result<(), Fault> {
        if self.allowed.as_ref().is_some_and(|(to, with)| to == exchange && with == key) {
            return Ok(());
        }
        self.may(&Operation::Publish { exchange, key })?;
        let (to, with) = self.allowed.get_or_insert_default();
        exchange.clone_into(to);
        key.clone_into(with);
        Ok(())
    }

    /// Looks at the properties of a message: whether it is persistent, and its expiration in milliseconds. How large they are
    /// is bounded by the frame that the publisher has agreed to, since a content header cannot be split. A consumer that has
    /// agreed to less gets them in a larger frame, as from RabbitMQ.
    fn check_properties(&self, properties: &[u8]) -> Result<(bool, Option<u64>), Fault> {
        let read = Properties::read(properties)
            .map_err(|why| Fault::syntax_error(format_args!("a content header cannot be read: {}", why.what())))?;
        if let Some(header) = read.copies {
            return Err(Fault::not_implemented(format_args!("sender-selected distribution (header '{header}')")));
        }
        if read.reply_to.is_some_and(|reply_to| reply_to == REPLY_TO) {
            return Err(no_reply_to());
        }
        if let Some(claimed) = read.user_id.filter(|claimed| *claimed != &*self.peer.user) {
            return Err(Fault::precondition_failed(format_args!(
                "user_id property set to '{claimed}' but authenticated user was '{}'",
                self.peer.user
            )));
        }
        let expiration_ms = read.expiration.map(expiration_ms).transpose()?;
        Ok((read.persistent, expiration_ms))
    }
}

fn not_open() -> Fault {
    Fault::unexpected_frame("expected method frame, got non method frame instead")
}

/// A number of milliseconds as text, as RabbitMQ reads it.
fn expiration_ms(text: &str) -> Result<u64, Fault> {
    let invalid = |why: String| Fault::precondition_failed(format_args!("invalid expiration '{text}': {why}"));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let count = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if count == 0 {
        return Err(invalid("no_integer".to_owned()));
    }
    if count < digits.len() {
        return Err(invalid(format!("{{leftover_string,\"{}\"}}", &digits[count..])));
    }
    // More digits than a number of 128 bits has are too many in any case.
    match text.parse::<i128>() {
        Ok(number) if number < 0 => Err(invalid(format!("{{value_negative,{number}}}"))),
        Ok(number) if number <= EXPIRATION_MS_MAX => Ok(u64::try_from(number).expect("within ten years")),
        _ => Err(invalid(format!("{{value_too_large,{digits}}}"))),
    }
}
