//! The process that runs one detached action: `musterd run-action DIRECTORY`.
//!
//! It holds the directory's lock from before it reads its order until it ends, so that everybody can see
//! whether it lives. Its main thread enforces the time limit, takes output and obeys requests to stop; the
//! action runs on another thread, so that one that blocks keeps nobody from noticing. It connects to nothing
//! and needs no agent to end.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_daemon::disk::RealDisk;
use muster_daemon::signals::{Request, Signals};
use muster_daemon::{Clock, TaskKind, Tasks, runtime_with_threads};
use muster_plugin_api::{ActionContext, ActionReply, OutputReceiver, OutputSink, Plugin};
use muster_plugins::process::{ProcessStart, become_subreaper, end_recorded, record_programs};
use muster_protocol::{Timestamp, code};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::directory::{ActionDirectory, Begun, FORMAT_VERSION, Found, Order, Reply, RunnerLock, uptime_ms};
use super::notice::{self, Listener, Notices};
use super::output::OutputWriter;
use crate::core::{StopReason, chain};
use crate::execute::{OUTPUT_PIECES, TIME_LIMIT_SLACK, caught, ending};
use crate::mask;
use crate::report::Ending;
use crate::reserve::{RESERVE_BYTES, Reserve};
use crate::state::{files, make_private_directory};

/// Threads for work that blocks, most of all for the disk.
const BLOCKING_THREADS: usize = 4;

/// How long to wait for the lock: an agent that looks has it for an instant.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two tries to get it.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Most bytes of secrets: as many as a command may carry, opened and written as JSON.
const SECRETS_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What may pass between the last deadline and the end: cleaning up and writing the reply.
const END_SLACK: Duration = Duration::from_secs(10);

/// How long to try to write the reply while the disk is full.
const REPLY_PATIENCE: Duration = Duration::from_secs(300);

/// Pause between two tries.
const REPLY_PAUSE: Duration = Duration::from_secs(1);

/// How often it looks whether it is to stop, in case the kernel does not tell.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Time that what an abandoned action left has to stop politely.
const LEFT_GRACE: Duration = Duration::from_secs(2);

/// Why a runner does not run its action. Nothing was done then.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Somebody else has the directory.
    #[error("somebody else has the lock of `{0}`")]
    Taken(String),
    /// It has ended already.
    #[error("the action of `{0}` has begun or ended before; it is never run again")]
    Over(String),
    /// The order cannot be read.
    #[error("the order in `{0}` cannot be read")]
    Order(String),
    /// The agent was gone before it had told everything.
    #[error("the agent ended before the action could begin")]
    NoAgent,
    /// The system does not give what is needed.
    #[error("{action}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl RunnerError {
    fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// What goes through the pipe. Always something, so that an agent that died is not taken for no secrets.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Secrets {
    pub(super) secrets: Map<String, Value>,
}

