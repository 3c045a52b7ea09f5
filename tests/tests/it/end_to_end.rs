//! The good way, with the real programs: what the README promises.

use std::collections::BTreeSet;

use muster_tests::programs::{AgentSettings, Finished};
use muster_tests::stage::{Stage, host};
use serde_json::Value;

use super::BROKER;

const IDENTITIES: [&str; 5] = ["host/web-1.ams1", "host/web-2.ams1", "host/db-1.fra2", "user/lea", "user/max"];

fn fleet() -> [AgentSettings; 3] {
    [
        host("web-1.ams1").fact("role", "web").fact("dc", "ams1").class("nginx"),
        host("web-2.ams1").fact("role", "web").fact("dc", "ams1").class("nginx").class("canary"),
        host("db-1.fra2").fact("role", "db").fact("dc", "fra2").class("postgresql"),
    ]
}

fn names(finished: &Finished) -> BTreeSet<&str> {
    finished.stdout.lines().collect()
}

fn tasks(finished: &Finished) -> Vec<Value> {
    let lines = finished.json_lines().expect("JSON lines");
    lines.into_iter().filter(|line| line["kind"] == "task").collect()
}

#[test]
fn ping_find_and_run_reach_exactly_the_hosts_that_are_meant() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents(fleet());
    let lea = stage.operator("lea", &["admins"]);

    let all = lea.run(&["ping", "--all", "--names"]).unwrap().expect(0);
    assert_eq!(names(&all), BTreeSet::from(["web-1.ams1", "web-2.ams1", "db-1.fra2"]));

    #[track_caller]
    fn check(lea: &muster_tests::programs::Operator, target: &str, expected: &[&str]) {
        let found = lea.run(&["find", "-t", target, "--names"]).unwrap();
        let found = found.expect(if expected.is_empty() { 4 } else { 0 });
        assert_eq!(names(&found), expected.iter().copied().collect(), "{target}");
    }
    check(&lea, "role = web", &["web-1.ams1", "web-2.ams1"]);
    check(&lea, "role = web and not class = canary", &["web-1.ams1"]);
    check(&lea, "dc = fra2 or class = canary", &["web-2.ams1", "db-1.fra2"]);
    check(&lea, "name ~ \"^db-\"", &["db-1.fra2"]);
    check(&lea, "os.family = \"Debian\" and has(role)", &["web-1.ams1", "web-2.ams1", "db-1.fra2"]);
    check(&lea, "plugin = package and role in [db, cache]", &["db-1.fra2"]);
    check(&lea, "package(\"bash\").version >= \"4\" and role = db", &["db-1.fra2"]);
    check(&lea, "package(\"no-such-package\").version >= \"1\"", &[]);
    check(&lea, "role = mail", &[]);

    let run = lea.run(&["run", "package.status", "name=bash", "-t", "os.family = \"Debian\"", "--jsonl"]).unwrap();
    let tasks = tasks(&run.expect(0));
    assert_eq!(tasks.len(), 3);
    let installed =
        std::process::Command::new("dpkg-query").args(["-W", "-f=${Version}", "--", "bash"]).output().unwrap();
    let installed = String::from_utf8(installed.stdout).unwrap();
    for task in tasks {
        assert_eq!(task["state"], "succeeded", "{task}");
        let version = task["data"]["version"].as_str().unwrap();
        assert!(installed.contains(version), "dpkg says {installed}, Muster says {version}");
    }
}

#[test]
fn named_hosts_that_do_not_answer_are_shown_as_silent() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents([host("web-1.ams1")]);
    let lea = stage.operator("lea", &[]);
    let arguments = ["run", "host.ping", "-H", "web-1.ams1,web-2.ams1", "--reply-timeout", "1s", "--jsonl"];
    let run = lea.run(&arguments).unwrap().expect(5);
    let states: Vec<(String, String)> = tasks(&run)
        .iter()
        .map(|task| (task["host"].as_str().unwrap().to_owned(), task["state"].as_str().unwrap().to_owned()))
        .collect();
    assert!(states.contains(&("web-1.ams1".into(), "succeeded".into())), "{states:?}");
    assert!(states.contains(&("web-2.ams1".into(), "no_reply".into())), "{states:?}");
    // A site that knows its dead may say so.
    let tolerated = [&arguments[..], &["--tolerate", "no-reply"]].concat();
    lea.run(&tolerated).unwrap().expect(0);
}

