//! `muster request`, `cancel` and `watch` as far as they need no broker, and secrets that are typed.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use muster_pki::testing::TestAuthority;

use crate::site::{Site, assert_screen, closed_port, now};

const VAULT: &str = r#"{"metadata":{"name":"vault","description":"Keeps secrets","version":"1.0.0"},
    "actions":[{"action":"put","description":"Keeps one","input":{
        "name":{"description":"Its name","type":"string"},
        "password":{"description":"The secret","type":"string","muster":{"secret":true}}},"output":{}}]}"#;

/// A site of `user/lea` whose broker is not there, and which knows the plugin `vault`.
fn site() -> Site {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("user/lea").unwrap());
    site.write("plugins/vault.json", VAULT);
    site.with_context(&format!("amqps://localhost:{}", closed_port()), "user/lea");
    let config = std::fs::read_to_string(site.path(".config/muster/config.toml")).unwrap();
    site.write(".config/muster/config.toml", &format!("{config}ddl_directory = \"../../plugins\"\n"));
    site
}

fn with_requests(site: &Site) {
    let line = |request: &str, context: &str, what: &str, hosts: &str| {
        format!(
            r#"{{"version":1,"request":"{request}","asked_at_ms":1577836800000,"context":"{context}","what":"{what}","action":"package.install","time_limit_ms":1000,"ttl_ms":1000,"commands":{{"{request}":"{hosts}"}}}}"#
        ) + "\n"
    };
    let lines = [
        line("019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab", "lab", "package.install name=vim", "web-[1-40]"),
        line("019aa44e-2dc1-7d5b-8f6a-31c5000021ab", "lab", "vault.put name=x password=***", "web-1,db-1"),
        line("019aa44e-2dc2-7d5b-8f6a-31c511111111", "prod", "package.install name=vim", "web-1"),
    ];
    site.write(".local/state/muster/requests.jsonl", &lines.concat());
}

