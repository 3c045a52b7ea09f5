//! The engine's refusals, in RabbitMQ's words: clients and their authors know them.

use std::fmt::Display;

use super::Engine;
use crate::fault::Fault;

impl Engine {
    /// `queue 'NAME' in vhost 'VHOST'`.
    pub(super) fn queue_named(&self, name: &str) -> String {
        format!("queue '{name}' in vhost '{}'", self.vhost)
    }

    /// `exchange 'NAME' in vhost 'VHOST'`.
    pub(super) fn exchange_named(&self, name: &str) -> String {
        format!("exchange '{name}' in vhost '{}'", self.vhost)
    }

    pub(super) fn no_queue(&self, name: &str) -> Fault {
        Fault::not_found(format_args!("no {}", self.queue_named(name)))
    }

    pub(super) fn no_exchange(&self, name: &str) -> Fault {
        Fault::not_found(format_args!("no {}", self.exchange_named(name)))
    }

    pub(super) fn locked(&self, name: &str) -> Fault {
        Fault::resource_locked(format_args!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration.",
            self.queue_named(name)
        ))
    }
}

/// Something exists with another property.
pub(super) fn inequivalent(property: &str, of: &str, received: impl Display, current: impl Display) -> Fault {
    Fault::precondition_failed(format_args!(
        "inequivalent arg '{property}' for {of}: received {received} but current is {current}"
    ))
}

/// A name that AMQP keeps for the broker.
pub(super) fn reserved(kind: &str, name: &str) -> Fault {
    Fault::access_refused(format_args!("{kind} name '{name}' contains reserved prefix 'amq.*'"))
}

/// A bound of the broker is reached.
pub(super) fn limit(what: &str, limit: usize) -> Fault {
    Fault::resource_error(format_args!("the broker has {limit} {what}, which is its limit"))
}

/// A channel that the engine was not told of.
pub(super) fn no_channel() -> Fault {
    Fault::channel_error("expected 'channel.open'")
}
