//! Runs a program on the host and says how it ended.
//!
//! The one place where plugins start processes. A program gets an argument vector, never a shell's
//! text; an environment of its own; the input it is given or none; no open files of ours; and a
//! session of its own, so that everything it started can be found and stopped. Its output is kept
//! up to a limit and, where somebody watches, handed over as it comes.
//!
//! # The data and how it flows
//!
//! [`Program`] says what to run, how long, and as whom ([`EffectiveUser`]). [`Program::run`] starts
//! it and gives a [`Run`]: the [`End`], the [`Captured`] output, and what was left behind. Output
//! goes through a pump per stream into the [`OutputSink`] of the action; a sink that is full makes
//! the program wait in its next write, while the time limit and cancelling work on.
//!
//! # Invariants
//!
//! - Whatever happens, the future ends at most [`Program::grace`] and a few seconds after the time
//!   limit or the cancel. When it is dropped instead, the session dies with it.
//! - The polite signal, and the one that cannot be ignored after the grace, go to everybody in the
//!   session, and in a process of an action's own ([`become_subreaper`]) also to those who left it.
//! - A program runs as the user it was meant for, with that user's groups, or it does not start.
//! - Every end a process can have is an [`End`] of its own; a number is never made up.

mod detach;
pub(crate) mod fuzzing;
mod outcome;
mod prepare;
mod pump;
mod record;
mod run;
mod session;
mod strays;
mod user;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugin_api::OutputSink;

pub use detach::{Detached, start_detached};
pub use outcome::{Captured, End, Run, signal_name};
pub use record::{ProcessStart, boot_id, end_recorded, record_programs};
pub use session::become_subreaper;
pub use user::EffectiveUser;

/// Where programs are looked for, and the `PATH` they get. Not the agent's own: who can set the
/// agent's environment must not choose its programs.
pub const SEARCH_PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Output that is kept of each stream, in bytes, unless the caller says otherwise.
pub const OUTPUT_BYTES_DEFAULT: usize = 256 * 1024;

/// Time between the polite signal and the one that cannot be ignored. Package managers and
/// service managers end within a second; a disk that hangs does not listen anyway.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(2);

/// What becomes of processes that a program leaves behind when it ends by itself. A program that is
/// stopped always takes its session with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaveBehind {
    /// They are stopped, politely first, and counted.
    #[default]
    Stop,
    /// They live on and are counted: for package scripts and init scripts, which start daemons.
    Keep,
}

/// A program to run.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    input: Option<Vec<u8>>,
    working_directory: Option<PathBuf>,
    user: Option<EffectiveUser>,
    sink: Option<OutputSink>,
    leave_behind: LeaveBehind,
    finish: Option<Duration>,
    time_limit: Duration,
    grace: Duration,
    output_bytes_max: usize,
}

/// Without input and values of the environment, which may hold secrets.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("path", &self.path)
            .field("arguments", &self.arguments)
            .field("user", &self.user.as_ref().map(|user| &user.name))
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
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
            input: None,
            working_directory: None,
            user: None,
            sink: None,
            leave_behind: LeaveBehind::Stop,
            finish: None,
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

    /// Sets a variable of the environment, which otherwise has `PATH`, `LC_ALL=C`, `TZ=UTC` and
    /// `HOME=/`; with [`Program::user`] also `USER`, `LOGNAME`, `SHELL` and the user's own `HOME`.
    #[must_use]
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable out of the environment, also one that is there otherwise.
    #[must_use]
    pub fn without_variable(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), None));
        self
    }

    /// Gives it these bytes on standard input, which is empty otherwise. A program that ends without reading
    /// them is no failure.
    #[must_use]
    pub fn stdin(self, input: impl Into<Vec<u8>>) -> Self {
        Self { input: Some(input.into()), ..self }
    }

    /// Starts it in this directory, which the user must be able to enter. Otherwise it is the user's
    /// home, or `/` where that cannot be entered or no user is set.
    #[must_use]
    pub fn working_directory(self, directory: impl Into<PathBuf>) -> Self {
        Self { working_directory: Some(directory.into()), ..self }
    }

    /// Runs it as this user, with all their groups and their environment. Only root can do that for
    /// others; otherwise it does not start.
    #[must_use]
    pub fn user(self, user: EffectiveUser) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Hands all output to the sink as it comes, whatever is kept of it. A sink that is full makes the
    /// program wait.
    #[must_use]
    pub fn stream_to(self, sink: OutputSink) -> Self {
        Self { sink: Some(sink), ..self }
    }

    /// Sets what becomes of processes that outlive it.
    #[must_use]
    pub fn leave_behind(self, leave_behind: LeaveBehind) -> Self {
        Self { leave_behind, ..self }
    }

    /// When it is stopped, also stops the programs that it runs in sessions of their own at that moment, after
    /// giving them this long to end by themselves. Otherwise they are out of reach, as daemons are.
    #[must_use]
    pub fn finish(self, finish: Duration) -> Self {
        Self { finish: Some(finish), ..self }
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
}
