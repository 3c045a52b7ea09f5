//! Who may do what: the one description from which RabbitMQ's permissions are generated.
//!
//! RabbitMQ checks every method twice. First the *resource*: configure, write or read on a queue or an
//! exchange. Then, for a publish to or a binding of a topic exchange, the *routing key*. [`Operation`]
//! lists the methods and [`Operation::needs`] what RabbitMQ asks for each, after its table "How
//! Permissions Work" in the access-control guide; the end-to-end tests hold the two against each other.

use std::collections::BTreeSet;

use muster_protocol::routing::{
    EXCHANGE_COMMAND, EXCHANGE_REPLY, KEY_ALL, KEY_PRESENCE, agent_queue, collective_key, downlink_queue, host_key,
};
use muster_protocol::{CollectiveName, Identity};

use crate::pattern::Pattern;
use crate::sites::{HostsOf, LinkedSite, Role};

/// How RabbitMQ names the default exchange when it checks a permission.
const EXCHANGE_DEFAULT: &str = "amq.default";

/// Connections a host may hold. It needs one; the others are half-open ones that the broker has not
/// yet missed two heartbeats of.
const HOST_CONNECTIONS_MAX: u32 = 8;

/// Channels a host may hold over all connections. It needs two.
const HOST_CHANNELS_MAX: u32 = 32;

/// Connections of one user or service: as many terminals and scripts at once.
const CONTROLLER_CONNECTIONS_MAX: u32 = 256;

/// Channels of one user or service over all connections.
const CONTROLLER_CHANNELS_MAX: u32 = 1024;

/// Connections of a site's broker: one for commands and one for reports, and the dead ones before them.
const LINK_CONNECTIONS_MAX: u32 = 8;

/// Channels of a site's broker over all connections. Federation uses two, a shovel one.
const LINK_CHANNELS_MAX: u32 = 32;

/// What is asked of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Create or delete it.
    Configure,
    /// Put something into it.
    Write,
    /// Take something out of it.
    Read,
}

/// What an access is about. Queues and exchanges share RabbitMQ's patterns, but not their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A queue by its name.
    Queue(&'a str),
    /// An exchange by its name; the default exchange is `""`.
    Exchange(&'a str),
}

impl Resource<'_> {
    /// The name that the patterns are matched with.
    fn name(&self) -> &str {
        match *self {
            Self::Queue(name) => name,
            Self::Exchange("") => EXCHANGE_DEFAULT,
            Self::Exchange(name) => name,
        }
    }
}

/// One AMQP method that needs permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// `queue.declare`, not passive.
    DeclareQueue {
        /// The queue.
        queue: &'a str,
    },
    /// `queue.declare` with a dead-letter exchange among its arguments.
    DeclareQueueDeadLettering {
        /// The queue.
        queue: &'a str,
        /// Where it would send what it rejects or drops.
        exchange: &'a str,
    },
    /// `queue.delete`.
    DeleteQueue {
        /// The queue.
        queue: &'a str,
    },
    /// `queue.purge`.
    PurgeQueue {
        /// The queue.
        queue: &'a str,
    },
    /// `basic.consume` and `basic.get`.
    Consume {
        /// The queue.
        queue: &'a str,
    },
    /// `queue.bind` and `queue.unbind`.
    Bind {
        /// The queue that receives.
        queue: &'a str,
        /// The exchange that sends.
        exchange: &'a str,
        /// The binding key.
        key: &'a str,
    },
    /// `exchange.bind` and `exchange.unbind`.
    BindExchange {
        /// The exchange that receives.
        destination: &'a str,
        /// The exchange that sends.
        source: &'a str,
        /// The binding key.
        key: &'a str,
    },
    /// `basic.publish`.
    Publish {
        /// The exchange; `""` is the default exchange, which reaches every queue by its name.
        exchange: &'a str,
        /// The routing key.
        key: &'a str,
    },
    /// `exchange.declare`, not passive.
    DeclareExchange {
        /// The exchange.
        exchange: &'a str,
    },
    /// `exchange.delete`.
    DeleteExchange {
        /// The exchange.
        exchange: &'a str,
    },
}

