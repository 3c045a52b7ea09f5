//! The agent on every host.
//!
//! # The data and how it flows
//!
//! ```text
//! queue agent.HOST ─► session ─► admit ─► journal + audit ─► ack ─► execute ─► plugin
//!                       │          │                                   │
//!                  presence     refusal                        running, finished
//!                       │          └─────────► outbox ◄────────────────┘
//!                       └──────────────────────► │ spool until confirmed
//!                                         exchange reply
//! ```
//!
//! [`Agent::new`] opens the state directory and everything in it; [`Agent::run`] connects, serves and, when
//! told to, stops. The decision whether a message may do something is [`admit`], a pure function over data.
//! What is true of the host is in [`facts`], who may do what in [`policy`]. [`journal`], [`spool`] and [`audit`]
//! are the files that survive a restart.
//!
//! # Non-goals
//!
//! No templates, no database, no HTTP, no plugin: an agent decides, runs and reports.
//!
//! # Invariants
//!
//! - Nothing runs that is not an [`admit::Authorized`] command, and only [`admit`] makes one.
//! - A request id is recorded before its delivery is acknowledged, and a recorded request never starts again.
//! - Every request that was recorded ends in exactly one outcome, which is reported or, if that is
//!   impossible, recorded as given up.
//! - One `Agent` holds no state outside its own value and its own directory, so many run in one process.

pub mod admit;
mod agent;
pub mod audit;
pub mod config;
mod core;
mod counters;
pub mod detached;
mod digest;
mod execute;
pub mod facts;
#[doc(hidden)]
pub mod fuzzing;
mod host_view;
pub mod journal;
pub mod mask;
mod outbox;
pub mod plugins;
pub mod policy;
mod presence;
mod profiles;
mod receive;
mod reconnect;
pub mod report;
pub mod reserve;
pub mod results;
mod revocation;
pub mod sealing_key;
mod session;
pub mod spool;
pub mod state;
pub mod status;
mod synced;
mod watching;

pub use agent::{Agent, Handle, Parts, ReloadMaterials, StartError, Stopped, host_name};
pub use core::{Connection, Materials, StopReason};
