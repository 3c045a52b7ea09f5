//! Plugins from directories and packs, in a whole agent on a bus in memory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use muster_pki::Credentials;
use muster_plugin_pack::{Content, Pack};
use muster_protocol::routing::{EXCHANGE_REPLY, presence_key};
use muster_protocol::{ActionResult, Announcement, Options, decode};
use serde_json::{Value, json};

use crate::kit::{Controller, NOW, Setup, Stage, command, host};

const PROGRAM: &str =
    "#!/bin/sh\n[ \"$MUSTER_CALL\" = run ] || exit 0\necho \"text=from $MUSTER_PLUGIN\" >>\"$MUSTER_OUTPUT\"\n";

fn ddl(name: &str, version: &str) -> Value {
    json!({
        "metadata": { "name": name, "version": version, "timeout": 10, "provider": "external" },
        "actions": [{
            "action": "say", "output": { "text": { "description": "d", "display_as": "D", "type": "string" } },
            "muster": { "read_only": true },
        }],
    })
}

/// Written by another process: one that this one has open for writing could not be executed.
fn script(path: &Path, text: &str) {
    let mut child = Process::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn put(stage: &Stage, name: &str, ddl: &Value, program: &str) -> PathBuf {
    let folder = stage.state.path().join("state/plugins").join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.json")), ddl.to_string()).unwrap();
    script(&folder.join(name), program);
    folder
}

fn setup() -> Setup {
    Setup { change: |raw| raw.plugins.directories = Vec::new(), ..Setup::default() }
}

async fn ask(stage: &Stage, controller: &mut Controller, action: &str, arguments: Value, noop: bool) -> ActionResult {
    let (plugin, action) = action.split_once('.').unwrap();
    let mut command = command(&stage.site.lea, action, arguments);
    command.plugin = plugin.parse().unwrap();
    command.options = Options { progress: false, noop, ..Options::default() };
    controller.send(&command, &stage.site.lea).await;
    controller.finished(command.id).await.1.result.unwrap()
}

fn pack(name: &str, version: &str, program: &str, signer: &Credentials) -> Value {
    let contents = vec![
        Content { path: format!("{name}.json"), executable: false, bytes: ddl(name, version).to_string().into_bytes() },
        Content { path: name.to_owned(), executable: true, bytes: program.into() },
    ];
    let pack = Pack::make(&name.parse().unwrap(), contents, signer, NOW).unwrap();
    json!({ "pack": BASE64.encode(pack.bytes()) })
}

#[tokio::test]
async fn programs_in_directories_are_plugins_and_are_read_again_at_a_reload() {
    let stage = Stage::new();
    put(&stage, "extra", &ddl("extra", "1.0"), PROGRAM);
    put(&stage, "shy", &ddl("shy", "1.0"), "#!/bin/sh\necho 'not on a Tuesday' >&2\nexit 1\n");
    put(&stage, "broken", &json!({}), PROGRAM);
    // The name of one that is built in.
    put(&stage, "package", &ddl("package", "1.0"), PROGRAM);
    // A rule about `cancel` would be one about this too.
    put(&stage, "cancel", &ddl("cancel", "1.0"), PROGRAM);
    let mut off = ddl("off", "1.0");
    off["muster"] = json!({ "opt_in": true });
    put(&stage, "off", &off, "#!/bin/sh\ntouch \"$0.was-asked\"\n");
    let agent = stage.start(setup()).await;
    let mut controller = stage.controller(&stage.site.lea).await;

    let result = ask(&stage, &mut controller, "extra.say", json!({}), false).await;
    assert_eq!((result.code.as_str(), &result.data), ("ok", &json!({ "text": "from extra" })));
    let result = ask(&stage, &mut controller, "shy.say", json!({}), false).await;
    assert_eq!(
        (result.code.as_str(), result.message.contains("not on a Tuesday")),
        ("not-activated", true),
        "{result:?}"
    );
    let result = ask(&stage, &mut controller, "off.say", json!({}), false).await;
    assert_eq!(
        (result.code.as_str(), result.message.contains("`plugins.enabled`")),
        ("not-activated", true),
        "{result:?}"
    );
    let was_asked = stage.state.path().join("state/plugins/off/off.was-asked");
    assert!(!was_asked.exists(), "what is off does not run at all");
    let result = ask(&stage, &mut controller, "package.say", json!({}), false).await;
    assert_eq!(result.code, "unknown-plugin");
    let result = ask(&stage, &mut controller, "cancel.say", json!({}), false).await;
    assert_eq!(result.code, "unknown-plugin");
    let status = ask(&stage, &mut controller, "host.status", json!({}), false).await.data;
    let problems: Vec<&str> = status["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // By which a fleet is compared.
    let policy = muster_agent::policy::Policy::parse(crate::kit::ALLOW_ALL, Path::new("policy.toml")).unwrap();
    assert_eq!(status["policy_sha256"], policy.sha256());
    let lists = stage.site.trust.crl_info();
    let own: Vec<Value> = lists.iter().map(|it| json!({ "issuer": it.issuer, "number": it.number })).collect();
    assert!(!own.is_empty());
    assert_eq!(status["revocation_lists"], Value::Array(own));
    let has = |what: &str| problems.iter().any(|problem| problem.contains(what));
    assert!(
        has("broken/broken.json") && has("`package` is the name of a built-in plugin, or a word of policies"),
        "{problems:?}"
    );

    put(&stage, "later", &ddl("later", "2.0"), PROGRAM);
    fs::remove_dir_all(stage.state.path().join("state/plugins/extra")).unwrap();
    agent.handle.reload().await;
    let result = ask(&stage, &mut controller, "later.say", json!({}), false).await;
    assert_eq!(result.data, json!({ "text": "from later" }));
    let result = ask(&stage, &mut controller, "extra.say", json!({}), false).await;
    assert_eq!(result.code, "unknown-plugin");
    agent.stop().await;
    let audit: Vec<Value> = stage.audit();
    let told = |decision: &str, message: &str| {
        audit.iter().any(|line| line["details"]["decision"] == decision && line["details"]["message"] == message)
    };
    assert!(told("in_force", "later 2.0") && told("gone", "extra 1.0"), "{audit:#?}");
}

#[tokio::test]
async fn a_pack_is_installed_upgraded_and_removed_over_the_bus() {
    let stage = Stage::new();
    let agent = stage.start(setup()).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    // An observer of announcements.
    let queue = "observer";
    controller.link.declare_queue(muster_bus::QueueSpec::durable(queue)).await.unwrap();
    controller.link.bind(queue, EXCHANGE_REPLY, &presence_key(&host())).await.unwrap();
    let options = muster_bus::ConsumeOptions { prefetch: 100, exclusive: false };
    let mut announcements = controller.link.consume(queue, options).await.unwrap();

    let one = pack("extra", "1.0", PROGRAM, &stage.site.lea);
    let would = ask(&stage, &mut controller, "plugin.install", one.clone(), true).await;
    assert_eq!((would.code.as_str(), would.message.as_str()), ("ok", "extra 1.0 would be installed"));
    assert!(!stage.state.path().join("state/plugins/extra").exists());
    let done = ask(&stage, &mut controller, "plugin.install", one.clone(), false).await;
    assert_eq!((done.code.as_str(), done.message.as_str()), ("ok", "extra 1.0 installed"));
    assert_eq!((&done.data["activated"], &done.data["signed_by"]), (&json!(true), &json!(["user/lea"])));
    let result = ask(&stage, &mut controller, "extra.say", json!({}), false).await;
    assert_eq!(result.data, json!({ "text": "from extra" }));

    // The new inventory was announced at once.
    let wait = async {
        loop {
            let delivery = announcements.next().await.unwrap();
            let announcement: Announcement = decode(&delivery.body).unwrap();
            if let Some(inventory) = announcement.inventory
                && inventory.plugins.iter().any(|plugin| plugin.name.as_str() == "extra")
            {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("the inventory is announced");

    let again = ask(&stage, &mut controller, "plugin.install", one.clone(), false).await;
    assert_eq!((again.message.as_str(), &again.data["change"]), ("extra 1.0 is there already", &json!("unchanged")));
    let two = pack("extra", "1.1", "#!/bin/sh\necho 'no such machine' >&2\nexit 1\n", &stage.site.lea);
    let done = ask(&stage, &mut controller, "plugin.install", two, false).await;
    assert_eq!(done.message, "extra 1.1 upgraded, but it cannot work here: no such machine");
    assert_eq!((&done.data["activated"], &done.data["previous_version"]), (&json!(false), &json!("1.0")));
    let refused = ask(&stage, &mut controller, "plugin.install", one.clone(), false).await;
    assert_eq!(
        (refused.code.as_str(), refused.message.as_str()),
        ("conflict", "plugin `extra` 1.1 is installed, and the pack has 1.0")
    );
    let mut any = one;
    any["allow_any"] = json!(true);
    let done = ask(&stage, &mut controller, "plugin.install", any, false).await;
    assert_eq!(done.message, "extra 1.0 downgraded");

    let list = ask(&stage, &mut controller, "plugin.list", json!({}), false).await.data;
    let names: Vec<&str> =
        list["plugins"].as_array().unwrap().iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    assert_eq!(names, ["extra", "host", "lab", "plugin"]);
    let extra = &list["plugins"][0];
    assert_eq!(
        (&extra["provider"], &extra["signed_by"], &extra["modified"]),
        (&json!("external"), &json!(["user/lea"]), &json!(false))
    );
    assert_eq!(list["plugins"][1]["provider"], "muster");

    let would = ask(&stage, &mut controller, "plugin.remove", json!({ "name": "extra" }), true).await;
    assert_eq!(would.message, "extra 1.0 would be removed");
    let done = ask(&stage, &mut controller, "plugin.remove", json!({ "name": "extra" }), false).await;
    assert_eq!(done.message, "extra 1.0 removed");
    let result = ask(&stage, &mut controller, "extra.say", json!({}), false).await;
    assert_eq!(result.code, "unknown-plugin");
    let none = ask(&stage, &mut controller, "plugin.remove", json!({ "name": "host" }), false).await;
    assert_eq!((none.code.as_str(), none.message.as_str()), ("failed", "no pack of plugin `host` is installed here"));
    agent.stop().await;
}

#[tokio::test]
async fn a_pack_that_may_not_be_installed_changes_nothing() {
    let stage = Stage::new();
    put(&stage, "mine", &ddl("mine", "1.0"), PROGRAM);
    let agent = stage.start(setup()).await;
    let mut controller = stage.controller(&stage.site.lea).await;
    // Max is in no group that may sign.
    let result =
        ask(&stage, &mut controller, "plugin.install", pack("extra", "1.0", PROGRAM, &stage.site.max), false).await;
    assert_eq!((result.code.as_str(), result.outcome), ("untrusted-pack", muster_protocol::Outcome::Refused));
    assert!(result.message.contains("user/max") && result.message.contains("admins"), "{}", result.message);
    let good = pack("extra", "1.0", PROGRAM, &stage.site.lea);
    let mut bytes = BASE64.decode(good["pack"].as_str().unwrap()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let result = ask(&stage, &mut controller, "plugin.install", json!({ "pack": BASE64.encode(&bytes) }), false).await;
    assert!(["checksum-mismatch", "invalid-argument"].contains(&result.code.as_str()), "{result:?}");
    let builtin = pack("package", "9.0", PROGRAM, &stage.site.lea);
    let result = ask(&stage, &mut controller, "plugin.install", builtin, false).await;
    assert_eq!(
        (result.code.as_str(), result.message.as_str()),
        ("conflict", "`package` is the name of a built-in plugin, or a word of policies")
    );
    // What an administrator put there by hand is theirs.
    let result =
        ask(&stage, &mut controller, "plugin.install", pack("mine", "2.0", PROGRAM, &stage.site.lea), false).await;
    assert_eq!(
        (result.code.as_str(), result.message.ends_with("did not come from a pack and is left alone")),
        ("conflict", true)
    );
    let left = fs::read_dir(stage.state.path().join("state/plugins")).unwrap().count();
    assert_eq!(left, 1, "only `mine` is there");
    agent.stop().await;
}
