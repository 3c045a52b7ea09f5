//! What an agent that starts makes of a directory that it finds: a pure decision.

use muster_protocol::Timestamp;

use super::state::{Loss, State};
use crate::core::StopReason;

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The order can be read.
    pub order: bool,
    /// Somebody holds the lock.
    pub alive: bool,
    /// When it would have ended, and whether it began in another boot, if it began; an unreadable
    /// `begun.json` says that it began, and no more.
    pub begun: Option<BegunThen>,
    /// Why it was told to stop, if it was.
    pub stop: Option<StopReason>,
    /// There is a reply that can be read.
    pub reply: Written,
    /// The journal says that the request has not ended.
    pub unfinished: bool,
}

/// What is known about a beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BegunThen {
    /// By when it would have ended, if that can be read.
    pub ends_by: Option<Timestamp>,
    /// In another boot of the host.
    pub other_boot: bool,
}

/// Whether something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// No.
    Missing,
    /// Yes, and it cannot be read.
    Damaged,
    /// Yes.
    Good,
}

/// What is to be done with a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Go on from this state. Where it is `Closing`, a reply has to be written first.
    Resume(State),
    /// It was reported before: a result to keep for a while.
    Keep,
    /// It was never taken on, or cannot be understood, and nobody works in it: remove it. The journal answers
    /// for the request if it has to.
    Remove,
    /// It cannot be understood, and somebody works in it: tell them to stop, and leave it alone.
    StopAndLeave,
}

/// Decides.
#[must_use]
pub fn recover(found: &Remains, now: Timestamp) -> Recovery {
    if !found.order {
        return if found.alive { Recovery::StopAndLeave } else { Recovery::Remove };
    }
    match found.reply {
        Written::Good if found.unfinished => return Recovery::Resume(State::Ended),
        Written::Good => return Recovery::Keep,
        Written::Missing | Written::Damaged => {}
    }
    if found.alive {
        // Also if the journal, which may have been lost, knows nothing of it: somebody has to watch over it.
        return Recovery::Resume(match found.begun {
            Some(BegunThen { ends_by: Some(ends_by), .. }) => {
                State::Working { ends_by, stop: found.stop.clone(), killed: false }
            }
            _ => State::Starting { since: now, stop: found.stop.clone() },
        });
    }
    if !found.unfinished {
        return Recovery::Remove;
    }
    Recovery::Resume(State::Closing {
        loss: match found.begun {
            None => Loss::NotBegun,
            Some(BegunThen { other_boot: true, .. }) => Loss::HostRestarted,
            Some(BegunThen { other_boot: false, .. }) => Loss::RunnerGone,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    /// The ten bits of a number as remains: all combinations, readable or not.
    fn all() -> Vec<Remains> {
        let mut list = Vec::new();
        for bits in 0..16_u8 {
            let bit = |n: u8| bits & (1 << n) != 0;
            for reply in [Written::Missing, Written::Damaged, Written::Good] {
                for ends_by in [None, Some(None), Some(Some(Timestamp(5)))] {
                    for stop in [None, Some(StopReason::Shutdown)] {
                        list.push(Remains {
                            order: bit(0),
                            alive: bit(1),
                            begun: ends_by.map(|ends_by| BegunThen { ends_by, other_boot: bit(2) }),
                            stop,
                            reply,
                            unfinished: bit(3),
                        });
                    }
                }
            }
        }
        list
    }

    #[test]
    fn whatever_is_found_nothing_is_forgotten_and_nothing_told_twice() {
        for found in all() {
            let decided = recover(&found, NOW);
            match &decided {
                Recovery::Remove => {
                    assert!(!found.alive, "somebody works in it: {found:?}");
                    assert!(!found.order || !found.unfinished, "nobody would answer for it: {found:?}");
                }
                Recovery::StopAndLeave => assert!(found.alive && !found.order, "{found:?}"),
                Recovery::Keep => {
                    assert!(!found.unfinished && found.reply == Written::Good, "{found:?}");
                }
                Recovery::Resume(State::Ended) => {
                    assert!(found.reply == Written::Good && found.unfinished, "{found:?}")
                }
                Recovery::Resume(State::Closing { loss }) => {
                    assert!(!found.alive && found.reply != Written::Good, "{found:?}");
                    assert_eq!(*loss == Loss::NotBegun, found.begun.is_none(), "{found:?}");
                }
                Recovery::Resume(state) => {
                    assert!(found.alive && state.is_running(), "{found:?}");
                    assert_eq!(state.stop(), found.stop.as_ref(), "{found:?}");
                }
            }
            let answered = matches!(decided, Recovery::Resume(_));
            if found.order && (found.unfinished || found.alive) && found.reply != Written::Good {
                assert!(answered, "nobody answers for it: {found:?}");
            }
        }
    }
}
