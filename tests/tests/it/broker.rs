//! A broker as generated has nothing to find, each thing opened by hand is found, hosts enrol without a
//! restart, and queues outlive a crash.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use muster_broker_config::{Definitions, Environment, Finding, Operation, Site, check, check_environment, definitions};
use muster_protocol::Identity;
use muster_tests::pki;
use muster_tests::programs::program;
use muster_tests::rabbit::{Node, NodeOptions};

use crate::amqp::{connect, perform};

const HOST: &str = "host/broker-test.example.com";
const QUEUE: &str = "agent.broker-test.example.com";

fn identities(names: &[&str]) -> impl Iterator<Item = Identity> {
    names.iter().map(|name| name.parse().expect("an identity"))
}

fn start(names: &[&str]) -> Node {
    let mut options = NodeOptions::new(pki::site().broker().server_certificate());
    options.identities = identities(names).collect();
    Node::start(options).expect("a private RabbitMQ starts")
}

fn findings(node: &Node, names: &[&str]) -> Vec<Finding> {
    let exported = node.ctl(&["export_definitions", "-"]).expect("the definitions");
    let actual = Definitions::parse(&exported).expect("they are readable");
    check(&actual, &definitions(&Site { vhost: node.site().vhost, ..Site::new(identities(names)) }))
}

#[track_caller]
fn found(node: &Node, names: &[&str], expected: &[&str]) {
    let findings = findings(node, names);
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, expected, "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_broker_is_checked_opened_enrolled_and_killed() {
    let node = start(&[HOST]);
    let site = pki::site();
    let (host, trust) = (site.member(HOST), site.trust());
    let vhost = node.site().vhost;

    // As generated, the limits per user included.
    found(&node, &[HOST], &[]);
    let settings = node.ctl(&["environment", "--formatter", "json"]).expect("the settings");
    let settings = check_environment(&Environment::parse(&settings).expect("they are readable"));
    assert!(settings.is_empty(), "{settings:#?}");

    // A host enrols: imported without a restart, and at once it can work.
    let new = "host/enrolled.example.com";
    let grown = definitions(&Site { vhost: vhost.clone(), ..Site::new(identities(&[HOST, new])) });
    node.import(&grown).expect("imported");
    found(&node, &[HOST, new], &[]);
    found(&node, &[HOST], &["unknown-user"]);
    let enrolled = connect(&node.url(&vhost), &site.member(new), &trust).await.expect("the new host logs in");
    drop(enrolled);

    // A normal agent's bindings are no finding.
    let connection = connect(&node.url(&vhost), &host, &trust).await.expect("the host logs in");
    for operation in [
        Operation::DeclareQueue { queue: QUEUE },
        Operation::Bind { queue: QUEUE, exchange: "cmd", key: "all" },
        Operation::Bind { queue: QUEUE, exchange: "cmd", key: "host.broker-test.example.com" },
    ] {
        perform(&connection, &operation).await.expect("it is allowed");
    }
    found(&node, &[HOST, new], &[]);

    // Each thing that somebody opens by hand.
    let user = "muster:host/broker-test.example.com";
    for (arguments, expected) in [
        (&["add_user", "guest", "guest"][..], &["guest-user"][..]),
        (&["set_permissions", "-p", &vhost, user, "^agent", ".*", ".*"], &["too-open", "too-open", "too-open"]),
        (&["clear_topic_permissions", "-p", &vhost, user, "reply"], &["too-open"]),
        (&["set_user_tags", user, "administrator"], &["tags"]),
        (&["clear_policy", "-p", &vhost, "muster-agent"], &["missing-policy"]),
    ] {
        node.ctl(arguments).expect("it is changed");
        found(&node, &[HOST, new], expected);
        // What the findings propose repairs it.
        if arguments[0] == "add_user" {
            node.ctl(&["delete_user", "guest"]).expect("deleted");
        } else {
            node.import(&grown).expect("imported");
        }
    }
    found(&node, &[HOST, new], &[]);

    let bind = Operation::BindExchange { destination: "reply", source: "cmd", key: "all" };
    perform(&connection, &bind).await.expect("RabbitMQ cannot refuse it");
    found(&node, &[HOST, new], &["foreign-binding"]);

    // A power failure: the durable queue and its bindings are there again, and so are the users.
    node.kill().expect("killed");
    node.resume().expect("started again");
    let queues = node.ctl(&["list_queues", "-p", &vhost, "--no-table-headers", "name"]).expect("the queues");
    assert_eq!(queues, QUEUE);
    let connection = connect(&node.url(&vhost), &host, &trust).await.expect("the host logs in again");
    perform(&connection, &Operation::Consume { queue: QUEUE }).await.expect("it consumes its queue");

    node.restart().expect("restarted in order");
    node.stop().expect("stopped");
}

/// Runs `muster broker` against a node and compares the exit code; gives its JSON.
#[track_caller]
fn muster_broker(node: &Node, arguments: &[&str], expected: i32) -> serde_json::Value {
    let output = Command::new(program("muster").expect("it is built"))
        .arg("broker")
        .args(arguments)
        .arg("--rabbitmqctl")
        .arg(node.rabbitmqctl())
        .arg("--json")
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {text}{said}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{said}"))
}

