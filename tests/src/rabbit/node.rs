//! One RabbitMQ process.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use muster_broker_config::{
    Definitions, FILE_CONF, FILE_DEFINITIONS, FILE_PLUGINS, Purpose, Role, ServerCertificate, Site, definitions,
    enabled_plugins, rabbitmq_conf,
};
use muster_protocol::Identity;
use muster_protocol::routing::VHOST_DEFAULT;
use tempfile::TempDir;

use super::installation::Installation;
use crate::cleanup::watched_directory;

const SUPERVISOR: &str = include_str!("supervisor.sh");

/// Erlang needs five seconds on an idle machine; this is for a busy one.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The supervisor gives the node 20 s and then kills it.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Ports are found free and then used a moment later; somebody may be quicker.
const START_ATTEMPTS: usize = 3;

/// Lines of a log that an error shows.
const LOG_LINES: usize = 25;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The broker's certificate, for `localhost` and 127.0.0.1.
    pub certificate: ServerCertificate,
    /// The first virtual host.
    pub vhost: String,
    /// Who may log in from the start. More can be imported later.
    pub identities: BTreeSet<Identity>,
    /// What the node is among others.
    pub role: Role,
    /// Where configuration, data and logs go. `None`: a temporary directory that is removed at the end.
    pub directory: Option<PathBuf>,
}

impl NodeOptions {
    /// A node with nobody in it, in a temporary directory.
    #[must_use]
    pub fn new(certificate: ServerCertificate) -> Self {
        Self {
            certificate,
            vhost: VHOST_DEFAULT.to_owned(),
            identities: BTreeSet::new(),
            role: Role::Alone,
            directory: None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqps: u16,
    distribution: u16,
    epmd: u16,
}

impl Ports {
    /// Three different free ones: all are held until the last is known.
    fn free() -> Result<Self> {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(TcpListener::bind(("127.0.0.1", 0)).context("find a free port on loopback")?);
        }
        let port = |index: usize| held[index].local_addr().map(|address| address.port());
        Ok(Self { amqps: port(0)?, distribution: port(1)?, epmd: port(2)? })
    }
}

/// A running node and the shell that watches over it.
#[derive(Debug)]
struct Running {
    supervisor: Child,
    /// Closing it, by whatever means, ends the node.
    words: Option<ChildStdin>,
    server: u32,
}

/// A private RabbitMQ node. Its methods block; a test with an async runtime calls them at its start and
/// end, where nothing else runs.
#[derive(Debug)]
pub struct Node {
    installation: Installation,
    options: NodeOptions,
    directory: PathBuf,
    temporary: Option<TempDir>,
    name: String,
    ports: Ports,
    running: Mutex<Option<Running>>,
}

impl Node {
    /// Starts a node and waits until it accepts connections.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or the node ends or stays silent; then with the last lines of its log.
    pub fn start(options: NodeOptions) -> Result<Self> {
        let installation = Installation::find()?;
        for file in [&options.certificate.ca, &options.certificate.certificate, &options.certificate.key] {
            ensure!(file.is_file(), "the broker's certificate file {} does not exist", file.display());
        }
        let (directory, temporary) = match &options.directory {
            Some(directory) => (directory.clone(), None),
            None => {
                // The supervisor removes it, too, but is not there before the files are written.
                let temporary = watched_directory(|| tempfile::Builder::new().prefix("muster-rabbit-").tempdir())?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let name = format!("muster-{}-{:08x}@localhost", std::process::id(), rand::random::<u32>());
        let ports = Ports::free()?;
        let mut node = Self { installation, options, directory, temporary, name, ports, running: Mutex::default() };
        node.write_cookie()?;
        for attempt in 1..=START_ATTEMPTS {
            node.write_configuration()?;
            match node.run() {
                Ok(()) => break,
                Err(error) if attempt < START_ATTEMPTS && node.log().contains("eaddrinuse") => {
                    node.end(Some("kill")).with_context(|| format!("after: {error:#}"))?;
                    fs::remove_file(node.directory.join("startup.log")).ok();
                    node.ports = Ports::free()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(node)
    }

    /// The port for AMQP over TLS.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.amqps
    }

    /// The node's Erlang name, for `rabbitmqctl -n`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its configuration, data and logs are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process group of the server while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.server)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `amqps://localhost:PORT/VHOST`.
    #[must_use]
    pub fn url(&self, vhost: &str) -> String {
        format!("amqps://localhost:{}/{vhost}", self.ports.amqps)
    }

    /// The site that this node's files are generated from.
    #[must_use]
    pub fn site(&self) -> Site {
        Site {
            vhost: self.options.vhost.clone(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], self.ports.amqps))],
            certificate: self.options.certificate.clone(),
            definitions: self.directory.join(FILE_DEFINITIONS),
            purpose: Purpose::Private,
            role: self.options.role.clone(),
            ..Site::new(self.options.identities.iter().cloned())
        }
    }

    /// Adds users, permissions, exchanges and policies without a restart.
    ///
    /// # Errors
    /// `rabbitmqctl` refuses the file; with its output.
    pub fn import(&self, definitions: &Definitions) -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(&self.directory)?;
        fs::write(file.path(), definitions.to_json())?;
        let path = file.path().to_str().context("the directory's name is not UTF-8")?;
        self.ctl(&["import_definitions", path]).map(drop)
    }

