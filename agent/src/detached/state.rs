//! The life of a detached action as its agent sees it: a pure function from a state and what happened to the
//! next state and what is to be done.
//!
//! ```text
//! Starting ──begun──► Working ──reply──► Ended ──caught up──► Telling ──kept──► Told
//!     │                  │  ▲              ▲
//!     └──── runner gone, no reply: Closing ┘ (the agent takes the lock and writes the reply itself)
//! ```
//!
//! That a reply is there is the only way to `Ended`, and nobody writes a second one: the runner writes it
//! while it holds the lock, and an agent only once it has the lock and sees that there is none. Where the directory
//! was removed by hand there is nowhere to write one; then the agent keeps what it knows in memory, and the journal
//! answers for the request if the agent ends before that is told.

use muster_protocol::Timestamp;

use crate::core::StopReason;

/// How long a runner may take to begin, in milliseconds. A host that swaps takes seconds.
pub const START_PATIENCE_MS: i64 = 60_000;

/// How long after its own last deadline a runner that is still there is killed, in milliseconds.
pub const OVERDUE_MS: i64 = 60_000;

/// What the agent knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A runner was started and has not begun.
    Starting {
        /// Since when.
        since: Timestamp,
        /// Why it was told to stop, if it was.
        stop: Option<StopReason>,
    },
    /// The action runs.
    Working {
        /// By when the runner ends it.
        ends_by: Timestamp,
        /// Why it was told to stop, if it was.
        stop: Option<StopReason>,
        /// It is long overdue and was killed.
        killed: bool,
    },
    /// The runner is gone without a reply; the agent is to write one.
    Closing {
        /// What is known.
        loss: Loss,
    },
    /// How it ended is on disk.
    Ended,
    /// All output was reported; the last report is being made safe.
    Telling,
    /// The last report is safe.
    Told,
}

/// What an agent knows about an action whose runner left no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The runner ended before it began.
    NotBegun,
    /// The runner ended while it ran.
    RunnerGone,
    /// The host restarted while it ran.
    HostRestarted,
    /// Somebody removed the directory while it ran, and with it whatever its runner would have written.
    DirectoryRemoved,
}

/// What a look at the directory shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Somebody holds the lock.
    pub alive: bool,
    /// The process that this agent started has ended, or this agent started none.
    pub starter_gone: bool,
    /// By when a runner that has begun ends it.
    pub ends_by: Option<Timestamp>,
    /// What was begun was begun in another boot of the host.
    pub other_boot: bool,
    /// There is a reply.
    pub reply: bool,
    /// The directory is not there any more. Whether somebody is alive then goes by the process.
    pub removed: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent looked.
    Looked(Sighting),
    /// Somebody wants it to stop.
    StopAsked(StopReason),
    /// The agent could not take the lock to write a reply: somebody has it after all.
    LockHeld,
    /// All output up to the end was reported.
    CaughtUp,
    /// The last report is on disk, or given up with a record.
    Kept,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the file that tells the runner to stop.
    TellRunner(StopReason),
    /// Kill the runner, which should have ended long ago.
    KillRunner,
    /// Take the lock, end what is left, write a reply about the loss.
    Close(Loss),
    /// It does not run any more: others may.
    Release,
    /// Make the last report and see that it is safe.
    Conclude,
    /// The directory holds a result now that may be shown and some day removed.
    Settle,
}

impl State {
    /// At its beginning.
    #[must_use]
    pub fn starting(since: Timestamp) -> Self {
        Self::Starting { since, stop: None }
    }

    /// Whether it runs, as far as anybody knows.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Working { .. } | Self::Closing { .. })
    }

    /// Why it was told to stop, if it was.
    #[must_use]
    pub fn stop(&self) -> Option<&StopReason> {
        match self {
            Self::Starting { stop, .. } | Self::Working { stop, .. } => stop.as_ref(),
            _ => None,
        }
    }
}

/// The next state, and what is to be done.
#[must_use]
pub fn next(state: State, event: Event, now: Timestamp) -> (State, Vec<Effect>) {
    match (state, event) {
        (State::Starting { .. } | State::Working { .. } | State::Closing { .. }, Event::Looked(seen)) if seen.reply => {
            (State::Ended, vec![Effect::Release])
        }
        (State::Starting { .. } | State::Working { .. }, Event::Looked(seen)) if seen.removed && !seen.alive => {
            close(Loss::DirectoryRemoved)
        }
        (State::Starting { since, stop }, Event::Looked(seen)) => look_at_start(since, stop, seen, now),
        (State::Working { ends_by, stop, killed }, Event::Looked(seen)) => {
            if !seen.alive {
                return close(if seen.other_boot { Loss::HostRestarted } else { Loss::RunnerGone });
            }
            // Told anew at each look, since the clock may have been set in between.
            let ends_by = seen.ends_by.unwrap_or(ends_by);
            let overdue = !killed && now.since_ms(ends_by) > OVERDUE_MS;
            let effects = if overdue { vec![Effect::KillRunner] } else { Vec::new() };
            (State::Working { ends_by, stop, killed: killed || overdue }, effects)
        }
        (State::Starting { since, stop: None }, Event::StopAsked(reason)) => {
            (State::Starting { since, stop: Some(reason.clone()) }, vec![Effect::TellRunner(reason)])
        }
        (State::Working { ends_by, stop: None, killed }, Event::StopAsked(reason)) => {
            (State::Working { ends_by, stop: Some(reason.clone()), killed }, vec![Effect::TellRunner(reason)])
        }
        // The reply could not be written, for example because the disk is full.
        (State::Closing { loss }, Event::Looked(_)) => close(loss),
        // A runner that was slow to start got the lock first.
        (State::Closing { .. }, Event::LockHeld) => (State::starting(now), Vec::new()),
        (State::Ended, Event::CaughtUp) => (State::Telling, vec![Effect::Conclude]),
        (State::Telling, Event::Kept) => (State::Told, vec![Effect::Settle]),
        (state, _) => (state, Vec::new()),
    }
}

fn look_at_start(since: Timestamp, stop: Option<StopReason>, seen: Sighting, now: Timestamp) -> (State, Vec<Effect>) {
    match (seen.alive, seen.ends_by) {
        (true, Some(ends_by)) => (State::Working { ends_by, stop, killed: false }, Vec::new()),
        (false, Some(_)) => close(if seen.other_boot { Loss::HostRestarted } else { Loss::RunnerGone }),
        (false, None) if seen.starter_gone || now.since_ms(since) > START_PATIENCE_MS => close(Loss::NotBegun),
        (_, None) => (State::Starting { since, stop }, Vec::new()),
    }
}

fn close(loss: Loss) -> (State, Vec<Effect>) {
    (State::Closing { loss }, vec![Effect::Close(loss)])
}

#[cfg(test)]
mod tests;
