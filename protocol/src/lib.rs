//! The protocol `muster/1`: everything two programs must agree on, and nothing that does I/O.
//!
//! # The data and how it flows
//!
//! A controller builds a [`Command`], [`encode`]s it to the exact bytes that it then signs over
//! [`envelope::pre_authentication_encoding`]. The bytes travel as the AMQP body, the signatures in a
//! header, and the names in [`routing`] carry them. An agent verifies the signature over the bytes it
//! received and only then [`decode`]s them: size, depth, JSON, version, rules. It evaluates the
//! target's expression ([`expr`]) over its own facts, checks the arguments against the action's
//! [`ddl`], and answers with numbered [`ProgressReport`]s.
//!
//! # Non-goals
//!
//! No I/O, no async, no clock, no cryptography: times and random bytes are arguments, signatures are
//! made in `muster-pki`.
//!
//! # Invariants
//!
//! - Names, ids and routes are checked in their constructors and deserialise through them.
//! - [`encode`] and [`decode`] apply the same [`Message::check`], so nobody signs what nobody accepts.
//! - Unknown fields and enum words never break a reader of the same version; what must not be ignored
//!   is listed in [`Command::requires`].

mod announcement;
pub mod code;
mod command;
pub mod ddl;
mod decode;
pub mod envelope;
pub mod expr;
mod id;
pub mod limits;
pub mod name;
mod report;
pub mod routing;
mod sealed;
mod task_state;
mod version;

pub use announcement::{Announcement, AnnouncementKind, InstalledPlugin, Inventory, Profile};
pub use code::Code;
pub use command::{Cancel, Command, FEATURES, Options, Target, Watch};
pub use decode::{Message, MessageError, check_bounds, decode, encode};
pub use envelope::{Envelope, PayloadType, Signature};
pub use id::{RequestId, RequestIdError, Timestamp};
pub use name::{
    ActionName, CollectiveName, GroupName, HostName, Identity, NameError, PluginName, ReplyRoute, ServiceName,
    SessionName, SiteName, UserName,
};
pub use report::{
    AccumulatedProgressReport, ActionResult, Encoding, Outcome, OutputChunk, OutputStream, ProgressReport, ReportState,
};
pub use sealed::{INFO_KEY, INFO_VALUES, SealedArguments, SealedBox, SealedKey, SealingContext};
pub use task_state::{CountedAs, TaskState};
pub use version::ProtocolVersion;
