//! The bus over AMQP 0-9-1, with lapin.
//!
//! One connection, up to three kinds of channel, each opened when it is first needed: declarations and
//! the consumer, confirmed messages, unconfirmed messages. The broker closes a channel for any refused
//! operation, so a kind never shares a channel with one whose refusals it must survive. Who is sure that its
//! unconfirmed messages are not refused may have them share the consumer's channel
//! ([`AmqpSettings::one_channel`]).

mod connect;
mod consumer;
mod failure;
mod line;
mod link;
mod patience;
mod publisher;
mod settings;

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lapin::tcp::RustlsConnector;

use self::patience::Patience;
use crate::error::BusError;
use crate::link::{Bus, Link};

pub(crate) use consumer::{AmqpSettler, AmqpSource};
pub use settings::AmqpSettings;

/// Directives that keep the libraries below this crate out of the log: they log errors that they
/// also return, with message bodies in them.
pub const LOG_DIRECTIVES: &str = "lapin=off,amq_protocol=off,rustls=off";

/// A broker that speaks AMQP 0-9-1 over TLS 1.3, and who we are there.
#[derive(Clone)]
pub struct AmqpBus {
    settings: Arc<AmqpSettings>,
    patience: Arc<Patience>,
    /// Made when it is first needed, from settings that do not change.
    connector: Arc<OnceLock<RustlsConnector>>,
}

impl AmqpBus {
    /// Remembers the settings. Nothing is read or connected yet.
    #[must_use]
    pub fn new(settings: AmqpSettings) -> Self {
        Self { settings: Arc::new(settings), patience: Arc::default(), connector: Arc::default() }
    }
}

impl fmt::Debug for AmqpBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AmqpBus").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Bus for AmqpBus {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>> {
        async {
            let link = connect::connect(&self.settings, &self.patience, &self.connector).await?;
            Ok(Arc::new(link) as Arc<dyn Link>)
        }
        .boxed()
    }

    fn describe(&self) -> String {
        let urls = self.settings.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{urls} as {}", self.settings.credentials.identity())
    }
}
