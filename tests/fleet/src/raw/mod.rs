//! The raw baseline: what the broker alone can do on this machine.
//!
//! An [`Echo`] is a fleet without Muster: as many connections over TLS 1.3, each with a certificate of its own, the queue
//! and the bindings of an agent, and a publisher that asks and counts answers. Nothing is signed, verified, decoded, journalled or acknowledged.
//! Messages have the sizes and properties of those that Muster really sends: [`Messages::record`] has the real controller ask
//! the real agent and keeps what both hand to their bus.
//!
//! # The data and how it flows
//!
//! [`connect_storm`] and [`Echo::start`] open connections with blocking sockets on a few threads (`connection`). The lean
//! echo (`lean`) then serves all of them from one thread: one read, one write and one TLS record for each answer. Frames are
//! written before the clock runs (`frames`) and only counted when they come (`scanner`). The lapin echo (`lapin_echo`) answers with the library that the product stands on, in the
//! plainest way, and shows what that costs.
//!
//! # Non-goals
//!
//! No AMQP client: no heartbeats, no recovery, no confirms, no flow control. Whatever goes wrong is an error.
//!
//! # Invariants
//!
//! - The echo is never made slower to look better beside it: whoever finds something cheaper puts it in.
//! - An echo and a fleet never have the same hosts at the same time: one after the other, where [`Echo::stop`] deletes the
//!   echo's queues, or beside each other ([`Place::beside`]), so that rounds of both can alternate.

mod connection;
mod echo;
mod frames;
mod lapin_echo;
mod lean;
mod messages;
mod scanner;
mod storm;

pub use echo::{Asked, Echo, Kind, Round};
pub use messages::Messages;
pub use storm::{ConnectStorm, Place, connect_storm};
