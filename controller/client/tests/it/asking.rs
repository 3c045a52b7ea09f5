//! Questions that go as they should.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_client::testing::{Fleet, Say, behaving, succeeding};
use muster_client::{Audience, Cause, Controller, End, Event, Question};
use muster_protocol::{HostName, Outcome, OutputStream, TaskState};
use serde_json::json;

pub(crate) fn names(hosts: &[&str]) -> BTreeSet<HostName> {
    hosts.iter().map(|name| HostName::new(*name).unwrap()).collect()
}

pub(crate) fn question(hosts: &[&str]) -> Question {
    Question::new(Audience::Hosts(names(hosts)), "test".parse().unwrap(), "run".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn every_host_answers_and_nobody_is_waited_for() {
    let fleet = Fleet::new();
    fleet.hosts(&["web1", "web2", "db1"], json!({}), succeeding(json!({"x": 1}))).await;
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&["web1", "web2"])).unwrap().finish().await;
    assert_eq!(summary.end, End::Complete);
    assert_eq!((summary.counts.succeeded, summary.counts.total()), (2, 2));
    assert_eq!(summary.hosts[&names(&["web1"]).pop_first().unwrap()].result.as_ref().unwrap().data, json!({"x": 1}));
    assert!(summary.elapsed_ms < 1_000, "{} ms", summary.elapsed_ms);
    assert_eq!((summary.rejected, summary.strangers.len(), summary.for_another), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_question_to_nobody_is_answered_at_once() {
    let fleet = Fleet::new();
    let mut controller = fleet.controller().await;
    let asked = controller.ask(&question(&[])).unwrap().finish();
    let summary = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("an end");
    assert_eq!((summary.end, summary.counts.total(), summary.elapsed_ms), (End::Complete, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order() {
    let fleet = Fleet::new();
    fleet.hosts(&["web1"], json!({}), succeeding(json!(null))).await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["web1", "gone"])).unwrap();
    let mut events = Vec::new();
    while let Some(event) = asking.next().await {
        events.push(event);
    }
    let host = |name: &str| HostName::new(name).unwrap();
    let place = |event: &Event| events.iter().position(|seen| seen == event).unwrap_or_else(|| panic!("{event:?}"));
    assert!(place(&Event::Started(host("web1"))) < place(&Event::Finished(host("web1"))));
    place(&Event::Accepted);
    place(&Event::Unreachable(host("gone"), Cause::NoQueue));
    assert_eq!(events.last(), Some(&Event::Ended(End::Complete)));
}

#[tokio::test(start_paused = true)]
async fn output_is_put_together() {
    let fleet = Fleet::new();
    let behaviour = behaving(|host, command| {
        vec![
            Say::Report(host.output(command, 1, 4, "two\n")),
            Say::Report(host.output(command, 0, 0, "one\n")),
            Say::Report(host.output(command, 1, 4, "two\n")),
            Say::Report(host.finished(command, 2, Outcome::Succeeded, json!(null))),
        ]
    });
    fleet.hosts(&["web1"], json!({}), behaviour).await;
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&["web1"])).unwrap().finish().await;
    let record = summary.hosts.values().next().unwrap();
    assert_eq!(record.output.stream(OutputStream::Stdout).unwrap().text(), "one\ntwo\n");
    assert_eq!((record.duplicates, record.missing_reports()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn silent_and_endless_hosts_are_told_apart() {
    let fleet = Fleet::new();
    fleet.hosts(&["silent"], json!({}), behaving(|_, _| Vec::new())).await;
    fleet.hosts(&["endless"], json!({}), behaving(|host, command| vec![Say::Report(host.running(command, 0))])).await;
    let mut controller = fleet.controller().await;
    let mut question = question(&["silent", "endless"]);
    question.time_limit_ms = 5_000;
    let summary = controller.ask(&question).unwrap().finish().await;
    let states: Vec<_> = summary.hosts.values().map(|record| (record.state, record.cause)).collect();
    assert_eq!(
        states,
        [(TaskState::TimedOut, Some(Cause::Unfinished)), (TaskState::NoReply, Some(Cause::Silent))],
        "endless, then silent"
    );
    assert!((15_000..16_000).contains(&summary.elapsed_ms), "{} ms", summary.elapsed_ms);
}

/// A process that was stopped, or a computer that slept, in the midst of a question.
#[tokio::test(start_paused = true)]
async fn who_answered_while_the_caller_stood_still_is_not_late() {
    let fleet = Fleet::new();
    let slowly = behaving(|host, command| {
        let running = Say::Report(host.running(command, 0));
        let end = Say::Report(host.finished(command, 1, Outcome::Succeeded, json!(null)));
        vec![running, Say::Wait(Duration::from_secs(3)), end]
    });
    fleet.hosts(&["web1", "web2"], json!({}), slowly).await;
    fleet.hosts(&["silent"], json!({}), behaving(|_, _| Vec::new())).await;
    let mut controller = fleet.controller().await;
    for polled in [0, 3] {
        let mut asking = controller.ask(&question(&["web1", "web2", "silent"])).unwrap();
        while asking.next().await != Some(Event::Accepted) {}
        for _ in 0..polled {
            tokio::time::timeout(Duration::from_millis(10), asking.next()).await.ok();
        }
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(36)).await;
        }
        let summary = asking.finish().await;
        assert_eq!((summary.counts.succeeded, summary.counts.no_reply), (2, 1), "{polled}: {:?}", summary.counts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_keeps_what_came() {
    let fleet = Fleet::new();
    fleet.hosts(&["web1"], json!({}), succeeding(json!(null))).await;
    let slow =
        behaving(|host, command| vec![Say::Report(host.running(command, 0)), Say::Wait(Duration::from_secs(3600))]);
    fleet.hosts(&["web2"], json!({}), slow).await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["web1", "web2"])).unwrap();
    while asking.collector().counts().succeeded == 0 || asking.collector().counts().running == 0 {
        asking.next().await.expect("both will be heard");
    }
    asking.stop();
    while asking.next().await.is_some() {}
    let summary = asking.into_summary();
    assert_eq!((summary.end, summary.counts.succeeded, summary.counts.running), (End::Stopped, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn many_names_go_out_in_parts_and_every_host_gets_its_own() {
    let fleet = Fleet::new();
    let all: Vec<String> = (0..250).map(|n| format!("web-{n:04}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // What a host saw in its command: how many names, and whether it was one of them.
    let behaviour = behaving(|host, command| {
        let seen = json!({"names": command.target.hosts.len(), "mine": command.target.hosts.contains(&host.name)});
        vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, seen))]
    });
    fleet.hosts(&all, json!({}), behaviour).await;
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&all)).unwrap().finish().await;
    assert_eq!((summary.requests.len(), summary.counts.succeeded), (3, 250));
    let largest = summary.hosts.values().map(|record| record.result.as_ref().unwrap().data["names"].as_u64().unwrap());
    assert_eq!(largest.max(), Some(100));
}

#[tokio::test(start_paused = true)]
async fn two_controllers_of_one_user_do_not_mix() {
    let fleet = Fleet::new();
    let behaviour = behaving(|host, command| {
        vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, json!({"route": command.reply_to})))]
    });
    fleet.hosts(&["web1", "web2"], json!({}), behaviour).await;
    let mut one = Controller::connect(fleet.parts("user/lea", 1)).await.unwrap();
    let mut other = Controller::connect(fleet.parts("user/lea", 2)).await.unwrap();
    assert_ne!(one.route(), other.route());
    let (one_route, other_route) = (json!(one.route()), json!(other.route()));
    let question = question(&["web1", "web2"]);
    let (left, right) = tokio::join!(one.ask(&question).unwrap().finish(), other.ask(&question).unwrap().finish());
    for (summary, route) in [(left, one_route), (right, other_route)] {
        assert_eq!((summary.counts.succeeded, summary.for_another, summary.strangers.len()), (2, 0, 0));
        assert!(summary.hosts.values().all(|record| record.result.as_ref().unwrap().data["route"] == route));
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_an_earlier_question_do_not_count_for_the_next() {
    let fleet = Fleet::new();
    let slow = behaving(|host, command| {
        vec![Say::Wait(Duration::from_secs(11)), Say::Report(host.finished(command, 0, Outcome::Failed, json!("old")))]
    });
    fleet.hosts(&["web1"], json!({}), slow).await;
    let mut controller = fleet.controller().await;
    let first = controller.ask(&question(&["web1"])).unwrap().finish().await;
    assert_eq!(first.counts.no_reply, 1);
    let mut second = question(&["web1"]);
    second.reply_timeout_ms = 30_000;
    let second = controller.ask(&second).unwrap().finish().await;
    assert_eq!((second.counts.failed, second.for_another), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn options_that_must_not_be_ignored_are_required() {
    let fleet = Fleet::new();
    let behaviour = behaving(|host, command| {
        vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, json!(command.requires)))]
    });
    fleet.hosts(&["web1"], json!({}), behaviour).await;
    let mut controller = fleet.controller().await;
    let mut question = question(&["web1"]);
    question.options.noop = true;
    question.options.timeout_ms = Some(5);
    let summary = controller.ask(&question).unwrap().finish().await;
    let data = &summary.hosts.values().next().unwrap().result.as_ref().unwrap().data;
    assert_eq!(data, &json!(["noop", "timeout"]));
}
