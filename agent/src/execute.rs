//! Running an authorized command to its end, and telling about it.
//!
//! An action runs in a task of its own; a second one watches it: time limit, cancellation, shutdown,
//! output, reports. So neither waits for the other while it holds something, and an action that
//! waits or panics cannot take its own report with it.
//!
//! An action that only reads is often over before a task could be made for it: a ping, a look at the facts. So it
//! is given one turn where it was authorized ([`Begun::Over`]). If it ends in that turn there is nothing to watch, and
//! its delivery is acknowledged together with its report; if not, it goes on as all others do ([`Begun::Running`]).
//! Why, and what stays as it was, is in `docs/adr/0031-one-turn-for-reads.md`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use muster_bus::Delivery;
use muster_daemon::TaskKind;
use muster_plugin_api::{
    ActionContext, ActionFailure, ActionReply, ActionRequest, OutputPiece, OutputReceiver, OutputSink, Plugin,
};
use muster_protocol::limits::OUTPUT_CHUNK_BYTES_MAX;
use muster_protocol::{ActionName, Command, RequestId, code};
use serde_json::Value;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admit::{Authorized, RunningAction};
use crate::audit::Event;
use crate::core::{Core, Running, StopReason, lock};
use crate::detached::{self, Order};
use crate::mask;
use crate::outbox::Care;
use crate::receive::acknowledge;
use crate::report::{Address, Ending, OutputBuffer, running};
use crate::watching::{FEED_LENGTH, Feed};

/// Longest time between output and the report that carries it.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// Pieces of output that may wait for the watcher: then the action waits.
pub(crate) const OUTPUT_PIECES: usize = 16;

/// Output that is kept for the final report where no running reports are wanted, and at most held at
/// once where they are, in bytes of each stream.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// How much later than the action itself the agent notices that its time is over: the action's own
/// answer about it says more than the agent can.
pub(crate) const TIME_LIMIT_SLACK: Duration = Duration::from_secs(1);

/// How long an action may take to stop once it was told to, where its description does not say. Longer than
/// a program's polite signal and hard signal together take.
const STOP_GRACE: Duration = Duration::from_secs(6);

/// Numbers of reports that are noted in the journal at once.
const SEQUENCE_BLOCK: u32 = 64;

/// What became of a command that was started.
pub(crate) enum Begun {
    /// It runs, and its end tells itself.
    Running,
    /// It is over already, and its end is to be told.
    Over(Box<Over>),
}

/// Starts an authorized command that has been recorded. Nothing else starts an action.
pub(crate) fn start(core: &Arc<Core>, authorized: Authorized<Command>) -> Begun {
    let command = authorized.message();
    let grant = authorized.grant();
    let is_detached = grant.plugin.ddl().action(&command.action).is_some_and(|action| action.muster.detached);
    if is_detached && core.runner.is_some() {
        detached::start(core, &authorized);
        return Begun::Running;
    }
    let id = command.id;
    let (stop, stopped) = watch::channel(None);
    let action = RunningAction {
        caller: command.caller.clone(),
        action: format!("{}.{}", command.plugin, command.action),
        can_cancel: grant.can_cancel,
        read_only: grant.read_only,
        is_watch: false,
    };
    let (since, time_limit) = (core.now(), grant.time_limit);
    let running = Running { action, stop, ended: false, since, time_limit, holds_up_stop: true, feed: None };
    lock(&core.running).insert(id, running);
    let forget = Forget { core: core.clone(), id };
    core.counters.actions_started.add_one();
    let (sink, output) = OutputSink::channel(OUTPUT_PIECES);
    let cancel = CancellationToken::new();
    let request = ActionRequest {
        request_id: id,
        caller: command.caller.clone(),
        action: command.action.clone(),
        arguments: grant.arguments.clone(),
        secrets: grant.secrets.clone(),
        noop: command.options.noop,
        effective_user: command.options.effective_user.clone(),
        time_limit: grant.time_limit,
    };
    let context = ActionContext { cancel: cancel.clone(), output: sink, host: core.clone() };
    let plugin = grant.plugin.clone();
    let mut watcher = Watcher {
        core: core.clone(),
        address: Address { request_id: id, caller: command.caller.clone(), reply_to: command.reply_to.clone() },
        progress: command.options.progress,
        read_only: grant.read_only,
        time_limit: grant.time_limit,
        stop_grace: stop_grace(&plugin, &command.action),
        started: Instant::now(),
        sequence: 0,
        sequence_reserved: SEQUENCE_BLOCK,
        buffer: OutputBuffer::new(OUTPUT_BYTES_MAX),
        feed: None,
        result: (!grant.read_only).then(|| detached::order(core, &authorized)),
    };
    let mut run =
        Box::pin(async move { caught(AssertUnwindSafe(|| mask::run(plugin.as_ref(), request, context))).await });
    // Whoever has to wait is waked in the task that then goes on with it.
    if watcher.read_only
        && let Poll::Ready(reply) = run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    {
        return Begun::Over(Box::new(Over { watcher, output, reply, forget }));
    }
    let feed = broadcast::Sender::new(FEED_LENGTH);
    if let Some(running) = lock(&core.running).get_mut(&id) {
        running.feed = Some(feed.clone());
    }
    watcher.feed = Some(feed);
    let abandon = CancellationToken::new();
    let (sender, reply) = oneshot::channel();
    let abandoned = abandon.clone();
    core.tasks.spawn(TaskKind::Worker, "action", async move {
        tokio::select! {
            biased;
            // The future is dropped, and the processes it started are killed with it.
            () = abandoned.cancelled() => {}
            reply = run => drop(sender.send(reply)),
        }
    });
    core.tasks.spawn(TaskKind::Worker, "report", async move {
        let _forget = forget;
        watcher.watch(reply, output, stopped, cancel, abandon).await;
    });
    Begun::Running
}

