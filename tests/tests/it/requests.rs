//! Requests after they were sent: their output while it comes, stopping them, and what only their hosts may read.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use muster_tests::programs::{AgentSettings, Operator};
use muster_tests::stage::{Stage, host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::BROKER;

const IDENTITIES: [&str; 4] = ["host/web-1.ams1", "host/web-2.ams1", "user/lea", "user/max"];

/// An agent whose administrator lets lines of shell in.
fn with_shell(name: &str) -> AgentSettings {
    let mut settings = host(name);
    settings.extra_config.push_str("\n[plugins]\nenabled = [\"shell\"]\n");
    settings
}

/// A `muster` that runs while the test goes on, and its lines.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(operator: &Operator, arguments: &[&str]) -> Self {
        let mut command = operator.command(arguments).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next record of this kind; those before are skipped.
    fn next(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended before a record `{kind}`");
            let record: Value = serde_json::from_str(&line).unwrap();
            if record["kind"] == kind {
                return record;
            }
        }
    }

    fn exit_code(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only one that a failed test has left behind is still there.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn output_is_seen_while_it_comes_and_a_request_is_stopped_by_its_record() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([with_shell("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let command = "command=echo begun; echo aside >&2; sleep 600";
    let mut run = Running::start(&lea, &["run", "shell.run", command, "-H", "web-1.ams1", "--jsonl", "--stream"]);
    let accepted = run.next("accepted");
    let first = run.next("output");
    assert_eq!((&first["stream"], &first["data"], &first["offset"]), (&"stdout".into(), &"begun\n".into(), &0.into()));

    let listed = lea.run(&["request", "list", "--json"]).unwrap().expect(0).json().unwrap();
    let request = &listed["requests"][0];
    assert_eq!(request["request_id"], accepted["request_ids"][0]);
    assert_eq!(request["hosts"], serde_json::json!(["web-1.ams1"]));

    // Somebody else without the right to it cannot stop it; the rule is named.
    let max = stage.operator("max", &[]);
    let id = accepted["request_ids"][0].as_str().unwrap();
    let refused = max.run(&["cancel", id, "-H", "web-1.ams1", "--json"]).unwrap().expect(6).json().unwrap();
    assert_eq!(refused["hosts"][0]["answer"], "refused", "{refused}");

    let told = lea.run(&["cancel", "last", "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!(told["hosts"][0]["answer"], "told_to_stop", "{told}");
    let task = run.next("task");
    assert_eq!((&task["state"], &task["code"]), (&"cancelled".into(), &"cancelled".into()), "{task}");
    assert_eq!(run.exit_code(), Some(3));

    let again = lea.run(&["cancel", "last"]).unwrap().expect(4);
    assert!(again.stdout.contains("not running"), "{}", again.stdout);
}

/// The most memory that a process has had so far, in KiB; 0 once it has ended.
fn largest_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn fifty_megabytes_and_every_byte_arrive_as_they_were_written() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([with_shell("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    // Bytes of every value, so that neither UTF-8 nor a terminal could have let them pass.
    let pattern: Vec<u8> = (0..=255).collect();
    let file = stage.folder().join("pattern");
    std::fs::write(&file, pattern.repeat(4_096)).unwrap();
    let command =
        format!("command=for i in 1 2 3 4 5 6 7 8 9 10; do cat '{0}' '{0}' '{0}' '{0}' '{0}'; done", file.display());
    let (code, bytes, said) = run_raw(&lea, &command, &pattern);
    assert_eq!((code, bytes), (Some(0), 50 * 1024 * 1024), "{said}");
}

/// Runs a command with `--raw`, holds every byte against the pattern, and gives the exit code, how many bytes came
/// and what was said.
fn run_raw(lea: &Operator, command: &str, pattern: &[u8]) -> (Option<i32>, usize, String) {
    let mut run = lea.command(&["run", "shell.run", command, "-H", "web-1.ams1", "--raw"]).unwrap();
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut bytes = 0usize;
    let mut memory_kib = 0;
    let mut output = child.stdout.take().unwrap();
    let mut block = vec![0; 64 * 1024];
    loop {
        match output.read(&mut block).unwrap() {
            0 => break,
            read => {
                let wrong = (0..read).find(|at| block[*at] != pattern[(bytes + at) % pattern.len()]);
                assert_eq!(wrong, None, "behind byte {bytes}");
                bytes += read;
                memory_kib = memory_kib.max(largest_memory_kib(child.id()));
            }
        }
    }
    // What the broker sends ahead is the most of it: 500 messages of some 90 KB.
    assert!((1..192 * 1024).contains(&memory_kib), "{memory_kib} KiB");
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), bytes, said)
}

#[test]
fn many_hosts_write_behind_their_names_and_end_in_groups() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([with_shell("web-1.ams1"), with_shell("web-2.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let command = "command=printf 'one\\ntwo \\033[31mred\\n'";
    let run = lea.run(&["run", "shell.run", command, "-H", "web-[1-2].ams1", "--stream"]).unwrap().expect(0);
    for line in ["web-1.ams1: one", "web-2.ams1: two \\u{1b}[31mred"] {
        assert!(run.stdout.lines().any(|seen| seen == line), "{line}: {}", run.stdout);
    }
    assert!(run.stdout.contains("2 ✓ one  (+1 line)") || run.stdout.contains("2 + one  (+1 line)"), "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "{}", run.stdout);
}

#[test]
fn a_policy_that_refuses_is_named() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([with_shell("web-1.ams1")]);
    let max = stage.operator("max", &[]);
    let run = max.run(&["run", "shell.run", "command=id", "-H", "web-1.ams1,web-1.ams1"]).unwrap().expect(6);
    assert!(run.stdout.contains("refused") && run.stdout.contains("no rule allows it"), "{}", run.stdout);
}

#[test]
fn leaving_is_not_stopping() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([with_shell("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let words = ["run", "shell.run", "command=echo begun; sleep 600", "-H", "web-1.ams1"];
    let left = lea.run(&[&words[..], &["--detach"]].concat()).unwrap().expect(0);
    let request = left.stdout.lines().find_map(|line| line.strip_prefix("request ")).expect("the id");
    assert!(left.stderr.contains(&format!("muster cancel {request}")), "{}", left.stderr);
    lea.run(&["cancel", &request[28..]]).unwrap().expect(0);

    // Ctrl-C, once the host has begun.
    let mut command = lea.command(&[&words[..], &["--jsonl", "--stream"]].concat()).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(r#""kind":"output""#) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before the host began");
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted; 1 host that was asked goes on"), "{said}");
    assert!(rest.contains(r#""end":"interrupted""#), "{rest}");
    let told = lea.run(&["cancel", "last", "--json"]).unwrap().expect(0).json().unwrap();
    assert_eq!(told["hosts"][0]["answer"], "told_to_stop", "it went on: {told}");
}

#[test]
fn a_watch_joins_in_the_middle_and_ends_with_the_result() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([with_shell("web-1.ams1")]);
    let lea = stage.operator("lea", &["admins"]);
    let gate = stage.folder().join("gate");
    let command =
        format!("command=echo begun; while [ ! -e '{}' ]; do sleep 0.1; done; echo done; exit 3", gate.display());
    lea.run(&["run", "shell.run", &command, "-H", "web-1.ams1", "--detach"]).unwrap().expect(0);
    let now = lea.run(&["watch", "last", "--no-follow", "--json"]).unwrap().expect(10).json().unwrap();
    assert_eq!((&now["tasks"][0]["state"], &now["tasks"][0]["code"]), (&"running".into(), &"still-running".into()));

    let mut watch = Running::start(&lea, &["watch", "last", "--jsonl", "--stream"]);
    assert_eq!(watch.next("output")["data"], "begun\n");
    // One that joins later, and is not told what was before.
    let mut late = Running::start(&lea, &["watch", "last", "--jsonl", "--stream", "--no-replay"]);
    late.next("accepted");
    // Somebody else has to be allowed to.
    let max = stage.operator("max", &[]);
    let id = now["request"]["request_id"].as_str().unwrap();
    max.run(&["watch", id, "-H", "web-1.ams1"]).unwrap().expect(6);

    std::fs::write(&gate, "").unwrap();
    assert_eq!(watch.next("output")["data"], "done\n");
    let task = watch.next("task");
    assert_eq!((&task["state"], &task["exit_code"]), (&"failed".into(), &3.into()), "{task}");
    assert_eq!(watch.exit_code(), Some(3));
    let task = late.next("task");
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(late.exit_code(), Some(3));

    // After the end the host still has it.
    let after = lea.run(&["watch", "last"]).unwrap().expect(3);
    assert!(after.stdout.starts_with("begun\ndone\n"), "{}", after.stdout);
    assert!(after.stdout.contains("exit 3"), "{}", after.stdout);
    let unknown = lea.run(&["watch", "019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab", "-H", "web-1.ams1"]).unwrap().expect(3);
    assert!(unknown.stdout.contains("unknown-request"), "{}", unknown.stdout);
}
