//! The built-in plugins against real programs, throw-away databases and recorded output.

mod book;
mod host;
mod package;
mod process;
mod puppet;
mod registry;
mod service;
mod support;
