//! A real systemd: services that do what they are asked.

use std::fs;

use muster_plugin_api::Plugin;
use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::Service;
use serde_json::{Value, json};

use super::machine::Machine;
use super::{log, run_noop};
use crate::support::{ask, conforms, run, until};

const WEB: &str = "[Unit]\nDescription=Serves pages\n[Service]\nExecStart=/bin/sh -c 'echo hello from web; exec sleep infinity'\n\
    ExecReload=/bin/sh -c 'echo reloaded >> /run/reloads'\n[Install]\nWantedBy=multi-user.target\n";

#[tokio::test]
async fn keeps_the_contract() {
    let machine = Machine::systemd();
    machine.units(&[("web.service", WEB)]);
    let web = || json!({ "name": "web" });
    let samples = [
        Sample::succeeds("status", web()),
        Sample::succeeds("status", json!({ "name": "nope" })),
        Sample::succeeds("list", json!({})),
        Sample::succeeds("start", json!({ "name": "web", "wait_s": 20 })),
        Sample::succeeds("reload", web()),
        Sample::succeeds("restart", web()),
        Sample::succeeds("enable", json!({ "name": "web.service", "now": true })),
        Sample::succeeds("disable", web()),
        Sample::succeeds("stop", web()),
        Sample::fails("start", json!({ "name": "nope" })),
        Sample::query("service", web()),
        Sample::query("service", json!({ "name": "nope" })),
    ];
    conforms(check(&machine.plugin(), &samples).await);
}

#[tokio::test]
async fn a_service_lives() {
    let machine = Machine::systemd();
    machine.units(&[("web.service", WEB)]);
    let plugin = machine.plugin();
    let act = async |action: &str| run(&plugin, action, json!({ "name": "web" })).await.unwrap();

    let started = act("start").await;
    assert_eq!(started.message, "`web` was started");
    let data = &started.data;
    assert_eq!(
        (&data["changed"], &data["provider"], &data["unit"]),
        (&json!(true), &json!("systemd"), &json!("web.service"))
    );
    assert_eq!((&data["before"]["status"], &data["before"]["pid"]), (&json!("stopped"), &Value::Null));
    let after = &data["after"];
    assert_eq!(
        (&after["active"], &after["sub"], &after["status"]),
        (&json!("active"), &json!("running"), &json!("running"))
    );
    assert!(after["since_ms"].as_i64().unwrap() > 1_700_000_000_000, "{after}");
    assert_eq!((&data["job"]["type"], &data["job"]["result"]), (&json!("start"), &json!("done")));
    assert!(data["job"]["id"].as_u64().unwrap() > 0);
    let pid = after["pid"].as_u64().unwrap();
    let command = fs::read_to_string(machine.root.join(format!("proc/{pid}/cmdline"))).unwrap();
    assert!(command.starts_with("sleep"), "{command:?}");

    let again = act("start").await;
    assert_eq!((&again.data["changed"], &again.data["job"]), (&json!(false), &Value::Null));
    assert_eq!(again.data["after"]["pid"], json!(pid));
    assert_eq!(again.message, "`web` is running already");

    let reloaded = act("reload").await.data;
    assert_eq!((&reloaded["changed"], &reloaded["after"]["pid"]), (&json!(true), &json!(pid)));
    assert_eq!(fs::read_to_string(machine.root.join("run/reloads")).unwrap(), "reloaded\n");

    let restarted = act("restart").await.data;
    assert_eq!((&restarted["job"]["type"], &restarted["job"]["result"]), (&json!("restart"), &json!("done")));
    assert_ne!(restarted["after"]["pid"], json!(pid));

    let status = act("status").await.data;
    assert_eq!(
        (&status["status"], &status["state"], &status["enabled"]),
        (&json!("running"), &json!("active/running"), &json!(false))
    );
    assert_eq!(ask(&plugin, "service", &[json!("web")]).await.unwrap()["status"], json!("running"));

    let stopped = act("stop").await;
    assert_eq!((&stopped.data["after"]["status"], &stopped.data["after"]["pid"]), (&json!("stopped"), &Value::Null));
    assert_eq!(stopped.message, "`web` was stopped");
    assert_eq!(act("stop").await.data["changed"], json!(false));
    // A restart starts what does not run.
    assert_eq!(act("restart").await.data["after"]["status"], json!("running"));
}

