//! Secret arguments: held so that they cannot be shown by mistake, and sealed to each host that is asked.
//!
//! A host's key is asked of the host itself, right before the command; the report that carries it is signed
//! by the host, so whoever stands in between cannot put in another. Nobody is asked by broadcast: what is secret
//! goes only to hosts that were named and gave a key. See `docs/adr/0017-secret-arguments.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use muster_pki::sealing::SealingPublicKey;
use muster_protocol::{ActionName, HostName, Options, PluginName, TaskState};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use crate::asking::Summary;
use crate::collect::HostRecord;
use crate::question::{Audience, Question};

/// How long a host may take to tell its key, in milliseconds: no program has to run for it.
const KEY_MS_MAX: i64 = 10_000;

/// The values of secret arguments. They are overwritten in memory when this is dropped, and `Debug` shows names only.
#[derive(Clone, Default, PartialEq)]
pub struct Secrets(Map<String, Value>);

impl Secrets {
    /// Takes the values over.
    #[must_use]
    pub fn new(values: Map<String, Value>) -> Self {
        Self(values)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the arguments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values, to be sealed.
    pub(crate) fn values(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.0.values_mut().for_each(overwrite);
    }
}

/// Overwrites every text in a value. Numbers are forgotten with the rest.
fn overwrite(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(elements) => elements.iter_mut().for_each(overwrite),
        Value::Object(fields) => fields.values_mut().for_each(overwrite),
        other => *other = Value::Null,
    }
}

/// The question for the keys of some hosts.
#[must_use]
pub fn question(hosts: BTreeSet<HostName>) -> Question {
    let plugin: PluginName = "host".parse().expect("a plain word is a plugin name");
    let action: ActionName = "sealing_key".parse().expect("a plain word is an action name");
    let options = Options { progress: false, ..Options::default() };
    Question {
        options,
        time_limit_ms: KEY_MS_MAX,
        queue_ms: Some(KEY_MS_MAX.unsigned_abs()),
        ..Question::new(Audience::Hosts(hosts), plugin, action)
    }
}

/// What came of it: the keys, and the hosts that gave none with what they said instead.
#[must_use]
pub fn keys(summary: Summary) -> (BTreeMap<HostName, SealingPublicKey>, BTreeMap<HostName, HostRecord>) {
    let mut keys = BTreeMap::new();
    let mut without = BTreeMap::new();
    for (host, record) in summary.hosts {
        let succeeded = record.result.as_ref().filter(|_| record.state == TaskState::Succeeded);
        let key = succeeded.and_then(|result| result.data.get("sealing_key")?.as_str()?.parse().ok());
        match key {
            Some(key) => drop(keys.insert(host, key)),
            None => drop(without.insert(host, record)),
        }
    }
    (keys, without)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_shows_a_secret() {
        let Value::Object(values) = json!({"password": "hunter2", "more": ["hunter2"]}) else { unreachable!() };
        let mut question = question(BTreeSet::new());
        question.secrets = Secrets::new(values);
        assert!(!format!("{question:?} {question:#?}").contains("hunter2"));
        assert_eq!(question.secrets.names().collect::<Vec<_>>(), ["more", "password"]);
    }

    #[test]
    fn every_text_is_overwritten() {
        let mut value = json!({"a": "x", "b": ["y", {"c": "z"}], "n": 4711});
        overwrite(&mut value);
        assert_eq!(value, json!({"a": "", "b": ["", {"c": ""}], "n": null}));
    }
}
