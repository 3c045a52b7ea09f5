//! Two brokers: a central one for the controllers, and a site's, which is linked to it. Agents of the site know only their
//! own broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use muster_broker_config::{Definitions, Finding, Operation, Sites, check, definitions, permissions_at};
use muster_protocol::Identity;
use muster_tests::pki::{self, Member};
use muster_tests::programs::{Access, AgentProcess, AgentSettings, Operator, PATIENCE, Party};
use muster_tests::rabbit::{Node, NodeOptions};
use muster_tests::stage::host;
use serde_json::Value;
use tempfile::TempDir;

use crate::amqp::{connect, perform, publish, reply_code};

const SITE: &str = "ams1";
const SITE_BROKER: &str = "mq.ams1.example.com";
const LINK: &str = "muster:broker/mq.ams1.example.com";
const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;

const SITE_HOSTS: [&str; 4] = ["web1.ams1.example.com", "web2.ams1.example.com", "db1.ams1.example.com", "backup"];
const CENTER_HOSTS: [&str; 2] = ["web1.example.com", "db1.example.com"];

/// Everybody with a certificate; each broker takes from this those whose place it is.
fn everybody() -> BTreeSet<Identity> {
    let hosts = SITE_HOSTS.iter().chain(&CENTER_HOSTS).chain(&["absent.ams1.example.com"]);
    let others = ["user/lea", "user/max", "broker/mq.ams1.example.com", "broker/other"];
    let names = hosts.map(|name| format!("host/{name}")).chain(others.map(str::to_owned));
    names.map(|name| name.parse().unwrap()).collect()
}

fn sites(port: u16) -> Sites {
    let text = format!(
        "[center]\naddresses = [\"localhost:{port}\"]\n\n[[site]]\nname = \"{SITE}\"\nbroker = \"{SITE_BROKER}\"\n\
         hosts = [\"*.ams1.example.com\", \"backup\"]\ncollectives = [\"main\", \"europe\"]\n"
    );
    Sites::parse(&text).unwrap()
}

/// Both brokers, linked.
struct Brokers {
    center: Node,
    edge: Node,
    folder: TempDir,
}

impl Brokers {
    fn start() -> Self {
        let mut options = NodeOptions::new(pki::site().broker().server_certificate());
        options.identities = everybody();
        // The centre has to listen before anybody can say where; its own part does not depend on it.
        options.role = sites(1).role("center").unwrap();
        let center = Node::start(options.clone()).unwrap();
        options.role = sites(center.port()).role(SITE).unwrap();
        options.certificate = pki::site().linked_broker(SITE_BROKER).server_certificate();
        let edge = Node::start(options).unwrap();
        let folder = tempfile::Builder::new().prefix("muster-").tempdir().unwrap();
        let brokers = Self { center, edge, folder };
        brokers.wait_linked();
        brokers
    }

    /// Waits until both halves of the link work.
    fn wait_linked(&self) {
        self.wait_until("the link is up", || {
            let commands = self.edge.ctl(&["eval", "rabbit_federation_status:status()."])?;
            let reports = self.edge.ctl(&["eval", "rabbit_shovel_status:status()."])?;
            Ok(commands.contains("{status,running}") && reports.contains("{running,"))
        });
    }

