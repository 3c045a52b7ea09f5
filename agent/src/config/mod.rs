//! The agent's configuration: read once, checked once, then only values of proper types.
//!
//! `/etc/muster/musterd.toml` < `/etc/muster/musterd.d/*.toml` < `MUSTERD_SECTION__KEY`. A key nobody
//! knows is a warning in the running agent, since during a roll-out a newer file may reach an older
//! agent, and an error in `musterd check-config`. A wrong value is always an error.

mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_bus::BrokerUrl;
use muster_daemon::config::{ConfigError, Loaded, Problem, Sources};
use muster_daemon::logging::{LogConfig, LogFormat, check_filter};
use muster_protocol::limits::COMMAND_WINDOW_MS_MAX;
use muster_protocol::{CollectiveName, GroupName, HostName, PluginName};

use crate::admit;
use crate::audit::Rotation;
use crate::results::Bounds;
use crate::state::{check_trusted, files};

pub use raw::Raw;

/// Where the file is unless the command line says otherwise.
pub const FILE_DEFAULT: &str = "/etc/muster/musterd.toml";

/// Directory of files that are read after it.
pub const DROP_INS_DEFAULT: &str = "/etc/muster/musterd.d";

/// Prefix of environment variables.
pub const ENVIRONMENT_PREFIX: &str = "MUSTERD_";

/// Variables with our prefix that are no configuration: they name the files.
pub const ENVIRONMENT_EXCEPT: &[&str] = &["MUSTERD_CONFIG", "MUSTERD_CONFIG_DIR"];

/// Libraries that would fill the log at `info` or `debug` with what concerns nobody here.
const LOG_BASE: &str = muster_bus::LOG_DIRECTIVES;

/// What is wrong with a duration that is not within its bounds is said with the bounds.
const DAY_S: u64 = 86_400;

/// The longest window the protocol allows, in seconds.
const COMMAND_WINDOW_S_MAX: u64 = COMMAND_WINDOW_MS_MAX.unsigned_abs() / 1000;

/// The least and the most of each number.
const BOUNDS: &[(&str, u64, u64)] = &[
    ("broker.heartbeat_s", 5, 600),
    ("broker.connect_timeout_s", 1, 300),
    ("broker.reconnect_spread_s", 1, 3_600),
    ("broker.reconnect_max_s", 1, 3_600),
    ("facts.executable_timeout_ms", 10, 600_000),
    ("facts.refresh_interval_s", 10, 7 * DAY_S),
    ("limits.command_window_s", 1, COMMAND_WINDOW_S_MAX),
    ("limits.clock_skew_s", 0, 3_600),
    ("limits.action_time_max_s", 1, 7 * DAY_S),
    ("limits.concurrent_actions", 1, 256),
    ("limits.concurrent_reads", 1, 1_024),
    ("limits.concurrent_watches", 1, 256),
    ("limits.output_bytes_max", 64 * 1024, 1 << 40),
    ("limits.results_keep_s", 0, 30 * DAY_S),
    ("limits.results_bytes_max", 0, 1 << 40),
    ("limits.stop_timeout_s", 1, 3_600),
    ("limits.report_keep_s", 60, 30 * DAY_S),
    ("presence.interval_s", 10, DAY_S),
    ("plugins.file.bytes_max", 1, 1024 * 1024 * 1024),
    ("audit.rotate_bytes", 64 * 1024, 16 * 1024 * 1024 * 1024),
    ("audit.keep_files", 1, 10_000),
];

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    host: Option<HostName>,
    collectives: BTreeSet<CollectiveName>,
    state_dir: PathBuf,
    broker_urls: Vec<BrokerUrl>,
    heartbeat_s: u16,
    connect_timeout: Duration,
    reconnect_spread: Duration,
    reconnect_max: Duration,
    ca: PathBuf,
    crl: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    facts_directory: PathBuf,
    classes_file: PathBuf,
    executable_timeout: Duration,
    facts_interval: Duration,
    policy_file: PathBuf,
    limits: admit::Limits,
    results: Bounds,
    stop_timeout: Duration,
    report_keep: Duration,
    presence_interval: Duration,
    audit_file: PathBuf,
    audit_rotation: Rotation,
    status_socket: PathBuf,
    log: LogConfig,
    disabled_plugins: BTreeSet<PluginName>,
    enabled_plugins: BTreeSet<PluginName>,
    plugin_directories: Vec<PathBuf>,
    pack_signers: BTreeSet<GroupName>,
    plugin_configuration: PathBuf,
    plugin_settings: muster_plugins::Settings,
}

