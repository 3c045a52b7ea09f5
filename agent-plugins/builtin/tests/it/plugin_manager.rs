//! The plugin `plugin` against a store that never changes. What the agent's store does is tested with the agent.

use muster_plugin_api::conformance::{Sample, check};
use muster_plugins::PluginManager;
use serde_json::json;

use crate::support::{conforms, run};

#[tokio::test]
async fn it_keeps_the_contract() {
    let samples = [
        Sample::succeeds("list", json!({})),
        // "good" in base64.
        Sample::succeeds("install", json!({ "pack": "Z29vZA==" })),
        Sample::fails("install", json!({ "pack": "YmFk" })),
        Sample::fails("install", json!({ "pack": "not base64!" })),
        Sample::succeeds("remove", json!({ "name": "lab" })),
        Sample::fails("remove", json!({ "name": "other" })),
    ];
    conforms(check(&PluginManager::new(), &samples).await);
}

#[tokio::test]
async fn it_says_what_came_of_it() {
    let plugin = PluginManager::new();
    let ok = run(&plugin, "install", json!({ "pack": "Z29vZA==", "allow_any": true })).await.unwrap();
    assert_eq!((ok.message.as_str(), &ok.data["change"]), ("lab 1.0.1 downgraded", &json!("downgraded")));
    let failure = run(&plugin, "install", json!({ "pack": "YmFk" })).await.unwrap_err();
    assert_eq!(failure.code.code, "untrusted-pack");
    let failure = run(&plugin, "install", json!({ "pack": "not base64!" })).await.unwrap_err();
    assert_eq!(failure.code.code, "invalid-argument");
    let ok = run(&plugin, "remove", json!({ "name": "lab" })).await.unwrap();
    assert_eq!(ok.message, "lab 1.0.0 removed");
}
