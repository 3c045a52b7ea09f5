//! Work that makes its thread wait, such as for a disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Where work that waits for the disk is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocking {
    /// On threads of their own, so that connections go on meanwhile.
    #[default]
    Threads,
    /// At once, on the thread that asks: for simulations, whose disks never make anybody wait and whose order of
    /// steps must be the same each time.
    Inline,
    /// As [`Inline`](Self::Inline), and it takes so long before and after the work, as a slow disk does.
    Slow(Duration),
}

/// The work panicked, or the program ended before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread that does the work panicked")]
pub struct Panicked;

impl Blocking {
    /// Does the work and gives its result. If the caller stops waiting, work that has begun is done to its end.
    ///
    /// # Errors
    /// [`Panicked`].
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        match self {
            Self::Threads => on_a_thread(work).await,
            Self::Inline => {
                // Others get their turn here, as they do while a thread works.
                tokio::task::yield_now().await;
                let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
                tokio::task::yield_now().await;
                done
            }
            Self::Slow(time) => {
                tokio::time::sleep(time).await;
                let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
                tokio::time::sleep(time).await;
                done
            }
        }
    }
}

/// The runtime knows one kind of work only, whatever it gives: each kind of its own would have all of the runtime's
/// code for tasks once more in the program.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    let given = Arc::new(Mutex::new(None));
    let place = Arc::clone(&given);
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let done = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    });
    tokio::task::spawn_blocking(work).await.map_err(|_| Panicked)?;
    given.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(Panicked)
}

/// Builds a runtime that has a thread for [`Blocking::Threads`] from now on, and starts further ones up to `most`.
///
/// Such threads stay. A runtime that had let its last one go would have to start another one for the next work, and where
/// the system refuses that, as beyond a limit of processes, tokio panics: in the middle of whatever asked for it.
///
/// # Errors
/// The system refuses a thread, or what the runtime needs.
pub fn runtime_with_threads(builder: &mut Builder, most: usize) -> io::Result<Runtime> {
    // The runtime could not tell it, so this looks first whether there may be one more.
    drop(std::thread::Builder::new().spawn(|| ())?.join());
    let runtime = builder.max_blocking_threads(most).thread_keep_alive(Duration::MAX).build()?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_keeps_the_thread_it_has_from_the_start() {
        let runtime = runtime_with_threads(&mut Builder::new_current_thread(), 1).unwrap();
        let thread = || runtime.block_on(Blocking::Threads.run(|| std::thread::current().id())).unwrap();
        let first = thread();
        assert_ne!(first, std::thread::current().id());
        assert_eq!(thread(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_and_a_panic_come_back_either_way() {
        for blocking in [Blocking::Threads, Blocking::Inline, Blocking::Slow(Duration::from_secs(1))] {
            assert_eq!(blocking.run(|| 7).await, Ok(7));
            assert_eq!(blocking.run(|| panic!("on purpose")).await, Err::<(), _>(Panicked));
        }
        let here = std::thread::current().id();
        assert_eq!(Blocking::Inline.run(|| std::thread::current().id()).await, Ok(here));
    }
}
