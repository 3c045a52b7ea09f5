//! `plugin`: the plugins of the host themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_plugin_api::{ActionContext, ActionFailure, ActionReply, ActionRequest, BoxFuture, Plugin, PluginStore};
use muster_protocol::ddl::Ddl;
use muster_protocol::{PluginName, code};
use serde_json::json;

use crate::reply;

/// The plugin `plugin`. Everything it does the agent around it does.
#[derive(Debug, Default)]
pub struct PluginManager(());

impl PluginManager {
    /// The plugin.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Plugin for PluginManager {
    fn ddl(&self) -> &Ddl {
        reply::description("plugin")
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            reply::check(self.ddl(), &request)?;
            let store = context.host.plugin_store().ok_or_else(|| {
                ActionFailure::new(&code::NOT_ACTIVATED, "plugins can be looked at and changed in the agent only")
            })?;
            match request.action.as_str() {
                "list" => list(store).await,
                "install" => install(store, &request).await,
                "remove" => remove(store, &request).await,
                _ => Err(ActionFailure::unknown_action(&request.action)),
            }
        })
    }
}

async fn list(store: &dyn PluginStore) -> ActionReply {
    let (plugins, problems) = store.list().await;
    reply::answer(&json!({ "plugins": plugins, "problems": problems }))
}

async fn install(store: &dyn PluginStore, request: &ActionRequest) -> ActionReply {
    let text = request.text("pack").unwrap_or_default();
    let pack = BASE64.decode(text).map_err(|error| {
        ActionFailure::new(&code::INVALID_ARGUMENT, format!("input `pack` takes a file in base64: {error}"))
    })?;
    let allow_any = request.arguments.get("allow_any").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let report = store.install(pack, allow_any, request.noop).await?;
    let message = match (request.noop, report.change.as_str(), &report.reason) {
        (_, "unchanged", _) => format!("{} {} is there already", report.name, report.version),
        (true, change, _) => format!("{} {} would be {change}", report.name, report.version),
        (false, change, None) => format!("{} {} {change}", report.name, report.version),
        (false, change, Some(why)) => {
            format!("{} {} {change}, but it cannot work here: {why}", report.name, report.version)
        }
    };
    Ok(reply::answer(&report)?.with_message(message))
}

async fn remove(store: &dyn PluginStore, request: &ActionRequest) -> ActionReply {
    let name = request.text("name").unwrap_or_default();
    let name = PluginName::new(name)
        .map_err(|error| ActionFailure::new(&code::INVALID_ARGUMENT, format!("input `name`: {error}")))?;
    let report = store.remove(name, request.noop).await?;
    let would = if request.noop { "would be " } else { "" };
    let message = format!("{} {} {would}removed", report.name, report.version);
    Ok(reply::answer(&report)?.with_message(message))
}
