//! The engine by itself: what a client is told, in which order, and when.

mod durable;
mod model;
mod properties;
mod refusals;
mod semantics;
mod shares;
mod times;

use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::FieldTable;
use bytes::Bytes;

use super::*;
use crate::fault::Fault;
use crate::journal::Record;
use crate::message::Message;
use crate::outlet::{Outlet, Output};

/// What the engine said.
#[derive(Debug, Clone)]
enum Said {
    Sent(ConnectionId, Output),
    WhenDurable(ConnectionId, Output),
    Recorded(Record),
}

#[derive(Debug, Default)]
struct Recorder(Vec<Said>);

impl Outlet for Recorder {
    fn send(&mut self, connection: ConnectionId, output: Output) {
        self.0.push(Said::Sent(connection, output));
    }

    fn record(&mut self, record: Record) {
        self.0.push(Said::Recorded(record));
    }

    fn send_when_durable(&mut self, connection: ConnectionId, output: Output) {
        self.0.push(Said::WhenDurable(connection, output));
    }
}

const LIMITS: Limits = Limits {
    queues_max: 100,
    bindings_max: 100,
    exchanges_max: 20,
    consumers_max: 20,
    message_bytes_max: 1_000_000,
    outbox_bytes_max: 100_000,
    host_bytes_max: 1 << 30,
    controller_bytes_max: 1 << 30,
};

fn message(exchange: &str, key: &str, body: &str) -> Message {
    Message {
        exchange: exchange.into(),
        routing_key: key.into(),
        properties: Bytes::from_static(&[0, 0]),
        body: Bytes::copy_from_slice(body.as_bytes()),
        persistent: false,
        expiration_ms: None,
    }
}

fn queue_spec(name: &str) -> QueueSpec {
    let limits = QueueLimits::default();
    QueueSpec { name: name.into(), durable: false, exclusive: false, auto_delete: false, limits }
}

fn exchange_spec(name: &str, kind: ExchangeKind) -> ExchangeSpec {
    ExchangeSpec { name: name.into(), kind, durable: false, auto_delete: false, internal: false }
}

fn to_queue(source: &str, queue: &str, key: &str) -> BindingSpec {
    let destination = Destination::Queue(queue.into());
    BindingSpec { source: source.into(), destination, key: key.into(), arguments: FieldTable::default() }
}

fn to_exchange(source: &str, exchange: &str, key: &str) -> BindingSpec {
    BindingSpec { destination: Destination::Exchange(exchange.into()), ..to_queue(source, "", key) }
}

/// An engine, its connections (1, 2, ... with channel 1 each), the time, and what was said.
struct Bed {
    engine: Engine,
    out: Recorder,
    now_ms: i64,
}

impl Bed {
    fn new(connections: u64) -> Self {
        Self::with(LIMITS, Vec::new(), connections)
    }

    fn with(limits: Limits, policies: Vec<Policy>, connections: u64) -> Self {
        let mut bed =
            Self { engine: Engine::new(limits, policies, Vec::new()), out: Recorder::default(), now_ms: 1_000 };
        (1..=connections).for_each(|connection| bed.connect(connection));
        bed
    }

    fn connect(&mut self, connection: u64) {
        let user = if connection.is_multiple_of(2) { "even" } else { "odd" };
        self.engine.connect(ConnectionId(connection), &user.into(), Share::Controller);
        self.engine.open_channel((ConnectionId(connection), 1));
    }

    fn disconnect(&mut self, connection: u64) {
        self.engine.disconnect(ConnectionId(connection), self.now_ms, &mut self.out);
    }

    fn declare(&mut self, connection: u64, spec: QueueSpec) -> Result<Declared, Fault> {
        self.engine.declare_queue(ConnectionId(connection), spec, self.now_ms, &mut self.out)
    }

    fn queue(&mut self, name: &str) {
        self.declare(1, queue_spec(name)).unwrap();
    }

    fn limited(&mut self, name: &str, limits: QueueLimits) {
        self.declare(1, QueueSpec { limits, ..queue_spec(name) }).unwrap();
    }

    fn exchange(&mut self, name: &str, kind: ExchangeKind) {
        self.engine.declare_exchange(exchange_spec(name, kind), &mut self.out).unwrap();
    }

