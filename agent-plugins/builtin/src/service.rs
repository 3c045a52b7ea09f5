//! `service`: services of the operating system, through systemd, OpenRC or SysV init scripts.
//!
//! # The data and how it flows
//!
//! [`Service::managers`] says which service managers own this host. For a name, the first of them that knows it gives
//! its state, does what is asked, and says what became of it ([`manager`]); [`change`] decides what there is to do,
//! waits until the service is in the wanted state, and puts together what was before and after. Names are checked in
//! [`name`] once more, whatever the description let through.
//!
//! # Invariants
//!
//! - A name never becomes an option, a path or a pattern of a program.
//! - What became of a job is data: systemd's own word for it, or an exit code; never text that was looked through.
//! - Asked for a state that the service is in already, nothing is done to it.

mod change;
pub(crate) mod fuzzing;
mod manager;
mod name;
mod openrc;
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
use tokio::time::Instant;

use self::change::{Change, Step};
use self::manager::{Bounds, Condition, Found, Listed, Manager, State, words};
use crate::process;
use crate::reply;

/// Services that one answer lists. A host with more has a mistake; the answer must fit into a message.
const LISTED_MAX: usize = 3000;

/// Where the service managers are.
#[derive(Debug, Clone)]
pub struct ServicePaths {
    /// Directories with programs.
    pub programs: Vec<PathBuf>,
    /// Exists exactly where systemd is process 1 (sd_booted(3)).
    pub systemd_runtime: PathBuf,
    /// Socket of the system bus.
    pub system_bus: PathBuf,
    /// Exists exactly where OpenRC has booted: its runlevel is in `softlevel` there, its marks in directories.
    pub openrc_runtime: PathBuf,
    /// OpenRC's runlevels: a directory each.
    pub openrc_runlevels: PathBuf,
    /// Init scripts, of SysV and of OpenRC.
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
            system_bus: PathBuf::from("/run/dbus/system_bus_socket"),
            openrc_runtime: PathBuf::from("/run/openrc"),
            openrc_runlevels: PathBuf::from("/etc/runlevels"),
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

/// The answer of `status`: the keys of the description's output.
#[derive(Debug, PartialEq, Serialize)]
struct Status {
    name: String,
    status: Condition,
    enabled: Option<bool>,
    enabled_state: String,
    pid: Option<u32>,
    since_ms: Option<i64>,
    state: String,
    unit: String,
    provider: &'static str,
    active: Option<String>,
    sub: Option<String>,
    result: Option<String>,
    exit_code: Option<i32>,
    restarts: Option<u64>,
}

impl Status {
    fn of(name: &str, provider: &'static str, found: Found) -> Self {
        let state = words(&found.state);
        let State { status, active, sub, enabled, enabled_state, pid, since_ms, result, exit_code, restarts } =
            found.state;
        let (name, unit) = (name.to_owned(), found.unit);
        Self {
            name,
            status,
            enabled,
            enabled_state,
            pid,
            since_ms,
            state,
            unit,
            provider,
            active,
            sub,
            result,
            exit_code,
            restarts,
        }
    }

    /// The answer about a service that is not there: an answer, not a failure, as about packages.
    fn absent(name: &str, provider: &'static str) -> Self {
        let absent = Condition::Absent.word();
        Self {
            name: name.to_owned(),
            status: Condition::Absent,
            enabled: None,
            enabled_state: absent.to_owned(),
            pid: None,
            since_ms: None,
            state: absent.to_owned(),
            unit: String::new(),
            provider,
            active: None,
            sub: None,
            result: None,
            exit_code: None,
            restarts: None,
        }
    }
}

/// The answer of `list`.
#[derive(Debug, Serialize)]
struct List {
    services: Vec<Listed>,
    count: usize,
    is_complete: bool,
}

type Managers = Vec<Box<dyn Manager>>;

impl Service {
    /// The plugin, with these paths.
    #[must_use]
    pub fn new(paths: ServicePaths) -> Self {
        Self { paths }
    }

