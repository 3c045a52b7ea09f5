//! Who may do what: `muster-broker-config`'s answer, asked once for a connection and kept with it.
//!
//! # The data and how it flows
//!
//! [`Rules`] are the broker's: what it is among others, and who may log in. From them and the identity in a certificate comes
//! a [`Peer`], which a session keeps and asks before each method ([`Peer::check`]). [`Users`] counts what each user has open;
//! it is kept with the engine, under the same lock.
//!
//! # Invariants
//!
//! - What a method needs is [`Operation::needs`], what an identity has is [`permissions_at`]: the description that RabbitMQ's
//!   definitions are generated from. Nothing is decided here that is not decided there.
//! - Refusals are worded as RabbitMQ's.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use muster_broker_config::{Access, Operation, Permissions, Resource, Role, permissions_at};
use muster_protocol::Identity;

use crate::engine::Share;
use crate::fault::Fault;

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
    /// Who may do everything. Always empty, and no configuration fills it, but in tests of what somebody can do who has the
    /// broker in his hands.
    pub unbound: BTreeSet<Identity>,
}

impl Rules {
    /// The peer for the identity in a certificate. A certificate without one, an identity that is not a member, and one whose
    /// place is at another broker give a peer that may not log in.
    #[must_use]
    pub fn peer(&self, identity: Option<&Identity>) -> Peer {
        let Some(identity) = identity else {
            return Peer { user: "".into(), permissions: None, share: Share::Host };
        };
        let member = match &self.members {
            Members::Issued => true,
            Members::Listed(identities) => identities.contains(identity),
        };
        let unbound = || self.unbound.contains(identity).then(|| Permissions::everything(identity.to_string()));
        let permissions = if member { unbound().or_else(|| permissions_at(&self.role, identity)) } else { None };
        Peer { user: identity.to_string().into(), permissions: permissions.map(Arc::new), share: share_of(identity) }
    }
}

fn share_of(identity: &Identity) -> Share {
    match identity {
        Identity::Host(_) => Share::Host,
        Identity::User(_) | Identity::Service(_) | Identity::Broker(_) => Share::Controller,
    }
}

/// Whose a queue is, by its name, and how large that identity's share is: of all identities, only this one may declare it.
/// A site's queue at the centre is the site's broker's, whose name the queue does not tell: nobody is known for it.
#[must_use]
pub fn owner_of_queue(name: &str) -> Option<(Arc<str>, Share)> {
    let identity = match name.split_once('.')? {
        ("agent", host) => Identity::Host(host.parse().ok()?),
        ("reply", session) => session.rsplit_once('.')?.0.parse().ok()?,
        _ => return None,
    };
    Some((identity.to_string().into(), share_of(&identity)))
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The user's name: the identity's URI.
    pub user: Arc<str>,
    /// What it may do; `None` refuses the login.
    pub permissions: Option<Arc<Permissions>>,
    /// How much of the broker's memory it may take.
    pub share: Share,
}

impl Peer {
    /// Whether the peer may do this.
    ///
    /// # Errors
    /// 403, with the first access that is missing.
    pub fn check(&self, operation: &Operation<'_>, vhost: &str) -> Result<(), Fault> {
        for (access, resource, key) in operation.needs() {
            self.check_access(access, resource, key, vhost)?;
        }
        Ok(())
    }

    fn check_access(
        &self,
        access: Access,
        resource: Resource<'_>,
        key: Option<&str>,
        vhost: &str,
    ) -> Result<(), Fault> {
        let user = &self.user;
        let allows = |key| self.permissions.as_ref().is_some_and(|held| held.allows_access(access, resource, key));
        if allows(key) {
            return Ok(());
        }
        let (kind, name) = match resource {
            Resource::Queue(name) => ("queue", name),
            Resource::Exchange("") => ("exchange", "amq.default"),
            Resource::Exchange(name) => ("exchange", name),
        };
        Err(Fault::access_refused(match key {
            Some(key) if allows(None) => {
                format!("access to topic '{key}' in exchange '{name}' in vhost '{vhost}' refused for user '{user}'")
            }
            _ => format!("access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'"),
        }))
    }
}

/// How many connections and channels each user has.
#[derive(Debug, Default)]
pub struct Users {
    counts: HashMap<Arc<str>, Count>,
}

/// What one user has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    connections: u32,
    channels: u32,
}

impl Users {
    /// Nobody is there.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many users have a connection.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nobody has a connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Connections and channels of a user.
    #[must_use]
    pub fn of(&self, user: &str) -> (u32, u32) {
        self.counts.get(user).map_or((0, 0), |count| (count.connections, count.channels))
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// 530 at the user's limit.
    pub(crate) fn connect(&mut self, user: &Arc<str>, connections_max: u32) -> Result<(), Fault> {
        let count = self.counts.entry(user.clone()).or_default();
        if count.connections >= connections_max {
            let text =
                format!("connection refused for user '{user}': user connection limit ({connections_max}) is reached");
            if count.connections == 0 {
                self.counts.remove(user);
            }
            return Err(Fault::not_allowed(text));
        }
        count.connections += 1;
        Ok(())
    }

    /// Counts a channel of a connection that is counted.
    ///
    /// # Errors
    /// 530 at the user's limit.
    pub(crate) fn open_channel(&mut self, user: &str, channels_max: u32) -> Result<(), Fault> {
        let Some(count) = self.counts.get_mut(user) else { return Ok(()) };
        if count.channels >= channels_max {
            return Err(Fault::not_allowed(format_args!(
                "number of channels opened for user '{user}' has reached the maximum allowed user limit of \
                 ({channels_max})"
            )));
        }
        count.channels += 1;
        Ok(())
    }

    /// Forgets so many channels.
    pub(crate) fn close_channels(&mut self, user: &str, channels: usize) {
        if let Some(count) = self.counts.get_mut(user) {
            count.channels = count.channels.saturating_sub(u32::try_from(channels).unwrap_or(u32::MAX));
        }
    }

    /// Forgets a connection, whose channels are forgotten already.
    pub(crate) fn disconnect(&mut self, user: &str) {
        if let Some(count) = self.counts.get_mut(user) {
            count.connections = count.connections.saturating_sub(1);
            if count.connections == 0 {
                self.counts.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_broker_config::permissions_for;
    use muster_protocol::routing::agent_queue;

    use super::*;

    #[test]
    fn a_queues_name_tells_who_may_declare_it() {
        let identities: Vec<Identity> =
            ["host/web1.example.com", "user/lea", "service/jobs"].iter().map(|name| name.parse().unwrap()).collect();
        for identity in &identities {
            let name = match identity {
                Identity::Host(host) => agent_queue(host),
                other => format!("reply.{}.s-1", other.short()),
            };
            let (owner, share) = owner_of_queue(&name).unwrap();
            assert_eq!((&*owner, share), (&*identity.to_string(), share_of(identity)), "{name}");
            for other in &identities {
                let allowed = permissions_for(other).unwrap().allows(&Operation::DeclareQueue { queue: &name });
                assert_eq!(allowed, other == identity, "{other} and {name}");
            }
        }
        for name in ["", "agent.", "agent", "reply.lea", "reply.user/lea", "reply.host.x.y", "amq.gen-1", "link.a"] {
            assert_eq!(owner_of_queue(name), None, "{name}");
        }
    }
}