    /// Creates a virtual host.
    ///
    /// # Errors
    /// `rabbitmqctl` fails; with its output.
    pub fn add_vhost(&self, name: &str) -> Result<()> {
        self.ctl(&["add_vhost", name]).map(drop)
    }

    /// Deletes a virtual host with everything in it, and closes its connections.
    ///
    /// # Errors
    /// `rabbitmqctl` fails; with its output.
    pub fn delete_vhost(&self, name: &str) -> Result<()> {
        self.ctl(&["delete_vhost", name]).map(drop)
    }

    /// Deletes a user, as for a revoked certificate. RabbitMQ closes its connections.
    ///
    /// # Errors
    /// `rabbitmqctl` fails; with its output.
    pub fn delete_user(&self, identity: &Identity) -> Result<()> {
        self.ctl(&["delete_user", &identity.to_string()]).map(drop)
    }

    /// Runs `rabbitmqctl` against this node and gives its standard output.
    ///
    /// # Errors
    /// It exits with another code than 0; with its output.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctl_output(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(
            output.status.success(),
            "rabbitmqctl {} ends with {}: {} {}",
            arguments.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    fn ctl_output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(&self.installation.control)
            .args(["-q", "-n", &self.name])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("start rabbitmqctl")
    }

    /// Environment for programs that talk to this node with RabbitMQ's own tools.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        vec![
            ("HOME", self.directory.display().to_string()),
            ("LANG", "C.UTF-8".to_owned()),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_CONFIG_FILE", path(FILE_CONF)),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path(FILE_PLUGINS)),
            ("RABBITMQ_MNESIA_BASE", path("data")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string()),
            // Any free port: several rabbitmqctl may run at once.
            ("RABBITMQ_CTL_DIST_PORT_MIN", "0".to_owned()),
            ("RABBITMQ_CTL_DIST_PORT_MAX", "0".to_owned()),
            ("RABBITMQ_CTL_ERL_ARGS", loopback.to_owned()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("+S 2:2 {loopback}")),
            ("ERL_EPMD_PORT", self.ports.epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ]
    }

    /// A `rabbitmqctl` for people that speaks to this node and no other.
    #[must_use]
    pub fn rabbitmqctl(&self) -> PathBuf {
        self.directory.join("rabbitmqctl")
    }

    /// Stops the node politely, and by force if it does not end. Its data stay for [`Node::resume`].
    ///
    /// # Errors
    /// Its processes outlive even the force.
    pub fn stop(&self) -> Result<()> {
        self.end(Some("stop"))
    }

    /// Kills the node at once, as a power failure would. Its data stay for [`Node::resume`].
    ///
    /// # Errors
    /// Its processes outlive it.
    pub fn kill(&self) -> Result<()> {
        self.end(Some("kill"))
    }

    /// Sends a signal to the server and everything it has started, such as SIGSTOP.
    ///
    /// # Errors
    /// The node does not run.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let server = self.pid().context("the node does not run")?;
        let group = nix::unistd::Pid::from_raw(i32::try_from(server)?);
        nix::sys::signal::killpg(group, signal).with_context(|| format!("send {signal} to node {}", self.name))
    }

    /// Starts a stopped or killed node again: same name, ports and data.
    ///
    /// # Errors
    /// As for [`Node::start`].
    pub fn resume(&self) -> Result<()> {
        ensure!(self.pid().is_none(), "node {} runs already", self.name);
        self.run()
    }

    /// Stops and starts the node again.
    ///
    /// # Errors
    /// As for [`Node::stop`] and [`Node::start`].
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.resume()
    }

    /// The last lines of what the node wrote: start-up messages, then the log.
    #[must_use]
    pub fn log(&self) -> String {
        let main = format!("log/{}.log", self.name);
        let mut text = String::new();
        for file in ["epmd.log", "startup.log", &main] {
            let whole = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
            let lines: Vec<&str> = whole.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    fn write_cookie(&self) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(".erlang.cookie");
        if path.exists() {
            return Ok(());
        }
        let cookie: String = (0..4).map(|_| format!("{:08X}", rand::random::<u32>())).collect();
        fs::write(&path, cookie)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        Ok(())
    }

    fn write_configuration(&self) -> Result<()> {
        let site = self.site();
        for (file, text) in [
            (FILE_CONF, rabbitmq_conf(&site)),
            (FILE_PLUGINS, enabled_plugins(&site)),
            (FILE_DEFINITIONS, definitions(&site).to_json()),
        ] {
            let path = self.directory.join(file);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        self.write_control()
    }

    fn write_control(&self) -> Result<()> {
        let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut script = String::from("#!/bin/sh\n");
        for (name, value) in self.environment() {
            script.push_str(&format!("export {name}={}\n", quote(&value)));
        }
        let program = self.installation.control.display().to_string();
        script.push_str(&format!("exec {} \"$@\"\n", quote(&program)));
        fs::write(self.rabbitmqctl(), script)?;
        fs::set_permissions(self.rabbitmqctl(), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment());
        command
    }

    fn run(&self) -> Result<()> {
        let remove = if self.temporary.is_some() { "remove" } else { "" };
        let mut supervisor = self
            .command(Path::new("/bin/sh"))
            .args(["-c", SUPERVISOR, "rabbit-supervisor"])
            .args([&self.installation.epmd, &self.installation.server, &self.directory])
            .arg(remove)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Not in the terminal's group: Ctrl-C is for the program, which then stops the node in order.
            .process_group(0)
            .spawn()
            .context("start the supervising shell")?;
        let words = supervisor.stdin.take();
        let mut line = String::new();
        let stdout = supervisor.stdout.take().context("the shell has no standard output")?;
        BufReader::new(stdout.take(64)).read_line(&mut line)?;
        let server = line.trim().parse().with_context(|| format!("the shell says `{}`, no pid", line.trim()))?;
        *self.running() = Some(Running { supervisor, words, server });
        self.wait_until_ready()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.amqps));
        let started = Instant::now();
        loop {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            let problem = if !self.is_alive() {
                "ended while starting".to_owned()
            } else if started.elapsed() > START_LIMIT {
                format!("does not listen on {address} after {} s", START_LIMIT.as_secs())
            } else {
                sleep(Duration::from_millis(50));
                continue;
            };
            let log = self.log();
            self.end(Some("kill")).ok();
            bail!("RabbitMQ node {} {problem}; the last lines of its log:\n{log}", self.name);
        }
    }

    /// Whether the server's process exists and is no zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Some(server) = self.pid() else { return false };
        let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    /// Ends the node `how` the supervisor understands; `None` as if this process had died.
    fn end(&self, how: Option<&str>) -> Result<()> {
        let Some(mut running) = self.running().take() else { return Ok(()) };
        if let (Some(mut words), Some(how)) = (running.words.take(), how) {
            // A shell that is gone already cannot be told; the wait below sees it.
            writeln!(words, "{how}").ok();
        }
        let asked = Instant::now();
        while running.supervisor.try_wait()?.is_none() {
            if asked.elapsed() > STOP_LIMIT {
                let group = nix::unistd::Pid::from_raw(i32::try_from(running.server)?);
                nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
                running.supervisor.kill().ok();
                running.supervisor.wait()?;
                bail!("RabbitMQ node {} had to be killed after {} s", self.name, STOP_LIMIT.as_secs());
            }
            sleep(Duration::from_millis(20));
        }
        self.wait_until_gone()
    }

    /// Waits until nobody listens any more: the kernel takes seconds to take down a killed broker with thousands of
    /// connections, and whoever starts the next one would meet the last.
    fn wait_until_gone(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.amqps));
        let started = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            ensure!(started.elapsed() < STOP_LIMIT, "RabbitMQ node {} still listens after its end", self.name);
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Data in a temporary directory are lost anyway, so that node is not stopped politely.
        self.end(None).ok();
    }
}
