//! Ended actions whose directories are kept for a while, so that somebody may look at them again.
//!
//! Which ones go is decided by [`Results::surplus`], a plain function of what there is: those that ended too
//! long ago, and then, while all together take too much room, the one that ended first. What has not been
//! reported is not in here and stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::{Identity, RequestId, Timestamp};

use crate::core::{Core, lock, report_error};
use crate::detached::directory::Reply;
use crate::detached::{ActionDirectory, Order};
use crate::report::Ending;

/// How long and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long results are kept.
    pub keep: Duration,
    /// How much room all of them may take, in bytes.
    pub bytes_max: u64,
    /// How much output of one action is kept, in bytes.
    pub output_bytes_max: u64,
}

/// An ended action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Who asked.
    pub caller: Identity,
    /// `plugin.action`.
    pub action: String,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Size of its directory.
    pub bytes: u64,
}

/// Why a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It ended too long ago.
    Age,
    /// All together take too much room.
    Room,
}

/// The ended actions of one host.
#[derive(Debug, Default)]
pub struct Results {
    kept: BTreeMap<RequestId, Kept>,
}

impl Results {
    /// Adds one.
    pub fn insert(&mut self, id: RequestId, kept: Kept) {
        self.kept.insert(id, kept);
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &RequestId) -> Option<&Kept> {
        self.kept.get(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Their bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.values().map(|kept| kept.bytes).sum()
    }

    /// Forgets one.
    pub fn remove(&mut self, id: &RequestId) {
        self.kept.remove(id);
    }

    /// Those that have to go, first the one that ended first.
    #[must_use]
    pub fn surplus(&self, bounds: &Bounds, now: Timestamp) -> Vec<(RequestId, Why)> {
        let keep_ms = i64::try_from(bounds.keep.as_millis()).unwrap_or(i64::MAX);
        let mut by_end: Vec<(&RequestId, &Kept)> = self.kept.iter().collect();
        by_end.sort_by_key(|(id, kept)| (kept.ended_at, **id));
        let mut room: u64 = by_end.iter().map(|(_, kept)| kept.bytes).sum();
        let mut surplus = Vec::new();
        for (id, kept) in by_end {
            let why = if now.since_ms(kept.ended_at) >= keep_ms {
                Why::Age
            } else if room > bounds.bytes_max {
                Why::Room
            } else {
                continue;
            };
            room -= kept.bytes;
            surplus.push((*id, why));
        }
        surplus
    }
}

impl Core {
    /// Keeps the directory of an action that has ended and was reported.
    pub(crate) async fn results_add(self: &Arc<Self>, order: &Order, directory: &ActionDirectory) {
        let measured = directory.clone();
        let read = self.blocking.run(move || (measured.size(), measured.reply().good()));
        let Ok((bytes, reply)) = read.await else { return };
        let ended_at = reply.map_or_else(|| self.now(), |reply| reply.ended_at_ms);
        let kept = Kept { caller: order.caller.clone(), action: order.name(), ended_at, bytes };
        lock(&self.results).insert(order.request_id, kept);
        self.results_clean_up().await;
    }

    /// Keeps how an action ended that ran in the agent and wrote nothing down. Not forced to disk: what counts
    /// is the report.
    pub(crate) async fn results_keep(self: &Arc<Self>, order: Order, ending: Ending) {
        let (all, now) = (self.actions_directory.clone(), self.now());
        let kept = self.blocking.run(move || {
            let directory = ActionDirectory::of(&all, order.request_id);
            directory.write_result(&order, &Reply::new(&ending, now)).map(|()| (order, directory))
        });
        match kept.await {
            Ok(Ok((order, directory))) => self.results_add(&order, &directory).await,
            Ok(Err(error)) => report_error("Could not keep how an action ended", &error),
            Err(error) => report_error("Could not keep how an action ended", &error),
        }
    }

    /// Removes what was kept long enough, or takes too much room.
    pub(crate) async fn results_clean_up(self: &Arc<Self>) {
        let surplus = lock(&self.results).surplus(self.config.results(), self.now());
        for (id, why) in surplus {
            if why == Why::Room {
                tracing::info!(request.id = %id, "Removing a result before its time: results take too much room");
            }
            // First from the list, so that nobody begins to look at what is being removed.
            lock(&self.results).remove(&id);
            let directory = ActionDirectory::of(&self.actions_directory, id);
            match self.blocking.run(move || directory.remove()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => report_error("Could not remove a result", &error),
                Err(error) => report_error("Could not remove a result", &error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> RequestId {
        RequestId::from_parts(Timestamp(i64::from(n)), [n; 10])
    }

    /// Entries as number, end in seconds, bytes.
    #[track_caller]
    fn check(entries: &[(u8, i64, u64)], now_s: i64, expected: &[(u8, Why)]) {
        let mut results = Results::default();
        for (n, ended_s, bytes) in entries {
            let caller = "muster:user/lea".parse().unwrap();
            let kept = Kept { caller, action: "a.b".into(), ended_at: Timestamp(ended_s * 1000), bytes: *bytes };
            results.insert(id(*n), kept);
        }
        let bounds = Bounds { keep: Duration::from_secs(100), bytes_max: 50, output_bytes_max: 0 };
        let expected: Vec<_> = expected.iter().map(|(n, why)| (id(*n), *why)).collect();
        assert_eq!(results.surplus(&bounds, Timestamp(now_s * 1000)), expected);
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_have_to() {
        check(&[], 0, &[]);
        check(&[(1, 0, 20), (2, 5, 30)], 50, &[]);
        check(&[(1, 0, 20), (2, 5, 30)], 100, &[(1, Why::Age)]);
        check(&[(1, 9, 20), (2, 5, 31), (3, 7, 5)], 50, &[(2, Why::Room)]);
        check(&[(1, 0, 20), (2, 5, 30), (3, 9, 21)], 100, &[(1, Why::Age), (2, Why::Room)]);
        check(&[(1, 9, 51)], 10, &[(1, Why::Room)]);
    }
}
