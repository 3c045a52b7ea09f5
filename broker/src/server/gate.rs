//! Who comes in: sockets accepted, handshakes made, certificates looked at, limits kept.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_broker_config::BACKLOG;
use muster_daemon::{TaskKind, Tasks};
use muster_pki::VerifyError;
use muster_protocol::Timestamp;
use rustls::{CertificateError, ServerConnection};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Inner;
use super::connection::{Connection, End};
use super::error::ServerError;
use super::handshake::{Refusal, shake_hands};
use super::line::Line;
use crate::fault::Fault;
use crate::noise::{self, Noise};
use crate::session::Session;

/// How long to wait when the system has no descriptor for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Connections beyond the limit that are told so in AMQP's words, at once. Others are hung up on.
const TURNED_AWAY_MAX: usize = 32;

/// What has come and was refused.
#[derive(Debug)]
pub(super) struct Gate {
    /// Places for connections in the handshake.
    handshakes: Arc<Semaphore>,
    handshakes_max: usize,
    /// Connections that were accepted and are in the handshake.
    shaking: AtomicUsize,
    /// Turns to compute.
    turns: Semaphore,
    /// Sockets that are open.
    open: AtomicUsize,
    open_max: AtomicUsize,
    /// Sockets that were accepted since the start.
    pub(super) accepted: AtomicU64,
    /// Handshakes that came to their end since the start.
    pub(super) admitted: AtomicU64,
    refused: Mutex<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    by_reason: BTreeMap<&'static str, u64>,
    noise: Noise,
}

impl Gate {
    pub(super) fn new(connections_max: usize, handshakes_max: usize, listeners: usize, turns: usize) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(handshakes_max + listeners)),
            handshakes_max,
            shaking: AtomicUsize::new(0),
            turns: Semaphore::new(turns.max(1)),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(connections_max),
            accepted: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// Sockets that are open, and how many may be.
    pub(super) fn open(&self) -> (usize, usize) {
        (self.open.load(Ordering::Relaxed), self.open_max.load(Ordering::Relaxed))
    }

    /// Takes another bound of open sockets.
    pub(super) fn set_open_max(&self, open_max: usize) {
        self.open_max.store(open_max, Ordering::Relaxed);
    }

    /// Connections in the handshake, and how many may be.
    pub(super) fn handshaking(&self) -> (usize, usize) {
        (self.shaking.load(Ordering::Relaxed), self.handshakes_max)
    }

    /// How many were refused since the start, by reason.
    pub(super) fn refused(&self) -> BTreeMap<String, u64> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.by_reason.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }

    /// Whether the log says this of a client.
    pub(super) fn may_say(&self, peer: SocketAddr, what: &'static str, now_ms: i64) -> Option<noise::Line> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.noise.say(&peer.ip().to_string(), what, now_ms)
    }

    /// Counts a refusal, and says it in the log unless it is the same again or there are very many.
    fn refuse(&self, peer: SocketAddr, reason: &'static str, why: &str, now_ms: i64) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).by_reason.entry(reason).or_insert(0) += 1;
        if let Some(line) = self.may_say(peer, reason, now_ms) {
            tracing::warn!(
                %peer,
                reason,
                why,
                repeated = line.repeated,
                left_out = line.left_out,
                "Refused a connection; `muster broker status` counts all of them"
            );
        }
    }
}

/// A place among the open connections. Given back when dropped.
struct Place {
    inner: Arc<Inner>,
    /// Whether there is really none, and the client is only to be told.
    beyond: bool,
}

