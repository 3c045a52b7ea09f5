//! `puppet`: the Puppet agent on this host: how it is doing, whether it may run, and one run of it.
//!
//! # The data and how it flows
//!
//! Everything but `runonce` works on the files that Puppet keeps for others to see: lock files
//! ([`lock`], [`disabled`]), the summary and the report of the last run ([`summary`], [`report`],
//! together [`last_run`]), the list of resources ([`resources`]). Where they are follows from the
//! installation and `puppet.conf` ([`paths`], [`configuration`]). `runonce` starts
//! `puppet agent --onetime`, hands on what it prints, and answers with what these files say afterwards.
//!
//! The plugin is always active: Puppet may be installed long after the agent has started, and
//! "not installed" is an answer worth having from a whole fleet.
//!
//! # Non-goals
//!
//! No reading of what Puppet prints: it is for people. No other server than the configured one: who
//! may start a run must not choose where its catalog comes from. No `puppet resource`: it would be a
//! way around everything Puppet's catalogs are reviewed for.
//!
//! # Invariants
//!
//! - Puppet decides whether it may run; this plugin only asks earlier, and never takes a lock that
//!   Puppet takes as held.
//! - Nothing is started to answer `status`, a question of an expression, or anything else that reads.

mod arguments;
mod configuration;
mod disabled;
mod files;
pub(crate) mod fuzzing;
mod last_run;
mod lock;
mod paths;
mod report;
mod resources;
mod runonce;
mod status;
mod summary;
mod waiting;

use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, Plugin};
use muster_protocol::ddl::Ddl;
use muster_protocol::{Timestamp, code};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

pub use paths::{PuppetInstallation, PuppetPaths};

use crate::reply;
use last_run::LastRun;
use resources::TypeCount;
use status::{Running, Status};

/// How many types of resources are told.
const TYPES_MAX: usize = 100;

/// The plugin `puppet`.
#[derive(Debug)]
pub struct Puppet {
    paths: PuppetPaths,
}

/// What `resource_count` answers.
#[derive(Debug, Serialize)]
struct Counted {
    total_resources: Option<u64>,
    types: Vec<TypeCount>,
    top_type: Option<TypeCount>,
    catalog_ms: Option<i64>,
    resource: Option<String>,
    managed: Option<bool>,
}

impl Puppet {
    /// The plugin, with these paths.
    #[must_use]
    pub fn new(paths: PuppetPaths) -> Self {
        Self { paths }
    }

    async fn act(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let now = context.host.now();
        let paths = self.paths.clone();
        match request.action.as_str() {
            "status" => reply::answer(&blocking(move || Status::read(&paths, now)).await?),
            "is_running" => reply::answer(&blocking(move || Running::read(&paths, now)).await?),
            "last_run_summary" => {
                let details = request.arguments.get("logs").and_then(Value::as_bool).unwrap_or_default();
                blocking(move || last_run_summary(&paths, now, details)).await
            }
            "resource_count" => {
                let resource = request.text("resource").map(str::to_owned);
                reply::answer(&blocking(move || count(&paths, resource)).await?)
            }
            "enable" => {
                let request = request.clone();
                reply::answer(&blocking(move || disabled::enable(&paths.required()?.disabled_lock, &request)).await?)
            }
            "disable" => {
                let request = request.clone();
                let disable = move || disabled::disable(&paths.required()?.disabled_lock, &request, now);
                reply::answer(&blocking(disable).await?)
            }
            _ => Err(ActionFailure::unknown_action(&request.action)),
        }
    }

    async fn wait(&self, request: &ActionRequest, context: &ActionContext) -> ActionReply {
        let deadline = Instant::now() + request.time_limit;
        let paths = self.paths.clone();
        let files = blocking(move || paths.installed()).await?;
        let Some(files) = files else {
            return reply::answer(&waiting::WaitAnswer::new(&waiting::Waited::default(), &LastRun::default()));
        };
        let waited = waiting::until_free(&self.paths, &files, deadline, context).await?;
        let last = blocking(move || LastRun::read(&files)).await?.unwrap_or_default();
        reply::answer(&waiting::WaitAnswer::new(&waited, &last))
    }
}

/// Files can hang, on a dead network disk, so they are not read on the threads that serve the bus.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ActionFailure> + Send + 'static,
) -> Result<T, ActionFailure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ActionFailure::new(&code::PLUGIN_ERROR, "working on Puppet's files broke")))
}

fn last_run_summary(paths: &PuppetPaths, now: Timestamp, details: bool) -> ActionReply {
    let last = match paths.installed()? {
        Some(files) => LastRun::read(&files)?,
        None => None,
    };
    reply::answer(&last.unwrap_or_default().told(now, details))
}

fn count(paths: &PuppetPaths, resource: Option<String>) -> Result<Counted, ActionFailure> {
    let files = paths.installed()?;
    let listed = match &files {
        Some(files) => files::text(&files.resources)?,
        None => None,
    };
    let counted = listed.as_deref().map(resources::count);
    let mut types = counted.as_ref().map(|(_, types)| types.clone()).unwrap_or_default();
    types.truncate(TYPES_MAX);
    let managed = resource.as_ref().map(|resource| resources::manages(listed.as_deref().unwrap_or_default(), resource));
    Ok(Counted {
        total_resources: counted.map(|(total, _)| total),
        top_type: types.first().cloned(),
        types,
        catalog_ms: files.and_then(|files| files::written_ms(&files.resources)),
        resource,
        managed,
    })
}

impl Plugin for Puppet {
    fn ddl(&self) -> &Ddl {
        reply::description("puppet")
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            match request.action.as_str() {
                // Both know what to do when the time is over.
                "runonce" => runonce::runonce(&self.paths, &request, &context).await,
                "wait" => self.wait(&request, &context).await,
                _ => reply::bounded(&request, &context, self.act(&request, &context)).await,
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
            let (paths, now) = (self.paths.clone(), context.host.now());
            if query == "resource" {
                let resource = arguments.get("name").and_then(Value::as_str).map(str::to_owned);
                let counted = blocking(move || count(&paths, resource)).await?;
                let Some(total) = counted.total_resources else { return Ok(None) };
                let answer = json!({ "managed": counted.managed, "total_resources": total });
                return reply::query_answer(self.ddl(), &query, &answer);
            }
            let status = blocking(move || Status::read(&paths, now)).await?;
            if status.puppet_installed { reply::query_answer(self.ddl(), &query, &status) } else { Ok(None) }
        })
    }
}
