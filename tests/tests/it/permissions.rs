//! Each thing a host or a user must not be able to do on the broker, and what they must.
//!
//! The same table is asked of each real broker, over TLS and with a plain AMQP client, and of
//! `Permissions::allows`, so that our description and a broker's behaviour cannot drift apart.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};
use muster_broker_config::{Operation, permissions_for};
use muster_protocol::Identity;
use muster_tests::broker::{Kind, TestBus};
use muster_tests::pki::Site;
use rustls::{ClientConfig, RootCertStore};

use super::BROKER;
use crate::amqp::{connect, connect_with, perform, publish, reply_code};

const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

/// Everything here is on loopback; a broker that needs longer than this has stopped.
const PATIENCE: Duration = Duration::from_secs(30);

struct Row {
    name: &'static str,
    who: &'static str,
    operation: Operation<'static>,
    allowed: bool,
}

fn may(name: &'static str, who: &'static str, operation: Operation<'static>) -> Row {
    Row { name, who, operation, allowed: true }
}

fn must_not(name: &'static str, who: &'static str, operation: Operation<'static>) -> Row {
    Row { name, who, operation, allowed: false }
}

const ALPHA: &str = "host/alpha.example.com";
const BETA: &str = "host/beta.example.com";
const LEA: &str = "user/lea";
const TOM: &str = "user/tom";
const JOBS: &str = "service/jobs";

const ALPHA_QUEUE: &str = "agent.alpha.example.com";
const BETA_QUEUE: &str = "agent.beta.example.com";
const LEA_QUEUE: &str = "reply.user/lea.s1";
const TOM_QUEUE: &str = "reply.user/tom.s1";
const JOBS_QUEUE: &str = "reply.service/jobs.s1";

