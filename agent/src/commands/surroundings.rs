//! What a policy is checked and tried against: this host, as far as it is known here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use muster_agent::facts::{FactStore, Sources};
use muster_daemon::config::ConfigError;
use muster_daemon::{Clock as _, SystemClock};
use muster_plugin_api::Registry;
use muster_protocol::expr::HostScope;
use muster_protocol::{CollectiveName, HostName, Timestamp};
use serde_json::{Map, Value};

use super::{Files, kernel_host};
use crate::start;

/// The host a policy is about.
pub(crate) struct Surroundings {
    pub(crate) host: HostName,
    /// Its plugins, or the built-in ones where there is no configuration.
    pub(crate) registry: Registry,
    plugin_names: BTreeSet<String>,
    collectives: BTreeSet<CollectiveName>,
    /// Its facts; `None` where there is no configuration, as on the machine of a policy's author.
    pub(crate) facts: Option<Arc<Map<String, Value>>>,
    pub(crate) classes: BTreeSet<String>,
    /// The policy that is in force here.
    pub(crate) policy_file: Option<PathBuf>,
}

impl Surroundings {
    /// Reads the configuration and collects facts. A machine without a configuration is not this host.
    ///
    /// # Errors
    /// A configuration that is there and wrong.
    pub(crate) fn read(files: &Files) -> anyhow::Result<Self> {
        let config = match files.load() {
            Ok((_, config, _)) => config,
            Err(error) if is_absent(&error, files) => return Self::elsewhere(),
            Err(error) => return Err(error),
        };
        let host = start::certificate_host(&config).or_else(kernel_host).unwrap_or_else(unnamed);
        let registry = start::registry(&config)?;
        let store = FactStore::new(Sources::of_host(&config, host.clone()));
        let facts = start::runtime()?.block_on(store.refresh(Timestamp(SystemClock.now_ms())));
        Ok(Self {
            host,
            plugin_names: names(&registry),
            registry,
            collectives: config.collectives().clone(),
            facts: Some(facts.values.clone()),
            classes: facts.classes.clone(),
            policy_file: Some(config.policy_file().to_owned()),
        })
    }

    fn elsewhere() -> anyhow::Result<Self> {
        let mut registry = Registry::new();
        for plugin in muster_plugins::builtin(&muster_plugins::Settings::default()) {
            registry.register(plugin)?;
        }
        Ok(Self {
            host: kernel_host().unwrap_or_else(unnamed),
            plugin_names: names(&registry),
            registry,
            collectives: "main".parse().into_iter().collect(),
            facts: None,
            classes: BTreeSet::new(),
            policy_file: None,
        })
    }

    /// The host's names as conditions see them.
    pub(crate) fn scope<'a>(
        &'a self,
        facts: &'a Map<String, Value>,
        calls: &'a BTreeMap<String, Value>,
    ) -> HostScope<'a> {
        HostScope {
            name: &self.host,
            facts,
            classes: &self.classes,
            plugins: &self.plugin_names,
            collectives: &self.collectives,
            calls,
        }
    }
}

fn names(registry: &Registry) -> BTreeSet<String> {
    registry.installed().into_iter().map(|plugin| plugin.name.to_string()).collect()
}

fn unnamed() -> HostName {
    "localhost".parse().expect("`localhost` is a host's name")
}

fn is_absent(error: &anyhow::Error, files: &Files) -> bool {
    matches!(error.downcast_ref::<ConfigError>(), Some(ConfigError::Read { path, source })
        if *path == files.config && source.kind() == std::io::ErrorKind::NotFound)
}
