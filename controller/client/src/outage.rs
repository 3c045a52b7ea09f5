//! A time without answers in the middle of a question: the connection broke, or the reply queue was taken away.
//!
//! The way back is tried again and again until it is there, or it took too long, or the broker refuses for good. A try
//! goes on while the caller looks at other things, so it is kept here and not in a future that somebody may drop. The
//! reply queue keeps its name: hosts send what they have kept for it there.

use std::sync::Arc;
use std::time::Duration;

use muster_bus::{Bus, BusError, Consumer, Link, LoginProblem};
use muster_daemon::Backoff;
use muster_protocol::{ReplyRoute, Timestamp};
use rand::rngs::StdRng;

use crate::controller::listen;
use crate::error::ClientError;

/// How long the way back is tried, in milliseconds. A broker that restarts needs some seconds. One that was cut off
/// holds the old reply queue until it has missed two heartbeats of 30 s, and a controller may notice sooner.
pub(crate) const OUTAGE_MS_MAX: i64 = 120_000;

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How many refusals are taken for somebody who is at work on the broker: users, exchanges and permissions are imported
/// one after the other.
const REFUSALS_MAX: u32 = 8;

/// A connection with a live consumer on the reply queue.
pub(crate) type Reopened = (Arc<dyn Link>, Consumer);

type Attempt = muster_bus::BoxFuture<'static, Result<Reopened, ClientError>>;

/// The time without answers.
pub(crate) struct Outage {
    bus: Arc<dyn Bus>,
    route: ReplyRoute,
    give_up_at: Timestamp,
    backoff: Backoff,
    refusals: u32,
    /// What is told if there is no way back.
    error: ClientError,
    attempt: Attempt,
}

/// What came of a try.
pub(crate) enum Tried {
    /// There is a way back.
    Reopened(Reopened),
    /// The next try has begun.
    Again,
    /// It was given up.
    GivenUp(ClientError),
}

impl Outage {
    /// Begins. With a `link` that still works, only the reply queue is made again at first.
    pub(crate) fn new(
        (bus, link): (Arc<dyn Bus>, Option<Arc<dyn Link>>),
        route: ReplyRoute,
        error: ClientError,
        now: Timestamp,
        random: &mut StdRng,
    ) -> Self {
        let mut backoff = Backoff::new(Duration::from_millis(100), PAUSE_MAX, 2.0);
        let pause = backoff.next(random);
        let attempt = attempt(bus.clone(), link, route.clone(), pause);
        Self { bus, route, give_up_at: now.plus_ms(OUTAGE_MS_MAX), backoff, refusals: 0, error, attempt }
    }

    /// Waits for the try that goes on. Safe to cancel.
    pub(crate) async fn tried(&mut self) -> Result<Reopened, ClientError> {
        (&mut self.attempt).await
    }

    /// Decides what follows from a try.
    pub(crate) fn judge(
        &mut self,
        result: Result<Reopened, ClientError>,
        now: Timestamp,
        random: &mut StdRng,
    ) -> Tried {
        let source = match result {
            Ok(reopened) => return Tried::Reopened(reopened),
            Err(ClientError::Bus(source)) if may_pass(&source) => source,
            Err(ClientError::Bus(source @ (BusError::Denied { .. } | BusError::NotFound { .. })))
                if self.refusals < REFUSALS_MAX =>
            {
                self.refusals += 1;
                source
            }
            Err(fatal) => return Tried::GivenUp(fatal),
        };
        if !matches!(self.error, ClientError::ReplyQueueGone { .. }) {
            self.error = ClientError::ConnectionLost { source };
        }
        if now >= self.give_up_at {
            return Tried::GivenUp(self.error.clone());
        }
        self.attempt = attempt(self.bus.clone(), None, self.route.clone(), self.backoff.next(random));
        Tried::Again
    }
}

/// Whether it may be better soon without anybody doing anything: also a queue that the broker still holds for the
/// connection before, and a virtual host that has not come up yet.
fn may_pass(error: &BusError) -> bool {
    error.is_transient()
        || matches!(error, BusError::Conflict { .. })
        || matches!(error, BusError::Rejected { problem, .. } if !matches!(problem, LoginProblem::Login { .. }))
}

fn attempt(bus: Arc<dyn Bus>, link: Option<Arc<dyn Link>>, route: ReplyRoute, pause: Duration) -> Attempt {
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        let link = match link {
            Some(link) => link,
            None => bus.connect().await?,
        };
        let replies = listen(link.as_ref(), &route).await?;
        Ok((link, replies))
    })
}
