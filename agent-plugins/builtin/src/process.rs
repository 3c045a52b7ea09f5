//! Runs a program on the host and says how it ended.
//!
//! The one place where plugins start processes. A program gets an argument vector, never a shell's
//! text; an environment of its own; no input; and a session of its own, so that everything it
//! started can be found and stopped. Its output is kept up to a limit. Whatever happens, the
//! future ends at most [`Program::grace`] and a few seconds after the time limit, and when it is
//! dropped instead, the session dies with it.

mod session;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use muster_plugin_api::{ActionFailure, CancellationToken};
use muster_protocol::code;
use nix::sys::signal::Signal;
use process_wrap::tokio::{CommandWrap, KillOnDrop, ProcessSession};
use session::Session;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// Where programs are looked for, and the `PATH` they get. Not the agent's own: who can set the
/// agent's environment must not choose its programs.
pub const SEARCH_PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Output that is kept of each stream, in bytes, unless the caller says otherwise.
pub const OUTPUT_BYTES_DEFAULT: usize = 256 * 1024;

/// Time between the polite signal and the one that cannot be ignored. Package managers and
/// service managers end within a second; a disk that hangs does not listen anyway.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(2);

/// How long to wait for the end of a process after the signal that cannot be ignored: only one
/// that sits in the kernel, on a dead network disk for example, survives that.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// How long to read on after the program and its session have ended. Only a daemon that moved to
/// its own session can still hold the pipe then, and it may hold it for ever.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);

/// A program to run.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    time_limit: Duration,
    grace: Duration,
    output_bytes_max: usize,
}

/// What became of a program.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output.
    pub stdout: Captured,
    /// What it wrote to standard error.
    pub stderr: Captured,
    /// How long it took, the clean-up included.
    pub duration: Duration,
    /// How many processes it left behind in its session. They were stopped.
    pub left_behind: usize,
    /// Whether a process outside the session still held the output open. It was left alone.
    pub output_held_open: bool,
}

/// Every end that a program can have.
#[derive(Debug)]
pub enum End {
    /// It never ran.
    StartFailed(io::Error),
    /// It ended by itself with this code.
    Exited(i32),
    /// A signal from elsewhere ended it.
    Signalled(i32),
    /// Its time was over; it was stopped.
    TimedOut,
    /// Somebody cancelled it; it was stopped.
    Cancelled,
}

/// Output that was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub bytes: Vec<u8>,
    /// How many bytes there were in all.
    pub total_bytes: u64,
}

impl Captured {
    /// Whether some of it was not kept.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.total_bytes > self.bytes.len() as u64
    }

    /// The kept bytes as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The first line that is not blank.
    #[must_use]
    pub fn first_line(&self) -> Option<String> {
        self.text().lines().map(str::trim).find(|line| !line.is_empty()).map(|line| line.chars().take(400).collect())
    }

    fn push(&mut self, bytes: &[u8], max: usize) {
        let room = max.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.total_bytes += bytes.len() as u64;
    }
}

/// Looks for an executable file of that name in some directories.
#[must_use]
pub fn find_program(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(name)).find(|path| is_executable(path))
}

/// Whether the path leads to a file that somebody may execute.
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

