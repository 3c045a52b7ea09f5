//! Starts the real programs: `musterd` as an agent with a directory of its own, `muster` as a user
//! with a context of its own.
//!
//! Readiness is what the agent itself tells through systemd's notification protocol
//! (`sd_notify(3)`), so nothing here waits for a time that "should be enough".

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use muster_protocol::HostName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};

use crate::cleanup::KillAtExit;

/// How long a program may take to come up or to go down before a test gives up. Generous: a loaded
/// machine with two cores starts a broker and many agents at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One of our programs, built by `cargo build --workspace --bins` (which `cargo xtask` does first).
///
/// # Errors
/// When it is not beside the running program, with the command that builds it.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("find the running program")?;
    let mut folder = here.parent().context("the running program has no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("the test program has no target folder")?;
    }
    let path = folder.join(name);
    if !path.is_file() {
        bail!("`{}` is not built; run `cargo build --workspace --bins`", path.display());
    }
    Ok(path)
}

/// How to reach and trust a broker.
#[derive(Debug, Clone)]
pub struct Access {
    /// `amqps://HOST:PORT/VHOST`, one or several.
    pub urls: Vec<String>,
    /// The CA's certificate, PEM.
    pub ca: PathBuf,
    /// The revocation list, PEM.
    pub crl: Option<PathBuf>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Party {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What makes one agent different from another.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The host's name, as in the certificate.
    pub host: HostName,
    /// Facts of the site, written to `facts.d/site.json`.
    pub facts: Map<String, Value>,
    /// Configuration classes.
    pub classes: Vec<String>,
    /// The policy file's text.
    pub policy: String,
    /// Lines added to the configuration file, at its end.
    pub extra_config: String,
}

/// Read-only actions for everybody with a certificate; everything for the group `admins`.
pub const STARTER_POLICY: &str = include_str!("../../dist/etc/policy.toml");

impl AgentSettings {
    /// An agent with the starter policy and no facts of its own.
    #[must_use]
    pub fn new(host: HostName) -> Self {
        Self {
            host,
            facts: Map::new(),
            classes: Vec::new(),
            policy: STARTER_POLICY.to_owned(),
            extra_config: String::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a configuration class.
    #[must_use]
    pub fn class(mut self, name: &str) -> Self {
        self.classes.push(name.to_owned());
        self
    }
}

/// A running `musterd`. Stopped when dropped.
#[derive(Debug)]
pub struct AgentProcess {
    host: HostName,
    folder: PathBuf,
    child: Child,
    watch: KillAtExit,
    notifications: UnixDatagram,
}

impl AgentProcess {
    /// Writes the agent's files below `folder` and starts it. Does not wait until it is connected.
    ///
    /// # Errors
    /// When a file cannot be written or the program cannot be started.
    pub fn start(settings: &AgentSettings, access: &Access, party: &Party, folder: &Path) -> Result<Self> {
        Self::prepare(settings, access, party, folder)?;
        Self::start_in(settings.host.clone(), folder)
    }

    /// Writes the agent's files below `folder` without starting it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn prepare(settings: &AgentSettings, access: &Access, party: &Party, folder: &Path) -> Result<()> {
        let facts = folder.join("facts.d");
        fs::create_dir_all(&facts).with_context(|| format!("create `{}`", facts.display()))?;
        fs::create_dir_all(folder.join("musterd.d"))?;
        fs::create_dir_all(folder.join("state"))?;
        private_file(&facts.join("site.json"), &serde_json::to_string_pretty(&settings.facts)?)?;
        private_file(&folder.join("classes.txt"), &settings.classes.join("\n"))?;
        private_file(&folder.join("policy.toml"), &settings.policy)?;
        private_file(&folder.join("musterd.toml"), &configuration(settings, access, party, folder))
    }

    /// Starts an agent on files that are already there, as after a restart of the host.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_in(host: HostName, folder: &Path) -> Result<Self> {
        Self::start_under(host, folder, &[])
    }

    /// The same through a program that becomes another one, such as `ip netns exec NAME`.
    ///
    /// # Errors
    /// As [`Self::start_in`].
    pub fn start_under(host: HostName, folder: &Path, wrapper: &[&str]) -> Result<Self> {
        Self::spawn(host, folder, wrapper, &program("musterd")?, &[])
    }

    /// The same with another copy of the program, and with these variables in its environment.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_as(host: HostName, folder: &Path, program: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        Self::spawn(host, folder, &[], program, environment)
    }

