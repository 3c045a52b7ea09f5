//! The broker as a process sees it: sockets, TLS, tasks, timers, limits; the only part with I/O and a clock.
//!
//! [`Server::start`] listens, and hands each connection to a task of its own: the handshakes ([`gate`]), then reading and
//! writing until it ends ([`connection`]). What connections share is in the [`hub`], behind one lock that is held for
//! the calls of the engine and never while something waits. A further task ticks the engine; another looks at the
//! revocation list and the list of members every second, and has every open connection look at its certificate again
//! when they change.
//!
//! # Non-goals
//!
//! Nothing of AMQP is decided here; that is the session's and the engine's.
//!
//! # Invariants
//!
//! - TLS 1.3 with a certificate of our authority that is valid, not revoked and not a broker's, or no byte of AMQP is read.
//! - No buffer belongs to an idle connection; what a thread needs for reading and writing it has once.
//! - Whoever does not read has a bounded outbox and is read from no more; others do not notice.
//! - The lock is never held across a wait, and nobody is woken while it is held.

mod connection;
mod error;
mod gate;
mod handshake;
mod hub;
mod line;
mod operate;
mod scratch;
mod settings;
pub mod status;
mod topology;
mod turns;
pub mod upkeep;

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use muster_daemon::{TaskKind, Tasks};
use muster_pki::{Credentials, Trust, tls};
use muster_protocol::Timestamp;
use rustls::ServerConfig;

use crate::access::{Rules, Users, owner_of_queue};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::journal::{Bounds, Journal};
use crate::noise::Noise;
use crate::session::{self, Broker};

pub use error::ServerError;
pub use settings::{Durable, Files, Limits, Settings};
pub use topology::Topology;

use gate::Gate;
use hub::Hub;
use line::Line;
use status::{FileTrouble, ReloadRefused};

/// How long clients may take to say farewell when the broker stops.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// What clients are told when the broker stops. RabbitMQ's words.
const STOPPING: &str = "broker forced connection closure with reason 'shutdown'";

/// A broker that listens. It stops with the tasks that it was started with.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    addresses: Vec<SocketAddr>,
    /// The addresses as they were asked for.
    listen: Vec<SocketAddr>,
    hub: Arc<Hub>,
    journal: Option<Arc<Journal>>,
    gate: Gate,
    session: Arc<session::Settings>,
    materials: RwLock<Arc<Materials>>,
    files: RwLock<Files>,
    limits: RwLock<Limits>,
    started_ms: i64,
    admitted_per_second: AtomicU64,
    /// Watched files that cannot be used, as they were last looked at.
    file_troubles: Mutex<Vec<FileTrouble>>,
    /// The last reload, if it was refused.
    reload_refused: Mutex<Option<ReloadRefused>>,
}

/// What can be replaced while the broker runs.
#[derive(Debug)]
struct Materials {
    credentials: Credentials,
    trust: Trust,
    rules: Rules,
    tls: Arc<ServerConfig>,
}

