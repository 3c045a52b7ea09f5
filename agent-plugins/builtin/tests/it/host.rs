//! `host`, with a host that never changes.

use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::Host;
use serde_json::json;

use crate::support::{conforms, run};

#[tokio::test]
async fn keeps_the_contract() {
    let samples = [
        Sample::succeeds("ping", json!({})),
        Sample::succeeds("status", json!({})),
        Sample::succeeds("inventory", json!({})),
        Sample::succeeds("sealing_key", json!({})),
        Sample::succeeds("facts", json!({})),
        Sample::succeeds("facts", json!({ "names": ["os.family", "nope"], "prefix": "cpus" })),
    ];
    conforms(check(&Host::new(), &samples).await);
}

#[tokio::test]
async fn tells_what_the_agent_knows() {
    let plugin = Host::new();
    let ping = run(&plugin, "ping", json!({})).await.unwrap().data;
    let expected = json!({
        "time_ms": 1_795_219_200_000_i64, "agent_version": "0.1.0", "inventory_digest": "sha256:0000",
    });
    assert_eq!(ping, expected);

    let status = run(&plugin, "status", json!({})).await.unwrap().data;
    assert_eq!((&status["uptime_s"], &status["memory_bytes"]), (&json!(90), &json!(4_000_000)));
    assert_eq!(status["plugins"][0], json!({ "name": "host", "version": "1.0.0" }));
    assert_eq!(status["counters"], json!({ "commands_received": 7 }));

    let inventory = run(&plugin, "inventory", json!({})).await.unwrap().data;
    assert_eq!(inventory["classes"], json!(["base", "web"]));
    assert_eq!(inventory["facts"]["os"]["family"], json!("Debian"));

    let facts = run(&plugin, "facts", json!({ "names": ["os.release.major", "nope"] })).await.unwrap().data;
    assert_eq!(facts, json!({ "facts": { "os.release.major": 12 }, "missing": ["nope"] }));
}
