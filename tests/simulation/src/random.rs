//! Randomness that a seed decides.

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// A stream of its own for one purpose. What other streams draw does not change it.
#[derive(Debug)]
pub(crate) struct Random(SmallRng);

impl Random {
    /// The stream of a purpose, such as `host 3 disk`.
    pub(crate) fn of(seed: u64, purpose: &str) -> Self {
        // FNV-1a; nobody attacks it.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count.max(1))
    }

    /// True so many times in a thousand.
    pub(crate) fn per_mille(&mut self, rate: u32) -> bool {
        self.0.random_range(0..1000_u32) < rate
    }

    pub(crate) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A duration in milliseconds.
    pub(crate) fn pause(&mut self, low_ms: u64, high_ms: u64) -> std::time::Duration {
        std::time::Duration::from_millis(self.between(low_ms, high_ms))
    }
}
