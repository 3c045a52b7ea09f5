//! A second implementation of the protocol, in Python, at either end of the bus.

use muster_tests::programs::{python_peer, read_line};
use muster_tests::stage::{Stage, host};
use serde_json::Value;

use super::BROKER;

fn peer_arguments<'a>(member: &'a muster_tests::pki::Member, port: &'a str, vhost: &'a str) -> Vec<&'a str> {
    vec![
        "--certificate",
        member.files.certificate.to_str().unwrap(),
        "--key",
        member.files.key.to_str().unwrap(),
        "--broker-port",
        port,
        "--vhost",
        vhost,
    ]
}

#[test]
fn an_independent_controller_is_obeyed_and_verifies_the_answers() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "host/web-2.ams1", "user/lea"]);
    let agents = stage.agents([host("web-1.ams1").fact("role", "web"), host("web-2.ams1")]);
    let lea = stage.site().member("user/lea");
    let access = stage.access(&lea);
    let port = stage.bus.port().to_string();
    let base = peer_arguments(&lea, &port, &stage.bus.vhost);
    let ask = |more: &[&str]| -> Value {
        let output = python_peer("controller", &access, &[&base[..], more].concat()).unwrap().output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}\n{}", String::from_utf8_lossy(&output.stderr), agents[0].log());
        serde_json::from_str(&text).unwrap()
    };

    let both = ask(&["--expect", "2"]);
    for host in ["web-1.ams1", "web-2.ams1"] {
        assert_eq!(both["finished"][host]["outcome"], "succeeded", "{both}");
    }
    let one = ask(&[
        "--action",
        "package.status",
        "--arguments",
        r#"{"name":"bash"}"#,
        "--target",
        r#"{"filter":"role = web"}"#,
    ]);
    assert_eq!(one["finished"]["web-1.ams1"]["outcome"], "succeeded", "{one}");

    // What the command line would have refused to send, the host refuses to run.
    let check = |action: &str, arguments: &str, outcome: &str, code: &str| {
        let done = ask(&["--action", action, "--arguments", arguments, "--target", r#"{"hosts":["web-1.ams1"]}"#]);
        let result = &done["finished"]["web-1.ams1"];
        assert_eq!(
            (result["outcome"].as_str(), result["code"].as_str()),
            (Some(outcome), Some(code)),
            "{action} {arguments}: {result}"
        );
    };
    check("nonsense.status", "{}", "refused", "policy-denied");
    check("package.explode", "{}", "refused", "policy-denied");
    check("package.status", "{}", "invalid", "missing-argument");
    check("package.status", r#"{"nam":"bash"}"#, "invalid", "unknown-argument");
    check("package.status", r#"{"name":7}"#, "invalid", "invalid-argument");
    check("package.status", r#"{"name":"x; rm -rf /"}"#, "invalid", "invalid-argument");
    check("package.status", r#"{"name":"-oDPkg::Pre-Invoke=touch"}"#, "invalid", "invalid-argument");
}

#[test]
fn an_unknown_plugin_or_action_is_named_to_whom_the_policy_allows_everything() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/lea"]);
    let _agents = stage.agents([host("web-1.ams1")]);
    let lea = stage.site().member_in("user/lea", &["admins"]);
    let access = stage.access(&lea);
    let port = stage.bus.port().to_string();
    let base = peer_arguments(&lea, &port, &stage.bus.vhost);
    for (action, code) in [("nonsense.status", "unknown-plugin"), ("package.explode", "unknown-action")] {
        let output =
            python_peer("controller", &access, &[&base[..], &["--action", action]].concat()).unwrap().output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let done: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(done["finished"]["web-1.ams1"]["code"], code, "{text}");
    }
}

#[test]
fn an_independent_agent_verifies_our_command_and_we_its_report() {
    let stage = Stage::new(BROKER, &["host/py-1.ams1", "user/lea"]);
    let python = stage.site().member("host/py-1.ams1");
    let access = stage.access(&python);
    let port = stage.bus.port().to_string();
    let base = peer_arguments(&python, &port, &stage.bus.vhost);
    let arguments = [&base[..], &["--data", r#"{"from":"python"}"#]].concat();
    let mut child = python_peer("agent", &access, &arguments).unwrap().spawn().unwrap();
    assert_eq!(read_line(&mut child).unwrap(), r#"{"ready": "py-1.ams1"}"#);
    let lea = stage.operator("lea", &["admins"]);
    let run = lea.run(&["run", "host.ping", "-H", "py-1.ams1", "--jsonl"]).unwrap().expect(0);
    let task = run.json_lines().unwrap().into_iter().find(|line| line["kind"] == "task").unwrap();
    assert_eq!(task["data"]["from"], "python", "{task}");
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
