//! The published JSON Schemas say what the types say.
//!
//! Whole validation is left to the independent program in Python; here each schema is held against a fully
//! populated message: every field the type writes is described, and what is required is exactly what cannot be
//! left out.

use std::fs;
use std::path::PathBuf;

use muster_protocol::envelope::Signature;
use muster_protocol::{
    AccumulatedProgressReport, Announcement, Cancel, Command, Envelope, ProgressReport, ProtocolVersion, Target, Watch,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::golden;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas")
}

fn schema(name: &str) -> Value {
    let path = folder().join(format!("{name}.schema.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Follows `$ref` inside one document.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(pointer) => {
            let target = pointer.strip_prefix('#').expect("references stay inside the document");
            resolve(root, root.pointer(target).unwrap_or_else(|| panic!("{pointer} leads nowhere")))
        }
        None => schema,
    }
}

/// One walk through a message and its schema.
struct Walk<'a> {
    name: &'a str,
    root: &'a Value,
    message: &'a Value,
    accepts: &'a dyn Fn(&Value) -> bool,
}

impl Walk<'_> {
    fn visit(&self, schema: &Value, pointer: &str) {
        let schema = resolve(self.root, schema);
        let value = self.message.pointer(pointer).unwrap();
        if !["type", "const", "enum"].iter().any(|word| schema.get(word).is_some()) {
            assert!(pointer.ends_with("/data"), "{}: {pointer} has no type", self.name);
            return;
        }
        match value {
            Value::Object(fields) => {
                if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                    self.visit_object(schema, properties, fields, pointer);
                }
            }
            Value::Array(elements) => {
                let items = schema.get("items").unwrap_or_else(|| panic!("{}: {pointer} has no `items`", self.name));
                for index in 0..elements.len() {
                    self.visit(items, &format!("{pointer}/{index}"));
                }
            }
            _ => {}
        }
    }

    fn visit_object(
        &self,
        schema: &Value,
        properties: &Map<String, Value>,
        fields: &Map<String, Value>,
        pointer: &str,
    ) {
        let name = self.name;
        assert_eq!(schema.get("additionalProperties"), Some(&Value::Bool(true)), "{name}: {pointer} is closed");
        let names = |value: Option<&Value>| -> Vec<String> {
            let list = value.and_then(Value::as_array).cloned().unwrap_or_default();
            let mut names: Vec<String> = list.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            names.sort_unstable();
            names
        };
        let mut described: Vec<&String> = properties.keys().collect();
        described.sort_unstable();
        let mut written: Vec<&String> = fields.keys().collect();
        written.sort_unstable();
        assert_eq!(described, written, "{name}: {pointer} describes other fields than the type writes");

        let mut required: Vec<String> =
            fields.keys().filter(|field| !(self.accepts)(&self.without(pointer, field))).cloned().collect();
        required.sort_unstable();
        assert_eq!(names(schema.get("required")), required, "{name}: {pointer} requires other fields than the type");

        for (field, described) in properties {
            let has_words = described.get("description").or_else(|| resolve(self.root, described).get("description"));
            assert!(has_words.is_some(), "{name}: {pointer}/{field} has no description");
            self.visit(described, &format!("{pointer}/{field}"));
        }
    }

    fn without(&self, pointer: &str, field: &str) -> Value {
        let mut message = self.message.clone();
        message.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(field);
        message
    }
}

fn check<M: serde::Serialize + DeserializeOwned>(name: &str, message: &M) {
    let root = schema(name);
    assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
    assert_eq!(root["$id"], format!("urn:muster:schema:1:{name}"));
    for word in ["title", "description"] {
        assert!(root[word].is_string(), "{name}: {word}");
    }
    let message = serde_json::to_value(message).unwrap();
    let accepts = |value: &Value| serde_json::from_value::<M>(value.clone()).is_ok();
    assert!(accepts(&message), "{name}");
    Walk { name, root: &root, message: &message, accepts: &accepts }.visit(&root, "");
}

/// Types alone allow what their `check` refuses: all three ways to name hosts at once.
fn every_way_to_name_hosts() -> Target {
    Target { all: true, ..golden::full_command().target }
}

fn signature() -> Signature {
    Signature { keyid: "0".repeat(64), sig: "AA==".to_owned(), chain: vec!["AA==".to_owned()] }
}

#[test]
fn each_schema_describes_its_type() {
    check::<Command>(
        "command",
        &Command { target: every_way_to_name_hosts(), sealed: Some(golden::full_sealed()), ..golden::full_command() },
    );
    check::<Watch>("watch", &Watch { target: every_way_to_name_hosts(), ..golden::full_watch() });
    check::<Cancel>("cancel", &Cancel { target: every_way_to_name_hosts(), ..golden::full_cancel() });
    check::<ProgressReport>(
        "progress-report",
        &ProgressReport { output: golden::running_report().output, ..golden::full_report() },
    );
    check::<AccumulatedProgressReport>("accumulated-progress-report", &golden::full_accumulated_report());
    check::<Announcement>("announcement", &golden::full_announcement());
    check::<Vec<Signature>>("signatures", &vec![signature()]);
    check::<Envelope>("envelope", &Envelope::new("a/b", b"x", vec![signature()]));
}

#[test]
fn every_schema_has_its_test() {
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    files.sort_unstable();
    let expected = [
        "accumulated-progress-report",
        "announcement",
        "cancel",
        "command",
        "envelope",
        "progress-report",
        "signatures",
        "watch",
    ];
    assert_eq!(files, expected.map(|name| format!("{name}.schema.json")));
}

/// The numbers in the schemas are those of the code.
#[test]
fn limits_in_the_schemas_are_the_limits() {
    use muster_protocol::limits;
    let number = |name: &str, pointer: &str| schema(name).pointer(pointer).and_then(Value::as_u64).unwrap();
    let same = |name: &str, pointer: &str, limit: usize| {
        assert_eq!(number(name, pointer), u64::try_from(limit).unwrap(), "{name}{pointer}");
    };
    same("command", "/$defs/target/properties/hosts/maxItems", limits::TARGET_HOSTS_MAX);
    same("command", "/$defs/target/properties/filter/maxLength", limits::EXPRESSION_BYTES_MAX);
    same("command", "/$defs/requires/maxItems", limits::REQUIRES_MAX);
    same("command", "/$defs/host_name/maxLength", limits::HOST_NAME_BYTES_MAX);
    same("command", "/properties/sealed/properties/names/maxItems", limits::SEALED_NAMES_MAX);
    same("command", "/properties/sealed/properties/recipients/maxProperties", limits::SEALED_RECIPIENTS_MAX);
    same("progress-report", "/$defs/result/properties/message/maxLength", limits::MESSAGE_TEXT_BYTES_MAX);
    same("signatures", "/maxItems", limits::SIGNATURES_MAX);
    same("signatures", "/$defs/signature/properties/chain/maxItems", limits::CHAIN_MAX);
    let version = String::from(ProtocolVersion::V1);
    assert_eq!(schema("command").pointer("/$defs/protocol/const"), Some(&Value::from(version)));
}
