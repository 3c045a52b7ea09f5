//! What plugins watch as a whole, such as all installed packages: announced when it has changed.
//!
//! After each changing action of a plugin, and whenever facts are collected, the plugin is asked for its
//! profiles. Those whose digest is not the one announced last go out as announcements of kind `profile`, on the
//! route of presence. Only digests are kept, in memory and in the directory of state, so a restart alone
//! announces nothing; and once a day each profile goes out all the same, for whoever missed it. One task does
//! all of it, so plugins are asked one after the other, and never while there is no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_bus::Guarantee;
use muster_daemon::TaskKind;
use muster_plugin_api::{ActionContext, ActionFailure, OutputSink, Plugin};
use muster_protocol::{Announcement, AnnouncementKind, PluginName, Profile, ProtocolVersion, Timestamp, encode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::core::{Core, chain, lock};
use crate::presence;
use crate::state::files;

/// After this time a profile is announced again although it is the same.
const REPEAT_MS: i64 = 24 * 60 * 60 * 1000;

/// How long the broker keeps a profile for a reader that is away: until the next one.
const EXPIRATION_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a plugin may take to say what there is. A package database on a slow disk takes seconds.
const ASKING_LIMIT: Duration = Duration::from_secs(120);

/// Pause after an announcement could not be sent although there is a connection.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Debug, Default)]
pub(crate) struct Due {
    plugins: Mutex<BTreeSet<PluginName>>,
    changed: Notify,
}

impl Due {
    /// The plugin has done something that may have changed what it watches.
    pub(crate) fn add(&self, plugin: &PluginName) {
        lock(&self.plugins).insert(plugin.clone());
        self.changed.notify_one();
    }

    fn add_all(&self, plugins: impl IntoIterator<Item = PluginName>) {
        lock(&self.plugins).extend(plugins);
        self.changed.notify_one();
    }

    /// How many are to be asked.
    pub(crate) fn len(&self) -> usize {
        lock(&self.plugins).len()
    }

    fn take(&self) -> BTreeSet<PluginName> {
        std::mem::take(&mut lock(&self.plugins))
    }
}

/// What was announced last, by plugin and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Announced(BTreeMap<String, Last>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    digest: String,
    at_ms: Timestamp,
}

impl Announced {
    fn key(plugin: &PluginName, name: &str) -> String {
        format!("{plugin}/{name}")
    }

    /// Whether a profile has to be announced: it is new, it is another, or the last time is long ago.
    fn is_news(&self, plugin: &PluginName, name: &str, digest: &str, now: Timestamp) -> bool {
        self.0.get(&Self::key(plugin, name)).is_none_or(|last| {
            // A clock that was set back must not silence a profile for long.
            let age_ms = now.since_ms(last.at_ms);
            last.digest != digest || !(0..REPEAT_MS).contains(&age_ms)
        })
    }

    fn note(&mut self, plugin: &PluginName, name: &str, digest: String, now: Timestamp) {
        self.0.insert(Self::key(plugin, name), Last { digest, at_ms: now });
    }
}

impl Core {
    /// Has every plugin asked for its profiles.
    pub(crate) fn all_profiles_due(&self) {
        self.profiles_due.add_all(self.plugins().registry.installed().into_iter().map(|plugin| plugin.name));
    }
}

