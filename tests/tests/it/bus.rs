//! The AMQP bus against a real RabbitMQ, and against everything that is none.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::BasicProperties;
use muster_bus::contract::{CASES, Fixture, ROLES};
use muster_bus::{
    AmqpBus, AmqpSettings, BrokerUrl, Bus, BusError, CloseReason, ConsumeOptions, Consumer, ConsumerEnd, Guarantee,
    Link, LoginProblem, Operation, Outgoing, PublishError, QueueSpec, TlsProblem,
};
use muster_pki::profile::Order;
use muster_pki::{Credentials, Trust};
use muster_protocol::limits::BODY_BYTES_MAX;
use muster_protocol::routing::{
    EXCHANGE_COMMAND, EXCHANGE_REPLY, KEY_ALL, agent_queue, host_key, reply_binding, reply_key, reply_queue,
};
use muster_protocol::{HostName, Identity, ReplyRoute, Timestamp};
use muster_tests::pki::{self, Member, Site};
use muster_tests::rabbit::{self, Node, NodeOptions, TestBus};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::amqp;

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(60);

fn settings(url: &str, credentials: &Credentials, trust: Trust) -> AmqpSettings {
    AmqpSettings::new(vec![url.parse().unwrap()], credentials.clone(), trust)
}

async fn connect(settings: AmqpSettings) -> Result<Arc<dyn Link>, BusError> {
    tokio::time::timeout(LIMIT, AmqpBus::new(settings).connect()).await.expect("connecting has a deadline")
}

async fn refused(settings: AmqpSettings) -> BusError {
    match connect(settings).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

/// A case's part of the shared broker: its own identities in a virtual host that all cases share.
struct Rabbit {
    bus: Arc<TestBus>,
    case: usize,
}

fn identity(role: &str, case: usize) -> Identity {
    let suffix = if role.starts_with("host/") { ".example.com" } else { "" };
    format!("{role}-{case}{suffix}").parse().unwrap()
}

impl Rabbit {
    fn ctl(&self, arguments: &[&str]) -> BoxFuture<'_, ()> {
        let node = self.bus.node();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        async move {
            let run = move || node.ctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        }
        .boxed()
    }
}

impl Fixture for Rabbit {
    fn identity(&self, role: &str) -> Identity {
        identity(role, self.case)
    }

    fn bus(&self, identity: &Identity) -> Arc<dyn Bus> {
        let member = self.bus.site.member(&identity.short());
        Arc::new(AmqpBus::new(settings(&self.bus.urls[0], &member.credentials, self.bus.site.trust())))
    }

    fn disconnect<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, ()> {
        self.ctl(&["close_all_user_connections", &identity.to_string(), "cut by the test"])
    }

