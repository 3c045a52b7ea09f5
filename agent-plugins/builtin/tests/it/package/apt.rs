//! apt and dpkg for real, in a root of their own.

use std::fs;
use std::time::Duration;

use muster_plugin_api::conformance::{self, Sample, check};
use muster_plugin_api::{ActionFailure, ActionOk, ActionReply, ActionRequest, CancellationToken, Plugin};
use muster_plugins::Package;
use serde_json::{Value, json};

use super::debian::{Deb, Debian};
use crate::support::{conforms, run, run_within, until};

/// `foo` needs `bar`; there are two versions of `foo`.
fn foo_and_bar() -> Debian {
    let debian = Debian::new();
    let depends = "Depends: bar\n";
    debian.publish(&Deb { name: "bar", version: "2:2.0-1", ..Deb::default() });
    debian.publish(&Deb { name: "foo", version: "1.0-1", control: depends, ..Deb::default() });
    debian.publish(&Deb { name: "foo", version: "1.1-1", control: depends, ..Deb::default() });
    debian.update();
    debian
}

/// Name, change, version with release, and the same before.
fn touched(data: &Value) -> Vec<(String, String, String, String)> {
    let rows = data["packages"].as_array().unwrap_or_else(|| panic!("no packages in {data}"));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let full = |row: &Value, version: &str, release: &str| match (&row[version], &row[release]) {
        (Value::Null, _) => "-".to_owned(),
        (version, Value::Null) => text(version),
        (version, release) => format!("{}-{}", text(version), text(release)),
    };
    rows.iter()
        .map(|row| {
            let now = full(row, "version", "release");
            (text(&row["name"]), text(&row["change"]), now, full(row, "previous_version", "previous_release"))
        })
        .collect()
}

#[track_caller]
fn assert_touched(data: &Value, expected: &[(&str, &str, &str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(a, b, c, d)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned(), (*d).to_owned()))
        .collect();
    assert_eq!(touched(data), expected, "{data}");
}

async fn ok(plugin: &Package, action: &str, arguments: Value) -> ActionOk {
    run(plugin, action, arguments).await.unwrap_or_else(|failure| panic!("{failure}: {}", failure.data))
}

async fn fails(plugin: &Package, action: &str, arguments: Value) -> ActionFailure {
    run(plugin, action, arguments).await.unwrap_err()
}

async fn noop(plugin: &Package, action: &str, arguments: Value) -> ActionReply {
    let request = conformance::sample_request(action, arguments).unwrap();
    let arguments = plugin.ddl().action(&request.action).unwrap().validate(&request.arguments).unwrap();
    let request = ActionRequest { arguments, noop: true, ..request };
    plugin.run(request, conformance::context(CancellationToken::new())).await
}

#[tokio::test]
async fn keeps_the_contract() {
    let debian = foo_and_bar();
    debian.publish(&Deb { name: "other", version: "1", ..Deb::default() });
    debian.update();
    let samples = [
        Sample::succeeds("status", json!({ "name": "muster-base" })),
        Sample::succeeds("status", json!({ "name": "no-such-package" })),
        Sample::succeeds("status", json!({ "names": ["muster-base", "no-such-package"] })),
        Sample::query("package", json!({ "name": "muster-base" })),
        Sample::query("package", json!({ "name": "no-such-package" })),
        Sample::succeeds("count", json!({})),
        Sample::succeeds("list", json!({ "contains": "muster" })),
        Sample::succeeds("list_updates", json!({})),
        Sample::succeeds("refresh", json!({})),
        Sample::succeeds("install", json!({ "names": ["foo=1.0-1", "other"] })),
        Sample::fails("install", json!({ "name": "no-such-package" })),
        Sample::succeeds("update", json!({ "name": "foo" })),
        Sample::succeeds("update", json!({ "all": true })),
        Sample::succeeds("remove", json!({ "name": "other" })),
        Sample::succeeds("purge", json!({ "name": "foo" })),
    ];
    conforms(check(&debian.plugin(), &samples).await);
}

