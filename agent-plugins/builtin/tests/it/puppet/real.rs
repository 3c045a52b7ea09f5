//! Debian's Puppet agent against a server of the tests' own: everything but the server's compiler is real.

use std::fs;
use std::time::Duration;

use muster_plugin_api::{ActionRequest, CancellationToken};
use serde_json::{Value, json};

use super::environment::{Real, catalog, exec, file, output_of, process_with, resource};
use crate::support::{alive, ask, dies, until};

/// What a reply's data says under these keys.
fn told(data: &Value, keys: &[&str]) -> Value {
    keys.iter().map(|key| data[key].clone()).collect()
}

#[tokio::test]
async fn from_the_first_run_to_one_with_nothing_to_do() {
    let mut real = Real::with(&[]).await;
    let (motd, ntp) = (real.path("out/motd"), real.path("out/ntp.conf"));
    real.write("server/catalogs/production.json", &catalog(&[file(&motd, &["base"]), file(&ntp, &[])]).to_string());
    let before = real.told("status", json!({})).await;
    assert_eq!(told(&before, &["status", "last_run_result", "lock"]), json!(["stopped", "unknown", "free"]));
    assert_eq!(real.told("resource_count", json!({})).await["total_resources"], Value::Null);
    assert_eq!(ask(&real.plugin, "resource", &[json!("File[/x]")]).await, None);

    let (reply, output) = real.act_with("runonce", json!({}), |request| request, CancellationToken::new()).await;
    let first = reply.unwrap();
    assert_eq!(fs::read_to_string(&motd).unwrap(), "by Puppet\n");
    let keys =
        ["result", "exit_code", "changed_resources", "failed_resources", "noop", "config_version", "environment"];
    assert_eq!(told(&first.data, &keys), json!(["changed", 2, 2, 0, false, "release-17", "production"]));
    let changed = first.data["changed"].as_array().unwrap();
    assert_eq!((changed.len(), &changed[0]["resource"]), (2, &json!(format!("File[{}]", motd.display()))));
    assert!(changed[0]["message"].as_str().unwrap().starts_with("ensure: defined content as"), "{changed:?}");
    assert!(output.contains("Applied catalog in") && !output.contains('\u{1b}'), "{output}");
    let sent: Value = serde_json::from_str(&fs::read_to_string(real.path("server/report.json")).unwrap()).unwrap();
    assert_eq!(first.data["transaction_uuid"], sent["transaction_uuid"], "it is the run that the server knows");

    // A lock that a killed run left over is no obstacle, as it is none for Puppet.
    let mut over = real.puppet(&["--version"]).spawn().unwrap();
    real.write("var/state/agent_catalog_run.lock", &over.id().to_string());
    over.wait().unwrap();
    let status = real.told("status", json!({})).await;
    assert_eq!(told(&status, &["status", "lock", "last_run_result"]), json!(["stopped", "stale", "changed"]));
    let second = real.told("runonce", json!({ "force": true })).await;
    assert_eq!(told(&second, &["result", "exit_code", "changed_resources"]), json!(["unchanged", 0, 0]));
    assert_ne!(first.data["transaction_uuid"], second["transaction_uuid"]);
    assert!(!real.exists("var/state/agent_catalog_run.lock"));

    let summary = real.told("last_run_summary", json!({ "logs": true })).await;
    assert_eq!(
        told(&summary, &["result", "transaction_uuid", "run_mode"]),
        json!(["unchanged", second["transaction_uuid"], "agent"])
    );
    assert!(summary["times"]["config_retrieval"].is_number(), "{summary}");
    let name = format!("file[{}]", motd.display());
    let counted = real.told("resource_count", json!({ "resource": name })).await;
    assert_eq!(
        told(&counted, &["total_resources", "top_type", "managed"]),
        json!([2, { "type": "file", "count": 2 }, true])
    );
    let managed = ask(&real.plugin, "resource", &[json!(format!("File[{}]", ntp.display()))]).await.unwrap();
    assert_eq!(managed["managed"], json!(true));
    assert_eq!(ask(&real.plugin, "resource", &[json!("File[/x]")]).await.unwrap()["managed"], json!(false));

    // The places are those that Puppet itself takes from its configuration.
    let settings =
        ["agent_catalog_run_lockfile", "agent_disabled_lockfile", "lastrunfile", "lastrunreport", "resourcefile"];
    let arguments: Vec<_> = ["config", "print", "--section", "agent"].iter().chain(&settings).copied().collect();
    let printed = output_of(real.puppet(&arguments).spawn().unwrap());
    for (setting, place) in settings.iter().zip([
        "var/state/agent_catalog_run.lock",
        "var/state/agent_disabled.lock",
        "var/public/last_run_summary.yaml",
        "var/state/report.yaml",
        "var/state/resources.txt",
    ]) {
        assert!(printed.contains(&format!("{setting} = {}\n", real.path(place).display())), "{setting}: {printed}");
    }

    // A server that is gone. The run is told of as failed, and the former one is not taken for it.
    real.stop_server();
    let failure = real.act("runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(1)));
    assert!(failure.message.contains("localhost"), "{failure} {}", failure.data["errors"]);
    assert_ne!(failure.data["transaction_uuid"], second["transaction_uuid"], "{}", failure.data);
    assert_eq!(real.told("status", json!({})).await["last_run_result"], json!("failed"));
}

#[tokio::test]
async fn noop_tags_and_environments() {
    let real = Real::with(&[]).await;
    let (web, base, other) = (real.path("out/web"), real.path("out/base"), real.path("out/other"));
    let resources = [file(&web, &["web", "my::app"]), file(&base, &["base"])];
    real.write("server/catalogs/production.json", &catalog(&resources).to_string());
    real.write("server/catalogs/other_2.json", &catalog(&[file(&other, &[])]).to_string());

    let noop = |request| ActionRequest { noop: true, ..request };
    let (reply, _) = real.act_with("runonce", json!({}), noop, CancellationToken::new()).await;
    let reply = reply.unwrap();
    let keys = ["result", "noop", "out_of_sync_resources", "changed_resources"];
    assert_eq!(told(&reply.data, &keys), json!(["unchanged", true, 2, 0]));
    assert_eq!(reply.data["pending"].as_array().unwrap().len(), 2, "{}", reply.data["pending"]);
    assert_eq!(reply.message, "unchanged; 2 resources would have changed");
    assert!(!web.exists() && !base.exists());

    let reply = real.told("runonce", json!({ "tags": ["my::app", "nothing-has-this"] })).await;
    assert_eq!(told(&reply, &["result", "changed_resources"]), json!(["changed", 1]));
    assert!(web.exists() && !base.exists());

    let reply = real.told("runonce", json!({ "environment": "other_2", "skip_tags": ["slow"] })).await;
    assert_eq!(told(&reply, &["result", "environment"]), json!(["changed", "other_2"]));
    assert!(other.exists() && !base.exists());
}

#[tokio::test]
async fn failures_say_what_failed() {
    let real = Real::with(&[]).await;
    let good = real.path("out/good");
    real.write("server/catalogs/production.json", &catalog(&[exec("/bin/false"), file(&good, &[])]).to_string());
    real.write("server/catalogs/broken.error", "Evaluation Error: Unknown variable: 'nmae' (file: /site.pp, line: 12)");

    let failure = real.act("runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(6)));
    assert!(failure.message.contains("resources failed: Exec[/bin/false]: returns: "), "{failure}");
    let keys = ["result", "failed_resources", "changed_resources"];
    assert_eq!(told(&failure.data, &keys), json!(["failed", 1, 1]));
    assert_eq!(
        told(&failure.data["failed"][0], &["resource", "file", "line"]),
        json!(["Exec[/bin/false]", "/site.pp", 3])
    );
    assert!(good.exists(), "one failure does not stop the rest");

    let failure = real.act("runonce", json!({ "environment": "broken" })).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(1)));
    assert!(failure.message.starts_with("there was no catalog to apply: "), "{failure}");
    let errors = failure.data["errors"].to_string();
    assert!(errors.contains("Unknown variable: 'nmae'"), "{errors}");
    assert_eq!(told(&failure.data, &["result", "config_version"]), json!(["failed", null]));
    let status = real.told("status", json!({})).await;
    assert_eq!(told(&status, &["status", "last_run_result"]), json!(["stopped", "failed"]));
}

