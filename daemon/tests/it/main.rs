//! The behaviour of tasks and signals in a real runtime and a real process.

mod signals;
mod tasks;
