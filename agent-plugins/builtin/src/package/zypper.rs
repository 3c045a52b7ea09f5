//! zypper over rpm: SUSE and its relatives. Its answers are read in XML, never from text.
//!
//! Packages that nothing else needs are removed by rpm itself, which refuses where something does; zypper
//! would remove that as well.

use std::path::PathBuf;

use muster_plugin_api::ActionFailure;
use roxmltree::{Document, Node};

use super::database::Database;
use super::diff::Change;
use super::dnf::removed;
use super::entry::Snapshot;
use super::lock::LockFile;
use super::lock::LockKind;
use super::manager::{Manager, Phase, Planned, Step, Task, Update, not_understood};
use super::paths::PackagePaths;
use super::repositories::{Form, Source};
use super::rpm::Rpm;
use crate::process::Run;

/// Exit code where another one is at work (`ZYPPER_EXIT_ZYPP_LOCKED`).
const LOCKED: i32 = 7;

/// Done; done, and a reboot is needed; done, and zypper itself was updated.
const DONE: &[i32] = &[0, 102, 103];

/// zypper over rpm.
#[derive(Debug)]
pub(super) struct Zypper {
    database: Rpm,
    program: PathBuf,
    options: Vec<String>,
    root: PathBuf,
}

impl Zypper {
    /// zypper over this database.
    pub(super) fn new(database: Rpm, program: PathBuf, paths: &PackagePaths) -> Self {
        Self { database, program, options: paths.zypper_options.clone(), root: paths.root.clone() }
    }

    fn zypper(&self, phase: Phase) -> Step {
        let step = Step::new(phase, &self.program).arguments(self.options.clone());
        step.arguments(["--non-interactive"]).successes(DONE)
    }

    /// For what is read here; what people watch is left as text.
    fn in_xml(&self) -> Step {
        self.zypper(Phase::Fetch).arguments(["--xmlout"])
    }

    fn words(task: &Task, more: &[&str]) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let forced =
            |allow_removal: bool| owned(&[if allow_removal { "--force-resolution" } else { "--no-force-resolution" }]);
        match task {
            Task::Refresh => owned(&["refresh"]),
            Task::Install { specs, allow_removal } => {
                let pinned = specs.iter().any(|spec| spec.version.is_some());
                let older = if pinned { owned(&["--oldpackage"]) } else { Vec::new() };
                let specs = specs.iter().map(|spec| match &spec.version {
                    Some(version) => format!("{}={version}", spec.name),
                    None => spec.name.clone(),
                });
                let words = owned(&["install", "--name", "--type", "package"]);
                [words, owned(more), forced(*allow_removal), older, owned(&["--"]), specs.collect()].concat()
            }
            Task::Update { names, allow_removal } => {
                [owned(&["update"]), owned(more), forced(*allow_removal), owned(&["--"]), names.clone()].concat()
            }
            Task::UpdateAll { allow_removal } => [owned(&["update"]), owned(more), forced(*allow_removal)].concat(),
            Task::Remove { names, .. } => {
                [owned(&["remove", "--name", "--no-clean-deps"]), owned(more), owned(&["--"]), names.clone()].concat()
            }
        }
    }
}

impl Manager for Zypper {
    fn installer(&self) -> &'static str {
        "zypper"
    }

    fn database(&self) -> &dyn Database {
        &self.database
    }

    fn locks(&self) -> Vec<LockFile> {
        let number = LockFile { path: self.root.join("run/zypp.pid"), kind: LockKind::Number };
        vec![self.database.lock(), number]
    }

    fn was_locked(&self, _run: &Run, exit_code: i32) -> bool {
        exit_code == LOCKED
    }

    fn steps(&self, task: &Task) -> Result<Vec<Step>, ActionFailure> {
        Ok(match task {
            Task::Refresh => vec![self.zypper(Phase::Fetch).arguments(Self::words(task, &[])).successes(&[0])],
            Task::Remove { names, dependents: false, .. } => vec![self.database.erase(names, false)],
            Task::Remove { .. } => vec![self.zypper(Phase::Apply).arguments(Self::words(task, &[]))],
            Task::Install { .. } | Task::Update { .. } | Task::UpdateAll { .. } => vec![
                self.zypper(Phase::Fetch).arguments(Self::words(task, &["--download-only"])),
                self.zypper(Phase::Apply).arguments(Self::words(task, &[])),
            ],
        })
    }

    fn simulation(&self, task: &Task) -> Result<Step, ActionFailure> {
        Ok(match task {
            Task::Remove { names, dependents: false, .. } => self.database.erase(names, true),
            _ => self.in_xml().arguments(Self::words(task, &["--dry-run"])),
        })
    }

    fn planned(&self, task: &Task, run: &Run, before: &Snapshot) -> Result<Vec<Planned>, ActionFailure> {
        match task {
            Task::Remove { names, dependents: false, .. } => Ok(removed(names, before)),
            _ => planned(&run.stdout.text()),
        }
    }

    fn update_query(&self) -> Result<Step, ActionFailure> {
        Ok(self.in_xml().arguments(["list-updates", "--type", "package"]))
    }

    fn updates(&self, output: &str, _before: &Snapshot) -> Result<Vec<Update>, ActionFailure> {
        updates(output)
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::directory(self.root.join("etc/zypp/repos.d"), "repo", Form::Ini)]
    }
}

