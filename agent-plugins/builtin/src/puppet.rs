//! `puppet`: the Puppet agent, read from the files it keeps. Puppet itself is never started.
//!
//! The plugin is always active: Puppet may be installed long after the agent has started, and
//! "not installed" is an answer worth having from a whole fleet.

mod summary;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, Plugin};
use muster_protocol::Timestamp;
use muster_protocol::ddl::Ddl;
use serde::Serialize;
use serde_json::{Map, Value};
use summary::Summary;

use crate::process::is_executable;
use crate::reply;

/// Where Puppet keeps its files. All places are looked at; what is there counts.
#[derive(Debug, Clone)]
pub struct PuppetPaths {
    /// The program: one of them means that Puppet is installed.
    pub programs: Vec<PathBuf>,
    /// Directories with the lock files, and with the summary up to Puppet 6.
    pub state_directories: Vec<PathBuf>,
    /// Directories with the summary since Puppet 7.
    pub public_directories: Vec<PathBuf>,
    /// Where the daemon leaves its process number.
    pub pid_files: Vec<PathBuf>,
    /// The process table.
    pub processes: PathBuf,
}

impl Default for PuppetPaths {
    fn default() -> Self {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Self {
            programs: paths(&["/opt/puppetlabs/bin/puppet", "/opt/puppetlabs/puppet/bin/puppet", "/usr/bin/puppet"]),
            state_directories: paths(&[
                "/opt/puppetlabs/puppet/cache/state",
                "/var/cache/puppet/state",
                "/var/lib/puppet/state",
            ]),
            public_directories: paths(&[
                "/opt/puppetlabs/puppet/public",
                "/var/cache/puppet/public",
                "/var/lib/puppet/public",
            ]),
            pid_files: paths(&["/run/puppetlabs/agent.pid", "/run/puppet/agent.pid"]),
            processes: PathBuf::from("/proc"),
        }
    }
}

/// Most that is read of one of Puppet's files. A summary has 2 KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The plugin `puppet`.
#[derive(Debug)]
pub struct Puppet {
    paths: PuppetPaths,
}

/// The answer: the keys of the description's output.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Status {
    status: &'static str,
    puppet_installed: bool,
    enabled: Option<bool>,
    disabled_message: String,
    applying: bool,
    idling: bool,
    daemon_present: bool,
    pid: Option<u32>,
    last_run_ms: Option<i64>,
    since_last_run_s: Option<i64>,
    last_run_result: &'static str,
    config_version: Option<String>,
    puppet_version: Option<String>,
    total_resources: Option<u64>,
    changed_resources: Option<u64>,
    failed_resources: Option<u64>,
}

impl Puppet {
    /// The plugin, with these paths.
    #[must_use]
    pub fn new(paths: PuppetPaths) -> Self {
        Self { paths }
    }
}

impl PuppetPaths {
    fn status(&self, now: Timestamp) -> Result<Status, ActionFailure> {
        let run = self.first_alive(self.state_directories.iter().map(|state| state.join("agent_catalog_run.lock")))?;
        let daemon = self.first_alive(self.pid_files.iter().cloned())?;
        let installed = daemon.is_some() || self.programs.iter().any(|program| is_executable(program));
        let disabled = self.disabled_message()?;
        let summary = self.summary()?.unwrap_or_default();
        let (applying, daemon_present) = (run.is_some(), daemon.is_some());
        let status = match (installed, applying, &disabled, daemon_present) {
            (false, ..) => "not_installed",
            (_, true, ..) => "applying",
            (_, _, Some(_), _) => "disabled",
            (_, _, _, true) => "idling",
            _ => "stopped",
        };
        let last_run_ms = summary.last_run_s.map(|seconds| seconds.saturating_mul(1000));
        Ok(Status {
            status,
            puppet_installed: installed,
            enabled: installed.then_some(disabled.is_none()),
            disabled_message: disabled.unwrap_or_default(),
            applying,
            idling: daemon_present && !applying,
            daemon_present,
            pid: run.or(daemon),
            last_run_ms,
            since_last_run_s: last_run_ms.map(|last| now.since_ms(Timestamp(last)).max(0) / 1000),
            last_run_result: summary.result(),
            config_version: summary.config_version,
            puppet_version: summary.puppet_version,
            total_resources: summary.total_resources,
            changed_resources: summary.changed_resources,
            failed_resources: summary.failed_resources,
        })
    }

    /// The process that the first of these files names and that is Puppet's: a process number that
    /// is left over may belong to somebody else by now.
    fn first_alive(&self, files: impl Iterator<Item = PathBuf>) -> Result<Option<u32>, ActionFailure> {
        for file in files {
            let Some(text) = read(&file)? else { continue };
            let Ok(pid) = text.trim().parse::<u32>() else { continue };
            let words = fs::read(self.processes.join(pid.to_string()).join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains("puppet") {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }

    /// Why it is disabled, if it is; the text may be empty.
    fn disabled_message(&self) -> Result<Option<String>, ActionFailure> {
        for state in &self.state_directories {
            let Some(text) = read(&state.join("agent_disabled.lock"))? else { continue };
            let reason = serde_json::from_str::<Value>(&text)
                .ok()
                .and_then(|lock| Some(lock.get("disabled_message")?.as_str()?.to_owned()));
            return Ok(Some(reason.unwrap_or_else(|| text.trim().to_owned())));
        }
        Ok(None)
    }

    /// The newest summary there is.
    fn summary(&self) -> Result<Option<Summary>, ActionFailure> {
        let mut newest: Option<Summary> = None;
        for directory in self.public_directories.iter().chain(&self.state_directories) {
            let path = directory.join("last_run_summary.yaml");
            let Some(text) = read(&path)? else { continue };
            let summary = Summary::parse(&text).map_err(|why| {
                ActionFailure::failed(format!("`{}` is not a summary of a Puppet run: {why}", path.display()))
            })?;
            if newest.as_ref().is_none_or(|other| other.last_run_s < summary.last_run_s) {
                newest = Some(summary);
            }
        }
        Ok(newest)
    }
}

/// The text of a file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, ActionFailure> {
    let text = File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(ActionFailure::failed(format!("`{}` cannot be read: {error}", path.display()))),
    }
}

/// Files can hang, on a dead network disk, so they are not read on the threads that serve the bus.
async fn read_status(paths: &PuppetPaths, now: Timestamp) -> Result<Status, ActionFailure> {
    let paths = paths.clone();
    let status = tokio::task::spawn_blocking(move || paths.status(now)).await;
    status.unwrap_or_else(|_| Err(ActionFailure::new(&muster_protocol::code::PLUGIN_ERROR, "reading the files broke")))
}

impl Plugin for Puppet {
    fn ddl(&self) -> &Ddl {
        reply::description("puppet")
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            let status = reply::bounded(&request, &context, read_status(&self.paths, context.host.now())).await?;
            reply::answer(&status)
        })
    }

    fn data(
        &self,
        query: &str,
        _arguments: Map<String, Value>,
        context: ActionContext,
    ) -> BoxFuture<'_, Result<Option<Value>, ActionFailure>> {
        let query = query.to_owned();
        Box::pin(async move {
            let status = read_status(&self.paths, context.host.now()).await?;
            if status.puppet_installed { reply::query_answer(self.ddl(), &query, &status) } else { Ok(None) }
        })
    }
}
