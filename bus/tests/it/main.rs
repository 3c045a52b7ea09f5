//! The contract of the bus, and what the broker in memory adds for tests.

mod contract;
mod memory;
