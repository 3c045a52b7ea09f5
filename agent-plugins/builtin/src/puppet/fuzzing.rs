//! Doors for the fuzzer: what reads Puppet's files.

use std::collections::BTreeMap;

use super::configuration::Configuration;
use super::lock::{Lock, Process, boot_s};
use super::report::Report;
use super::resources;
use super::summary::Summary;
use crate::fuzzing::Reader;

/// Readers of text.
pub const READERS: &[Reader] = &[
    ("configuration", |text| {
        let configuration = Configuration::parse(text);
        let defaults: BTreeMap<&str, String> =
            [("vardir", "/var/lib/puppet".to_owned()), ("statedir", "$vardir/state".to_owned())].into();
        for name in ["vardir", "statedir", "lastrunfile", "agent_disabled_lockfile"] {
            if let Ok(value) = configuration.value(name, &defaults) {
                assert!(value.len() <= 64 * 1024, "a value grows without bound");
            }
        }
    }),
    ("lock", |text| {
        let (stat, content) = text.split_once('\n').unwrap_or((text, "301"));
        let boot = boot_s(content).or(Some(1_795_000_000));
        let process = Process::parse(stat, content.as_bytes(), boot);
        let lock = Lock::judge(content, Some(1_795_000_000_000), process.as_ref());
        let _ = (lock.word(), lock.problem(), lock.holder().map(super::lock::Holder::shown));
    }),
    ("report", |text| {
        if let Ok(report) = Report::parse(text) {
            let report = report.explain();
            let _ = (report.started_ms(), report.was_interrupted(), report.reason(), report.left_out());
        }
    }),
    ("resources", |text| {
        let (total, types) = resources::count(text);
        assert!(types.len() as u64 <= total);
        let _ = resources::manages(text, "file[/etc/motd]");
    }),
    ("summary", |text| {
        if let Ok(summary) = Summary::parse(text) {
            let _ = (summary.result(), summary.count("failed"), summary.seconds("total"));
        }
    }),
];
