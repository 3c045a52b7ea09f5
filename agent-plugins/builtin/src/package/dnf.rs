//! dnf, and yum before it, over rpm: Red Hat and its relatives.
//!
//! Packages that nothing else needs are removed by rpm itself, which refuses where something does; dnf would
//! remove that as well.

pub(super) mod table;

use std::path::PathBuf;

use muster_plugin_api::ActionFailure;

use super::database::Database;
use super::diff::Change;
use super::entry::{Entry, Snapshot};
use super::lock::LockFile;
use super::manager::{Manager, Phase, Planned, Step, Task, Update, lacking, not_understood};
use super::paths::PackagePaths;
use super::repositories::{Form, Source};
use super::rpm::{self, Rpm};
use super::wanted::Spec;
use crate::process::Run;

/// Exit code of dnf and yum where another one is at work and they were told not to wait.
const LOCKED: i32 = 200;

/// One line for each update, tabs between the fields.
const UPDATE_FORMAT: &str = "--queryformat=%{name}\\t%{epoch}\\t%{version}\\t%{release}\\t%{arch}\\t%{repoid}\\t.\\n";

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// dnf 4, and what calls itself so.
    Dnf,
    /// yum 3, where there is no dnf.
    Yum,
}

/// dnf or yum over rpm; rpm alone where there is neither.
#[derive(Debug)]
pub(super) struct Dnf {
    database: Rpm,
    front_end: Option<(Flavour, PathBuf)>,
    options: Vec<String>,
    root: PathBuf,
}

/// Architectures that a name may end with, after a dot. A version goes before them.
const ARCHITECTURES: &[&str] =
    &["noarch", "x86_64", "i386", "i586", "i686", "aarch64", "armv7hl", "ppc64le", "s390x", "riscv64"];

/// A package and its version in one word: `NAME-VERSION[.ARCHITECTURE]`.
fn pinned(spec: &Spec) -> String {
    let Some(version) = &spec.version else { return spec.name.clone() };
    match spec.name.rsplit_once('.').filter(|(_, arch)| ARCHITECTURES.contains(arch)) {
        Some((name, arch)) => format!("{name}-{version}.{arch}"),
        None => format!("{}-{version}", spec.name),
    }
}

impl Dnf {
    /// The front end that was found, over this database.
    pub(super) fn new(database: Rpm, front_end: Option<(Flavour, PathBuf)>, paths: &PackagePaths) -> Self {
        Self { database, front_end, options: paths.dnf_options.clone(), root: paths.root.clone() }
    }

    fn program(&self, phase: Phase) -> Result<(Flavour, Step), ActionFailure> {
        let (flavour, program) = self.front_end.as_ref().ok_or_else(|| lacking("dnf` and no `yum"))?;
        let step = Step::new(phase, program)
            .arguments(["-y", "--setopt=exit_on_lock=True", "--setopt=clean_requirements_on_remove=False"])
            .arguments(self.options.clone());
        Ok((*flavour, step))
    }

    fn words(task: &Task) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let erasing = |allow_removal: bool| if allow_removal { owned(&["--allowerasing"]) } else { Vec::new() };
        match task {
            Task::Refresh => Vec::new(),
            Task::Install { specs, allow_removal } => {
                [owned(&["install"]), erasing(*allow_removal), owned(&["--"]), specs.iter().map(pinned).collect()]
                    .concat()
            }
            Task::Update { names, allow_removal } => {
                [owned(&["upgrade"]), erasing(*allow_removal), owned(&["--"]), names.clone()].concat()
            }
            Task::UpdateAll { allow_removal } => [owned(&["upgrade"]), erasing(*allow_removal)].concat(),
            Task::Remove { names, .. } => [owned(&["remove", "--"]), names.clone()].concat(),
        }
    }
}

