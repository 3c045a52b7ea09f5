//! The behaviours that every bus must show: one suite for [`MemoryBus`](crate::MemoryBus) and for RabbitMQ.
//!
//! A test gives each of [`CASES`] a fresh [`Fixture`] and awaits it; a case panics with what it saw
//! instead. Cases use only what Muster's broker permissions allow, except where they show that the rest is refused.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use muster_protocol::limits::{BODY_BYTES_MAX, SIGNATURES_BYTES_MAX};
use muster_protocol::routing::{self, EXCHANGE_COMMAND, EXCHANGE_REPLY};
use muster_protocol::{HostName, Identity, ReplyRoute};

use crate::{
    Bus, BusError, CloseReason, ConsumeOptions, Consumer, ConsumerEnd, Delivery, Guarantee, Link, Outgoing,
    PublishError, QueueSpec,
};

/// A broker of one case's own, and the hands of its operator.
pub trait Fixture: Send + Sync {
    /// The identity that stands for `host/web1`, `host/web2`, `user/lea` or `user/max` in this case.
    fn identity(&self, role: &str) -> Identity;

    /// A bus as this identity. The broker knows it and gives it Muster's permissions.
    fn bus(&self, identity: &Identity) -> Arc<dyn Bus>;

    /// Breaks all connections of an identity from the broker's side.
    fn disconnect<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, ()>;

    /// Deletes a queue.
    fn delete_queue<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()>;
}

/// A case: its name and what it does.
pub type Case = (&'static str, for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, ()>);

/// The roles a fixture must know.
pub const ROLES: &[&str] = &["host/web1", "host/web2", "user/lea", "user/max"];

macro_rules! cases {
    ($($name:ident)*) => {
        /// All cases.
        pub const CASES: &[Case] = &[$((stringify!($name), |fixture| $name(fixture).boxed())),*];
    };
}

cases! {
    a_message_arrives_as_it_was_sent
    a_message_that_reaches_nobody_comes_back
    each_of_many_messages_in_flight_gets_its_own_answer
    messages_of_one_sender_arrive_in_order
    unconfirmed_messages_arrive
    the_largest_message_arrives_and_a_larger_one_is_not_sent
    prefetch_bounds_what_is_delivered_ahead
    acknowledging_through_covers_what_came_before
    acknowledgements_that_are_given_up_keep_their_order
    a_rejected_message_is_gone_and_a_requeued_one_comes_again
    what_was_not_acknowledged_comes_again_after_the_connection_broke
    closing_gives_back_what_was_not_acknowledged
    a_dropped_consumer_leaves_its_messages_to_the_next
    a_deleted_queue_ends_its_consumer_and_nothing_else
    an_expired_message_is_not_delivered
    binding_and_unbinding_take_effect_and_may_be_repeated
    an_exclusive_queue_goes_with_its_connection
    a_refused_operation_fails_alone
    a_refused_message_fails_alone
    what_does_not_exist_is_not_found
    a_queue_in_other_use_is_a_conflict
    two_connections_of_one_identity_are_apart
}

/// The longest that anything may take here; a busy machine is slow, a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened for {} s", LIMIT.as_secs()),
    }
}

/// One identity with one connection.
struct Party<'a> {
    fixture: &'a dyn Fixture,
    identity: Identity,
    link: Arc<dyn Link>,
}

impl<'a> Party<'a> {
    async fn connect(fixture: &'a dyn Fixture, role: &str) -> Self {
        let identity = fixture.identity(role);
        let bus = fixture.bus(&identity);
        let link = soon("connecting", bus.connect()).await;
        let link = link.unwrap_or_else(|error| panic!("{role} connects to {}: {error}", bus.describe()));
        Self { fixture, identity, link }
    }

    /// A host with its queue, bound to its own key.
    async fn agent(fixture: &'a dyn Fixture, role: &str) -> Self {
        let party = Self::connect(fixture, role).await;
        party.declare().await;
        party
    }

    async fn declare(&self) {
        let queue = self.queue();
        done("declare", self.link.declare_queue(QueueSpec::durable(&queue))).await;
        done("bind", self.link.bind(&queue, EXCHANGE_COMMAND, &self.key())).await;
    }

    fn host(&self) -> HostName {
        match &self.identity {
            Identity::Host(host) => host.clone(),
            other => panic!("{other} is no host"),
        }
    }

    fn queue(&self) -> String {
        routing::agent_queue(&self.host())
    }

    fn key(&self) -> String {
        routing::host_key(&self.host())
    }

