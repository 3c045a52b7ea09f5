//! The configuration of `muster broker run`: read once and again on reload, checked at once, then only proper values.
//!
//! `broker.toml` < `broker.d/*.toml` < `MUSTER_BROKER_SECTION__KEY`. A key that nobody knows is an error: the file and
//! the program come together.

mod places;
mod raw;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_daemon::config::{ConfigError, Loaded, Problem, Sources};
use muster_daemon::logging::{LogConfig, check_filter};
use muster_daemon::trusted::check_trusted;
use muster_daemon::{Clock, RealDisk};
use muster_pki::{Credentials, Trust};
use muster_protocol::Timestamp;

use crate::access::{Members, Rules};
use crate::engine;
use crate::journal::Bounds;
use crate::server::upkeep::{read_members, restore_lists};
use crate::server::{Durable, Files, Limits, ServerError, Settings};

pub use places::{Places, is_root};
pub use raw::{MembersValue, Raw};

/// Prefix of environment variables.
pub const ENVIRONMENT_PREFIX: &str = "MUSTER_BROKER_";

/// Variables with our prefix that are no configuration.
pub const ENVIRONMENT_EXCEPT: &[&str] = &["MUSTER_BROKER_CONFIG"];

/// Name of the socket in the directory of state.
const CONTROL: &str = "control.sock";

/// Directory of the journal in the directory of state.
const JOURNAL: &str = "journal";

/// Revocation lists that were in force.
const LISTS_KEPT: &str = "crl.pem";

/// Smallest segment of a journal.
const SEGMENT_BYTES_MIN: u64 = 256 * 1024;

/// Segments for which there has to be room.
const SEGMENTS_MIN: u64 = 10;

/// Smallest share of an identity: some of the largest messages.
const SHARE_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// The least and the most of each number.
const BOUNDS: &[(&str, u64, u64)] = &[
    ("heartbeat_s", 0, 3_600),
    ("limits.connections", 1, 1_000_000),
    ("limits.handshakes", 1, 65_536),
    ("limits.queues", 1, 10_000_000),
    ("limits.bindings", 1, 100_000_000),
    ("limits.exchanges", 8, 1_000_000),
    ("limits.consumers", 1, 65_535),
    ("limits.memory_bytes", 0, 1 << 46),
    ("limits.outbox_bytes", 64 * 1024, 1 << 40),
    ("limits.host_bytes", SHARE_BYTES_MIN, 1 << 46),
    ("limits.controller_bytes", SHARE_BYTES_MIN, 1 << 46),
    ("limits.disk_bytes", 0, 1 << 50),
];

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    raw: Raw,
    state_dir: PathBuf,
    control: PathBuf,
    ca: PathBuf,
    crl: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// Of a configuration, what leads to a broker that runs with it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Reach {
    control: Option<PathBuf>,
    state_dir: Option<PathBuf>,
}

/// Where to read. A file that was named must exist; the usual one need not.
#[must_use]
pub fn sources(file: &Path, is_named: bool, variables: impl IntoIterator<Item = (String, String)>) -> Sources {
    let sources = Sources::new();
    let sources = if is_named { sources.file(file) } else { sources.optional_file(file) };
    sources.drop_ins(file.with_extension("d")).environment(ENVIRONMENT_PREFIX, ENVIRONMENT_EXCEPT, variables)
}

