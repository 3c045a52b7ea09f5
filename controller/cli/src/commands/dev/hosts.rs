//! The hosts of `muster dev`: names, facts and classes that differ, and the files of their agents.

use std::path::{Path, PathBuf};

use muster_protocol::HostName;
use serde_json::{Value, json};

use super::certificates;
use super::place::{Place, make, write};
use crate::output::Failure;

/// Most agents at once. Each takes some megabytes and a handful of descriptors.
pub(super) const HOSTS_MAX: usize = 20;

/// What an action may take to end by itself after Ctrl-C, in seconds.
pub(super) const STOP_TIMEOUT_S: u64 = 5;

/// What a host that is not called otherwise is to begin with.
const POLICY: &str = include_str!("policy.toml");

/// Name without number and place, class.
const ROLES: [(&str, &str); 4] = [("web", "nginx"), ("db", "postgresql"), ("app", "tomcat"), ("edge", "haproxy")];

/// Role and data centre of each host by its number: the first three are what documentation and first commands show.
const ORDER: [(usize, &str); 6] = [(0, "ams1"), (0, "fra2"), (1, "ams1"), (2, "ams1"), (2, "fra2"), (3, "par1")];

/// A host that exists only here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: HostName,
    pub(super) role: &'static str,
    pub(super) data_center: &'static str,
    pub(super) class: &'static str,
    pub(super) stage: &'static str,
}

/// The first hosts, always the same.
///
/// # Errors
/// Never with a number up to [`HOSTS_MAX`].
pub(super) fn first(count: usize) -> Result<Vec<Host>, Failure> {
    let mut hosts: Vec<Host> = Vec::new();
    for (role, data_center) in ORDER.iter().cycle().take(count.min(HOSTS_MAX)) {
        let Some((role, class)) = ROLES.get(*role).copied() else { continue };
        let number = hosts.iter().filter(|host| host.role == role).count() + 1;
        let name = HostName::new(format!("{role}-{number:02}.{data_center}"))
            .map_err(|error| Failure::unexpected("a host has a bad name", &error))?;
        // One of each kind is for trying things.
        let stage = if number == 1 && role == "web" { "test" } else { "production" };
        hosts.push(Host { name, role, data_center, class, stage });
    }
    Ok(hosts)
}

impl Host {
    /// Facts that its agent finds in a file.
    fn facts(&self) -> Value {
        json!({ "role": self.role, "dc": self.data_center, "stage": self.stage })
    }

    /// The agent's configuration file.
    pub(super) fn config(&self, place: &Place) -> PathBuf {
        place.host(self.name.as_str()).join("musterd.toml")
    }

    /// Where its agent says what it does.
    pub(super) fn status_socket(&self, place: &Place) -> PathBuf {
        place.host(self.name.as_str()).join("state/status.sock")
    }

    /// Writes the agent's files. What its administrator may have changed stays as it is.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn prepare(&self, place: &Place, url: &str) -> Result<(), Failure> {
        let folder = place.host(self.name.as_str());
        for below in ["facts.d", "musterd.d", "plugin.d", "plugins", "files", "state"] {
            make(&folder.join(below))?;
        }
        let facts = serde_json::to_string_pretty(&self.facts()).unwrap_or_default();
        for (name, text) in [
            ("facts.d/site.json", format!("{facts}\n")),
            ("classes.txt", format!("{}\n", self.class)),
            ("policy.toml", POLICY.to_owned()),
        ] {
            let path = folder.join(name);
            if !path.exists() {
                write(&path, &text)?;
            }
        }
        write(&self.config(place), &self.configuration(place, &folder, url)?)
    }

    fn configuration(&self, place: &Place, folder: &Path, url: &str) -> Result<String, Failure> {
        let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let path = |path: &Path| text(&path.display().to_string());
        let below = |name: &str| path(&folder.join(name));
        let (ca, crl) = certificates::trust(place);
        let own = certificates::files(place, &format!("host/{}", self.name))?;
        Ok(format!(
            "# Written by `muster dev` at each start. Changes of yours belong into musterd.d/, in files that end with .toml.\n\n\
             host = {host}\nstate_dir = {state}\n\n\
             [broker]\nurls = [{url}]\n# A few agents do not crowd a broker that comes back.\nreconnect_spread_s = 1\nreconnect_max_s = 2\n\n\
             [pki]\nca = {ca}\ncrl = {crl}\ncertificate = {certificate}\nkey = {key}\n\n\
             [facts]\ndirectory = {facts}\nclasses_file = {classes}\n\n\
             [policy]\nfile = {policy}\n\n\
             [limits]\n# Ctrl-C does not wait for long.\nstop_timeout_s = {STOP_TIMEOUT_S}\n\n\
             # They run as whoever started `muster dev`, and obey nobody but the certificates beside them.\n\
             [plugins]\nenabled = [\"shell\", \"script\", \"file\"]\ndirectories = [{plugins}]\nconfiguration_directory = {plugin_configuration}\n\n\
             [plugins.file]\nread_roots = [{files}]\nwrite_roots = [{files}]\n",
            host = text(self.name.as_str()),
            state = below("state"),
            url = text(url),
            ca = path(&ca),
            crl = path(&crl),
            certificate = path(&own.certificate),
            key = path(&own.key),
            facts = below("facts.d"),
            classes = below("classes.txt"),
            policy = below("policy.toml"),
            plugins = below("plugins"),
            plugin_configuration = below("plugin.d"),
            files = below("files"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hosts_are_always_the_same_and_differ() {
        let names =
            |count: usize| -> Vec<String> { first(count).unwrap().iter().map(|host| host.name.to_string()).collect() };
        assert_eq!(names(3), ["web-01.ams1", "web-02.fra2", "db-01.ams1"]);
        let all = names(HOSTS_MAX);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), HOSTS_MAX, "{all:?}");
        assert_eq!(names(7), all[..7]);
        assert!(all.iter().all(|name| name.len() <= "edge-06.par1".len()), "sockets need short names: {all:?}");
    }
}
