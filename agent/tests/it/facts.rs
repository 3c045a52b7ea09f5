//! Facts: from where they come, and that no bad source hides a good one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_agent::facts::system::parse_os_release;
use muster_agent::facts::{FactStore, Facts, Sources};
use serde_json::{Value, json};

use crate::kit::{NOW, PATIENCE, host};

struct Place {
    directory: tempfile::TempDir,
    store: FactStore,
}

impl Place {
    fn new() -> Self {
        Self::with_timeout(PATIENCE)
    }

    fn with_timeout(executable_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let facts = directory.path().join("facts.d");
        fs::create_dir(&facts).unwrap();
        fs::set_permissions(&facts, fs::Permissions::from_mode(0o755)).unwrap();
        let Value::Object(given) = json!({ "os": { "family": "Debian" } }) else { panic!() };
        let sources = Sources {
            directory: Some(facts),
            classes_file: Some(directory.path().join("classes.txt")),
            executable_timeout,
            ..Sources::given(host(), given, [].into())
        };
        Self { directory, store: FactStore::new(sources) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("facts.d").join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.file_with_mode(name, text, 0o644)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        self.file_with_mode(name, text, 0o755)
    }

    fn file_with_mode(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    async fn facts(&self) -> std::sync::Arc<Facts> {
        self.store.refresh(NOW).await
    }
}

fn without_muster(facts: &Facts) -> Value {
    let mut values = (*facts.values).clone();
    values.remove("muster");
    values.remove("os");
    Value::Object(values)
}

#[track_caller]
fn error_of<'a>(facts: &'a Facts, file: &str) -> &'a str {
    let found = facts.errors.iter().find(|error| Path::new(&error.source).ends_with(file));
    &found.unwrap_or_else(|| panic!("no error of {file} in {:?}", facts.errors)).message
}