impl<'a> Operation<'a> {
    /// What RabbitMQ asks for: accesses to resources, and the routing key where a topic is checked too.
    #[must_use]
    pub fn needs(&self) -> Vec<(Access, Resource<'a>, Option<&'a str>)> {
        use Access::{Configure, Read, Write};
        use Resource::{Exchange, Queue};
        match *self {
            Self::DeclareQueue { queue } | Self::DeleteQueue { queue } => vec![(Configure, Queue(queue), None)],
            Self::DeclareQueueDeadLettering { queue, exchange } => {
                vec![(Configure, Queue(queue), None), (Read, Queue(queue), None), (Write, Exchange(exchange), None)]
            }
            Self::PurgeQueue { queue } | Self::Consume { queue } => vec![(Read, Queue(queue), None)],
            Self::Bind { queue, exchange, key } => {
                vec![(Write, Queue(queue), None), (Read, Exchange(exchange), Some(key))]
            }
            Self::BindExchange { destination, source, key } => {
                vec![(Write, Exchange(destination), None), (Read, Exchange(source), Some(key))]
            }
            Self::Publish { exchange, key } => vec![(Write, Exchange(exchange), Some(key))],
            Self::DeclareExchange { exchange } | Self::DeleteExchange { exchange } => {
                vec![(Configure, Exchange(exchange), None)]
            }
        }
    }
}

/// Which routing keys somebody may use with one topic exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRule {
    /// The exchange.
    pub exchange: &'static str,
    /// Keys to publish with.
    pub write: Pattern,
    /// Keys to bind with.
    pub read: Pattern,
}

/// Everything one identity may do on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// The broker's user: the identity's URI.
    pub user: String,
    /// Resources it may create and delete.
    pub configure: Pattern,
    /// Resources it may write to.
    pub write: Pattern,
    /// Resources it may read from.
    pub read: Pattern,
    /// Routing keys, one rule for each exchange of ours.
    pub topics: [TopicRule; 2],
    /// Most connections at once.
    pub connections_max: u32,
    /// Most channels at once, over all connections.
    pub channels_max: u32,
}

impl Permissions {
    /// Everything. No identity of a site has it: it is what somebody gets who administers a broker against its site, for
    /// tests of what that must not help with.
    #[must_use]
    pub fn everything(user: String) -> Self {
        let all = |exchange| TopicRule { exchange, write: Pattern::anything(), read: Pattern::anything() };
        Self {
            user,
            configure: Pattern::anything(),
            write: Pattern::anything(),
            read: Pattern::anything(),
            topics: [all(EXCHANGE_COMMAND), all(EXCHANGE_REPLY)],
            connections_max: u32::MAX,
            channels_max: u32::MAX,
        }
    }

    /// Whether RabbitMQ, given these permissions, lets the operation through.
    #[must_use]
    pub fn allows(&self, operation: &Operation<'_>) -> bool {
        operation.needs().into_iter().all(|(access, resource, key)| self.allows_access(access, resource, key))
    }

    /// Whether one access is granted: the resource's name, then the routing key if there is one and the
    /// resource is one of the topic exchanges.
    #[must_use]
    pub fn allows_access(&self, access: Access, resource: Resource<'_>, routing_key: Option<&str>) -> bool {
        let names = match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        };
        if !names.matches(resource.name()) {
            return false;
        }
        let (Resource::Exchange(exchange), Some(key)) = (resource, routing_key) else { return true };
        match self.topics.iter().find(|rule| rule.exchange == exchange) {
            Some(rule) if access == Access::Write => rule.write.matches(key),
            Some(rule) => rule.read.matches(key),
            None => true,
        }
    }
}

/// Describes what `identity` may do on a broker that is the only one. `None` for a broker's identity, which serves TLS and
/// never logs in.
#[must_use]
pub fn permissions_for(identity: &Identity) -> Option<Permissions> {
    permissions_at(&Role::Alone, identity)
}

/// Describes what `identity` may do on a broker with this role. `None` if its place is at another one.
#[must_use]
pub fn permissions_at(role: &Role, identity: &Identity) -> Option<Permissions> {
    if !role.admits(identity) {
        return None;
    }
    let any = BTreeSet::new();
    match identity {
        Identity::Host(host) => {
            let collectives = match role {
                Role::Site { site, .. } => &site.collectives,
                Role::Alone | Role::Center(_) => &any,
            };
            let (queue, key) = (agent_queue(host), host_key(host));
            Some(host_permissions(identity, &queue, &key, host.as_str(), collectives))
        }
        Identity::User(_) => Some(controller_permissions(identity, Pattern::nothing())),
        Identity::Service(_) => Some(controller_permissions(identity, Pattern::exactly(format!("{KEY_PRESENCE}.#")))),
        Identity::Broker(name) => match role {
            Role::Center(sites) => sites.iter().find(|site| site.broker == *name).map(link_permissions),
            Role::Alone | Role::Site { .. } => None,
        },
    }
}

