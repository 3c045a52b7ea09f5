//! `last_run_report.yaml`: everything Puppet knows of its last run.
//!
//! The file grows with the catalog, to megabytes on large hosts. It is read once through, and only
//! what is bounded is kept: the head, errors, and the first resources that failed, changed or would
//! have changed.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use muster_plugin_api::ActionFailure;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files;
use crate::yaml::explain;

/// Largest report that is read. A resource takes about 1.3 KB, so that this is a catalog of 20,000.
const REPORT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How many resources and errors of each kind are kept.
const ENTRIES_MAX: usize = 40;

/// Longest message that is kept, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 400;

/// Longest error in the reason for a run that failed, in characters.
const REASON_CHARACTERS_MAX: usize = 250;

/// Longest name of a resource that is kept, in characters.
const RESOURCE_CHARACTERS_MAX: usize = 200;

/// What Puppet logs after the reason.
const CONSEQUENCE: &str = "Could not retrieve catalog; skipping run";

/// What is kept of a report.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    pub(super) time: Option<String>,
    transaction_uuid: Option<String>,
    configuration_version: Scalar,
    puppet_version: Option<String>,
    status: Option<String>,
    transaction_completed: Option<bool>,
    pub(super) noop: Option<bool>,
    pub(super) environment: Option<String>,
    pub(super) cached_catalog_status: Option<String>,
    logs: Errors,
    resource_statuses: Resources,
}

/// A resource of which something is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Resource {
    pub(super) resource: String,
    pub(super) message: String,
    file: Option<String>,
    line: Option<u64>,
}

/// An error that Puppet logged, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ErrorMessage {
    source: String,
    pub(super) message: String,
    count: u64,
}

/// A text, or a number that is meant as one.
#[derive(Debug, Default)]
struct Scalar(Option<String>);

#[derive(Debug, Default)]
struct Errors(Vec<ErrorMessage>);

