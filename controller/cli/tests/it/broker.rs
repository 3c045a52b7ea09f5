//! A broker that is not there: exit code 7, each address with its reason.

use muster_pki::testing::TestAuthority;

use crate::site::{Site, assert_screen, closed_port, now};

fn logged_in() -> Site {
    let site = Site::new();
    let authority = TestAuthority::new(now()).unwrap();
    site.install(&authority, &authority.credentials("user/lea").unwrap());
    site.with_context(&format!("amqps://127.0.0.1:{}", closed_port()), "user/lea");
    site
}

#[test]
fn nobody_answers() {
    let site = logged_in();
    for words in [
        &["ping", "--all"][..],
        &["find", "--all"],
        &["run", "package.status", "name=bash", "--all"],
        &["host", "list"],
    ] {
        let output = site.command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    assert_screen!(site.run(&["ping", "--all"]), @"
    exit 7
    --- stderr
    error[broker-unreachable]: no broker of context `lab` answers; nothing was sent
      127.0.0.1:[PORT]  refuses connections (nothing listens there)
      note    Check that the broker runs, that the address and port are right, and that no firewall is between.
      try     muster doctor
    ");
    assert_screen!(site.run(&["host", "facts", "web1", "--json"]), @r#"
    exit 7
    --- stdout
    {
      "schema": "muster.error/v1",
      "kind": "error",
      "code": "broker-unreachable",
      "what": "no broker of context `lab` answers; nothing was sent",
      "why": [
        {
          "label": "127.0.0.1:[PORT]",
          "text": "refuses connections (nothing listens there)"
        },
        {
          "label": "note",
          "text": "Check that the broker runs, that the address and port are right, and that no firewall is between."
        }
      ],
      "hints": [
        "muster doctor"
      ],
      "exit_code": 7
    }
    --- stderr
    error[broker-unreachable]: no broker of context `lab` answers; nothing was sent
      127.0.0.1:[PORT]  refuses connections (nothing listens there)
      note    Check that the broker runs, that the address and port are right, and that no firewall is between.
      try     muster doctor
    "#);
}

#[test]
fn doctor_finds_where_it_ends() {
    let site = logged_in();
    assert_screen!(site.run(&["doctor"]), @"
    exit 7
    --- stdout
    ✓ config       context `lab`, chosen by the only context
    ✓ key          [HOME]/.config/muster/files/user-lea.key, mode 0600
    ✓ certificate  user/lea (no group), 364 days left, until [TIME]
    ✓ revocation   list number 1, made [AGO], revokes 0 certificates
    ✓ names        127.0.0.1:[PORT]
    ✗ network      no address answers
                   127.0.0.1:[PORT]: Connection refused (os error 111)
                   do: start the broker, or open its port in the firewall
    · not checked: login, permissions, agents, clocks
    ");
    let output = site.command(&["doctor", "--json"]).output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((&document["schema"], &document["exit_code"]), (&"muster.doctor/v1".into(), &7.into()));
    let states: Vec<(&str, &str)> = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (check["name"].as_str().unwrap(), check["status"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("config", "ok"),
            ("key", "ok"),
            ("certificate", "ok"),
            ("revocation", "ok"),
            ("names", "ok"),
            ("network", "failed"),
            ("login", "not_checked"),
            ("permissions", "not_checked"),
            ("agents", "not_checked"),
            ("clocks", "not_checked"),
        ]
    );
}

#[test]
fn something_else_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let site = logged_in();
    site.with_context(&format!("amqps://127.0.0.1:{port}"), "user/lea");
    let server = std::thread::spawn(move || {
        // Not TLS: a line of text, then the end.
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let output = site.command(&["ping", "--all"]).output().unwrap();
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_remembered_needs_no_broker() {
    let site = logged_in();
    assert_screen!(site.run(&["host", "list", "--cached"]), @"
    exit 4
    --- stderr
    error[no-match]: no host is remembered
      try     muster ping --all
    ");
    let mut cache = muster_client::cache::HostCache::load(&site.path(".cache/muster/lab"), now());
    let seen = now().plus_ms(-3 * 3_600_000 - 60_000);
    for name in ["web1.example.com", "web2.example.com"] {
        cache.seen(&name.parse().unwrap(), None, seen);
    }
    cache.save().unwrap();
    assert_screen!(site.run(&["host", "list", "--cached"]), @"
    exit 0
    --- stdout
    NAME              STATE      LAST_SEEN  AGENT  OS
    web1.example.com  not asked  3 h ago
    web2.example.com  not asked  3 h ago
    --- stderr
    2 hosts
    ");
    assert_screen!(site.run(&["host", "list", "--cached", "--names"]), @"
    exit 0
    --- stdout
    web1.example.com
    web2.example.com
    ");
}