    fn route(&self, session: &str) -> ReplyRoute {
        let session = session.parse().expect("a session's name");
        ReplyRoute::new(self.identity.clone(), session).expect("a controller")
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Consumer {
        done("consume", self.link.consume(queue, ConsumeOptions { prefetch, exclusive: false })).await
    }

    async fn send(&self, message: Outgoing) -> Result<(), PublishError> {
        soon("publish", self.link.publish(message, Guarantee::Confirmed)).await
    }
}

async fn done<T>(what: &str, operation: impl Future<Output = Result<T, BusError>>) -> T {
    soon(what, operation).await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

async fn fails<T>(what: &str, operation: impl Future<Output = Result<T, BusError>>) -> BusError {
    match soon(what, operation).await {
        Ok(_) => panic!("{what}: allowed"),
        Err(error) => error,
    }
}

fn message(exchange: &'static str, key: &str, body: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        exchange,
        routing_key: key.to_owned(),
        content_type: "application/vnd.muster.command.v1+json".to_owned(),
        body: body.into(),
        signatures: Bytes::from_static(b"[]"),
        expiration_ms: None,
        persistent: true,
        mandatory: true,
        correlation_id: None,
    }
}

/// A command to one host.
fn to(agent: &Party<'_>, body: impl Into<Bytes>) -> Outgoing {
    message(EXCHANGE_COMMAND, &agent.key(), body)
}

async fn next(consumer: &mut Consumer) -> Delivery {
    match soon("a delivery", consumer.next()).await {
        Some(delivery) => delivery,
        None => panic!("the consumer ended: {:?}", consumer.ended()),
    }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).expect("text")
}

async fn check_next(consumer: &mut Consumer, expected: &str) -> Delivery {
    let delivery = next(consumer).await;
    assert_eq!(text(&delivery), expected);
    delivery
}

async fn check_end(consumer: &mut Consumer, expected: ConsumerEnd) {
    let end = soon("the consumer's end", async { while consumer.next().await.is_some() {} }).await;
    let () = end;
    assert_eq!(consumer.ended(), expected);
}

async fn a_message_arrives_as_it_was_sent(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    let sent = Outgoing {
        signatures: Bytes::from_static(b"[{\"keyid\":\"k\",\"sig\":\"s\"}]"),
        expiration_ms: Some(3_600_000),
        correlation_id: Some("019a-request".to_owned()),
        ..to(&agent, "{\"one\":\"\u{fc}\"}")
    };
    lea.send(sent.clone()).await.expect("published");
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.exchange, EXCHANGE_COMMAND);
    assert_eq!(delivery.routing_key, sent.routing_key);
    assert_eq!(delivery.content_type, sent.content_type);
    assert_eq!(delivery.body, sent.body);
    assert_eq!(delivery.signatures, sent.signatures);
    assert_eq!(delivery.correlation_id, sent.correlation_id);
    assert_eq!(delivery.sender, Some(lea.identity.to_string()));
    assert!(!delivery.redelivered && delivery.oversized.is_none());
    done("ack", delivery.ack()).await;
    // Settling twice changes nothing and harms nobody.
    done("ack again", delivery.ack()).await;
    lea.send(Outgoing { signatures: Bytes::new(), ..to(&agent, "") }).await.expect("published");
    let delivery = next(&mut consumer).await;
    assert!(delivery.body.is_empty() && delivery.signatures.is_empty());
}

async fn a_message_that_reaches_nobody_comes_back(fixture: &dyn Fixture) {
    let lea = Party::connect(fixture, "user/lea").await;
    let nowhere = message(EXCHANGE_COMMAND, "host.nobody.example.com", "x");
    match lea.send(nowhere.clone()).await {
        Err(error @ PublishError::Unroutable { .. }) => {
            assert_eq!(error.code(), "unroutable");
            assert!(!error.is_transient() && !error.may_have_arrived());
        }
        other => panic!("{other:?}"),
    }
    lea.send(Outgoing { mandatory: false, ..nowhere.clone() }).await.expect("not mandatory");
    soon("publish", lea.link.publish(nowhere, Guarantee::Fire)).await.expect("nobody asks");
}

