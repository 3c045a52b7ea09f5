//! Actions in processes of their own: whole agents on a bus in memory, and real processes that run the test's
//! plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_agent::detached::directory::{Begun, Found};
use muster_agent::detached::{ActionDirectory, Runner, run_action};
use muster_agent::status::show;
use muster_daemon::ManualClock;
use muster_protocol::{
    ActionResult, Command, Encoding, Options, Outcome, OutputStream, ProgressReport, ReportState, RequestId, Target,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::kit::{Controller, Lab, NOW, Running, Setup, Stage, cancel, command, eventually, pieces, route, watch};

const AS_RUNNER: &str = "MUSTER_TEST_AS_RUNNER";

/// This test program, as the runner of one action: see [`as_a_runner`].
fn runner() -> Runner {
    Runner {
        program: std::env::current_exe().unwrap(),
        arguments: ["--exact", "--nocapture", "detached::as_a_runner"].map(Into::into).to_vec(),
        environment: vec![(AS_RUNNER.into(), "1".into())],
    }
}

/// Not a test of its own: in the processes that the other tests start it runs the action.
#[test]
fn as_a_runner() {
    if std::env::var_os(AS_RUNNER).is_none() {
        return;
    }
    let directory = PathBuf::from(std::env::args_os().next_back().unwrap());
    let clock = Arc::new(ManualClock::new(NOW.as_millis()));
    run_action(&directory, clock, |_| Ok(Arc::new(Lab::new()))).unwrap();
}

fn setup() -> Setup {
    Setup { runner: Some(runner()), ..Setup::default() }
}

fn directory(stage: &Stage, id: RequestId) -> ActionDirectory {
    ActionDirectory::of(&stage.state.path().join("state/actions"), id)
}

async fn begun(stage: &Stage, id: RequestId) -> Begun {
    let mut begun = None;
    eventually("the action begins", || match directory(stage, id).begun() {
        Found::There(found) => {
            begun = Some(found);
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    begun.unwrap()
}

/// Whether a process runs; one that is over and was not taken away by its parent does not.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// What a controller has of one request.
#[derive(Debug, Default)]
struct Collected {
    reports: BTreeMap<u32, ProgressReport>,
    repeats: usize,
}

impl Collected {
    /// Takes a report. One that comes again has to be the same, but for the time it was made.
    fn take(&mut self, report: ProgressReport) {
        if let Some(before) = self.reports.get(&report.sequence) {
            let (state, output, result) = (&before.state, &before.output, &before.result);
            assert_eq!((state, output, result), (&report.state, &report.output, &report.result), "under one number");
            self.repeats += 1;
        }
        self.reports.insert(report.sequence, report);
    }

    /// Reads until the last report, and after it whatever else comes before a ping's answer.
    async fn finish(&mut self, controller: &mut Controller, id: RequestId) -> ActionResult {
        loop {
            if let Some(result) = self.next(controller, id).await {
                return result;
            }
        }
    }

    async fn next(&mut self, controller: &mut Controller, id: RequestId) -> Option<ActionResult> {
        let report = controller.report().await;
        assert_eq!(report.request_id, id, "an answer to another request: {report:?}");
        let result = report.result.clone();
        self.take(report);
        result
    }

    /// Checks that no number is missing and only the last report ends it; gives the bytes of a stream, which
    /// have to be there without a gap.
    fn bytes(&self, stream: OutputStream) -> Vec<u8> {
        let last = self.reports.len() - 1;
        let mut bytes = Vec::new();
        for (at, (sequence, report)) in self.reports.iter().enumerate() {
            assert_eq!(at, *sequence as usize, "a number is missing");
            assert_eq!(at == last, report.state == ReportState::Finished, "{sequence}");
            for chunk in report.output.iter().filter(|chunk| chunk.stream == stream) {
                assert_eq!(chunk.offset, bytes.len() as u64, "output is missing or comes twice, in report {sequence}");
                match chunk.encoding {
                    Encoding::Text => bytes.extend_from_slice(chunk.data.as_bytes()),
                    Encoding::Base64 => bytes.extend(BASE64.decode(&chunk.data).unwrap()),
                }
            }
        }
        bytes
    }

    #[track_caller]
    fn check_output(&self, kind: &str, count: usize, bytes: usize) {
        for (stream, odd) in [(OutputStream::Stdout, false), (OutputStream::Stderr, true)] {
            let (found, expected) = (self.bytes(stream), pieces(kind, count, bytes, odd));
            assert!(found == expected, "{stream:?}: {} bytes, expected {}", found.len(), expected.len());
        }
    }
}

fn long(stage: &Stage, count: usize, bytes: usize, more: Value) -> Command {
    let mut arguments = json!({ "pieces": count, "bytes": bytes });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    command(&stage.site.lea, "long", arguments)
}

fn gate(stage: &Stage) -> PathBuf {
    stage.state.path().join("gate")
}

fn open(stage: &Stage) {
    std::fs::write(gate(stage), "").unwrap();
}

/// That nothing else comes for a request: a ping sent now is answered next.
async fn nothing_more(stage: &Stage, controller: &mut Controller) {
    let mut ping = command(&stage.site.lea, "read", json!({}));
    ping.options.progress = false;
    controller.send(&ping, &stage.site.lea).await;
    assert_eq!(controller.report().await.request_id, ping.id, "one report too many");
}

async fn stage_with_agent(setup: Setup) -> (Stage, Running, Controller) {
    let stage = Stage::new();
    let agent = stage.start(setup).await;
    let controller = stage.controller(&stage.site.lea).await;
    (stage, agent, controller)
}

#[tokio::test]
async fn output_and_end_of_an_action_in_its_own_process_are_told_completely_and_once() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    for (kind, count, bytes) in [("text", 40, 3_001), ("binary", 5, 100_000), ("text", 1, 1)] {
        let command = long(&stage, count, bytes, json!({ "kind": kind }));
        controller.send(&command, &stage.site.lea).await;
        let mut collected = Collected::default();
        let result = collected.finish(&mut controller, command.id).await;
        assert_eq!((result.outcome, result.code.as_str()), (Outcome::Succeeded, "ok"), "{}", result.message);
        assert_eq!((result.data, result.truncated_from_bytes), (json!({ "pieces": count }), None));
        assert!(collected.reports[&0].output.is_empty(), "it says at once that it has begun");
        collected.check_output(kind, count, bytes);
        assert_eq!(collected.repeats, 0);
        let directory = directory(&stage, command.id);
        let Found::There(order) = directory.order() else { panic!("no order") };
        assert_eq!((order.caller, order.reply_to), (command.caller.clone(), route(&stage.site.lea)));
        assert!(!directory.work().exists());
    }
    nothing_more(&stage, &mut controller).await;
    let audit = stage.audit();
    assert_eq!(audit.iter().filter(|line| line["details"]["event"] == "finished").count(), 4, "{audit:#?}");
    assert_eq!(agent.stop().await.interrupted, 0);
}

#[tokio::test]
async fn without_progress_the_end_carries_what_fits() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    for (count, cut) in [(4, false), (400, true)] {
        let mut command = long(&stage, count, 1_000, json!({}));
        command.options = Options { progress: false, ..Options::default() };
        controller.send(&command, &stage.site.lea).await;
        let mut collected = Collected::default();
        let result = collected.finish(&mut controller, command.id).await;
        assert_eq!(collected.reports.len(), 1);
        assert_eq!(result.truncated_from_bytes.is_some(), cut);
        let (found, all) = (collected.bytes(OutputStream::Stdout), pieces("text", count, 1_000, false));
        assert!(all.starts_with(&found) && (found.len() == all.len() || found.len() >= 64 * 1024), "{}", found.len());
    }
    agent.stop().await;
}

#[tokio::test]
async fn an_action_goes_on_while_its_agent_is_away_and_the_reports_continue() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let command = long(&stage, 31, 10_000, json!({ "gate": gate(&stage) }));
    controller.send(&command, &stage.site.lea).await;
    let mut collected = Collected::default();
    while collected.reports.len() < 2 {
        assert_eq!(collected.next(&mut controller, command.id).await, None);
    }
    let runner = begun(&stage, command.id).await;
    let stopped = agent.stop().await;
    assert_eq!((stopped.interrupted, stopped.reports_left), (0, 0));
    assert!(directory(&stage, command.id).try_lock().unwrap().is_none(), "it runs on");
    // Once more in between, so that it is found three times.
    stage.start(setup()).await.stop().await;
    let agent = stage.start(setup()).await;
    assert_eq!(begun(&stage, command.id).await, runner, "nothing was started again");
    open(&stage);
    let result = collected.finish(&mut controller, command.id).await;
    assert_eq!((result.code.as_str(), result.truncated_from_bytes), ("ok", None), "{}", result.message);
    collected.check_output("text", 31, 10_000);
    nothing_more(&stage, &mut controller).await;
    agent.stop().await;
    // The request is over for good.
    let agent = stage.start(setup()).await;
    nothing_more(&stage, &mut controller).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_ended_while_the_agent_was_away_is_told_when_it_is_back() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let command = long(&stage, 3, 70_000, json!({ "gate": gate(&stage), "kind": "binary" }));
    controller.send(&command, &stage.site.lea).await;
    begun(&stage, command.id).await;
    agent.stop().await;
    open(&stage);
    eventually("the action ends", || match directory(&stage, command.id).try_lock() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let agent = stage.start(setup()).await;
    let mut collected = Collected::default();
    let result = collected.finish(&mut controller, command.id).await;
    assert_eq!(result.code, "ok");
    collected.check_output("binary", 3, 70_000);
    agent.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_killed_is_reported_with_what_there_is_and_its_processes_end() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    for restart in [false, true] {
        let command = command(&stage.site.lea, "leave", json!({}));
        controller.send(&command, &stage.site.lea).await;
        let mut collected = Collected::default();
        while collected.reports.len() < 2 {
            assert_eq!(collected.next(&mut controller, command.id).await, None);
        }
        let runner = begun(&stage, command.id).await;
        let programs = std::fs::read_to_string(directory(&stage, command.id).programs()).unwrap();
        let shell: i32 = programs.split(' ').next().unwrap().parse().unwrap();
        if restart {
            // Killed while nobody watches.
            break;
        }
        kill(Pid::from_raw(runner.pid), Signal::SIGKILL).unwrap();
        let result = collected.finish(&mut controller, command.id).await;
        assert_eq!((result.outcome, result.code.as_str()), (Outcome::Interrupted, "interrupted"));
        assert!(result.message.contains("was killed") && result.message.contains("2 processes"), "{}", result.message);
        assert_eq!(collected.bytes(OutputStream::Stdout), b"started\n");
        assert!(!lives(shell), "its shell lives");
    }
    agent.stop().await;
    let found = stage.state.path().join("state/actions");
    let runners: Vec<Begun> = std::fs::read_dir(&found)
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            match (ActionDirectory::at(&entry.path()).has_reply(), ActionDirectory::at(&entry.path()).begun()) {
                (false, Found::There(begun)) => Some(begun),
                _ => None,
            }
        })
        .collect();
    assert_eq!(runners.len(), 1);
    kill(Pid::from_raw(runners[0].pid), Signal::SIGKILL).unwrap();
    let agent = stage.start(setup()).await;
    let report = loop {
        let report = controller.report().await;
        if report.state == ReportState::Finished {
            break report;
        }
    };
    assert_eq!(report.result.unwrap().code, "interrupted");
    agent.stop().await;
}

