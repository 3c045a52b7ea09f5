//! Where Puppet is and keeps its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugin_api::ActionFailure;
use muster_protocol::code;

use super::configuration::Configuration;
use super::files;
use crate::process::is_executable;

/// Enough for a package to be unpacked and configured, in most cases.
const FINISH_DEFAULT: Duration = Duration::from_secs(30);

/// Where Puppet may be on a host.
#[derive(Debug, Clone)]
pub struct PuppetPaths {
    /// The ways in which it may have been installed; the first whose program is there counts.
    pub installations: Vec<PuppetInstallation>,
    /// The process table.
    pub processes: PathBuf,
    /// How long what Puppet runs at that moment, such as a package manager, may go on when a run is stopped.
    pub finish: Duration,
}

/// What one family of packages chose. Everything but the program can be changed in `puppet.conf`.
#[derive(Debug, Clone)]
pub struct PuppetInstallation {
    /// The programs; the first that is there is run.
    pub programs: Vec<PathBuf>,
    /// The file `puppet.conf`.
    pub configuration: PathBuf,
    /// The setting `vardir`; the first with a directory `state` counts, or else the first.
    pub variable_directories: Vec<PathBuf>,
    /// The setting `publicdir`, where Puppet 7 and later write the summary of a run. `$vardir` stands for the above.
    pub public_directory: String,
    /// The setting `rundir`.
    pub run_directory: PathBuf,
}

impl Default for PuppetPaths {
    fn default() -> Self {
        Self {
            installations: vec![
                // The packages of Puppet itself and of OpenVox, on every distribution.
                PuppetInstallation {
                    programs: vec!["/opt/puppetlabs/bin/puppet".into(), "/opt/puppetlabs/puppet/bin/puppet".into()],
                    configuration: "/etc/puppetlabs/puppet/puppet.conf".into(),
                    variable_directories: vec!["/opt/puppetlabs/puppet/cache".into()],
                    public_directory: "/opt/puppetlabs/puppet/public".to_owned(),
                    run_directory: "/run/puppetlabs".into(),
                },
                // The packages of distributions.
                PuppetInstallation {
                    programs: vec!["/usr/bin/puppet".into()],
                    configuration: "/etc/puppet/puppet.conf".into(),
                    variable_directories: vec!["/var/cache/puppet".into(), "/var/lib/puppet".into()],
                    public_directory: "$vardir/public".to_owned(),
                    run_directory: "/run/puppet".into(),
                },
            ],
            processes: "/proc".into(),
            finish: FINISH_DEFAULT,
        }
    }
}

/// One installed Puppet with the places of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    /// The program.
    pub(super) program: PathBuf,
    /// Holds the process number of the run that goes on.
    pub(super) run_lock: PathBuf,
    /// Is there while Puppet is disabled.
    pub(super) disabled_lock: PathBuf,
    /// Holds the process number of the daemon.
    pub(super) daemon_pid: PathBuf,
    /// Where the summary of the last run may be: since Puppet 7, and before.
    pub(super) summaries: Vec<PathBuf>,
    /// The report of the last run.
    pub(super) report: PathBuf,
    /// The resources of the last catalog.
    pub(super) resources: PathBuf,
}

impl PuppetPaths {
    /// The Puppet that is there, if one is.
    ///
    /// # Errors
    /// When its configuration cannot be read or does not make sense: the files of the defaults would be
    /// somebody else's then.
    pub(super) fn installed(&self) -> Result<Option<Installed>, ActionFailure> {
        for installation in &self.installations {
            if let Some(program) = installation.programs.iter().find(|program| is_executable(program)) {
                return installation.locate(program).map(Some);
            }
        }
        Ok(None)
    }

    /// The Puppet that is there, for an action that needs one.
    ///
    /// # Errors
    /// With the code `not-activated` if there is none; and as [`PuppetPaths::installed`].
    pub(super) fn required(&self) -> Result<Installed, ActionFailure> {
        self.installed()?.ok_or_else(|| {
            let places: Vec<_> = self.installations.iter().flat_map(|installation| &installation.programs).collect();
            let places: Vec<_> = places.into_iter().map(|path| format!("`{}`", path.display())).collect();
            ActionFailure::new(
                &code::NOT_ACTIVATED,
                format!("Puppet is not installed: there is no {}", places.join(" or ")),
            )
        })
    }
}

impl PuppetInstallation {
    fn locate(&self, program: &Path) -> Result<Installed, ActionFailure> {
        let text = files::text(&self.configuration)?.unwrap_or_default();
        let configuration = Configuration::parse(&text);
        let directories = &self.variable_directories;
        let used = directories.iter().find(|directory| directory.join("state").is_dir()).or(directories.first());
        let shown = |path: &Path| path.display().to_string();
        let defaults = BTreeMap::from([
            ("confdir", self.configuration.parent().map(shown).unwrap_or_default()),
            ("vardir", used.map(|path| shown(path)).unwrap_or_default()),
            ("publicdir", self.public_directory.clone()),
            ("rundir", shown(&self.run_directory)),
            ("run_mode", "agent".to_owned()),
            ("statedir", "$vardir/state".to_owned()),
            ("agent_catalog_run_lockfile", "$statedir/agent_catalog_run.lock".to_owned()),
            ("agent_disabled_lockfile", "$statedir/agent_disabled.lock".to_owned()),
            ("pidfile", "$rundir/${run_mode}.pid".to_owned()),
            ("lastrunfile", "$publicdir/last_run_summary.yaml".to_owned()),
            ("lastrunreport", "$statedir/last_run_report.yaml".to_owned()),
            ("resourcefile", "$statedir/resources.txt".to_owned()),
        ]);
        let place = |setting: &str| {
            let value = configuration.value(setting, &defaults);
            value.map(PathBuf::from).map_err(|why| {
                ActionFailure::failed(format!("`{}` says nothing useful: {why}", self.configuration.display()))
            })
        };
        Ok(Installed {
            program: program.to_owned(),
            run_lock: place("agent_catalog_run_lockfile")?,
            disabled_lock: place("agent_disabled_lockfile")?,
            daemon_pid: place("pidfile")?,
            summaries: vec![place("lastrunfile")?, place("statedir")?.join("last_run_summary.yaml")],
            report: place("lastrunreport")?,
            resources: place("resourcefile")?,
        })
    }
}