#[test]
fn requests_are_listed_newest_first() {
    let site = site();
    assert_screen!(site.run(&["request", "list"]), @"
    exit 0
    --- stderr
    nothing was asked from here lately
    ");
    with_requests(&site);
    assert_screen!(aged(&site.run(&["request", "list"])), @"
    exit 0
    --- stdout
    REQUEST ASKED HOSTS WHAT
    000021ab [AGE] 2 vault.put name=x password=***
    9f3c21ab [AGE] 40 package.install name=vim
    ");
    assert_screen!(aged(&site.run(&["request", "list", "--limit", "1", "--all-contexts", "--format", "wide"])), @"
    exit 0
    --- stdout
    REQUEST ASKED HOSTS WHAT CONTEXT ID
    11111111 [AGE] 1 package.install name=vim prod 019aa44e-2dc2-7d5b-8f6a-31c511111111
    --- stderr
    2 more: --limit 3
    ");
    assert_screen!(site.run(&["request", "list", "--limit", "1", "--json"]), @r#"
    exit 0
    --- stdout
    {
      "schema": "muster.requests/v1",
      "requests": [
        {
          "request_id": "019aa44e-2dc1-7d5b-8f6a-31c5000021ab",
          "asked_at": "[TIME]",
          "context": "lab",
          "action": "package.install",
          "what": "vault.put name=x password=***",
          "read_only": false,
          "request_ids": [
            "019aa44e-2dc1-7d5b-8f6a-31c5000021ab"
          ],
          "hosts": [
            "db-1",
            "web-1"
          ]
        }
      ]
    }
    --- stderr
    1 more: --limit 2
    "#);
    assert_screen!(site.run(&["request", "list", "--names"]), @"
    exit 0
    --- stdout
    000021ab
    9f3c21ab
    ");
}

/// A table whose ages, which depend on the day, are made alike. Its columns are one space apart then.
fn aged(screen: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.iter().position(|word| *word == "ago") {
            Some(at) if at >= 2 => [&words[..at - 2], &["[AGE]"], &words[at + 1..]].concat().join(" "),
            _ => words.join(" "),
        }
    };
    screen.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_request_that_is_not_known_is_said_before_anything_is_asked() {
    let site = site();
    assert_screen!(site.run(&["cancel", "last"]), @"
    exit 4
    --- stderr
    error[no-request]: no request of yours is kept for context `lab`
      kept in  [HOME]/.local/state/muster/requests.jsonl
      try      muster request list
    ");
    with_requests(&site);
    assert_screen!(site.run(&["watch", "21ab"]), @"
    exit 2
    --- stderr
    error[ambiguous-request]: `21ab` fits 2 requests
      fits    019aa44e-2dc1-7d5b-8f6a-31c5000021ab  vault.put name=x password=***
      fits    019aa44e-2dc0-7d5b-8f6a-31c59f3c21ab  package.install name=vim
      try     more characters of the id
    ");
    assert_screen!(site.run(&["cancel", "11111111"]), @"
    exit 2
    --- stderr
    error[no-request]: no request of yours in context `lab` has an id like `11111111`
      kept in  [HOME]/.local/state/muster/requests.jsonl
      but      019aa44e-2dc2-7d5b-8f6a-31c511111111 in context `prod`: add --context prod
      or       the whole id and a target, for a request that was sent from elsewhere
      try      muster request list
    ");
    assert_screen!(site.run(&["watch", "019aa44e-2dc9-7d5b-8f6a-31c59f3c21ab"]), @"
    exit 2
    --- stderr
    error[no-target]: request 019aa44e-2dc9-7d5b-8f6a-31c59f3c21ab was not sent from here, so its hosts are not known
      note    no target never means all hosts
      or      muster watch 019aa44e-2dc9-7d5b-8f6a-31c59f3c21ab --all
      try     muster watch 019aa44e-2dc9-7d5b-8f6a-31c59f3c21ab -H web1.example.com
    ");
    assert_screen!(site.run(&["cancel", "last", "-H", "web-[1-"]), @"
    exit 2
    --- stderr
    error[bad-hosts]: `web-[1-` has an unbalanced bracket
      try     muster cancel last -H web1.example.com,web-[1-9].example.com
    ");
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    let site = site();
    for word in ["password=hunter2", "password:=\"hunter2\""] {
        for format in ["table", "json", "jsonl"] {
            let words = ["run", "vault.put", "name=x", word, "-H", "web-1", "--format", format, "-vv"];
            let output = site.command(&words).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains("secret-on-command-line") && !said.contains("hunter2"), "{said}");
        }
    }
    let shown = site.run(&["plugin", "show", "vault.put"]);
    assert!(shown.contains("Example: muster run vault.put name=NAME password=@FILE -t"), "{shown}");
    assert!(
        shown.contains("password (string, required, secret: from a file, standard input or the terminal)"),
        "{shown}"
    );
    // Without a terminal nobody is asked.
    let output = site.command(&["run", "vault.put", "name=x", "-H", "web-1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no terminal to ask at"));
}

#[test]
fn a_secret_comes_from_standard_input_and_stays_there() {
    let site = site();
    let mut command = site.command(&["run", "vault.put", "name=x", "password=-", "-H", "web-1", "-vv"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It waits for the secret, so its words can be read as everybody on the machine can.
    let words = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "nobody is there to be asked");
    let said = [words, output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("hunter2"));
    let taken = site.command(&["run", "vault.put", "name=x", "password=-", "-H", "-"]).output().unwrap();
    assert!(String::from_utf8(taken.stderr).unwrap().contains("cannot be both names of hosts and an input"));
}

#[test]
fn a_terminal_does_not_show_the_secret_that_is_typed() {
    let site = site();
    // `script` (package bsdutils, part of every Debian) gives the program a terminal of its own.
    let program = site.command(&[]).get_program().to_str().unwrap().to_owned();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{program} run vault.put name=x -H web-1"), "/dev/null"]);
    command.env_clear().env("HOME", site.home()).env("PATH", "/usr/bin:/bin").env("TERM", "dumb");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`script` of package bsdutils");
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = Vec::new();
    let mut byte = [0];
    // What is typed before the question would be shown by the terminal itself.
    while !String::from_utf8_lossy(&seen).contains("password (not shown):") {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    input.write_all(b"hunter2\n").unwrap();
    output.read_to_end(&mut seen).unwrap();
    let status = child.wait().unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(seen.contains("error[broker-unreachable]"), "the secret was taken: {seen}");
    assert_eq!(status.code(), Some(7));
}