#[tokio::test]
async fn after_a_restart_of_the_host_an_action_is_interrupted() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let command = long(&stage, 3, 100, json!({ "gate": gate(&stage) }));
    controller.send(&command, &stage.site.lea).await;
    let runner = begun(&stage, command.id).await;
    agent.stop().await;
    kill(Pid::from_raw(runner.pid), Signal::SIGKILL).unwrap();
    let directory = directory(&stage, command.id);
    eventually("the runner ends", || match directory.try_lock() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let other = Begun { boot_id: "another".to_owned(), ..runner };
    std::fs::write(directory.path().join("begun.json"), serde_json::to_vec(&other).unwrap()).unwrap();
    // Half a frame, as a crash leaves it.
    let mut output = std::fs::read(directory.output()).unwrap();
    output.extend_from_slice(&[1, 200, 0, 0, 0, 7]);
    std::fs::write(directory.output(), output).unwrap();
    let agent = stage.start(setup()).await;
    let (_, last) = controller.finished(command.id).await;
    let result = last.result.unwrap();
    assert_eq!(result.code, "interrupted");
    assert!(result.message.contains("the host restarted"), "{}", result.message);
    nothing_more(&stage, &mut controller).await;
    agent.stop().await;
}

#[tokio::test]
async fn cancelling_stops_it_once_and_says_by_whom() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    for restart in [false, true] {
        let command = long(&stage, 9, 50_000, json!({ "gate": gate(&stage) }));
        controller.send(&command, &stage.site.lea).await;
        let mut collected = Collected::default();
        while collected.reports.len() < 3 {
            assert_eq!(collected.next(&mut controller, command.id).await, None);
        }
        if restart {
            break;
        }
        let mut answers = Vec::new();
        for _ in 0..2 {
            let cancel = cancel(&stage.site.lea, command.id);
            controller.send(&cancel, &stage.site.lea).await;
            answers.push(cancel.id);
        }
        let mut said = BTreeMap::new();
        let result = loop {
            let report = controller.report().await;
            if answers.contains(&report.request_id) {
                let result = report.result.unwrap();
                said.insert(report.request_id, (result.code, result.message));
                continue;
            }
            let result = report.result.clone();
            collected.take(report);
            if let Some(result) = result {
                break result;
            }
        };
        assert_eq!((result.outcome, result.code.as_str()), (Outcome::Cancelled, "cancelled"));
        assert!(result.message.contains("cancelled by user/lea"), "{}", result.message);
        collected.check_output("text", 8, 50_000);
        while said.len() < 2 {
            let report = controller.report().await;
            let result = report.result.unwrap();
            said.insert(report.request_id, (result.code, result.message));
        }
        assert_eq!(said[&answers[0]].0, "ok");
        let (code, message) = &said[&answers[1]];
        assert!((code == "ok" && message.contains("before, by user/lea")) || code == "not-running", "{code} {message}");
        let late = cancel(&stage.site.lea, command.id);
        controller.send(&late, &stage.site.lea).await;
        assert_eq!(controller.code(late.id).await, "not-running");
    }
    // The second one goes on without an agent and is cancelled through the next.
    agent.stop().await;
    let agent = stage.start(setup()).await;
    let running = std::fs::read_dir(stage.state.path().join("state/actions")).unwrap().flatten();
    let id = running
        .map(|entry| ActionDirectory::at(&entry.path()))
        .filter(|directory| directory.path().is_dir() && !directory.has_reply())
        .find_map(|directory| directory.order().good())
        .unwrap()
        .request_id;
    let cancel = cancel(&stage.site.lea, id);
    controller.send(&cancel, &stage.site.lea).await;
    let result = loop {
        let report = controller.report().await;
        if report.request_id == id && report.state == ReportState::Finished {
            break report.result.unwrap();
        }
    };
    assert_eq!(result.code, "cancelled");
    assert!(result.message.contains("cancelled by user/lea"), "{}", result.message);
    agent.stop().await;
}

