//! Why a question could not be asked, or its answers not be collected to the end.

use crate::pending::PendingError;
use muster_bus::{BusError, CloseReason, PublishError, TlsProblem};
use muster_pki::sealing::SealingError;
use muster_protocol::{Code, HostName, Identity, MessageError, RequestId};

/// Why asking failed. What had arrived until then is in the summary.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection came about, or the broker refused to set it up.
    #[error(transparent)]
    Bus(BusError),
    /// The broker did not take the command.
    #[error(transparent)]
    Publish(PublishError),
    /// The credentials are those of a host or a broker.
    #[error("`{identity}` may not send commands; only users and services may")]
    NotAController {
        /// Whose credentials they are.
        identity: Identity,
    },
    /// A pending command is another caller's, or of another session.
    #[error("the answers go to `{}`, who has signed first; you are `{}`", caller.short(), identity.short())]
    NotTheCaller {
        /// Whose command it is.
        caller: Identity,
        /// Whose credentials these are.
        identity: Identity,
    },
    /// A pending command that cannot be written or sent.
    #[error(transparent)]
    Pending(#[from] PendingError),
    /// The command breaks a rule or a limit of the protocol. Nothing was sent.
    #[error("write the command")]
    Message(#[from] MessageError),
    /// There are secret arguments, and a host has given no key to seal them to; or it is not known who will be asked.
    #[error("secret arguments cannot be sealed to {}", host.as_ref().map_or("hosts that are not named".to_owned(), |host| format!("`{host}`")))]
    NoSealingKey {
        /// The host; `None` for a broadcast.
        host: Option<HostName>,
    },
    /// The secret arguments could not be sealed.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// A host was meant by two parts of one message, so its answers could not be told apart.
    #[error("request `{request}` and another part of the message mean the same host")]
    Overlapping {
        /// One of the parts.
        request: RequestId,
    },
    /// Nobody is bound to the broadcast key.
    #[error("no agent listens to `{routing_key}`")]
    NobodyListens {
        /// The key the command was published with.
        routing_key: String,
    },
    /// The broker ended reading the queue for the answers while they were awaited, and the connection lives on.
    #[error("the broker {} while answers were awaited", gone(queue, why.as_deref()))]
    ReplyQueueGone {
        /// Its name.
        queue: String,
        /// The broker's words, where it said any; a queue that is deleted ends without.
        why: Option<String>,
    },
    /// The connection broke and could not be made again in time.
    #[error("the connection to the broker broke while answers were awaited")]
    ConnectionLost {
        /// Why the last try to connect again failed; what ended the connection, if there was no time to try.
        #[source]
        source: BusError,
    },
}

/// How a program that cannot go on because of an error ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The question itself is wrong.
    Usage,
    /// Nobody is there to ask.
    NoMatch,
    /// The broker is not reachable or does not work.
    Unreachable,
    /// The broker does not let this identity do it.
    IdentityRejected,
}

/// Command outside the protocol's rules.
const BAD_COMMAND: Code = Code {
    code: "bad-command",
    summary: "the command breaks a rule of the protocol; nothing was sent",
    explanation: "It is too large, lives too long or names nobody. The message names the field. Large inputs belong into a file that the hosts fetch.",
};

/// Credentials that cannot command.
const NOT_A_CONTROLLER: Code = Code {
    code: "not-a-controller",
    summary: "these credentials are not those of a user or a service",
    explanation: "Hosts and brokers have certificates that cannot command. Point the context at a certificate made with `muster pki issue user/NAME`.",
};

/// Somebody else's pending command.
const NOT_THE_CALLER: Code = Code {
    code: "not-the-caller",
    summary: "only its caller can send a pending command",
    explanation: "The caller has signed where the answers go, and the broker gives them to nobody else. Give the file, or your signatures alone (`muster approve FILE --signature-only OUT`), back to the caller, who sends it.",
};

/// Unroutable broadcast.
const NOBODY_LISTENS: Code = Code {
    code: "nobody-listens",
    summary: "no agent listens to this collective; nothing was sent",
    explanation: "The broker has no queue that is bound to the broadcast key. Either no agent has ever connected to this broker, or the collective's name is wrong. `muster context show` prints the name; an agent's is in its configuration.",
};

/// Reply queue deleted.
const REPLY_QUEUE_GONE: Code = Code {
    code: "reply-queue-gone",
    summary: "the broker deleted the queue for the answers",
    explanation: "Somebody deleted the queue, its broker node went down, or a policy let it expire; it was made again and taken away again. The hosts go on with what they were asked. `muster watch REQUEST` asks them how it stands; find out first who deletes the queues `reply.*`.",
};

