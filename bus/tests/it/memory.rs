//! What tests can do with the broker in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_bus::{
    Bus, BusError, CloseReason, ConsumeOptions, Consumer, ConsumerEnd, Cut, Fault, Guarantee, Link, MemoryBroker,
    Outgoing, PublishError, QueueSpec, Step, Weather,
};
use muster_protocol::Identity;
use muster_protocol::limits::BODY_BYTES_MAX;

fn identity(name: &str) -> Identity {
    name.parse().unwrap()
}

fn message(body: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        exchange: "cmd",
        routing_key: "all".to_owned(),
        content_type: "text/plain".to_owned(),
        body: body.into(),
        signatures: Bytes::new(),
        expiration_ms: None,
        persistent: true,
        mandatory: true,
        correlation_id: None,
    }
}

async fn agent(broker: &MemoryBroker, name: &str) -> (Arc<dyn Link>, Consumer) {
    let link = broker.bus(&identity(&format!("host/{name}"))).connect().await.unwrap();
    let queue = format!("agent.{name}");
    link.declare_queue(QueueSpec::durable(&queue)).await.unwrap();
    link.bind(&queue, "cmd", "all").await.unwrap();
    let consumer = link.consume(&queue, ConsumeOptions { prefetch: 10, exclusive: true }).await.unwrap();
    (link, consumer)
}

async fn controller(broker: &MemoryBroker) -> Arc<dyn Link> {
    broker.bus(&identity("user/lea")).connect().await.unwrap()
}

