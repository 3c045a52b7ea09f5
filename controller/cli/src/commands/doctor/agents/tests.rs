//! What doctor says of a fleet.

use std::sync::Arc;

use muster_client::testing::{Behaviour, FakeHost, Fleet, NOW, Say, succeeding};
use muster_protocol::{Command, Outcome};
use serde_json::json;

use super::*;
use crate::context::{self, Selection};
use crate::invocation::Invocation;
use crate::output::{Settings, Surroundings, capture};

/// A host that answers every ping like this.
fn answering_with(outcome: Outcome, code: &'static str, skew_ms: i64) -> Behaviour {
    Arc::new(move |host: &FakeHost, command: &Command| {
        let data = json!({"time_ms": NOW.plus_ms(skew_ms), "agent_version": "0.2.0", "inventory_digest": "d"});
        let mut report = host.finished(command, 0, outcome.clone(), data);
        if let Some(result) = &mut report.result {
            code.clone_into(&mut result.code);
        }
        vec![Say::Report(report)]
    })
}

/// What is printed, and the exit code.
async fn examined(fleet: &Fleet, silent: &[&str]) -> String {
    let mut controller = fleet.controller().await;
    let mut cache = HostCache::none();
    silent.iter().for_each(|name| cache.seen(&name.parse().unwrap(), None, controller.now()));
    let (printer, out, _) = capture::printer(Settings::default(), Surroundings::default());
    let invocation = Invocation { printer, selection: Selection::default() };
    let mut report = Report { invocation: &invocation, checks: Vec::new() };
    check(&context::sample("main"), &mut controller, &mut cache, &[], &mut report).await;
    let exit = ExitCode::choose(report.checks.iter().map(|check| check.exit));
    invocation.printer.finish();
    format!("{}exit {exit}", out.text())
}

#[tokio::test(start_paused = true)]
async fn a_healthy_fleet() {
    let fleet = Fleet::new();
    fleet.hosts(&["web-1", "web-2"], json!({}), succeeding(json!({}))).await;
    fleet.hosts(&["db-1"], json!({}), answering_with(Outcome::Succeeded, "ok", 0)).await;
    insta::assert_snapshot!(examined(&fleet, &[]).await, @"
    ✓ permissions  may read its replies and publish commands
    ✓ agents       3 hosts answer; agent 0.1.0 on 2, 0.2.0 on 1
    ✓ clocks       all within 1 ms of this one
    exit 0
    ");
}

#[tokio::test(start_paused = true)]
async fn silence_and_clocks_that_are_off_are_told() {
    let fleet = Fleet::new();
    fleet.hosts(&["web-1"], json!({}), answering_with(Outcome::Succeeded, "ok", 0)).await;
    fleet.hosts(&["web-2"], json!({}), answering_with(Outcome::Succeeded, "ok", -90_000)).await;
    insta::assert_snapshot!(examined(&fleet, &["web-3", "web-4"]).await, @"
    ✓ permissions  may read its replies and publish commands
    ! agents       2 hosts answer; agent 0.2.0 on 2
                   silent: web-[3-4]
                   do: muster host list
    ! clocks       1 clock off; most of all web-2, 1 min behind, more than hosts allow by default
                   do: timedatectl, here and there: is the time synchronised?
    exit 5
    ");
}

#[tokio::test(start_paused = true)]
async fn all_silent_may_mean_that_nobody_believes_us() {
    let fleet = Fleet::new();
    fleet.hosts(&["web-1", "web-2"], json!({}), Arc::new(|_: &FakeHost, _: &Command| Vec::new())).await;
    insta::assert_snapshot!(examined(&fleet, &["web-1", "web-2"]).await, @"
    ✓ permissions  may read its replies and publish commands
    ✗ agents       none answers
                   silent: web-[1-2]
                   perhaps no host accepts your certificate: one of another CA than theirs gets no answer
                   do: systemctl status musterd; journalctl -u musterd, on a host that should answer
    exit 4
    ");
}

#[tokio::test(start_paused = true)]
async fn one_host_answers() {
    let fleet = Fleet::new();
    fleet.hosts(&["web-1"], json!({}), succeeding(json!({}))).await;
    assert!(examined(&fleet, &[]).await.contains("agents       1 host answers; agent 0.1.0 on 1\n"));
}

#[tokio::test(start_paused = true)]
async fn hosts_that_refuse_are_grouped_by_reason() {
    let fleet = Fleet::new();
    fleet.hosts(&["web-1"], json!({}), answering_with(Outcome::Refused, "policy-denied", 0)).await;
    fleet.hosts(&["web-2"], json!({}), answering_with(Outcome::Refused, "from-the-future", 0)).await;
    insta::assert_snapshot!(examined(&fleet, &[]).await, @"
    ✓ permissions  may read its replies and publish commands
    ✗ agents       every host that answers refuses
                   from-the-future: web-2
                   policy-denied: web-1
                   do: muster explain from-the-future
    ✗ clocks       the clocks differ too much for 1 host
                   hosts: web-2
                   do: timedatectl, here and there: is the time synchronised?
    exit 6
    ");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_there() {
    insta::assert_snapshot!(examined(&Fleet::new(), &[]).await, @"
    ✓ permissions  may read its replies and publish commands
    ✗ agents       no agent listens to `collective.main`
                   note: The broker has no queue that is bound to the broadcast key. Either no agent has ever connected to this broker, or the collective's name is wrong. `muster context show` prints the name; an agent's is in its configuration.
                   do: systemctl status musterd, on a host
    exit 4
    ");
}
