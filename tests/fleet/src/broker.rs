//! The broker of a fleet: a private RabbitMQ with the generated permissions of exactly its identities.

use std::time::Duration;

use anyhow::Result;
use muster_protocol::Identity;
use muster_protocol::routing::VHOST_DEFAULT;
use muster_tests::pki::Site;
use muster_tests::rabbit::{Node, NodeOptions};
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::process::{Usage, usage_of_group};

/// A private RabbitMQ. Its methods wait for processes, so they need a runtime with several threads.
#[derive(Debug)]
pub struct Broker {
    node: Node,
}

impl Broker {
    /// Starts it for these identities.
    ///
    /// # Errors
    /// RabbitMQ is not installed or does not start.
    pub fn start(site: &Site, identities: impl IntoIterator<Item = Identity>) -> Result<Self> {
        let options = NodeOptions {
            identities: identities.into_iter().collect(),
            ..NodeOptions::new(site.broker().server_certificate())
        };
        Ok(Self { node: blocking(|| Node::start(options))? })
    }

    /// `amqps://localhost:PORT/VHOST`.
    #[must_use]
    pub fn url(&self) -> String {
        self.node.url(VHOST_DEFAULT)
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Kills it as a power failure would.
    ///
    /// # Errors
    /// Its processes outlive that.
    pub fn kill(&mut self) -> Result<()> {
        blocking(|| self.node.kill())
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// Its processes outlive even force.
    pub fn stop(&mut self) -> Result<()> {
        blocking(|| self.node.stop())
    }

    /// Starts it again and says how long that took until it listens.
    ///
    /// # Errors
    /// It does not come up.
    pub fn resume(&mut self) -> Result<Duration> {
        let started = Instant::now();
        blocking(|| self.node.resume())?;
        Ok(started.elapsed())
    }

    /// What its processes cost; nothing while it is down.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.node.pid().and_then(|group| usage_of_group(group).ok()).unwrap_or_default()
    }
}
