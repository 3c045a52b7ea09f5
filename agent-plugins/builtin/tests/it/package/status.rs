//! `package`: dpkg with this machine's database and with throw-away ones; rpm where it is installed,
//! and with recorded output everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use muster_plugin_api::Plugin;
use muster_plugins::{Package, PackagePaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ask, run, run_within, script};

fn here() -> Package {
    Package::new(PackagePaths::default())
}

#[tokio::test]
async fn agrees_with_dpkg_on_this_machine() {
    for name in ["bash", "base-files", "libc6"] {
        let version = Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output().unwrap().stdout;
        let version = String::from_utf8(version).unwrap();
        let data = run(&here(), "status", json!({ "name": name })).await.unwrap().data;
        assert_eq!((&data["ensure"], &data["installed"]), (&json!(version), &json!(true)), "{data}");
        assert_eq!((&data["provider"], &data["status"]), (&json!("dpkg"), &json!("installed")), "{data}");
    }
}

#[tokio::test]
async fn a_package_that_is_not_there_is_an_answer() {
    let ok = run(&here(), "status", json!({ "name": "no-such-package" })).await.unwrap();
    assert_eq!((&ok.data["ensure"], &ok.data["installed"]), (&json!("absent"), &json!(false)));
    assert_eq!((&ok.data["version"], &ok.data["provided_by"]), (&Value::Null, &json!([])));
    assert_eq!(ask(&here(), "package", &[json!("no-such-package")]).await, None);
}

#[tokio::test]
async fn names_that_are_not_names_are_refused_by_the_description() {
    let ddl = here();
    let action = ddl.ddl().action(&"status".parse().unwrap()).unwrap();
    for name in ["", "-f", "--admindir=/tmp", "a b", "a*", "a;b", "a/b", "../x", "a\n", "a:", "a:B", "bash\0", "ä"] {
        let arguments = json!({ "name": name }).as_object().unwrap().clone();
        assert!(action.validate(&arguments).is_err(), "{name:?}");
    }
    for name in ["bash", "libc6:amd64", "g++-12", "gtk+3.0", "python3.11", "kernel-core.x86_64", "PackageKit"] {
        let arguments = json!({ "name": name }).as_object().unwrap().clone();
        assert!(action.validate(&arguments).is_ok(), "{name:?}");
    }
}

/// A dpkg database in which each package is in another state, read by the real dpkg-query.
fn dpkg_database() -> (TempDir, Package) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("info")).unwrap();
    fs::create_dir(root.path().join("updates")).unwrap();
    fs::write(root.path().join("info/format"), "1\n").unwrap();
    let entry = |name: &str, arch: &str, status: &str, version: &str, more: &str| {
        format!(
            "Package: {name}\nStatus: {status}\nPriority: optional\nSection: misc\nMaintainer: Somebody <s@example.com>\n\
             Architecture: {arch}\nVersion: {version}\n{more}Description: for a test\n\n"
        )
    };
    let status = [
        entry("libboth", "amd64", "install ok installed", "2:1.5-3", "Multi-Arch: same\n"),
        entry("libboth", "i386", "install ok installed", "2:1.5-3", "Multi-Arch: same\n"),
        entry("halfway", "all", "install ok half-configured", "1.0-1", ""),
        entry("unpacked", "all", "install ok unpacked", "1.0-1", ""),
        entry("broken", "all", "install reinstreq half-installed", "1.0-1", ""),
        entry(
            "removed",
            "all",
            "deinstall ok config-files",
            "1.0-1",
            "Conffiles:\n /etc/removed 0123456789abcdef0123456789abcdef\n",
        ),
        entry("native", "all", "hold ok installed", "20260101", "Provides: virtual, other (= 1.0)\n"),
    ];
    fs::write(root.path().join("status"), status.concat()).unwrap();
    let plugin = Package::new(PackagePaths { dpkg_database: root.path().to_owned(), ..PackagePaths::default() });
    (root, plugin)
}

#[tokio::test]
async fn every_state_in_a_real_dpkg_database() {
    let (_root, plugin) = dpkg_database();
    let cases = [
        ("libboth", "2:1.5-3", true, "installed"),
        ("libboth:i386", "2:1.5-3", true, "installed"),
        ("halfway", "half-configured", false, "half-configured"),
        ("unpacked", "unpacked", false, "unpacked"),
        ("broken", "half-installed, reinstreq", false, "half-installed, reinstreq"),
        ("removed", "absent", false, "config-files"),
        ("native", "20260101", true, "installed"),
        ("virtual", "absent", false, "absent"),
        ("bash", "absent", false, "absent"),
    ];
    for (name, ensure, installed, status) in cases {
        let data = run(&plugin, "status", json!({ "name": name })).await.unwrap().data;
        let seen = (&data["ensure"], &data["installed"], &data["status"]);
        assert_eq!(seen, (&json!(ensure), &json!(installed), &json!(status)), "{name}");
    }
}

