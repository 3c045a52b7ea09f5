//! A value that many wait for, woken in the order in which they began to wait.
//!
//! A `tokio::sync::watch` channel wakes its readers in an order that it draws at random, and nothing can seed that
//! draw. Everything in this broker has to happen in the same order each time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value and everybody who waits until it is another one.
#[derive(Debug)]
pub(super) struct Level<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Level<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(super) fn set(&self, value: T) {
        *self.lock() = value;
        self.changed.notify_waiters();
    }

    /// What `look` says of the value as it is now.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `look` says something of the value. Safe to cancel.
    pub(super) async fn wait<R>(&self, look: impl Fn(&T) -> Option<R>) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if let Some(seen) = self.look(&look) {
                return seen;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_woken_first() {
        let (level, woken) = (Level::new(false), RefCell::new(Vec::new()));
        let wait = |number: usize| {
            let (level, woken) = (&level, &woken);
            async move {
                level.wait(|open| open.then_some(())).await;
                woken.borrow_mut().push(number);
            }
        };
        let open = async {
            tokio::task::yield_now().await;
            level.set(true);
        };
        let waiting: futures_util::stream::FuturesOrdered<_> = (0..50).map(wait).collect();
        let all = futures_util::StreamExt::collect::<Vec<()>>(waiting);
        futures_util::future::join(all, open).await;
        assert_eq!(*woken.borrow(), (0..50).collect::<Vec<_>>());
    }
}
