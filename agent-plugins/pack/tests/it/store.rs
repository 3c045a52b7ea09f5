//! Putting archives in place, replacing and removing them, and what a crash leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use muster_plugin_pack::{Allow, Change, Pack, PackError, Store};
use tempfile::TempDir;

use crate::{NOW, authority, pack};

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("plugins"));
    (folder, store)
}

fn install(store: &Store, pack: &Pack, allow: Allow) -> Result<Change, String> {
    let planned = store.plan(pack, allow).map_err(|error| error.to_string());
    let done = store.install(pack, vec!["user/lea".to_owned()], allow, NOW).map_err(|error| error.to_string());
    assert_eq!(planned, done, "what was planned is what is done");
    done
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn from_nothing_to_new_to_old_to_nothing() {
    let authority = authority();
    let (_folder, store) = store();
    let name = "lab".parse().unwrap();
    let (old, new) = (pack(&authority, "1.9.0"), pack(&authority, "1.10.0"));
    assert_eq!(store.installed(&name), None);
    assert_eq!(store.remove(&name).unwrap_err().to_string(), "no pack of plugin `lab` is installed here");
    assert_eq!(install(&store, &old, Allow::Upgrade), Ok(Change::Installed));
    let installed = store.installed(&name).unwrap();
    assert_eq!(
        (installed.manifest.version.as_str(), installed.signed_by.as_slice()),
        ("1.9.0", ["user/lea".to_owned()].as_slice())
    );
    assert_eq!((installed.sha256.as_str(), installed.is_modified), (old.sha256(), false));
    let place = store.directory().join("lab");
    assert_eq!(files(&place), [".pack.json", "lab", "lab.json", "lib"]);
    let mode = |path: &str| place.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(""), mode("lab"), mode("lab.json"), mode("lib"), mode("lib/words.txt")),
        (0o755, 0o755, 0o644, 0o755, 0o644)
    );

    assert_eq!(install(&store, &old, Allow::Upgrade), Ok(Change::Unchanged));
    // 1.10 is newer than 1.9, whatever a text would say.
    assert_eq!(install(&store, &new, Allow::Upgrade), Ok(Change::Upgraded { from: "1.9.0".to_owned() }));
    let refused = "plugin `lab` 1.10.0 is installed, and the pack has 1.9.0";
    assert_eq!(install(&store, &old, Allow::Upgrade), Err(refused.to_owned()));
    assert_eq!(install(&store, &old, Allow::Any), Ok(Change::Downgraded { from: "1.10.0".to_owned() }));
    assert_eq!(files(store.directory()), ["lab"], "nothing lies about");
    assert_eq!(store.remove(&name).unwrap().manifest.version, "1.9.0");
    assert_eq!(files(store.directory()), Vec::<String>::new());
}

#[test]
fn another_content_of_the_same_version_has_to_be_asked_for() {
    let authority = authority();
    let (_folder, store) = store();
    install(&store, &pack(&authority, "1.0"), Allow::Upgrade).unwrap();
    let lea = authority.credentials("user/lea").unwrap();
    let mut contents = crate::lab("1.0");
    contents[2].bytes = b"three".to_vec();
    let other = Pack::make(&"lab".parse().unwrap(), contents, &lea, NOW).unwrap();
    let refused = "plugin `lab` 1.0 is installed, and the pack has 1.0 with another content";
    assert_eq!(install(&store, &other, Allow::Upgrade), Err(refused.to_owned()));
    assert_eq!(install(&store, &other, Allow::Any), Ok(Change::Replaced));
}

#[test]
fn files_that_were_changed_in_place_are_noticed_and_put_right() {
    let authority = authority();
    let (_folder, store) = store();
    let good = pack(&authority, "1.0");
    install(&store, &good, Allow::Upgrade).unwrap();
    fs::write(store.directory().join("lab/lab"), "#!/bin/sh\nexit 1\n").unwrap();
    assert!(store.installed(&"lab".parse().unwrap()).unwrap().is_modified);
    assert_eq!(install(&store, &good, Allow::Upgrade), Ok(Change::Replaced));
    assert!(!store.installed(&"lab".parse().unwrap()).unwrap().is_modified);
}

#[test]
fn what_came_from_no_pack_is_left_alone() {
    let (_folder, store) = store();
    fs::create_dir_all(store.directory().join("lab")).unwrap();
    let error = store.install(&pack(&authority(), "1.0"), vec![], Allow::Any, NOW).unwrap_err();
    assert_eq!(error.code().code, "conflict");
    assert!(error.to_string().ends_with("/lab` did not come from a pack and is left alone"), "{error}");
    assert!(matches!(store.remove(&"lab".parse().unwrap()), Err(PackError::Foreign { .. })));
}

#[test]
fn a_crash_leaves_the_old_or_the_new() {
    let authority = authority();
    let (_folder, store) = store();
    let (old, new) = (pack(&authority, "1.0"), pack(&authority, "2.0"));
    install(&store, &old, Allow::Upgrade).unwrap();
    let place = |name: &str| store.directory().join(name);
    let version = || store.installed(&"lab".parse().unwrap()).map(|installed| installed.manifest.version);
    // While the new one was being unpacked.
    fs::create_dir(place(".incoming-lab")).unwrap();
    fs::write(place(".incoming-lab/lab"), "half").unwrap();
    store.recover().unwrap();
    assert_eq!((files(store.directory()), version()), (vec!["lab".to_owned()], Some("1.0".to_owned())));
    // Between the two renames.
    fs::rename(place("lab"), place(".outgoing-lab")).unwrap();
    fs::create_dir(place(".incoming-lab")).unwrap();
    store.recover().unwrap();
    assert_eq!((files(store.directory()), version()), (vec!["lab".to_owned()], Some("1.0".to_owned())));
    // After them.
    install(&store, &new, Allow::Upgrade).unwrap();
    fs::create_dir(place(".outgoing-lab")).unwrap();
    store.recover().unwrap();
    assert_eq!((files(store.directory()), version()), (vec!["lab".to_owned()], Some("2.0".to_owned())));
    // Installing clears up by itself.
    fs::create_dir(place(".incoming-lab")).unwrap();
    install(&store, &old, Allow::Any).unwrap();
    assert_eq!((files(store.directory()), version()), (vec!["lab".to_owned()], Some("1.0".to_owned())));
}

#[test]
fn a_disk_that_is_in_the_way_changes_nothing() {
    let authority = authority();
    let (folder, store) = store();
    install(&store, &pack(&authority, "1.0"), Allow::Upgrade).unwrap();
    // Something unremovable where the new one would be unpacked: a file, not a folder.
    let blocked = Store::new(folder.path().join("plugins/lab/lab"));
    let error = blocked.install(&pack(&authority, "2.0"), vec![], Allow::Upgrade, NOW).unwrap_err();
    assert!(error.code().code == "failed" || error.code().code == "conflict", "{error}");
    assert_eq!(store.installed(&"lab".parse().unwrap()).unwrap().manifest.version, "1.0");
}
