//! What a test needs of a broker, whichever of the two it is: [RabbitMQ](crate::rabbit) or the [embedded](crate::embedded) one.
//!
//! A test says which with a [`Kind`]. It gets a [`TestBus`], a virtual host in which its own identities may log in, and
//! has an operator's hands on it: [`Broker`]. What an operator of RabbitMQ does with `rabbitmqctl`, one of the embedded
//! broker does with `muster broker`, or with its configuration file and a reload; a test says only what is to be done.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::OnceLock;

use anyhow::Result;
use muster_broker_config::ServerCertificate;
use muster_protocol::Identity;
use muster_protocol::routing::VHOST_DEFAULT;
use nix::sys::signal::Signal;

use crate::pki;
use crate::{embedded, rabbit};

/// Which broker a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RabbitMQ, as Debian has it, with the generated configuration.
    RabbitMq,
    /// `muster broker run`.
    Embedded,
}

/// What a broker can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Memory: more is in use than the limit.
    Memory,
    /// Disk: less is free than is to be kept free, or more is in use than the limit.
    Disk,
}

/// What a broker of one's own is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its certificate, and whom it believes.
    pub certificate: ServerCertificate,
    /// The virtual host.
    pub vhost: String,
    /// Who may log in.
    pub identities: BTreeSet<Identity>,
    /// Seconds between heartbeats; `None` for the default.
    pub heartbeat_s: Option<u16>,
    /// Who may do everything, as nobody may on a broker that keeps to our rules: one that an attacker has changed.
    pub unbound: BTreeSet<Identity>,
}

impl Options {
    /// A broker with this certificate, and nobody in it.
    #[must_use]
    pub fn with_certificate(certificate: ServerCertificate) -> Self {
        Self {
            certificate,
            vhost: VHOST_DEFAULT.to_owned(),
            identities: BTreeSet::new(),
            heartbeat_s: None,
            unbound: BTreeSet::new(),
        }
    }

    /// With these identities, `KIND/NAME` each.
    ///
    /// # Panics
    /// A name is no identity.
    #[must_use]
    pub fn admitting<'a>(mut self, identities: impl IntoIterator<Item = &'a str>) -> Self {
        self.identities.extend(parsed(identities));
        self
    }
}

/// A virtual host of a running broker, in the hands of its operator. Methods block.
///
/// Those that end or hold up the whole broker fail where other tests use it, too.
pub trait Broker: fmt::Debug + Send + Sync {
    /// The port for AMQP over TLS, on 127.0.0.1.
    fn port(&self) -> u16;

    /// The process that listens. The first of a process group with everything that it has started.
    fn pid(&self) -> Option<u32>;

    /// Whether it runs.
    fn is_alive(&self) -> bool;

    /// The last lines of its log.
    fn log(&self) -> String;

    /// Ends it in order. Its data stay for [`Broker::resume`].
    ///
    /// # Errors
    /// It does not end, or is not this test's own.
    fn stop(&self) -> Result<()>;

    /// Kills it, as a power failure would.
    ///
    /// # Errors
    /// It does not end, or is not this test's own.
    fn kill(&self) -> Result<()>;

    /// Starts it again on the data that it has left.
    ///
    /// # Errors
    /// It does not start.
    fn resume(&self) -> Result<()>;

    /// Sends a signal, such as SIGSTOP.
    ///
    /// # Errors
    /// It does not run, or is not this test's own.
    fn signal(&self, signal: Signal) -> Result<()>;

    /// Lets more identities in, without a restart.
    ///
    /// # Errors
    /// It is refused.
    fn admit(&self, identities: &BTreeSet<Identity>) -> Result<()>;

    /// Takes an identity out of the broker, as for one that has left. Its connections are closed.
    ///
    /// # Errors
    /// It is refused.
    fn expel(&self, identity: &Identity) -> Result<()>;

    /// Takes everything away from an identity that it may do in this virtual host. Connections that it has may stay.
    ///
    /// # Errors
    /// It is refused.
    fn forbid(&self, identity: &Identity) -> Result<()>;

    /// Closes connections: of one identity, or all in this virtual host. Their ends are told why.
    ///
    /// # Errors
    /// It is refused.
    fn close_connections(&self, of: Option<&Identity>, reason: &str) -> Result<()>;

    /// How many channels each connection of an identity has.
    ///
    /// # Errors
    /// The connections cannot be listed.
    fn channels_of(&self, identity: &Identity) -> Result<Vec<usize>>;

    /// The names of the queues.
    ///
    /// # Errors
    /// They cannot be listed.
    fn queues(&self) -> Result<Vec<String>>;

    /// Deletes a queue with everything in it.
    ///
    /// # Errors
    /// It is refused.
    fn delete_queue(&self, name: &str) -> Result<()>;

    /// Removes the virtual host with everything in it; nobody finds it until [`Broker::make_again`].
    ///
    /// # Errors
    /// It is refused.
    fn remove(&self) -> Result<()>;

    /// Makes the removed virtual host again, with nothing in it.
    ///
    /// # Errors
    /// It is refused.
    fn make_again(&self, identities: &BTreeSet<Identity>) -> Result<()>;

    /// Makes the broker lack something.
    ///
    /// # Errors
    /// It is refused.
    fn starve(&self, of: Shortage) -> Result<()>;

