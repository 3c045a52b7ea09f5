//! `package`: software packages, through apt and dpkg, dnf or yum or zypper and rpm, or apk.
//!
//! # The data and how it flows
//!
//! A request becomes [specs](wanted) with checked names, then a [goal]. [`detect`] finds the
//! [manager](manager::Manager) that owns the host. What the database has ([entry], [dpkg], [rpm], [apk]) and the
//! goal give the tasks; the manager says which programs do them; the [transaction] runs those one after the
//! other, and compares the database before and after ([diff]). Nothing is read from what programs print while
//! they work.
//!
//! # Invariants
//!
//! - A name is checked before it goes into an argument vector, and stands behind `--` there.
//! - What an answer says about a package comes from the database.
//! - Two changes never run at once on one database ([lock]).

mod apk;
mod apt;
mod database;
mod denied;
mod diff;
mod dnf;
mod dpkg;
mod entry;
pub(crate) mod fuzzing;
mod goal;
mod lock;
mod manager;
mod paths;
mod profiles;
mod repositories;
mod rpm;
mod status;
mod transaction;
mod version;
mod wanted;
mod zypper;

use std::time::Duration;

use muster_plugin_api::{
    ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, CancellationToken, NotActivated, Plugin,
    Profile,
};
use muster_protocol::code;
use muster_protocol::ddl::Ddl;
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::database::Asking;
use self::entry::{CONFIG_FILES, Entry};
use self::goal::{Goal, Permits};
use self::manager::{Manager, Update, detect};
use self::status::Status;
use self::transaction::Order;
use self::wanted::{Ensure, ensure, some_specs, specs, without_versions};
use crate::reply;

pub use paths::PackagePaths;

/// Most packages in the answer of `list`: with about 100 bytes each they fit into a report.
const LIST_MAX: usize = 4000;

/// Longest wait for a lock that may be asked for, in seconds: an hour.
const LOCK_TIMEOUT_S_MAX: u64 = 3600;

/// How long a profile may take to make.
const PROFILE_LIMIT: Duration = Duration::from_secs(60);

/// The plugin `package`.
#[derive(Debug)]
pub struct Package {
    paths: PackagePaths,
}

/// The answer of `status` about several packages.
#[derive(Debug, Serialize)]
struct Several {
    provider: &'static str,
    installed: bool,
    packages: Vec<Status>,
}

/// One row of `list`.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    arch: &'a str,
    version: &'a str,
    status: &'a str,
}

impl Package {
    /// The plugin, with these paths.
    #[must_use]
    pub fn new(paths: PackagePaths) -> Self {
        Self { paths }
    }

    fn manager(&self) -> Result<Box<dyn Manager>, ActionFailure> {
        detect(&self.paths).map_err(|not| ActionFailure::new(&code::NOT_ACTIVATED, not.why))
    }

    async fn status(
        manager: &dyn Manager,
        name: &str,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Status, ActionFailure> {
        wanted::check_name(name)?;
        let instances = manager.database().entries(Some(name), Asking { limit, cancel }).await?;
        let provided_by = match instances.is_empty() {
            false => Vec::new(),
            true => manager.database().providers(name, Asking { limit, cancel }).await?,
        };
        Ok(Status::new(name, manager.database().provider(), instances, provided_by))
    }

    async fn statuses(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let names = without_versions(some_specs(request)?, "status")?;
        let manager = self.manager()?;
        let mut found = Vec::new();
        for name in &names {
            found.push(Self::status(&*manager, name, request.time_limit, &context.cancel).await?);
        }
        match found.as_slice() {
            [one] => Ok(reply::answer(one)?.with_message(one.message())),
            _ => {
                let missing: Vec<_> = found.iter().filter(|one| !one.installed).map(|one| one.name.clone()).collect();
                let message = match missing.as_slice() {
                    [] => format!("all {} are installed", found.len()),
                    names => format!("not installed: {}", names.join(", ")),
                };
                let several =
                    Several { provider: manager.database().provider(), installed: missing.is_empty(), packages: found };
                Ok(reply::answer(&several)?.with_message(message))
            }
        }
    }

    async fn entries(
        manager: &dyn Manager,
        request: &ActionRequest,
        context: &ActionContext,
    ) -> Result<Vec<Entry>, ActionFailure> {
        manager.database().entries(None, Asking { limit: request.time_limit, cancel: &context.cancel }).await
    }

    async fn count(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let manager = self.manager()?;
        let entries = Self::entries(&*manager, request, context).await?;
        let installed = entries.iter().filter(|entry| entry.installed).count();
        let configuration = entries.iter().filter(|entry| entry.status == CONFIG_FILES).count();
        let broken = entries.len() - installed - configuration;
        let message = match broken {
            0 => format!("{installed} packages"),
            _ => format!("{installed} packages, and {broken} that are not wholly installed"),
        };
        let data = json!({
            "provider": manager.database().provider(), "installed": installed, "broken": broken, "configuration": configuration,
        });
        Ok(reply::answer(&data)?.with_message(message))
    }

    async fn list(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let manager = self.manager()?;
        let mut entries = Self::entries(&*manager, request, context).await?;
        let part = request.text("contains").unwrap_or_default();
        entries.retain(|entry| entry.name.contains(part));
        entries.sort_by(|a, b| (&a.name, &a.arch, &a.full).cmp(&(&b.name, &b.arch, &b.full)));
        let count = entries.len();
        let rows: Vec<_> = entries.iter().take(LIST_MAX).map(row).collect();
        let left_out = count - rows.len();
        let data = json!({
            "provider": manager.database().provider(), "packages": rows, "count": count, "left_out": left_out,
        });
        let message = match left_out {
            0 => format!("{count} packages"),
            _ => format!("{count} packages, of which {left_out} are left out; `contains` narrows it"),
        };
        Ok(reply::answer(&data)?.with_message(message))
    }

    async fn list_updates(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let manager = self.manager()?;
        let mut updates: Vec<Update> = transaction::updates(&*manager, request.time_limit, context).await?;
        updates.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
        let count = updates.len();
        updates.truncate(LIST_MAX);
        let message = match count {
            0 => "everything is in its newest version, as far as this host knows".to_owned(),
            1 => "1 update".to_owned(),
            _ => format!("{count} updates"),
        };
        let data = json!({
            "provider": manager.database().provider(), "installer": manager.installer(), "updates": updates, "count": count,
            "left_out": count - updates.len(),
        });
        Ok(reply::answer(&data)?.with_message(message))
    }

    async fn change(&self, goal: Goal, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let flag = |name: &str| request.arguments.get(name).and_then(Value::as_bool).unwrap_or(false);
        let order = Order {
            goal,
            permits: Permits { removal: flag("allow_removal"), dependents: flag("dependents") },
            refresh: flag("refresh"),
            lock_timeout: lock_timeout(request)?,
            time_limit: request.time_limit,
        };
        let manager = self.manager()?;
        if request.noop {
            transaction::simulate(&*manager, &order, context).await
        } else {
            transaction::run(&*manager, &order, context).await
        }
    }
}

fn row(entry: &Entry) -> Row<'_> {
    Row { name: &entry.name, arch: &entry.arch, version: &entry.full, status: &entry.status }
}

