//! Watches: telling again, and on, about a request that was sent before.
//!
//! A watch is a request of its own with numbers of its own. Of an action in a process of its own it shows
//! everything from the disk, of one that runs in the agent what comes from now on, of one that has ended the
//! result while that is kept. It ends with the action, when it is cancelled, when nobody reads it, or when it
//! took too long.

use std::sync::Arc;

use muster_daemon::TaskKind;
use muster_protocol::{OutputChunk, RequestId, Watch, code};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::admit::{Authorized, RunningAction};
use crate::core::{Core, Running, StopReason, lock};
use crate::detached::state::State;
use crate::detached::{ActionDirectory, Cut, Live, Source, Teller};
use crate::outbox::{Addressee, Care};
use crate::report::{Address, Ending};

/// Reports of an action in the agent that may wait for a watch: one that is slower misses some, which the
/// offsets of the output show.
pub(crate) const FEED_LENGTH: usize = 16;

/// What an action that runs in the agent tells those who watch it.
#[derive(Debug, Clone)]
pub(crate) enum Feed {
    /// Output.
    Output(Vec<OutputChunk>),
    /// How it ended.
    Ended(Box<Ending>),
}

/// What can be told about a request.
enum Subject {
    /// It has a directory.
    OnDisk(Arc<Live>),
    /// It runs in this process.
    Here(broadcast::Receiver<Feed>),
}

/// Begins an authorized watch.
pub(crate) fn start(core: &Arc<Core>, authorized: &Authorized<Watch>) {
    let message = authorized.message();
    let id = message.id;
    let (stop, stopped) = watch::channel(None);
    let action = RunningAction {
        caller: message.caller.clone(),
        action: "watch".to_owned(),
        can_cancel: true,
        read_only: true,
        is_watch: true,
    };
    let (since, time_limit) = (core.now(), core.limits().action_time);
    let running = Running { action, stop, ended: false, since, time_limit, holds_up_stop: true, feed: None };
    lock(&core.running).insert(id, running);
    let watcher = Watcher {
        core: core.clone(),
        request_id: message.request_id,
        subject: find(core, &message.request_id),
        replay: message.replay,
        follow: message.follow,
        address: Address { request_id: id, caller: message.caller.clone(), reply_to: message.reply_to.clone() },
        started: Instant::now(),
    };
    let core = core.clone();
    core.tasks.clone().spawn(TaskKind::Worker, "watch", async move {
        let _forget = Forget { core, id };
        watcher.run(stopped).await;
    });
}

fn find(core: &Arc<Core>, id: &RequestId) -> Option<Subject> {
    if let Some(live) = lock(&core.detached).get(id) {
        return Some(Subject::OnDisk(live.clone()));
    }
    if lock(&core.results).get(id).is_none() {
        let running = lock(&core.running);
        let feed = running.get(id).and_then(|running| running.feed.as_ref());
        if let Some(feed) = feed {
            return Some(Subject::Here(feed.subscribe()));
        }
    }
    on_disk(core, id)
}

/// A request whose result is kept.
fn on_disk(core: &Arc<Core>, id: &RequestId) -> Option<Subject> {
    let directory = ActionDirectory::of(&core.actions_directory, *id);
    let order = directory.order().good()?;
    Some(Subject::OnDisk(Live::new(order, directory, State::Told)))
}

/// Takes the watch off the list of what runs, however it ends.
struct Forget {
    core: Arc<Core>,
    id: RequestId,
}

impl Drop for Forget {
    fn drop(&mut self) {
        lock(&self.core.running).remove(&self.id);
        self.core.running_changed.notify_waiters();
    }
}

struct Watcher {
    core: Arc<Core>,
    request_id: RequestId,
    subject: Option<Subject>,
    replay: bool,
    follow: bool,
    address: Address,
    started: Instant,
}

