//! Doors for the fuzzer: what reads the output and the files of package managers.

use std::cmp::Ordering;

use super::entry::Snapshot;
use super::repositories::Form;
use super::{apk, apt, diff, dnf, dpkg, lock, repositories, rpm, version, wanted, zypper};
use crate::fuzzing::Reader;

/// Readers of text.
pub const READERS: &[Reader] = &[
    ("apk-database", |text| drop(apk::installed::parse(text))),
    ("apk-simulation", |text| drop(apk::planned(text))),
    ("apt-simulation", |text| {
        drop(apt::simulation::planned(text));
        drop(apt::simulation::updates(text));
        drop(apt::simulation::shown(text));
    }),
    ("dnf-transaction", |text| drop(dnf::table::planned(text, &Snapshot::default()))),
    ("dnf-updates", |text| {
        drop(dnf::table::repoquery(text, &Snapshot::default()));
        drop(dnf::table::check_update(text, &Snapshot::default()));
    }),
    ("dpkg-query", |text| {
        drop(dpkg::parse(text));
        drop(dpkg::parse_providers(text, "mail-transport-agent"));
    }),
    ("locks", |text| {
        let _ = lock::parse_locks(text, 8, 1, 456);
        let shown = lock::shown_command(text.as_bytes());
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }),
    ("repositories", |text| {
        for form in [Form::AptLines, Form::AptStanzas, Form::Ini, Form::ApkLines] {
            drop(repositories::parse(form, text));
        }
    }),
    ("rpm-query", |text| {
        drop(rpm::parse(text));
        drop(rpm::parse_providers(text));
    }),
    ("wanted", |text| {
        if wanted::check_name(text).is_ok() {
            assert!(!text.starts_with('-') && !text.contains([' ', '\n', '\0', ';']), "{text:?}");
        }
        if wanted::check_version(text).is_ok() {
            assert!(!text.starts_with('-') && !text.contains([' ', '\n', '\0', ';']), "{text:?}");
        }
    }),
    ("zypper", |text| {
        drop(zypper::planned(text));
        drop(zypper::updates(text));
    }),
];

/// A manager's name and its order of versions.
pub type VersionOrder = (&'static str, fn(&str, &str) -> Ordering);

/// How the managers order versions.
pub const VERSION_ORDERS: &[VersionOrder] =
    &[("debian", version::debian), ("rpm", version::rpm), ("apk", version::apk)];

/// Two states of dpkg's database: nothing changes between a state and itself, and every change has one side at least.
pub fn diff(before: &str, after: &str) {
    let (Ok(before), Ok(after)) = (dpkg::parse(before), dpkg::parse(after)) else { return };
    let (before, after) = (Snapshot(before), Snapshot(after));
    assert!(diff::diff(&before, &before, version::debian, true).is_empty(), "nothing changed");
    let changes = diff::diff(&before, &after, version::debian, true);
    assert!(changes.len() <= before.0.len() + after.0.len());
}
