//! What happened, line by line, and a digest of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// How many of the last lines are kept for whoever looks at a failure.
const KEPT: usize = 120;

/// The trace of one run. Clones are the same trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    shared: Arc<Mutex<Shared>>,
    began: Instant,
    print: bool,
}

#[derive(Debug, Default)]
struct Shared {
    digest: Sha256,
    lines: VecDeque<String>,
    count: u64,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { shared: Arc::default(), began: Instant::now(), print }
    }

    /// Milliseconds of simulated time since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::print_stderr, reason = "what `--trace` is for")]
    pub(crate) fn note(&self, line: impl std::fmt::Display) {
        let line = format!("{:>8} {line}", self.now_ms());
        if self.print {
            eprintln!("{line}");
        }
        let mut shared = self.lock();
        shared.digest.update(line.as_bytes());
        shared.digest.update(b"\n");
        shared.count += 1;
        if shared.lines.len() == KEPT {
            shared.lines.pop_front();
        }
        shared.lines.push_back(line);
    }

    /// The digest of all lines, and how many there are.
    pub(crate) fn digest(&self) -> (String, u64) {
        let shared = self.lock();
        let bytes = shared.digest.clone().finalize();
        (bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect(), shared.count)
    }

    /// The last lines.
    pub(crate) fn last(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
