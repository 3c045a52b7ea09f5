//! What goes wrong at a desk or on a host, and the end it has to come to: what, why and what to do, with the
//! right exit code, and nothing done.

use std::fs;
use std::process::Command;

use muster_tests::pki::Site;
use muster_tests::programs::{Access, AgentProcess, Operator, Party, program};
use muster_tests::stage::{Stage, host};

use super::BROKER;

/// Runs the command line and looks for the code, the exit status and words of the explanation.
#[track_caller]
fn check(operator: &Operator, arguments: &[&str], exit: i32, code: &str, words: &[&str]) {
    let done = operator.run(arguments).unwrap().expect(exit);
    assert!(done.stderr.contains(&format!("error[{code}]")), "`{}`\n{}", done.line, done.stderr);
    for word in words {
        assert!(done.stderr.contains(word), "`{}` does not say `{word}`\n{}", done.line, done.stderr);
    }
    assert!(done.stdout.is_empty(), "`{}` printed\n{}", done.line, done.stdout);
}

#[test]
fn bad_targets_and_arguments_are_errors_before_anything_is_sent() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/lea"]);
    let agents = stage.agents([host("web-1.ams1").fact("role", "web")]);
    let lea = stage.operator("lea", &["admins"]);

    check(&lea, &["run", "host.ping"], 2, "no-target", &["--all"]);
    check(&lea, &["run", "host.ping", "-t", "role = web and"], 2, "bad-target", &["^"]);
    check(&lea, &["run", "host.ping", "-t", "role == (web"], 2, "bad-target", &["^"]);
    check(&lea, &["run", "host.ping", "-t", "role = web && dc = ams1"], 2, "bad-target", &["and"]);
    let deep = format!("{}role = web{}", "(".repeat(500), ")".repeat(500));
    check(&lea, &["run", "host.ping", "-t", &deep], 2, "bad-target", &["deep"]);
    let long = format!("role = \"{}\"", "x".repeat(10_000));
    check(&lea, &["run", "host.ping", "-t", &long], 2, "bad-target", &["8192"]);
    check(&lea, &["run", "nonsense.ping", "--all"], 2, "unknown-plugin", &["plugin list"]);
    check(&lea, &["run", "host.pong", "--all"], 2, "unknown-action", &["ping"]);
    check(&lea, &["run", "package.status", "--all"], 2, "bad-input", &["name"]);
    check(&lea, &["run", "package.status", "nam=bash", "--all"], 2, "bad-input", &["nam", "did you mean `name`"]);
    check(&lea, &["run", "package.status", "name=x; rm -rf /", "--all"], 2, "bad-input", &["name"]);
    check(&lea, &["run", "package.status", "name=a\nb", "--all"], 2, "bad-input", &["name"]);
    check(&lea, &["run", "host.ping", "-t", "role = wbe"], 4, "no-match", &[]);
    check(&lea, &["run", "host.ping", "-t", "no.such.fact = 1"], 4, "no-match", &[]);
    check(&lea, &["ping", "--all", "--limit", "many"], 2, "bad-usage", &["many"]);
    check(&lea, &["run", "host.ping", "-H", "Web 1"], 2, "bad-hosts", &["Web 1"]);
    check(&lea, &["pnig", "--all"], 2, "bad-usage", &["ping"]);

    // The host was asked for its presence at most, and has run no action but that.
    let audit = agents[0].audit();
    assert!(!audit.contains("package.status"), "{audit}");
}

#[test]
fn certificates_that_are_not_good_end_at_the_desk() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/eve", "user/old"]);
    let site = stage.site();
    let _agents = stage.agents([host("web-1.ams1")]);

    let old = site.keep("old", site.authority().expired("user/old").unwrap());
    check(&stage.operator_as("old", &old), &["ping", "--all"], 8, "expired-certificate", &["user/old"]);

    let eve = site.keep("eve", site.authority().revoked("user/eve").unwrap());
    check(&stage.operator_as("eve", &eve), &["ping", "--all"], 8, "revoked-certificate", &["user/eve"]);

    // A broker that our CA did not sign, and a certificate that the broker's CA did not sign.
    let other = Site::new().unwrap();
    let stranger = other.member("user/lea");
    let access = Access { urls: stage.bus.urls.clone(), ca: stranger.files.ca.clone(), crl: None };
    let desk = Operator::new(&stage.folder().join("home/other"), "test", &access, &Party::from(&stranger)).unwrap();
    check(&desk, &["ping", "--all"], 7, "broker-unknown-ca", &["certificate"]);
    let ours = site.member("user/eve");
    let access = Access { urls: stage.bus.urls.clone(), ca: ours.files.ca.clone(), crl: None };
    let desk = Operator::new(&stage.folder().join("home/mixed"), "test", &access, &Party::from(&stranger)).unwrap();
    let done = desk.run(&["ping", "--all"]).unwrap().expect(8);
    assert!(done.stderr.contains("error["), "{}", done.stderr);

    // A user whom the broker does not know.
    let nobody = site.member("user/nobody");
    check(
        &stage.operator_as("nobody", &nobody),
        &["ping", "--all"],
        8,
        "broker-login-refused",
        &["muster:user/nobody"],
    );
}

