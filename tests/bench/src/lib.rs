//! x
pub mod charts;
pub mod results;
pub mod statistics;
pub mod targets;
pub mod page;
pub mod table;
pub mod process;
pub mod controller;
pub mod order;
pub mod machine;
pub mod once;
