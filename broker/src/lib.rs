//! The embedded broker: an AMQP 0-9-1 server over TLS, with exactly what Muster and an ordinary AMQP client need.
//!
//! # The data and how it flows
//!
//! ```text
//!          bytes            frames              calls                     outputs
//! socket ────────► server ────────► session ────────────► engine ───────────────────► outbox of a connection
//!   ▲              TLS, time,       one connection,       exchanges, queues,              │
//!   │              limits           rights, contents      consumers: one lock             │
//!   └───────────────────────────────────────────────────────────────◄─────────────────────┘
//!                                                       records ──► journal ──► confirms
//! ```
//!
//! [`server`] accepts connections, makes TLS with them and moves bytes; it is the only part with I/O, tasks and a
//! clock. [`wire`] turns bytes into frames and back. A [`session`] is one connection as a state machine: it knows what
//! may come next, asks [`access`] whether this identity may do it, puts contents together and calls the [`engine`].
//! The engine is everything that connections share. It is a plain value: each call gets the time, changes the state,
//! and says through an [`Outlet`] what each connection is to be sent. The server holds it behind one lock, so the order
//! of calls is the order of everything. What must survive a restart goes, as [`journal`] records, through the same outlet.
//!
//! Everything that a connection is sent goes through one queue, its outbox, answers and deliveries alike, so a
//! `consume-ok` is before the first delivery and nothing comes after a `close-ok`.
//!
//! # Non-goals
//!
//! No cluster, no federation, no management interface, no plain TCP, no passwords, no transactions: RabbitMQ has what
//! goes beyond one machine. What is not implemented is refused with 540 `not-implemented`, never ignored.
//!
//! # Invariants
//!
//! - Who a connection is comes from its certificate alone; what it may do from `muster-broker-config`, which generates
//!   RabbitMQ's permissions too.
//! - Everything is bounded: frames, channels, connections, queues, bindings, messages, bytes in memory, bytes on disk.
//! - A confirm of a persistent message to a durable queue is sent after the journal has it on disk.
//! - The same calls with the same times give the same outputs.

pub mod access;
mod codes;
pub mod config;
pub mod control;
pub mod engine;
pub mod fault;
pub mod ids;
pub mod journal;
pub mod message;
pub mod noise;
pub mod outlet;
pub mod server;
pub mod session;
pub mod wire;

pub use codes::CODES;
pub use fault::Fault;
pub use ids::{ChannelNumber, ConnectionId, DeliveryTag};
pub use message::Message;
pub use outlet::{Outlet, Output};
