//! What a run did, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by name. Clones are the same counts.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    pub(crate) fn add(&self, what: &str) {
        self.add_many(what, 1);
    }

    pub(crate) fn add_many(&self, what: &str, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(what) {
            Some(known) => *known += count,
            None => drop(counts.insert(what.to_owned(), count)),
        }
    }

    /// Counts one more seed.
    pub fn add_seed(&self) {
        self.add("seeds");
    }

    /// The counts, by name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds another tally's counts to these.
    pub fn merge(&self, other: &Self) {
        for (what, count) in other.counts() {
            self.add_many(&what, count);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (what, count)) in self.counts().iter().enumerate() {
            write!(f, "{}{what} {count}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