async fn each_of_many_messages_in_flight_gets_its_own_answer(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let sends = (0..300).map(|index| {
        let mut message = to(&agent, index.to_string());
        // Persistent ones are confirmed later than those that come back, so the answers cross.
        message.persistent = index % 2 == 0;
        if index % 3 == 0 {
            message.routing_key = format!("host.nobody{index}.example.com");
        }
        lea.link.publish(message, Guarantee::Confirmed)
    });
    let answers = soon("all answers", join_all(sends)).await;
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(()) => assert_ne!(index % 3, 0, "message {index} reached somebody"),
            Err(PublishError::Unroutable { routing_key, .. }) => {
                assert_eq!(routing_key, format!("host.nobody{index}.example.com"));
                assert_eq!(index % 3, 0, "message {index} reached nobody");
            }
            Err(error) => panic!("message {index}: {error}"),
        }
    }
    let mut consumer = agent.consume(&agent.queue(), 500).await;
    let mut waiting: BTreeSet<String> =
        (0..300).filter(|index| index % 3 != 0).map(|index| index.to_string()).collect();
    while !waiting.is_empty() {
        let delivery = next(&mut consumer).await;
        assert!(waiting.remove(text(&delivery)), "unexpected: {}", text(&delivery));
    }
}

async fn messages_of_one_sender_arrive_in_order(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 7).await;
    let sending = async {
        for index in 0..200 {
            lea.send(to(&agent, index.to_string())).await.expect("published");
        }
    };
    tokio::join!(sending, async {
        for index in 0..200 {
            done("ack", check_next(&mut consumer, &index.to_string()).await.ack()).await;
        }
    });
}

async fn unconfirmed_messages_arrive(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    for index in 0..50 {
        let message = Outgoing { persistent: false, mandatory: false, ..to(&agent, index.to_string()) };
        soon("publish", lea.link.publish(message, Guarantee::Fire)).await.expect("handed over");
    }
    for index in 0..50 {
        done("ack", check_next(&mut consumer, &index.to_string()).await.ack()).await;
    }
}

async fn the_largest_message_arrives_and_a_larger_one_is_not_sent(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    let largest = Outgoing {
        signatures: Bytes::from(vec![b' '; SIGNATURES_BYTES_MAX]),
        ..to(&agent, vec![b'x'; BODY_BYTES_MAX])
    };
    for (larger, expected) in [
        (Outgoing { body: Bytes::from(vec![b'x'; BODY_BYTES_MAX + 1]), ..largest.clone() }, "body"),
        (Outgoing { signatures: Bytes::from(vec![b' '; SIGNATURES_BYTES_MAX + 1]), ..largest.clone() }, "signatures"),
    ] {
        match lea.send(larger).await {
            Err(PublishError::TooLarge { what, .. }) => assert_eq!(what, expected),
            other => panic!("{other:?}"),
        }
    }
    lea.send(largest).await.expect("published");
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.body.len(), delivery.signatures.len()), (BODY_BYTES_MAX, SIGNATURES_BYTES_MAX));
    assert!(delivery.oversized.is_none() && delivery.body.iter().all(|byte| *byte == b'x'));
}

async fn prefetch_bounds_what_is_delivered_ahead(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 2).await;
    for body in ["1", "2", "3"] {
        lea.send(to(&agent, body)).await.expect("published");
    }
    let first = check_next(&mut consumer, "1").await;
    let _second = check_next(&mut consumer, "2").await;
    // A round trip on the same connection: a third delivery would have come before it.
    done("bind", agent.link.bind(&agent.queue(), EXCHANGE_COMMAND, routing::KEY_ALL)).await;
    assert!(consumer.next().now_or_never().is_none(), "more was delivered than the prefetch allows");
    done("ack", first.ack()).await;
    check_next(&mut consumer, "3").await;
}

async fn acknowledging_through_covers_what_came_before(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 4).await;
    for index in 1..=6 {
        lea.send(to(&agent, index.to_string())).await.expect("published");
    }
    let first = check_next(&mut consumer, "1").await;
    let second = check_next(&mut consumer, "2").await;
    let third = check_next(&mut consumer, "3").await;
    let fourth = check_next(&mut consumer, "4").await;
    done("ack", third.ack_through()).await;
    // They are settled already.
    done("ack", first.ack()).await;
    done("reject", second.reject()).await;
    check_next(&mut consumer, "5").await;
    check_next(&mut consumer, "6").await;
    drop(fourth);
    soon("close", agent.link.close()).await;
    let again = Party::connect(fixture, "host/web1").await;
    let mut consumer = again.consume(&again.queue(), 10).await;
    for body in ["4", "5", "6"] {
        assert!(check_next(&mut consumer, body).await.redelivered);
    }
}

