//! A real systemd: services that do not do what they are asked.

use std::time::Duration;

use muster_plugin_api::{ActionFailure, ActionRequest, CancellationToken, Plugin, conformance};
use muster_plugins::Service;
use serde_json::{Value, json};

use super::log;
use super::machine::Machine;
use crate::support::{run, until};

async fn fails(plugin: &Service, action: &str, arguments: Value) -> ActionFailure {
    run(plugin, action, arguments).await.unwrap_err()
}

#[tokio::test]
async fn a_start_that_fails() {
    let machine = Machine::systemd();
    machine.units(&[
        ("dies.service", "[Service]\nExecStart=/bin/sh -c 'echo no config >&2; exit 3'\n"),
        ("later.service", "[Service]\nExecStart=/bin/sh -c 'sleep 0.7; exit 4'\n"),
        ("loops.service", "[Service]\nExecStart=/bin/sh -c 'sleep 0.3; exit 5'\nRestart=always\nRestartSec=200ms\n"),
        ("ends.service", "[Service]\nExecStart=true\n"),
        ("absent.service", "[Service]\nExecStart=/no/such/program\n"),
        ("once.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'\n"),
        ("slow.service", "[Service]\nType=notify\nExecStart=sleep infinity\nTimeoutStartSec=1\n"),
        ("bad.service", "[Service]\nExecStart=relative/path\n"),
    ]);
    let plugin = machine.plugin();
    let start = async |name: &str| fails(&plugin, "start", json!({ "name": name })).await;

    let failure = start("dies").await;
    assert_eq!(failure.code.code, "failed");
    assert!(failure.message.contains("(exit-code, exit code 3)"), "{failure}");
    let after = &failure.data["after"];
    assert_eq!(
        (&after["status"], &after["result"], &after["exit_code"]),
        (&json!("failed"), &json!("exit-code"), &json!(3))
    );
    // The job was to start it, and that was done.
    assert_eq!(failure.data["job"]["result"], json!("done"));
    assert!(log(&failure.data).contains("no config"), "{}", failure.data);

    assert!(start("later").await.message.contains("exit code 4"), "within the time to settle");
    let failure = start("loops").await;
    assert!(failure.message.contains("started again"), "{failure}");
    let failure = start("ends").await;
    assert!(failure.message.contains("it ended by itself (exit code 0)"), "{failure}");
    assert_eq!(start("absent").await.data["after"]["exit_code"], json!(203));

    let failure = start("once").await;
    assert_eq!((&failure.data["job"]["result"], failure.exit_code), (&json!("failed"), None));
    assert!(failure.message.contains("the job ended with the result `failed` (exit-code, exit code 7)"), "{failure}");
    let failure = start("slow").await;
    assert_eq!(
        (&failure.data["job"]["result"], &failure.data["after"]["result"]),
        (&json!("failed"), &json!("timeout"))
    );

    let failure = start("bad").await;
    assert_eq!(failure.data["job"]["error"], json!("org.freedesktop.systemd1.BadUnitSetting"), "{failure}");
}

#[tokio::test]
async fn every_result_of_a_job_is_known() {
    let machine = Machine::systemd();
    machine.units(&[
        ("broken.service", "[Service]\nType=oneshot\nExecStart=false\n"),
        (
            "needy.service",
            "[Unit]\nRequires=broken.service\nAfter=broken.service\n[Service]\nExecStart=sleep infinity\n",
        ),
        ("late.service", "[Unit]\nJobRunningTimeoutSec=1\n[Service]\nType=notify\nExecStart=sleep infinity\n"),
        ("hangs.service", "[Service]\nType=notify\nExecStart=sleep infinity\n"),
    ]);
    let plugin = machine.plugin();
    for (name, result) in [("needy", "dependency"), ("late", "timeout"), ("broken", "failed")] {
        let failure = fails(&plugin, "start", json!({ "name": name })).await;
        assert_eq!(
            (failure.code.code, &failure.data["job"]["result"]),
            ("failed", &json!(result)),
            "{name}: {failure}"
        );
    }
    // Somebody else stops it while it starts.
    let stop = async {
        until(
            || machine.output(&["systemctl", "show", "--property=ActiveState", "hangs"]),
            |state| state.contains("activating"),
        )
        .await;
        machine.output(&["systemctl", "stop", "hangs"]);
    };
    let (failure, ()) = tokio::join!(fails(&plugin, "start", json!({ "name": "hangs" })), stop);
    assert_eq!((failure.code.code, &failure.data["job"]["result"]), ("failed", &json!("canceled")), "{failure}");
}

