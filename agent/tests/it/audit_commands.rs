//! `musterd audit verify` and `musterd audit show`.

use std::fs;

use muster_agent::audit::{Audit, Durability, Event, Rotation};
use serde_json::{Map, Value};

use crate::binary::{Folder, now};

#[track_caller]
fn check(folder: &Folder, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = folder.run(arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = format!("{stdout}{stderr}");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say `{word}`: {said}");
    }
    said
}

/// A folder whose log has been rotated, with lines of all kinds. Gives its head.
fn with_log(folder: &Folder) -> String {
    fs::create_dir(folder.path("state")).unwrap();
    let rotation = Rotation { bytes: 1_200, keep_files: 10 };
    let mut audit =
        Audit::open(&crate::kit::real_disk(), &folder.path("state/audit.jsonl"), "web1", now(), rotation).unwrap();
    let mut write = |age_ms: i64, change: &dyn Fn(&mut Event), decision: &str| {
        let mut event = Event::new("command", decision);
        change(&mut event);
        audit.write(now().plus_ms(-age_ms), event, Durability::Written).unwrap();
    };
    for number in 0..12 {
        let old = |event: &mut Event| event.message = format!("old {number}");
        write(7_200_000, &old, "allowed");
    }
    write(
        1_000,
        &|event| {
            event.caller = Some("muster:user/lea".to_owned());
            event.action = Some("package.install".to_owned());
            event.rule = Some("admins-may-act".to_owned());
            event.request_id = Some("r-1".to_owned());
            event.arguments = Some(Map::from_iter([
                ("name".to_owned(), Value::from("openssl")),
                ("token".to_owned(), Value::from("***")),
            ]));
        },
        "allowed",
    );
    write(
        1_000,
        &|event| {
            event.caller = Some("muster:user/max".to_owned());
            event.action = Some("service.stop".to_owned());
            event.code = Some("policy-denied".to_owned());
            event.message = "evil \u{1b}[2J\u{9b}31m\u{202e}txt\nallowed".to_owned();
        },
        "refused",
    );
    let (sequence, hash) = audit.head();
    format!("{sequence}:{hash}")
}

#[test]
fn the_whole_log_is_verified_and_what_is_wrong_is_named() {
    let folder = Folder::new();
    let head = with_log(&folder);
    let state = folder.path("state");
    let state = state.to_str().unwrap();
    let said = check(&folder, &["audit", "verify"], 0, &["all in order\n", &format!("anchor {head}\n")]);
    assert_eq!(said, check(&folder, &["audit", "verify", state], 0, &[]));
    check(&folder, &["audit", "verify", "--anchor", &head], 0, &[]);
    check(&folder, &["audit", "verify", "--anchor", &head.replace(':', "0:")], 1, &["its end was cut off"]);
    check(&folder, &["audit", "verify", "--anchor", "nonsense"], 2, &["is not NUMBER:HASH"]);
    let json: Value = serde_json::from_str(&check(&folder, &["audit", "verify", "--json"], 0, &[])).unwrap();
    assert_eq!(head, format!("{}:{}", json["last_sequence"], json["last_hash"].as_str().unwrap()));
    let second = format!("{state}/audit.jsonl.000002");
    check(&folder, &["audit", "verify", &second], 0, &["begins with line ", "what came before is not there"]);
    let text = fs::read_to_string(&second).unwrap();
    fs::write(&second, text.replacen("old", "new", 1)).unwrap();
    for path in [state, &second] {
        check(&folder, &["audit", "verify", path], 1, &[&format!("`{second}` line 2: changed: ")]);
    }
    fs::remove_file(&second).unwrap();
    let third = format!("`{state}/audit.jsonl");
    check(&folder, &["audit", "verify"], 1, &[&third, "line 1: removed: ", "there is no file `audit.jsonl.000002`"]);
    check(&folder, &["audit", "verify", "/nonexistent/audit.jsonl"], 1, &["/nonexistent/audit.jsonl"]);
}

#[test]
fn lines_are_found_and_shown_without_harm() {
    let folder = Folder::new();
    with_log(&folder);
    let count = |arguments: &[&str]| check(&folder, &[&["audit", "show"], arguments].concat(), 0, &[]).lines().count();
    let row = |arguments: &[&str], words: &[&str]| {
        let said = check(&folder, &[&["audit", "show"], arguments].concat(), 0, words);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.trim_end().chars().all(|c| !c.is_control() && c != '\u{202e}'), "{said:?}");
        said
    };
    assert!(count(&[]) > 14, "all files are shown");
    row(
        &["--caller", "user/lea"],
        &["Z  ", "allowed", "user/lea  package.install  name=openssl token=***  rule admins-may-act  request r-1\n"],
    );
    row(&["--caller", "muster:user/max"], &["evil \\u{1b}[2J\\u{9b}31m\\u{202e}txt\\u{a}allowed"]);
    for arguments in [
        &["--action", "package.*"][..],
        &["--decision", "refused"],
        &["--request", "r-1"],
        &["--rule", "admins-*"],
        &["--last", "1"],
        &["--caller", "user/*", "--action", "service.*"],
    ] {
        row(arguments, &[]);
    }
    assert_eq!(count(&["--since", "1h", "--caller", "user/*"]), 2);
    assert_eq!(count(&["--until", "1h", "--action", "*"]), 0);
    assert!(count(&["--until", "1h"]) >= 12);
    assert_eq!(count(&["--since", "2100-01-01T00:00:00Z"]), 0);
    assert_eq!(count(&["--last", "0"]), 0);
    check(&folder, &["audit", "show", "--since", "yesterday"], 2, &["2026-11-21T08:00:00Z"]);
    let json = row(&["--json", "--caller", "user/max"], &[]);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["details"]["message"], "evil \u{1b}[2J\u{9b}31m\u{202e}txt\nallowed");
    // Somebody who looks something up is told of a line that cannot be read.
    let path = folder.path("state/audit.jsonl.000001");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("old", "new", 1)).unwrap();
    let said = check(&folder, &["audit", "show", "--caller", "nobody"], 3, &["audit.jsonl.000001 line 1 is damaged"]);
    assert_eq!(said.lines().count(), 1, "{said}");
}