#[tokio::test]
async fn the_runner_itself_keeps_the_time_and_survives_what_plugins_do() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let mut ask = async |action: &str, timeout_ms: Option<u64>| {
        let mut command = command(&stage.site.lea, action, json!({}));
        command.options.timeout_ms = timeout_ms;
        controller.send(&command, &stage.site.lea).await;
        controller.finished(command.id).await.1.result.unwrap()
    };
    let stuck = ask("stuck", Some(200)).await;
    assert_eq!((stuck.outcome, stuck.code.as_str()), (Outcome::TimedOut, "timed-out"), "{}", stuck.message);
    assert!(stuck.message.contains("did not stop when it was told to"), "{}", stuck.message);
    let exploded = ask("explode", None).await;
    assert_eq!(exploded.code, "plugin-error");
    assert!(exploded.message.contains("the lab exploded"), "{}", exploded.message);
    let left = ask("leave", Some(100)).await;
    assert_eq!(left.code, "ok", "the program was stopped, which this action does not mind: {}", left.message);
    agent.stop().await;
}

#[tokio::test]
async fn an_action_sees_the_host_as_its_agent_does() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let command = command(&stage.site.lea, "facts", json!({}));
    controller.send(&command, &stage.site.lea).await;
    let data = controller.finished(command.id).await.1.result.unwrap().data;
    assert_eq!((&data["facts"]["role"], &data["host"]), (&json!("web"), &json!("web1.example.com")));
    assert_eq!(data["digest"].as_str().unwrap().len(), 64);
    assert_ne!(data["pid"], json!(std::process::id()));
    assert!(!data["broker"].as_str().unwrap().is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_runner_that_cannot_be_started_is_a_failed_start() {
    for (program, words) in [("/nonexistent/musterd", "could not be started"), ("/bin/true", "before the action began")]
    {
        let runner = Some(Runner { program: program.into(), ..Runner::default() });
        let (stage, agent, mut controller) = stage_with_agent(Setup { runner, ..setup() }).await;
        let command = long(&stage, 1, 1, json!({}));
        controller.send(&command, &stage.site.lea).await;
        let result = controller.finished(command.id).await.1.result.unwrap();
        assert_eq!(result.code, "start-failed");
        assert!(result.message.contains(words), "{}", result.message);
        agent.stop().await;
    }
}

#[tokio::test]
async fn what_still_runs_takes_its_room_also_after_a_restart() {
    let one = || Setup { change: |raw| raw.limits.concurrent_actions = 1, ..setup() };
    let (stage, agent, mut controller) = stage_with_agent(one()).await;
    let first = long(&stage, 2, 10, json!({ "gate": gate(&stage) }));
    controller.send(&first, &stage.site.lea).await;
    begun(&stage, first.id).await;
    agent.stop().await;
    let agent = stage.start(one()).await;
    let second = command(&stage.site.lea, "change", json!({ "name": "x" }));
    controller.send(&second, &stage.site.lea).await;
    let busy = loop {
        let report = controller.report().await;
        if report.request_id == second.id {
            break report.result.unwrap();
        }
    };
    assert_eq!(busy.code, "busy");
    open(&stage);
    let (_, last) = controller.finished(first.id).await;
    assert_eq!(last.result.unwrap().code, "ok");
    let third = command(&stage.site.lea, "change", json!({ "name": "x" }));
    controller.send(&third, &stage.site.lea).await;
    assert_eq!(controller.code(third.id).await, "ok");
    agent.stop().await;
}

#[tokio::test]
async fn output_waits_on_disk_while_the_broker_is_away() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let command = long(&stage, 101, 20_000, json!({ "gate": gate(&stage) }));
    controller.send(&command, &stage.site.lea).await;
    let mut collected = Collected::default();
    assert_eq!(collected.next(&mut controller, command.id).await, None);
    stage.broker.disconnect(stage.site.web1.identity());
    open(&stage);
    let result = collected.finish(&mut controller, command.id).await;
    assert_eq!((result.code.as_str(), result.truncated_from_bytes), ("ok", None));
    collected.check_output("text", 101, 20_000);
    agent.stop().await;
}

