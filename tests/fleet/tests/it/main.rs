//! Fleets against a real broker.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops, and says where")]

mod fleet;
mod idle;
mod raw;
mod storm;
