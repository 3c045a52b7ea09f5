//! OpenRC, booted in namespaces of its own: services that really start and stop.

use std::fs;

use muster_plugin_api::Plugin;
use muster_plugin_api::conformance::{Sample, check};
use serde_json::{Value, json};

use super::log;
use super::machine::Machine;
use crate::support::{conforms, run, script};

const WEB: &str = "#!/sbin/openrc-run\n### BEGIN INIT INFO\n# Short-Description: Serves pages\n### END INIT INFO\n\
    command=/bin/sleep\ncommand_args=infinity\ncommand_background=yes\npidfile=/run/web.pid\n\
    extra_started_commands=reload\nreload() { ebegin Reloading; echo reloaded >> /run/reloads; eend 0; }\n";

fn machine() -> Machine {
    let machine = Machine::openrc();
    let install = |name: &str, text: &str| script(&machine.root.join("etc/init.d").join(name), text);
    install("web", WEB);
    install("dies", "#!/sbin/openrc-run\nstart() { eerror no luck; return 1; }\n");
    install("hangs", "#!/sbin/openrc-run\nstart() { sleep 1000; }\n");
    install(
        "crashes",
        "#!/sbin/openrc-run\ncommand=/bin/sleep\ncommand_args=0.7\ncommand_background=yes\npidfile=/run/crashes.pid\n",
    );
    machine
}

#[tokio::test]
async fn keeps_the_contract() {
    let machine = machine();
    let web = || json!({ "name": "web" });
    let samples = [
        Sample::succeeds("status", web()),
        Sample::succeeds("list", json!({})),
        Sample::succeeds("start", web()),
        Sample::succeeds("reload", web()),
        Sample::succeeds("restart", web()),
        Sample::succeeds("enable", web()),
        Sample::succeeds("disable", web()),
        Sample::succeeds("stop", web()),
        Sample::fails("start", json!({ "name": "nope" })),
        Sample::query("service", web()),
    ];
    conforms(check(&machine.plugin(), &samples).await);
}

#[tokio::test]
async fn a_service_lives() {
    let machine = machine();
    let plugin = machine.plugin();
    assert!(plugin.activate().is_ok());
    let act = async |action: &str| run(&plugin, action, json!({ "name": "web" })).await.unwrap().data;

    let started = act("start").await;
    assert_eq!((&started["changed"], &started["provider"]), (&json!(true), &json!("openrc")));
    assert_eq!((&started["before"]["status"], &started["after"]["status"]), (&json!("stopped"), &json!("running")));
    let pid = started["after"]["pid"].as_u64().unwrap();
    assert!(machine.root.join(format!("proc/{pid}")).exists());
    assert_eq!(act("start").await["changed"], json!(false));
    act("reload").await;
    assert_eq!(fs::read_to_string(machine.root.join("run/reloads")).unwrap(), "reloaded\n");
    assert_ne!(act("restart").await["after"]["pid"], json!(pid));

    let enabled = act("enable").await;
    assert_eq!((&enabled["after"]["enabled"], &enabled["after"]["enabled_state"]), (&json!(true), &json!("default")));
    assert!(machine.root.join("etc/runlevels/default/web").symlink_metadata().is_ok());
    assert_eq!(act("enable").await["changed"], json!(false));
    assert_eq!(act("disable").await["after"]["enabled_state"], json!("disabled"));
    let stopped = act("stop").await;
    assert_eq!((&stopped["after"]["status"], &stopped["after"]["pid"]), (&json!("stopped"), &Value::Null));
    assert!(!machine.root.join(format!("proc/{pid}")).exists());
}

#[tokio::test]
async fn services_that_fail() {
    let machine = machine();
    let plugin = machine.plugin();
    let failure = run(&plugin, "start", json!({ "name": "dies" })).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(1)));
    assert!(log(&failure.data).contains("no luck"), "{}", failure.data);
    assert_ne!(failure.data["after"]["status"], json!("running"));
    let failure = run(&plugin, "start", json!({ "name": "hangs", "wait_s": 2 })).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out", "{failure}");
    let failure = run(&plugin, "start", json!({ "name": "crashes" })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["after"]["status"]), ("failed", &json!("failed")), "{failure}");
    let failure = run(&plugin, "start", json!({ "name": "nope" })).await.unwrap_err();
    assert_eq!(failure.code.code, "unknown-service");

    let started = run(&plugin, "start", json!({ "name": "web" })).await.unwrap();
    assert_eq!(started.data["changed"], json!(true));
    let list = run(&plugin, "list", json!({ "status": "running" })).await.unwrap().data;
    assert_eq!(
        (&list["services"][0]["name"], &list["services"][0]["description"]),
        (&json!("web"), &json!("Serves pages"))
    );
}
