//! systemctl on files alone, where systemd does not run; and which manager owns a host.

use std::fs;
use std::os::unix::fs::symlink;

use muster_plugin_api::Plugin;
use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::{Service, ServicePaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::nowhere;
use crate::support::{conforms, run, script};

/// A root directory with unit files, and the real systemctl that works on it.
fn root() -> (TempDir, ServicePaths) {
    let root = tempfile::tempdir().unwrap();
    let systemctl = std::path::Path::new("/usr/bin/systemctl");
    assert!(systemctl.exists(), "systemctl is missing; these tests need: apt-get install systemd");
    for directory in ["bin", "os/etc/systemd/system", "os/usr/lib/systemd/system"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    let text = format!("#!/bin/sh\nexec {} --root={}/os \"$@\"\n", systemctl.display(), root.path().display());
    script(&root.path().join("bin/systemctl"), &text);
    let units = root.path().join("os/usr/lib/systemd/system");
    fs::write(units.join("web.service"), "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
        .unwrap();
    fs::write(units.join("fixed.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    fs::write(units.join("inst@.service"), "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=a.target\n").unwrap();
    symlink("/dev/null", root.path().join("os/etc/systemd/system/hidden.service")).unwrap();
    let paths = nowhere(root.path());
    (root, paths)
}

#[tokio::test]
async fn keeps_the_contract() {
    let (_root, paths) = root();
    let web = || json!({ "name": "web" });
    let samples = [
        Sample::succeeds("status", web()),
        Sample::succeeds("list", json!({})),
        Sample::fails("start", web()),
        Sample::fails("stop", web()),
        Sample::fails("restart", web()),
        Sample::fails("reload", web()),
        Sample::succeeds("enable", web()),
        Sample::succeeds("disable", web()),
        Sample::query("service", web()),
    ];
    conforms(check(&Service::new(paths), &samples).await);
}

#[tokio::test]
async fn enables_and_says_that_nothing_runs() {
    let (root, paths) = root();
    let plugin = Service::new(paths);
    let link = root.path().join("os/etc/systemd/system/multi-user.target.wants/web.service");
    let enabled = run(&plugin, "enable", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!((&enabled["changed"], &enabled["after"]["enabled_state"]), (&json!(true), &json!("enabled")));
    assert!(link.symlink_metadata().is_ok());
    let status = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!(
        (&status["status"], &status["state"], &status["provider"]),
        (&json!("unknown"), &json!("offline"), &json!("systemd"))
    );
    assert_eq!((&status["enabled"], &status["pid"]), (&json!(true), &Value::Null));
    for action in ["start", "stop", "restart", "reload"] {
        let failure = run(&plugin, action, json!({ "name": "web" })).await.unwrap_err();
        assert_eq!(failure.code.code, "not-activated", "{action}");
        assert!(failure.message.contains("does not run here"), "{failure}");
    }
    run(&plugin, "disable", json!({ "name": "web" })).await.unwrap();
    assert!(link.symlink_metadata().is_err());

    assert_eq!(run(&plugin, "enable", json!({ "name": "hidden" })).await.unwrap_err().code.code, "service-masked");
    assert!(run(&plugin, "enable", json!({ "name": "fixed" })).await.unwrap_err().message.contains("[Install]"));
    assert_eq!(run(&plugin, "enable", json!({ "name": "nope" })).await.unwrap_err().code.code, "unknown-service");
    let absent = run(&plugin, "status", json!({ "name": "nope" })).await.unwrap().data;
    assert_eq!((&absent["status"], &absent["provider"]), (&json!("absent"), &json!("systemd")));
    let instance = run(&plugin, "enable", json!({ "name": "inst@eu" })).await.unwrap().data;
    assert_eq!(instance["after"]["enabled"], json!(true));

    let list = run(&plugin, "list", json!({})).await.unwrap().data;
    let names: Vec<_> = list["services"].as_array().unwrap().iter().map(|service| &service["name"]).collect();
    for name in ["fixed", "hidden", "web"] {
        assert!(names.contains(&&json!(name)), "{names:?}");
    }
}

#[tokio::test]
async fn beside_init_scripts_it_speaks_for_names_without_one() {
    let (root, paths) = root();
    fs::create_dir(root.path().join("init.d")).unwrap();
    script(&root.path().join("init.d/web"), "#!/bin/sh\n[ \"$1\" = status ] && exit 0\n");
    let plugin = Service::new(paths);
    let provider =
        async |name: &str| run(&plugin, "status", json!({ "name": name })).await.unwrap().data["provider"].clone();
    assert_eq!(
        (provider("web").await, provider("fixed").await, provider("nope").await),
        (json!("sysv"), json!("systemd"), json!("sysv"))
    );
}

#[test]
fn who_owns_a_host() {
    let root = tempfile::tempdir().unwrap();
    let paths = nowhere(root.path());
    let why = || Service::new(paths.clone()).activate().unwrap_err().to_string();
    assert_eq!(why(), "neither systemd nor OpenRC runs here, and there are no init scripts");
    fs::create_dir(root.path().join("init.d")).unwrap();
    assert_eq!(Service::new(paths.clone()).activate(), Ok(()));
    fs::create_dir(root.path().join("openrc")).unwrap();
    assert_eq!(Service::new(paths.clone()).activate(), Ok(()), "it is installed, but has not booted");
    fs::write(root.path().join("openrc/softlevel"), "default").unwrap();
    assert_eq!(why(), "OpenRC runs, but there is no rc-service");
    fs::create_dir(root.path().join("systemd")).unwrap();
    assert_eq!(why(), "systemd runs, but there is no systemctl");
}
