//! Which of a host's numbered reports have come.

use std::collections::BTreeMap;

/// Most separate ranges kept. An honest host makes one; a few while messages overtake each other.
const RANGES_MAX: usize = 1024;

/// A set of report numbers, kept as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    /// First number of a range to its last one. Ranges never touch.
    ranges: BTreeMap<u32, u32>,
}

/// What a number was to the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It had not come before.
    New,
    /// It had.
    Repeat,
    /// The host has left so many gaps that the number was not remembered.
    Full,
}

impl Sequences {
    /// Adds a number.
    pub fn insert(&mut self, number: u32) -> Inserted {
        let before = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| number <= last) {
            return Inserted::Repeat;
        }
        let joins_before = before.filter(|(_, last)| last.checked_add(1) == Some(number));
        let after = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        let first = joins_before.map_or(number, |(first, _)| first);
        if joins_before.is_none() && after.is_none() && self.ranges.len() >= RANGES_MAX {
            return Inserted::Full;
        }
        self.ranges.insert(first, after.unwrap_or(number));
        Inserted::New
    }

    /// The highest number that has come.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    /// How many numbers from 0 up to the highest one have not come.
    #[must_use]
    pub fn missing(&self) -> u32 {
        let Some(last) = self.last() else { return 0 };
        let here: u64 = self.ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
        u32::try_from(u64::from(last) + 1 - here).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn gaps_are_counted() {
        let mut sequences = Sequences::default();
        assert_eq!((sequences.missing(), sequences.last()), (0, None));
        for (number, expected, missing) in [
            (2, Inserted::New, 2),
            (0, Inserted::New, 1),
            (2, Inserted::Repeat, 1),
            (1, Inserted::New, 0),
            (u32::MAX, Inserted::New, u32::MAX - 3),
        ] {
            assert_eq!((sequences.insert(number), sequences.missing()), (expected, missing), "{number}");
        }
    }

    #[test]
    fn a_host_that_only_leaves_gaps_is_bounded() {
        let mut sequences = Sequences::default();
        let full = (0..5000u32).filter(|n| sequences.insert(n * 2) == Inserted::Full).count();
        assert_eq!((full, sequences.ranges.len()), (5000 - RANGES_MAX, RANGES_MAX));
    }

    proptest! {
        #[test]
        fn it_is_a_set(numbers in proptest::collection::vec(0u32..60, 0..120)) {
            let (mut sequences, mut model) = (Sequences::default(), BTreeSet::new());
            for number in numbers {
                let new = model.insert(number);
                prop_assert_eq!(sequences.insert(number), if new { Inserted::New } else { Inserted::Repeat });
                let missing = model.last().map_or(0, |last| *last as usize + 1 - model.len());
                prop_assert_eq!(sequences.missing() as usize, missing);
            }
        }
    }
}