impl Config {
    /// Reads and checks.
    ///
    /// # Errors
    /// A source cannot be read or can be written by others, a key is unknown, or values are wrong: all of them, with what
    /// is accepted.
    pub fn load(sources: Sources, places: &Places) -> Result<(Loaded<Raw>, Self), ConfigError> {
        let (loaded, mut problems) = muster_daemon::config::load_partial::<Raw>(sources)?;
        for problem in &mut problems {
            if let Problem::Value { key, accepted, .. } = problem
                && let Some((_, least, most)) = BOUNDS.iter().find(|(bounded, ..)| bounded == key)
            {
                *accepted = range(*least, *most);
            }
        }
        let Some(loaded) = loaded else { return Err(ConfigError::Invalid { problems }) };
        for path in &loaded.files {
            check_trusted(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        }
        let told = |key: &str| problems.iter().any(|problem| problem.is_within(key));
        let more: Vec<_> = check(&loaded).into_iter().filter(|problem| !told(problem.key())).collect();
        problems.extend(more);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { problems });
        }
        let config = Self::resolve(loaded.value.clone(), places);
        Ok((loaded, config))
    }

    fn resolve(raw: Raw, places: &Places) -> Self {
        let state_dir = raw.state_dir.clone().unwrap_or_else(|| places.state.clone());
        let pki = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| places.pki(name));
        Self {
            control: raw.control.clone().unwrap_or_else(|| state_dir.join(CONTROL)),
            ca: pki(&raw.pki.ca, "ca.pem"),
            crl: pki(&raw.pki.crl, "crl.pem"),
            certificate: pki(&raw.pki.certificate, "broker.pem"),
            key: pki(&raw.pki.key, "broker.key"),
            state_dir,
            raw,
        }
    }

    /// The socket for commands of the broker that was started with these sources, whoever may write them and whatever
    /// else is wrong in them: what runs can be asked also where it could not be started any more.
    ///
    /// # Errors
    /// A file cannot be read or is not TOML.
    pub fn reach(sources: Sources, places: &Places) -> Result<PathBuf, ConfigError> {
        let (loaded, _) = muster_daemon::config::load_partial::<Reach>(sources)?;
        let Reach { control, state_dir } = loaded.map(|loaded| loaded.value).unwrap_or_default();
        Ok(control.unwrap_or_else(|| state_dir.unwrap_or_else(|| places.state.clone()).join(CONTROL)))
    }

    /// What was loaded with every value in force, also those that are where the program expects them.
    #[must_use]
    pub fn effective(&self, mut loaded: Loaded<Raw>) -> Loaded<Raw> {
        if loaded.value.listen != self.raw.listen {
            loaded.origins.insert("listen".to_owned(), "--listen".to_owned());
        }
        let mut effective = self.raw.clone();
        effective.state_dir = Some(self.state_dir.clone());
        effective.control = Some(self.control.clone());
        let pki = &mut effective.pki;
        for (value, path) in [
            (&mut pki.ca, &self.ca),
            (&mut pki.crl, &self.crl),
            (&mut pki.certificate, &self.certificate),
            (&mut pki.key, &self.key),
        ] {
            *value = Some(path.clone());
        }
        loaded.value = effective;
        loaded
    }

    /// The file of the authority that clients are checked against.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The file of the broker's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The socket for commands.
    #[must_use]
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The directory of what survives a restart.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// What is logged.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        LogConfig { filter: self.raw.log.filter.clone(), format: self.raw.log.format, base: "" }
    }

    /// Replaces where it listens.
    #[must_use]
    pub fn listening(mut self, listen: &[std::net::SocketAddr]) -> Self {
        if !listen.is_empty() {
            self.raw.listen = listen.to_vec();
        }
        self
    }

    /// Reads everything that the configuration names, and makes of it what a server is started with. Nothing is written.
    ///
    /// # Errors
    /// A file is missing, wrong, or can be written by others.
    pub fn settings(&self, clock: Arc<dyn Clock>) -> Result<Settings, ServerError> {
        let now = Timestamp(clock.now_ms());
        let credentials = Credentials::load(&self.certificate, &self.key)?;
        let has_list = self.crl.try_exists().map_err(|source| ServerError::File { path: self.crl.clone(), source })?;
        let trust = Trust::load(&self.ca, has_list.then_some(self.crl.as_path()))?;
        let kept = self.state_dir.join(LISTS_KEPT);
        restore_lists(&trust, &kept, now).map_err(|source| ServerError::File { path: kept.clone(), source })?;
        if self.raw.pki.crl.is_some() && !has_list {
            // Whoever names a list means those on it. What a kept one says is known; without any, nobody knows who was revoked.
            if trust.crl_info().is_empty() {
                let why = "the revocation list that `pki.crl` names is not there: copy the CA's `crl.pem` to it";
                let source = io::Error::new(io::ErrorKind::NotFound, why);
                return Err(ServerError::File { path: self.crl.clone(), source });
            }
            tracing::error!(path = %self.crl.display(), "The revocation list that `pki.crl` names is not there; the one that was in force before holds");
        }
        let named = [&self.ca, &self.certificate, &self.key];
        let listed = [has_list.then_some(&self.crl), self.raw.members_file.as_ref()];
        for path in named.into_iter().chain(listed.into_iter().flatten()) {
            check_trusted(path).map_err(|source| ServerError::File { path: path.clone(), source })?;
        }
        if trust.crl_info().is_empty() {
            tracing::warn!(path = %self.crl.display(), "There is no revocation list: a certificate that was stolen is still believed");
        }
        let members = match (&self.raw.members_file, &self.raw.members) {
            (Some(path), _) => {
                Members::Listed(read_members(path).map_err(|source| ServerError::File { path: path.clone(), source })?)
            }
            (None, MembersValue::Issued) => Members::Issued,
            (None, MembersValue::Listed(listed)) => Members::Listed(listed.clone()),
        };
        let limits = &self.raw.limits;
        let mut settings = Settings::new(credentials, trust);
        settings.listen.clone_from(&self.raw.listen);
        settings.vhost.clone_from(&self.raw.vhost);
        settings.rules = Rules { members, ..settings.rules };
        settings.heartbeat_s = self.raw.heartbeat_s;
        settings.limits = Limits {
            connections_max: limits.connections,
            handshakes_max: limits.handshakes,
            engine: engine::Limits {
                queues_max: limits.queues,
                bindings_max: limits.bindings,
                exchanges_max: limits.exchanges,
                consumers_max: limits.consumers,
                message_bytes_max: limits.memory_bytes,
                outbox_bytes_max: limits.outbox_bytes,
                host_bytes_max: limits.host_bytes,
                controller_bytes_max: limits.controller_bytes,
            },
            disk_bytes_max: limits.disk_bytes,
        };
        settings.files =
            Files { crl: Some(self.crl.clone()), crl_kept: Some(kept), members: self.raw.members_file.clone() };
        settings.durable = Some(Durable {
            directory: self.state_dir.join(JOURNAL),
            bounds: bounds(limits.disk_bytes),
            disk: Arc::new(RealDisk),
        });
        settings.clock = clock;
        Ok(settings)
    }
}

