//! One run of a program, from its start to the end of the last process it started.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use muster_plugin_api::CancellationToken;
use muster_protocol::OutputStream;
use nix::sys::signal::Signal;
use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessSession};
use tokio::time::Instant;

use super::prepare::Preparation;
use super::pump::{Drain, Progress, feed};
use super::session::{self, KILL_PATIENCE, Session};
use super::strays::Strays;
use super::{End, Program, Run, SEARCH_PATH, is_executable};

/// How long to read on, when nothing comes, after the program and its session have ended. Only a
/// process that lives on elsewhere can still hold the pipe then, and it may hold it for ever.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);

/// Bytes that can wait in two pipes when their writer ends: pipe-max-size, unless root raised it.
const IN_PIPES_BYTES_MAX: u64 = 2 * 1024 * 1024;

impl Program {
    fn command(&self) -> io::Result<CommandWrap> {
        let preparation = Preparation::new(self.user.as_ref(), self.working_directory.as_deref())?;
        let mut command = CommandWrap::with_new(&self.path, |command| {
            command
                .args(&self.arguments)
                .env_clear()
                .env("PATH", SEARCH_PATH.join(":"))
                .env("LC_ALL", "C")
                .env("TZ", "UTC")
                .env("HOME", "/")
                .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            if let Some(user) = &self.user {
                command.env("HOME", &user.home).env("SHELL", &user.shell);
                command.env("USER", &user.name).env("LOGNAME", &user.name);
            }
            for (name, value) in &self.environment {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            preparation.install(command);
        });
        command.wrap(ProcessSession).wrap(KillOnDrop);
        Ok(command)
    }

    fn spawn(&self) -> io::Result<(Box<dyn ChildWrapper>, Session)> {
        refuse_text(&self.path)?;
        let mut command = self.command()?;
        let started = session::start(self.leave_behind, || command.spawn());
        started.map_err(|error| self.explain(error))
    }

    /// Runs it to its end, to its time limit, or until it is cancelled.
    pub async fn run(&self, cancel: &CancellationToken) -> Run {
        let started = Instant::now();
        let mut run = Run::not_started();
        if !cancel.is_cancelled() {
            match self.spawn() {
                Ok((child, session)) => self.accompany(child, session, &mut run, cancel, started).await,
                Err(error) => run.end = End::StartFailed(error),
            }
        }
        run.duration = started.elapsed();
        run
    }

    async fn accompany(
        &self,
        mut child: Box<dyn ChildWrapper>,
        mut session: Session,
        run: &mut Run,
        cancel: &CancellationToken,
        started: Instant,
    ) {
        let drain = Drain {
            sink: self.sink.as_ref(),
            kept_bytes_max: self.output_bytes_max,
            give_up: CancellationToken::new(),
            progress: Progress::default(),
        };
        let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let pumps = async {
            tokio::join!(
                drain.pump(stdout, OutputStream::Stdout, &mut run.stdout),
                drain.pump(stderr, OutputStream::Stderr, &mut run.stderr),
            )
        };
        tokio::pin!(pumps);
        let mut pumped = false;

        let mut strays = Strays::default();
        let (stop, status) = {
            let feeding = feed(stdin, self.input.as_deref().unwrap_or_default());
            tokio::pin!(feeding);
            let mut fed = false;
            // The program alone. The wrapper around it would wait for everybody in its group, and where orphans
            // come to us that is until the last of them has ended: `sleep 1000 &` would run for its 1,000 s. Who
            // is left is the sweep's business.
            let mut wait = child.inner_mut().wait();
            let mut stop: Option<End> = None;
            let mut killed = false;
            let mut note = || strays = self.finish.map(|_| session.strays()).unwrap_or_default();
            let mut next_step = started + self.time_limit;
            loop {
                tokio::select! {
                    status = &mut wait => break (stop, Some(status)),
                    _ = &mut pumps, if !pumped => pumped = true,
                    () = &mut feeding, if !fed => fed = true,
                    () = cancel.cancelled(), if stop.is_none() => {
                        stop = Some(End::Cancelled);
                        note();
                        session.signal(Signal::SIGTERM);
                        next_step = Instant::now() + self.grace;
                    }
                    () = tokio::time::sleep_until(next_step) => match (&stop, killed) {
                        (None, _) => {
                            stop = Some(End::TimedOut);
                            note();
                            session.signal(Signal::SIGTERM);
                            next_step = Instant::now() + self.grace;
                        }
                        (Some(_), false) => {
                            killed = true;
                            session.signal(Signal::SIGKILL);
                            next_step = Instant::now() + KILL_PATIENCE;
                        }
                        (Some(_), true) => break (stop, None),
                    },
                }
            }
        };

        {
            let sweep = async {
                let left_behind = session.sweep(self.grace, stop.is_some(), status.is_some()).await;
                (left_behind, strays.end(self.finish.unwrap_or_default(), self.grace).await)
            };
            tokio::pin!(sweep);
            (run.left_behind, run.stopped_elsewhere) = loop {
                tokio::select! {
                    counts = &mut sweep => break counts,
                    _ = &mut pumps, if !pumped => pumped = true,
                }
            };
        }
        if !pumped {
            // A stopped program's watchers get a moment for its last words, others the time that is left.
            let deadline = if stop.is_some() { Instant::now() } else { started + self.time_limit };
            let over = async {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = cancel.cancelled(), if stop.is_none() => {}
                }
                tokio::time::sleep(KILL_PATIENCE).await;
                drain.give_up.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = &mut pumps => {}
                () = drain.progress.quiet(DRAIN_PATIENCE, IN_PIPES_BYTES_MAX) => run.output_held_open = true,
                () = over => {}
            }
        }
        run.unstreamed_bytes = drain.progress.unstreamed_bytes();
        run.core_dumped = matches!(&status, Some(Ok(status)) if status.core_dumped());
        run.end = end(stop, status);
    }

