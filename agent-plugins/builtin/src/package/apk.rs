//! apk: Alpine and its relatives. Its database is one text file, which is read as it stands.
//!
//! `apk add NAME=VERSION` also notes the version in apk's list of wishes, so the package stays there until
//! somebody asks for another.

pub(super) mod installed;

use std::path::{Path, PathBuf};

use muster_plugin_api::{ActionFailure, BoxFuture};

use super::database::{Asking, Database};
use super::diff::Change;
use super::entry::{Entry, Order, Snapshot};
use super::lock::{LockFile, LockKind};
use super::manager::{Manager, Phase, Planned, Step, Task, Update, not_understood};
use super::paths::PackagePaths;
use super::repositories::{Form, Source};
use super::version;
use crate::process::Run;

/// apk and its database.
#[derive(Debug)]
pub(super) struct Apk {
    program: PathBuf,
    directory: PathBuf,
    options: Vec<String>,
    root: PathBuf,
}

impl Apk {
    /// apk over the database in a directory.
    pub(super) fn new(program: PathBuf, database: PathBuf, paths: &PackagePaths) -> Self {
        Self { program, directory: database, options: paths.apk_options.clone(), root: paths.root.clone() }
    }

    fn apk(&self, phase: Phase) -> Step {
        Step::new(phase, &self.program).arguments(["--no-progress", "--wait", "10"]).arguments(self.options.clone())
    }

    fn words(task: &Task) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match task {
            Task::Refresh => owned(&["update"]),
            Task::Install { specs, .. } => {
                let specs = specs.iter().map(|spec| match &spec.version {
                    Some(version) => format!("{}={version}", spec.name),
                    None => spec.name.clone(),
                });
                [owned(&["add", "--"]), specs.collect()].concat()
            }
            Task::Update { names, .. } => [owned(&["add", "--upgrade", "--"]), names.clone()].concat(),
            Task::UpdateAll { .. } => owned(&["upgrade"]),
            Task::Remove { names, purge, dependents } => {
                let purge = if *purge { owned(&["--purge"]) } else { Vec::new() };
                let dependents = if *dependents { owned(&["--rdepends"]) } else { Vec::new() };
                [owned(&["del"]), purge, dependents, owned(&["--"]), names.clone()].concat()
            }
        }
    }

    /// The database, and what is wrong with it.
    fn read(&self) -> Result<Vec<installed::Package>, ActionFailure> {
        let path = self.directory.join("installed");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ActionFailure::failed(format!("`{}` cannot be read: {error}", path.display())))?;
        installed::parse(&text).map_err(|line| not_understood("apk", &line))
    }
}

impl Database for Apk {
    fn provider(&self) -> &'static str {
        "apk"
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn entries<'a>(
        &'a self,
        name: Option<&'a str>,
        _asking: Asking<'a>,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ActionFailure>> {
        let entries = self.read().map(|packages| {
            let entries = packages.into_iter().map(|package| package.entry);
            entries.filter(|entry| name.is_none_or(|name| entry.name == name)).collect()
        });
        Box::pin(std::future::ready(entries))
    }

    fn providers<'a>(
        &'a self,
        name: &'a str,
        _asking: Asking<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>, ActionFailure>> {
        let providers = self.read().map(|packages| {
            let provide = packages.into_iter().filter(|package| package.provides.iter().any(|word| word == name));
            provide.map(|package| package.entry.name).collect()
        });
        Box::pin(std::future::ready(providers))
    }

    fn is_named(&self, entry: &Entry, name: &str) -> bool {
        entry.name == name
    }

    fn full_name(&self, entry: &Entry) -> String {
        entry.name.clone()
    }

    fn order(&self) -> Order {
        version::apk
    }
}

