//! Why a pending command cannot be read, approved or sent.

use muster_pki::VerifyError;
use muster_pki::time_text::utc;
use muster_protocol::limits::{SIGNATURES_BYTES_MAX, SIGNATURES_MAX};
use muster_protocol::{Code, Identity, MessageError, Timestamp, code};

use super::PENDING_BYTES_MAX;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PendingError {
    /// There is nothing in it.
    #[error("it holds no command")]
    Empty,
    /// More bytes than it may have.
    #[error("it has {bytes} bytes; at most {PENDING_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// One of its lines is wrong.
    #[error("command {number}: {why}")]
    Malformed {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// What was signed is no command that a host would read.
    #[error("hosts would not read it")]
    Message(#[from] MessageError),
    /// A signature or a certificate is not right.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Somebody else than the caller has signed first.
    #[error("its caller is `{}`, and the first signature is of `{}`", caller.short(), signer.short())]
    WrongCaller {
        /// Whom it names.
        caller: Box<Identity>,
        /// Who has signed first.
        signer: Box<Identity>,
    },
    /// It holds something that this program does not know, and so cannot show.
    #[error("it has `{field}`, which this program does not know and so cannot show to you")]
    UnknownField {
        /// What.
        field: String,
    },
    /// Nobody would start it any more.
    #[error("it expired at {}", utc(*expires_at))]
    Expired {
        /// When.
        expires_at: Timestamp,
    },
    /// Hosts would not start it yet.
    #[error("it was made {} s in the future of this machine's clock", ahead_ms / 1000)]
    FromTheFuture {
        /// By how much, in milliseconds.
        ahead_ms: i64,
    },
    /// The caller wants to approve.
    #[error("`{}` is its caller, and nobody approves his own command", caller.short())]
    OwnCommand {
        /// Who.
        caller: Box<Identity>,
    },
    /// Not a person.
    #[error("`{}` cannot approve: only users can", identity.short())]
    NotAnApprover {
        /// Who.
        identity: Box<Identity>,
    },
    /// Has signed before.
    #[error("`{}` has signed it already", identity.short())]
    AlreadyApproved {
        /// Who.
        identity: Box<Identity>,
    },
    /// More signatures than a message takes.
    #[error(
        "{signatures} signatures of {bytes} bytes; a message takes {SIGNATURES_MAX} of together {SIGNATURES_BYTES_MAX} bytes"
    )]
    NoRoom {
        /// How many.
        signatures: usize,
        /// How many bytes they take.
        bytes: usize,
    },
    /// The signatures are over other bytes.
    #[error("the signatures are for another command")]
    Differs,
}

/// A file that holds no pending command.
const BAD_PENDING: Code = Code {
    code: "bad-pending",
    summary: "the file holds no pending command",
    explanation: "A pending command is what `muster run ... --pending` writes: one signed envelope a line, all of the same command, to hosts that are named. The message says what is wrong. If the file was edited, nothing can be saved of it: it has to be made again.",
};

/// Expired.
const PENDING_EXPIRED: Code = Code {
    code: "pending-expired",
    summary: "the pending command has expired",
    explanation: "Its caller signed until when it may be started; no host starts it later, and nobody can change that without all signatures being made anew. Make it again with `muster run ... --pending`, with `--ttl` for more time. Hosts allow one hour unless `limits.command_window_s` in their configuration says more. Exit code 9.",
};

/// The caller approves his own.
const OWN_COMMAND: Code = Code {
    code: "own-command",
    summary: "nobody approves his own command",
    explanation: "The caller's signature is there already and never counts as an approval. Give the file to somebody else.",
};

/// Not a user.
const NOT_AN_APPROVER: Code = Code {
    code: "not-an-approver",
    summary: "only users approve",
    explanation: "Hosts count approvals by certificates of users (`user/NAME`) only: the key of a service lies beside a program, and is no second person.",
};

/// Signed twice.
const ALREADY_APPROVED: Code = Code {
    code: "already-approved",
    summary: "you have signed it already",
    explanation: "A person counts once. If hosts still refuse it with `needs-approval`, somebody else has to sign; the refusal says who.",
};

/// No room.
const TOO_MANY_APPROVALS: Code = Code {
    code: "too-many-approvals",
    summary: "there is no room for one more signature",
    explanation: "A message has at most 8 signatures of together 12 KiB; certificates with many groups take more of that. Send it with those it has.",
};

/// Other bytes.
const PENDING_DIFFERS: Code = Code {
    code: "pending-differs",
    summary: "the files do not hold the same command",
    explanation: "Signatures are for exactly the bytes that were signed. Compare the digests that `muster pending show` prints for each file. Nothing was changed.",
};

impl PendingError {
    /// The codes that this module adds.
    pub const CODES: &'static [Code] = &[
        BAD_PENDING,
        PENDING_EXPIRED,
        OWN_COMMAND,
        NOT_AN_APPROVER,
        ALREADY_APPROVED,
        TOO_MANY_APPROVALS,
        PENDING_DIFFERS,
    ];

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::TooLarge { .. } | Self::Malformed { .. } | Self::Message(_) => BAD_PENDING.code,
            Self::Verify(error) => error.code().code,
            Self::WrongCaller { .. } => code::WRONG_IDENTITY.code,
            Self::UnknownField { .. } => code::UNSUPPORTED_FEATURE.code,
            Self::Expired { .. } => PENDING_EXPIRED.code,
            Self::FromTheFuture { .. } => code::FROM_THE_FUTURE.code,
            Self::OwnCommand { .. } => OWN_COMMAND.code,
            Self::NotAnApprover { .. } => NOT_AN_APPROVER.code,
            Self::AlreadyApproved { .. } => ALREADY_APPROVED.code,
            Self::NoRoom { .. } => TOO_MANY_APPROVALS.code,
            Self::Differs => PENDING_DIFFERS.code,
        }
    }

    /// Whether trying again later can help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::FromTheFuture { .. })
    }
}