#[tokio::test]
async fn installing_lists_dependencies_and_is_done_once() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    let done = ok(&plugin, "install", json!({ "name": "foo", "version": "1.0-1" })).await;
    assert_touched(&done.data, &[("bar", "installed", "2.0-1", "-"), ("foo", "installed", "1.0-1", "-")]);
    let bar = &done.data["packages"][0];
    assert_eq!(
        (&bar["epoch"], &bar["arch"], &bar["status"], &bar["tries"]),
        (&json!(2), &json!("all"), &json!("installed"), &json!(1))
    );
    assert_eq!(
        (&done.data["changed"], &done.data["provider"], &done.data["installer"]),
        (&json!(true), &json!("dpkg"), &json!("apt"))
    );
    assert_eq!(done.message, "2 packages changed: 2 installed");

    for arguments in [
        json!({ "name": "foo" }),
        json!({ "names": ["foo=1.0-1", "bar"] }),
        json!({ "name": "foo", "ensure": "1.0-1" }),
    ] {
        let again = ok(&plugin, "install", arguments).await;
        assert_eq!((&again.data["changed"], &again.data["packages"]), (&json!(false), &json!([])));
        assert_eq!(again.data["unchanged"][0], json!("foo"));
        assert_eq!(again.message, "nothing had to be changed");
    }
    assert_eq!(debian.state("foo"), "install ok installed 1.0-1");
}

#[tokio::test]
async fn updates_pins_and_downgrades() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    ok(&plugin, "install", json!({ "names": ["foo=1.0-1"] })).await;

    let listed = ok(&plugin, "list_updates", json!({})).await;
    assert_eq!(listed.message, "1 update");
    let update = &listed.data["updates"][0];
    assert_eq!(
        (&update["name"], &update["installed"], &update["available"]),
        (&json!("foo"), &json!("1.0-1"), &json!("1.1-1"))
    );

    let updated = ok(&plugin, "update", json!({ "names": ["foo", "not-here"] })).await;
    assert_touched(&updated.data, &[("foo", "updated", "1.1-1", "1.0-1")]);
    assert_eq!(updated.data["unchanged"], json!(["not-here"]));
    assert!(updated.message.contains("`not-here` is not installed"), "{}", updated.message);

    let older = ok(&plugin, "install", json!({ "name": "foo", "ensure": "1.0-1" })).await;
    assert_touched(&older.data, &[("foo", "downgraded", "1.0-1", "1.1-1")]);
    let latest = ok(&plugin, "install", json!({ "names": ["foo", "bar"], "ensure": "latest" })).await;
    assert_touched(&latest.data, &[("foo", "updated", "1.1-1", "1.0-1")]);

    debian.publish(&Deb { name: "bar", version: "2:2.1-1", ..Deb::default() });
    let stale = ok(&plugin, "update", json!({ "all": true })).await;
    assert_eq!(stale.data["changed"], json!(false), "apt has not seen the new version yet");
    let all = ok(&plugin, "update", json!({ "all": true, "refresh": true })).await;
    assert_touched(&all.data, &[("bar", "updated", "2.1-1", "2.0-1")]);
    assert_eq!(ok(&plugin, "list_updates", json!({})).await.data["count"], json!(0));
}

#[tokio::test]
async fn what_something_needs_is_removed_only_with_it() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    ok(&plugin, "install", json!({ "name": "foo" })).await;

    let failure = fails(&plugin, "remove", json!({ "name": "bar" })).await;
    assert_eq!(failure.code.code, "failed");
    assert!(failure.message.contains("bar"), "{failure}");
    assert_eq!(failure.data["packages"], json!([]));
    assert!(debian.state("bar").starts_with("install ok installed"));

    let planned = noop(&plugin, "remove", json!({ "name": "bar", "dependents": true })).await.unwrap();
    let names: Vec<_> = planned.data["planned"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert!(names.contains(&json!("foo")) && names.contains(&json!("bar")), "{names:?}");
    let removed = ok(&plugin, "remove", json!({ "name": "bar", "dependents": true })).await;
    assert_touched(&removed.data, &[("bar", "purged", "-", "2.0-1"), ("foo", "purged", "-", "1.1-1")]);

    ok(&plugin, "install", json!({ "name": "foo" })).await;
    let alone = ok(&plugin, "remove", json!({ "name": "foo" })).await;
    assert_touched(&alone.data, &[("foo", "purged", "-", "1.1-1")]);
    assert!(debian.state("bar").starts_with("install ok installed"), "what was installed along with it stays");
    let again = ok(&plugin, "remove", json!({ "name": "foo" })).await;
    assert_eq!((&again.data["changed"], &again.data["unchanged"]), (&json!(false), &json!(["foo"])));
}