#[tokio::test]
async fn a_start_that_hangs_is_waited_for_until_the_deadline_or_the_cancel() {
    let machine = Machine::systemd();
    machine.units(&[(
        "hangs.service",
        "[Service]\nType=notify\nExecStart=/bin/sh -c 'echo thinking; exec sleep infinity'\n",
    )]);
    let plugin = machine.plugin();
    let failure = fails(&plugin, "start", json!({ "name": "hangs", "wait_s": 1 })).await;
    assert_eq!(failure.code.code, "timed-out");
    assert!(failure.message.contains("within 1 s; systemd goes on with the job; it is activating/start"), "{failure}");
    assert_eq!((&failure.data["after"]["status"], &failure.data["job"]["result"]), (&json!("starting"), &Value::Null));
    assert!(failure.data["job"]["id"].is_u64());
    assert!(log(&failure.data).contains("thinking"), "{}", failure.data);

    // The job goes on, and a second start waits for the same one.
    let job = failure.data["job"]["id"].clone();
    let cancel = CancellationToken::new();
    let request = conformance::sample_request("start", json!({ "name": "hangs" })).unwrap();
    let action = plugin.run(request, conformance::context(cancel.clone()));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let (reply, ()) = tokio::join!(action, stop);
    let failure = reply.unwrap_err();
    assert_eq!(failure.code.code, "cancelled", "{failure}");
    if !failure.data.is_null() && !failure.data["job"].is_null() {
        assert_eq!(
            (&failure.data["job"]["id"], &failure.data["job"]["result"]),
            (&job, &json!("canceled")),
            "{}",
            failure.data
        );
    }
    assert_eq!(machine.output(&["systemctl", "list-jobs", "--no-legend"]).trim(), "", "no job is left");
}

#[tokio::test]
async fn a_stop_that_is_ignored() {
    let machine = Machine::systemd();
    let stubborn = |seconds: u32| {
        format!(
            "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec={seconds}\n"
        )
    };
    machine.units(&[("deaf.service", &stubborn(1)), ("stone.service", &stubborn(600))]);
    let plugin = machine.plugin();
    for name in ["deaf", "stone"] {
        run(&plugin, "start", json!({ "name": name })).await.unwrap();
    }
    let stopped = run(&plugin, "stop", json!({ "name": "deaf" })).await.unwrap();
    assert_eq!(
        (&stopped.data["after"]["status"], &stopped.data["after"]["result"]),
        (&json!("failed"), &json!("timeout"))
    );
    assert_eq!(stopped.message, "`deaf` was stopped, but not cleanly (timeout)");
    let failure = fails(&plugin, "stop", json!({ "name": "stone", "wait_s": 1 })).await;
    assert_eq!((failure.code.code, &failure.data["after"]["status"]), ("timed-out", &json!("stopping")));
    assert!(failure.data["after"]["pid"].is_u64());
}

#[tokio::test]
async fn masked_unknown_and_not_reloadable() {
    let machine = Machine::systemd();
    machine.units(&[("plain.service", "[Service]\nExecStart=sleep infinity\n")]);
    machine.output(&["systemctl", "mask", "hidden.service"]);
    let plugin = machine.plugin();
    let status = run(&plugin, "status", json!({ "name": "hidden" })).await.unwrap().data;
    assert_eq!(
        (&status["status"], &status["enabled_state"], &status["enabled"]),
        (&json!("stopped"), &json!("masked"), &json!(false))
    );
    for action in ["start", "restart", "enable"] {
        let failure = fails(&plugin, action, json!({ "name": "hidden" })).await;
        assert_eq!(failure.code.code, "service-masked", "{action}");
        assert_eq!(
            (&failure.data["before"]["enabled_state"], &failure.data["changed"]),
            (&json!("masked"), &json!(false))
        );
    }
    for action in ["start", "stop", "restart", "reload", "enable", "disable"] {
        let failure = fails(&plugin, action, json!({ "name": "nope" })).await;
        assert_eq!(
            (failure.code.code, failure.message.as_str()),
            ("unknown-service", "there is no service `nope` here")
        );
    }
    let absent = run(&plugin, "status", json!({ "name": "nope" })).await.unwrap().data;
    assert_eq!(
        (&absent["status"], &absent["provider"], &absent["pid"]),
        (&json!("absent"), &json!("systemd"), &Value::Null)
    );
    run(&plugin, "start", json!({ "name": "plain" })).await.unwrap();
    let failure = fails(&plugin, "reload", json!({ "name": "plain" })).await;
    assert_eq!(failure.code.code, "cannot-reload");
}

#[tokio::test]
async fn an_old_unit_file_is_told_about() {
    let machine = Machine::systemd();
    machine.units(&[("web.service", "[Service]\nExecStart=sleep infinity\n")]);
    let plugin = machine.plugin();
    run(&plugin, "start", json!({ "name": "web" })).await.unwrap();
    let file = machine.root.join("etc/systemd/system/web.service");
    std::fs::write(&file, "[Service]\nExecStart=sleep 4711\n").unwrap();
    let later = std::fs::metadata(&file).unwrap().modified().unwrap() + Duration::from_secs(60);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    let answer = run(&plugin, "restart", json!({ "name": "web" })).await.unwrap();
    assert!(answer.message.contains("daemon-reload"), "{}", answer.message);
}

#[tokio::test]
async fn an_action_without_time_ends_in_time() {
    let machine = Machine::systemd();
    machine.units(&[("hangs.service", "[Service]\nType=notify\nExecStart=sleep infinity\n")]);
    let plugin = machine.plugin();
    let request = conformance::sample_request("start", json!({ "name": "hangs", "wait_s": 3600 })).unwrap();
    let request = ActionRequest { time_limit: Duration::from_secs(2), ..request };
    let failure = plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out");
    assert_eq!(failure.data["after"]["status"], json!("starting"), "there was time for a last look");
}
