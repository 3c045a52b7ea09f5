//! Follows a question to its end, or to the operator's or the clock's.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use muster_client::{Asking, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::output::{ExitCode, Failure};

/// When to stop waiting before the question ends.
pub(crate) struct Stop {
    interrupt: Pin<Box<dyn Future<Output = ()> + Send>>,
    deadline: Option<Instant>,
    /// Set once it was time, so that nothing is asked any more.
    stopped: Option<Stopped>,
}

/// Why waiting was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The operator pressed Ctrl-C.
    Interrupted,
    /// `--wait-for` is over.
    WaitedEnough,
    /// Whoever read standard output is gone, as `head` after its last line.
    Unread,
}

impl Stop {
    /// Stops at Ctrl-C or a polite signal, and after `wait_for_ms`.
    ///
    /// # Errors
    /// The system lets nobody listen to signals.
    pub(crate) fn by_operator(wait_for_ms: Option<i64>) -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let either = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        Ok(Self::when(either, wait_for_ms))
    }

    /// Stops when `interrupt` resolves, and after `wait_for_ms`.
    pub(crate) fn when(interrupt: impl Future<Output = ()> + Send + 'static, wait_for_ms: Option<i64>) -> Self {
        let deadline = wait_for_ms.map(|ms| Instant::now() + Duration::from_millis(ms.max(0).unsigned_abs()));
        Self { interrupt: Box::pin(interrupt), deadline, stopped: None }
    }

    /// Why waiting was stopped, if it was.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// Notes that there is no use in going on.
    pub(crate) fn note_unread(&mut self) {
        self.stopped.get_or_insert(Stopped::Unread);
    }

    /// Does something that can be given up, unless it is stopped before.
    ///
    /// # Errors
    /// It was stopped.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        if let Some(stopped) = self.stopped {
            return Err(stopped);
        }
        tokio::select! {
            biased;
            reached = self.reached() => {
                self.stopped = Some(reached);
                Err(reached)
            }
            done = work => Ok(done),
        }
    }

    async fn reached(&mut self) -> Stopped {
        let deadline = self.deadline;
        let clock = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut self.interrupt => Stopped::Interrupted,
            () = clock => Stopped::WaitedEnough,
        }
    }
}

impl Stopped {
    /// The words for a remark on what is left.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::WaitedEnough => "waited long enough",
            Self::Unread => "nobody reads the output any more",
        }
    }

    /// The exit code that goes with it.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Interrupted => ExitCode::Interrupted,
            Self::WaitedEnough | Self::Unread => ExitCode::StoppedWaiting,
        }
    }

    /// The word for it in records.
    pub(crate) fn end(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::WaitedEnough | Self::Unread => "stopped_waiting",
        }
    }

    /// The end of a command that was stopped before anything was sent.
    pub(crate) fn failure(self, when: &str) -> Failure {
        match self {
            Self::Interrupted => {
                Failure::new(ExitCode::Interrupted, "ctrl-c", format!("interrupted while {when}; nothing was sent"))
            }
            Self::Unread => {
                let what = format!("nobody reads the output any more; stopped while {when}, and nothing was sent");
                Failure::new(ExitCode::StoppedWaiting, "unread", what)
            }
            Self::WaitedEnough => {
                let what = format!("the time of --wait-for was over while {when}; nothing was sent");
                Failure::new(ExitCode::StoppedWaiting, "waited-enough", what)
                    .hint("the same command with a longer --wait-for")
            }
        }
    }
}

/// How often the time is shown where somebody watches.
const TICK: Duration = Duration::from_secs(1);

/// Something to look at while a question is followed.
#[derive(Debug)]
pub(crate) enum Moment<'a> {
    /// It goes on.
    Event(&'a Event),
    /// A second has passed.
    Tick,
}

/// Drives a question until it ends, is stopped, or `watch` has seen enough; shows each event to `watch`, and
/// each second.
pub(crate) async fn follow(
    asking: &mut Asking<'_>,
    stop: &mut Stop,
    mut watch: impl FnMut(&Asking<'_>, Moment<'_>) -> ControlFlow<()>,
) {
    let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        let event = match stop.stopped {
            // What it still has to say is its end.
            Some(_) => asking.next().await,
            None => tokio::select! {
                biased;
                reached = stop.reached() => {
                    stop.stopped = Some(reached);
                    asking.stop();
                    continue;
                }
                event = asking.next() => event,
                _ = ticks.tick() => {
                    if watch(asking, Moment::Tick).is_break() {
                        asking.stop();
                    }
                    continue;
                }
            },
        };
        match event {
            Some(event) => {
                if watch(asking, Moment::Event(&event)).is_break() {
                    asking.stop();
                }
            }
            None => return,
        }
    }
}