/// What the audit log says of the end of a request.
fn ends(stage: &Stage, id: RequestId) -> Vec<String> {
    let id = Value::String(id.to_string());
    let is_end = |line: &&Value| line["details"]["event"] == "finished" && line["details"]["request_id"] == id;
    stage.audit().iter().filter(is_end).map(|line| line["details"]["decision"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_has_ended_while_the_broker_is_away_is_known_on_the_host() {
    let (stage, agent, mut controller) = stage_with_agent(setup()).await;
    let command = long(&stage, 31, 10_000, json!({ "gate": gate(&stage) }));
    controller.send(&command, &stage.site.lea).await;
    assert_eq!(Collected::default().next(&mut controller, command.id).await, None);
    let state = stage.state.path().join("state");
    let untold = || muster_agent::detached::look::untold(&muster_daemon::RealDisk, &state).unwrap();
    assert_eq!((untold(), ends(&stage, command.id).len()), (Vec::new(), 0), "it runs");
    stage.broker.stop();
    open(&stage);
    let mut agents = vec![agent];
    // The first agent sees the end; the second one finds it.
    for restarted in [false, true] {
        if restarted {
            agents.pop().unwrap().stop().await;
            agents.push(stage.launch(setup()));
        }
        let handle = agents[0].handle.clone();
        eventually("the end is known", || {
            let status = handle.status().unwrap();
            let ended = status.requests.first().and_then(|request| request.ended.as_ref());
            let (code, shown) = (ended.map(|ended| ended.code.clone()), show::text(&status));
            let is_shown = shown.contains(" lab.long ended 0 s ago (ok), its last report is still to be sent");
            match (code.as_deref(), status.queues.ends_untold, is_shown) {
                (Some("ok"), Some(1), true) if shown.contains(", 1 action has ended beside them") => Ok(()),
                _ => Err(shown),
            }
        })
        .await;
        assert_eq!(ends(&stage, command.id), ["succeeded"], "restarted: {restarted}");
        let untold = untold();
        assert_eq!((untold.len(), untold[0].request_id, untold[0].action.as_str()), (1, command.id, "lab.long"));
        assert_eq!((untold[0].caller.short().as_str(), untold[0].code.as_str()), ("user/lea", "ok"));
    }
    stage.broker.start();
    let mut controller = stage.controller(&stage.site.lea).await;
    let mut collected = Collected::default();
    assert_eq!(collected.finish(&mut controller, command.id).await.code, "ok");
    nothing_more(&stage, &mut controller).await;
    assert_eq!((untold(), ends(&stage, command.id)), (Vec::new(), vec!["succeeded".to_owned()]));
    agents.pop().unwrap().stop().await;
}

#[tokio::test]
async fn output_beyond_the_limit_is_cut_visibly() {
    let change = |raw: &mut muster_agent::config::Raw| raw.limits.output_bytes_max = 65_536;
    let (stage, agent, mut controller) = stage_with_agent(Setup { change, ..setup() }).await;
    let command = long(&stage, 200, 1_000, json!({}));
    controller.send(&command, &stage.site.lea).await;
    let mut collected = Collected::default();
    let result = collected.finish(&mut controller, command.id).await;
    assert_eq!((result.code.as_str(), result.truncated_from_bytes), ("ok", Some(200_000)));
    let kept = collected.bytes(OutputStream::Stdout).len() + collected.bytes(OutputStream::Stderr).len();
    assert_eq!(kept, 65_536);
    agent.stop().await;
}

/// Watches, and gives the ending and everything that came.
async fn watched(
    controller: &mut Controller,
    message: &muster_protocol::Watch,
    signer: &muster_pki::Credentials,
) -> (Collected, ActionResult) {
    controller.send(message, signer).await;
    let mut collected = Collected::default();
    let result = collected.finish(controller, message.id).await;
    (collected, result)
}

/// The first report of a watch that follows comes at once, however long the action is silent.
async fn joined(controller: &mut Controller, watch: RequestId) {
    let report = controller.report().await;
    assert_eq!((report.request_id, report.state, report.sequence), (watch, ReportState::Running, 0), "{report:?}");
    assert!(report.output.is_empty());
}

#[tokio::test]
async fn a_watch_shows_everything_from_the_beginning_and_then_what_comes() {
    let policy = "[[rule]]\nname = \"admins\"\neffect = \"allow\"\nwhen = 'group = admins'\n".to_owned();
    let (stage, agent, mut lea) = stage_with_agent(Setup { policy, ..setup() }).await;
    let mut max = stage.controller(&stage.site.max).await;
    let command = long(&stage, 21, 9_000, json!({ "gate": gate(&stage), "kind": "binary" }));
    lea.send(&command, &stage.site.lea).await;
    begun(&stage, command.id).await;
    let mut run = Collected::default();
    while run.bytes_so_far() < 20 * 9_000 {
        assert_eq!(run.next(&mut lea, command.id).await, None);
    }
    // How it stands.
    let mut look = watch(&stage.site.lea, command.id);
    (look.replay, look.follow) = (false, false);
    let (seen, result) = watched(&mut lea, &look, &stage.site.lea).await;
    assert_eq!((seen.reports.len(), result.code.as_str()), (1, "still-running"));
    assert_eq!((&result.data["state"], &result.data["action"]), (&json!("running"), &json!("lab.long")));
    assert_eq!(result.data["output_bytes"], json!({ "stdout": 90_000, "stderr": 90_000 }));
    // Not for everybody.
    let (_, refused) = watched(&mut max, &watch(&stage.site.max, command.id), &stage.site.max).await;
    assert_eq!(refused.code, "policy-denied");
    // Two at once, one of them from now on.
    let (all, live) = (watch(&stage.site.lea, command.id), {
        let mut live = watch(&stage.site.lea, command.id);
        live.replay = false;
        live
    });
    lea.send(&all, &stage.site.lea).await;
    lea.send(&live, &stage.site.lea).await;
    let mut streams: BTreeMap<RequestId, Collected> = BTreeMap::new();
    let mut results: BTreeMap<RequestId, ActionResult> = BTreeMap::new();
    streams.insert(command.id, run);
    let mut opened = false;
    while results.len() < 3 {
        let report = lea.report().await;
        if let Some(result) = &report.result {
            results.insert(report.request_id, result.clone());
        }
        streams.entry(report.request_id).or_default().take(report);
        if !opened && streams.get(&all.id).is_some_and(|all| all.bytes_so_far() == 20 * 9_000) {
            // The other one has begun as well once a third is answered.
            watch_is_running(&stage, &mut lea, &mut streams, &mut results, live.id).await;
            open(&stage);
            opened = true;
        }
    }
    streams[&command.id].check_output("binary", 21, 9_000);
    streams[&all.id].check_output("binary", 21, 9_000);
    assert_eq!(streams[&live.id].bytes_so_far(), 9_000, "only the last piece");
    for id in [command.id, all.id, live.id] {
        assert_eq!((results[&id].code.as_str(), &results[&id].data), ("ok", &json!({ "pieces": 21 })), "{id}");
    }
    // After the end as well.
    let (after, result) = watched(&mut lea, &watch(&stage.site.lea, command.id), &stage.site.lea).await;
    after.check_output("binary", 21, 9_000);
    assert_eq!((result.code.as_str(), result.data), ("ok", json!({ "pieces": 21 })));
    agent.stop().await;
    let agent = stage.start(Setup { policy: crate::kit::ALLOW_ALL.to_owned(), ..setup() }).await;
    let (after, result) = watched(&mut max, &watch(&stage.site.max, command.id), &stage.site.max).await;
    after.check_output("binary", 21, 9_000);
    assert_eq!(result.code, "ok");
    let (_, unknown) = watched(&mut lea, &watch(&stage.site.lea, crate::kit::fresh_id()), &stage.site.lea).await;
    assert_eq!(unknown.code, "unknown-request");
    agent.stop().await;
}

/// A copy of a watch that runs is not answered; a ping after it is. So once the ping is, the watch runs.
async fn watch_is_running(
    stage: &Stage,
    controller: &mut Controller,
    streams: &mut BTreeMap<RequestId, Collected>,
    results: &mut BTreeMap<RequestId, ActionResult>,
    _id: RequestId,
) {
    let mut ping = command(&stage.site.lea, "read", json!({}));
    ping.options.progress = false;
    controller.send(&ping, &stage.site.lea).await;
    loop {
        let report = controller.report().await;
        if report.request_id == ping.id {
            return;
        }
        if let Some(result) = &report.result {
            results.insert(report.request_id, result.clone());
        }
        streams.entry(report.request_id).or_default().take(report);
    }
}

impl Collected {
    fn bytes_so_far(&self) -> usize {
        let chunks = self.reports.values().flat_map(|report| &report.output);
        chunks
            .map(|chunk| match chunk.encoding {
                Encoding::Text => chunk.data.len(),
                Encoding::Base64 => BASE64.decode(&chunk.data).unwrap().len(),
            })
            .sum()
    }
}

#[tokio::test]
async fn watches_are_bounded_and_can_be_cancelled() {
    let change = |raw: &mut muster_agent::config::Raw| raw.limits.concurrent_watches = 1;
    let (stage, agent, mut lea) = stage_with_agent(Setup { change, ..setup() }).await;
    let command = long(&stage, 2, 10, json!({ "gate": gate(&stage) }));
    lea.send(&command, &stage.site.lea).await;
    begun(&stage, command.id).await;
    let mut run = Collected::default();
    while run.bytes_so_far() < 10 {
        assert_eq!(run.next(&mut lea, command.id).await, None);
    }
    let mut first = watch(&stage.site.lea, command.id);
    first.replay = false;
    lea.send(&first, &stage.site.lea).await;
    joined(&mut lea, first.id).await;
    let (_, busy) = watched(&mut lea, &watch(&stage.site.lea, command.id), &stage.site.lea).await;
    assert_eq!(busy.code, "busy");
    let cancel = cancel(&stage.site.lea, first.id);
    lea.send(&cancel, &stage.site.lea).await;
    let mut codes = BTreeMap::new();
    while codes.len() < 2 {
        let report = lea.report().await;
        codes.insert(report.request_id, report.result.unwrap().code);
    }
    assert_eq!(codes, BTreeMap::from([(first.id, "cancelled".to_owned()), (cancel.id, "ok".to_owned())]));
    // Its end leaves the action alone, and the agent's stop does not wait for a watch.
    let mut last = watch(&stage.site.lea, command.id);
    last.replay = false;
    lea.send(&last, &stage.site.lea).await;
    joined(&mut lea, last.id).await;
    nothing_more(&stage, &mut lea).await;
    let stopped = agent.stop().await;
    assert_eq!(stopped.interrupted, 0);
    assert_eq!(lea.code(last.id).await, "shutting-down");
    open(&stage);
    eventually("the action ends", || match directory(&stage, command.id).try_lock() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn an_action_in_the_agent_can_be_watched_too() {
    let (stage, agent, mut lea) = stage_with_agent(setup()).await;
    let command = command(&stage.site.lea, "wait", json!({}));
    lea.send(&command, &stage.site.lea).await;
    assert_eq!(lea.report().await.state, ReportState::Running);
    let message = watch(&stage.site.lea, command.id);
    lea.send(&message, &stage.site.lea).await;
    joined(&mut lea, message.id).await;
    let mut look = watch(&stage.site.lea, command.id);
    look.follow = false;
    let (_, result) = watched(&mut lea, &look, &stage.site.lea).await;
    assert_eq!(result.code, "still-running");
    assert_eq!(result.data, json!({ "state": "running" }));
    let cancel = cancel(&stage.site.lea, command.id);
    lea.send(&cancel, &stage.site.lea).await;
    let mut codes = BTreeMap::new();
    while codes.len() < 3 {
        let report = lea.report().await;
        codes.insert(report.request_id, report.result.unwrap().code);
    }
    assert_eq!((codes[&command.id].as_str(), codes[&message.id].as_str()), ("cancelled", "cancelled"));
    // And its end is kept.
    let (_, result) = watched(&mut lea, &watch(&stage.site.lea, command.id), &stage.site.lea).await;
    assert_eq!(result.code, "cancelled");
    agent.stop().await;
}

#[tokio::test]
async fn results_go_when_their_time_is_over() {
    let change = |raw: &mut muster_agent::config::Raw| raw.limits.results_keep_s = 0;
    let (stage, agent, mut lea) = stage_with_agent(Setup { change, ..setup() }).await;
    let command = long(&stage, 2, 10, json!({}));
    lea.send(&command, &stage.site.lea).await;
    assert_eq!(lea.code(command.id).await, "ok");
    eventually("the directory goes", || {
        let path = directory(&stage, command.id).path().to_owned();
        if path.exists() { Err(path.display().to_string()) } else { Ok(()) }
    })
    .await;
    let (_, result) = watched(&mut lea, &watch(&stage.site.lea, command.id), &stage.site.lea).await;
    assert_eq!(result.code, "unknown-request");
    agent.stop().await;
}

#[tokio::test]
async fn secrets_reach_the_action_and_never_the_disk() {
    use muster_pki::sealing::{SealingPublicKey, seal};
    use muster_protocol::SealingContext;
    let (stage, agent, mut lea) = stage_with_agent(setup()).await;
    let host_file = std::fs::read(stage.state.path().join("state/actions/host.json")).unwrap();
    let known: Value = serde_json::from_slice(&host_file).unwrap();
    let key: SealingPublicKey = known["sealing_key"].as_str().unwrap().parse().unwrap();
    let mut command = command(&stage.site.lea, "secret", json!({}));
    let secret = "correct horse battery";
    let context = SealingContext {
        request_id: command.id,
        caller: &command.caller,
        plugin: &command.plugin,
        action: &command.action,
    };
    let values = json!({ "password": secret }).as_object().unwrap().clone();
    let sealed = seal(&values, &context, [(&crate::kit::host(), &key)]).unwrap();
    command.sealed = Some(sealed);
    command.target = Target::named([crate::kit::host()]);
    command.requires = vec!["sealed".to_owned()];
    lea.send(&command, &stage.site.lea).await;
    let mut collected = Collected::default();
    let result = collected.finish(&mut lea, command.id).await;
    assert_eq!((result.code.as_str(), &result.data["length"]), ("ok", &json!(secret.len())), "{}", result.message);
    assert_eq!(result.data["password"], "***");
    assert_eq!(collected.bytes(OutputStream::Stdout), b"password=***\n");
    agent.stop().await;
    let mut files = 0;
    for entry in std::fs::read_dir(directory(&stage, command.id).path()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{:?}", entry.path());
        files += 1;
    }
    assert!(files >= 6, "{files}");
}

#[tokio::test]
async fn directories_that_cannot_be_understood_stop_no_agent() {
    let (stage, agent, mut lea) = stage_with_agent(setup()).await;
    let command = long(&stage, 2, 10, json!({ "gate": gate(&stage) }));
    lea.send(&command, &stage.site.lea).await;
    begun(&stage, command.id).await;
    agent.stop().await;
    let all = stage.state.path().join("state/actions");
    // Rubbish, an empty directory, a file, and one whose order is another's.
    for name in ["rubbish", "empty", "01a1ee56-5e00-7000-8000-000000000000"] {
        std::fs::create_dir(all.join(name)).unwrap();
    }
    std::fs::write(all.join("rubbish/request.json"), "{").unwrap();
    std::fs::write(all.join("a file"), "x").unwrap();
    let order = directory(&stage, command.id).path().join("request.json");
    std::fs::copy(&order, all.join("01a1ee56-5e00-7000-8000-000000000000/request.json")).unwrap();
    // And the order of the one that runs is damaged: it is told to stop, and the request is interrupted.
    std::fs::write(&order, "{}").unwrap();
    let agent = stage.start(setup()).await;
    let (_, last) = lea.finished(command.id).await;
    assert_eq!(last.result.unwrap().code, "interrupted");
    eventually("the action stops", || match directory(&stage, command.id).try_lock() {
        Ok(None) => Err("it runs".to_owned()),
        _ => Ok(()),
    })
    .await;
    let left: Vec<String> = std::fs::read_dir(&all)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left, [command.id.to_string()], "what nobody needs is gone");
    agent.stop().await;
}
