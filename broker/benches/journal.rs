//! What durability costs: a confirm, a broadcast to ten thousand durable queues, a start with a full journal; beside each,
//! the same without a journal.
//!
//! `cargo bench -p muster-broker --bench journal [DIRECTORY]`. The directory decides which disk is measured; without one it is
//! the build's. What was measured is in `docs/adr/0036-a-bounded-journal.md`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal, over data that it makes itself"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use amq_protocol::types::FieldTable;
use bytes::Bytes;
use muster_broker::engine::{
    BindingSpec, ConsumerSpec, Destination, Engine, ExchangeKind, ExchangeSpec, Limits, QueueLimits, QueueSpec, Share,
};
use muster_broker::journal::{Bounds, Journal, Record};
use muster_broker::{ConnectionId, Message, Outlet, Output};
use muster_daemon::RealDisk;

const HOSTS: usize = 10_000;
const ROUNDS: usize = 200;
const CONTROLLER: ConnectionId = ConnectionId(1);
const AGENTS: ConnectionId = ConnectionId(2);
const NOW_MS: i64 = 1_795_222_037_000;

/// Counts what is said, and hands records to the journal if there is one.
struct Out {
    journal: Option<Arc<Journal>>,
    deliveries: u64,
    confirmed: u64,
}

impl Outlet for Out {
    fn send(&mut self, _: ConnectionId, output: Output) {
        match output {
            Output::Deliver { tag, .. } => self.deliveries = tag,
            Output::Confirm { .. } => self.confirmed += 1,
            _ => {}
        }
    }

    fn record(&mut self, record: Record) {
        if let Some(journal) = &self.journal {
            journal.record(record);
        }
    }

    fn send_when_durable(&mut self, connection: ConnectionId, output: Output) {
        match &self.journal {
            Some(journal) => {
                if let Some(output) = journal.hold(connection, output) {
                    self.send(connection, output);
                }
            }
            None => self.send(connection, output),
        }
    }
}

/// A broker without connections.
struct Bench {
    engine: Engine,
    out: Out,
    woken: Arc<(Mutex<bool>, Condvar)>,
}

fn limits() -> Limits {
    Limits {
        queues_max: 50_000,
        bindings_max: 500_000,
        exchanges_max: 1_000,
        consumers_max: 100_000,
        message_bytes_max: 4 << 30,
        outbox_bytes_max: 1 << 30,
        host_bytes_max: 1 << 30,
        controller_bytes_max: 1 << 30,
    }
}

fn engine() -> Engine {
    let exchange = |name: &str| ExchangeSpec {
        name: name.into(),
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
    };
    Engine::new(limits(), Vec::new(), vec![exchange("cmd"), exchange("reply")])
}

fn agent(index: usize) -> Arc<str> {
    format!("agent.host-{index:05}.example.com").into()
}

fn message(key: &str, bytes: usize) -> Arc<Message> {
    Arc::new(Message {
        exchange: "cmd".into(),
        routing_key: key.into(),
        properties: Bytes::from_static(b"\x10\x00\x02"),
        body: vec![7; bytes].into(),
        persistent: true,
        expiration_ms: Some(86_400_000),
    })
}

impl Bench {
    fn start(directory: Option<&Path>, bounds: Bounds) -> Self {
        let mut engine = engine();
        let woken = Arc::new((Mutex::new(false), Condvar::new()));
        let journal = directory.map(|directory| {
            let (journal, records) = Journal::open(Arc::new(RealDisk), directory, bounds, NOW_MS).unwrap();
            records.into_iter().for_each(|record| engine.replay(record));
            let wake = woken.clone();
            journal
                .start(move || {
                    *wake.0.lock().unwrap() = true;
                    wake.1.notify_one();
                })
                .unwrap();
            Arc::new(journal)
        });
        for connection in [CONTROLLER, AGENTS] {
            engine.connect(connection, &format!("host/{}", connection.0).into(), Share::Host);
            engine.open_channel((connection, 1));
        }
        engine.confirm_select((CONTROLLER, 1));
        Self { engine, out: Out { journal, deliveries: 0, confirmed: 0 }, woken }
    }

    fn hosts(&mut self) {
        for index in 0..HOSTS {
            let name = agent(index);
            let limits = QueueLimits::default();
            let spec = QueueSpec { name: name.clone(), durable: true, exclusive: false, auto_delete: false, limits };
            self.engine.declare_queue(AGENTS, spec, NOW_MS, &mut self.out).unwrap();
            for key in ["all".to_owned(), "collective.main".to_owned(), format!("host.host-{index:05}.example.com")] {
                let binding = BindingSpec {
                    source: "cmd".into(),
                    destination: Destination::Queue(name.clone()),
                    key: key.as_str().into(),
                    arguments: FieldTable::default(),
                };
                self.engine.bind(AGENTS, binding, &mut self.out).unwrap();
            }
        }
    }

    fn consume(&mut self) {
        for index in 0..HOSTS {
            let spec = ConsumerSpec {
                connection: AGENTS,
                channel: 1,
                queue: agent(index),
                tag: format!("c{index}").as_str().into(),
                no_ack: false,
                exclusive: false,
                no_wait: true,
            };
            self.engine.consume(spec, NOW_MS, &mut self.out).unwrap();
        }
    }

    fn publish(&mut self, message: &Arc<Message>) {
        self.engine.publish((CONTROLLER, 1), message.clone(), true, NOW_MS, &mut self.out).unwrap();
    }

