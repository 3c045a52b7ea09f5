//! What is true of this host: the facts that targets and policies speak about.
//!
//! # Where facts come from
//!
//! 1. [`system`] asks the kernel and the operating system (`os`, `networking`, `memory`, ...).
//! 2. [`directory`] reads `facts.d`: data files, and executables with a deadline.
//! 3. [`classes`] reads the classes a configuration manager has left in a file.
//!
//! # Which one wins
//!
//! A top-level name that [`system`] defines belongs to it: a file in `facts.d` that sets the same name
//! is reported and that name ignored, so that `os.family` means the same on every host. Among the
//! files of `facts.d` the later file name wins; maps are merged, anything else is replaced.
//!
//! # When something fails
//!
//! A source that fails keeps the values it gave last time, and the error says since when. One bad
//! source never hides another. Every error is in the log once, and in the status the agent gives of
//! itself until it is gone.

pub mod classes;
pub mod directory;
mod executable;
pub mod system;
mod trusted;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_protocol::{HostName, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Config;

/// One source of facts that does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactError {
    /// The file, or the part of the system.
    pub source: String,
    /// What is wrong with it.
    pub message: String,
    /// When the values that are used instead were read; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values_from_ms: Option<Timestamp>,
}

impl std::fmt::Display for FactError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "facts: {}: {}", self.source, self.message)?;
        match self.values_from_ms {
            Some(at) => write!(f, "; its values of {} are used instead", muster_pki::time_text::utc(at)),
            None => Ok(()),
        }
    }
}

/// Everything known about the host at one moment. Never changed, only replaced.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The facts, nested.
    pub values: Arc<Map<String, Value>>,
    /// The host's configuration classes.
    pub classes: BTreeSet<String>,
    /// What did not work.
    pub errors: Vec<FactError>,
    /// When they were collected.
    pub collected_at: Option<Timestamp>,
}

impl Facts {
    /// The facts without those that change all the time (free memory, uptime, load): what an
    /// inventory holds. Two hosts' digests then differ only where something has happened.
    #[must_use]
    pub fn stable(&self) -> Map<String, Value> {
        let mut values = Map::clone(&self.values);
        for path in system::VOLATILE {
            value::remove_path(&mut values, path);
        }
        values
    }
}

/// What to collect, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The host's name, as its certificate and the bus know it.
    pub host: HostName,
    /// Collectives the host listens to; part of the `muster` fact.
    pub collectives: BTreeSet<String>,
    /// `facts.d`, if it is used.
    pub directory: Option<PathBuf>,
    /// The file of classes, if there is one.
    pub classes_file: Option<PathBuf>,
    /// How long one executable may take.
    pub executable_timeout: Duration,
    /// Whether to ask the system at all; off where a simulation supplies its own facts.
    pub system: bool,
    /// Facts that are given from outside, such as a simulation's. They count as the system's.
    pub given: Map<String, Value>,
    /// Classes that are given from outside.
    pub given_classes: BTreeSet<String>,
}

impl Sources {
    /// The sources of a real host, as its configuration says.
    #[must_use]
    pub fn of_host(config: &Config, host: HostName) -> Self {
        Self {
            host,
            collectives: config.collectives().iter().map(ToString::to_string).collect(),
            directory: Some(config.facts_directory().to_owned()),
            classes_file: Some(config.classes_file().to_owned()),
            executable_timeout: config.executable_timeout(),
            system: true,
            given: Map::new(),
            given_classes: BTreeSet::new(),
        }
    }

    /// No sources but the values that are given, as for a simulated host.
    #[must_use]
    pub fn given(host: HostName, values: Map<String, Value>, classes: BTreeSet<String>) -> Self {
        Self {
            host,
            collectives: BTreeSet::new(),
            directory: None,
            classes_file: None,
            executable_timeout: Duration::from_secs(10),
            system: false,
            given: values,
            given_classes: classes,
        }
    }
}

/// What a source gave, and when.
type Remembered = (Timestamp, Map<String, Value>);

/// The current facts, shared by everybody who reads them, and what each source gave last.
#[derive(Debug)]
pub struct FactStore {
    sources: Sources,
    current: Mutex<Arc<Facts>>,
    /// Last good values of each source.
    last: Mutex<BTreeMap<String, Remembered>>,
    last_classes: Mutex<Option<(Timestamp, BTreeSet<String>)>>,
}