    /// Says more about a program that did not start than the kernel does.
    fn explain(&self, error: io::Error) -> io::Error {
        let say = |what: String| io::Error::new(error.kind(), what);
        if let Some(directory) = &self.working_directory
            && !directory.is_dir()
        {
            return say(format!("the working directory `{}` is not a directory", directory.display()));
        }
        match error.kind() {
            io::ErrorKind::PermissionDenied if self.path.is_dir() => say("it is a directory".to_owned()),
            io::ErrorKind::PermissionDenied if self.path.is_file() && !is_executable(&self.path) => {
                say("it is not executable".to_owned())
            }
            io::ErrorKind::PermissionDenied => match &self.user {
                Some(user) => {
                    say(format!("user `{}` may not (it, its interpreter or the directory): {error}", user.name))
                }
                None => error,
            },
            io::ErrorKind::NotFound if self.path.is_file() => match interpreter(&self.path) {
                Some(interpreter) => say(format!("its interpreter `{}` does not exist", interpreter.display())),
                None => say("its loader does not exist: it is a program for another system".to_owned()),
            },
            io::ErrorKind::NotFound => say("it does not exist".to_owned()),
            _ => error,
        }
    }
}

fn end(stop: Option<End>, status: Option<io::Result<ExitStatus>>) -> End {
    match (stop, status) {
        (Some(stop), _) => stop,
        (None, Some(Ok(status))) => End::from_status(status),
        (None, Some(Err(error))) => End::StartFailed(error),
        // The loop gives up on a process only after it was told to stop.
        (None, None) => End::TimedOut,
    }
}

/// The C library gives a file that the kernel cannot run to `/bin/sh`, line by line. Nobody asked for that.
fn refuse_text(path: &Path) -> io::Result<()> {
    // What cannot be read cannot be run either, or is found out by running it.
    let Some(start) = start_of(path) else { return Ok(()) };
    if start.starts_with(b"\x7fELF") || start.starts_with(b"#!") {
        return Ok(());
    }
    let why = "it is neither a program of this system nor a script whose first line names its interpreter";
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The first bytes of a plain file that may be executed.
fn start_of(path: &Path) -> Option<Vec<u8>> {
    if !is_executable(path) {
        return None;
    }
    let mut start = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    Some(start)
}

/// The program of a script's first line.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let start = start_of(script)?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.split_ascii_whitespace().next().map(PathBuf::from)
}
