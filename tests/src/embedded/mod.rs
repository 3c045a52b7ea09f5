//! A private embedded broker: the real `muster broker run` on a port of its own, on loopback only.
//!
//! It has one virtual host and starts in milliseconds, so each test has a process of its own. Like a node of RabbitMQ it
//! ends with its owner: [`stop`](crate::broker::Broker::stop), `Drop`, or the death of the process that started it.

mod configuration;
mod hostile;
mod process;

pub use process::Embedded;

use anyhow::Result;

use crate::broker::{Broker, Kind, Options, TestBus};

/// A broker for one test.
///
/// # Panics
/// It does not start.
pub(crate) fn bus(options: Options) -> TestBus {
    let vhost = options.vhost.clone();
    TestBus::new(vhost, Kind::Embedded.site(), start(options).expect("an embedded broker starts"))
}

/// A broker of one's own.
pub(crate) fn start(options: Options) -> Result<Box<dyn Broker>> {
    if options.unbound.is_empty() {
        Ok(Box::new(Embedded::start(options)?))
    } else {
        // One that keeps to our rules cannot be told to let anybody do everything.
        Ok(Box::new(hostile::Hostile::start(options)?))
    }
}
