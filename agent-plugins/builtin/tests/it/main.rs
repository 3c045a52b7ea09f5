//! The built-in plugins against real programs, throw-away databases and recorded output.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod book;
mod docs;
mod external;
mod file;
mod host;
mod package;
mod plugin_manager;
mod process;
mod puppet;
mod registry;
mod script;
mod service;
mod shell;
mod support;
