//! `shell`, with the shells of this machine.

use std::fs;
use std::time::Duration;

use muster_plugin_api::conformance::{self, Sample, check};
use muster_plugin_api::{ActionContext, ActionRequest, CancellationToken, OutputSink, Plugin, builtin_ddls};
use muster_plugins::{Shell, ShellSettings};
use serde_json::{Value, json};

use crate::support::{Killed, alive, conforms, dies, refusal, run, run_with, run_within, until};

fn plugin() -> Shell {
    Shell::new(ShellSettings::default())
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let samples = [
        Sample::succeeds("run", json!({ "command": "echo out; echo err >&2" })),
        Sample::succeeds("run", json!({ "command": "exit 3", "exit_codes": [0, 3] })),
        Sample::fails("run", json!({ "command": "exit 3" })),
        Sample::fails("run", json!({ "command": "kill -SEGV $$" })),
    ];
    conforms(check(&plugin(), &samples).await);
}

#[test]
fn it_is_off_until_it_is_enabled_and_runs_apart() {
    for name in ["shell", "script"] {
        let ddl = builtin_ddls().iter().find(|ddl| ddl.name().as_str() == name).unwrap();
        assert!(ddl.muster.opt_in && ddl.actions.iter().all(|action| action.muster.detached));
    }
}

#[tokio::test]
async fn the_answer_has_everything() {
    let command = "echo out; echo err >&2; cat; pwd; echo $EXTRA; exit 5";
    let arguments = json!({
        "command": command, "stdin": "in\n", "working_directory": "/tmp", "environment": { "EXTRA": "a b\nc" },
        "exit_codes": [5],
    });
    let ok = run(&plugin(), "run", arguments).await.unwrap();
    let data = ok.data;
    assert_eq!((&data["stdout"], &data["stderr"]), (&json!("out\nin\n/tmp\na b c\n"), &json!("err\n")));
    assert_eq!((&data["exit_code"], &data["signal"], &data["left_behind"]), (&json!(5), &Value::Null, &json!(0)));
    assert_eq!((&data["shell"], &data["user"]), (&json!("/bin/sh"), &json!("root")));
    assert_eq!((&data["stdout_bytes"], &data["stdout_truncated"]), (&json!(18), &json!(false)));
}

#[tokio::test]
async fn a_failure_has_it_too() {
    let failure = run(&plugin(), "run", json!({ "command": "echo found; echo why >&2; exit 2" })).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(2)));
    assert_eq!(failure.message, "`sh` ended with exit code 2: why");
    assert_eq!((&failure.data["stdout"], &failure.data["exit_code"]), (&json!("found\n"), &json!(2)));

    let failure = run(&plugin(), "run", json!({ "command": "echo x; kill -KILL $$" })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["signal"]), ("signalled", &json!("SIGKILL")));
    assert_eq!(failure.data["stdout"], json!("x\n"));

    let hang = json!({ "command": "echo begun; sleep 1000" });
    let failure = run_within(&plugin(), "run", hang, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["stdout"]), ("timed-out", &json!("begun\n")));
}

#[tokio::test]
async fn it_streams_and_can_be_cancelled_in_the_middle() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let command = format!("echo first; echo $$ > {0}.new; mv {0}.new {0}; sleep 1000; echo never", pid.display());
    let plugin = plugin();
    let request = conformance::sample_request("run", json!({ "command": command })).unwrap();
    let (output, mut receiver) = OutputSink::channel(1);
    let cancel = CancellationToken::new();
    let context = ActionContext { output, ..conformance::context(cancel.clone()) };
    let (reply, first) = tokio::join!(plugin.run(request, context), async {
        until(|| pid.exists(), |exists| *exists).await;
        let first = receiver.recv().await.unwrap();
        cancel.cancel();
        first.bytes
    });
    let failure = reply.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["stdout"]), ("cancelled", &json!("first\n")));
    assert_eq!(first, b"first\n");
    dies(fs::read_to_string(&pid).unwrap().trim().parse().unwrap()).await;
}

#[tokio::test]
async fn output_is_bounded_and_told_as_it_is() {
    let data = run(&plugin(), "run", json!({ "command": "head -c 200000 /dev/zero | tr '\\0' x" })).await.unwrap().data;
    assert_eq!(data["stdout"].as_str().unwrap().len(), 48 * 1024);
    assert_eq!((&data["stdout_bytes"], &data["stdout_truncated"]), (&json!(200_000), &json!(true)));
    let data = run(&plugin(), "run", json!({ "command": "printf '\\377\\376'; printf 'gr\\303\\274n' >&2" }))
        .await
        .unwrap()
        .data;
    assert_eq!((&data["stdout"], &data["stdout_encoding"]), (&json!("//4="), &json!("base64")));
    assert_eq!((&data["stderr"], &data["stderr_encoding"]), (&json!("grün"), &json!("text")));
}

#[tokio::test]
async fn it_runs_as_the_effective_user() {
    let arguments = json!({ "command": "id -un; id -u; cat /etc/shadow" });
    let as_nobody = |request: &mut ActionRequest| request.effective_user = Some("nobody".to_owned());
    let failure = run_with(&plugin(), "run", arguments, as_nobody).await.unwrap_err();
    assert_eq!((failure.exit_code, &failure.data["stdout"]), (Some(1), &json!("nobody\n65534\n")));
    assert_eq!(failure.data["user"], json!("nobody"));

    for name in ["no-such-user", "-u", "root\n", "root;id", ""] {
        let as_them = |request: &mut ActionRequest| request.effective_user = Some(name.to_owned());
        let failure = run_with(&plugin(), "run", json!({ "command": "id" }), as_them).await.unwrap_err();
        assert_eq!(failure.code.code, "unknown-user", "{name:?}");
    }
}

