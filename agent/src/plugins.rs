//! The agent's plugins: built-in ones, and programs of their own from directories.
//!
//! # The data and how it flows
//!
//! [`builtin`] makes the registry of what is built in. When the agent starts, when it is told to
//! reload and after each change through the plugin `plugin`, [`Core::reload_plugins`] looks through the
//! directories, asks each program that it finds whether it can work here, and puts a new registry
//! into force: what is built in, and what was found. What cannot be used is a problem with a name,
//! in the log and in `host.status`, and hinders nothing else.
//!
//! # Invariants
//!
//! - One change at a time; whoever runs an action goes on with the plugin it began with.
//! - No plugin from a directory has the name of a built-in one, also of one that is disabled.
//! - A pack is written only after its signature and every byte were checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_daemon::Blocking;
use muster_plugin_api::{
    ActionFailure, BoxFuture, InstallReport, NotActivated, Plugin, PluginRecord, PluginStore, Registered, Registry,
    RegistryError, RemoveReport, builtin_ddls,
};
use muster_plugin_pack::{Allow, Change, Pack, PackError, Store};
use muster_plugins::external::{self, Discovery, External, Found, discover};
use muster_protocol::ddl::Ddl;
use muster_protocol::{PluginName, code};

use crate::audit::Event;
use crate::config::Config;
use crate::core::{Core, chain, lock};

/// The directory below the state directory into which packs go.
pub const PACKS: &str = "plugins";

/// Why a plugin that needs its administrator's word does not work.
fn not_enabled(name: &PluginName) -> NotActivated {
    NotActivated::new(format!("`{name}` is off until the host's administrator names it in `plugins.enabled`"))
}

/// The plugins that are built in, as the configuration has them.
///
/// # Errors
/// Two of them have one name, which a test rules out.
pub fn builtin(config: &Config) -> Result<Registry, RegistryError> {
    let mut registry = Registry::new();
    for plugin in muster_plugins::builtin(config.plugin_settings()) {
        let name = plugin.ddl().name().clone();
        if config.disabled_plugins().contains(&name) {
            continue;
        }
        let registered = match may_work(config, plugin.ddl()) {
            Ok(()) => registry.register(plugin)?,
            Err(not) => registry.register_inactive(plugin, not)?,
        };
        if let Err(not) = &registered.activation {
            tracing::info!(plugin = %name, "Plugin is not active: {not}");
        }
    }
    Ok(registry)
}

/// All plugins, those from directories too, which are not asked whether they can work here: for a process
/// that runs one action, or explains a policy.
///
/// # Errors
/// As [`builtin`].
pub fn unasked(config: &Config) -> Result<Registry, RegistryError> {
    let mut registry = builtin(config)?;
    for found in look(config, &reserved(&registry)).found {
        if config.disabled_plugins().contains(found.ddl.name()) {
            continue;
        }
        let activation = may_work(config, &found.ddl);
        registry.register_as(Arc::new(External::new(found, config.plugin_configuration())), activation)?;
    }
    Ok(registry)
}

fn may_work(config: &Config, ddl: &Ddl) -> Result<(), NotActivated> {
    if ddl.muster.opt_in && !config.enabled_plugins().contains(ddl.name()) {
        Err(not_enabled(ddl.name()))
    } else {
        Ok(())
    }
}

/// Names that no plugin from a directory may have: those of built-in ones, and the words with which a policy speaks of
/// other things than plugins.
fn reserved(registry: &Registry) -> BTreeSet<PluginName> {
    let builtin = builtin_ddls().iter().map(|ddl| ddl.name().clone());
    let words = crate::policy::PSEUDO_ACTIONS.iter().filter_map(|word| word.parse().ok());
    builtin.chain(words).chain(registry.iter().map(|registered| registered.plugin.ddl().name().clone())).collect()
}

fn look(config: &Config, reserved: &BTreeSet<PluginName>) -> Discovery {
    discover(config.plugin_directories(), reserved)
}

