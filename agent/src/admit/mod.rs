//! May this message do something here? The decision, as a pure function over data.
//!
//! # The data and how it flows
//!
//! [`Received`] is what the bus delivered: bytes, and claims about them. [`verify`] turns it into
//! [`Verified`]: somebody known has signed exactly this, and it is a message of the protocol.
//! [`decide_command`] and [`decide_cancel`] turn that into [`Authorized`], or say why not. The executor
//! takes nothing else than [`Authorized`], and nothing outside this module can make one.
//!
//! # The order of the checks
//!
//! Cheapest and safest first. Until the signature is right nothing is parsed; until the host knows
//! whose request it is it answers nobody; and until the policy allows it, nothing the host knows of itself has a
//! part in whether it answers: a filter in the target would otherwise be a question that anybody may ask.
//!
//! | step | check | refused with |
//! |---|---|---|
//! | 1 | size of body and signatures | `too-large` |
//! | 2 | content type | `unknown-type` |
//! | 3 | signatures present and readable | `unsigned`, `bad-envelope` |
//! | 4 | certificates and signatures | `bad-signature`, `untrusted-certificate`, `expired-certificate`, `revoked-certificate`, `wrong-identity` |
//! | 5 | nesting, protocol version, shape | `too-deep`, `unsupported-version`, `malformed` |
//! | 6 | caller is the first signer and may command; the answers go to the caller | `wrong-identity` |
//! | 7 | collective is one of mine | silence |
//! | 8 | the names in the target leave me in | silence |
//! | 9 | id not seen before | `replayed`; silence if the broker says it delivers again |
//! | 10 | policy | `policy-denied`, `needs-approval` |
//! | 11 | time window | `expired`, `from-the-future`, `window-too-long` |
//! | 12 | required features | `unsupported-feature` |
//! | 13 | the filter in the target holds here | silence, `bad-target` |
//! | 14 | plugin, action, secret arguments, arguments | `unknown-plugin`, `unknown-action`, `not-activated`, `secret-not-sealed`, `cannot-unseal`, `unknown-argument`, `missing-argument`, `invalid-argument` |
//! | 15 | options | `unsupported-option` |
//! | 16 | room to run it | `busy` |
//!
//! Refusals in steps 1 to 6 are not answered: nobody is known to whom the answer would belong. There is
//! one exception. If all signatures are right and from our authority, and what is wrong in step 4 is only
//! that a certificate has expired, is not valid yet or is revoked, then the sender is known and no more
//! than that. [`Lapsed`] keeps what an answer needs, under the conditions of steps 5 to 8, and
//! nothing of what was asked for.
//!
//! Those in steps 9 and 10 are answered whatever the filter says, and it is not even read. Those in steps 11 and 12
//! are answered if the filter holds, as far as can be told without asking plugins; from step 13 on every refusal is
//! answered. The journal comes before the clock, because what was started once must never be answered with
//! a refusal that reads as if it had not. All refusals are audited; silence is not, except for step 9.
//!
//! For a cancellation or a watch, steps 9, 10 and 14 to 16 are one, in the place of step 10: whether the request runs
//! or is known here, and whether the sender may touch it.

mod decide;
mod examine;
mod lapsed;
mod secrets;
mod target;
mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::Signer;
use muster_plugin_api::Plugin;
use muster_protocol::expr::Call;
use muster_protocol::{
    Cancel, Code, CollectiveName, Command, Identity, ReplyRoute, RequestId, Target, Timestamp, Watch, code,
};
use serde_json::{Map, Value};

pub use decide::{Host, KnownAction, Limits, RunningAction, decide_cancel, decide_command, decide_watch, keep_until};
pub use examine::{Examined, ForeignRequest, Petition, examine, examine_foreign};
pub use lapsed::Lapsed;
pub use secrets::Unseal;
pub(crate) use secrets::{masked, names as secret_names};
pub use verify::{Incoming, Rejected, verify};

/// A message as the bus delivered it. Nothing about it is known to be true.
#[derive(Debug, Clone)]
pub struct Received {
    /// The content type it claims.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// The signatures header; empty if there was none.
    pub signatures: Bytes,
    /// Whether the broker says that it delivered it before.
    pub redelivered: bool,
    /// Its size, if it was too large to be handed over at all.
    pub oversized: Option<usize>,
}

/// What commands, cancellations and watches have in common.
pub trait Addressed: fmt::Debug + Clone {
    /// What the decision found out on the way, which the executor needs.
    type Grant: fmt::Debug;

    /// The message's id.
    fn id(&self) -> RequestId;
    /// Who claims to ask.
    fn caller(&self) -> &Identity;
    /// When it was made.
    fn created_at(&self) -> Timestamp;
    /// From when on nobody may obey it.
    fn expires_at(&self) -> Timestamp;
    /// Which part of the fleet is asked.
    fn collective(&self) -> &CollectiveName;
    /// Which hosts of it.
    fn target(&self) -> &Target;
    /// Where the answers go.
    fn reply_to(&self) -> &ReplyRoute;
    /// Features that must not be ignored.
    fn requires(&self) -> &[String];
}

