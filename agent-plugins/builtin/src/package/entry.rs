//! One package as a database has it.

use std::cmp::Ordering;

use serde::Serialize;

/// The word for a package that is not there, not even in part.
pub(super) const ABSENT: &str = "absent";

/// The word for a package of which only the configuration files are left.
pub(super) const CONFIG_FILES: &str = "config-files";

/// The word for a package that is there and works.
pub(super) const INSTALLED: &str = "installed";

/// One architecture or parallel version of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// Its name, without architecture.
    #[serde(skip)]
    pub(super) name: String,
    /// The full version, `absent`, or the state of a package that is neither.
    pub(super) ensure: String,
    /// Whether it is there and works.
    pub(super) installed: bool,
    /// Version of the software.
    pub(super) version: String,
    /// Release of the package.
    pub(super) release: Option<String>,
    /// Epoch.
    pub(super) epoch: Option<u64>,
    /// Architecture.
    pub(super) arch: String,
    /// State in the manager's word.
    pub(super) status: String,
    /// The version as its manager writes it.
    #[serde(skip)]
    pub(super) full: String,
    /// When its files were put there, in whatever the database has; compared, never shown.
    #[serde(skip)]
    pub(super) stamp: String,
}

impl Entry {
    /// Whether some of the software is there, working or not.
    pub(super) fn is_present(&self) -> bool {
        self.status != CONFIG_FILES
    }
}

/// How a manager orders versions.
pub(super) type Order = fn(&str, &str) -> Ordering;

/// The whole database at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot(pub(super) Vec<Entry>);

impl Snapshot {
    /// What it has under a name, as `matches` reads the name.
    pub(super) fn find<'a>(&'a self, matches: impl Fn(&Entry) -> bool + 'a) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(move |entry| matches(entry))
    }
}