#[test]
fn the_host_has_the_last_word() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let mut strict = host("web-1.ams1");
    strict.policy = "[[rule]]\nname = \"ping-only\"\neffect = \"allow\"\nwhen = 'action = \"host.ping\"'\n".to_owned();
    let mut groups = host("web-2.ams1");
    groups.policy =
        "[[rule]]\nname = \"admins\"\neffect = \"allow\"\nwhen = 'group = admins or action = \"host.ping\"'\n"
            .to_owned();
    let agents = stage.agents([strict, groups]);
    let lea = stage.operator("lea", &["admins"]);
    let max = stage.operator("max", &["interns"]);

    let run = lea.run(&["run", "package.status", "name=bash", "--all", "--jsonl"]).unwrap().expect(6);
    for task in tasks(&run) {
        let expected = if task["host"] == "web-1.ams1" { "refused" } else { "succeeded" };
        assert_eq!(task["state"], expected, "{task}");
        if expected == "refused" {
            assert_eq!(task["code"], "policy-denied", "{task}");
        }
    }
    let run = max.run(&["run", "package.status", "name=bash", "--all", "--jsonl"]).unwrap().expect(6);
    assert!(tasks(&run).iter().all(|task| task["state"] == "refused"), "{}", run.stdout);

    // Both the refusal and the permission are in the audit log, with who asked.
    let audit = agents[1].audit();
    for (caller, word) in [("muster:user/lea", "allow"), ("muster:user/max", "policy-denied")] {
        assert!(audit.lines().any(|line| line.contains(caller) && line.contains(word)), "{caller} {word}:\n{audit}");
    }
}

#[test]
fn two_controllers_at_once_get_their_own_answers() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents(fleet());
    let desks: Vec<_> = ["lea", "max", "lea", "max"].into_iter().map(|name| stage.operator(name, &[])).collect();
    let results: Vec<Finished> = std::thread::scope(|scope| {
        let running: Vec<_> = desks
            .iter()
            .enumerate()
            .map(|(index, desk)| {
                let target = if index % 2 == 0 { "role = web" } else { "role = db" };
                scope.spawn(move || desk.run(&["run", "host.facts", "-t", target, "--jsonl"]).unwrap())
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (index, result) in results.into_iter().enumerate() {
        let result = result.expect(0);
        assert_eq!(tasks(&result).len(), if index % 2 == 0 { 2 } else { 1 }, "{}", result.stdout);
    }
}

#[test]
fn limits_waves_and_the_guard_bound_what_is_hit() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let agents = stage.agents(fleet());
    let lea = stage.operator("lea", &[]);
    let limited = ["run", "host.ping", "--all", "--limit", "2", "--seed", "11", "--names"];
    let first = lea.run(&limited).unwrap().expect(0);
    assert_eq!(names(&first).len(), 2);
    assert_eq!(names(&first), names(&lea.run(&limited).unwrap().expect(0)), "the same seed chooses the same hosts");

    let waves = lea.run(&["run", "host.ping", "--all", "--wave", "1,rest", "--jsonl"]).unwrap().expect(0);
    assert_eq!(tasks(&waves).len(), 3);

    // Above `confirm_above` hosts a script has to say how many it expects.
    let config = std::fs::read_to_string(lea.config()).unwrap();
    let descriptions = stage.folder().join("ddl");
    std::fs::create_dir(&descriptions).unwrap();
    std::fs::write(
        descriptions.join("paint.json"),
        r#"{"metadata":{"name":"paint","description":"Paints","author":"a","license":"MIT","version":"1.0.0","url":"","timeout":10},
            "actions":[{"action":"door","description":"Paints the door","input":{},"output":{},"display":"always"}]}"#,
    )
    .unwrap();
    let directory = Value::from(descriptions.to_str().unwrap());
    std::fs::write(lea.config(), format!("{config}confirm_above = 2\nddl_directory = {directory}\n")).unwrap();
    // Looking at many hosts is free, changing them is not; here nobody is at a terminal to confirm it.
    lea.run(&["run", "host.ping", "--all"]).unwrap().expect(0);
    lea.run(&["run", "host.ping", "--all", "--expect", "2"]).unwrap().expect(9);
    lea.run(&["run", "host.ping", "--all", "--expect", "3"]).unwrap().expect(0);
    let unconfirmed = lea.run(&["run", "paint.door", "--all"]).unwrap().expect(9);
    assert!(unconfirmed.stderr.contains("error[not-confirmed]"), "{}", unconfirmed.stderr);
    assert!(agents.iter().all(|agent| !agent.audit().contains("paint")), "nothing was sent");
    // Confirmed it goes out, and hosts that have no such plugin say so.
    let sent = lea.run(&["run", "paint.door", "--all", "--expect", "3", "--jsonl"]).unwrap().expect(6);
    assert!(tasks(&sent).iter().all(|task| task["code"] == "policy-denied"), "{}", sent.stdout);
    let dry = lea.run(&["run", "host.ping", "--all", "--dry-run", "--json"]).unwrap().expect(0);
    assert!(dry.json().is_ok(), "{}", dry.stdout);
}

#[test]
fn names_come_from_file_and_standard_input() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents(fleet());
    let lea = stage.operator("lea", &[]);
    let list = stage.folder().join("hosts.txt");
    std::fs::write(&list, "web-1.ams1\n# a comment\n\ndb-1.fra2\n").unwrap();
    let at = format!("@{}", list.display());
    let run = lea.run(&["run", "host.ping", "-H", &at, "--names"]).unwrap().expect(0);
    assert_eq!(names(&run), BTreeSet::from(["web-1.ams1", "db-1.fra2"]));
    let run = lea.run_with_input(&["run", "host.ping", "-H", "-", "--names"], "web-2.ams1\n").unwrap().expect(0);
    assert_eq!(names(&run), BTreeSet::from(["web-2.ams1"]));
}