impl FactStore {
    /// A store that has not collected anything.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self { sources, current: Mutex::default(), last: Mutex::default(), last_classes: Mutex::default() }
    }

    /// The facts as they were collected last.
    #[must_use]
    pub fn current(&self) -> Arc<Facts> {
        lock(&self.current).clone()
    }

    /// Collects everything anew and returns it. Takes at most about the time limit of an executable,
    /// since executables run at the same time, [`directory::CONCURRENT_MAX`] at once.
    pub async fn refresh(&self, now: Timestamp) -> Arc<Facts> {
        let mut facts = Facts { collected_at: Some(now), ..Facts::default() };
        let mut values = self.system(&mut facts.errors);
        let reserved: BTreeSet<String> = values.keys().cloned().collect();
        if let Some(path) = &self.sources.directory {
            for source in directory::read(path, self.sources.executable_timeout).await {
                let found = self.remember(source, now, &mut facts.errors);
                merge_source(&mut values, found, &reserved, &mut facts.errors);
            }
        }
        facts.values = Arc::new(values);
        self.classes(&mut facts, now);
        let before = self.current();
        for error in &facts.errors {
            if !before.errors.contains(error) {
                tracing::warn!("{error}");
            }
        }
        let facts = Arc::new(facts);
        *lock(&self.current) = facts.clone();
        facts
    }

    fn system(&self, errors: &mut Vec<FactError>) -> Map<String, Value> {
        let mut values = Map::new();
        if self.sources.system {
            let (system, problems) = system::collect(&self.sources.host);
            values = system;
            errors.extend(problems.into_iter().map(|message| FactError {
                source: "system".to_owned(),
                message,
                values_from_ms: None,
            }));
        }
        values.insert(
            "muster".to_owned(),
            serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "host": self.sources.host,
                "collectives": self.sources.collectives,
            }),
        );
        for (name, value) in &self.sources.given {
            value::merge(&mut values, name.clone(), value.clone());
        }
        values
    }

    /// The values of a source: those it gave now, or those it gave last.
    fn remember(&self, source: directory::Source, now: Timestamp, errors: &mut Vec<FactError>) -> Found {
        let mut last = lock(&self.last);
        let values = match source.values {
            Ok(values) => {
                last.insert(source.name.clone(), (now, values.clone()));
                values
            }
            Err(message) => {
                let kept = last.get(&source.name);
                errors.push(FactError {
                    source: source.name.clone(),
                    message,
                    values_from_ms: kept.map(|(at, _)| *at),
                });
                kept.map(|(_, values)| values.clone()).unwrap_or_default()
            }
        };
        Found { source: source.name, values }
    }

    fn classes(&self, facts: &mut Facts, now: Timestamp) {
        facts.classes.clone_from(&self.sources.given_classes);
        let Some(path) = &self.sources.classes_file else { return };
        let mut last = lock(&self.last_classes);
        match classes::read(path) {
            Ok(classes) => *last = Some((now, classes)),
            Err(message) => facts.errors.push(FactError {
                source: path.display().to_string(),
                message,
                values_from_ms: last.as_ref().map(|(at, _)| *at),
            }),
        }
        facts.classes.extend(last.iter().flat_map(|(_, classes)| classes.iter().cloned()));
    }
}

struct Found {
    source: String,
    values: Map<String, Value>,
}

fn merge_source(
    values: &mut Map<String, Value>,
    found: Found,
    reserved: &BTreeSet<String>,
    errors: &mut Vec<FactError>,
) {
    let mut problem = |message: String| {
        errors.push(FactError { source: found.source.clone(), message, values_from_ms: None });
    };
    let mut refused = Vec::new();
    let before = values.clone();
    for (name, value) in found.values {
        if reserved.contains(&name) {
            refused.push(name);
        } else {
            value::merge(values, name, value);
        }
    }
    if !refused.is_empty() {
        problem(format!("sets `{}`, which the agent itself defines; ignored", refused.join("`, `")));
    }
    // Checked after each source, so that the one that brings too much is the one that is left out.
    let size = value::size_bytes(values);
    if size > value::TOTAL_BYTES_MAX {
        *values = before;
        problem(format!(
            "with it all facts together would have {size} bytes; at most {} are allowed, so it is left out",
            value::TOTAL_BYTES_MAX
        ));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
