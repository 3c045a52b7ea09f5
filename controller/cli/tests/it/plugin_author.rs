//! `muster plugin new|check|pack|install --local`: writing a plugin, as far as it needs no broker.

use std::fs;

use muster_daemon::{Clock as _, SystemClock};
use muster_pki::testing::TestAuthority;
use muster_protocol::Timestamp;
use serde_json::Value;

use crate::site::{Site, assert_screen};

/// A site with an operator `user/lea` who can sign.
fn site() -> Site {
    let site = Site::new();
    let authority = TestAuthority::new(Timestamp(SystemClock.now_ms())).unwrap();
    site.install(&authority, &authority.credentials_with_groups("user/lea", &["admins"]).unwrap());
    site.with_context("amqps://localhost:1", "user/lea");
    site
}

fn edit(site: &Site, file: &str, from: &str, to: &str) {
    let path = site.path(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_new_plugin_works_at_once_in_each_language() {
    for language in ["shell", "python"] {
        let site = Site::new();
        let made = site.run(&["plugin", "new", "hello", "--language", language]);
        assert!(made.starts_with("exit 0\n--- stdout\n./hello/hello.json\n./hello/hello\n"), "{made}");
        let checked = site.run(&["plugin", "check", "hello"]);
        assert_eq!(checked, "exit 0\n--- stdout\n✓ hello 1.0.0 keeps the contract: 1 action, 1 sample\n");
    }
    // What the book calls ten lines of shell.
    let site = Site::new();
    site.run(&["plugin", "new", "hello"]);
    assert!(fs::read_to_string(site.path("hello/hello")).unwrap().lines().count() <= 10);
}

#[test]
fn a_name_that_is_taken_or_none() {
    let site = Site::new();
    let text = site.run(&["plugin", "new", "package"]);
    assert!(text.starts_with("exit 2\n") && text.contains("a built-in plugin is called `package`"), "{text}");
    let text = site.run(&["plugin", "new", "../evil"]);
    assert!(text.starts_with("exit 2\n") && !site.path("../evil").exists(), "{text}");
    site.run(&["plugin", "new", "hello"]);
    let text = site.run(&["plugin", "new", "hello"]);
    assert!(text.starts_with("exit 2\n") && text.contains("hello"), "{text}");
}

#[test]
fn what_a_plugin_does_wrong_is_found() {
    #[track_caller]
    fn check(break_it: impl FnOnce(&Site), expected: &str) {
        let site = Site::new();
        site.run(&["plugin", "new", "hello"]);
        break_it(&site);
        let text = site.run(&["plugin", "check", "hello"]);
        assert!(text.starts_with("exit 3\n") && text.contains(expected), "{expected}\n{text}");
    }
    let program = "hello/hello";
    check(|site| fs::remove_file(site.path("hello/samples.json")).unwrap(), "action `greet` has no sample");
    check(|site| edit(site, program, "uptime_s=$(cut -d. -f1 /proc/uptime)", "uptime_s=long"), "not of type integer");
    check(|site| edit(site, program, "|| exit 0", "|| exit 1"), "it does not activate, so it cannot be checked");
    check(
        |site| edit(site, program, "\"greeting=", "\"greting="),
        "gives `greting`, which action `greet` does not have",
    );
    check(|site| edit(site, program, "  greet)", "  other)"), "it fails: `hello` ended with exit code 1");
    check(|site| edit(site, "hello/hello.json", "\"Says hello\"", "\"\""), "the description of the plugin is empty");
    check(
        |site| {
            edit(
                site,
                "hello/hello.json",
                "\"input\": {",
                "\"input\": { \"na-me\": { \"optional\": true }, \"na_me\": { \"optional\": true },",
            )
        },
        "inputs `na-me` and `na_me` of `greet` would be the same variable",
    );
    check(
        |site| {
            edit(
                site,
                program,
                "case \"$MUSTER_ACTION\" in",
                "exec </dev/null; echo '{\"data\":{\"more\":1}}' >\"$CHORIA_EXTERNAL_REPLY\"; exit 0\ncase \"$MUSTER_ACTION\" in",
            )
        },
        "its answer has `more`, which is not described",
    );

    let site = Site::new();
    site.run(&["plugin", "new", "hello"]);
    fs::remove_file(site.path("hello/hello")).unwrap();
    let text = site.run(&["plugin", "check", "hello"]);
    assert!(text.starts_with("exit 2\n") && text.contains("there is no program for it"), "{text}");
    let text = site.run(&["plugin", "check", "nothing-here"]);
    assert!(text.starts_with("exit 2\n") && text.contains("there is no plugin at `nothing-here`"), "{text}");
}

#[test]
fn findings_are_data_too() {
    let site = Site::new();
    site.run(&["plugin", "new", "hello"]);
    fs::write(site.path("hello/samples.json"), "[]").unwrap();
    let output = site.command(&["plugin", "check", "hello", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(document["findings"], serde_json::json!(["action `greet` has no sample"]));
}

#[test]
fn a_pack_is_signed_and_its_description_can_be_kept() {
    let site = site();
    site.run(&["plugin", "new", "hello"]);
    let packed = site.run(&["plugin", "pack", "hello"]);
    assert!(packed.starts_with("exit 0\n--- stdout\n./hello-1.0.0.tar.gz\n"), "{packed}");
    assert!(packed.contains("hello 1.0.0: 4 files, ") && packed.contains("signed by user/lea"), "{packed}");
    assert_screen!(site.run(&["plugin", "install", "hello-1.0.0.tar.gz", "--local"]), @"
    exit 0
    --- stdout
    [HOME]/.local/share/muster/plugins/hello.json
    --- stderr
    hello 1.0.0: 4 files, signed by user/lea (admins)
    ");
    let shown = site.run(&["plugin", "show", "hello.greet"]);
    assert!(shown.contains("hello.greet: Greets somebody") && shown.contains("name (string, required)"), "{shown}");
    assert!(site.run(&["plugin", "list", "--names"]).contains("\nhello\n"));
    let removed = site.run(&["plugin", "remove", "hello", "--local"]);
    assert!(removed.starts_with("exit 0\n"), "{removed}");
    assert!(!site.run(&["plugin", "list", "--names"]).contains("\nhello\n"));
}

#[test]
fn a_pack_that_no_host_would_take_is_not_sent() {
    let site = site();
    site.run(&["plugin", "new", "hello"]);
    site.run(&["plugin", "pack", "hello", "--out", "good.tar.gz"]);
    let good = fs::read(site.path("good.tar.gz")).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(site.path("bad.tar.gz"), bad).unwrap();
    fs::write(site.path("no.tar.gz"), "hello").unwrap();
    for file in ["bad.tar.gz", "no.tar.gz"] {
        let text = site.run(&["plugin", "install", file, "--all"]);
        assert!(text.starts_with("exit 2\n") && text.contains("is not a pack that can be installed"), "{text}");
    }
    // Signed for another CA.
    let other = self::site();
    fs::write(other.path("good.tar.gz"), good).unwrap();
    let text = other.run(&["plugin", "install", "good.tar.gz", "--all"]);
    assert!(text.starts_with("exit 2\n") && text.contains("untrusted-pack"), "{text}");
    let text = site.run(&["plugin", "install", "good.tar.gz", "--local", "--all"]);
    assert!(text.starts_with("exit 2\n") && text.contains("--local asks no host"), "{text}");
}
