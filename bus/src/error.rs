//! What can go wrong on the bus, each with a stable code and a way out.

use std::fmt;

/// Why an operation on a bus or a link failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// No broker answered on any address.
    #[error("no broker answers: {}", list(tries))]
    Unreachable {
        /// Each address that was tried and what happened there.
        tries: Vec<Try>,
    },
    /// A broker answered, but no trusted session came about.
    #[error("no secure session with the broker at `{address}`: {problem}")]
    Tls {
        /// The broker's address.
        address: String,
        /// What was wrong with it.
        problem: TlsProblem,
    },
    /// The broker does not let this identity in.
    #[error("the broker at `{address}` refuses {problem}")]
    Rejected {
        /// The broker's address.
        address: String,
        /// What it refuses.
        problem: LoginProblem,
    },
    /// The broker does not allow this operation (AMQP 403).
    #[error("the broker does not allow to {operation} `{resource}`: {why}")]
    Denied {
        /// What was attempted.
        operation: Operation,
        /// The queue, or exchange and key.
        resource: String,
        /// The broker's words.
        why: String,
    },
    /// Queue or exchange do not exist (AMQP 404).
    #[error("cannot {operation} `{resource}`: {why}")]
    NotFound {
        /// What was attempted.
        operation: Operation,
        /// The queue, or exchange and key.
        resource: String,
        /// The broker's words.
        why: String,
    },
    /// The queue exists with other properties or belongs to somebody else (AMQP 405, 406 and exclusive use).
    #[error("cannot {operation} `{resource}`, it is in use in another way: {why}")]
    Conflict {
        /// What was attempted.
        operation: Operation,
        /// The queue, or exchange and key.
        resource: String,
        /// The broker's words.
        why: String,
    },
    /// The connection is gone.
    #[error("the connection to the broker is closed: {0}")]
    Closed(CloseReason),
    /// The broker did not answer in time.
    #[error("the broker did not answer within {limit_ms} ms when asked to {operation} `{resource}`")]
    Timeout {
        /// What was attempted.
        operation: Operation,
        /// The queue, or exchange and key.
        resource: String,
        /// How long it was given, in milliseconds.
        limit_ms: u64,
    },
    /// The broker said something that the protocol does not foresee here.
    #[error("unexpected answer when asked to {operation} `{resource}`: {why}")]
    Unexpected {
        /// What was attempted.
        operation: Operation,
        /// The queue, or exchange and key.
        resource: String,
        /// What was answered.
        why: String,
    },
    /// The settings cannot be used.
    #[error("broker settings: {why}")]
    Settings {
        /// What is wrong with them.
        why: String,
    },
}

/// One address and what happened there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// Host name or address, with port.
    pub address: String,
    /// What happened, in a few words.
    pub why: String,
}

/// What was attempted. Displays as an infinitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Open a channel.
    Open,
    /// Declare a queue.
    Declare,
    /// Bind a queue.
    Bind,
    /// Remove a binding.
    Unbind,
    /// Read a queue.
    Consume,
    /// Publish a message.
    Publish,
    /// Acknowledge, reject or requeue a delivery.
    Settle,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Declare => "declare",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Consume => "read",
            Self::Publish => "publish to",
            Self::Settle => "acknowledge",
        })
    }
}

/// Why no secure session came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsProblem {
    /// Its certificate does not come from our CA.
    #[error("its certificate does not come from the trusted CA")]
    UnknownCa,
    /// Its certificate is for other names.
    #[error("its certificate is not for `{expected}`{}", names(presented))]
    WrongName {
        /// The name that was asked for.
        expected: String,
        /// The names the certificate has.
        presented: Vec<String>,
    },
    /// Its certificate has expired.
    #[error("its certificate has expired")]
    Expired,
    /// Its certificate is not valid yet.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// Its certificate was revoked.
    #[error("its certificate is revoked")]
    Revoked,
    /// Its certificate is not usable for a server or broken.
    #[error("its certificate cannot be accepted: {0}")]
    BadCertificate(String),
    /// The broker does not accept our certificate (a TLS alert).
    #[error("it does not accept our certificate: {0}")]
    OursRefused(String),
    /// The other side does not speak TLS, or not a version of it that we do.
    #[error("{0}")]
    Handshake(String),
}

