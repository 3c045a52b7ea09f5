//! `runonce` and the contract, with a stand-in for the program that does what a test says.

use std::fs;
use std::time::Duration;

use muster_plugin_api::conformance::{Sample, check, context, sample_request};
use muster_plugin_api::{ActionRequest, CancellationToken, Plugin};
use serde_json::{Value, json};

use super::Site;
use crate::support::{conforms, run, run_within, script};

const SUMMARY: &str = "version:\n  config: release-17\n  puppet: 8.10.0\napplication:\n  run_mode: agent\nresources:\n  \
    changed: 0\n  failed: 0\n  total: 3\ntime:\n  last_run: 1795215600\n  total: 3.5\n";

impl Site {
    /// A Puppet that writes its arguments down, does this and ends with the code of its last command.
    fn with_puppet(behaviour: &str) -> Self {
        let site = Self::new();
        let root = site.root.path().display();
        let text = format!("#!/bin/sh\ncd {root}\nprintf '%s\\n' \"$@\" > arguments\nenv > environment\n{behaviour}\n");
        script(&site.path("usr/bin/puppet"), &text);
        site
    }

    /// One whose runs succeed and leave a summary and a report.
    fn that_works() -> Self {
        let site = Self::with_puppet(
            "sed \"s/1795215600/$(date +%s)/\" summary > var/lib/public/last_run_summary.yaml\n\
             echo \"transaction_uuid: run-$$\" > var/lib/state/last_run_report.yaml",
        );
        site.write("summary", SUMMARY);
        site
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let samples = |runonce: Sample| {
        vec![
            Sample::succeeds("status", json!({})),
            Sample::succeeds("is_running", json!({})),
            Sample::succeeds("wait", json!({})),
            Sample::succeeds("last_run_summary", json!({ "logs": true })),
            Sample::succeeds("resource_count", json!({ "resource": "File[/etc/motd]" })),
            runonce,
            Sample::query("puppet", json!({})),
            Sample::query("resource", json!({ "name": "File[/etc/motd]" })),
        ]
    };
    let switches =
        [Sample::succeeds("disable", json!({ "reason": "x", "force": true })), Sample::succeeds("enable", json!({}))];
    let site = Site::that_works();
    site.write("var/lib/state/resources.txt", "file[/etc/motd]\n");
    let mut works = samples(Sample::succeeds("runonce", json!({ "tags": ["a"] })));
    works.extend(switches);
    conforms(check(&site.plugin, &works).await);

    let absent = Site::new();
    let mut fails = samples(Sample::fails("runonce", json!({})));
    fails.extend([Sample::fails("disable", json!({})), Sample::fails("enable", json!({}))]);
    conforms(check(&absent.plugin, &fails).await);
}

#[tokio::test]
async fn what_puppet_gets() {
    let site = Site::that_works();
    let reply =
        run(&site.plugin, "runonce", json!({ "tags": ["a", "b::c"], "environment": "test", "force": true })).await;
    let data = reply.unwrap().data;
    assert_eq!((&data["result"], &data["exit_code"]), (&json!("unchanged"), &json!(0)));
    assert!(data["transaction_uuid"].as_str().unwrap().starts_with("run-"), "{data}");
    let arguments = fs::read_to_string(site.path("arguments")).unwrap();
    let expected = "agent --onetime --no-daemonize --detailed-exitcodes --verbose --logdest console --color=false \
        --no-usecacheonfailure --waitforcert 0 --tags a,b::c --environment test --no-splay";
    assert_eq!(arguments.lines().collect::<Vec<_>>().join(" "), expected);
    let environment = fs::read_to_string(site.path("environment")).unwrap();
    assert!(environment.contains("LC_ALL=C.UTF-8") && !environment.contains("TZ="), "{environment}");
}

/// What the description lets through is looked at again.
#[tokio::test]
async fn options_that_hide_in_arguments_start_nothing() {
    let site = Site::that_works();
    for evil in ["--server", "a --server evil", "a\n--server=evil", "a\u{0}", "a;id", "a,b", "", "$(id)"] {
        for arguments in [json!({ "tags": [evil] }), json!({ "skip_tags": [evil] }), json!({ "environment": evil })] {
            let described = site.plugin.ddl().action(&"runonce".parse().unwrap()).unwrap();
            assert!(described.validate(arguments.as_object().unwrap()).is_err(), "{arguments}");
            let request = sample_request("runonce", arguments.clone()).unwrap();
            let failure = site.plugin.run(request, context(CancellationToken::new())).await.unwrap_err();
            assert_eq!(failure.code.code, "invalid-argument", "{arguments}");
        }
    }
    let failure = run(&site.plugin, "runonce", json!({ "force": true, "splay": true })).await.unwrap_err();
    assert_eq!(failure.code.code, "invalid-argument");
    assert!(!site.path("arguments").exists());
}

/// Runs a Puppet that behaves like this and expects failure.
async fn fails(behaviour: &str, code: &str, exit_code: Option<i32>, message: &str) -> Value {
    let site = Site::with_puppet(behaviour);
    site.write("summary", SUMMARY);
    site.write("var/lib/public/last_run_summary.yaml", SUMMARY);
    let failure = run(&site.plugin, "runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), (code, exit_code), "{failure}");
    assert!(failure.message.contains(message), "{failure}");
    failure.data
}

#[tokio::test]
async fn ends_of_a_run() {
    let told = "sed \"s/1795215600/$(date +%s)/\" summary > var/lib/public/last_run_summary.yaml\n";
    // The former run's summary is not taken for this run's.
    let data =
        fails("echo 'Error: no certificate' >&2; exit 1", "failed", Some(1), "without a run: Error: no certificate")
            .await;
    assert_eq!(data.get("result"), None, "{data}");
    fails("exit 0", "failed", Some(0), "without a run: it said nothing").await;
    fails(&format!("{told}exit 4"), "failed", Some(4), "of 3 resources failed").await;
    fails(&format!("{told}exit 255"), "failed", Some(255), "exit code 255").await;
    fails("kill -9 $$", "signalled", None, "SIGKILL").await;
    fails("echo garbage: [ > var/lib/public/last_run_summary.yaml; exit 0", "failed", Some(0), "is not a summary")
        .await;
    let long = "head -c 3000000 /dev/zero | tr '\\0' 'x'\n";
    let site = Site::with_puppet(&format!("{long}{told}exit 0"));
    site.write("summary", SUMMARY);
    let reply = run(&site.plugin, "runonce", json!({})).await.unwrap();
    assert_eq!(reply.data["result"], json!("unchanged"), "what it prints does not matter");
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_no_lock() {
    let site =
        Site::with_puppet("echo $$ > var/lib/state/agent_catalog_run.lock\ntrap '' TERM\nwhile :; do sleep 0.05; done");
    let cancel = CancellationToken::new();
    let request =
        ActionRequest { time_limit: Duration::from_millis(500), ..sample_request("runonce", json!({})).unwrap() };
    let failure = site.plugin.run(request, context(cancel)).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out");
    assert!(!site.path("var/lib/state/agent_catalog_run.lock").exists());
}

/// Somebody begins a run between our look at the lock and Puppet's.
#[tokio::test]
async fn a_race_for_the_lock_that_is_lost() {
    let site = Site::with_puppet("echo 301 > var/lib/state/agent_catalog_run.lock; exit 1");
    site.process(301, "puppet", "puppet agent: applying configuration");
    let failure = run(&site.plugin, "runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["other_run"]["pid"]), ("conflict", &json!(301)));
    fs::remove_file(site.path("var/lib/state/agent_catalog_run.lock")).unwrap();
    let limit = Duration::from_millis(700);
    let failure = run_within(&site.plugin, "runonce", json!({ "wait": true }), limit).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["other_run"]["pid"]), ("timed-out", &json!(301)));
}

/// Puppet is disabled while it waits out its splay: it then ends with 1 and says so only in its log.
#[tokio::test]
async fn disabled_meanwhile() {
    let site = Site::with_puppet("echo '{\"disabled_message\":\"lea\"}' > var/lib/state/agent_disabled.lock; exit 1");
    let failure = run(&site.plugin, "runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["disabled_message"]), ("disabled", &json!("lea")));
}

#[tokio::test]
async fn a_wait_that_is_cancelled_leaves_the_run_alone() {
    let site = Site::that_works();
    site.process(301, "puppet", "puppet agent: applying configuration");
    site.write("var/lib/state/agent_catalog_run.lock", "301");
    for (action, arguments) in [("wait", json!({})), ("runonce", json!({ "wait": true }))] {
        let cancel = CancellationToken::new();
        let request = sample_request(action, arguments).unwrap();
        let (reply, ()) = tokio::join!(site.plugin.run(request, context(cancel.clone())), async { cancel.cancel() });
        assert_eq!(reply.unwrap_err().code.code, "cancelled", "{action}");
    }
    assert!(!site.path("arguments").exists());
}
