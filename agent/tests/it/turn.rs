//! Actions that only read get one turn where they were authorized: what comes before what.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_bus::{Cut, Step, Weather};
use muster_plugin_api::{ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, Plugin};
use muster_protocol::ddl::Ddl;
use muster_protocol::{Command, Options, OutputStream};
use serde_json::{Value, json};

use crate::kit::{Controller, Setup, Stage, command, eventually};

/// What happened on the host, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A plugin that looks, when an action of it gets its first turn, what is in the agent's files.
struct Witness {
    ddl: Ddl,
    state: std::path::PathBuf,
    log: Log,
}

impl Witness {
    fn new(stage: &Stage, log: &Log) -> Self {
        let action = |name: &str, read_only: bool| json!({ "action": name, "input": {}, "output": {}, "muster": { "read_only": read_only, "timeout_s": 30 } });
        let ddl = json!({
            "metadata": { "name": "witness", "version": "1.0.0", "timeout": 30 },
            "actions": [
                action("look", true), action("rest", true), action("talk", true), action("spoil", true),
                action("change", false)
            ],
        });
        Self { ddl: Ddl::parse(&ddl.to_string()).unwrap(), state: stage.state.path().join("state"), log: log.clone() }
    }

    /// Whether the request is in the journal, and as allowed in the audit log.
    fn recorded(&self, request: &ActionRequest) -> [bool; 2] {
        let id = request.request_id.to_string();
        let read = |name: &str| std::fs::read_to_string(self.state.join(name)).unwrap();
        let audited = |line: &str| line.contains(&id) && line.contains(r#""decision":"allowed""#);
        [read("journal").contains(&id), read("audit.jsonl").lines().any(audited)]
    }
}

impl Plugin for Witness {
    fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    fn run(&self, request: ActionRequest, context: ActionContext) -> BoxFuture<'_, ActionReply> {
        Box::pin(async move {
            let recorded = self.recorded(&request);
            self.log.add(format!("{} {recorded:?}", request.action));
            match request.action.as_str() {
                "rest" => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    self.log.add("rested");
                }
                "talk" => context.output.write(OutputStream::Stdout, b"said\n".to_vec()).await,
                "spoil" => panic!("the witness spoils"),
                _ => {}
            }
            let status = context.host.agent_status();
            if status.running_actions != 1 {
                return Err(ActionFailure::failed(format!("{} actions run", status.running_actions)));
            }
            Ok(ActionOk::default())
        })
    }
}

fn quiet(stage: &Stage, action: &str) -> Command {
    let options = Options { progress: false, ..Options::default() };
    Command { plugin: "witness".parse().unwrap(), options, ..command(&stage.site.lea, action, json!({})) }
}

/// Takes note of what the host says to the broker, and cuts its connection at the settlement that `cut` names.
fn listen(stage: &Stage, log: &Log, mut cut: Option<Cut>) {
    let (host, log) = (stage.site.web1.identity().clone(), log.clone());
    stage.broker.set_weather(move |identity, step| {
        let mut weather = Weather::default();
        if *identity == host {
            match step {
                Step::Settle => {
                    log.add("acknowledged");
                    weather.cut = cut.take().unwrap_or_default();
                }
                Step::Publish => log.add("answered"),
                _ => {}
            }
        }
        weather
    });
}

async fn begin(stage: &Stage, log: &Log) -> (crate::kit::Running, Controller) {
    let plugin: Arc<dyn Plugin> = Arc::new(Witness::new(stage, log));
    let agent = stage.start(Setup { plugin: Some(plugin), ..Setup::default() }).await;
    let controller = stage.controller(&stage.site.lea).await;
    (agent, controller)
}

#[tokio::test]
async fn what_only_reads_is_recorded_then_runs_and_is_acknowledged_with_its_report() {
    let (stage, log) = (Stage::new(), Log::default());
    let (agent, mut controller) = begin(&stage, &log).await;
    eventually("the first announcement", || match stage.broker.connections(stage.site.web1.identity()) {
        1 => Ok(()),
        count => Err(format!("{count} connections")),
    })
    .await;
    listen(&stage, &log, None);
    for (action, expected, code) in [
        // Over in its first turn.
        ("look", vec!["look [true, true]", "acknowledged", "answered"], "ok"),
        ("talk", vec!["talk [true, true]", "acknowledged", "answered"], "ok"),
        ("spoil", vec!["spoil [true, true]", "acknowledged", "answered"], "plugin-error"),
        // Not over: nobody else waits for it.
        ("rest", vec!["rest [true, true]", "acknowledged", "rested", "answered"], "ok"),
        // What changes something belongs to the journal before it begins.
        ("change", vec!["acknowledged", "change [true, true]", "answered"], "ok"),
    ] {
        let command = quiet(&stage, action);
        log.take();
        controller.send(&command, &stage.site.lea).await;
        let (_, report) = controller.finished(command.id).await;
        assert_eq!(report.sequence, 0);
        let result = report.result.unwrap();
        assert_eq!(result.code, code, "{action}: {}", result.message);
        assert_eq!(log.take(), expected, "{action}");
        if action == "talk" {
            assert_eq!(report.output.iter().map(|chunk| chunk.data.as_str()).collect::<String>(), "said\n");
        }
        let ended = || {
            let lines = decisions(&stage, &command);
            let outcome = if code == "ok" { "finished succeeded" } else { "finished failed" };
            if lines == ["command allowed", outcome] { Ok(()) } else { Err(format!("{lines:?}")) }
        };
        eventually("the end", ended).await;
    }
    // A copy is recognised, also of what was over at once.
    let command = quiet(&stage, "look");
    for expected in ["ok", "replayed"] {
        controller.send(&command, &stage.site.lea).await;
        assert_eq!(controller.code(command.id).await, expected);
    }
    assert_eq!(log.take().iter().filter(|what| what.starts_with("look")).count(), 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_acknowledgement_is_lost_does_not_run_again() {
    for cut in [Cut::Before, Cut::After] {
        let (stage, log) = (Stage::new(), Log::default());
        let (agent, mut controller) = begin(&stage, &log).await;
        listen(&stage, &log, Some(cut));
        let lost = quiet(&stage, "look");
        controller.send(&lost, &stage.site.lea).await;
        // The connection breaks at its acknowledgement, so its answer may not arrive; the next one's does.
        let next = quiet(&stage, "rest");
        controller.send(&next, &stage.site.lea).await;
        let mut report = controller.report().await;
        if report.request_id == lost.id {
            report = controller.report().await;
        }
        assert_eq!((report.request_id, report.result.unwrap().code.as_str()), (next.id, "ok"), "{cut:?}");
        let runs = log.take().into_iter().filter(|what| what.starts_with("look")).count();
        assert_eq!(runs, 1, "{cut:?}");
        let mut expected = vec!["command allowed", "finished succeeded"];
        if cut == Cut::Before {
            // The broker delivered it again, and the journal knew it.
            expected.push("command ignored");
        }
        assert_eq!(decisions(&stage, &lost), expected, "{cut:?}");
        agent.stop().await;
    }
}

fn decisions(stage: &Stage, command: &Command) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = stage.audit();
    let lines = lines.iter().map(|line| &line["details"]).filter(|line| line["request_id"] == command.id.to_string());
    lines.map(|line| format!("{} {}", text(&line["event"]), text(&line["decision"]))).collect()
}
