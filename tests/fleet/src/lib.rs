//! A fleet: thousands of real agents in one process, each with its own certificate, connection, queue and
//! state, against a real broker over TLS: RabbitMQ or the embedded one.
//!
//! # The data and how it flows
//!
//! [`Options`] say how many hosts and how they behave; [`inventory`] makes up what each of them is. [`Broker`]
//! starts a private one, where the permissions that `muster-broker-config` generates hold for exactly these
//! identities. [`Fleet::start`] then starts an [`Agent`](muster_agent::Agent) for each host, built of the same parts as
//! `musterd`, except that its facts are given and its actions run in this process. Its way to the broker goes through
//! a [`Meter`], which counts attempts to connect, and through the host's [`Behaviour`], which delays or swallows what
//! it says. The plugin [`fleet`](plugin) does what a test asks of it and keeps a [`Ledger`] of everything that ran.
//!
//! [`storm`] takes the broker away from a fleet and measures how it comes back. [`idle`] measures one real `musterd`
//! that has nothing to do.
//!
//! # Non-goals
//!
//! No simulated time and no simulated network: that is the simulation's. What is measured here is real and differs
//! from run to run; compare runs of the same machine and hour, as ratios.
//!
//! # Invariants
//!
//! - Agents share nothing but the process: state, keys and connections are each host's own.
//! - Everything ends with the process, and is gone from the disk then.

pub mod baseline;
mod behaviour;
mod blocking;
mod broker;
mod controller;
mod crew;
mod disk;
mod fleet;
mod ground;
pub mod idle;
pub mod inventory;
mod limits;
mod member;
mod meter;
mod options;
pub mod plugin;
mod process;
pub mod raw;
pub mod remote;
pub mod storm;

pub use behaviour::{Behaviour, Latency};
pub use broker::{Broker, BrokerKind};
pub use crew::{CrewState, Left};
pub use fleet::Fleet;
pub use ground::Ground;
pub use meter::{Counted, Meter};
pub use options::{Options, Pauses, Progress};
pub use plugin::Ledger;
pub use process::{Usage, processor_of_self, usage_of_group, usage_of_self};
