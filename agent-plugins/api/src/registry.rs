//! The plugins of one agent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use muster_protocol::ddl::{Action, ArgumentError};
use muster_protocol::{ActionName, Code, InstalledPlugin, PluginName, code};
use serde_json::Value;

use crate::action::ActionFailure;
use crate::plugin::{ActionContext, NotActivated, Plugin};

/// The plugins of one agent, by name.
#[derive(Debug, Default)]
pub struct Registry {
    plugins: BTreeMap<PluginName, Registered>,
}

/// A plugin and whether it can work here.
#[derive(Clone)]
pub struct Registered {
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// What its activation said.
    pub activation: Result<(), NotActivated>,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.plugin.ddl().name();
        f.debug_struct("Registered").field("plugin", name).field("activation", &self.activation).finish()
    }
}

/// Why a plugin cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Another one has that name.
    #[error("there are two plugins `{name}`")]
    Duplicate {
        /// The name.
        name: PluginName,
    },
    /// Another one answers a data query of that name.
    #[error("plugins `{name}` and `{other}` both answer the data query `{query}`")]
    DuplicateQuery {
        /// The plugin that was to be registered.
        name: PluginName,
        /// The one that was there.
        other: PluginName,
        /// The query.
        query: String,
    },
}

impl RegistryError {
    /// Never.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }

    /// The stable code `plugin-error`.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        &code::PLUGIN_ERROR
    }
}

/// Why an action cannot be run here at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no such plugin.
    #[error("there is no plugin `{plugin}` here")]
    Plugin {
        /// The name that was asked for.
        plugin: PluginName,
    },
    /// The plugin has no such action.
    #[error("plugin `{plugin}` has no action `{action}`")]
    Action {
        /// The plugin.
        plugin: PluginName,
        /// The name that was asked for.
        action: ActionName,
    },
    /// The plugin cannot work on this host.
    #[error("plugin `{plugin}` cannot work on this host: {why}")]
    NotActivated {
        /// The plugin.
        plugin: PluginName,
        /// What its activation said.
        why: String,
    },
}

impl Unavailable {
    /// The stable code: `unknown-plugin`, `unknown-action` or `not-activated`.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Plugin { .. } => &code::UNKNOWN_PLUGIN,
            Self::Action { .. } => &code::UNKNOWN_ACTION,
            Self::NotActivated { .. } => &code::NOT_ACTIVATED,
        }
    }

    /// Never.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// Why a question of a target expression got no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DataError {
    /// No plugin answers it.
    #[error("no plugin here answers the data query `{query}`")]
    Unknown {
        /// The name that was asked for.
        query: String,
    },
    /// The plugin that answers it cannot work here.
    #[error("the data query `{query}` has no answer on this host: {why}")]
    NotActivated {
        /// The query.
        query: String,
        /// What the plugin's activation said.
        why: String,
    },
    /// The arguments do not fit.
    #[error("the arguments of the data query `{query}` do not fit")]
    Arguments {
        /// The query.
        query: String,
        /// What is wrong.
        #[source]
        source: ArgumentError,
    },
    /// The plugin could not answer.
    #[error("the data query `{query}` failed")]
    Failed {
        /// The query.
        query: String,
        /// What happened.
        #[source]
        source: ActionFailure,
    },
}

impl DataError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Unknown { .. } => &code::UNKNOWN_PLUGIN,
            Self::NotActivated { .. } => &code::NOT_ACTIVATED,
            Self::Arguments { source, .. } => source.code(),
            Self::Failed { source, .. } => source.code(),
        }
    }

    /// Whether asking again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if source.is_transient())
    }
}

impl Registry {
    /// A registry without plugins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plugin and asks it whether it can work here.
    ///
    /// # Errors
    /// When another plugin has its name or answers the same data query.
    pub fn register(&mut self, plugin: Arc<dyn Plugin>) -> Result<&Registered, RegistryError> {
        let activation = plugin.activate();
        self.register_as(plugin, activation)
    }

    /// Adds a plugin that is not to work here, without asking it.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn register_inactive(
        &mut self,
        plugin: Arc<dyn Plugin>,
        why: NotActivated,
    ) -> Result<&Registered, RegistryError> {
        self.register_as(plugin, Err(why))
    }

    /// Adds a plugin with this answer to whether it can work here, without asking it.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn register_as(
        &mut self,
        plugin: Arc<dyn Plugin>,
        activation: Result<(), NotActivated>,
    ) -> Result<&Registered, RegistryError> {
        let name = plugin.ddl().name().clone();
        if self.plugins.contains_key(&name) {
            return Err(RegistryError::Duplicate { name });
        }
        for query in &plugin.ddl().muster.data {
            if let Some(other) = self.answering(query.name.as_str()) {
                let other = other.plugin.ddl().name().clone();
                return Err(RegistryError::DuplicateQuery { name, other, query: query.name.to_string() });
            }
        }
        Ok(self.plugins.entry(name).or_insert(Registered { plugin, activation }))
    }

    /// The plugin of that name, whether it can work here or not.
    #[must_use]
    pub fn get(&self, name: &PluginName) -> Option<&Registered> {
        self.plugins.get(name)
    }

    /// All plugins, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.plugins.values()
    }

    /// The plugins that can work here, for the inventory.
    #[must_use]
    pub fn installed(&self) -> Vec<InstalledPlugin> {
        let active = self.plugins.iter().filter(|(_, registered)| registered.activation.is_ok());
        active
            .map(|(name, registered)| InstalledPlugin {
                name: name.clone(),
                version: registered.plugin.ddl().metadata.version.clone(),
            })
            .collect()
    }

    /// An action that can be run here.
    ///
    /// # Errors
    /// In this order: no such plugin, no such action, the plugin cannot work here.
    pub fn action(&self, plugin: &PluginName, action: &ActionName) -> Result<(&Arc<dyn Plugin>, &Action), Unavailable> {
        let registered = self.get(plugin).ok_or_else(|| Unavailable::Plugin { plugin: plugin.clone() })?;
        let described = registered.plugin.ddl().action(action);
        let described =
            described.ok_or_else(|| Unavailable::Action { plugin: plugin.clone(), action: action.clone() })?;
        match &registered.activation {
            Ok(()) => Ok((&registered.plugin, described)),
            Err(not) => Err(Unavailable::NotActivated { plugin: plugin.clone(), why: not.why.clone() }),
        }
    }

    /// Answers `query(arguments)` of a target expression. `Ok(None)` means: it does not exist here.
    ///
    /// # Errors
    /// When nobody answers it, the arguments do not fit, or the plugin failed. For an expression all
    /// of these are "unknown"; the agent's log says which.
    pub async fn data(
        &self,
        query: &str,
        arguments: &[Value],
        context: ActionContext,
    ) -> Result<Option<Value>, DataError> {
        let unknown = || DataError::Unknown { query: query.to_owned() };
        let registered = self.answering(query).ok_or_else(unknown)?;
        if let Err(not) = &registered.activation {
            return Err(DataError::NotActivated { query: query.to_owned(), why: not.why.clone() });
        }
        let described = registered.plugin.ddl().data_query(query).ok_or_else(unknown)?;
        let arguments =
            described.validate(arguments).map_err(|source| DataError::Arguments { query: query.to_owned(), source })?;
        let answer = registered.plugin.data(query, arguments, context).await;
        answer.map_err(|source| DataError::Failed { query: query.to_owned(), source })
    }

    fn answering(&self, query: &str) -> Option<&Registered> {
        self.plugins.values().find(|registered| registered.plugin.ddl().data_query(query).is_some())
    }
}
