//! The contract of the bus, and what the broker in memory adds for tests.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod contract;
mod memory;
