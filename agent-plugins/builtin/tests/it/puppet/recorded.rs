//! Summaries and reports in the shapes of Puppet 5, 6, 7 and 8 and of OpenVox.

use serde_json::{Value, json};

use super::Site;

/// The counts that all versions since 5 write, with this many of each interesting kind.
fn counts(changed: u32, failed: u32, total: u32) -> String {
    format!(
        "resources:\n  changed: {changed}\n  corrective_change: 0\n  failed: {failed}\n  failed_to_restart: 0\n  \
         out_of_sync: {changed}\n  restarted: 0\n  scheduled: 0\n  skipped: 0\n  total: {total}\n"
    )
}

const TIMES: &str = "time:\n  config_retrieval: 1.25\n  file: 0.044\n  last_run: 1795215600\n  total: 12.5\n";
const EVENTS: &str = "changes:\n  total: 2\nevents:\n  failure: 0\n  success: 2\n  total: 2\n";

async fn check(place: &str, summary: &str, report: Option<&str>, expected: Value) {
    let site = Site::installed();
    site.write(&format!("var/lib/{place}/last_run_summary.yaml"), summary);
    if let Some(report) = report {
        site.write("var/lib/state/last_run_report.yaml", report);
    }
    let told = site.told("last_run_summary", json!({ "logs": true })).await;
    let keys = ["result", "puppet_version", "config_version", "run_mode", "environment", "noop", "total_resources"];
    let found: Value = keys.iter().map(|key| told[*key].clone()).collect();
    assert_eq!(found, expected, "{summary}");
    assert_eq!(told["since_last_run_s"], json!(3600));
    let status = site.status().await;
    assert_eq!((&status["last_run_result"], &status["problems"]), (&expected[0], &json!([])));
}

#[tokio::test]
async fn what_versions_write() {
    let puppet_5 =
        format!("---\nversion:\n  config: 1795215590\n  puppet: 5.5.22\n{}{TIMES}{EVENTS}", counts(2, 0, 87));
    let expected = json!(["changed", "5.5.22", "1795215590", null, null, null, 87]);
    check("state", &puppet_5, None, expected).await;
    let report_5 = "--- !ruby/object:Puppet::Transaction::Report\nmetrics: {}\nlogs: []\nresource_statuses: {}\n\
        host: web1.example.com\ntime: 2026-11-20 22:59:47.000000000 Z\nkind: apply\nreport_format: 8\n\
        puppet_version: 5.5.22\nconfiguration_version: 1795215590\ntransaction_uuid: 5e5e\nenvironment: production\n\
        status: changed\nnoop: false\nnoop_pending: false\n";
    let expected = json!(["changed", "5.5.22", "1795215590", null, "production", false, 87]);
    check("state", &puppet_5, Some(report_5), expected).await;

    let application =
        "application:\n  run_mode: agent\n  initial_environment: production\n  converged_environment: staging\n";
    let puppet_6 = format!(
        "---\nversion:\n  config: staging-4f2a91c\n  puppet: 6.28.0\n{application}{}{TIMES}{EVENTS}",
        counts(0, 1, 87)
    );
    let expected = json!(["failed", "6.28.0", "staging-4f2a91c", "agent", "staging", null, 87]);
    check("state", &puppet_6, None, expected).await;

    let puppet_8 = puppet_6.replace("6.28.0", "8.10.0").replace("failed: 1", "failed: 0");
    let report_8 = "---\nhost: web1.example.com\ntime: '2026-11-20T22:59:47.759245487+00:00'\n\
        configuration_version: staging-4f2a91c\ntransaction_uuid: 8e8e\nreport_format: 12\npuppet_version: 8.10.0\n\
        status: unchanged\ntransaction_completed: true\nnoop: true\nnoop_pending: true\nenvironment: staging\nlogs: []\n\
        metrics: {}\nresource_statuses: {}\ncorrective_change: false\ncatalog_uuid: c0ffee\n\
        cached_catalog_status: not_used\n";
    let expected = json!(["unchanged", "8.10.0", "staging-4f2a91c", "agent", "staging", true, 87]);
    check("public", &puppet_8, Some(report_8), expected).await;
    // OpenVox is Puppet 8 by another name, in the same places.
    let expected = json!(["unchanged", "8.24.2", "staging-4f2a91c", "agent", "staging", null, 87]);
    check("public", &puppet_8.replace("8.10.0", "8.24.2"), None, expected).await;

    // A report of another run says nothing about this one.
    let yesterday = report_8.replace("2026-11-20T", "2026-11-19T");
    let expected = json!(["unchanged", "8.10.0", "staging-4f2a91c", "agent", "staging", null, 87]);
    check("public", &puppet_8, Some(&yesterday), expected).await;
    let killed = report_8.replace("completed: true", "completed: false").replace("status: unchanged", "status: failed");
    let expected = json!(["interrupted", "8.10.0", "staging-4f2a91c", "agent", "staging", true, 87]);
    check("public", &puppet_8, Some(&killed), expected).await;
}