#[tokio::test]
async fn puppet_and_the_plugin_disable_each_other() {
    let real = Real::without_server();
    // Puppet disables, the plugin sees it.
    output_of(real.puppet(&["agent", "--disable", "moving the database; lea"]).spawn().unwrap());
    let status = real.told("status", json!({})).await;
    assert_eq!(told(&status, &["status", "disabled_message"]), json!(["disabled", "moving the database; lea"]));
    let failure = real.act("runonce", json!({ "force": true })).await.unwrap_err();
    assert_eq!(failure.code.code, "disabled");
    assert!(failure.message.contains("moving the database; lea"), "{failure}");
    assert!(!real.exists("var/public/last_run_summary.yaml"), "nothing was started");

    let enabled = real.told("enable", json!({})).await;
    assert_eq!(told(&enabled, &["changed", "previous_reason"]), json!([true, "moving the database; lea"]));

    // The plugin disables, Puppet sees it. What looks like an option or a shell's text is only text.
    let reason = "--server evil; \"$(id)\" 'x' `y` \\ & é";
    assert_eq!(real.told("disable", json!({ "reason": reason })).await["changed"], json!(true));
    let said =
        output_of(real.puppet(&["agent", "--onetime", "--no-daemonize", "--logdest", "console"]).spawn().unwrap());
    assert!(said.contains(&format!("administratively disabled (Reason: '{reason}')")), "{said}");

    // Puppet that has no authority's certificate and gets none ends before there is a run.
    real.told("enable", json!({})).await;
    fs::remove_file(real.path("ssl/certs/ca.pem")).unwrap();
    let failure = real.act("runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, failure.exit_code), ("failed", Some(1)));
    assert!(failure.message.contains("without a run: Error: Connection to https://localhost"), "{failure}");
    assert_eq!((failure.data.get("result"), &failure.data["exit_code"]), (None, &json!(1)));
}

#[tokio::test]
async fn a_run_of_somebody_else() {
    let real = Real::with(&[]).await;
    let go = real.path("go");
    let wait = resource(
        "Exec",
        "wait",
        json!({ "command": format!("/bin/sh -c 'until test -e {}; do sleep 0.05; done'", go.display()) }),
        &[],
    );
    real.write("server/catalogs/slow.json", &catalog(&[wait]).to_string());
    real.write("server/catalogs/production.json", &catalog(&[file(&real.path("out/a"), &[])]).to_string());
    let arguments = ["agent", "--onetime", "--no-daemonize", "--environment", "slow", "--logdest", "console"];
    let theirs = real.puppet(&arguments).spawn().unwrap();
    let pid = theirs.id();
    until(
        || fs::read_to_string(real.path("var/state/agent_catalog_run.lock")).unwrap_or_default(),
        |lock| *lock == pid.to_string(),
    )
    .await;

    let running = real.told("is_running", json!({})).await;
    assert_eq!(told(&running, &["running", "pid", "mode", "lock"]), json!([true, pid, "onetime", "held"]));
    assert!(running["command"].as_str().unwrap().contains("--environment slow"), "{running}");
    assert_eq!(real.told("status", json!({})).await["status"], json!("applying"));
    let failure = real.act("runonce", json!({})).await.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["other_run"]["pid"]), ("conflict", &json!(pid)));
    assert!(failure.message.contains(&format!("process {pid}")), "{failure}");
    let hurried = |request| ActionRequest { time_limit: Duration::from_millis(300), ..request };
    let (reply, _) = real.act_with("wait", json!({}), hurried, CancellationToken::new()).await;
    let failure = reply.unwrap_err();
    assert_eq!((failure.code.code, &failure.data["other_run"]["pid"]), ("timed-out", &json!(pid)));

    // Two wait, their run ends, ours follows.
    let release = async {
        // Their first look at the lock comes before the last of these, and finds it held.
        for _ in 0..20 {
            assert_eq!(real.told("is_running", json!({})).await["pid"], json!(pid));
        }
        real.write("go", "");
        tokio::task::spawn_blocking(move || output_of(theirs)).await.unwrap()
    };
    let (waited, ours, said) =
        tokio::join!(real.told("wait", json!({})), real.told("runonce", json!({ "wait": true })), release);
    assert!(said.contains("Applied catalog"), "{said}");
    assert_eq!(waited["waited_for_pid"], json!(pid));
    assert_eq!(told(&ours, &["result", "environment"]), json!(["changed", "production"]));
    let released = go.metadata().unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(u128::from(ours["started_ms"].as_u64().unwrap()) > released.as_millis(), "{ours}");
}

