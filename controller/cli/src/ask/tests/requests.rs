//! Output while it comes, secrets, and what can be done about a request later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_client::testing::{Behaviour, FakeHost, Fleet, FollowUpBehaviour, Later, Say, behaving};
use muster_pki::sealing::SealingKey;
use muster_protocol::{
    ActionResult, Command, Encoding, Outcome, OutputChunk, OutputStream, ProgressReport, ReportState, RequestId,
};
use serde_json::{Value, json};

use super::{Desk, Said};
use crate::output::{ExitCode, Surroundings};

/// A terminal as most people have one.
const TERMINAL: Surroundings = Surroundings {
    stdout_terminal: true,
    stderr_terminal: true,
    stdin_terminal: false,
    no_color: false,
    dumb: false,
    ascii_locale: false,
    columns: Some(80),
};

/// What is different every time.
fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    let id = |text: &str| {
        text.match_indices("-7").find_map(|(at, _)| {
            let start = at.checked_sub(13)?;
            let id = text.get(start..start + 36)?;
            id.parse::<RequestId>().ok().map(|_| id.to_owned())
        })
    };
    while let Some(found) = id(&text) {
        text = text.replace(&found, "[ID]").replace(&found[28..], "[SHORT]");
    }
    text
}

macro_rules! assert_screen {
    ($name:literal, $text:expr) => {
        insta::with_settings!({filters => vec![
            (r"\d+ ms|\d+\.\d s", "[time]"),
            (r#""(duration|reply)_ms": ?\d+"#, r#""${1}_ms": "[ms]""#),
            (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[utc]"),
            (r"request [0-9a-f]{8}\b", "request [SHORT]"),
        ]}, { insta::assert_snapshot!($name, steady(&$text)); })
    };
}

fn chunk(stream: OutputStream, offset: u64, data: &str) -> OutputChunk {
    OutputChunk { stream, offset, encoding: Encoding::Text, data: data.to_owned() }
}

fn exited(report: ProgressReport, exit_code: i32) -> Say {
    let outcome = if exit_code == 0 { Outcome::Succeeded } else { Outcome::Failed };
    let code = if exit_code == 0 { "ok" } else { "failed" };
    let result = ActionResult {
        outcome,
        code: code.to_owned(),
        message: String::new(),
        exit_code: Some(exit_code),
        data: Value::Null,
        truncated_from_bytes: None,
        duration_ms: 1_200,
    };
    Say::Report(ProgressReport { state: ReportState::Finished, result: Some(result), ..report })
}

/// Writes to both streams, with a second in between, and ends with this status.
fn talkative(exit_code: i32) -> Behaviour {
    behaving(move |host, command| {
        let report = |sequence, output| ProgressReport { output, ..host.running(command, sequence) };
        let name = &host.name;
        let first = format!("checking {name}\nfou");
        let length = first.len() as u64;
        vec![
            Say::Report(report(0, vec![chunk(OutputStream::Stdout, 0, &first)])),
            Say::Wait(Duration::from_secs(1)),
            Say::Report(report(1, vec![chunk(OutputStream::Stderr, 0, "\u{1b}[31mwarning\u{1b}[0m\n")])),
            Say::Report(report(2, vec![chunk(OutputStream::Stdout, length, "nd 3\n")])),
            exited(host.running(command, 3), exit_code),
        ]
    })
}

async fn talking(names: &[&str], exit_code: i32) -> Desk {
    let fleet = Fleet::new();
    fleet.hosts(names, json!({}), talkative(exit_code)).await;
    Desk::new(fleet).await
}

const RUN: [&str; 3] = ["run", "package.status", "name=bash"];

async fn run(desk: &mut Desk, more: &[&str]) -> Said {
    desk.type_in(&[&RUN, more].concat()).await
}

#[tokio::test(start_paused = true)]
async fn one_host_is_shown_while_it_writes() {
    let mut desk = talking(&["web-1"], 0).await;
    let said = run(&mut desk, &["-H", "web-1"]).await;
    assert_eq!(said.exit, ExitCode::Success);
    assert_screen!("stream_one_out", said.out);
    assert_screen!("stream_one_err", said.err);
    desk.surroundings = TERMINAL;
    let said = run(&mut desk, &["-H", "web-1"]).await;
    assert_screen!("stream_one_colour", said.out);
    assert!(!said.err.contains("\u{1b}[31mwarning"), "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn many_hosts_are_shown_behind_their_names() {
    let mut desk = talking(&["web-1", "web-2"], 3).await;
    let said = run(&mut desk, &["-H", "web-1,web-2", "--stream"]).await;
    assert_eq!(said.exit, ExitCode::HostFailed);
    for line in ["web-1: checking web-1", "web-1: found 3", "web-2: found 3"] {
        assert!(said.out.lines().any(|seen| seen == line), "{line}: {}", said.out);
    }
    assert!(said.err.lines().any(|line| line == r"web-2: \u{1b}[31mwarning\u{1b}[0m"), "{}", said.err);
    assert!(said.out.contains("    2 ✗ exit 3"), "{}", said.out);
    let said = run(&mut desk, &["-H", "web-1,web-2"]).await;
    assert!(!said.out.contains("web-1: checking"), "only with --stream: {}", said.out);
}

#[tokio::test(start_paused = true)]
async fn raw_is_byte_for_byte_and_careful() {
    let fleet = Fleet::new();
    let binary = behaving(|host, command| {
        let bytes = OutputChunk { encoding: Encoding::Base64, ..chunk(OutputStream::Stdout, 0, "/wAbWzJK") };
        vec![
            Say::Report(ProgressReport { output: vec![bytes], ..host.running(command, 0) }),
            exited(host.running(command, 1), 0),
        ]
    });
    let holes = behaving(|host, command| {
        vec![Say::Report(host.output(command, 2, 10, "late")), exited(host.running(command, 3), 0)]
    });
    fleet.hosts(&["web-1", "web-2"], json!({}), binary).await;
    fleet.hosts(&["hole-1"], json!({}), holes).await;
    let mut desk = Desk::new(fleet).await;
    let said = run(&mut desk, &["-H", "web-1", "--raw"]).await;
    assert_eq!((said.exit, said.bytes.as_slice()), (ExitCode::Success, &[0xff, 0, 0x1b, b'[', b'2', b'J'][..]));
    let said = run(&mut desk, &["-H", "hole-1", "--raw"]).await;
    assert_eq!((said.exit, said.out.as_str()), (ExitCode::Unexpected, "late"));
    assert!(said.err.contains("error[incomplete-output]: 10 bytes of the output never came"), "{}", said.err);
    let said = run(&mut desk, &["-H", "web-1,web-2", "--raw"]).await;
    assert_eq!(said.exit, ExitCode::Usage);
    assert!(said.err.contains("nothing was sent"), "{}", said.err);
    let said = run(&mut desk, &["-H", "web-1", "--raw", "--json"]).await;
    assert_eq!(said.exit, ExitCode::Usage);
    desk.surroundings = TERMINAL;
    let said = run(&mut desk, &["-H", "web-1", "--raw"]).await;
    assert_eq!(said.exit, ExitCode::Usage);
    assert!(said.out.is_empty(), "{}", said.out);
}

#[tokio::test(start_paused = true)]
async fn programs_get_exact_bytes() {
    let fleet = Fleet::new();
    let binary = behaving(|host, command| {
        let bytes = OutputChunk { encoding: Encoding::Base64, ..chunk(OutputStream::Stdout, 0, "/wBB") };
        vec![
            Say::Report(ProgressReport { output: vec![bytes], ..host.running(command, 0) }),
            Say::Report(host.output(command, 1, 3, "text\n")),
            exited(host.running(command, 2), 0),
        ]
    });
    fleet.hosts(&["web-1"], json!({}), binary).await;
    let mut desk = Desk::new(fleet).await;
    let whole: Value = serde_json::from_str(&run(&mut desk, &["-H", "web-1", "--json"]).await.out).unwrap();
    let task = &whole["tasks"][0];
    assert_eq!((&task["stdout_base64"], &task["stdout_bytes"]), (&json!("/wBBdGV4dAo="), &json!(8)));
    let lines = run(&mut desk, &["-H", "web-1", "--jsonl", "--stream"]).await.out;
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| records.iter().filter(|record| record["kind"] == kind).collect::<Vec<_>>();
    let outputs = of("output");
    assert_eq!((&outputs[0]["data_base64"], &outputs[0]["offset"]), (&json!("/wBB"), &json!(0)));
    assert_eq!((&outputs[1]["data"], &outputs[1]["offset"]), (&json!("text\n"), &json!(3)));
    let task = of("task")[0];
    assert_eq!((&task["stdout"], &task["stdout_bytes"]), (&Value::Null, &json!(8)), "not said twice");
    let said = run(&mut desk, &["-H", "web-1", "--json", "--stream"]).await;
    assert_eq!(said.exit, ExitCode::Usage);
}

#[tokio::test(start_paused = true)]
async fn a_long_output_passes_through() {
    let fleet = Fleet::new();
    let large = behaving(|host, command| {
        let line = "0123456789abcdef".repeat(4_000) + "\n";
        let length = line.len() as u64;
        let mut says: Vec<Say> = (0..128)
            .map(|number| Say::Report(host.output(command, number, u64::from(number) * length, &line)))
            .collect();
        says.push(exited(host.running(command, 128), 0));
        says
    });
    fleet.hosts(&["web-1"], json!({}), large).await;
    let mut desk = Desk::new(fleet).await;
    let said = run(&mut desk, &["-H", "web-1"]).await;
    assert_eq!(said.exit, ExitCode::Success, "{}", said.err);
    assert_eq!(said.out.lines().filter(|line| line.starts_with("0123456789abcdef")).count(), 128);
    assert!(said.out.len() > 8_000_000 && !said.out.contains("missing"), "{}", said.out.len());
}

/// Hosts that hold a request until it is cancelled, and know it later.
struct Holding {
    desk: Desk,
    told: Arc<Mutex<Vec<(String, RequestId)>>>,
}

async fn holding(names: &[&str]) -> Holding {
    let fleet = Fleet::new();
    let told: Arc<Mutex<Vec<(String, RequestId)>>> = Arc::default();
    let known: Arc<Mutex<Vec<RequestId>>> = Arc::default();
    let know = Arc::clone(&known);
    let slow = behaving(move |host, command| {
        know.lock().unwrap().push(command.id);
        vec![Say::Report(host.output(command, 0, 0, "begun\n")), Say::Wait(Duration::from_secs(60))]
    });
    let note = Arc::clone(&told);
    let later: FollowUpBehaviour = Arc::new(move |host, later| {
        let ending = |outcome, code: &str, message: &str| {
            let mut report = host.finished(later, 0, outcome, json!(null));
            if let Some(result) = &mut report.result {
                code.clone_into(&mut result.code);
                message.clone_into(&mut result.message);
            }
            vec![Say::Report(report)]
        };
        if !known.lock().unwrap().contains(&later.request()) {
            return ending(Outcome::Invalid, "unknown-request", "nothing is known about it");
        }
        match later {
            Later::Cancel(cancel) => match host.name.as_str() {
                "ended-1" => ending(Outcome::Invalid, "not-running", "it has ended"),
                "guarded-1" => ending(Outcome::Refused, "policy-denied", "rule `own-only` denies it"),
                "mute-1" => Vec::new(),
                _ => {
                    note.lock().unwrap().push((host.name.to_string(), cancel.request_id));
                    ending(Outcome::Succeeded, "ok", "the action was told to stop")
                }
            },
            Later::Watch(watch) => {
                let mut says = Vec::new();
                if !watch.follow && host.name.as_str() == "web-2" {
                    return ending(Outcome::Succeeded, "still-running", "`package.status` still runs");
                }
                if watch.replay {
                    says.push(Say::Report(host.output(later, 0, 0, "begun\n")));
                } else {
                    says.push(Say::Report(host.running(later, 0)));
                }
                if watch.follow {
                    says.push(Say::Wait(Duration::from_secs(30)));
                    says.push(Say::Report(host.output(later, 1, 6, "done\n")));
                    says.push(exited(host.running(later, 2), 0));
                }
                says
            }
        }
    });
    fleet.hosts_with(names, slow, later).await;
    Holding { desk: Desk::new(fleet).await, told }
}

const MANY: &str = "web-1,web-2,ended-1,guarded-1,mute-1";

#[tokio::test(start_paused = true)]
async fn a_request_is_left_and_stopped_later() {
    let mut holding = holding(&["web-1", "web-2", "ended-1", "guarded-1", "mute-1"]).await;
    let desk = &mut holding.desk;
    let said = run(desk, &["-H", MANY, "--detach"]).await;
    assert_eq!(said.exit, ExitCode::Success);
    assert_screen!("detach_out", said.out);
    assert_screen!("detach_err", said.err);
    let said = desk.type_in(&["cancel", "last", "--reply-timeout", "2s"]).await;
    assert_eq!(said.exit, ExitCode::Refused);
    assert_screen!("cancel_out", said.out);
    assert_screen!("cancel_err", said.err);
    desk.surroundings = TERMINAL;
    let said = desk.type_in(&["cancel", "last", "--reply-timeout", "2s"]).await;
    assert_screen!("cancel_colour", said.out);
    desk.surroundings = Surroundings::default();
    let said = desk.type_in(&["cancel", "last", "--reply-timeout", "2s", "--json"]).await;
    assert_screen!("cancel_json", said.out);
    let said = desk.type_in(&["cancel", "last", "-H", "web-1,web-2", "--names"]).await;
    assert_eq!((said.exit, said.out.as_str()), (ExitCode::Success, "web-1\nweb-2\n"));
    let told = holding.told.lock().unwrap();
    assert!(told.iter().all(|(_, request)| *request == told[0].1), "the request itself is named");
}

#[tokio::test(start_paused = true)]
async fn nothing_to_stop_is_said_and_is_no_success() {
    let mut holding = holding(&["ended-1"]).await;
    let desk = &mut holding.desk;
    run(desk, &["-H", "ended-1", "--detach"]).await;
    let said = desk.type_in(&["cancel", "last"]).await;
    assert_eq!(said.exit, ExitCode::NoMatch);
    assert!(said.out.contains("· not running"), "{}", said.out);
    assert!(said.err.contains("it runs nowhere any more"), "{}", said.err);
    let said = desk.type_in(&["cancel", "last", "-H", "web-9"]).await;
    assert_eq!(said.exit, ExitCode::NoMatch);
    assert!(said.err.contains("none of these hosts was asked with this request"), "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn a_request_from_elsewhere_needs_a_target_and_a_word() {
    let mut holding = holding(&["web-1", "web-2", "web-3", "web-4"]).await;
    let desk = &mut holding.desk;
    let said = desk.type_in(&["cancel", "last"]).await;
    assert_eq!(said.exit, ExitCode::NoMatch);
    assert!(said.err.contains("error[no-request]"), "{}", said.err);
    let id = "019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab";
    let said = desk.type_in(&["cancel", id]).await;
    assert_eq!(said.exit, ExitCode::Usage);
    insta::assert_snapshot!(said.err, @"
    error[no-target]: request 019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab was not sent from here, so its hosts are not known
      note    no target never means all hosts
      or      muster cancel 019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab --all
      try     muster cancel 019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab -H web1.example.com
    ");
    let said = desk.type_in(&["cancel", id, "--all"]).await;
    assert_eq!(said.exit, ExitCode::NotConfirmed, "more than confirm_above");
    let said = desk.type_in(&["cancel", id, "--all", "--expect", "4"]).await;
    assert_eq!(said.exit, ExitCode::NoMatch, "{}", said.out);
    let said = desk.type_in(&["watch", id, "-H", "web-1"]).await;
    assert_eq!(said.exit, ExitCode::HostFailed);
    assert!(said.out.contains("unknown-request"), "{}", said.out);
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_what_was_missed_and_how_it_ends() {
    let mut holding = holding(&["web-1", "web-2"]).await;
    let desk = &mut holding.desk;
    run(desk, &["-H", "web-1", "--detach"]).await;
    let said = desk.type_in(&["watch", "last"]).await;
    assert_eq!(said.exit, ExitCode::Success);
    assert_screen!("watch_out", said.out);
    assert_screen!("watch_err", said.err);
    let said = desk.type_in(&["watch", "last", "--no-replay"]).await;
    assert!(said.out.starts_with("done\n"), "neither what was before nor a hole: {}", said.out);
    let said = desk.type_in(&["watch", "last", "--no-follow"]).await;
    assert_eq!(said.exit, ExitCode::StoppedWaiting);
    assert!(said.out.contains("begun") && said.err.contains("not followed; 1 host goes on"), "{}", said.err);
    run(desk, &["-H", "web-2", "--detach"]).await;
    for format in ["table", "jsonl"] {
        let said = desk.type_in(&["watch", "last", "--no-follow", "--format", format]).await;
        assert_eq!(said.exit, ExitCode::StoppedWaiting, "{}", said.out);
        assert!(said.out.contains("running") && !said.out.contains(":\"succeeded\""), "{}", said.out);
    }
    run(desk, &["-H", "web-1", "--detach"]).await;
    let said = desk.type_until(&["watch", "last"], tokio::time::sleep(Duration::from_secs(5))).await;
    assert_eq!(said.exit, ExitCode::Interrupted);
    assert!(said.err.contains("interrupted; 1 host goes on"), "{}", said.err);
    assert!(said.err.contains("  stop it:         muster cancel 0"), "{}", said.err);
    let said = desk.type_in(&["watch", "last", "--jsonl", "--stream"]).await;
    let kinds: Vec<String> = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    let expected = ["request", "accepted", "output", "output", "task", "group", "aggregate", "counts", "end"];
    assert_eq!(kinds, expected);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_says_how_to_go_on() {
    let mut holding = holding(&["web-1", "web-2"]).await;
    let desk = &mut holding.desk;
    let words = [&RUN[..], &["-H", "web-1,web-2"]].concat();
    let said = desk.type_until(&words, tokio::time::sleep(Duration::from_secs(5))).await;
    assert_eq!(said.exit, ExitCode::Interrupted);
    assert_screen!("interrupted_err", said.err);
    let said = desk.type_in(&["cancel", "last"]).await;
    assert_eq!(said.exit, ExitCode::Success, "{}", said.out);
}

/// A description with a secret input, and hosts of which the old one has no key.
async fn vault(directory: &std::path::Path) -> (Desk, Arc<Mutex<Vec<Command>>>, Arc<SealingKey>) {
    let ddl = json!({
        "metadata": {
            "name": "vault", "description": "d", "author": "a", "license": "l", "version": "1.0.0", "url": "u", "timeout": 5
        },
        "actions": [{
            "action": "put", "description": "d", "display": "always", "output": {},
            "input": {
                "name": {"prompt": "p", "description": "d", "type": "string", "optional": false, "validation": "", "maxlength": 0},
                "password": {"prompt": "p", "description": "d", "type": "string", "optional": false, "validation": "",
                    "maxlength": 20, "muster": {"secret": true}}
            }
        }]
    });
    std::fs::write(directory.join("vault.json"), ddl.to_string()).unwrap();
    let key = Arc::new(SealingKey::generate().unwrap());
    let seen: Arc<Mutex<Vec<Command>>> = Arc::default();
    let note = Arc::clone(&seen);
    let put: Behaviour = behaving(move |host, command| {
        note.lock().unwrap().push(command.clone());
        vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, json!(null)))]
    });
    let public = key.public().to_string();
    let old = {
        let put = Arc::clone(&put);
        Arc::new(move |host: &FakeHost, command: &Command| match command.action.as_str() {
            "sealing_key" => {
                let mut report = host.finished(command, 0, Outcome::Invalid, json!(null));
                if let Some(result) = &mut report.result {
                    result.code = "unknown-action".to_owned();
                }
                vec![Say::Report(report)]
            }
            _ => put(host, command),
        })
    };
    let new = Arc::new(move |host: &FakeHost, command: &Command| match command.action.as_str() {
        "sealing_key" => {
            let data = json!({"sealing_key": public});
            vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, data))]
        }
        _ => put(host, command),
    });
    let fleet = Fleet::new();
    fleet.hosts(&["web-1", "web-2"], json!({}), new).await;
    fleet.hosts(&["old-1"], json!({}), old).await;
    let mut desk = Desk::new(fleet).await;
    desk.context.ddl_directory = Some(directory.to_owned());
    (desk, seen, key)
}

#[tokio::test(start_paused = true)]
async fn a_secret_reaches_hosts_with_a_key_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "hunter2\n").unwrap();
    let (mut desk, seen, key) = vault(directory.path()).await;
    let word = format!("password=@{}", file.display());
    let words = ["run", "vault.put", "name=x", &word, "-H", "web-1,web-2,old-1,gone-1"];
    let mut everything = String::new();
    for format in ["table", "wide", "json", "jsonl", "csv", "names"] {
        let dry = desk.type_in(&[&words[..], &["--format", format, "-n", "-vv"]].concat()).await;
        let said = desk.type_in(&[&words[..], &["--format", format, "-vv"]].concat()).await;
        assert_eq!(said.exit, ExitCode::HostFailed, "{}", said.out);
        if format == "table" {
            assert_screen!("secret_plan", dry.out);
            assert_screen!("secret_out", said.out.lines().take(3).collect::<Vec<_>>().join("\n"));
            assert!(said.err.contains("vault.put name=x password=***"), "{}", said.err);
        }
        everything.extend([dry.out, dry.err, said.out, said.err]);
    }
    everything.push_str(&desk.records());
    assert!(!everything.contains("hunter2"), "{everything}");
    assert!(everything.contains("password=***"), "the record has the mask");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 12, "two hosts, six times; the old host was not asked");
    for command in seen.iter() {
        assert!(!serde_json::to_string(command).unwrap().contains("hunter2"));
        let sealed = command.sealed.as_ref().unwrap();
        let context = muster_protocol::SealingContext {
            request_id: command.id,
            caller: &command.caller,
            plugin: &command.plugin,
            action: &command.action,
        };
        let opened = key.open(sealed, &"web-1".parse().unwrap(), &context).unwrap();
        assert_eq!(opened["password"], "hunter2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_does_not_fit_is_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "hunter2-hunter2-hunter2\n").unwrap();
    let (mut desk, seen, _) = vault(directory.path()).await;
    let word = format!("password=@{}", file.display());
    let said = desk.type_in(&["run", "vault.put", "name=x", &word, "-H", "web-1"]).await;
    assert_eq!(said.exit, ExitCode::Usage);
    insta::assert_snapshot!(said.err, @r"
    error[bad-input]: vault.put: input `password` takes text of at most 20 characters
      given   ***
      try     muster plugin show vault.put
    ");
    let said = desk.type_in(&["run", "vault.put", "name=x", "-H", "web-1"]).await;
    insta::assert_snapshot!(said.err, @r"
    error[bad-input]: vault.put: input `password` is missing: it takes text of at most 20 characters
      note    it is secret, and there is no terminal to ask at
      try     password=@FILE, or password=- with the value piped in
    ");
    assert!(seen.lock().unwrap().is_empty());
}
