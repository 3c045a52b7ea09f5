//! Fleets against a real broker.

mod fleet;
mod raw;
mod storm;
