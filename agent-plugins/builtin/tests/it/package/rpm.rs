//! rpm with dnf and with zypper for real, in roots of their own; yum with recorded output.

use std::fs;
use std::time::Duration;

use muster_plugin_api::conformance::{self, Sample, check};
use muster_plugin_api::{ActionContext, ActionOk, ActionReply, ActionRequest, CancellationToken, OutputSink, Plugin};
use muster_plugins::{Package, PackagePaths};
use serde_json::{Value, json};

use super::locks::{Locker, Other};
use super::rpms::{FrontEnd, RpmRoot};
use crate::support::{conforms, run, run_within, script, until};

/// `foo` needs `bar`; there are two versions of `foo`.
fn foo_and_bar(front_end: FrontEnd) -> RpmRoot {
    let system = RpmRoot::new(front_end);
    system.publish("bar", "2:2.0-1", "");
    system.publish("foo", "1.0-1", "Requires: bar\n");
    system.publish_and_refresh("foo", "1.1-1", "Requires: bar\n");
    system
}

async fn ok(plugin: &Package, action: &str, arguments: Value) -> ActionOk {
    run(plugin, action, arguments).await.unwrap_or_else(|failure| panic!("{failure}: {}", failure.data))
}

async fn noop(plugin: &Package, action: &str, arguments: Value) -> ActionReply {
    let request = conformance::sample_request(action, arguments).unwrap();
    let arguments = plugin.ddl().action(&request.action).unwrap().validate(&request.arguments).unwrap();
    plugin.run(ActionRequest { arguments, noop: true, ..request }, conformance::context(CancellationToken::new())).await
}

/// Name, change, version and version before of each package.
#[track_caller]
fn assert_touched(data: &Value, expected: &[(&str, &str, &str, &str)]) {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows = data["packages"].as_array().unwrap_or_else(|| panic!("no packages in {data}"));
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (text(&row["name"]), text(&row["change"]), text(&row["version"]), text(&row["previous_version"])))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(a, b, c, d)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned(), (*d).to_owned()))
        .collect();
    assert_eq!(seen, expected, "{data}");
}

async fn a_life(front_end: FrontEnd, installer: &str) {
    let system = foo_and_bar(front_end);
    let plugin = system.plugin();

    let shown = noop(&plugin, "install", json!({ "name": "foo", "version": "1.0-1" })).await.unwrap();
    let planned = shown.data["planned"].as_array().unwrap();
    let mut names: Vec<_> =
        planned.iter().map(|one| (one["name"].clone(), one["change"].clone(), one["to"].clone())).collect();
    names.sort_by_key(|(name, ..)| name.to_string());
    let expected = [("bar", "2:2.0-1"), ("foo", "1.0-1")].map(|(n, v)| (json!(n), json!("installed"), json!(v)));
    assert_eq!(names, expected);
    assert_eq!(system.installed(), ["muster-base-1.0-1.noarch"]);

    let done = ok(&plugin, "install", json!({ "name": "foo", "version": "1.0-1" })).await;
    assert_touched(&done.data, &[("bar", "installed", "2.0", "-"), ("foo", "installed", "1.0", "-")]);
    assert_eq!((&done.data["installer"], &done.data["packages"][0]["epoch"]), (&json!(installer), &json!(2)));
    for version in ["1.0-1", "1.0"] {
        let again = ok(&plugin, "install", json!({ "name": "foo", "version": version })).await;
        assert_eq!(again.data["changed"], json!(false), "{version}");
    }

    let updates = ok(&plugin, "list_updates", json!({})).await.data;
    let update = &updates["updates"][0];
    assert_eq!(
        (&updates["count"], &update["name"], &update["available"], &update["repository"]),
        (&json!(1), &json!("foo"), &json!("1.1-1"), &json!("ours"))
    );
    assert_eq!(update["installed"], json!("1.0-1"));

    let shown = noop(&plugin, "update", json!({ "all": true })).await.unwrap();
    assert_eq!(
        shown.data["planned"],
        json!([{ "name": "foo", "arch": "noarch", "change": "updated", "from": "1.0-1", "to": "1.1-1" }])
    );
    let done = ok(&plugin, "update", json!({ "name": "foo" })).await;
    assert_touched(&done.data, &[("foo", "updated", "1.1", "1.0")]);
    let done = ok(&plugin, "install", json!({ "names": ["foo=1.0-1"] })).await;
    assert_touched(&done.data, &[("foo", "downgraded", "1.0", "1.1")]);
    system.publish("bar", "2:2.1-1", "");
    let done = ok(&plugin, "update", json!({ "all": true, "refresh": true })).await;
    assert_touched(&done.data, &[("bar", "updated", "2.1", "2.0"), ("foo", "updated", "1.1", "1.0")]);

    let failure = run(&plugin, "remove", json!({ "name": "bar" })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["packages"]), ("failed", &json!([])), "{failure}");
    let failure = noop(&plugin, "remove", json!({ "name": "bar" })).await.unwrap_err();
    assert_eq!(failure.code.code, "failed", "rpm would refuse");
    let shown = noop(&plugin, "remove", json!({ "name": "bar", "dependents": true })).await.unwrap();
    assert_eq!(shown.data["planned"].as_array().unwrap().len(), 2, "{}", shown.data);
    let done = ok(&plugin, "remove", json!({ "name": "bar", "dependents": true })).await;
    assert_touched(&done.data, &[("bar", "removed", "-", "2.1"), ("foo", "removed", "-", "1.1")]);

    ok(&plugin, "install", json!({ "name": "foo", "ensure": "latest" })).await;
    let done = ok(&plugin, "purge", json!({ "name": "foo" })).await;
    assert_touched(&done.data, &[("foo", "removed", "-", "1.1")]);
    assert!(done.message.ends_with("rpm has no purge: this is a removal"), "{}", done.message);
    let failure = run(&plugin, "install", json!({ "name": "nothing" })).await.unwrap_err();
    assert!(failure.message.contains("nothing"), "{failure}");
    assert_eq!(system.installed(), ["bar-2.1-1.noarch", "muster-base-1.0-1.noarch"]);
}

