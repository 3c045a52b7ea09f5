//! What goes wrong, in AMQP's reply codes.

use std::borrow::Cow;

/// Why a method was refused, and what that ends (AMQP 0-9-1 section 4.10: an exception closes the channel or the connection).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {text}")]
pub struct Fault {
    /// The reply code, such as 404.
    pub code: u16,
    /// What, why and, where there is something, what to do. At most 255 bytes are sent.
    pub text: Cow<'static, str>,
    /// Whether it ends the connection or only the channel.
    pub scope: Scope,
}

/// What a fault ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The channel; the connection goes on.
    Channel,
    /// The connection.
    Connection,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $code:literal $word:literal $scope:ident;)*) => {
        impl Fault {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(text: impl std::fmt::Display) -> Self {
                Self { code: $code, text: format!(concat!($word, " - {}"), text).into(), scope: Scope::$scope }
            })*
        }
    };
}

faults! {
    /// A message or a content is larger than is allowed.
    content_too_large = 311 "CONTENT_TOO_LARGE" Channel;
    /// The identity may not do this.
    access_refused = 403 "ACCESS_REFUSED" Channel;
    /// The queue or exchange does not exist.
    not_found = 404 "NOT_FOUND" Channel;
    /// The queue is another connection's, or another consumer has it exclusively.
    resource_locked = 405 "RESOURCE_LOCKED" Channel;
    /// It exists with other properties, a tag is unknown, or an argument cannot be right.
    precondition_failed = 406 "PRECONDITION_FAILED" Channel;
    /// The broker or an operator ends the connection.
    connection_forced = 320 "CONNECTION_FORCED" Connection;
    /// The certificate gives no login.
    login_refused = 403 "ACCESS_REFUSED" Connection;
    /// The virtual host is not there or not for this identity.
    not_allowed = 530 "NOT_ALLOWED" Connection;
    /// A frame is malformed or larger than was agreed.
    frame_error = 501 "FRAME_ERROR" Connection;
    /// A method's or a table's bytes cannot be read.
    syntax_error = 502 "SYNTAX_ERROR" Connection;
    /// A method at the wrong time.
    command_invalid = 503 "COMMAND_INVALID" Connection;
    /// A channel that is not open, or open already.
    channel_error = 504 "CHANNEL_ERROR" Connection;
    /// A frame of a kind that cannot come now.
    unexpected_frame = 505 "UNEXPECTED_FRAME" Connection;
    /// A limit of the broker is reached.
    resource_error = 506 "RESOURCE_ERROR" Connection;
    /// Something that this broker does not do.
    not_implemented = 540 "NOT_IMPLEMENTED" Connection;
    /// A fault of the broker's own.
    internal_error = 541 "INTERNAL_ERROR" Connection;
}
