//! When a broadcast may stop before its window is over.
//!
//! A broadcast never knows who else might answer. Hosts that are known are waited for, however slow they are. Only a host
//! that nobody knows yet can be missed, and it is in the same place as the known ones: each of them was as likely to be the
//! slowest. With `n` answers the chance that one more host is slower than all of them is 1 in `n + 1`, and that it is slower
//! by as much again as the slowest twentieth needed is smaller still. So once everybody who is known has answered, silence
//! is asked for that is long
//!
//! - against the slowest answer while answers are few: half of it for five hosts, a twentieth for a hundred;
//! - against the end of the stream of answers: as long again as its last twentieth took.
//!
//! The end of the window cuts nobody off who is on the way: while answers of further hosts keep coming, with no silence like
//! that between them, they are taken, see [`Quiet::streams_until_ms`]. A large fleet, or a broker with much to do, is not
//! answered in part because it takes longer than the window.
//!
//! Who is missed nevertheless is remembered when its answer comes while the program ends, and known the next time.
//! The numbers behind it are in `docs/performance/controller.md`.

use std::collections::BTreeSet;

use muster_protocol::HostName;

/// Shortest silence that counts, in milliseconds: some turns of the event loop and the broker.
const QUIET_MS_MIN: i64 = 10;

/// Longest silence that is asked for, in milliseconds.
const QUIET_MS_MAX: i64 = 500;

/// Longest time that answers may stream, in milliseconds: 100,000 hosts at a controller that verifies 1,000 answers a second.
const STREAM_MS_MAX: i64 = 100_000;

/// With so many answers the slowest of them counts half.
const FEW: i64 = 5;

/// The part of all answers that makes the end of the stream: one in so many.
const END_OF_STREAM: usize = 20;

/// Follows the answers to one broadcast. Times are milliseconds since it was sent.
#[derive(Debug, Clone)]
pub struct Quiet {
    awaited: BTreeSet<HostName>,
    known: bool,
    /// When answers came, in the order in which they did.
    answers_ms: Vec<i64>,
    /// Until when there was something to do.
    busy_until_ms: i64,
}

impl Quiet {
    /// Starts with the hosts that are known to match; with none, the whole window is waited for.
    #[must_use]
    pub fn new(likely: BTreeSet<HostName>) -> Self {
        Self { known: !likely.is_empty(), awaited: likely, answers_ms: Vec::new(), busy_until_ms: 0 }
    }

    /// A host has answered.
    pub fn answered(&mut self, host: &HostName, elapsed_ms: i64) {
        self.awaited.remove(host);
        self.answers_ms.push(elapsed_ms);
        self.busy_until(elapsed_ms);
    }

    /// How many known hosts have not answered yet; where nobody is known, how many have.
    #[must_use]
    pub fn to_come(&self) -> usize {
        if self.known { self.awaited.len() } else { self.answers_ms.len() }
    }

    /// Until now answers were being taken in: it was not silent, nobody listened.
    pub fn busy_until(&mut self, elapsed_ms: i64) {
        self.busy_until_ms = self.busy_until_ms.max(elapsed_ms);
    }

    /// From when on it is quiet, unless somebody answers before; `None` while known hosts are missing.
    #[must_use]
    pub fn ends_at_ms(&self) -> Option<i64> {
        if !self.known || !self.awaited.is_empty() {
            return None;
        }
        Some(self.busy_until_ms + self.silence_ms())
    }

    /// Until when the answers have not ceased, whoever is known: so long the end of the window waits. `None` before the first
    /// answer.
    ///
    /// Each host counts once, so nobody can hold it up by saying more; what keeps the caller busy counts for half a second
    /// after the last answer, and a hundred seconds are the most of all.
    #[must_use]
    pub fn streams_until_ms(&self) -> Option<i64> {
        let last_ms = *self.answers_ms.last()?;
        let busy_until_ms = self.busy_until_ms.min(last_ms.saturating_add(QUIET_MS_MAX));
        Some((busy_until_ms + self.silence_ms()).min(STREAM_MS_MAX))
    }

    /// How long it has to be silent after the answers that there are.
    fn silence_ms(&self) -> i64 {
        let count = self.answers_ms.len();
        let answers = i64::try_from(count).unwrap_or(i64::MAX);
        let slowest_ms = self.answers_ms.last().copied().unwrap_or(0);
        let late_ms = self.answers_ms.get(count - count.div_ceil(END_OF_STREAM).min(count)).copied().unwrap_or(0);
        let of_few = slowest_ms.saturating_mul(FEW) / answers.saturating_add(FEW).max(1);
        let of_stream = slowest_ms - late_ms;
        of_few.max(of_stream).clamp(QUIET_MS_MIN, QUIET_MS_MAX)
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
    fn silence_is_measured_against_the_answers() {
        assert_eq!(after(&[], &[("a", 5)]), None, "nobody is known");
        assert_eq!(after(&["a", "b"], &[("a", 5)]), None, "one is missing");
        assert_eq!(after(&["a"], &[("a", 5)]), Some(15));
        assert_eq!(after(&["a"], &[("a", 5), ("new", 70)]), Some(70 + 50));
        assert_eq!(after(&["a", "b"], &[("a", 60), ("b", 350)]), Some(350 + 250));
        assert_eq!(after(&["a"], &[("a", 1_800)]), Some(2_300));
    }

    #[test]
    fn many_answers_tell_more() {
        let names: Vec<String> = (0..1_000).map(|n| format!("h{n}")).collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let evenly: Vec<(&str, i64)> = known.iter().copied().zip(0..).map(|(name, n)| (name, n * 4 / 10)).collect();
        let end_ms = after(&known, &evenly).unwrap();
        assert_eq!(end_ms, 399 + 19, "as long again as the last fifty took");
        let mut straggler = evenly.clone();
        straggler[999].1 = 700;
        assert_eq!(after(&known, &straggler), Some(700 + 320), "one that is late shows that others may be");
        assert_eq!(after(&known, &evenly[..999]), None, "a known host is waited for");
    }

    #[test]
    fn time_in_which_nobody_listened_is_no_silence() {
        let host = HostName::new("a").unwrap();
        let mut quiet = Quiet::new([host.clone()].into());
        quiet.answered(&host, 20);
        quiet.busy_until(90);
        assert_eq!(quiet.ends_at_ms(), Some(90 + 16));
    }

    #[test]
    fn answers_that_keep_coming_hold_the_window_open() {
        let host = |n: usize| HostName::new(format!("h{n}")).unwrap();
        for known in [BTreeSet::new(), [host(0), host(99_999)].into()] {
            let mut quiet = Quiet::new(known);
            assert_eq!(quiet.streams_until_ms(), None, "nobody has answered");
            (0..5_000).for_each(|n| quiet.answered(&host(n), i64::try_from(n).unwrap() * 4 / 10));
            assert_eq!(quiet.ends_at_ms(), None, "nobody, or not everybody, is known");
            assert_eq!(quiet.streams_until_ms(), Some(1_999 + 99), "as long again as the last 250 took");
            // One host that says much, or a caller that is slow, is no answer.
            quiet.busy_until(2_050);
            assert_eq!(quiet.streams_until_ms(), Some(2_050 + 99));
            quiet.busy_until(9_000);
            assert_eq!(quiet.streams_until_ms(), Some(1_999 + 500 + 99));
            quiet.answered(&host(5_000), 99_999);
            assert_eq!(quiet.streams_until_ms(), Some(100_000), "at some time it is over");
        }
    }
}
