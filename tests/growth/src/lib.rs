//! From what was measured on one machine to fleets that nobody here can run: what each more host costs, what a hundred
//! thousand and a million would need, and what breaks first.
//!
//! # The data and how it flows
//!
//! [`constants`] are measured numbers with the place where each comes from, a file beside the documents. [`curve`] reads the
//! benchmark's results and fits a line through them ([`fit`]). [`model`] plays a question to a fleet on [`engine`], a
//! discrete-event engine; [`plan`] does the arithmetic that needs no playing: memory, connections, certificates. [`page`] and [`chart`] turn
//! all of it into tables and pictures, `docs/performance/growth`.
//!
//! # Non-goals
//!
//! Nothing is measured here, and no broker is started. The model is not of RabbitMQ's insides: it knows cores, single
//! processes and lines, because that is what the measurements showed to be scarce.
//!
//! # Invariants
//!
//! - Everything is a function of its input: the same constants and results give the same files, to the last byte.
//! - The model is held against what was measured, by a test that says how far it is off.

pub mod chart;
pub mod constants;
pub mod curve;
pub mod engine;
pub mod fit;
pub mod model;
pub mod page;
pub mod plan;
