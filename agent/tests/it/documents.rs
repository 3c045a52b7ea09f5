//! What `musterd` prints for programs is what the schemas say, and the exit code says whether something is damaged.

use std::fs;
use std::path::PathBuf;

use muster_agent::audit::{Audit, Durability, Event, FileMark, Rotation};
use muster_agent::detached::ActionDirectory;
use muster_agent::journal::{Journal, Started};
use muster_agent::spool::{Keep, Spool, Why};
use muster_agent::status::{EndedStatus, LogLine};
use serde_json::{Map, Value, json};

use crate::binary::{Folder, now};
use crate::kit::{Setup, Stage, command, fresh_id, real_disk};

fn schema(name: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/musterd");
    serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.schema.json"))).unwrap()).unwrap()
}

/// What is wrong with a document. Stricter than the schema: a field that it does not describe is wrong here.
fn problems(schema: &Value, found: &Value, at: &str, wrong: &mut Vec<String>) {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{at} has no type"),
    };
    if !allowed.contains(&kind) {
        wrong.push(format!("{at} is {kind}, not {allowed:?}"));
    }
    if schema.get("const").is_some_and(|only| only != found) {
        wrong.push(format!("{at} is {found}"));
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|words| !words.contains(found)) {
        wrong.push(format!("{at} is {found}"));
    }
    match found {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                problems(&schema["items"], element, &format!("{at}/{index}"), wrong);
            }
        }
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    wrong.push(format!("{at}/{name} is missing"));
                }
            }
            let Some(properties) = schema.get("properties") else {
                if let Some(item) = schema.get("additionalProperties") {
                    fields.iter().for_each(|(name, field)| problems(item, field, &format!("{at}/{name}"), wrong));
                }
                return;
            };
            for (name, field) in fields {
                match properties.get(name) {
                    None => wrong.push(format!("{at}/{name} is not described")),
                    Some(described) => {
                        assert!(described["description"].is_string(), "{at}/{name} has no description");
                        problems(described, field, &format!("{at}/{name}"), wrong);
                    }
                }
            }
        }
        _ => {}
    }
}

