//! x
pub mod charts;
pub mod results;
pub mod statistics;
pub mod targets;
pub mod page;
pub mod table;
pub mod process;