/// Connection lost.
const CONNECTION_LOST: Code = Code {
    code: "connection-lost",
    summary: "the connection to the broker broke while answers were awaited",
    explanation: "It was tried for two minutes to make it again. The hosts go on with what they were asked, and keep how it ended for a day. `muster watch REQUEST` asks them once the broker is back; `muster request list` has the ids.",
};

impl ClientError {
    /// The codes that this crate adds to those of the protocol and the bus.
    pub const CODES: &'static [Code] =
        &[BAD_COMMAND, NOT_A_CONTROLLER, NOT_THE_CALLER, NOBODY_LISTENS, REPLY_QUEUE_GONE, CONNECTION_LOST];

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bus(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::NotAController { .. } => NOT_A_CONTROLLER.code,
            Self::NotTheCaller { .. } => NOT_THE_CALLER.code,
            Self::Pending(error) => error.code(),
            Self::Message(_) | Self::Overlapping { .. } | Self::NoSealingKey { .. } => BAD_COMMAND.code,
            Self::Sealing(error) => error.code().code,
            Self::NobodyListens { .. } => NOBODY_LISTENS.code,
            Self::ReplyQueueGone { .. } => REPLY_QUEUE_GONE.code,
            Self::ConnectionLost { .. } => CONNECTION_LOST.code,
        }
    }

    /// Whether trying again later can help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Bus(error) => error.is_transient(),
            Self::Publish(error) => error.is_transient(),
            Self::ReplyQueueGone { .. } | Self::ConnectionLost { .. } => true,
            Self::Pending(error) => error.is_transient(),
            Self::NotAController { .. }
            | Self::NotTheCaller { .. }
            | Self::Message(_)
            | Self::Overlapping { .. }
            | Self::NoSealingKey { .. }
            | Self::Sealing(_)
            | Self::NobodyListens { .. } => false,
        }
    }

    /// How a program that ends because of it says so.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Bus(error) | Self::Publish(PublishError::Bus(error)) => bus_class(error),
            Self::Publish(PublishError::TooLarge { .. })
            | Self::Message(_)
            | Self::Overlapping { .. }
            | Self::NoSealingKey { .. }
            | Self::Sealing(_) => FailureClass::Usage,
            Self::Publish(_) | Self::ReplyQueueGone { .. } | Self::ConnectionLost { .. } => FailureClass::Unreachable,
            Self::NotAController { .. } | Self::NotTheCaller { .. } => FailureClass::IdentityRejected,
            Self::Pending(_) => FailureClass::Usage,
            Self::NobodyListens { .. } => FailureClass::NoMatch,
        }
    }

    /// What the reader can do about it: a whole sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bus(error) => error.hint(),
            Self::Publish(error) => error.hint(),
            Self::NotAController { .. } => NOT_A_CONTROLLER.explanation,
            Self::NotTheCaller { .. } => NOT_THE_CALLER.explanation,
            Self::Pending(_) => "`muster pending show FILE` says what it is.",
            Self::Message(_) | Self::Overlapping { .. } | Self::NoSealingKey { .. } => BAD_COMMAND.explanation,
            Self::Sealing(error) => error.code().explanation,
            Self::NobodyListens { .. } => NOBODY_LISTENS.explanation,
            Self::ReplyQueueGone { .. } => REPLY_QUEUE_GONE.explanation,
            Self::ConnectionLost { .. } => CONNECTION_LOST.explanation,
        }
    }

    /// The error and what caused it, in one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// The error for a connection that ended while it was needed.
    pub(crate) fn closed(reason: CloseReason) -> Self {
        Self::ConnectionLost { source: BusError::Closed(reason) }
    }
}

impl From<BusError> for ClientError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl From<PublishError> for ClientError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unroutable { routing_key, .. } => Self::NobodyListens { routing_key },
            error => Self::Publish(error),
        }
    }
}

fn gone(queue: &str, why: Option<&str>) -> String {
    match why {
        Some(why) => format!("ended the reading of the reply queue `{queue}` ({why})"),
        None => format!("deleted the reply queue `{queue}`"),
    }
}

fn bus_class(error: &BusError) -> FailureClass {
    match error {
        BusError::Rejected { .. }
        | BusError::Denied { .. }
        | BusError::Tls { problem: TlsProblem::OursRefused(_), .. } => FailureClass::IdentityRejected,
        BusError::Settings { .. } => FailureClass::Usage,
        _ => FailureClass::Unreachable,
    }
}
