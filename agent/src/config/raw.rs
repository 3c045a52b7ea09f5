//! The configuration as it stands in files: names, defaults and nothing checked beyond types.
//!
//! Every field is one key. Its comment is what the book says of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_bus::BrokerUrl;
use muster_daemon::logging::LogFormat;
use muster_protocol::{CollectiveName, GroupName, HostName, PluginName};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Raw {
    /// The host's name. Default: the name in its certificate. If it is set and the certificate names
    /// another host, the agent does not start: that is how a mixed-up certificate is noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Parts of the fleet this host listens to. Default `["main"]`, so that a small site needs no plan.
    pub collectives: BTreeSet<CollectiveName>,
    /// Where the agent keeps what must survive a restart. Default `/var/lib/muster`.
    pub state_dir: PathBuf,
    /// How to reach the broker.
    pub broker: Broker,
    /// Certificates.
    pub pki: Pki,
    /// Facts and classes.
    pub facts: Facts,
    /// Who may do what.
    pub policy: Policy,
    /// Bounds.
    pub limits: Limits,
    /// Announcements.
    pub presence: Presence,
    /// The audit log.
    pub audit: Audit,
    /// Telling how the agent is.
    pub status: Status,
    /// The program's log.
    pub log: Log,
    /// Plugins.
    pub plugins: Plugins,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            host: None,
            collectives: "main".parse().into_iter().collect(),
            state_dir: "/var/lib/muster".into(),
            broker: Broker::default(),
            pki: Pki::default(),
            facts: Facts::default(),
            policy: Policy::default(),
            limits: Limits::default(),
            presence: Presence::default(),
            audit: Audit::default(),
            status: Status::default(),
            log: Log::default(),
            plugins: Plugins::default(),
        }
    }
}

/// Section `broker`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Broker {
    /// Addresses of the brokers, `amqps://HOST[:PORT][/VHOST]`. No default. All are equal; each time the
    /// agent connects it resolves their names anew and tries the addresses in random order.
    pub urls: Vec<BrokerUrl>,
    /// Seconds between heartbeats. Default 30: a dead connection is noticed within a minute, and
    /// 10,000 idle hosts cost the broker 670 small frames a second in both directions together.
    pub heartbeat_s: u16,
    /// Seconds that one address may take to connect. Default 10: longer than three lost packets. Where an address
    /// takes the connection and then is too slow with the handshake, as a broker is to which a whole fleet comes back,
    /// the next try may take twice as long, up to the 60 s that the broker itself gives a handshake.
    pub connect_timeout_s: u64,
    /// Seconds over which a fleet that has lost its broker comes back: the first pause after a lost connection is
    /// drawn at random from this span, and the next ones from longer spans. Default 10: 2,000 hosts then come at 200 a
    /// second, which a broker with two processors can take. Give it the number of hosts divided by the connections
    /// that your broker can open in a second.
    pub reconnect_spread_s: u64,
    /// Longest pause between two tries to connect, in seconds. Default 60: with 10,000 hosts, and a broker that is away
    /// for long, some 300 of them come in its first second.
    pub reconnect_max_s: u64,
}

impl Default for Broker {
    fn default() -> Self {
        Self { urls: Vec::new(), heartbeat_s: 30, connect_timeout_s: 10, reconnect_spread_s: 10, reconnect_max_s: 60 }
    }
}

/// Section `pki`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Pki {
    /// The CA's certificate. Default `/etc/muster/pki/ca.pem`.
    pub ca: PathBuf,
    /// The CA's revocation list. Default `/etc/muster/pki/crl.pem`; read at start and on reload if it exists.
    /// Newer lists that come over the bus are kept in `state_dir`.
    pub crl: PathBuf,
    /// The host's certificate. Default `/etc/muster/pki/host.pem`.
    pub certificate: PathBuf,
    /// The certificate's key. Default `/etc/muster/pki/host.key`. Refused if others can read it.
    pub key: PathBuf,
}

impl Default for Pki {
    fn default() -> Self {
        Self {
            ca: "/etc/muster/pki/ca.pem".into(),
            crl: "/etc/muster/pki/crl.pem".into(),
            certificate: "/etc/muster/pki/host.pem".into(),
            key: "/etc/muster/pki/host.key".into(),
        }
    }
}

/// Section `facts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Directory of files and programs that add facts. Default `/etc/muster/facts.d`; may be missing.
    pub directory: PathBuf,
    /// File with the host's configuration classes, one a line. Default `/etc/muster/classes.txt`; may be
    /// missing. For Puppet it is the setting `classfile`, such as
    /// `/opt/puppetlabs/puppet/cache/state/classes.txt`.
    pub classes_file: PathBuf,
    /// Milliseconds one program in `directory` may take. Default 10000: programs that ask a cloud's
    /// metadata service take seconds when the network is slow.
    pub executable_timeout_ms: u64,
    /// Seconds between two collections. Default 600: facts that matter for targeting change by the day,
    /// and an idle host should stay idle.
    pub refresh_interval_s: u64,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            directory: "/etc/muster/facts.d".into(),
            classes_file: "/etc/muster/classes.txt".into(),
            executable_timeout_ms: 10_000,
            refresh_interval_s: 600,
        }
    }
}

/// Section `policy`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// The policy file. Default `/etc/muster/policy.toml`. Must exist: without a policy nothing would be allowed.
    pub file: PathBuf,
}

impl Default for Policy {
    fn default() -> Self {
        Self { file: "/etc/muster/policy.toml".into() }
    }
}

