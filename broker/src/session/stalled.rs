//! What waits in a session while the broker can take no more: a message, or a change of what survives a restart.
//!
//! A broker that is full of messages takes changes of its topology, since those who come to read declare and bind first. One
//! whose disk is slow, full or failing cannot keep changes either, and takes them no more than persistent messages. What is
//! there already may be declared and bound again at any time: that is how those begin who take messages away.

use amq_protocol::protocol::{AMQPClass, exchange, queue};

use super::Shared;
use super::channel::Content;
use super::methods::stripped;
use super::talk::Talk;
use crate::engine::{BindingSpec, Destination};
use crate::ids::ChannelNumber;
use crate::wire::method::{Method, MethodId};

/// What waits.
#[derive(Debug)]
pub(super) enum Stalled {
    /// A publication.
    Content(Content),
    /// A method that adds something durable.
    Method(Box<Method>),
}

impl Talk {
    /// Takes what came when the broker could not take it. It may have to wait still.
    pub(super) fn take_stalled(&mut self, shared: &mut impl Shared, now_ms: i64) {
        let Some((number, stalled)) = self.stalled.take() else { return };
        if !self.is_running() {
            return;
        }
        let (id, taken) = match stalled {
            Stalled::Content(content) => (MethodId::default(), self.publish(number, content, shared, now_ms)),
            Stalled::Method(method) => (method.id, self.channel_method(number, *method, shared, now_ms)),
        };
        if let Err(fault) = taken {
            self.fail(number, &fault, id, shared, now_ms);
        }
    }

    /// Whether a method has to wait for the disk, since there would be something more to keep.
    pub(super) fn has_to_wait(&mut self, number: ChannelNumber, class: &AMQPClass, shared: &mut impl Shared) -> bool {
        match class {
            AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) => {
                declare.durable && !declare.exclusive && !declare.passive && {
                    let engine = &shared.lock().0.engine;
                    engine.is_pressed() && !engine.has_queue(&stripped(declare.queue.to_string()))
                }
            }
            AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)) => {
                declare.durable && !declare.passive && {
                    let engine = &shared.lock().0.engine;
                    engine.is_pressed() && !engine.has_exchange(&stripped(declare.exchange.to_string()))
                }
            }
            AMQPClass::Queue(queue::AMQPMethod::Bind(bind)) => {
                if !shared.lock().0.engine.is_pressed() {
                    return false;
                }
                let names = self.binding_names(number, bind.queue.to_string(), bind.routing_key.to_string());
                // Without a queue, it is refused at once.
                let Ok((queue, key)) = names else { return false };
                shared.lock().0.engine.would_keep_binding(&BindingSpec {
                    source: stripped(bind.exchange.to_string()).into(),
                    destination: Destination::Queue(queue.into()),
                    key: key.into(),
                    arguments: bind.arguments.clone(),
                })
            }
            AMQPClass::Exchange(exchange::AMQPMethod::Bind(bind)) => {
                let engine = &shared.lock().0.engine;
                engine.is_pressed()
                    && engine.would_keep_binding(&BindingSpec {
                        source: stripped(bind.source.to_string()).into(),
                        destination: Destination::Exchange(stripped(bind.destination.to_string()).into()),
                        key: bind.routing_key.as_str().into(),
                        arguments: bind.arguments.clone(),
                    })
            }
            _ => false,
        }
    }
}
