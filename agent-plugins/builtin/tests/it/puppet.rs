//! `puppet`: with files as Puppet leaves them, with a stand-in for the program, and with Debian's Puppet.

mod environment;
mod real;
mod recorded;
mod runs;
mod states;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use muster_plugins::{Puppet, PuppetInstallation, PuppetPaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{run, script};

/// A host with two families of packages, of which neither may be installed.
struct Site {
    root: TempDir,
    plugin: Puppet,
}

impl Site {
    /// A host without Puppet, with the directories of both families of packages.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let installation = |name: &str, variable_directories: Vec<PathBuf>| PuppetInstallation {
            programs: vec![path(&format!("{name}/bin/puppet"))],
            configuration: path(&format!("{name}/puppet.conf")),
            variable_directories,
            public_directory: "$vardir/public".to_owned(),
            run_directory: path(&format!("{name}/run")),
        };
        let paths = PuppetPaths {
            installations: vec![
                installation("opt", vec![path("opt")]),
                installation("usr", vec![path("var/cache"), path("var/lib")]),
            ],
            processes: path("proc"),
            finish: Duration::ZERO,
        };
        for directory in ["opt/bin", "usr/bin", "usr/run", "var/lib/state", "var/lib/public", "proc"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        Self { plugin: Puppet::new(paths), root }
    }

    /// A host with the distribution's packages, with files in the second of their directories.
    fn installed() -> Self {
        let site = Self::new();
        script(&site.path("usr/bin/puppet"), "#!/bin/sh\nexit 99\n");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Puts a process into the table. It began at the boot, which was in 2001.
    fn process(&self, pid: u32, name: &str, command: &str) {
        fs::create_dir_all(self.path(&format!("proc/{pid}"))).unwrap();
        self.write("proc/stat", "cpu 1 2\nbtime 1000000000\n");
        self.write(&format!("proc/{pid}/cmdline"), command);
        let stat = format!("{pid} ({name}) S 1 {pid} {pid} 0 -1 4194560 1 0 0 0 9 9 0 0 20 0 1 0 100 12 13");
        self.write(&format!("proc/{pid}/stat"), &stat);
    }

    async fn told(&self, action: &str, arguments: Value) -> Value {
        run(&self.plugin, action, arguments).await.unwrap().data
    }

    async fn status(&self) -> Value {
        self.told("status", json!({})).await
    }
}
