//! How fast the broker takes connections.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_pki::Credentials;
use muster_protocol::HostName;
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_ALL, agent_queue, collective_key, host_key};
use serde::Serialize;

use super::connection::{Connection, Server};
use super::frames::Subscription;
use crate::blocking::blocking;
use crate::ground::Ground;
use crate::process::processor_of_self;

/// Which hosts of a ground echo, and which key reaches all of them.
#[derive(Debug, Clone)]
pub struct Place {
    hosts: Range<usize>,
    broadcast: String,
    collective: String,
}

impl Place {
    /// The first hosts, instead of a fleet and with its keys.
    #[must_use]
    pub fn first(hosts: usize) -> Self {
        Self { hosts: 0..hosts, broadcast: KEY_ALL.to_owned(), collective: "main".to_owned() }
    }

    /// So many hosts behind those of a fleet that is connected at the same time, with keys of their own: what is sent to
    /// all of the one reaches nobody of the other.
    #[must_use]
    pub fn beside(fleet: usize, hosts: usize) -> Self {
        Self { hosts: fleet..fleet + hosts, broadcast: "collective.raw".to_owned(), collective: "echo".to_owned() }
    }

    /// The key that reaches all of them.
    pub(super) fn broadcast(&self) -> &str {
        &self.broadcast
    }

    /// Their names with their credentials.
    pub(super) fn members<'a>(&self, ground: &'a Ground) -> Result<Vec<(&'a HostName, &'a Credentials)>> {
        let credentials = &ground.credentials(self.hosts.end)?[self.hosts.clone()];
        Ok(ground.hosts().skip(self.hosts.start).zip(credentials).collect())
    }

    /// What one of them reads, with as many bindings as an agent has.
    pub(super) fn subscription(&self, host: &HostName) -> Result<Subscription> {
        let collective = self.collective.parse().context("name a collective")?;
        Ok(Subscription {
            queue: agent_queue(host),
            exchange: EXCHANGE_COMMAND,
            keys: vec![self.broadcast.clone(), host_key(host), collective_key(&collective)],
            durable: true,
        })
    }
}

/// Connections that were opened as fast as the broker takes them: TCP, TLS, AMQP, the queue with its bindings, a consumer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ConnectStorm {
    /// How many.
    pub connections: usize,
    /// How many at the same time.
    pub at_once: usize,
    /// From the first attempt to the last consumer.
    pub took: Duration,
    /// Processor time of the broker meanwhile.
    pub broker: Duration,
    /// Processor time of this process meanwhile.
    pub own: Duration,
    /// Memory that the broker's processes held before, in bytes.
    pub resident_before: u64,
    /// The same a moment after the last connection was there, when handshakes and what they needed are over.
    pub resident_after: u64,
}

/// How long after a storm the broker is looked at.
const SETTLE: Duration = Duration::from_secs(2);

impl ConnectStorm {
    /// Connections per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn per_second(&self) -> f64 {
        self.connections as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Memory of the broker for each connection with its queue, in bytes. Where the broker held memory from before that
    /// it could use again, it is less than a connection takes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
    pub fn bytes_a_connection(&self) -> f64 {
        self.resident_after.saturating_sub(self.resident_before) as f64 / self.connections.max(1) as f64
    }
}

/// Connects the first `hosts` hosts of the ground, `at_once` of them at a time, and hangs up again. Deletes their queues.
///
/// # Errors
/// A connection does not come about.
pub fn connect_storm(ground: &Ground, hosts: usize, at_once: usize) -> Result<ConnectStorm> {
    let (connections, storm) = open_all(ground, &Place::first(hosts), at_once)?;
    drop(connections);
    ground.clear()?;
    Ok(storm)
}

/// Opens all connections with `at_once` threads and gives them in the hosts' order.
pub(super) fn open_all(ground: &Ground, place: &Place, at_once: usize) -> Result<(Vec<Connection>, ConnectStorm)> {
    let server = Server::of(ground)?;
    let members = place.members(ground)?;
    let hosts = members.len();
    let next = AtomicUsize::new(0);
    let opened: Mutex<BTreeMap<usize, Connection>> = Mutex::default();
    let (broker_before, own_before, started) = (ground.broker.usage(), processor_of_self()?, Instant::now());
    let open_some = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= hosts {
                return Ok(());
            }
            let (host, credentials) = members[number];
            let connection = Connection::open(&server, credentials, &place.subscription(host)?);
            if connection.is_err() {
                // The others need not go on.
                next.store(hosts, Ordering::Relaxed);
            }
            opened.lock().unwrap_or_else(PoisonError::into_inner).insert(number, connection?);
        }
    };
    blocking(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once.clamp(1, hosts.max(1))).map(|_| scope.spawn(open_some)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread that connects panicked"))?)
        })
    })?;
    let took = started.elapsed();
    let own = processor_of_self()?.saturating_sub(own_before);
    let broker = ground.broker.usage().processor.saturating_sub(broker_before.processor);
    blocking(|| std::thread::sleep(SETTLE));
    let storm = ConnectStorm {
        connections: hosts,
        at_once,
        took,
        broker,
        own,
        resident_before: broker_before.resident_bytes,
        resident_after: ground.broker.usage().resident_bytes,
    };
    let opened = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((opened.into_values().collect(), storm))
}
