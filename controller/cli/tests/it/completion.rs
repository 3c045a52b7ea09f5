//! Completion: what the shell is told, from local files only.

use muster_client::cache::HostCache;
use muster_pki::testing::TestAuthority;
use muster_protocol::Inventory;
use serde_json::{Value, json};

use crate::site::{Site, assert_screen, now};

/// What bash would propose for the last of the words.
fn proposals(site: &Site, words: &[&str]) -> Vec<String> {
    let index = words.len().to_string();
    let mut command = site.command(&["--", "muster"]);
    command.args(words).env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "the prompt stays clean");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with("--")).map(str::to_owned).collect()
}

fn remembering() -> Site {
    let site = Site::new();
    site.with_context("amqps://mq1.example.com", "user/lea");
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("user/lea").unwrap());
    let mut cache = HostCache::load(&site.remembered(), now());
    for (name, family) in
        [("web1.example.com", "Debian"), ("web2.example.com", "Debian"), ("db1.example.com", "RedHat")]
    {
        let name = name.parse().unwrap();
        let Value::Object(facts) = json!({ "os": { "family": family }, "role": "web" }) else { panic!("an object") };
        cache.seen(&name, Some("d"), now());
        cache.keep(&name, "d", Inventory { facts, ..Inventory::default() });
    }
    cache.save().unwrap();
    site
}

#[test]
fn the_line_for_the_shell_is_printed() {
    let site = Site::new();
    assert_screen!(site.run(&["completion", "bash"]), @"
    exit 0
    --- stdout
    source <(COMPLETE=bash muster)
    ");
    assert_screen!(site.run(&["completion", "zsh"]), @"
    exit 0
    --- stdout
    source <(COMPLETE=zsh muster)
    ");
    assert_screen!(site.run(&["completion", "fish"]), @"
    exit 0
    --- stdout
    COMPLETE=fish muster | source
    ");
    for shell in ["bash", "zsh", "fish"] {
        let output = site.command(&[]).env("COMPLETE", shell).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{shell}");
    }
}

#[test]
fn words_are_proposed_from_what_is_known() {
    let site = remembering();
    let check = |words: &[&str], expected: &[&str]| assert_eq!(proposals(&site, words), expected, "{words:?}");
    check(&["contex"], &["context"]);
    check(&["context", "use", ""], &["lab"]);
    check(&["explain", "replay"], &["replayed"]);
    check(&["run", "package.st"], &["package.status"]);
    check(&["run", "package.status", "na"], &["name=", "names="]);
    check(&["plugin", "show", "hos"], &["host"]);
    check(&["plugin", "show", "host.p"], &["host.ping"]);
    check(&["ping", "-H", "web"], &["web1.example.com", "web2.example.com"]);
    check(&["ping", "-H", "web1.example.com,d"], &["web1.example.com,db1.example.com"]);
    check(&["find", "-t", "os."], &["os.family"]);
    check(&["find", "-t", "os.family = "], &["os.family = Debian", "os.family = RedHat"]);
    check(&["host", "facts", "db"], &["db1.example.com"]);
    check(&["host", "facts", "db1.example.com", "ro"], &["role"]);
}

#[test]
fn without_anything_known_there_is_silence() {
    let site = Site::new();
    for words in [&["ping", "-H", "w"][..], &["find", "-t", "o"], &["context", "use", ""], &["host", "show", "w"]] {
        assert_eq!(proposals(&site, words), Vec::<String>::new(), "{words:?}");
    }
    site.write(".config/muster/config.toml", "not toml at all [");
    site.write(".cache/muster/lab/hosts.json", "{");
    for words in [&["ping", "-H", "w"][..], &["run", "package.status", "x", "-t", "o"]] {
        assert_eq!(proposals(&site, words), Vec::<String>::new(), "{words:?}");
    }
}
