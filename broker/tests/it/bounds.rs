//! What is bounded: connections, memory, patience; and how a broker ends.

use std::time::Duration;

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, connection};
use muster_protocol::HostName;
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_ALL, agent_queue};

use crate::client::{Client, publish, tls};
use crate::site::{LIMIT, Site};

fn queue(host: &str) -> String {
    agent_queue(&HostName::new(host).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_told_so() {
    let site = Site::with(|settings| settings.limits.connections_max = 2);
    let held: Vec<Client> = ["user/a", "user/b"].iter().map(|it| Client::open(&site, &site.member(it))).collect();
    let config = muster_pki::tls::client_config(&site.member("user/c"), &site.trust()).unwrap();
    let mut third = tls(&site, config).unwrap();
    let said = match third.log_in() {
        Err(AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))) => {
            (close.reply_code, close.reply_text.to_string())
        }
        _ => third.closed(),
    };
    assert_eq!(said.0, 506, "{}", said.1);
    assert!(said.1.contains("2 connections"), "{}", said.1);
    drop((held, third));
    site.until("all are gone", |status| match status.connected.open.count {
        0 => Ok(()),
        open => Err(format!("{open} are open")),
    });
    Client::open(&site, &site.member("user/c"));
    assert_eq!(site.server.status(false).connected.refused["connection-limit"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_keeps_a_bounded_outbox_and_hurts_nobody() {
    let site = Site::with(|settings| settings.limits.engine.outbox_bytes_max = 256 * 1024);
    let mut slow = Client::open(&site, &site.member("host/slow.example.com"));
    let mut quick = Client::open(&site, &site.member("host/quick.example.com"));
    slow.subscribe(&queue("slow.example.com"), EXCHANGE_COMMAND, KEY_ALL);
    quick.subscribe(&queue("quick.example.com"), EXCHANGE_COMMAND, KEY_ALL);
    let mut lea = Client::open(&site, &site.member("user/lea"));
    const MESSAGES: usize = 200;
    const BYTES: usize = 100_000;
    let reader = std::thread::spawn(move || {
        let mut read = 0;
        while read < MESSAGES * BYTES {
            if let AMQPFrame::Body(_, body) = quick.frame() {
                read += body.len();
            }
        }
        quick
    });
    for _ in 0..MESSAGES {
        lea.send(publish(EXCHANGE_COMMAND, KEY_ALL, vec![b'x'; BYTES]));
    }
    // Everybody else has everything, while the slow one has read nothing since.
    let _quick = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
    let waiting = site.until("the slow one's queue holds what its outbox may not", |status| {
        let queue = status.queues.iter().find(|queue| queue.name == self::queue("slow.example.com")).unwrap();
        // What TCP, TLS and the outbox take is a few megabytes; the rest stays in the queue.
        if queue.ready > MESSAGES / 4 && status.connected.slow == 1 {
            Ok(queue.ready)
        } else {
            Err(format!("{queue:?}"))
        }
    });
    assert!(waiting < MESSAGES);
    // Then it reads, and gets all of it in the end.
    let all = tokio::task::spawn_blocking(move || {
        let mut read = 0;
        while read < MESSAGES * BYTES {
            if let AMQPFrame::Body(_, body) = slow.frame() {
                read += body.len();
            }
        }
        read
    });
    assert_eq!(tokio::time::timeout(LIMIT, all).await.unwrap().unwrap(), MESSAGES * BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_does_not_read_the_answers_is_not_read_from() {
    let site = Site::new();
    let mut lea = Client::open(&site, &site.member("user/lea"));
    // Each is answered with a frame that nobody reads. The broker stops to read long before memory matters.
    let flow = || {
        crate::client::method(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Qos(basic::Qos { prefetch_count: 1, global: false })),
        )
    };
    let batch: Vec<AMQPFrame> = std::iter::repeat_with(flow).take(2_000).collect();
    let writer = std::thread::spawn(move || {
        let mut sent = 0;
        // Ends when the broker takes no more and the write times out, or when the test is over.
        while lea.try_send(batch.clone()).is_ok() {
            sent += 1;
        }
        sent
    });
    let mut last = 0;
    let mut same = 0;
    while same < 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let received = site.server.status(false).connections[0].received_bytes;
        same = if received == last && received > 0 { same + 1 } else { 0 };
        last = received;
    }
    let status = site.server.status(false);
    assert!(status.connections[0].waiting < 10_000, "{:?}", status.connections[0]);
    // It is still there, and others are served.
    Client::open(&site, &site.member("user/max"));
    site.server.close_connections(None, "the test is over");
    assert!(writer.join().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_broker_stops_publishers_and_says_why_and_goes_on() {
    let site = Site::with(|settings| settings.limits.engine.message_bytes_max = 1_000_000);
    let mut host = Client::open(&site, &site.member("host/web1.example.com"));
    host.declare(&queue("web1.example.com"), EXCHANGE_COMMAND, KEY_ALL);
    let mut lea = Client::open(&site, &site.member("user/lea"));
    for _ in 0..12 {
        lea.send(publish(EXCHANGE_COMMAND, KEY_ALL, vec![b'x'; 100_000]));
    }
    let frame = lea.frame();
    assert!(
        matches!(frame, AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(_)))),
        "{frame:?}"
    );
    let status = site.server.status(false);
    assert!(status.full.iter().any(|why| why.contains("limits.memory_bytes")), "{:?}", status.full);
    assert_eq!(status.connected.blocked, 1);
    // Who does not publish goes on.
    let mut max = Client::open(&site, &site.member("user/max"));
    max.declare("reply.user/max.1", "reply", "user/max.1.#");
    // Room again.
    site.server.purge_queue(&queue("web1.example.com")).unwrap();
    let frame = lea.frame();
    assert!(
        matches!(frame, AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Unblocked(_)))),
        "{frame:?}"
    );
    site.until("what was sent meanwhile has arrived", |status| {
        let ready = status.queues.iter().map(|queue| queue.ready).sum::<usize>();
        if status.full.is_empty() && ready > 0 { Ok(()) } else { Err(format!("{ready}, {:?}", status.full)) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_says_farewell_and_waits_for_nobody_for_long() {
    let site = Site::new();
    let mut polite = Client::open(&site, &site.member("user/lea"));
    let _silent = Client::open(&site, &site.member("user/max"));
    // One in the middle of its handshake.
    let _half = std::net::TcpStream::connect(site.server.local_addr()).unwrap();
    let tasks = site.tasks.clone();
    let stopped = tokio::task::spawn_blocking({
        let runtime = tokio::runtime::Handle::current();
        move || runtime.block_on(tasks.shutdown(LIMIT))
    });
    let (code, words) = tokio::task::spawn_blocking(move || polite.closed()).await.unwrap();
    assert_eq!(
        (code, words.as_str()),
        (320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
    );
    assert_eq!(stopped.await.unwrap(), Vec::<&str>::new(), "tasks that did not end by themselves");
    std::net::TcpStream::connect(site.server.local_addr()).unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_as_such_and_who_hangs_up_meanwhile_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::with(|settings| {
        settings.durable = Some(muster_broker::server::Durable {
            directory: directory.path().join("journal"),
            bounds: muster_broker::journal::Bounds::default(),
            disk: std::sync::Arc::new(muster_daemon::RealDisk),
        });
        settings.limits.disk_bytes_max = 0;
    });
    site.until("the broker is full", |status| if status.full.is_empty() { Err("not yet".to_owned()) } else { Ok(()) });
    let mut lea = Client::open(&site, &site.member("user/lea"));
    lea.send(publish(EXCHANGE_COMMAND, KEY_ALL, b"command".to_vec()));
    let AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked))) = lea.frame() else {
        panic!("not blocked")
    };
    assert!(blocked.reason.as_str().contains("disk"), "{}", blocked.reason);
    // A host's queue would have to be kept; it waits too.
    let mut host = Client::open(&site, &site.member("host/web1.example.com"));
    host.send([crate::client::method(
        1,
        AMQPClass::Queue(amq_protocol::protocol::queue::AMQPMethod::Declare(amq_protocol::protocol::queue::Declare {
            queue: crate::client::short(&queue("web1.example.com")),
            durable: true,
            ..Default::default()
        })),
    )]);
    let frame = host.frame();
    assert!(
        matches!(frame, AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(_)))),
        "{frame:?}"
    );
    assert_eq!(site.server.status(false).counts.queues.count, 0);
    // There is something that nobody reads before the end.
    lea.send(publish(EXCHANGE_COMMAND, KEY_ALL, b"another".to_vec()));
    drop(lea);
    site.until("the broker knows that it is gone", |status| match &status.connections[..] {
        [only] if only.identity == "host/web1.example.com" => Ok(()),
        others => Err(format!("{others:?}")),
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_has_one_share_for_all_of_its_queues() {
    let site = Site::with(|settings| settings.limits.engine.controller_bytes_max = 1_000_000);
    let mut lea = Client::open(&site, &site.member("user/lea"));
    for session in 0..4 {
        lea.declare(&format!("reply.user/lea.{session}"), "reply", &format!("user/lea.{session}.#"));
    }
    let mut host = Client::open(&site, &site.member("host/web1"));
    let answer = |session: usize| publish("reply", &format!("user/lea.{session}.web1"), vec![b'x'; 50_000]);
    (0..40).for_each(|number| host.send(answer(number % 4)));
    let seen = site.until("what is beyond the share is refused", |status| {
        let share = status.identities.iter().find(|it| it.identity == "user/lea").unwrap();
        assert!(share.kept_bytes <= share.bytes_max / 4 * 3, "{share:?}");
        let waiting: usize = status.queues.iter().map(|queue| queue.ready).sum();
        match share.refused_total {
            26 => Ok((waiting, share.queues, share.connections)),
            _ => Err(format!("{share:?}")),
        }
    });
    assert_eq!(seen, (14, 4, 1));
}
