//! Who may have how many ids remembered.
//!
//! The journal remembers each id for as long as its command could be repeated, and it is bounded. What changes
//! something, what only reads and what is refused have budgets of their own, so that a flood of one kind does not
//! shut out the others. Within a budget a caller may take one more as long as he holds less than is still free: the
//! first gets at most a half of it, the next a half of the rest, and so on. One certificate, or a dozen in one
//! hand, cannot take it all.

use std::collections::HashMap;
use std::sync::Arc;

use muster_protocol::Identity;
use serde::{Deserialize, Serialize};

/// What an id is remembered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An action that changes something.
    Change,
    /// An action that only reads.
    Read,
    /// A request that was refused.
    Refusal,
}

impl Kind {
    /// How many ids of this kind are remembered at most. At a command a second and the default window of an hour
    /// a host remembers 3,600.
    #[must_use]
    pub fn budget(self) -> usize {
        match self {
            Self::Change | Self::Read => 40_000,
            Self::Refusal => 20_000,
        }
    }

    fn place(self) -> usize {
        match self {
            Self::Change => 0,
            Self::Read => 1,
            Self::Refusal => 2,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Change => "requests that change something",
            Self::Read => "requests that only read",
            Self::Refusal => "refused requests",
        })
    }
}

/// Whose an id is, and what it counts as.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) caller: Arc<Identity>,
    pub(super) kind: Kind,
}

/// How many ids each caller has remembered.
#[derive(Debug, Default)]
pub(super) struct Room {
    callers: HashMap<Arc<Identity>, [usize; 3]>,
    totals: [usize; 3],
}

impl Room {
    /// How many the caller holds, if he may not have one more.
    pub(super) fn is_denied(&self, caller: &Identity, kind: Kind) -> Option<usize> {
        let holds = self.callers.get(caller).map_or(0, |counts| counts[kind.place()]);
        let free = kind.budget().saturating_sub(self.totals[kind.place()]);
        (holds >= free).then_some(holds)
    }

    /// How many ids of this kind are remembered.
    pub(super) fn held(&self, kind: Kind) -> usize {
        self.totals[kind.place()]
    }

    /// Counts one more, whether there is room or not.
    pub(super) fn take(&mut self, caller: &Identity, kind: Kind) -> Share {
        let known = self.callers.get_key_value(caller).map(|(caller, _)| caller.clone());
        let caller = known.unwrap_or_else(|| Arc::new(caller.clone()));
        self.callers.entry(caller.clone()).or_default()[kind.place()] += 1;
        self.totals[kind.place()] += 1;
        Share { caller, kind }
    }

    pub(super) fn give_back(&mut self, share: &Share) {
        let place = share.kind.place();
        self.totals[place] = self.totals[place].saturating_sub(1);
        if let Some(counts) = self.callers.get_mut(&share.caller) {
            counts[place] = counts[place].saturating_sub(1);
            if counts.iter().all(|count| *count == 0) {
                self.callers.remove(&share.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: usize) -> Identity {
        format!("user/u{number}").parse().unwrap()
    }

    #[test]
    fn nobody_takes_all_and_the_next_ones_find_room() {
        let mut room = Room::default();
        let mut taken = Vec::new();
        for number in 0..50 {
            let before = taken.len();
            while room.is_denied(&caller(number), Kind::Read).is_none() {
                taken.push(room.take(&caller(number), Kind::Read));
            }
            assert!(number > 12 || taken.len() > before, "caller {number} found no room");
            assert!(taken.len() <= Kind::Read.budget());
            assert!(number > 12 || taken.len() < Kind::Read.budget(), "{number} callers have taken all");
            if number == 0 {
                assert_eq!(taken.len(), Kind::Read.budget() / 2);
            }
        }
        // The other kinds have their own.
        assert_eq!(room.is_denied(&caller(0), Kind::Change), None);
        assert_eq!(room.is_denied(&caller(0), Kind::Refusal), None);
        for share in &taken {
            room.give_back(share);
        }
        assert!(room.callers.is_empty() && room.totals == [0; 3]);
    }
}
