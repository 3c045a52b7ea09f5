//! What the agent has counted since its start, for `host.status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters. Names are part of `host.status`.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// All counts by name.
            pub(crate) fn all(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name), self.$name.get()),)*]
                    .into_iter()
                    .map(|(name, count)| (name.to_owned(), count))
                    .collect()
            }
        }
    };
}

counters! {
    /// Messages of any kind that the bus delivered.
    messages_received,
    /// Messages whose sender could not be verified.
    messages_rejected,
    /// Commands and cancellations for other hosts.
    commands_not_mine,
    /// Commands and cancellations that were refused.
    commands_refused,
    /// Deliveries of what was recorded before a connection broke.
    commands_recovered,
    /// Actions that were started.
    actions_started,
    /// Actions that ended.
    actions_finished,
    /// Reports that were handed to the broker or confirmed by it.
    reports_sent,
    /// Running reports that were lost because there was no connection.
    reports_lost,
    /// Final reports that nobody wanted any more.
    reports_given_up,
    /// Connections to a broker.
    connections,
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
