//! What is no name of a service is refused, by the description and by the plugin itself, and nothing is run.

use std::fs;
use std::path::Path;

use muster_plugin_api::{ActionRequest, CancellationToken, Plugin, conformance};
use muster_plugins::Service;
use serde_json::json;

use super::nowhere;
use crate::support::script;

const ATTACKS: &[&str] = &[
    "",
    "x; rm -rf /",
    "--no-block",
    "-H host",
    "-Hhost",
    "a\nb",
    "web\n",
    "a\0b",
    "../../etc/init.d/web",
    "@",
    "a/b",
    "/web",
    ".",
    "..",
    "x y",
    "*",
    "we?",
    "[a]",
    "$(id)",
    "`id`",
    "web\u{7f}",
    "wéb",
    "-",
];

const ACTIONS: &[&str] = &["status", "start", "stop", "restart", "reload", "enable", "disable"];

#[tokio::test]
async fn attacks_are_refused_twice_and_nothing_runs() {
    let root = tempfile::tempdir().unwrap();
    let paths = nowhere(root.path());
    let trace = root.path().join("ran");
    for directory in ["bin", "init.d", "run"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    for program in ["init.d/web", "bin/systemctl", "bin/update-rc.d", "bin/journalctl"] {
        script(&root.path().join(program), &format!("#!/bin/sh\necho \"$0 $*\" >> {}\n", trace.display()));
    }
    let plugin = Service::new(paths);
    for action in ACTIONS {
        let described = plugin.ddl().action(&action.parse().unwrap()).unwrap();
        for name in ATTACKS.iter().chain(&["x@", "x@.service"]) {
            let arguments = json!({ "name": name }).as_object().unwrap().clone();
            // Templates pass the description: there, only the end of a name makes them one.
            assert!(described.validate(&arguments).is_err() || name.starts_with("x@"), "{action} {name:?}");
            let request = conformance::sample_request(action, json!({ "name": name })).unwrap();
            for noop in [false, true] {
                let request = ActionRequest { noop, ..request.clone() };
                let failure = plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap_err();
                assert_eq!(failure.code.code, "invalid-argument", "{action} {name:?}");
            }
        }
    }
    assert!(!trace.exists(), "{}", fs::read_to_string(&trace).unwrap_or_default());
}

#[tokio::test]
async fn the_host_itself_is_not_started_or_stopped() {
    let root = tempfile::tempdir().unwrap();
    let plugin = Service::new(nowhere(root.path()));
    for name in ["poweroff.target", "home.mount", "system.slice", "init.scope"] {
        let request = conformance::sample_request("start", json!({ "name": name })).unwrap();
        let failure = plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap_err();
        assert_eq!(failure.code.code, "invalid-argument", "{name}");
    }
    assert!(!Path::new(&root.path().join("systemd")).exists());
}

#[tokio::test]
async fn a_wait_of_no_time_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let plugin = Service::new(nowhere(root.path()));
    for wait in [json!(0), json!(-1)] {
        let request = conformance::sample_request("start", json!({ "name": "web", "wait_s": wait })).unwrap();
        let failure = plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap_err();
        assert_eq!(failure.code.code, "invalid-argument");
    }
}