/// Announces profiles until the agent stops.
pub(crate) async fn announce_forever(core: Arc<Core>) {
    let mut announced = read(&core);
    let mut link = core.link.subscribe();
    loop {
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            () = core.profiles_due.changed.notified() => {}
        }
        tokio::select! {
            biased;
            () = core.tasks.stopping().cancelled() => return,
            there = link.wait_for(Option::is_some) => if there.is_err() { return },
        }
        let before = announced.clone();
        let mut left = core.profiles_due.take();
        while let Some(plugin) = left.pop_first() {
            if core.shutdown.is_cancelled() {
                break;
            }
            if !announce_plugin(&core, &plugin, &mut announced).await {
                left.insert(plugin);
                break;
            }
        }
        if announced != before {
            write(&core, &announced);
        }
        if !left.is_empty() && !core.shutdown.is_cancelled() {
            core.profiles_due.add_all(left);
            tokio::select! {
                biased;
                () = core.tasks.stopping().cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }
}

/// Announces what is news of one plugin. False if it could not be sent.
async fn announce_plugin(core: &Arc<Core>, name: &PluginName, announced: &mut Announced) -> bool {
    let plugins = core.plugins();
    let Some(registered) = plugins.registry.get(name).filter(|registered| registered.activation.is_ok()) else {
        return true;
    };
    let profiles = match ask(core, registered.plugin.clone()).await {
        Ok(profiles) => profiles,
        Err(failure) => {
            tracing::warn!(plugin = %name, code = failure.code.code, error = %failure, "A plugin could not tell its profiles");
            return true;
        }
    };
    for profile in profiles {
        let now = core.now();
        if !announced.is_news(name, profile.name, &profile.digest, now) {
            continue;
        }
        let (profile_name, digest) = (profile.name, profile.digest.clone());
        let wire =
            Profile { plugin: name.clone(), name: profile.name.to_owned(), digest: profile.digest, data: profile.data };
        if !announce(core, wire).await {
            return false;
        }
        announced.note(name, profile_name, digest, now);
    }
    true
}

/// Asks in a task of its own, so that a plugin that panics takes nothing along.
async fn ask(core: &Arc<Core>, plugin: Arc<dyn Plugin>) -> Result<Vec<muster_plugin_api::Profile>, ActionFailure> {
    let cancel = CancellationToken::new();
    let context = ActionContext { cancel: cancel.clone(), output: OutputSink::discard(), host: core.clone() };
    let (sender, answer) = oneshot::channel();
    core.tasks.spawn(TaskKind::Worker, "profiles of a plugin", async move {
        drop(sender.send(plugin.profiles(context).await));
    });
    let gone = |why: &str| Err(ActionFailure::failed(why));
    tokio::select! {
        biased;
        answer = answer => answer.unwrap_or_else(|_| gone("the plugin panicked")),
        () = core.tasks.stopping().cancelled() => {
            cancel.cancel();
            gone("the agent stops")
        }
        () = tokio::time::sleep(ASKING_LIMIT) => {
            cancel.cancel();
            gone("it took too long")
        }
    }
}

/// Sends one profile and waits until the broker has it. One that can never be sent counts as sent.
async fn announce(core: &Core, profile: Profile) -> bool {
    let (plugin, name) = (profile.plugin.clone(), profile.name.clone());
    let announcement = Announcement {
        protocol: ProtocolVersion::V1,
        host: core.host.clone(),
        kind: AnnouncementKind::Profile,
        created_at_ms: core.now(),
        started_at_ms: core.started_at,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        inventory_digest: lock(&core.inventory).digest.clone(),
        inventory: None,
        profile: Some(profile),
    };
    let body = match encode(&announcement) {
        Ok(body) => body,
        Err(error) => {
            tracing::warn!(%plugin, profile = name, %error, "A profile cannot be announced");
            return true;
        }
    };
    let Some(link) = core.link() else { return false };
    match link.publish(presence::message(core, body, Some(EXPIRATION_MS)), Guarantee::Confirmed).await {
        Ok(()) => {
            tracing::info!(%plugin, profile = name, "Announced a profile");
            true
        }
        Err(error) => {
            tracing::debug!(%plugin, profile = name, error = chain(&error), "A profile was not sent");
            false
        }
    }
}

/// What an agent before this one announced. A file that cannot be read means that everything is news.
fn read(core: &Core) -> Announced {
    let path = core.state.file(files::PROFILES);
    match core.state.read(files::PROFILES) {
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "The digests of announced profiles cannot be read");
            Announced::default()
        }),
        Ok(None) => Announced::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "The digests of announced profiles cannot be read");
            Announced::default()
        }
    }
}

fn write(core: &Core, announced: &Announced) {
    let bytes = serde_json::to_vec(announced).unwrap_or_default();
    if let Err(error) = core.state.write(files::PROFILES, &bytes) {
        crate::core::report_error("Could not note which profiles were announced", &error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_news() {
        let plugin: PluginName = "package".parse().unwrap();
        let mut announced = Announced::default();
        let at = |ms| Timestamp(1_795_000_000_000 + ms);
        assert!(announced.is_news(&plugin, "packages", "a", at(0)), "never announced");
        announced.note(&plugin, "packages", "a".to_owned(), at(0));
        assert!(!announced.is_news(&plugin, "packages", "a", at(1)));
        assert!(announced.is_news(&plugin, "packages", "b", at(1)), "another digest");
        assert!(announced.is_news(&plugin, "repositories", "a", at(1)), "another profile");
        assert!(!announced.is_news(&plugin, "packages", "a", at(REPEAT_MS - 1)));
        assert!(announced.is_news(&plugin, "packages", "a", at(REPEAT_MS)), "a day later");
        assert!(announced.is_news(&plugin, "packages", "a", at(-1)), "the clock was set back");
        let text = serde_json::to_string(&announced).unwrap();
        assert_eq!(serde_json::from_str::<Announced>(&text).unwrap(), announced);
    }
}
