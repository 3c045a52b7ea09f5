//! A private RabbitMQ: own node name, ports, data, log and epmd, on loopback only.
//!
//! A [`Node`] is one broker. The tests of one process share one node, where each has a virtual host of its own
//! ([`Kind::bus`](crate::broker::Kind::bus)), and another one that they may break. A node ends with its owner: [`Node::stop`], `Drop`, or the death of the
//! process that started it, because a supervising shell waits for a pipe to close (`supervisor.sh`).

mod installation;
mod node;
mod shared;

pub use installation::Installation;
pub use node::{Node, NodeOptions};
pub(crate) use shared::{breakable_bus, hostile_bus, own, shared_bus};
