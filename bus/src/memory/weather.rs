//! How the network between one client and the broker is, step by step.

use std::time::Duration;

/// What a client is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Open a connection.
    Connect,
    /// Declare a queue.
    Declare,
    /// Bind a queue, or remove a binding.
    Bind,
    /// Begin to read a queue.
    Consume,
    /// Publish a message.
    Publish,
    /// Acknowledge a delivery, or refuse it.
    Settle,
    /// Take the next delivery that the broker has sent.
    Receive,
}

/// What becomes of a step on its way to the broker and back. Fair weather costs no time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// How long it takes to the broker. If the connection ends before, the broker never hears of it.
    pub before: Duration,
    /// How long the broker's answer takes. If the connection ends before, it was done and nobody knows.
    pub after: Duration,
    /// Whether the connection breaks at this very step.
    pub cut: Cut,
}

/// Where a connection breaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// It holds.
    #[default]
    Nowhere,
    /// Before the broker hears of the step.
    Before,
    /// After the broker has done it and before the client hears of that.
    After,
}