/// Whoever waits for an acknowledgement may stop waiting, as a command line does each second to draw its screen. What
/// it began must not be overtaken by the next: the broker ends the consumer of who acknowledges backwards.
async fn acknowledgements_that_are_given_up_keep_their_order(fixture: &dyn Fixture) {
    const MESSAGES: usize = 400;
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 50).await;
    let sending = async {
        for index in 0..MESSAGES {
            lea.send(to(&agent, index.to_string())).await.expect("published");
        }
    };
    let taking = async {
        for index in 0..MESSAGES {
            let delivery = check_next(&mut consumer, &index.to_string()).await;
            // Begun, and not waited for. Every third is not one through.
            let begun =
                if index % 3 == 2 { delivery.ack().now_or_never() } else { delivery.ack_through().now_or_never() };
            assert!(!matches!(begun, Some(Err(_))), "{begun:?}");
        }
    };
    futures_util::future::join(sending, taking).await;
    lea.send(to(&agent, "last")).await.expect("published");
    done("ack", check_next(&mut consumer, "last").await.ack()).await;
    soon("close", agent.link.close()).await;
    let again = Party::connect(fixture, "host/web1").await;
    let mut consumer = again.consume(&again.queue(), 10).await;
    lea.send(to(&again, "fresh")).await.expect("published");
    assert!(!check_next(&mut consumer, "fresh").await.redelivered, "everything before was acknowledged");
}

async fn a_rejected_message_is_gone_and_a_requeued_one_comes_again(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 1).await;
    for body in ["rejected", "requeued"] {
        lea.send(to(&agent, body)).await.expect("published");
    }
    done("reject", check_next(&mut consumer, "rejected").await.reject()).await;
    let first = check_next(&mut consumer, "requeued").await;
    assert!(!first.redelivered);
    done("requeue", first.requeue()).await;
    let second = check_next(&mut consumer, "requeued").await;
    assert!(second.redelivered);
    done("ack", second.ack()).await;
}

async fn what_was_not_acknowledged_comes_again_after_the_connection_broke(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    for body in ["acknowledged", "taken", "waiting"] {
        lea.send(to(&agent, body)).await.expect("published");
    }
    done("ack", check_next(&mut consumer, "acknowledged").await.ack()).await;
    let taken = check_next(&mut consumer, "taken").await;
    // What has been handed over goes out in order, and an answer to the last of it says that all of it was heard.
    agent.declare().await;
    fixture.disconnect(&agent.identity).await;
    let reason = soon("the end of the connection", agent.link.closed()).await;
    assert_ne!(reason, CloseReason::Requested);
    check_end(&mut consumer, ConsumerEnd::ConnectionLost).await;
    // Everything on the connection says so, at once.
    for error in [
        fails("ack", taken.ack()).await,
        fails("declare", agent.link.declare_queue(QueueSpec::durable(agent.queue()))).await,
        fails("consume", agent.link.consume(&agent.queue(), ConsumeOptions { prefetch: 1, exclusive: false })).await,
    ] {
        assert!(matches!(error, BusError::Closed(_)) && error.is_transient(), "{error:?}");
    }
    match soon("publish", agent.link.publish(message(EXCHANGE_REPLY, "x", "x"), Guarantee::Fire)).await {
        Err(PublishError::Bus(BusError::Closed(_))) => {}
        other => panic!("{other:?}"),
    }
    let again = Party::connect(fixture, "host/web1").await;
    let mut consumer = again.consume(&again.queue(), 10).await;
    for body in ["taken", "waiting"] {
        let delivery = check_next(&mut consumer, body).await;
        assert!(delivery.redelivered);
        done("ack", delivery.ack()).await;
    }
}

async fn closing_gives_back_what_was_not_acknowledged(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    lea.send(to(&agent, "1")).await.expect("published");
    let _taken = check_next(&mut consumer, "1").await;
    soon("close", agent.link.close()).await;
    assert_eq!(soon("closed", agent.link.closed()).await, CloseReason::Requested);
    check_end(&mut consumer, ConsumerEnd::Closed).await;
    // Closing twice is closing once.
    soon("close", agent.link.close()).await;
    let error = fails("bind", agent.link.bind(&agent.queue(), EXCHANGE_COMMAND, &agent.key())).await;
    assert!(matches!(error, BusError::Closed(CloseReason::Requested)), "{error:?}");
    let again = Party::connect(fixture, "host/web1").await;
    let mut consumer = again.consume(&again.queue(), 10).await;
    assert!(check_next(&mut consumer, "1").await.redelivered);
}

