//! The directory of one action: what is in it, who writes it, and when.
//!
//! | file | written by | what it says |
//! |---|---|---|
//! | `request.json` | agent, before anything starts | what to do, for whom; no secret |
//! | `lock` | made by the agent | held locked (flock) by the runner for as long as it lives |
//! | `begun.json` | runner, holding the lock | the action begins now; by when it will have ended |
//! | `programs` | runner | programs it has started: [`muster_plugins::process::record_programs`] |
//! | `output` | runner | output in frames: [`super::output`] |
//! | `stop.json` | agent | stop the action, and why |
//! | `reply.json` | runner, or an agent that holds the lock | how it ended; whoever finds it concludes nothing else |
//! | `cursor` | agent | which report carried what: [`super::cursor`] |
//! | `noted` | agent | the audit log says that it has ended |
//! | `work/` | the action | files it needs meanwhile |

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_daemon::write_atomic;
use muster_plugin_api::{ActionRequest, AgentStatus};
use muster_plugins::process::ProcessStart;
use muster_protocol::{ActionName, Code, HostName, Identity, PluginName, ReplyRoute, RequestId, Timestamp, code};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::StopReason;
use crate::report::{Address, Ending};

/// Version of the files' format. A runner and an agent of two versions may meet in one directory.
pub const FORMAT_VERSION: u32 = 1;

const REQUEST: &str = "request.json";
const LOCK: &str = "lock";
const BEGUN: &str = "begun.json";
const STOP: &str = "stop.json";
const REPLY: &str = "reply.json";
const OUTPUT: &str = "output";
const CURSOR: &str = "cursor";
const NOTED: &str = "noted";
const PROGRAMS: &str = "programs";
const WORK: &str = "work";

/// What a runner is told, and what whoever finds the directory has to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The request.
    pub request_id: RequestId,
    /// Who asked.
    pub caller: Identity,
    /// Where the reports go.
    pub reply_to: ReplyRoute,
    /// Whether running reports are wanted.
    pub progress: bool,
    /// The plugin.
    pub plugin: PluginName,
    /// The version of it that was allowed.
    pub plugin_version: String,
    /// The action.
    pub action: ActionName,
    /// Whether it only reads.
    pub read_only: bool,
    /// Whether it can be stopped.
    pub can_cancel: bool,
    /// The arguments without secrets.
    pub arguments: Map<String, Value>,
    /// Names of the arguments that come through the pipe.
    pub secrets: BTreeSet<String>,
    /// Do nothing, only say.
    pub noop: bool,
    /// Run as this user.
    pub effective_user: Option<String>,
    /// How long it may take, in milliseconds.
    pub time_limit_ms: u64,
    /// How long it may take to stop, in milliseconds.
    pub stop_grace_ms: u64,
    /// Output kept on disk, in bytes of both streams together.
    pub output_bytes_max: u64,
    /// When the agent took it.
    pub accepted_at_ms: Timestamp,
    /// The host.
    pub host: HostName,
    /// How the agent was doing when it began.
    pub agent_status: AgentStatus,
}

impl Order {
    /// To whom reports go.
    #[must_use]
    pub fn address(&self) -> Address {
        Address { request_id: self.request_id, caller: self.caller.clone(), reply_to: self.reply_to.clone() }
    }

    /// `plugin.action`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.plugin, self.action)
    }

    /// The request for the plugin, complete with the secrets.
    #[must_use]
    pub fn request(&self, secrets: Map<String, Value>) -> ActionRequest {
        let mut arguments = self.arguments.clone();
        arguments.extend(secrets);
        ActionRequest {
            request_id: self.request_id,
            caller: self.caller.clone(),
            action: self.action.clone(),
            arguments,
            secrets: self.secrets.clone(),
            noop: self.noop,
            effective_user: self.effective_user.clone(),
            time_limit: Duration::from_millis(self.time_limit_ms),
        }
    }
}

/// What the runner writes before it calls the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Its process. True as long as the lock is held.
    pub pid: i32,
    /// When that process started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Which boot of the host.
    pub boot_id: String,
    /// When the action began.
    pub at_ms: Timestamp,
    /// By when it will have ended, stopped or been torn off.
    pub ends_by_ms: Timestamp,
    /// How long the host had been up when the action began, in milliseconds: a clock that nobody sets.
    #[serde(default)]
    pub uptime_ms: Option<i64>,
}

