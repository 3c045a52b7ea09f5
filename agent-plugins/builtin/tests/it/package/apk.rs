//! apk with recorded output: its database in the documented form, and a script that changes it and writes what
//! apk 2.14 wrote.

use std::fs;

use muster_plugin_api::conformance::{self, Sample, check};
use muster_plugin_api::{ActionContext, ActionRequest, CancellationToken, OutputSink, Plugin};
use muster_plugins::{Package, PackagePaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{conforms, run, script};

const DATABASE: &str = "\
C:Q1musl=\nP:musl\nV:1.2.5-r8\nA:x86_64\nS:400000\np:so:libc.musl-x86_64.so.1=1\nF:lib\nR:ld-musl-x86_64.so.1\n\n\
C:Q1busybox=\nP:busybox\nV:1.36.1-r29\nA:x86_64\nD:so:libc.musl-x86_64.so.1\np:/bin/sh cmd:sh=1.36.1-r29\n\n";

/// Understands exactly what the plugin should say.
const APK: &str = r#"#!/bin/sh
[ "$1 $2 $3" = "--no-progress --wait 10" ] || { echo "unexpected: $*" >&2; exit 99; }
shift 3
db="$(dirname "$0")/../db/installed"
case "$*" in
  "add -- curl" | "add -- curl=8.5.0-r0")
    printf '(1/2) Installing libcurl (8.5.0-r0)\n(2/2) Installing curl (8.5.0-r0)\nOK: 12 MiB in 4 packages\n'
    printf 'C:Q1libcurl=\nP:libcurl\nV:8.5.0-r0\nA:x86_64\n\nC:Q1curl=\nP:curl\nV:8.5.0-r0\nA:x86_64\n\n' >> "$db" ;;
  "--simulate add -- curl")
    printf '(1/2) Installing libcurl (8.5.0-r0)\n(2/2) Installing curl (8.5.0-r0)\nOK: 10 MiB in 2 packages\n' ;;
  "add -- nothing")
    printf 'ERROR: unable to select packages:\n  nothing (no such package):\n    required by: world[nothing]\n' >&2; exit 1 ;;
  "add -- locked") echo 'ERROR: Unable to lock database: Resource temporarily unavailable' >&2; exit 99 ;;
  "add -- denied") echo 'ERROR: Unable to lock database: Permission denied' >&2; exit 99 ;;
  "--simulate upgrade" | "--simulate add --upgrade -- musl")
    printf '(1/1) Upgrading musl (1.2.5-r8 -> 1.2.5-r9)\nOK: 10 MiB in 2 packages\n' ;;
  "upgrade" | "add --upgrade -- musl")
    printf '(1/1) Upgrading musl (1.2.5-r8 -> 1.2.5-r9)\nOK: 10 MiB in 2 packages\n'
    sed -i 's/^V:1.2.5-r8$/V:1.2.5-r9/' "$db" ;;
  "del -- curl" | "del --purge -- curl" | "del --rdepends -- libcurl")
    printf '(1/2) Purging curl (8.5.0-r0)\n(2/2) Purging libcurl (8.5.0-r0)\nOK: 10 MiB in 2 packages\n'
    sed -i '/^C:Q1libcurl=$/,$d' "$db" ;;
  "del -- musl")
    printf 'World updated, but the following packages are not removed due to:\n  musl: busybox\n' ;;
  "--simulate del -- curl") printf '(1/2) Purging curl (8.5.0-r0)\n(2/2) Purging libcurl (8.5.0-r0)\n' ;;
  "update") printf 'fetch https://dl.example.com/x86_64/APKINDEX.tar.gz\nOK: 24000 distinct packages available\n' ;;
  *) echo "unexpected: $*" >&2; exit 98 ;;
esac
"#;

fn alpine() -> (TempDir, Package) {
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "db", "etc/apk"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    script(&root.path().join("bin/apk"), APK);
    fs::write(root.path().join("db/installed"), DATABASE).unwrap();
    fs::write(root.path().join("etc/apk/repositories"), "https://dl.example.com/v3.20/main\n").unwrap();
    let plugin = Package::new(PackagePaths {
        programs: vec![root.path().join("bin")],
        dpkg_database: root.path().join("none"),
        rpm_databases: Vec::new(),
        apk_databases: vec![root.path().join("none"), root.path().join("db")],
        root: root.path().to_owned(),
        ..PackagePaths::default()
    });
    (root, plugin)
}