#[tokio::test]
async fn configuration_stays_until_it_is_purged() {
    let debian = Debian::new();
    debian.publish(&Deb { name: "conf", version: "1-1", conffile: Some("first\n"), ..Deb::default() });
    debian.publish(&Deb { name: "conf", version: "2-1", conffile: Some("second\n"), ..Deb::default() });
    debian.update();
    let plugin = debian.plugin();
    ok(&plugin, "install", json!({ "name": "conf", "version": "1-1" })).await;
    let file = debian.path("etc/conf.conf");
    fs::write(&file, "mine\n").unwrap();
    ok(&plugin, "update", json!({ "name": "conf" })).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine\n", "what the administrator changed stays");

    let removed = ok(&plugin, "remove", json!({ "name": "conf" })).await;
    assert_touched(&removed.data, &[("conf", "removed", "-", "2-1")]);
    assert_eq!(removed.data["packages"][0]["status"], json!("config-files"));
    assert!(file.exists());
    assert_eq!(ok(&plugin, "count", json!({})).await.data["configuration"], json!(1));
    let purged = ok(&plugin, "install", json!({ "name": "conf", "ensure": "purged" })).await;
    assert_touched(&purged.data, &[("conf", "purged", "-", "2-1")]);
    assert!(!file.exists());
    assert_eq!(debian.state("conf"), "");
}

#[tokio::test]
async fn a_script_that_fails_is_reported_with_what_was_changed() {
    let debian = foo_and_bar();
    let flag = debian.path("repaired");
    let script = format!("#!/bin/sh\n[ -e {} ] || {{ echo cannot start >&2; exit 3; }}\n", flag.display());
    let scripts = [("postinst", script.as_str())];
    debian.publish(&Deb { name: "bad", version: "1", control: "Depends: bar\n", scripts: &scripts, ..Deb::default() });
    debian.update();
    let plugin = debian.plugin();
    let failure = fails(&plugin, "install", json!({ "name": "bad" })).await;
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(100)));
    assert!(failure.message.contains("bad") && failure.message.contains("2 packages were changed"), "{failure}");
    assert_touched(&failure.data, &[("bad", "installed", "1", "-"), ("bar", "installed", "2.0-1", "-")]);
    assert_eq!(failure.data["packages"][0]["status"], json!("half-configured"));
    assert_eq!(ok(&plugin, "count", json!({})).await.data["broken"], json!(1));

    fs::write(&flag, "").unwrap();
    let repaired = ok(&plugin, "install", json!({ "name": "bad" })).await;
    assert_touched(&repaired.data, &[("bad", "configured", "1", "1")]);
}

#[tokio::test]
async fn noop_shows_the_transaction_and_changes_nothing() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    let shown = noop(&plugin, "install", json!({ "name": "foo", "version": "1.0-1" })).await.unwrap();
    assert_eq!(
        shown.data["planned"],
        json!([
            { "name": "bar", "arch": "all", "change": "installed", "from": null, "to": "2:2.0-1" },
            { "name": "foo", "arch": "all", "change": "installed", "from": null, "to": "1.0-1" },
        ])
    );
    assert_eq!(
        (&shown.data["changed"], shown.message.as_str()),
        (&json!(false), "2 packages would be changed: 2 installed")
    );
    assert_eq!((debian.state("foo"), debian.state("bar")), (String::new(), String::new()));

    ok(&plugin, "install", json!({ "name": "foo", "version": "1.0-1" })).await;
    let before = fs::read_to_string(debian.path("var/lib/dpkg/status")).unwrap();
    let update = noop(&plugin, "update", json!({ "all": true })).await.unwrap();
    assert_eq!(
        update.data["planned"],
        json!([{ "name": "foo", "arch": "all", "change": "updated", "from": "1.0-1", "to": "1.1-1" }])
    );
    let purge = noop(&plugin, "purge", json!({ "name": "foo" })).await.unwrap();
    assert_eq!(
        purge.data["planned"],
        json!([{ "name": "foo", "arch": "all", "change": "purged", "from": "1.0-1", "to": null }])
    );
    let nothing = noop(&plugin, "install", json!({ "name": "bar" })).await.unwrap();
    assert_eq!((&nothing.data["planned"], nothing.message.as_str()), (&json!([]), "nothing would be changed"));
    let refresh = noop(&plugin, "refresh", json!({})).await.unwrap();
    assert!(refresh.message.contains("would fetch"), "{}", refresh.message);
    let impossible = noop(&plugin, "remove", json!({ "name": "bar" })).await.unwrap_err();
    assert_eq!(impossible.code.code, "failed", "dpkg would refuse");
    assert_eq!(fs::read_to_string(debian.path("var/lib/dpkg/status")).unwrap(), before);
}