/// What the agent knows of plugins from directories.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Where each is.
    found: BTreeMap<PluginName, Found>,
    /// What is wrong, one sentence each.
    problems: Vec<String>,
}

/// The plugins that do not come from directories, for every registry that is made anew.
#[derive(Debug, Clone)]
pub(crate) struct Fixed(Vec<Registered>);

impl Fixed {
    pub(crate) fn of(registry: &Registry) -> Self {
        Self(registry.iter().cloned().collect())
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::new();
        for registered in &self.0 {
            // They stood in one registry before, so none is there twice.
            drop(registry.register_as(registered.plugin.clone(), registered.activation.clone()));
        }
        registry
    }
}

impl Core {
    /// Reads the directories of plugins again and puts what they hold into force.
    pub(crate) async fn reload_plugins(&self) {
        let _alone = self.plugin_changes.lock().await;
        self.read_plugins().await;
    }

    /// What is wrong with files that should be plugins.
    pub(crate) fn plugin_problems(&self) -> Vec<String> {
        lock(&self.shelf).problems.clone()
    }

    async fn read_plugins(&self) {
        let fixed = self.fixed_plugins.clone();
        let (config, taken) = (self.config.clone(), reserved(&fixed.registry()));
        let search = move || {
            let recovered = Store::new(config.pack_directory()).recover();
            (look(&config, &taken), recovered)
        };
        let Ok((discovery, recovered)) = self.blocking.run(search).await else {
            return tracing::error!("Looking through the directories of plugins panicked; they stay as they were");
        };
        let mut problems: Vec<String> = discovery.problems.iter().map(ToString::to_string).collect();
        if let Err(error) = recovered {
            problems.push(format!("plugin directory of packs cannot be cleared up: {}", chain(&error)));
        }
        let mut registry = fixed.registry();
        let mut found = BTreeMap::new();
        for (plugin, activation) in self.ask_all(discovery.found).await {
            let place = plugin.found().clone();
            if let Err(not) = &activation {
                tracing::info!(plugin = %place.ddl.name(), "Plugin is not active: {not}");
            }
            match registry.register_as(Arc::new(plugin), activation) {
                Ok(_) => drop(found.insert(place.ddl.name().clone(), place)),
                Err(error) => {
                    problems.push(format!("plugin file `{}` is not used: {error}", place.description.display()))
                }
            }
        }
        let before = std::mem::replace(&mut *lock(&self.shelf), Shelf { found, problems: problems.clone() });
        for problem in problems.iter().filter(|problem| !before.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.tell_changes(&registry);
        self.replace_plugins(registry);
    }

    /// Asks all at once, since each may take its time; those that are off are not asked.
    async fn ask_all(&self, found: Vec<Found>) -> Vec<(External, Result<(), NotActivated>)> {
        let wanted = found.into_iter().filter(|found| !self.config.disabled_plugins().contains(found.ddl.name()));
        let mut waiting: Vec<BoxFuture<'_, (External, Result<(), NotActivated>)>> = Vec::new();
        for found in wanted {
            let plugin = External::new(found, self.config.plugin_configuration());
            waiting.push(Box::pin(async move {
                match may_work(&self.config, plugin.ddl()) {
                    Err(not) => (plugin, Err(not)),
                    Ok(()) => {
                        let plugin = plugin.ask(&self.work_directory).await;
                        let activation = plugin.activate();
                        (plugin, activation)
                    }
                }
            }));
        }
        let mut asked = Vec::with_capacity(waiting.len());
        let mut waiting = waiting.into_iter();
        loop {
            let mut some: Vec<_> = waiting.by_ref().take(ASKED_AT_ONCE).collect();
            if some.is_empty() {
                return asked;
            }
            asked.extend(all(&mut some).await);
        }
    }

    fn tell_changes(&self, registry: &Registry) {
        let versions = |registry: &Registry| -> BTreeMap<String, String> {
            registry.installed().into_iter().map(|plugin| (plugin.name.to_string(), plugin.version)).collect()
        };
        let (before, after) = (versions(&self.plugins().registry), versions(registry));
        for (name, version) in &after {
            if before.get(name) != Some(version) {
                tracing::info!(plugin = name, version, "Plugin in force");
                self.note(Event::new("plugin", "in_force").with_message(format!("{name} {version}")));
            }
        }
        for (name, version) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
            tracing::info!(plugin = name, version, "Plugin gone");
            self.note(Event::new("plugin", "gone").with_message(format!("{name} {version}")));
        }
    }