    /// Gives it back.
    ///
    /// # Errors
    /// It is refused.
    fn feed(&self, with: Shortage) -> Result<()>;

    /// Listens on another address, too.
    ///
    /// # Errors
    /// It is refused.
    fn listen_also(&self, address: SocketAddr) -> Result<()>;

    /// Has the files of its certificate, and of those whom it believes, read again. Connections stay.
    ///
    /// # Errors
    /// It is refused.
    fn read_certificates(&self) -> Result<()>;

    /// What it listens for, such as `amqp/ssl`.
    ///
    /// # Errors
    /// It cannot be asked for.
    fn listeners(&self) -> Result<Vec<String>>;
}

/// A virtual host for one test, in which the identities that it asked for may log in. Ends with it.
#[derive(Debug)]
pub struct TestBus {
    /// The broker's addresses, with the virtual host.
    pub urls: Vec<String>,
    /// The virtual host.
    pub vhost: String,
    /// Who issues the certificates.
    pub site: &'static pki::Site,
    broker: Box<dyn Broker>,
}

impl Deref for TestBus {
    type Target = dyn Broker;

    fn deref(&self) -> &Self::Target {
        &*self.broker
    }
}

impl TestBus {
    /// A virtual host of a broker whose certificates come from this site.
    pub(crate) fn new(vhost: String, site: &'static pki::Site, broker: Box<dyn Broker>) -> Self {
        Self { urls: vec![url(broker.port(), &vhost)], vhost, site, broker }
    }

    /// The address of another virtual host on the same broker, which need not exist.
    #[must_use]
    pub fn url_of(&self, vhost: &str) -> String {
        url(self.port(), vhost)
    }

    /// Lets more identities in, `KIND/NAME` each.
    ///
    /// # Panics
    /// A name is no identity, or the broker refuses it.
    pub fn let_in<'a>(&self, identities: impl IntoIterator<Item = &'a str>) {
        self.admit(&parsed(identities)).expect("the broker takes them in");
    }
}

/// `amqps://localhost:PORT/VHOST`.
#[must_use]
pub fn url(port: u16, vhost: &str) -> String {
    format!("amqps://localhost:{port}/{vhost}")
}

/// Identities by their names.
///
/// # Panics
/// A name is none.
pub fn parsed<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<Identity> {
    names.into_iter().map(|name| name.parse().expect("an identity")).collect()
}

/// Seconds between heartbeats on a broker that is broken: what hangs is noticed in two of them, so tests do not wait
/// for the minute of a real broker.
pub(crate) const HEARTBEAT_S: u16 = 3;

impl Kind {
    /// The site that the tests of this process on this broker share: one for each, since a test that revokes somebody runs on
    /// both. Tests that need another CA make their own.
    ///
    /// # Panics
    /// There is no room for temporary files.
    #[must_use]
    pub fn site(self) -> &'static pki::Site {
        static EMBEDDED: OnceLock<pki::Site> = OnceLock::new();
        match self {
            Self::RabbitMq => pki::site(),
            Self::Embedded => EMBEDDED.get_or_init(|| pki::Site::watched().expect("a temporary directory is writable")),
        }
    }

    /// A broker with the certificate of the tests' site, and nobody in it.
    ///
    /// # Panics
    /// As [`Kind::site`].
    #[must_use]
    pub fn options(self) -> Options {
        Options::with_certificate(self.site().broker().server_certificate())
    }

    /// A virtual host for one test, on a broker that the test leaves alone.
    ///
    /// # Panics
    /// The broker does not start: a test that needs it cannot say anything without.
    #[must_use]
    pub fn bus<'a>(self, identities: impl IntoIterator<Item = &'a str>) -> TestBus {
        match self {
            Self::RabbitMq => rabbit::shared_bus(&parsed(identities)),
            Self::Embedded => embedded::bus(self.options().admitting(identities)),
        }
    }

    /// A virtual host on a broker that the test may kill, stop and starve.
    ///
    /// # Panics
    /// The broker does not start.
    #[must_use]
    pub fn breakable<'a>(self, identities: impl IntoIterator<Item = &'a str>) -> TestBus {
        match self {
            Self::RabbitMq => rabbit::breakable_bus(&parsed(identities)),
            Self::Embedded => {
                embedded::bus(Options { heartbeat_s: Some(HEARTBEAT_S), ..self.options().admitting(identities) })
            }
        }
    }

    /// A virtual host on a broker that an attacker administers: `unbound`, one of `identities`, may do everything there.
    ///
    /// # Panics
    /// The broker does not start.
    #[must_use]
    pub fn hostile<'a>(self, identities: impl IntoIterator<Item = &'a str>, unbound: &str) -> TestBus {
        match self {
            Self::RabbitMq => rabbit::hostile_bus(&parsed(identities), &parsed([unbound])),
            Self::Embedded => {
                embedded::bus(Options { unbound: parsed([unbound]), ..self.options().admitting(identities) })
            }
        }
    }

    /// A broker of one's own.
    ///
    /// # Errors
    /// It does not start; with the end of its log.
    pub fn start(self, options: Options) -> Result<Box<dyn Broker>> {
        match self {
            Self::RabbitMq => rabbit::own(options),
            Self::Embedded => embedded::start(options),
        }
    }
}
