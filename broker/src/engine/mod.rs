//! What all connections share: exchanges, bindings, queues, consumers, and what is unacknowledged.
//!
//! A plain value without I/O, tasks or a clock. Times are milliseconds since the epoch, given with each call. Whether an
//! identity may do something is decided before ([`crate::access`]); whether it is possible, here.

mod specs;

use std::sync::Arc;

use crate::fault::Fault;
use crate::ids::{ChannelNumber, ConnectionId, DeliveryTag};
use crate::journal::Record;
use crate::message::Message;
use crate::outlet::Outlet;

pub use specs::{
    BindingSpec, ConsumerSpec, Destination, ExchangeKind, ExchangeSpec, Overflow, Policy, QueueLimits, QueueSpec,
};

/// Bounds of the engine. Each refusal names the one that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Queues at once.
    pub queues_max: usize,
    /// Bindings at once.
    pub bindings_max: usize,
    /// Exchanges at once.
    pub exchanges_max: usize,
    /// Consumers of one connection.
    pub consumers_max: usize,
    /// Bytes of messages in all queues and outboxes: beyond, publishers are blocked.
    pub message_bytes_max: usize,
    /// Bytes that wait in the outbox of one connection: beyond, its consumers get nothing more until it has read.
    pub outbox_bytes_max: usize,
}

/// How much of something there is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCount {
    /// Messages that wait for a consumer.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A queue that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name, which may be the broker's choice.
    pub name: Arc<str>,
    /// What is in it.
    pub count: QueueCount,
}

/// A channel, as the engine knows it: consumers, what is unacknowledged, prefetch, confirms.
pub type ChannelOf = (ConnectionId, ChannelNumber);

/// Everything that connections share.
#[derive(Debug)]
pub struct Engine {}

#[expect(unused_variables, clippy::unimplemented, reason = "the shape, before the work")]
impl Engine {
    /// An engine with these limits, policies for queues, and exchanges of the site beside AMQP's own (`""`, `amq.direct`,
    /// `amq.fanout`, `amq.topic`).
    #[must_use]
    pub fn new(limits: Limits, policies: Vec<Policy>, exchanges: Vec<ExchangeSpec>) -> Self {
        unimplemented!()
    }

    /// Takes a record of before the restart. All of them, in order, before anything else.
    pub fn replay(&mut self, record: Record) {
        unimplemented!()
    }

