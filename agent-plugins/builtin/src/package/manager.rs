//! What a package manager is: one trait for all of them, and which of them owns the host.
//!
//! A manager is described as data: which programs with which arguments do a [`Task`], which files lock it,
//! what its output says. Waiting, running, comparing and answering are the same for all and live in
//! [`transaction`](super::transaction).

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_plugin_api::{ActionFailure, NotActivated};
use muster_protocol::code;
use serde::Serialize;

use super::apk::Apk;
use super::apt::Apt;
use super::database::Database;
use super::diff::Change;
use super::dnf::{Dnf, Flavour};
use super::dpkg::Dpkg;
use super::entry::Snapshot;
use super::lock::LockFile;
use super::paths::PackagePaths;
use super::repositories::Source;
use super::rpm::Rpm;
use super::wanted::Spec;
use super::zypper::Zypper;
use crate::process::{Program, Run, find_program};

/// One thing to do. What needs nothing done is sorted out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Fetch what the repositories have.
    Refresh,
    /// Install packages that are not there, or bring them to an exact version.
    Install { specs: Vec<Spec>, allow_removal: bool },
    /// Bring installed packages to the newest version.
    Update { names: Vec<String>, allow_removal: bool },
    /// Bring everything to the newest version.
    UpdateAll { allow_removal: bool },
    /// Remove installed packages; with `dependents` also those that need them, otherwise fail then.
    Remove { names: Vec<String>, purge: bool, dependents: bool },
}

/// What a step does to the host, and so whether it may be torn off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It fetches or reads; it can be stopped at any time.
    Fetch,
    /// It changes packages; it is left to finish.
    Apply,
}

/// One run of a program.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) phase: Phase,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Exit codes that mean success.
    pub(super) successes: &'static [i32],
}

/// Exit codes of most programs that mean success.
pub(super) const ZERO: &[i32] = &[0];

impl Step {
    /// A step of one program; arguments are added in their order.
    pub(super) fn new(phase: Phase, program: &Path) -> Self {
        Self { phase, program: program.to_owned(), arguments: Vec::new(), environment: Vec::new(), successes: ZERO }
    }

    pub(super) fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(super) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Sets which exit codes mean success.
    pub(super) fn successes(self, successes: &'static [i32]) -> Self {
        Self { successes, ..self }
    }

    /// The program to run, with a time limit.
    pub(super) fn program(&self, limit: Duration) -> Program {
        let program = Program::new(&self.program, limit).arguments(&self.arguments);
        self.environment.iter().fold(program, |program, (name, value)| program.variable(name, value))
    }
}

/// What a transaction would do to one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) arch: Option<String>,
    pub(super) change: Change,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

/// A newer version that the repositories have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Update {
    pub(super) name: String,
    pub(super) arch: Option<String>,
    pub(super) installed: Option<String>,
    pub(super) available: String,
    pub(super) repository: Option<String>,
}

/// A package manager over a [`Database`].
pub(super) trait Manager: Send + Sync + fmt::Debug {
    /// The program that resolves and fetches: `apt`, `dnf`, `yum`, `zypper` or `apk`.
    fn installer(&self) -> &'static str;

    /// The database of what is installed.
    fn database(&self) -> &dyn Database;

    /// Its lock files.
    fn locks(&self) -> Vec<LockFile>;

    /// Whether a run failed because somebody else was at work.
    fn was_locked(&self, run: &Run, exit_code: i32) -> bool;

    /// The step that asks which of these names the repositories have, where the manager would take a name that
    /// they do not have for something else.
    fn known(&self, _specs: &[Spec]) -> Option<Step> {
        None
    }

    /// The names that are not known, from the output of [`Manager::known`].
    fn unknown_names(&self, _specs: &[Spec], _output: &str) -> Vec<String> {
        Vec::new()
    }

    /// How a task is done, step by step.
    fn steps(&self, task: &Task) -> Result<Vec<Step>, ActionFailure>;

    /// How a task is tried without effect.
    fn simulation(&self, task: &Task) -> Result<Step, ActionFailure>;

    /// What the simulation says.
    fn planned(&self, task: &Task, run: &Run, before: &Snapshot) -> Result<Vec<Planned>, ActionFailure>;

    /// How it is asked for updates.
    fn update_query(&self) -> Result<Step, ActionFailure>;

    /// What it says about updates.
    fn updates(&self, output: &str, before: &Snapshot) -> Result<Vec<Update>, ActionFailure>;

    /// The files in which its repositories stand.
    fn sources(&self) -> Vec<Source>;
}

/// The package manager that owns the host. Several may be installed; the host belongs to the one whose
/// database has something in it. Looked up anew each time, since that is as cheap as remembering it and
/// never wrong.
pub(super) fn detect(paths: &PackagePaths) -> Result<Box<dyn Manager>, NotActivated> {
    let find = |name: &str| find_program(name, &paths.programs);
    let filled = paths.dpkg_database.join("status").metadata().is_ok_and(|meta| meta.len() > 0);
    if let Some(query) = find("dpkg-query").filter(|_| filled) {
        let dpkg = Dpkg::new(query, paths.dpkg_database.clone());
        return Ok(Box::new(Apt::new(dpkg, paths)));
    }
    let holds_files = |path: &&PathBuf| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if let (Some(rpm), Some(database)) = (find("rpm"), paths.rpm_databases.iter().find(holds_files)) {
        let rpm = Rpm::new(rpm, database.clone(), paths);
        let has_zypp = paths.root.join("etc/zypp/repos.d").is_dir();
        if let Some(zypper) = find("zypper").filter(|_| has_zypp) {
            return Ok(Box::new(Zypper::new(rpm, zypper, paths)));
        }
        let dnf = find("dnf").map(|dnf| (Flavour::Dnf, dnf));
        let front_end = dnf.or_else(|| find("yum").map(|yum| (Flavour::Yum, yum)));
        return Ok(Box::new(Dnf::new(rpm, front_end, paths)));
    }
    let is_apk = |path: &&PathBuf| path.join("installed").metadata().is_ok_and(|meta| meta.len() > 0);
    if let (Some(apk), Some(database)) = (find("apk"), paths.apk_databases.iter().find(is_apk)) {
        return Ok(Box::new(Apk::new(apk, database.clone(), paths)));
    }
    Err(NotActivated::new("there is neither dpkg nor rpm nor apk with a package database"))
}

/// The failure of an action whose program this host does not have.
pub(super) fn lacking(program: &str) -> ActionFailure {
    ActionFailure::new(&code::NOT_ACTIVATED, format!("there is no `{program}` on this host"))
}

/// The failure of output that is not understood.
pub(super) fn not_understood(program: &str, line: &str) -> ActionFailure {
    let line: String = line.chars().take(200).collect();
    ActionFailure::failed(format!("`{program}` wrote a line that is not understood: `{}`", line.escape_debug()))
}
