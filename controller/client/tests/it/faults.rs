//! The broker and the connection fail in the middle: what had arrived is kept, and the end is clear.

use std::time::Duration;

use muster_bus::Fault;
use muster_client::testing::{Fleet, Say, behaving, succeeding};
use muster_client::{Asking, ClientError, Controller, End, Event};
use muster_protocol::{Identity, Outcome, routing};
use serde_json::json;

use crate::asking::question;

/// Goes on until `count` hosts have succeeded.
async fn until_succeeded(asking: &mut Asking<'_>, count: usize) {
    while asking.collector().counts().succeeded < count {
        asking.next().await.expect("the hosts will be heard");
    }
}

async fn fleet() -> Fleet {
    let fleet = Fleet::new();
    fleet.hosts(&["fast"], json!({}), succeeding(json!(null))).await;
    let slow = behaving(|host, command| {
        vec![
            Say::Report(host.running(command, 0)),
            Say::Wait(Duration::from_secs(5)),
            Say::Report(host.finished(command, 1, Outcome::Succeeded, json!(null))),
        ]
    });
    fleet.hosts(&["slow"], json!({}), slow).await;
    fleet
}

fn lea() -> Identity {
    "user/lea".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_reply_queue_that_vanished_says_so_and_keeps_what_came() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let queue = routing::reply_queue(controller.route());
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    assert!(fleet.broker.delete_queue(&queue));
    while asking.next().await.is_some() {}
    let summary = asking.into_summary();
    let End::Failed(error) = &summary.end else { panic!("{:?}", summary.end) };
    assert!(matches!(error, ClientError::ReplyQueueGone { queue: gone, .. } if *gone == queue), "{error}");
    assert_eq!(error.code(), "reply-queue-gone");
    assert_eq!((summary.counts.succeeded, summary.counts.total()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_comes_back_and_later_answers_still_count() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    assert_eq!(fleet.broker.disconnect(&lea()), 1);
    let mut reconnected = 0;
    while let Some(event) = asking.next().await {
        reconnected += usize::from(event == Event::Reconnected);
    }
    let summary = asking.into_summary();
    assert_eq!(summary.end, End::Complete);
    assert_eq!((summary.counts.succeeded, reconnected, summary.reconnects), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stays_away_ends_it() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    fleet.broker.stop();
    while asking.next().await.is_some() {}
    let summary = asking.into_summary();
    let End::Failed(error) = &summary.end else { panic!("{:?}", summary.end) };
    assert_eq!((error.code(), error.is_transient()), ("connection-lost", true));
    assert_eq!(summary.counts.succeeded, 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_at_the_start_is_told() {
    let fleet = Fleet::new();
    fleet.broker.stop();
    let error = Controller::connect(fleet.parts("user/lea", 1)).await.unwrap_err();
    assert_eq!(error.code(), "broker-unreachable");
    let error = Controller::connect(fleet.parts("host/web1", 1)).await.unwrap_err();
    assert_eq!(error.code(), "not-a-controller", "known before connecting");
}

#[tokio::test(start_paused = true)]
async fn doubled_and_overtaking_messages_change_nothing() {
    let fleet = Fleet::new();
    let behaviour = behaving(|host, command| {
        let mut says: Vec<Say> = (0..10).map(|n| Say::Report(host.output(command, n, u64::from(n), "x"))).collect();
        says.push(Say::Report(host.finished(command, 10, Outcome::Succeeded, json!(null))));
        says
    });
    fleet.hosts(&["web1", "web2"], json!({}), behaviour).await;
    let mut turn = 0u64;
    fleet.broker.set_faults(move |stored| {
        turn += 1;
        match (stored.queue.starts_with("reply."), turn % 3) {
            (true, 0) => Fault::Duplicate,
            (true, 1) => Fault::Delay(Duration::from_millis(turn % 7)),
            _ => Fault::Deliver,
        }
    });
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&["web1", "web2"])).unwrap().finish().await;
    assert_eq!((summary.counts.succeeded, summary.counts.total()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lost_command_is_a_silent_host() {
    let fleet = fleet().await;
    fleet.broker.set_faults(|stored| if stored.queue == "agent.slow" { Fault::Drop } else { Fault::Deliver });
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&["fast", "slow"])).unwrap().finish().await;
    assert_eq!((summary.counts.succeeded, summary.counts.no_reply), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_forbids_is_said() {
    let fleet = fleet().await;
    fleet.broker.set_permissions(|_, permission| permission.resource != "cmd");
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&["fast"])).unwrap().finish().await;
    let End::Failed(error) = &summary.end else { panic!("{:?}", summary.end) };
    assert_eq!(error.code(), "broker-denied");
}