async fn a_dropped_consumer_leaves_its_messages_to_the_next(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut first = agent.consume(&agent.queue(), 10).await;
    for body in ["1", "2", "3"] {
        lea.send(to(&agent, body)).await.expect("published");
    }
    let taken = check_next(&mut first, "1").await;
    drop(first);
    // It can still be settled; what the consumer had not handed out is free after that.
    done("ack", taken.ack()).await;
    drop(taken);
    let mut second = agent.consume(&agent.queue(), 10).await;
    for body in ["2", "3"] {
        done("ack", check_next(&mut second, body).await.ack()).await;
    }
}

async fn a_deleted_queue_ends_its_consumer_and_nothing_else(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    fixture.delete_queue(&agent.queue()).await;
    check_end(&mut consumer, ConsumerEnd::CancelledByBroker).await;
    assert!(agent.link.closed().now_or_never().is_none(), "the connection ended");
    match lea.send(to(&agent, "1")).await {
        Err(PublishError::Unroutable { .. }) => {}
        other => panic!("{other:?}"),
    }
    agent.declare().await;
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    lea.send(to(&agent, "2")).await.expect("published");
    check_next(&mut consumer, "2").await;
}

async fn an_expired_message_is_not_delivered(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    lea.send(Outgoing { expiration_ms: Some(0), ..to(&agent, "expired") }).await.expect("published");
    lea.send(Outgoing { expiration_ms: Some(3_600_000), ..to(&agent, "fresh") }).await.expect("published");
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    check_next(&mut consumer, "fresh").await;
}

async fn binding_and_unbinding_take_effect_and_may_be_repeated(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    let (queue, key) = (agent.queue(), "collective.contract");
    let to_collective = || message(EXCHANGE_COMMAND, key, "x");
    for _ in 0..2 {
        done("bind", agent.link.bind(&queue, EXCHANGE_COMMAND, key)).await;
    }
    lea.send(to_collective()).await.expect("published");
    done("ack", check_next(&mut consumer, "x").await.ack()).await;
    for _ in 0..2 {
        done("unbind", agent.link.unbind(&queue, EXCHANGE_COMMAND, key)).await;
    }
    match lea.send(to_collective()).await {
        Err(PublishError::Unroutable { .. }) => {}
        other => panic!("{other:?}"),
    }
    lea.send(to(&agent, "y")).await.expect("published");
    check_next(&mut consumer, "y").await;
}