    fn bind(&mut self, binding: BindingSpec) -> Result<(), Fault> {
        self.engine.bind(ConnectionId(1), binding, &mut self.out)
    }

    fn publish(&mut self, message: Message) -> Result<(), Fault> {
        self.publish_from(1, message, false)
    }

    fn publish_from(&mut self, connection: u64, message: Message, mandatory: bool) -> Result<(), Fault> {
        let at = (ConnectionId(connection), 1);
        self.engine.publish(at, Arc::new(message), mandatory, self.now_ms, &mut self.out)
    }

    /// Publishes to a queue.
    fn put(&mut self, queue: &str, body: &str) {
        self.publish(message("", queue, body)).unwrap();
    }

    fn consume_as(&mut self, spec: ConsumerSpec) -> Result<Arc<str>, Fault> {
        self.engine.consume(spec, self.now_ms, &mut self.out)
    }

    /// Consumes with a tag that is the queue's name and the connection's number.
    fn consume(&mut self, connection: u64, queue: &str) {
        self.consume_as(consumer(connection, queue)).unwrap();
    }

    fn qos(&mut self, connection: u64, prefetch: u16, global: bool) {
        self.engine.qos((ConnectionId(connection), 1), prefetch, global, self.now_ms, &mut self.out);
    }

    fn ack(&mut self, connection: u64, tag: u64, multiple: bool) -> Result<(), Fault> {
        self.engine.acknowledge((ConnectionId(connection), 1), tag, multiple, self.now_ms, &mut self.out)
    }

    fn requeue(&mut self, connection: u64, tag: u64, multiple: bool) -> Result<(), Fault> {
        self.engine.reject((ConnectionId(connection), 1), tag, multiple, true, self.now_ms, &mut self.out)
    }

    fn get(&mut self, connection: u64, queue: &str, no_ack: bool) -> Result<(), Fault> {
        self.engine.get((ConnectionId(connection), 1), queue, no_ack, self.now_ms, &mut self.out)
    }

    /// Lets time pass, and does what is due then.
    fn wait(&mut self, milliseconds: i64) {
        self.now_ms += milliseconds;
        self.engine.tick(self.now_ms, &mut self.out);
    }

    fn length(&mut self, queue: &str) -> Option<u32> {
        let key = self.engine.queue_names.get(queue)?;
        Some(self.engine.queues.get(*key)?.ready.len() as u32)
    }

    /// What was said since the last time, a line each; records are left out.
    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out.0).iter().filter_map(line).collect()
    }

    /// What was recorded since the last time.
    fn recorded(&mut self) -> Vec<Record> {
        let records = std::mem::take(&mut self.out.0).into_iter();
        records.filter_map(|said| if let Said::Recorded(record) = said { Some(record) } else { None }).collect()
    }
}

fn consumer(connection: u64, queue: &str) -> ConsumerSpec {
    ConsumerSpec {
        connection: ConnectionId(connection),
        channel: 1,
        queue: queue.into(),
        tag: format!("{queue}/{connection}").into(),
        no_ack: false,
        exclusive: false,
        no_wait: true,
    }
}

fn line(said: &Said) -> Option<String> {
    let (connection, output, durable) = match said {
        Said::Recorded(_) => return None,
        Said::Sent(connection, output) => (connection, output, ""),
        Said::WhenDurable(connection, output) => (connection, output, " when durable"),
    };
    let text = |message: &Message| String::from_utf8_lossy(&message.body).into_owned();
    let again = |redelivered: bool| if redelivered { " again" } else { "" };
    let what = match output {
        Output::Deliver { consumer, tag, redelivered, message, .. } => {
            format!("{consumer} gets {} #{tag}{}", text(message), again(*redelivered))
        }
        Output::GetOk { tag, redelivered, left, message, .. } => {
            format!("got {} #{tag}{}, {left} left", text(message), again(*redelivered))
        }
        Output::Return { code, text: why, message, .. } => format!("returned {} {code} {why}", text(message)),
        Output::Confirm { tag, taken, .. } => format!("{} {tag}", if *taken { "ack" } else { "nack" }),
        Output::Method { method, .. } => match &**method {
            AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)) => format!("consume-ok {}", ok.consumer_tag),
            AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)) => format!("cancel {}", cancel.consumer_tag),
            AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_)) => "get-empty".to_owned(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    };
    Some(format!("{}: {what}{durable}", connection.0))
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}