    fn delete_queue<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        self.ctl(&["-p", &self.bus.vhost, "delete_queue", name])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract() {
    let names: Vec<String> =
        (0..CASES.len()).flat_map(|case| ROLES.iter().map(move |role| identity(role, case).short())).collect();
    let bus = Arc::new(rabbit::shared().bus(names.iter().map(String::as_str)));
    let failed: Vec<&str> = futures_util::stream::iter(CASES.iter().enumerate())
        .map(|(case, (name, run))| {
            let fixture = Rabbit { bus: Arc::clone(&bus), case };
            async move {
                let result = AssertUnwindSafe(run(&fixture)).catch_unwind().await;
                eprintln!("{name}: {}", if result.is_ok() { "ok" } else { "FAILED" });
                result.is_err().then_some(*name)
            }
        })
        .buffer_unordered(4)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// The same on one thread, as the agent runs.
#[tokio::test]
async fn one_thread_is_enough() {
    let chosen = 100..104;
    let names: Vec<String> =
        chosen.clone().flat_map(|case| ROLES.iter().map(move |role| identity(role, case).short())).collect();
    let bus = Arc::new(rabbit::shared().bus(names.iter().map(String::as_str)));
    for (case, (name, run)) in chosen.zip(CASES) {
        eprintln!("{name}");
        run(&Rabbit { bus: Arc::clone(&bus), case }).await;
    }
}

/// As an agent connects: what it takes and what it says without confirms share one channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_channel_is_enough_for_an_agent() {
    let names = ["host/one-channel.example.com", "host/other-channel.example.com", "user/one-channel"];
    let bus = Arc::new(rabbit::shared().bus(names.into_iter()));
    let connected = |name: &str, one_channel: bool| {
        let settings = settings(&bus.urls[0], &bus.site.member(name).credentials, bus.site.trust());
        connect(AmqpSettings { one_channel, ..settings })
    };
    let (agent, lea) = (connected(names[0], true).await.unwrap(), connected(names[2], false).await.unwrap());
    let host: HostName = "one-channel.example.com".parse().unwrap();
    let queue = agent_queue(&host);
    let keys = [KEY_ALL.to_owned(), host_key(&host)];
    let subscribe = async || {
        agent.declare_bound(QueueSpec::durable(&queue), EXCHANGE_COMMAND, &keys).await.unwrap();
        agent.consume(&queue, ConsumeOptions { prefetch: 10, exclusive: true }).await.unwrap()
    };
    let mut commands = subscribe().await;
    let caller: Identity = names[2].parse().unwrap();
    let route = ReplyRoute::new(caller, "s1".parse().unwrap()).unwrap();
    let replies = reply_queue(&route);
    lea.declare_queue(QueueSpec::exclusive(&replies)).await.unwrap();
    lea.bind(&replies, EXCHANGE_REPLY, &reply_binding(&route)).await.unwrap();
    let mut replies = lea.consume(&replies, ConsumeOptions { prefetch: 500, exclusive: false }).await.unwrap();

    let reply = |host: &HostName, body: String| Outgoing {
        exchange: EXCHANGE_REPLY,
        mandatory: false,
        persistent: false,
        ..message(&reply_key(&route, host), body)
    };
    lea.publish(message(&keys[1], "one"), Guarantee::Confirmed).await.unwrap();
    let delivery = within("a command", commands.next()).await.unwrap();
    delivery.ack().await.unwrap();
    // More than what may be left unwritten, one of them too large to be left.
    let size = |number: usize| if number == 100 { 20_000 } else { 1_000 };
    for number in 0..200 {
        let body = format!("{number} {}", "x".repeat(size(number)));
        agent.publish(reply(&host, body), Guarantee::Fire).await.unwrap();
    }
    for number in 0..200 {
        let delivery = within("an answer", replies.next()).await.unwrap();
        assert!(delivery.body.starts_with(format!("{number} ").as_bytes()), "in order: {number}");
    }
    let channels = || {
        let listed = bus.node().ctl(&["-q", "list_connections", "user", "channels"]).unwrap();
        let line = listed.lines().find(|line| line.contains(names[0])).map(ToOwned::to_owned);
        line.unwrap_or_else(|| panic!("{listed}"))
    };
    let listed = tokio::task::block_in_place(channels);
    assert_eq!(listed.split_whitespace().nth(1), Some("1"), "{listed}");

    // A message that the broker refuses ends the consumer, and nothing else.
    let other: HostName = "other-channel.example.com".parse().unwrap();
    agent.publish(reply(&other, "in another's name".to_owned()), Guarantee::Fire).await.unwrap();
    assert!(within("the end", commands.next()).await.is_none());
    assert_eq!(commands.ended(), ConsumerEnd::CancelledByBroker);
    let mut commands = subscribe().await;
    lea.publish(message(KEY_ALL, "two"), Guarantee::Confirmed).await.unwrap();
    assert_eq!(within("a command", commands.next()).await.unwrap().body, "two");

    // What was handed over before the goodbye arrives.
    for number in 0..50 {
        agent.publish(reply(&host, number.to_string()), Guarantee::Fire).await.unwrap();
    }
    agent.close().await;
    for number in 0..50 {
        assert_eq!(within("an answer", replies.next()).await.unwrap().body, number.to_string());
    }
}

/// What is asked in one go and refused is answered as if it had been asked one by one.
#[tokio::test]
async fn a_refusal_of_one_in_one_go_is_told_as_its_own() {
    let bus = Arc::new(rabbit::shared().bus(["host/one-go.example.com"].into_iter()));
    let settings = settings(&bus.urls[0], &bus.site.member("host/one-go.example.com").credentials, bus.site.trust());
    let link = connect(settings).await.unwrap();
    let host: HostName = "one-go.example.com".parse().unwrap();
    let (queue, own, other) = (agent_queue(&host), host_key(&host), "host.other.example.com".to_owned());
    let declare = async |exchange: &str, keys: &[&String]| {
        let keys: Vec<String> = keys.iter().map(|key| (*key).clone()).collect();
        link.declare_bound(QueueSpec::durable(&queue), exchange, &keys).await
    };
    match declare(EXCHANGE_COMMAND, &[&own, &other]).await {
        Err(BusError::Denied { operation: Operation::Bind, resource, .. }) => assert!(resource.contains(&other)),
        answer => panic!("{answer:?}"),
    }
    match declare("nowhere", &[&own]).await {
        Err(
            BusError::NotFound { operation: Operation::Bind, .. } | BusError::Denied { operation: Operation::Bind, .. },
        ) => {}
        answer => panic!("{answer:?}"),
    }
    declare(EXCHANGE_COMMAND, &[&own]).await.unwrap();
    match link.declare_bound(QueueSpec { auto_delete: true, ..QueueSpec::durable(&queue) }, EXCHANGE_COMMAND, &[]).await
    {
        Err(BusError::Conflict { operation: Operation::Declare, .. }) => {}
        answer => panic!("{answer:?}"),
    }
}

/// A port on which nobody listens, at least not a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_with_each_address() {
    let site = pki::site();
    let member = site.member("user/lea");
    let (first, second) = (free_port(), free_port());
    let mut settings = settings(&format!("amqps://127.0.0.1:{first}/muster"), &member.credentials, site.trust());
    settings.urls.push(BrokerUrl::new("127.0.0.1", second, "muster"));
    settings.urls.push(BrokerUrl::new("no-such-broker.invalid", 5671, "muster"));
    let error = refused(settings).await;
    assert!(error.is_transient());
    assert_eq!(error.code(), "broker-unreachable");
    let BusError::Unreachable { tries } = &error else { panic!("{error:?}") };
    let mut addresses: Vec<_> = tries.iter().map(|one| one.address.as_str()).collect();
    addresses.sort_unstable();
    let mut expected =
        vec![format!("127.0.0.1:{first}"), format!("127.0.0.1:{second}"), "no-such-broker.invalid:5671".to_owned()];
    expected.sort_unstable();
    assert_eq!(addresses, expected);
    let text = error.to_string();
    assert!(text.contains(&format!("`127.0.0.1:{first}` refuses connections (nothing listens there)")), "{text}");
    assert!(text.contains("`no-such-broker.invalid:5671` does not resolve"), "{text}");
}