fn changes(data: &Value) -> Vec<String> {
    let rows = data["packages"].as_array().unwrap();
    rows.iter().map(|row| format!("{} {}", row["name"].as_str().unwrap(), row["change"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_life_with_apk() {
    let (_root, plugin) = alpine();
    let status = run(&plugin, "status", json!({ "name": "musl" })).await.unwrap().data;
    assert_eq!(
        (&status["ensure"], &status["release"], &status["provider"]),
        (&json!("1.2.5-r8"), &json!("r8"), &json!("apk"))
    );
    let status = run(&plugin, "status", json!({ "name": "cmd" })).await.unwrap().data;
    assert_eq!(status["ensure"], json!("absent"));

    let request = conformance::sample_request("install", json!({ "name": "curl" })).unwrap();
    let request = ActionRequest { noop: true, ..request };
    let shown = plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap();
    assert_eq!(shown.data["planned"].as_array().unwrap().len(), 2);

    let done = run(&plugin, "install", json!({ "name": "curl", "version": "8.5.0-r0" })).await.unwrap();
    assert_eq!(changes(&done.data), ["curl installed", "libcurl installed"]);
    assert_eq!(run(&plugin, "install", json!({ "name": "curl" })).await.unwrap().data["changed"], json!(false));
    let updates = run(&plugin, "list_updates", json!({})).await.unwrap().data;
    assert_eq!((&updates["count"], &updates["updates"][0]["available"]), (&json!(1), &json!("1.2.5-r9")));
    let done = run(&plugin, "update", json!({ "name": "musl" })).await.unwrap();
    assert_eq!(changes(&done.data), ["musl updated"]);
    let done = run(&plugin, "remove", json!({ "name": "curl" })).await.unwrap();
    assert_eq!(changes(&done.data), ["curl removed", "libcurl removed"]);
    run(&plugin, "refresh", json!({})).await.unwrap();

    let failure = run(&plugin, "install", json!({ "name": "nothing" })).await.unwrap_err();
    assert!(failure.message.starts_with("ERROR: unable to select packages:"), "{failure}");
}

/// apk ends with 0 where something else needs the package; the database knows better.
#[tokio::test]
async fn a_package_that_is_needed_stays_and_that_is_a_failure() {
    let (_root, plugin) = alpine();
    let failure = run(&plugin, "remove", json!({ "name": "musl" })).await.unwrap_err();
    assert_eq!(failure.message, "apk reported success, but `musl` is still installed");
}

#[tokio::test]
async fn the_lock_is_waited_for_and_named() {
    let (root, plugin) = alpine();
    // apk itself runs again and again, and whom it waits for is said once.
    let (output, mut said) = OutputSink::channel(64);
    let request = conformance::sample_request("install", json!({ "name": "locked", "lock_timeout_s": 2 })).unwrap();
    let context = ActionContext { output, ..conformance::context(CancellationToken::new()) };
    let lines = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = said.recv().await {
            bytes.extend_from_slice(&chunk.bytes);
        }
        String::from_utf8(bytes).unwrap()
    };
    let (reply, lines) = tokio::join!(plugin.run(request, context), lines);
    let failure = reply.unwrap_err();
    assert_eq!(failure.code.code, "conflict", "{failure}");
    assert_eq!(lines.matches("Waiting for").count(), 1, "{lines}");
    assert!(lines.matches("Unable to lock").count() > 1, "{lines}");

    let lock = root.path().join("db/lock");
    let file = fs::File::create(&lock).unwrap();
    let _held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let failure = run(&plugin, "install", json!({ "name": "curl", "lock_timeout_s": 0 })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["holder"]["pid"]), ("conflict", &json!(std::process::id())));
    assert_eq!(failure.data["holder"]["lock"], json!(lock));
}

#[tokio::test]
async fn too_few_rights_are_no_lock_to_wait_for() {
    let (_root, plugin) = alpine();
    let failure = run(&plugin, "install", json!({ "name": "denied" })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["waited_ms"]), ("failed", &json!(0)), "{failure}");
    assert!(failure.message.contains("root") && failure.message.contains("Permission denied"), "{failure}");
}

#[tokio::test]
async fn keeps_the_contract() {
    let (_root, plugin) = alpine();
    let samples = [
        Sample::succeeds("status", json!({ "names": ["musl", "nothing"] })),
        Sample::query("package", json!({ "name": "musl" })),
        Sample::succeeds("count", json!({})),
        Sample::succeeds("list", json!({})),
        Sample::succeeds("list_updates", json!({})),
        Sample::succeeds("refresh", json!({})),
        Sample::succeeds("install", json!({ "name": "curl" })),
        Sample::succeeds("update", json!({ "all": true })),
        Sample::succeeds("remove", json!({ "name": "curl" })),
        Sample::succeeds("purge", json!({ "name": "curl" })),
    ];
    conforms(check(&plugin, &samples).await);
}

#[tokio::test]
async fn a_damaged_database_is_a_failure() {
    let (root, plugin) = alpine();
    fs::write(root.path().join("db/installed"), "C:Q1x=\nV:1\n\n").unwrap();
    let failure = run(&plugin, "status", json!({ "name": "musl" })).await.unwrap_err();
    assert!(failure.message.contains("not understood"), "{failure}");
}