impl Begun {
    /// Whether the process that wrote it lives: the id alone may be another's by now.
    #[must_use]
    pub fn is_process(&self) -> bool {
        ProcessStart::of(self.pid).is_some_and(|start| start.ticks == self.start_ticks && start.boot_id == self.boot_id)
    }

    /// By when it will have ended, by a clock that says `now` and may have been set since the action began.
    /// `uptime_ms` is how long the host is up, in the boot that the action began in.
    #[must_use]
    pub fn ends_by(&self, now: Timestamp, uptime_ms: Option<i64>) -> Timestamp {
        match (self.uptime_ms, uptime_ms) {
            (Some(then), Some(uptime)) if uptime >= then => {
                let left = self.ends_by_ms.since_ms(self.at_ms).saturating_sub(uptime - then);
                now.plus_ms(left)
            }
            _ => self.ends_by_ms,
        }
    }
}

/// How long the host is up, in milliseconds, time asleep included (proc(5), `uptime`).
#[must_use]
pub fn uptime_ms() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<i64>().ok()?.checked_mul(1000)? + hundredths.parse::<i64>().ok()?.checked_mul(10)?)
}

/// What an agent writes to stop an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Why.
    pub reason: StopReason,
}

/// Bytes of the two streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes on standard output.
    pub stdout: u64,
    /// Bytes on standard error.
    pub stderr: u64,
}

impl Totals {
    /// Both together.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.stdout.saturating_add(self.stderr)
    }
}

/// How an action ended, as the runner writes it; the last thing it writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// Exit status of the program that decided it.
    pub exit_code: Option<i32>,
    /// The action's outputs.
    pub data: Value,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// When it ended.
    pub ended_at_ms: Timestamp,
    /// How much it wrote.
    pub written: Totals,
    /// How much of that is on disk.
    pub kept: Totals,
}

impl Reply {
    /// A reply without output.
    #[must_use]
    pub fn new(ending: &Ending, ended_at_ms: Timestamp) -> Self {
        Self {
            format: FORMAT_VERSION,
            code: ending.code.code.to_owned(),
            message: ending.message.clone(),
            exit_code: ending.exit_code,
            data: ending.data.clone(),
            duration_ms: ending.duration_ms,
            ended_at_ms,
            written: Totals::default(),
            kept: Totals::default(),
        }
    }

    /// The ending. A code that this program does not know, of a newer runner, counts as the plugin's failure.
    #[must_use]
    pub fn ending(&self) -> Ending {
        let code: &'static Code = Code::find(&self.code).unwrap_or(&code::FAILED);
        Ending {
            code,
            message: self.message.clone(),
            exit_code: self.exit_code,
            data: self.data.clone(),
            duration_ms: self.duration_ms,
            output_truncated_from: (self.kept != self.written).then(|| self.written.sum()),
        }
    }
}

/// What reading a file gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<T> {
    /// There is none.
    Missing,
    /// There is one, and it is not what it should be.
    Damaged,
    /// This.
    There(T),
}

impl<T> Found<T> {
    /// The value, if there is a good one.
    #[must_use]
    pub fn good(self) -> Option<T> {
        match self {
            Self::There(value) => Some(value),
            Self::Missing | Self::Damaged => None,
        }
    }
}

/// Held by whoever may write a reply: the runner, or an agent that found nobody else.
#[derive(Debug)]
pub struct RunnerLock {
    _file: File,
}

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionDirectory {
    path: PathBuf,
}

impl ActionDirectory {
    /// The directory of a request below the one of all.
    #[must_use]
    pub fn of(all: &Path, id: RequestId) -> Self {
        Self { path: all.join(id.to_string()) }
    }

