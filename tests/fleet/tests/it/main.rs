//! Fleets against a real broker.

mod fleet;
mod idle;
mod raw;
mod storm;