#[derive(Debug, Default)]
struct Resources {
    failed: Vec<Resource>,
    changed: Vec<Resource>,
    pending: Vec<Resource>,
    left_out: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Log {
    level: Option<String>,
    source: Option<String>,
    message: Scalar,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    file: Option<String>,
    line: Option<u64>,
    failed: Option<bool>,
    failed_to_restart: Option<bool>,
    changed: Option<bool>,
    events: Vec<Event>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    status: Option<String>,
    property: Scalar,
    message: Scalar,
}

impl Report {
    /// Reads the report of the last run; `None` if there is none, as where the setting `report` is off.
    ///
    /// # Errors
    /// When it is too large or is not a report.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, ActionFailure> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if files::is_missing(&error) => return Ok(None),
            Err(error) => return Err(files::failure(path, "read", &error)),
        };
        let length = file.metadata().map_err(|error| files::failure(path, "read", &error))?.len();
        if length > REPORT_BYTES_MAX {
            let message =
                format!("`{}` has {length} bytes, more than the {REPORT_BYTES_MAX} that are read", path.display());
            return Err(ActionFailure::failed(message));
        }
        let mut text = String::new();
        file.take(REPORT_BYTES_MAX).read_to_string(&mut text).map_err(|error| files::failure(path, "read", &error))?;
        Self::parse(&text).map(|report| Some(report.explain())).map_err(|why| {
            ActionFailure::failed(format!("`{}` is not a report of a Puppet run: {why}", path.display()))
        })
    }

    /// Reads the text of a report. Of its text and not of its file: reading while parsing needs the decoders of forty
    /// character sets and the parser a second time, together a quarter of a megabyte of program.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 20_000_000,
                max_nodes: 10_000_000,
                max_anchors: 200_000,
                max_aliases: 1_000_000,
            },
        };
        let report: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(&error))?;
        if report.id().is_none() {
            return Err("it does not say of which run".to_owned());
        }
        Ok(report)
    }

    /// What tells this run from every other.
    pub(super) fn id(&self) -> Option<&str> {
        self.transaction_uuid.as_deref().or(self.time.as_deref())
    }

    /// The run's number, as Puppet's server knows it.
    pub(super) fn transaction_uuid(&self) -> Option<String> {
        self.transaction_uuid.clone()
    }

    pub(super) fn config_version(&self) -> Option<String> {
        self.configuration_version.0.clone()
    }

    pub(super) fn puppet_version(&self) -> Option<String> {
        self.puppet_version.clone()
    }

    /// When the run began, in milliseconds since 1970.
    pub(super) fn started_ms(&self) -> Option<i64> {
        let time = self.time.as_deref()?;
        // `2026-11-21T03:49:35.759245487+00:00`, and `2026-11-21 03:49:35.759245487 +00:00` of older versions.
        let time = time.replacen(" +", "+", 1).replacen(" -", "-", 1).replacen(" Z", "Z", 1);
        time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
    }

    /// Whether the run was stopped before its end.
    pub(super) fn was_interrupted(&self) -> bool {
        self.transaction_completed == Some(false) && self.configuration_version.0.is_some()
    }

    /// Whether Puppet itself says that the run failed.
    pub(super) fn has_failed(&self) -> bool {
        self.status.as_deref() == Some("failed")
    }

    pub(super) fn failed(&self) -> &[Resource] {
        &self.resource_statuses.failed
    }

    pub(super) fn changed(&self) -> &[Resource] {
        &self.resource_statuses.changed
    }

    /// What a run that may change nothing would have changed.
    pub(super) fn pending(&self) -> &[Resource] {
        &self.resource_statuses.pending
    }

    pub(super) fn errors(&self) -> &[ErrorMessage] {
        &self.logs.0
    }

    /// Why there was no catalog: the first and the last error of Puppet itself, without the sentence that is only
    /// about the consequence. The last one alone may be "no more routes", the first one only a warning of it.
    pub(super) fn reason(&self) -> Option<String> {
        let own = self.logs.0.iter().filter(|error| error.source == "Puppet" && error.message != CONSEQUENCE);
        let lines: Vec<_> = own.filter_map(|error| error.message.lines().next()).collect();
        let shown = |line: &&str| files::cut(line, REASON_CHARACTERS_MAX);
        match lines.as_slice() {
            [] => None,
            [only] => Some(shown(only)),
            [first, .., last] => Some(format!("{}; {}", shown(first), shown(last))),
        }
    }

    /// How many resources are not in the lists, for their length.
    pub(super) fn left_out(&self) -> u64 {
        self.resource_statuses.left_out
    }

    /// Messages for resources that failed without saying why: Puppet then only logged it.
    pub(super) fn explain(mut self) -> Self {
        for resource in &mut self.resource_statuses.failed {
            if resource.message.is_empty() {
                let about = |error: &&ErrorMessage| error.source.contains(&resource.resource);
                resource.message =
                    self.logs.0.iter().find(about).map(|error| error.message.clone()).unwrap_or_default();
            }
        }
        self
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Null => None,
            Value::String(text) => (!text.is_empty()).then_some(text),
            other => Some(other.to_string()),
        }))
    }
}

impl<'de> Deserialize<'de> for Errors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Logs;
        impl<'de> Visitor<'de> for Logs {
            type Value = Errors;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the list of what was logged")
            }

            fn visit_unit<E>(self) -> Result<Errors, E> {
                Ok(Errors::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut logs: A) -> Result<Errors, A::Error> {
                let mut errors = Errors::default();
                while let Some(log) = logs.next_element::<Log>()? {
                    errors.take(log);
                }
                Ok(errors)
            }
        }
        deserializer.deserialize_any(Logs)
    }
}

impl Errors {
    fn take(&mut self, log: Log) {
        let level = log.level.unwrap_or_default();
        if !matches!(level.trim_start_matches(':'), "err" | "alert" | "emerg" | "crit") {
            return;
        }
        let source = files::cut(&log.source.unwrap_or_default(), RESOURCE_CHARACTERS_MAX);
        let message = files::cut(&log.message.0.unwrap_or_default(), MESSAGE_CHARACTERS_MAX);
        let same = |error: &&mut ErrorMessage| error.source == source && error.message == message;
        if let Some(known) = self.0.iter_mut().find(same) {
            known.count += 1;
        } else if self.0.len() < ENTRIES_MAX {
            self.0.push(ErrorMessage { source, message, count: 1 });
        }
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Statuses;
        impl<'de> Visitor<'de> for Statuses {
            type Value = Resources;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the states of the resources by name")
            }

            fn visit_unit<E>(self) -> Result<Resources, E> {
                Ok(Resources::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut none: A) -> Result<Resources, A::Error> {
                while none.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Resources::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut statuses: A) -> Result<Resources, A::Error> {
                let mut resources = Resources::default();
                while let Some((name, status)) = statuses.next_entry::<String, Status>()? {
                    resources.take(&name, status);
                }
                Ok(resources)
            }
        }
        deserializer.deserialize_any(Statuses)
    }
}

