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
//! Whether an action may run was decided before. No shell is involved but where one was asked for: in `shell`.
//!
//! # Invariants
//!
//! - Programs and directories are fields of the plugin, so that tests put their own in place.
//! - A question that was answered is a success, also where the answer is "not there"; a failure
//!   means that there is no answer.

mod digest;
mod execution;
pub mod external;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod package;
mod plugin_manager;
pub mod process;
mod puppet;
mod reply;
mod script;
mod service;
mod shell;
pub mod yaml;

use std::sync::Arc;

use muster_plugin_api::Plugin;

pub use file::{File, FileSettings};
pub use host::Host;
pub use package::{Package, PackagePaths};
pub use plugin_manager::PluginManager;
pub use puppet::{Puppet, PuppetInstallation, PuppetPaths};
pub use script::{Script, ScriptSettings};
pub use service::{Service, ServicePaths};
pub use shell::{Shell, ShellSettings};

/// What the host's administrator lets the built-in plugins do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// For `file`.
    pub file: FileSettings,
    /// For `script`.
    pub script: ScriptSettings,
    /// For `shell`.
    pub shell: ShellSettings,
}

/// All built-in plugins, with the paths of a real host.
#[must_use]
pub fn builtin(settings: &Settings) -> Vec<Arc<dyn Plugin>> {
    vec![
        Arc::new(File::new(settings.file.clone())),
        Arc::new(Host::new()),
        Arc::new(Package::new(PackagePaths::default())),
        Arc::new(PluginManager::new()),
        Arc::new(Puppet::new(PuppetPaths::default())),
        Arc::new(Script::new(settings.script.clone())),
        Arc::new(Service::new(ServicePaths::default())),
        Arc::new(Shell::new(settings.shell.clone())),
    ]
}
