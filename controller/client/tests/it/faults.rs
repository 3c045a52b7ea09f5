//! The broker and the connection fail in the middle: what had arrived is kept, and the end is clear.

use std::sync::Arc;
use std::time::Duration;

use muster_bus::{Cut, Fault, Step, Weather};
use muster_client::testing::{Fleet, FollowUpBehaviour, Say, behaving, succeeding};
use muster_client::{Asking, Audience, ClientError, Controller, End, Event};
use muster_protocol::{Identity, Outcome, routing};
use serde_json::json;

use crate::asking::question;

/// Follows it until a host is at work.
async fn until_running(asking: &mut Asking<'_>) {
    while asking.collector().counts().running < 1 {
        asking.next().await.unwrap();
    }
}

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
async fn a_reply_queue_that_vanished_is_made_again() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let queue = routing::reply_queue(controller.route());
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    assert!(fleet.broker.delete_queue(&queue));
    let summary = asking.finish().await;
    assert_eq!(summary.end, End::Complete);
    assert_eq!((summary.counts.succeeded, summary.reconnects, summary.requests.len()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reply_queue_that_vanishes_again_and_again_ends_it_and_keeps_what_came() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let queue = routing::reply_queue(controller.route());
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    let mut told = 0;
    assert!(fleet.broker.delete_queue(&queue));
    while let Some(event) = asking.next().await {
        match event {
            Event::Disconnected(why) => {
                assert!(why.contains(&format!("deleted the reply queue `{queue}`")), "{why}");
                told += 1;
            }
            Event::Reconnected => assert!(fleet.broker.delete_queue(&queue)),
            _ => {}
        }
    }
    let summary = asking.into_summary();
    let End::Failed(error) = &summary.end else { panic!("{:?}", summary.end) };
    assert!(matches!(error, ClientError::ReplyQueueGone { queue: gone, .. } if *gone == queue), "{error}");
    assert_eq!((error.code(), told), ("reply-queue-gone", 5));
    assert_eq!((summary.counts.succeeded, summary.counts.total()), (1, 2));
}

/// A host that says it has begun, then nothing until it is watched; and what it says then.
async fn fleet_that_is_watched(code: &'static str) -> Fleet {
    let fleet = Fleet::new();
    let begins = behaving(|host, command| vec![Say::Report(host.running(command, 0))]);
    let tells: FollowUpBehaviour = Arc::new(move |host, later| {
        let mut report = host.finished(later, 0, Outcome::Succeeded, json!({"told": "again"}));
        if let Some(result) = &mut report.result {
            result.code = code.to_owned();
        }
        vec![Say::Report(report)]
    });
    fleet.hosts_with(&["web1"], begins, tells).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_went_to_the_lost_queue_is_told_again() {
    let fleet = fleet_that_is_watched("ok").await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["web1"])).unwrap();
    until_running(&mut asking).await;
    assert_eq!(fleet.broker.disconnect(&lea()), 1);
    let summary = asking.finish().await;
    assert_eq!((summary.end, summary.reconnects, summary.requests.len()), (End::Complete, 1, 1));
    let record = summary.hosts.values().next().unwrap();
    assert_eq!(record.result.as_ref().unwrap().data, json!({"told": "again"}));
    assert_eq!(record.missing_reports(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_forgotten_is_not_waited_for_to_the_end_of_its_time() {
    let fleet = fleet_that_is_watched("unknown-request").await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["web1"])).unwrap();
    until_running(&mut asking).await;
    assert_eq!(fleet.broker.disconnect(&lea()), 1);
    let summary = asking.finish().await;
    assert_eq!((summary.end, summary.counts.timed_out), (End::Complete, 1));
    assert!(summary.elapsed_ms < 12_000, "{}", summary.elapsed_ms);
}

/// Each return gives the hosts their time back, so whoever breaks every connection at once kept a command line for ever.
#[tokio::test(start_paused = true)]
async fn connections_that_break_again_and_again_without_news_end_it() {
    let fleet = fleet_that_is_watched("unknown-request").await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["web1"])).unwrap();
    until_running(&mut asking).await;
    assert_eq!(fleet.broker.disconnect(&lea()), 1);
    let mut returns = 0;
    while let Some(event) = asking.next().await {
        if event == Event::Reconnected {
            returns += 1;
            assert!(returns < 100, "it never gives up");
            assert_eq!(fleet.broker.disconnect(&lea()), 1);
        }
    }
    let summary = asking.into_summary();
    let End::Failed(error) = &summary.end else { panic!("{:?}", summary.end) };
    assert_eq!((error.code(), returns, summary.counts.running), ("connection-lost", 10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_lost_with_the_connection_is_sent_again_as_it_was() {
    let fleet = fleet().await;
    let mut lost = 0;
    fleet.broker.set_faults(move |stored| {
        lost += usize::from(stored.queue == "agent.slow");
        if stored.queue == "agent.slow" && lost == 1 { Fault::Drop } else { Fault::Deliver }
    });
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    assert_eq!(fleet.broker.disconnect(&lea()), 1);
    let summary = asking.finish().await;
    assert_eq!((summary.end, summary.counts.succeeded, summary.requests.len()), (End::Complete, 2, 1));
}

/// A command line draws its screen each second, and for that lets go of what it waits for.
#[tokio::test(start_paused = true)]
async fn looking_away_neither_hinders_the_way_back_nor_makes_it_endless() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["fast", "slow"])).unwrap();
    until_succeeded(&mut asking, 1).await;
    fleet.broker.stop();
    let began = tokio::time::Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_millis(40), asking.next()).await {
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => break,
        }
        assert!(began.elapsed() < Duration::from_secs(200), "it never gives up");
    }
    assert!(matches!(asking.end(), Some(End::Failed(error)) if error.code() == "connection-lost"));
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

