//! Init scripts that really start, stop and lose daemons.

use std::fs;
use std::time::Duration;

use muster_plugin_api::Plugin;
use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::{Service, ServicePaths};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{log, nowhere};
use crate::support::{alive, ask, conforms, dies, run, run_within, script};

/// A service as its packagers write it: a daemon in its own session, a pid file, the exit codes of the LSB.
const SCRIPT: &str = r#"#!/bin/sh
### BEGIN INIT INFO
# Provides:          web
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: Serves pages
### END INIT INFO
pidfile=ROOT/run/NAME.pid
running() { [ -f "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$(cat "$pidfile")/status"; }
stop() {
  running && kill "$(cat "$pidfile")"
  while running; do sleep 0.05; done
  rm -f "$pidfile"
}
case "$1" in
  start)
    running && exit 0
    echo "Starting NAME"
    setsid sh -c 'echo $$ > "$1"; exec sleep 1000' sh "$pidfile" > /dev/null 2>&1 < /dev/null &
    while [ ! -s "$pidfile" ]; do sleep 0.05; done ;;
  stop) stop ;;
  restart) stop; exec "$0" start ;;
  reload) running || exit 7; echo reloaded ;;
  status) running && exit 0; [ -f "$pidfile" ] && exit 1; exit 3 ;;
  *) echo "Usage: NAME start|stop|restart|reload|status" >&2; exit 2 ;;
esac
"#;

struct Host {
    root: TempDir,
    plugin: Service,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["bin", "init.d", "rc2.d", "rc3.d", "run"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let plugin = Service::new(Self::paths(&root));
        Self { root, plugin }
    }

    fn paths(root: &TempDir) -> ServicePaths {
        nowhere(root.path())
    }

    fn install(&self, name: &str, text: &str) {
        let text = text.replace("ROOT", self.root.path().to_str().unwrap()).replace("NAME", name);
        script(&self.root.path().join("init.d").join(name), &text);
    }

    fn pid(&self, name: &str) -> i32 {
        fs::read_to_string(self.root.path().join(format!("run/{name}.pid"))).unwrap().trim().parse().unwrap()
    }
}

/// Daemons outlive actions; they must not outlive tests.
impl Drop for Host {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.root.path().join("run")).unwrap().flatten() {
            if let Some(pid) = fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse::<i32>().ok())
                && let Ok(command) = fs::read_to_string(format!("/proc/{pid}/cmdline"))
                && command.starts_with("sleep\0")
            {
                let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let host = Host::new();
    host.install("web", SCRIPT);
    let web = || json!({ "name": "web" });
    let samples = [
        Sample::succeeds("status", web()),
        Sample::succeeds("status", json!({ "name": "no-such-service" })),
        Sample::succeeds("list", json!({})),
        Sample::succeeds("start", web()),
        Sample::succeeds("restart", web()),
        Sample::succeeds("reload", web()),
        Sample::succeeds("enable", web()),
        Sample::succeeds("disable", web()),
        Sample::succeeds("stop", web()),
        Sample::fails("start", json!({ "name": "no-such-service" })),
        Sample::query("service", web()),
        Sample::query("service", json!({ "name": "no-such-service" })),
    ];
    conforms(check(&host.plugin, &samples).await);
}

