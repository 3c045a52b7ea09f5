//! A message as the broker keeps it.

use bytes::Bytes;

/// What was published, once for all queues that hold it.
///
/// Properties stay the bytes they came as (flags and values, AMQP 0-9-1 section 4.2.6.1), since the broker hands them on
/// unchanged; the few that it acts on are beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published; `""` is the default exchange.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// The content header's property flags and list, as received.
    pub properties: Bytes,
    /// The content.
    pub body: Bytes,
    /// `delivery-mode` 2.
    pub persistent: bool,
    /// `expiration` in milliseconds.
    pub expiration_ms: Option<u64>,
}

impl Message {
    /// Bytes that it takes in memory, for limits: contents, properties, names and a fixed part.
    #[must_use]
    pub fn size(&self) -> usize {
        const FIXED: usize = 160;
        self.body.len() + self.properties.len() + self.exchange.len() + self.routing_key.len() + FIXED
    }
}
