//! How many refusals of one caller become lines.
//!
//! Whoever may do nothing can be refused as often as he likes. Each caller gets so many lines a minute; the rest
//! is counted, and one line tells how many there were. Memory is bounded: of more callers than
//! [`CALLERS_MAX`] within a minute, the later ones share one count.

use std::collections::BTreeMap;

use muster_protocol::Timestamp;

/// Most lines about refusals of one caller within [`WINDOW_MS`], and about messages whose sender could not be
/// verified: more than a person causes by mistake, and at 1.5 KiB each not 130 MiB a day.
pub const REFUSALS_PER_WINDOW: u32 = 60;

/// Length of a window, in milliseconds.
pub const WINDOW_MS: i64 = 60_000;

/// Most callers that are counted each by itself.
pub(super) const CALLERS_MAX: usize = 256;

/// Whose refusals are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Senders that could not be verified.
    Strangers,
    /// This one.
    Caller(String),
    /// All that came when there was no room to count them by themselves.
    Others,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    written: u32,
    left_out: u64,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    windows: BTreeMap<Who, Window>,
}

impl Limiter {
    /// Whether a refusal becomes a line; otherwise it is counted.
    pub(super) fn admits(&mut self, who: Who, now: Timestamp) -> bool {
        let is_full = self.windows.len() >= CALLERS_MAX && !self.windows.contains_key(&who);
        let who = if is_full { Who::Others } else { who };
        let window = self.windows.entry(who).or_insert(Window { since: now, written: 0, left_out: 0 });
        if window.written >= REFUSALS_PER_WINDOW {
            window.left_out += 1;
            return false;
        }
        window.written += 1;
        true
    }

    /// Ends the windows that are over, and gives the counts of those that left something out. A clock that was
    /// set back ends them too.
    pub(super) fn take_over(&mut self, now: Timestamp) -> Vec<(Who, u64)> {
        self.take(|window| !(0..WINDOW_MS).contains(&now.since_ms(window.since)))
    }

    /// Ends all windows.
    pub(super) fn take_all(&mut self) -> Vec<(Who, u64)> {
        self.take(|_| true)
    }

    /// Counts once more what could not be written.
    pub(super) fn put_back(&mut self, who: Who, count: u64, now: Timestamp) {
        let window = self.windows.entry(who).or_insert(Window { since: now, written: 0, left_out: 0 });
        window.left_out += count;
    }

    fn take(&mut self, ends: impl Fn(&Window) -> bool) -> Vec<(Who, u64)> {
        let mut counts = Vec::new();
        self.windows.retain(|who, window| {
            let over = ends(window);
            if over && window.left_out > 0 {
                counts.push((who.clone(), window.left_out));
            }
            !over
        });
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_nothing_is_uncounted() {
        let mut limiter = Limiter::default();
        let (mut admitted, mut asked) = (0_u64, 0_u64);
        for round in 0..100 {
            for number in 0..10_000 {
                asked += 1;
                admitted += u64::from(limiter.admits(Who::Caller(format!("user{number}")), Timestamp(round)));
            }
        }
        assert!(limiter.windows.len() <= CALLERS_MAX + 1);
        assert_eq!(limiter.take_over(Timestamp(WINDOW_MS - 1)), []);
        let left_out: u64 = limiter.take_over(Timestamp(WINDOW_MS)).iter().map(|(_, count)| count).sum();
        assert_eq!(admitted + left_out, asked);
        assert!(limiter.windows.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_shut_the_log() {
        let mut limiter = Limiter::default();
        for _ in 0..=REFUSALS_PER_WINDOW {
            limiter.admits(Who::Strangers, Timestamp(1_000_000));
        }
        assert_eq!(limiter.take_over(Timestamp(999_999)), [(Who::Strangers, 1)]);
        assert!(limiter.admits(Who::Strangers, Timestamp(999_999)));
    }
}