fn document(output: &str) -> Result<Document<'_>, ActionFailure> {
    Document::parse(output).map_err(|error| not_understood("zypper", &error.to_string()))
}

fn attribute(node: Node<'_, '_>, name: &str) -> Result<String, ActionFailure> {
    let value = node.attribute(name).map(str::to_owned);
    value.ok_or_else(|| not_understood("zypper", &format!("<{}> without {name}", node.tag_name().name())))
}

/// The packages of `<install-summary>`, each under the heading of what would become of it.
pub(super) fn planned(output: &str) -> Result<Vec<Planned>, ActionFailure> {
    let document = document(output)?;
    let mut planned = Vec::new();
    for node in document.descendants().filter(|node| node.has_tag_name("solvable")) {
        let heading = node.parent().map(|parent| parent.tag_name().name()).unwrap_or_default();
        let change = match heading {
            "to-install" => Change::Installed,
            "to-upgrade" | "to-upgrade-change-arch" => Change::Updated,
            "to-downgrade" | "to-downgrade-change-arch" => Change::Downgraded,
            "to-reinstall" | "to-change-arch" => Change::Reinstalled,
            "to-remove" => Change::Removed,
            // Patterns and patches are not packages; the other headings say what is not done.
            _ => continue,
        };
        if node.attribute("type").is_some_and(|kind| kind != "package") {
            continue;
        }
        let edition = attribute(node, "edition")?;
        let gone = change == Change::Removed;
        planned.push(Planned {
            name: attribute(node, "name")?,
            arch: node.attribute("arch").map(str::to_owned),
            change,
            from: if gone { Some(edition.clone()) } else { node.attribute("edition-old").map(str::to_owned) },
            to: (!gone).then_some(edition),
        });
    }
    Ok(planned)
}

/// The packages of `<update-list>`.
pub(super) fn updates(output: &str) -> Result<Vec<Update>, ActionFailure> {
    let document = document(output)?;
    let nodes = document.descendants().filter(|node| node.has_tag_name("update"));
    let packages = nodes.filter(|node| node.attribute("kind").is_none_or(|kind| kind == "package"));
    packages
        .map(|node| {
            let source = node.children().find(|child| child.has_tag_name("source"));
            Ok(Update {
                name: attribute(node, "name")?,
                arch: node.attribute("arch").map(str::to_owned),
                installed: node.attribute("edition-old").map(str::to_owned),
                available: attribute(node, "edition")?,
                repository: source.and_then(|source| source.attribute("alias")).map(str::to_owned),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary() {
        let output = r#"<?xml version='1.0'?><stream><message type="info">Loading...</message>
            <install-summary packages-to-change="3">
            <to-upgrade><solvable type="package" name="foo" edition="1.1-1" arch="noarch" edition-old="1.0-1"/></to-upgrade>
            <to-install><solvable type="package" name="bar" edition="2-1" arch="noarch"/>
            <solvable type="pattern" name="base" edition="1"/></to-install>
            <to-remove><solvable type="package" name="old" edition="3-1" arch="noarch"/></to-remove>
            <not-updated><solvable type="package" name="kept" edition="3-1"/></not-updated>
            </install-summary></stream>"#;
        let planned = planned(output).unwrap();
        let seen: Vec<_> = planned
            .iter()
            .map(|one| (one.name.as_str(), one.change.as_str(), one.from.as_deref(), one.to.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("foo", "updated", Some("1.0-1"), Some("1.1-1")),
                ("bar", "installed", None, Some("2-1")),
                ("old", "removed", Some("3-1"), None),
            ]
        );
    }

    #[test]
    fn what_is_no_xml_is_an_error() {
        assert!(planned("Loading repository data...").is_err());
        assert!(updates("<stream><update name='a'/></stream>").is_err(), "an update without a version");
    }
}
