//! Who may do what: `muster-broker-config`'s answer, asked once for a connection and kept with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_broker_config::{Permissions, Role, permissions_at};
use muster_protocol::Identity;

/// Who may log in, among those with a valid certificate of the CA.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Members {
    /// Everybody: a certificate that is valid and not revoked is the membership.
    #[default]
    Issued,
    /// Only these.
    Listed(BTreeSet<Identity>),
}

/// The rule for a whole broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What the broker is among others.
    pub role: Role,
    /// Who may log in.
    pub members: Members,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The user's name: the identity's URI, or what the certificate says instead of one.
    pub user: Arc<str>,
    /// What it may do; `None` refuses the login.
    pub permissions: Option<Arc<Permissions>>,
}

impl Rules {
    /// The peer for the identity in a certificate; a certificate without one gives a peer that may not log in.
    #[must_use]
    pub fn peer(&self, identity: Option<&Identity>) -> Peer {
        let Some(identity) = identity else { return Peer { user: "nobody".into(), permissions: None } };
        let member = match &self.members {
            Members::Issued => true,
            Members::Listed(identities) => identities.contains(identity),
        };
        let permissions = if member { permissions_at(&self.role, identity) } else { None };
        Peer { user: identity.to_string().into(), permissions: permissions.map(Arc::new) }
    }
}

/// How many connections and channels each user has. Kept with the engine, under the same lock.
#[derive(Debug, Default)]
pub struct Users {}

impl Users {
    /// Nobody is there.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
