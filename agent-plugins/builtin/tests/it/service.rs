//! `service`: init scripts that really run, and recorded output of systemctl.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use muster_plugin_api::Plugin;
use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::{Service, ServicePaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ask, conforms, run, run_within, script};

/// Directories of a host without systemd.
fn sysv() -> (TempDir, ServicePaths) {
    let root = tempfile::tempdir().unwrap();
    let paths = ServicePaths {
        programs: vec![root.path().join("bin")],
        systemd_runtime: root.path().join("systemd"),
        init_scripts: root.path().join("init.d"),
        runlevels: root.path().to_owned(),
        pid_files: root.path().join("run"),
        processes: root.path().join("proc"),
    };
    for directory in ["bin", "init.d", "rc2.d", "rc3.d", "run", "proc"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    (root, paths)
}

/// A service as an init script has it: the state is a file.
const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = status ] || { echo "unexpected: $*" >&2; exit 99; }
exit "$(cat "$0.state")"
"#;

fn install(root: &TempDir, name: &str, state: i32) {
    let path = root.path().join("init.d").join(name);
    script(&path, SCRIPT);
    fs::write(path.with_extension("state"), state.to_string()).unwrap();
}

#[tokio::test]
async fn keeps_the_contract() {
    let (root, paths) = sysv();
    install(&root, "web", 0);
    let samples = [
        Sample::succeeds("status", json!({ "name": "web" })),
        Sample::succeeds("status", json!({ "name": "no-such-service" })),
        Sample::query("service", json!({ "name": "web" })),
        Sample::query("service", json!({ "name": "no-such-service" })),
    ];
    conforms(check(&Service::new(paths), &samples).await);
}

#[tokio::test]
async fn every_exit_code_of_an_init_script() {
    let (root, paths) = sysv();
    let plugin = Service::new(paths);
    for (code, status) in
        [(0, "running"), (1, "failed"), (2, "failed"), (3, "stopped"), (4, "unknown"), (150, "unknown")]
    {
        install(&root, "web", code);
        let data = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
        assert_eq!((&data["status"], &data["state"]), (&json!(status), &json!(format!("exit code {code}"))));
        assert_eq!((&data["provider"], &data["pid"]), (&json!("sysv"), &Value::Null));
    }
}

#[tokio::test]
async fn enabled_means_a_start_link_of_exactly_that_name() {
    let (root, paths) = sysv();
    let plugin = Service::new(paths);
    install(&root, "web", 0);
    let links = [("rc2.d/K01web", false), ("rc2.d/S01webs", false), ("rc2.d/Sxxweb", false), ("rc3.d/S20web", true)];
    for (link, enabled) in links {
        symlink(root.path().join("init.d/web"), root.path().join(link)).unwrap();
        let data = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
        assert_eq!(data["enabled"], json!(enabled), "{link}");
    }
}