#[tokio::test]
async fn enabled_and_disabled() {
    let machine = Machine::systemd();
    let fixed = "[Service]\nExecStart=sleep infinity\n";
    machine.units(&[("web.service", WEB), ("fixed.service", fixed)]);
    let plugin = machine.plugin();
    let link = machine.root.join("etc/systemd/system/multi-user.target.wants/web.service");
    let act =
        async |action: &str, now: bool| run(&plugin, action, json!({ "name": "web", "now": now })).await.unwrap().data;

    let enabled = act("enable", false).await;
    assert_eq!(
        (&enabled["before"]["enabled_state"], &enabled["after"]["enabled_state"]),
        (&json!("disabled"), &json!("enabled"))
    );
    assert_eq!(
        (&enabled["changed"], &enabled["after"]["status"], &enabled["job"]),
        (&json!(true), &json!("stopped"), &Value::Null)
    );
    assert!(link.symlink_metadata().is_ok());
    assert_eq!(act("enable", false).await["changed"], json!(false));

    let now = act("enable", true).await;
    assert_eq!(
        (&now["changed"], &now["after"]["status"], &now["job"]["result"]),
        (&json!(true), &json!("running"), &json!("done"))
    );
    let disabled = act("disable", false).await;
    assert_eq!((&disabled["after"]["enabled"], &disabled["after"]["status"]), (&json!(false), &json!("running")));
    assert!(link.symlink_metadata().is_err());
    assert_eq!(act("disable", true).await["after"]["status"], json!("stopped"));
    let nothing = run(&plugin, "disable", json!({ "name": "web", "now": true })).await.unwrap();
    assert_eq!(
        (nothing.message.as_str(), &nothing.data["changed"]),
        ("`web` is disabled and stopped already", &json!(false))
    );

    let failure = run(&plugin, "enable", json!({ "name": "fixed" })).await.unwrap_err();
    assert!(failure.message.contains("no [Install] section"), "{failure}");
    assert_eq!(failure.data["after"]["enabled"], Value::Null);
}

#[tokio::test]
async fn noop_says_what_would_change_and_changes_nothing() {
    let machine = Machine::systemd();
    machine.units(&[("web.service", WEB), ("hidden.service", WEB)]);
    machine.output(&["systemctl", "mask", "hidden"]);
    fs::remove_file(machine.root.join("etc/systemd/system/hidden.service")).ok();
    let plugin = machine.plugin();
    for (action, arguments, expected) in [
        ("start", json!({ "name": "web" }), (true, "`web` would be started")),
        ("stop", json!({ "name": "web" }), (false, "`web` would be left as it is: stopped")),
        ("restart", json!({ "name": "web" }), (true, "`web` would be restarted")),
        ("enable", json!({ "name": "web", "now": true }), (true, "`web` would be enabled and started")),
        ("disable", json!({ "name": "web" }), (false, "`web` would be left as it is: disabled")),
    ] {
        let answer = run_noop(&plugin, action, arguments).await.unwrap();
        assert_eq!((answer.data["changed"].as_bool().unwrap(), answer.message.as_str()), expected);
        assert_eq!(answer.data["after"], Value::Null);
    }
    let failure = run_noop(&plugin, "reload", json!({ "name": "web" })).await.unwrap_err();
    assert!(failure.message.contains("does not run"), "{failure}");
    assert_eq!(run_noop(&plugin, "start", json!({ "name": "nope" })).await.unwrap_err().code.code, "unknown-service");
    let status = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!((&status["status"], &status["enabled"]), (&json!("stopped"), &json!(false)));
}

#[tokio::test]
async fn other_kinds_of_units() {
    let machine = Machine::systemd();
    machine.units(&[
        ("once.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo once >> /run/once'\n"),
        ("stays.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"),
        ("inst@.service", "[Service]\nExecStart=/bin/sh -c 'exec sleep infinity' %i\n"),
        ("tick.timer", "[Timer]\nOnCalendar=*-1-1\n"),
        ("tick.service", "[Service]\nType=oneshot\nExecStart=true\n"),
        ("held.service", "[Unit]\nConditionPathExists=/no/such/file\n[Service]\nExecStart=sleep infinity\n"),
    ]);
    let plugin = machine.plugin();
    let start = async |name: &str| run(&plugin, "start", json!({ "name": name })).await;

    for _ in 0..2 {
        let data = start("once").await.unwrap().data;
        assert_eq!(
            (&data["changed"], &data["after"]["status"], &data["job"]["result"]),
            (&json!(true), &json!("stopped"), &json!("done"))
        );
    }
    assert_eq!(fs::read_to_string(machine.root.join("run/once")).unwrap(), "once\nonce\n");
    assert_eq!(start("stays").await.unwrap().data["after"]["sub"], json!("exited"));

    let data = start("inst@eu-1").await.unwrap().data;
    assert_eq!((&data["unit"], &data["after"]["status"]), (&json!("inst@eu-1.service"), &json!("running")));
    let data = start("tick.timer").await.unwrap().data;
    assert_eq!((&data["after"]["sub"], &data["after"]["pid"]), (&json!("waiting"), &Value::Null));

    let failure = start("held").await.unwrap_err();
    assert!(failure.message.contains("a condition in its unit file does not hold"), "{failure}");
    assert_eq!(failure.data["after"]["status"], json!("stopped"));
}

