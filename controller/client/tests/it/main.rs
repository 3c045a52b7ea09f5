//! The client over a broker in memory, with hosts that behave well and badly.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod asking;
mod bad_reports;
mod discovery;
mod faults;
mod follow_up;
mod pending;
mod secrets;
