//! What an embedded broker is asked while it runs: who may, what programs read, and what a refused reload says.
//!
//! Documents are held against the schemas by a stock validator that, unlike a reader, also takes a field that they do not
//! describe for a mistake.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use muster_tests::newcomer::{Dev, Newcomer};
use serde_json::{Value, json};

/// A user of whom no test is.
const STRANGER: u32 = 54_321;

/// Reads a document and names a schema; ends with 1 and the reason if they do not fit.
const VALIDATE: &str = r#"
import json, sys, jsonschema
def strict(schema):
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
            for name, field in schema["properties"].items():
                assert field.get("description"), name + " has no description"
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)
with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
strict(schema)
found = [error.json_path + ": " + error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(json.load(sys.stdin))]
print("\n".join(found))
sys.exit(1 if found else 0)
"#;

fn validate(name: &str, document: &Value) -> Output {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schemas/muster/{name}.schema.json"));
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", VALIDATE]).arg(schema).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn fits(name: &str, document: &Value) {
    let said = validate(name, document);
    assert!(said.status.success(), "{}{}\n{document:#}", text(&said.stdout), text(&said.stderr));
}

/// A bus of an ordinary user with one agent, and how its broker is asked.
struct Bus {
    newcomer: Newcomer,
    dev: Dev,
    config: String,
}

impl Bus {
    fn start() -> Self {
        let newcomer = Newcomer::new().unwrap();
        let dev = newcomer.dev(&["--agents", "1"]).unwrap();
        let config = newcomer.kept().join("broker/broker.toml").to_str().unwrap().to_owned();
        Self { newcomer, dev, config }
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.newcomer.run(&[&["broker"], words, &["--config", &self.config]].concat()).unwrap()
    }

    #[track_caller]
    fn document(&self, words: &[&str]) -> Value {
        self.document_with(0, words)
    }

    fn document_with(&self, code: i32, words: &[&str]) -> Value {
        let output = self.ask(&[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn what_programs_read_of_a_broker_is_what_the_schemas_say() {
    let mut bus = Bus::start();
    let status = bus.document(&["status"]);
    fits("broker_status", &status);
    for list in ["queues", "connections", "bindings"] {
        let document = bus.document(&["status", "--list", list]);
        assert!(!document[list].as_array().unwrap().is_empty(), "{list}");
        fits(&format!("broker_{list}"), &document);
    }
    // And a document that does not fit is found.
    for (at, wrong) in
        [("started_at", json!(1_795_284_382_021_i64)), ("pid", json!("1")), ("new", json!(1)), ("schema", json!("v2"))]
    {
        let mut bad = status.clone();
        bad[at] = wrong;
        assert_eq!(validate("broker_status", &bad).status.code(), Some(1), "{at}");
    }
    bus.dev.interrupt().unwrap();
}

#[test]
fn root_and_its_own_user_ask_a_broker_and_nobody_else() {
    let mut bus = Bus::start();
    assert_eq!(bus.ask(&["status"]).status.code(), Some(0));
    if nix::unistd::Uid::effective().is_root() {
        let by = |user: u32| {
            let mut command = bus.newcomer.command(&["broker", "status", "--config", &bus.config]);
            command.uid(user).gid(user).output().unwrap()
        };
        let root = by(0);
        assert_eq!(root.status.code(), Some(0), "{}", text(&root.stderr));
        assert!(text(&root.stdout).contains("broker/localhost"), "{}", text(&root.stdout));
        // Somebody who cannot even reach the file, and somebody who has a copy of it.
        let copy = tempfile::tempdir().unwrap();
        let config = copy.path().join("broker.toml");
        fs::copy(&bus.config, &config).unwrap();
        for path in [copy.path(), &config] {
            std::os::unix::fs::chown(path, Some(STRANGER), None).unwrap();
        }
        let copied = bus
            .newcomer
            .command(&["broker", "status", "--config", config.to_str().unwrap()])
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .unwrap();
        for refused in [by(STRANGER), copied] {
            assert_eq!(refused.status.code(), Some(8), "{}", text(&refused.stderr));
            assert!(
                text(&refused.stderr).starts_with("error[broker-not-yours]: you may not "),
                "{}",
                text(&refused.stderr)
            );
        }
    }
    bus.dev.interrupt().unwrap();
}

#[test]
fn a_reload_that_is_refused_names_what_is_wrong_and_changes_nothing() {
    let mut bus = Bus::start();
    let drop_in = Path::new(&bus.config).with_file_name("broker.d").join("x.toml");
    let write = |wrong: &str| {
        fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
        fs::write(&drop_in, wrong).unwrap();
        for path in [drop_in.parent().unwrap(), &drop_in] {
            std::os::unix::fs::chown(path, Some(bus.newcomer.uid()), None).unwrap();
        }
    };
    let places = drop_in.display();
    for (wrong, code, reasons) in [
        (
            "limits.queues = 0\nheartbeat = 3\n",
            "config-invalid",
            vec![format!("{places}:1: `limits.queues` is 0"), format!("{places}:2: unknown key `heartbeat`")],
        ),
        ("x = [", "config-invalid", vec![format!("{places}:1:6: not valid TOML")]),
        ("pki.ca = \"/no/such/ca.pem\"", "file-unreadable", vec!["/no/such/ca.pem".to_owned()]),
    ] {
        write(wrong);
        let refused = bus.ask(&["reload"]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("error[{code}]: ")), "{said}");
        assert!(said.contains("what is in force stays in force"), "{said}");
        assert!(reasons.iter().all(|reason| said.contains(reason)), "{said}");
        assert!(said.contains(&format!("try     muster broker reload --config {}", bus.config)), "{said}");
        // It runs as before, and can be asked although its files would not start it. That they would not is to be looked at.
        let status = bus.document_with(3, &["status"]);
        let attention = status["attention"].as_array().unwrap();
        assert!(attention.iter().any(|one| one["what"] == "reload"), "{attention:?}");
        assert_eq!(
            (&status["connected"]["open"]["count"], &status["counts"]["queues"]["max"]),
            (&json!(1), &json!(50_000))
        );
    }
    write("limits.queues = 60000\n");
    assert_eq!(bus.ask(&["reload"]).status.code(), Some(0));
    assert_eq!(bus.document(&["status"])["attention"], json!([]), "a good reload is the end of it");
    bus.dev.interrupt().unwrap();
}