#[tokio::test]
async fn lists_what_is_loaded_and_what_is_not() {
    let machine = Machine::systemd();
    machine.units(&[
        ("web.service", WEB),
        ("idle.service", WEB),
        ("inst@.service", "[Service]\nExecStart=sleep infinity\n"),
        ("broken.service", "[Service]\nType=oneshot\nExecStart=false\n"),
    ]);
    let plugin = machine.plugin();
    run(&plugin, "start", json!({ "name": "web" })).await.unwrap();
    run(&plugin, "start", json!({ "name": "inst@1" })).await.unwrap();
    run(&plugin, "start", json!({ "name": "broken" })).await.unwrap_err();
    let list = async |arguments: Value| run(&plugin, "list", arguments).await.unwrap().data;
    let names = |data: &Value| -> Vec<String> {
        data["services"]
            .as_array()
            .unwrap()
            .iter()
            .map(|service| service["name"].as_str().unwrap().to_owned())
            .collect()
    };

    let all = list(json!({})).await;
    assert_eq!(names(&all), ["broken", "dbus", "idle", "inst@1", "systemd-journald", "web"]);
    assert_eq!((&all["count"], &all["is_complete"]), (&json!(6), &json!(true)));
    let idle = &all["services"][2];
    assert_eq!(
        (&idle["status"], &idle["enabled_state"], &idle["unit"]),
        (&json!("stopped"), &json!("disabled"), &json!("idle.service"))
    );
    let web = &all["services"][5];
    assert_eq!(
        (&web["status"], &web["description"], &web["state"]),
        (&json!("running"), &json!("Serves pages"), &json!("active/running"))
    );
    assert_eq!(names(&list(json!({ "status": "failed" })).await), ["broken"]);
    assert_eq!(names(&list(json!({ "match": "WE" })).await), ["web"]);
    assert_eq!(names(&list(json!({ "match": "inst", "status": "stopped" })).await), [""; 0]);
}

#[tokio::test]
async fn without_a_bus_systemctl_and_the_journal_tell() {
    let machine = Machine::systemd();
    machine.units(&[
        ("hangs.service", "[Service]\nType=notify\nExecStart=sleep infinity\n"),
        ("web.service", WEB),
        ("broken.service", "[Service]\nType=oneshot\nExecStart=false\n"),
        (
            "needy.service",
            "[Unit]\nRequires=broken.service\nAfter=broken.service\n[Service]\nExecStart=sleep infinity\n",
        ),
    ]);
    let mut paths = machine.paths();
    paths.system_bus = machine.directory.path().join("no-bus");
    let plugin = Service::new(paths);
    let data = run(&plugin, "start", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!(
        (&data["job"]["result"], &data["job"]["id"], &data["after"]["status"]),
        (&json!("done"), &Value::Null, &json!("running"))
    );
    let failure = run(&plugin, "start", json!({ "name": "needy" })).await.unwrap_err();
    assert_eq!(failure.data["job"]["result"], json!("dependency"), "{failure}");
    assert_eq!(failure.exit_code, Some(1));
    assert!(log(&failure.data).contains("Dependency failed"), "{}", failure.data);
    assert!(plugin.activate().is_ok());

    // systemd keeps no record of jobs that somebody else canceled; then the result is not known, and not guessed.
    let stop = async {
        until(
            || machine.output(&["systemctl", "show", "--property=ActiveState", "hangs"]),
            |state| state.contains("activating"),
        )
        .await;
        machine.output(&["systemctl", "stop", "hangs"]);
    };
    let (reply, ()) = tokio::join!(run(&plugin, "start", json!({ "name": "hangs" })), stop);
    let failure = reply.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["job"]["result"]), ("failed", &Value::Null), "{failure}");
}