#[tokio::test]
async fn the_next_broker_is_tried_when_one_is_down() {
    let bus = rabbit::shared().bus(["user/lea"]);
    let member = bus.site.member("user/lea");
    for _ in 0..4 {
        let mut settings = settings(&bus.urls[0], &member.credentials, bus.site.trust());
        settings.urls.push(BrokerUrl::new("127.0.0.1", free_port(), "muster"));
        connect(settings).await.unwrap().close().await;
    }
}

/// Serves one TLS handshake with these files, on a port of its own.
fn tls_server(member: &Member) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let certificates = CertificateDer::pem_file_iter(&member.files.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&member.files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        // The client ends it, with an alert.
        while connection.complete_io(&mut stream).is_ok() {}
    });
    port
}

#[tokio::test]
async fn a_broker_that_cannot_be_trusted_is_not_trusted() {
    let site = Site::new().unwrap();
    let other = Site::new().unwrap();
    let authority = site.authority();
    let lea = site.member("user/lea");
    let now = authority_now(&lea);
    let order = |names: &[&str]| {
        let mut order = Order::new("broker/b".parse().unwrap());
        order.dns_names.extend(names.iter().map(|&name| name.to_owned()));
        order
    };
    let for_other_name = site.keep("other-name", authority.order(&order(&["other.example.com"]), now).unwrap());
    let day_ms = 24 * 60 * 60 * 1000;
    let expired = Order { days: Some(1), ..order(&["localhost"]) };
    let expired = site.keep("expired", authority.order(&expired, now.plus_ms(-2 * day_ms)).unwrap());
    let early = site.keep("early", authority.order(&order(&["localhost"]), now.plus_ms(day_ms)).unwrap());
    let revoked = authority.order(&order(&["localhost"]), now).unwrap();
    authority.revoke(&revoked).unwrap();
    let revoked = site.keep("revoked", revoked);
    let trust = site.trust();
    let wrong_name = TlsProblem::WrongName {
        expected: "localhost".to_owned(),
        presented: vec!["b".to_owned(), "other.example.com".to_owned()],
    };
    for (what, member, expected) in [
        ("another CA", &other.broker(), TlsProblem::UnknownCa),
        ("another name", &for_other_name, wrong_name),
        ("expired", &expired, TlsProblem::Expired),
        ("not yet valid", &early, TlsProblem::NotYetValid),
        ("revoked", &revoked, TlsProblem::Revoked),
    ] {
        let url = format!("amqps://localhost:{}/muster", tls_server(member));
        let error = refused(settings(&url, &lea.credentials, trust.clone())).await;
        match &error {
            BusError::Tls { problem, .. } => assert_eq!(*problem, expected, "{what}"),
            error => panic!("{what}: {error:?}"),
        }
        assert!(!error.is_transient() && !error.hint().is_empty());
    }
    // A host's certificate serves nothing, even under the right name.
    let url = format!("amqps://localhost:{}/muster", tls_server(&site.member("host/localhost")));
    let error = refused(settings(&url, &lea.credentials, trust)).await;
    assert!(matches!(error, BusError::Tls { .. }), "{error:?}");
}