#[tokio::test]
async fn a_daemon_lives_on_after_the_action() {
    let host = Host::new();
    host.install("web", SCRIPT);
    let act = async |action: &str| run(&host.plugin, action, json!({ "name": "web" })).await.unwrap();

    let started = act("start").await;
    assert_eq!((started.message.as_str(), &started.data["changed"]), ("`web` was started", &json!(true)));
    let pid = host.pid("web");
    assert!(alive(pid).is_some());
    assert_eq!((&started.data["before"]["status"], &started.data["before"]["pid"]), (&json!("stopped"), &Value::Null));
    assert_eq!((&started.data["after"]["status"], &started.data["after"]["pid"]), (&json!("running"), &json!(pid)));
    assert_eq!((&started.data["job"]["result"], &started.data["job"]["exit_code"]), (&json!("done"), &json!(0)));
    assert_eq!((log(&started.data).as_str(), &started.data["provider"]), ("Starting web", &json!("sysv")));
    assert_eq!(act("start").await.data["changed"], json!(false));
    assert_eq!(log(&act("reload").await.data), "reloaded");

    let restarted = act("restart").await.data;
    assert_ne!(restarted["after"]["pid"], json!(pid));
    dies(pid).await;
    let pid = host.pid("web");
    let stopped = act("stop").await.data;
    assert_eq!((&stopped["after"]["status"], &stopped["after"]["pid"]), (&json!("stopped"), &Value::Null));
    dies(pid).await;
    assert_eq!(act("stop").await.data["changed"], json!(false));
    // `.service` may be written here too.
    assert_eq!(
        run(&host.plugin, "status", json!({ "name": "web.service" })).await.unwrap().data["status"],
        json!("stopped")
    );
    let failure = run(&host.plugin, "reload", json!({ "name": "web" })).await.unwrap_err();
    assert!(failure.message.contains("does not run"), "{failure}");
}

#[tokio::test]
async fn every_exit_code_of_status() {
    let host = Host::new();
    for (code, status) in
        [(0, "running"), (1, "failed"), (2, "failed"), (3, "stopped"), (4, "unknown"), (150, "unknown")]
    {
        host.install("web", &format!("#!/bin/sh\n[ \"$1\" = status ] && exit {code}\nexit 99\n"));
        let data = run(&host.plugin, "status", json!({ "name": "web" })).await.unwrap().data;
        assert_eq!((&data["status"], &data["state"]), (&json!(status), &json!(format!("exit code {code}"))));
        assert_eq!((&data["provider"], &data["pid"]), (&json!("sysv"), &Value::Null));
    }
}

#[tokio::test]
async fn scripts_that_fail() {
    let host = Host::new();
    let failing =
        |code: u8| format!("#!/bin/sh\n[ \"$1\" = status ] && exit 3\necho starting\necho no luck >&2\nexit {code}\n");
    for (code, meaning) in
        [(1, "exit code 1"), (5, "program not installed"), (6, "program not configured"), (4, "insufficient privilege")]
    {
        host.install("web", &failing(code));
        let failure = run(&host.plugin, "start", json!({ "name": "web" })).await.unwrap_err();
        assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(i32::from(code))));
        assert!(failure.message.contains(meaning), "{failure}");
        assert_eq!(log(&failure.data), "starting\nno luck");
        assert_eq!(failure.data["after"]["status"], json!("stopped"));
    }
    host.install("liar", "#!/bin/sh\n[ \"$1\" = status ] && exit 3\nexit 0\n");
    let failure = run(&host.plugin, "start", json!({ "name": "liar" })).await.unwrap_err();
    assert!(failure.message.contains("does not run"), "{failure}");
    host.install("old", "#!/bin/sh\n[ \"$1\" = status ] && exit 0\nexit 3\n");
    let failure = run(&host.plugin, "reload", json!({ "name": "old" })).await.unwrap_err();
    assert_eq!(failure.code.code, "cannot-reload");
    host.install("killed", "#!/bin/sh\n[ \"$1\" = status ] && exit 3\nkill -9 $$\n");
    let failure = run(&host.plugin, "start", json!({ "name": "killed" })).await.unwrap_err();
    assert_eq!(failure.code.code, "signalled");
}

#[tokio::test]
async fn a_daemon_that_dies_right_after_the_start() {
    let host = Host::new();
    host.install("web", &SCRIPT.replace("exec sleep 1000", "exec sleep 0.5"));
    let failure = run(&host.plugin, "start", json!({ "name": "web" })).await.unwrap_err();
    assert_eq!(failure.code.code, "failed");
    assert_eq!(failure.data["after"]["status"], json!("failed"), "{failure}");
}