#[tokio::test]
async fn every_kind_of_file_is_read() {
    let place = Place::new();
    place.file("a.json", r#"{"a": {"b": [1, true, null, "x"]}}"#);
    place.file("b.yaml", "b:\n  c: 1.5\n  d: [x, y]\n");
    place.file("c.yml", "# nothing\n");
    place.file("d.toml", "[d]\nwhen = 2026-01-02T03:04:05Z\nlist = [1, 2]\n");
    place.file("e.txt", "# a comment\n\nrack = r7\n e=f=g \n");
    place.script("f.sh", "#!/bin/sh\necho \"from_script=$((1 + 1))\"\n");
    place.script("g", "#!/bin/sh\necho '{\"g\": {\"json\": true}}'\n");
    place.script("h.py", "#!/bin/sh\nprintf -- '---\\nh: [1, 2]\\n'\n");
    for left_over in [".hidden.json", "a.json~", "a.json.bak", "a.json.dpkg-old", "x.rpmnew"] {
        place.file(left_over, "rubbish");
    }
    let facts = place.facts().await;
    assert_eq!(facts.errors, []);
    assert_eq!(
        without_muster(&facts),
        json!({
            "a": { "b": [1, true, null, "x"] }, "b": { "c": 1.5, "d": ["x", "y"] },
            "d": { "when": "2026-01-02T03:04:05Z", "list": [1, 2] },
            "rack": "r7", "e": "f=g", "from_script": "2", "g": { "json": true }, "h": [1, 2],
        })
    );
}

#[tokio::test]
async fn later_files_win_and_nobody_overrides_the_system() {
    let place = Place::new();
    place.file("10-defaults.json", r#"{"site": {"dc": "ams1", "rack": "r1"}, "role": "none"}"#);
    place.file("90-local.json", r#"{"site": {"rack": "r7"}, "role": ["a"], "os": {"family": "Evil"}, "muster": 1}"#);
    let facts = place.facts().await;
    assert_eq!(without_muster(&facts), json!({ "site": { "dc": "ams1", "rack": "r7" }, "role": ["a"] }));
    assert_eq!(facts.values["os"], json!({ "family": "Debian" }));
    let message = error_of(&facts, "90-local.json");
    assert!(message.contains("`os`") && message.contains("muster"), "{message}");
}

#[tokio::test]
async fn a_bad_source_is_told_and_hides_nothing() {
    let place = Place::with_timeout(Duration::from_millis(300));
    place.file("good.json", r#"{"good": 1}"#);
    for (name, content, expected) in [
        ("broken.json", &b"{ \"a\": "[..], "is not JSON"),
        ("list.json", b"[1]", "map at the top"),
        ("bomb.json", &b"[".repeat(100_000), "is not JSON"),
        ("big.json", &b" ".repeat(300_000), "more than 262144 bytes"),
        ("deep.json", format!("{{\"a\":{}1{}}}", "[".repeat(20), "]".repeat(20)).as_bytes(), "deeper"),
        ("name.json", br#"{"a\nb": 1}"#, "not a name"),
        ("many.json", format!("{{\"a\":[{}1]}}", "1,".repeat(5_001)).as_bytes(), "more than 5000 values"),
        ("binary.json", b"{\"a\":\"\xff\"}", "not UTF-8"),
        ("broken.yaml", b"a: [", "is not YAML"),
        ("broken.toml", b"a =", "is not TOML"),
        ("broken.txt", b"no equals sign", "line 1"),
        ("unknown.ini", b"a=1", "neither executable nor"),
    ] {
        place.file(name, content);
        let facts = place.facts().await;
        assert!(error_of(&facts, name).contains(expected), "{name}: {}", error_of(&facts, name));
    }
    for (name, script, expected) in [
        ("hangs.sh", "#!/bin/sh\nsleep 1000 & sleep 1000\n", "did not end within 300 ms"),
        ("garbage.sh", "#!/bin/sh\nhead -c 1000 /dev/urandom\n", "not UTF-8"),
        ("endless.sh", "#!/bin/sh\nyes a=1 | head -c 1000000\n", "at most 262144"),
        ("fails.sh", "#!/bin/sh\necho a=1; echo because >&2; exit 3\n", "exit code 3: because"),
        ("no-interpreter", "#!/no/such/program\n", "could not be started"),
    ] {
        place.script(name, script);
        let facts = place.facts().await;
        assert!(error_of(&facts, name).contains(expected), "{name}: {}", error_of(&facts, name));
    }
    let facts = place.facts().await;
    assert_eq!(without_muster(&facts), json!({ "good": 1 }));
    assert_eq!(facts.errors.len(), 17);
}

#[tokio::test]
async fn only_the_administrators_files_count() {
    let place = Place::new();
    place.file_with_mode("writable.json", r#"{"a": 1}"#, 0o646);
    place.file_with_mode("group.json", r#"{"a": 1}"#, 0o664);
    let good = place.file("good.json", r#"{"good": 1}"#);
    symlink(&good, place.path("link.json")).unwrap();
    fs::create_dir(place.path("folder.json")).unwrap();
    nix::unistd::mkfifo(&place.path("pipe.json"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let facts = place.facts().await;
    assert!(error_of(&facts, "writable.json").contains("mode 0646"));
    assert!(error_of(&facts, "group.json").contains("mode 0664"));
    assert!(error_of(&facts, "link.json").contains("symbolic link"));
    assert!(error_of(&facts, "folder.json").contains("not a regular file"));
    assert!(error_of(&facts, "pipe.json").contains("not a regular file"));
    assert_eq!(without_muster(&facts), json!({ "good": 1 }));
    // Only root can give a file to somebody else.
    if nix::unistd::Uid::effective().is_root() {
        nix::unistd::chown(&good, Some(nix::unistd::Uid::from_raw(4711)), None).unwrap();
        assert!(error_of(&*place.facts().await, "good.json").contains("user 4711"));
        nix::unistd::chown(&good, Some(nix::unistd::Uid::effective()), None).unwrap();
    }
    // Whoever can write to the directory can put anything into it.
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    let facts = place.facts().await;
    assert!(error_of(&facts, "facts.d").contains("mode 0777"), "{:?}", facts.errors);
}

#[tokio::test]
async fn a_source_that_fails_keeps_its_last_values() {
    let place = Place::new();
    let path = place.file("site.json", r#"{"rack": "r7"}"#);
    place.facts().await;
    fs::write(&path, "{").unwrap();
    let facts = place.store.refresh(NOW.plus_ms(5_000)).await;
    assert_eq!(facts.values["rack"], "r7");
    assert_eq!(facts.errors[0].values_from_ms, Some(NOW));
    fs::write(&path, "{}").unwrap();
    let facts = place.facts().await;
    assert!(facts.errors.is_empty() && !facts.values.contains_key("rack"));
    // A file that is gone is no failure.
    fs::remove_file(&path).unwrap();
    assert!(place.facts().await.errors.is_empty());
}

#[tokio::test]
async fn classes_come_one_a_line() {
    let place = Place::new();
    let path = place.directory.path().join("classes.txt");
    assert!(place.facts().await.classes.is_empty());
    fs::write(&path, "# by hand\n\n nginx \nprofile::web\nnginx\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let facts = place.facts().await;
    assert_eq!(facts.classes.iter().map(String::as_str).collect::<Vec<_>>(), ["nginx", "profile::web"]);
    fs::write(&path, "not a class\n").unwrap();
    let facts = place.facts().await;
    assert!(facts.classes.contains("nginx"), "the last good ones are kept");
    assert!(error_of(&facts, "classes.txt").contains("not a class"));
}

#[tokio::test]
async fn a_real_host_has_the_facts_that_targets_use() {
    let sources = Sources { system: true, ..Sources::given(host(), serde_json::Map::new(), [].into()) };
    let facts = FactStore::new(sources).refresh(NOW).await;
    let value = |pointer: &str| Value::Object((*facts.values).clone()).pointer(pointer).cloned();
    for pointer in [
        "/os/family",
        "/os/name",
        "/os/release/full",
        "/os/release/major",
        "/os/architecture",
        "/architecture",
        "/kernel",
        "/kernelrelease",
        "/hostname",
        "/fqdn",
        "/networking/hostname",
        "/networking/interfaces/lo/ip",
        "/memory/system/total_bytes",
        "/memory/system/available_bytes",
        "/processors/count",
        "/mountpoints",
        "/system_uptime/seconds",
        "/load_averages/1m",
        "/virtual",
        "/is_virtual",
        "/is_systemd",
        "/muster/version",
        "/muster/host",
    ] {
        assert!(value(pointer).is_some(), "{pointer} is missing");
    }
    assert_eq!(value("/muster/host").unwrap(), crate::kit::HOST);
    // What changes by itself is not in the digest.
    let stable = Value::Object(facts.stable());
    for pointer in ["/memory/system/available_bytes", "/system_uptime", "/load_averages"] {
        assert!(stable.pointer(pointer).is_none(), "{pointer}");
    }
    assert!(stable.pointer("/memory/system/total_bytes").is_some());
    for point in stable["mountpoints"].as_object().unwrap().values() {
        assert!(point.get("available_bytes").is_none() && point.get("size_bytes").is_some());
    }
}

#[test]
fn releases_have_facters_names() {
    for (text, debian, expected) in [
        (
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n",
            Some("12.5\n"),
            ["Debian", "Debian", "12.5", "12", "5"],
        ),
        ("ID=debian\n", Some("trixie/sid\n"), ["Debian", "Debian", "", "", "-"]),
        (
            "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\n",
            Some("bookworm/sid"),
            ["Ubuntu", "Debian", "22.04", "22.04", "-"],
        ),
        (
            "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID='9.3'\n",
            None,
            ["Rocky", "RedHat", "9.3", "9", "3"],
        ),
        (
            "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\nVERSION_ID=\"15.5\"\n",
            None,
            ["OpenSuSE", "Suse", "15.5", "15", "5"],
        ),
        ("ID=mydistro\nID_LIKE=\"foo ubuntu\"\nVERSION_ID=1\n", None, ["Mydistro", "Debian", "1", "1", "-"]),
        ("# ID=debian\nID=strange\n", None, ["Strange", "Strange", "", "", "-"]),
        ("", None, ["Linux", "Linux", "", "", "-"]),
    ] {
        let release = parse_os_release(text, debian);
        let found = [&release.name, &release.family, &release.full, &release.major];
        assert_eq!(found.map(String::as_str), expected[..4], "{text}");
        assert_eq!(release.minor.as_deref().unwrap_or("-"), expected[4], "{text}");
    }
    assert_eq!(parse_os_release("PRETTY_NAME=\"a \\\"b\\\" \\$c\"\n", None).description, "a \"b\" $c");
}