/// In this order: what later rows attack exists by then, and one's own things are deleted last.
fn table() -> Vec<Row> {
    use Operation::{
        Bind, BindExchange, Consume, DeclareExchange, DeclareQueue, DeclareQueueDeadLettering, DeleteExchange,
        DeleteQueue, Publish, PurgeQueue,
    };
    let lea_from_alpha = "user/lea.s1.alpha.example.com";
    let lea_from_beta = "user/lea.s1.beta.example.com";
    vec![
        may("a host declares its queue", ALPHA, DeclareQueue { queue: ALPHA_QUEUE }),
        may("another host declares its queue", BETA, DeclareQueue { queue: BETA_QUEUE }),
        may("a user declares a reply queue", LEA, DeclareQueue { queue: LEA_QUEUE }),
        may("another user declares a reply queue", TOM, DeclareQueue { queue: TOM_QUEUE }),
        may("a service declares a reply queue", JOBS, DeclareQueue { queue: JOBS_QUEUE }),
        // What a host does.
        may("host binds all", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "all" }),
        may("host binds a collective", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "collective.main" }),
        may("host binds itself", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "host.alpha.example.com" }),
        may("host consumes its queue", ALPHA, Consume { queue: ALPHA_QUEUE }),
        may("host answers a user", ALPHA, Publish { exchange: "reply", key: lea_from_alpha }),
        may("host answers a service", ALPHA, Publish { exchange: "reply", key: "service/jobs.s1.alpha.example.com" }),
        may("host announces itself", ALPHA, Publish { exchange: "reply", key: "presence.alpha.example.com" }),
        // What a controller does.
        may("user binds its answers", LEA, Bind { queue: LEA_QUEUE, exchange: "reply", key: "user/lea.s1.#" }),
        may("user consumes its answers", LEA, Consume { queue: LEA_QUEUE }),
        may("user commands everybody", LEA, Publish { exchange: "cmd", key: "all" }),
        may("user commands a collective", LEA, Publish { exchange: "cmd", key: "collective.main" }),
        may("user commands a host", LEA, Publish { exchange: "cmd", key: "host.beta.example.com" }),
        may("service hears presence", JOBS, Bind { queue: JOBS_QUEUE, exchange: "reply", key: "presence.#" }),
        // A host gives no commands.
        must_not("host commands everybody", ALPHA, Publish { exchange: "cmd", key: "all" }),
        must_not("host commands a collective", ALPHA, Publish { exchange: "cmd", key: "collective.main" }),
        must_not("host commands another", ALPHA, Publish { exchange: "cmd", key: "host.beta.example.com" }),
        must_not("host commands itself", ALPHA, Publish { exchange: "cmd", key: "host.alpha.example.com" }),
        must_not("host commands with an empty key", ALPHA, Publish { exchange: "cmd", key: "" }),
        must_not("host writes into another's queue", ALPHA, Publish { exchange: "", key: BETA_QUEUE }),
        must_not("host writes into a user's queue", ALPHA, Publish { exchange: "", key: LEA_QUEUE }),
        must_not("host uses another exchange", ALPHA, Publish { exchange: "amq.topic", key: "x" }),
        // A host hears nothing that is not for it.
        must_not(
            "host binds another host's key",
            ALPHA,
            Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "host.beta.example.com" },
        ),
        must_not("host binds all hosts", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "host.#" }),
        must_not("host binds everything", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "#" }),
        must_not(
            "host binds all collectives",
            ALPHA,
            Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "collective.*" },
        ),
        must_not(
            "host binds below collectives",
            ALPHA,
            Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "collective.#" },
        ),
        must_not("host binds the answers", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "reply", key: "#" }),
        must_not(
            "host binds a user's answers",
            ALPHA,
            Bind { queue: ALPHA_QUEUE, exchange: "reply", key: "user/lea.s1.#" },
        ),
        must_not("host binds presence", ALPHA, Bind { queue: ALPHA_QUEUE, exchange: "reply", key: "presence.#" }),
        must_not("host consumes another's queue", ALPHA, Consume { queue: BETA_QUEUE }),
        must_not("host consumes a user's queue", ALPHA, Consume { queue: LEA_QUEUE }),
        // A host owns one queue and nothing else.
        must_not("host declares another's queue", ALPHA, DeclareQueue { queue: "agent.gamma.example.com" }),
        must_not("host declares a longer name", ALPHA, DeclareQueue { queue: "agent.alpha.example.com.x" }),
        must_not("host declares with a wrong dot", ALPHA, DeclareQueue { queue: "agent.alphaxexample.com" }),
        must_not("host declares a reply queue", ALPHA, DeclareQueue { queue: "reply.host/alpha.s1" }),
        must_not("host declares a nameless queue", ALPHA, DeclareQueue { queue: "" }),
        must_not("host deletes another's queue", ALPHA, DeleteQueue { queue: BETA_QUEUE }),
        must_not("host deletes a user's queue", ALPHA, DeleteQueue { queue: LEA_QUEUE }),
        must_not("host purges another's queue", ALPHA, PurgeQueue { queue: BETA_QUEUE }),
        must_not("host declares an exchange", ALPHA, DeclareExchange { exchange: "mine" }),
        must_not("host declares ours anew", ALPHA, DeclareExchange { exchange: "cmd" }),
        must_not("host deletes cmd", ALPHA, DeleteExchange { exchange: "cmd" }),
        must_not("host deletes reply", ALPHA, DeleteExchange { exchange: "reply" }),
        must_not(
            "host copies answers into commands",
            ALPHA,
            BindExchange { destination: "cmd", source: "reply", key: "#" },
        ),
        // A host answers in its own name only.
        must_not("host answers for another", ALPHA, Publish { exchange: "reply", key: lea_from_beta }),
        must_not("host announces another", ALPHA, Publish { exchange: "reply", key: "presence.beta.example.com" }),
        must_not(
            "host answers with a longer name",
            ALPHA,
            Publish { exchange: "reply", key: "user/lea.s1.x.alpha.example.com" },
        ),
        must_not("host answers without a name", ALPHA, Publish { exchange: "reply", key: "user/lea.s1" }),
        must_not("host answers with an empty key", ALPHA, Publish { exchange: "reply", key: "" }),
        must_not(
            "host answers with a newline",
            ALPHA,
            Publish { exchange: "reply", key: "user/lea.s1.alpha.example.com\n" },
        ),
        // A user hears nobody else's answers.
        must_not(
            "user binds another's answers",
            LEA,
            Bind { queue: LEA_QUEUE, exchange: "reply", key: "user/tom.s1.#" },
        ),
        must_not("user binds every answer", LEA, Bind { queue: LEA_QUEUE, exchange: "reply", key: "#" }),
        must_not("user binds every session", LEA, Bind { queue: LEA_QUEUE, exchange: "reply", key: "user/lea.*.#" }),
        must_not("user binds presence", LEA, Bind { queue: LEA_QUEUE, exchange: "reply", key: "presence.#" }),
        must_not(
            "user binds a service's answers",
            LEA,
            Bind { queue: LEA_QUEUE, exchange: "reply", key: "service/jobs.s1.#" },
        ),
        must_not(
            "service binds a user's answers",
            JOBS,
            Bind { queue: JOBS_QUEUE, exchange: "reply", key: "user/lea.s1.#" },
        ),
        must_not("user consumes another's answers", LEA, Consume { queue: TOM_QUEUE }),
        must_not("user binds another's queue", LEA, Bind { queue: TOM_QUEUE, exchange: "reply", key: "user/lea.s1.#" }),
        must_not("user deletes another's queue", LEA, DeleteQueue { queue: TOM_QUEUE }),
        must_not("user purges another's queue", LEA, PurgeQueue { queue: TOM_QUEUE }),
        must_not("user declares another's queue", LEA, DeclareQueue { queue: "reply.user/tom.s2" }),
        // A user hears no commands and answers none.
        must_not("user reads a host's queue", LEA, Consume { queue: ALPHA_QUEUE }),
        must_not("user purges a host's queue", LEA, PurgeQueue { queue: ALPHA_QUEUE }),
        must_not("user deletes a host's queue", LEA, DeleteQueue { queue: ALPHA_QUEUE }),
        must_not("user declares a host's queue", LEA, DeclareQueue { queue: "agent.gamma.example.com" }),
        must_not("user binds commands", LEA, Bind { queue: LEA_QUEUE, exchange: "cmd", key: "all" }),
        must_not("user answers", LEA, Publish { exchange: "reply", key: lea_from_alpha }),
        must_not("user announces a host", LEA, Publish { exchange: "reply", key: "presence.alpha.example.com" }),
        must_not("user writes into a host's queue", LEA, Publish { exchange: "", key: ALPHA_QUEUE }),
        must_not("user commands with an unknown key", LEA, Publish { exchange: "cmd", key: "everybody" }),
        must_not("user commands with an empty key", LEA, Publish { exchange: "cmd", key: "" }),
        must_not("user declares an exchange", LEA, DeclareExchange { exchange: "mine" }),
        must_not("user deletes cmd", LEA, DeleteExchange { exchange: "cmd" }),
        must_not(
            "user sends dead letters as answers",
            LEA,
            DeclareQueueDeadLettering { queue: "reply.user/lea.s3", exchange: "reply" },
        ),
        // Through the gaps that RabbitMQ's model leaves; docs/book/src/broker.md says why they are harmless.
        may(
            "host feeds commands into answers",
            ALPHA,
            BindExchange { destination: "reply", source: "cmd", key: "all" },
        ),
        may(
            "user feeds its answers into commands",
            LEA,
            BindExchange { destination: "cmd", source: "reply", key: "user/lea.s1.#" },
        ),
        // And at the end each may put its own things away.
        may("host purges its queue", ALPHA, PurgeQueue { queue: ALPHA_QUEUE }),
        may("host deletes its queue", ALPHA, DeleteQueue { queue: ALPHA_QUEUE }),
        must_not(
            "host sends dead letters as commands",
            ALPHA,
            DeclareQueueDeadLettering { queue: ALPHA_QUEUE, exchange: "cmd" },
        ),
        may(
            "host dead-letters into answers",
            ALPHA,
            DeclareQueueDeadLettering { queue: ALPHA_QUEUE, exchange: "reply" },
        ),
        may("user deletes its queue", LEA, DeleteQueue { queue: LEA_QUEUE }),
    ]
}