/// An action that was over in its first turn.
pub(crate) struct Over {
    watcher: Watcher,
    output: OutputReceiver,
    reply: ActionReply,
    forget: Forget,
}

impl Over {
    /// Tells about it, and acknowledges its delivery so that both leave together.
    pub(crate) async fn tell(self, delivery: &Delivery) {
        let Self { mut watcher, mut output, reply, forget } = self;
        let _forget = forget;
        watcher.ended(&mut output).await;
        let ending = ending(Some(reply), None, watcher.time_limit);
        watcher.finish(ending, Some(delivery)).await;
    }
}

/// How long an action may take to stop once it was told to.
pub(crate) fn stop_grace(plugin: &Arc<dyn Plugin>, action: &ActionName) -> Duration {
    let own = plugin.ddl().action(action).and_then(|action| action.muster.stop_grace_s);
    own.map_or(STOP_GRACE, Duration::from_secs)
}

/// First number that a report may have which is not noted in the journal.
pub(crate) fn first_reservation() -> u32 {
    SEQUENCE_BLOCK
}

/// Takes the request off the list of what runs, also if the watcher panics.
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

/// Runs a plugin's future; a panic, in making it or in it, becomes a failure.
pub(crate) async fn caught<'a, F>(make: AssertUnwindSafe<F>) -> ActionReply
where
    F: FnOnce() -> muster_plugin_api::BoxFuture<'a, ActionReply>,
{
    let mut future = match std::panic::catch_unwind(AssertUnwindSafe(make.0)) {
        Ok(future) => future,
        Err(panic) => return Err(panicked(panic.as_ref())),
    };
    std::future::poll_fn(move |context| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| std::task::Poll::Ready(Err(panicked(panic.as_ref()))))
    })
    .await
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> ActionFailure {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let said = said.unwrap_or("without a message");
    tracing::error!(panic = said, "A plugin panicked");
    ActionFailure::new(&code::PLUGIN_ERROR, format!("the plugin panicked: {said}"))
}

struct Watcher {
    core: Arc<Core>,
    address: Address,
    progress: bool,
    read_only: bool,
    time_limit: Duration,
    stop_grace: Duration,
    started: Instant,
    sequence: u32,
    sequence_reserved: u32,
    buffer: OutputBuffer,
    /// Tells those who watch; `None` where nobody can have begun to.
    feed: Option<broadcast::Sender<Feed>>,
    /// What is kept of it besides its end, where that is kept.
    result: Option<Order>,
}