impl Manager for Apk {
    fn installer(&self) -> &'static str {
        "apk"
    }

    fn database(&self) -> &dyn Database {
        self
    }

    fn locks(&self) -> Vec<LockFile> {
        vec![LockFile { path: self.directory.join("lock"), kind: LockKind::Whole }]
    }

    /// apk's exit codes do not tell; this only decides whether to try again.
    fn was_locked(&self, run: &Run, _exit_code: i32) -> bool {
        run.stderr.text().contains("Unable to lock database")
    }

    fn steps(&self, task: &Task) -> Result<Vec<Step>, ActionFailure> {
        let phase = if *task == Task::Refresh { Phase::Fetch } else { Phase::Apply };
        Ok(vec![self.apk(phase).arguments(Self::words(task))])
    }

    fn simulation(&self, task: &Task) -> Result<Step, ActionFailure> {
        Ok(self.apk(Phase::Fetch).arguments(["--simulate"]).arguments(Self::words(task)))
    }

    fn planned(&self, _task: &Task, run: &Run, _before: &Snapshot) -> Result<Vec<Planned>, ActionFailure> {
        planned(&run.stdout.text()).map_err(|line| not_understood("apk", &line))
    }

    fn update_query(&self) -> Result<Step, ActionFailure> {
        Ok(self.apk(Phase::Fetch).arguments(["--simulate", "upgrade"]))
    }

    fn updates(&self, output: &str, before: &Snapshot) -> Result<Vec<Update>, ActionFailure> {
        let planned = planned(output).map_err(|line| not_understood("apk", &line))?;
        let newer = planned.into_iter().filter(|one| one.change == Change::Updated);
        Ok(newer
            .map(|one| Update {
                arch: before.0.iter().find(|entry| entry.name == one.name).map(|entry| entry.arch.clone()),
                name: one.name,
                installed: one.from,
                available: one.to.unwrap_or_default(),
                repository: None,
            })
            .collect())
    }

    fn sources(&self) -> Vec<Source> {
        let directory = self.root.join("etc/apk");
        vec![
            Source::file(directory.join("repositories"), Form::ApkLines),
            Source::directory(directory.join("repositories.d"), "list", Form::ApkLines),
        ]
    }
}

/// The lines of a simulation: `(1/2) Upgrading foo (1.0-r0 -> 1.1-r0)`. The line that is not understood otherwise.
pub(super) fn planned(output: &str) -> Result<Vec<Planned>, String> {
    let mut planned = Vec::new();
    for line in output.lines() {
        let Some(("", rest)) = line.split_once('(') else { continue };
        let Some((count, rest)) = rest.split_once(") ") else { continue };
        if !count.contains('/') {
            continue;
        }
        let understood = (|| {
            let (verb, rest) = rest.split_once(' ')?;
            let change = match verb {
                "Installing" => Change::Installed,
                "Upgrading" => Change::Updated,
                "Downgrading" => Change::Downgraded,
                "Purging" => Change::Removed,
                "Reinstalling" | "Replacing" => Change::Reinstalled,
                _ => return None,
            };
            let (name, versions) = rest.split_once(" (")?;
            let versions = versions.strip_suffix(')')?;
            let (from, to) = match (versions.split_once(" -> "), change) {
                (Some((from, to)), _) => (Some(from), Some(to)),
                (None, Change::Installed) => (None, Some(versions)),
                (None, Change::Removed) => (Some(versions), None),
                (None, _) => (Some(versions), Some(versions)),
            };
            // A repository's tag may follow the name.
            let name = name.split('@').next()?.to_owned();
            Some(Planned { name, arch: None, change, from: from.map(str::to_owned), to: to.map(str::to_owned) })
        })();
        planned.push(understood.ok_or_else(|| line.to_owned())?);
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_simulation() {
        let output = "fetch https://mirror.example.com/x86_64/APKINDEX.tar.gz\n\
                      (1/4) Installing libfoo (1.0-r0)\n(2/4) Upgrading foo (1.0-r0 -> 1.1-r0)\n\
                      (3/4) Purging old (3-r1)\n(4/4) Downgrading bar (2-r0 -> 1-r0)\nOK: 12 MiB in 20 packages\n";
        let planned = planned(output).unwrap();
        let seen: Vec<_> = planned
            .iter()
            .map(|one| (one.name.as_str(), one.change.as_str(), one.from.as_deref(), one.to.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("libfoo", "installed", None, Some("1.0-r0")),
                ("foo", "updated", Some("1.0-r0"), Some("1.1-r0")),
                ("old", "removed", Some("3-r1"), None),
                ("bar", "downgraded", Some("2-r0"), Some("1-r0")),
            ]
        );
    }

    #[test]
    fn a_line_of_another_form_is_an_error() {
        for bad in ["(1/1) Teleporting foo (1-r0)", "(1/1) Installing foo", "(1/1) Installing"] {
            assert_eq!(planned(bad), Err(bad.to_owned()));
        }
    }
}