#[tokio::test]
async fn packages_that_are_in_the_way_are_removed_only_where_that_is_allowed() {
    let debian = Debian::new();
    debian.publish(&Deb { name: "old-mta", version: "1", ..Deb::default() });
    debian.publish(&Deb { name: "new-mta", version: "1", control: "Conflicts: old-mta\n", ..Deb::default() });
    debian.update();
    let plugin = debian.plugin();
    ok(&plugin, "install", json!({ "name": "old-mta" })).await;
    let failure = fails(&plugin, "install", json!({ "name": "new-mta" })).await;
    assert_eq!(failure.data["packages"], json!([]), "{failure}");
    assert!(debian.state("old-mta").starts_with("install ok installed"));
    let allowed = ok(&plugin, "install", json!({ "name": "new-mta", "allow_removal": true })).await;
    assert_touched(&allowed.data, &[("new-mta", "installed", "1", "-"), ("old-mta", "purged", "-", "1")]);
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_a_failure() {
    let debian = Debian::new();
    let plugin = debian.plugin();
    let done = ok(&plugin, "refresh", json!({})).await;
    assert_eq!(done.message, "what the repositories have was fetched");
    fs::write(debian.path("etc/apt/sources.list.d/gone.list"), "deb [trusted=yes] copy:/no/such/repository ./\n")
        .unwrap();
    let failure = fails(&plugin, "refresh", json!({})).await;
    assert_eq!(failure.code.code, "failed");
    assert!(failure.message.contains("/no/such/repository"), "{failure}");
}

#[tokio::test]
async fn a_name_or_version_that_no_repository_has() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    let failure = fails(&plugin, "install", json!({ "names": ["foo", "nothing"] })).await;
    assert!(failure.message.starts_with("no repository of this host has `nothing`"), "{failure}");
    let failure = fails(&plugin, "install", json!({ "name": "foo", "version": "9.9" })).await;
    assert!(failure.message.contains("9.9"), "{failure}");
    assert_eq!(debian.state("foo"), "");
}

/// On a machine that is busy the script may not be reached in the first limit; a longer one then shows it.
#[tokio::test]
async fn a_script_that_hangs_ends_with_the_time_limit() {
    for seconds in [4, 16, 64] {
        let debian = Debian::new();
        let began = debian.path("began");
        let script = format!("#!/bin/sh\ntouch {}\nexec sleep 1000\n", began.display());
        debian.publish(&Deb { name: "hangs", version: "1", scripts: &[("postinst", &script)], ..Deb::default() });
        debian.update();
        let limit = Duration::from_secs(seconds);
        let failure = run_within(&debian.plugin(), "install", json!({ "name": "hangs" }), limit).await.unwrap_err();
        assert_eq!(failure.code.code, "timed-out", "{failure}");
        if began.exists() {
            assert_touched(&failure.data, &[("hangs", "installed", "1", "-")]);
            assert_eq!(failure.data["packages"][0]["status"], json!("half-configured"));
            return;
        }
    }
    panic!("the script was never reached");
}

