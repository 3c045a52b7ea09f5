//! What the files of a host say about its Puppet, and switching it off and on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use muster_plugin_api::{ActionReply, ActionRequest, CancellationToken, Plugin, conformance};
use muster_plugins::{Puppet, PuppetPaths};
use muster_protocol::{RequestId, Timestamp};
use serde_json::{Value, json};

use super::Site;
use crate::support::{ask, run};

const SUMMARY: &str = "---\nversion:\n  config: \"production-4f2a91c\"\n  puppet: 7.23.0\nresources:\n  changed: 0\n  \
    failed: 2\n  total: 87\ntime:\n  last_run: 1795215600\n  total: 3.5\n";

#[tokio::test]
async fn without_puppet_that_is_the_answer() {
    let site = Site::new();
    let status = site.status().await;
    assert_eq!((&status["status"], &status["puppet_installed"]), (&json!("not_installed"), &json!(false)));
    assert_eq!((&status["enabled"], &status["last_run_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(ask(&site.plugin, "puppet", &[]).await, None);
    assert_eq!(ask(&site.plugin, "resource", &[json!("File[/x]")]).await, None);
    assert_eq!(site.told("is_running", json!({})).await["running"], json!(false));
    assert_eq!(site.told("last_run_summary", json!({})).await["result"], json!("unknown"));
    assert_eq!(site.told("resource_count", json!({})).await["total_resources"], Value::Null);
    for action in ["runonce", "enable", "disable"] {
        let failure = run(&site.plugin, action, json!({})).await.unwrap_err();
        assert_eq!(failure.code.code, "not-activated", "{action}");
        assert!(failure.message.contains("usr/bin/puppet"), "{failure}");
    }
}

#[tokio::test]
async fn stopped_idling_applying() {
    let site = Site::installed();
    assert_eq!(site.status().await["status"], json!("stopped"));

    site.write("usr/run/agent.pid", "300\n");
    assert_eq!(site.status().await["status"], json!("stopped"), "no such process");
    site.process(300, "cron", "/usr/sbin/cron\0-f\0");
    assert_eq!(site.status().await["status"], json!("stopped"), "somebody else's process");
    site.process(300, "puppet", "/usr/bin/ruby\0/usr/bin/puppet\0agent\0");
    let status = site.status().await;
    let told = (&status["status"], &status["daemon_present"], &status["pid"]);
    assert_eq!(told, (&json!("idling"), &json!(true), &json!(300)));

    site.write("var/lib/state/agent_catalog_run.lock", "301");
    site.process(301, "puppet", "puppet agent: applying configuration");
    site.process(1, "systemd", "/sbin/init");
    let status = site.status().await;
    let told = (&status["status"], &status["idling"], &status["pid"], &status["lock"]);
    assert_eq!(told, (&json!("applying"), &json!(false), &json!(301), &json!("held")));
    let running = site.told("is_running", json!({})).await;
    assert_eq!((&running["mode"], &running["parent"]), (&json!("daemon"), &json!("systemd")));

    for (lock, why) in
        [("302", "there is no process 302"), ("", "it holds no process number"), ("\u{0}x\n", "it holds no")]
    {
        site.write("var/lib/state/agent_catalog_run.lock", lock);
        let status = site.status().await;
        assert_eq!((&status["status"], &status["lock"]), (&json!("idling"), &json!("stale")), "{lock:?}");
        assert!(status["lock_problem"].as_str().unwrap().contains(why), "{status}");
    }
}

#[tokio::test]
async fn the_places_follow_the_packages_and_the_configuration() {
    let site = Site::installed();
    site.write("var/lib/state/agent_disabled.lock", "{\"disabled_message\":\"in lib\"}");
    assert_eq!(site.status().await["disabled_message"], json!("in lib"));
    fs::create_dir_all(site.path("var/cache/state")).unwrap();
    assert_eq!(site.status().await["status"], json!("stopped"), "the first directory that is used counts");

    let elsewhere = site.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    site.write("usr/puppet.conf", &format!("[main]\nstatedir = {}\n[agent]\nnoop = true\n", elsewhere.display()));
    site.write("elsewhere/agent_disabled.lock", "{\"disabled_message\":\"elsewhere\"}");
    assert_eq!(site.status().await["disabled_message"], json!("elsewhere"));
    site.write("usr/puppet.conf", "[main]\nstatedir = $nothing/x\n");
    let failure = run(&site.plugin, "status", json!({})).await.unwrap_err();
    assert!(failure.message.contains("the setting `nothing` is not known"), "{failure}");

    // Puppet's own packages win over the distribution's.
    crate::support::script(&site.path("opt/bin/puppet"), "#!/bin/sh\nexit 99\n");
    assert_eq!(site.status().await["status"], json!("stopped"));
}

#[tokio::test]
async fn the_last_run() {
    let site = Site::installed();
    site.write("var/lib/state/last_run_summary.yaml", SUMMARY);
    let status = site.status().await;
    assert_eq!((&status["last_run_ms"], &status["since_last_run_s"]), (&json!(1_795_215_600_000_i64), &json!(3600)));
    assert_eq!((&status["last_run_result"], &status["failed_resources"]), (&json!("failed"), &json!(2)));
    let versions = (&status["config_version"], &status["puppet_version"]);
    assert_eq!(versions, (&json!("production-4f2a91c"), &json!("7.23.0")));

    // Since Puppet 7 in another directory; the older file stays behind after an upgrade.
    let newer = SUMMARY.replace("failed: 2", "failed: 0").replace("1795215600", "1795219100");
    site.write("var/lib/public/last_run_summary.yaml", &newer);
    let status = site.status().await;
    assert_eq!((&status["last_run_result"], &status["since_last_run_s"]), (&json!("unchanged"), &json!(100)));

    let answer = ask(&site.plugin, "puppet", &[]).await.unwrap();
    assert_eq!((&answer["status"], answer.get("pid")), (&json!("stopped"), None));
}

#[tokio::test]
async fn garbage_does_not_hide_the_rest() {
    let site = Site::installed();
    let mut bomb = String::from("a0: &a0 [x, x]\n");
    for level in 1..40 {
        // YAML that grows when it is read: each line doubles what the one before names.
        bomb.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
    }
    let large = "x".repeat(5 * 1024 * 1024);
    for garbage in ["version: [1, 2", "\u{0}\u{1}\u{2}", "", bomb.as_str(), large.as_str()] {
        site.write("var/lib/state/last_run_summary.yaml", garbage);
        let status = site.status().await;
        assert_eq!((&status["status"], &status["last_run_result"]), (&json!("stopped"), &json!("unknown")));
        assert!(status["problems"][0].as_str().unwrap().contains("last_run_summary.yaml` "), "{}", status["problems"]);
        assert!(run(&site.plugin, "last_run_summary", json!({})).await.is_err());
    }
    site.write("var/lib/state/last_run_summary.yaml", SUMMARY);
    site.write("var/lib/state/last_run_report.yaml", "resource_statuses: [");
    let status = site.status().await;
    assert!(status["problems"][0].as_str().unwrap().contains("last_run_report.yaml` is not a report"), "{status}");

    // Whatever stands in this place, Puppet does not run.
    fs::create_dir(site.path("var/lib/state/agent_disabled.lock")).unwrap();
    let status = site.status().await;
    assert_eq!((&status["status"], &status["enabled"]), (&json!("disabled"), &json!(false)));
    assert!(status["problems"][0].as_str().unwrap().contains("agent_disabled.lock` cannot be read"), "{status}");
    assert_eq!(run(&site.plugin, "runonce", json!({})).await.unwrap_err().code.code, "disabled");
}

async fn noop(plugin: &Puppet, action: &str, arguments: Value) -> ActionReply {
    let request = conformance::sample_request(action, arguments).unwrap();
    plugin.run(ActionRequest { noop: true, ..request }, conformance::context(CancellationToken::new())).await
}

#[tokio::test]
async fn switching_off_and_on() {
    let site = Site::installed();
    let lock = site.path("var/lib/state/agent_disabled.lock");
    let wanted = json!({ "reason": "moving the database" });
    let reply = noop(&site.plugin, "disable", wanted.clone()).await.unwrap().data;
    assert_eq!((&reply["changed"], lock.exists()), (&json!(true), false));

    let reply = site.told("disable", wanted.clone()).await;
    assert_eq!((&reply["changed"], &reply["reason"]), (&json!(true), &json!("moving the database")));
    assert_eq!(fs::read_to_string(&lock).unwrap(), "{\"disabled_message\":\"moving the database\"}");
    assert_eq!(lock.metadata().unwrap().permissions().mode() & 0o777, 0o644, "as Puppet makes it");
    let status = site.status().await;
    assert_eq!((&status["status"], &status["disabled_message"]), (&json!("disabled"), &json!("moving the database")));
    for arguments in [wanted.clone(), json!({}), json!({ "force": true })] {
        let reply = site.told("disable", arguments).await;
        assert_eq!((&reply["changed"], &reply["reason"]), (&json!(false), &json!("moving the database")));
    }

    let failure = run(&site.plugin, "disable", json!({ "reason": "mine" })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["previous_reason"]), ("conflict", &json!("moving the database")));
    assert!(failure.message.contains("moving the database"), "{failure}");
    let reply = site.told("disable", json!({ "reason": "mine", "force": true })).await;
    assert_eq!((&reply["changed"], &reply["previous_reason"]), (&json!(true), &json!("moving the database")));
    assert_eq!(site.status().await["disabled_message"], json!("mine"));

    let reply = noop(&site.plugin, "enable", json!({})).await.unwrap().data;
    assert_eq!((&reply["changed"], lock.exists()), (&json!(true), true));
    let reply = site.told("enable", json!({})).await;
    assert_eq!((&reply["changed"], &reply["previous_reason"]), (&json!(true), &json!("mine")));
    assert_eq!(site.told("enable", json!({})).await["changed"], json!(false));
    let left: Vec<_> = fs::read_dir(site.path("var/lib/state")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");

    let reply = site.told("disable", json!({})).await;
    assert_eq!(reply["reason"], json!("disabled with Muster by muster:user/conformance at 2026-11-21 00:00:00 UTC"));
}

/// Puppet was installed and has never run.
#[tokio::test]
async fn switching_off_before_the_first_run() {
    let site = Site::installed();
    fs::remove_dir_all(site.path("var")).unwrap();
    assert_eq!(site.told("disable", json!({ "reason": "not yet" })).await["changed"], json!(true));
    assert_eq!(site.status().await["disabled_message"], json!("not yet"));
}

#[tokio::test]
async fn reasons_are_text_and_nothing_else() {
    let site = Site::installed();
    for reason in ["a\nb", "a\u{0}b", "\u{1b}[2J", "a\u{85}b", "\t"] {
        let arguments = json!({ "reason": reason });
        let described = site.plugin.ddl().action(&"disable".parse().unwrap()).unwrap();
        assert!(described.validate(arguments.as_object().unwrap()).is_err(), "{reason:?}");
        let request = conformance::sample_request("disable", arguments).unwrap();
        let failure = site.plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap_err();
        assert_eq!(failure.code.code, "invalid-argument", "{reason:?}");
    }
    for reason in
        ["--server evil", "\"; rm -rf / #", "$(id)", "{\"disabled_message\":\"x\"}", "../../etc/passwd", "ünï → ✓"]
    {
        site.told("disable", json!({ "reason": reason, "force": true })).await;
        assert_eq!(site.status().await["disabled_message"], json!(reason));
    }
}

#[tokio::test]
async fn two_who_disable_at_once_do_not_overwrite_each_other() {
    let site = Site::installed();
    let disable = |reason: &str, id: u8| {
        let request = conformance::sample_request("disable", json!({ "reason": reason })).unwrap();
        let request = ActionRequest { request_id: RequestId::from_parts(Timestamp(1), [id; 10]), ..request };
        site.plugin.run(request, conformance::context(CancellationToken::new()))
    };
    let (one, two) = tokio::join!(disable("one", 1), disable("two", 2));
    let winner = if one.is_ok() { "one" } else { "two" };
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(site.status().await["disabled_message"], json!(winner));
}

#[tokio::test]
async fn the_machines_own_puppet_can_be_asked() {
    let plugin = Puppet::new(PuppetPaths::default());
    let status = run(&plugin, "status", json!({})).await.unwrap().data;
    assert!(status["status"].is_string(), "{status}");
}
