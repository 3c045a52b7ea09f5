//! One node for all tests of a process, one virtual host for each test; and another one for those that break it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, bail};
use muster_broker_config::{Definitions, Site, definitions};
use muster_protocol::Identity;
use nix::sys::signal::Signal;

use super::node::{Node, NodeOptions};
use crate::broker::{Broker, HEARTBEAT_S, Options, Shortage, TestBus};
use crate::pki;

/// A node with virtual hosts of several tests.
#[derive(Debug)]
struct Shared {
    node: Node,
    next: AtomicUsize,
}

impl Shared {
    fn start() -> Self {
        let options = NodeOptions::new(pki::site().broker().server_certificate());
        let node = Node::start(options).expect("a private RabbitMQ starts");
        Self { node, next: AtomicUsize::new(1) }
    }

    /// Another virtual host's name.
    fn name(&self) -> String {
        format!("test-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The node that tests leave alone, started on first use. It is never dropped, as it belongs to the process; it ends
/// when the process does.
fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(Shared::start)
}

/// A virtual host on the shared node.
pub(crate) fn shared_bus(identities: &BTreeSet<Identity>) -> TestBus {
    let shared = shared();
    bus(VirtualHost { name: shared.name(), node: NodeOf::Shared(shared) }, identities)
}

/// The same with somebody who may do everything.
pub(crate) fn hostile_bus(identities: &BTreeSet<Identity>, unbound: &BTreeSet<Identity>) -> TestBus {
    let shared = shared();
    let vhost = VirtualHost { name: shared.name(), node: NodeOf::Shared(shared) };
    vhost.admit(identities).expect("RabbitMQ imports the generated definitions");
    vhost.unbind(unbound).expect("RabbitMQ takes permissions");
    TestBus::new(vhost.name.clone(), pki::site(), Box::new(vhost))
}

/// A virtual host on the node that tests may kill, stop and starve, once no other test has it. It works when it is given,
/// also after a test that failed in the middle.
pub(crate) fn breakable_bus(identities: &BTreeSet<Identity>) -> TestBus {
    static NODE: OnceLock<Shared> = OnceLock::new();
    let alone = Alone::wait();
    let shared = NODE.get_or_init(Shared::start);
    mend(&shared.node);
    bus(VirtualHost { name: shared.name(), node: NodeOf::Breakable { shared, _alone: alone } }, identities)
}

/// A node of one's own with the virtual host in `options`.
pub(crate) fn own(options: Options) -> Result<Box<dyn Broker>> {
    let Options { certificate, vhost, identities, heartbeat_s, unbound } = options;
    let node = Node::start(NodeOptions { vhost: vhost.clone(), identities, ..NodeOptions::new(certificate) })?;
    if let Some(heartbeat_s) = heartbeat_s {
        set_heartbeat(&node, heartbeat_s)?;
    }
    let vhost = VirtualHost { name: vhost, node: NodeOf::Own(Box::new(node)) };
    vhost.unbind(&unbound)?;
    Ok(Box::new(vhost))
}

fn bus(vhost: VirtualHost, identities: &BTreeSet<Identity>) -> TestBus {
    vhost.admit(identities).expect("RabbitMQ imports the generated definitions");
    TestBus::new(vhost.name.clone(), pki::site(), Box::new(vhost))
}

/// Held by the one test that has the node which tests may break. May be dropped by another thread than the one that got it.
#[derive(Debug)]
struct Alone;

static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

impl Alone {
    /// Waits until nobody has it.
    fn wait() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner);
        *taken = true;
        Self
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}

/// Makes the node work again, whatever was done to it.
fn mend(node: &Node) {
    if node.is_alive() {
        node.signal(Signal::SIGCONT).expect("the node takes a signal");
        for with in [Shortage::Memory, Shortage::Disk] {
            feed(node, with).expect("the node takes a setting");
        }
    } else {
        node.kill().expect("what is left of the node ends");
        node.resume().expect("the node starts again");
    }
    set_heartbeat(node, HEARTBEAT_S).expect("the node takes a setting");
}

/// For connections that are made from now on. Lost when the node ends.
fn set_heartbeat(node: &Node, heartbeat_s: u16) -> Result<()> {
    node.ctl(&["eval", &format!("application:set_env(rabbit, heartbeat, {heartbeat_s}).")]).map(drop)
}

fn starve(node: &Node, of: Shortage) -> Result<()> {
    let words = match of {
        Shortage::Memory => ["set_vm_memory_high_watermark", "0"],
        Shortage::Disk => ["set_disk_free_limit", "1000000GB"],
    };
    node.ctl(&words).map(drop)
}

fn feed(node: &Node, with: Shortage) -> Result<()> {
    let words = match with {
        Shortage::Memory => ["set_vm_memory_high_watermark", "0.4"],
        Shortage::Disk => ["set_disk_free_limit", "50MB"],
    };
    node.ctl(&words).map(drop)
}

/// Whose node it is.
#[derive(Debug)]
enum NodeOf {
    Shared(&'static Shared),
    Breakable { shared: &'static Shared, _alone: Alone },
    Own(Box<Node>),
}

/// A virtual host. Deleted when dropped, if the node outlives it.
///
/// Users belong to the whole node, permissions to the virtual host, so two tests may use the same names; one that
/// expels somebody must use a name of its own.
#[derive(Debug)]
struct VirtualHost {
    name: String,
    node: NodeOf,
}

impl VirtualHost {
    fn node(&self) -> &Node {
        match &self.node {
            NodeOf::Shared(shared) | NodeOf::Breakable { shared, .. } => &shared.node,
            NodeOf::Own(node) => node,
        }
    }

    /// The node, to do something to it that others would notice.
    fn own_node(&self) -> Result<&Node> {
        match &self.node {
            NodeOf::Shared(_) => bail!("other tests use this node; take `Kind::breakable`"),
            NodeOf::Breakable { .. } | NodeOf::Own(_) => Ok(self.node()),
        }
    }

    /// What is generated for `identities` in this virtual host. On a shared node without the limits per user: those count
    /// over the whole node, and tests beside this one use the same names.
    fn definitions(&self, identities: &BTreeSet<Identity>) -> Definitions {
        let mut definitions = definitions(&Site { vhost: self.name.clone(), ..Site::new(identities.iter().cloned()) });
        if !matches!(self.node, NodeOf::Own(_)) {
            for user in &mut definitions.users {
                user.limits.clear();
            }
        }
        definitions
    }

    /// `rabbitmqctl` in this virtual host.
    fn ctl(&self, words: &[&str]) -> Result<String> {
        let [command, rest @ ..] = words else { bail!("no command") };
        self.node().ctl(&[&[command, "-p", &self.name], rest].concat())
    }

    fn unbind(&self, identities: &BTreeSet<Identity>) -> Result<()> {
        for identity in identities {
            let user = identity.to_string();
            self.ctl(&["set_permissions", &user, ".*", ".*", ".*"])?;
            self.ctl(&["clear_topic_permissions", &user])?;
        }
        Ok(())
    }

    /// A column of a table.
    fn column(&self, words: &[&str]) -> Result<Vec<String>> {
        let lines = self.ctl(&[words, &["--no-table-headers"]].concat())?;
        Ok(lines.lines().map(|line| line.trim().to_owned()).collect())
    }
}

impl Broker for VirtualHost {
    fn port(&self) -> u16 {
        self.node().port()
    }

    fn pid(&self) -> Option<u32> {
        self.node().pid()
    }

    fn is_alive(&self) -> bool {
        self.node().is_alive()
    }

    fn log(&self) -> String {
        self.node().log()
    }

    fn stop(&self) -> Result<()> {
        self.own_node()?.stop()
    }

    fn kill(&self) -> Result<()> {
        self.own_node()?.kill()
    }

    fn resume(&self) -> Result<()> {
        let node = self.own_node()?;
        node.resume()?;
        if matches!(self.node, NodeOf::Breakable { .. }) {
            set_heartbeat(node, HEARTBEAT_S)?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.own_node()?.signal(signal)
    }

    fn admit(&self, identities: &BTreeSet<Identity>) -> Result<()> {
        // Users belong to the node, and two imports that make the same user at once fail with `user_already_exists`.
        static IMPORTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = IMPORTING.lock().unwrap_or_else(PoisonError::into_inner);
        self.node().import(&self.definitions(identities))
    }

    fn expel(&self, identity: &Identity) -> Result<()> {
        self.node().delete_user(identity)
    }

    fn forbid(&self, identity: &Identity) -> Result<()> {
        self.ctl(&["clear_permissions", &identity.to_string()]).map(drop)
    }

    fn close_connections(&self, of: Option<&Identity>, reason: &str) -> Result<()> {
        match of {
            Some(identity) => self.node().ctl(&["close_all_user_connections", &identity.to_string(), reason]),
            None => self.ctl(&["close_all_connections", reason]),
        }
        .map(drop)
    }

    fn channels_of(&self, identity: &Identity) -> Result<Vec<usize>> {
        let listed = self.node().ctl(&["list_connections", "user", "vhost", "channels", "--no-table-headers"])?;
        let user = identity.to_string();
        let mut channels = Vec::new();
        for line in listed.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [who, vhost, count] = words[..]
                && who == user
                && vhost == self.name
            {
                channels.push(count.parse().with_context(|| format!("`{line}`"))?);
            }
        }
        Ok(channels)
    }

    fn queues(&self) -> Result<Vec<String>> {
        self.column(&["list_queues", "name"])
    }

    fn delete_queue(&self, name: &str) -> Result<()> {
        self.ctl(&["delete_queue", name]).map(drop)
    }

    fn remove(&self) -> Result<()> {
        self.node().delete_vhost(&self.name)
    }

    fn make_again(&self, identities: &BTreeSet<Identity>) -> Result<()> {
        self.admit(identities)
    }

    fn starve(&self, of: Shortage) -> Result<()> {
        starve(self.own_node()?, of)
    }

    fn feed(&self, with: Shortage) -> Result<()> {
        feed(self.own_node()?, with)
    }

    fn listen_also(&self, address: SocketAddr) -> Result<()> {
        let (ip, port) = (address.ip(), address.port());
        let listen =
            format!("rabbit_networking:start_ssl_listener({{\"{ip}\", {port}}}, rabbit_networking:ensure_ssl(), 2).");
        self.own_node()?.ctl(&["eval", &listen]).map(drop)
    }

    fn read_certificates(&self) -> Result<()> {
        self.own_node()?.ctl(&["eval", "ssl:clear_pem_cache()."]).map(drop)
    }

    fn listeners(&self) -> Result<Vec<String>> {
        let status = self.node().ctl(&["status", "--formatter", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status).context("read RabbitMQ's status")?;
        let listeners = status["listeners"].as_array().context("the status has no listeners")?;
        Ok(listeners.iter().filter_map(|it| it["protocol"].as_str()).map(ToOwned::to_owned).collect())
    }
}

impl Drop for VirtualHost {
    fn drop(&mut self) {
        if !matches!(self.node, NodeOf::Own(_)) {
            // A failed deletion must not hide the failure of the test itself.
            self.node().delete_vhost(&self.name).ok();
        }
    }
}