    /// Waits for as many confirms in all.
    fn confirmed(&mut self, count: u64) {
        let mut released = Vec::new();
        while self.out.confirmed < count {
            if let Some(journal) = self.out.journal.clone() {
                journal.released(&mut released);
                released.drain(..).for_each(|(connection, output)| self.out.send(connection, output));
            }
            if self.out.confirmed < count {
                let mut woken = self.woken.0.lock().unwrap();
                while !*woken {
                    woken = self.woken.1.wait(woken).unwrap();
                }
                *woken = false;
            }
        }
    }

    fn end(self) {
        if let Some(journal) = &self.out.journal {
            journal.close();
        }
    }
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// One confirm after the other, and with more of them on the way.
fn confirms(directory: Option<&Path>) {
    let mut bench = Bench::start(directory, Bounds::default());
    bench.hosts();
    let one = message("host.host-00001.example.com", 700);
    let mut confirmed = 0;
    let times = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        bench.publish(&one);
        confirmed += 1;
        bench.confirmed(confirmed);
        began.elapsed()
    });
    let (middle, slow) = median(times.collect());
    println!("  a confirm alone                  median {middle:>10.1?}   99 % {slow:>10.1?}");
    for window in [16, 256, 1024_u64] {
        let count = window * 20;
        let began = Instant::now();
        let first = confirmed;
        for index in 0..count {
            bench.publish(&one);
            confirmed += 1;
            // As a publisher that has so many on their way at most.
            if index >= window {
                bench.confirmed(first + index + 1 - window);
            }
        }
        bench.confirmed(confirmed);
        let rate = f64::from(u32::try_from(count).unwrap()) / began.elapsed().as_secs_f64();
        println!("  confirms a second, {window:>5} on the way  {rate:>12.0}");
    }
    bench.end();
}

/// A message for everybody, taken and acknowledged by everybody.
fn broadcast(directory: Option<&Path>, acknowledged_first: bool) {
    let mut bench = Bench::start(directory, Bounds::default());
    bench.hosts();
    bench.consume();
    let all = message("all", 2_000);
    let (mut publishing, mut acknowledging, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=20 {
        let began = Instant::now();
        bench.publish(&all);
        publishing.push(began.elapsed());
        if !acknowledged_first {
            bench.confirmed(round);
            waiting.push(began.elapsed());
        }
        let acknowledges = Instant::now();
        bench.engine.acknowledge((AGENTS, 1), bench.out.deliveries, true, NOW_MS, &mut bench.out).unwrap();
        acknowledging.push(acknowledges.elapsed());
        if acknowledged_first {
            bench.confirmed(round);
            waiting.push(began.elapsed());
        }
    }
    println!(
        "  {HOSTS} queues, acknowledged {}: publish {:>8.1?}, confirmed after {:>8.1?}, acknowledge {:>8.1?}",
        if acknowledged_first { "before the sync" } else { "after the confirm" },
        median(publishing).0,
        median(waiting).0,
        median(acknowledging).0,
    );
    if let Some(journal) = &bench.out.journal {
        let status = journal.status();
        println!("    groups {}, slowest {} us, bytes {}", status.groups_total, status.group_us_max, status.bytes);
    }
    bench.end();
}

fn restart(directory: &Path, name: &str, fill: impl FnOnce(&mut Bench)) {
    let bounds = Bounds::default();
    let mut bench = Bench::start(Some(directory), bounds);
    let began = Instant::now();
    fill(&mut bench);
    let filled = began.elapsed();
    let journal = bench.out.journal.clone().unwrap();
    bench.end();
    drop(journal);
    let began = Instant::now();
    let (journal, records) = Journal::open(Arc::new(RealDisk), directory, bounds, NOW_MS).unwrap();
    let opened = began.elapsed();
    let count = records.len();
    let mut engine = engine();
    let began = Instant::now();
    records.into_iter().for_each(|record| engine.replay(record));
    let replayed = began.elapsed();
    let status = journal.status();
    println!(
        "  {name}: {count} records, {:.1} MB in {} segments; filled in {filled:.1?}; read in {opened:.1?}, replayed in {replayed:.1?}",
        status.bytes as f64 / 1e6,
        status.segments,
    );
}

fn main() {
    let place = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let place = place.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let scratch = tempfile::tempdir_in(&place).unwrap();
    let directory = |name: &str| scratch.path().join(name);
    println!("on {}", place.display());
    for (name, journal) in [("without a journal", None), ("with a journal", Some("confirms"))] {
        println!("{name}");
        confirms(journal.map(&directory).as_deref());
        let began = Instant::now();
        let mut bench = Bench::start(journal.map(|_| directory("hosts")).as_deref(), Bounds::default());
        bench.hosts();
        println!("  {HOSTS} hosts declare a queue and three bindings   {:.1?}", began.elapsed());
        bench.end();
        broadcast(journal.map(|_| directory("broadcast")).as_deref(), false);
        broadcast(journal.map(|_| directory("broadcast-early")).as_deref(), true);
    }
    println!("starts");
    restart(&directory("empty"), "nothing", |_| ());
    restart(&directory("fleet"), "10,000 hosts, nothing waits", Bench::hosts);
    restart(&directory("list"), "10,000 hosts, a revocation list of 20 kB waits for each", |bench| {
        bench.hosts();
        bench.publish(&message("all", 20_000));
        bench.confirmed(1);
    });
    restart(&directory("full"), "10,000 hosts, as full as it may be with messages of 4 kB", |bench| {
        bench.hosts();
        let mut confirmed = 0;
        while !bench.out.journal.as_ref().is_some_and(|journal| journal.is_pressed()) {
            bench.publish(&message(&format!("host.host-{:05}.example.com", confirmed % HOSTS as u64), 4_000));
            confirmed += 1;
            if confirmed % 1_000 == 0 {
                bench.confirmed(confirmed);
            }
        }
        bench.confirmed(confirmed);
    });
}
