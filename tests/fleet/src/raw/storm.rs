//! How fast the broker takes connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_protocol::HostName;
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_ALL, agent_queue, collective_key, host_key};
use serde::Serialize;

use super::connection::{Connection, Server};
use super::frames::Subscription;
use crate::blocking::blocking;
use crate::ground::Ground;
use crate::process::processor_of_self;

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
}

impl ConnectStorm {
    /// Connections per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn per_second(&self) -> f64 {
        self.connections as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// Connects the first `hosts` hosts of the ground, `at_once` of them at a time, and hangs up again. Deletes their queues.
///
/// # Errors
/// A connection does not come about.
pub fn connect_storm(ground: &Ground, hosts: usize, at_once: usize) -> Result<ConnectStorm> {
    let (connections, storm) = open_all(ground, hosts, at_once)?;
    drop(connections);
    ground.clear()?;
    Ok(storm)
}

/// What an agent reads, with its bindings.
pub(super) fn subscription(host: &HostName) -> Result<Subscription> {
    let collective = "main".parse().context("`main` is a collective")?;
    Ok(Subscription {
        queue: agent_queue(host),
        exchange: EXCHANGE_COMMAND,
        keys: vec![KEY_ALL.to_owned(), host_key(host), collective_key(&collective)],
        durable: true,
    })
}

/// Opens all connections with `at_once` threads and gives them in the hosts' order.
pub(super) fn open_all(ground: &Ground, hosts: usize, at_once: usize) -> Result<(Vec<Connection>, ConnectStorm)> {
    let server = Server::of(ground)?;
    let credentials = ground.credentials(hosts)?;
    let names: Vec<&HostName> = ground.hosts().take(hosts).collect();
    let next = AtomicUsize::new(0);
    let opened: Mutex<BTreeMap<usize, Connection>> = Mutex::default();
    let (broker_before, own_before, started) = (ground.broker.usage(), processor_of_self()?, Instant::now());
    let open_some = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= hosts {
                return Ok(());
            }
            let connection = Connection::open(&server, &credentials[number], &subscription(names[number])?);
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
    let storm = ConnectStorm {
        connections: hosts,
        at_once,
        took: started.elapsed(),
        broker: ground.broker.usage().processor.saturating_sub(broker_before.processor),
        own: processor_of_self()?.saturating_sub(own_before),
    };
    let opened = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((opened.into_values().collect(), storm))
}
