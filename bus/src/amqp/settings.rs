//! What a connection over AMQP needs to know.

use std::fmt;
use std::time::Duration;

use muster_pki::{Credentials, Trust};

use crate::url::BrokerUrl;

/// Where the brokers are, who we are, whom we trust, and how long we wait.
#[derive(Clone)]
pub struct AmqpSettings {
    /// The brokers, all equal; tried in random order.
    pub urls: Vec<BrokerUrl>,
    /// Our certificate and key. The certificate is the login (SASL EXTERNAL).
    pub credentials: Credentials,
    /// The CA that must have issued the broker's certificate.
    pub trust: Trust,
    /// The name under which people find the connection on the broker.
    pub connection_name: String,
    /// Interval of heartbeats in seconds; a connection silent for twice that is dead.
    pub heartbeat_s: u16,
    /// Largest AMQP frame in bytes. The client's buffers are 64 times that.
    pub frame_max: u32,
    /// How long one address may take to answer TCP, and then how long to an open AMQP connection. Each handshake
    /// that was too slow doubles the latter for the next, up to a minute, so that a broker to which a whole fleet comes
    /// back is not asked again before it has got round to answering.
    pub connect_timeout: Duration,
    /// How long the broker may take to answer anything else, a publisher confirm included.
    pub operation_timeout: Duration,
    /// Whether unconfirmed messages leave over the channel of the consumer, once there is one. That saves the broker
    /// a channel for each connection, and an acknowledgement and the answer that follows it are one piece of work for
    /// it. It is for those of whose unconfirmed messages the broker refuses none: one that it does refuse ends the
    /// consumer with [`ConsumerEnd::CancelledByBroker`](crate::ConsumerEnd::CancelledByBroker).
    pub one_channel: bool,
}

impl AmqpSettings {
    /// Settings with the defaults: heartbeat 30 s, frames of 16 KiB, 10 s to connect, 15 s for any other answer.
    #[must_use]
    pub fn new(urls: Vec<BrokerUrl>, credentials: Credentials, trust: Trust) -> Self {
        Self {
            urls,
            connection_name: credentials.identity().to_string(),
            credentials,
            trust,
            heartbeat_s: 30,
            frame_max: 16 * 1024,
            connect_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(15),
            one_channel: false,
        }
    }
}

impl fmt::Debug for AmqpSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AmqpSettings")
            .field("urls", &self.urls)
            .field("identity", self.credentials.identity())
            .field("connection_name", &self.connection_name)
            .field("heartbeat_s", &self.heartbeat_s)
            .field("frame_max", &self.frame_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .field("one_channel", &self.one_channel)
            .finish_non_exhaustive()
    }
}
