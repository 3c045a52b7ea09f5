use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::version;
use super::*;

fn entry(name: &str, full: &str, status: &str, stamp: u8) -> Entry {
    let (version, release) = full.split_once('-').map_or((full, None), |(version, release)| (version, Some(release)));
    Entry {
        name: name.to_owned(),
        ensure: full.to_owned(),
        installed: status == "installed",
        version: version.to_owned(),
        release: release.map(str::to_owned),
        epoch: None,
        arch: "all".to_owned(),
        status: status.to_owned(),
        full: full.to_owned(),
        stamp: stamp.to_string(),
    }
}

/// `None` stands for a package that is not in the database.
#[track_caller]
fn check(before: Option<(&str, &str)>, after: Option<(&str, &str)>, change: Option<&str>) {
    let snapshot =
        |state: Option<(&str, &str)>| Snapshot(state.map(|(v, s)| entry("a", v, s, 0)).into_iter().collect());
    let touched = diff(&snapshot(before), &snapshot(after), version::debian, true);
    let seen: Vec<_> = touched.iter().map(|touched| touched.change.as_str()).collect();
    assert_eq!(seen, Vec::from_iter(change), "{before:?} to {after:?}");
}

#[test]
fn every_change_has_its_word() {
    check(None, Some(("1-1", "installed")), Some("installed"));
    check(None, Some(("1-1", "half-configured")), Some("installed"));
    check(Some(("1-1", "installed")), Some(("1-1", "installed")), None);
    check(Some(("1-1", "installed")), Some(("2-1", "installed")), Some("updated"));
    check(Some(("2-1", "installed")), Some(("1-1", "installed")), Some("downgraded"));
    check(Some(("1-1", "installed")), Some(("1-1", "config-files")), Some("removed"));
    check(Some(("1-1", "installed")), None, Some("purged"));
    check(Some(("1-1", "config-files")), None, Some("purged"));
    check(Some(("1-1", "config-files")), Some(("1-1", "installed")), Some("installed"));
    check(Some(("1-1", "config-files")), Some(("2-1", "installed")), Some("installed"));
    check(Some(("1-1", "half-configured")), Some(("1-1", "installed")), Some("configured"));
    check(Some(("1-1", "installed")), Some(("2-1", "half-configured")), Some("updated"));
    check(Some(("1-1", "config-files")), Some(("1-1", "config-files")), None);
}

#[test]
fn versions_before_and_after() {
    let before = Snapshot(vec![entry("a", "1-1", "installed", 0), entry("b", "3", "installed", 0)]);
    let after = Snapshot(vec![entry("a", "2-5", "installed", 0), entry("b", "3", "config-files", 0)]);
    let touched = diff(&before, &after, version::debian, true);
    let [a, b] = &touched[..] else { panic!("{touched:?}") };
    assert_eq!((a.version.as_deref(), a.release.as_deref()), (Some("2"), Some("5")));
    assert_eq!((a.previous_version.as_deref(), a.previous_release.as_deref()), (Some("1"), Some("1")));
    assert_eq!(
        (b.version.as_deref(), b.status.as_str(), b.previous_version.as_deref()),
        (None, "config-files", Some("3"))
    );
}

#[test]
fn a_manager_without_left_configuration_only_removes() {
    let before = Snapshot(vec![entry("a", "1-1", "installed", 0)]);
    let touched = diff(&before, &Snapshot::default(), version::rpm, false);
    assert_eq!((touched[0].change, touched[0].status.as_str()), (Change::Removed, "absent"));
}

#[test]
fn a_second_kernel_is_installed_beside_the_first() {
    let before = Snapshot(vec![entry("kernel", "5-1", "installed", 1)]);
    let after = Snapshot(vec![entry("kernel", "6-1", "installed", 2), entry("kernel", "5-1", "installed", 1)]);
    let touched = diff(&before, &after, version::rpm, false);
    assert_eq!(touched.len(), 1);
    assert_eq!((touched[0].change, touched[0].version.as_deref()), (Change::Installed, Some("6")));
}

#[test]
fn the_same_version_put_there_again() {
    let before = Snapshot(vec![entry("a", "1-1", "installed", 1)]);
    let after = Snapshot(vec![entry("a", "1-1", "installed", 2)]);
    assert_eq!(diff(&before, &after, version::rpm, false)[0].change, Change::Reinstalled);
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let state = prop::sample::select(vec!["installed", "config-files", "half-configured", "unpacked"]);
    // One version for each name: so it is with dpkg and apk.
    prop::collection::btree_map("[a-e]", ("[1-3]-[1-2]", state, 0_u8..2), 0..5)
        .prop_map(|packages| Snapshot(packages.iter().map(|(n, (v, s, t))| entry(n, v, s, *t)).collect()))
}

fn changes(before: &Snapshot, after: &Snapshot) -> BTreeMap<String, Change> {
    let touched = diff(before, after, version::debian, true);
    let count = touched.len();
    let changes: BTreeMap<_, _> = touched.into_iter().map(|touched| (touched.name, touched.change)).collect();
    assert_eq!(changes.len(), count, "one package, one change");
    changes
}

proptest! {
    #[test]
    fn nothing_differs_from_itself(snapshot in snapshot()) {
        prop_assert_eq!(diff(&snapshot, &snapshot, version::debian, true), []);
    }

    #[test]
    fn exactly_what_differs_is_named(before in snapshot(), after in snapshot()) {
        let by_name = |snapshot: &Snapshot| -> BTreeMap<String, Entry> {
            snapshot.0.iter().map(|entry| (entry.name.clone(), entry.clone())).collect()
        };
        let (was, is) = (by_name(&before), by_name(&after));
        let names: std::collections::BTreeSet<_> = was.keys().chain(is.keys()).cloned().collect();
        let differing: Vec<_> = names.into_iter().filter(|name| was.get(name) != is.get(name)).collect();
        prop_assert_eq!(changes(&before, &after).into_keys().collect::<Vec<_>>(), differing);
    }

    #[test]
    fn the_way_back_is_the_opposite(before in snapshot(), after in snapshot()) {
        let (there, back) = (changes(&before, &after), changes(&after, &before));
        for (name, change) in there {
            let back = back.get(&name).copied();
            match change {
                Change::Updated => prop_assert_eq!(back, Some(Change::Downgraded)),
                Change::Downgraded => prop_assert_eq!(back, Some(Change::Updated)),
                Change::Installed => prop_assert!(matches!(back, Some(Change::Removed | Change::Purged))),
                Change::Reinstalled => prop_assert_eq!(back, Some(Change::Reinstalled)),
                Change::Removed => prop_assert_eq!(back, Some(Change::Installed)),
                // Configuration alone that appears is rare: it is called configured.
                Change::Purged => prop_assert!(matches!(back, Some(Change::Installed | Change::Configured))),
                Change::Configured => prop_assert!(matches!(back, Some(Change::Configured | Change::Purged))),
            }
        }
    }

    #[test]
    fn a_version_after_means_that_it_is_there(before in snapshot(), after in snapshot()) {
        for touched in diff(&before, &after, version::debian, true) {
            let present = after.0.iter().any(|entry| entry.name == touched.name && entry.is_present());
            prop_assert_eq!(touched.version.is_some(), present, "{:?}", touched);
        }
    }
}