/// Where to read: the file must exist, the directory need not.
#[must_use]
pub fn sources(file: &Path, drop_ins: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Sources {
    Sources::new().file(file).drop_ins(drop_ins).environment(ENVIRONMENT_PREFIX, ENVIRONMENT_EXCEPT, variables)
}

impl Config {
    /// Checks values that do not come from files, such as a simulation's.
    ///
    /// # Errors
    /// As [`Config::new`].
    pub fn from_values(values: Raw) -> Result<Self, ConfigError> {
        Self::new(&Loaded { value: values, origins: BTreeMap::new(), files: Vec::new() })
    }

    /// Checks what was loaded.
    ///
    /// # Errors
    /// All values that are out of their bounds, each with its place and what is accepted.
    pub fn new(loaded: &Loaded<Raw>) -> Result<Self, ConfigError> {
        match Self::check(loaded) {
            (config, problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(ConfigError::Invalid { problems }),
        }
    }

    /// Reads and checks a configuration. Unknown keys are given back beside it.
    ///
    /// # Errors
    /// A source cannot be read, or values are wrong: all of them, with what is accepted.
    pub fn load(sources: Sources) -> Result<(Loaded<Raw>, Self, Vec<Problem>), ConfigError> {
        let (read, problems) = Self::load_partial(sources)?;
        match read {
            Some((loaded, config)) if problems.iter().all(|it| matches!(it, Problem::Unknown { .. })) => {
                Ok((loaded, config, problems))
            }
            _ => Err(ConfigError::Invalid { problems }),
        }
    }

    /// Reads and checks a configuration as far as that goes, to find everything that is wrong: in place of
    /// a wrong value stands the default or the nearest one that is allowed.
    ///
    /// # Errors
    /// A source cannot be read.
    #[expect(clippy::type_complexity, reason = "two values that may be missing together, and what is wrong")]
    pub fn load_partial(sources: Sources) -> Result<(Option<(Loaded<Raw>, Self)>, Vec<Problem>), ConfigError> {
        let (loaded, mut problems) = muster_daemon::config::load_partial::<Raw>(sources)?;
        for problem in &mut problems {
            if let Problem::Value { key, accepted, .. } = problem
                && let Some((_, least, most)) = BOUNDS.iter().find(|(bounded, ..)| bounded == key)
            {
                *accepted = range(*least, *most);
            }
        }
        let Some(loaded) = loaded else { return Ok((None, problems)) };
        for path in &loaded.files {
            check_trusted(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        }
        let (config, more) = Self::check(&loaded);
        // A value that could not be read was said already; its default is no second problem.
        let told = |key: &str| problems.iter().any(|problem| problem.is_within(key));
        let more: Vec<_> = more.into_iter().filter(|problem| !told(problem.key())).collect();
        problems.extend(more);
        Ok((Some((loaded, config)), problems))
    }

    fn check(loaded: &Loaded<Raw>) -> (Self, Vec<Problem>) {
        let mut check = Check { loaded, problems: Vec::new() };
        let raw = &loaded.value;
        let limits = &raw.limits;
        if raw.collectives.is_empty() {
            check.wrong("collectives", "empty", "at least one name");
        }
        if raw.broker.urls.is_empty() {
            check.wrong("broker.urls", "empty", "at least one address such as amqps://mq1.example.com/muster");
        }
        for (key, path) in [
            ("state_dir", &raw.state_dir),
            ("pki.ca", &raw.pki.ca),
            ("pki.crl", &raw.pki.crl),
            ("pki.certificate", &raw.pki.certificate),
            ("pki.key", &raw.pki.key),
            ("facts.directory", &raw.facts.directory),
            ("facts.classes_file", &raw.facts.classes_file),
            ("policy.file", &raw.policy.file),
            ("plugins.configuration_directory", &raw.plugins.configuration_directory),
        ] {
            check.absolute(key, path);
        }
        for path in &raw.plugins.directories {
            check.absolute("plugins.directories", path);
        }
        if let Some(path) = &raw.status.socket {
            check.absolute("status.socket", path);
        }
        if let Some(path) = &raw.audit.file {
            check.absolute("audit.file", path);
        }
        let file = &raw.plugins.file;
        for (key, roots) in
            [("plugins.file.read_roots", &file.read_roots), ("plugins.file.write_roots", &file.write_roots)]
        {
            for root in roots {
                check.absolute(key, root);
                if root.components().any(|part| part == std::path::Component::ParentDir) {
                    check.wrong(key, &format!("\"{}\"", root.display()), "a path without `..`");
                }
            }
        }
        if let Err(error) = check_filter(&raw.log.filter) {
            check.wrong("log.filter", &format!("\"{}\"", raw.log.filter.escape_default()), &error.to_string());
        }
        let config = Self {
            host: raw.host.clone(),
            collectives: raw.collectives.clone(),
            state_dir: raw.state_dir.clone(),
            broker_urls: raw.broker.urls.clone(),
            heartbeat_s: check.within("broker.heartbeat_s", u64::from(raw.broker.heartbeat_s)) as u16,
            connect_timeout: check.seconds("broker.connect_timeout_s", raw.broker.connect_timeout_s),
            reconnect_spread: check.seconds("broker.reconnect_spread_s", raw.broker.reconnect_spread_s),
            reconnect_max: check.seconds("broker.reconnect_max_s", raw.broker.reconnect_max_s),
            ca: raw.pki.ca.clone(),
            crl: raw.pki.crl.clone(),
            certificate: raw.pki.certificate.clone(),
            key: raw.pki.key.clone(),
            facts_directory: raw.facts.directory.clone(),
            classes_file: raw.facts.classes_file.clone(),
            executable_timeout: Duration::from_millis(
                check.within("facts.executable_timeout_ms", raw.facts.executable_timeout_ms),
            ),
            facts_interval: check.seconds("facts.refresh_interval_s", raw.facts.refresh_interval_s),
            policy_file: raw.policy.file.clone(),
            limits: admit::Limits {
                command_window: check.seconds("limits.command_window_s", limits.command_window_s),
                clock_skew: check.seconds("limits.clock_skew_s", limits.clock_skew_s),
                action_time: check.seconds("limits.action_time_max_s", limits.action_time_max_s),
                concurrent_actions: check.count("limits.concurrent_actions", limits.concurrent_actions),
                concurrent_reads: check.count("limits.concurrent_reads", limits.concurrent_reads),
                concurrent_watches: check.count("limits.concurrent_watches", limits.concurrent_watches),
            },
            results: Bounds {
                keep: check.seconds("limits.results_keep_s", limits.results_keep_s),
                bytes_max: check.within("limits.results_bytes_max", limits.results_bytes_max),
                output_bytes_max: check.within("limits.output_bytes_max", limits.output_bytes_max),
            },
            stop_timeout: check.seconds("limits.stop_timeout_s", limits.stop_timeout_s),
            report_keep: check.seconds("limits.report_keep_s", limits.report_keep_s),
            presence_interval: check.seconds("presence.interval_s", raw.presence.interval_s),
            audit_file: raw.audit.file.clone().unwrap_or_else(|| raw.state_dir.join(files::AUDIT)),
            audit_rotation: Rotation {
                bytes: check.within("audit.rotate_bytes", raw.audit.rotate_bytes),
                keep_files: check.count("audit.keep_files", raw.audit.keep_files),
            },
            status_socket: raw.status.socket.clone().unwrap_or_else(|| raw.state_dir.join(files::STATUS_SOCKET)),
            log: LogConfig { filter: raw.log.filter.clone(), format: raw.log.format, base: LOG_BASE },
            disabled_plugins: raw.plugins.disabled.clone(),
            enabled_plugins: raw.plugins.enabled.clone(),
            plugin_directories: {
                let packs = raw.state_dir.join(crate::plugins::PACKS);
                raw.plugins.directories.iter().cloned().chain([packs]).collect()
            },
            pack_signers: raw.plugins.signers.clone(),
            plugin_configuration: raw.plugins.configuration_directory.clone(),
            plugin_settings: muster_plugins::Settings {
                file: muster_plugins::FileSettings {
                    read_roots: file.read_roots.clone(),
                    write_roots: file.write_roots.clone(),
                    bytes_max: check.within("plugins.file.bytes_max", file.bytes_max),
                },
                script: script_settings(&raw.state_dir),
                ..muster_plugins::Settings::default()
            },
        };
        (config, check.problems)
    }

    /// The name the host must have, if the configuration says.
    #[must_use]
    pub fn host(&self) -> Option<&HostName> {
        self.host.as_ref()
    }

    /// Parts of the fleet it listens to. Not empty.
    #[must_use]
    pub fn collectives(&self) -> &BTreeSet<CollectiveName> {
        &self.collectives
    }

    /// Directory of the agent's state.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Addresses of the brokers. Not empty.
    #[must_use]
    pub fn broker_urls(&self) -> &[BrokerUrl] {
        &self.broker_urls
    }

    /// Seconds between heartbeats.
    #[must_use]
    pub fn heartbeat_s(&self) -> u16 {
        self.heartbeat_s
    }

    /// How long one address may take to connect.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Span from which the first pause after a lost connection is drawn.
    #[must_use]
    pub fn reconnect_spread(&self) -> Duration {
        self.reconnect_spread
    }

    /// The socket on which the agent tells how it is.
    #[must_use]
    pub fn status_socket(&self) -> &Path {
        &self.status_socket
    }

    /// Longest pause between two tries to connect.
    #[must_use]
    pub fn reconnect_max(&self) -> Duration {
        self.reconnect_max
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The CA's revocation list, which may not exist.
    #[must_use]
    pub fn crl(&self) -> &Path {
        &self.crl
    }

    /// The host's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The certificate's key.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// The directory `facts.d`.
    #[must_use]
    pub fn facts_directory(&self) -> &Path {
        &self.facts_directory
    }

    /// The file of classes.
    #[must_use]
    pub fn classes_file(&self) -> &Path {
        &self.classes_file
    }

    /// How long a program in `facts.d` may take.
    #[must_use]
    pub fn executable_timeout(&self) -> Duration {
        self.executable_timeout
    }

    /// Pause between two collections of facts.
    #[must_use]
    pub fn facts_interval(&self) -> Duration {
        self.facts_interval
    }

    /// The policy file.
    #[must_use]
    pub fn policy_file(&self) -> &Path {
        &self.policy_file
    }

    /// Bounds of what may be asked.
    #[must_use]
    pub fn limits(&self) -> &admit::Limits {
        &self.limits
    }

    /// How long and how much of ended actions is kept.
    #[must_use]
    pub fn results(&self) -> &Bounds {
        &self.results
    }

    /// How long running actions have when the agent stops.
    #[must_use]
    pub fn stop_timeout(&self) -> Duration {
        self.stop_timeout
    }

    /// How long a final report is kept while it cannot be delivered.
    #[must_use]
    pub fn report_keep(&self) -> Duration {
        self.report_keep
    }

    /// Mean pause between two announcements.
    #[must_use]
    pub fn presence_interval(&self) -> Duration {
        self.presence_interval
    }

    /// The audit log.
    #[must_use]
    pub fn audit_file(&self) -> &Path {
        &self.audit_file
    }

    /// How much of the audit log is kept.
    #[must_use]
    pub fn audit_rotation(&self) -> Rotation {
        self.audit_rotation
    }

    /// The program's log.
    #[must_use]
    pub fn log(&self) -> &LogConfig {
        &self.log
    }

    /// How a line of the program's log looks.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log.format
    }

    /// Plugins this host does not have.
    #[must_use]
    pub fn disabled_plugins(&self) -> &BTreeSet<PluginName> {
        &self.disabled_plugins
    }

    /// Plugins that are off unless they are named, and are named.
    #[must_use]
    pub fn enabled_plugins(&self) -> &BTreeSet<PluginName> {
        &self.enabled_plugins
    }

    /// Where plugins that are programs of their own are looked for, in this order; last where packs are installed.
    #[must_use]
    pub fn plugin_directories(&self) -> &[PathBuf] {
        &self.plugin_directories
    }

    /// Where packs are installed.
    #[must_use]
    pub fn pack_directory(&self) -> PathBuf {
        self.state_dir.join(crate::plugins::PACKS)
    }

    /// Groups whose members' packs are installed.
    #[must_use]
    pub fn pack_signers(&self) -> &BTreeSet<GroupName> {
        &self.pack_signers
    }

    /// Where plugins that are programs of their own find their configuration.
    #[must_use]
    pub fn plugin_configuration(&self) -> &Path {
        &self.plugin_configuration
    }

    /// What the built-in plugins may do here.
    #[must_use]
    pub fn plugin_settings(&self) -> &muster_plugins::Settings {
        &self.plugin_settings
    }
}

/// Only root may make a directory in `/run`. Any other user's agent runs scripts as that user alone, so they may lie
/// where nobody else can go.
fn script_settings(state_dir: &Path) -> muster_plugins::ScriptSettings {
    match nix::unistd::Uid::effective().is_root() {
        true => muster_plugins::ScriptSettings::default(),
        false => muster_plugins::ScriptSettings { directory: state_dir.join("scripts") },
    }
}

/// Collects what is wrong, so that an operator sees all of it at once.
struct Check<'a> {
    loaded: &'a Loaded<Raw>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn wrong(&mut self, key: &str, found: &str, accepted: &str) {
        self.problems.push(Problem::Value {
            origin: self.loaded.origin(key).unwrap_or("default").to_owned(),
            key: key.to_owned(),
            found: found.to_owned(),
            accepted: accepted.to_owned(),
        });
    }

    fn within(&mut self, key: &str, value: u64) -> u64 {
        let Some((_, least, most)) = BOUNDS.iter().find(|(bounded, ..)| *bounded == key) else { return value };
        if !(least..=most).contains(&&value) {
            self.wrong(key, &value.to_string(), &range(*least, *most));
        }
        value.clamp(*least, *most)
    }

    fn seconds(&mut self, key: &str, value: u64) -> Duration {
        Duration::from_secs(self.within(key, value))
    }

    fn count(&mut self, key: &str, value: usize) -> usize {
        self.within(key, value as u64) as usize
    }

    fn absolute(&mut self, key: &str, path: &Path) {
        if !path.is_absolute() {
            self.wrong(key, &format!("\"{}\"", path.display()), "an absolute path");
        }
    }
}

fn range(least: u64, most: u64) -> String {
    format!("a whole number from {least} to {most}")
}
