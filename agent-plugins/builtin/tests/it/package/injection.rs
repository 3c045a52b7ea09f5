//! Names and versions that are not names and versions: nothing happens but a clear refusal.

use std::fs;

use muster_plugin_api::{CancellationToken, Plugin, conformance};
use serde_json::{Value, json};

use super::debian::{Deb, Debian};
use crate::support::run;

const ATTACKS: &[&str] = &[
    "x; rm -rf /",
    "-oDPkg::Pre-Invoke=touch /tmp/owned",
    "--option=DPkg::Pre-Invoke::=id",
    "-y",
    "--",
    "-",
    "--root=/tmp",
    "foo\n",
    "foo\nbar",
    "\nfoo",
    "foo\0",
    "foo\0bar",
    "foo-",
    "foo*",
    "fo?",
    "f[o]o",
    "../x.deb",
    "/tmp/x.deb",
    "./x.deb",
    "foo/stable",
    "foo bar",
    " foo",
    "foo ",
    "foo;id",
    "foo|id",
    "foo&id",
    "$(id)",
    "`id`",
    "~nfoo",
    "?name(foo)",
    "@core",
    "foo^",
    "!foo",
    "+foo",
    "<foo",
    "foo>1",
    "foo:-amd64",
    "",
    "foo\u{202e}",
    "f\u{f6}o",
];

/// Runs without the check of the description, as nothing but a mistake of ours could.
async fn unchecked(plugin: &dyn Plugin, action: &str, arguments: Value) -> (&'static str, Value) {
    let request = conformance::sample_request(action, arguments).unwrap();
    let failure = plugin.run(request, conformance::context(CancellationToken::new())).await.unwrap_err();
    (failure.code.code, failure.data)
}

#[tokio::test]
async fn attacks_are_refused_by_the_description_and_again_by_the_code() {
    let debian = Debian::new();
    debian.publish(&Deb { name: "foo", version: "1", ..Deb::default() });
    debian.update();
    let plugin = debian.plugin();
    run(&plugin, "install", json!({ "name": "foo" })).await.unwrap();
    let before = fs::read_to_string(debian.path("var/lib/dpkg/status")).unwrap();
    for action in ["status", "install", "update", "remove", "purge"] {
        let described = plugin.ddl().action(&action.parse().unwrap()).unwrap();
        for attack in ATTACKS {
            let mut all = vec![json!({ "name": attack }), json!({ "names": ["foo", attack] })];
            // This one is a version in the eyes of rpm; it stands behind `foo=` and does no harm.
            if action == "install" && *attack != "foo^" {
                all.push(json!({ "name": "foo", "version": attack }));
                all.push(json!({ "names": [format!("foo={attack}")] }));
                all.push(json!({ "name": "foo", "ensure": attack }));
            }
            for arguments in all {
                let refused = described.validate(arguments.as_object().unwrap());
                assert!(refused.is_err(), "{action} {arguments}");
                let (code, data) = unchecked(&plugin, action, arguments.clone()).await;
                assert_eq!((code, data), ("invalid-argument", Value::Null), "{action} {arguments}");
            }
        }
    }
    for version in ["foo^", "1~"] {
        let failure = run(&plugin, "install", json!({ "name": "foo", "version": version })).await.unwrap_err();
        assert!(failure.message.contains(version), "{failure}");
    }
    for query in ATTACKS {
        assert!(plugin.ddl().data_query("package").unwrap().validate(&[json!(query)]).is_err(), "{query:?}");
        let arguments = json!({ "name": query }).as_object().unwrap().clone();
        let failure =
            plugin.data("package", arguments, conformance::context(CancellationToken::new())).await.unwrap_err();
        assert_eq!(failure.code.code, "invalid-argument");
    }
    assert_eq!(fs::read_to_string(debian.path("var/lib/dpkg/status")).unwrap(), before);
}

/// apt reads `foo+` as "install foo" and `fo.` as a pattern where no package has exactly that name.
#[tokio::test]
async fn names_that_apt_would_take_for_another_are_refused() {
    let debian = Debian::new();
    debian.publish(&Deb { name: "foo", version: "1", ..Deb::default() });
    debian.publish(&Deb { name: "g++", version: "1", ..Deb::default() });
    debian.update();
    let plugin = debian.plugin();
    for name in ["foo+", "fo.", "fo", "f.o", "foo."] {
        let failure = run(&plugin, "install", json!({ "name": name })).await.unwrap_err();
        assert!(failure.message.starts_with(&format!("no repository of this host has `{name}`")), "{failure}");
        let done = run(&plugin, "remove", json!({ "name": name })).await.unwrap();
        assert_eq!(done.data["changed"], json!(false));
    }
    assert_eq!(debian.state("foo"), "");
    run(&plugin, "install", json!({ "name": "g++" })).await.unwrap();
    assert!(debian.state("g++").starts_with("install ok installed"), "a name that ends in + is a name");
}

#[tokio::test]
async fn arguments_that_contradict_each_other() {
    let debian = Debian::new();
    let plugin = debian.plugin();
    for (action, arguments, code) in [
        ("install", json!({}), "missing-argument"),
        ("install", json!({ "names": [] }), "missing-argument"),
        ("install", json!({ "name": "a", "names": ["b"] }), "invalid-argument"),
        ("install", json!({ "names": ["a", "b"], "version": "1" }), "invalid-argument"),
        ("install", json!({ "name": "a", "version": "1", "ensure": "absent" }), "invalid-argument"),
        ("install", json!({ "name": "a", "lock_timeout_s": -1 }), "invalid-argument"),
        ("install", json!({ "name": "a", "lock_timeout_s": 4000 }), "invalid-argument"),
        ("update", json!({}), "missing-argument"),
        ("update", json!({ "name": "a", "all": true }), "invalid-argument"),
    ] {
        let request = conformance::sample_request(action, arguments.clone()).unwrap();
        // By the description already, where it can say it.
        let refused = match plugin.ddl().action(&request.action).unwrap().validate(&request.arguments) {
            Err(error) => error.code().code,
            Ok(_) => run(&plugin, action, arguments.clone()).await.unwrap_err().code.code,
        };
        assert_eq!(refused, code, "{action} {arguments}");
    }
}
