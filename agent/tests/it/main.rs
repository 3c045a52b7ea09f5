//! Tests of the agent: its pure decisions, its files, and whole agents on a bus in memory.

mod admit;
mod agent;
mod audit;
mod binary;
mod config;
mod facts;
mod journal;
mod kit;
mod policy;
mod report;
mod spool;
