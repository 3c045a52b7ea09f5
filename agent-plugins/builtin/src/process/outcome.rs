//! What became of a program: its end, its output, and what it left behind.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use muster_plugin_api::ActionFailure;
use muster_protocol::code;
use nix::sys::signal::Signal;

use super::Program;

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
    /// How many processes outlived it in its session (under a [subreaper](super::become_subreaper) also
    /// outside of it). [`LeaveBehind`](super::LeaveBehind) decides whether they were stopped.
    pub left_behind: usize,
    /// How many programs in sessions of their own were stopped with it; see [`Program::finish`].
    pub stopped_elsewhere: usize,
    /// Whether a process that lives on still held the output open. What it writes from now on is lost.
    pub output_held_open: bool,
    /// Bytes of output that the sink had not taken when the time was over. They are counted in the
    /// totals and kept as far as anything is, but nobody who watches saw them.
    pub unstreamed_bytes: u64,
    /// Whether the kernel wrote an image of its memory, which only a core pattern of the host's own can make it do.
    pub core_dumped: bool,
}

/// Every end that a program can have.
#[derive(Debug)]
pub enum End {
    /// It never ran. The error says what was in the way.
    StartFailed(io::Error),
    /// It ended by itself with this code.
    Exited(i32),
    /// A signal from elsewhere ended it, or one that it brought upon itself.
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

    pub(super) fn push(&mut self, bytes: &[u8], max: usize) {
        let room = max.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.total_bytes += bytes.len() as u64;
    }
}

impl End {
    pub(super) fn from_status(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Signalled(signal.unwrap_or_default()),
        }
    }
}

/// The name of a signal, such as `SIGKILL`; its number if it has none.
#[must_use]
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string())
}

impl Run {
    pub(super) fn not_started() -> Self {
        Self {
            end: End::Cancelled,
            stdout: Captured::default(),
            stderr: Captured::default(),
            duration: Duration::ZERO,
            left_behind: 0,
            stopped_elsewhere: 0,
            output_held_open: false,
            unstreamed_bytes: 0,
            core_dumped: false,
        }
    }

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
                let signal = signal_name(*number);
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
