//! A private embedded broker: the real `muster broker run` on a port of its own, on loopback only.
//!
//! It has one virtual host and starts in milliseconds, so each test has a process of its own. Like a node of RabbitMQ it
//! ends with its owner: [`stop`](crate::broker::Broker::stop), `Drop`, or the death of the process that started it.

mod configuration;
mod process;

pub use process::Embedded;

use crate::broker::{Options, TestBus};

/// A broker for one test.
///
/// # Panics
/// It does not start.
pub(crate) fn bus(options: Options) -> TestBus {
    let vhost = options.vhost.clone();
    let broker = Embedded::start(options).expect("an embedded broker starts");
    TestBus::new(vhost, Box::new(broker))
}
