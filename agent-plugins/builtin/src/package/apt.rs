//! apt over dpkg: Debian, Ubuntu and their relatives.
//!
//! `apt-get` and never `apt`, whose words may change. Packages that nothing else needs are removed by dpkg
//! itself, which refuses where something does; apt would remove that as well.

pub(super) mod simulation;

use std::path::{Path, PathBuf};

use muster_plugin_api::ActionFailure;

use super::database::Database;
use super::diff::Change;
use super::dpkg::{self, Dpkg};
use super::entry::Snapshot;
use super::lock::LockFile;
use super::manager::{Manager, Phase, Planned, Step, Task, Update, lacking, not_understood};
use super::paths::PackagePaths;
use super::repositories::{Form, Source};
use super::wanted::Spec;
use crate::process::{Run, find_program};

/// Options of every call. The files of packages that an administrator has changed stay as they are; where the
/// administrator has not, the package's new file is taken.
const OPTIONS: &[&str] = &[
    "-q",
    "-y",
    "-oDPkg::Use-Pty=0",
    "-oDPkg::Options::=--force-confdef",
    "-oDPkg::Options::=--force-confold",
    // The lock is waited for before, and named; this is for somebody who comes in between.
    "-oDPkg::Lock::Timeout=10",
    "-oAcquire::Retries=2",
];

/// Nobody answers questions; what would ask takes its default. Restarting services is not part of installing:
/// `needrestart` lists only.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBIAN_PRIORITY", "critical"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("APT_LISTBUGS_FRONTEND", "none"),
    ("NEEDRESTART_MODE", "l"),
    ("UCF_FORCE_CONFFOLD", "1"),
];

/// apt over dpkg.
#[derive(Debug)]
pub(super) struct Apt {
    database: Dpkg,
    apt_get: Option<PathBuf>,
    apt_cache: Option<PathBuf>,
    dpkg: Option<PathBuf>,
    dpkg_options: Vec<String>,
    configuration: Option<PathBuf>,
    root: PathBuf,
}

impl Apt {
    /// apt over this database.
    pub(super) fn new(database: Dpkg, paths: &PackagePaths) -> Self {
        Self {
            database,
            apt_get: find_program("apt-get", &paths.programs),
            apt_cache: find_program("apt-cache", &paths.programs),
            dpkg: dpkg::program(&paths.programs),
            dpkg_options: paths.dpkg_options.clone(),
            configuration: paths.apt_configuration.clone(),
            root: paths.root.clone(),
        }
    }

    fn prepared(&self, phase: Phase, program: &Path) -> Step {
        let step =
            ENVIRONMENT.iter().fold(Step::new(phase, program), |step, (name, value)| step.variable(name, *value));
        match &self.configuration {
            Some(file) => step.variable("APT_CONFIG", file),
            None => step,
        }
    }

    fn apt_get(&self, phase: Phase) -> Result<Step, ActionFailure> {
        let program = self.apt_get.as_deref().ok_or_else(|| lacking("apt-get"))?;
        Ok(self.prepared(phase, program).arguments(OPTIONS.iter().copied()))
    }

    fn dpkg(&self, phase: Phase, names: &[String], purge: bool) -> Result<Step, ActionFailure> {
        let program = self.dpkg.as_deref().ok_or_else(|| lacking("dpkg"))?;
        let step = self.prepared(phase, program).arguments(self.dpkg_options.clone());
        let step = if phase == Phase::Fetch { step.arguments(["--no-act"]) } else { step };
        Ok(step.arguments([if purge { "--purge" } else { "--remove" }, "--"]).arguments(names.to_vec()))
    }

    /// The words of apt-get for a task.
    fn words(task: &Task) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let kept = |allow_removal: bool| if allow_removal { owned(&[]) } else { owned(&["--no-remove"]) };
        match task {
            Task::Refresh => owned(&["-oAPT::Update::Error-Mode=any", "update"]),
            Task::Install { specs, allow_removal } => {
                let pinned = specs.iter().any(|spec| spec.version.is_some());
                let older = if pinned { owned(&["--allow-downgrades"]) } else { Vec::new() };
                let specs = specs.iter().map(|spec| match &spec.version {
                    Some(version) => format!("{}={version}", spec.name),
                    None => spec.name.clone(),
                });
                [kept(*allow_removal), older, owned(&["install", "--"]), specs.collect()].concat()
            }
            Task::Update { names, allow_removal } => {
                [kept(*allow_removal), owned(&["--only-upgrade", "install", "--"]), names.clone()].concat()
            }
            Task::UpdateAll { allow_removal: true } => owned(&["dist-upgrade"]),
            Task::UpdateAll { allow_removal: false } => owned(&["--no-remove", "--with-new-pkgs", "upgrade"]),
            Task::Remove { names, purge, .. } => {
                [owned(&[if *purge { "purge" } else { "remove" }, "--"]), names.clone()].concat()
            }
        }
    }
}