    /// The durable state as the fewest records, for a journal that starts anew.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        unimplemented!()
    }

    /// A connection is there. Its consumers get deliveries until [`Engine::is_slow`] says otherwise.
    pub fn connect(&mut self, connection: ConnectionId) {
        unimplemented!()
    }

    /// A connection is gone: exclusive queues go, what was unacknowledged goes back.
    pub fn disconnect(&mut self, connection: ConnectionId, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// So many bytes of a connection's outbox have been written to it; counted against `outbox_bytes_max`.
    pub fn drained(&mut self, connection: ConnectionId, bytes: usize, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// A channel is opened.
    pub fn open_channel(&mut self, at: ChannelOf) {
        unimplemented!()
    }

    /// A channel is closed: its consumers go, what was unacknowledged goes back.
    pub fn close_channel(&mut self, at: ChannelOf, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// `confirm.select`.
    pub fn confirm_select(&mut self, at: ChannelOf) {
        unimplemented!()
    }

    /// `basic.qos`: per consumer, or for the channel if `global` (RabbitMQ's meaning). 0 is no bound.
    pub fn qos(&mut self, at: ChannelOf, prefetch: u16, global: bool, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// `channel.flow` from the client.
    pub fn flow(&mut self, at: ChannelOf, active: bool, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// `exchange.declare`, not passive. Declaring again with the same properties is nothing; with others, 406.
    ///
    /// # Errors
    /// 406, or 506 at the limit.
    pub fn declare_exchange(&mut self, spec: ExchangeSpec, outlet: &mut impl Outlet) -> Result<(), Fault> {
        unimplemented!()
    }

    /// Whether the exchange exists (`exchange.declare`, passive): 404 if not.
    ///
    /// # Errors
    /// 404.
    pub fn check_exchange(&self, name: &str) -> Result<ExchangeKind, Fault> {
        unimplemented!()
    }

    /// `exchange.delete`. Deleting what is not there is nothing, as with RabbitMQ.
    ///
    /// # Errors
    /// 406 if it is used and only an unused one is meant; 403 for AMQP's own.
    pub fn delete_exchange(
        &mut self,
        name: &str,
        if_unused: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `queue.declare`, not passive.
    ///
    /// # Errors
    /// 405 if it is another connection's, 406 if it exists otherwise, 506 at the limit.
    pub fn declare_queue(
        &mut self,
        connection: ConnectionId,
        spec: QueueSpec,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<Declared, Fault> {
        unimplemented!()
    }

    /// `queue.declare`, passive.
    ///
    /// # Errors
    /// 404, 405.
    pub fn check_queue(&mut self, connection: ConnectionId, name: &str, now_ms: i64) -> Result<Declared, Fault> {
        unimplemented!()
    }

    /// `queue.delete`: how many messages went with it. Deleting what is not there is nothing.
    ///
    /// # Errors
    /// 405, 406.
    pub fn delete_queue(
        &mut self,
        connection: ConnectionId,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<u32, Fault> {
        unimplemented!()
    }

    /// `queue.purge`: how many messages went.
    ///
    /// # Errors
    /// 404, 405.
    pub fn purge_queue(
        &mut self,
        connection: ConnectionId,
        name: &str,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<u32, Fault> {
        unimplemented!()
    }

    /// `queue.bind` and `exchange.bind`. Twice is once.
    ///
    /// # Errors
    /// 404, 405, 506; 403 for the default exchange.
    pub fn bind(
        &mut self,
        connection: ConnectionId,
        binding: BindingSpec,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `queue.unbind` and `exchange.unbind`. What is not bound is nothing.
    ///
    /// # Errors
    /// 404, 405.
    pub fn unbind(
        &mut self,
        connection: ConnectionId,
        binding: &BindingSpec,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `basic.publish`, content complete. Deliveries, a return and a confirm go to the outlet, in this order for the
    /// publisher. A message that finds no queue is returned if `mandatory` and confirmed all the same.
    ///
    /// # Errors
    /// 404 for the exchange, 403 for an internal one.
    pub fn publish(
        &mut self,
        at: ChannelOf,
        message: Arc<Message>,
        mandatory: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `basic.consume`: says `consume-ok` through the outlet, before the first delivery, and gives the tag.
    ///
    /// # Errors
    /// 404, 405, 403 if exclusive use is not possible, 530 for a tag in use, 506 at the limit.
    pub fn consume(&mut self, spec: ConsumerSpec, now_ms: i64, outlet: &mut impl Outlet) -> Result<Arc<str>, Fault> {
        unimplemented!()
    }

    /// `basic.cancel`. A tag that is not there is nothing.
    pub fn cancel(&mut self, at: ChannelOf, tag: &str, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// `basic.get`: a `get-ok` or `get-empty` goes to the outlet.
    ///
    /// # Errors
    /// 404, 405.
    pub fn get(
        &mut self,
        at: ChannelOf,
        queue: &str,
        no_ack: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `basic.ack`. Tag 0 with `multiple` is all.
    ///
    /// # Errors
    /// 406 for an unknown tag.
    pub fn acknowledge(
        &mut self,
        at: ChannelOf,
        tag: DeliveryTag,
        multiple: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `basic.reject` and `basic.nack`: back to its place in the queue, or gone.
    ///
    /// # Errors
    /// 406 for an unknown tag.
    pub fn reject(
        &mut self,
        at: ChannelOf,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    /// `basic.recover` with `requeue`: everything unacknowledged of the channel goes back.
    pub fn recover(&mut self, at: ChannelOf, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// Drops what has expired and queues whose time without consumers is over; call it at [`Engine::next_deadline`].
    pub fn tick(&mut self, now_ms: i64, outlet: &mut impl Outlet) {
        unimplemented!()
    }

    /// When [`Engine::tick`] has something to do, at the earliest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        unimplemented!()
    }

    /// Whether bytes in memory are above the bound, so that publishers are to wait. Falls again at four fifths of it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        unimplemented!()
    }
}
