//! `last_run_summary.yaml`, which Puppet writes at the end of each run.

use serde_json::{Map, Value};

/// What the file says. Groups of numbers are passed on as they are: which there are differs between versions of Puppet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) last_run_s: Option<i64>,
    pub(super) config_version: Option<String>,
    pub(super) puppet_version: Option<String>,
    /// `agent` for a run of the agent; `user` for `puppet apply`.
    pub(super) run_mode: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) resources: Map<String, Value>,
    pub(super) changes: Map<String, Value>,
    pub(super) events: Map<String, Value>,
    pub(super) times: Map<String, Value>,
}

/// Groups are small; a file with more in one than this is none of Puppet's.
const GROUP_ENTRIES_MAX: usize = 500;

impl Summary {
    /// Reads the file. Numbers and texts are taken as they come: their types differ between versions of Puppet.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let tree: Value = serde_saphyr::from_str(text).map_err(|error| crate::yaml::explain(&error))?;
        let Value::Object(tree) = tree else { return Err("it is not a map".to_owned()) };
        let tree = Value::Object(tree);
        let word = |path: &str| match tree.pointer(path)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        Ok(Self {
            last_run_s: tree.pointer("/time/last_run").and_then(whole),
            config_version: word("/version/config"),
            puppet_version: word("/version/puppet"),
            run_mode: word("/application/run_mode"),
            environment: word("/application/converged_environment"),
            resources: group(&tree, "resources")?,
            changes: group(&tree, "changes")?,
            events: group(&tree, "events")?,
            times: group(&tree, "time")?,
        })
    }

    /// One of the counts of resources.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.resources.get(name).and_then(whole).and_then(|count| u64::try_from(count).ok())
    }

    /// One of the durations, in seconds.
    pub(super) fn seconds(&self, name: &str) -> Option<f64> {
        self.times.get(name).and_then(Value::as_f64)
    }

    /// How the run went, in one word: unchanged, changed, failed, or unknown if there was none.
    ///
    /// A run that had no catalog has failed. Up to Puppet 5 it has no counts of resources; since then they are
    /// all 0, and there is no version of a configuration.
    pub(super) fn result(&self) -> &'static str {
        let failed = self.count("failed").zip(self.count("failed_to_restart").or(Some(0))).map(|(a, b)| a.max(b));
        match (self.last_run_s, failed, self.count("changed")) {
            (None, ..) => "unknown",
            (_, None | Some(1..), _) => "failed",
            _ if self.config_version.is_none() && self.count("total") == Some(0) => "failed",
            (_, _, Some(1..)) => "changed",
            _ => "unchanged",
        }
    }
}

/// The scalars of a group; none if there is no such group.
fn group(tree: &Value, name: &str) -> Result<Map<String, Value>, String> {
    match tree.get(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(entries)) if entries.len() <= GROUP_ENTRIES_MAX => {
            let scalar = |value: &Value| !value.is_object() && !value.is_array();
            let entries = entries.iter().filter(|(_, value)| scalar(value));
            Ok(entries.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        Some(_) => Err(format!("`{name}` is not a group of numbers")),
    }
}

/// `1795162500`, `1795162500.0` or `"1795162500"`.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds and counts, far below 2^53")]
        value => value.as_i64().or_else(|| value.as_f64().map(|number| number as i64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "---\nversion:\n  config: 1795162440\n  puppet: 7.23.0\nresources:\n  changed: 2\n  \
        corrective_change: 0\n  failed: 0\n  failed_to_restart: 0\n  out_of_sync: 2\n  restarted: 0\n  scheduled: 0\n  \
        skipped: 0\n  total: 87\ntime:\n  config_retrieval: 1.25\n  file: 0.044\n  last_run: 1795162500\n  total: 3.5\n\
        changes:\n  total: 2\nevents:\n  failure: 0\n  success: 2\n  total: 2\n";

    #[test]
    fn a_run_that_changed_something() {
        let summary = Summary::parse(WHOLE).unwrap();
        assert_eq!((summary.last_run_s, summary.result()), (Some(1_795_162_500), "changed"));
        assert_eq!(summary.config_version.as_deref(), Some("1795162440"));
        assert_eq!(
            (summary.count("total"), summary.count("changed"), summary.count("nothing")),
            (Some(87), Some(2), None)
        );
        assert_eq!((summary.seconds("total"), summary.events.len()), (Some(3.5), 3));
    }

    #[track_caller]
    fn check(text: &str, config_version: Option<&str>, result: &str) {
        let summary = Summary::parse(text).unwrap();
        assert_eq!((summary.config_version.as_deref(), summary.result()), (config_version, result));
    }

    #[test]
    fn what_versions_of_puppet_write() {
        check(&WHOLE.replace("changed: 2", "changed: 0"), Some("1795162440"), "unchanged");
        check(&WHOLE.replace("failed: 0", "failed: 3"), Some("1795162440"), "failed");
        check(&WHOLE.replace("restart: 0", "restart: 1"), Some("1795162440"), "failed");
        check(&WHOLE.replace("config: 1795162440", "config: 4f2a91c"), Some("4f2a91c"), "changed");
        check(&WHOLE.replace("config: 1795162440", "config:"), None, "changed");
        check(
            "--- !ruby/hash:ActiveSupport::HashWithIndifferentAccess\nversion:\n  config: !ruby/string main\ntime:\n  \
               last_run: !ruby/object:Integer 1795162500\nresources:\n  failed: 0\n  changed: 0\n  total: 1\n",
            Some("main"),
            "unchanged",
        );
        // No catalog: Puppet 5 and before, and since.
        check("---\nversion:\n  config: \n  puppet: 5.5.22\ntime:\n  last_run: 1795162500\n", None, "failed");
        let none = "---\nversion:\n  config:\n  puppet: 8.10.0\nresources:\n  changed: 0\n  failed: 0\n  total: 0\n\
            time:\n  last_run: 1795162500\n";
        check(none, None, "failed");
        check("---\nversion: {}\n", None, "unknown");
    }

    #[test]
    fn what_is_not_a_summary_is_refused() {
        let many: String = (0..600).map(|n| format!("  t{n}: 1\n")).collect();
        for bad in ["", "just a word", "- a\n- b\n", "a: [1, 2", "time: 7\n", &format!("time:\n{many}")] {
            assert!(Summary::parse(bad).is_err(), "{bad:?}");
        }
    }
}