/// Keys of collectives to bind: these, or any if there are none.
fn collective_keys(collectives: &BTreeSet<CollectiveName>) -> Pattern {
    if collectives.is_empty() {
        return Pattern::short_name("collective.", "");
    }
    collectives.iter().fold(Pattern::nothing(), |keys, name| keys.or(Pattern::exactly(collective_key(name))))
}

/// What a site's broker may do at the centre: keep the one queue that its federation makes, bind what its own hosts may
/// hear, and publish answers in their names. It reads no answers, commands nobody, and sees no host's queue.
///
/// Federation declares an exchange beside its queue, and changes between two names when the link comes back.
fn link_permissions(site: &LinkedSite) -> Permissions {
    let queue = downlink_queue(&site.name);
    let own = [format!("{queue} A"), format!("{queue} B")]
        .into_iter()
        .fold(Pattern::exactly(queue), |names, name| names.or(Pattern::exactly(name)));
    let mut hears = Pattern::exactly(KEY_ALL).or(collective_keys(&site.collectives));
    let mut answers = Pattern::nothing();
    for hosts in &site.hosts {
        let callers = Pattern::two_short_names("user/", ".")
            .or(Pattern::two_short_names("service/", "."))
            .or(Pattern::exactly(KEY_PRESENCE));
        let (key, from) = match hosts {
            HostsOf::One(host) => (Pattern::exactly(host_key(host)), callers.then(&format!(".{host}"))),
            HostsOf::Below(domain) => {
                (Pattern::host_below("host.", domain.as_str()), callers.then_host_below(domain.as_str()))
            }
        };
        hears = hears.or(key);
        answers = answers.or(from);
    }
    Permissions {
        user: site.identity().to_string(),
        configure: own.clone(),
        write: own.clone().or(Pattern::exactly(EXCHANGE_REPLY)),
        read: own.or(Pattern::exactly(EXCHANGE_COMMAND)),
        topics: [
            TopicRule { exchange: EXCHANGE_COMMAND, write: Pattern::nothing(), read: hears },
            TopicRule { exchange: EXCHANGE_REPLY, write: answers, read: Pattern::nothing() },
        ],
        connections_max: LINK_CONNECTIONS_MAX,
        channels_max: LINK_CHANNELS_MAX,
    }
}

/// A host owns one queue, hears commands that are meant for it, and answers in its own name only.
fn host_permissions(
    identity: &Identity,
    queue: &str,
    key: &str,
    host: &str,
    collectives: &BTreeSet<CollectiveName>,
) -> Permissions {
    let queue = Pattern::exactly(queue);
    let callers = Pattern::two_short_names("user/", ".").or(Pattern::two_short_names("service/", "."));
    Permissions {
        user: identity.to_string(),
        configure: queue.clone(),
        write: queue.clone().or(Pattern::exactly(EXCHANGE_REPLY)),
        read: queue.or(Pattern::exactly(EXCHANGE_COMMAND)),
        topics: [
            TopicRule {
                exchange: EXCHANGE_COMMAND,
                write: Pattern::nothing(),
                read: Pattern::exactly(KEY_ALL).or(collective_keys(collectives)).or(Pattern::exactly(key)),
            },
            TopicRule {
                exchange: EXCHANGE_REPLY,
                write: callers.or(Pattern::exactly(KEY_PRESENCE)).then(&format!(".{host}")),
                read: Pattern::nothing(),
            },
        ],
        connections_max: HOST_CONNECTIONS_MAX,
        channels_max: HOST_CHANNELS_MAX,
    }
}

/// A controller commands anybody (each host's policy decides what comes of it) and hears its own answers.
fn controller_permissions(identity: &Identity, also_binds: Pattern) -> Permissions {
    let short = identity.short();
    let queues = Pattern::short_name(&format!("reply.{short}."), "");
    Permissions {
        user: identity.to_string(),
        configure: queues.clone(),
        write: queues.clone().or(Pattern::exactly(EXCHANGE_COMMAND)),
        read: queues.or(Pattern::exactly(EXCHANGE_REPLY)),
        topics: [
            TopicRule {
                exchange: EXCHANGE_COMMAND,
                write: Pattern::exactly(KEY_ALL)
                    .or(Pattern::short_name("collective.", ""))
                    .or(Pattern::host_name("host.")),
                read: Pattern::nothing(),
            },
            TopicRule {
                exchange: EXCHANGE_REPLY,
                write: Pattern::nothing(),
                read: Pattern::short_name(&format!("{short}."), ".#").or(also_binds),
            },
        ],
        connections_max: CONTROLLER_CONNECTIONS_MAX,
        channels_max: CONTROLLER_CHANNELS_MAX,
    }
}

#[cfg(test)]
mod tests;
