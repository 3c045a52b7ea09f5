use std::os::unix::fs::PermissionsExt as _;

use super::*;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn names(hosts: BTreeSet<HostName>) -> Vec<String> {
    hosts.into_iter().map(String::from).collect()
}

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap()
}

fn inventory(facts: Value) -> Inventory {
    let Value::Object(facts) = facts else { panic!("facts are an object") };
    Inventory { facts, classes: ["web".to_owned()].into(), ..Inventory::default() }
}

/// Three hosts, of which two have a known inventory.
fn filled(directory: &Path) -> HostCache {
    let mut cache = HostCache::load(directory, NOW);
    for name in ["web1", "web2", "db1"] {
        cache.seen(&host(name), Some("d1"), NOW);
    }
    cache.keep(&host("web1"), "d1", inventory(json!({"os": {"family": "Debian"}, "cpus": 4, "disks": ["sda", "sdb"]})));
    cache.keep(&host("db1"), "d1", inventory(json!({"os": {"family": "RedHat"}})));
    cache
}

#[test]
fn what_is_saved_is_read_again_and_nobody_else_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main");
    filled(&path).save().unwrap();
    for file in ["hosts.json", "inventories.jsonl"] {
        let mode = path.join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut read = HostCache::load(&path, NOW);
    assert_eq!(read.hosts().len(), 3);
    assert_eq!(read.inventories().len(), 2);
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn a_broken_file_counts_as_empty() {
    let directory = tempfile::tempdir().unwrap();
    for garbage in
        ["", "{", "[]", r#"{"version":2,"hosts":{}}"#, r#"{"version":1,"hosts":{"UPPER":{"last_seen_ms":1}}}"#]
    {
        std::fs::write(directory.path().join("hosts.json"), garbage).unwrap();
        std::fs::write(directory.path().join("inventories.jsonl"), garbage).unwrap();
        let mut cache = HostCache::load(directory.path(), NOW);
        assert!(cache.hosts().is_empty() && cache.inventories().is_empty(), "{garbage}");
        filled(directory.path()).save().unwrap();
        assert_eq!(HostCache::load(directory.path(), NOW).hosts().len(), 3, "{garbage}");
    }
}

#[test]
fn silent_hosts_are_forgotten_after_a_month() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).save().unwrap();
    assert_eq!(HostCache::load(directory.path(), NOW.plus_ms(30 * DAY_MS)).hosts().len(), 3);
    assert_eq!(HostCache::load(directory.path(), NOW.plus_ms(31 * DAY_MS)).hosts().len(), 0);
}

#[test]
fn likely_hosts_come_from_the_last_answers_and_from_facts() {
    let mut cache = filled(Path::new("/nonexistent"));
    assert_eq!(names(cache.likely(None)), ["db1", "web1", "web2"]);
    let debian = expression("os.family = Debian");
    assert_eq!(names(cache.likely(Some(&debian))), ["web1"]);
    // web2 has no known inventory, db1 is known to be something else.
    cache.answered(debian.as_str(), [host("web2"), host("db1"), host("gone")], NOW);
    assert_eq!(names(cache.likely(Some(&debian))), ["web1", "web2"]);
    cache.forget(&host("web2"));
    assert_eq!(names(cache.likely(Some(&debian))), ["web1"]);
    // The inventory is older than what the host says it has now: not used.
    cache.seen(&host("web1"), Some("d2"), NOW);
    assert_eq!(names(cache.likely(Some(&debian))), Vec::<String>::new());
    let call = expression("package(openssl).installed = true");
    assert_eq!(names(cache.likely(Some(&call))), Vec::<String>::new());
    cache.answered(call.as_str(), [host("web1")], NOW);
    assert_eq!(names(cache.likely(Some(&call))), ["web1"]);
}

#[test]
fn inventories_are_asked_for_when_missing_or_changed_but_not_again_and_again() {
    let mut cache = filled(Path::new("/nonexistent"));
    let all = || ["web1", "web2", "db1", "unknown"].map(host);
    assert_eq!(names(cache.stale(all(), NOW)), ["web2"]);
    cache.asked_for_inventory(&host("web2"), NOW);
    assert_eq!(names(cache.stale(all(), NOW.plus_ms(1_000))), Vec::<String>::new());
    assert_eq!(names(cache.stale(all(), NOW.plus_ms(INVENTORY_AGE_MS_MIN))), ["web2"]);
    cache.seen(&host("web1"), Some("d2"), NOW);
    assert_eq!(names(cache.stale(all(), NOW)), ["web1"]);
}

#[test]
fn a_lost_inventory_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).save().unwrap();
    std::fs::remove_file(directory.path().join("inventories.jsonl")).unwrap();
    let mut cache = HostCache::load(directory.path(), NOW);
    assert_eq!(names(cache.stale([host("web1")], NOW)), Vec::<String>::new(), "not looked yet");
    assert!(cache.inventories().is_empty());
    assert_eq!(names(cache.stale([host("web1")], NOW)), ["web1"]);
}

#[test]
fn names_and_values_are_known() {
    let mut cache = filled(Path::new("/nonexistent"));
    let all: Vec<String> = cache.names().into_iter().collect();
    assert_eq!(all, ["class", "collective", "cpus", "disks", "name", "os.family", "plugin"]);
    let values = |cache: &mut HostCache, path| cache.values(path).into_iter().collect::<Vec<_>>();
    assert_eq!(values(&mut cache, "os.family"), [("Debian".to_owned(), 1), ("RedHat".to_owned(), 1)]);
    assert_eq!(values(&mut cache, "disks"), [("sda".to_owned(), 1), ("sdb".to_owned(), 1)]);
    assert_eq!(values(&mut cache, "class"), [("web".to_owned(), 2)]);
    assert_eq!(values(&mut cache, "not a path"), []);
    assert_eq!(cache.count(&expression("cpus > 2")), 1);
}

#[test]
fn the_cache_is_bounded() {
    let mut cache = HostCache::none();
    for n in 0..40 {
        cache.answered(&format!("x = {n}"), [host("a")], NOW.plus_ms(n));
    }
    for n in 0..(HOSTS_MAX + 5) {
        cache.seen(&host(&format!("h{n}")), None, NOW.plus_ms(i64::try_from(n).unwrap()));
    }
    cache.bound();
    assert_eq!((cache.targets.len(), cache.hosts.len()), (TARGETS_MAX, HOSTS_MAX));
    assert!(!cache.hosts.contains_key(&host("h0")) && !cache.targets.contains_key("x = 0"));
}
