//! The plugin contract: what an agent gives a plugin, what it gets back, and how both are checked.
//!
//! # The data and how it flows
//!
//! An agent builds one [`Registry`] at start; each plugin is asked once whether it can work here
//! ([`Plugin::activate`]). For a verified and authorized command the agent looks the action up
//! ([`Registry::action`]), validates the arguments against its description, and calls
//! [`Plugin::run`] with an [`ActionRequest`] and an [`ActionContext`]. The plugin may send output
//! through the [`OutputSink`] while it runs, and ends with an [`ActionReply`]: data first, a
//! message for people second. Target expressions may ask a plugin a question, as in
//! `package("openssl")`: [`Registry::data`].
//!
//! The descriptions of the built-in plugins live here as files ([`builtin_ddls`]), so that the
//! command line knows them without carrying the plugins' code.
//!
//! # Non-goals
//!
//! No plugin, no process runner, no policy: whether a caller may run an action was decided before.
//!
//! # Invariants
//!
//! - A plugin never sees arguments that its description does not accept.
//! - An option that an action does not support is refused ([`check_options`]), never ignored.
//! - Output is bounded: a sink that nobody drains makes the plugin wait, not the memory grow.

mod action;
mod builtin;
pub mod conformance;
mod host;
mod output;
mod plugin;
mod reference;
mod registry;
mod store;

pub use action::{ActionFailure, ActionOk, ActionReply, ActionRequest, MASK, check_options};
pub use builtin::builtin_ddls;
pub use host::{AgentStatus, HostView, RevocationList};
pub use output::{OutputPiece, OutputReceiver, OutputSink};
pub use plugin::{ActionContext, BoxFuture, NotActivated, Plugin, Profile};
pub use reference::reference;
pub use registry::{DataError, Registered, Registry, RegistryError, Unavailable};
pub use store::{InstallReport, PluginRecord, PluginStore, RemoveReport};
/// The token with which an agent asks an action to stop.
pub use tokio_util::sync::CancellationToken;
