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
    · not checked: login, permissions, agents, clocks, backlog, crls, policies
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
            ("backlog", "not_checked"),
            ("crls", "not_checked"),
            ("policies", "not_checked"),
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
    // An earlier version kept this for the context's name alone; whose hosts they were, nobody knows.
    let before = site.write(".cache/muster/lab/hosts.json", r#"{"version":1,"hosts":{"old":{"last_seen_ms":1}}}"#);
    assert!(site.run(&["host", "list", "--cached"]).starts_with("exit 4"));
    assert!(!before.exists());
    let mut cache = muster_client::cache::HostCache::load(&site.remembered(), now());
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
    // The same context with another authority: these are not its hosts.
    let other = TestAuthority::new(now()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    other.write(&other.credentials("user/lea").unwrap(), folder.path()).unwrap();
    std::fs::copy(folder.path().join("ca.pem"), site.files().join("ca.pem")).unwrap();
    assert!(site.run(&["host", "list", "--cached"]).starts_with("exit 4"));
}

#[test]
fn what_an_administrator_changed_is_kept() {
    let site = Site::new();
    let config = |more: &[&str]| {
        let words = ["broker", "config", "--identity", "user/lea", "--out", "broker"];
        site.run(&[&words[..], more].concat())
    };
    let read = |name: &str| std::fs::read_to_string(site.path("broker").join(name)).unwrap();
    let listen = &["--listen", "127.0.0.1:25691"][..];
    config(listen);
    let conf = read("rabbitmq.conf");
    assert!(conf.contains("listeners.ssl.1 = 127.0.0.1:25691\n"), "{conf}");
    // The same words again change nothing and warn of nothing.
    assert!(!config(listen).contains("warning"));

    // Without them: what is there stays, and who reads it learns what differs.
    assert_screen!(config(&["--identity", "user/max"]), @"
    exit 0
    --- stdout
    broker/definitions.json
    broker/enabled_plugins
    broker/README
    --- stderr
    warning: broker/rabbitmq.conf is kept as it is, and differs from what these words say:
      there:     listeners.ssl.1 = 127.0.0.1:[PORT]
      generated: listeners.ssl.1 = 5671
      give the flags it was written with, or --force to replace it
    2 users in virtual host muster
    The next commands are in broker/README
    ");
    assert_eq!(read("rabbitmq.conf"), conf);
    assert!(read("definitions.json").contains("muster:user/max"));
    let document: serde_json::Value = serde_json::from_slice(
        &site
            .command(&["broker", "config", "--identity", "user/lea", "--out", "broker", "--management", "[::1]:15671"])
            .arg("--json")
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    assert_eq!(document["files"], serde_json::json!(["definitions.json", "README"]));
    assert_eq!(document["kept"][1]["only_there"], serde_json::json!(["[rabbitmq_auth_mechanism_ssl]."]));

    config(&["--force"]);
    assert!(read("rabbitmq.conf").contains("listeners.ssl.1 = 5671\n"));
}

#[test]
fn an_import_writes_definitions_only() {
    let site = Site::new();
    site.write("broker/rabbitmq.conf", "listeners.ssl.1 = 127.0.0.1:25691\n");
    let words = ["broker", "config", "--identity", "user/lea", "--out", "broker", "--import", "--rabbitmqctl", "true"];
    assert_screen!(site.run(&words), @"
    exit 0
    --- stdout
    broker/definitions.json
    --- stderr
    1 user in virtual host muster, imported into the running broker
    ");
    let conf = std::fs::read_to_string(site.path("broker/rabbitmq.conf")).unwrap();
    assert_eq!(conf, "listeners.ssl.1 = 127.0.0.1:25691\n");
    let mut names: Vec<_> =
        std::fs::read_dir(site.path("broker")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["definitions.json", "rabbitmq.conf"]);
    // A setting that would silently not be written is refused.
    assert_screen!(site.run(&[&words[..], &["--listen", "127.0.0.1:1"]].concat()), @"
    exit 2
    --- stderr
    error[bad-usage]: `--import` cannot be used with `--listen <ADDRESS:PORT>`
      usage   muster broker config --out <DIR> --identity <KIND/NAME> --import --rabbitmqctl <PROGRAM>
      try     muster broker config --help
    ");
}

#[test]
fn the_readme_names_every_file_once() {
    let site = Site::new();
    site.run(&["broker", "config", "--identity", "user/lea", "--out", "broker", "--node", "rabbit@mq1"]);
    insta::assert_snapshot!(std::fs::read_to_string(site.path("broker/README")).unwrap(), @"
    Generated by `muster broker config`; see docs/book/src/broker.md.

    These files make a RabbitMQ (3.10 to 4.x) the broker of virtual host muster with 1 user.
    Nothing in them is secret. On the broker's machine, as root:

    A new broker
      install -d /etc/rabbitmq/muster
      install -m 644 definitions.json /etc/rabbitmq/muster/definitions.json
      install -m 644 rabbitmq.conf enabled_plugins /etc/rabbitmq/
      with the files that `muster pki issue broker/NAME --out DIR` wrote into DIR:
      install -m 644 DIR/ca.pem /etc/rabbitmq/muster/ca.pem
      install -m 644 DIR/broker-NAME.pem /etc/rabbitmq/muster/broker.pem
      install -m 400 DIR/broker-NAME.key /etc/rabbitmq/muster/broker.key
      chown rabbitmq: /etc/rabbitmq/muster/broker.key
      systemctl restart rabbitmq-server
      rabbitmqctl delete_user guest        (only if this broker ran before)

    A running broker gets new hosts and users without a restart
      muster broker config --ca-dir CA_DIR --vhost muster --node rabbit@mq1 --out . --import      or
      rabbitmqctl --node rabbit@mq1 import_definitions definitions.json
      install -m 644 definitions.json /etc/rabbitmq/muster/definitions.json   (read at the next start)

    An import never deletes. A revoked certificate's user has to go, which also closes its connections
      rabbitmqctl --node rabbit@mq1 delete_user 'muster:host/NAME'

    Look whether everything is as it should be
      muster broker check --ca-dir CA_DIR --vhost muster --node rabbit@mq1
    ");
}

const SITES: &str = "[center]\naddresses = [\"mq.example.com\"]\n\n[[site]]\nname = \"ams1\"\nbroker = \"mq.ams1.example.com\"\n\
                     hosts = [\"*.ams1.example.com\"]\n";

#[test]
fn one_description_gives_the_files_of_all_brokers() {
    let site = Site::new();
    site.write("sites.toml", SITES);
    let who = ["--identity", "user/lea,host/web1.ams1.example.com,host/db1.example.com"];
    let words = |more: &[&'static str]| [&["broker", "config", "--sites", "sites.toml"], &who[..], more].concat();
    assert_screen!(site.run(&words(&["--out", "brokers"])), @"
    exit 0
    --- stdout
    brokers/center/definitions.json
    brokers/center/rabbitmq.conf
    brokers/center/enabled_plugins
    brokers/center/README
    brokers/ams1/definitions.json
    brokers/ams1/rabbitmq.conf
    brokers/ams1/enabled_plugins
    brokers/ams1/README
    --- stderr
    warning: broker/mq.ams1.example.com has no certificate in force, so its site cannot be linked
      muster pki issue broker/mq.ams1.example.com --link --out DIR, then this again
    2 users in virtual host muster
    The next commands are in brokers/center/README
    2 users in virtual host muster
    The next commands are in brokers/ams1/README
    ");
    let read = |name: &str| std::fs::read_to_string(site.path("brokers").join(name)).unwrap();
    let (center, ams1) = (read("center/definitions.json"), read("ams1/definitions.json"));
    // A host has a user where its place is, and nowhere else.
    assert!(center.contains("muster:host/db1.example.com") && !center.contains("muster:host/web1.ams1"), "{center}");
    assert!(ams1.contains("muster:host/web1.ams1.example.com") && !ams1.contains("muster:host/db1"), "{ams1}");
    assert!(!center.contains("\"user\": \"muster:broker/"), "it has no certificate: {center}");
    assert!(read("ams1/enabled_plugins").contains("rabbitmq_shovel"));
    insta::assert_snapshot!(read("ams1/README"), @"
    Generated by `muster broker config`; see docs/book/src/broker.md.

    These files make a RabbitMQ (3.10 to 4.x) the broker of virtual host muster with 2 users.
    Nothing in them is secret. On the broker's machine, as root:

    A new broker
      install -d /etc/rabbitmq/muster
      install -m 644 definitions.json /etc/rabbitmq/muster/definitions.json
      install -m 644 rabbitmq.conf enabled_plugins /etc/rabbitmq/
      with the files that `muster pki issue broker/NAME --out DIR` wrote into DIR:
      install -m 644 DIR/ca.pem /etc/rabbitmq/muster/ca.pem
      install -m 644 DIR/broker-NAME.pem /etc/rabbitmq/muster/broker.pem
      install -m 400 DIR/broker-NAME.key /etc/rabbitmq/muster/broker.key
      chown rabbitmq: /etc/rabbitmq/muster/broker.key
      systemctl restart rabbitmq-server
      rabbitmqctl delete_user guest        (only if this broker ran before)

    Site ams1, linked to mq.example.com:5671. It connects to the centre, never the other way.
    Its certificate has to be for a link:
      muster pki issue broker/mq.ams1.example.com --link --out DIR
    Whether the link is up, and what waits for it
      rabbitmqctl eval 'rabbit_federation_status:status().'
      rabbitmqctl eval 'rabbit_shovel_status:status().'
      rabbitmqctl list_queues -p muster name messages | grep uplink

    A running broker gets new hosts and users without a restart
      muster broker config --ca-dir CA_DIR --vhost muster --sites sites.toml --broker ams1 --out . --import      or
      rabbitmqctl import_definitions definitions.json
      install -m 644 definitions.json /etc/rabbitmq/muster/definitions.json   (read at the next start)

    An import never deletes. A revoked certificate's user has to go, which also closes its connections
      rabbitmqctl delete_user 'muster:host/NAME'

    Look whether everything is as it should be
      muster broker check --ca-dir CA_DIR --vhost muster --sites sites.toml --broker ams1
    ");
    insta::assert_snapshot!(read("center/README"), @"
    Generated by `muster broker config`; see docs/book/src/broker.md.

    These files make a RabbitMQ (3.10 to 4.x) the broker of virtual host muster with 2 users.
    Nothing in them is secret. On the broker's machine, as root:

    A new broker
      install -d /etc/rabbitmq/muster
      install -m 644 definitions.json /etc/rabbitmq/muster/definitions.json
      install -m 644 rabbitmq.conf enabled_plugins /etc/rabbitmq/
      with the files that `muster pki issue broker/NAME --out DIR` wrote into DIR:
      install -m 644 DIR/ca.pem /etc/rabbitmq/muster/ca.pem
      install -m 644 DIR/broker-NAME.pem /etc/rabbitmq/muster/broker.pem
      install -m 400 DIR/broker-NAME.key /etc/rabbitmq/muster/broker.key
      chown rabbitmq: /etc/rabbitmq/muster/broker.key
      systemctl restart rabbitmq-server
      rabbitmqctl delete_user guest        (only if this broker ran before)

    The centre: import here first, then at the sites. It knows the sites
      ams1, whose broker is broker/mq.ams1.example.com, with *.ams1.example.com
    What waits for each site
      rabbitmqctl list_queues -p muster name messages | grep federation

    A running broker gets new hosts and users without a restart
      muster broker config --ca-dir CA_DIR --vhost muster --sites sites.toml --broker center --out . --import      or
      rabbitmqctl import_definitions definitions.json
      install -m 644 definitions.json /etc/rabbitmq/muster/definitions.json   (read at the next start)

    An import never deletes. A revoked certificate's user has to go, which also closes its connections
      rabbitmqctl delete_user 'muster:host/NAME'

    Look whether everything is as it should be
      muster broker check --ca-dir CA_DIR --vhost muster --sites sites.toml --broker center
    ");

    // One of them, whose link has a certificate.
    let one = words(&["--identity", "broker/mq.ams1.example.com", "--broker", "center", "--out", "center"]);
    assert_screen!(site.run(&one), @"
    exit 0
    --- stdout
    center/definitions.json
    center/rabbitmq.conf
    center/enabled_plugins
    center/README
    --- stderr
    3 users in virtual host muster
    The next commands are in center/README
    ");
    let center = std::fs::read_to_string(site.path("center/definitions.json")).unwrap();
    assert!(center.contains("\"user\": \"muster:broker/mq.ams1.example.com\""), "{center}");
}

#[test]
fn a_wrong_description_of_sites_writes_nothing() {
    let site = Site::new();
    let words = ["broker", "config", "--identity", "user/lea", "--out", "brokers", "--sites", "sites.toml"];
    assert_screen!(site.run(&words), @"
    exit 2
    --- stderr
    error[file]: cannot read `sites.toml`
      why     No such file or directory (os error 2)
      try     ls -l ., and look at the spelling
    ");
    site.write("sites.toml", &SITES.replace("*.ams1", "*.AMS1"));
    assert_screen!(site.run(&words), @r#"
    exit 2
    --- stderr
    error[bad-sites]: the sites of sites.toml cannot be used
      why     read the description of the sites
      why     TOML parse error at line 7, column 9
                |
              7 | hosts = ["*.AMS1.example.com"]
                |         ^^^^^^^^^^^^^^^^^^^^^^
              host name `AMS1.example.com` has `A` at column 1; allowed are a-z, 0-9, _, - and . (lower case)
      try     docs/book/src/sites.md has an example
    "#);
    site.write("sites.toml", SITES);
    assert_screen!(site.run(&[&words[..], &["--broker", "fra2"]].concat()), @"
    exit 2
    --- stderr
    error[unknown-site]: the sites of sites.toml cannot be used
      why     there is no site `fra2`; there are `center`, `ams1`
      try     docs/book/src/sites.md has an example
    ");
    assert_screen!(site.run(&[&words[..], &["--import"]].concat()), @"
    exit 2
    --- stderr
    error[bad-usage]: the description has several brokers, and this is about one
      try     --broker center, or --broker with the name of a site
    ");
    assert_screen!(site.run(&[&words[..6], &["--broker", "center"]].concat()), @"
    exit 2
    --- stderr
    error[bad-usage]: missing: `--sites <FILE>`
      usage   muster broker config --out <DIR> --sites <FILE> --identity <KIND/NAME> --broker <NAME>
      try     muster broker config --help
    ");
    assert!(!site.path("brokers").exists());
}
