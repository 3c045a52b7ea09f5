//! A broker in memory: the same contract, no network, and faults on demand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_protocol::Identity;

use crate::consumer::ConsumerEnd;
use crate::error::{BusError, CloseReason};
use crate::link::{Bus, Link};
use crate::message::{Delivery, Settlement};

/// What somebody is about to do, for the permission hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission<'a> {
    /// The kind of access, as RabbitMQ divides it.
    pub access: Access,
    /// The queue or exchange.
    pub resource: &'a str,
    /// The routing key, when it matters: on publishing, and on binding to an exchange.
    pub routing_key: Option<&'a str>,
}

/// RabbitMQ's three kinds of permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Declare or delete a queue.
    Configure,
    /// Publish to an exchange; bind a queue.
    Write,
    /// Read a queue; bind to an exchange.
    Read,
}

/// A message on its way into one queue, for the fault hook.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Who published it.
    pub sender: Identity,
    /// The exchange.
    pub exchange: &'static str,
    /// The routing key.
    pub routing_key: String,
    /// The content type.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// The queue that it is about to enter.
    pub queue: String,
}

/// What happens to a message on its way into one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing special.
    Deliver,
    /// It is lost, although its publisher gets a confirm.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives later; messages published in between overtake it.
    Delay(Duration),
    /// It waits for [`MemoryBroker::release`].
    Hold,
}

/// The broker. Clones are the same broker.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {}

impl MemoryBroker {
    /// A broker with Muster's two exchanges, where everybody may do everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A bus on which everything happens as this identity.
    #[must_use]
    pub fn bus(&self, identity: &Identity) -> MemoryBus {
        MemoryBus { identity: identity.clone() }
    }
}

/// One identity's way to a [`MemoryBroker`].
#[derive(Debug, Clone)]
pub struct MemoryBus {
    identity: Identity,
}

impl Bus for MemoryBus {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>> {
        async { Err(BusError::Unreachable { tries: Vec::new() }) }.boxed()
    }

    fn describe(&self) -> String {
        format!("memory as {}", self.identity)
    }
}

pub(crate) struct MemorySource;

impl MemorySource {
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        None
    }

    pub(crate) fn ended(&self) -> ConsumerEnd {
        ConsumerEnd::ConnectionLost
    }
}

pub(crate) struct MemorySettler;

impl MemorySettler {
    pub(crate) fn settle(&self, _settlement: Settlement) -> Result<(), BusError> {
        Err(BusError::Closed(CloseReason::Requested))
    }
}
