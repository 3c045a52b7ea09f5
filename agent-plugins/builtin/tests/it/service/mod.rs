//! `service`: a systemd that runs in namespaces of its own, OpenRC and init scripts that really start daemons.

mod machine;
mod names;
mod openrc;
mod systemd;
mod systemd_failures;
mod systemd_offline;
mod sysv;
mod sysv_links;

use std::path::Path;

use muster_plugin_api::{ActionReply, Plugin};
use muster_plugins::ServicePaths;
use serde_json::Value;

use crate::support::run_with;

/// Paths that all lead into a directory, where nothing is.
fn nowhere(root: &Path) -> ServicePaths {
    ServicePaths {
        programs: vec![root.join("bin")],
        systemd_runtime: root.join("systemd"),
        system_bus: root.join("bus"),
        openrc_runtime: root.join("openrc"),
        openrc_runlevels: root.join("runlevels"),
        init_scripts: root.join("init.d"),
        runlevels: root.to_owned(),
        pid_files: root.join("run"),
        processes: Path::new("/proc").to_owned(),
    }
}

/// The texts of the log of an answer.
fn log(data: &Value) -> String {
    let lines = data["log"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// Asks what an action would do.
async fn run_noop(plugin: &dyn Plugin, action: &str, arguments: Value) -> ActionReply {
    run_with(plugin, action, arguments, |request| request.noop = true).await
}