impl Program {
    /// A program by its path, without arguments, with a time limit.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, time_limit: Duration) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            time_limit,
            grace: GRACE_DEFAULT,
            output_bytes_max: OUTPUT_BYTES_DEFAULT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment, which otherwise has `PATH`, `LC_ALL=C`, `TZ=UTC` and `HOME=/`.
    #[must_use]
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the time between the polite signal and the one that cannot be ignored.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Sets how much of each stream is kept, in bytes.
    #[must_use]
    pub fn output_bytes_max(self, output_bytes_max: usize) -> Self {
        Self { output_bytes_max, ..self }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    fn command(&self) -> CommandWrap {
        let mut command = CommandWrap::with_new(&self.path, |command| {
            command
                .args(&self.arguments)
                .env_clear()
                .env("PATH", SEARCH_PATH.join(":"))
                .env("LC_ALL", "C")
                .env("TZ", "UTC")
                .env("HOME", "/")
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        });
        command.wrap(ProcessSession).wrap(KillOnDrop);
        command
    }

    /// Runs it to its end, to its time limit, or until it is cancelled.
    pub async fn run(&self, cancel: &CancellationToken) -> Run {
        let started = Instant::now();
        let mut run = Run {
            end: End::Cancelled,
            stdout: Captured::default(),
            stderr: Captured::default(),
            duration: Duration::ZERO,
            left_behind: 0,
            output_held_open: false,
        };
        if !cancel.is_cancelled() {
            self.run_into(&mut run, cancel, started).await;
        }
        run.duration = started.elapsed();
        run
    }

    async fn run_into(&self, run: &mut Run, cancel: &CancellationToken, started: Instant) {
        let mut child = match self.command().spawn() {
            Ok(child) => child,
            Err(error) => {
                run.end = End::StartFailed(error);
                return;
            }
        };
        // Without an id the child was reaped already, which only `wait` below does.
        let mut session = Session::new(child.id());
        let mut stdout = Pipe::new(child.stdout().take());
        let mut stderr = Pipe::new(child.stderr().take());
        let mut wait = child.wait();

        let mut stop: Option<End> = None;
        let mut killed = false;
        let mut next_step = started + self.time_limit;
        let status = loop {
            tokio::select! {
                status = &mut wait => break Some(status),
                () = stdout.read(&mut run.stdout, self.output_bytes_max) => {}
                () = stderr.read(&mut run.stderr, self.output_bytes_max) => {}
                () = cancel.cancelled(), if stop.is_none() => {
                    stop = Some(End::Cancelled);
                    session.signal(Signal::SIGTERM);
                    next_step = Instant::now() + self.grace;
                }
                () = tokio::time::sleep_until(next_step) => match (&stop, killed) {
                    (None, _) => {
                        stop = Some(End::TimedOut);
                        session.signal(Signal::SIGTERM);
                        next_step = Instant::now() + self.grace;
                    }
                    (Some(_), false) => {
                        killed = true;
                        session.signal(Signal::SIGKILL);
                        next_step = Instant::now() + KILL_PATIENCE;
                    }
                    (Some(_), true) => break None,
                },
            }
        };
        drop(wait);
        run.left_behind = session.sweep(self.grace).await;
        let drained = async {
            while stdout.is_open() || stderr.is_open() {
                tokio::select! {
                    () = stdout.read(&mut run.stdout, self.output_bytes_max) => {}
                    () = stderr.read(&mut run.stderr, self.output_bytes_max) => {}
                }
            }
        };
        run.output_held_open = tokio::time::timeout(DRAIN_PATIENCE, drained).await.is_err();
        run.end = match (stop, status) {
            (Some(stop), _) => stop,
            (None, Some(Ok(status))) => End::from_status(status),
            (None, Some(Err(error))) => End::StartFailed(error),
            // The loop gives up on a process only after it was told to stop.
            (None, None) => End::TimedOut,
        };
    }
}

impl End {
    fn from_status(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Signalled(signal.unwrap_or_default()),
        }
    }
}

impl Run {
    /// The exit code and both outputs of a program that ended by itself, however it ended.
    ///
    /// # Errors
    /// When it did not start, was stopped or was killed; or wrote more than was kept, so that what
    /// is there must not be taken for the whole.
    pub fn exit_code(&self, program: &Program) -> Result<i32, ActionFailure> {
        let name = program.name();
        match &self.end {
            End::Exited(_) if self.stdout.is_truncated() => Err(ActionFailure::failed(format!(
                "`{name}` wrote {} bytes, more than the {} that are kept",
                self.stdout.total_bytes,
                self.stdout.bytes.len()
            ))),
            End::Exited(code) => Ok(*code),
            End::StartFailed(error) => {
                Err(ActionFailure::new(&code::START_FAILED, format!("`{name}` could not be started: {error}")))
            }
            End::Signalled(number) => {
                let signal = Signal::try_from(*number).map_or_else(|_| number.to_string(), |signal| signal.to_string());
                Err(ActionFailure::new(&code::SIGNALLED, format!("`{name}` was ended by signal {signal}")))
            }
            End::TimedOut => {
                let limit = program.time_limit;
                Err(ActionFailure::new(&code::TIMED_OUT, format!("`{name}` did not end within {limit:?}")))
            }
            End::Cancelled => Err(ActionFailure::new(&code::CANCELLED, format!("`{name}` was stopped"))),
        }
    }

    /// The failure of a program that ended with a code that means failure: its first line of error.
    #[must_use]
    pub fn failure(&self, program: &Program, exit_code: i32) -> ActionFailure {
        let name = program.name();
        let said = self.stderr.first_line().or_else(|| self.stdout.first_line());
        let message = match said {
            Some(line) => format!("`{name}` ended with exit code {exit_code}: {line}"),
            None => format!("`{name}` ended with exit code {exit_code} and said nothing"),
        };
        ActionFailure::failed(message).with_exit_code(exit_code)
    }
}

/// One end of a program's output. Reading a closed one never ends, so that a `select!` ignores it.
struct Pipe<R> {
    reader: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: Option<R>) -> Self {
        Self { reader, buffer: vec![0; 16 * 1024] }
    }

    fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// Cancel safe, since `read` is.
    async fn read(&mut self, captured: &mut Captured, max: usize) {
        let Some(reader) = &mut self.reader else { return std::future::pending().await };
        match reader.read(&mut self.buffer).await {
            Ok(0) | Err(_) => self.reader = None,
            Ok(count) => captured.push(&self.buffer[..count], max),
        }
    }
}
