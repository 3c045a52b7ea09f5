//! `package`: software packages, through dpkg or rpm.

mod dpkg;
mod rpm;

use std::fs;
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

/// Where the package managers and their databases are.
#[derive(Debug, Clone)]
pub struct PackagePaths {
    /// Directories with programs.
    pub programs: Vec<PathBuf>,
    /// dpkg's database.
    pub dpkg_database: PathBuf,
    /// Where rpm's database may be.
    pub rpm_databases: Vec<PathBuf>,
}

impl Default for PackagePaths {
    fn default() -> Self {
        Self {
            programs: process::SEARCH_PATH.iter().map(PathBuf::from).collect(),
            dpkg_database: PathBuf::from("/var/lib/dpkg"),
            rpm_databases: vec![PathBuf::from("/usr/lib/sysimage/rpm"), PathBuf::from("/var/lib/rpm")],
        }
    }
}

/// The plugin `package`.
#[derive(Debug)]
pub struct Package {
    paths: PackagePaths,
}

/// The package manager that owns the host, with what is needed to ask it.
#[derive(Debug, PartialEq, Eq)]
enum Manager {
    Dpkg { program: PathBuf, database: PathBuf },
    Rpm { program: PathBuf, database: PathBuf },
}

/// One architecture or parallel version of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Instance {
    ensure: String,
    installed: bool,
    version: String,
    release: Option<String>,
    epoch: Option<u64>,
    arch: String,
    status: String,
}

/// The answer: the keys of the description's output.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Status {
    name: String,
    ensure: String,
    installed: bool,
    version: Option<String>,
    release: Option<String>,
    epoch: Option<u64>,
    arch: Option<String>,
    status: String,
    provider: &'static str,
    instances: Vec<Instance>,
    provided_by: Vec<String>,
}

/// The word for a package that is not there, not even in part.
const ABSENT: &str = "absent";

/// Packages that provide a name are listed up to this number.
const PROVIDERS_MAX: usize = 20;

impl Package {
    /// The plugin, with these paths.
    #[must_use]
    pub fn new(paths: PackagePaths) -> Self {
        Self { paths }
    }

    /// Both programs may be installed; the host belongs to the one whose database has something in it.
    /// Looked up anew each time, since that is as cheap as remembering it and never wrong.
    fn manager(&self) -> Result<Manager, NotActivated> {
        let filled = self.paths.dpkg_database.join("status").metadata().is_ok_and(|meta| meta.len() > 0);
        if let Some(program) = find_program("dpkg-query", &self.paths.programs).filter(|_| filled) {
            return Ok(Manager::Dpkg { program, database: self.paths.dpkg_database.clone() });
        }
        let holds_files = |path: &&PathBuf| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        let database = self.paths.rpm_databases.iter().find(holds_files);
        if let (Some(program), Some(database)) = (find_program("rpm", &self.paths.programs), database) {
            return Ok(Manager::Rpm { program, database: database.clone() });
        }
        Err(NotActivated::new("there is neither dpkg nor rpm with a package database"))
    }

    async fn status(&self, name: &str, limit: Duration, cancel: &CancellationToken) -> Result<Status, ActionFailure> {
        let manager = self.manager().map_err(|not| ActionFailure::new(&code::NOT_ACTIVATED, not.why))?;
        let (provider, instances) = match &manager {
            Manager::Dpkg { program, database } => {
                ("dpkg", dpkg::instances(program, database, name, limit, cancel).await?)
            }
            Manager::Rpm { program, database } => {
                ("rpm", rpm::instances(program, database, name, limit, cancel).await?)
            }
        };
        let provided_by = match (&manager, instances.is_empty()) {
            (_, false) => Vec::new(),
            (Manager::Dpkg { program, database }, true) => {
                dpkg::providers(program, database, name, limit, cancel).await?
            }
            (Manager::Rpm { program, database }, true) => {
                rpm::providers(program, database, name, limit, cancel).await?
            }
        };
        Ok(Status::new(name, provider, instances, provided_by))
    }
}

impl Status {
    /// The first installed instance speaks for the package; where none is, the first.
    fn new(name: &str, provider: &'static str, instances: Vec<Instance>, mut provided_by: Vec<String>) -> Self {
        provided_by.truncate(PROVIDERS_MAX);
        let main = instances.iter().find(|instance| instance.installed).or(instances.first()).cloned();
        let (ensure, status) = match &main {
            Some(main) => (main.ensure.clone(), main.status.clone()),
            None => (ABSENT.to_owned(), ABSENT.to_owned()),
        };
        Self {
            name: name.to_owned(),
            ensure,
            installed: main.as_ref().is_some_and(|main| main.installed),
            version: main.as_ref().map(|main| main.version.clone()),
            release: main.as_ref().and_then(|main| main.release.clone()),
            epoch: main.as_ref().and_then(|main| main.epoch),
            arch: main.as_ref().map(|main| main.arch.clone()),
            status,
            provider,
            instances: if instances.len() > 1 { instances } else { Vec::new() },
            provided_by,
        }
    }

    fn message(&self) -> String {
        match self.provided_by.as_slice() {
            [] => String::new(),
            providers => format!("no package has this name; provided by {}", providers.join(", ")),
        }
    }
}

impl Plugin for Package {
    fn ddl(&self) -> &Ddl {
        reply::description("package")
    }

    fn activate(&self) -> Result<(), NotActivated> {
        self.manager().map(drop)
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            match (request.action.as_str(), request.text("name")) {
                ("status", Some(name)) => {
                    let status = self.status(name, request.time_limit, &context.cancel).await?;
                    Ok(reply::answer(&status)?.with_message(status.message()))
                }
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
            let status = self.status(name, reply::QUERY_TIME_LIMIT, &context.cancel).await?;
            if status.status == ABSENT { Ok(None) } else { reply::query_answer(self.ddl(), &query, &status) }
        })
    }
}
