//! A host's certificate in the wrong hands: a plain AMQP client that knows the protocol and respects nothing.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Credentials;
use muster_protocol::envelope::SIGNATURES_HEADER;
use muster_protocol::{
    ActionResult, Command, HostName, Message, Options, Outcome, PayloadType, ProgressReport, ProtocolVersion,
    ReplyRoute, ReportState, RequestId, Target, Timestamp, decode, routing,
};
use muster_tests::pki::Member;
use muster_tests::stage::Stage;
use serde_json::{Map, Value};

use crate::amqp::{connect, publish};

/// Everything here is on loopback; what needs longer than this does not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn now() -> Timestamp {
    Timestamp(SystemClock.now_ms())
}

/// A message as it goes over the wire.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
    pub(super) signatures: String,
}

impl Wire {
    /// The message, signed by everybody here in this order; none of our own rules is asked.
    pub(super) fn signed<M: Message>(message: &M, signers: &[&Credentials]) -> Self {
        Self::of_bytes(M::TYPE, serde_json::to_vec(message).unwrap(), signers)
    }

    /// Any bytes, signed as a message of this type.
    pub(super) fn of_bytes(kind: PayloadType, body: Vec<u8>, signers: &[&Credentials]) -> Self {
        let signatures: Vec<_> = signers.iter().map(|signer| signer.sign(kind.as_str(), &body)).collect();
        Self { content_type: kind.as_str().to_owned(), body, signatures: serde_json::to_string(&signatures).unwrap() }
    }

    /// What somebody has overheard.
    pub(super) fn overheard(delivery: &Delivery) -> Self {
        let header = delivery.properties.headers().as_ref().and_then(|it| it.inner().get(SIGNATURES_HEADER).cloned());
        let signatures = match header {
            Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
            other => panic!("a message without signatures: {other:?}"),
        };
        let content_type = delivery.properties.content_type().as_ref().unwrap().as_str().to_owned();
        Self { content_type, body: delivery.data.clone(), signatures }
    }
}

/// Somebody with a certificate, logged in.
pub(super) struct Rogue {
    pub(super) member: Member,
    _connection: Connection,
    channel: Channel,
}

/// How many messages a flood leaves unconfirmed.
const IN_FLIGHT: usize = 64;

impl Rogue {
    /// Logs in with the rights that this identity has.
    pub(super) async fn open(stage: &Stage, who: &str) -> Self {
        let member = stage.site().member(who);
        let connection = connect(&stage.bus.urls[0], &member, &stage.site().trust()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { member, _connection: connection, channel }
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.member.credentials
    }

    /// Listens on a queue, bound with these keys of an exchange.
    pub(super) async fn listen(&self, queue: &str, exchange: &str, keys: &[&str]) -> Consumer {
        let arguments = FieldTable::default;
        // As agents declare theirs.
        let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), declare, arguments()).await.unwrap();
        for key in keys {
            let options = QueueBindOptions::default();
            self.channel.queue_bind(queue.into(), exchange.into(), (*key).into(), options, arguments()).await.unwrap();
        }
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.into(), queue.into(), options, arguments()).await.unwrap()
    }

    /// Sends a message, and waits until the broker has it.
    pub(super) async fn send(&self, exchange: &str, key: &str, wire: &Wire) {
        let mut headers = FieldTable::default();
        headers.insert(SIGNATURES_HEADER.into(), AMQPValue::LongString(wire.signatures.as_str().into()));
        let properties =
            BasicProperties::default().with_content_type(wire.content_type.as_str().into()).with_headers(headers);
        publish(&self.channel, exchange, key, properties, &wire.body).await.unwrap();
    }

    /// Sends many messages, without waiting for each.
    pub(super) async fn flood(&self, exchange: &str, key: &str, wires: impl IntoIterator<Item = Wire>) {
        let send = |wire: Wire| async move { self.send(exchange, key, &wire).await };
        futures_util::stream::iter(wires).for_each_concurrent(IN_FLIGHT, send).await;
    }

    pub(super) async fn command(&self, key: &str, wire: &Wire) {
        self.send(routing::EXCHANGE_COMMAND, key, wire).await;
    }

    /// Answers a command with a report, signed by whoever it is said to be.
    pub(super) async fn answer(&self, command: &Command, report: &ProgressReport, signer: &Credentials) {
        let key = routing::reply_key(&command.reply_to, &report.host);
        self.send(routing::EXCHANGE_REPLY, &key, &Wire::signed(report, &[signer])).await;
    }
}

/// The next delivery.
pub(super) async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("something comes in time");
    let delivery = delivery.expect("the consumer lives").unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    delivery
}

/// The next command; what is none is passed over.
pub(super) async fn next_command(consumer: &mut Consumer) -> (Command, Delivery) {
    loop {
        let delivery = next(consumer).await;
        if let Ok(command) = decode(&delivery.data) {
            return (command, delivery);
        }
    }
}

/// A command of this caller, made now and valid for `life_ms`.
pub(super) fn command(caller: &Credentials, action: &str, life_ms: i64) -> Command {
    let created = now();
    let caller = caller.identity().clone();
    Command {
        protocol: ProtocolVersion::V1,
        id: RequestId::from_parts(created, rand::random()),
        reply_to: ReplyRoute::new(caller.clone(), "attack".parse().unwrap()).unwrap(),
        caller,
        created_at_ms: created,
        expires_at_ms: created.plus_ms(life_ms),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        plugin: "host".parse().unwrap(),
        action: action.parse().unwrap(),
        arguments: Map::new(),
        sealed: None,
        options: Options { progress: false, ..Options::default() },
        requires: Vec::new(),
    }
}

/// A report that says nothing yet.
pub(super) fn running(command: &Command, host: &HostName, sequence: u32) -> ProgressReport {
    ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: command.id,
        caller: command.caller.clone(),
        host: host.clone(),
        sequence,
        created_at_ms: now(),
        state: ReportState::Running,
        output: Vec::new(),
        result: None,
    }
}

/// A last report.
pub(super) fn finished(
    command: &Command,
    host: &HostName,
    sequence: u32,
    message: &str,
    data: Value,
) -> ProgressReport {
    let result = ActionResult {
        outcome: Outcome::Succeeded,
        code: "ok".into(),
        message: message.into(),
        exit_code: None,
        data,
        truncated_from_bytes: None,
        duration_ms: 1,
    };
    ProgressReport { state: ReportState::Finished, result: Some(result), ..running(command, host, sequence) }
}