impl Watcher {
    async fn watch(
        mut self,
        reply: oneshot::Receiver<ActionReply>,
        mut output: OutputReceiver,
        stopped: watch::Receiver<Option<StopReason>>,
        cancel: CancellationToken,
        abandon: CancellationToken,
    ) {
        // A reading action is usually over before its first report would leave; one that changes
        // something says at once that it has begun.
        if self.progress && !self.read_only {
            self.report_running(Vec::new()).await;
        }
        let (reply, reason) = self.wait(reply, &mut output, stopped, &cancel, &abandon).await;
        self.ended(&mut output).await;
        let ending = ending(reply, reason.as_ref(), self.time_limit);
        self.finish(ending, None).await;
    }

    /// Takes what is left of the output. The action takes no room any more.
    async fn ended(&mut self, output: &mut OutputReceiver) {
        while let Ok(piece) = output.try_recv() {
            self.take_in(&piece).await;
        }
        if let Some(running) = lock(&self.core.running).get_mut(&self.address.request_id) {
            running.ended = true;
        }
    }

    /// Waits for the end, or for as long as an action that was told to stop may take.
    async fn wait(
        &mut self,
        mut reply: oneshot::Receiver<ActionReply>,
        output: &mut OutputReceiver,
        mut stopped: watch::Receiver<Option<StopReason>>,
        cancel: &CancellationToken,
        abandon: &CancellationToken,
    ) -> (Option<ActionReply>, Option<StopReason>) {
        let mut reason: Option<StopReason> = None;
        let mut deadline = self.started + self.time_limit + TIME_LIMIT_SLACK;
        let mut flush_at = self.started + FLUSH_INTERVAL;
        // Where no running reports are wanted nothing is flushed; the timer then never matters.
        let mut flush_due = self.progress;
        let mut output_open = true;
        loop {
            tokio::select! {
                biased;
                reply = &mut reply => {
                    // A sender dropped without a reply: its task was dropped with the whole agent.
                    return (reply.ok(), reason);
                }
                changed = stopped.changed(), if reason.is_none() => {
                    let told = stopped.borrow_and_update().clone();
                    reason = if changed.is_ok() { told } else { Some(StopReason::Shutdown) };
                    if reason.is_some() {
                        cancel.cancel();
                        deadline = Instant::now() + self.stop_grace;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    if reason.is_none() {
                        reason = Some(StopReason::TimedOut);
                        cancel.cancel();
                        deadline = Instant::now() + self.stop_grace;
                    } else {
                        abandon.cancel();
                        return (None, reason);
                    }
                }
                () = tokio::time::sleep_until(flush_at), if flush_due => {
                    // The first report of a reading action says only that it runs.
                    if self.buffer.is_empty() && self.sequence == 0 {
                        self.report_running(Vec::new()).await;
                    }
                    self.flush(false).await;
                    flush_due = false;
                }
                // Last, so that an action that never stops writing is stopped all the same.
                piece = output.recv(), if output_open => match piece {
                    Some(piece) => {
                        self.take_in(&piece).await;
                        if self.progress && !flush_due {
                            flush_due = true;
                            flush_at = Instant::now() + FLUSH_INTERVAL;
                        }
                    }
                    None => output_open = false,
                },
            }
        }
    }

    /// Takes output, in parts that fit into the buffer where they are sent on at once.
    async fn take_in(&mut self, piece: &OutputPiece) {
        for bytes in piece.bytes.chunks(OUTPUT_CHUNK_BYTES_MAX) {
            self.buffer.push(piece.stream, bytes);
            if self.progress && self.buffer.is_full() {
                self.flush(false).await;
            }
        }
    }

    async fn flush(&mut self, last: bool) {
        loop {
            let chunks = self.buffer.take(last);
            if chunks.is_empty() {
                return;
            }
            self.report_running(chunks).await;
            if !self.buffer.is_full() {
                return;
            }
        }
    }

    async fn report_running(&mut self, output: Vec<muster_protocol::OutputChunk>) {
        if !output.is_empty()
            && let Some(feed) = self.watched()
        {
            // Nobody watches any more, if it fails.
            drop(feed.send(Feed::Output(output.clone())));
        }
        let sequence = self.next_sequence();
        let report = running(&self.address, &self.core.host, sequence, self.core.now(), output);
        self.core.send_running(&self.address, &report).await;
    }

    /// Notes a block of numbers ahead, so that a report about an interruption, made after a crash,
    /// never has the number of one that was sent before it.
    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.saturating_add(1);
        if self.sequence >= self.sequence_reserved && !self.read_only {
            self.sequence_reserved = self.sequence.saturating_add(SEQUENCE_BLOCK);
            let reserved = lock(&self.core.journal).reserve_sequence(self.address.request_id, self.sequence_reserved);
            if let Err(error) = reserved {
                crate::core::report_error("Could not note report numbers", &error);
            }
        }
        sequence
    }

