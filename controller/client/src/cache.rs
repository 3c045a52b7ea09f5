//! What a controller remembers of hosts between two runs. Never authoritative.
//!
//! It serves four things: a discovery that ends as soon as all that are likely to answer have; the
//! words "silent, last seen 3 h ago"; completion; and the nearest known name when nobody matches.
//! What the fleet is, only the hosts say.
//!
//! Two files in one directory: `hosts.json` is small and read by every command. `inventories.jsonl` is read only when facts
//! are needed; what is learnt is added at its end, the last line of a host counts, and it is written anew when most of it
//! is old. A file or a line that cannot be read or understood counts as empty. Both are 0600: facts are nobody else's
//! business.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use muster_protocol::expr::{Expression, HostScope, Node};
use muster_protocol::{HostName, Inventory, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod file;

pub use file::{read_bytes, write as write_bytes};

/// How long a host that is silent is remembered: 30 days.
pub const HOST_AGE_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1000;

/// Most hosts remembered; the ones unseen for longest go first.
const HOSTS_MAX: usize = 50_000;

/// Most targets whose answers are remembered.
const TARGETS_MAX: usize = 32;

/// Most bytes of inventories; above, the ones unseen for longest are left out.
const INVENTORIES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The file of hosts.
pub const HOSTS: &str = "hosts.json";

/// The file of inventories.
pub const INVENTORIES: &str = "inventories.jsonl";

/// Largest file of inventories that is read. It is written anew before it gets there.
const INVENTORIES_FILE_BYTES_MAX: u64 = 4 * INVENTORIES_BYTES_MAX as u64;

/// An inventory is not asked for again before it is this old, even if it has changed since.
const INVENTORY_AGE_MS_MIN: i64 = 10 * 60 * 1000;

/// Most different values counted of one fact.
const VALUES_MAX: usize = 1_000;

/// What is remembered of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedHost {
    /// When it answered last, by this machine's clock.
    pub last_seen_ms: Timestamp,
    /// The digest it gave last; empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inventory_digest: String,
    /// The digest of the inventory that is kept; empty if none is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kept_digest: String,
    /// When its inventory was asked for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_asked_ms: Option<Timestamp>,
}

/// Who answered to a target last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RecentTarget {
    asked_ms: Timestamp,
    hosts: BTreeSet<HostName>,
}

/// An inventory as it was at some time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedInventory {
    /// Its digest.
    pub digest: String,
    /// What the host had.
    pub inventory: Inventory,
}

/// What is remembered of the hosts of one context.
#[derive(Debug)]
pub struct HostCache {
    directory: Option<PathBuf>,
    hosts: BTreeMap<HostName, CachedHost>,
    targets: BTreeMap<String, RecentTarget>,
    changed: bool,
    inventories: Option<BTreeMap<HostName, CachedInventory>>,
    /// What was learnt since the last time it was saved.
    learnt: BTreeMap<HostName, CachedInventory>,
    /// The file of inventories is to be written anew.
    inventories_old: bool,
}

#[derive(Serialize, Deserialize)]
struct HostsFile {
    version: u32,
    hosts: BTreeMap<HostName, CachedHost>,
    #[serde(default)]
    targets: BTreeMap<String, RecentTarget>,
}

/// A line of the file of inventories.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    host: Cow<'a, HostName>,
    #[serde(flatten)]
    cached: Cow<'a, CachedInventory>,
}

/// Format of the files. Another one counts as empty.
const VERSION: u32 = 1;

