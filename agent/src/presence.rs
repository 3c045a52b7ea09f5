//! What the agent says without being asked: that it is there, what it has, that it goes.

use std::time::Duration;

use muster_bus::{Guarantee, Link, Outgoing};
use muster_protocol::routing::{EXCHANGE_REPLY, presence_key};
use muster_protocol::{Announcement, AnnouncementKind, MessageError, PayloadType, ProtocolVersion, encode};
use rand::RngExt as _;

use crate::core::{Core, chain, lock};
use crate::outbox::signatures_header;

/// A pause differs from the configured one by at most this part of it.
const JITTER: f64 = 0.1;

/// What one connection has announced.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// Digest of the inventory that was sent over this connection.
    announced_digest: Option<String>,
}

impl Presence {
    /// Announces the host over `link`. The inventory goes along when this connection has not carried it yet.
    pub(crate) async fn announce(&mut self, core: &Core, link: &dyn Link, kind: AnnouncementKind) {
        let snapshot = lock(&core.inventory).clone();
        let leaves = kind == AnnouncementKind::Offline;
        let is_news = !leaves && self.announced_digest.as_ref() != Some(&snapshot.digest);
        let announcement = Announcement {
            protocol: ProtocolVersion::V1,
            host: core.host.clone(),
            kind,
            created_at_ms: core.now(),
            started_at_ms: core.started_at,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            inventory_digest: snapshot.digest.clone(),
            inventory: is_news.then(|| (*snapshot.inventory).clone()),
            profile: None,
        };
        let body = match encode(&announcement) {
            Err(error @ MessageError::TooLarge { .. }) => {
                tracing::warn!(%error, "The inventory is too large to be announced");
                encode(&Announcement { inventory: None, ..announcement })
            }
            done => done,
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => return tracing::error!(%error, "An announcement could not be encoded"),
        };
        // The next one says it anew.
        let expiration_ms = u64::try_from(core.config.presence_interval().as_millis()).ok().map(|ms| ms * 2);
        let message = message(core, body, expiration_ms);
        // The last word before the connection closes has to be on its way when it does.
        let guarantee = if leaves { Guarantee::Confirmed } else { Guarantee::Fire };
        match link.publish(message, guarantee).await {
            Ok(()) if is_news => self.announced_digest = Some(snapshot.digest.clone()),
            Ok(()) => {}
            Err(error) => tracing::debug!(error = chain(&error), "An announcement was not sent"),
        }
    }
}

/// A signed announcement on its way.
pub(crate) fn message(core: &Core, body: Vec<u8>, expiration_ms: Option<u64>) -> Outgoing {
    let content_type = PayloadType::Announcement.as_str();
    let signature = core.materials().credentials.sign(content_type, &body);
    Outgoing {
        exchange: EXCHANGE_REPLY,
        routing_key: presence_key(&core.host),
        content_type: content_type.to_owned(),
        body: body.into(),
        signatures: signatures_header(&[signature]),
        expiration_ms,
        persistent: false,
        mandatory: false,
        correlation_id: None,
    }
}

/// The pause before the next announcement.
pub(crate) fn pause(core: &Core) -> Duration {
    about(core, core.config.presence_interval())
}

/// A pause of about this length, so that hosts that began something together do not go on together.
pub(crate) fn about(core: &Core, pause: Duration) -> Duration {
    pause.mul_f64(core.with_random(|random| random.random_range(1.0 - JITTER..=1.0 + JITTER)))
}