impl Place {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        let gate = &inner.gate;
        let before = gate.open.fetch_add(1, Ordering::Relaxed);
        let max = gate.open_max.load(Ordering::Relaxed);
        let place = Self { inner: Arc::clone(inner), beyond: before >= max };
        // Dropping it gives the place back.
        (before < max.saturating_add(TURNED_AWAY_MAX)).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in its handshake. Its place is given back when dropped.
struct Shaking {
    inner: Arc<Inner>,
    _place: OwnedSemaphorePermit,
}

impl Shaking {
    fn new(inner: &Arc<Inner>, place: OwnedSemaphorePermit) -> Self {
        inner.gate.shaking.fetch_add(1, Ordering::Relaxed);
        Self { inner: Arc::clone(inner), _place: place }
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.inner.gate.shaking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Listens at an address.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let listen = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of the process before, which are at their end, keep nobody from the port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| ServerError::Listen { address, source })
}

/// Accepts connections until the broker stops.
pub(super) async fn accept(inner: Arc<Inner>, listener: TcpListener, tasks: Tasks) {
    let stopping = tasks.stopping().clone();
    loop {
        let next = async {
            let permit = Arc::clone(&inner.gate.handshakes).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            next = next => next,
        };
        let Ok(permit) = permit else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                inner.gate.refuse(
                    listener.local_addr().unwrap_or(NOWHERE),
                    "no-descriptor",
                    &error.to_string(),
                    inner.hub.now_ms(),
                );
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        inner.gate.accepted.fetch_add(1, Ordering::Relaxed);
        let Some(place) = Place::take(&inner) else {
            let why = format!("there are {} connections already", inner.gate.open().1);
            inner.gate.refuse(peer, "connection-limit", &why, inner.hub.now_ms());
            continue;
        };
        let shaking = Shaking::new(&inner, permit);
        let stopping = stopping.clone();
        tasks.spawn(TaskKind::Worker, "connection", async move {
            let handshake = enter(&place, shaking, stream, peer);
            let connection = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                entered = handshake => entered,
            };
            let Some(connection) = connection else { return };
            let id = connection.id();
            match connection.await {
                End::Closed => tracing::debug!(%id, %peer, "A connection was closed"),
                End::HungUp => tracing::debug!(%id, %peer, "A client hung up"),
                End::Broken(error) => tracing::debug!(%id, %peer, %error, "A connection broke"),
            }
        });
    }
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Whether it says something about the connection that was to be accepted, and nothing about the next (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

/// Makes TLS with a client and looks at its certificate.
async fn enter(place: &Place, shaking: Shaking, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
    let inner = &place.inner;
    let refuse = |reason, why: &str| inner.gate.refuse(peer, reason, why, inner.hub.now_ms());
    if let Err(error) = stream.set_nodelay(true) {
        refuse("network", &error.to_string());
        return None;
    }
    let materials = inner.materials();
    let deadline = Instant::now() + Duration::from_millis(inner.session.handshake_ms.unsigned_abs());
    let config = Arc::clone(&materials.tls);
    let tls = match tokio::time::timeout_at(deadline, shake_hands(&stream, config, &inner.gate)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            refuse(reason(&error), &error.to_string());
            return None;
        }
        Err(_) => {
            refuse("handshake-timeout", "its handshake has taken too long");
            return None;
        }
    };
    drop(shaking);
    let now_ms = inner.hub.now_ms();
    let certificate = tls.peer_certificates().and_then(|chain| chain.first());
    let vouched = materials.trust.check_client(certificate.map(AsRef::as_ref).unwrap_or_default(), Timestamp(now_ms));
    let client = match vouched {
        Ok(client) => client,
        // A list that came in this very moment.
        Err(error) => {
            refuse(verify_reason(&error), &error.to_string());
            return None;
        }
    };
    Some(connect(place, stream, tls, client, peer, now_ms))
}

fn connect(
    place: &Place,
    stream: TcpStream,
    tls: ServerConnection,
    client: muster_pki::Client,
    peer: SocketAddr,
    now_ms: i64,
) -> Connection {
    let inner = &place.inner;
    let user = inner.materials().rules.peer(Some(&client.identity));
    let member = user.permissions.is_some();
    if !member {
        inner.gate.refuse(peer, "not-a-member", &format!("`{}` may not log in here", client.identity), now_ms);
    }
    let line = Arc::new(Line::new(inner.hub.next_id(), client, member, peer, now_ms));
    let session = Session::new(line.id, user, Arc::clone(&inner.session), now_ms);
    inner.hub.join(&line);
    inner.gate.admitted.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(id = %line.id, %peer, identity = %line.client.identity, "A connection");
    let mut farewell = None;
    if place.beyond {
        let why = format!("the broker has {} connections, and may have no more", inner.gate.open().1);
        inner.gate.refuse(peer, "connection-limit", &why, now_ms);
        farewell = Some(Fault::resource_error(why));
    }
    // What has changed since the certificate was looked at was not told to this connection.
    line.order(|orders| orders.recheck = true);
    let recheck = {
        let inner = Arc::clone(inner);
        Arc::new(move |line: &Line, certificate: &[u8]| inner.recheck(line, certificate))
    };
    Connection::new(
        Arc::clone(&inner.hub),
        line,
        stream,
        tls,
        session,
        inner.limits().engine.outbox_bytes_max,
        recheck,
        farewell,
    )
}

/// How the status counts a refusal.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Network(_) => "network",
        Refusal::Silent => "handshake-timeout",
        Refusal::Tls(rustls::Error::NoCertificatesPresented) => "no-certificate",
        Refusal::Tls(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::NotValidYet => "expired-certificate",
            CertificateError::Revoked => "revoked-certificate",
            CertificateError::UnknownIssuer => "untrusted-certificate",
            _ => "wrong-identity",
        },
        Refusal::Tls(_) => "tls",
    }
}

pub(super) fn verify_reason(error: &VerifyError) -> &'static str {
    error.code().code
}

impl Gate {
    pub(super) fn turns(&self) -> &Semaphore {
        &self.turns
    }

    /// Whether all places for handshakes are taken.
    pub(super) fn is_pressed(&self) -> bool {
        self.handshakes.available_permits() == 0
    }
}