#[test]
fn a_revoked_user_who_hides_the_list_from_himself_is_refused_by_every_host() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/mallory"]);
    let site = stage.site();
    let mallory = site.keep("mallory", site.authority().revoked("user/mallory").unwrap());
    // The agent starts after the revocation and so has the list.
    let fresh = site.keep("web-1-fresh", site.authority().credentials("host/web-1.ams1").unwrap());
    let mut agent = AgentProcess::start(
        &host("web-1.ams1"),
        &stage.access(&fresh),
        &Party::from(&fresh),
        &stage.folder().join("fresh"),
    )
    .unwrap();
    agent.wait_ready().unwrap();
    let access = Access { crl: None, ..stage.access(&mallory) };
    let desk = Operator::new(&stage.folder().join("home/mallory"), "test", &access, &Party::from(&mallory)).unwrap();
    let done = desk.run(&["run", "host.ping", "-H", "web-1.ams1", "--reply-timeout", "2s", "--jsonl"]).unwrap();
    let done = done.expect(6);
    assert!(done.stdout.contains("revoked-certificate"), "{}{}", done.stdout, done.stderr);
    assert!(agent.audit().contains("revoked-certificate"), "{}", agent.audit());
}

/// Starts `musterd` with a changed configuration; it has to end by itself and say these words.
#[track_caller]
fn agent_refuses(stage: &Stage, party: &Party, change: impl FnOnce(String) -> String, words: &[&str]) {
    let folder = tempfile::Builder::new().prefix("muster-").tempdir().unwrap();
    let member = stage.site().member("host/web-1.ams1");
    let mut agent = AgentProcess::start(&host("web-1.ams1"), &stage.access(&member), party, folder.path()).unwrap();
    agent.kill().unwrap();
    let path = folder.path().join("musterd.toml");
    let changed = change(fs::read_to_string(&path).unwrap());
    fs::write(&path, changed).unwrap();
    let check =
        Command::new(program("musterd").unwrap()).arg("check-config").arg("--config").arg(&path).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&check.stdout), String::from_utf8_lossy(&check.stderr));
    assert!(!check.status.success(), "check-config is content:\n{said}");
    for word in words {
        assert!(said.contains(word), "check-config does not say `{word}`:\n{said}");
    }
}

#[test]
fn a_wrong_configuration_is_named_with_file_and_key() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1"]);
    let good = Party::from(&stage.site().member("host/web-1.ams1"));
    agent_refuses(
        &stage,
        &good,
        |text| text.replace("state_dir", "state_dri"),
        &["musterd.toml", "state_dri", "state_dir"],
    );
    agent_refuses(
        &stage,
        &good,
        |text| text + "\n[limits]\nconcurrent_actions = \"many\"\n",
        &["musterd.toml", "limits.concurrent_actions"],
    );
    agent_refuses(&stage, &good, |text| text.replace("amqps://", "http://"), &["broker.urls", "amqps"]);
    agent_refuses(&stage, &good, |text| text.replace("policy.toml", "no-such.toml"), &["no-such.toml"]);
    let another = Party::from(&stage.site().member("host/web-2.ams1"));
    agent_refuses(&stage, &another, |text| text, &["web-1.ams1", "web-2.ams1"]);
    let user = Party::from(&stage.site().member("user/lea"));
    agent_refuses(&stage, &user, |text| text, &["user/lea"]);
}

#[test]
fn facts_that_hang_or_are_garbage_stop_nothing_and_are_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/lea"]);
    let folder = stage.folder().join("web-1.ams1/facts.d");
    fs::create_dir_all(&folder).unwrap();
    let script = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("hangs.sh", "#!/bin/sh\nsleep 1000 & sleep 1000\n");
    script("garbage.sh", "#!/bin/sh\nhead -c 100000 /dev/urandom\n");
    script("good.sh", "#!/bin/sh\necho '{\"rack\": \"r7\"}'\n");
    fs::write(folder.join("broken.json"), "{ \"a\": ").unwrap();
    fs::write(folder.join("bomb.json"), "[".repeat(100_000)).unwrap();
    let mut agent = stage.start(&host("web-1.ams1").fact("role", "web"));
    let path = agent.folder().join("musterd.toml");
    agent.kill().unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("[facts]\n", "[facts]\nexecutable_timeout_ms = 500\n");
    fs::write(&path, text).unwrap();
    let mut agent = AgentProcess::start_in("web-1.ams1".parse().unwrap(), agent.folder()).unwrap();
    agent.wait_ready().unwrap();

    let lea = stage.operator("lea", &["admins"]);
    lea.run(&["find", "-t", "rack = r7 and role = web", "--names"]).unwrap().expect(0);
    let status = lea.run(&["run", "host.status", "--all", "--jsonl"]).unwrap().expect(0);
    for file in ["hangs.sh", "garbage.sh", "broken.json", "bomb.json"] {
        assert!(status.stdout.contains(file), "the status does not name {file}:\n{}", status.stdout);
    }
    assert!(!status.stdout.contains("good.sh"), "{}", status.stdout);
}