#[track_caller]
fn fits(name: &str, document: &Value) {
    let mut wrong = Vec::new();
    problems(&schema(name), document, name, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}\n{document:#}");
}

/// Runs a command, checks its exit code, and reads its document.
#[track_caller]
fn document(folder: &Folder, arguments: &[&str], code: i32) -> Value {
    let output = folder.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
}

fn started() -> Started {
    Started {
        id: fresh_id(),
        caller: "muster:user/lea".parse().unwrap(),
        reply_to: "user/lea.s1".parse().unwrap(),
        action: "lab.long".to_owned(),
        read_only: false,
        at_ms: now(),
        keep_until_ms: now().plus_ms(60_000),
        sequence_reserved: 1,
    }
}

#[test]
fn a_validator_that_finds_nothing_would_be_no_validator() {
    let good = json!({ "schema": "muster.audit-verified/v1", "files": ["a"], "lines": 1, "first_sequence": 1,
        "last_sequence": 1, "last_hash": "ab", "torn_bytes": 0 });
    fits("audit-verified", &good);
    for (field, other) in [("schema", json!("v2")), ("files", json!([1])), ("lines", json!("1")), ("new", json!(1))] {
        let mut bad = good.clone();
        bad[field] = other;
        let mut wrong = Vec::new();
        problems(&schema("audit-verified"), &bad, "", &mut wrong);
        assert_eq!(wrong.len(), 1, "{field}");
        bad.as_object_mut().unwrap().remove("torn_bytes");
        problems(&schema("audit-verified"), &bad, "", &mut wrong);
        assert_eq!(wrong.len(), 3, "{field}");
    }
}

#[test]
fn the_journal_and_the_spool_say_what_is_damaged() {
    let folder = Folder::new();
    fits("spool", &document(&folder, &["spool", "list", "--json"], 0));
    fs::create_dir_all(folder.path("state/actions")).unwrap();
    let (mut journal, _) = Journal::open(&real_disk(), &folder.path("state/journal"), now()).unwrap();
    let (long, other) = (started(), started());
    journal.start(long.clone()).unwrap();
    journal.start(other.clone()).unwrap();
    fits("journal", &document(&folder, &["journal", "list", "--json"], 0));

    // One report in the spool, and one action that has ended without one.
    let (mut spool, _) = Spool::open(&real_disk(), &folder.path("state/spool")).unwrap();
    spool.put(crate::kit::waiting_report(other.id), Keep::OnDisk, now(), &mut |_| true).unwrap();
    let mut state = spool.state(now());
    state.waiting[0].why = Why::Unroutable;
    fs::write(folder.path("state/spool.json"), serde_json::to_vec(&state).unwrap()).unwrap();
    for id in [long.id, other.id] {
        let directory = ActionDirectory::of(&folder.path("state/actions"), id);
        fs::create_dir(directory.path()).unwrap();
        let order = json!({
            "format": 1, "request_id": id, "caller": "muster:user/lea", "reply_to": "user/lea.s1", "progress": true,
            "plugin": "lab", "plugin_version": "1", "action": "long", "read_only": false, "can_cancel": true,
            "arguments": {}, "secrets": [], "noop": false, "effective_user": null, "time_limit_ms": 1,
            "stop_grace_ms": 1, "output_bytes_max": 1, "accepted_at_ms": 1, "host": "web1.example.com",
            "agent_status": { "version": "1", "started_at_ms": 1, "broker": "", "connected_at_ms": null,
                "memory_bytes": 1, "running_actions": 0, "spooled_reports": 0, "counters": {}, "problems": [],
                "audit_head": "" }
        });
        fs::write(directory.path().join("request.json"), order.to_string()).unwrap();
        assert!(directory.order().good().is_some());
        let none = json!({ "stdout": 0, "stderr": 0 });
        let reply = json!({ "format": 1, "code": "ok", "message": "", "exit_code": null, "data": {}, "duration_ms": 1,
            "ended_at_ms": 5, "written": none, "kept": none });
        fs::write(directory.path().join("reply.json"), reply.to_string()).unwrap();
    }
    let found = document(&folder, &["spool", "list", "--json"], 0);
    fits("spool", &found);
    assert_eq!(found["reports"][0]["request_id"], other.id.to_string());
    assert_eq!((found["ended"].as_array().unwrap().len(), &found["ended"][0]["code"]), (1, &"ok".into()));
    let row = format!("{}  user/lea  ok  lab.long  ended 1970-01-01T00:00:00Z  its output is told first\n", long.id);
    folder.check(&["spool", "list"], true, &[&row, "1 action has ended whose output waits for the broker"]);
    let status = folder.run(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("2 directories of detached actions and results; 1 ended and not told yet\n"), "{said}");

    fs::write(folder.path("state/spool/x.damaged"), "rubbish").unwrap();
    let found = document(&folder, &["spool", "list", "--json"], 3);
    fits("spool", &found);
    assert_eq!((found["damaged"][0]["file_bytes"].clone(), found["reports"].as_array().unwrap().len()), (7.into(), 1));
    assert_eq!(folder.run(&["spool", "list"]).status.code(), Some(3));

    // What was being written when the host stopped is no damage; a line that was changed is.
    let mut journal = fs::read(folder.path("state/journal")).unwrap();
    journal.extend_from_slice(b"half");
    fs::write(folder.path("state/journal"), &journal).unwrap();
    document(&folder, &["journal", "list", "--json"], 0);
    journal[60] ^= 1;
    fs::write(folder.path("state/journal"), &journal).unwrap();
    let found = document(&folder, &["journal", "list", "--json"], 3);
    fits("journal", &found);
    assert_eq!((&found["damaged_lines"], &found["torn_bytes"]), (&1.into(), &4.into()));
    assert_eq!(folder.run(&["journal", "list"]).status.code(), Some(3));
}

#[test]
fn the_audit_log_says_what_is_damaged() {
    let folder = Folder::new();
    fs::create_dir(folder.path("state")).unwrap();
    let path = folder.path("state/audit.jsonl");
    let rotation = Rotation { bytes: 1_000_000, keep_files: 10 };
    let mut audit = Audit::open(&real_disk(), &path, "web1", now(), rotation).unwrap();
    let text = || Some("text".to_owned());
    let mark = FileMark { name: text(), lines: 1, last_sequence: 1, last_hash: "ab".to_owned() };
    let full = Event {
        code: text(),
        request_id: text(),
        caller: text(),
        groups: vec!["admins".to_owned()],
        signers: vec!["a".to_owned()],
        certificate: text(),
        action: text(),
        arguments: Some(Map::from_iter([("name".to_owned(), Value::from("openssl"))])),
        noop: true,
        effective_user: text(),
        rule: text(),
        message: "more".to_owned(),
        body_sha256: text(),
        file: Some(mark),
        count: Some(3),
        ..Event::new("command", "allowed")
    };
    for event in [Event::new("agent", "started"), full] {
        audit.write(now(), event, Durability::Written).unwrap();
    }
    let lines = |code: i32| -> Vec<Value> {
        let output = folder.run(&["audit", "show", "--json"]);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let shown = lines(0);
    assert_eq!(shown.len(), 2);
    shown.iter().for_each(|line| fits("audit-line", line));
    fits("audit-verified", &document(&folder, &["audit", "verify", "--json"], 0));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("started", "stopped", 1)).unwrap();
    let shown = lines(3);
    assert_eq!((shown.len(), &shown[0]["damaged"]["line"]), (2, &1.into()));
    shown.iter().for_each(|line| fits("audit-line", line));
    // Also where the lines that are wanted are good, and are only the last ones.
    let output = folder.run(&["audit", "show", "--last", "1", "--decision", "allowed"]);
    assert_eq!((output.status.code(), output.stdout.iter().filter(|byte| **byte == b'\n').count()), (Some(3), 1));
    assert_eq!(folder.run(&["audit", "verify"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_status_fits_its_schema() {
    let stage = Stage::new();
    let agent = stage.start(Setup::default()).await;
    let mut lea = stage.controller(&stage.site.lea).await;
    lea.send(&command(&stage.site.lea, "wait", json!({})), &stage.site.lea).await;
    lea.report().await;
    let mut status = agent.handle.status().unwrap();
    status.requests[0].ended = Some(EndedStatus { at_ms: now(), code: "ok".to_owned() });
    status.log.push(LogLine { at_ms: now(), level: "WARN".to_owned(), text: "x".to_owned() });
    status.refused.insert("busy".to_owned(), 1);
    fits("status", &serde_json::to_value(&status).unwrap());
    stage.broker.stop();
    agent.stop().await;
}
