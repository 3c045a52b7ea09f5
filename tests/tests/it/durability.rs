//! What survives the end of a broker, however it ends.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation};
use muster_bus::{ConsumeOptions, Consumer, Guarantee, Link, Outgoing, QueueSpec};
use muster_protocol::HostName;
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_ALL, agent_queue, host_key};
use muster_tests::broker::TestBus;
use rand::RngExt as _;

use super::BROKER;
use crate::amqp;
use crate::no_broker::{connect, settings};

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(60);

const HOST: &str = "host/durable.example.com";
const USER: &str = "user/lea";

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what}: not within {} s", LIMIT.as_secs()))
}

fn host() -> HostName {
    "durable.example.com".parse().unwrap()
}

/// Does what makes its thread wait.
async fn operate(bus: &Arc<TestBus>, work: fn(&TestBus) -> anyhow::Result<()>) {
    let bus = Arc::clone(bus);
    tokio::task::spawn_blocking(move || work(&bus)).await.unwrap().unwrap();
}

async fn link(bus: &TestBus, identity: &str) -> Arc<dyn Link> {
    connect(settings(&bus.urls[0], &bus.site.member(identity).credentials, bus.site.trust())).await.unwrap()
}

/// Makes the host's queue, and leaves.
async fn enrol(bus: &TestBus) {
    let agent = link(bus, HOST).await;
    let keys = [KEY_ALL.to_owned(), host_key(&host())];
    agent.declare_bound(QueueSpec::durable(agent_queue(&host())), EXCHANGE_COMMAND, &keys).await.unwrap();
    agent.close().await;
}

/// Consumes from the host's queue without making it.
async fn consumer(agent: &Arc<dyn Link>) -> Consumer {
    agent.consume(&agent_queue(&host()), ConsumeOptions { prefetch: 1_000, exclusive: true }).await.unwrap()
}

fn message(body: &str, persistent: bool) -> Outgoing {
    Outgoing {
        exchange: EXCHANGE_COMMAND,
        routing_key: host_key(&host()),
        content_type: "text/plain".to_owned(),
        body: body.to_owned().into(),
        signatures: Vec::new().into(),
        expiration_ms: Some(600_000),
        persistent,
        mandatory: true,
        correlation_id: None,
    }
}

async fn publish(link: &Arc<dyn Link>, body: &str, persistent: bool) {
    within("a confirm", link.publish(message(body, persistent), Guarantee::Confirmed)).await.unwrap();
}

/// A channel of somebody who knows nothing of our programs, with confirms.
async fn channel(bus: &TestBus) -> (lapin::Connection, lapin::Channel) {
    let connection = amqp::connect(&bus.urls[0], &bus.site.member(USER), &bus.site.trust()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// Publishes in order, with some messages on the way, until the broker is gone or the queue has no room for more. Gives
/// what was confirmed, and how many were sent.
async fn publish_until_the_end(channel: lapin::Channel, round: u32, confirms: Arc<AtomicU32>) -> (Vec<String>, u32) {
    let key = host_key(&host());
    let (mut confirmed, mut sent) = (Vec::new(), 0);
    let mut on_the_way = FuturesOrdered::new();
    loop {
        // The queue keeps 1,000.
        if on_the_way.len() < 40 && sent < 900 {
            let body = format!("{round}.{sent}");
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            sent += 1;
            let published = channel.basic_publish(
                EXCHANGE_COMMAND.into(),
                key.as_str().into(),
                options,
                body.as_bytes(),
                properties,
            );
            match published.await {
                Ok(confirm) => on_the_way.push_back(async move { confirm.await.map(|confirmed| (confirmed, body)) }),
                Err(_) => return (confirmed, sent),
            }
            continue;
        }
        match on_the_way.next().await {
            Some(Ok((Confirmation::Ack(None), body))) => {
                confirmed.push(body);
                confirms.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) | None => return (confirmed, sent),
        }
    }
}

/// Takes deliveries up to the one with this body, and gives all of them.
async fn up_to(consumer: &mut Consumer, last: &str) -> Vec<muster_bus::Delivery> {
    let mut taken = Vec::new();
    loop {
        let delivery = within("a delivery", consumer.next()).await.unwrap();
        let is_last = delivery.body == last;
        taken.push(delivery);
        if is_last {
            return taken;
        }
    }
}

fn bodies(deliveries: &[muster_bus::Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.body.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_there_in_order_after_the_broker_was_killed_at_any_moment() {
    let bus = Arc::new(BROKER.breakable([HOST, USER]));
    enrol(&bus).await;
    for round in 0..4 {
        let (connection, channel) = channel(&bus).await;
        let confirms = Arc::new(AtomicU32::new(0));
        let at_least = rand::rng().random_range(1..600);
        let publisher = publish_until_the_end(channel, round, Arc::clone(&confirms));
        let killer = async {
            let enough = async {
                while confirms.load(Ordering::Relaxed) < at_least {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            within("confirms", enough).await;
            operate(&bus, |bus| bus.kill()).await;
        };
        let ((confirmed, sent), ()) = tokio::join!(within("the publisher notices", publisher), killer);
        drop(connection);
        operate(&bus, |bus| bus.resume()).await;

        // Nobody has declared anything since: queue and bindings are there, or this would come back.
        let lea = link(&bus, USER).await;
        publish(&lea, "after", true).await;
        let agent = link(&bus, HOST).await;
        let mut consumer = consumer(&agent).await;
        let taken = up_to(&mut consumer, "after").await;
        let there = bodies(&taken);
        let before = &there[..there.len() - 1];
        eprintln!("round {round}: {sent} sent, {} confirmed, {} there", confirmed.len(), before.len());
        let numbers: Vec<u32> = before
            .iter()
            .map(|body| body.strip_prefix(&format!("{round}.")).expect("of this round only").parse().unwrap())
            .collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert!(numbers.iter().all(|number| *number < sent));
        let there: BTreeSet<&String> = before.iter().collect();
        let lost: Vec<&String> = confirmed.iter().filter(|body| !there.contains(body)).collect();
        assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
        for delivery in &taken {
            delivery.ack().await.unwrap();
        }
        // Answered after the acknowledgements were read.
        drop(consumer);
        agent.close().await;
        lea.close().await;
        operate(&bus, |bus| bus.stop()).await;
        operate(&bus, |bus| bus.resume()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_orderly_end_what_was_acknowledged_is_gone_and_what_was_not_comes_again_as_such() {
    let bus = Arc::new(BROKER.breakable([HOST, USER]));
    enrol(&bus).await;
    let lea = link(&bus, USER).await;
    for body in ["one", "two", "three"] {
        publish(&lea, body, true).await;
    }
    publish(&lea, "only in memory", false).await;
    let agent = link(&bus, HOST).await;
    let mut taken = consumer(&agent).await;
    let deliveries = up_to(&mut taken, "only in memory").await;
    assert!(deliveries.iter().all(|delivery| !delivery.redelivered));
    deliveries[0].ack().await.unwrap();
    drop(taken);
    agent.close().await;
    lea.close().await;
    operate(&bus, |bus| bus.stop()).await;
    operate(&bus, |bus| bus.resume()).await;

    let lea = link(&bus, USER).await;
    publish(&lea, "after", true).await;
    let agent = link(&bus, HOST).await;
    let deliveries = up_to(&mut consumer(&agent).await, "after").await;
    assert_eq!(bodies(&deliveries), ["two", "three", "after"]);
    let redelivered: Vec<bool> = deliveries.iter().map(|delivery| delivery.redelivered).collect();
    assert_eq!(redelivered, [true, true, false]);
}
