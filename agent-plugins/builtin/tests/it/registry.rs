//! All built-in plugins in one registry, as an agent has them.

use std::sync::Arc;

use muster_plugin_api::{CancellationToken, NotActivated, Registry, builtin_ddls, conformance};
use muster_plugins::{Host, Package, PackagePaths, Settings, builtin};
use serde_json::json;

#[test]
fn there_is_a_plugin_for_each_description() {
    let names = |ddl: &muster_protocol::ddl::Ddl| ddl.name().to_string();
    let plugins: Vec<_> = builtin(&Settings::default()).iter().map(|plugin| names(plugin.ddl())).collect();
    assert_eq!(plugins, builtin_ddls().iter().map(names).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_registry_finds_actions_and_answers_questions() {
    let mut registry = Registry::new();
    for plugin in builtin(&Settings::default()) {
        registry.register(plugin).unwrap();
    }
    let error = registry.register(Arc::new(Host::new())).unwrap_err();
    assert_eq!(error.to_string(), "there are two plugins `host`");
    let installed: Vec<_> = registry.installed().into_iter().map(|plugin| plugin.name.to_string()).collect();
    assert!(installed.contains(&"host".to_owned()) && installed.contains(&"puppet".to_owned()), "{installed:?}");

    let find = |plugin: &str, action: &str| {
        let found = registry.action(&plugin.parse().unwrap(), &action.parse().unwrap());
        found.map(|(_, action)| action.name.to_string()).map_err(|error| error.code().code)
    };
    assert_eq!(find("host", "ping"), Ok("ping".to_owned()));
    assert_eq!(find("host", "reboot"), Err("unknown-action"));
    assert_eq!(find("disk", "status"), Err("unknown-plugin"));

    let context = || conformance::context(CancellationToken::new());
    let bash = registry.data("package", &[json!("bash")], context()).await.unwrap().unwrap();
    assert_eq!(bash["installed"], json!(true));
    assert_eq!(registry.data("package", &[json!("no-such-package")], context()).await, Ok(None));
    let error = registry.data("package", &[json!("--version")], context()).await.unwrap_err();
    assert_eq!(error.code().code, "invalid-argument");
    let error = registry.data("disk", &[], context()).await.unwrap_err();
    assert_eq!(error.to_string(), "no plugin here answers the data query `disk`");
}

#[tokio::test]
async fn a_plugin_that_cannot_work_here_says_why() {
    let nowhere = tempfile::tempdir().unwrap();
    let directory = nowhere.path().to_owned();
    let mut registry = Registry::new();
    let paths = PackagePaths {
        programs: vec![directory.clone()],
        dpkg_database: directory.clone(),
        rpm_databases: vec![directory.clone()],
        apk_databases: vec![directory],
        ..PackagePaths::default()
    };
    assert!(registry.register(Arc::new(Package::new(paths))).unwrap().activation.is_err());
    assert!(registry.installed().is_empty());
    let error = registry.action(&"package".parse().unwrap(), &"status".parse().unwrap()).map(drop).unwrap_err();
    assert_eq!(error.code().code, "not-activated");
    let context = conformance::context(CancellationToken::new());
    let error = registry.data("package", &[json!("bash")], context).await.unwrap_err();
    assert_eq!(error.code().code, "not-activated");
}

#[test]
fn a_plugin_that_is_off_is_there_and_answers_nothing() {
    let mut registry = Registry::new();
    for plugin in builtin(&Settings::default()) {
        if plugin.ddl().muster.opt_in {
            registry.register_inactive(plugin, NotActivated::new("it is off")).unwrap();
        }
    }
    let off: Vec<_> = registry.iter().map(|registered| registered.plugin.ddl().name().to_string()).collect();
    assert_eq!(off, ["file", "script", "shell"]);
    assert!(registry.installed().is_empty());
    for (plugin, action) in [("file", "fetch"), ("script", "run"), ("shell", "run")] {
        let error = registry.action(&plugin.parse().unwrap(), &action.parse().unwrap()).map(drop).unwrap_err();
        assert_eq!(error.code().code, "not-activated", "{plugin}.{action}");
        assert!(error.to_string().contains("it is off"), "{error}");
    }
}