/// Runs the action of a directory to its end and leaves its reply there. `plugin` finds the plugin; what it
/// says if it cannot becomes the reply.
///
/// # Errors
/// When the action does not begin. The agent finds that out by the lock.
pub fn run_action(
    path: &Path,
    clock: Arc<dyn Clock>,
    plugin: impl FnOnce(&Order) -> Result<Arc<dyn Plugin>, String>,
) -> Result<(), RunnerError> {
    // Who leads a session already needs no other.
    let _leads_one = nix::unistd::setsid();
    let directory = ActionDirectory::at(path);
    let name = || path.display().to_string();
    let lock = take_lock(&directory)?.ok_or_else(|| RunnerError::Taken(name()))?;
    if directory.has_reply() || directory.begun() != Found::Missing {
        return Err(RunnerError::Over(name()));
    }
    let order = directory.order().good().ok_or_else(|| RunnerError::Order(name()))?;
    let secrets = read_secrets(&order)?;
    record_programs(&directory.programs()).map_err(RunnerError::system("make the record of programs"))?;
    make_private_directory(&directory.work()).map_err(RunnerError::system("make the directory for files"))?;
    let writer = OutputWriter::create(&directory.output(), order.output_bytes_max)
        .map_err(RunnerError::system("begin the output"))?;
    if let Err(error) = become_subreaper() {
        tracing::warn!(%error, "Processes that leave the action's session will not be found");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // One that an action may block, and one that keeps the time meanwhile.
    builder.worker_threads(2).enable_all();
    let runtime =
        runtime_with_threads(&mut builder, BLOCKING_THREADS).map_err(RunnerError::system("start the runtime"))?;
    let plugin = plugin(&order);
    let run = Run { directory, lock, order, writer, clock, started: Instant::now() };
    let done = runtime.block_on(run.until_ended(plugin, secrets));
    runtime.shutdown_background();
    done
}

fn take_lock(directory: &ActionDirectory) -> Result<Option<RunnerLock>, RunnerError> {
    let failed = RunnerError::system;
    let tries = LOCK_PATIENCE.as_millis() / LOCK_PAUSE.as_millis();
    for _ in 0..tries {
        if let Some(lock) = directory.try_lock_as_runner().map_err(failed("take the lock"))? {
            return Ok(Some(lock));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(None)
}

fn read_secrets(order: &Order) -> Result<Map<String, Value>, RunnerError> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(SECRETS_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(RunnerError::system("read from the agent"))?;
    let Secrets { secrets } = serde_json::from_slice(&bytes).map_err(|_| RunnerError::NoAgent)?;
    if !order.secrets.iter().eq(secrets.keys()) {
        return Err(RunnerError::NoAgent);
    }
    Ok(secrets)
}

struct Run {
    directory: ActionDirectory,
    lock: RunnerLock,
    order: Order,
    writer: OutputWriter,
    clock: Arc<dyn Clock>,
    started: Instant,
}

impl Run {
    async fn until_ended(
        mut self,
        plugin: Result<Arc<dyn Plugin>, String>,
        secrets: Map<String, Value>,
    ) -> Result<(), RunnerError> {
        let mut signals = Signals::install().map_err(RunnerError::system("listen for signals"))?;
        let mut stops = Stops::new(&self.directory);
        self.begin()?;
        let mut ending = match plugin {
            Ok(plugin) => self.act(plugin, secrets, &mut signals, &mut stops).await,
            Err(why) => Ending::new(&code::PLUGIN_ERROR, why),
        };
        ending.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.leave_reply(ending).await
    }

    fn begin(&self) -> Result<(), RunnerError> {
        let system = RunnerError::system;
        let pid = nix::unistd::getpid().as_raw();
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let start = ProcessStart::of(pid).ok_or_else(missing).map_err(system("find out when this process started"))?;
        let order = &self.order;
        let limits_ms = order.time_limit_ms.saturating_add(order.stop_grace_ms);
        let slack_ms = u64::try_from((TIME_LIMIT_SLACK + END_SLACK).as_millis()).unwrap_or(0);
        let at_ms = self.now();
        let begun = Begun {
            format: FORMAT_VERSION,
            pid,
            start_ticks: start.ticks,
            boot_id: start.boot_id,
            at_ms,
            ends_by_ms: at_ms.plus_ms(i64::try_from(limits_ms.saturating_add(slack_ms)).unwrap_or(i64::MAX)),
            uptime_ms: uptime_ms(),
        };
        self.directory.write_begun(&self.lock, &begun).map_err(system("write down that the action begins"))
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    /// Runs the action; one that does not stop when it should is torn off.
    async fn act(
        &mut self,
        plugin: Arc<dyn Plugin>,
        secrets: Map<String, Value>,
        signals: &mut Signals,
        stops: &mut Stops,
    ) -> Ending {
        let (sink, mut output) = OutputSink::channel(OUTPUT_PIECES);
        let (cancel, abandon) = (CancellationToken::new(), CancellationToken::new());
        let (sender, reply) = oneshot::channel();
        let actions = self.directory.path().parent().unwrap_or(Path::new("/"));
        let host = super::snapshot::Snapshot::new(&self.order, actions, self.directory.work(), self.clock.clone());
        let context = ActionContext { cancel: cancel.clone(), output: sink, host: Arc::new(host) };
        let request = self.order.request(secrets);
        let time_limit = request.time_limit;
        let tasks = Tasks::new();
        let abandoned = abandon.clone();
        tasks.spawn(TaskKind::Worker, "action", async move {
            let run = caught(std::panic::AssertUnwindSafe(|| mask::run(plugin.as_ref(), request, context)));
            tokio::select! {
                biased;
                () = abandoned.cancelled() => {}
                reply = run => drop(sender.send(reply)),
            }
        });
        let (reply, reason) = self.supervise(reply, &mut output, &cancel, signals, stops).await;
        while let Ok(piece) = output.try_recv() {
            self.writer.write(piece.stream, &piece.bytes);
        }
        if reply.is_none() {
            abandon.cancel();
            // Dropping the action kills the sessions of its programs; a thread that blocks is not waited for.
            drop(tokio::time::timeout(LEFT_GRACE, tasks.shutdown(LEFT_GRACE)).await);
            end_recorded(&self.directory.programs(), LEFT_GRACE).await;
        }
        ending(reply, reason.as_ref(), time_limit)
    }

    async fn supervise(
        &mut self,
        mut reply: oneshot::Receiver<ActionReply>,
        output: &mut OutputReceiver,
        cancel: &CancellationToken,
        signals: &mut Signals,
        stops: &mut Stops,
    ) -> (Option<ActionReply>, Option<StopReason>) {
        let stop_grace = Duration::from_millis(self.order.stop_grace_ms);
        let mut reason: Option<StopReason> = None;
        let mut deadline = self.started + Duration::from_millis(self.order.time_limit_ms) + TIME_LIMIT_SLACK;
        let mut output_open = true;
        loop {
            let told = tokio::select! {
                biased;
                reply = &mut reply => return (reply.ok(), reason),
                signal = signals.next() => match signal {
                    Request::Stop | Request::EndNow => StopReason::Shutdown,
                    Request::Reload => continue,
                },
                asked = stops.next(), if reason.is_none() => asked,
                () = tokio::time::sleep_until(deadline) => {
                    if reason.is_some() {
                        return (None, reason);
                    }
                    StopReason::TimedOut
                }
                // Last, so that an action that never stops writing is stopped all the same.
                piece = output.recv(), if output_open => {
                    match piece {
                        Some(piece) => self.writer.write(piece.stream, &piece.bytes),
                        None => output_open = false,
                    }
                    continue;
                }
            };
            if reason.is_none() {
                reason = Some(told);
                cancel.cancel();
                deadline = Instant::now() + stop_grace;
            }
        }
    }

    /// The room that the agent keeps for the ends of actions, which this is.
    fn reserve(&self) -> Reserve {
        let state = self.directory.path().ancestors().nth(2).unwrap_or(Path::new("/"));
        Reserve::new(Arc::new(RealDisk), state.join(files::RESERVE), RESERVE_BYTES)
    }

    /// Leaves the reply, also if the disk is full for a while; without its data if it has to be.
    async fn leave_reply(self, mut ending: Ending) -> Result<(), RunnerError> {
        if let Err(error) = std::fs::remove_dir_all(self.directory.work()) {
            tracing::warn!(%error, "Could not remove an action's files");
        }
        let synced = self.writer.sync().err().map(|error| error.to_string());
        if let Some(why) = self.writer.failed().map(ToOwned::to_owned).or(synced) {
            ending.message = format!("(output was lost: {why}) {}", ending.message);
        }
        let mut reply = Reply::new(&ending, self.now());
        (reply.written, reply.kept) = self.writer.totals();
        let deadline = Instant::now() + REPLY_PATIENCE;
        let reserve = self.reserve();
        while let Err(error) = reserve.use_for(|| self.directory.write_reply(&self.lock, &reply)) {
            // Without the directory nobody wants a reply any more.
            if Instant::now() >= deadline || !self.directory.path().exists() {
                return Err(RunnerError::System { action: "write the reply", source: error });
            }
            let error = chain(&error);
            tracing::error!(request.id = %self.order.request_id, error, "Could not write an action's reply; trying again");
            tokio::time::sleep(REPLY_PAUSE).await;
            if !reply.data.is_null() && Instant::now() + REPLY_PATIENCE / 2 >= deadline {
                reply.data = Value::Null;
                reply.message = format!("(result left out, the disk was full) {}", reply.message);
            }
        }
        Ok(())
    }
}

/// Whether somebody wants the action to stop.
struct Stops {
    directory: ActionDirectory,
    listener: Option<Listener>,
}

impl Stops {
    fn new(directory: &ActionDirectory) -> Self {
        let listener = Notices::new().and_then(|notices| {
            notices.watch(directory.path(), notice::PUT)?;
            notices.listen()
        });
        if let Err(error) = &listener {
            tracing::warn!(%error, "Requests to stop are noticed late");
        }
        Self { directory: directory.clone(), listener: listener.ok() }
    }

    /// Waits until it is to stop. Safe to cancel.
    async fn next(&mut self) -> StopReason {
        loop {
            if let Found::There(stop) = self.directory.stop() {
                return stop.reason;
            }
            if !self.directory.path().exists() {
                // Whoever removed it wants no result.
                return StopReason::Shutdown;
            }
            let look_again = tokio::time::sleep(LOOK_INTERVAL);
            match &self.listener {
                Some(listener) => tokio::select! {
                    biased;
                    () = look_again => {}
                    changes = listener.next() => if changes.is_err() { self.listener = None },
                },
                None => look_again.await,
            }
        }
    }
}