/// Puppet starts each program in a session of its own, where a signal to Puppet's does not reach it.
#[tokio::test]
async fn a_run_that_is_cancelled_leaves_nothing_running() {
    let real = Real::with(&[]).await;
    let marker = real.path("ignores-term").display().to_string();
    let hang = format!("/bin/sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' {marker}");
    real.write("server/catalogs/production.json", &catalog(&[exec(&hang)]).to_string());
    let cancel = CancellationToken::new();
    let stop = async {
        let pid = real.running(&marker).await;
        cancel.cancel();
        pid
    };
    let ((reply, output), pid) =
        tokio::join!(real.act_with("runonce", json!({}), |request| request, cancel.clone()), stop);
    let failure = reply.unwrap_err();
    assert_eq!(failure.code.code, "cancelled");
    assert_eq!(told(&failure.data, &["result", "exit_code"]), json!(["interrupted", null]));
    assert!(failure.data["programs_stopped"].as_u64().unwrap() >= 1, "{}", failure.data);
    assert!(output.contains("Caught TERM; exiting"), "{output}");
    assert_eq!(alive(pid), None);
    assert_eq!(process_with(&marker), None);
    let status = real.told("status", json!({})).await;
    assert_eq!(told(&status, &["status", "lock", "last_run_result"]), json!(["stopped", "free", "interrupted"]));
}

