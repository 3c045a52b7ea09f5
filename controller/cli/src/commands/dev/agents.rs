//! The agents of `muster dev`: started, listened to, started again when they die, stopped.
//!
//! Each agent has a task of its own, which holds the other end of the agent's standard input: an agent ends when that
//! ends, however this program does. What happens to it is told through one bounded channel.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use muster_daemon::{TaskKind, Tasks};
use muster_protocol::HostName;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What an agent finds in its environment. Nothing of ours: variables that begin with `MUSTERD_` would win over its file.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An agent that ran for longer did not fail at its start.
const STEADY: Duration = Duration::from_secs(60);

/// An agent that ends this often in a row is not started again.
const STARTS_MAX: u32 = 5;

/// Pause before the second start; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// What an agent may take to stop: the time of its configuration and some more.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// From this size on a log begins anew, and the old one is kept beside it.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Lines of a log that are shown when its agent has died.
const LOG_LINES: usize = 8;

/// Bytes of its end that are looked at for them.
const LOG_END_BYTES: u64 = 16 * 1024;

/// Events that may wait. There are few, and whoever waits for room loses nothing.
const EVENTS: usize = 64;

/// One agent to be run.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    /// Whose.
    pub(super) host: HostName,
    /// Its directory.
    pub(super) folder: PathBuf,
    /// Its program.
    pub(super) program: PathBuf,
}

/// Something that has happened to one of them.
#[derive(Debug)]
pub(super) struct Event {
    /// Its place in the list that was started.
    pub(super) index: usize,
    /// What.
    pub(super) what: What,
}

/// What happens to agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Its process runs.
    Started { pid: u32 },
    /// It has no connection yet, and says why.
    Trying { why: String },
    /// It is connected and takes commands.
    Connected,
    /// It has lost its connection, and tries on.
    Disconnected { why: String },
    /// Its process has ended by itself, or could not be started.
    Ended {
        /// As the system has it.
        how: String,
        /// The end of what it has written to its log since its last start.
        log: Vec<String>,
        /// When it is started again; `None` if it is not any more.
        again_in: Option<Duration>,
    },
}

/// The agents that run.
#[derive(Debug)]
pub(super) struct Agents {
    tasks: Tasks,
    events: mpsc::Receiver<Event>,
}

impl Agents {
    /// Starts all of them. Call it within a runtime.
    pub(super) fn start(agents: &[Agent]) -> Self {
        let tasks = Tasks::new();
        let (sender, events) = mpsc::channel(EVENTS);
        for (index, agent) in agents.iter().enumerate() {
            let tell = Tell { index, sender: sender.clone() };
            tasks.spawn(TaskKind::Worker, "agent", attend(agent.clone(), tell, tasks.stopping().clone()));
        }
        Self { tasks, events }
    }

    /// Waits for the next event. Never ends while agents run; safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Stops all of them and waits; those that do not stop are killed. Dropped before its end, it kills them.
    pub(super) async fn stop(mut self) {
        self.tasks.stop();
        // Nobody listens any more; a task that waits to tell something must not.
        self.events.close();
        self.tasks.shutdown(STOP_PATIENCE + Duration::from_secs(5)).await;
    }
}

/// Where a task tells what happens.
struct Tell {
    index: usize,
    sender: mpsc::Sender<Event>,
}

impl Tell {
    async fn tell(&self, what: What) {
        // Nobody listens while everything is stopped.
        drop(self.sender.send(Event { index: self.index, what }).await);
    }
}

