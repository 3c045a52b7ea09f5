//! Exchanges and limits of queues, as data: RabbitMQ's definitions and the embedded broker's engine are made from them.

use muster_protocol::limits::COMMAND_WINDOW_MS_MAX;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY};

/// The exchanges: durable, of kind `topic`, and made by nobody else.
pub const EXCHANGES: [&str; 2] = [EXCHANGE_COMMAND, EXCHANGE_REPLY];

/// A queue without consumers is deleted after this: the host is gone, or will declare it anew.
pub(crate) const AGENT_EXPIRES_MS: u64 = 24 * 60 * 60 * 1000;

/// No command lives longer than its own window (`muster_protocol::limits::COMMAND_WINDOW_MS_MAX`).
pub(crate) const AGENT_MESSAGE_TTL_MS: u64 = COMMAND_WINDOW_MS_MAX.unsigned_abs();

/// Commands waiting for one absent host. More than anybody types in a day.
const AGENT_MESSAGES_MAX: u64 = 1_000;

/// Bytes waiting for one absent host. With 10,000 hosts all absent and full this is 640 GB, so the
/// disk mark still matters; with usual commands of 2 KiB the message count is reached first.
const AGENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A user's reply queue without a consumer: the terminal is closed.
const USER_REPLY_EXPIRES_MS: u64 = 5 * 60 * 1000;

/// A service's reply queue without a consumer: long enough for a repair, since it holds results.
const SERVICE_REPLY_EXPIRES_MS: u64 = 24 * 60 * 60 * 1000;

/// Reports waiting for one session: 10,000 hosts with ten reports each.
const REPLY_MESSAGES_MAX: u64 = 100_000;

/// Bytes waiting for one session.
const REPLY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Drops its oldest message.
    DropHead,
    /// Refuses the newest, with a negative confirm.
    RejectPublish,
}

impl Overflow {
    /// RabbitMQ's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
        }
    }
}

/// Limits of the queues whose names begin so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePolicy {
    /// The policy's own name.
    pub name: &'static str,
    /// The beginning of the queues' names.
    pub prefix: &'static str,
    /// Milliseconds without a consumer after which a queue is deleted.
    pub expires_ms: u64,
    /// Milliseconds after which a message is dropped, if ever.
    pub message_ttl_ms: Option<u64>,
    /// Messages that wait.
    pub messages_max: u64,
    /// Bytes of bodies that wait.
    pub bytes_max: u64,
    /// What happens beyond.
    pub overflow: Overflow,
}

/// The limits of the queues. They hold for queues whoever declares them with whatever arguments: for numbers a broker takes
/// the smaller of policy and argument.
///
/// A full agent queue drops its *oldest* command: the newest is the one somebody waits for, and refusing
/// instead would let one absent host fail a broadcast to all others. A full reply queue *refuses*: the
/// agent gets a negative confirm, keeps its report in the spool and tries again, so nothing is lost.
pub const QUEUE_POLICIES: [QueuePolicy; 3] = [
    QueuePolicy {
        name: "muster-agent",
        prefix: "agent.",
        expires_ms: AGENT_EXPIRES_MS,
        message_ttl_ms: Some(AGENT_MESSAGE_TTL_MS),
        messages_max: AGENT_MESSAGES_MAX,
        bytes_max: AGENT_BYTES_MAX,
        overflow: Overflow::DropHead,
    },
    reply("muster-reply-service", "reply.service/", SERVICE_REPLY_EXPIRES_MS),
    reply("muster-reply-user", "reply.user/", USER_REPLY_EXPIRES_MS),
];

const fn reply(name: &'static str, prefix: &'static str, expires_ms: u64) -> QueuePolicy {
    QueuePolicy {
        name,
        prefix,
        expires_ms,
        message_ttl_ms: None,
        messages_max: REPLY_MESSAGES_MAX,
        bytes_max: REPLY_BYTES_MAX,
        overflow: Overflow::RejectPublish,
    }
}
