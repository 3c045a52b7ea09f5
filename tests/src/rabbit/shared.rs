//! One node for all tests of a process, one virtual host for each test.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use muster_broker_config::{Definitions, Site, definitions};
use muster_protocol::Identity;

use super::node::{Node, NodeOptions};
use crate::pki;

/// The node that the tests of this process share.
#[derive(Debug)]
pub struct Shared {
    node: Node,
    next: AtomicUsize,
}

/// A virtual host for one test, with the users it asked for. Deleted when dropped.
#[derive(Debug)]
pub struct TestBus {
    /// The broker's addresses, with the virtual host.
    pub urls: Vec<String>,
    /// The virtual host.
    pub vhost: String,
    /// Who issues the certificates.
    pub site: &'static pki::Site,
    shared: &'static Shared,
}

/// Gives the shared node, starting it on first use.
///
/// The node is never dropped, as it belongs to the process; it ends when the process does.
///
/// # Panics
/// RabbitMQ is not installed or does not start: a test that needs it cannot say anything without.
#[must_use]
pub fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let options = NodeOptions::new(pki::site().broker().server_certificate());
        let node = Node::start(options).expect("a private RabbitMQ starts");
        Shared { node, next: AtomicUsize::new(1) }
    })
}

impl Shared {
    /// The node itself, for `rabbitmqctl`. Tests that stop a node start their own.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Makes a fresh virtual host in which `identities` may log in.
    ///
    /// Users belong to the whole broker, permissions to the virtual host, so two tests may use the same names;
    /// a test that deletes a user must use a name of its own.
    ///
    /// # Panics
    /// The definitions cannot be imported.
    #[must_use]
    pub fn bus<'a>(&'static self, identities: impl IntoIterator<Item = &'a str>) -> TestBus {
        let vhost = format!("test-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let bus = TestBus { urls: vec![self.node.url(&vhost)], vhost, site: pki::site(), shared: self };
        bus.admit(identities);
        bus
    }
}

impl TestBus {
    /// Lets more identities in, as enrolment does: without a restart.
    ///
    /// # Panics
    /// A name is no identity, or the definitions cannot be imported.
    pub fn admit<'a>(&self, identities: impl IntoIterator<Item = &'a str>) {
        let identities: BTreeSet<Identity> =
            identities.into_iter().map(|name| name.parse().expect("an identity")).collect();
        self.import(&self.definitions(identities)).expect("RabbitMQ imports the generated definitions");
    }

    /// The shared node.
    #[must_use]
    pub fn node(&self) -> &'static Node {
        &self.shared.node
    }

    /// What is generated for `identities` in this virtual host. Without the limits per user: those count
    /// over the whole broker, and tests beside this one use the same names.
    #[must_use]
    pub fn definitions(&self, identities: BTreeSet<Identity>) -> Definitions {
        let mut definitions = definitions(&Site { vhost: self.vhost.clone(), ..Site::new(identities) });
        for user in &mut definitions.users {
            user.limits.clear();
        }
        definitions
    }

    fn import(&self, definitions: &Definitions) -> Result<()> {
        self.shared.node.import(definitions)
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        // A failed deletion must not hide the failure of the test itself.
        self.shared.node.delete_vhost(&self.vhost).ok();
    }
}
