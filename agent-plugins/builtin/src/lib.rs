//! The built-in plugins: `host`, `package`, `service` and `puppet`, and the runner for programs.
//!
//! # The data and how it flows
//!
//! [`builtin`] gives an agent all of them. Each reads the state of one subsystem, through a program
//! ([`process`]) or from files, and turns it into the output that its description in
//! `muster-plugin-api` names. What a program prints or a file says is parsed by pure functions;
//! the modules around them only run and read.
//!
//! # Non-goals
//!
//! Nothing here changes the host: all actions are read-only. No shell is ever involved.
//!
//! # Invariants
//!
//! - Programs and directories are fields of the plugin, so that tests put their own in place.
//! - A question that was answered is a success, also where the answer is "not there"; a failure
//!   means that there is no answer.

pub mod external;
mod host;
mod package;
pub mod process;
mod puppet;
mod reply;
mod service;

use std::sync::Arc;

use muster_plugin_api::Plugin;

pub use host::Host;
pub use package::{Package, PackagePaths};
pub use puppet::{Puppet, PuppetPaths};
pub use service::{Service, ServicePaths};

/// All built-in plugins, with the paths of a real host.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Plugin>> {
    vec![
        Arc::new(Host::new()),
        Arc::new(Package::new(PackagePaths::default())),
        Arc::new(Puppet::new(PuppetPaths::default())),
        Arc::new(Service::new(ServicePaths::default())),
    ]
}