#[test]
fn agents_come_back_after_the_broker_was_away() {
    use muster_tests::broker::url;
    use muster_tests::programs::{Access, AgentProcess, Operator, Party};

    let site = BROKER.site();
    let (web, lea) = (site.member("host/web-1.ams1"), site.member("user/lea"));
    let options = BROKER.options().admitting(["host/web-1.ams1", "user/lea"]);
    let vhost = options.vhost.clone();
    let node = BROKER.start(options).unwrap();
    let folder = tempfile::Builder::new().prefix("muster-").tempdir().unwrap();
    let access = Access { urls: vec![url(node.port(), &vhost)], ca: web.files.ca.clone(), crl: None };

    // The broker is down when the agent starts: the agent waits for it.
    node.stop().unwrap();
    let mut agent =
        AgentProcess::start(&host("web-1.ams1"), &access, &Party::from(&web), &folder.path().join("a")).unwrap();
    let operator = Operator::new(&folder.path().join("home"), "test", &access, &Party::from(&lea)).unwrap();
    let down = operator.run(&["ping", "--all"]).unwrap().expect(7);
    assert!(down.stderr.contains("error[broker-unreachable]"), "{}", down.stderr);
    assert!(down.stderr.contains(&node.port().to_string()), "names the address: {}", down.stderr);
    node.resume().unwrap();
    agent.wait_ready().unwrap();
    operator.run(&["ping", "--all", "--names"]).unwrap().expect(0);

    // And it comes back when the broker has been killed in between.
    node.kill().unwrap();
    node.resume().unwrap();
    let started = std::time::Instant::now();
    loop {
        let ping = operator.run(&["ping", "-H", "web-1.ams1", "--names"]).unwrap();
        if ping.code == 0 {
            break;
        }
        assert!(started.elapsed() < muster_tests::programs::PATIENCE, "{}\n{}", ping.stderr, agent.log());
    }
    assert!(agent.stop().unwrap().success(), "{}", agent.log());
}

#[test]
fn an_agent_that_stops_on_request_leaves_nothing_behind() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let mut agents = stage.agents([host("web-1.ams1")]);
    let lea = stage.operator("lea", &[]);
    lea.run(&["run", "host.ping", "--all"]).unwrap().expect(0);
    assert!(agents[0].stop().unwrap().success(), "{}", agents[0].log());
    // The same files again, as after a restart of the host.
    let mut again =
        muster_tests::programs::AgentProcess::start_in("web-1.ams1".parse().unwrap(), agents[0].folder()).unwrap();
    again.wait_ready().unwrap();
    let run = lea.run(&["run", "host.status", "--all", "--jsonl"]).unwrap().expect(0);
    assert_eq!(tasks(&run).len(), 1);
    let verify = std::process::Command::new(muster_tests::programs::program("musterd").unwrap())
        .args(["audit", "verify"])
        .arg(again.folder().join("state/audit.jsonl"))
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
}

