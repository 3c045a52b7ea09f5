//! The AMQP bus against a real broker.

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
use muster_protocol::limits::BODY_BYTES_MAX;
use muster_protocol::routing::{
    EXCHANGE_COMMAND, EXCHANGE_REPLY, KEY_ALL, agent_queue, host_key, reply_binding, reply_key, reply_queue,
};
use muster_protocol::{HostName, Identity, ReplyRoute};
use muster_tests::broker::{Broker, Kind, Shortage, TestBus, url};
use muster_tests::pki::Site;
use nix::sys::signal::Signal;

use super::BROKER;
use crate::amqp;
use crate::no_broker::{connect, free_port, refused, settings};

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(60);

/// A case's part of the shared broker: its own identities in a virtual host that all cases share.
struct Part {
    bus: Arc<TestBus>,
    case: usize,
}

fn identity(role: &str, case: usize) -> Identity {
    let suffix = if role.starts_with("host/") { ".example.com" } else { "" };
    format!("{role}-{case}{suffix}").parse().unwrap()
}

impl Part {
    /// What an operator does, on a thread that may wait.
    fn operate(&self, work: impl FnOnce(&TestBus) -> anyhow::Result<()> + Send + 'static) -> BoxFuture<'_, ()> {
        let bus = Arc::clone(&self.bus);
        async move { tokio::task::spawn_blocking(move || work(&bus)).await.unwrap().unwrap() }.boxed()
    }
}

impl Fixture for Part {
    fn identity(&self, role: &str) -> Identity {
        identity(role, self.case)
    }

    fn bus(&self, identity: &Identity) -> Arc<dyn Bus> {
        let member = self.bus.site.member(&identity.short());
        Arc::new(AmqpBus::new(settings(&self.bus.urls[0], &member.credentials, self.bus.site.trust())))
    }

    fn disconnect<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, ()> {
        let identity = identity.clone();
        self.operate(move |bus| bus.close_connections(Some(&identity), "cut by the test"))
    }

    fn delete_queue<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        let name = name.to_owned();
        self.operate(move |bus| bus.delete_queue(&name))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_keeps_the_contract() {
    let names: Vec<String> =
        (0..CASES.len()).flat_map(|case| ROLES.iter().map(move |role| identity(role, case).short())).collect();
    let bus = Arc::new(BROKER.bus(names.iter().map(String::as_str)));
    let failed: Vec<&str> = futures_util::stream::iter(CASES.iter().enumerate())
        .map(|(case, (name, run))| {
            let fixture = Part { bus: Arc::clone(&bus), case };
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
    let bus = Arc::new(BROKER.bus(names.iter().map(String::as_str)));
    for (case, (name, run)) in chosen.zip(CASES) {
        eprintln!("{name}");
        run(&Part { bus: Arc::clone(&bus), case }).await;
    }
}

/// As an agent connects: what it takes and what it says without confirms share one channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_channel_is_enough_for_an_agent() {
    let names = ["host/one-channel.example.com", "host/other-channel.example.com", "user/one-channel"];
    let bus = Arc::new(BROKER.bus(names.into_iter()));
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
    let own = names[0].parse().unwrap();
    let channels = tokio::task::block_in_place(|| bus.channels_of(&own)).unwrap();
    assert_eq!(channels, [1]);

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
    let bus = Arc::new(BROKER.bus(["host/one-go.example.com"].into_iter()));
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

#[tokio::test]
async fn the_next_broker_is_tried_when_one_is_down() {
    let bus = BROKER.bus(["user/lea"]);
    let member = bus.site.member("user/lea");
    for _ in 0..4 {
        let mut settings = settings(&bus.urls[0], &member.credentials, bus.site.trust());
        settings.urls.push(BrokerUrl::new("127.0.0.1", free_port(), "muster"));
        connect(settings).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn a_certificate_that_the_broker_does_not_take_is_ours_to_renew() {
    let bus = BROKER.bus(["user/lea"]);
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
    let bus = BROKER.bus(["user/lea"]);
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
    let elsewhere = BROKER.bus(["user/max"]);
    for url in [&elsewhere.urls[0], &bus.url_of("no-such-vhost")] {
        let error = refused(settings(url, &lea.credentials, bus.site.trust())).await;
        if BROKER == Kind::Embedded && *url == elsewhere.urls[0] {
            // It has one virtual host: who is not let into it is not let in at all.
            assert_eq!(error.code(), "broker-login-refused");
            continue;
        }
        match &error {
            BusError::Rejected { problem: LoginProblem::Vhost { vhost, .. }, .. } => {
                assert!(url.ends_with(vhost.as_str()), "{vhost}");
            }
            error => panic!("{error:?}"),
        }
        assert_eq!(error.code(), "broker-vhost-refused");
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
    broker: Box<dyn Broker>,
    site: &'static Site,
}

impl Scene {
    fn start() -> Self {
        let site = BROKER.site();
        let options = BROKER.options().admitting(["host/web1", "user/lea"]);
        Self { broker: BROKER.start(options).unwrap(), site }
    }

    fn settings(&self, name: &str) -> AmqpSettings {
        settings(&url(self.broker.port(), "muster"), &self.site.member(name).credentials, self.site.trust())
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
    scene.broker.stop().unwrap();
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
    scene.broker.resume().unwrap();
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
    scene.broker.starve(Shortage::Memory).unwrap();
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
    scene.broker.feed(Shortage::Memory).unwrap();
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
    let plain = amqp::connect(&url(scene.broker.port(), "muster"), &lea_member, &scene.site.trust()).await.unwrap();
    let channel = plain.create_channel().await.unwrap();
    let large = vec![b'x'; BODY_BYTES_MAX + 1];
    amqp::publish(&channel, "cmd", "host.web1", BasicProperties::default(), &large).await.unwrap();
    let delivery = within("the large delivery", consumer.next()).await.unwrap();
    assert_eq!((delivery.oversized, delivery.body.len()), (Some(BODY_BYTES_MAX + 1), 0));
    assert_eq!(delivery.sender, None);
    delivery.reject().await.unwrap();

    // It stops answering altogether: only the heartbeat can tell. The fastest one is for this alone, since
    // an operator's command holds up this thread for longer than it allows.
    let link = connect(AmqpSettings { heartbeat_s: 1, ..scene.settings("host/web1") }).await.unwrap();
    scene.broker.signal(Signal::SIGSTOP).unwrap();
    let reason = within("the missing heartbeat", link.closed()).await;
    let unconfirmed = lea.publish(message("host.web1", "frozen"), Guarantee::Confirmed).await;
    within("closing without an answer", lea.close()).await;
    scene.broker.signal(Signal::SIGCONT).unwrap();
    assert_eq!(reason, CloseReason::HeartbeatMissed);
    match unconfirmed {
        Err(error @ PublishError::Unconfirmed { .. }) => assert!(error.may_have_arrived() && error.is_transient()),
        other => panic!("{other:?}"),
    }
    assert_eq!(lea.closed().await, CloseReason::Requested);
}
