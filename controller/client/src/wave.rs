//! `--wave 1,10%,rest`: how a set of hosts is asked in parts, and when to stop between them.

use std::fmt;
use std::str::FromStr;

use muster_protocol::CountedAs;

use crate::collect::Counts;
use crate::limit::{Amount, AmountError};

/// Most entries in a plan, so that nobody types one per host.
const ENTRIES_MAX: usize = 64;

/// The sizes of the waves, in order. The last entry repeats until every host is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WavePlan {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Amount(Amount),
    Rest,
}

/// Why a text is not a wave plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaveError {
    /// Neither an amount nor `rest`.
    #[error("read entry {position} of the waves")]
    Entry {
        /// Which one, from 1.
        position: usize,
        /// What is wrong with it.
        #[source]
        source: AmountError,
    },
    /// A wave of nobody would repeat for ever.
    #[error("wave {position} is of 0 hosts")]
    Empty {
        /// Which one, from 1.
        position: usize,
    },
    /// `rest` before the end.
    #[error("`rest` is entry {position} of the waves, but nothing is left after it")]
    AfterRest {
        /// Which one, from 1.
        position: usize,
    },
    /// Too many entries.
    #[error("{count} waves are written out; at most {ENTRIES_MAX} are allowed (the last one repeats)")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl WavePlan {
    /// Everybody at once.
    #[must_use]
    pub fn one() -> Self {
        Self { entries: vec![Entry::Rest] }
    }

    /// The sizes for `total` hosts. They add up to `total`; none is 0. Parts are parts of `total`.
    #[must_use]
    pub fn sizes(&self, total: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut left = total;
        let mut index = 0;
        while left > 0 {
            let size = match self.entries[index.min(self.entries.len() - 1)] {
                Entry::Rest => left,
                Entry::Amount(amount) => amount.of(total).clamp(1, left),
            };
            sizes.push(size);
            left -= size;
            index += 1;
        }
        sizes
    }
}

impl FromStr for WavePlan {
    type Err = WaveError;
    fn from_str(text: &str) -> Result<Self, WaveError> {
        let mut entries = Vec::new();
        for (index, word) in text.split(',').map(str::trim).enumerate() {
            let position = index + 1;
            if entries.last() == Some(&Entry::Rest) {
                return Err(WaveError::AfterRest { position: index });
            }
            let entry = match word {
                "rest" => Entry::Rest,
                _ => Entry::Amount(word.parse().map_err(|source| WaveError::Entry { position, source })?),
            };
            if entry == Entry::Amount(Amount::Count(0)) {
                return Err(WaveError::Empty { position });
            }
            entries.push(entry);
        }
        match entries.len() {
            count if count > ENTRIES_MAX => Err(WaveError::TooMany { count }),
            _ => Ok(Self { entries }),
        }
    }
}

impl fmt::Display for WavePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match entry {
                Entry::Rest => write!(f, "{comma}rest")?,
                Entry::Amount(amount) => write!(f, "{comma}{amount}")?,
            }
        }
        Ok(())
    }
}

/// `--stop-after N|N%`: no further wave once this many of all hosts have failed. A refusal is not
/// a failure of the host, so it does not stop the others; silence is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRule {
    /// The number of failures, or the part of all hosts, at which to stop.
    pub after: Amount,
}

impl StopRule {
    /// Whether the next wave must not be sent. `counts` are those of all waves so far and `total`
    /// is the number of hosts of all waves.
    #[must_use]
    pub fn stops(self, counts: &Counts, total: usize) -> bool {
        let failed = counts.counted(CountedAs::Failed) - counts.refused;
        failed > 0 && failed >= self.after.of(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(plan: &str, total: usize, expected: &[usize]) {
        let plan_read: WavePlan = plan.parse().unwrap();
        assert_eq!(plan_read.sizes(total), expected, "{plan} of {total}");
        assert_eq!(plan_read.to_string(), plan);
    }

    #[test]
    fn waves_add_up() {
        check("1,10%,rest", 9071, &[1, 908, 8162]);
        check("rest", 5, &[5]);
        check("2", 5, &[2, 2, 1]);
        check("1,50%", 5, &[1, 3, 1]);
        check("10", 3, &[3]);
        check("1,rest", 1, &[1]);
        check("1,rest", 0, &[]);
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        for (plan, expected) in [
            ("rest,1", "`rest` is entry 1 of the waves, but nothing is left after it"),
            ("1,0", "wave 2 is of 0 hosts"),
            ("1,,2", "read entry 2 of the waves"),
            ("", "read entry 1 of the waves"),
        ] {
            assert_eq!(plan.parse::<WavePlan>().unwrap_err().to_string(), expected);
        }
        assert!(matches!(["1"; 65].join(",").parse::<WavePlan>(), Err(WaveError::TooMany { count: 65 })));
    }

    #[test]
    fn failures_stop_and_refusals_do_not() {
        let counts = |failed, refused| Counts { failed, refused, succeeded: 10, ..Counts::default() };
        let rule = |text: &str| StopRule { after: text.parse().unwrap() };
        for (rule, counts, total, expected) in [
            (rule("1"), counts(0, 5), 100, false),
            (rule("1"), counts(1, 0), 100, true),
            (rule("5%"), counts(4, 0), 100, false),
            (rule("5%"), counts(5, 0), 100, true),
            (rule("0"), counts(0, 0), 100, false),
            (rule("0"), counts(1, 0), 100, true),
            (rule("10"), counts(4, 9), 5, false),
        ] {
            assert_eq!(rule.stops(&counts, total), expected, "{rule:?} {counts:?} of {total}");
        }
        assert!(rule("1").stops(&Counts { no_reply: 1, ..Counts::default() }, 10), "silence is a failure");
    }

    proptest! {
        #[test]
        fn every_host_is_in_exactly_one_wave(plan in "([1-9][0-9]?%?,){0,4}([1-9][0-9]?%?|rest)", total in 0usize..3000) {
            let sizes = plan.parse::<WavePlan>().unwrap().sizes(total);
            prop_assert_eq!(sizes.iter().sum::<usize>(), total);
            prop_assert!(sizes.iter().all(|size| *size > 0));
        }
    }
}
