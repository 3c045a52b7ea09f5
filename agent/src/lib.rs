//! The agent on every host.

pub mod admit;
pub mod audit;
pub mod config;
mod digest;
pub mod facts;
pub mod journal;
pub mod policy;
pub mod spool;
pub mod state;
