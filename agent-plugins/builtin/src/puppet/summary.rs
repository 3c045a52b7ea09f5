//! `last_run_summary.yaml`, which Puppet writes at the end of each run.

use serde_json::Value;

/// What the plugin tells of the last run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) last_run_s: Option<i64>,
    pub(super) config_version: Option<String>,
    pub(super) puppet_version: Option<String>,
    pub(super) total_resources: Option<u64>,
    pub(super) changed_resources: Option<u64>,
    pub(super) failed_resources: Option<u64>,
}

impl Summary {
    /// Reads the file. Numbers and texts are taken as they come: their types differ between versions of Puppet.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let tree: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if !tree.is_object() {
            return Err("it is not a map".to_owned());
        }
        let number = |path: &str| tree.pointer(path).and_then(whole);
        let word = |path: &str| match tree.pointer(path)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let count = |path: &str| number(path).and_then(|count| u64::try_from(count).ok());
        Ok(Self {
            last_run_s: number("/time/last_run"),
            config_version: word("/version/config"),
            puppet_version: word("/version/puppet"),
            total_resources: count("/resources/total"),
            changed_resources: count("/resources/changed"),
            failed_resources: count("/resources/failed"),
        })
    }

    /// A run that did not get as far as its resources, since it had no catalog, has failed.
    pub(super) fn result(&self) -> &'static str {
        match (self.last_run_s, self.failed_resources, self.changed_resources) {
            (None, ..) => "unknown",
            (_, None, _) => "failed",
            (_, Some(1..), _) => "failed",
            (_, _, Some(1..)) => "changed",
            _ => "unchanged",
        }
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
        let expected = Summary {
            last_run_s: Some(1_795_162_500),
            config_version: Some("1795162440".to_owned()),
            puppet_version: Some("7.23.0".to_owned()),
            total_resources: Some(87),
            changed_resources: Some(2),
            failed_resources: Some(0),
        };
        assert_eq!(Summary::parse(WHOLE), Ok(expected));
        assert_eq!(Summary::parse(WHOLE).unwrap().result(), "changed");
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
        check(&WHOLE.replace("config: 1795162440", "config: 4f2a91c"), Some("4f2a91c"), "changed");
        check(&WHOLE.replace("config: 1795162440", "config:"), None, "changed");
        check(
            "--- !ruby/hash:ActiveSupport::HashWithIndifferentAccess\nversion:\n  config: !ruby/string main\ntime:\n  \
               last_run: !ruby/object:Integer 1795162500\nresources:\n  failed: 0\n  changed: 0\n  total: 1\n",
            Some("main"),
            "unchanged",
        );
        check("---\nversion:\n  config: \n  puppet: 8.1.0\ntime:\n  last_run: 1795162500\n", None, "failed");
        check("---\nversion: {}\n", None, "unknown");
    }

    #[test]
    fn what_is_not_a_summary_is_refused() {
        for bad in ["", "just a word", "- a\n- b\n", "a: [1, 2"] {
            assert!(Summary::parse(bad).is_err(), "{bad:?}");
        }
    }
}
