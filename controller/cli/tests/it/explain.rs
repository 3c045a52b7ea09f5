//! `muster explain`.

use crate::site::{Site, assert_screen};

#[test]
fn a_code_is_explained() {
    let site = Site::new();
    assert_screen!(site.run(&["explain", "replayed"]), @"
    exit 0
    --- stdout
    replayed: the command was seen before

    A request id runs at most once. Somebody sent the same bytes again, or the
    broker delivered twice. Nothing was done this time; the first answer stands.
    ");
    assert_screen!(site.run(&["explain", "no-match", "--json"]), @r#"
    exit 0
    --- stdout
    {
      "schema": "muster.code/v1",
      "code": "no-match",
      "summary": "no host matches the target",
      "explanation": "Every host decides for itself whether it matches, and none did, or none answered in time. `muster find` shows who matches; the message names the part of the target that no known host fulfils. Exit code 4."
    }
    "#);
    assert_screen!(site.run(&["explain", "replayd"]), @"
    exit 2
    --- stderr
    error[unknown-code]: there is no code `replayd`
      nearest  `replayed`
      try      muster explain replayed
    ");
    assert_screen!(site.run(&["explain", "silent"]), @"
    exit 2
    --- stderr
    error[unknown-code]: there is no code `silent`
      nearest  `no-reply`
      try      muster explain no-reply
    ");
    assert_screen!(site.run(&["explain", "5"]), @"
    exit 0
    --- stdout
    exit code 5: no failure, but some gave no reply
    ");
    assert_screen!(site.run(&["explain", "zzz"]), @"
    exit 2
    --- stderr
    error[unknown-code]: there is no code `zzz`
      try     muster explain
    ");
}

#[test]
fn all_codes_are_listed_in_each_format() {
    let site = Site::new();
    let text = |words: &[&str]| String::from_utf8(site.command(words).output().unwrap().stdout).unwrap();
    let table = text(&["explain"]);
    let names = text(&["explain", "--names"]);
    assert_eq!(table.lines().count(), names.lines().count() + 1, "one row for each, and the heading");
    let json: serde_json::Value = serde_json::from_str(&text(&["explain", "--json"])).unwrap();
    assert_eq!(json["schema"], "muster.codes/v1");
    assert_eq!(json["codes"].as_array().unwrap().len(), names.lines().count());
    for line in text(&["explain", "--jsonl"]).lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["schema"], "muster.codes/v1");
        assert!(names.lines().any(|name| record["code"] == name), "{line}");
    }
    assert!(text(&["explain", "--format", "csv"]).starts_with("code,summary,explanation\n"));
}
