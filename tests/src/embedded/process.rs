//! One `muster broker run`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use muster_protocol::Identity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::configuration::{Configuration, limit_of};
use crate::broker::{Broker, Options, Shortage};
use crate::cleanup::{KillAtExit, watched_directory};
use crate::programs::{PATIENCE, program};

/// Ports are found free and then used a moment later; somebody may be quicker.
const START_ATTEMPTS: usize = 5;

/// Lines of a log that an error shows.
const LOG_LINES: usize = 25;

/// What the operating system says when somebody else has the port.
const PORT_TAKEN: &str = "Address already in use";

/// A running process, and who ends it when this one has ended.
#[derive(Debug)]
struct Running {
    child: Child,
    watch: KillAtExit,
}

/// A private embedded broker. Its methods block.
#[derive(Debug)]
pub struct Embedded {
    program: PathBuf,
    port: u16,
    directory: TempDir,
    configuration: Mutex<Configuration>,
    running: Mutex<Option<Running>>,
}

impl Embedded {
    /// Starts a broker and waits until it accepts connections.
    ///
    /// # Errors
    /// It ends, or is not ready in [`PATIENCE`]; with the end of its log.
    pub fn start(options: Options) -> Result<Self> {
        let Options { certificate, vhost, identities, heartbeat_s, unbound } = options;
        ensure!(unbound.is_empty(), "no configuration of a broker lets anybody do everything");
        let program = program("muster")?;
        let directory = watched_directory(|| tempfile::Builder::new().prefix("muster-broker-").tempdir())?;
        let path = |name: &str| directory.path().join(name);
        // As it is now: a test that revokes somebody says itself who hears of it.
        let crl = path("crl.pem");
        copy_list(&certificate.ca, &crl)?;
        let configuration = Configuration {
            listen: Vec::new(),
            vhost,
            members: identities,
            heartbeat_s,
            certificate,
            crl,
            state: path("state"),
            control: path("control"),
            lacks: BTreeSet::new(),
        };
        let (configuration, running) = (Mutex::new(configuration), Mutex::new(None));
        let mut broker = Self { program, port: 0, directory, configuration, running };
        for attempt in 1..=START_ATTEMPTS {
            broker.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            broker.configuration().listen = vec![SocketAddr::from(([127, 0, 0, 1], broker.port))];
            match broker.run() {
                Err(error) if attempt < START_ATTEMPTS && format!("{error:#}").contains(PORT_TAKEN) => {}
                other => return other.map(|()| broker),
            }
        }
        bail!("no free port was found")
    }

