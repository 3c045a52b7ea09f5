//! The broker's configuration as it stands in a file: names, defaults and nothing checked beyond types.
//!
//! Every field is one key. Its comment is what the book says of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use muster_broker_config::{HEARTBEAT_S, PORT_AMQPS};
use muster_daemon::logging::LogFormat;
use muster_protocol::Identity;
use muster_protocol::routing::VHOST_DEFAULT;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::server;

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Raw {
    /// Addresses for AMQP over mutual TLS. Default `["[::]:5671"]`, every address of the machine. Port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    /// The one virtual host. Default `muster`.
    pub vhost: String,
    /// Who may log in: `"issued"`, everybody with a valid certificate of the CA that is not revoked, or a list such as
    /// `["host/web1", "user/lea"]`. Default `"issued"`. What each may do there comes from their identity alone.
    pub members: MembersValue,
    /// A file with one identity a line, in place of `members`. Looked at every second: who is taken out is disconnected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members_file: Option<PathBuf>,
    /// What must survive a restart: the journal and the revocation lists that were in force. Default
    /// `/var/lib/muster-broker`, for an ordinary user `~/.local/state/muster/broker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// The socket on which the broker answers `muster broker status` and the other commands. Default `control.sock` in
    /// `state_dir`. Only root and the broker's own user are answered. At most 107 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
    /// Seconds between heartbeats that clients are offered; they may ask for fewer seconds, or more. Default 60, as
    /// RabbitMQ is configured; 0 is none.
    pub heartbeat_s: u16,
    /// Certificates.
    pub pki: Pki,
    /// Bounds.
    pub limits: Limits,
    /// The program's log.
    pub log: Log,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0u16; 8], PORT_AMQPS))],
            vhost: VHOST_DEFAULT.to_owned(),
            members: MembersValue::Issued,
            members_file: None,
            state_dir: None,
            control: None,
            heartbeat_s: u16::try_from(HEARTBEAT_S).unwrap_or(u16::MAX),
            pki: Pki::default(),
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

/// Section `pki`. For root the files are in `/etc/muster/pki` by default, for an ordinary user in `~/.config/muster/pki`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pki {
    /// The CA's certificate. Default `ca.pem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The CA's revocation list. Default `crl.pem`. Looked at every second: who is revoked is disconnected. A list that
    /// was in force once stays so, also over a restart. Where none ever was, a file that is named here must be there; the
    /// default one need not, and the broker warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
    /// The broker's certificate, issued as `broker/NAME`. Default `broker.pem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key. Default `broker.key`. Refused if others can read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Section `limits`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections at once. Default 20000; fewer where the process may open fewer files. How many one identity may have
    /// comes from what it is: 8 for a host, 256 for a user or a service.
    pub connections: usize,
    /// Connections at once that are in the TLS handshake. Default 1024: what comes beyond waits in the kernel.
    pub handshakes: usize,
    /// Queues at once. Default 50000.
    pub queues: usize,
    /// Bindings at once. Default 500000.
    pub bindings: usize,
    /// Exchanges at once. Default 1000.
    pub exchanges: usize,
    /// Consumers of one connection. Default 1024.
    pub consumers: usize,
    /// Bytes of messages in memory. Default 536870912, 512 MiB. Beyond them publishers wait (`connection.blocked`).
    pub memory_bytes: usize,
    /// Bytes of messages that wait for one connection to read them. Default 4194304, 4 MiB: beyond, its queues keep them.
    pub outbox_bytes: usize,
    /// Bytes of messages that one host may have in its queue, unacknowledged, and waiting for its connections to read them.
    /// Default 67108864, 64 MiB. Beyond, its oldest commands are dropped, and nothing more is sent to it until it has read.
    pub host_bytes: usize,
    /// The same for a user, a service or another broker, in all of their queues together. Default 268435456, 256 MiB.
    /// Beyond, their queues refuse, so hosts keep their reports and send them again later.
    pub controller_bytes: usize,
    /// Bytes of the journal on disk. Default 1073741824, 1 GiB, of which nearly half can wait for consumers. Beyond,
    /// publishers wait.
    pub disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = server::Limits::default();
        Self {
            connections: limits.connections_max,
            handshakes: limits.handshakes_max,
            queues: limits.engine.queues_max,
            bindings: limits.engine.bindings_max,
            exchanges: limits.engine.exchanges_max,
            consumers: limits.engine.consumers_max,
            memory_bytes: limits.engine.message_bytes_max,
            outbox_bytes: limits.engine.outbox_bytes_max,
            host_bytes: limits.engine.host_bytes_max,
            controller_bytes: limits.engine.controller_bytes_max,
            disk_bytes: crate::journal::Bounds::default().bytes_max,
        }
    }
}

/// Section `log`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// What is logged: a level, or directives such as `info,muster_broker=debug`. Default `info`.
    pub filter: String,
    /// `text` for people, `json` for machines. Default `text`. Both go to standard error.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The value of `members`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersValue {
    /// `"issued"`.
    Issued,
    /// A list.
    Listed(BTreeSet<Identity>),
}

const ISSUED: &str = "issued";

impl Serialize for MembersValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Issued => serializer.serialize_str(ISSUED),
            Self::Listed(listed) => serializer.collect_seq(listed.iter().map(Identity::short)),
        }
    }
}

impl<'de> Deserialize<'de> for MembersValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = MembersValue;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("\"issued\" or a list of identities such as [\"host/web1\", \"user/lea\"]")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MembersValue, E> {
                if text == ISSUED {
                    return Ok(MembersValue::Issued);
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<MembersValue, A::Error> {
                let mut listed = BTreeSet::new();
                while let Some(name) = list.next_element::<String>()? {
                    let identity = name.parse().map_err(|error| {
                        serde::de::Error::custom(format_args!("`{}`: {error}", name.escape_default()))
                    })?;
                    listed.insert(identity);
                }
                Ok(MembersValue::Listed(listed))
            }
        }

        deserializer.deserialize_any(Members)
    }
}
