//! The book says what the code does.

use std::fs;
use std::path::Path;

use muster_plugin_api::{builtin_ddls, reference};
use muster_protocol::ddl::Ddl;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_reference_is_up_to_date() {
    assert!(page("book/src/plugin-reference.md") == reference(builtin_ddls()), "run `cargo xtask generate`");
}

#[test]
fn the_example_of_a_description_is_one() {
    let chapter = page("book/src/plugins.md");
    let example = chapter.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let ddl = Ddl::parse(example).unwrap();
    assert_eq!(ddl.warnings(), Vec::<String>::new());
    assert_eq!(ddl.timeout_s(&ddl.actions[0]), 60);
}

#[test]
fn every_field_of_a_description_is_explained() {
    let chapter = page("book/src/plugins.md");
    for ddl in builtin_ddls() {
        explained(&chapter, &serde_json::to_value(ddl).unwrap());
    }
}

/// Names of inputs, outputs and options are the authors'; all other keys are the format's.
fn explained(chapter: &str, value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, below) in fields {
                let known = chapter.contains(&format!("`{key}`")) || chapter.contains(&format!(".{key}`"));
                assert!(
                    known || ["metadata", "muster", "supports"].contains(&key.as_str()),
                    "`{key}` is not explained"
                );
                match (key.as_str(), below) {
                    ("input" | "output", serde_json::Value::Object(items)) => {
                        items.values().for_each(|item| explained(chapter, item));
                    }
                    ("args" | "default", _) => {}
                    _ => explained(chapter, below),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| explained(chapter, item)),
        _ => {}
    }
}
