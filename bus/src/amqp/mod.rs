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

#[cfg(test)]
mod tests {
    use lapin::protocol::basic::parse_properties;
    use muster_daemon::STACK_BYTES;

    /// Property flags with `headers` alone, and as many tables in one another as fit into this many bytes.
    fn nothing_but_tables(bytes: usize) -> Vec<u8> {
        const LEVEL: usize = 6;
        let levels = (bytes - 6) / LEVEL;
        let mut properties = vec![0x20, 0x00];
        for inner in (0..=levels).rev() {
            // The size of what follows; a name of no bytes, and `F` for a table.
            properties.extend(u32::try_from(inner * LEVEL).unwrap().to_be_bytes());
            if inner > 0 {
                properties.extend([0, b'F']);
            }
        }
        properties
    }

    #[test]
    fn no_header_that_fits_a_frame_is_too_deep_for_a_thread() {
        let frame_max = usize::try_from(16 * 1024).unwrap();
        let read = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let bytes = nothing_but_tables(frame_max);
            let (rest, properties) = parse_properties(bytes.as_slice()).expect("it is well formed");
            assert!(rest.is_empty());
            let mut depth = 0;
            let mut table = properties.headers().clone().expect("there are headers");
            while let Some((_, lapin::types::AMQPValue::FieldTable(inner))) = table.inner().iter().next() {
                depth += 1;
                table = inner.clone();
            }
            // Dropping it goes as deep.
            drop(properties);
            depth
        });
        assert!(read.unwrap().join().unwrap() > 2_700);
    }
}
