//! What the engine costs, without frames, TLS and disk: Muster's own traffic with many hosts.
//!
//! `cargo bench -p muster-broker --bench engine [HOSTS]`; without a number, 10,000. Figures are the best of five rounds, in
//! nanoseconds for what the line names. What was measured is in `docs/adr/0035-an-own-broker.md`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal, over data that it makes itself"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amq_protocol::types::FieldTable;
use bytes::Bytes;
use muster_broker::engine::{
    BindingSpec, ConsumerSpec, Destination, Engine, ExchangeKind, ExchangeSpec, Limits, Overflow, Policy, QueueLimits,
    QueueSpec, Share,
};
use muster_broker::journal::Record;
use muster_broker::{ConnectionId, Message, Outlet, Output};

/// Bytes of a signed command or report, about.
const BODY_BYTES: usize = 700;

/// Rounds, of which the best counts.
const ROUNDS: usize = 5;

/// Counts what is said, and drops it.
#[derive(Default)]
struct Counter {
    sent: usize,
    recorded: usize,
}

impl Outlet for Counter {
    fn send(&mut self, connection: ConnectionId, output: Output) {
        black_box((connection, output));
        self.sent += 1;
    }

    fn record(&mut self, record: Record) {
        black_box(record);
        self.recorded += 1;
    }

    fn send_when_durable(&mut self, connection: ConnectionId, output: Output) {
        self.send(connection, output);
    }
}

const LIMITS: Limits = Limits {
    queues_max: 1_000_000,
    bindings_max: 1_000_000,
    exchanges_max: 1_000,
    consumers_max: 100,
    message_bytes_max: 1 << 30,
    outbox_bytes_max: 1 << 24,
    host_bytes_max: 1 << 30,
    controller_bytes_max: 1 << 30,
};

/// A site with a broker's two exchanges and policies, hosts with a queue, three bindings and a consumer each, and a
/// controller, which is connection 0.
struct Site {
    engine: Engine,
    out: Counter,
}

impl Site {
    fn new(hosts: u64, consumed: bool) -> Self {
        let exchange = |name: &str| ExchangeSpec {
            name: name.into(),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: false,
            internal: false,
        };
        let policy = |prefix: &str, overflow| Policy {
            prefix: prefix.to_owned(),
            limits: QueueLimits {
                expires_ms: Some(86_400_000),
                message_ttl_ms: Some(3_600_000),
                length_max: Some(100_000),
                bytes_max: Some(1 << 30),
                overflow: Some(overflow),
            },
        };
        let policies = vec![policy("agent.", Overflow::DropHead), policy("reply.", Overflow::RejectPublish)];
        let engine = Engine::new(LIMITS, policies, vec![exchange("cmd"), exchange("reply")]);
        let mut site = Self { engine, out: Counter::default() };
        site.join(0);
        for host in 1..=hosts {
            site.host(host, consumed);
        }
        site
    }

    fn join(&mut self, connection: u64) {
        self.engine.connect(ConnectionId(connection), &format!("host/{connection}").into(), Share::Host);
        self.engine.open_channel((ConnectionId(connection), 1));
    }

    fn host(&mut self, host: u64, consumed: bool) {
        self.join(host);
        let queue = format!("agent.host{host}.example.org");
        self.queue(host, &queue, true, 10, consumed);
        for key in ["all".to_owned(), "collective.web".to_owned(), format!("host.host{host}.example.org")] {
            self.bind("cmd", &queue, &key);
        }
    }

    fn queue(&mut self, connection: u64, name: &str, durable: bool, prefetch: u16, consumed: bool) {
        let limits = QueueLimits::default();
        let spec = QueueSpec { name: name.into(), durable, exclusive: false, auto_delete: false, limits };
        let id = ConnectionId(connection);
        self.engine.declare_queue(id, spec, 0, &mut self.out).unwrap();
        if consumed {
            self.engine.qos((id, 1), prefetch, false, 0, &mut self.out);
            let spec = ConsumerSpec {
                connection: id,
                channel: 1,
                queue: name.into(),
                tag: name.into(),
                no_ack: false,
                exclusive: false,
                no_wait: false,
            };
            self.engine.consume(spec, 0, &mut self.out).unwrap();
        }
    }

    fn bind(&mut self, source: &str, queue: &str, key: &str) {
        let destination = Destination::Queue(queue.into());
        let binding =
            BindingSpec { source: source.into(), destination, key: key.into(), arguments: FieldTable::default() };
        self.engine.bind(ConnectionId(0), binding, &mut self.out).unwrap();
    }

    fn publish(&mut self, from: u64, message: &Arc<Message>) {
        self.engine.publish((ConnectionId(from), 1), message.clone(), true, 1, &mut self.out).unwrap();
    }

    /// The connection has read everything and acknowledges one delivery, or several.
    fn read(&mut self, connection: u64, tag: u64, messages: usize, size: usize) {
        let id = ConnectionId(connection);
        self.engine.drained(id, messages * size, 1, &mut self.out);
        self.engine.acknowledge((id, 1), tag, true, 1, &mut self.out).unwrap();
    }
}

