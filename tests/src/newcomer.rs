//! Somebody with the two programs, a home of his own and nothing else: no root, no installation, no configuration.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;
use tempfile::TempDir;

use crate::cleanup::{KillAtExit, watched_directory};
use crate::programs::{PATIENCE, program};

/// `nobody`, on every Linux: a user who owns nothing.
const NOBODY: u32 = 65_534;

/// A user with a home. Where the tests run as root it is not root.
#[derive(Debug)]
pub struct Newcomer {
    home: TempDir,
    user: Option<u32>,
}

impl Newcomer {
    /// Gives somebody the two programs.
    ///
    /// # Errors
    /// They are not built, or cannot be put into a home.
    pub fn new() -> Result<Self> {
        let home = watched_directory(|| tempfile::Builder::new().prefix("muster-nc-").tempdir())?;
        let bin = home.path().join("bin");
        fs::create_dir(&bin)?;
        for name in ["muster", "musterd"] {
            let (built, own) = (program(name)?, bin.join(name));
            // The folder of what is built may be closed to others.
            if fs::hard_link(&built, &own).is_err() {
                fs::copy(&built, &own).with_context(|| format!("copy `{}`", built.display()))?;
                fs::set_permissions(&own, fs::Permissions::from_mode(0o755))?;
            }
        }
        let user = Uid::effective().is_root().then_some(NOBODY);
        chown(home.path(), user, user).context("give a home away")?;
        Ok(Self { home, user })
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The number of the user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.user.unwrap_or_else(|| Uid::effective().as_raw())
    }

    /// What `muster dev` keeps.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.home().join(".local/state/muster/dev")
    }

    /// `muster` with these words, as he types it.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.home().join("bin/muster"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// The same to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        self.command(words).output().context("start `muster`")
    }

    /// Starts `muster dev --jsonl` with further words, and waits until everything runs.
    ///
    /// # Errors
    /// It ends before, or is not ready in time; with what it said.
    pub fn dev(&self, words: &[&str]) -> Result<Dev> {
        let all: Vec<&str> = ["dev", "--jsonl"].iter().chain(words).copied().collect();
        let mut command = self.command(&all);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("start `muster dev`")?;
        let watch = KillAtExit::new(child.id()).context("watch over `muster dev`")?;
        let (sender, lines) = channel();
        let out = child.stdout.take().context("standard output was asked for")?;
        let mut err = child.stderr.take().context("standard error was asked for")?;
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut dev = Dev { child, watch, lines, errors: Some(errors), ready: Value::Null };
        dev.ready = dev.next("ready")?;
        Ok(dev)
    }
}

/// A running `muster dev`. Killed when dropped.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    watch: KillAtExit,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
    /// What it said when everything ran.
    pub ready: Value,
}

impl Dev {
    /// Waits for the next line of this kind; others before it are passed over.
    ///
    /// # Errors
    /// It ends, or the line does not come in time; with what was said on standard error.
    pub fn next(&mut self, kind: &str) -> Result<Value> {
        let until = Instant::now() + PATIENCE * 2;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let value: Value = serde_json::from_str(&line).with_context(|| format!("read `{line}`"))?;
                    if value["kind"] == kind {
                        return Ok(value);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("no `{kind}` came\n{}", self.kill()),
                Err(RecvTimeoutError::Disconnected) => bail!("it ended instead of `{kind}`\n{}", self.kill()),
            }
        }
    }

    /// The processes of its agents.
    #[must_use]
    pub fn agents(&self) -> Vec<u32> {
        let agents = self.ready["agents"].as_array().into_iter().flatten();
        agents.filter_map(|agent| u32::try_from(agent["pid"].as_u64()?).ok()).collect()
    }

    /// Ctrl-C, and waits for the end. Gives also what it said on standard error.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub fn interrupt(&mut self) -> Result<(ExitStatus, String)> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT).context("interrupt `muster dev`")?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                self.watch.call_off();
                return Ok((status, self.said()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("`muster dev` did not stop within {} s\n{}", PATIENCE.as_secs(), self.kill())
    }

    /// Kills it, as a user does who does not know better, and gives what it said on standard error.
    pub fn kill(&mut self) -> String {
        self.watch.call_off();
        self.child.kill().ok();
        self.child.wait().ok();
        self.said()
    }

    fn said(&mut self) -> String {
        self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.kill();
    }
}