#[tokio::test]
async fn a_life_with_dnf() {
    a_life(FrontEnd::Dnf, "dnf").await;
}

#[tokio::test]
async fn a_life_with_zypper() {
    a_life(FrontEnd::Zypper, "zypper").await;
}

async fn contract(front_end: FrontEnd) {
    let system = foo_and_bar(front_end);
    let samples = [
        Sample::succeeds("status", json!({ "name": "muster-base" })),
        Sample::query("package", json!({ "name": "muster-base" })),
        Sample::succeeds("count", json!({})),
        Sample::succeeds("list", json!({})),
        Sample::succeeds("list_updates", json!({})),
        Sample::succeeds("refresh", json!({})),
        Sample::succeeds("install", json!({ "name": "foo" })),
        Sample::fails("install", json!({ "name": "no-such-package" })),
        Sample::succeeds("update", json!({ "all": true })),
        Sample::succeeds("remove", json!({ "name": "foo" })),
        Sample::succeeds("purge", json!({ "name": "foo" })),
    ];
    conforms(check(&system.plugin(), &samples).await);
}

#[tokio::test]
async fn dnf_keeps_the_contract() {
    contract(FrontEnd::Dnf).await;
}

#[tokio::test]
async fn zypper_keeps_the_contract() {
    contract(FrontEnd::Zypper).await;
}

/// A script in Lua runs inside of rpm, so that the root needs no shell.
async fn a_script_that_fails(front_end: FrontEnd) {
    let system = foo_and_bar(front_end);
    system.publish_and_refresh("bad", "1-1", "Requires: bar\n%pre -p <lua>\nerror(\"cannot be\")\n");
    let failure = run(&system.plugin(), "install", json!({ "name": "bad" })).await.unwrap_err();
    assert_eq!(failure.code.code, "failed", "{failure}");
    assert_touched(&failure.data, &[("bar", "installed", "2.0", "-")]);
    assert!(failure.message.ends_with("1 package was changed until then"), "{failure}");
}

#[tokio::test]
async fn a_script_that_fails_with_dnf() {
    a_script_that_fails(FrontEnd::Dnf).await;
}

#[tokio::test]
async fn a_script_that_fails_with_zypper() {
    a_script_that_fails(FrontEnd::Zypper).await;
}

