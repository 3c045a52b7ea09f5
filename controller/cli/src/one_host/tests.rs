//! Every way in which a host can answer or not.

use muster_client::testing::{Behaviour, FakeHost, Fleet, Say, behaving};
use muster_protocol::{Command, Outcome, ReportState};
use serde_json::json;

use super::*;
use crate::context;
use crate::output::Text;

/// A behaviour that ends each action in this way.
fn ending(outcome: Outcome, code: &'static str, message: &'static str, data: Value) -> Behaviour {
    behaving(move |host: &FakeHost, command: &Command| {
        let mut report = host.finished(command, 0, outcome.clone(), data.clone());
        if let Some(result) = &mut report.result {
            code.clone_into(&mut result.code);
            message.clone_into(&mut result.message);
        }
        assert_eq!(report.state, ReportState::Finished);
        vec![Say::Report(report)]
    })
}

#[tokio::test(start_paused = true)]
async fn each_end_has_its_exit_code() {
    let fleet = Fleet::new();
    let data = json!({"facts": {"role": "web"}, "missing": []});
    fleet.hosts(&["web-1"], json!({}), ending(Outcome::Succeeded, "ok", "", data.clone())).await;
    fleet.hosts(&["web-2"], json!({}), ending(Outcome::Refused, "policy-denied", "rule 3 says no", Value::Null)).await;
    fleet.hosts(&["web-3"], json!({}), ending(Outcome::Failed, "plugin-error", "", Value::Null)).await;
    fleet.hosts(&["web-4"], json!({}), behaving(|_, _| Vec::new())).await;
    let mut controller = fleet.controller().await;
    let context = context::sample("main");
    let mut cache = HostCache::none();
    cache.seen(&"web-4".parse().unwrap(), None, controller.now().plus_ms(-3 * 3_600_000));
    let mut shown = Vec::new();
    for (name, exit) in [("web-1", 0), ("web-2", 6), ("web-3", 3), ("web-4", 5), ("web-44", 4)] {
        let host = name.parse().unwrap();
        let answer = ask_in(&mut controller, &mut cache, &context, &host, "facts", Map::new()).await;
        match answer {
            Ok(answer) => assert_eq!((&answer, exit), (&data, 0), "{name}"),
            Err(failure) => {
                assert_eq!(failure.exit.number(), exit, "{name}");
                shown.extend(failure.lines().iter().map(Text::to_plain));
            }
        }
    }
    assert!(cache.last_seen(&"web-1".parse().unwrap()).is_some(), "who answers is remembered");
    insta::assert_snapshot!(shown.join("\n"), @"
    error[policy-denied]: `web-2` refuses
      why     rule 3 says no
      try     muster explain policy-denied
    error[plugin-error]: `web-3` could not answer
      why     the plugin itself broke
      try     muster explain plugin-error
    error[no-reply]: `web-4` does not answer
      seen    3 h ago
      try     muster ping -H web-4
    error[no-such-host]: no agent has connected as `web-44`
      nearest  `web-4`
      try      muster host list
    ");
}