    /// The service managers of the host, in the order in which they are asked about a name.
    ///
    /// A systemd or OpenRC that runs owns the host alone: both know the init scripts too. Where neither runs, as in
    /// containers, init scripts are run by hand, and for names without one the unit files are there to be enabled.
    fn managers(&self) -> Result<Managers, NotActivated> {
        fn boxed(manager: impl Manager + 'static) -> Box<dyn Manager> {
            Box::new(manager)
        }
        let paths = &self.paths;
        if paths.systemd_runtime.is_dir() {
            let manager = systemd::Systemd::new(paths).map(boxed);
            let manager = manager.ok_or_else(|| NotActivated::new("systemd runs, but there is no systemctl"))?;
            return Ok(vec![manager]);
        }
        if paths.openrc_runtime.join("softlevel").exists() {
            let manager = openrc::OpenRc::new(paths).map(boxed);
            let manager = manager.ok_or_else(|| NotActivated::new("OpenRC runs, but there is no rc-service"))?;
            return Ok(vec![manager]);
        }
        let scripts = sysv::Sysv::new(paths).map(boxed);
        let offline = systemd::Offline::new(paths).map(boxed);
        let managers: Managers = scripts.into_iter().chain(offline).collect();
        if managers.is_empty() {
            return Err(NotActivated::new("neither systemd nor OpenRC runs here, and there are no init scripts"));
        }
        Ok(managers)
    }

    fn managers_now(&self) -> Result<Managers, ActionFailure> {
        self.managers().map_err(|not| ActionFailure::new(&code::NOT_ACTIVATED, not.why))
    }

    /// The answer to the question for a state; `None` where there is no such service.
    async fn status(
        &self,
        name: &str,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Option<Status>, ActionFailure> {
        name::check(name)?;
        let managers = self.managers_now()?;
        let found = find(&managers, name, Bounds::within(limit, cancel)).await?;
        Ok(found.map(|(manager, found)| Status::of(name, manager.provider(), found)))
    }

    async fn list(&self, request: &ActionRequest, cancel: &CancellationToken) -> ActionReply {
        let bounds = Bounds::within(request.time_limit, cancel);
        let part = request.text("match").unwrap_or_default().to_lowercase();
        let status = request.text("status").unwrap_or("any");
        let mut services: Vec<Listed> = Vec::new();
        for manager in self.managers_now()? {
            for service in manager.list(bounds).await? {
                // A name that an earlier manager has answers there, also when it is asked for alone.
                let is_new = !services.iter().any(|other| other.name == service.name);
                let fits =
                    service.name.to_lowercase().contains(&part) && (status == "any" || service.status.word() == status);
                if is_new && fits {
                    services.push(service);
                }
            }
        }
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let count = services.len();
        services.truncate(LISTED_MAX);
        let is_complete = services.len() == count;
        reply::answer(&List { services, count, is_complete })
    }

    async fn change(
        &self,
        name: &str,
        steps: &[Step],
        request: &ActionRequest,
        cancel: &CancellationToken,
    ) -> ActionReply {
        let started = Instant::now();
        name::check(name)?;
        name::check_change(name)?;
        if request.arguments.get("wait_s").is_some_and(|wait| wait.as_u64().is_none_or(|seconds| seconds == 0)) {
            return Err(ActionFailure::new(&code::INVALID_ARGUMENT, "`wait_s` takes a whole number of at least 1"));
        }
        let managers = self.managers_now()?;
        let Some((manager, found)) = find(&managers, name, Bounds::within(request.time_limit, cancel)).await? else {
            return Err(ActionFailure::new(&code::UNKNOWN_SERVICE, format!("there is no service `{name}` here")));
        };
        let change = Change::new(manager, request, cancel, name, found, started);
        if request.noop { change.noop(steps) } else { change.make(steps).await }
    }
}

/// The first manager that knows the name, and what it knows.
async fn find<'a>(
    managers: &'a [Box<dyn Manager>],
    name: &str,
    bounds: Bounds<'_>,
) -> Result<Option<(&'a dyn Manager, Found)>, ActionFailure> {
    for manager in managers {
        if let Some(found) = manager.find(name, bounds).await? {
            return Ok(Some((manager.as_ref(), found)));
        }
    }
    Ok(None)
}

impl Plugin for Service {
    fn ddl(&self) -> &Ddl {
        reply::description("service")
    }

    fn activate(&self) -> Result<(), NotActivated> {
        self.managers().map(drop)
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            let name = request.text("name").unwrap_or_default();
            let now = request.arguments.get("now").and_then(Value::as_bool).unwrap_or_default();
            match request.action.as_str() {
                "status" => match self.status(name, request.time_limit, &context.cancel).await? {
                    Some(status) => reply::answer(&status),
                    None => {
                        let managers = self.managers_now()?;
                        let provider = managers.first().map_or("none", |manager| manager.provider());
                        reply::answer(&Status::absent(name, provider))
                    }
                },
                "list" => self.list(&request, &context.cancel).await,
                action => match Step::of(action, now) {
                    [] => Err(ActionFailure::unknown_action(&request.action)),
                    steps => self.change(name, steps, &request, &context.cancel).await,
                },
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
