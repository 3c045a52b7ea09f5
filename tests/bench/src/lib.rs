//! Measures Muster against the bare broker in the same run, and shows what came of it.
//!
//! # The data and how it flows
//!
//! One process for each number of hosts holds a broker, a fleet of real agents (`muster-fleet`) and, beside it on the same
//! broker, the raw echo. [`controller`] is the real client in a process of its own that takes [`order`]s;
//! [`once`] runs the program `muster` and says what it cost. Rounds alternate between the raw echo and Muster. What was
//! measured goes into [`results`], which are samples and nothing else; [`statistics`], [`targets`], [`table`],
//! [`charts`] and [`page`] are pure functions from those to what people read.
//!
//! # Non-goals
//!
//! No verdict by exit code: what is not reached is shown as that. No comparison between machines.
//!
//! # Invariants
//!
//! - A round in which an answer is missing, wrong or not to be believed fails its scenario, and is never averaged away.
//! - The raw echo carries messages of the size that Muster really sent, recorded in the same run.
//! - The same results always give the same page and pictures.
#![expect(clippy::print_stderr, reason = "the program behind it tells on the terminal what it does")]

pub mod charts;
pub mod controller;
pub mod machine;
pub mod once;
pub mod order;
pub mod page;
pub mod process;
pub mod results;
pub mod run;
pub mod stage;
pub mod statistics;
pub mod table;
pub mod targets;