#[test]
fn the_command_line_writes_imports_checks_and_prunes() {
    let (lea, gone, new) = ("user/cli-lea", "host/cli-gone", "host/cli-new");
    let site = pki::Site::new().expect("a CA");
    let leaving = site.member(gone);
    site.member(lea);
    let ca = site.authority().ca_directory();
    let (ca, out) = (ca.to_str().expect("UTF-8"), tempfile::tempdir().expect("a directory"));
    let mut options = NodeOptions::new(site.broker().server_certificate());
    options.identities = identities(&[lea, gone]).collect();
    let node = Node::start(options).expect("a private RabbitMQ starts");

    let report = muster_broker(&node, &["check", "--ca-dir", ca], 0);
    assert_eq!((&report["errors"], &report["users"]), (&0.into(), &2.into()), "a broker's certificate is no user");

    site.authority().revoke(&leaving.credentials).expect("revoked");
    site.member(new);
    let report = muster_broker(&node, &["check", "--ca-dir", ca], 3);
    let codes: Vec<&str> =
        report["findings"].as_array().expect("a list").iter().filter_map(|it| it["code"].as_str()).collect();
    assert_eq!(codes, ["missing-user", "unknown-user"], "{report:#}");

    let out = out.path().to_str().expect("UTF-8");
    let written = muster_broker(&node, &["config", "--ca-dir", ca, "--out", out, "--import", "--prune"], 0);
    assert_eq!(written["deleted"], serde_json::json!(["muster:host/cli-gone"]));
    for (file, expected) in [("definitions.json", true), ("rabbitmq.conf", false), ("enabled_plugins", false)] {
        assert_eq!(Path::new(out).join(file).is_file(), expected, "{file}: an import touches definitions only");
    }
    muster_broker(&node, &["check", "--ca-dir", ca], 0);

    // The same from exported files, somewhere else.
    let (exported, settings) = (format!("{out}/exported.json"), format!("{out}/settings.json"));
    std::fs::write(&exported, node.ctl(&["export_definitions", "-"]).expect("exported")).expect("written");
    std::fs::write(&settings, node.ctl(&["environment", "--formatter", "json"]).expect("printed")).expect("written");
    let muster = program("muster").expect("it is built");
    let check = Command::new(muster)
        .args(["broker", "check", "--ca-dir", ca, "--definitions", &exported, "--environment", &settings])
        .output()
        .expect("it starts");
    assert_eq!(String::from_utf8_lossy(&check.stdout), "✓ virtual host muster is as generated for 2 users\n");

    let failure = muster_broker(&node, &["check", "--ca-dir", ca, "--node", "nobody@localhost"], 7);
    assert_eq!(failure["code"], "rabbitmqctl");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    #[track_caller]
    fn check(certificate: &str, expected: &[&str]) {
        let mut options = NodeOptions::new(pki::site().broker().server_certificate());
        options.certificate.certificate = certificate.into();
        let error = Node::start(options).expect_err("it cannot start");
        let text = format!("{error:#}");
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    }
    check("/no/such/certificate.pem", &["/no/such/certificate.pem does not exist"]);
}

#[test]
fn a_node_leaves_nothing_behind() {
    let node = start(&[]);
    let (pid, directory) = (node.pid().expect("it runs"), node.directory().to_owned());
    assert!(directory.join("rabbitmq.conf").exists());
    node.stop().expect("stopped");
    let group = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    assert!(nix::sys::signal::killpg(group, None).is_err(), "processes of the node's group still run");
    drop(node);
    assert!(!directory.exists(), "{}", directory.display());
}

/// Set for the process that [`a_node_dies_with_its_process`] kills: the file it writes pid and directory to.
const HOLD: &str = "MUSTER_TEST_HOLD_NODE";

#[test]
fn a_node_dies_with_its_process() {
    let report = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut holder = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "rabbitmq::broker::holds_a_node_for_another_test"])
        .env(HOLD, report.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    let read = || {
        let text = std::fs::read_to_string(report.path()).unwrap_or_default();
        let (pid, directory) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((nix::unistd::Pid::from_raw(pid.parse().ok()?), PathBuf::from(directory)))
    };
    wait_until("the other process starts a node", || read().is_some());
    let (group, directory) = read().expect("it was there");
    assert!(nix::sys::signal::killpg(group, None).is_ok(), "the node runs");

    holder.kill().expect("killed");
    holder.wait().expect("it ended");
    wait_until("the node ends", || nix::sys::signal::killpg(group, None).is_err());
    wait_until("its directory is removed", || !directory.exists());
}

/// Not a test by itself: the process that [`a_node_dies_with_its_process`] starts and kills.
#[test]
fn holds_a_node_for_another_test() {
    let Some(report) = std::env::var_os(HOLD) else { return };
    let node = start(&[]);
    let line = format!("{} {}\n", node.pid().expect("it runs"), node.directory().display());
    std::fs::write(report, line).expect("written");
    // Longer than anybody waits: the other test kills this process long before.
    std::thread::sleep(4 * PATIENCE);
}

/// A node takes five seconds to start on an idle machine, and its orderly end up to twenty.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
