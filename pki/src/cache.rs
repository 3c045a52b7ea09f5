//! The bounded memory of certificates whose chain was already checked.
//!
//! Checking a chain costs about four times as much as checking a signature with a known key, and a
//! fleet's certificates come back with every report. Two generations keep it bounded at constant
//! cost: when the young one is full it becomes the old one, and what is asked for again moves back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use muster_protocol::Timestamp;

use crate::key::PublicKey;
use crate::memory::Memory;
use crate::time_text::seconds;
use crate::verify::{Signer, VerifyError};

/// Certificates in one generation. Two generations of 16,384 hold every host of a large fleet in
/// about 20 MB; an agent sees a handful of controllers and pays for those only.
const GENERATION_MAX: usize = 16_384;

/// A leaf whose chain, purpose, identity and revocation were checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) signer: Signer,
    pub(crate) key: PublicKey,
    /// The later of the certificate's and its authority's first second.
    pub(crate) valid_from: Timestamp,
    /// The earlier of the certificate's and its authority's last second.
    pub(crate) valid_until: Timestamp,
}

impl Checked {
    /// Whether certificate and authority are valid at `now`.
    pub(crate) fn in_time(&self, now: Timestamp) -> Result<(), VerifyError> {
        let identity = || Box::new(self.signer.identity.clone());
        if seconds(now) < seconds(self.valid_from) {
            return Err(VerifyError::NotYetValid { identity: identity(), not_before: self.valid_from, now });
        }
        if seconds(now) > seconds(self.valid_until) {
            return Err(VerifyError::Expired { identity: identity(), not_after: self.valid_until, now });
        }
        Ok(())
    }
}

/// Fingerprint to checked leaf. It belongs to one set of authorities and revocation lists and is
/// dropped with it, so an entry can never outlive the list it was checked against.
#[derive(Debug)]
pub(crate) struct Cache {
    generations: Mutex<Generations>,
    max: usize,
    /// What an earlier run of the program has checked.
    memory: OnceLock<Memory>,
    /// Whether something was checked that the memory does not have.
    news: AtomicBool,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Arc<Checked>>,
    old: HashMap<String, Arc<Checked>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_generation_max(GENERATION_MAX)
    }
}

impl Cache {
    fn with_generation_max(max: usize) -> Self {
        Self { generations: Mutex::default(), max, memory: OnceLock::new(), news: AtomicBool::new(false) }
    }

    pub(crate) fn get(&self, fingerprint: &str) -> Option<Arc<Checked>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = generations.young.get(fingerprint) {
            return Some(Arc::clone(found));
        }
        let recalled = || self.memory.get()?.get(fingerprint).map(Arc::new);
        let found = generations.old.remove(fingerprint).or_else(recalled)?;
        generations.insert(self.max, fingerprint.to_owned(), Arc::clone(&found));
        Some(found)
    }

    /// Answers from an earlier run's memory as well, unless there is one already.
    pub(crate) fn remember(&self, memory: Memory) {
        // Two memories would be the same file twice.
        drop(self.memory.set(memory));
    }

    /// What an earlier run has checked.
    pub(crate) fn remembered(&self) -> Option<&Memory> {
        self.memory.get()
    }

    /// Whether something was checked that no earlier run had.
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed)
    }

    /// Everything that is here, but for what was remembered and not asked for.
    pub(crate) fn all(&self) -> Vec<Arc<Checked>> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.values().chain(generations.old.values()).map(Arc::clone).collect()
    }

    /// Keeps what was just checked.
    pub(crate) fn insert(&self, checked: &Arc<Checked>) {
        self.news.store(true, Ordering::Relaxed);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(self.max, checked.signer.fingerprint.clone(), Arc::clone(checked));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap();
        generations.young.len() + generations.old.len()
    }
}

impl Generations {
    fn insert(&mut self, max: usize, fingerprint: String, checked: Arc<Checked>) {
        if self.young.len() >= max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, checked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrivateKey;

    fn checked(number: usize) -> Arc<Checked> {
        Arc::new(Checked {
            signer: Signer {
                identity: format!("host/h{number}").parse().unwrap(),
                groups: Default::default(),
                fingerprint: number.to_string(),
                not_after: Timestamp(1),
            },
            key: PrivateKey::generate().public(),
            valid_from: Timestamp(0),
            valid_until: Timestamp(1),
        })
    }

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let cache = Cache::with_generation_max(10);
        let favourite = checked(1_000);
        cache.insert(&favourite);
        for number in 0..200 {
            cache.insert(&checked(number));
            assert!(cache.get("1000").is_some(), "after {number}");
            assert!(cache.len() <= 20, "{} after {number}", cache.len());
        }
        assert!(cache.get("0").is_none());
        assert!(cache.get("199").is_some());
    }
}
