//! One node for all tests of a process, one virtual host for each test; and another one for those that break it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Result;
use muster_broker_config::{Definitions, Site, definitions};
use muster_protocol::Identity;

use nix::sys::signal::Signal;

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

/// Seconds between heartbeats on the node that is broken: what hangs is noticed in two of them, so tests do not wait
/// for the minute of a real broker.
const HEARTBEAT_S: u16 = 3;

/// The node for tests that break it, for one test at a time.
#[derive(Debug)]
pub struct Breakable {
    /// The node with its virtual hosts.
    pub shared: &'static Shared,
    _alone: MutexGuard<'static, ()>,
}

/// Gives the node that tests may kill, stop and starve, once no other test has it. It works when it is given, also
/// after a test that failed in the middle.
///
/// # Panics
/// RabbitMQ is not installed or does not start.
#[must_use]
pub fn breakable() -> Breakable {
    static NODE: OnceLock<Shared> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = NODE.get_or_init(|| {
        let options = NodeOptions::new(pki::site().broker().server_certificate());
        Shared { node: Node::start(options).expect("a private RabbitMQ starts"), next: AtomicUsize::new(1) }
    });
    let breakable = Breakable { shared, _alone: alone };
    breakable.mend();
    breakable
}

impl Breakable {
    /// Makes the node work again, whatever was done to it.
    fn mend(&self) {
        let node = &self.shared.node;
        if node.is_alive() {
            node.signal(Signal::SIGCONT).expect("the node takes a signal");
        } else {
            node.kill().expect("what is left of the node ends");
            node.resume().expect("the node starts again");
        }
        self.shorten_heartbeats();
    }

    /// Starts the killed node again.
    ///
    /// # Panics
    /// It does not start.
    pub fn resume(&self) {
        self.shared.node.resume().expect("the node starts again");
        self.shorten_heartbeats();
    }

    /// For connections that are made from now on. Lost when the node ends.
    fn shorten_heartbeats(&self) {
        let setting = format!("application:set_env(rabbit, heartbeat, {HEARTBEAT_S}).");
        self.shared.node.ctl(&["eval", &setting]).expect("the node takes a setting");
    }
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
