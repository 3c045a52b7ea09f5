//! The authority itself is replaced: for a while everybody believes two, and then only the new one.

use std::fs;
use std::path::{Path, PathBuf};

use muster_broker_config::ServerCertificate;
use muster_protocol::routing::VHOST_DEFAULT;
use muster_tests::broker::{Broker, Options, url};
use muster_tests::pki::{Member, Site};
use muster_tests::programs::{Access, AgentProcess, Operator, Party};
use muster_tests::stage::host;
use nix::sys::signal::Signal;

use super::BROKER;
use super::lab::eventually;

/// Where everybody looks for whom to believe.
struct Anchors {
    ca: PathBuf,
    crl: PathBuf,
}

impl Anchors {
    /// Authorities that are believed from now on, as soon as somebody reads the files again.
    fn believe(&self, sites: &[&Site]) {
        let put = |path: &Path, texts: Vec<String>| {
            let next = path.with_extension("next");
            fs::write(&next, texts.concat()).unwrap();
            fs::rename(next, path).unwrap();
        };
        put(&self.ca, sites.iter().map(|site| site.authority().ca_pem()).collect());
        put(&self.crl, sites.iter().map(|site| site.authority().crl_pem().unwrap()).collect());
    }
}

/// Everybody who believes somebody, each with files of their own, and a broker that only this test has.
struct Fleet {
    agents: Vec<AgentProcess>,
    broker: Box<dyn Broker>,
    /// What it runs with.
    member: Member,
    by_broker: Anchors,
    by_hosts: Anchors,
    by_users: Anchors,
    folder: tempfile::TempDir,
}

const HOSTS: [&str; 2] = ["web-1.ams1", "web-2.ams1"];

impl Fleet {
    /// A fleet of which all of it is of this site.
    fn new(site: &Site) -> Self {
        let folder = tempfile::Builder::new().prefix("muster-").tempdir().unwrap();
        let anchors = |name: &str| {
            let directory = folder.path().join(name);
            fs::create_dir(&directory).unwrap();
            let anchors = Anchors { ca: directory.join("ca.pem"), crl: directory.join("crl.pem") };
            anchors.believe(&[site]);
            anchors
        };
        let (by_broker, by_hosts, by_users) = (anchors("broker"), anchors("hosts"), anchors("users"));
        let member = site.broker();
        let certificate = ServerCertificate { ca: by_broker.ca.clone(), ..member.server_certificate() };
        let hosts = HOSTS.map(|name| format!("host/{name}"));
        let names = hosts.iter().map(String::as_str).chain(["user/lea"]);
        let broker = BROKER.start(Options::with_certificate(certificate).admitting(names)).unwrap();
        let mut fleet = Self { agents: Vec::new(), broker, member, by_broker, by_hosts, by_users, folder };
        fleet.agents = HOSTS
            .map(|name| {
                let party = Party::from(&site.member(&format!("host/{name}")));
                let folder = fleet.folder.path().join(name);
                AgentProcess::start(&host(name), &fleet.access(&fleet.by_hosts), &party, &folder).unwrap()
            })
            .into();
        for agent in &mut fleet.agents {
            agent.wait_ready().unwrap();
        }
        fleet
    }

    fn access(&self, anchors: &Anchors) -> Access {
        let url = url(self.broker.port(), VHOST_DEFAULT);
        Access { urls: vec![url], ca: anchors.ca.clone(), crl: Some(anchors.crl.clone()) }
    }

    /// The user `lea` with a certificate of this site.
    fn lea(&self, desk: &str, site: &Site) -> Operator {
        let member = site.member_in("user/lea", &["admins"]);
        let home = self.folder.path().join("home").join(desk);
        Operator::new(&home, "test", &self.access(&self.by_users), &Party::from(&member)).unwrap()
    }