impl Manager for Dnf {
    fn installer(&self) -> &'static str {
        match self.front_end {
            Some((Flavour::Yum, _)) => "yum",
            Some((Flavour::Dnf, _)) => "dnf",
            None => "rpm",
        }
    }

    fn database(&self) -> &dyn Database {
        &self.database
    }

    fn locks(&self) -> Vec<LockFile> {
        vec![self.database.lock()]
    }

    fn was_locked(&self, run: &Run, exit_code: i32) -> bool {
        exit_code == LOCKED || run.stderr.text().contains("can't create transaction lock")
    }

    fn steps(&self, task: &Task) -> Result<Vec<Step>, ActionFailure> {
        let words = Self::words(task);
        match task {
            Task::Refresh => match self.program(Phase::Fetch)? {
                // A repository that cannot be reached is a failure, whatever its file says about skipping.
                (Flavour::Dnf, step) => {
                    Ok(vec![step.arguments(["--refresh", "--setopt=*.skip_if_unavailable=False", "makecache"])])
                }
                (Flavour::Yum, step) => Ok(vec![
                    step.clone().arguments(["clean", "expire-cache"]),
                    step.arguments(["--setopt=*.skip_if_unavailable=False", "makecache"]),
                ]),
            },
            Task::Remove { names, dependents: false, .. } => Ok(vec![self.database.erase(names, false)]),
            Task::Remove { .. } => Ok(vec![self.program(Phase::Apply)?.1.arguments(words)]),
            Task::Install { .. } | Task::Update { .. } | Task::UpdateAll { .. } => Ok(vec![
                self.program(Phase::Fetch)?.1.arguments(["--downloadonly"]).arguments(words.clone()),
                self.program(Phase::Apply)?.1.arguments(words),
            ]),
        }
    }

    fn simulation(&self, task: &Task) -> Result<Step, ActionFailure> {
        match task {
            Task::Remove { names, dependents: false, .. } => Ok(self.database.erase(names, true)),
            // 1 is also the end of a transaction to which nobody said yes.
            _ => {
                let step = self.program(Phase::Fetch)?.1;
                Ok(step.arguments(["--assumeno"]).arguments(Self::words(task)).successes(&[0, 1]))
            }
        }
    }

    fn planned(&self, task: &Task, run: &Run, before: &Snapshot) -> Result<Vec<Planned>, ActionFailure> {
        match task {
            Task::Remove { names, dependents: false, .. } => Ok(removed(names, before)),
            _ => {
                let output = run.stdout.text();
                let exited = matches!(run.end, crate::process::End::Exited(0));
                if !exited && !output.contains(table::END) {
                    let said = run.stderr.first_line().unwrap_or_else(|| "it said nothing".to_owned());
                    return Err(ActionFailure::failed(format!("`{}` would not do it: {said}", self.installer())));
                }
                table::planned(&output, before).map_err(|line| not_understood(self.installer(), &line))
            }
        }
    }

    fn update_query(&self) -> Result<Step, ActionFailure> {
        match self.program(Phase::Fetch)? {
            (Flavour::Dnf, step) => Ok(step.arguments(["-q", "repoquery", "--upgrades", UPDATE_FORMAT])),
            // 100 says that there are updates.
            (Flavour::Yum, step) => Ok(step.arguments(["-q", "check-update"]).successes(&[0, 100])),
        }
    }

    fn updates(&self, output: &str, before: &Snapshot) -> Result<Vec<Update>, ActionFailure> {
        let updates = match self.front_end {
            Some((Flavour::Yum, _)) => table::check_update(output, before),
            _ => table::repoquery(output, before),
        };
        updates.map_err(|line| not_understood(self.installer(), &line))
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::directory(self.root.join("etc/yum.repos.d"), "repo", Form::Ini)]
    }
}

/// What rpm removes by itself: what is named, and nothing else.
pub(super) fn removed(names: &[String], before: &Snapshot) -> Vec<Planned> {
    let meant = before.find(|entry| names.iter().any(|name| rpm::is_named(entry, name)));
    let planned = |entry: &Entry| Planned {
        name: entry.name.clone(),
        arch: Some(entry.arch.clone()),
        change: Change::Removed,
        from: Some(entry.full.clone()),
        to: None,
    };
    meant.map(planned).collect()
}
