//! A plugin that can break each promise, and the sentence with which the kit says so.

use std::time::Duration;

use muster_plugin_api::conformance::{Sample, check};
use muster_plugin_api::{
    ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, NotActivated, Plugin, check_options,
};
use muster_protocol::code;
use muster_protocol::ddl::Ddl;
use serde_json::{Map, Value, json};

const DESCRIPTION: &str = r#"{
  "metadata": { "name": "sample", "description": "For a test", "version": "1.0.0" },
  "actions": [{
    "action": "count", "description": "Counts",
    "input": { "to": { "description": "How far", "type": "integer", "default": 3 } },
    "output": { "sum": { "description": "The sum", "display_as": "Sum", "type": "integer" } },
    "muster": { "read_only": true, "supports": { "noop": true, "cancel": true } }
  }],
  "muster": { "data": [{
    "name": "sample", "description": "Asks", "output": { "sum": { "description": "The sum", "type": "integer" } }
  }] }
}"#;

#[derive(Clone, Copy, PartialEq)]
enum Break {
    Nothing,
    Activation,
    UnknownAction,
    Options,
    Key,
    Type,
    NotAnObject,
    Cancel,
    TimeLimit,
    Query,
    Fails,
}

struct Breaking {
    ddl: Ddl,
    what: Break,
}

fn breaking(what: Break) -> Breaking {
    Breaking { ddl: Ddl::parse(DESCRIPTION).unwrap(), what }
}

impl Plugin for Breaking {
    fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    fn activate(&self) -> Result<(), NotActivated> {
        if self.what == Break::Activation { Err(NotActivated::new("there is nothing to count")) } else { Ok(()) }
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            let described = self.ddl.action(&request.action);
            let Some(described) = described else {
                let accepts = self.what == Break::UnknownAction;
                let refusal = ActionFailure::unknown_action(&request.action);
                return if accepts { Ok(ActionOk::data(json!({}))) } else { Err(refusal) };
            };
            if self.what != Break::Options {
                check_options(described, request.noop, request.effective_user.as_deref())?;
            }
            if context.cancel.is_cancelled() {
                let code = if self.what == Break::Cancel { &code::FAILED } else { &code::CANCELLED };
                return Err(ActionFailure::new(code, "it was stopped"));
            }
            if request.time_limit < Duration::from_secs(1) {
                let code = if self.what == Break::TimeLimit { &code::FAILED } else { &code::TIMED_OUT };
                return Err(ActionFailure::new(code, "it takes longer"));
            }
            match self.what {
                Break::Key => Ok(ActionOk::data(json!({ "sum": 6, "total": 6 }))),
                Break::Type => Ok(ActionOk::data(json!({ "sum": "six" }))),
                Break::NotAnObject => Ok(ActionOk::data(json!(6))),
                Break::Fails => Err(ActionFailure::failed("it cannot count")),
                _ => Ok(ActionOk::data(json!({ "sum": 6 }))),
            }
        })
    }

    fn data(
        &self,
        _query: &str,
        _arguments: Map<String, Value>,
        _context: ActionContext,
    ) -> BoxFuture<'_, Result<Option<Value>, ActionFailure>> {
        let answer = if self.what == Break::Query { json!({ "total": 6 }) } else { json!({ "sum": 6 }) };
        Box::pin(std::future::ready(Ok(Some(answer))))
    }
}

fn samples() -> Vec<Sample> {
    vec![Sample::succeeds("count", json!({ "to": 3 })), Sample::query("sample", json!({}))]
}

async fn finds(what: Break, expected: &[&str]) {
    let broken = check(&breaking(what), &samples()).await;
    for sentence in expected {
        assert!(broken.iter().any(|found| found.contains(sentence)), "`{sentence}` is not in {broken:?}");
    }
    assert_eq!(broken.is_empty(), expected.is_empty(), "{broken:?}");
}

#[tokio::test]
async fn each_broken_promise_is_noticed() {
    finds(Break::Nothing, &[]).await;
    finds(Break::Activation, &["it does not activate, so it cannot be checked: there is nothing to count"]).await;
    finds(Break::UnknownAction, &["it accepts an unknown action"]).await;
    finds(Break::Options, &["`count`: it accepts an effective user"]).await;
    finds(Break::Key, &["its answer has `total`, which is not described"]).await;
    finds(Break::Type, &["its answer's `sum` is not of type integer"]).await;
    finds(Break::NotAnObject, &["its data is not an object"]).await;
    finds(Break::Cancel, &["it was cancelled, and it fails with `failed`, not `cancelled`"]).await;
    finds(Break::TimeLimit, &["it had a millisecond, and it fails with `failed`, not `timed-out`"]).await;
    finds(Break::Query, &["`sample`: its answer has `total`, which is not described"]).await;
    finds(Break::Fails, &["it fails: it cannot count"]).await;
}

#[tokio::test]
async fn descriptions_and_samples_are_checked_too() {
    let mut plugin = breaking(Break::Nothing);
    plugin.ddl = Ddl::parse(&DESCRIPTION.replace("\"How far\"", "\"\"").replace("\"1.0.0\"", "\"\"")).unwrap();
    let broken = check(&plugin, &[Sample::succeeds("count", json!({ "too": 3 }))]).await;
    for sentence in [
        "the version is empty",
        "the description of input `to` of `count` is empty",
        "query `sample` has no sample",
        "`count`: the sample does not fit the description: there is no input `too`; the inputs are to",
    ] {
        assert!(broken.iter().any(|found| found == sentence), "`{sentence}` is not in {broken:?}");
    }
    let broken = check(&breaking(Break::Nothing), &[Sample::fails("count", json!({}))]).await;
    assert!(broken.iter().any(|found| found == "`count`: it succeeds, but should fail"), "{broken:?}");
}