    /// Where to tell somebody who watches, if anybody does.
    fn watched(&self) -> Option<&broadcast::Sender<Feed>> {
        self.feed.as_ref().filter(|feed| feed.receiver_count() > 0)
    }

    /// Tells about the end, and acknowledges the delivery where that has not been done.
    async fn finish(mut self, mut ending: Ending, delivery: Option<&Delivery>) {
        ending.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        ending.output_truncated_from = self.buffer.truncated_from();
        // All but the last chunks leave as running reports where those are wanted.
        while self.progress && self.buffer.is_full() {
            self.flush(true).await;
        }
        let mut output = Vec::new();
        loop {
            let chunks = self.buffer.take(true);
            if chunks.is_empty() {
                break;
            }
            output.extend(chunks);
        }
        let care = match (self.read_only, self.progress) {
            (false, _) => Care::Durable,
            (true, true) => Care::Confirmed,
            (true, false) => Care::Cheap,
        };
        let id = self.address.request_id;
        let mut event = Event::new("finished", ending.code.outcome().as_str());
        event.request_id = Some(id.to_string());
        event.caller = Some(self.address.caller.to_string());
        event.code = Some(ending.code.code.to_owned());
        event.message.clone_from(&ending.message);
        self.core.note(event);
        if let Some(feed) = self.watched() {
            drop(feed.send(Feed::Ended(Box::new(ending.clone()))));
        }
        if let Some(order) = self.result.take() {
            self.core.profiles_due.add(&order.plugin);
            self.core.results_keep(order, ending.clone()).await;
        }
        let sequence = self.next_sequence();
        let signed = self.core.sign_finished(&self.address, sequence, output, ending);
        // The acknowledgement right before the report: the connection's thread is woken once, and takes both.
        if let Some(delivery) = delivery {
            acknowledge(delivery).await;
        }
        if let Some(signed) = signed {
            self.core.send_signed(signed, care).await;
        }
        // Only now: after a crash in between, the report in the spool says that it has ended. One that is only in
        // memory is recorded as ended when it has left.
        if care != Care::Confirmed {
            self.core.record_finish(id, self.read_only).await;
        }
        self.core.counters.actions_finished.add_one();
    }
}

/// What the end is called. An action that did what it was asked succeeded, also if it was told to stop
/// too late; one that failed after it was told to stop was stopped.
pub(crate) fn ending(reply: Option<ActionReply>, reason: Option<&StopReason>, time_limit: Duration) -> Ending {
    let failure = match reply {
        Some(Ok(ok)) => {
            return Ending { data: ok.data, ..Ending::new(&code::OK, ok.message) };
        }
        Some(Err(failure)) => Some(failure),
        None => None,
    };
    let stopped = reason.map(|reason| match reason {
        StopReason::Cancelled { by } => (&code::CANCELLED, format!("cancelled by {}", by.short())),
        StopReason::TimedOut => (&code::TIMED_OUT, format!("did not end within {} s", time_limit.as_secs_f64())),
        StopReason::Shutdown => (&code::INTERRUPTED, "the agent stopped while the action ran".to_owned()),
    });
    let (code, message) = match (stopped, &failure) {
        (Some((code, message)), None) => (code, format!("{message}, and it did not stop when it was told to")),
        (Some((code, message)), Some(_)) => (code, message),
        (None, Some(failure)) => (failure.code, failure.message.clone()),
        (None, None) => (&code::INTERRUPTED, "the agent stopped while the action ran".to_owned()),
    };
    let (exit_code, data) = failure.map_or((None, Value::Null), |failure| (failure.exit_code, failure.data));
    Ending { exit_code, data, ..Ending::new(code, message) }
}
