//! Doors for the fuzzer: everything here that reads what other programs write, by name.
//!
//! Nothing else uses it. A reader panics where a law of its own is broken, and is otherwise silent: whether it took
//! the input is the unit tests' business.

pub use crate::external::fuzzing::answer as external_answer;
pub use crate::package::fuzzing::{READERS as PACKAGE_READERS, VERSION_ORDERS, VersionOrder, diff};
pub use crate::process::fuzzing::read as process_table;
pub use crate::puppet::fuzzing::READERS as PUPPET_READERS;
pub use crate::service::fuzzing::{READERS as SERVICE_READERS, bus_message};

/// A reader by its name.
pub type Reader = (&'static str, fn(&str));