/// What the broker refused at login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginProblem {
    /// The user does not exist there, or may not log in with a certificate.
    #[error("the login of `{user}`: {why}")]
    Login {
        /// The identity that tried to log in.
        user: String,
        /// The broker's words.
        why: String,
    },
    /// The virtual host does not exist, or the user may not enter it.
    #[error("the virtual host `{vhost}`: {why}")]
    Vhost {
        /// The virtual host.
        vhost: String,
        /// The broker's words.
        why: String,
    },
    /// The session's parameters.
    #[error("the session: {why}")]
    Session {
        /// The broker's words.
        why: String,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed by this side")]
    Requested,
    /// The broker closed it, for example because it stops (AMQP 320).
    #[error("the broker closed it with {code}: {text}")]
    ByBroker {
        /// The AMQP reply code.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// The network connection broke.
    #[error("connection lost: {why}")]
    Lost {
        /// What the system said.
        why: String,
    },
    /// The broker was silent for longer than the heartbeat allows.
    #[error("no heartbeat from the broker")]
    HeartbeatMissed,
}

/// Why a message was not published, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message reached no queue: nobody listens there. It is gone.
    #[error("no queue takes messages for `{routing_key}` on exchange `{exchange}`")]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// The broker took the message and then gave it up, for example because a queue is full.
    #[error("the broker did not keep the message for `{routing_key}` on exchange `{exchange}`")]
    Refused {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// The broker takes no messages at present, because it lacks memory or disk.
    #[error("the broker blocks publishers ({why}); nothing was confirmed within {limit_ms} ms")]
    Blocked {
        /// The broker's words.
        why: String,
        /// How long the message was given, in milliseconds.
        limit_ms: u64,
        /// Whether it was sent before the broker said so: it may arrive once the broker takes messages again.
        sent: bool,
    },
    /// Body or signatures are larger than the protocol allows. Nothing was sent.
    #[error("the message has {bytes} bytes of {what}, more than {limit} are not allowed")]
    TooLarge {
        /// What is too large: `body`, `signatures`, `routing key` or `content type`.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The message was sent, but the confirmation did not come: it may have arrived or not.
    #[error("the broker did not confirm the message for `{routing_key}`")]
    Unconfirmed {
        /// The routing key.
        routing_key: String,
        /// What came instead.
        #[source]
        cause: Box<BusError>,
    },
    /// It was not sent.
    #[error(transparent)]
    Bus(#[from] BusError),
}

fn list(tries: &[Try]) -> String {
    if tries.is_empty() {
        return "no address is configured".to_owned();
    }
    tries.iter().map(|one| format!("`{}` {}", one.address, one.why)).collect::<Vec<_>>().join(", ")
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return String::new();
    }
    format!(" but for {}", presented.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
}

impl BusError {
    /// Whether trying again later can help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Closed(_) | Self::Timeout { .. } => true,
            Self::Tls { .. }
            | Self::Rejected { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Unexpected { .. }
            | Self::Settings { .. } => false,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "broker-unreachable",
            Self::Tls { problem, .. } => match problem {
                TlsProblem::UnknownCa => "broker-unknown-ca",
                TlsProblem::WrongName { .. } => "broker-wrong-name",
                TlsProblem::Expired | TlsProblem::NotYetValid => "broker-certificate-expired",
                TlsProblem::Revoked => "broker-certificate-revoked",
                TlsProblem::BadCertificate(_) => "broker-bad-certificate",
                TlsProblem::OursRefused(_) => "certificate-refused",
                TlsProblem::Handshake(_) => "broker-tls",
            },
            Self::Rejected { problem, .. } => match problem {
                LoginProblem::Login { .. } => "broker-login-refused",
                LoginProblem::Vhost { .. } => "broker-vhost-refused",
                LoginProblem::Session { .. } => "broker-session-refused",
            },
            Self::Denied { .. } => "broker-denied",
            Self::NotFound { .. } => "broker-not-found",
            Self::Conflict { .. } => "broker-conflict",
            Self::Closed(_) => "broker-connection-closed",
            Self::Timeout { .. } => "broker-timeout",
            Self::Unexpected { .. } => "broker-unexpected",
            Self::Settings { .. } => "broker-settings",
        }
    }

    /// What the reader can do about it, in whole sentences.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "Check that the broker runs, that the address and port are right, and that no firewall is between."
            }
            Self::Tls { problem, .. } => match problem {
                TlsProblem::UnknownCa => {
                    "Compare the configured CA file with the CA that issued the broker's certificate: `muster pki show`."
                }
                TlsProblem::WrongName { .. } => {
                    "Use a name from the certificate in the broker's address, or issue the broker a certificate with this name."
                }
                TlsProblem::Expired | TlsProblem::NotYetValid => {
                    "Issue the broker a new certificate; if its dates look right, compare the clocks."
                }
                TlsProblem::Revoked => "Issue the broker a new certificate, and find out why the old one was revoked.",
                TlsProblem::BadCertificate(_) => "Issue the broker's certificate with `muster pki issue broker/NAME`.",
                TlsProblem::OursRefused(_) => {
                    "Look at our own certificate with `muster pki show`: it must come from the broker's CA and be valid now."
                }
                TlsProblem::Handshake(_) => {
                    "Check that the port is the broker's TLS port (5671 by default) and that it offers TLS 1.3."
                }
            },
            Self::Rejected { problem, .. } => match problem {
                LoginProblem::Login { .. } => {
                    "The broker must know this identity as a user: generate and import its definitions with `muster broker config`."
                }
                LoginProblem::Vhost { .. } => {
                    "Check the path of the broker's address, and that the broker's definitions give this user the virtual host."
                }
                LoginProblem::Session { .. } => "The broker's log says more.",
            },
            Self::Denied { .. } => "Compare the broker's permissions with what Muster needs: `muster broker check`.",
            Self::NotFound { .. } => {
                "Queue or exchange are missing on the broker: import its definitions again, `muster broker config`."
            }
            Self::Conflict { .. } => {
                "Another program with the same identity may be running, or an old queue is left over."
            }
            Self::Closed(_) => "It comes back by itself once the broker does.",
            Self::Timeout { .. } => "The broker is overloaded or the network is slow; look at the broker's log.",
            Self::Unexpected { .. } => "The broker's log says more.",
            Self::Settings { .. } => "Correct the broker section of the configuration.",
        }
    }
}

impl PublishError {
    /// Whether trying again later can help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unroutable { .. } | Self::TooLarge { .. } => false,
            Self::Refused { .. } | Self::Blocked { .. } | Self::Unconfirmed { .. } => true,
            Self::Bus(error) => error.is_transient(),
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => "unroutable",
            Self::Refused { .. } => "publish-refused",
            Self::Blocked { .. } => "broker-blocked",
            Self::TooLarge { .. } => "too-large",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Bus(error) => error.code(),
        }
    }

    /// What the reader can do about it, in whole sentences.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => {
                "Nobody is connected under this name. Check the collective or host name, and that the agent has connected once."
            }
            Self::Refused { .. } => "A queue is full, or the broker lost it. Look at the broker's queues.",
            Self::Blocked { .. } => "Free memory or disk space on the broker; its log says which alarm is on.",
            Self::TooLarge { .. } => "Send less in one message.",
            Self::Unconfirmed { .. } => "The message may have arrived. Look before you send it again.",
            Self::Bus(error) => error.hint(),
        }
    }

    /// Whether the message may have arrived in spite of the error.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. } | Self::Blocked { sent: true, .. })
    }
}
