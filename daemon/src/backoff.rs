//! How long to wait between tries.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// Growing pauses with full jitter: each is drawn evenly between zero and a ceiling, and the ceiling
/// grows by `factor` from `base` up to `max`.
///
/// Full jitter spreads the clients of a broker that came back over the whole pause; with less of it
/// they would all come at once, again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    factor: f64,
    tries: u32,
}

impl Backoff {
    /// Pauses that grow from `base` to `max`. A factor below 1 counts as 1.
    #[must_use]
    pub fn new(base: Duration, max: Duration, factor: f64) -> Self {
        let factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        Self { base, max: max.max(base), factor, tries: 0 }
    }

    /// Draws the next pause.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        self.next_within(Duration::ZERO, random)
    }

    /// Draws the next pause from a span of at least `least`, where the reason of the last failure asks for more care
    /// than the number of tries does.
    pub fn next_within(&mut self, least: Duration, random: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling().max(least);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(random.random_range(0.0..=1.0))
    }

    /// How many pauses were drawn since the last [`Backoff::reset`].
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Begins anew, after a success that lasted.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The longest that the next pause can be.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let exponent = i32::try_from(self.tries).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        if seconds.is_finite() && seconds < self.max.as_secs_f64() {
            Duration::from_secs_f64(seconds)
        } else {
            self.max
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn the_ceiling_grows_to_its_maximum_and_stays() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 2.0);
        let mut random = SmallRng::seed_from_u64(1);
        let mut ceilings = Vec::new();
        for _ in 0..6 {
            let ceiling = backoff.ceiling();
            assert!(backoff.next(&mut random) <= ceiling);
            ceilings.push(ceiling.as_millis());
        }
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_millis(100));
    }

    #[test]
    fn pauses_are_spread_over_the_whole_range() {
        let mut random = SmallRng::seed_from_u64(7);
        let pauses: Vec<_> = (0..1000)
            .map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1), 2.0).next(&mut random).as_millis())
            .collect();
        assert!(pauses.iter().any(|ms| *ms < 100) && pauses.iter().any(|ms| *ms > 900));
        let mean = pauses.iter().sum::<u128>() / 1000;
        assert!((450..550).contains(&mean), "{mean}");
    }

    #[test]
    fn a_span_can_be_asked_to_be_longer_and_counts_as_a_try() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 2.0);
        let mut random = SmallRng::seed_from_u64(5);
        let longest = (0..3).map(|_| backoff.next_within(Duration::from_secs(9), &mut random)).max();
        assert!(longest > Some(Duration::from_secs(1)), "{longest:?}");
        assert_eq!(backoff.ceiling(), Duration::from_millis(800));
    }

    #[test]
    fn odd_parameters_do_no_harm() {
        let mut random = SmallRng::seed_from_u64(7);
        for (base, max, factor) in [(5, 1, 2.0), (1, 1, f64::NAN), (1, 5, -3.0), (0, 0, 2.0), (1, u64::MAX, 1e300)] {
            let mut backoff = Backoff::new(Duration::from_secs(base), Duration::from_secs(max), factor);
            for _ in 0..2000 {
                let ceiling = backoff.ceiling();
                assert!(backoff.next(&mut random) <= ceiling.saturating_add(Duration::from_secs(1)));
            }
        }
    }
}
