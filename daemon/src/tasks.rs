//! Every concurrent piece of a program, under a name and with an owner.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often [`Tasks::shutdown`] says who has not stopped.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// What it means when a task fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// The program makes no sense without it: a panic begins the shutdown of everything.
    Critical,
    /// One of many, or dispensable: a panic is logged, the program goes on.
    Worker,
}

/// The tasks of one program, or of one part of it. Clones are the same group.
///
/// A task learns that it should stop from [`Tasks::stopping`], and takes the time it needs within the
/// deadline of [`Tasks::shutdown`].
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    killed: CancellationToken,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<&'static str, usize>,
    failed: Option<&'static str>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
            state: Arc::default(),
        }
    }

    /// A group that begins to stop when this one does. It is shut down on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: self.stopping.child_token(),
            killed: self.killed.child_token(),
            state: Arc::default(),
        }
    }

    /// Starts a task. Its name appears in logs and in the list of those that hold up a shutdown.
    pub fn spawn(&self, kind: TaskKind, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(kind, name, Box::pin(future));
    }

    /// For all futures the same: what is generic over them is in the program once for each.
    fn spawn_boxed(&self, kind: TaskKind, name: &'static str, future: Task) {
        let entry = Entry::new(self.clone(), name);
        let tasks = self.clone();
        let killed = self.killed.clone();
        let guarded = async move {
            let _entry = entry;
            tokio::select! {
                // Who is killed is not polled once more.
                biased;
                () = killed.cancelled() => {}
                result = Guarded(future) => {
                    if let Err(panic) = result {
                        tasks.panicked(kind, name, &panic);
                    }
                }
            }
        };
        // The tracker spawns on the current runtime; this is the one place that does.
        self.tracker.spawn(guarded);
    }

    /// Whether and when the tasks should stop. Give a clone to whatever waits.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Asks all tasks to stop, without waiting.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Drops all tasks where they are, without waiting for anything they would still do: as the end of a process does.
    /// None of them is polled again.
    pub fn kill(&self) {
        self.stopping.cancel();
        self.killed.cancel();
    }

    /// The name of a critical task that panicked, if one did.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        self.lock().failed
    }

    /// The names of the tasks that run, each once, sorted.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.lock().running.keys().copied().collect()
    }

    /// How many tasks of each name run.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.lock().running.clone()
    }

    /// Asks all tasks to stop and waits for them, at most until the deadline; then drops those that are left.
    ///
    /// Says every few seconds in the log who has not stopped. Returns the names of the tasks that were dropped;
    /// empty if all stopped by themselves.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<&'static str> {
        self.stopping.cancel();
        self.tracker.close();
        let started = tokio::time::Instant::now();
        loop {
            let left = deadline.saturating_sub(started.elapsed());
            if tokio::time::timeout(left.min(REPORT_INTERVAL), self.tracker.wait()).await.is_ok() {
                return Vec::new();
            }
            let running = self.running();
            if started.elapsed() >= deadline {
                tracing::warn!(tasks = running.join(", "), "Some tasks did not stop in time and were dropped");
                self.killed.cancel();
                // A task that blocks its thread cannot be dropped; it is not waited for.
                drop(tokio::time::timeout(Duration::from_secs(1), self.tracker.wait()).await);
                return running;
            }
            tracing::info!(
                tasks = running.join(", "),
                left_s = deadline.saturating_sub(started.elapsed()).as_secs(),
                "Still waiting for tasks to stop"
            );
        }
    }

    fn panicked(&self, kind: TaskKind, name: &'static str, panic: &str) {
        match kind {
            TaskKind::Critical => {
                tracing::error!(task = name, panic, "A task that everything depends on panicked; stopping");
                self.lock().failed.get_or_insert(name);
                self.stopping.cancel();
            }
            TaskKind::Worker => tracing::error!(task = name, panic, "A task panicked"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tasks")
            .field("running", &self.running())
            .field("stopping", &self.stopping.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// A line in the list of running tasks, for as long as it lives.
struct Entry {
    tasks: Tasks,
    name: &'static str,
}

impl Entry {
    fn new(tasks: Tasks, name: &'static str) -> Self {
        *tasks.lock().running.entry(name).or_insert(0) += 1;
        Self { tasks, name }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.tasks.lock();
        if let Some(count) = state.running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(self.name);
            }
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Turns a panic of a future into an error with the panic's message.
struct Guarded(Task);

impl Future for Guarded {
    type Output = Result<(), String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(message(panic.as_ref()))),
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