    /// Where its configuration, state and log are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration_file(&self) -> PathBuf {
        self.directory.path().join("broker.toml")
    }

    fn configuration(&self) -> MutexGuard<'_, Configuration> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_configuration(&self) -> Result<()> {
        let (path, next) = (self.configuration_file(), self.directory.path().join("broker.next"));
        fs::write(&next, self.configuration().text()).with_context(|| format!("write {}", next.display()))?;
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600))?;
        fs::rename(&next, &path).with_context(|| format!("write {}", path.display()))
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn run(&self) -> Result<()> {
        ensure!(self.running().is_none(), "the embedded broker runs already");
        self.write_configuration()?;
        let socket = self.directory.path().join("notify");
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let notifications = UnixDatagram::bind(&socket).with_context(|| format!("bind {}", socket.display()))?;
        notifications.set_read_timeout(Some(Duration::from_millis(200)))?;
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(self.log_file())?;
        let mut command = Command::new(&self.program);
        command.args(["broker", "run", "--config"]).arg(self.configuration_file());
        let child = command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .env("NOTIFY_SOCKET", &socket)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Not in the terminal's group: Ctrl-C is for the test program.
            .process_group(0)
            .spawn()
            .context("start `muster broker run`")?;
        let watch = KillAtExit::new(child.id()).context("watch over `muster broker run`")?;
        *self.running() = Some(Running { child, watch });
        let ready = self.wait_until_ready(&notifications);
        if ready.is_err() {
            self.kill_hard()?;
        }
        ready
    }

    fn wait_until_ready(&self, notifications: &UnixDatagram) -> Result<()> {
        let started = Instant::now();
        let mut buffer = [0u8; 4096];
        while started.elapsed() < PATIENCE {
            if let Ok(length) = notifications.recv(&mut buffer)
                && buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
            {
                return Ok(());
            }
            ensure!(self.is_alive(), "the embedded broker ended while starting\n{}", self.log());
        }
        bail!("the embedded broker was not ready within {} s\n{}", PATIENCE.as_secs(), self.log())
    }

    /// Waits for the end of the process.
    fn wait_until_ended(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let mut running = self.running();
            let Some(process) = running.as_mut() else { return Ok(()) };
            if process.child.try_wait()?.is_some() {
                *running = None;
                return Ok(());
            }
            drop(running);
            ensure!(
                started.elapsed() < PATIENCE,
                "the embedded broker did not stop within {} s\n{}",
                PATIENCE.as_secs(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill_hard(&self) -> Result<()> {
        if let Some(mut process) = self.running().take() {
            process.watch.call_off();
            process.child.kill().ok();
            process.child.wait().context("wait for the embedded broker")?;
        }
        Ok(())
    }

    /// Ends it and starts it again with nothing of what it has kept.
    ///
    /// # Errors
    /// It does not end, its files cannot be removed, or it does not start.
    pub fn start_anew(&self) -> Result<()> {
        self.stop()?;
        let state = self.configuration().state.clone();
        if state.exists() {
            fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))?;
        }
        self.resume()
    }

    /// `muster broker WORDS` about this broker; gives what it prints.
    ///
    /// # Errors
    /// It does not end with 0; with everything that it said.
    pub fn operate(&self, words: &[&str]) -> Result<String> {
        self.operate_with(words, &[0])
    }

    fn operate_with(&self, words: &[&str], good: &[i32]) -> Result<String> {
        let output = Command::new(program("muster")?)
            .arg("broker")
            .args(words)
            .arg("--config")
            .arg(self.configuration_file())
            .env_clear()
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .output()
            .context("start `muster broker`")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.code().is_some_and(|code| good.contains(&code)),
            "`muster broker {}` ends with {}: {said}{}\n{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        Ok(said)
    }

    /// What `muster broker status` says, as data.
    ///
    /// # Errors
    /// As [`Self::operate`], or it is no JSON.
    pub fn status(&self) -> Result<Value> {
        // 3: something calls for attention, as it may in a test.
        let said = self.operate_with(&["status", "--json"], &[0, 3])?;
        serde_json::from_str(&said).with_context(|| format!("read `{said}`"))
    }

    /// Changes the configuration, and has it read again.
    fn change(&self, change: impl FnOnce(&mut Configuration)) -> Result<()> {
        change(&mut self.configuration());
        self.write_configuration()?;
        self.operate(&["reload"]).map(drop)
    }

    /// The same, with a restart for what is only read at the start.
    fn change_over_restart(&self, change: impl FnOnce(&mut Configuration)) -> Result<()> {
        self.stop()?;
        change(&mut self.configuration());
        self.run()
    }
}

/// Copies the revocation list that lies beside an authority's certificate.
fn copy_list(ca: &Path, to: &Path) -> Result<()> {
    let from = ca.with_file_name("crl.pem");
    let next = to.with_extension("next");
    fs::copy(&from, &next).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&next, to).with_context(|| format!("write {}", to.display()))
}

impl Broker for Embedded {
    fn port(&self) -> u16 {
        self.port
    }

    fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|process| process.child.id())
    }

    fn is_alive(&self) -> bool {
        self.running().as_mut().is_some_and(|process| matches!(process.child.try_wait(), Ok(None)))
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn stop(&self) -> Result<()> {
        if self.is_alive() {
            self.signal(Signal::SIGTERM)?;
        }
        if let Some(process) = self.running().as_mut() {
            process.watch.call_off();
        }
        let ended = self.wait_until_ended();
        if ended.is_err() {
            self.kill_hard()?;
        }
        ended
    }

    fn kill(&self) -> Result<()> {
        self.kill_hard()
    }

    fn resume(&self) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.run() {
                // A connection that somebody makes may have got the port of a broker that is away.
                Err(error) if attempt < START_ATTEMPTS && format!("{error:#}").contains(PORT_TAKEN) => attempt += 1,
                other => return other,
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the embedded broker does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("send {signal} to the broker"))
    }

    fn admit(&self, identities: &BTreeSet<Identity>) -> Result<()> {
        self.change(|configuration| configuration.members.extend(identities.iter().cloned()))
    }

    fn expel(&self, identity: &Identity) -> Result<()> {
        self.change(|configuration| {
            configuration.members.remove(identity);
        })
    }

    fn forbid(&self, identity: &Identity) -> Result<()> {
        // There is one virtual host, so who may do nothing in it may not log in.
        self.expel(identity)
    }

    fn close_connections(&self, of: Option<&Identity>, reason: &str) -> Result<()> {
        let name = of.map(Identity::short);
        let mut words = vec!["close", "--reason", reason];
        match &name {
            Some(name) => words.extend(["--identity", name]),
            None => words.push("--all"),
        }
        self.operate(&words).map(drop)
    }

    fn channels_of(&self, identity: &Identity) -> Result<Vec<usize>> {
        let status = self.status()?;
        let connections = status["connections"].as_array().context("the status has no connections")?;
        let name = identity.short();
        let own = connections.iter().filter(|it| it["identity"] == name.as_str());
        own.map(|it| Ok(usize::try_from(it["channels"].as_u64().context("no channels")?)?)).collect()
    }

    fn queues(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let queues = status["queues"].as_array().context("the status has no queues")?;
        Ok(queues.iter().filter_map(|it| it["name"].as_str()).map(ToOwned::to_owned).collect())
    }

    fn delete_queue(&self, name: &str) -> Result<()> {
        self.operate(&["delete-queue", name]).map(drop)
    }

    fn remove(&self) -> Result<()> {
        let state = self.directory.path().join("state-of-another");
        self.change_over_restart(|configuration| {
            configuration.vhost.push_str("-gone");
            configuration.state = state;
        })
    }

    fn make_again(&self, identities: &BTreeSet<Identity>) -> Result<()> {
        let state = self.directory.path().join("state-again");
        self.change_over_restart(|configuration| {
            configuration.vhost.truncate(configuration.vhost.len() - "-gone".len());
            configuration.state = state;
            configuration.members = identities.clone();
        })
    }

    fn starve(&self, of: Shortage) -> Result<()> {
        self.change(|configuration| {
            configuration.lacks.insert(limit_of(of));
        })
    }

    fn feed(&self, with: Shortage) -> Result<()> {
        self.change(|configuration| {
            configuration.lacks.remove(limit_of(with));
        })
    }

    fn listen_also(&self, address: SocketAddr) -> Result<()> {
        self.change_over_restart(|configuration| configuration.listen.push(address))
    }

    fn read_certificates(&self) -> Result<()> {
        let configuration = self.configuration().clone();
        copy_list(&configuration.certificate.ca, &configuration.crl)?;
        self.change(|_| {})
    }

    fn listeners(&self) -> Result<Vec<String>> {
        // It knows nothing but AMQP over TLS; that its status says where.
        let status = self.status()?;
        let listen = status["listen"].as_array().context("the status has no listeners")?;
        Ok(listen.iter().map(|_| "amqp/ssl".to_owned()).collect())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Its directory is removed, so it is not stopped politely.
        self.kill_hard().ok();
    }
}
