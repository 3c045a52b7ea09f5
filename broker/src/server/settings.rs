//! What a server is told, as values. `muster broker run` reads them from a file, tests and `muster dev` make them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use muster_broker_config::{CHANNELS_MAX, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_MS, HEARTBEAT_S, MESSAGE_BYTES_MAX, Role};
use muster_daemon::{Clock, Disk, SystemClock};
use muster_pki::{Credentials, Trust};
use muster_protocol::routing::VHOST_DEFAULT;

use crate::access::{Members, Rules};
use crate::engine;
use crate::journal;
use crate::session;

/// Milliseconds that a client has to answer `connection.close`.
const CLOSE_MS: i64 = 5_000;

/// What a server needs.
#[derive(Clone)]
pub struct Settings {
    /// Addresses to listen on; port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    /// The broker's own certificate and key.
    pub credentials: Credentials,
    /// Whom to believe.
    pub trust: Trust,
    /// Who may log in, and as what.
    pub rules: Rules,
    /// The virtual host.
    pub vhost: String,
    /// A name of this broker for clients.
    pub name: String,
    /// Seconds between heartbeats that are offered; 0 is none.
    pub heartbeat_s: u16,
    /// Milliseconds that a client has for the handshakes: first TLS's, then AMQP's.
    pub handshake_ms: u32,
    /// Bounds.
    pub limits: Limits,
    /// Files that are looked at again and again.
    pub files: Files,
    /// Where what is durable is kept; without it, nothing is.
    pub durable: Option<Durable>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// Bounds of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, those in their handshake included.
    pub connections_max: usize,
    /// Connections at once that are in the TLS handshake. Further ones wait in the kernel's queue.
    pub handshakes_max: usize,
    /// Bounds of the engine.
    pub engine: engine::Limits,
    /// Bytes of the journal on disk, beyond which publishers wait. The journal's own bound holds too.
    pub disk_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshakes_max: 1_024,
            engine: engine::Limits {
                queues_max: 50_000,
                bindings_max: 500_000,
                exchanges_max: 1_000,
                consumers_max: 1_024,
                message_bytes_max: 512 * 1024 * 1024,
                outbox_bytes_max: 4 * 1024 * 1024,
                host_bytes_max: 64 * 1024 * 1024,
                controller_bytes_max: 256 * 1024 * 1024,
            },
            disk_bytes_max: journal::Bounds::default().bytes_max,
        }
    }
}

/// Files that are looked at every second, and whose changes hold for open connections too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The authority's revocation list.
    pub crl: Option<PathBuf>,
    /// Where lists that are in force are kept, so that no restart undoes a revocation.
    pub crl_kept: Option<PathBuf>,
    /// The list of members, one identity a line.
    pub members: Option<PathBuf>,
}

/// Where what is durable is kept.
#[derive(Clone)]
pub struct Durable {
    /// The directory of the journal, made where it is missing.
    pub directory: PathBuf,
    /// How large it may become.
    pub bounds: journal::Bounds,
    /// The disk that it is on.
    pub disk: Arc<dyn Disk>,
}

impl fmt::Debug for Durable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Durable").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Settings {
    /// A server on a free port of this machine alone, for everybody with a certificate.
    #[must_use]
    pub fn new(credentials: Credentials, trust: Trust) -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            name: credentials.identity().short(),
            credentials,
            trust,
            rules: Rules { role: Role::Alone, members: Members::Issued, unbound: BTreeSet::new() },
            vhost: VHOST_DEFAULT.to_owned(),
            heartbeat_s: u16::try_from(HEARTBEAT_S).unwrap_or(u16::MAX),
            handshake_ms: HANDSHAKE_TIMEOUT_MS,
            limits: Limits::default(),
            files: Files::default(),
            durable: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// What sessions go by: the numbers that RabbitMQ is configured with.
    pub(super) fn session(&self) -> session::Settings {
        session::Settings {
            vhost: self.vhost.clone(),
            frame_bytes_max: FRAME_BYTES_MAX,
            channels_max: u16::try_from(CHANNELS_MAX).unwrap_or(u16::MAX),
            heartbeat_s: self.heartbeat_s,
            message_bytes_max: u64::try_from(MESSAGE_BYTES_MAX).unwrap_or(u64::MAX),
            handshake_ms: i64::from(self.handshake_ms),
            close_ms: CLOSE_MS,
            product: "Muster",
            version: env!("CARGO_PKG_VERSION"),
            cluster_name: self.name.clone(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("listen", &self.listen)
            .field("identity", self.credentials.identity())
            .field("vhost", &self.vhost)
            .field("limits", &self.limits)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
