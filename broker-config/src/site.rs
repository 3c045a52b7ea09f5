//! What the generated files depend on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use muster_protocol::Identity;
use muster_protocol::routing::VHOST_DEFAULT;

use crate::sites::Role;

/// The port for AMQP over TLS.
pub const PORT_AMQPS: u16 = 5671;

/// What a node is for. Chooses the marks at which it stops accepting messages and its logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// A machine of its own, run for years.
    #[default]
    Production,
    /// A node for a test or a demonstration beside other programs.
    Private,
}

/// Where the broker finds its own certificate. Paths on the broker's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The CA that signed every host, user and broker.
    pub ca: PathBuf,
    /// The broker's certificate, with its DNS names, and its chain.
    pub certificate: PathBuf,
    /// The broker's private key.
    pub key: PathBuf,
}

/// One broker: where it listens, what it shows, who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The virtual host that holds everything of ours.
    pub vhost: String,
    /// Addresses for AMQP over TLS. There is no listener without TLS.
    pub listen: Vec<SocketAddr>,
    /// The broker's certificate.
    pub certificate: ServerCertificate,
    /// What it is among other brokers.
    pub role: Role,
    /// Who may log in. An identity that is revoked is left out, and so is one whose place is at another broker
    /// ([`Role::admits`]).
    pub identities: BTreeSet<Identity>,
    /// The definitions file that the broker reads at every start, on its machine.
    pub definitions: PathBuf,
    /// Production or private.
    pub purpose: Purpose,
    /// Address of the management interface, which is off unless asked for.
    pub management: Option<SocketAddr>,
}

impl Site {
    /// A production site with Debian's paths, listening on every address, with nobody in it yet.
    #[must_use]
    pub fn new(identities: impl IntoIterator<Item = Identity>) -> Self {
        Self {
            vhost: VHOST_DEFAULT.to_owned(),
            listen: vec![SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], PORT_AMQPS))],
            certificate: ServerCertificate {
                ca: "/etc/rabbitmq/muster/ca.pem".into(),
                certificate: "/etc/rabbitmq/muster/broker.pem".into(),
                key: "/etc/rabbitmq/muster/broker.key".into(),
            },
            role: Role::Alone,
            identities: identities.into_iter().collect(),
            definitions: "/etc/rabbitmq/muster/definitions.json".into(),
            purpose: Purpose::Production,
            management: None,
        }
    }
}