impl HostCache {
    /// Remembers nothing and writes nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            directory: None,
            hosts: BTreeMap::new(),
            targets: BTreeMap::new(),
            changed: false,
            inventories: Some(BTreeMap::new()),
            learnt: BTreeMap::new(),
            inventories_old: false,
        }
    }

    /// Reads what is in `directory`, which need not exist. Hosts that have been silent for 30 days are forgotten.
    #[must_use]
    pub fn load(directory: &Path, now: Timestamp) -> Self {
        let file: Option<HostsFile> = file::read(&directory.join(HOSTS));
        let (mut hosts, targets) =
            file.filter(|file| file.version == VERSION).map(|file| (file.hosts, file.targets)).unwrap_or_default();
        hosts.retain(|_, host| now.since_ms(host.last_seen_ms) <= HOST_AGE_MS_MAX);
        Self {
            directory: Some(directory.to_owned()),
            hosts,
            targets,
            changed: false,
            inventories: None,
            learnt: BTreeMap::new(),
            inventories_old: false,
        }
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// When the directory cannot be made or written. The cache is dispensable, so callers only mention it.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        if self.changed {
            self.bound();
            let file = HostsFile { version: VERSION, hosts: self.hosts.clone(), targets: self.targets.clone() };
            file::write(&directory, HOSTS, &serde_json::to_vec(&file)?)?;
            self.changed = false;
        }
        let learnt = lines(&self.learnt)?;
        if !learnt.is_empty() && !self.inventories_old {
            let bytes = file::append(&directory, INVENTORIES, &learnt)?;
            self.inventories_old = bytes > 2 * INVENTORIES_BYTES_MAX as u64;
        }
        if self.inventories_old {
            self.read_inventories();
            self.bound_inventories();
            let all = lines(self.inventories.get_or_insert_default())?;
            file::write(&directory, INVENTORIES, &all)?;
            self.inventories_old = false;
        }
        self.learnt.clear();
        Ok(())
    }

    fn bound(&mut self) {
        if self.hosts.len() > HOSTS_MAX {
            let mut times: Vec<Timestamp> = self.hosts.values().map(|host| host.last_seen_ms).collect();
            times.sort_unstable_by(|left, right| right.cmp(left));
            let oldest = times[HOSTS_MAX - 1];
            self.hosts.retain(|_, host| host.last_seen_ms >= oldest);
        }
        while self.targets.len() > TARGETS_MAX {
            let Some(oldest) =
                self.targets.iter().min_by_key(|(_, target)| target.asked_ms).map(|(text, _)| text.clone())
            else {
                break;
            };
            self.targets.remove(&oldest);
        }
    }

    fn bound_inventories(&mut self) {
        let hosts = &self.hosts;
        let Some(inventories) = &mut self.inventories else { return };
        inventories.retain(|name, _| hosts.contains_key(name));
        let mut sizes: Vec<(Timestamp, HostName, usize)> = inventories
            .iter()
            .map(|(name, inventory)| {
                let bytes = serde_json::to_vec(inventory).map_or(0, |bytes| bytes.len());
                (hosts[name].last_seen_ms, name.clone(), bytes)
            })
            .collect();
        sizes.sort_unstable_by(|left, right| right.cmp(left));
        let mut total = 0;
        for (_, name, bytes) in sizes {
            total += bytes;
            if total > INVENTORIES_BYTES_MAX {
                inventories.remove(&name);
            }
        }
    }

    /// The hosts, by name.
    #[must_use]
    pub fn hosts(&self) -> &BTreeMap<HostName, CachedHost> {
        &self.hosts
    }

    /// When a host answered last.
    #[must_use]
    pub fn last_seen(&self, host: &HostName) -> Option<Timestamp> {
        self.hosts.get(host).map(|host| host.last_seen_ms)
    }

    /// Notes that a host has answered, with the digest of its inventory if it gave one.
    pub fn seen(&mut self, host: &HostName, digest: Option<&str>, now: Timestamp) {
        self.changed = true;
        let fresh = CachedHost {
            last_seen_ms: now,
            inventory_digest: String::new(),
            kept_digest: String::new(),
            inventory_asked_ms: None,
        };
        let entry = self.hosts.entry(host.clone()).or_insert(fresh);
        entry.last_seen_ms = now;
        if let Some(digest) = digest.filter(|digest| digest.len() <= 128) {
            entry.inventory_digest.clear();
            entry.inventory_digest.push_str(digest);
        }
    }

    /// Forgets a host, as when it was taken out of service.
    pub fn forget(&mut self, host: &HostName) -> bool {
        let known = self.hosts.remove(host).is_some();
        self.changed |= known;
        for target in self.targets.values_mut() {
            target.hosts.remove(host);
        }
        known
    }

    /// Notes who answered to a target: its canonical text, empty for everybody.
    pub fn answered(&mut self, target: &str, hosts: impl IntoIterator<Item = HostName>, now: Timestamp) {
        let hosts: BTreeSet<HostName> = hosts.into_iter().collect();
        self.changed = true;
        if hosts.is_empty() {
            self.targets.remove(target);
        } else {
            self.targets.insert(target.to_owned(), RecentTarget { asked_ms: now, hosts });
        }
    }

    /// The hosts that are likely to answer to a target; empty if nothing is known. `None` is everybody.
    ///
    /// Everybody is who is remembered. For an expression it is who answered to it last time, corrected
    /// by the inventories that are known and by hosts that were forgotten.
    pub fn likely(&mut self, target: Option<&Expression>) -> BTreeSet<HostName> {
        let Some(expression) = target else { return self.hosts.keys().cloned().collect() };
        let mut likely: BTreeSet<HostName> = self
            .targets
            .get(expression.as_str())
            .map(|recent| recent.hosts.iter().filter(|host| self.hosts.contains_key(*host)).cloned().collect())
            .unwrap_or_default();
        if expression.calls().next().is_some() {
            return likely;
        }
        self.read_inventories();
        for (host, known) in &self.hosts {
            let inventory = self.inventories.as_ref().and_then(|inventories| inventories.get(host));
            if let Some(cached) = inventory.filter(|cached| cached.digest == known.inventory_digest) {
                if matches(expression, host, &cached.inventory) {
                    likely.insert(host.clone());
                } else {
                    likely.remove(host);
                }
            }
        }
        likely
    }

    /// Hosts whose inventory is not known or has changed, and was not asked for lately.
    #[must_use]
    pub fn stale(&self, hosts: impl IntoIterator<Item = HostName>, now: Timestamp) -> BTreeSet<HostName> {
        let is_stale = |host: &HostName| {
            self.hosts.get(host).is_some_and(|known| {
                let current = !known.kept_digest.is_empty() && known.kept_digest == known.inventory_digest;
                let lately = known.inventory_asked_ms.is_some_and(|asked| now.since_ms(asked) < INVENTORY_AGE_MS_MIN);
                !current && !lately
            })
        };
        hosts.into_iter().filter(is_stale).collect()
    }

    /// Notes that an inventory was asked for.
    pub fn asked_for_inventory(&mut self, host: &HostName, now: Timestamp) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.inventory_asked_ms = Some(now);
            self.changed = true;
        }
    }

    /// Keeps an inventory. The host must have been [`seen`](Self::seen).
    pub fn keep(&mut self, host: &HostName, digest: &str, inventory: Inventory) {
        if let Some(known) = self.hosts.get_mut(host) {
            digest.clone_into(&mut known.inventory_digest);
            digest.clone_into(&mut known.kept_digest);
            self.changed = true;
            let cached = CachedInventory { digest: digest.to_owned(), inventory };
            if let Some(inventories) = &mut self.inventories {
                inventories.insert(host.clone(), cached.clone());
            }
            self.learnt.insert(host.clone(), cached);
        }
    }

    /// The inventories that are known, by host.
    pub fn inventories(&mut self) -> &BTreeMap<HostName, CachedInventory> {
        self.read_inventories();
        self.inventories.get_or_insert_default()
    }

    fn read_inventories(&mut self) {
        if self.inventories.is_some() {
            return;
        }
        let path = self.directory.as_ref().map(|directory| directory.join(INVENTORIES));
        let bytes = path.and_then(|path| file::read_bytes(&path, INVENTORIES_FILE_BYTES_MAX)).unwrap_or_default();
        let mut read = BTreeMap::new();
        let mut count = 0;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            count += 1;
            if let Ok(Line { host, cached }) = serde_json::from_slice::<Line<'_>>(line) {
                read.insert(host.into_owned(), cached.into_owned());
            }
        }
        read.retain(|host, _| self.hosts.contains_key(host));
        // More than half of it is of no use any more.
        self.inventories_old |= count > 2 * read.len();
        read.extend(self.learnt.iter().map(|(host, cached)| (host.clone(), cached.clone())));
        for (host, known) in &mut self.hosts {
            // The other file may have been lost or bounded: what is not there is not kept.
            if !known.kept_digest.is_empty() && read.get(host).is_none_or(|cached| cached.digest != known.kept_digest) {
                known.kept_digest.clear();
                self.changed = true;
            }
        }
        self.inventories = Some(read);
    }

    /// On how many of the known inventories a condition certainly holds.
    pub fn count(&mut self, condition: &Expression) -> usize {
        self.inventories().iter().filter(|(host, cached)| matches(condition, host, &cached.inventory)).count()
    }

    /// The names that targets can use on the known inventories: fact paths with dots, `class` and so on.
    pub fn names(&mut self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = ["name", "class", "plugin", "collective"].map(str::to_owned).into();
        for cached in self.inventories().values() {
            for (name, value) in &cached.inventory.facts {
                fact_names(name, value, &mut names);
            }
        }
        names
    }

    /// The values that the known hosts have at a path of a target, with the number of hosts. At most 1,000 values.
    pub fn values(&mut self, path: &str) -> BTreeMap<String, usize> {
        let mut values = BTreeMap::new();
        let Ok(has) = Expression::parse(&format!("has({path})")) else { return values };
        let Node::Has(muster_protocol::expr::Operand::Path(path)) = has.root() else { return values };
        for (host, cached) in self.inventories() {
            with_scope(host, &cached.inventory, |scope| {
                let found = muster_protocol::expr::Scope::get(scope, path);
                let items: Vec<String> = match found.as_deref() {
                    Some(Value::Array(items)) => items.iter().filter_map(text).collect(),
                    Some(value) => text(value).into_iter().collect(),
                    None => Vec::new(),
                };
                for item in items.into_iter().collect::<BTreeSet<_>>() {
                    if values.len() < VALUES_MAX || values.contains_key(&item) {
                        *values.entry(item).or_insert(0) += 1;
                    }
                }
            });
        }
        values
    }
}

/// Inventories as lines of a file.
fn lines(inventories: &BTreeMap<HostName, CachedInventory>) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    if !inventories.is_empty() {
        // What stands before may be the beginning of a line that was never finished.
        lines.push(b'\n');
    }
    for (host, cached) in inventories {
        serde_json::to_writer(&mut lines, &Line { host: Cow::Borrowed(host), cached: Cow::Borrowed(cached) })?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn with_scope<T>(host: &HostName, inventory: &Inventory, read: impl FnOnce(&HostScope<'_>) -> T) -> T {
    let plugins = inventory.plugins.iter().map(|plugin| plugin.name.to_string()).collect();
    read(&HostScope {
        name: host,
        facts: &inventory.facts,
        classes: &inventory.classes,
        plugins: &plugins,
        collectives: &inventory.collectives,
        calls: &BTreeMap::new(),
    })
}

fn matches(expression: &Expression, host: &HostName, inventory: &Inventory) -> bool {
    with_scope(host, inventory, |scope| expression.matches(scope))
}

fn fact_names(prefix: &str, value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                fact_names(&format!("{prefix}.{name}"), value, names);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {}
        _ => {
            names.insert(prefix.to_owned());
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