async fn next(consumer: &mut Consumer) -> String {
    let delivery = consumer.next().await.unwrap();
    delivery.ack().await.unwrap();
    String::from_utf8(delivery.body.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn faults_strike_single_messages() {
    let broker = MemoryBroker::new();
    let (_link, mut consumer) = agent(&broker, "web1").await;
    let lea = controller(&broker).await;
    broker.set_faults(|stored| match stored.body.as_ref() {
        b"lost" => Fault::Drop,
        b"twice" => Fault::Duplicate,
        b"late" => Fault::Delay(Duration::from_secs(60)),
        b"held" => Fault::Hold,
        _ => Fault::Deliver,
    });
    for body in ["lost", "held", "late", "twice", "plain"] {
        lea.publish(message(body), Guarantee::Confirmed).await.unwrap();
    }
    for expected in ["twice", "twice", "plain", "late"] {
        assert_eq!(next(&mut consumer).await, expected);
    }
    assert_eq!(broker.release(), 1);
    assert_eq!(next(&mut consumer).await, "held");
}

#[tokio::test]
async fn a_stopped_broker_keeps_what_is_durable() {
    let broker = MemoryBroker::new();
    let (link, mut consumer) = agent(&broker, "web1").await;
    let lea = controller(&broker).await;
    lea.declare_queue(QueueSpec::exclusive("reply.user/lea.1")).await.unwrap();
    drop(consumer.next());
    for (body, persistent) in [("kept", true), ("lost", false)] {
        lea.publish(Outgoing { persistent, ..message(body) }, Guarantee::Confirmed).await.unwrap();
    }
    broker.stop();
    assert!(matches!(link.closed().await, CloseReason::ByBroker { code: 320, .. }));
    while consumer.next().await.is_some() {}
    assert_eq!(consumer.ended(), ConsumerEnd::ConnectionLost);
    match broker.bus(&identity("host/web1")).connect().await {
        Err(error @ BusError::Unreachable { .. }) => {
            let text = "no broker answers: `memory` refuses connections (nothing listens there)";
            assert_eq!(error.to_string(), text);
        }
        _ => panic!("connected"),
    }
    broker.start();
    assert_eq!(broker.queues(), ["agent.web1"]);
    assert_eq!(broker.queue_length("agent.web1"), Some(1));
    let (_link, mut consumer) = agent(&broker, "web1").await;
    assert_eq!(next(&mut consumer).await, "kept");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_broker_lets_publishers_wait_and_says_why() {
    let broker = MemoryBroker::with_operation_timeout(Duration::from_secs(5));
    let (_link, mut consumer) = agent(&broker, "web1").await;
    let lea = controller(&broker).await;
    broker.set_blocked(Some("low on memory"));
    match lea.publish(message("1"), Guarantee::Confirmed).await {
        Err(error @ PublishError::Blocked { .. }) => {
            let text = "the broker blocks publishers (low on memory); nothing was confirmed within 5000 ms";
            assert_eq!((error.to_string().as_str(), error.code()), (text, "broker-blocked"));
            assert!(error.is_transient() && !error.may_have_arrived());
        }
        other => panic!("{other:?}"),
    }
    let (result, ()) = tokio::join!(lea.publish(message("2"), Guarantee::Confirmed), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        broker.set_blocked(None);
    });
    result.unwrap();
    assert_eq!(next(&mut consumer).await, "2");
}

#[tokio::test]
async fn foreign_programs_can_send_what_ours_would_not() {
    let broker = MemoryBroker::new();
    let (_link, mut consumer) = agent(&broker, "web1").await;
    broker.set_permissions(|_, _| false);
    assert_eq!(broker.inject(&identity("host/evil"), message(vec![0; BODY_BYTES_MAX + 1])), 1);
    let delivery = consumer.next().await.unwrap();
    assert_eq!(delivery.oversized, Some(BODY_BYTES_MAX + 1));
    assert!(delivery.body.is_empty());
    assert_eq!(delivery.sender.as_deref(), Some("muster:host/evil"));
    delivery.reject().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest() {
    let broker = MemoryBroker::new();
    let (link, consumer) = agent(&broker, "web1").await;
    drop(consumer);
    broker.limit_queues("agent.", 2);
    let lea = controller(&broker).await;
    for body in ["1", "2", "3"] {
        lea.publish(message(body), Guarantee::Confirmed).await.unwrap();
    }
    let mut consumer = link.consume("agent.web1", ConsumeOptions { prefetch: 1, exclusive: false }).await.unwrap();
    for expected in ["2", "3"] {
        assert_eq!(next(&mut consumer).await, expected);
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_last_user() {
    let broker = MemoryBroker::new();
    let host = identity("host/web1");
    let (link, consumer) = agent(&broker, "web1").await;
    assert_eq!(broker.connections(&host), 1);
    drop(link);
    assert_eq!(broker.connections(&host), 1, "the consumer still uses it");
    drop(consumer);
    assert_eq!(broker.connections(&host), 0);
    assert_eq!(broker.queues(), ["agent.web1"]);
}

/// A broker with one agent, each step of which goes through `weather` from now on.
async fn stormy(
    weather: impl FnMut(&Identity, Step) -> Weather + Send + 'static,
) -> (MemoryBroker, Arc<dyn Link>, Consumer) {
    let broker = MemoryBroker::new();
    let (link, consumer) = agent(&broker, "web1").await;
    broker.set_weather(weather);
    (broker, link, consumer)
}

fn only(step: Step, weather: Weather) -> impl FnMut(&Identity, Step) -> Weather + Send {
    move |_, asked| if asked == step { weather } else { Weather::default() }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_after_a_publish_leaves_its_publisher_in_doubt() {
    for (cut, arrived) in [(Cut::Before, 0), (Cut::After, 1)] {
        let (broker, link, consumer) = stormy(only(Step::Publish, Weather { cut, ..Weather::default() })).await;
        let error = link.publish(message("x"), Guarantee::Confirmed).await.unwrap_err();
        assert_eq!(error.code(), "unconfirmed", "{cut:?}");
        assert!(matches!(link.closed().await, CloseReason::Lost { .. }));
        drop(consumer);
        assert_eq!(broker.queue_length("agent.web1"), Some(arrived), "{cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_is_still_on_its_way_is_lost_with_the_connection() {
    let weather = Weather { after: Duration::from_secs(5), ..Weather::default() };
    let (broker, link, _consumer) = stormy(only(Step::Publish, weather)).await;
    let publishing = link.publish(message("x"), Guarantee::Confirmed);
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        broker.disconnect(&identity("host/web1"));
    };
    let (published, ()) = futures_util::future::join(publishing, cutting).await;
    assert_eq!(published.unwrap_err().code(), "unconfirmed");
    assert_eq!(broker.queue_length("agent.web1"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_does_not_arrive_makes_the_broker_deliver_again() {
    let weather = Weather { before: Duration::from_secs(5), ..Weather::default() };
    let (broker, link, mut consumer) = stormy(only(Step::Settle, weather)).await;
    link.publish(message("x"), Guarantee::Confirmed).await.unwrap();
    let delivery = consumer.next().await.unwrap();
    delivery.ack().await.unwrap();
    drop((delivery, consumer));
    broker.disconnect(&identity("host/web1"));
    assert_eq!(broker.queue_length("agent.web1"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_takes_its_time_and_is_not_lost_by_who_stops_waiting() {
    let weather = Weather { before: Duration::from_secs(5), ..Weather::default() };
    let (_broker, link, mut consumer) = stormy(only(Step::Receive, weather)).await;
    link.publish(message("x"), Guarantee::Confirmed).await.unwrap();
    for _ in 0..4 {
        let early = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await;
        assert!(early.is_err());
    }
    let delivery = tokio::time::timeout(Duration::from_secs(2), consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.routing_key, "all");
}