#[test]
fn hosts_show_what_they_are_and_have() {
    let stage = Stage::new(BROKER, &IDENTITIES);
    let _agents = stage.agents(fleet());
    let lea = stage.operator("lea", &[]);
    let list = lea.run(&["host", "list", "--json"]).unwrap().expect(0).json().unwrap();
    let text = list.to_string();
    for host in ["web-1.ams1", "web-2.ams1", "db-1.fra2"] {
        assert!(text.contains(host), "{list:#}");
    }
    let show = lea.run(&["host", "show", "db-1.fra2", "--json"]).unwrap().expect(0);
    assert!(show.stdout.contains("postgresql"), "{}", show.stdout);
    let facts = lea.run(&["host", "facts", "db-1.fra2", "dc", "--json"]).unwrap().expect(0);
    assert!(facts.stdout.contains("fra2"), "{}", facts.stdout);
    let plugins = lea.run(&["plugin", "list", "--on", "db-1.fra2", "--json"]).unwrap().expect(0);
    assert!(plugins.stdout.contains("puppet"), "{}", plugins.stdout);
    let nobody = lea.run(&["host", "show", "no-such.host"]).unwrap();
    assert!([4, 5].contains(&nobody.code), "{}{}", nobody.stdout, nobody.stderr);
    let doctor = lea.run(&["doctor", "--json"]).unwrap().expect(0).json().unwrap();
    assert!(doctor.to_string().contains("login"), "{doctor:#}");
}

#[test]
fn a_revocation_reaches_running_agents_over_the_bus_and_stays() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/lea", "user/leaver"]);
    let site = stage.site();
    let mut agents = stage.agents([host("web-1.ams1")]);
    let lea = stage.operator("lea", &[]);
    // Without a list of their own at the desk: it is the host that has to know.
    let leaver = site.keep("leaver", site.authority().credentials("user/leaver").unwrap());
    let access = muster_tests::programs::Access { crl: None, ..stage.access(&leaver) };
    let party = muster_tests::programs::Party::from(&leaver);
    let desk =
        muster_tests::programs::Operator::new(&stage.folder().join("home/leaver"), "test", &access, &party).unwrap();
    let ping = ["run", "host.ping", "-H", "web-1.ams1", "--reply-timeout", "2s"];
    desk.run(&ping).unwrap().expect(0);

    site.authority().revoke(&leaver.credentials).unwrap();
    let list = stage.folder().join("crl.pem");
    std::fs::write(&list, site.authority().crl_pem().unwrap()).unwrap();
    let published = lea.run(&["pki", "publish", list.to_str().unwrap(), "--json"]).unwrap().expect(0);
    assert!(published.stdout.contains("\"revoked\""), "{}", published.stdout);
    // The list and the command after it come through one queue, so no waiting is needed in between.
    let refused = desk.run(&ping).unwrap().expect(6);
    assert!(refused.stdout.contains("revoked-certificate"), "{}{}", refused.stdout, refused.stderr);
    assert!(agents[0].audit().contains("revoked-certificate"), "{}", agents[0].audit());
    lea.run(&ping).unwrap().expect(0);

    assert!(agents[0].stop().unwrap().success());
    let folder = agents[0].folder().to_path_buf();
    let mut again = muster_tests::programs::AgentProcess::start_in("web-1.ams1".parse().unwrap(), &folder).unwrap();
    again.wait_ready().unwrap();
    desk.run(&ping).unwrap().expect(6);

    let forged = stage.folder().join("forged.pem");
    std::fs::write(&forged, muster_tests::pki::Site::new().unwrap().authority().crl_pem().unwrap()).unwrap();
    let refused = lea.run(&["pki", "publish", forged.to_str().unwrap()]).unwrap().expect(2);
    assert!(refused.stderr.contains("error["), "{}", refused.stderr);
}
