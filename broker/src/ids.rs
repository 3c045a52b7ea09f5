//! Numbers that name things.

use std::fmt;

/// A connection, for as long as the broker runs; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// No connection at all: an operator, from whom no queue is locked.
    pub const OPERATOR: Self = Self(0);
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "connection {}", self.0)
    }
}

/// A channel of a connection, chosen by the client; 1 and up (AMQP 0-9-1 section 4.2.3).
pub type ChannelNumber = u16;

/// A delivery of a channel, counted from 1 (section 1.1 of the reference, `delivery-tag`).
pub type DeliveryTag = u64;
