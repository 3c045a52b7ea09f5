//! Fleets against a real broker.

mod storm;
