//! Tests of the agent: its pure decisions, its files, and whole agents on a bus in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops, and says where")]

mod admit;
mod agent;
mod approvals;
mod audit;
mod audit_commands;
mod binary;
mod compaction;
mod config;
mod crash;
mod detached;
mod documents;
mod facts;
mod journal;
mod kept;
mod kit;
mod plugins;
mod policy;
mod policy_commands;
mod profiles;
mod report;
mod reserve;
mod rotation;
mod sealing_key;
mod spool;
mod status;
mod turn;
mod watched;