/// Section `limits`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// How many actions that change something may run at once. Default 4: package and service managers
    /// take locks, so more would only wait for each other.
    pub concurrent_actions: usize,
    /// How many actions that only read may run at once. Default 16. They have their own limit so that a
    /// host that is busy installing still answers a ping.
    pub concurrent_reads: usize,
    /// Longest life of a command in seconds. Default 3600. The host remembers request ids that long. At
    /// most 86400.
    pub command_window_s: u64,
    /// How many seconds a command may come from the future. Default 60: hosts with any time
    /// synchronisation differ by less than a second.
    pub clock_skew_s: u64,
    /// Longest time limit a command may ask for, in seconds. Default 86400: a day.
    pub action_time_max_s: u64,
    /// How many watches may run at once. Default 8.
    pub concurrent_watches: usize,
    /// Output that is kept on disk of one action in a process of its own, in bytes. Default 67108864: 64 MiB.
    /// What comes beyond is counted and left out, and the result says so.
    pub output_bytes_max: u64,
    /// Seconds for which the result of an action that changes something is kept, with its output, so that
    /// `muster watch` can show it. Default 86400: a day.
    pub results_keep_s: u64,
    /// Room on disk for kept results, in bytes. Default 268435456: 256 MiB. Beyond it the ones that ended
    /// first are removed before their time.
    pub results_bytes_max: u64,
    /// Seconds the agent gives running actions when it stops. Default 60, less than the 90 after which
    /// systemd kills.
    pub stop_timeout_s: u64,
    /// Seconds a final report is kept while it cannot be delivered. Default 86400: as long as the
    /// broker keeps the queue of a host that is away.
    pub report_keep_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_actions: 4,
            concurrent_reads: 16,
            command_window_s: 3_600,
            clock_skew_s: 60,
            action_time_max_s: 86_400,
            concurrent_watches: 8,
            output_bytes_max: 64 * 1024 * 1024,
            results_keep_s: 86_400,
            results_bytes_max: 256 * 1024 * 1024,
            stop_timeout_s: 60,
            report_keep_s: 86_400,
        }
    }
}

/// Section `presence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Presence {
    /// Seconds between two announcements that the host is there. Default 300. Each pause is up to a
    /// tenth longer or shorter, so that a fleet started together does not speak together.
    pub interval_s: u64,
}

impl Default for Presence {
    fn default() -> Self {
        Self { interval_s: 300 }
    }
}

/// Section `audit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// The audit log. Default `audit.jsonl` in `state_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// From how many bytes on a file of the audit log is full and the next one begins. Default 33554432
    /// (32 MiB): some fifty thousand lines, which every tool still opens.
    pub rotate_bytes: u64,
    /// How many full files are kept. Default 15: with the one that is written at most 512 MiB, which is years on
    /// an ordinary host.
    pub keep_files: usize,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: None, rotate_bytes: 32 * 1024 * 1024, keep_files: 15 }
    }
}

/// Section `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The socket on which the agent tells root and its own user what it is doing (`musterd status`). Default
    /// `status.sock` in `state_dir`, so that several agents on one host do not meet. At most 107 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// Section `log`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// What is logged: a level, or directives such as `info,muster_agent=debug`. Default `info`.
    pub filter: String,
    /// `text` for people, `json` for machines. Default `text`. Both go to standard error.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Section `plugins`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Plugins {
    /// Plugins this host does not have. Default none.
    pub disabled: BTreeSet<PluginName>,
    /// Plugins that do nothing unless they are named here: `shell`, `script` and `file`. Default none, since
    /// each of them makes a permission of the policy as good as a login.
    pub enabled: BTreeSet<PluginName>,
    /// Directories in which programs of their own are looked for as plugins, with their descriptions, before the
    /// one of installed packs, `plugins` in `state_dir`. Default `/usr/lib/muster/plugins`, for packages of the
    /// system. One that is not there is empty; a name in two of them belongs to the first.
    pub directories: Vec<PathBuf>,
    /// Groups of which a pack's signer has to be in one for the pack to be installed. Default `admins`; with an
    /// empty list no pack is.
    pub signers: BTreeSet<GroupName>,
    /// Where a plugin that is a program of its own finds its configuration, as `NAME.cfg` or `NAME`. Default
    /// `/etc/muster/plugin.d`.
    pub configuration_directory: PathBuf,
    /// The plugin `file`.
    pub file: FilePlugin,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            disabled: BTreeSet::new(),
            enabled: BTreeSet::new(),
            directories: vec!["/usr/lib/muster/plugins".into()],
            signers: "admins".parse().into_iter().collect(),
            configuration_directory: "/etc/muster/plugin.d".into(),
            file: FilePlugin::default(),
        }
    }
}

/// Section `plugins.file`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct FilePlugin {
    /// Directories below which the plugin `file` may look at and fetch files. Default none, so that nothing may
    /// be read before somebody has decided what.
    pub read_roots: Vec<PathBuf>,
    /// Directories below which it may put and remove files. Default none. What may be written may not therefore
    /// be read.
    pub write_roots: Vec<PathBuf>,
    /// Bytes of the largest file that it reads, hashes or replaces. Default 67108864, 64 MiB: a second of hashing.
    pub bytes_max: u64,
}

impl Default for FilePlugin {
    fn default() -> Self {
        Self { read_roots: Vec::new(), write_roots: Vec::new(), bytes_max: 64 * 1024 * 1024 }
    }
}