/// When the throw-away authority of a member was made: its certificates begin five minutes before.
fn authority_now(member: &Member) -> Timestamp {
    member.credentials.not_before().plus_ms(5 * 60 * 1000)
}

#[tokio::test]
async fn a_certificate_that_the_broker_does_not_take_is_ours_to_renew() {
    let bus = rabbit::shared().bus(["user/lea"]);
    let other = Site::new().unwrap();
    let expired = bus.site.authority().expired("user/lea").unwrap();
    for (what, credentials, expected) in [
        ("another CA", &other.member("user/lea").credentials, "it comes from a CA that the broker does not trust"),
        ("expired", &expired, "it has expired"),
    ] {
        let error = refused(settings(&bus.urls[0], credentials, bus.site.trust())).await;
        match &error {
            BusError::Tls { problem: TlsProblem::OursRefused(why), .. } => assert_eq!(why, expected, "{what}"),
            error => panic!("{what}: {error:?}"),
        }
        assert_eq!(error.code(), "certificate-refused");
    }
}

#[tokio::test]
async fn a_refused_login_says_who_and_where() {
    let bus = rabbit::shared().bus(["user/lea"]);
    let lea = bus.site.member("user/lea");
    let stranger = bus.site.member("user/nobody-knows-me");
    let error = refused(settings(&bus.urls[0], &stranger.credentials, bus.site.trust())).await;
    match &error {
        BusError::Rejected { problem: LoginProblem::Login { user, .. }, .. } => {
            assert_eq!(user, "muster:user/nobody-knows-me");
        }
        error => panic!("{error:?}"),
    }
    assert_eq!((error.code(), error.is_transient()), ("broker-login-refused", false));
    let elsewhere = rabbit::shared().bus(["user/max"]);
    for url in [&elsewhere.urls[0], &bus.node().url("no-such-vhost")] {
        let error = refused(settings(url, &lea.credentials, bus.site.trust())).await;
        match &error {
            BusError::Rejected { problem: LoginProblem::Vhost { vhost, .. }, .. } => {
                assert!(url.ends_with(vhost.as_str()), "{vhost}");
            }
            error => panic!("{error:?}"),
        }
        assert_eq!(error.code(), "broker-vhost-refused");
    }
}

