//! What a connection costs the broker: memory of each, processor time and rate of opening them, one fan-out to all.
//!
//! `cargo run --release -p muster-broker --example connections -- 5000`
//!
//! The broker is a process of its own, so that its memory and time are nobody else's; the clients are threads of this one.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints, and stops where it cannot go on")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, ProtocolVersion, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::{AMQPClass, basic, channel, connection, queue};
use amq_protocol::types::{FieldTable, ShortString};
use muster_broker::server::{Server, Settings};
use muster_daemon::{Clock as _, SystemClock, Tasks};
use muster_pki::testing::TestAuthority;
use muster_pki::{Credentials, Trust};
use muster_protocol::{Identity, Timestamp};
use rustls::{ClientConnection, StreamOwned};

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn main() {
    muster_pki::tls::install_crypto_provider();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", directory] => serve(Path::new(directory)),
        [count] => measure(count.parse().expect("a number of connections")),
        _ => panic!("connections COUNT"),
    }
}

fn serve(directory: &Path) {
    muster_daemon::return_large_blocks();
    let path = |name: &str| directory.join(name);
    let credentials = Credentials::load(&path("broker-mq1.pem"), &path("broker-mq1.key")).unwrap();
    let trust = Trust::load(&path("ca.pem"), Some(&path("crl.pem"))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = Tasks::new();
        let server = Server::start(Settings::new(credentials, trust), &tasks).unwrap();
        println!("{}", server.local_addr());
        std::io::stdout().flush().unwrap();
        tasks.stopping().cancelled().await;
    });
}

/// A process that is measured.
struct Measured(Child);

impl Measured {
    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn processor_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn measure(count: usize) {
    let authority = TestAuthority::new(Timestamp(SystemClock.now_ms())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("mq");
    authority.write(&authority.broker("broker/mq1").unwrap(), &files).unwrap();
    let identities: Vec<Identity> = (0..count).map(|it| format!("host/h{it}.example.com").parse().unwrap()).collect();
    let members = authority.fleet(&identities).unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let trust = authority.trust().unwrap();

    let mut child = Command::new(std::env::current_exe().unwrap());
    let mut child = child.args(["serve".as_ref(), files.as_os_str()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();
    let broker = Measured(child);
    let report = |what: &str, since: (Instant, f64, u64)| {
        let (wall_s, cpu_s) = (since.0.elapsed().as_secs_f64(), broker.processor_s() - since.1);
        let kib = (broker.resident_kib() as f64 - since.2 as f64) / count as f64;
        println!(
            "{what}: {count} in {wall_s:.2} s, {:.0}/s; broker {cpu_s:.2} s of processor, {:.0} us each; {kib:.1} KiB more each",
            count as f64 / wall_s,
            cpu_s * 1e6 / count as f64
        );
    };
    let now = || (Instant::now(), broker.processor_s(), broker.resident_kib());
    println!("broker alone: {} KiB", broker.resident_kib());

    // TCP and TLS first for all, then AMQP, then a queue and a consumer: what each adds.
    let begin = now();
    let mut clients = in_threads(members.iter().collect(), |member: &Credentials| tls(address, member, &trust));
    report("TLS", begin);
    let then = now();
    clients = in_threads(clients, |mut client| {
        open(&mut client);
        client
    });
    report("AMQP", then);
    let then = now();
    let numbered: Vec<(usize, Tls)> = clients.into_iter().enumerate().collect();
    let mut clients = in_threads(numbered, |(number, mut client)| {
        subscribe(&mut client, number);
        client
    });
    report("queue, two bindings, consumer", then);
    report("all of it", begin);
    std::thread::sleep(Duration::from_secs(2));
    println!("after two quiet seconds: {:.1} KiB each", (broker.resident_kib() - begin.2) as f64 / count as f64);

    let mut lea = tls(address, &lea, &trust);
    open(&mut lea);
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let then = now();
        publish(&mut lea);
        clients = in_threads(clients, |mut client| {
            expect_delivery(&mut client);
            client
        });
        rounds.push((then.0.elapsed().as_secs_f64(), broker.processor_s() - then.1));
    }
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (wall_s, cpu_s) = rounds[rounds.len() / 2];
    println!(
        "one message to all, median of five: {wall_s:.3} s; broker {:.0} us of processor each",
        cpu_s * 1e6 / count as f64
    );
    println!("at the end: {:.1} KiB each", (broker.resident_kib() - begin.2) as f64 / count as f64);
}

/// Does something with each, on a few threads, in order.
fn in_threads<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    const THREADS: usize = 8;
    let items: Vec<std::sync::Mutex<Option<T>>> =
        items.into_iter().map(|item| std::sync::Mutex::new(Some(item))).collect();
    let results: Vec<std::sync::Mutex<Option<R>>> = items.iter().map(|_| std::sync::Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let item = item.lock().unwrap().take().unwrap();
                    *results[at].lock().unwrap() = Some(work(item));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().unwrap().unwrap()).collect()
}

fn tls(address: SocketAddr, credentials: &Credentials, trust: &Trust) -> Tls {
    let config = muster_pki::tls::client_config(credentials, trust).unwrap();
    let mut tls = ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(tls, socket)
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}

fn send(client: &mut Tls, frames: impl IntoIterator<Item = AMQPFrame>) {
    let write = |bytes, frame: AMQPFrame| gen_frame(&frame)(WriteContext::from(bytes)).unwrap().into_inner().0;
    let bytes = frames.into_iter().fold(Vec::new(), write);
    client.write_all(&bytes).unwrap();
    client.flush().unwrap();
}

/// Reads whole frames until one is what is waited for.
fn until(client: &mut Tls, wanted: impl Fn(&AMQPFrame) -> bool) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Ok((rest, frame)) = parse_frame(bytes.as_slice()) {
            let used = bytes.len() - rest.len();
            if wanted(&frame) {
                assert_eq!(used, bytes.len(), "something follows {frame:?}");
                return;
            }
            bytes.drain(..used);
        }
        let read = client.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the broker hung up");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

fn method(channel: u16, class: AMQPClass) -> AMQPFrame {
    AMQPFrame::Method(channel, class)
}

fn open(client: &mut Tls) {
    use connection::AMQPMethod::{Open, OpenOk, Start, StartOk, Tune, TuneOk};
    let own = |method: connection::AMQPMethod| AMQPFrame::Method(0, AMQPClass::Connection(method));
    send(client, [AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1())]);
    until(client, |frame| matches!(frame, AMQPFrame::Method(0, AMQPClass::Connection(Start(_)))));
    send(
        client,
        [own(StartOk(connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: short("EXTERNAL"),
            response: String::new().into(),
            locale: short("en_US"),
        }))],
    );
    until(client, |frame| matches!(frame, AMQPFrame::Method(0, AMQPClass::Connection(Tune(_)))));
    send(
        client,
        [
            own(TuneOk(connection::TuneOk { channel_max: 8, frame_max: 16_384, heartbeat: 0 })),
            own(Open(connection::Open { virtual_host: short("muster") })),
        ],
    );
    until(client, |frame| matches!(frame, AMQPFrame::Method(0, AMQPClass::Connection(OpenOk(_)))));
    send(client, [method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))]);
    until(client, |frame| matches!(frame, AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)))));
}