fn lock_timeout(request: &ActionRequest) -> Result<Duration, ActionFailure> {
    let seconds = request.arguments.get("lock_timeout_s").map_or(Some(300), Value::as_u64);
    match seconds {
        Some(seconds) if seconds <= LOCK_TIMEOUT_S_MAX => Ok(Duration::from_secs(seconds)),
        _ => {
            let message = format!("`lock_timeout_s` is a number of seconds from 0 to {LOCK_TIMEOUT_S_MAX}");
            Err(ActionFailure::new(&code::INVALID_ARGUMENT, message))
        }
    }
}

/// What a changing action is to reach; `None` for an action that changes nothing.
fn goal(request: &ActionRequest) -> Result<Option<Goal>, ActionFailure> {
    Ok(Some(match request.action.as_str() {
        "install" => {
            let mut specs = some_specs(request)?;
            let ensure = ensure(request, &mut specs)?;
            Goal::Ensure(specs, ensure)
        }
        action @ ("remove" | "purge") => {
            let names = without_versions(some_specs(request)?, action)?;
            let specs = names.into_iter().map(|name| wanted::Spec { name, version: None }).collect();
            Goal::Ensure(specs, if action == "purge" { Ensure::Purged } else { Ensure::Absent })
        }
        "update" => {
            let all = request.arguments.get("all").and_then(Value::as_bool).unwrap_or(false);
            if !all {
                Goal::Update(without_versions(some_specs(request)?, "update")?)
            } else if specs(request)?.is_empty() {
                Goal::UpdateAll
            } else {
                let message = "`all=true` and names contradict each other";
                return Err(ActionFailure::new(&code::INVALID_ARGUMENT, message));
            }
        }
        "refresh" => Goal::Refresh,
        _ => return Ok(None),
    }))
}

impl Plugin for Package {
    fn ddl(&self) -> &Ddl {
        reply::description("package")
    }

    fn activate(&self) -> Result<(), NotActivated> {
        detect(&self.paths).map(drop)
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            if let Some(goal) = goal(&request)? {
                return self.change(goal, &request, &context).await;
            }
            match request.action.as_str() {
                "status" => self.statuses(&request, &context).await,
                "count" => self.count(&request, &context).await,
                "list" => self.list(&request, &context).await,
                "list_updates" => self.list_updates(&request, &context).await,
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
            let manager = self.manager()?;
            let status = Self::status(&*manager, name, reply::QUERY_TIME_LIMIT, &context.cancel).await?;
            if status.is_absent() { Ok(None) } else { reply::query_answer(self.ddl(), &query, &status) }
        })
    }

    fn profiles(&self, context: ActionContext) -> BoxFuture<'_, Result<Vec<Profile>, ActionFailure>> {
        Box::pin(async move {
            let manager = self.manager()?;
            let asking = Asking { limit: PROFILE_LIMIT, cancel: &context.cancel };
            let entries = manager.database().entries(None, asking).await?;
            let (repositories, problems) = repositories::read(&manager.sources());
            Ok(vec![
                profiles::packages(manager.database().provider(), &entries),
                profiles::repositories(&repositories, &problems),
            ])
        })
    }
}