impl Watcher {
    async fn run(mut self, mut stopped: watch::Receiver<Option<StopReason>>) {
        let addressee = Addressee::MustBeThere;
        let (core, address) = (self.core.clone(), self.address.clone());
        let mut teller = Teller { core: core.clone(), address, sequence: 0, log: None, addressee };
        let limit = core.limits().action_time;
        let subject = self.subject.take();
        let ended = tokio::select! {
            biased;
            reason = stopped.wait_for(Option::is_some) => Some(match reason.ok().and_then(|reason| reason.clone()) {
                Some(StopReason::Cancelled { by }) => {
                    Ending::new(&code::CANCELLED, format!("the watch was cancelled by {}", by.short()))
                }
                _ => Ending::new(&code::SHUTTING_DOWN, "the agent stops; watch again when it is back"),
            }),
            () = tokio::time::sleep(limit) => {
                Some(Ending::new(&code::TIMED_OUT, format!("the watch took longer than {} s", limit.as_secs())))
            }
            ended = self.tell(&mut teller, subject) => ended,
        };
        let Some(mut ending) = ended else { return };
        if ending.duration_ms == 0 {
            ending.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        let sequence = teller.sequence;
        core.send_finished(&self.address, sequence, Vec::new(), ending, Care::Confirmed).await;
    }

    /// `None` if nobody reads it.
    async fn tell(&self, teller: &mut Teller, subject: Option<Subject>) -> Option<Ending> {
        let goes_on = match &subject {
            Some(Subject::OnDisk(live)) => !*live.ended.borrow(),
            Some(Subject::Here(_)) => true,
            None => false,
        };
        if self.follow && goes_on {
            // At once: an action that writes nothing for long must not look like a host that is silent.
            let sequence = teller.sequence;
            teller.sequence = sequence.saturating_add(1);
            if teller.deliver(sequence, Vec::new()).await == Err(Cut::Unread) {
                return None;
            }
        }
        match subject {
            Some(Subject::OnDisk(live)) => self.tell_from_disk(teller, &live).await,
            Some(Subject::Here(feed)) => self.tell_from_here(teller, feed).await,
            None => Some(unknown()),
        }
    }

    async fn tell_from_disk(&self, teller: &mut Teller, live: &Arc<Live>) -> Option<Ending> {
        match self.output_from_disk(teller, live).await {
            Ok(Ok(())) => {}
            Ok(Err(Cut::Unread)) => return None,
            Ok(Err(Cut::Stopped)) => {
                return Some(Ending::new(&code::SHUTTING_DOWN, "the agent stops; watch again when it is back"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(unknown()),
            Err(error) => {
                return Some(Ending::new(&code::FAILED, format!("what the action wrote cannot be read: {error}")));
            }
        }
        if !self.follow && !*live.ended.borrow() {
            return Some(still_running(live));
        }
        Some(live.reply().map_or_else(unknown, |reply| reply.ending()))
    }

    async fn output_from_disk(&self, teller: &mut Teller, live: &Arc<Live>) -> std::io::Result<Result<(), Cut>> {
        let mut source = Source::beginning(&live.directory)?;
        if !self.replay {
            source.skip_to_end()?;
        }
        if self.follow || *live.ended.borrow() {
            return teller.output(&mut Some(source), live).await;
        }
        // As it stands now, and no further.
        let snapshot = Live::new(live.order.clone(), live.directory.clone(), State::Told);
        teller.output(&mut Some(source), &snapshot).await
    }

    async fn tell_from_here(&self, teller: &mut Teller, mut feed: broadcast::Receiver<Feed>) -> Option<Ending> {
        if !self.follow {
            return Some(Ending {
                data: json!({ "state": "running" }),
                ..Ending::new(&code::STILL_RUNNING, "the action runs; what it wrote is not kept")
            });
        }
        loop {
            match feed.recv().await {
                Ok(Feed::Output(chunks)) => {
                    let sequence = teller.sequence;
                    teller.sequence = sequence.saturating_add(1);
                    if teller.deliver(sequence, chunks).await == Err(Cut::Unread) {
                        return None;
                    }
                }
                Ok(Feed::Ended(ending)) => return Some(*ending),
                // What was missed shows in the offsets.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // It ended before the watch could hear of it.
                Err(broadcast::error::RecvError::Closed) => {
                    return match on_disk(&self.core, &self.request_id) {
                        Some(Subject::OnDisk(live)) => self.tell_from_disk(teller, &live).await,
                        _ => Some(unknown()),
                    };
                }
            }
        }
    }
}

fn unknown() -> Ending {
    Ending::new(&code::UNKNOWN_REQUEST, "nothing is known of the request any more")
}

fn still_running(live: &Live) -> Ending {
    let begun = live.begun();
    let on_disk = crate::detached::total(&live.directory).unwrap_or_default();
    Ending {
        data: json!({
            "state": "running",
            "action": live.order.name(),
            "begun_at_ms": begun.map(|begun| begun.at_ms.as_millis()),
            "output_bytes": { "stdout": on_disk.stdout, "stderr": on_disk.stderr },
            "stopping": live.state().stop().is_some(),
        }),
        ..Ending::new(&code::STILL_RUNNING, format!("`{}` still runs", live.order.name()))
    }
}