async fn somebody_else_at_work(front_end: FrontEnd, name: &str) {
    let system = foo_and_bar(front_end);
    let waits = "%post -p <lua>\nlocal f = io.open(\"/began\", \"w\")\nf:close()\n\
                 while not posix.access(\"/go-on\") do posix.sleep(1) end\n";
    system.publish_and_refresh("slow", "1-1", waits);
    let mut other = system.front_end();
    if front_end == FrontEnd::Zypper {
        other.arg("--non-interactive");
    }
    let mut other = Other::start(other.args(["install", "slow"]));
    until(|| system.path("began").exists(), |began| *began).await;
    let plugin = system.plugin();
    let failure = run(&plugin, "install", json!({ "name": "foo", "lock_timeout_s": 1 })).await.unwrap_err();
    assert_eq!(failure.code.code, "conflict", "{failure}");
    // zypper lets rpm do the work, dnf is rpm itself.
    let holder = &failure.data["holder"];
    assert!(holder["command"].as_str().unwrap().contains(name), "{holder}");
    assert!(front_end == FrontEnd::Zypper || holder["pid"] == json!(other.pid()), "{holder}");
    let (sink, mut output) = OutputSink::channel(64);
    let conductor = async {
        output.recv().await.unwrap();
        fs::write(system.path("go-on"), "").unwrap();
        while output.recv().await.is_some() {}
    };
    let request = conformance::sample_request("install", json!({ "name": "foo" })).unwrap();
    let context = ActionContext { output: sink, ..conformance::context(CancellationToken::new()) };
    let (reply, ()) = tokio::join!(plugin.run(request, context), conductor);
    let data = reply.unwrap().data;
    assert_touched(&data, &[("bar", "installed", "2.0", "-"), ("foo", "installed", "1.1", "-")]);
    assert!(data["packages"][0]["tries"].as_u64().unwrap() >= 2, "{data}");
    assert!(other.succeeds());
}

#[tokio::test]
async fn another_dnf_is_named_and_waited_for() {
    somebody_else_at_work(FrontEnd::Dnf, "dnf").await;
}

#[tokio::test]
async fn another_zypper_is_named_and_waited_for() {
    somebody_else_at_work(FrontEnd::Zypper, "rpm").await;
}

#[tokio::test]
async fn the_lock_of_rpm_itself_is_seen() {
    let system = foo_and_bar(FrontEnd::Dnf);
    let locker = Locker::hold(&system.path(".rpmdb/.rpm.lock"));
    let failure = run(&system.plugin(), "install", json!({ "name": "foo", "lock_timeout_s": 0 })).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["holder"]["pid"]), ("conflict", &json!(locker.pid())));
}

/// On a machine that is busy the script may not be reached in the first limit; a longer one then shows it.
#[tokio::test]
async fn a_script_that_hangs_ends_with_the_time_limit() {
    for seconds in [6, 20, 60] {
        let system = RpmRoot::new(FrontEnd::Dnf);
        let hangs = "%post -p <lua>\nio.open(\"/began\", \"w\"):close()\nwhile true do posix.sleep(1) end\n";
        system.publish_and_refresh("hangs", "1-1", hangs);
        let limit = Duration::from_secs(seconds);
        let failure = run_within(&system.plugin(), "install", json!({ "name": "hangs" }), limit).await.unwrap_err();
        assert_eq!(failure.code.code, "timed-out", "{failure}");
        if system.path("began").exists() {
            assert_touched(&failure.data, &[("hangs", "installed", "1", "-")]);
            return;
        }
    }
    panic!("the script was never reached");
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_a_failure() {
    for (front_end, sources) in [(FrontEnd::Dnf, "etc/yum.repos.d"), (FrontEnd::Zypper, "etc/zypp/repos.d")] {
        let system = RpmRoot::new(front_end);
        ok(&system.plugin(), "refresh", json!({})).await;
        let gone = "[gone]\nname=gone\nbaseurl=file:///no/such/repository\ngpgcheck=0\nskip_if_unavailable=1\n";
        fs::write(system.path(sources).join("gone.repo"), gone).unwrap();
        let failure = run(&system.plugin(), "refresh", json!({})).await.unwrap_err();
        assert_eq!(failure.code.code, "failed", "{front_end:?}: {failure}");
        let profiles = system.plugin().profiles(conformance::context(CancellationToken::new())).await.unwrap();
        let uris: Vec<_> =
            profiles[1].data["repositories"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(uris, ["gone", "ours"]);
    }
}

/// rpm's database is a file of lines in our own format; yum 3.4 changes it and writes what it wrote on CentOS 7.
const RPM: &str = r#"#!/bin/sh
case "$*" in
  *--query*--all) cat "$0.db" ;;
  *--erase*) for last; do :; done; sed -i "/^$last\t/d" "$0.db" ;;
  *) for last; do :; done; grep "^$last	" "$0.db" || { echo "package $last is not installed"; exit 1; } ;;