fn subscribe(client: &mut Tls, number: usize) {
    let name = format!("agent.h{number}.example.com");
    let bind = |key: &str| {
        method(
            1,
            AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                queue: short(&name),
                exchange: short("cmd"),
                routing_key: short(key),
                nowait: true,
                arguments: FieldTable::default(),
            })),
        )
    };
    send(
        client,
        [
            method(
                1,
                AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                    queue: short(&name),
                    passive: false,
                    durable: true,
                    exclusive: false,
                    auto_delete: false,
                    nowait: true,
                    arguments: FieldTable::default(),
                })),
            ),
            bind("all"),
            bind(&format!("host.h{number}.example.com")),
            method(
                1,
                AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
                    queue: short(&name),
                    consumer_tag: short(""),
                    no_local: false,
                    no_ack: true,
                    exclusive: true,
                    nowait: false,
                    arguments: FieldTable::default(),
                })),
            ),
        ],
    );
    until(client, |frame| matches!(frame, AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_)))));
}

const BODY: usize = 1_500;

fn publish(client: &mut Tls) {
    let publish =
        basic::Publish { exchange: short("cmd"), routing_key: short("all"), mandatory: false, immediate: false };
    let header = AMQPContentHeader { class_id: 60, body_size: BODY as u64, properties: AMQPProperties::default() };
    send(
        client,
        [
            method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))),
            AMQPFrame::Header(1, header),
            AMQPFrame::Body(1, vec![b'x'; BODY]),
        ],
    );
}

fn expect_delivery(client: &mut Tls) {
    until(client, |frame| matches!(frame, AMQPFrame::Body(1, body) if body.len() == BODY));
}
