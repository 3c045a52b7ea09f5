//! When a broadcast may stop before its window is over.
//!
//! A broadcast never knows who else might answer. If everybody who was expected has, and nothing has
//! come for a while that is long against the pace of the answers so far, nobody else is likely to.

use std::collections::BTreeSet;

use muster_protocol::HostName;

/// Shortest silence that counts, in milliseconds: some turns of the event loop and the broker.
const QUIET_MS_MIN: i64 = 20;

/// Longest silence that is asked for, in milliseconds.
const QUIET_MS_MAX: i64 = 500;

/// Follows the answers to one broadcast. Times are milliseconds since it was sent.
#[derive(Debug, Clone)]
pub struct Quiet {
    awaited: BTreeSet<HostName>,
    known: bool,
    slowest_ms: i64,
    latest_ms: i64,
}

impl Quiet {
    /// Starts with the hosts that are known to match; with none, the whole window is waited for.
    #[must_use]
    pub fn new(likely: BTreeSet<HostName>) -> Self {
        Self { known: !likely.is_empty(), awaited: likely, slowest_ms: 0, latest_ms: 0 }
    }

    /// A host has answered.
    pub fn answered(&mut self, host: &HostName, elapsed_ms: i64) {
        self.awaited.remove(host);
        self.slowest_ms = self.slowest_ms.max(elapsed_ms);
        self.latest_ms = self.latest_ms.max(elapsed_ms);
    }

    /// From when on it is quiet, unless somebody answers before; `None` while known hosts are missing.
    #[must_use]
    pub fn ends_at_ms(&self) -> Option<i64> {
        let pause = (self.slowest_ms / 2).clamp(QUIET_MS_MIN, QUIET_MS_MAX);
        (self.known && self.awaited.is_empty()).then_some(self.latest_ms + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(known: &[&str], answers: &[(&str, i64)]) -> Option<i64> {
        let host = |name: &str| HostName::new(name).unwrap();
        let mut quiet = Quiet::new(known.iter().map(|name| host(name)).collect());
        answers.iter().for_each(|(name, ms)| quiet.answered(&host(name), *ms));
        quiet.ends_at_ms()
    }

    #[test]
    fn silence_is_measured_against_the_slowest_answer() {
        assert_eq!(after(&[], &[("a", 5)]), None, "nobody is known");
        assert_eq!(after(&["a", "b"], &[("a", 5)]), None, "one is missing");
        assert_eq!(after(&["a"], &[("a", 5)]), Some(25));
        assert_eq!(after(&["a"], &[("a", 5), ("new", 100)]), Some(150));
        assert_eq!(after(&["a", "b"], &[("a", 388), ("b", 60)]), Some(388 + 194));
        assert_eq!(after(&["a"], &[("a", 1_800)]), Some(2_300));
    }
}
