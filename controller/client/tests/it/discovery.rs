//! Who matches, and how soon that is known.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_client::cache::HostCache;
use muster_client::discover::{discover, refresh};
use muster_client::testing::{Fleet, Say, behaving, succeeding};
use muster_client::{ClientError, FailureClass};
use muster_protocol::HostName;
use muster_protocol::expr::Expression;
use serde_json::json;

use crate::asking::names;

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap()
}

async fn fleet() -> Fleet {
    let fleet = Fleet::new();
    fleet.hosts(&["web1", "web2"], json!({"role": "web"}), succeeding(json!(null))).await;
    fleet.hosts(&["db1"], json!({"role": "db"}), succeeding(json!(null))).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn the_first_search_takes_the_window_and_the_next_one_does_not() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    let web = expression("role = web");
    let first = discover(&mut controller, &mut cache, Some(&web), 2_000, |_, _| {}).await.unwrap();
    assert_eq!(first.hosts, names(&["web1", "web2"]));
    assert!((2_000..2_100).contains(&first.summary.elapsed_ms), "{}", first.summary.elapsed_ms);
    let second = discover(&mut controller, &mut cache, Some(&web), 2_000, |_, _| {}).await.unwrap();
    assert_eq!(second.hosts, first.hosts);
    assert!(second.summary.elapsed_ms < 200, "{}", second.summary.elapsed_ms);
    assert!(second.silent.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_gone_is_silent_and_a_new_one_is_found() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    discover(&mut controller, &mut cache, None, 2_000, |_, _| {}).await.unwrap();
    fleet.broker.disconnect(&"host/web2".parse().unwrap());
    fleet.broker.delete_queue("agent.web2");
    fleet.hosts(&["web3"], json!({"role": "web"}), succeeding(json!(null))).await;
    let found = discover(&mut controller, &mut cache, None, 2_000, |_, _| {}).await.unwrap();
    assert_eq!(found.hosts, names(&["db1", "web1", "web3"]));
    assert_eq!(found.silent, names(&["web2"]));
    assert!(found.summary.elapsed_ms >= 2_000, "it was waited for");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_no_longer_matches_is_not_silent() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    let web = expression("role = web");
    discover(&mut controller, &mut cache, Some(&web), 2_000, |_, _| {}).await.unwrap();
    fleet.broker.disconnect(&"host/web2".parse().unwrap());
    fleet.broker.delete_queue("agent.web2");
    let found = discover(&mut controller, &mut cache, Some(&web), 2_000, |_, _| {}).await.unwrap();
    assert_eq!(found.silent, names(&["web2"]), "it is gone");
    fleet.hosts(&["web2"], json!({"role": "mail"}), succeeding(json!(null))).await;
    let found = discover(&mut controller, &mut cache, Some(&web), 2_000, |_, _| {}).await.unwrap();
    assert_eq!((found.hosts, found.silent), (names(&["web1"]), names(&[])), "it is something else now");
    let again = discover(&mut controller, &mut cache, Some(&web), 2_000, |_, _| {}).await.unwrap();
    assert!(again.summary.elapsed_ms < 200, "and is not waited for: {}", again.summary.elapsed_ms);
}

#[tokio::test(start_paused = true)]
async fn facts_tell_whom_to_expect() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    let all = discover(&mut controller, &mut cache, None, 2_000, |_, _| {}).await.unwrap().hosts;
    assert_eq!(refresh(&mut controller, &mut cache, all.clone(), 100, 1_000).await.unwrap(), 3);
    assert_eq!(refresh(&mut controller, &mut cache, all, 100, 1_000).await.unwrap(), 0, "known by now");
    let db = expression("role = db");
    let found = discover(&mut controller, &mut cache, Some(&db), 2_000, |_, _| {}).await.unwrap();
    assert_eq!(found.hosts, names(&["db1"]));
    assert!(found.summary.elapsed_ms < 200, "never asked before, but known from facts: {}", found.summary.elapsed_ms);
}

#[tokio::test(start_paused = true)]
async fn nobody_matches_is_not_an_error() {
    let fleet = fleet().await;
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    let none = expression("role = mail");
    let found = discover(&mut controller, &mut cache, Some(&none), 2_000, |_, _| {}).await.unwrap();
    assert!(found.hosts.is_empty() && found.silent.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_any_agent_is_one() {
    let fleet = Fleet::new();
    let mut controller = fleet.controller().await;
    let error = discover(&mut controller, &mut HostCache::none(), None, 2_000, |_, _| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::NobodyListens { routing_key } if routing_key == "collective.main"));
    assert_eq!((error.code(), error.class()), ("nobody-listens", FailureClass::NoMatch));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_to_be_pinged_is_there() {
    let fleet = Fleet::new();
    let refusing =
        std::sync::Arc::new(|host: &muster_client::testing::FakeHost, command: &muster_protocol::Command| {
            let report = host.finished(command, 0, muster_protocol::Outcome::Refused, json!(null));
            vec![muster_client::testing::Say::Report(report)]
        });
    fleet.hosts(&["web1"], json!({"role": "web"}), refusing).await;
    fleet.hosts(&["web2"], json!({"role": "web"}), behaving(|_, _| Vec::new())).await;
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    let found = discover(&mut controller, &mut cache, None, 500, |_, _| {}).await.unwrap();
    let expected: BTreeSet<HostName> = names(&["web1", "web2"]);
    assert_eq!(found.hosts, expected);
    assert_eq!((found.summary.counts.refused, found.summary.counts.succeeded), (1, 1));
    assert!(found.unwilling.is_empty(), "being there is all that was asked");
    // It refuses whatever a condition comes to, so it has not said that the condition holds.
    let web = expression("role = web");
    let found = discover(&mut controller, &mut cache, Some(&web), 500, |_, _| {}).await.unwrap();
    assert_eq!((found.hosts, found.silent), (names(&["web2"]), names(&[])));
    assert_eq!(found.unwilling, names(&["web1"]));
}

/// A large fleet, or a busy broker: the answers come one after the other for twice as long as the window.
#[tokio::test(start_paused = true)]
async fn answers_that_still_come_when_the_window_ends_are_taken() {
    let fleet = Fleet::new();
    let host_names: Vec<String> = (0..40).map(|n| format!("web{n:02}")).collect();
    for (n, name) in (0..).zip(&host_names) {
        let late =
            std::sync::Arc::new(move |host: &muster_client::testing::FakeHost, command: &muster_protocol::Command| {
                let answer = host.finished(command, 0, muster_protocol::Outcome::Succeeded, json!(null));
                vec![Say::Wait(Duration::from_millis(100 * n)), Say::Report(answer)]
            });
        fleet.hosts(&[name.as_str()], json!({"role": "web"}), late).await;
    }
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    for who in ["nobody is known", "all are known"] {
        let found = discover(&mut controller, &mut cache, None, 2_000, |_, _| {}).await.unwrap();
        assert_eq!(found.hosts.len(), 40, "{who}: {:?}", found.silent);
        assert!(found.silent.is_empty(), "{who}: {:?}", found.silent);
    }
}