impl Resources {
    fn take(&mut self, name: &str, status: Status) {
        let said = |wanted: &str| {
            let mut events = status.events.iter().filter(|event| event.status.as_deref() == Some(wanted));
            events.find_map(|event| event.message.0.as_deref().map(|message| (event.property.0.as_deref(), message)))
        };
        let (list, said) = if status.failed == Some(true) || status.failed_to_restart == Some(true) {
            (&mut self.failed, said("failure"))
        } else if status.changed == Some(true) {
            (&mut self.changed, said("success"))
        } else if let Some(pending) = said("noop") {
            (&mut self.pending, Some(pending))
        } else {
            return;
        };
        if list.len() >= ENTRIES_MAX {
            self.left_out += 1;
            return;
        }
        let message = match said {
            Some((Some(property), message)) => format!("{property}: {message}"),
            Some((None, message)) => message.to_owned(),
            None => String::new(),
        };
        list.push(Resource {
            resource: files::cut(name, RESOURCE_CHARACTERS_MAX),
            message: files::cut(&message, MESSAGE_CHARACTERS_MAX),
            file: status.file.map(|file| files::cut(&file, RESOURCE_CHARACTERS_MAX)),
            line: status.line,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "--- !ruby/object:Puppet::Transaction::Report\nhost: web1.example.com\n\
        time: '2026-11-21T03:49:35.759245487+00:00'\nconfiguration_version: release-17\n\
        transaction_uuid: d8b0a4d5-0a44-440c-bfbd-ca720b14179f\nreport_format: 12\npuppet_version: 7.23.0\n\
        status: failed\ntransaction_completed: true\nnoop: false\nenvironment: production\n";

    fn parse(text: &str) -> Result<Report, String> {
        Report::parse(text).map(Report::explain)
    }

    #[test]
    fn the_head() {
        let report = parse(HEAD).unwrap();
        assert_eq!(report.id(), Some("d8b0a4d5-0a44-440c-bfbd-ca720b14179f"));
        assert_eq!(report.started_ms(), Some(1_795_232_975_759));
        assert_eq!((report.has_failed(), report.was_interrupted(), report.noop), (true, false, Some(false)));
        assert!(parse(&HEAD.replace("completed: true", "completed: false")).unwrap().was_interrupted());
        let without_catalog = HEAD.replace("completed: true", "completed: false").replace(" release-17", "");
        assert!(!parse(&without_catalog).unwrap().was_interrupted(), "there was nothing to interrupt");
        for (time, expected) in [
            ("2026-11-21 03:49:35.759245487 +00:00", Some(1_795_232_975_759)),
            ("2026-11-21 04:49:35 +01:00", Some(1_795_232_975_000)),
            ("2026-11-21 03:49:35 Z", Some(1_795_232_975_000)),
            ("yesterday", None),
        ] {
            let text = HEAD.replace("'2026-11-21T03:49:35.759245487+00:00'", time);
            assert_eq!(parse(&text).unwrap().started_ms(), expected, "{time}");
        }
    }

    #[test]
    fn resources_and_errors() {
        let statuses = "resource_statuses:\n  File[/a]:\n    failed: false\n    changed: true\n    events:\n    \
            - status: success\n      property: ensure\n      message: defined content as 'x'\n  Exec[/bin/false]:\n    \
            file: \"/site.pp\"\n    line: 3\n    failed: true\n    changed: false\n    events:\n    - status: success\n    \
            - status: failure\n      property: returns\n      message: 'returned 1'\n  Package[x]:\n    failed: true\n    \
            events: []\n  Service[y]:\n    failed_to_restart: true\n    events: []\n  File[/b]:\n    changed: false\n    \
            events:\n    - status: noop\n      property:\n      message: should be file (noop)\n  Schedule[puppet]:\n    \
            changed: false\n    events: []\n";
        let logs = "logs:\n- level: info\n  message: nothing\n- level: err\n  source: \"/Stage[main]/Package[x]\"\n  \
            message: no candidate\n- level: :err\n  source: Facter\n  message: denied\n- level: err\n  \
            source: Facter\n  message: denied\n- level: warning\n  message: old\n";
        let report = parse(&format!("{HEAD}{logs}{statuses}")).unwrap();
        let told = json!([report.failed(), report.changed(), report.pending(), report.errors(), report.left_out()]);
        let resource =
            |name: &str, message: &str| json!({ "resource": name, "message": message, "file": null, "line": null });
        let expected = json!([
            [
                { "resource": "Exec[/bin/false]", "message": "returns: returned 1", "file": "/site.pp", "line": 3 },
                resource("Package[x]", "no candidate"),
                resource("Service[y]", ""),
            ],
            [resource("File[/a]", "ensure: defined content as 'x'")],
            [resource("File[/b]", "should be file (noop)")],
            [
                { "source": "/Stage[main]/Package[x]", "message": "no candidate", "count": 1 },
                { "source": "Facter", "message": "denied", "count": 2 },
            ],
            0,
        ]);
        assert_eq!(told, expected);
    }

    #[test]
    fn what_versions_of_puppet_write() {
        // Puppet 4 and 5 dump symbols, repeat things by reference, and have other keys between.
        let old = "--- !ruby/object:Puppet::Transaction::Report\nmetrics:\n  resources: !ruby/object:Puppet::Util::Metric\n    \
            name: resources\n    values:\n    - - total\n      - Total\n      - 2\nlogs:\n- !ruby/object:Puppet::Util::Log\n  \
            level: :err\n  tags: &1 !ruby/object:Puppet::Util::TagSet\n    hash:\n      err: true\n  \
            message: &2 broken\n  source: Puppet\nresource_statuses:\n  File[/a]: !ruby/object:Puppet::Resource::Status\n    \
            tags: *1\n    failed: true\n    events:\n    - !ruby/object:Puppet::Transaction::Event\n      \
            status: failure\n      property: !ruby/sym ensure\n      message: *2\ntime: 2017-03-01 10:00:00.5 +01:00\n\
            transaction_uuid: 8a0e\nconfiguration_version: 1488358800\npuppet_version: 5.5.22\nstatus: failed\n";
        let report = parse(old).unwrap();
        assert_eq!((report.id(), report.config_version().as_deref()), (Some("8a0e"), Some("1488358800")));
        assert_eq!((report.failed()[0].message.as_str(), report.errors().len()), ("ensure: broken", 1));
        assert_eq!((report.started_ms(), report.was_interrupted()), (Some(1_488_358_800_500), false));
        for empty in ["logs: []\nresource_statuses: {}\n", "logs:\nresource_statuses:\n", "resource_statuses: []\n"] {
            assert!(parse(&format!("{HEAD}{empty}")).is_ok(), "{empty}");
        }
    }

    #[test]
    fn much_is_cut_and_garbage_is_refused() {
        let mut text = format!("{HEAD}resource_statuses:\n");
        for number in 0..200 {
            text.push_str(&format!(
                "  File[/{number}]:\n    failed: true\n    events:\n    - status: failure\n      message: {}\n",
                "m".repeat(2_000)
            ));
        }
        let report = parse(&text).unwrap();
        assert_eq!((report.failed().len(), report.left_out()), (ENTRIES_MAX, 200 - ENTRIES_MAX as u64));
        assert_eq!(report.failed()[0].message.chars().count(), MESSAGE_CHARACTERS_MAX + 1);
        for character in ["\u{1}", "\n", "😀", "\""] {
            let long = character.repeat(1_000);
            let (name, message) =
                (files::cut(&long, RESOURCE_CHARACTERS_MAX), files::cut(&long, MESSAGE_CHARACTERS_MAX));
            let entry = json!({ "resource": name, "message": message, "file": name, "line": 1 });
            let four_lists = entry.to_string().len() * ENTRIES_MAX * 4;
            assert!(four_lists + 100_000 < muster_protocol::limits::RESULT_BYTES_MAX, "{character:?} {four_lists}");
        }
        let mut bomb = String::from("a0: &a0 [x, x]\n");
        for level in 1..40 {
            bomb.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
        }
        bomb.push_str("logs: *a39\n");
        for bad in ["", "just a word", "- a\n", "a: [1, 2", "logs: 7\n", "time: [1]\n", &bomb] {
            assert!(parse(bad).is_err(), "{bad:.60?}");
        }
    }
}
