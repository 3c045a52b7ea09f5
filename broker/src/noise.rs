//! How much the log says of what somebody outside can bring about again and again.
//!
//! The same about the same one is said once a minute, and then how often it was; and all of it together at most so many times
//! a second. What is counted elsewhere, such as refused connections in the status, is counted there whether it is said or not.

use std::collections::HashMap;

/// Lines in a second.
const LINES_MAX: u64 = 10;

/// How long the same is not said again.
const REPEAT_MS: i64 = 60_000;

/// So many are remembered as said; of more than these, only the lines in a second are bounded.
const REMEMBERED_MAX: usize = 1_024;

/// What was said lately.
#[derive(Debug, Default)]
pub struct Noise {
    second: i64,
    said: u64,
    unsaid: u64,
    recent: HashMap<String, Recent>,
}

#[derive(Debug)]
struct Recent {
    said_ms: i64,
    unsaid: u64,
}

/// A line that may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// How often the same has happened since it was last said, this time not included.
    pub repeated: u64,
    /// How many lines about anything were left out since the last one, because there were too many in a second.
    pub left_out: u64,
}

impl Noise {
    /// Something has happened with somebody: whether it is said.
    pub fn say(&mut self, who: &str, what: &str, now_ms: i64) -> Option<Line> {
        let key = format!("{who} {what}");
        // A clock that was set back forgets.
        let is_recent = |said_ms: i64| (0..REPEAT_MS).contains(&now_ms.saturating_sub(said_ms));
        let mut repeated = 0;
        if let Some(recent) = self.recent.get_mut(&key) {
            if is_recent(recent.said_ms) {
                recent.unsaid += 1;
                return None;
            }
            repeated = recent.unsaid;
        }
        let second = now_ms.div_euclid(1_000);
        if self.second != second {
            (self.second, self.said) = (second, 0);
        }
        if self.said >= LINES_MAX {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        if self.recent.len() >= REMEMBERED_MAX {
            self.recent.retain(|_, recent| is_recent(recent.said_ms));
        }
        if self.recent.len() < REMEMBERED_MAX || self.recent.contains_key(&key) {
            self.recent.insert(key, Recent { said_ms: now_ms, unsaid: 0 });
        }
        Some(Line { repeated, left_out: std::mem::take(&mut self.unsaid) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Line = Line { repeated: 0, left_out: 0 };

    #[test]
    fn the_same_about_the_same_one_is_said_once_a_minute() {
        let mut noise = Noise::default();
        assert_eq!(noise.say("10.0.0.1", "revoked", 5_000), Some(NOTHING));
        for retry in 1..60 {
            assert_eq!(noise.say("10.0.0.1", "revoked", 5_000 + retry * 1_000), None, "{retry}");
        }
        assert_eq!(noise.say("10.0.0.1", "expired", 9_000), Some(NOTHING), "something else");
        assert_eq!(noise.say("10.0.0.2", "revoked", 9_000), Some(NOTHING), "somebody else");
        assert_eq!(noise.say("10.0.0.1", "revoked", 65_000), Some(Line { repeated: 59, left_out: 0 }));
        assert_eq!(noise.say("10.0.0.1", "revoked", 1_000), Some(NOTHING), "the clock was set back");
    }

    #[test]
    fn many_different_ones_are_ten_lines_a_second_and_bounded_memory() {
        let mut noise = Noise::default();
        let lines = |noise: &mut Noise, now_ms: i64| {
            (0..500).filter(|who| noise.say(&format!("{now_ms}/{who}"), "tls", now_ms).is_some()).count()
        };
        for second in 0..200 {
            assert_eq!(lines(&mut noise, second * 1_000), 10);
        }
        assert!(noise.recent.len() <= REMEMBERED_MAX);
        assert_eq!(noise.say("last", "tls", 200_000), Some(Line { repeated: 0, left_out: 490 }));
    }

    #[test]
    fn when_too_many_are_remembered_lines_are_still_bounded() {
        let mut noise = Noise::default();
        for who in 0..REMEMBERED_MAX {
            // All within a minute, ten a second.
            noise.recent.insert(who.to_string(), Recent { said_ms: 1_000, unsaid: 0 });
        }
        assert_eq!(noise.say("new", "tls", 2_000), Some(NOTHING));
        assert_eq!(noise.say("new", "tls", 2_000), Some(NOTHING), "not remembered");
        assert_eq!((0..100).filter(|_| noise.say("new", "tls", 2_000).is_some()).count(), 8);
        assert_eq!(noise.say("new", "tls", 70_000), Some(Line { repeated: 0, left_out: 92 }));
        assert_eq!(noise.recent.len(), 1);
    }
}