#[tokio::test]
async fn a_run_that_hangs_and_one_that_somebody_else_stops() {
    let real = Real::with(&[]).await;
    let marker = real.path("hangs").display().to_string();
    real.write(
        "server/catalogs/production.json",
        &catalog(&[exec(&format!("/bin/sh -c 'sleep 600; :' {marker}"))]).to_string(),
    );
    let stopped = async {
        real.running(&marker).await;
        let lock = fs::read_to_string(real.path("var/state/agent_catalog_run.lock")).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(lock.parse().unwrap()), nix::sys::signal::SIGTERM).unwrap();
    };
    let (reply, ()) = tokio::join!(real.act("runonce", json!({})), stopped);
    let failure = reply.unwrap_err();
    // Puppet ends with 0 then, as if there had been nothing to do.
    assert_eq!(
        (failure.code.code, failure.exit_code, &failure.data["result"]),
        ("failed", Some(0), &json!("interrupted"))
    );
    assert!(failure.message.contains("stopped before its end"), "{failure}");
    let orphan = process_with(&marker).unwrap();
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(orphan))).unwrap();
    nix::sys::signal::killpg(group, nix::sys::signal::SIGKILL).unwrap();
    dies(orphan).await;

    let hurried = |request| ActionRequest { time_limit: Duration::from_secs(6), ..request };
    let (reply, _) = real.act_with("runonce", json!({}), hurried, CancellationToken::new()).await;
    assert_eq!(reply.unwrap_err().code.code, "timed-out");
    until(|| process_with(&marker), Option::is_none).await;
    assert_eq!(real.told("is_running", json!({})).await["lock"], json!("free"));
}

#[tokio::test]
async fn puppet_apply_is_told_apart() {
    let real = Real::without_server();
    real.write("site.pp", &format!("file {{ '{}': ensure => file }}\n", real.path("out/applied").display()));
    let manifest = real.path("site.pp").display().to_string();
    let said = output_of(real.puppet(&["apply", &manifest]).spawn().unwrap());
    let summary = real.told("last_run_summary", json!({ "logs": true })).await;
    assert_eq!(told(&summary, &["result", "run_mode", "changed_resources"]), json!(["changed", "user", 1]), "{said}");
    assert_eq!(summary["changed"].as_array().map(Vec::len), Some(1), "{summary}");
}
