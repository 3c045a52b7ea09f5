//! `service`: services, through systemd or SysV init scripts.

mod systemd;
mod sysv;

use std::path::PathBuf;
use std::time::Duration;

use muster_plugin_api::{
    ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, CancellationToken, NotActivated, Plugin,
};
use muster_protocol::code;
use muster_protocol::ddl::Ddl;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::process::{self, find_program};
use crate::reply;

/// Where the service managers are.
#[derive(Debug, Clone)]
pub struct ServicePaths {
    /// Directories with programs.
    pub programs: Vec<PathBuf>,
    /// Exists exactly where systemd is process 1 (sd_booted(3)).
    pub systemd_runtime: PathBuf,
    /// Init scripts.
    pub init_scripts: PathBuf,
    /// The directory that holds `rc2.d` and its siblings.
    pub runlevels: PathBuf,
    /// Where services leave their process numbers.
    pub pid_files: PathBuf,
    /// The process table.
    pub processes: PathBuf,
}

impl Default for ServicePaths {
    fn default() -> Self {
        Self {
            programs: process::SEARCH_PATH.iter().map(PathBuf::from).collect(),
            systemd_runtime: PathBuf::from("/run/systemd/system"),
            init_scripts: PathBuf::from("/etc/init.d"),
            runlevels: PathBuf::from("/etc"),
            pid_files: PathBuf::from("/run"),
            processes: PathBuf::from("/proc"),
        }
    }
}

/// The plugin `service`.
#[derive(Debug)]
pub struct Service {
    paths: ServicePaths,
}

/// The service manager of the host.
enum Manager {
    Systemd { systemctl: PathBuf },
    Sysv,
}

/// The answer: the keys of the description's output.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Status {
    name: String,
    status: &'static str,
    enabled: Option<bool>,
    enabled_state: String,
    pid: Option<u32>,
    since_ms: Option<i64>,
    state: String,
    unit: String,
    provider: &'static str,
}

impl Service {
    /// The plugin, with these paths.
    #[must_use]
    pub fn new(paths: ServicePaths) -> Self {
        Self { paths }
    }

    fn manager(&self) -> Result<Manager, NotActivated> {
        if self.paths.systemd_runtime.is_dir() {
            let systemctl = find_program("systemctl", &self.paths.programs);
            let systemctl = systemctl.ok_or_else(|| NotActivated::new("systemd runs, but there is no systemctl"))?;
            return Ok(Manager::Systemd { systemctl });
        }
        if self.paths.init_scripts.is_dir() {
            return Ok(Manager::Sysv);
        }
        Err(NotActivated::new("systemd does not run here and there are no init scripts"))
    }

    /// The answer about a service that is not there: an answer, not a failure, as about packages.
    fn absent(&self, name: &str) -> Status {
        let provider = match self.manager() {
            Ok(Manager::Systemd { .. }) => "systemd",
            Ok(Manager::Sysv) | Err(_) => "sysv",
        };
        Status {
            name: name.to_owned(),
            status: "absent",
            enabled: None,
            enabled_state: "absent".to_owned(),
            pid: None,
            since_ms: None,
            state: "absent".to_owned(),
            unit: String::new(),
            provider,
        }
    }

    /// `None` where there is no such service.
    async fn status(
        &self,
        name: &str,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Option<Status>, ActionFailure> {
        match self.manager().map_err(|not| ActionFailure::new(&code::NOT_ACTIVATED, not.why))? {
            Manager::Systemd { systemctl } => systemd::status(&systemctl, name, limit, cancel).await,
            Manager::Sysv => sysv::status(&self.paths, name, limit, cancel).await,
        }
    }
}

impl Plugin for Service {
    fn ddl(&self) -> &Ddl {
        reply::description("service")
    }

    fn activate(&self) -> Result<(), NotActivated> {
        self.manager().map(drop)
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            match (request.action.as_str(), request.text("name")) {
                ("status", Some(name)) => match self.status(name, request.time_limit, &context.cancel).await? {
                    Some(status) => reply::answer(&status),
                    None => reply::answer(&self.absent(name)),
                },
                _ => Err(ActionFailure::unknown_action(&request.action)),
            }
        })
    }

    fn data(
        &self,
        query: &str,
        arguments: Map<String, Value>,
        context: ActionContext,
    ) -> BoxFuture<'_, Result<Option<Value>, ActionFailure>> {
        let query = query.to_owned();
        Box::pin(async move {
            let name = arguments.get("name").and_then(Value::as_str).unwrap_or_default();
            match self.status(name, reply::QUERY_TIME_LIMIT, &context.cancel).await? {
                Some(status) => reply::query_answer(self.ddl(), &query, &status),
                None => Ok(None),
            }
        })
    }
}
