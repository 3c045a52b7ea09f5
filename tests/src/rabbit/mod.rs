//! A private RabbitMQ: own node name, ports, data, log and epmd, on loopback only.
//!
//! A [`Node`] is one broker. [`shared`] gives the tests of one process one node, and each test a virtual
//! host of its own on it ([`TestBus`]). A node ends with its owner: [`Node::stop`], `Drop`, or the death of the
//! process that started it, because a supervising shell waits for a pipe to close (`supervisor.sh`).

mod installation;
mod node;
mod shared;

pub use installation::Installation;
pub use node::{Node, NodeOptions};
pub use shared::{Breakable, Shared, TestBus, breakable, shared};
