//! Whole commands of the real binary: what they print on which stream, and how they end.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod broker;
mod completion;
mod context;
mod explain;
mod identity;
mod plugin;
mod plugin_author;
mod request;
mod site;
mod usage;