fn identity(name: &str) -> Identity {
    name.parse().expect("an identity")
}

async fn log_in(bus: &TestBus, name: &str) -> Connection {
    let (member, trust) = (bus.site.member(name), bus.site.trust());
    let login =
        tokio::time::timeout(PATIENCE, connect(&bus.urls[0], &member, &trust)).await.expect("the broker answers");
    login.unwrap_or_else(|error| panic!("{name} logs in: {error}"))
}

#[test]
fn our_description_says_the_same() {
    for row in table() {
        let permissions = permissions_for(&identity(row.who)).expect("it may log in");
        assert_eq!(permissions.allows(&row.operation), row.allowed, "{}: {:?}", row.name, row.operation);
    }
}

#[tokio::test]
async fn the_broker_allows_exactly_what_is_described() {
    let bus = BROKER.bus([ALPHA, BETA, LEA, TOM, JOBS]);
    let mut wrong = Vec::new();
    for row in table() {
        // A connection for each row, so that no answer can be mistaken for another row's.
        let connection = log_in(&bus, row.who).await;
        let outcome = match tokio::time::timeout(PATIENCE, perform(&connection, &row.operation)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((reply_code(&error), error.to_string())),
            Err(_) => Some((None, "no answer".to_owned())),
        };
        if let (Kind::Embedded, Operation::DeclareQueueDeadLettering { .. }) = (BROKER, &row.operation) {
            // There are no dead letters, so nobody may have them.
            let refused = matches!(&outcome, Some((Some(NOT_IMPLEMENTED | ACCESS_REFUSED), _)));
            wrong.extend((!refused).then(|| format!("{}: outcome {outcome:?}", row.name)));
            continue;
        }
        let as_expected = match &outcome {
            None => row.allowed,
            Some((code, text)) => !row.allowed && *code == Some(ACCESS_REFUSED) && text.contains("access to "),
        };
        if !as_expected {
            wrong.push(format!("{}: expected allowed = {}, outcome {outcome:?}", row.name, row.allowed));
        }
        connection.close(200, "done".into()).await.expect("the connection closes");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_command_and_its_answer_cross_and_the_sender_is_the_brokers_word() {
    let bus = BROKER.bus([ALPHA, LEA]);
    let (alpha, lea) = (log_in(&bus, ALPHA).await, log_in(&bus, LEA).await);
    for (connection, operation) in [
        (&alpha, Operation::DeclareQueue { queue: ALPHA_QUEUE }),
        (&alpha, Operation::Bind { queue: ALPHA_QUEUE, exchange: "cmd", key: "all" }),
        (&lea, Operation::DeclareQueue { queue: LEA_QUEUE }),
        (&lea, Operation::Bind { queue: LEA_QUEUE, exchange: "reply", key: "user/lea.s1.#" }),
    ] {
        perform(connection, &operation).await.expect("it is allowed");
    }
    for (from, user, exchange, key, to, queue) in [
        (&lea, "muster:user/lea", "cmd", "all", &alpha, ALPHA_QUEUE),
        (&alpha, "muster:host/alpha.example.com", "reply", "user/lea.s1.alpha.example.com", &lea, LEA_QUEUE),
    ] {
        let sender = from.create_channel().await.expect("a channel");
        let properties = BasicProperties::default().with_user_id(user.into());
        publish(&sender, exchange, key, properties, b"hello").await.expect("published");

        let receiver = to.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions::default();
        let consumer = receiver.basic_consume(queue.into(), "test".into(), options, FieldTable::default()).await;
        let mut consumer = consumer.expect("a consumer");
        let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it arrives");
        let delivery = delivery.expect("the consumer is alive").expect("a delivery");
        assert_eq!(delivery.data, b"hello");
        assert_eq!(delivery.routing_key.as_str(), key);
        assert_eq!(delivery.properties.user_id().as_ref().map(|user| user.as_str()), Some(user));
        delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
    }
}

#[tokio::test]
async fn nobody_sends_in_another_users_name() {
    let bus = BROKER.bus([ALPHA, LEA]);
    for (name, forged, exchange, key) in [
        (LEA, "muster:user/tom", "cmd", "all"),
        (LEA, "muster:service/jobs", "cmd", "all"),
        (ALPHA, "muster:host/beta.example.com", "reply", "user/lea.s1.alpha.example.com"),
    ] {
        let channel = log_in(&bus, name).await.create_channel().await.expect("a channel");
        let properties = BasicProperties::default().with_user_id(forged.into());
        let error = publish(&channel, exchange, key, properties, b"x").await.expect_err("refused");
        assert_eq!(reply_code(&error), Some(PRECONDITION_FAILED), "{name} as {forged}: {error}");
    }
}

/// Tries to log in, and gives the AMQP reply code or the text of another error.
async fn refusal(url: &str, mechanism: &str, tls: Arc<ClientConfig>) -> Result<u16, String> {
    let login = tokio::time::timeout(PATIENCE, connect_with(url, mechanism, tls)).await.expect("the broker answers");
    match login {
        Ok(_) => panic!("the login succeeded"),
        Err(error) => reply_code(&error).ok_or_else(|| error.to_string()),
    }
}

fn tls_of(site: &Site, name: &str) -> Arc<ClientConfig> {
    muster_pki::tls::client_config(&site.member(name).credentials, &BROKER.site().trust()).expect("a TLS configuration")
}

fn tls_without_certificate() -> Arc<ClientConfig> {
    muster_pki::tls::install_crypto_provider();
    let mut roots = RootCertStore::empty();
    for authority in BROKER.site().trust().authorities() {
        roots.add(authority.der().to_vec().into()).expect("a CA certificate");
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn only_a_known_certificate_logs_in() {
    let bus = BROKER.bus([LEA]);
    let url = &bus.urls[0];
    let site = BROKER.site();

    let unknown = refusal(url, "external", tls_of(site, "user/nobody")).await;
    assert_eq!(unknown, Ok(ACCESS_REFUSED), "a certificate of ours without a user");

    let guest = url.replace("amqps://", "amqps://guest:guest@");
    for mechanism in ["plain", "amqplain"] {
        let password = refusal(&guest, mechanism, tls_of(site, LEA)).await;
        assert!(
            password.is_err() || password == Ok(ACCESS_REFUSED) || password == Ok(503),
            "{mechanism}: {password:?}"
        );
    }

    let none = refusal(url, "external", tls_without_certificate()).await.expect_err("TLS ends it");
    assert!(none.contains("CertificateRequired"), "{none}");

    let stranger = Site::new().expect("another CA");
    let other = refusal(url, "external", tls_of(&stranger, LEA)).await.expect_err("TLS ends it");
    assert!(other.contains("UnknownCA"), "{other}");

    let broker = refusal(url, "external", {
        muster_pki::tls::client_config(&site.broker().credentials, &site.trust()).expect("a TLS configuration")
    });
    let broker = broker.await;
    assert!(broker.is_err() || broker == Ok(ACCESS_REFUSED), "a broker's certificate as a login: {broker:?}");
}

#[tokio::test]
async fn a_user_enters_only_its_virtual_host() {
    let (mine, theirs) = (BROKER.bus([LEA]), BROKER.bus([TOM]));
    log_in(&mine, LEA).await;
    let refused = refusal(&theirs.urls[0], "external", tls_of(BROKER.site(), LEA)).await;
    // A process of the embedded broker has one virtual host: who is not let into it is not let in at all.
    let code = if BROKER == Kind::Embedded { ACCESS_REFUSED } else { NOT_ALLOWED };
    assert_eq!(refused, Ok(code));
    let missing = refusal(&mine.url_of("no-such"), "external", tls_of(BROKER.site(), LEA)).await;
    assert_eq!(missing, Ok(NOT_ALLOWED));
}

#[tokio::test]
async fn a_revoked_identity_is_thrown_out_and_stays_out() {
    let name = "host/revoked.example.com";
    let bus = BROKER.bus([name]);
    let connection = log_in(&bus, name).await;
    bus.expel(&identity(name)).expect("it is taken out");
    wait_until("the broker closes the connection", || !connection.status().connected()).await;
    let again = refusal(&bus.urls[0], "external", tls_of(BROKER.site(), name)).await;
    assert_eq!(again, Ok(ACCESS_REFUSED));

    bus.let_in([name]);
    log_in(&bus, name).await;
}

/// Waits for a condition that somebody else brings about.
async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn plain_tcp_gets_no_amqp() {
    let bus = BROKER.bus([LEA]);
    let mut stream = TcpStream::connect(("127.0.0.1", bus.port())).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(b"AMQP\x00\x00\x09\x01").expect("sent");
    let mut answer = Vec::new();
    // Whether the connection is closed or reset is the broker's choice.
    stream.read_to_end(&mut answer).ok();
    // A TLS alert begins with 21 and an AMQP method frame with 1.
    assert!(answer.first() != Some(&1), "AMQP without TLS: {answer:?}");
    let listeners = bus.listeners().expect("the status");
    assert!(!listeners.iter().any(|listener| listener == "amqp"), "{listeners:?}");
    assert!(listeners.iter().any(|listener| listener == "amqp/ssl"), "{listeners:?}");
}