#[tokio::test]
async fn a_script_that_hangs() {
    let host = Host::new();
    host.install("slow", "#!/bin/sh\n[ \"$1\" = status ] && exit 3\necho $$ > ROOT/slow.pid\nsleep 1000\n");
    let failure = run(&host.plugin, "start", json!({ "name": "slow", "wait_s": 1 })).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out", "{failure}");
    let pid = fs::read_to_string(host.root.path().join("slow.pid")).unwrap().trim().parse().unwrap();
    dies(pid).await;

    host.install("slow", "#!/bin/sh\n[ \"$1\" = status ] && sleep 1000\n");
    let limit = Duration::from_millis(200);
    let failure = run_within(&host.plugin, "status", json!({ "name": "slow" }), limit).await.unwrap_err();
    assert_eq!(failure.code.code, "timed-out");
}

#[tokio::test]
async fn a_script_without_status() {
    let host = Host::new();
    let start = "setsid sh -c 'echo $$ > ROOT/run/old.pid; exec sleep 1000' > /dev/null 2>&1 < /dev/null &\n\
        while [ ! -s ROOT/run/old.pid ]; do sleep 0.05; done";
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in\nstart) {start} ;;\nstop) kill $(cat ROOT/run/old.pid); rm ROOT/run/old.pid ;;\n*) echo called >> ROOT/called ;;\nesac\n"
    );
    host.install("old", &text);
    let data = run(&host.plugin, "status", json!({ "name": "old" })).await.unwrap().data;
    assert_eq!((&data["status"], &data["exit_code"]), (&json!("unknown"), &Value::Null));
    let data = run(&host.plugin, "start", json!({ "name": "old" })).await.unwrap().data;
    assert_eq!((&data["after"]["status"], &data["after"]["pid"]), (&json!("running"), &json!(host.pid("old"))));
    let data = run(&host.plugin, "stop", json!({ "name": "old" })).await.unwrap().data;
    assert_eq!((&data["changed"], &data["after"]["status"]), (&json!(true), &json!("unknown")));
    assert!(!host.root.path().join("called").exists(), "it does not know the word");
}

#[tokio::test]
async fn the_process_comes_from_its_file_if_it_lives() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["init.d", "run", "proc"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    let paths = ServicePaths { processes: root.path().join("proc"), ..nowhere(root.path()) };
    let plugin = Service::new(paths);
    let install = |code: i32| script(&root.path().join("init.d/web"), &format!("#!/bin/sh\nstatus=\nexit {code}\n"));
    install(0);
    let pid = async || run(&plugin, "status", json!({ "name": "web" })).await.unwrap().data["pid"].clone();
    fs::write(root.path().join("run/web.pid"), "4711\n").unwrap();
    assert_eq!(pid().await, Value::Null, "no such process");
    fs::create_dir(root.path().join("proc/4711")).unwrap();
    assert_eq!(pid().await, json!(4711));
    install(3);
    assert_eq!(pid().await, Value::Null, "the number belongs to somebody else by now");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_an_answer() {
    let host = Host::new();
    fs::write(host.root.path().join("init.d/README"), "not a script").unwrap();
    for name in ["web", "README", "_", "x..", "web.timer"] {
        let data = run(&host.plugin, "status", json!({ "name": name })).await.unwrap().data;
        assert_eq!((&data["name"], &data["status"], &data["enabled"]), (&json!(name), &json!("absent"), &Value::Null));
        assert_eq!(ask(&host.plugin, "service", &[json!(name)]).await, None);
    }
    assert!(host.plugin.activate().is_ok());
}

#[tokio::test]
async fn lists_scripts_also_ones_that_hang() {
    let host = Host::new();
    host.install("web", SCRIPT);
    host.install("stuck", "#!/bin/sh\n[ \"$1\" = status ] && sleep 1000\n");
    host.install("rc", "#!/bin/sh\n");
    host.install("old", "#!/bin/sh\nexit 0\n");
    run(&host.plugin, "start", json!({ "name": "web" })).await.unwrap();
    let list = run(&host.plugin, "list", json!({})).await.unwrap().data;
    let shown: Vec<_> = list["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| (service["name"].as_str().unwrap(), service["status"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("old", "unknown"), ("stuck", "unknown"), ("web", "running")]);
    assert_eq!(list["services"][2]["description"], json!("Serves pages"));
}
