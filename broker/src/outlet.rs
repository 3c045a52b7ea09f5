//! What the engine and the sessions say to connections.

use std::sync::Arc;

use amq_protocol::protocol::AMQPClass;

use crate::ids::{ChannelNumber, ConnectionId, DeliveryTag};
use crate::journal::Record;
use crate::message::Message;

/// One thing to send on a connection. Turned into frames when the connection is written to.
#[derive(Debug, Clone)]
pub enum Output {
    /// A method without content.
    Method {
        /// 0 for the connection itself.
        channel: ChannelNumber,
        /// The method.
        method: Box<AMQPClass>,
    },
    /// The protocol header that this broker speaks, for a client that came with another one.
    ProtocolHeader,
    /// A heartbeat frame.
    Heartbeat,
    /// `basic.deliver`.
    Deliver {
        /// The consumer's channel.
        channel: ChannelNumber,
        /// The consumer.
        consumer: Arc<str>,
        /// The number of the delivery.
        tag: DeliveryTag,
        /// Whether it was delivered before.
        redelivered: bool,
        /// What.
        message: Arc<Message>,
    },
    /// `basic.get-ok`.
    GetOk {
        /// The channel.
        channel: ChannelNumber,
        /// The number of the delivery.
        tag: DeliveryTag,
        /// Whether it was delivered before.
        redelivered: bool,
        /// How many messages are left in the queue.
        left: u32,
        /// What.
        message: Arc<Message>,
    },
    /// `basic.return`.
    Return {
        /// The publisher's channel.
        channel: ChannelNumber,
        /// The reply code, such as 312.
        code: u16,
        /// Its words.
        text: &'static str,
        /// What comes back.
        message: Arc<Message>,
    },
    /// `basic.ack` or `basic.nack` for a published message. Neighbours may be sent as one with `multiple`.
    Confirm {
        /// The publisher's channel.
        channel: ChannelNumber,
        /// The number of the message on that channel since `confirm.select`.
        tag: DeliveryTag,
        /// Whether the broker has taken it.
        taken: bool,
    },
}

impl Output {
    /// Bytes that count against a connection's `outbox_bytes_max`, as [`Message::size`] says, until they are given to
    /// [`Engine::drained`](crate::engine::Engine::drained); 0 for what carries no message.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        match self {
            Self::Deliver { message, .. } | Self::GetOk { message, .. } | Self::Return { message, .. } => {
                message.size()
            }
            Self::Method { .. } | Self::Confirm { .. } | Self::ProtocolHeader | Self::Heartbeat => 0,
        }
    }
}

/// Where the engine puts what it says. Calls come in the order in which things happened.
pub trait Outlet {
    /// Something for a connection.
    fn send(&mut self, connection: ConnectionId, output: Output);

    /// Something to keep over a restart.
    fn record(&mut self, record: Record);

    /// A confirm that must wait until every record so far is on disk.
    fn send_when_durable(&mut self, connection: ConnectionId, output: Output);
}