impl Server {
    /// Listens, and serves until `tasks` are stopped: then every client is told so with 320 and the tasks end.
    ///
    /// # Errors
    /// An address is taken, or the certificate is none that a client accepts.
    pub fn start(settings: Settings, tasks: &Tasks) -> Result<Self, ServerError> {
        let now_ms = settings.clock.now_ms();
        let materials = Materials::new(
            settings.credentials.clone(),
            settings.trust.clone(),
            settings.rules.clone(),
            Timestamp(now_ms),
        )?;
        if settings.listen.is_empty() {
            return Err(ServerError::NoAddress);
        }
        let Topology { exchanges, policies } = Topology::generated();
        let mut engine = Engine::new(settings.limits.engine, policies, exchanges)
            .named(&settings.vhost, now_ms.unsigned_abs())
            .with_owners(owner_of_queue);
        let journal = match &settings.durable {
            None => None,
            Some(durable) => {
                let disk = Arc::clone(&durable.disk);
                let (journal, records) = Journal::open(disk, &durable.directory, durable.bounds, now_ms)?;
                records.into_iter().for_each(|record| engine.replay(record));
                Some(Arc::new(journal))
            }
        };
        let session = Arc::new(settings.session());
        let broker = Broker { engine, users: Users::new(), noise: Noise::default() };
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        let hub = Arc::new(Hub::new(broker, journal.clone(), Arc::clone(&settings.clock), threads));
        let listeners = settings.listen.iter().map(|address| gate::listen(*address)).collect::<Result<Vec<_>, _>>()?;
        let local = |(listener, address): (&tokio::net::TcpListener, &SocketAddr)| {
            listener.local_addr().map_err(|source| ServerError::Listen { address: *address, source })
        };
        let addresses = listeners.iter().zip(&settings.listen).map(local).collect::<Result<Vec<_>, _>>()?;
        let limits =
            Limits { connections_max: upkeep::connections_max(settings.limits.connections_max), ..settings.limits };
        let inner = Arc::new(Inner {
            addresses,
            listen: settings.listen,
            hub,
            journal,
            gate: Gate::new(limits.connections_max, limits.handshakes_max, listeners.len(), threads),
            session,
            materials: RwLock::new(Arc::new(materials)),
            files: RwLock::new(settings.files),
            limits: RwLock::new(limits),
            started_ms: now_ms,
            admitted_per_second: AtomicU64::new(0),
            file_troubles: Mutex::default(),
            reload_refused: Mutex::default(),
        });
        if let Some(journal) = &inner.journal {
            let hub = Arc::downgrade(&inner.hub);
            journal.start(move || {
                if let Some(hub) = hub.upgrade() {
                    hub.release();
                }
            })?;
        }
        for listener in listeners {
            tasks.spawn(TaskKind::Critical, "accept", gate::accept(Arc::clone(&inner), listener, tasks.clone()));
        }
        tasks.spawn(TaskKind::Critical, "engine", {
            let (inner, stopping) = (Arc::clone(&inner), tasks.stopping().clone());
            async move {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    () = inner.hub.tick() => {}
                }
                inner.stop().await;
            }
        });
        tasks.spawn(TaskKind::Critical, "upkeep", upkeep::run(Arc::clone(&inner), tasks.stopping().clone()));
        Ok(Self { inner })
    }

    /// Looks at settings as a start would, and starts nothing.
    ///
    /// # Errors
    /// The certificate is none that a client accepts, or there is no address.
    pub fn check(settings: &Settings) -> Result<(), ServerError> {
        if settings.listen.is_empty() {
            return Err(ServerError::NoAddress);
        }
        let Settings { credentials, trust, clock, .. } = settings;
        tls::server_config(credentials, trust, Timestamp(clock.now_ms()))?;
        Ok(())
    }

    /// Where it listens; the ports are the real ones.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.inner.addresses
    }

    /// The first address it listens at.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        // There is at least one: see `start`.
        self.inner.addresses[0]
    }

    /// Whom it believes now.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.inner.materials().trust.clone()
    }

    /// Has all connections look at their certificates again. To be called when the trust has learnt something by another
    /// way than the watched files.
    pub fn recheck(&self) {
        self.inner.hub.lines().iter().for_each(|line| line.order(|orders| orders.recheck = true));
    }

    /// Takes other certificates, rules, files and limits from now on. Who is connected and would not get in any more is
    /// disconnected. Answers what of the settings holds only after a restart, and differs.
    ///
    /// # Errors
    /// The certificate is none that a client accepts; then everything stays as it was.
    pub fn replace(&self, settings: Settings) -> Result<Vec<&'static str>, ServerError> {
        let inner = &*self.inner;
        let now = Timestamp(inner.hub.now_ms());
        let Settings { credentials, trust, rules, files, limits, .. } = settings;
        let materials = Materials::new(credentials, trust, rules, now)?;
        let before = inner.limits();
        *inner.materials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(materials);
        *inner.files.write().unwrap_or_else(PoisonError::into_inner) = files;
        let limits = Limits { connections_max: upkeep::connections_max(limits.connections_max), ..limits };
        *inner.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
        inner.gate.set_open_max(limits.connections_max);
        inner.hub.set_limits(limits.engine);
        inner.look_at_disk();
        self.recheck();
        let differs = [
            ("listen", settings.listen != inner.listen),
            ("vhost", settings.vhost != inner.session.vhost),
            ("heartbeat_s", settings.heartbeat_s != inner.session.heartbeat_s),
            ("limits.handshakes", limits.handshakes_max != before.handshakes_max),
        ];
        Ok(differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect())
    }
}

impl Materials {
    fn new(credentials: Credentials, trust: Trust, rules: Rules, now: Timestamp) -> Result<Self, ServerError> {
        let tls = tls::server_config(&credentials, &trust, now)?;
        Ok(Self { credentials, trust, rules, tls })
    }
}

impl Inner {
    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> Files {
        self.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees whether what is durable takes more of the disk than it may.
    fn look_at_disk(&self) {
        let Some(journal) = &self.journal else { return };
        let bounds = Bounds { bytes_max: self.limits().disk_bytes_max, ..Bounds::default() };
        let segment_bytes = bounds.segment_bytes.min(bounds.bytes_max / 64);
        let live_bytes_max = Bounds { segment_bytes, ..bounds }.live_bytes_max();
        self.hub.set_disk_short(journal.status().live_bytes >= live_bytes_max);
    }

    fn materials(&self) -> Arc<Materials> {
        Arc::clone(&self.materials.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says farewell to everybody, and closes the journal.
    async fn stop(&self) {
        self.hub.close_all(&Fault::connection_forced(STOPPING));
        // Whoever was in the last step of the handshake is told by its own task's end.
        if tokio::time::timeout(FAREWELL_LIMIT, self.hub.empty()).await.is_err() {
            tracing::warn!(connections = self.hub.counts().0, "Some clients did not answer when the broker stopped");
        }
        if let Some(journal) = self.journal.clone() {
            // Its last write waits for the disk.
            if tokio::task::spawn_blocking(move || journal.close()).await.is_err() {
                tracing::error!("The journal could not be closed");
            }
        }
    }

    /// Whether a client may stay, and if not, what it is told.
    fn recheck(&self, line: &Line, certificate: &[u8]) -> Option<Fault> {
        let materials = self.materials();
        let vouched = materials.trust.check_client(certificate, Timestamp(self.hub.now_ms()));
        let why = match vouched {
            Err(error) => error.to_string(),
            Ok(client) if materials.rules.peer(Some(&client.identity)).permissions.is_some() => return None,
            // One that was never let in is told so by its login.
            Ok(_) if !line.member => return None,
            Ok(client) => format!("`{}` is not a member of this broker any more", client.identity.short()),
        };
        let (identity, fingerprint) = (&line.client.identity, &line.client.fingerprint);
        if self.gate.may_say(line.peer, "may-not-stay", self.hub.now_ms()).is_some() {
            tracing::warn!(%identity, fingerprint, peer = %line.peer, why, "Disconnecting a client that may not stay");
        }
        Some(Fault::connection_forced(why))
    }
}