    /// The inventory of the new plugins, made and announced.
    async fn announce_plugins(&self) {
        self.refresh_facts().await;
        self.inventory_changed.notify_one();
    }

    async fn install_pack(&self, bytes: Vec<u8>, allow: Allow, noop: bool) -> Result<InstallReport, ActionFailure> {
        let _alone = self.plugin_changes.lock().await;
        let (trust, signers, now) = (self.materials().trust, self.config.pack_signers().clone(), self.now());
        let opened = blocking(self.blocking, move || {
            let pack = Pack::open(&bytes)?;
            let signers = pack.verify(&trust, &signers, now)?;
            Ok((pack, signers.iter().map(|signer| signer.identity.short()).collect::<Vec<_>>()))
        });
        let (pack, signed_by) = opened.await?;
        self.check_place(&pack)?;
        let manifest = pack.manifest().clone();
        let sha256 = pack.sha256().to_owned();
        let (store, names) = (Store::new(self.config.pack_directory()), signed_by.clone());
        let change = blocking(self.blocking, move || {
            if noop { store.plan(&pack, allow) } else { store.install(&pack, names, allow, now) }
        });
        let change = change.await?;
        let is_done = !noop && change != Change::Unchanged;
        if is_done {
            tracing::info!(plugin = %manifest.name, version = manifest.version, sha256, "Pack {}", change.word());
            self.read_plugins().await;
            self.announce_plugins().await;
        }
        let standing = if noop { None } else { Some(self.standing(&manifest.name)) };
        Ok(InstallReport {
            name: manifest.name,
            version: manifest.version,
            change: change.word().to_owned(),
            previous_version: change.from().map(str::to_owned),
            sha256,
            signed_by,
            files: manifest.files.into_iter().map(|file| file.path).collect(),
            activated: standing.as_ref().map(Result::is_ok),
            reason: standing.and_then(Result::err),
        })
    }

