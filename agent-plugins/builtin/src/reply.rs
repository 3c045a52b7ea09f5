//! What all plugins do alike with a request and an answer.

use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionFailure, ActionOk, ActionRequest, builtin_ddls, check_options};
use muster_protocol::code;
use muster_protocol::ddl::Ddl;
use serde::Serialize;
use serde_json::Value;

/// How long a question of a target expression may take. Every host of a collective asks itself
/// before it even knows whether it is meant, so this is short; and shorter than the agent itself
/// waits, so that its log names the question that failed.
pub(crate) const QUERY_TIME_LIMIT: Duration = Duration::from_secs(4);

/// The description of a built-in plugin.
pub(crate) fn description(name: &str) -> &'static Ddl {
    let ddl = builtin_ddls().iter().find(|ddl| ddl.name().as_str() == name);
    ddl.expect("each plugin of this crate has its description in the contract's crate")
}

/// Refuses an action that is not in the description and options that it does not support.
pub(crate) fn check(ddl: &Ddl, request: &ActionRequest) -> Result<(), ActionFailure> {
    let action = ddl.action(&request.action).ok_or_else(|| ActionFailure::unknown_action(&request.action))?;
    check_options(action, request.noop, request.effective_user.as_deref())
}

/// Turns an answer into the output of an action.
pub(crate) fn answer(data: &impl Serialize) -> Result<ActionOk, ActionFailure> {
    let value = serde_json::to_value(data);
    value
        .map(ActionOk::data)
        .map_err(|error| ActionFailure::new(&code::PLUGIN_ERROR, format!("the answer cannot be written: {error}")))
}

/// The same answer for an expression: only the keys of the query, and without nulls, since there a
/// missing value makes a comparison unknown.
pub(crate) fn query_answer(ddl: &Ddl, query: &str, data: &impl Serialize) -> Result<Option<Value>, ActionFailure> {
    Ok(keys_of_query(ddl, query, answer(data)?.data))
}

fn keys_of_query(ddl: &Ddl, query: &str, answer: Value) -> Option<Value> {
    let (Some(described), Value::Object(mut kept)) = (ddl.data_query(query), answer) else { return None };
    kept.retain(|key, value| !value.is_null() && described.output.get(key).is_some());
    Some(Value::Object(kept))
}

/// Waits for work that does not stop by itself, up to the request's time limit or until it is cancelled.
pub(crate) async fn bounded<T>(
    request: &ActionRequest,
    context: &ActionContext,
    work: impl Future<Output = Result<T, ActionFailure>>,
) -> Result<T, ActionFailure> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(ActionFailure::new(&code::CANCELLED, "it was stopped")),
        done = work => done,
        () = tokio::time::sleep(request.time_limit) => {
            let message = format!("it did not end within {:?}", request.time_limit);
            Err(ActionFailure::new(&code::TIMED_OUT, message))
        }
    }
}
