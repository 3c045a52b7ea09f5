//! A host's idea of what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use muster_daemon::Clock;
use muster_protocol::Timestamp;
use tokio::time::Instant;

/// A clock that goes with simulated time and may be wrong. Clones are the same clock.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedClock {
    began: Instant,
    began_at: Timestamp,
    wrong_by_ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    /// A clock that is right, and shows `began_at` at the instant `began`.
    pub(crate) fn new(began: Instant, began_at: Timestamp) -> Self {
        Self { began, began_at, wrong_by_ms: Arc::default() }
    }

    /// Sets it wrong by so many milliseconds; 0 is right.
    pub(crate) fn set_wrong_by_ms(&self, ms: i64) {
        self.wrong_by_ms.store(ms, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.now_ms())
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.began_at.as_millis() + elapsed + self.wrong_by_ms.load(Ordering::SeqCst)
    }
}
