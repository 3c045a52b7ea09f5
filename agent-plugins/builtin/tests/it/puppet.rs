//! `puppet`, with files as Puppet leaves them.

use std::fs;
use std::path::PathBuf;

use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::{Puppet, PuppetPaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ask, conforms, run, script};

struct Site {
    root: TempDir,
    plugin: Puppet,
}

const SUMMARY: &str = "---\nversion:\n  config: \"production-4f2a91c\"\n  puppet: 7.23.0\nresources:\n  changed: 0\n  \
    failed: 2\n  total: 87\ntime:\n  last_run: 1795215600\n  total: 3.5\n";

impl Site {
    /// A host without Puppet, with the directories of both families of packages.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let paths = PuppetPaths {
            programs: vec![path("opt/bin/puppet"), path("bin/puppet")],
            state_directories: vec![path("opt/state"), path("var/state")],
            public_directories: vec![path("opt/public")],
            pid_files: vec![path("run/agent.pid")],
            processes: path("proc"),
        };
        for directory in ["opt/state", "opt/public", "opt/bin", "var/state", "bin", "run", "proc"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        Self { plugin: Puppet::new(paths), root }
    }

    fn installed() -> Self {
        let site = Self::new();
        script(&site.path("bin/puppet"), "#!/bin/sh\nexit 99\n");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn process(&self, pid: u32, command: &str) {
        fs::create_dir_all(self.path(&format!("proc/{pid}"))).unwrap();
        self.write(&format!("proc/{pid}/cmdline"), command);
    }

    async fn status(&self) -> Value {
        run(&self.plugin, "status", json!({})).await.unwrap().data
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let site = Site::installed();
    site.write("var/state/last_run_summary.yaml", SUMMARY);
    let samples = [Sample::succeeds("status", json!({})), Sample::query("puppet", json!({}))];
    conforms(check(&site.plugin, &samples).await);
    conforms(check(&Site::new().plugin, &samples).await);
    conforms(check(&Puppet::new(PuppetPaths::default()), &samples).await);
}

#[tokio::test]
async fn without_puppet_that_is_the_answer() {
    let site = Site::new();
    let status = site.status().await;
    assert_eq!((&status["status"], &status["puppet_installed"]), (&json!("not_installed"), &json!(false)));
    assert_eq!((&status["enabled"], &status["last_run_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(ask(&site.plugin, "puppet", &[]).await, None);
}

#[tokio::test]
async fn stopped_idling_applying() {
    let site = Site::installed();
    assert_eq!(site.status().await["status"], json!("stopped"));

    site.write("run/agent.pid", "300\n");
    assert_eq!(site.status().await["status"], json!("stopped"), "no such process");
    site.process(300, "/usr/sbin/cron\0-f\0");
    assert_eq!(site.status().await["status"], json!("stopped"), "somebody else's process");
    site.process(300, "/usr/bin/ruby\0/usr/bin/puppet\0agent\0");
    let status = site.status().await;
    assert_eq!(
        (&status["status"], &status["daemon_present"], &status["pid"]),
        (&json!("idling"), &json!(true), &json!(300))
    );

    site.write("opt/state/agent_catalog_run.lock", "301");
    site.process(301, "puppet agent: applying configuration");
    let status = site.status().await;
    assert_eq!(
        (&status["status"], &status["idling"], &status["pid"]),
        (&json!("applying"), &json!(false), &json!(301))
    );

    site.write("opt/state/agent_catalog_run.lock", "");
    assert_eq!(site.status().await["status"], json!("idling"), "the lock is being written");
}

#[tokio::test]
async fn disabled_with_a_reason() {
    let site = Site::installed();
    let cases = [
        ("{\"disabled_message\":\"moving the database, lea\"}", "moving the database, lea"),
        ("{\"disabled_message\":\"\"}", ""),
        ("", ""),
        ("by hand\n", "by hand"),
    ];
    for (lock, reason) in cases {
        site.write("opt/state/agent_disabled.lock", lock);
        let status = site.status().await;
        assert_eq!((&status["status"], &status["enabled"]), (&json!("disabled"), &json!(false)), "{lock}");
        assert_eq!(status["disabled_message"], json!(reason));
    }
    site.write("opt/state/agent_catalog_run.lock", "301");
    site.process(301, "puppet agent: applying configuration");
    let status = site.status().await;
    assert_eq!((&status["status"], &status["enabled"]), (&json!("applying"), &json!(false)), "the run began before");
}

#[tokio::test]
async fn the_last_run() {
    let site = Site::installed();
    site.write("var/state/last_run_summary.yaml", SUMMARY);
    let status = site.status().await;
    assert_eq!((&status["last_run_ms"], &status["since_last_run_s"]), (&json!(1_795_215_600_000_i64), &json!(3600)));
    assert_eq!((&status["last_run_result"], &status["failed_resources"]), (&json!("failed"), &json!(2)));
    assert_eq!(
        (&status["config_version"], &status["puppet_version"]),
        (&json!("production-4f2a91c"), &json!("7.23.0"))
    );

    // Since Puppet 7 in another directory; the older file stays behind after an upgrade.
    let newer = SUMMARY.replace("failed: 2", "failed: 0").replace("1795215600", "1795219100");
    site.write("opt/public/last_run_summary.yaml", &newer);
    let status = site.status().await;
    assert_eq!((&status["last_run_result"], &status["since_last_run_s"]), (&json!("unchanged"), &json!(100)));

    let answer = ask(&site.plugin, "puppet", &[]).await.unwrap();
    assert_eq!((&answer["status"], answer.get("pid")), (&json!("stopped"), None));
}

#[tokio::test]
async fn a_file_that_is_not_what_it_should_be_is_a_failure() {
    let site = Site::installed();
    site.write("var/state/last_run_summary.yaml", "version: [1, 2");
    let failure = run(&site.plugin, "status", json!({})).await.unwrap_err();
    assert!(failure.message.contains("last_run_summary.yaml` is not a summary of a Puppet run"), "{failure}");

    // YAML that grows when it is read: each line doubles what the one before names.
    let mut bomb = String::from("a0: &a0 [x, x]\n");
    for level in 1..40 {
        bomb.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
    }
    site.write("var/state/last_run_summary.yaml", &bomb);
    assert!(run(&site.plugin, "status", json!({})).await.is_err());

    fs::remove_file(site.path("var/state/last_run_summary.yaml")).unwrap();
    fs::create_dir(site.path("var/state/agent_disabled.lock")).unwrap();
    let failure = run(&site.plugin, "status", json!({})).await.unwrap_err();
    assert!(failure.message.contains("agent_disabled.lock` cannot be read"), "{failure}");
}