    /// Whether the plugin's name is free, or held by a pack.
    fn check_place(&self, pack: &Pack) -> Result<(), ActionFailure> {
        let name = &pack.manifest().name;
        let conflict = |message: String| Err(ActionFailure::new(&code::CONFLICT, message));
        if reserved(&self.fixed_plugins.registry()).contains(name) {
            return conflict(format!("`{name}` is the name of a built-in plugin, or a word of policies"));
        }
        external::check_description(pack.ddl()).map_err(|why| {
            ActionFailure::new(&code::INVALID_ARGUMENT, format!("plugin `{name}` cannot be used: {why}"))
        })?;
        match lock(&self.shelf).found.get(name) {
            Some(found) if found.directory != self.config.pack_directory() => {
                conflict(format!("plugin `{name}` is in `{}` already", found.description.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a plugin works, or why not.
    fn standing(&self, name: &PluginName) -> Result<(), String> {
        if let Some(registered) = self.plugins().registry.get(name) {
            return registered.activation.clone().map_err(|not| not.why);
        }
        if self.config.disabled_plugins().contains(name) {
            return Err("`plugins.disabled` of musterd's configuration names it".to_owned());
        }
        let place = self.config.pack_directory().join(name.as_str()).display().to_string();
        let problem = lock(&self.shelf).problems.iter().find(|problem| problem.contains(&place)).cloned();
        Err(problem.unwrap_or_else(|| "its files were not found".to_owned()))
    }

    async fn remove_pack(&self, name: PluginName, noop: bool) -> Result<RemoveReport, ActionFailure> {
        let _alone = self.plugin_changes.lock().await;
        let store = Store::new(self.config.pack_directory());
        let wanted = name.clone();
        let removed =
            blocking(self.blocking, move || if noop { store.removable(&wanted) } else { store.remove(&wanted) })
                .await?;
        if !noop {
            tracing::info!(plugin = %name, version = removed.manifest.version, "Pack removed");
            self.read_plugins().await;
            self.announce_plugins().await;
        }
        Ok(RemoveReport { name, version: removed.manifest.version, change: "removed".to_owned() })
    }

    async fn list_plugins(&self) -> (Vec<PluginRecord>, Vec<String>) {
        let store = Store::new(self.config.pack_directory());
        let names: Vec<PluginName> = lock(&self.shelf).found.keys().cloned().collect();
        let installed = self.blocking.run(move || {
            names.into_iter().filter_map(|name| Some((store.installed(&name)?, name))).collect::<Vec<_>>()
        });
        // Whoever looks at files and panics has found no pack.
        let installed = installed.await.unwrap_or_default();
        let shelf = lock(&self.shelf);
        let record = |registered: &Registered| {
            let ddl = registered.plugin.ddl();
            let found = shelf.found.get(ddl.name());
            let in_packs = found.is_some_and(|found| found.directory == self.config.pack_directory());
            let pack = installed.iter().find(|(_, name)| in_packs && name == ddl.name()).map(|(pack, _)| pack);
            PluginRecord {
                name: ddl.name().clone(),
                version: ddl.metadata.version.clone(),
                provider: if found.is_some() { external::PROVIDER } else { "muster" }.to_owned(),
                directory: found.map(|found| found.directory.display().to_string()),
                activated: registered.activation.is_ok(),
                reason: registered.activation.as_ref().err().map(|not| not.why.clone()),
                sha256: pack.map(|pack| pack.sha256.clone()),
                signed_by: pack.map(|pack| pack.signed_by.clone()).unwrap_or_default(),
                modified: pack.is_some_and(|pack| pack.is_modified),
            }
        };
        (self.plugins().registry.iter().map(record).collect(), shelf.problems.clone())
    }
}

/// Most activation checks that run at once: a host with many plugins starts many interpreters.
const ASKED_AT_ONCE: usize = 8;

/// Waits for all, in their order.
async fn all<T>(futures: &mut [BoxFuture<'_, T>]) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, slot) in futures.iter_mut().zip(&mut done).filter(|(_, slot)| slot.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *slot = Some(value),
                std::task::Poll::Pending => is_ready = false,
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

async fn blocking<T: Send + 'static>(
    blocking: Blocking,
    work: impl FnOnce() -> Result<T, PackError> + Send + 'static,
) -> Result<T, ActionFailure> {
    match blocking.run(work).await {
        Ok(done) => done.map_err(|error| ActionFailure::new(error.code(), chain(&error))),
        Err(_) => Err(ActionFailure::new(&code::PLUGIN_ERROR, "handling the pack panicked")),
    }
}

impl PluginStore for Core {
    fn list(&self) -> BoxFuture<'_, (Vec<PluginRecord>, Vec<String>)> {
        Box::pin(self.list_plugins())
    }

    fn install(
        &self,
        pack: Vec<u8>,
        allow_any: bool,
        noop: bool,
    ) -> BoxFuture<'_, Result<InstallReport, ActionFailure>> {
        Box::pin(self.install_pack(pack, if allow_any { Allow::Any } else { Allow::Upgrade }, noop))
    }

    fn remove(&self, name: PluginName, noop: bool) -> BoxFuture<'_, Result<RemoveReport, ActionFailure>> {
        Box::pin(self.remove_pack(name, noop))
    }
}
