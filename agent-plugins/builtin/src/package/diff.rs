//! What a transaction did: the database before and after it, compared.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::entry::{ABSENT, CONFIG_FILES, Entry, Order, Snapshot};

/// What happened to one package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    /// It was not there before.
    Installed,
    /// It is newer than before.
    Updated,
    /// It is older than before.
    Downgraded,
    /// It is not there any more, or only its configuration is.
    Removed,
    /// Nothing is left of it, where its manager keeps configuration otherwise.
    Purged,
    /// The same version was put there again.
    Reinstalled,
    /// The same version is in another state, such as half-configured or at last configured.
    Configured,
}

impl Change {
    /// The word on the wire and on screen.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Updated => "updated",
            Self::Downgraded => "downgraded",
            Self::Removed => "removed",
            Self::Purged => "purged",
            Self::Reinstalled => "reinstalled",
            Self::Configured => "configured",
        }
    }
}

/// One package that was touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Touched {
    pub(super) name: String,
    pub(super) arch: String,
    pub(super) change: Change,
    pub(super) version: Option<String>,
    pub(super) release: Option<String>,
    pub(super) epoch: Option<u64>,
    pub(super) status: String,
    pub(super) previous_version: Option<String>,
    pub(super) previous_release: Option<String>,
    pub(super) previous_epoch: Option<u64>,
    pub(super) tries: u32,
}

impl Touched {
    fn new(change: Change, before: Option<&Entry>, after: Option<&Entry>) -> Option<Self> {
        let any = after.or(before)?;
        let now = after.filter(|entry| entry.is_present());
        let then = before.filter(|entry| entry.is_present());
        // What was purged long after its removal had a version all the same: that of its configuration.
        let then = then.or(before.filter(|_| change == Change::Purged));
        Some(Self {
            name: any.name.clone(),
            arch: any.arch.clone(),
            change,
            version: now.map(|entry| entry.version.clone()),
            release: now.and_then(|entry| entry.release.clone()),
            epoch: now.and_then(|entry| entry.epoch),
            status: after.map_or_else(|| ABSENT.to_owned(), |entry| entry.status.clone()),
            previous_version: then.map(|entry| entry.version.clone()),
            previous_release: then.and_then(|entry| entry.release.clone()),
            previous_epoch: then.and_then(|entry| entry.epoch),
            tries: 1,
        })
    }
}

/// One name and architecture, before and after.
type Sides<'a> = (Vec<&'a Entry>, Vec<&'a Entry>);

/// Every package that differs, by name and architecture. `keeps_configuration` says whether the manager tells
/// a removed package from a purged one.
pub(super) fn diff(before: &Snapshot, after: &Snapshot, order: Order, keeps_configuration: bool) -> Vec<Touched> {
    let mut keys: BTreeMap<(&str, &str), Sides<'_>> = BTreeMap::new();
    for entry in &before.0 {
        keys.entry((&entry.name, &entry.arch)).or_default().0.push(entry);
    }
    for entry in &after.0 {
        keys.entry((&entry.name, &entry.arch)).or_default().1.push(entry);
    }
    let gone = if keeps_configuration { Change::Purged } else { Change::Removed };
    keys.into_values().flat_map(|(before, after)| differences(before, after, order, gone)).flatten().collect()
}

/// One name and architecture. Several versions stand side by side only where the manager allows it, as rpm
/// does with kernels.
fn differences(mut before: Vec<&Entry>, mut after: Vec<&Entry>, order: Order, gone: Change) -> Vec<Option<Touched>> {
    let mut touched = Vec::new();
    // The same version on both sides: untouched, in another state, or put there again.
    let versions: BTreeSet<String> = before.iter().map(|entry| entry.full.clone()).collect();
    for version in versions {
        while let (Some(was), Some(is)) = (
            before.iter().position(|entry| entry.full == version),
            after.iter().position(|entry| entry.full == version),
        ) {
            let (was, is) = (before.swap_remove(was), after.swap_remove(is));
            let change = match (was.is_present(), is.is_present()) {
                (true, false) => Some(Change::Removed),
                (false, true) => Some(Change::Installed),
                _ if was.status != is.status => Some(Change::Configured),
                _ if was.stamp != is.stamp => Some(Change::Reinstalled),
                _ => None,
            };
            touched.extend(change.map(|change| Touched::new(change, Some(was), Some(is))));
        }
    }
    // Another version in its place; of several, the oldest gives way to the newest.
    before.sort_by(|a, b| order(&a.full, &b.full));
    after.sort_by(|a, b| order(&b.full, &a.full));
    let replaced = before.len().min(after.len());
    for (was, is) in before.drain(..replaced).zip(after.drain(..replaced)) {
        let change = match (was.is_present(), is.is_present(), order(&was.full, &is.full)) {
            (true, false, _) => Change::Removed,
            (false, true, _) => Change::Installed,
            (false, false, _) => Change::Configured,
            (true, true, Ordering::Less) => Change::Updated,
            // Versions that are written differently and are the same.
            (true, true, Ordering::Equal) => Change::Reinstalled,
            (true, true, Ordering::Greater) => Change::Downgraded,
        };
        touched.push(Touched::new(change, Some(was), Some(is)));
    }
    touched.extend(before.into_iter().map(|was| Touched::new(gone, Some(was), None)));
    touched.extend(after.into_iter().map(|is| {
        let change = if is.status == CONFIG_FILES { Change::Configured } else { Change::Installed };
        Touched::new(change, None, Some(is))
    }));
    touched
}

#[cfg(test)]
mod tests;