    /// Hosts and broker read their files again. An agent to which that is new makes its connection anew.
    fn reload(&self) {
        self.broker.read_certificates().unwrap();
        for agent in &self.agents {
            let reloads = || agent.log().matches("Reloaded certificates").count();
            let connections = || agent.log().matches("taking commands").count();
            let before = (reloads(), connections());
            agent.signal(Signal::SIGHUP).unwrap();
            eventually("the reload", || reloads() > before.0);
            // Only what has changed something is followed by a new connection.
            let log = agent.log();
            let last = log.lines().rfind(|line| line.contains("Reloaded certificates")).unwrap();
            if last.contains("reconnects=true") {
                eventually("the new connection", || connections() > before.1);
            }
        }
    }
}

/// Puts what one has of the new site where the programs look for what they have of the old one.
fn replace(old: &Member, new: &Member) {
    for (old, new) in [(&old.files.key, &new.files.key), (&old.files.certificate, &new.files.certificate)] {
        let next = old.with_extension("next");
        fs::copy(new, &next).unwrap();
        fs::rename(next, old).unwrap();
    }
}

/// Asks both hosts and gives the codes of their answers.
#[track_caller]
fn ask(operator: &Operator, expected: i32) -> Vec<String> {
    let words = ["run", "host.ping", "-H", &HOSTS.join(","), "--jsonl", "--reply-timeout", "60s"];
    let finished = operator.run(&words).unwrap().expect(expected);
    let records = finished.json_lines().unwrap();
    let tasks = records.iter().filter(|record| record["kind"] == "task");
    tasks.map(|task| task["code"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn an_authority_is_replaced_with_two_for_a_while_and_then_the_old_one_counts_for_nothing() {
    let (old, new) = (Site::new().unwrap(), Site::new().unwrap());
    let mut fleet = Fleet::new(&old);
    let (before, after) = (fleet.lea("before", &old), fleet.lea("after", &new));
    assert_eq!(ask(&before, 0), ["ok", "ok"]);
    // Somebody of an authority that nobody believes yet.
    after.run(&["run", "host.ping", "--all"]).unwrap().expect(8);

    // Everybody believes both, in any order, and nothing else has changed.
    for anchors in [&fleet.by_hosts, &fleet.by_broker, &fleet.by_users] {
        anchors.believe(&[&old, &new]);
    }
    fleet.reload();
    assert_eq!(ask(&before, 0), ["ok", "ok"]);
    assert_eq!(ask(&after, 0), ["ok", "ok"]);

    // One host is of the new authority and one of the old, then the broker, and all of them work together.
    let identity = |name: &str| format!("host/{name}");
    replace(&old.member(&identity(HOSTS[0])), &new.member(&identity(HOSTS[0])));
    fleet.reload();
    for lea in [&before, &after] {
        assert_eq!(ask(lea, 0), ["ok", "ok"]);
    }
    replace(&fleet.member, &new.broker());
    fleet.reload();
    for lea in [&before, &after] {
        assert_eq!(ask(lea, 0), ["ok", "ok"]);
    }
    replace(&old.member(&identity(HOSTS[1])), &new.member(&identity(HOSTS[1])));
    fleet.reload();

    // Hosts give up the old one first: it is they who decide, whatever broker and user still believe.
    fleet.by_hosts.believe(&[&new]);
    fleet.reload();
    let words = ["run", "host.ping", "-H", &HOSTS.join(","), "--jsonl", "--reply-timeout", "3s"];
    before.run(&words).unwrap().expect(5);
    for agent in &fleet.agents {
        // Strangers get no answer.
        eventually("the refusal", || agent.audit().contains("untrusted-certificate"));
    }
    assert_eq!(ask(&after, 0), ["ok", "ok"]);

    // Then the others: who is late is told at the desk, and what is new works on, also after a start.
    fleet.by_broker.believe(&[&new]);
    fleet.by_users.believe(&[&new]);
    fleet.reload();
    let late = before.run(&["run", "host.ping", "--all"]).unwrap().expect(8);
    assert!(!late.stderr.is_empty());
    for agent in &mut fleet.agents {
        agent.stop().unwrap();
        *agent = AgentProcess::start_in(agent.host().clone(), agent.folder()).unwrap();
        agent.wait_ready().unwrap();
    }
    assert_eq!(ask(&after, 0), ["ok", "ok"]);
}
