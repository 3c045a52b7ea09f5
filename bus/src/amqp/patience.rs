//! How long a handshake may take, which depends on how the last ones went.
//!
//! A broker to which a whole fleet comes back takes connections into its queue and answers them one after the other.
//! Whoever gives up before his turn and comes again only makes the queue longer: the broker then works for connections
//! that nobody waits for any more. So each handshake that was too slow makes the next one longer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest that a handshake may take: what the generated configuration lets the broker wait for one.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// Counts handshakes in a row that were too slow.
#[derive(Debug, Default)]
pub(super) struct Patience(AtomicU32);

impl Patience {
    /// How long the next handshake may take, where `first` is what one is given that nothing is known about.
    pub(super) fn handshake(&self, first: Duration) -> Duration {
        let doubled = 2_u32.saturating_pow(self.0.load(Ordering::Relaxed).min(16));
        first.saturating_mul(doubled).min(HANDSHAKE_MAX.max(first))
    }

    /// A broker took the connection, and the handshake was too slow.
    pub(super) fn was_late(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A broker answered in time, whatever it said.
    pub(super) fn was_in_time(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_late_handshake_doubles_the_time_of_the_next() {
        let patience = Patience::default();
        let seconds = |first: u64| patience.handshake(Duration::from_secs(first)).as_secs();
        let mut given = Vec::new();
        for _ in 0..5 {
            given.push(seconds(10));
            patience.was_late();
        }
        assert_eq!(given, [10, 20, 40, 60, 60]);
        assert_eq!(seconds(300), 300, "whoever configures more gets it");
        (0..100).for_each(|_| patience.was_late());
        assert_eq!(seconds(1), 60);
        patience.was_in_time();
        assert_eq!(seconds(10), 10);
    }
}