#[tokio::test]
async fn something_else_on_the_port_has_a_clear_end() {
    let site = pki::site();
    let member = site.member("user/lea");
    let serve = |answer: Option<&'static [u8]>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            match answer {
                Some(answer) => stream.write_all(answer).unwrap(),
                // Silence, until the other side gives up.
                None => while stream.read(&mut [0; 1024]).is_ok_and(|bytes| bytes > 0) {},
            }
        });
        port
    };
    for (answer, expected) in [
        (None, "did not answer in time (TLS)"),
        (Some(&b""[..]), "hung up during the handshake"),
        (Some(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]), "it does not speak TLS on this port"),
    ] {
        let url = format!("amqps://127.0.0.1:{}/muster", serve(answer));
        let settings = AmqpSettings {
            connect_timeout: Duration::from_secs(1),
            ..settings(&url, &member.credentials, site.trust())
        };
        let error = refused(settings).await;
        assert!(error.to_string().contains(expected), "{error}");
    }
}

fn message(key: &str, body: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        exchange: "cmd",
        routing_key: key.to_owned(),
        content_type: "text/plain".to_owned(),
        body: body.into(),
        signatures: Bytes::new(),
        expiration_ms: None,
        persistent: true,
        mandatory: true,
        correlation_id: None,
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what}: nothing happened"))
}

/// A node of one test's own, with one agent and one controller.
struct Scene {
    node: Node,
    site: &'static Site,
}

impl Scene {
    fn start() -> Self {
        let site = pki::site();
        let options = NodeOptions {
            identities: BTreeSet::from(["host/web1".parse().unwrap(), "user/lea".parse().unwrap()]),
            ..NodeOptions::new(site.broker().server_certificate())
        };
        Self { node: Node::start(options).unwrap(), site }
    }

    fn settings(&self, name: &str) -> AmqpSettings {
        settings(&self.node.url("muster"), &self.site.member(name).credentials, self.site.trust())
    }

    async fn agent(&self) -> (Arc<dyn Link>, Consumer) {
        let link = connect(self.settings("host/web1")).await.unwrap();
        link.declare_queue(QueueSpec::durable("agent.web1")).await.unwrap();
        link.bind("agent.web1", "cmd", "host.web1").await.unwrap();
        let consumer = link.consume("agent.web1", ConsumeOptions { prefetch: 10, exclusive: false }).await.unwrap();
        (link, consumer)
    }

    async fn controller(&self) -> Arc<dyn Link> {
        let limit = Duration::from_secs(5);
        connect(AmqpSettings { operation_timeout: limit, ..self.settings("user/lea") }).await.unwrap()
    }
}