impl Manager for Apt {
    fn installer(&self) -> &'static str {
        "apt"
    }

    fn database(&self) -> &dyn Database {
        &self.database
    }

    fn locks(&self) -> Vec<LockFile> {
        let database = &self.database.directory;
        vec![
            LockFile::record(database.join("lock-frontend")),
            LockFile::record(database.join("lock")),
            LockFile::record(self.root.join("var/lib/apt/lists/lock")),
            LockFile::record(self.root.join("var/cache/apt/archives/lock")),
        ]
    }

    /// Every failure of apt-get is 100, so this is read from its words; it only decides whether to try again.
    fn was_locked(&self, run: &Run, _exit_code: i32) -> bool {
        let said = run.stderr.text();
        [
            "Could not get lock",
            "Unable to lock",
            "Unable to acquire",
            "frontend lock was locked",
            "status database is locked",
        ]
        .iter()
        .any(|words| said.contains(words))
    }

    fn known(&self, specs: &[Spec]) -> Option<Step> {
        let step = self.prepared(Phase::Fetch, self.apt_cache.as_deref()?);
        let names = specs.iter().map(|spec| spec.name.clone());
        // 100 where some name is not known, which is what the output is read for.
        Some(step.arguments(["-q", "show", "--no-all-versions", "--"]).arguments(names).successes(&[0, 100]))
    }

    fn unknown_names(&self, specs: &[Spec], output: &str) -> Vec<String> {
        let known = simulation::shown(output);
        let is_known = |name: &str| {
            let (name, arch) = name.split_once(':').map_or((name, None), |(name, arch)| (name, Some(arch)));
            known.iter().any(|(package, of)| package == name && arch.is_none_or(|arch| arch == of || of == "all"))
        };
        specs.iter().map(|spec| &spec.name).filter(|name| !is_known(name)).cloned().collect()
    }

    fn steps(&self, task: &Task) -> Result<Vec<Step>, ActionFailure> {
        let words = Self::words(task);
        match task {
            Task::Refresh => Ok(vec![self.apt_get(Phase::Fetch)?.arguments(words)]),
            // Tried first: a removal that dpkg refuses leaves its wish to remove in the database.
            Task::Remove { names, purge, dependents: false } => {
                Ok(vec![self.dpkg(Phase::Fetch, names, *purge)?, self.dpkg(Phase::Apply, names, *purge)?])
            }
            Task::Remove { .. } => Ok(vec![self.apt_get(Phase::Apply)?.arguments(words)]),
            Task::Install { .. } | Task::Update { .. } | Task::UpdateAll { .. } => Ok(vec![
                self.apt_get(Phase::Fetch)?.arguments(["--download-only"]).arguments(words.clone()),
                self.apt_get(Phase::Apply)?.arguments(words),
            ]),
        }
    }

    fn simulation(&self, task: &Task) -> Result<Step, ActionFailure> {
        match task {
            Task::Remove { names, purge, dependents: false } => self.dpkg(Phase::Fetch, names, *purge),
            _ => Ok(self.apt_get(Phase::Fetch)?.arguments(["--simulate"]).arguments(Self::words(task))),
        }
    }

    fn planned(&self, task: &Task, run: &Run, before: &Snapshot) -> Result<Vec<Planned>, ActionFailure> {
        match task {
            Task::Remove { names, purge, dependents: false } => {
                let change = if *purge { Change::Purged } else { Change::Removed };
                let meant = before.find(|entry| names.iter().any(|name| dpkg::is_named(entry, name)));
                Ok(meant
                    .map(|entry| Planned {
                        name: entry.name.clone(),
                        arch: Some(entry.arch.clone()),
                        change,
                        from: Some(entry.full.clone()),
                        to: None,
                    })
                    .collect())
            }
            _ => simulation::planned(&run.stdout.text()).map_err(|line| not_understood("apt-get", &line)),
        }
    }

    fn update_query(&self) -> Result<Step, ActionFailure> {
        Ok(self.apt_get(Phase::Fetch)?.arguments(["--simulate", "dist-upgrade"]))
    }

    fn updates(&self, output: &str, _before: &Snapshot) -> Result<Vec<Update>, ActionFailure> {
        simulation::updates(output).map_err(|line| not_understood("apt-get", &line))
    }

    fn sources(&self) -> Vec<Source> {
        let directory = self.root.join("etc/apt");
        vec![
            Source::file(directory.join("sources.list"), Form::AptLines),
            Source::directory(directory.join("sources.list.d"), "list", Form::AptLines),
            Source::directory(directory.join("sources.list.d"), "sources", Form::AptStanzas),
        ]
    }
}