macro_rules! addressed {
    ($type:ty, $grant:ty) => {
        impl Addressed for $type {
            type Grant = $grant;

            fn id(&self) -> RequestId {
                self.id
            }
            fn caller(&self) -> &Identity {
                &self.caller
            }
            fn created_at(&self) -> Timestamp {
                self.created_at_ms
            }
            fn expires_at(&self) -> Timestamp {
                self.expires_at_ms
            }
            fn collective(&self) -> &CollectiveName {
                &self.collective
            }
            fn target(&self) -> &Target {
                &self.target
            }
            fn reply_to(&self) -> &ReplyRoute {
                &self.reply_to
            }
            fn requires(&self) -> &[String] {
                &self.requires
            }
        }
    };
}

addressed!(Command, CommandGrant);
addressed!(Cancel, CancelGrant);
addressed!(Watch, WatchGrant);

/// A message that somebody known has signed, byte for byte. What it asks for is not allowed yet.
#[derive(Debug, Clone)]
pub struct Verified<M: Addressed> {
    message: M,
    signers: Vec<Signer>,
    body_sha256: String,
    redelivered: bool,
}

impl<M: Addressed> Verified<M> {
    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// Who signed. At least one; the first claims to be the caller.
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// SHA-256 of the signed bytes.
    pub fn body_sha256(&self) -> &str {
        &self.body_sha256
    }

    /// Whether the broker says that it delivered it before.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }
}

/// A message that passed every check and may be obeyed now. Only [`decide_command`], [`decide_cancel`] and
/// [`decide_watch`] make one.
#[derive(Debug)]
pub struct Authorized<M: Addressed> {
    verified: Verified<M>,
    grant: M::Grant,
}

impl<M: Addressed> Authorized<M> {
    /// The message and who signed it.
    pub fn verified(&self) -> &Verified<M> {
        &self.verified
    }

    /// The message.
    pub fn message(&self) -> &M {
        &self.verified.message
    }

    /// What the decision found out.
    pub fn grant(&self) -> &M::Grant {
        &self.grant
    }
}

/// How an authorized command is to be run.
pub struct CommandGrant {
    /// The plugin that runs it.
    pub plugin: Arc<dyn Plugin>,
    /// The policy rule that allowed it.
    pub rule: String,
    /// Whether the action only reads.
    pub read_only: bool,
    /// Whether the action can be stopped in the middle.
    pub can_cancel: bool,
    /// The arguments, checked and complete, secrets opened.
    pub arguments: Map<String, Value>,
    /// Which of them are secrets.
    pub secrets: BTreeSet<String>,
    /// How long it may take.
    pub time_limit: Duration,
}

impl CommandGrant {
    /// The arguments as they may be shown and recorded.
    #[must_use]
    pub fn masked_arguments(&self) -> Map<String, Value> {
        secrets::masked(&self.arguments, &self.secrets)
    }
}

impl fmt::Debug for CommandGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandGrant")
            .field("rule", &self.rule)
            .field("read_only", &self.read_only)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// Why a cancellation may be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelGrant {
    /// The policy rule that allowed it; `None` if the caller cancels its own request.
    pub rule: Option<String>,
}

/// Why a watch may be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchGrant {
    /// The policy rule that allowed it; `None` if the caller watches its own request.
    pub rule: Option<String>,
}

/// What becomes of a verified message.
#[derive(Debug)]
pub enum Decision<M: Addressed> {
    /// Nothing: it does not concern this host.
    Silence(Silence),
    /// It is not obeyed.
    Refuse(Refusal),
    /// The target asks plugins something first. Ask, then decide again with the answers.
    Resolve(Vec<Call>),
    /// It is obeyed.
    Run(Authorized<M>),
}

/// Why a host says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It is for a collective this host does not listen to.
    OtherCollective,
    /// The target's names or expression leave this host out.
    NotInTarget,
    /// The broker delivers again what was recorded before the connection broke. The first delivery
    /// answers, or has answered.
    Recovered,
}

/// Why a message is not obeyed, and whether its sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: &'static Code,
    /// For people.
    pub message: String,
    /// Whether to answer.
    pub answer: bool,
    /// The policy rule, where one decided.
    pub rule: Option<String>,
    /// More for programs.
    pub data: Value,
}

impl Refusal {
    pub(crate) fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), answer: true, rule: None, data: Value::Null }
    }

    /// Whether a copy of the refused command must never run, so that its id has to be remembered. Not where only
    /// signatures are missing: the same bytes come again when somebody has added one, and whoever holds
    /// bytes with too few signatures must not be able to spoil the id by sending them first.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        *self.code != code::NEEDS_APPROVAL
    }

    fn unanswered(self) -> Self {
        Self { answer: false, ..self }
    }
}
