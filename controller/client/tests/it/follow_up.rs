//! Stopping a request and attaching to it again.

use std::sync::{Arc, Mutex};

use muster_client::testing::{Fleet, Later, Say, behaving};
use muster_client::{Audience, Cause, ClientError, End, Event, FollowUp, OutputWish, Part, Wish};
use muster_protocol::{HostName, Outcome, OutputStream, RequestId, TaskState, Timestamp};
use serde_json::json;

use crate::asking::{names, question};

fn id(number: u8) -> RequestId {
    RequestId::from_parts(Timestamp(1_795_000_000_000), [number; 10])
}

fn part(request: RequestId, hosts: &[&str]) -> Part {
    Part { request, audience: Audience::Hosts(names(hosts)) }
}

#[tokio::test(start_paused = true)]
async fn every_host_gets_the_request_that_it_was_asked_with() {
    let fleet = Fleet::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    fleet
        .hosts_with(
            &["web1", "web2", "db1"],
            behaving(|_, _| Vec::new()),
            Arc::new(move |host, later| {
                let Later::Cancel(cancel) = later else { panic!("{later:?}") };
                note.lock().unwrap().push((host.name.to_string(), cancel.request_id));
                let outcome = if host.name.as_str() == "db1" { Outcome::Invalid } else { Outcome::Succeeded };
                vec![Say::Report(host.finished(later, 0, outcome, json!(null)))]
            }),
        )
        .await;
    let mut controller = fleet.controller().await;
    let parts = vec![part(id(1), &["db1", "web1"]), part(id(2), &["web2", "gone"])];
    let summary = controller.follow_up(&FollowUp::new(Wish::Cancel, parts)).unwrap().finish().await;
    assert_eq!(summary.end, End::Complete);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, [("db1".to_owned(), id(1)), ("web1".to_owned(), id(1)), ("web2".to_owned(), id(2))]);
    assert_eq!((summary.counts.succeeded, summary.counts.failed, summary.counts.no_reply), (2, 1, 1));
    assert_eq!(summary.asked[&HostName::new("web2").unwrap()], id(2));
    assert_eq!(summary.hosts[&HostName::new("gone").unwrap()].cause, Some(Cause::NoQueue));
    assert_eq!(summary.requests.len(), 2, "one message a command");
    assert!(!summary.requests.contains(&id(1)), "a cancellation has an id of its own");
}

#[tokio::test(start_paused = true)]
async fn a_watch_brings_output_and_the_result_of_the_request() {
    let fleet = Fleet::new();
    let later = Arc::new(|host: &muster_client::testing::FakeHost, later: &Later| {
        let Later::Watch(watch) = later else { panic!("{later:?}") };
        assert!(watch.replay && watch.follow);
        vec![
            Say::Report(host.output(later, 0, 0, "one\n")),
            Say::Wait(std::time::Duration::from_secs(3_600)),
            Say::Report(host.output(later, 1, 4, "two\n")),
            Say::Report(host.finished(later, 2, Outcome::Failed, json!({"x": 1}))),
        ]
    });
    fleet.hosts_with(&["web1"], behaving(|_, _| Vec::new()), later).await;
    let mut controller = fleet.controller().await;
    let mut watch = FollowUp::new(Wish::Watch { replay: true, follow: true }, vec![part(id(1), &["web1"])]);
    watch.output = OutputWish { events: true, keep_bytes: Some(4), from_anywhere: false };
    let mut asking = controller.follow_up(&watch).unwrap();
    let mut written = String::new();
    while let Some(event) = asking.next().await {
        if let Event::Output(_, chunks) = event {
            written.extend(chunks.into_iter().map(|chunk| chunk.data));
        }
    }
    let summary = asking.into_summary();
    assert_eq!(written, "one\ntwo\n");
    let record = summary.hosts.values().next().unwrap();
    assert_eq!((record.state, record.result.as_ref().unwrap().data.clone()), (TaskState::Failed, json!({"x": 1})));
    assert_eq!(record.output.stream(OutputStream::Stdout).unwrap().missing_bytes(), 4, "only four bytes are kept");
}

#[tokio::test(start_paused = true)]
async fn a_host_in_two_parts_is_no_question() {
    let fleet = Fleet::new();
    let mut controller = fleet.controller().await;
    let check = |parts: Vec<Part>| matches!(parts.as_slice(), [_, _]).then_some(parts).unwrap();
    for parts in [
        check(vec![part(id(1), &["web1"]), part(id(2), &["web1"])]),
        check(vec![part(id(1), &["web1"]), Part { request: id(2), audience: Audience::Everyone }]),
    ] {
        let error = controller.follow_up(&FollowUp::new(Wish::Cancel, parts)).unwrap_err();
        assert!(matches!(error, ClientError::Overlapping { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn output_is_no_event_unless_it_is_asked_for() {
    let fleet = Fleet::new();
    let behaviour = behaving(|host, command| {
        vec![
            Say::Report(host.output(command, 0, 0, "one\n")),
            Say::Report(host.finished(command, 1, Outcome::Succeeded, json!(null))),
        ]
    });
    fleet.hosts(&["web1"], json!({}), behaviour).await;
    let mut controller = fleet.controller().await;
    for (events, expected) in [(false, 0), (true, 1)] {
        let mut question = question(&["web1"]);
        question.output.events = events;
        let mut asking = controller.ask(&question).unwrap();
        let mut outputs = 0;
        while let Some(event) = asking.next().await {
            outputs += usize::from(matches!(event, Event::Output(..)));
        }
        assert_eq!(outputs, expected);
    }
}
