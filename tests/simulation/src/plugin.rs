//! The plugin of the simulated hosts: it does nothing but tell the world.

use std::time::Duration;

use muster_plugin_api::{ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, Plugin};
use muster_protocol::ddl::Ddl;
use muster_protocol::{OutputStream, RequestId};
use serde_json::json;

use crate::world::{Ended, World};

/// What an action can be: name, whether it only reads, whether it can be cancelled.
pub(crate) const ACTIONS: [(&str, bool, bool); 7] = [
    ("read", true, true),
    ("look", true, true),
    ("change", false, true),
    ("stream", false, true),
    ("stubborn", false, false),
    ("panic", false, true),
    ("fail", false, true),
];

/// The words with which the plugin panics, so that nobody takes that for a bug.
pub(crate) const PANIC: &str = "the simulated plugin panics, as it should";

/// The plugin `lab` of one host.
#[derive(Debug)]
pub(crate) struct Lab {
    ddl: Ddl,
    host: usize,
    world: World,
}

impl Lab {
    pub(crate) fn new(host: usize, world: World) -> Self {
        let number = json!({ "prompt": "", "description": "", "type": "integer", "optional": false });
        let actions: Vec<_> = ACTIONS
            .iter()
            .map(|(name, read_only, cancel)| {
                json!({
                    "action": name, "input": { "ms": number, "tag": number }, "output": {},
                    "muster": {
                        "read_only": read_only, "timeout_s": 30, "stop_grace_s": 2,
                        "supports": { "cancel": cancel, "stream": true }
                    }
                })
            })
            .collect();
        let ddl = json!({ "metadata": { "name": "lab", "version": "1.0.0", "timeout": 30 }, "actions": actions });
        Self { ddl: Ddl::parse(&ddl.to_string()).expect("the description is right"), host, world }
    }
}

/// Tells the world of the end, also if the action is dropped.
struct Begun<'a> {
    lab: &'a Lab,
    id: RequestId,
    number: u64,
    ended: Ended,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let ended = if std::thread::panicking() { Ended::Failed } else { self.ended };
        self.lab.world.end(self.lab.host, self.id, self.number, ended);
    }
}

impl Plugin for Lab {
    fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            let action = request.action.as_str();
            let id = request.request_id;
            let number = self.world.start(self.host, id, &request.caller, action, &request.arguments);
            let mut begun = Begun { lab: self, id, number, ended: Ended::Dropped };
            let time = Duration::from_millis(request.arguments["ms"].as_u64().unwrap_or(0));
            let reply = self.work(action, time, &context, number).await;
            begun.ended = if reply.is_ok() { Ended::Done } else { Ended::Failed };
            reply
        })
    }
}

impl Lab {
    async fn work(&self, action: &str, time: Duration, context: &ActionContext, number: u64) -> ActionReply {
        let pieces = if action == "stream" { 8 } else { 1 };
        for piece in 0..pieces {
            let pause = tokio::time::sleep(time / pieces);
            if action == "stubborn" {
                pause.await;
                continue;
            }
            tokio::select! {
                biased;
                () = context.cancel.cancelled() => return Err(ActionFailure::failed("told to stop")),
                () = pause => {}
            }
            if action == "stream" {
                context.output.write(OutputStream::Stdout, format!("piece {piece}\n").into_bytes()).await;
            }
        }
        match action {
            "panic" => panic!("{PANIC}"),
            "fail" => Err(ActionFailure::failed("it did not work").with_exit_code(3)),
            _ => Ok(ActionOk::data(json!({ "start": number }))),
        }
    }
}
