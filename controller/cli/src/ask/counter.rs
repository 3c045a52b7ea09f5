//! The counter while hosts are waited for.

use std::time::Duration;

use tokio::time::Instant;

use crate::output::{Printer, Progress, Text};

/// Where nobody watches, a counter is of use only to somebody who has begun to wonder.
/// Longer than the window of a search, which ends with one.
const PATIENCE: Duration = Duration::from_secs(3);

/// A progress that keeps quiet in logs and pipes as long as it goes fast.
pub(crate) struct Counter<'a> {
    progress: Progress<'a>,
    live: bool,
    began: Instant,
}

impl<'a> Counter<'a> {
    /// Starts to count; `total` 0 means that it is not known.
    pub(crate) fn new(printer: &'a Printer, total: usize, what: &str) -> Self {
        Self { progress: printer.progress(total, what), live: printer.live(), began: Instant::now() }
    }

    /// Says that `done` are done, with more text behind.
    pub(crate) fn update(&mut self, done: usize, more: impl FnOnce() -> Text) {
        if self.live || self.began.elapsed() > PATIENCE {
            self.progress.update_with(done, more);
        }
    }
}
