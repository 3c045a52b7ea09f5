//! Methods of channels, exchanges, queues and confirms.

use amq_protocol::protocol::{AMQPClass, access, channel, confirm, exchange, queue};
use muster_broker_config::Operation;

use super::stalled::Stalled;
use super::talk::Talk;
use super::{Shared, arguments};
use crate::engine::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec};
use crate::fault::Fault;
use crate::ids::ChannelNumber;
use crate::wire::method::{BINDING_ARGUMENTS_BYTES_MAX, Method};

/// Names that begin so are the broker's own.
const RESERVED: &str = "amq.";

/// The queue that is none: RabbitMQ's direct reply-to.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Talk {
    pub(super) fn channel_method(
        &mut self,
        number: ChannelNumber,
        method: Method,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        let Some(channel) = self.channel(number) else {
            return match method.class {
                AMQPClass::Channel(channel::AMQPMethod::Open(_)) => self.open_channel(number, shared),
                _ => Err(Fault::channel_error("expected 'channel.open'")),
            };
        };
        channel.check_method()?;
        if channel.closing {
            self.closing_method(number, method.class, shared);
            return Ok(());
        }
        if self.has_to_wait(number, &method.class, shared) {
            self.stalled = Some((number, Stalled::Method(Box::new(method))));
            self.block(shared);
            return Ok(());
        }
        if method.prefetch_bytes != 0 {
            return Err(Fault::not_implemented(format_args!("prefetch_size!=0 ({})", method.prefetch_bytes)));
        }
        match method.class {
            AMQPClass::Basic(class) => self.basic(number, class, shared, now_ms),
            AMQPClass::Channel(channel::AMQPMethod::Open(_)) => Err(Fault::channel_error("second 'channel.open' seen")),
            AMQPClass::Channel(channel::AMQPMethod::Close(_)) => {
                let (broker, outlet) = shared.lock();
                broker.engine.close_channel((self.id, number), now_ms, outlet);
                self.remove_channel(number, shared);
                let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                self.say(number, AMQPClass::Channel(ok), shared);
                Ok(())
            }
            AMQPClass::Channel(channel::AMQPMethod::Flow(channel::Flow { active: true })) => {
                let ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active: true });
                self.say(number, AMQPClass::Channel(ok), shared);
                Ok(())
            }
            AMQPClass::Channel(channel::AMQPMethod::Flow(channel::Flow { active: false })) => {
                Err(Fault::not_implemented("active=false"))
            }
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                self.say(number, AMQPClass::Access(ok), shared);
                Ok(())
            }
            AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => {
                shared.lock().0.engine.confirm_select((self.id, number));
                let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                self.answer(number, select.nowait, AMQPClass::Confirm(ok), shared);
                Ok(())
            }
            AMQPClass::Exchange(class) => self.exchange(number, class, method.table_bytes, shared, now_ms),
            AMQPClass::Queue(class) => self.queue(number, class, method.table_bytes, shared, now_ms),
            AMQPClass::Tx(_) => Err(Fault::not_implemented("transactions; publish with confirms instead")),
            _ => Err(Fault::command_invalid("unimplemented method")),
        }
    }

    /// A method on a channel whose exception was not answered yet.
    fn closing_method(&mut self, number: ChannelNumber, class: AMQPClass, shared: &mut impl Shared) {
        match class {
            AMQPClass::Channel(channel::AMQPMethod::CloseOk(_)) => self.remove_channel(number, shared),
            AMQPClass::Channel(channel::AMQPMethod::Close(_)) => {
                let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                self.say(number, AMQPClass::Channel(ok), shared);
            }
            // Its content follows all the same.
            AMQPClass::Basic(amq_protocol::protocol::basic::AMQPMethod::Publish(publish)) => {
                if let Some(channel) = self.channel(number) {
                    channel.expect_content(publish);
                }
            }
            _ => {}
        }
    }

    fn open_channel(&mut self, number: ChannelNumber, shared: &mut impl Shared) -> Result<(), Fault> {
        let (open, channels_max) = (self.channels(), usize::from(self.channels_max));
        if channels_max != 0 && open >= channels_max {
            return Err(Fault::not_allowed(format_args!(
                "number of channels opened ({open}) has reached the negotiated channel_max ({channels_max})"
            )));
        }
        let channels_max = self.peer.permissions.as_ref().map_or(0, |held| held.channels_max);
        let (broker, _) = shared.lock();
        broker.users.open_channel(&self.peer.user, channels_max)?;
        broker.engine.open_channel((self.id, number));
        self.add_channel(number);
        let ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
        self.say(number, AMQPClass::Channel(ok), shared);
        Ok(())
    }

    /// Sends an answer, unless none is wanted.
    pub(super) fn answer(&self, number: ChannelNumber, no_wait: bool, ok: AMQPClass, shared: &mut impl Shared) {
        if !no_wait {
            self.say(number, ok, shared);
        }
    }

    pub(super) fn may(&self, operation: &Operation<'_>) -> Result<(), Fault> {
        self.peer.check(operation, &self.settings.vhost)
    }

    /// A queue by its name, or the last one that was declared on the channel.
    pub(super) fn queue_name(&mut self, number: ChannelNumber, name: String) -> Result<String, Fault> {
        if !name.is_empty() {
            return Ok(name);
        }
        match self.channel(number) {
            Some(channel) if !channel.last_queue.is_empty() => Ok(channel.last_queue.clone()),
            _ => Err(Fault::not_found("no previously declared queue")),
        }
    }

    /// A queue as RabbitMQ names it in refusals.
    pub(super) fn described(&self, queue: &str) -> String {
        format!("queue '{queue}' in vhost '{}'", self.settings.vhost)
    }

    fn exchange(
        &mut self,
        number: ChannelNumber,
        class: exchange::AMQPMethod,
        table_bytes: usize,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        use exchange::AMQPMethod as M;
        match class {
            M::Declare(declare) => self.declare_exchange(number, declare, shared),
            M::Delete(delete) => {
                let name = stripped(delete.exchange.into());
                not_default(&name)?;
                if name.starts_with(RESERVED) {
                    return Err(Fault::access_refused(format_args!(
                        "deletion of system exchange '{name}' in vhost '{}' not allowed",
                        self.settings.vhost
                    )));
                }
                self.may(&Operation::DeleteExchange { exchange: &name })?;
                let (broker, outlet) = shared.lock();
                broker.engine.delete_exchange(&name, delete.if_unused, now_ms, outlet)?;
                self.answer(number, delete.nowait, AMQPClass::Exchange(M::DeleteOk(exchange::DeleteOk {})), shared);
                Ok(())
            }
            M::Bind(bind) => {
                let (source, destination) = (stripped(bind.source.into()), stripped(bind.destination.into()));
                let key = String::from(bind.routing_key);
                let operation = Operation::BindExchange { destination: &destination, source: &source, key: &key };
                self.may_bind(&operation, &source, table_bytes)?;
                not_default(&destination)?;
                let binding = BindingSpec {
                    source: source.into(),
                    destination: Destination::Exchange(destination.into()),
                    key: key.into(),
                    arguments: bind.arguments,
                };
                let (broker, outlet) = shared.lock();
                broker.engine.bind(self.id, binding, outlet)?;
                self.answer(number, bind.nowait, AMQPClass::Exchange(M::BindOk(exchange::BindOk {})), shared);
                Ok(())
            }
            M::Unbind(unbind) => {
                let (source, destination) = (stripped(unbind.source.into()), stripped(unbind.destination.into()));
                let key = String::from(unbind.routing_key);
                let operation = Operation::BindExchange { destination: &destination, source: &source, key: &key };
                self.may_bind(&operation, &source, table_bytes)?;
                not_default(&destination)?;
                let binding = BindingSpec {
                    source: source.into(),
                    destination: Destination::Exchange(destination.into()),
                    key: key.into(),
                    arguments: unbind.arguments,
                };
                let (broker, outlet) = shared.lock();
                broker.engine.unbind(self.id, &binding, outlet)?;
                self.answer(number, unbind.nowait, AMQPClass::Exchange(M::UnbindOk(exchange::UnbindOk {})), shared);
                Ok(())
            }
            M::DeclareOk(_) | M::DeleteOk(_) | M::BindOk(_) | M::UnbindOk(_) => {
                Err(Fault::command_invalid("unimplemented method"))
            }
        }
    }

    fn declare_exchange(
        &mut self,
        number: ChannelNumber,
        declare: exchange::Declare,
        shared: &mut impl Shared,
    ) -> Result<(), Fault> {
        let name = stripped(declare.exchange.into());
        let ok = AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {}));
        if declare.passive {
            not_default(&name)?;
            shared.lock().0.engine.check_exchange(&name)?;
            self.answer(number, declare.nowait, ok, shared);
            return Ok(());
        }
        let kind = exchange_kind(declare.kind.as_str())?;
        not_default(&name)?;
        self.may(&Operation::DeclareExchange { exchange: &name })?;
        arguments::of_exchange(&declare.arguments)?;
        let (broker, outlet) = shared.lock();
        if name.starts_with(RESERVED) && broker.engine.check_exchange(&name).is_err() {
            return Err(reserved("exchange", &name));
        }
        let spec = ExchangeSpec {
            name: name.into(),
            kind,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
        };
        broker.engine.declare_exchange(spec, outlet)?;
        self.answer(number, declare.nowait, ok, shared);
        Ok(())
    }

    fn may_bind(&self, operation: &Operation<'_>, source: &str, table_bytes: usize) -> Result<(), Fault> {
        self.may(operation)?;
        not_default(source)?;
        if table_bytes > BINDING_ARGUMENTS_BYTES_MAX {
            return Err(Fault::precondition_failed(format_args!(
                "the arguments of a binding are {table_bytes} bytes, more than {BINDING_ARGUMENTS_BYTES_MAX}"
            )));
        }
        Ok(())
    }

    fn queue(
        &mut self,
        number: ChannelNumber,
        class: queue::AMQPMethod,
        table_bytes: usize,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        use queue::AMQPMethod as M;
        match class {
            M::Declare(declare) => self.declare_queue(number, declare, shared, now_ms),
            M::Bind(bind) => {
                let (name, key) = self.binding_names(number, bind.queue.into(), bind.routing_key.into())?;
                let source = stripped(bind.exchange.into());
                let operation = Operation::Bind { queue: &name, exchange: &source, key: &key };
                self.may_bind(&operation, &source, table_bytes)?;
                let binding = BindingSpec {
                    source: source.into(),
                    destination: Destination::Queue(name.into()),
                    key: key.into(),
                    arguments: bind.arguments,
                };
                let (broker, outlet) = shared.lock();
                broker.engine.bind(self.id, binding, outlet)?;
                self.answer(number, bind.nowait, AMQPClass::Queue(M::BindOk(queue::BindOk {})), shared);
                Ok(())
            }
            M::Unbind(unbind) => {
                let (name, key) = self.binding_names(number, unbind.queue.into(), unbind.routing_key.into())?;
                let source = stripped(unbind.exchange.into());
                let operation = Operation::Bind { queue: &name, exchange: &source, key: &key };
                self.may_bind(&operation, &source, table_bytes)?;
                let binding = BindingSpec {
                    source: source.into(),
                    destination: Destination::Queue(name.into()),
                    key: key.into(),
                    arguments: unbind.arguments,
                };
                let (broker, outlet) = shared.lock();
                broker.engine.unbind(self.id, &binding, outlet)?;
                self.say(number, AMQPClass::Queue(M::UnbindOk(queue::UnbindOk {})), shared);
                Ok(())
            }
            M::Purge(purge) => {
                let name = self.queue_name(number, purge.queue.into())?;
                self.may(&Operation::PurgeQueue { queue: &name })?;
                let (broker, outlet) = shared.lock();
                let message_count = broker.engine.purge_queue(self.id, &name, now_ms, outlet)?;
                let ok = M::PurgeOk(queue::PurgeOk { message_count });
                self.answer(number, purge.nowait, AMQPClass::Queue(ok), shared);
                Ok(())
            }
            M::Delete(delete) => {
                let name = stripped(self.queue_name(number, delete.queue.into())?);
                self.may(&Operation::DeleteQueue { queue: &name })?;
                let (broker, outlet) = shared.lock();
                let (unused, empty) = (delete.if_unused, delete.if_empty);
                let message_count = broker.engine.delete_queue(self.id, &name, unused, empty, now_ms, outlet)?;
                let ok = M::DeleteOk(queue::DeleteOk { message_count });
                self.answer(number, delete.nowait, AMQPClass::Queue(ok), shared);
                Ok(())
            }
            M::DeclareOk(_) | M::BindOk(_) | M::PurgeOk(_) | M::DeleteOk(_) | M::UnbindOk(_) => {
                Err(Fault::command_invalid("unimplemented method"))
            }
        }
    }

    /// Queue and key of a binding: an empty queue is the last one declared, and then an empty key is its name.
    pub(super) fn binding_names(
        &mut self,
        number: ChannelNumber,
        name: String,
        key: String,
    ) -> Result<(String, String), Fault> {
        let shorthand = name.is_empty() && key.is_empty();
        let name = stripped(self.queue_name(number, name)?);
        let key = if shorthand { name.clone() } else { key };
        Ok((name, key))
    }

    fn declare_queue(
        &mut self,
        number: ChannelNumber,
        declare: queue::Declare,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        let name = stripped(declare.queue.into());
        if name.starts_with(REPLY_TO) {
            return Err(no_reply_to());
        }
        let declared = if declare.passive {
            shared.lock().0.engine.check_queue(self.id, &name, now_ms)?
        } else {
            if name.starts_with(RESERVED) {
                return Err(reserved("queue", &name));
            }
            // The name that the broker will choose begins so, and no pattern knows more of it.
            let checked = if name.is_empty() { "amq.gen-" } else { &name };
            self.may(&Operation::DeclareQueue { queue: checked })?;
            let limits = arguments::of_queue(&declare.arguments, &self.described(&name))?;
            let spec = QueueSpec {
                name: name.into(),
                durable: declare.durable && !declare.exclusive,
                exclusive: declare.exclusive,
                auto_delete: declare.auto_delete,
                limits,
            };
            let (broker, outlet) = shared.lock();
            broker.engine.declare_queue(self.id, spec, now_ms, outlet)?
        };
        if let Some(channel) = self.channel(number) {
            channel.last_queue.clear();
            channel.last_queue.push_str(&declared.name);
        }
        let ok = queue::DeclareOk {
            queue: declared.name.as_ref().into(),
            message_count: declared.count.messages,
            consumer_count: declared.count.consumers,
        };
        self.answer(number, declare.nowait, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)), shared);
        Ok(())
    }
}

fn exchange_kind(kind: &str) -> Result<ExchangeKind, Fault> {
    match kind {
        "direct" => Ok(ExchangeKind::Direct),
        "fanout" => Ok(ExchangeKind::Fanout),
        "topic" => Ok(ExchangeKind::Topic),
        "headers" => Err(Fault::not_implemented("exchange type 'headers'")),
        kind => Err(Fault::command_invalid(format_args!("unknown exchange type '{kind}'"))),
    }
}

fn not_default(exchange: &str) -> Result<(), Fault> {
    if exchange.is_empty() {
        return Err(Fault::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

fn reserved(kind: &str, name: &str) -> Fault {
    Fault::access_refused(format_args!("{kind} name '{name}' contains reserved prefix 'amq.*'"))
}

pub(super) fn no_reply_to() -> Fault {
    Fault::not_implemented(format_args!("direct reply-to ('{REPLY_TO}')"))
}

/// RabbitMQ takes ends of lines out of names.
pub(super) fn stripped(mut name: String) -> String {
    name.retain(|c| !matches!(c, '\r' | '\n'));
    name
}
