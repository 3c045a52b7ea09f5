//! Fleets against a real broker.

mod raw;
mod storm;
