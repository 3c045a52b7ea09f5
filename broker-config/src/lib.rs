//! The broker as code: topology, users, permissions and configuration of RabbitMQ, generated from the routing names.
//!
//! # The data and how it flows
//!
//! A [`Site`] says where the broker listens, which certificates it shows and who may log in.
//! [`definitions`] turns it into the users, permissions, exchanges and policies that RabbitMQ imports,
//! [`rabbitmq_conf`] and [`enabled_plugins`] into the two files it starts with. [`permissions_for`] is
//! the one description of who may do what: it renders to the regular expressions in the definitions and
//! answers in Rust through [`Permissions::allows`]. Several brokers, a central one and one at each site, come from one
//! description, [`Sites`], from which each takes its [`Role`]. [`check`] compares a running broker's exported
//! definitions with the expected ones, [`check_environment`] its effective settings with the rules.
//!
//! # Non-goals
//!
//! No process is started and no file written here; `muster broker` and the test kit do that.
//! Clustering and the operating system's limits stay the operator's.
//!
//! # Invariants
//!
//! - Every pattern is anchored at both ends and names are escaped: RabbitMQ searches, it does not match.
//! - Every user has a topic permission for *both* exchanges, because RabbitMQ allows every topic of an
//!   exchange for which it finds none.
//! - No user has a password or a tag. The certificate is the login.
//! - Nothing here is deprecated in RabbitMQ 4.x, and everything is understood by 3.10.

mod check;
mod conf;
mod definitions;
mod environment;
mod links;
mod pattern;
mod permissions;
mod site;
mod sites;
mod topology;

pub use check::{Finding, Severity, check};
pub use conf::{
    BACKLOG, CHANNELS_MAX, FILE_CONF, FILE_DEFINITIONS, FILE_PLUGINS, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_MS,
    HEARTBEAT_S, MESSAGE_BYTES_MAX, enabled_plugins, rabbitmq_conf,
};
pub use definitions::{
    Binding, Definitions, DefinitionsError, Exchange, Parameter, Permission, Policy, Queue, TopicPermission, User,
    Vhost, VhostMetadata, definitions,
};
pub use environment::{Environment, check_environment};
pub use pattern::Pattern;
pub use permissions::{Access, Operation, Permissions, Resource, TopicRule, permissions_at, permissions_for};
pub use site::{PORT_AMQPS, Purpose, ServerCertificate, Site};
pub use sites::{Address, CENTER, Center, HostsOf, LinkedSite, Role, SITE_HOSTS_MAX, Sites, SitesError};
pub use topology::{EXCHANGES, Overflow, QUEUE_POLICIES, QueuePolicy};