    fn spawn(
        host: HostName,
        folder: &Path,
        wrapper: &[&str],
        program: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let socket = folder.join("notify");
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let notifications = UnixDatagram::bind(&socket).with_context(|| format!("bind `{}`", socket.display()))?;
        notifications.set_read_timeout(Some(Duration::from_millis(200)))?;
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("log"))?;
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let child = command
            .arg("--config")
            .arg(folder.join("musterd.toml"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NOTIFY_SOCKET", &socket)
            .envs(environment.iter().copied())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start `musterd`")?;
        let watch = KillAtExit::new(child.id()).context("watch over `musterd`")?;
        Ok(Self { host, folder: folder.to_path_buf(), child, watch, notifications })
    }

    /// Waits until the agent says that it is connected and listens.
    ///
    /// # Errors
    /// When it ends before, or does not say so in [`PATIENCE`]; with the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut buffer = [0u8; 4096];
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.ended()? {
                bail!("the agent of `{}` ended with {status}\n{}", self.host, self.log_tail());
            }
            if let Ok(length) = self.notifications.recv(&mut buffer)
                && buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
            {
                return Ok(());
            }
        }
        bail!("the agent of `{}` was not ready within {} s\n{}", self.host, PATIENCE.as_secs(), self.log_tail())
    }

    /// How it ended, if it did by itself.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().context("ask for the agent")?;
        if status.is_some() {
            self.watch.call_off();
        }
        Ok(status)
    }

    /// The host's name.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its audit log.
    #[must_use]
    pub fn audit(&self) -> String {
        fs::read_to_string(self.folder.join("state/audit.jsonl")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id fits")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("signal the agent of `{}`", self.host))
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// When it does not stop in [`PATIENCE`]; it is killed then.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.watch.call_off();
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()?;
        bail!("the agent of `{}` did not stop within {} s\n{}", self.host, PATIENCE.as_secs(), self.log_tail())
    }

    /// Kills it without a warning, as a crash would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.watch.call_off();
        self.child.kill().ok();
        self.child.wait().context("wait for the agent")?;
        Ok(())
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if self.stop().is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn configuration(settings: &AgentSettings, access: &Access, party: &Party, folder: &Path) -> String {
    let text = |value: &dyn std::fmt::Display| Value::from(value.to_string()).to_string();
    let path = |path: &Path| text(&path.display());
    let urls: Vec<String> = access.urls.iter().map(|url| text(url)).collect();
    let crl = access.crl.as_deref().map(|crl| format!("crl = {}\n", path(crl))).unwrap_or_default();
    format!(
        "host = {host}\nstate_dir = {state}\n\n[broker]\nurls = [{urls}]\n\n[pki]\nca = {ca}\n{crl}certificate = {certificate}\nkey = {key}\n\n\
         [facts]\ndirectory = {facts}\nclasses_file = {classes}\n\n[policy]\nfile = {policy}\n{extra}",
        host = text(&settings.host),
        state = path(&folder.join("state")),
        urls = urls.join(", "),
        ca = path(&access.ca),
        certificate = path(&party.certificate),
        key = path(&party.key),
        facts = path(&folder.join("facts.d")),
        classes = path(&folder.join("classes.txt")),
        policy = path(&folder.join("policy.toml")),
        extra = settings.extra_config,
    )
}

fn private_file(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write `{}`", path.display()))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// A user with the command line: a home, a configuration with one context, nothing inherited.
#[derive(Debug, Clone)]
pub struct Operator {
    home: PathBuf,
}

impl Operator {
    /// Writes a configuration with the context `name` below `home`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(home: &Path, name: &str, access: &Access, party: &Party) -> Result<Self> {
        let text = |value: &Path| Value::from(value.display().to_string()).to_string();
        let urls: Vec<String> = access.urls.iter().map(|url| Value::from(url.as_str()).to_string()).collect();
        let crl = access.crl.as_deref().map(|crl| format!("crl = {}\n", text(crl))).unwrap_or_default();
        let config = format!(
            "current = \"{name}\"\n\n[context.{name}]\nbroker = [{}]\ncollective = \"main\"\nca = {}\n{crl}certificate = {}\nkey = {}\n",
            urls.join(", "),
            text(&access.ca),
            text(&party.certificate),
            text(&party.key),
        );
        let operator = Self { home: home.to_path_buf() };
        let path = operator.config();
        fs::create_dir_all(path.parent().context("a configuration has a folder")?)?;
        private_file(&path, &config)?;
        Ok(operator)
    }

    /// Where everything of theirs is.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home.join(".config/muster/config.toml")
    }

    /// Where caches go.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.home.join(".cache")
    }

    /// `muster` with these arguments, ready to start, with nothing of our own environment but the path.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        Ok(self.command_of(&program("muster")?, arguments))
    }

    /// The same with another copy of the program.
    #[must_use]
    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join(".config"))
            .env("XDG_CACHE_HOME", self.cache())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    /// Runs `muster` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let output =
            self.command(arguments)?.output().with_context(|| format!("run `muster {}`", arguments.join(" ")))?;
        Ok(Finished::new(arguments, output))
    }

    /// Runs `muster` with something on its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        let mut child =
            self.command(arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(Finished::new(arguments, child.wait_with_output()?))
    }
}

/// What a command line did.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What was typed.
    pub line: String,
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    fn new(arguments: &[&str], output: Output) -> Self {
        Self {
            line: format!("muster {}", arguments.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics with everything the command said, unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "`{}`\n--- stdout\n{}--- stderr\n{}", self.line, self.stdout, self.stderr);
        self
    }

    /// The one JSON document on standard output.
    ///
    /// # Errors
    /// When there is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("`{}` printed\n{}{}", self.line, self.stdout, self.stderr))
    }

    /// The JSON documents on standard output, one a line.
    ///
    /// # Errors
    /// When a line is none.
    pub fn json_lines(&self) -> Result<Vec<Value>> {
        let lines: Result<Vec<Value>, _> = self.stdout.lines().map(serde_json::from_str).collect();
        lines.with_context(|| format!("`{}` printed\n{}{}", self.line, self.stdout, self.stderr))
    }
}

/// The independent implementation in Python, started in one of its modes.
///
/// # Errors
/// When Debian's Python cannot be started.
pub fn python_peer(mode: &str, access: &Access, arguments: &[&str]) -> Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(root.join("independent/muster_peer.py"))
        .arg(mode)
        .arg("--ca")
        .arg(&access.ca)
        .arg("--schemas")
        .arg(root.join("../docs/schemas"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(crl) = &access.crl {
        command.arg("--crl").arg(crl);
    }
    Ok(command)
}

/// Reads what a child has written so far up to a line end.
///
/// # Errors
/// When its output ends first.
pub fn read_line(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.as_mut().context("the child's output is not captured")?;
    let mut line = Vec::new();
    let mut byte = [0u8; 1];
    while stdout.read(&mut byte)? == 1 {
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
    bail!("the output ended after `{}`", String::from_utf8_lossy(&line))
}
