//! From what is asked for and what is there to what has to be done: decided over data, without running anything.

use muster_plugin_api::ActionFailure;

use super::entry::{Entry, Snapshot};
use super::manager::{Manager, Task};
use super::wanted::{Ensure, Spec};

/// What a changing action is to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// These packages in this state.
    Ensure(Vec<Spec>, Ensure),
    /// These packages, where they are installed, in their newest version.
    Update(Vec<String>),
    /// Everything in its newest version.
    UpdateAll,
    /// The newest knowledge of what repositories have.
    Refresh,
}

/// What the caller allows on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Permits {
    /// Installing and updating may remove packages that are in the way.
    pub(super) removal: bool,
    /// Removing may also remove what needs the package.
    pub(super) dependents: bool,
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) tasks: Vec<Task>,
    /// Packages that are as they should be.
    pub(super) unchanged: Vec<String>,
    /// What somebody should know, one phrase each.
    pub(super) notes: Vec<String>,
}

/// Decides what has to be done.
pub(super) fn plan(manager: &dyn Manager, goal: &Goal, permits: Permits, before: &Snapshot) -> Plan {
    let found =
        |name: &str| before.0.iter().filter(|entry| manager.database().is_named(entry, name)).collect::<Vec<_>>();
    let present = |name: &str| found(name).into_iter().any(Entry::is_present);
    let mut plan = Plan::default();
    match goal {
        Goal::Refresh => plan.tasks.push(Task::Refresh),
        Goal::UpdateAll => plan.tasks.push(Task::UpdateAll { allow_removal: permits.removal }),
        Goal::Update(names) => {
            let (here, absent): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| present(name));
            plan.notes
                .extend(absent.iter().map(|name| format!("`{name}` is not installed, so there is nothing to update")));
            plan.unchanged = absent;
            if !here.is_empty() {
                plan.tasks.push(Task::Update { names: here, allow_removal: permits.removal });
            }
        }
        Goal::Ensure(specs, ensure @ (Ensure::Present | Ensure::Latest)) => {
            let (mut install, mut update) = (Vec::new(), Vec::new());
            for spec in specs {
                let entries = found(&spec.name);
                if *ensure == Ensure::Latest && entries.iter().any(|entry| entry.installed) {
                    update.push(spec.name.clone());
                } else if entries.iter().any(|entry| is_as_wanted(manager, entry, spec)) {
                    plan.unchanged.push(spec.name.clone());
                } else {
                    install.push(spec.clone());
                }
            }
            if !install.is_empty() {
                plan.tasks.push(Task::Install { specs: install, allow_removal: permits.removal });
            }
            if !update.is_empty() {
                plan.tasks.push(Task::Update { names: update, allow_removal: permits.removal });
            }
        }
        Goal::Ensure(specs, ensure) => {
            let purge = *ensure == Ensure::Purged;
            let mut names = Vec::new();
            for Spec { name, .. } in specs {
                let entries = found(name);
                let there: Vec<_> = entries.into_iter().filter(|entry| purge || entry.is_present()).collect();
                match there.as_slice() {
                    [] => plan.unchanged.push(name.clone()),
                    [_] => names.push(name.clone()),
                    several => names.extend(qualified(manager, name, several)),
                }
            }
            if !names.is_empty() {
                plan.tasks.push(Task::Remove { names, purge, dependents: permits.dependents });
            }
            if purge && !manager.database().keeps_configuration() {
                plan.notes.push(format!("{} has no purge: this is a removal", manager.database().provider()));
            }
        }
    }
    plan
}

/// A name without architecture that stands for several architectures becomes one name for each.
fn qualified(manager: &dyn Manager, name: &str, entries: &[&Entry]) -> Vec<String> {
    let mut names: Vec<_> = entries.iter().map(|entry| manager.database().full_name(entry)).collect();
    names.sort();
    names.dedup();
    // Several versions of one architecture, as with kernels: the manager itself says what it thinks of that.
    if names.len() == 1 { vec![name.to_owned()] } else { names }
}

fn is_as_wanted(manager: &dyn Manager, entry: &Entry, spec: &Spec) -> bool {
    entry.installed && spec.version.as_deref().is_none_or(|version| manager.database().has_version(entry, version))
}

/// Whether the goal was reached. A manager's word that it was is not enough.
///
/// # Errors
/// Names the first package that is not as it should be.
pub(super) fn verify(manager: &dyn Manager, goal: &Goal, after: &Snapshot) -> Result<(), ActionFailure> {
    let Goal::Ensure(specs, ensure) = goal else { return Ok(()) };
    for spec in specs {
        let mut found = after.0.iter().filter(|entry| manager.database().is_named(entry, &spec.name));
        let wrong = match ensure {
            Ensure::Present | Ensure::Latest if found.any(|entry| is_as_wanted(manager, entry, spec)) => None,
            Ensure::Present | Ensure::Latest => {
                let version = spec.version.as_ref().map(|version| format!(" in version {version}"));
                Some(format!("is not installed{}", version.unwrap_or_default()))
            }
            Ensure::Absent if found.any(Entry::is_present) => Some("is still installed".to_owned()),
            Ensure::Purged if found.next().is_some() => Some("is still there, at least in part".to_owned()),
            Ensure::Absent | Ensure::Purged => None,
        };
        if let Some(wrong) = wrong {
            let installer = manager.installer();
            return Err(ActionFailure::failed(format!("{installer} reported success, but `{}` {wrong}", spec.name)));
        }
    }
    Ok(())
}
