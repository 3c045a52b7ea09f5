//! `script`, with the interpreters of this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use muster_plugin_api::conformance::{Sample, check};
use muster_plugin_api::{ActionRequest, Plugin};
use muster_plugins::{Script, ScriptSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{conforms, refusal, run, run_with, run_within};

/// A directory that other users can pass through, as `/run` is.
fn plugin() -> (TempDir, Script) {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let plugin = Script::new(ScriptSettings { directory: root.path().join("scripts") });
    (root, plugin)
}

fn left(root: &TempDir) -> usize {
    fs::read_dir(root.path().join("scripts")).unwrap().count()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let (root, plugin) = plugin();
    let samples = [
        Sample::succeeds("run", json!({ "body": "echo \"$1\"", "arguments": ["x y"] })),
        Sample::succeeds("run", json!({ "body": "#!/bin/bash -e\nexit 4", "exit_codes": [4] })),
        Sample::fails("run", json!({ "body": "exit 3" })),
        Sample::fails("run", json!({ "body": "#!/no/such/interpreter\n" })),
    ];
    conforms(check(&plugin, &samples).await);
    assert_eq!(left(&root), 0);
}

#[tokio::test]
async fn the_first_line_decides_unless_the_caller_does() {
    let (_root, plugin) = plugin();
    let run = async |arguments: Value| run(&plugin, "run", arguments).await.unwrap().data;
    let data = run(json!({ "body": "#!/usr/bin/env -S bash -e\necho ${BASH_VERSION:+bash} $-" })).await;
    let said = data["stdout"].as_str().unwrap();
    assert!(said.starts_with("bash ") && said.contains('e'), "{said}");
    assert_eq!(data["interpreter"], json!("/usr/bin/env"));
    let data = run(json!({ "body": "echo plain ${BASH_VERSION:+bash}" })).await;
    assert_eq!((&data["stdout"], &data["interpreter"]), (&json!("plain\n"), &json!("/bin/sh")));
    let data = run(json!({ "body": "#!/bin/sh\necho ${BASH_VERSION:+bash}", "interpreter": "/bin/bash" })).await;
    assert_eq!((&data["stdout"], &data["interpreter"]), (&json!("bash\n"), &json!("/bin/bash")));
    let data = run(json!({ "body": "say", "interpreter": "/usr/bin/sha256sum" })).await;
    assert_eq!(data["stdout"].as_str().unwrap().split(' ').next(), data["sha256"].as_str());
}

#[tokio::test]
async fn arguments_are_words_and_nothing_else() {
    let (_root, plugin) = plugin();
    let words = ["", "a b", "$(id)", "; rm -rf /", "--", "-oFoo", "line\nbreak", "*", "é", "-"];
    let script = "#!/bin/sh -\nprintf '<%s>' \"$@\"";
    let data = run(&plugin, "run", json!({ "body": script, "arguments": words })).await.unwrap().data;
    let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(data["stdout"], json!(expected));
    for wrong in [json!(["a\u{0}b"]), json!([1]), json!([null]), json!([["a"]])] {
        let arguments = json!({ "body": script, "arguments": wrong });
        assert_eq!(refusal(&plugin, "run", arguments).await, Some("invalid-argument"), "{wrong}");
    }
    let many = json!({ "body": script, "arguments": vec!["x"; 1025] });
    assert_eq!(refusal(&plugin, "run", many).await, Some("limit-exceeded"));
}

#[tokio::test]
async fn only_its_user_and_root_can_read_it() {
    let (root, plugin) = plugin();
    let script = "stat -c '%a %U %n' \"$0\"; stat -c '%a %U' \"$(dirname \"$0\")\"; ls \"$(dirname \"$0\")\" 2>&1; \
                  (echo x > \"$0\") 2>&1; rm -f \"$0\" 2>&1; ls \"$0\"";
    let as_nobody = |request: &mut ActionRequest| request.effective_user = Some("nobody".to_owned());
    let data = run_with(&plugin, "run", json!({ "body": script }), as_nobody).await.unwrap().data;
    let said = data["stdout"].as_str().unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let directory = root.path().join("scripts");
    assert!(lines[0].starts_with(&format!("400 nobody {}/script-", directory.display())), "{said}");
    assert_eq!(lines[1], "711 root");
    assert_eq!(said.matches("Permission denied").count(), 3, "{said}");
    assert_eq!(left(&root), 0);

    let peek = "setpriv --reuid=65534 --regid=65534 --clear-groups cat \"$0\" 2>&1; setpriv --reuid=65534 \
                --regid=65534 --clear-groups ls -d \"$(dirname \"$0\")\"";
    let data = run(&plugin, "run", json!({ "body": peek })).await.unwrap().data;
    let said = data["stdout"].as_str().unwrap();
    assert!(said.contains("Permission denied") && said.ends_with("/scripts\n"), "{said}");
}

#[tokio::test]
async fn it_is_removed_whatever_happens() {
    let (root, plugin) = plugin();
    for script in ["exit 1", "kill -KILL $$", "rm -f \"$0\"", "#!/bin/sh -e\nfalse"] {
        let _ended = run(&plugin, "run", json!({ "body": script })).await;
        assert_eq!(left(&root), 0, "{script}");
    }
    let hang = json!({ "body": "sleep 1000" });
    let failure = run_within(&plugin, "run", hang, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((failure.code.code, left(&root)), ("timed-out", 0));
    let broken = json!({ "body": "#!/etc/passwd\n" });
    assert_eq!((refusal(&plugin, "run", broken).await, left(&root)), (Some("start-failed"), 0));

    // What a process that was killed left there goes with the next script.
    let stale = root.path().join("scripts/script-4194305-old");
    fs::write(&stale, "x").unwrap();
    let other = root.path().join("scripts/something-else");
    fs::write(&other, "x").unwrap();
    run(&plugin, "run", json!({ "body": "exit 0" })).await.unwrap();
    assert!(!stale.exists() && other.exists());
}

#[tokio::test]
async fn a_secret_reaches_only_standard_input() {
    let (_root, plugin) = plugin();
    let script = "read -r word; printf %s \"$word\" | sha256sum; tr '\\0' '\\n' < /proc/$$/environ; tr '\\0' ' ' < /proc/$$/cmdline";
    let arguments = json!({ "body": script, "secret_input": "open sesame\n" });
    let data = run(&plugin, "run", arguments).await.unwrap().data;
    let text = data.to_string();
    assert!(!text.contains("sesame"), "{text}");
    assert!(text.contains("41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb"), "{text}");
    let both = json!({ "body": "cat", "secret_input": "a", "stdin": "b" });
    assert_eq!(refusal(&plugin, "run", both).await, Some("invalid-argument"));
    let secret: Vec<_> = plugin.ddl().secret_inputs(&"run".parse().unwrap()).map(str::to_owned).collect();
    assert_eq!(secret, ["secret_input"]);
}

#[tokio::test]
async fn a_trial_lays_nothing_down() {
    let (root, plugin) = plugin();
    let trial = |request: &mut ActionRequest| request.noop = true;
    let ok = run_with(&plugin, "run", json!({ "body": "exit 1" }), trial).await.unwrap();
    assert!(ok.message.starts_with("would run a script of 6 bytes with /bin/sh as `root` in `"), "{}", ok.message);
    assert!(!root.path().join("scripts").exists());
}

#[tokio::test]
async fn what_is_no_interpreter_or_no_script_is_refused() {
    let (_root, plugin) = plugin();
    let check = async |arguments: Value, code: &str| {
        assert_eq!(refusal(&plugin, "run", arguments.clone()).await, Some(code), "{arguments}");
    };
    for value in ["sh", "/bin/../bin/sh", "/bin/sh\n", "/bin/s\u{0}h", "--", "-oFoo", "x; rm -rf /", ""] {
        check(json!({ "body": "id", "interpreter": value }), "invalid-argument").await;
    }
    for value in ["/bin/sh -c id", "/etc/passwd", "/tmp", "/no/such"] {
        check(json!({ "body": "id", "interpreter": value }), "start-failed").await;
    }
    for script in ["#!sh\nid", "#!/bin/sh\r\nid\r\n", "#!\n"] {
        check(json!({ "body": script }), "invalid-argument").await;
    }
    check(json!({ "body": "é".repeat(200_000) }), "limit-exceeded").await;
}

#[tokio::test]
async fn a_directory_that_others_could_change_is_not_used() {
    let (root, plugin) = plugin();
    let directory = root.path().join("scripts");
    fs::create_dir(&directory).unwrap();
    let check = async |mode: u32, why: &str| {
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        let not = plugin.activate().unwrap_err().to_string();
        assert!(not.ends_with(why), "{not}");
        let failure = run(&plugin, "run", json!({ "body": "id" })).await.unwrap_err();
        assert!(failure.message.ends_with(why), "{failure}");
    };
    check(0o777, "others can write to it").await;
    check(0o1777, "others can write to it").await;
    check(0o700, "other users cannot pass through it").await;
    std::os::unix::fs::chown(&directory, Some(65_534), None).unwrap();
    check(0o711, "it belongs to somebody else").await;
    fs::remove_dir(&directory).unwrap();
    std::os::unix::fs::symlink("/tmp", &directory).unwrap();
    let not = plugin.activate().unwrap_err().to_string();
    assert!(not.ends_with("it is not a directory"), "{not}");
    fs::remove_file(&directory).unwrap();
    assert_eq!(plugin.activate(), Ok(()));
    assert!(!directory.exists(), "asking alone makes nothing");
    run(&plugin, "run", json!({ "body": "exit 0" })).await.unwrap();
    let made = Path::new(&directory).metadata().unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o711, 0));
}
