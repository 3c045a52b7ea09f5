//! Controllers for a fleet: the real client.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use muster_bus::{AmqpBus, AmqpSettings, Bus, ConsumeOptions, Link, QueueSpec};
use muster_client::{Audience, Controller, Parts, Question};
use muster_daemon::SystemClock;
use muster_pki::Credentials;
use muster_protocol::routing::{EXCHANGE_REPLY, presence_binding};
use muster_protocol::{Announcement, AnnouncementKind, HostName, decode};
use rand::SeedableRng as _;
use serde_json::{Map, Value};

use crate::fleet::Fleet;

/// The queue into which announcements of a fleet go, in the name of `service/registry`.
const PRESENCE_QUEUE: &str = "reply.service/registry.presence";

impl Fleet {
    /// The way to the broker for somebody who may use it.
    #[must_use]
    pub fn bus(&self, credentials: &Credentials) -> Arc<dyn Bus> {
        let url = self.ground.broker.url().parse().expect("the broker's own address is one");
        Arc::new(AmqpBus::new(AmqpSettings::new(vec![url], credentials.clone(), self.ground.site.trust())))
    }

    /// A session of `user/lea`, who is in the group `admins`.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn controller(&self) -> Result<Controller> {
        let credentials = self.ground.site.member_in("user/lea", &["admins"]).credentials;
        let parts = Parts {
            bus: self.bus(&credentials),
            credentials,
            trust: self.ground.site.trust(),
            clock: Arc::new(SystemClock),
            random: rand::rngs::StdRng::from_rng(&mut rand::rng()),
            collective: "main".parse().context("`main` is a collective")?,
        };
        Controller::connect(parts).await.context("open a session")
    }

    /// A question to these hosts about an action of the plugin `fleet`.
    ///
    /// # Panics
    /// The action's name is none.
    #[must_use]
    pub fn question(hosts: BTreeSet<HostName>, action: &str, arguments: Value) -> Question {
        let plugin = "fleet".parse().expect("a plugin's name");
        let action = action.parse().expect("the caller names an action");
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        Question { arguments, ..Question::new(Audience::Hosts(hosts), plugin, action) }
    }

    /// Begins to collect announcements, also those that are made while nobody reads.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub async fn listen_to_presence(&self) -> Result<()> {
        let link = self.registry().await?;
        link.declare_queue(QueueSpec::durable(PRESENCE_QUEUE)).await?;
        link.bind(PRESENCE_QUEUE, EXCHANGE_REPLY, &presence_binding()).await?;
        link.close().await;
        Ok(())
    }

    /// Takes collected announcements until `enough` hosts have said that they are online, or none came for a while.
    /// Gives the hosts that did.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub async fn announced_online(&self, enough: usize) -> Result<BTreeSet<HostName>> {
        let link = self.registry().await?;
        let mut consumer = link.consume(PRESENCE_QUEUE, ConsumeOptions { prefetch: 500, exclusive: true }).await?;
        let mut online = BTreeSet::new();
        while online.len() < enough {
            let next = tokio::time::timeout(PRESENCE_PATIENCE, consumer.next()).await;
            let Ok(Some(delivery)) = next else { break };
            if let Ok(announcement) = decode::<Announcement>(&delivery.body)
                && announcement.kind == AnnouncementKind::Online
            {
                online.insert(announcement.host);
            }
            delivery.ack().await?;
        }
        link.close().await;
        Ok(online)
    }

    async fn registry(&self) -> Result<Arc<dyn Link>> {
        let credentials = self.ground.site.member("service/registry").credentials;
        self.bus(&credentials).connect().await.context("connect as the registry")
    }
}

/// How long the next announcement may take.
const PRESENCE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
