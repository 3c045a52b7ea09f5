//! A simulated fleet: real agents and real controllers in one process, and a seed that decides everything.
//!
//! # The data and how it flows
//!
//! [`run()`] makes a broker in memory, hosts and controllers from [`Options`] and lets them live through some minutes
//! of simulated time, in one thread, under a plan of faults; then everything heals, everybody gets the time to
//! come to an end, and what happened is judged. What runs is the product: `muster_agent::Agent` with journal, spool
//! and audit log, `muster_client::Controller`. What is simulated is around it: the broker and the network
//! ([`muster_bus::MemoryBroker`]), each host's disk ([`muster_daemon::disk::SimulatedDisk`]) and clock, the plugin.
//! A [`world`] outside of the agents counts what was really done; it survives their crashes.
//!
//! # Non-goals
//!
//! No processes, no sockets, no real disks, no threads: those are the end-to-end tests' (`tests/`). No measuring.
//!
//! # Invariants
//!
//! - The same seed and options give the same trace, byte for byte. So nothing here reads a real clock, draws from a
//!   generator that is not seeded, or depends on the order of a hash map.
//! - Each kind of fault draws from its own stream, so that switching one off leaves the others where they were.

mod attacker;
mod chaos;
mod clock;
mod controllers;
mod host;
mod judge;
mod network;
mod options;
mod plugin;
mod random;
mod run;
mod site;
mod stage;
mod tally;
mod trace;
pub mod world;

pub use options::{FaultKind, Options};
pub use run::{Outcome, run};
pub use site::Site;
pub use tally::Tally;
pub use world::Violation;