/// Runs something on a thread of its own, because what never pauses cannot be stopped from within.
fn comes_to_an_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        // Whoever waits may be gone by then.
        drop(sender.send(runtime.block_on(work)));
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("the client comes to an end")
}

/// Found by the simulation: whatever was sent over the dead connection failed at once and was sent again, so the
/// client did nothing else any more.
#[test]
fn a_connection_that_breaks_while_commands_are_sent_is_made_again() {
    let seen = comes_to_an_end(async {
        let fleet = fleet().await;
        let mut controller = fleet.controller().await;
        let mut cuts_left = 1;
        fleet.broker.set_weather(move |identity, step| {
            let is_cut = step == Step::Publish && *identity == lea() && cuts_left > 0;
            cuts_left -= i32::from(is_cut);
            Weather { cut: if is_cut { Cut::Before } else { Cut::Nowhere }, ..Weather::default() }
        });
        let summary = controller.ask(&question(&["fast", "slow"])).unwrap().finish().await;
        (summary.end, summary.counts.succeeded, summary.reconnects)
    });
    assert_eq!(seen, (End::Complete, 2, 1));
}

/// Found by the simulation: once the window for answers to a broadcast was over, the client waited for a time that
/// had passed, again and again, as long as somebody was still at work or the broker had not taken the command.
#[test]
fn a_broadcast_that_outlasts_its_window_waits_without_turning_in_circles() {
    for blocked in [false, true] {
        let seen = comes_to_an_end(async move {
            let fleet = fleet().await;
            let mut controller = fleet.controller().await;
            let mut question = question(&["fast"]);
            question.audience = Audience::Everyone;
            question.reply_timeout_ms = 1_000;
            if blocked {
                fleet.broker.set_blocked(Some("low on memory"));
            }
            let broker = fleet.broker.clone();
            let heal = async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                broker.set_blocked(None);
            };
            let asking = controller.ask(&question).unwrap().finish();
            let (summary, ()) = futures_util::future::join(asking, heal).await;
            (summary.end, summary.counts.succeeded)
        });
        assert_eq!(seen, (End::Complete, 2), "blocked: {blocked}");
    }
}