#[tokio::test]
async fn a_transaction_that_began_is_finished_when_it_is_cancelled() {
    let debian = Debian::new();
    let (began, go_on) = (debian.path("began"), debian.path("go-on"));
    let script =
        format!("#!/bin/sh\ntouch {}\nuntil [ -e {} ]; do sleep 0.05; done\n", began.display(), go_on.display());
    let scripts = [("postinst", script.as_str())];
    debian.publish(&Deb { name: "slow", version: "1", scripts: &scripts, ..Deb::default() });
    debian.update();
    let plugin = debian.plugin();
    let cancel = CancellationToken::new();
    let request = conformance::sample_request("install", json!({ "name": "slow" })).unwrap();
    let action = plugin.run(request, conformance::context(cancel.clone()));
    let conductor = async {
        until(|| began.exists(), |began| *began).await;
        cancel.cancel();
        fs::write(&go_on, "").unwrap();
    };
    let (reply, ()) = tokio::join!(action, conductor);
    let done = reply.unwrap();
    assert_touched(&done.data, &[("slow", "installed", "1", "-")]);
    assert!(done.message.ends_with("which was left to finish"), "{}", done.message);
    assert_eq!(debian.state("slow"), "install ok installed 1");
}

#[tokio::test]
async fn a_daemon_that_a_script_starts_lives_on() {
    let debian = Debian::new();
    let pid = debian.path("daemon.pid");
    let script = format!("#!/bin/sh\nsleep 300 >/dev/null 2>&1 </dev/null &\necho $! > {}\n", pid.display());
    let scripts = [("postinst", script.as_str())];
    debian.publish(&Deb { name: "daemon", version: "1", scripts: &scripts, ..Deb::default() });
    debian.update();
    ok(&debian.plugin(), "install", json!({ "name": "daemon" })).await;
    let pid: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(crate::support::alive(pid).is_some(), "it was started, and is there to stay");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn profiles_follow_packages_and_repositories() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    let profiles = || async {
        let profiles = plugin.profiles(conformance::context(CancellationToken::new())).await.unwrap();
        let [packages, repositories] = <[_; 2]>::try_from(profiles).unwrap();
        assert_eq!((packages.name, repositories.name), ("packages", "repositories"));
        (packages, repositories)
    };
    let (packages, repositories) = profiles().await;
    assert_eq!(packages.data["packages"], json!([["muster-base", "1.0", "all", "installed"]]));
    assert_eq!(repositories.data["repositories"].as_array().unwrap().len(), 1);
    ok(&plugin, "install", json!({ "name": "foo" })).await;
    let secret = "deb https://user:secret@repo.example.com/debian stable main\n";
    fs::write(debian.path("etc/apt/sources.list.d/more.list"), secret).unwrap();
    let stanza = "Types: deb\nURIs: https://b.example.com\nSuites: x\nComponents: main\nEnabled: no\n";
    fs::write(debian.path("etc/apt/sources.list.d/off.sources"), stanza).unwrap();
    let (more_packages, more_repositories) = profiles().await;
    assert_eq!(more_packages.data["count"], json!(3));
    assert!(more_packages.digest != packages.digest && more_repositories.digest != repositories.digest);
    let listed = &more_repositories.data["repositories"];
    assert_eq!(listed[1]["uri"], json!("https://user:***@repo.example.com/debian"));
    assert_eq!((&listed[2]["enabled"], &listed[2]["suite"]), (&json!(false), &json!("x")));
    assert_eq!(profiles().await, (more_packages, more_repositories), "nothing changed, same digest");
}

#[tokio::test]
async fn lists_and_counts() {
    let debian = foo_and_bar();
    let plugin = debian.plugin();
    ok(&plugin, "install", json!({ "name": "foo" })).await;
    let data = ok(&plugin, "list", json!({})).await.data;
    let names: Vec<_> = data["packages"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["bar", "foo", "muster-base"]);
    assert_eq!(data["packages"][0]["version"], json!("2:2.0-1"));
    assert_eq!(ok(&plugin, "list", json!({ "contains": "oo" })).await.data["count"], json!(1));
    let data = ok(&plugin, "count", json!({})).await.data;
    assert_eq!((&data["installed"], &data["broken"], &data["configuration"]), (&json!(3), &json!(0), &json!(0)));
    let several = ok(&plugin, "status", json!({ "names": ["foo", "nothing"] })).await;
    assert_eq!((&several.data["installed"], several.message.as_str()), (&json!(false), "not installed: nothing"));
    assert_eq!(several.data["packages"][0]["ensure"], json!("1.1-1"));
}