fn message(exchange: &str, key: &str, persistent: bool) -> Arc<Message> {
    Arc::new(Message {
        exchange: exchange.into(),
        routing_key: key.into(),
        properties: Bytes::from_static(&[0; 60]),
        body: Bytes::from(vec![b'x'; BODY_BYTES]),
        persistent,
        expiration_ms: None,
    })
}

fn show(name: &str, each: u64, took: Duration) {
    println!("{name:<58} {:>9.0} ns", took.as_secs_f64() * 1e9 / each as f64);
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// One command to all hosts, which read and acknowledge it.
fn broadcast(hosts: u64) {
    let mut site = Site::new(hosts, true);
    let mut tag = 0;
    for (persistent, kind) in [(false, ""), (true, ", persistent")] {
        let all = message("cmd", "all", persistent);
        let (mut gave, mut read) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            gave = gave.min(timed(|| site.publish(0, &all)));
            tag += 1;
            read = read.min(timed(|| (1..=hosts).for_each(|host| site.read(host, tag, 1, all.size()))));
        }
        show(&format!("broadcast to consumers, a delivery{kind}"), hosts, gave);
        show(&format!("a host has read it and acknowledges{kind}"), hosts, read);
    }
    // A binding changes before each, so nothing is remembered of who is in `all`.
    let all = message("cmd", "all", false);
    let mut gave = Duration::MAX;
    for _ in 0..ROUNDS {
        site.bind("cmd", "agent.host1.example.org", &format!("collective.{tag}"));
        gave = gave.min(timed(|| site.publish(0, &all)));
        tag += 1;
        (1..=hosts).for_each(|host| site.read(host, tag, 1, all.size()));
    }
    show("broadcast after a binding has changed, a delivery", hosts, gave);
}

/// One reply from each host to one queue.
fn replies(hosts: u64) {
    for (prefetch, kind) in [(0, "consumer without a bound"), (200, "consumer with prefetch 200")] {
        let mut site = Site::new(hosts, true);
        site.queue(0, "reply.user/alice.s1", false, prefetch, true);
        site.bind("reply", "reply.user/alice.s1", "user/alice.s1.#");
        let replies: Vec<Arc<Message>> =
            (1..=hosts).map(|host| message("reply", &format!("user/alice.s1.host{host}.example.org"), false)).collect();
        let size = replies[0].size();
        let mut tag = 0;
        let mut round = || {
            for (host, reply) in (1..).zip(&replies) {
                site.publish(host, reply);
                if host % 100 == 0 || host == hosts {
                    // The controller reads and acknowledges a hundred together.
                    let read = if host % 100 == 0 { 100 } else { host % 100 };
                    tag += read;
                    site.read(0, tag, read as usize, size);
                }
            }
        };
        let took = (0..ROUNDS).map(|_| timed(&mut round)).min().unwrap_or_default();
        show(&format!("a reply of each host, {kind}"), hosts, took);
    }
}

/// Commands one by one to named hosts.
fn named(hosts: u64) {
    let mut site = Site::new(hosts, true);
    let commands: Vec<Arc<Message>> =
        (1..=hosts).map(|host| message("cmd", &format!("host.host{host}.example.org"), false)).collect();
    let mut took = Duration::MAX;
    for round in 1..=ROUNDS as u64 {
        took = took.min(timed(|| commands.iter().for_each(|command| site.publish(0, command))));
        (1..=hosts).for_each(|host| site.read(host, round, 1, commands[0].size()));
    }
    show("a command to each host by name", hosts, took);
}

/// Hosts that are away: commands wait, and expire.
fn away(hosts: u64) {
    let all = message("cmd", "all", true);
    let (mut put, mut gone) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let mut site = Site::new(hosts, false);
        put = put.min(timed(|| site.publish(0, &all)));
        gone = gone.min(timed(|| site.engine.tick(3_600_001, &mut site.out)));
        assert_eq!(site.engine.counts().ready, 0);
    }
    show("broadcast to hosts that are away, an entry", hosts, put);
    show("the same expires, an entry", hosts, gone);
}

/// Hosts come and go.
fn storm(hosts: u64) {
    let (mut came, mut went) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let mut site = Site::new(0, true);
        came = came.min(timed(|| (1..=hosts).for_each(|host| site.host(host, true))));
        let all = message("cmd", "all", false);
        site.publish(0, &all);
        went = went.min(timed(|| {
            (1..=hosts).for_each(|host| site.engine.disconnect(ConnectionId(host), 1, &mut site.out));
        }));
    }
    show("a host joins: queue, three bindings, consumer", hosts, came);
    show("a host goes, and gives a command back", hosts, went);
}

fn main() {
    let hosts = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    println!("{hosts} hosts");
    broadcast(hosts);
    replies(hosts);
    named(hosts);
    away(hosts);
    storm(hosts);
}