    /// A directory by its path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes it, with the order and the lock file in it, on disk.
    ///
    /// # Errors
    /// When it is there already or cannot be made.
    pub fn create(all: &Path, order: &Order) -> io::Result<Self> {
        let directory = Self::of(all, order.request_id);
        DirBuilder::new().mode(0o700).create(&directory.path)?;
        for name in [LOCK, CURSOR] {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.path.join(name))?;
        }
        // Brings the directory to the disk with all three.
        directory.write(REQUEST, order)?;
        Ok(directory)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the output is.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.path.join(OUTPUT)
    }

    /// Where the numbers of reports are.
    #[must_use]
    pub fn cursor(&self) -> PathBuf {
        self.path.join(CURSOR)
    }

    /// Where the runner notes its programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.path.join(PROGRAMS)
    }

    /// For the action's own files.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path.join(WORK)
    }

    /// The order.
    #[must_use]
    pub fn order(&self) -> Found<Order> {
        let named_after_it =
            |order: &Order| self.path.file_name().is_some_and(|name| *name == *order.request_id.to_string());
        match self.read::<Order>(REQUEST) {
            Found::There(order) if order.format != FORMAT_VERSION || !named_after_it(&order) => Found::Damaged,
            found => found,
        }
    }

    /// Whether and since when the action runs or ran.
    #[must_use]
    pub fn begun(&self) -> Found<Begun> {
        self.read(BEGUN)
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn stop(&self) -> Found<Stop> {
        self.read(STOP)
    }

    /// Whether and how it ended.
    #[must_use]
    pub fn reply(&self) -> Found<Reply> {
        self.read(REPLY)
    }

    /// Whether a reply is there, without reading it.
    #[must_use]
    pub fn has_reply(&self) -> bool {
        self.path.join(REPLY).exists()
    }

    /// Says that the action begins.
    ///
    /// # Errors
    /// When it cannot be written. The action must not begin then.
    pub fn write_begun(&self, _lock: &RunnerLock, begun: &Begun) -> io::Result<()> {
        self.write(BEGUN, begun)
    }

    /// Tells the runner to stop.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_stop(&self, reason: &StopReason) -> io::Result<()> {
        self.write(STOP, &Stop { format: FORMAT_VERSION, reason: reason.clone() })
    }

    /// Says how it ended.
    ///
    /// # Errors
    /// When it cannot be written, for example because the disk is full.
    pub fn write_reply(&self, _lock: &RunnerLock, reply: &Reply) -> io::Result<()> {
        self.write(REPLY, reply)
    }

    /// Whether the audit log says that it has ended.
    #[must_use]
    pub fn is_end_noted(&self) -> bool {
        self.path.join(NOTED).exists()
    }

    /// Says that the audit log has its end. Not forced to disk, as the line itself is not.
    ///
    /// # Errors
    /// When it cannot be written; an agent that starts then notes the end once more.
    pub fn end_noted(&self) -> io::Result<()> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.path.join(NOTED)).map(drop)
    }

    /// Makes the directory of an action that has ended without one. Not forced to disk.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn write_result(&self, order: &Order, reply: &Reply) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.path)?;
        let put = |name: &str, bytes: Vec<u8>| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(name))?;
            file.write_all(&bytes)
        };
        put(LOCK, Vec::new())?;
        put(REPLY, serde_json::to_vec(reply)?)?;
        put(REQUEST, serde_json::to_vec(order)?)
    }

    /// Whether it was made for an action that had ended, by [`Self::write_result`].
    #[must_use]
    pub fn is_result(&self) -> bool {
        self.path.exists() && !self.cursor().exists()
    }

    /// Takes the lock if nobody has it. Opened for reading only, so that letting go of it does not look like
    /// the end of a runner.
    ///
    /// # Errors
    /// When there is no lock file, or it cannot be locked.
    pub fn try_lock(&self) -> io::Result<Option<RunnerLock>> {
        Self::locked(File::open(self.path.join(LOCK))?)
    }

    /// Takes the lock as the runner. Its end, whatever it is, closes the file, which the agent is told.
    ///
    /// # Errors
    /// When there is no lock file, or it cannot be locked.
    pub fn try_lock_as_runner(&self) -> io::Result<Option<RunnerLock>> {
        Self::locked(OpenOptions::new().write(true).open(self.path.join(LOCK))?)
    }

    fn locked(file: File) -> io::Result<Option<RunnerLock>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(RunnerLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Found<T> {
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_or(Found::Damaged, Found::There),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
            Err(_) => Found::Damaged,
        }
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        write_atomic(&self.path.join(name), 0o600, &serde_json::to_vec(value)?).map_err(Into::into)
    }

    /// Size of everything in it, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        size_of(&self.path)
    }

    /// Removes it with everything in it.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        // A link's target is not in here.
        Ok(meta) if meta.is_dir() => size_of(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