    fn wait_until(&self, what: &str, condition: impl Fn() -> anyhow::Result<bool>) {
        let started = Instant::now();
        // A broker that starts does not answer yet; that is no reason to stop waiting.
        while !condition().unwrap_or(false) {
            assert!(
                started.elapsed() < PATIENCE,
                "{what}: not within a minute\n{}\n{}",
                self.center.log(),
                self.edge.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn access(node: &Node, member: &Member) -> Access {
        Access { urls: vec![url(node)], ca: member.files.ca.clone(), crl: Some(member.files.crl.clone()) }
    }

    fn agents(&self, node: &Node, settings: impl IntoIterator<Item = AgentSettings>) -> Vec<AgentProcess> {
        let start = |settings: AgentSettings| {
            let member = pki::site().member(&format!("host/{}", settings.host));
            let folder = self.folder.path().join(settings.host.as_str());
            if settings.host.as_str().starts_with("db1") {
                std::fs::create_dir_all(folder.join("musterd.d")).unwrap();
                std::fs::write(folder.join("musterd.d/site.toml"), "collectives = [\"main\", \"europe\"]\n").unwrap();
            }
            AgentProcess::start(&settings, &Self::access(node, &member), &Party::from(&member), &folder).unwrap()
        };
        let mut agents: Vec<AgentProcess> = settings.into_iter().map(start).collect();
        for agent in &mut agents {
            agent.wait_ready().unwrap();
        }
        agents
    }

    fn operator(&self, name: &str) -> Operator {
        let member = pki::site().member(&format!("user/{name}"));
        let home = self.folder.path().join("home").join(name);
        Operator::new(&home, "test", &Self::access(&self.center, &member), &Party::from(&member)).unwrap()
    }

    /// Whether the binding is there that lets a command to this host leave the centre.
    fn hears(&self, key: &str) -> bool {
        let bindings =
            self.center.ctl(&["list_bindings", "-p", &self.center.site().vhost, "destination_name", "routing_key"]);
        bindings.unwrap().lines().any(|line| line.starts_with("federation: ") && line.ends_with(&format!("\t{key}")))
    }
}

fn url(node: &Node) -> String {
    node.url(&node.site().vhost)
}

fn findings(node: &Node) -> Vec<Finding> {
    let actual = Definitions::parse(&node.ctl(&["export_definitions", "-"]).unwrap()).unwrap();
    check(&actual, &definitions(&node.site()))
}

/// State and reason of each host.
fn states(operator: &Operator, arguments: &[&str], code: i32) -> BTreeSet<(String, String)> {
    let finished = operator.run(&[arguments, &["--jsonl"]].concat()).unwrap();
    let finished = finished.expect(code);
    let lines: Vec<Value> = finished.json_lines().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tasks = lines.iter().filter(|line| line["host"].is_string() && line["state"].is_string());
    tasks
        .map(|task| {
            (text(&task["host"]), format!("{} {}", text(&task["state"]), text(&task["reason"])).trim().to_owned())
        })
        .collect()
}

fn all<'a>(hosts: impl IntoIterator<Item = &'a str>, state: &str) -> BTreeSet<(String, String)> {
    hosts.into_iter().map(|host| (host.to_owned(), state.to_owned())).collect()
}

/// How often an agent's audit log says that it let a request in.
fn admitted(agent: &AgentProcess, action: &str) -> usize {
    let lines = agent.audit();
    lines.lines().filter(|line| line.contains(action) && line.contains("\"allowed\"")).count()
}

#[test]
fn hosts_behind_a_site_are_reached_from_the_centre() {
    let brokers = Brokers::start();
    let mut edge = brokers.agents(&brokers.edge, SITE_HOSTS.map(|name| host(name).fact("role", &name[..2])));
    let _center = brokers.agents(&brokers.center, CENTER_HOSTS.map(|name| host(name).fact("role", &name[..2])));
    brokers.wait_until("the agents' bindings are at the centre", || {
        Ok(SITE_HOSTS.iter().all(|name| brokers.hears(&format!("host.{name}"))) && brokers.hears("collective.main"))
    });
    let lea = brokers.operator("lea");

    // Everybody, a filter, and names on both sides.
    let everyone = || SITE_HOSTS.into_iter().chain(CENTER_HOSTS);
    assert_eq!(states(&lea, &["ping", "--all"], 0), all(everyone(), "succeeded"));
    let webs = ["web1.ams1.example.com", "web2.ams1.example.com", "web1.example.com"];
    assert_eq!(states(&lea, &["run", "host.facts", "-t", "role = we"], 0), all(webs, "succeeded"));
    let named = ["run", "host.facts", "-H", "backup,db1.example.com"];
    assert_eq!(states(&lea, &named, 0), all(["backup", "db1.example.com"], "succeeded"));

    // A part of the fleet, with a member on each side.
    let max = brokers.operator("max");
    let config = std::fs::read_to_string(max.config()).unwrap();
    std::fs::write(max.config(), config.replace("\"main\"", "\"europe\"")).unwrap();
    assert_eq!(states(&max, &["ping", "--all"], 0), all(["db1.ams1.example.com", "db1.example.com"], "succeeded"));

    // A host that was never there is as unroutable behind a site as at the centre; one that is away is waited for.
    let absent = ["run", "host.facts", "-H", "absent.ams1.example.com,absent.example.com", "--reply-timeout", "1s"];
    let unknown = all(["absent.ams1.example.com", "absent.example.com"], "no_reply no_queue");
    assert_eq!(states(&lea, &absent, 5), unknown);
    edge[3].stop().unwrap();
    let away = ["run", "host.facts", "-H", "backup", "--reply-timeout", "1s"];
    assert_eq!(states(&lea, &away, 5), all(["backup"], "no_reply silent"));

    // Both brokers are as generated, with everything that agents, controllers and the link have made.
    assert_eq!(findings(&brokers.center), []);
    assert_eq!(findings(&brokers.edge), []);
}

#[test]
fn what_is_on_its_way_survives_a_cut_link_and_runs_once() {
    let brokers = Brokers::start();
    let mut web = brokers.agents(&brokers.edge, [host("web1.ams1.example.com")]);
    let _center = brokers.agents(&brokers.center, [host("web1.example.com")]);
    brokers.wait_until("the agent's bindings are at the centre", || Ok(brokers.hears("host.web1.ams1.example.com")));
    let lea = brokers.operator("lea");

    // The site's broker dies: the others answer, and the site is silent instead of unknown.
    brokers.edge.kill().unwrap();
    let both = ["run", "host.facts", "-H", "web1.ams1.example.com,web1.example.com", "--reply-timeout", "1s"];
    let expected = [("web1.ams1.example.com", "no_reply silent"), ("web1.example.com", "succeeded")];
    let expected = expected.map(|(host, state)| (host.to_owned(), state.to_owned()));
    assert_eq!(states(&lea, &both, 5), expected.into());

    // A command that is sent meanwhile waits at the centre, and is answered when the site is back.
    let waiting = ["run", "host.status", "-H", "web1.ams1.example.com", "--reply-timeout", "60s"];
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| states(&lea, &waiting, 0));
        brokers.wait_until("the command waits at the centre", || {
            let queues =
                brokers.center.ctl(&["list_queues", "-p", &brokers.center.site().vhost, "name", "messages"])?;
            Ok(queues.contains("federation: cmd -> ams1\t2"))
        });
        brokers.edge.resume().unwrap();
        assert_eq!(asked.join().unwrap(), all(["web1.ams1.example.com"], "succeeded"));
    });
    brokers.wait_linked();
    assert_eq!(admitted(&web[0], "host.status"), 1, "{}", web[0].audit());

    // The link's certificate is revoked: its user goes, and with it both halves of the link, at once.
    let revoked: Identity = "broker/mq.ams1.example.com".parse().unwrap();
    brokers.center.delete_user(&revoked).unwrap();
    brokers.wait_until("the link is down", || {
        let connections = brokers.center.ctl(&["list_connections", "user"])?;
        Ok(!connections.contains(LINK))
    });
    let named = ["run", "host.facts", "-H", "web1.ams1.example.com", "--reply-timeout", "1s"];
    assert_eq!(states(&lea, &named, 5), all(["web1.ams1.example.com"], "no_reply silent"));
    // What the site's agents say meanwhile waits at the site.
    web[0].stop().unwrap();
    let waits = |expected: bool| {
        let queues = brokers.edge.ctl(&["list_queues", "-p", &brokers.edge.site().vhost, "name", "messages"]);
        Ok(queues?.lines().any(|line| line.starts_with("uplink\t") && (line != "uplink\t0") == expected))
    };
    brokers.wait_until("the agent's farewell waits", || waits(true));

    // With its user again the link comes back by itself, and what waited is delivered.
    brokers.center.import(&definitions(&brokers.center.site())).unwrap();
    brokers.wait_linked();
    brokers.wait_until("nothing waits any more", || waits(false));
    let mut again = AgentProcess::start_in("web1.ams1.example.com".parse().unwrap(), web[0].folder()).unwrap();
    again.wait_ready().unwrap();
    assert_eq!(states(&lea, &named, 0), all(["web1.ams1.example.com"], "succeeded"));
    assert_eq!(admitted(&again, "host.status"), 1, "{}", again.audit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_of_a_collective_get_its_commands() {
    let brokers = Brokers::start();
    let (site, trust) = (pki::site(), pki::site().trust());
    // Queues without agents, so that what reaches them stays to be counted.
    let hosts = [
        (&brokers.edge, "web1.ams1.example.com", &["main"][..]),
        (&brokers.edge, "db1.ams1.example.com", &["main", "europe"]),
        (&brokers.center, "web1.example.com", &["main"]),
        (&brokers.center, "db1.example.com", &["main", "europe", "asia"]),
    ];
    for (node, name, collectives) in hosts {
        let queue = &format!("agent.{name}");
        let host = connect(&url(node), &site.member(&format!("host/{name}")), &trust).await.unwrap();
        perform(&host, &Operation::DeclareQueue { queue }).await.unwrap();
        for collective in collectives {
            let key = &format!("collective.{collective}");
            perform(&host, &Operation::Bind { queue, exchange: "cmd", key }).await.unwrap();
        }
    }
    brokers.wait_until("the collectives are at the centre", || {
        Ok(brokers.hears("collective.main") && brokers.hears("collective.europe"))
    });
    let lea = connect(&url(&brokers.center), &site.member("user/lea"), &trust).await.unwrap();
    let channel = lea.create_channel().await.unwrap();
    for key in ["collective.europe", "collective.asia", "collective.europe", "collective.nobody"] {
        publish(&channel, "cmd", key, BasicProperties::default(), b"x").await.unwrap();
    }
    let waiting = |node: &Node| -> BTreeSet<String> {
        let queues = node.ctl(&["list_queues", "-p", &node.site().vhost, "--no-table-headers", "name", "messages"]);
        queues.unwrap().lines().map(str::to_owned).collect()
    };
    let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<String>>();
    brokers.wait_until("the site's member has its commands", || {
        Ok(waiting(&brokers.edge).contains("agent.db1.ams1.example.com\t2"))
    });
    let edge = ["agent.db1.ams1.example.com\t2", "agent.web1.ams1.example.com\t0", "uplink\t0"];
    assert_eq!(waiting(&brokers.edge), set(&edge));
    let center = ["agent.db1.example.com\t3", "agent.web1.example.com\t0", "federation: cmd -> ams1\t0"];
    brokers.wait_until("the link has nothing left", || Ok(waiting(&brokers.center) == set(&center)));

    // What nobody at the site is in does not even leave for it: without the link it would wait.
    brokers.edge.kill().unwrap();
    for key in ["collective.asia", "collective.nobody", "collective.europe", "host.web1.example.com"] {
        publish(&channel, "cmd", key, BasicProperties::default(), b"x").await.unwrap();
    }
    brokers.wait_until("one of these waits for the site", || {
        Ok(waiting(&brokers.center).contains("federation: cmd -> ams1\t1"))
    });
    assert!(waiting(&brokers.center).contains("agent.db1.example.com\t5"), "{:?}", waiting(&brokers.center));
}

/// What a site's broker, or whoever has stolen its key, may do at the centre, and what it may not.
fn table() -> Vec<(bool, Operation<'static>)> {
    use Operation::{
        Bind, BindExchange, Consume, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Publish, PurgeQueue,
    };
    let (queue, own, other) = ("federation: cmd -> ams1", "federation: cmd -> ams1 A", "federation: cmd -> fra2");
    let (agent, reply) = ("agent.web1.example.com", "reply.user/lea.s1");
    vec![
        // What federation and shovel do.
        (true, DeclareQueue { queue }),
        (true, DeclareExchange { exchange: own }),
        (true, Bind { queue, exchange: own, key: "" }),
        (true, Consume { queue }),
        (true, BindExchange { destination: own, source: "cmd", key: "all" }),
        (true, BindExchange { destination: own, source: "cmd", key: "collective.europe" }),
        (true, BindExchange { destination: own, source: "cmd", key: "host.web1.ams1.example.com" }),
        (true, BindExchange { destination: own, source: "cmd", key: "host.backup" }),
        (true, Publish { exchange: "reply", key: "user/lea.s1.web1.ams1.example.com" }),
        (true, Publish { exchange: "reply", key: "service/jobs.s1.backup" }),
        (true, Publish { exchange: "reply", key: "presence.db1.ams1.example.com" }),
        // Commands for others.
        (false, BindExchange { destination: own, source: "cmd", key: "host.web1.example.com" }),
        (false, BindExchange { destination: own, source: "cmd", key: "host.ams1.example.com" }),
        (false, BindExchange { destination: own, source: "cmd", key: "host.x.backup" }),
        (false, BindExchange { destination: own, source: "cmd", key: "collective.asia" }),
        (false, BindExchange { destination: own, source: "cmd", key: "collective.*" }),
        (false, BindExchange { destination: own, source: "cmd", key: "host.#" }),
        (false, BindExchange { destination: own, source: "cmd", key: "#" }),
        (false, Bind { queue, exchange: "cmd", key: "host.web1.example.com" }),
        (false, Consume { queue: agent }),
        (false, PurgeQueue { queue: agent }),
        (false, DeleteQueue { queue: agent }),
        (false, DeclareQueue { queue: other }),
        (false, Consume { queue: other }),
        // Answers for others.
        (false, BindExchange { destination: own, source: "reply", key: "#" }),
        (false, Bind { queue, exchange: "reply", key: "user/lea.s1.#" }),
        (false, Bind { queue, exchange: "reply", key: "presence.#" }),
        (false, Consume { queue: reply }),
        (false, DeleteQueue { queue: reply }),
        (false, DeclareQueue { queue: "reply.user/lea.s2" }),
        // Answers in others' names.
        (false, Publish { exchange: "reply", key: "user/lea.s1.web1.example.com" }),
        (false, Publish { exchange: "reply", key: "user/lea.s1.web1.fra2.example.com" }),
        (false, Publish { exchange: "reply", key: "user/lea.s1.ams1.example.com" }),
        (false, Publish { exchange: "reply", key: "presence.web1.example.com" }),
        (false, Publish { exchange: "reply", key: "user/lea.s1" }),
        (false, Publish { exchange: "reply", key: "user/lea.s1.web1.ams1.example.com\n" }),
        (false, Publish { exchange: "", key: reply }),
        (false, Publish { exchange: "", key: agent }),
        // Commands of its own.
        (false, Publish { exchange: "cmd", key: "all" }),
        (false, Publish { exchange: "cmd", key: "collective.main" }),
        (false, Publish { exchange: "cmd", key: "host.web1.ams1.example.com" }),
        (false, BindExchange { destination: "cmd", source: "reply", key: "#" }),
        // The rest of the broker.
        (false, DeclareExchange { exchange: "mine" }),
        (false, DeleteExchange { exchange: "cmd" }),
        (false, DeleteExchange { exchange: "reply" }),
        (false, DeclareQueue { queue: "uplink" }),
        (false, DeclareQueue { queue: "mine" }),
        // And at the end it may put its own things away.
        (true, DeleteQueue { queue }),
        (true, DeleteExchange { exchange: own }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_may_do_its_own_work_and_nothing_else() {
    let site = pki::site();
    let role = sites(1).role("center").unwrap();
    let mut options = NodeOptions::new(site.broker().server_certificate());
    (options.identities, options.role) = (everybody(), role.clone());
    let center = Node::start(options).unwrap();
    let (address, trust) = (url(&center), site.trust());

    // A broker's certificate that is not for links does not even pass the handshake, though its user exists.
    let serves_only = site.keep("serves-only", site.authority().broker("broker/mq.ams1.example.com").unwrap());
    let refused = connect(&address, &serves_only, &trust).await.expect_err("it is for servers only");
    assert_eq!(reply_code(&refused), None, "in TLS, before AMQP: {refused}");
    // One that is, of a broker that is no site's: there is no such user.
    let stranger = site.linked_broker("other");
    let refused = connect(&address, &stranger, &trust).await.expect_err("it has no user");
    assert_eq!(reply_code(&refused), Some(ACCESS_REFUSED), "{refused}");

    // What others have, so that a refusal is not for want of it.
    let lea = connect(&address, &site.member("user/lea"), &trust).await.unwrap();
    perform(&lea, &Operation::DeclareQueue { queue: "reply.user/lea.s1" }).await.unwrap();
    perform(&lea, &Operation::Bind { queue: "reply.user/lea.s1", exchange: "reply", key: "user/lea.s1.#" })
        .await
        .unwrap();
    let web = connect(&address, &site.member("host/web1.example.com"), &trust).await.unwrap();
    perform(&web, &Operation::DeclareQueue { queue: "agent.web1.example.com" }).await.unwrap();

    let member = site.linked_broker(SITE_BROKER);
    let identity = Identity::Broker(SITE_BROKER.parse().unwrap());
    let described = permissions_at(&role, &identity).unwrap();
    let mut wrong = Vec::new();
    for (allowed, operation) in table() {
        let link = connect(&address, &member, &trust).await.expect("the link logs in");
        let outcome = match tokio::time::timeout(PATIENCE, perform(&link, &operation)).await.expect("an answer") {
            Ok(()) => None,
            Err(error) => Some(reply_code(&error)),
        };
        let expected = (!allowed).then_some(Some(ACCESS_REFUSED));
        if outcome != expected || described.allows(&operation) != allowed {
            wrong.push(format!("{operation:?}: expected allowed = {allowed}, outcome {outcome:?}"));
        }
        link.close(200, "done".into()).await.expect("the connection closes");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // What it forwards says who forwarded it, whatever the host's own broker had let pass.
    let link = connect(&address, &member, &trust).await.unwrap();
    let key = "user/lea.s1.web1.ams1.example.com";
    let forged = BasicProperties::default().with_user_id("muster:host/web1.ams1.example.com".into());
    let error = publish(&link.create_channel().await.unwrap(), "reply", key, forged, b"x").await.expect_err("refused");
    assert_eq!(reply_code(&error), Some(PRECONDITION_FAILED), "{error}");
    let own = BasicProperties::default().with_user_id(LINK.into());
    publish(&link.create_channel().await.unwrap(), "reply", key, own, b"forwarded").await.unwrap();
    let channel = lea.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("reply.user/lea.s1".into(), "test".into(), options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    // The table's own answer came first.
    for expected in [&b"test"[..], b"forwarded"] {
        let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it arrives").unwrap().unwrap();
        assert_eq!((delivery.data.as_slice(), delivery.routing_key.as_str()), (expected, key));
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    }

    // The hosts of the site are strangers at the centre.
    let astray = site.member("host/web1.ams1.example.com");
    let refused = connect(&address, &astray, &trust).await.expect_err("its place is at the site");
    assert_eq!(reply_code(&refused), Some(ACCESS_REFUSED), "{refused}");
}
