//! Numbers of what the engine holds. A key of something that is gone finds nothing, even after its place is used again.

use slotmap::new_key_type;

new_key_type! {
    /// An exchange.
    pub(super) struct ExchangeKey;
    /// A queue.
    pub(super) struct QueueKey;
    /// A consumer.
    pub(super) struct ConsumerKey;
    /// A channel.
    pub(super) struct ChannelKey;
    /// A connection.
    pub(super) struct ConnectionKey;
    /// A message, held once for all that refer to it.
    pub(super) struct StoredKey;
}

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A queue.
    Queue(QueueKey),
    /// Another exchange.
    Exchange(ExchangeKey),
}