async fn an_exclusive_queue_goes_with_its_connection(fixture: &dyn Fixture) {
    let (agent, lea) = (Party::agent(fixture, "host/web1").await, Party::connect(fixture, "user/lea").await);
    let route = lea.route("s1");
    let queue = routing::reply_queue(&route);
    done("declare", lea.link.declare_queue(QueueSpec::exclusive(&queue))).await;
    done("bind", lea.link.bind(&queue, EXCHANGE_REPLY, &routing::reply_binding(&route))).await;
    let mut consumer = lea.consume(&queue, 10).await;
    let report = || message(EXCHANGE_REPLY, &routing::reply_key(&route, &agent.host()), "report");
    agent.send(report()).await.expect("published");
    assert_eq!(check_next(&mut consumer, "report").await.sender, Some(agent.identity.to_string()));
    soon("close", lea.link.close()).await;
    // The broker removes the queue a moment after the connection.
    soon("the queue's end", async {
        loop {
            match agent.send(report()).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(PublishError::Unroutable { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
}

async fn a_refused_operation_fails_alone(fixture: &dyn Fixture) {
    let agent = Party::agent(fixture, "host/web1").await;
    let (other, lea) = (Party::agent(fixture, "host/web2").await, Party::connect(fixture, "user/lea").await);
    let max = Party::connect(fixture, "user/max").await;
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    let options = ConsumeOptions { prefetch: 1, exclusive: false };
    let foreign = routing::reply_binding(&max.route("s1"));
    let own = routing::reply_queue(&lea.route("s1"));
    done("declare", lea.link.declare_queue(QueueSpec::exclusive(&own))).await;
    for (what, error) in [
        ("another's queue", fails("consume", agent.link.consume(&other.queue(), options)).await),
        ("another's name", fails("declare", agent.link.declare_queue(QueueSpec::durable("agent.else"))).await),
        ("another's key", fails("bind", agent.link.bind(&agent.queue(), EXCHANGE_COMMAND, &other.key())).await),
        ("replies", fails("bind", agent.link.bind(&agent.queue(), EXCHANGE_REPLY, "#")).await),
        ("another's replies", fails("bind", lea.link.bind(&own, EXCHANGE_REPLY, &foreign)).await),
    ] {
        assert!(matches!(error, BusError::Denied { .. }), "{what}: {error:?}");
        assert_eq!((error.code(), error.is_transient()), ("broker-denied", false));
    }
    // The consumer from before works on, and so does the connection.
    lea.send(to(&agent, "1")).await.expect("published");
    done("ack", check_next(&mut consumer, "1").await.ack()).await;
    done("bind", agent.link.bind(&agent.queue(), EXCHANGE_COMMAND, routing::KEY_ALL)).await;
}

async fn a_refused_message_fails_alone(fixture: &dyn Fixture) {
    let agent = Party::agent(fixture, "host/web1").await;
    let (other, lea) = (Party::agent(fixture, "host/web2").await, Party::connect(fixture, "user/lea").await);
    let route = lea.route("s1");
    let queue = routing::reply_queue(&route);
    done("declare", lea.link.declare_queue(QueueSpec::exclusive(&queue))).await;
    done("bind", lea.link.bind(&queue, EXCHANGE_REPLY, &routing::reply_binding(&route))).await;
    let mut replies = lea.consume(&queue, 10).await;
    let mut commands = agent.consume(&agent.queue(), 10).await;
    let own_name = || message(EXCHANGE_REPLY, &routing::reply_key(&route, &agent.host()), "mine");
    for (what, refused) in [
        ("a command", message(EXCHANGE_COMMAND, &other.key(), "x")),
        ("another's name", message(EXCHANGE_REPLY, &routing::reply_key(&route, &other.host()), "x")),
    ] {
        for guarantee in [Guarantee::Confirmed, Guarantee::Fire] {
            let result = soon("publish", agent.link.publish(refused.clone(), guarantee)).await;
            match (guarantee, result) {
                (Guarantee::Fire, Ok(())) | (Guarantee::Confirmed, Err(PublishError::Bus(BusError::Denied { .. }))) => {
                }
                (_, other) => panic!("{what}: {other:?}"),
            }
            agent.send(own_name()).await.expect("its own name");
            done("ack", check_next(&mut replies, "mine").await.ack()).await;
        }
    }
    lea.send(to(&agent, "1")).await.expect("published");
    check_next(&mut commands, "1").await;
    assert!(replies.next().now_or_never().is_none(), "a refused message arrived");
}

async fn what_does_not_exist_is_not_found(fixture: &dyn Fixture) {
    let agent = Party::connect(fixture, "host/web1").await;
    let options = ConsumeOptions { prefetch: 1, exclusive: false };
    for error in [
        fails("consume", agent.link.consume(&agent.queue(), options)).await,
        fails("bind", agent.link.bind(&agent.queue(), EXCHANGE_COMMAND, &agent.key())).await,
    ] {
        assert!(matches!(error, BusError::NotFound { .. }), "{error:?}");
        assert_eq!(error.code(), "broker-not-found");
    }
    agent.declare().await;
}

async fn a_queue_in_other_use_is_a_conflict(fixture: &dyn Fixture) {
    let agent = Party::agent(fixture, "host/web1").await;
    let second = Party::connect(fixture, "host/web1").await;
    let exclusive = ConsumeOptions { prefetch: 1, exclusive: true };
    let other_properties = QueueSpec { auto_delete: true, ..QueueSpec::durable(agent.queue()) };
    let _consumer = done("consume", agent.link.consume(&agent.queue(), exclusive)).await;
    for error in [
        fails("consume", second.link.consume(&agent.queue(), exclusive)).await,
        fails("declare", second.link.declare_queue(other_properties)).await,
    ] {
        assert!(matches!(error, BusError::Conflict { .. }), "{error:?}");
    }
    done("declare", second.link.declare_queue(QueueSpec::durable(agent.queue()))).await;
}

async fn two_connections_of_one_identity_are_apart(fixture: &dyn Fixture) {
    let agent = Party::agent(fixture, "host/web1").await;
    let (first, second) = (Party::connect(fixture, "user/lea").await, Party::connect(fixture, "user/lea").await);
    soon("close", first.link.close()).await;
    second.send(to(&agent, "1")).await.expect("published");
    let mut consumer = agent.consume(&agent.queue(), 10).await;
    check_next(&mut consumer, "1").await;
    assert!(second.fixture.bus(&second.identity).describe().contains("user/lea"));
}