#[tokio::test]
async fn several_architectures_and_virtual_packages() {
    let (_root, plugin) = dpkg_database();
    let data = run(&plugin, "status", json!({ "name": "libboth" })).await.unwrap().data;
    let parts = (&data["epoch"], &data["version"], &data["release"], &data["arch"]);
    assert_eq!(parts, (&json!(2), &json!("1.5"), &json!("3"), &json!("amd64")));
    let archs: Vec<_> = data["instances"].as_array().unwrap().iter().map(|one| one["arch"].clone()).collect();
    assert_eq!(archs, ["amd64", "i386"]);

    let ok = run(&plugin, "status", json!({ "name": "virtual" })).await.unwrap();
    assert_eq!(ok.data["provided_by"], json!(["native"]));
    assert_eq!(ok.message, "no package has this name; provided by native");
}

#[tokio::test]
async fn what_an_expression_gets() {
    let (_root, plugin) = dpkg_database();
    let expected = json!({
        "name": "native", "ensure": "20260101", "installed": true, "version": "20260101",
        "arch": "all", "status": "installed", "provider": "dpkg",
    });
    assert_eq!(ask(&plugin, "package", &[json!("native")]).await, Some(expected));
    assert_eq!(ask(&plugin, "package", &[json!("virtual")]).await, None);
    let half = ask(&plugin, "package", &[json!("halfway")]).await.unwrap();
    assert_eq!(half["installed"], json!(false));
}

#[tokio::test]
async fn a_damaged_database_is_a_failure_not_an_absent_package() {
    let (root, plugin) = dpkg_database();
    fs::write(root.path().join("status"), "this is no database\n").unwrap();
    let failure = run(&plugin, "status", json!({ "name": "native" })).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(2)));
    assert!(failure.message.contains("dpkg-query"), "{failure}");
}

/// A plugin that sees nothing but one script in place of a package manager.
fn with_program(root: &Path, name: &str, text: &str) -> Package {
    let programs = root.join("bin");
    fs::create_dir_all(&programs).unwrap();
    script(&programs.join(name), text);
    let database = root.join("db");
    fs::create_dir_all(&database).unwrap();
    fs::write(database.join(if name == "rpm" { "rpmdb.sqlite" } else { "status" }), "x").unwrap();
    Package::new(PackagePaths {
        programs: vec![programs],
        dpkg_database: database.clone(),
        rpm_databases: vec![root.join("none"), database],
        apk_databases: Vec::new(),
        ..PackagePaths::default()
    })
}

#[tokio::test]
async fn without_a_package_manager_it_does_not_activate() {
    let root = tempfile::tempdir().unwrap();
    let nowhere = PackagePaths {
        programs: vec![root.path().to_owned()],
        dpkg_database: root.path().to_owned(),
        rpm_databases: vec![root.path().to_owned()],
        apk_databases: Vec::new(),
        ..PackagePaths::default()
    };
    let not = Package::new(nowhere.clone()).activate().unwrap_err();
    assert_eq!(not.to_string(), "there is neither dpkg nor rpm nor apk with a package database");
    let failure = run(&Package::new(nowhere), "status", json!({ "name": "bash" })).await.unwrap_err();
    assert_eq!(failure.code.code, "not-activated");
}

#[tokio::test]
async fn a_package_manager_that_hangs_runs_out_of_time() {
    let root = tempfile::tempdir().unwrap();
    let plugin = with_program(root.path(), "dpkg-query", "#!/bin/sh\nexec sleep 1000\n");
    let limit = Duration::from_millis(200);
    let failure = run_within(&plugin, "status", json!({ "name": "bash" }), limit).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out");
}

