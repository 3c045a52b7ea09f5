//! The audit log: what was changed afterwards is found.

use std::fs;
use std::path::{Path, PathBuf};

use muster_agent::audit::{Audit, AuditError, Durability, Event, UNVERIFIED_LINES_PER_MINUTE, verify};

use crate::kit::NOW;

fn log(directory: &Path, lines: usize) -> PathBuf {
    let path = directory.join("audit.jsonl");
    let mut audit = Audit::open(&path, "web1", NOW).unwrap();
    for number in 0..lines {
        let event = Event::new("command", "allowed").with_message(format!("line {number}"));
        audit.write(NOW, event, if number == 0 { Durability::Synced } else { Durability::Written }).unwrap();
    }
    path
}

#[track_caller]
fn broken_at(path: &Path, expected: u64) {
    match verify(path) {
        Err(AuditError::Broken { line, .. }) => assert_eq!(line, expected),
        other => panic!("not found broken at {expected}: {other:?}"),
    }
}

#[test]
fn a_log_verifies_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    log(directory.path(), 3);
    let path = log(directory.path(), 2);
    let verified = verify(&path).unwrap();
    assert_eq!((verified.lines, verified.torn_bytes), (5, 0));
    let audit = Audit::open(&path, "web1", NOW).unwrap();
    assert_eq!(audit.head(), (5, verified.last_hash.as_str()));
    assert_eq!(verify(&log(&directory.path().join("."), 0)).unwrap().lines, 5);
}

#[test]
fn whatever_is_changed_is_found_at_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path(), 5);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let write = |lines: &[&str]| fs::write(&path, lines.join("\n") + "\n").unwrap();

    let changed = lines[2].replace("line 2", "line X");
    write(&[lines[0], lines[1], &changed, lines[3], lines[4]]);
    broken_at(&path, 4);
    write(&[lines[0], lines[1], lines[3], lines[4]]);
    broken_at(&path, 3);
    write(&[lines[0], lines[2], lines[1], lines[3], lines[4]]);
    broken_at(&path, 2);
    write(&[lines[1], lines[2]]);
    broken_at(&path, 1);
    write(&[lines[0], lines[0], lines[1]]);
    broken_at(&path, 2);
    write(&[lines[0], "{}", lines[1]]);
    broken_at(&path, 2);
    // Lines cut off the end leave a chain that is whole: its head is another.
    write(&lines[..4]);
    let shorter = verify(&path).unwrap();
    assert_eq!(shorter.lines, 4);
    fs::write(&path, &text).unwrap();
    assert_ne!(verify(&path).unwrap().last_hash, shorter.last_hash);
}

#[test]
fn nothing_a_caller_sends_can_begin_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = Audit::open(&path, "web1", NOW).unwrap();
    let evil = "x\"}\n{\"previous\":\"\u{2028}\u{0}";
    let mut event = Event::new("command", "refused").with_message(evil);
    event.arguments = serde_json::json!({ evil: evil }).as_object().cloned();
    audit.write(NOW, event, Durability::Written).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    assert_eq!(verify(&path).unwrap().lines, 1);
}

#[test]
fn a_torn_end_is_cut_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path(), 2);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"previous\":\"half")).unwrap();
    assert_eq!(verify(&path).unwrap().torn_bytes, 17);
    drop(Audit::open(&path, "web1", NOW).unwrap());
    assert_eq!(verify(&path).unwrap().lines, 3);
    assert!(fs::read_to_string(&path).unwrap().contains("cut 17 bytes"));
}

#[test]
fn a_log_whose_end_is_not_ours_is_not_continued() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(directory.path(), 1);
    fs::write(&path, "something else\n").unwrap();
    assert!(matches!(Audit::open(&path, "web1", NOW), Err(AuditError::Broken { .. })));
}

#[test]
fn a_flood_from_strangers_is_counted_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = Audit::open(&path, "web1", NOW).unwrap();
    for _ in 0..10_000 {
        audit.write_unverified(NOW, Event::new("command", "refused")).unwrap();
    }
    assert_eq!(verify(&path).unwrap().lines, u64::from(UNVERIFIED_LINES_PER_MINUTE));
    audit.write_unverified(NOW.plus_ms(60_000), Event::new("command", "refused")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("9940 more messages from unverified senders"), "{text}");
}

#[test]
fn long_lines_are_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let long = "y".repeat(500_000);
    for _ in 0..2 {
        let mut audit = Audit::open(&path, "web1", NOW).unwrap();
        audit.write(NOW, Event::new("command", "allowed").with_message(&long), Durability::Written).unwrap();
    }
    assert_eq!(verify(&path).unwrap().lines, 2);
}

#[test]
fn long_arguments_are_cut_where_a_command_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut audit = Audit::open(&path, "web1", NOW).unwrap();
    let long = "ü".repeat(100_000);
    for (decision, name) in [("refused", long.as_str()), ("refused", "short"), ("allowed", long.as_str())] {
        let mut event = Event::new("command", decision);
        event.arguments = Some(serde_json::Map::from_iter([("name".to_owned(), name.into())]));
        audit.write(NOW, event, Durability::Written).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let arguments = |line: usize| &lines[line]["details"]["arguments"];
    assert_eq!(arguments(0)["bytes"], 200_011);
    assert!(arguments(0)["cut"].as_str().unwrap().starts_with("{\"name\":\"üü"));
    assert!(text.lines().next().unwrap().len() < 2_000);
    assert_eq!(arguments(1)["name"], "short");
    assert_eq!(arguments(2)["name"], long);
    assert_eq!(verify(&path).unwrap().lines, 3);
}
