//! What one package is like: the answer to `status` and to questions of expressions.

use serde::Serialize;

use super::entry::{ABSENT, Entry};

/// Packages that provide a name are listed up to this number.
const PROVIDERS_MAX: usize = 20;

/// The answer: the keys of the description's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Status {
    pub(super) name: String,
    pub(super) ensure: String,
    pub(super) installed: bool,
    pub(super) version: Option<String>,
    pub(super) release: Option<String>,
    pub(super) epoch: Option<u64>,
    pub(super) arch: Option<String>,
    pub(super) status: String,
    pub(super) provider: &'static str,
    pub(super) instances: Vec<Entry>,
    pub(super) provided_by: Vec<String>,
}

impl Status {
    /// The first installed instance speaks for the package; where none is, the first.
    pub(super) fn new(name: &str, provider: &'static str, instances: Vec<Entry>, mut provided_by: Vec<String>) -> Self {
        provided_by.truncate(PROVIDERS_MAX);
        let main = instances.iter().find(|instance| instance.installed).or(instances.first()).cloned();
        let (ensure, status) = match &main {
            Some(main) => (main.ensure.clone(), main.status.clone()),
            None => (ABSENT.to_owned(), ABSENT.to_owned()),
        };
        Self {
            name: name.to_owned(),
            ensure,
            installed: main.as_ref().is_some_and(|main| main.installed),
            version: main.as_ref().map(|main| main.version.clone()),
            release: main.as_ref().and_then(|main| main.release.clone()),
            epoch: main.as_ref().and_then(|main| main.epoch),
            arch: main.as_ref().map(|main| main.arch.clone()),
            status,
            provider,
            instances: if instances.len() > 1 { instances } else { Vec::new() },
            provided_by,
        }
    }

    /// A line for people; empty where the data says it all.
    pub(super) fn message(&self) -> String {
        match self.provided_by.as_slice() {
            [] => String::new(),
            providers => format!("no package has this name; provided by {}", providers.join(", ")),
        }
    }

    /// Whether there is nothing of it.
    pub(super) fn is_absent(&self) -> bool {
        self.status == ABSENT
    }
}
