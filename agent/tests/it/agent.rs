//! Whole agents on a bus in memory: the life of a command.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_agent::{Agent, Connection, StartError};
use muster_bus::Outgoing;
use muster_pki::Credentials;
use muster_protocol::envelope::CONTENT_TYPE_CRL;
use muster_protocol::routing::{EXCHANGE_REPLY, agent_queue, host_key, presence_key};
use muster_protocol::{Announcement, Command, Encoding, Options, Outcome, OutputStream, Target, decode};
use serde_json::{Value, json};

use crate::kit::{NOW, Setup, Site, Stage, cancel, command, eventually, host, signed};

fn quiet() -> Options {
    Options { progress: false, ..Options::default() }
}

/// The audit lines about a request: event and decision of each.
fn decisions(stage: &Stage, id: &str) -> Vec<String> {
    let lines = stage.audit();
    let about = lines.iter().map(|line| &line["details"]).filter(|details| details["request_id"] == id);
    about
        .map(|details| format!("{} {}", details["event"].as_str().unwrap(), details["decision"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_command_is_run_answered_and_audited() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&stage.site.lea).await;

    let mut ping = command(&stage.site.lea, "read", json!({}));
    ping.options = quiet();
    controller.send(&ping, &stage.site.lea).await;
    let (running, last) = controller.finished(ping.id).await;
    assert_eq!(running.len(), 0, "nobody asked for progress");
    let result = last.result.unwrap();
    assert_eq!((result.outcome, result.code.as_str(), last.sequence), (Outcome::Succeeded, "ok", 0));
    assert!(result.data["facts"].as_u64().unwrap() >= 2);

    let change = command(&stage.site.lea, "change", json!({ "name": "x" }));
    controller.send(&change, &stage.site.lea).await;
    let (running, last) = controller.finished(change.id).await;
    assert_eq!(running.len(), 1, "a changing action says that it has begun");
    assert_eq!(last.sequence, 1);
    assert_eq!(last.result.unwrap().data, json!({ "name": "x", "force": true }));

    let fail = command(&stage.site.lea, "fail", json!({}));
    controller.send(&fail, &stage.site.lea).await;
    let result = controller.finished(fail.id).await.1.result.unwrap();
    assert_eq!(
        (result.outcome, result.exit_code, result.message.as_str()),
        (Outcome::Failed, Some(3), "it did not work")
    );

    let stopped = agent.stop().await;
    assert_eq!((stopped.interrupted, stopped.reports_left, stopped.failed), (0, 0, None));
    assert_eq!(decisions(&stage, &change.id.to_string()), ["command allowed", "finished succeeded"]);
    let allowed =
        stage.audit().into_iter().find(|line| line["details"]["request_id"] == change.id.to_string()).unwrap();
    assert_eq!(allowed["details"]["arguments"], json!({ "name": "x", "force": true }));
    assert_eq!(allowed["details"]["caller"], "muster:user/lea");
    assert_eq!(allowed["details"]["rule"], "all");
    muster_agent::audit::verify_all(&stage.state.path().join("state/audit.jsonl"), None).unwrap();
}

#[tokio::test]
async fn who_is_not_meant_is_silent_and_who_may_not_is_told() {
    let stage = Stage::new();
    let policy = "[[rule]]\nname = \"reads\"\neffect = \"allow\"\nwhen = 'read_only = true'\n";
    let agent = stage.start(Setup { policy: policy.into(), ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let lea = &stage.site.lea;
    let aimed = |target: Target| {
        let mut command = command(lea, "read", json!({}));
        command.options = quiet();
        command.target = target;
        command
    };
    for target in [
        Target::matching("role = db"),
        Target::named(["db1".parse().unwrap()]),
        Target::matching("lab(\"nothing\").answer = 42"),
        Target::matching("lab(\"everything\").answer = 43"),
        Target::matching("nobody(\"knows\").this = 1"),
    ] {
        controller.send(&aimed(target), lea).await;
    }
    // Those were silent: the next answer is to the next command.
    let asked = aimed(Target::matching("role = web and lab(\"everything\").answer = 42"));
    controller.send(&asked, lea).await;
    assert_eq!(controller.code(asked.id).await, "ok");
    let denied = command(lea, "change", json!({ "name": "x" }));
    controller.send(&denied, lea).await;
    let result = controller.finished(denied.id).await.1.result.unwrap();
    assert_eq!((result.outcome, result.code.as_str()), (Outcome::Refused, "policy-denied"));
    let wrong = aimed(Target::matching("role ="));
    controller.send(&wrong, lea).await;
    assert_eq!(controller.code(wrong.id).await, "bad-target");
    agent.stop().await;
    assert_eq!(decisions(&stage, &denied.id.to_string()), ["command refused"]);
}

#[tokio::test]
async fn a_copy_is_refused_and_a_second_delivery_is_not() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let mut change = command(&stage.site.lea, "change", json!({ "name": "x" }));
    change.options = quiet();
    let message = signed(&change, &[&stage.site.lea]);
    controller.publish(message.clone()).await;
    assert_eq!(controller.code(change.id).await, "ok");
    controller.publish(message.clone()).await;
    assert_eq!(controller.code(change.id).await, "replayed");
    // To the host's own key, and after a restart: the same.
    controller.publish(Outgoing { routing_key: host_key(&host()), ..message.clone() }).await;
    assert_eq!(controller.code(change.id).await, "replayed");
    agent.stop().await;
    let agent = stage.start(Setup::default()).await;
    controller.publish(message).await;
    assert_eq!(controller.code(change.id).await, "replayed");
    agent.stop().await;
    assert_eq!(
        decisions(&stage, &change.id.to_string()),
        ["command allowed", "finished succeeded", "command refused", "command refused", "command refused"]
    );
}

#[tokio::test]
async fn what_came_too_late_is_refused_with_the_measured_time() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let late = command(&stage.site.lea, "read", json!({}));
    stage.clock.advance_ms(61_000);
    controller.send(&late, &stage.site.lea).await;
    let result = controller.finished(late.id).await.1.result.unwrap();
    assert_eq!(result.code, "expired");
    assert!(result.message.contains("1.000 s too late"), "{}", result.message);
    agent.stop().await;
}

#[tokio::test]
async fn a_running_action_can_be_cancelled_by_its_caller_only() {
    let stage = Stage::new();
    let policy = "[[rule]]\nname = \"lab\"\neffect = \"allow\"\nwhen = 'plugin = lab'\n";
    let agent = stage.start(Setup { policy: policy.into(), ..Setup::default() }).await;
    let mut lea = stage.controller(&stage.site.lea).await;
    let mut max = stage.controller(&stage.site.max).await;
    let wait = command(&stage.site.lea, "wait", json!({}));
    lea.send(&wait, &stage.site.lea).await;
    assert_eq!(lea.report().await.sequence, 0, "it has begun");
    let foreign = cancel(&stage.site.max, wait.id);
    max.send(&foreign, &stage.site.max).await;
    assert_eq!(max.code(foreign.id).await, "policy-denied");
    let own = cancel(&stage.site.lea, wait.id);
    lea.send(&own, &stage.site.lea).await;
    let mut codes = std::collections::BTreeMap::new();
    while codes.len() < 2 {
        let report = lea.report().await;
        codes.insert(report.request_id, report.result.unwrap());
    }
    assert_eq!(codes[&own.id].code, "ok");
    assert_eq!(
        (codes[&wait.id].outcome.clone(), codes[&wait.id].message.as_str()),
        (Outcome::Cancelled, "cancelled by user/lea")
    );
    // The list of what runs is put right right after the report.
    eventually("the action's end", || {
        let line = decisions(&stage, &wait.id.to_string());
        if line.last().is_some_and(|last| last == "finished cancelled") { Ok(()) } else { Err(format!("{line:?}")) }
    })
    .await;
    let again = cancel(&stage.site.lea, wait.id);
    lea.send(&again, &stage.site.lea).await;
    assert_eq!(lea.code(again.id).await, "not-running");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn actions_that_break_hang_or_talk_too_much_have_honest_ends() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let mut ended = async |action: &str, options: Options| {
        let mut command = command(&stage.site.lea, action, json!({}));
        command.options = options;
        controller.send(&command, &stage.site.lea).await;
        let (running, last) = controller.finished(command.id).await;
        (running, last)
    };
    let (_, last) = ended("panic", quiet()).await;
    let result = last.result.unwrap();
    assert_eq!((result.code.as_str(), result.outcome), ("plugin-error", Outcome::Failed));
    assert!(result.message.contains("the lab exploded"), "{}", result.message);

    let limit = Options { timeout_ms: Some(1_000), ..quiet() };
    for (action, stubborn) in [("wait", false), ("stubborn", true)] {
        let result = ended(action, limit.clone()).await.1.result.unwrap();
        assert_eq!((result.code.as_str(), result.outcome), ("timed-out", Outcome::TimedOut), "{action}");
        assert_eq!(result.message.contains("did not stop"), stubborn, "{}", result.message);
        assert!(result.duration_ms >= 1_000);
    }

    let result = ended("large", quiet()).await.1.result.unwrap();
    assert!(result.truncated_from_bytes.unwrap() > 2_000_000);
    assert_eq!(result.data["small"], 1);

    for options in [Options::default(), quiet()] {
        let progress = options.progress;
        let (running, last) = ended("talk", options).await;
        let reports: Vec<_> = running.iter().chain([&last]).collect();
        assert!(reports.iter().enumerate().all(|(number, report)| report.sequence as usize == number));
        let chunks: Vec<_> = reports.iter().flat_map(|report| &report.output).collect();
        let text: String =
            chunks.iter().filter(|c| c.stream == OutputStream::Stdout).map(|c| c.data.as_str()).collect();
        let errors: Vec<_> = chunks.iter().filter(|chunk| chunk.stream == OutputStream::Stderr).collect();
        assert_eq!((errors.len(), errors[0].encoding), (1, Encoding::Base64));
        let whole = "grüße ".repeat(30_000);
        if progress {
            assert_eq!(text, whole);
            assert_eq!(last.result.unwrap().truncated_from_bytes, None);
        } else {
            assert!(running.is_empty() && whole.starts_with(&text) && text.len() > 100_000);
            assert_eq!(last.result.unwrap().truncated_from_bytes, Some(whole.len() as u64 + 3));
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_busy_host_refuses_more_and_answers_questions() {
    let stage = Stage::new();
    let agent = stage.start(Setup { change: |raw| raw.limits.concurrent_actions = 1, ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let wait = command(&stage.site.lea, "wait", json!({}));
    controller.send(&wait, &stage.site.lea).await;
    assert_eq!(controller.report().await.request_id, wait.id);
    let mut more = command(&stage.site.lea, "change", json!({ "name": "x" }));
    more.options = quiet();
    controller.send(&more, &stage.site.lea).await;
    assert_eq!(controller.code(more.id).await, "busy");
    let mut read = command(&stage.site.lea, "read", json!({}));
    read.options = quiet();
    controller.send(&read, &stage.site.lea).await;
    assert_eq!(controller.code(read.id).await, "ok");
    controller.send(&cancel(&stage.site.lea, wait.id), &stage.site.lea).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_was_refused_does_not_run_later() {
    let stage = Stage::new();
    let busy_soon = |raw: &mut muster_agent::config::Raw| raw.limits.concurrent_actions = 1;
    let agent = stage.start(Setup { change: busy_soon, ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let wait = command(&stage.site.lea, "wait", json!({}));
    controller.send(&wait, &stage.site.lea).await;
    assert_eq!(controller.report().await.request_id, wait.id);
    let mut busy = command(&stage.site.lea, "change", json!({ "name": "x" }));
    busy.options = quiet();
    let mut early = command(&stage.site.lea, "read", json!({}));
    (early.created_at_ms, early.expires_at_ms) = (NOW.plus_ms(3_600_000), NOW.plus_ms(3_660_000));
    for (refused, code) in [(&busy, "busy"), (&early, "from-the-future")] {
        controller.send(refused, &stage.site.lea).await;
        assert_eq!(controller.code(refused.id).await, code);
    }
    // A refused copy of what runs does not end it.
    controller.send(&wait, &stage.site.lea).await;
    assert_eq!(controller.code(wait.id).await, "replayed");
    let stop = cancel(&stage.site.lea, wait.id);
    controller.send(&stop, &stage.site.lea).await;
    for _ in 0..2 {
        controller.report().await;
    }
    eventually("the action's end", || {
        let line = decisions(&stage, &wait.id.to_string());
        if line.last().is_some_and(|last| last == "finished cancelled") { Ok(()) } else { Err(format!("{line:?}")) }
    })
    .await;
    // There is room, and then it is time; also after a restart, and by another way.
    controller.send(&busy, &stage.site.lea).await;
    assert_eq!(controller.code(busy.id).await, "replayed");
    agent.stop().await;
    let agent = stage.start(Setup::default()).await;
    let direct = Outgoing { routing_key: host_key(&host()), ..signed(&busy, &[&stage.site.lea]) };
    controller.publish(direct).await;
    assert_eq!(controller.code(busy.id).await, "replayed");
    stage.clock.advance_ms(3_600_000);
    controller.send(&early, &stage.site.lea).await;
    assert_eq!(controller.code(early.id).await, "replayed");
    agent.stop().await;
    for refused in [&busy, &early] {
        assert!(decisions(&stage, &refused.id.to_string()).iter().all(|line| line == "command refused"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_the_middle_interrupts_and_says_so() {
    let stage = Stage::new();
    let agent = stage.start(Setup { change: |raw| raw.limits.stop_timeout_s = 1, ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let (wait, stubborn) =
        (command(&stage.site.lea, "wait", json!({})), command(&stage.site.lea, "stubborn", json!({})));
    for one in [&wait, &stubborn] {
        controller.send(one, &stage.site.lea).await;
        assert_eq!(controller.report().await.request_id, one.id);
    }
    let stopped = agent.stop().await;
    assert_eq!((stopped.interrupted, stopped.reports_left), (2, 0));
    for _ in 0..2 {
        assert_eq!(controller.report().await.result.unwrap().outcome, Outcome::Interrupted);
    }
    // What comes while the agent is away waits in its queue.
    let meanwhile = command(&stage.site.lea, "change", json!({ "name": "x" }));
    controller.send(&meanwhile, &stage.site.lea).await;
    assert_eq!(stage.broker.queue_length(&agent_queue(&host())), Some(1));
    let agent = stage.start(Setup::default()).await;
    assert_eq!(controller.code(meanwhile.id).await, "ok");
    agent.stop().await;
}

#[tokio::test]
async fn what_came_before_its_certificate_counts_does_not_run_once_it_does() {
    let stage = Stage::new();
    let early = stage.site.authority.not_yet_valid("user/new").unwrap();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&early).await;
    let day_ms = 24 * 60 * 60 * 1000;
    let mut read = command(&early, "read", json!({}));
    (read.created_at_ms, read.expires_at_ms) = (NOW.plus_ms(day_ms + 1_000), NOW.plus_ms(day_ms + 61_000));
    controller.send(&read, &early).await;
    assert_eq!(controller.code(read.id).await, "expired-certificate");
    stage.clock.advance_ms(day_ms + 2_000);
    controller.send(&read, &early).await;
    assert_eq!(controller.code(read.id).await, "replayed");
    let (created, expires) = (NOW.plus_ms(day_ms + 1_000), NOW.plus_ms(day_ms + 61_000));
    let fresh = Command { created_at_ms: created, expires_at_ms: expires, ..command(&early, "read", json!({})) };
    controller.send(&fresh, &early).await;
    assert_eq!(controller.code(fresh.id).await, "ok");
    agent.stop().await;
}

#[tokio::test]
async fn a_refusal_by_policy_reaches_the_sender_with_the_rules_name() {
    let stage = Stage::new();
    let policy = "[[rule]]\nname = \"frozen-until-monday\"\neffect = \"deny\"\nwhen = 'read_only = false'\n";
    let agent = stage.start(Setup { policy: policy.to_owned(), ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    for (action, message, rule) in [
        ("change", "rule `frozen-until-monday` denies it", Some("frozen-until-monday")),
        ("read", "no rule allows it", None),
    ] {
        let command = command(&stage.site.lea, action, json!({ "name": "x" }));
        controller.send(&command, &stage.site.lea).await;
        let result = controller.finished(command.id).await.1.result.unwrap();
        assert_eq!((result.code.as_str(), result.message.as_str()), ("policy-denied", message));
        let audit = stage.audit();
        let line = audit.iter().find(|line| line["details"]["request_id"] == command.id.to_string()).unwrap();
        assert_eq!(line["details"]["rule"].as_str(), rule);
    }
    agent.stop().await;
}

/// Runs an agent in a runtime of its own and lets the whole runtime vanish in the middle of an action, as
/// a crash of the process does. `interrupted` was crashed before and is told about first.
fn crash_during(
    stage: &Stage,
    action: &str,
    interrupted: Option<muster_protocol::RequestId>,
) -> muster_protocol::RequestId {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id = runtime.block_on(async {
        let _agent = stage.start(Setup::default()).await;
        let mut controller = stage.controller(&stage.site.lea).await;
        let command = command(&stage.site.lea, action, json!({}));
        if let Some(interrupted) = interrupted {
            assert_eq!(controller.code(interrupted).await, "interrupted");
        }
        controller.send(&command, &stage.site.lea).await;
        let report = controller.report().await;
        assert_eq!((report.request_id, report.sequence), (command.id, 0));
        command.id
    });
    runtime.shutdown_background();
    id
}

#[test]
fn after_a_crash_the_interruption_is_told_and_nothing_runs_again() {
    let stage = Stage::new();
    let reading = crash_during(&stage, "watch", None);
    let changing = crash_during(&stage, "wait", Some(reading));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let agent = stage.start(Setup::default()).await;
        let mut controller = stage.controller(&stage.site.lea).await;
        let report = controller.report().await;
        assert_eq!(report.request_id, changing);
        assert!(report.sequence >= 1, "no number is used twice");
        let result = report.result.unwrap();
        assert_eq!((result.outcome, result.code.as_str()), (Outcome::Interrupted, "interrupted"));
        let audited = decisions(&stage, &changing.to_string());
        assert_eq!(audited, ["command allowed", "finished interrupted"]);
        assert_eq!(decisions(&stage, &reading.to_string()), ["command allowed", "finished interrupted"]);
        agent.stop().await;
        // Told once.
        let agent = stage.start(Setup::default()).await;
        let read = command(&stage.site.lea, "read", json!({}));
        controller.send(&read, &stage.site.lea).await;
        controller.finished(read.id).await;
        agent.stop().await;
    });
}

/// Before, the answer to a copy (`replayed`) was taken for the end of what it is a copy of, and a crash after it was not told.
#[test]
fn the_answer_to_a_copy_is_not_the_end_of_what_runs() {
    let stage = Stage::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id = runtime.block_on(async {
        let _agent = stage.start(Setup::default()).await;
        let mut controller = stage.controller(&stage.site.lea).await;
        let command = command(&stage.site.lea, "watch", json!({}));
        controller.send(&command, &stage.site.lea).await;
        assert_eq!(controller.report().await.sequence, 0);
        // When the second answer is here, the agent is done with the first.
        for _ in 0..2 {
            controller.send(&command, &stage.site.lea).await;
            assert_eq!(controller.code(command.id).await, "replayed");
        }
        command.id
    });
    runtime.shutdown_background();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let agent = stage.start(Setup::default()).await;
        let mut controller = stage.controller(&stage.site.lea).await;
        assert_eq!(controller.code(id).await, "interrupted");
        agent.stop().await;
    });
}

#[tokio::test]
async fn a_delivery_repeated_after_a_broken_connection_is_not_a_replay() {
    let stage = Stage::new();
    let mut first = command(&stage.site.lea, "change", json!({ "name": "x" }));
    first.options = quiet();
    {
        let agent = stage.start(Setup::default()).await;
        let mut controller = stage.controller(&stage.site.lea).await;
        controller.send(&first, &stage.site.lea).await;
        assert_eq!(controller.code(first.id).await, "ok");
        agent.stop().await;
    }
    // The same bytes, taken from the queue and given back by somebody who then went away: from now on
    // the broker says that it delivers them again.
    let web1 = stage.broker.bus(stage.site.web1.identity());
    let link = muster_bus::Bus::connect(&web1).await.unwrap();
    let mut controller = stage.controller(&stage.site.lea).await;
    let options = muster_bus::ConsumeOptions { prefetch: 1, exclusive: false };
    let mut consumer = link.consume(&agent_queue(&host()), options).await.unwrap();
    controller.send(&first, &stage.site.lea).await;
    consumer.next().await.unwrap();
    link.close().await;
    let agent = stage.start(Setup::default()).await;
    let mut read = command(&stage.site.lea, "read", json!({}));
    read.options = quiet();
    controller.send(&read, &stage.site.lea).await;
    assert_eq!(controller.code(read.id).await, "ok", "no answer to the repetition came before");
    agent.stop().await;
    let audited = decisions(&stage, &first.id.to_string());
    assert_eq!(audited, ["command allowed", "finished succeeded", "command ignored"]);
}

#[tokio::test(start_paused = true)]
async fn a_final_report_waits_for_the_broker_and_for_the_next_start() {
    let stage = Stage::new();
    let agent = stage.start(Setup { change: |raw| raw.limits.stop_timeout_s = 1, ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let wait = command(&stage.site.lea, "wait", json!({}));
    controller.send(&wait, &stage.site.lea).await;
    controller.report().await;
    stage.broker.stop();
    // Without a broker the action is interrupted; its report cannot leave.
    let stopped = agent.stop().await;
    assert_eq!((stopped.interrupted, stopped.reports_left), (1, 1));
    let spool = stage.state.path().join("state/spool");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 1);
    stage.broker.start();
    let mut controller = stage.controller(&stage.site.lea).await;
    let agent = stage.start(Setup::default()).await;
    let report = controller.report().await;
    assert_eq!((report.request_id, report.result.unwrap().outcome), (wait.id, Outcome::Interrupted));
    eventually("an empty spool", || match fs::read_dir(&spool).unwrap().count() {
        0 => Ok(()),
        left => Err(format!("{left} files")),
    })
    .await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_agent_comes_back_after_the_broker_does() {
    let stage = Stage::new();
    stage.broker.stop();
    let agent = stage.build(Setup::default());
    let handle = agent.handle();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let stopping = shutdown.clone();
    let run = async {
        let mut connection = handle.connection();
        let failed = |connection: &Connection| matches!(connection, Connection::Connecting { why } if !why.is_empty());
        connection.wait_for(failed).await.unwrap();
        stage.broker.start();
        for _ in 0..3 {
            connection.wait_for(|connection| matches!(connection, Connection::Online { .. })).await.unwrap();
            let mut controller = stage.controller(&stage.site.lea).await;
            let mut read = command(&stage.site.lea, "read", json!({}));
            read.options = quiet();
            controller.send(&read, &stage.site.lea).await;
            assert_eq!(controller.code(read.id).await, "ok");
            stage.broker.disconnect(stage.site.web1.identity());
            connection.wait_for(failed).await.unwrap();
        }
        // A queue that somebody deletes is declared again on the same connection.
        connection.wait_for(|connection| matches!(connection, Connection::Online { .. })).await.unwrap();
        assert!(stage.broker.delete_queue(&agent_queue(&host())));
        eventually("the queue", || match stage.broker.queue_length(&agent_queue(&host())) {
            Some(_) => Ok(()),
            None => Err("not there".into()),
        })
        .await;
        stopping.cancel();
    };
    let (stopped, ()) = tokio::join!(agent.run(shutdown), run);
    assert_eq!(stopped.failed, None);
}

async fn announcements(stage: &Stage) -> (muster_bus::Consumer, Arc<dyn muster_bus::Link>) {
    let inventory: muster_protocol::Identity = "muster:service/inventory".parse().unwrap();
    let link = muster_bus::Bus::connect(&stage.broker.bus(&inventory)).await.unwrap();
    link.declare_queue(muster_bus::QueueSpec::exclusive("reply.service/inventory.s1")).await.unwrap();
    link.bind("reply.service/inventory.s1", EXCHANGE_REPLY, &muster_protocol::routing::presence_binding())
        .await
        .unwrap();
    let options = muster_bus::ConsumeOptions { prefetch: 10, exclusive: false };
    (link.consume("reply.service/inventory.s1", options).await.unwrap(), link)
}

#[tokio::test(start_paused = true)]
async fn the_host_says_that_it_comes_stays_and_goes() {
    let stage = Stage::new();
    let (mut consumer, _link) = announcements(&stage).await;
    let agent = stage.start(Setup::default()).await;
    let mut heard = Vec::new();
    let mut stop = Some(agent);
    while heard.len() < 4 {
        let delivery = consumer.next().await.unwrap();
        delivery.ack().await.unwrap();
        assert_eq!(delivery.routing_key, presence_key(&host()));
        let signatures = muster_protocol::envelope::parse_signatures(&delivery.signatures).unwrap();
        let signers = stage.site.trust.verify(&delivery.content_type, &delivery.body, &signatures, NOW).unwrap();
        assert_eq!(signers[0].identity, *stage.site.web1.identity());
        let announcement: Announcement = decode(&delivery.body).unwrap();
        heard.push((String::from(announcement.kind), announcement.inventory.is_some(), announcement.inventory_digest));
        if heard.len() == 3 {
            stop.take().unwrap().stop().await;
        }
    }
    let shape: Vec<(&str, bool)> = heard.iter().map(|(kind, inventory, _)| (kind.as_str(), *inventory)).collect();
    assert_eq!(shape, [("online", true), ("alive", false), ("alive", false), ("offline", false)]);
    assert!(heard.iter().all(|(_, _, digest)| *digest == heard[0].2));
}

fn quiet_read(who: &Credentials) -> Command {
    let mut read = command(who, "read", json!({}));
    read.options = quiet();
    read
}

/// Sends a command of `eve`, waits until a later one of lea's is answered, and counts the refusals of
/// revoked certificates in the audit log.
async fn refused_as_revoked(stage: &Stage, eve: &Credentials) -> usize {
    let mut lea = stage.controller(&stage.site.lea).await;
    lea.send(&quiet_read(eve), eve).await;
    let after = quiet_read(&stage.site.lea);
    lea.send(&after, &stage.site.lea).await;
    assert_eq!(lea.code(after.id).await, "ok");
    stage.audit().iter().filter(|line| line["details"]["code"] == "revoked-certificate").count()
}

#[tokio::test]
async fn a_revocation_list_from_the_bus_is_in_force_at_once_and_after_a_restart() {
    let mut stage = Stage::new();
    let eve = stage.site.authority.credentials("user/eve").unwrap();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&eve).await;
    let before = quiet_read(&eve);
    controller.send(&before, &eve).await;
    assert_eq!(controller.code(before.id).await, "ok");
    drop(controller);
    stage.site.authority.revoke(&eve).unwrap();
    let list = Outgoing {
        content_type: CONTENT_TYPE_CRL.to_owned(),
        body: stage.site.authority.crl_pem().unwrap().into(),
        signatures: Vec::new().into(),
        ..signed(&before, &[&eve])
    };
    let lea = stage.controller(&stage.site.lea).await;
    // A list of somebody else's authority changes nothing.
    let foreign = Site::new();
    foreign.authority.revoke(&foreign.max).unwrap();
    lea.publish(Outgoing { body: foreign.authority.crl_pem().unwrap().into(), ..list.clone() }).await;
    lea.publish(list).await;
    lea.link.close().await;
    assert_eq!(refused_as_revoked(&stage, &eve).await, 1);
    agent.stop().await;
    // The files the agent begins with know nothing of it; what it has kept does.
    stage.site.trust = muster_pki::Trust::from_pem(&stage.site.authority.ca_pem()).unwrap();
    let agent = stage.start(Setup::default()).await;
    assert_eq!(refused_as_revoked(&stage, &eve).await, 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_reload_puts_a_new_policy_into_force_or_keeps_the_old() {
    let stage = Stage::new();
    let strict = stage.materials("[[rule]]\nname = \"no\"\neffect = \"deny\"\nwhen = 'true'\n");
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let reload = Box::new(move || {
        if is_broken.load(Ordering::SeqCst) { Err("policy line 1: no".to_owned()) } else { Ok(strict.clone()) }
    });
    let agent = stage.start(Setup { reload: Some(reload), ..Setup::default() }).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let mut asked = async || {
        let mut read = command(&stage.site.lea, "read", json!({}));
        read.options = quiet();
        controller.send(&read, &stage.site.lea).await;
        controller.code(read.id).await
    };
    agent.handle.reload().await;
    assert_eq!(asked().await, "ok", "a reload that fails changes nothing");
    broken.store(false, Ordering::SeqCst);
    agent.handle.reload().await;
    assert_eq!(asked().await, "policy-denied");
    agent.stop().await;
    let said: Vec<Value> = stage.audit().iter().map(|line| line["details"]["decision"].clone()).collect();
    assert!(said.contains(&json!("reload_failed")) && said.contains(&json!("reloaded")), "{said:?}");
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_run_and_is_answered() {
    if !crate::kit::is_own_process("agent::what_cannot_be_recorded_does_not_run_and_is_answered") {
        return;
    }
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    let ask = |action: &str, arguments: Value| {
        let mut command = command(&stage.site.lea, action, arguments);
        command.options = quiet();
        command
    };
    let (change, read) = (ask("change", json!({ "name": "x" })), ask("read", json!({})));
    // The disk is full.
    crate::kit::limit_files(Some(1));
    for command in [&change, &read] {
        controller.send(command, &stage.site.lea).await;
        let result = controller.finished(command.id).await.1.result.unwrap();
        assert_eq!((result.outcome, result.code.as_str()), (Outcome::Refused, "journal-failed"), "{}", result.message);
    }
    // There is room again, and what was refused may be sent again: it has not run.
    crate::kit::limit_files(None);
    for command in [&change, &read] {
        controller.send(command, &stage.site.lea).await;
        assert_eq!(controller.code(command.id).await, "ok");
    }
    agent.stop().await;
    muster_agent::audit::verify_all(&stage.state.path().join("state/audit.jsonl"), None).unwrap();
}

#[tokio::test]
async fn collectives_that_are_left_are_unbound() {
    let stage = Stage::new();
    let two =
        |raw: &mut muster_agent::config::Raw| raw.collectives = ["main", "lab"].map(|c| c.parse().unwrap()).into();
    stage.start(Setup { change: two, ..Setup::default() }).await.stop().await;
    stage.start(Setup::default()).await.stop().await;
    let controller = stage.controller(&stage.site.lea).await;
    let mut other = command(&stage.site.lea, "read", json!({}));
    other.collective = "lab".parse().unwrap();
    let message = Outgoing { routing_key: "collective.lab".into(), ..signed(&other, &[&stage.site.lea]) };
    let error = controller.link.publish(message, muster_bus::Guarantee::Confirmed).await.unwrap_err();
    assert_eq!(error.code(), "unroutable");
}

#[test]
fn an_agent_does_not_start_on_what_it_cannot_trust() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let stage = Stage::new();
    let start = |change: &dyn Fn(&mut muster_agent::config::Raw), user: bool| {
        let mut raw = muster_agent::config::Raw { state_dir: stage.state.path().join("state"), ..Default::default() };
        raw.broker.urls = vec!["amqps://unused.example.com".parse().unwrap()];
        change(&mut raw);
        let mut materials = stage.materials(crate::kit::ALLOW_ALL);
        if user {
            materials.credentials = stage.site.lea.clone();
        }
        let parts = muster_agent::Parts {
            materials,
            registry: crate::kit::registry(),
            facts: muster_agent::facts::Sources::given(host(), serde_json::Map::new(), [].into()),
            clock: Arc::new(stage.clock.clone()),
            disk: crate::kit::real_disk(),
            blocking: muster_daemon::Blocking::Threads,
            random_seed: 1,
            runner: None,
            reload: None,
        };
        Agent::new(muster_agent::config::Config::from_values(raw).unwrap(), parts)
    };
    assert!(matches!(start(&|_| {}, true), Err(StartError::NotAHost(_))));
    let error = start(&|raw| raw.host = Some("web2".parse().unwrap()), false).unwrap_err().to_string();
    assert!(error.contains("web1.example.com") && error.contains("web2"), "{error}");
    let first = start(&|_| {}, false).unwrap();
    let error = start(&|_| {}, false).unwrap_err().to_string();
    assert!(error.contains("in use by another musterd"), "{error}");
    drop(first);
    start(&|_| {}, false).unwrap();
}