#[tokio::test]
async fn a_broker_that_restarts_loses_nothing_that_was_confirmed() {
    let scene = Scene::start();
    let (link, mut consumer) = scene.agent().await;
    let lea = scene.controller().await;
    lea.publish(message("host.web1", "1"), Guarantee::Confirmed).await.unwrap();
    let delivery = within("a delivery", consumer.next()).await.unwrap();
    scene.node.stop().unwrap();
    for link in [&link, &lea] {
        let reason = within("the end", link.closed()).await;
        assert!(matches!(reason, CloseReason::ByBroker { code: 320, .. } | CloseReason::Lost { .. }), "{reason:?}");
    }
    while within("the consumer's end", consumer.next()).await.is_some() {}
    assert!(matches!(consumer.ended(), ConsumerEnd::ConnectionLost | ConsumerEnd::CancelledByBroker));
    assert!(matches!(delivery.ack().await, Err(BusError::Closed(_))));
    match lea.publish(message("host.web1", "2"), Guarantee::Confirmed).await {
        Err(error @ PublishError::Bus(BusError::Closed(_))) => assert!(!error.may_have_arrived()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(refused(scene.settings("host/web1")).await, BusError::Unreachable { .. }));
    scene.node.resume().unwrap();
    let (_link, mut consumer) = scene.agent().await;
    let delivery = within("the delivery again", consumer.next()).await.unwrap();
    assert_eq!((delivery.body.as_ref(), delivery.redelivered), (&b"1"[..], true));
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn a_broker_in_trouble_is_noticed() {
    let scene = Scene::start();
    let (_link, mut consumer) = scene.agent().await;
    let lea = scene.controller().await;

    // No memory: publishers wait, and learn why.
    scene.node.ctl(&["set_vm_memory_high_watermark", "0.00001"]).unwrap();
    let mut last = None;
    for _ in 0..10 {
        match lea.publish(message("host.web1", "blocked"), Guarantee::Confirmed).await {
            // The alarm may come a moment later.
            Ok(()) => {}
            Err(error) => {
                last = Some(error);
                break;
            }
        }
    }
    match last {
        Some(error @ PublishError::Blocked { .. }) => {
            assert!(error.to_string().contains("low on memory"), "{error}");
            assert!(error.is_transient());
        }
        other => panic!("{other:?}"),
    }
    scene.node.ctl(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
    within("an unblocked publish", async {
        while let Err(error) = lea.publish(message("host.web1", "after"), Guarantee::Confirmed).await {
            assert!(error.is_transient(), "{error}");
        }
    })
    .await;
    loop {
        let delivery = within("a delivery", consumer.next()).await.unwrap();
        delivery.ack().await.unwrap();
        if delivery.body.as_ref() == b"after" {
            break;
        }
    }

    // A message that is larger than the protocol allows, from a program that is not ours.
    let lea_member = scene.site.member("user/lea");
    let plain = amqp::connect(&scene.node.url("muster"), &lea_member, &scene.site.trust()).await.unwrap();
    let channel = plain.create_channel().await.unwrap();
    let large = vec![b'x'; BODY_BYTES_MAX + 1];
    amqp::publish(&channel, "cmd", "host.web1", BasicProperties::default(), &large).await.unwrap();
    let delivery = within("the large delivery", consumer.next()).await.unwrap();
    assert_eq!((delivery.oversized, delivery.body.len()), (Some(BODY_BYTES_MAX + 1), 0));
    assert_eq!(delivery.sender, None);
    delivery.reject().await.unwrap();

    // It stops answering altogether: only the heartbeat can tell. The fastest one is for this alone, since
    // `rabbitmqctl` holds up this thread for longer than it allows.
    let link = connect(AmqpSettings { heartbeat_s: 1, ..scene.settings("host/web1") }).await.unwrap();
    let group = Pid::from_raw(i32::try_from(scene.node.pid().unwrap()).unwrap());
    killpg(group, Signal::SIGSTOP).unwrap();
    let reason = within("the missing heartbeat", link.closed()).await;
    let unconfirmed = lea.publish(message("host.web1", "frozen"), Guarantee::Confirmed).await;
    within("closing without an answer", lea.close()).await;
    killpg(group, Signal::SIGCONT).unwrap();
    assert_eq!(reason, CloseReason::HeartbeatMissed);
    match unconfirmed {
        Err(error @ PublishError::Unconfirmed { .. }) => assert!(error.may_have_arrived() && error.is_transient()),
        other => panic!("{other:?}"),
    }
    assert_eq!(lea.closed().await, CloseReason::Requested);
}