/// Bounds of a journal that may have so much of the disk. With less than it can work with, publishers wait from the
/// beginning; it is opened all the same, since what is in it is to be had.
fn bounds(disk_bytes: u64) -> Bounds {
    let segment_bytes = (disk_bytes / 64).clamp(SEGMENT_BYTES_MIN, Bounds::default().segment_bytes);
    Bounds { bytes_max: disk_bytes.max(SEGMENTS_MIN * segment_bytes), segment_bytes }
}

fn check(loaded: &Loaded<Raw>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, found: String, accepted: String| {
        let origin = loaded.origin(key).unwrap_or("default").to_owned();
        problems.push(Problem::Value { origin, key: key.to_owned(), found, accepted });
    };
    let raw = &loaded.value;
    if raw.listen.is_empty() {
        wrong("listen", "empty".to_owned(), "at least one address such as \"[::]:5671\"".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if raw.vhost.is_empty() || raw.vhost.len() > 63 || !raw.vhost.chars().all(plain) {
        let accepted = "1 to 63 characters of a-z, A-Z, 0-9, -, _, . and /".to_owned();
        wrong("vhost", format!("\"{}\"", raw.vhost.escape_default()), accepted);
    }
    if raw.members_file.is_some() && raw.members != MembersValue::Issued {
        wrong("members", "a list".to_owned(), "nothing, beside `members_file`".to_owned());
    }
    for (key, path) in [
        ("members_file", &raw.members_file),
        ("state_dir", &raw.state_dir),
        ("control", &raw.control),
        ("pki.ca", &raw.pki.ca),
        ("pki.crl", &raw.pki.crl),
        ("pki.certificate", &raw.pki.certificate),
        ("pki.key", &raw.pki.key),
    ] {
        if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
            wrong(key, format!("\"{}\"", path.display()), "an absolute path".to_owned());
        }
    }
    let limits = &raw.limits;
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    for (key, value) in [
        ("heartbeat_s", u64::from(raw.heartbeat_s)),
        ("limits.connections", wide(limits.connections)),
        ("limits.handshakes", wide(limits.handshakes)),
        ("limits.queues", wide(limits.queues)),
        ("limits.bindings", wide(limits.bindings)),
        ("limits.exchanges", wide(limits.exchanges)),
        ("limits.consumers", wide(limits.consumers)),
        ("limits.memory_bytes", wide(limits.memory_bytes)),
        ("limits.outbox_bytes", wide(limits.outbox_bytes)),
        ("limits.host_bytes", wide(limits.host_bytes)),
        ("limits.controller_bytes", wide(limits.controller_bytes)),
        ("limits.disk_bytes", limits.disk_bytes),
    ] {
        let Some((_, least, most)) = BOUNDS.iter().find(|(bounded, ..)| *bounded == key) else { continue };
        if !(least..=most).contains(&&value) {
            wrong(key, value.to_string(), range(*least, *most));
        }
    }
    if let Err(error) = check_filter(&raw.log.filter) {
        wrong("log.filter", format!("\"{}\"", raw.log.filter.escape_default()), error.to_string());
    }
    problems
}

fn range(least: u64, most: u64) -> String {
    format!("a whole number from {least} to {most}")
}
