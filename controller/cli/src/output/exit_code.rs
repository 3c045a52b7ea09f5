//! The exit codes: a documented interface, the same for every command and output format.

use std::fmt;

use muster_protocol::TaskState;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ExitCode {
    /// 0: every targeted host succeeded; the command did what it was asked.
    Success,
    /// 1: a bug or an unexpected error.
    Unexpected,
    /// 2: bad usage, input or query, or an unknown action.
    Usage,
    /// 3: finished, and some host failed, timed out or was cancelled.
    HostFailed,
    /// 4: nobody matched the target.
    NoMatch,
    /// 5: no host failed, but some gave no reply.
    NoReply,
    /// 6: refused by policy, on some hosts or all; none failed.
    Refused,
    /// 7: the broker or the service cannot be reached.
    Unreachable,
    /// 8: not logged in, or the identity was rejected.
    IdentityRejected,
    /// 9: the plan changed or expired, or a confirmation is missing. Nothing was sent.
    NotConfirmed,
    /// 10: stopped waiting; the hosts go on.
    StoppedWaiting,
    /// 130: interrupted by the operator.
    Interrupted,
}

impl ExitCode {
    /// All codes, strongest first: where several hold, the first of this list is the one.
    ///
    /// What kept the command from being sent comes before what came of it, since the latter then
    /// means nothing. A bug outranks all. An early stop outranks the results, which are not whole.
    pub(crate) const BY_STRENGTH: [Self; 12] = [
        Self::Unexpected,
        Self::Usage,
        Self::IdentityRejected,
        Self::Unreachable,
        Self::NoMatch,
        Self::NotConfirmed,
        Self::Interrupted,
        Self::StoppedWaiting,
        Self::HostFailed,
        Self::Refused,
        Self::NoReply,
        Self::Success,
    ];

    /// The number the shell sees.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::HostFailed => 3,
            Self::NoMatch => 4,
            Self::NoReply => 5,
            Self::Refused => 6,
            Self::Unreachable => 7,
            Self::IdentityRejected => 8,
            Self::NotConfirmed => 9,
            Self::StoppedWaiting => 10,
            Self::Interrupted => 130,
        }
    }

    /// What it means, in a few words.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Success => "every targeted host succeeded",
            Self::Unexpected => "bug or unexpected error",
            Self::Usage => "bad usage, input, query, unknown action",
            Self::HostFailed => "finished, some host failed or timed out",
            Self::NoMatch => "nobody matched",
            Self::NoReply => "no failure, but some gave no reply",
            Self::Refused => "refused by policy (some or all), none failed",
            Self::Unreachable => "broker or service unreachable",
            Self::IdentityRejected => "not logged in or identity rejected",
            Self::NotConfirmed => "plan changed, expired, or confirmation missing",
            Self::StoppedWaiting => "stopped waiting; the hosts go on",
            Self::Interrupted => "interrupted",
        }
    }

    /// The code for a named file that cannot be read or written: a wrong name, unless the system is to blame.
    pub(crate) fn of_file_error(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::OutOfMemory => Self::Unexpected,
            // EIO and EMFILE have no kind of their own.
            _ if matches!(error.raw_os_error(), Some(5 | 23 | 24)) => Self::Unexpected,
            _ => Self::Usage,
        }
    }

    /// Chooses the one code of all that hold. Nothing holds: success.
    pub(crate) fn choose(holding: impl IntoIterator<Item = Self>) -> Self {
        let holding: Vec<Self> = holding.into_iter().collect();
        Self::BY_STRENGTH.into_iter().find(|code| holding.contains(code)).unwrap_or(Self::Success)
    }

    /// The code that one host's state calls for. `tolerated` is what `--tolerate` maps to success.
    pub(crate) fn of_state(state: TaskState, tolerated: &[Tolerated]) -> Self {
        let code = match state {
            TaskState::Succeeded => Self::Success,
            // Cancelled by whom ever: it is not done, and a script must not go on as if it were.
            TaskState::Failed | TaskState::TimedOut | TaskState::Cancelled => Self::HostFailed,
            TaskState::NoReply => Self::NoReply,
            TaskState::Refused => Self::Refused,
            // The stop rule's doing, and then a failure holds too.
            TaskState::NotStarted => Self::Success,
            TaskState::Pending | TaskState::Running => Self::StoppedWaiting,
        };
        if tolerated.iter().any(|tolerated| tolerated.exit_code() == code) { Self::Success } else { code }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// An end that `--tolerate` turns into success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Tolerated {
    /// Hosts that gave no reply.
    NoReply,
    /// Hosts whose policy refused.
    Refused,
}

impl Tolerated {
    fn exit_code(self) -> ExitCode {
        match self {
            Self::NoReply => ExitCode::NoReply,
            Self::Refused => ExitCode::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_documented_one() {
        let order: Vec<u8> = ExitCode::BY_STRENGTH.iter().map(|code| code.number()).collect();
        let documented = [2, 8, 7, 4, 9, 3, 6, 5];
        let shared: Vec<u8> = order.into_iter().filter(|number| documented.contains(number)).collect();
        assert_eq!(shared, documented);
    }

    #[test]
    fn one_code_is_chosen_from_many_hosts() {
        let check = |states: &[TaskState], tolerated: &[Tolerated], expected: u8| {
            let code = ExitCode::choose(states.iter().map(|state| ExitCode::of_state(*state, tolerated)));
            assert_eq!(code.number(), expected, "{states:?} {tolerated:?}");
        };
        use TaskState::{Cancelled, Failed, NoReply, NotStarted, Pending, Refused, Succeeded, TimedOut};
        check(&[], &[], 0);
        check(&[Succeeded, Succeeded], &[], 0);
        check(&[Succeeded, NoReply], &[], 5);
        check(&[Succeeded, NoReply, Refused], &[], 6);
        check(&[Succeeded, NoReply, Refused, Failed], &[], 3);
        check(&[TimedOut, NotStarted], &[], 3);
        check(&[Succeeded, Cancelled], &[], 3);
        check(&[Succeeded, NoReply], &[Tolerated::NoReply], 0);
        check(&[Succeeded, NoReply, Refused], &[Tolerated::NoReply], 6);
        check(&[Succeeded, Refused], &[Tolerated::NoReply, Tolerated::Refused], 0);
        check(&[Succeeded, Failed, Pending], &[], 10);
    }
}