/// Keeps one agent running until it is to stop.
async fn attend(agent: Agent, tell: Tell, stopping: CancellationToken) {
    let mut failures = 0;
    while !stopping.is_cancelled() {
        let started = Instant::now();
        let log_before = agent.log_length();
        let how = match run(&agent, &tell, &stopping).await {
            Ok(how) => how,
            Err(error) => format!("cannot be started: {error}"),
        };
        if stopping.is_cancelled() {
            return;
        }
        failures = if started.elapsed() >= STEADY { 1 } else { failures + 1 };
        let again_in = (failures < STARTS_MAX).then(|| PAUSE * 2_u32.pow(failures - 1));
        tell.tell(What::Ended { how, log: agent.log_since(log_before), again_in }).await;
        let Some(pause) = again_in else { return };
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs it once, until it ends or is to stop.
async fn run(agent: &Agent, tell: &Tell, stopping: &CancellationToken) -> io::Result<String> {
    let socket = agent.folder.join("notify");
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let notifications = UnixDatagram::bind(&socket)?;
    let mut child = agent.spawn(&socket)?;
    // Closed when this ends, and with that the agent is told to stop.
    let input = child.stdin.take();
    if let Some(pid) = child.id() {
        tell.tell(What::Started { pid }).await;
    }
    let mut buffer = [0; 4096];
    let mut connected = false;
    loop {
        tokio::select! {
            biased;
            status = child.wait() => return Ok(status?.to_string()),
            () = stopping.cancelled() => break,
            received = notifications.recv(&mut buffer) => {
                let length = received?;
                let notice = Notice::read(buffer.get(..length).unwrap_or_default());
                let what = match (notice.connected, connected) {
                    (Some(true), false) => What::Connected,
                    (Some(false), true) => What::Disconnected { why: notice.status },
                    (Some(false), false) => What::Trying { why: notice.status },
                    (Some(true), true) | (None, _) => continue,
                };
                connected = what == What::Connected;
                tell.tell(what).await;
            }
        }
    }
    drop(input);
    stop(&mut child).await
}

async fn stop(child: &mut Child) -> io::Result<String> {
    match tokio::time::timeout(STOP_PATIENCE, child.wait()).await {
        Ok(status) => Ok(status?.to_string()),
        Err(_) => {
            child.kill().await?;
            Ok("killed, since it did not stop".to_owned())
        }
    }
}

impl Agent {
    /// Where it says how it is.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// How long its log is.
    fn log_length(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |found| found.len())
    }

    /// The last lines of its log that came after it was so long.
    fn log_since(&self, length: u64) -> Vec<String> {
        log_end(&self.log(), length)
    }

    fn spawn(&self, notify_socket: &Path) -> io::Result<Child> {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
            fs::rename(&path, self.folder.join("log.1"))?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.folder.join("musterd.toml"))
            .arg("--until-input-ends")
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("NOTIFY_SOCKET", notify_socket)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The terminal's Ctrl-C is for us; they stop in our order.
            .process_group(0)
            .kill_on_drop(true);
        for name in ["HOME", "USER", "LOGNAME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.spawn()
    }
}

/// What an agent says to whoever has started it, sd_notify(3).
#[derive(Debug, Default, PartialEq, Eq)]
struct Notice {
    /// Whether it has a connection, if it says so. `READY=1` does not: that is also said by one that has waited in vain.
    connected: Option<bool>,
    /// In words.
    status: String,
}

impl Notice {
    fn read(datagram: &[u8]) -> Self {
        let text = String::from_utf8_lossy(datagram);
        let mut notice = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "X_MUSTER_CONNECTED" => notice.connected = Some(value == "1"),
                "STATUS" => notice.status = value.trim_start_matches("Not connected: ").to_owned(),
                _ => {}
            }
        }
        notice
    }
}

/// The last lines of a log, from an offset on.
fn log_end(path: &Path, from: u64) -> Vec<String> {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        // One that is shorter has begun anew.
        let from = if length < from { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_END_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_END_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_ready_need_not_be_connected() {
        let check = |datagram: &str, connected: Option<bool>, status: &str| {
            let expected = Notice { connected, status: status.to_owned() };
            assert_eq!(Notice::read(datagram.as_bytes()), expected, "{datagram}");
        };
        check("READY=1\n", None, "");
        check("WATCHDOG=1", None, "");
        check("STATUS=Connected to mq1\nX_MUSTER_CONNECTED=1\n", Some(true), "Connected to mq1");
        check("STATUS=Not connected: refused = no\nX_MUSTER_CONNECTED=0\n", Some(false), "refused = no");
    }

    #[test]
    fn only_what_a_log_got_since_a_start_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "of yesterday\n").unwrap();
        let before = fs::metadata(&path).unwrap().len();
        assert_eq!(log_end(&path, before), Vec::<String>::new());
        fs::write(&path, "of yesterday\n\nof today\nand more\n").unwrap();
        assert_eq!(log_end(&path, before), ["of today", "and more"]);
        let many: String = (0..20).map(|number| format!("line {number}\n")).collect();
        fs::write(&path, format!("of yesterday\n{many}")).unwrap();
        assert_eq!(log_end(&path, before).len(), LOG_LINES);
        // It was too long, and has begun anew.
        fs::write(&path, "anew\n").unwrap();
        assert_eq!(log_end(&path, before), ["anew"]);
        assert_eq!(log_end(&folder.path().join("none"), 0), Vec::<String>::new());
    }
}