#[tokio::test]
async fn the_process_comes_from_its_file_if_it_lives() {
    let (root, paths) = sysv();
    let plugin = Service::new(paths);
    install(&root, "web", 0);
    fs::write(root.path().join("run/web.pid"), "4711\n").unwrap();
    let data = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!(data["pid"], Value::Null, "no such process");
    fs::create_dir(root.path().join("proc/4711")).unwrap();
    let data = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!(data["pid"], json!(4711));
    install(&root, "web", 3);
    let data = run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data;
    assert_eq!(data["pid"], Value::Null, "the number belongs to somebody else by now");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_an_answer() {
    let (root, paths) = sysv();
    let plugin = Service::new(paths);
    fs::write(root.path().join("init.d/README"), "not a script").unwrap();
    for name in ["web", "README", "_", "x.."] {
        let data = run(&plugin, "status", json!({ "name": name })).await.unwrap().data;
        assert_eq!((&data["name"], &data["status"], &data["enabled"]), (&json!(name), &json!("absent"), &Value::Null));
        assert_eq!(ask(&plugin, "service", &[json!(name)]).await, None);
    }
    let action = plugin.ddl().action(&"status".parse().unwrap()).unwrap();
    for name in ["", "-h", "--system", "../web", "a/b", ".", "..", "a b", "a\nb", "a*", "[a]"] {
        let arguments = json!({ "name": name }).as_object().unwrap().clone();
        assert!(action.validate(&arguments).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn an_init_script_that_hangs_runs_out_of_time() {
    let (root, paths) = sysv();
    script(&root.path().join("init.d/slow"), "#!/bin/sh\nsleep 1000\n");
    let limit = Duration::from_millis(200);
    let failure = run_within(&Service::new(paths), "status", json!({ "name": "slow" }), limit).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out");
}

/// Answers as systemd 252 does, and only to the exact words that the plugin should say.
const RECORDED_SYSTEMCTL: &str = r#"#!/bin/sh
[ "$1 $2 $4 $TZ" = "show --no-pager -- UTC" ] || { echo "unexpected: $*" >&2; exit 99; }
case "$5" in
  ssh) cat <<'END'
MainPID=614
Id=ssh.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
InactiveEnterTimestamp=
ActiveEnterTimestamp=Fri 2026-11-20 08:15:00 UTC
END
  ;;
  backup) cat <<'END'
MainPID=0
Id=backup.service
LoadState=loaded
ActiveState=failed
SubState=failed
UnitFileState=static
InactiveEnterTimestamp=Thu 2026-11-19 23:00:07 UTC
ActiveEnterTimestamp=
END
  ;;
  bus) echo "Failed to connect to bus: No such file or directory" >&2; exit 1 ;;
  *) printf 'MainPID=0\nId=%s.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n' "$5" ;;
esac
"#;

fn systemd() -> (TempDir, Service) {
    let (root, paths) = sysv();
    fs::create_dir(root.path().join("systemd")).unwrap();
    script(&root.path().join("bin/systemctl"), RECORDED_SYSTEMCTL);
    (root, Service::new(paths))
}

#[tokio::test]
async fn recorded_systemd_keeps_the_contract() {
    let (_root, plugin) = systemd();
    let samples = [
        Sample::succeeds("status", json!({ "name": "ssh" })),
        Sample::succeeds("status", json!({ "name": "nope" })),
        Sample::query("service", json!({ "name": "ssh" })),
    ];
    conforms(check(&plugin, &samples).await);
}

#[tokio::test]
async fn recorded_systemd() {
    let (_root, plugin) = systemd();
    let data = run(&plugin, "status", json!({ "name": "ssh" })).await.unwrap().data;
    let expected = json!({
        "name": "ssh", "status": "running", "enabled": true, "enabled_state": "enabled", "pid": 614,
        "since_ms": 1_795_162_500_000_i64, "state": "active/running", "unit": "ssh.service", "provider": "systemd",
    });
    assert_eq!(data, expected);
    let data = run(&plugin, "status", json!({ "name": "backup" })).await.unwrap().data;
    assert_eq!((&data["status"], &data["enabled"], &data["pid"]), (&json!("failed"), &Value::Null, &Value::Null));
    assert_eq!(data["since_ms"], json!(1_795_129_207_000_i64));
    let answer = ask(&plugin, "service", &[json!("backup")]).await.unwrap();
    assert_eq!((&answer["status"], answer.get("enabled")), (&json!("failed"), None));

    let data = run(&plugin, "status", json!({ "name": "nope" })).await.unwrap().data;
    assert_eq!((&data["status"], &data["provider"]), (&json!("absent"), &json!("systemd")));
    let failure = run(&plugin, "status", json!({ "name": "bus" })).await.unwrap_err();
    assert_eq!(
        failure.message,
        "`systemctl` ended with exit code 1: Failed to connect to bus: No such file or directory"
    );
}

#[test]
fn without_a_service_manager_it_does_not_activate() {
    let (root, paths) = sysv();
    fs::create_dir(root.path().join("systemd")).unwrap();
    let not = Service::new(paths.clone()).activate().unwrap_err();
    assert_eq!(not.to_string(), "systemd runs, but there is no systemctl");
    fs::remove_dir(root.path().join("systemd")).unwrap();
    assert_eq!(Service::new(paths.clone()).activate(), Ok(()));
    fs::remove_dir(root.path().join("init.d")).unwrap();
    let not = Service::new(paths).activate().unwrap_err();
    assert_eq!(not.to_string(), "systemd does not run here and there are no init scripts");
}