#[tokio::test]
async fn a_trial_runs_nothing_and_says_what_it_would() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let arguments = json!({ "command": format!(": > {}", mark.display()), "working_directory": "/tmp" });
    let trial = |request: &mut ActionRequest| {
        request.noop = true;
        request.effective_user = Some("nobody".to_owned());
    };
    let ok = run_with(&plugin(), "run", arguments, trial).await.unwrap();
    let expected = format!("would run /bin/sh -c \": > {}\" as `nobody` in `/tmp`", mark.display());
    assert_eq!(ok.message, expected);
    assert!(!mark.exists());
}

#[tokio::test]
async fn what_it_leaves_behind_is_stopped_unless_it_may_live_on() {
    let command = "sleep 1000 >/dev/null 2>&1 & echo $!";
    let pid = |data: &Value| data["stdout"].as_str().unwrap().trim().parse::<i32>().unwrap();
    let data = run(&plugin(), "run", json!({ "command": command })).await.unwrap().data;
    assert_eq!(data["left_behind"], json!(1));
    dies(pid(&data)).await;
    let data = run(&plugin(), "run", json!({ "command": command, "leave_running": true })).await.unwrap().data;
    let daemon = Killed(pid(&data));
    assert_eq!(data["left_behind"], json!(1));
    assert!(alive(daemon.0).is_some());
}

#[tokio::test]
async fn a_command_that_looks_like_an_option_is_a_command() {
    for (command, said) in [("-oFoo", "-oFoo"), ("--", "--"), ("+x", "+x"), ("-c id", "-c")] {
        for shell in ["/bin/sh", "/bin/bash"] {
            let failure = run(&plugin(), "run", json!({ "command": command, "shell": shell })).await.unwrap_err();
            assert_eq!(failure.exit_code, Some(127), "{shell} {command}: {failure}");
            assert!(failure.message.contains(&format!("{said}: ")), "{failure}");
        }
    }
}

#[tokio::test]
async fn what_is_not_the_command_cannot_become_one() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let evil = format!("x; : > {}", mark.display());
    let check = async |argument: &str, value: Value, code: &str| {
        let mut arguments = json!({ "command": "echo fine" });
        arguments[argument] = value;
        assert_eq!(refusal(&plugin(), "run", arguments.clone()).await, Some(code), "{arguments}");
    };
    check("command", json!("echo a\u{0}b"), "invalid-argument").await;
    check("command", json!("é".repeat(65_536)), "limit-exceeded").await;
    check("command", json!("x".repeat(65_537)), "invalid-argument").await;
    for value in [
        evil.as_str(),
        "sh",
        "/bin/false",
        "/bin/../bin/sh",
        "/bin/sh -x",
        "/bin/sh\n",
        "/bin/s\u{0}h",
        "--",
        "-oFoo",
        "",
    ] {
        check("shell", json!(value), "invalid-argument").await;
    }
    for value in [evil.as_str(), "tmp", "../tmp", "/tmp/../etc", "/tmp\n", "/t\u{0}mp", "--", "-oFoo", ""] {
        check("working_directory", json!(value), "invalid-argument").await;
    }
    for name in [evil.as_str(), "A=B", "A\nB", "A\u{0}", "--", "-oFoo", ""] {
        check("environment", json!({ name: "x" }), "invalid-argument").await;
    }
    check("environment", json!({ "A": "a\u{0}b" }), "invalid-argument").await;
    check("environment", json!(["A=B"]), "invalid-argument").await;
    check("exit_codes", json!(["0; id"]), "invalid-argument").await;
    check("working_directory", json!(format!("/{evil}")), "start-failed").await;
    let value =
        run(&plugin(), "run", json!({ "command": "printf %s \"$A\"", "environment": { "A": evil } })).await.unwrap();
    assert_eq!(value.data["stdout"], json!(evil));
    assert!(!mark.exists());
}

#[tokio::test]
async fn the_shell_is_one_of_the_hosts() {
    let directory = tempfile::tempdir().unwrap();
    let shells_file = directory.path().join("shells");
    let plugin = Shell::new(ShellSettings { shells_file: shells_file.clone() });
    let arguments = json!({ "command": "echo ${BASH_VERSION:+bash}", "shell": "/bin/bash" });
    assert_eq!(refusal(&plugin, "run", arguments.clone()).await, Some("invalid-argument"));
    fs::write(&shells_file, "# the shells\n/bin/bash\n").unwrap();
    let data = run(&plugin, "run", arguments).await.unwrap().data;
    assert_eq!((&data["stdout"], &data["shell"]), (&json!("bash\n"), &json!("/bin/bash")));
}

#[tokio::test]
async fn garbage_and_a_closed_output_are_answers_like_others() {
    let data = run(&plugin(), "run", json!({ "command": "head -c 5000 /dev/urandom; exec >&- 2>&-; exit 0" }))
        .await
        .unwrap()
        .data;
    assert_eq!((&data["stdout_bytes"], &data["stdout_encoding"]), (&json!(5000), &json!("base64")));
}
