//! The message bus: one contract, two implementations.
//!
//! # The data and how it flows
//!
//! A [`Bus`] knows where brokers are and who we are; [`Bus::connect`] gives one [`Link`], which is one
//! connection. On a link a program declares and binds its queue, reads [`Delivery`]s from a
//! [`Consumer`], and publishes [`Outgoing`] messages with the [`Guarantee`] each one needs. When the
//! connection is gone, everything on the link ends with a [`CloseReason`], and the caller connects
//! again with its own back-off (`muster_daemon::Backoff`).
//!
//! - [`AmqpBus`] speaks AMQP 0-9-1 over TLS 1.3 with lapin. This crate is the only one that knows lapin.
//! - [`MemoryBus`] is a broker in memory for tests and simulation, with faults on demand.
//! - [`contract`] is the one suite of behaviours that both must show.
//!
//! # Non-goals
//!
//! No verification (bodies and signatures pass unread), no reconnect loop, no logging of errors that
//! are returned, no topology beyond what the caller asks for.
//!
//! # Invariants
//!
//! - Nothing waits without a deadline, and no error leaves a link that neither works nor reports its end.
//! - A refused operation (403, 404, 406) fails alone: other operations and consumers of the link go on.
//! - `Guarantee::Confirmed` returns `Ok` only after the broker took responsibility for the message.
//! - Nothing larger than `muster_protocol::limits` allows is handed over; the caller sees its size only.

mod amqp;
mod consumer;
pub mod contract;
mod error;
mod link;
mod memory;
mod message;
mod url;

pub use amqp::{AmqpBus, AmqpSettings, LOG_DIRECTIVES};
pub use consumer::{Consumer, ConsumerEnd};
pub use error::{BusError, CloseReason, LoginProblem, Operation, PublishError, TlsProblem, Try};
pub use futures_util::future::BoxFuture;
pub use link::{Bus, ConsumeOptions, Guarantee, Link, QueueSpec};
pub use memory::{Access, Cut, Fault, MemoryBroker, MemoryBus, Permission, Step, Stored, Weather};
pub use message::{Delivery, Outgoing};
pub use url::{BrokerUrl, UrlError};