/// Answers as rpm 4.18 does, and only to the exact words that the plugin should say.
const RECORDED_RPM: &str = r#"#!/bin/sh
[ "$2" = --query ] || { echo "unexpected: $*" >&2; exit 99; }
for last; do :; done
case "$3/$last" in
  --queryformat=*/openssl) printf 'openssl\t1\t3.0.7\t27.el9\tx86_64\t1700000000\t.\n' ;;
  --queryformat=*/kernel-core)
    printf 'kernel-core\t(none)\t5.14.0\t362.el9\tx86_64\t1700000000\t.\nkernel-core\t(none)\t5.14.0\t427.el9\tx86_64\t1710000000\t.\n' ;;
  --whatprovides/smtpd) printf 'postfix\t.\n' ;;
  --whatprovides/broken) echo "error: cannot open Packages database" >&2; exit 1 ;;
  --whatprovides/*) echo "no package provides $last"; exit 1 ;;
  *) echo "package $last is not installed"; exit 1 ;;
esac
"#;

#[tokio::test]
async fn recorded_rpm() {
    let root = tempfile::tempdir().unwrap();
    let plugin = with_program(root.path(), "rpm", RECORDED_RPM);
    let data = run(&plugin, "status", json!({ "name": "openssl" })).await.unwrap().data;
    let seen = (&data["ensure"], &data["version"], &data["release"], &data["epoch"], &data["provider"]);
    assert_eq!(seen, (&json!("1:3.0.7-27.el9"), &json!("3.0.7"), &json!("27.el9"), &json!(1), &json!("rpm")));
    let data = run(&plugin, "status", json!({ "name": "kernel-core" })).await.unwrap().data;
    assert_eq!(
        (&data["ensure"], &data["instances"][1]["ensure"]),
        (&json!("5.14.0-427.el9"), &json!("5.14.0-362.el9"))
    );
    let data = run(&plugin, "status", json!({ "name": "smtpd" })).await.unwrap().data;
    assert_eq!((&data["ensure"], &data["provided_by"]), (&json!("absent"), &json!(["postfix"])));
    let data = run(&plugin, "status", json!({ "name": "nothing" })).await.unwrap().data;
    assert_eq!((&data["installed"], &data["provided_by"]), (&json!(false), &json!([])));
    let failure = run(&plugin, "status", json!({ "name": "broken" })).await.unwrap_err();
    assert_eq!(failure.message, "`rpm` ended with exit code 1: error: cannot open Packages database");
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Builds two packages and puts them into a database of their own; nothing on the machine changes.
#[tokio::test]
async fn real_rpm_with_a_throw_away_database() {
    let (Some(rpm), Some(rpmbuild)) = (in_path("rpm"), in_path("rpmbuild")) else {
        eprintln!("rpm and rpmbuild are not installed, so the real rpm was not asked; recorded output was");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let database = root.path().join("db");
    let spec = root.path().join("sample.spec");
    let text = "Name: muster-sample\nEpoch: 3\nVersion: 1.2\nRelease: 4.el9\nSummary: for a test\nLicense: MIT\n\
                BuildArch: noarch\nProvides: muster-virtual\n%description\nfor a test\n%files\n";
    fs::write(&spec, text).unwrap();
    let top = format!("_topdir {}", root.path().display());
    let built = Command::new(rpmbuild).args(["-bb", "--define", &top]).arg(&spec).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let package = root.path().join("RPMS/noarch/muster-sample-1.2-4.el9.noarch.rpm");
    let dbpath = format!("--dbpath={}", database.display());
    let installed =
        Command::new(&rpm).args([&dbpath, "--install", "--justdb", "--nodeps"]).arg(package).output().unwrap();
    assert!(installed.status.success(), "{installed:?}");

    let plugin = Package::new(PackagePaths {
        programs: vec![rpm.parent().unwrap().to_owned()],
        dpkg_database: root.path().join("none"),
        rpm_databases: vec![database],
        ..PackagePaths::default()
    });
    let data = run(&plugin, "status", json!({ "name": "muster-sample" })).await.unwrap().data;
    let seen = (&data["ensure"], &data["epoch"], &data["arch"], &data["installed"]);
    assert_eq!(seen, (&json!("3:1.2-4.el9"), &json!(3), &json!("noarch"), &json!(true)), "{data}");
    let data = run(&plugin, "status", json!({ "name": "muster-virtual" })).await.unwrap().data;
    assert_eq!((&data["ensure"], &data["provided_by"]), (&json!("absent"), &json!(["muster-sample"])), "{data}");
    let data = run(&plugin, "status", json!({ "name": "bash" })).await.unwrap().data;
    assert_eq!((&data["ensure"], &data["provided_by"]), (&json!("absent"), &json!([])), "{data}");
}
