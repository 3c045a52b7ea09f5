//! What the fuzzer throws bytes at: one function for each reader of bytes that somebody else wrote.
//!
//! # The data and how it flows
//!
//! A [`Target`] takes any bytes and panics where a law is broken: no reader panics, what was read prints to text that
//! reads the same, bounds hold, a changed signed byte is never believed. `fuzz/engine` calls one target a million
//! times with bytes that libFuzzer makes up; this crate's test calls all of them with what is checked in:
//! `fuzz/corpus/TARGET.txt` (interesting inputs) and `fuzz/past/TARGET.txt` (inputs that once broke a law).
//! Inputs are lines of escaped ASCII, see [`store`].
//!
//! # Non-goals
//!
//! Nothing here decides whether a message is *rightly* read; the unit tests of each crate do.
//!
//! # Invariants
//!
//! - The same input does the same: no clock, and randomness only in keys, which no law depends on.
//! - A target writes nothing but files below a directory of its process, which goes when the process ends.

mod agent;
mod broker;
mod broker_journal;
mod controller;
mod input;
mod plugins;
mod protocol;
mod scratch;
pub mod store;
mod trust;

/// One reader and its laws.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, in lower case with hyphens.
    pub name: &'static str,
    /// Longest input that is worth trying, in bytes.
    pub bytes_max: usize,
    /// Files of the repository to start from; a name that ends in `/` means all files of that folder. What stands
    /// before `=`, if anything, is put in front of each.
    pub seeds: &'static [&'static str],
    /// Words of its language, which chance would take long to find.
    pub words: &'static [&'static str],
    /// Tries one input. Panics where a law is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    protocol::MESSAGE,
    protocol::SIGNATURES,
    protocol::EXPRESSION,
    protocol::MCO_FILTER,
    protocol::DDL,
    protocol::NAMES,
    trust::PKI,
    trust::SIGNED,
    trust::PACK,
    agent::AGENT_CONFIG,
    agent::POLICY,
    agent::FACTS,
    agent::JOURNAL,
    agent::SPOOL,
    agent::AUDIT,
    agent::ACTION_DIRECTORY,
    agent::MASK,
    plugins::PACKAGE_MANAGERS,
    plugins::PACKAGE_VERSIONS,
    plugins::SERVICE_MANAGERS,
    plugins::PUPPET,
    plugins::PROCESS_TABLE,
    plugins::PLUGIN_REPLY,
    controller::COLLECTOR,
    controller::OUTPUT,
    controller::AGGREGATE,
    controller::TERMINAL,
    controller::FOLD,
    controller::CONTEXT,
    controller::TYPED,
    controller::DEFINITIONS,
    broker::AMQP_FRAMES,
    broker::AMQP_SESSION,
    broker_journal::BROKER_JOURNAL,
];