esac
"#;

const YUM: &str = r#"#!/bin/sh
expected="-y --setopt=exit_on_lock=True --setopt=clean_requirements_on_remove=False"
case "$*" in "$expected"*) ;; *) echo "unexpected: $*" >&2; exit 99 ;; esac
shift 3
case "$*" in
  "-q check-update") printf '\nopenssl-libs.x86_64          1:1.0.2k-26.el7_9          updates\n'; exit 100 ;;
  "--assumeno upgrade -- openssl-libs") cat <<END
Dependencies Resolved

================================================================================
 Package            Arch         Version                    Repository     Size
================================================================================
Updating:
 openssl-libs       x86_64       1:1.0.2k-26.el7_9          updates       1.2 M

Transaction Summary
================================================================================
Upgrade  1 Package

Total download size: 1.2 M
Exiting on user command
END
    exit 1 ;;
  "--downloadonly upgrade -- openssl-libs") echo 'exiting because "Download Only" specified' ;;
  "upgrade -- openssl-libs") sed -i 's/25.el7_9/26.el7_9/' "${0%yum}rpm.db" ;;
  "--downloadonly install -- curl") echo 'exiting because "Download Only" specified' ;;
  "install -- curl") printf 'curl\t(none)\t7.29.0\t59.el7\tx86_64\t1700000000\t.\n' >> "${0%yum}rpm.db" ;;
  "clean expire-cache" | "--setopt=*.skip_if_unavailable=False makecache") ;;
  *) echo "unexpected: $*" >&2; exit 98 ;;
esac
"#;

#[tokio::test]
async fn recorded_yum() {
    let root = tempfile::tempdir().unwrap();
    script(&root.path().join("rpm"), RPM);
    script(&root.path().join("yum"), YUM);
    let line = "openssl-libs\t1\t1.0.2k\t25.el7_9\tx86_64\t1600000000\t.\n";
    fs::write(root.path().join("rpm.db"), line).unwrap();
    let plugin = Package::new(PackagePaths {
        programs: vec![root.path().to_owned()],
        dpkg_database: root.path().join("none"),
        rpm_databases: vec![root.path().to_owned()],
        root: root.path().to_owned(),
        ..PackagePaths::default()
    });
    let updates = ok(&plugin, "list_updates", json!({})).await.data;
    assert_eq!(
        (&updates["installer"], &updates["updates"][0]["available"]),
        (&json!("yum"), &json!("1:1.0.2k-26.el7_9"))
    );
    let shown = noop(&plugin, "update", json!({ "name": "openssl-libs" })).await.unwrap();
    assert_eq!(shown.data["planned"][0]["from"], json!("1:1.0.2k-25.el7_9"));
    let done = ok(&plugin, "update", json!({ "name": "openssl-libs" })).await;
    assert_touched(&done.data, &[("openssl-libs", "updated", "1.0.2k", "1.0.2k")]);
    assert_eq!(done.data["packages"][0]["previous_release"], json!("25.el7_9"));
    ok(&plugin, "refresh", json!({})).await;
    let done = ok(&plugin, "install", json!({ "name": "curl" })).await;
    assert_touched(&done.data, &[("curl", "installed", "7.29.0", "-")]);
    assert_eq!(ok(&plugin, "count", json!({})).await.data["installed"], json!(2));
    assert_eq!(ok(&plugin, "list", json!({})).await.data["packages"][0]["name"], json!("curl"));
    assert_eq!(ok(&plugin, "status", json!({ "name": "curl" })).await.data["ensure"], json!("7.29.0-59.el7"));
    let done = ok(&plugin, "purge", json!({ "name": "curl" })).await;
    assert_touched(&done.data, &[("curl", "removed", "-", "7.29.0")]);
    let done = ok(&plugin, "remove", json!({ "name": "openssl-libs" })).await;
    assert_touched(&done.data, &[("openssl-libs", "removed", "-", "1.0.2k")]);
}
