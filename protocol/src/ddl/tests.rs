use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::limits::{DDL_BYTES_MAX, DDL_PATTERN_BYTES_MAX, JSON_DEPTH_MAX};

/// In the shape that Choria's tools write, with all their oddities: null for what is missing, types
/// in both cases, `optional` left out, a validator of somebody else's, fields nobody here knows.
const FOREIGN: &str = r#"{
  "$schema": "https://choria.io/schemas/mcorpc/ddl/v1/agent.json",
  "metadata": {
    "license": "Apache-2.0", "author": "Somebody <somebody@example.com>", "timeout": 60, "name": "site_deploy",
    "version": "0.3.1", "url": "https://example.com", "description": "Deploys the site", "provider": "external",
    "service": false
  },
  "actions": [
    {
      "action": "deploy", "description": "Deploys a version", "display": "failed",
      "input": {
        "version": {
          "prompt": "Version", "description": "What to deploy", "type": "string", "default": null, "optional": false,
          "validation": "^\\d+\\.\\d+$", "maxlength": 10
        },
        "ensure": { "prompt": "Ensure", "description": "How", "type": "list", "list": ["present", "latest", "absent"], "default": "present" },
        "note": { "prompt": "Note", "description": "Why", "type": "string", "optional": true, "validation": "shellsafe" },
        "tags": { "prompt": "Tags", "description": "Which", "type": "string", "optional": true, "validation": "puppet_tags", "maxlength": 20 },
        "hosts": { "prompt": "Hosts", "description": "From where", "type": "Array", "optional": true, "validation": "ipaddress" },
        "extra": { "prompt": "Extra", "description": "More", "type": "Hash", "optional": true },
        "force": { "prompt": "Force", "description": "Even if", "type": "boolean", "default": false, "optional": true },
        "retries": { "prompt": "Retries", "description": "How often", "type": "integer", "optional": true },
        "ratio": { "prompt": "Ratio", "description": "How much", "type": "float", "optional": true },
        "text": { "prompt": "Text", "description": "Anything", "type": "string", "optional": true, "validation": "." }
      },
      "output": {
        "version": { "description": "What runs now", "display_as": "Version", "default": null },
        "log": { "description": "What happened", "display_as": "Log", "type": "array" }
      },
      "aggregate": [
        { "function": "summary", "args": ["version", { "format": "%s on %d" }] },
        { "function": "average", "arguments": "version" }
      ]
    },
    { "action": "status", "description": "Says what runs", "display": "always", "input": null, "output": null, "aggregate": null }
  ]
}"#;

fn foreign() -> Ddl {
    Ddl::parse(FOREIGN).unwrap()
}

fn deploy() -> Action {
    foreign().action(&"deploy".parse().unwrap()).unwrap().clone()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_description_written_for_choria_parses() {
    let ddl = foreign();
    assert_eq!(ddl.name().as_str(), "site_deploy");
    assert_eq!(ddl.metadata.other["service"], json!(false));
    let deploy = deploy();
    let names: Vec<_> = deploy.input.names().collect();
    assert_eq!(names, ["version", "ensure", "note", "tags", "hosts", "extra", "force", "retries", "ratio", "text"]);
    assert_eq!(deploy.input.get("hosts").unwrap().kind, ValueType::Array);
    assert!(deploy.input.get("version").unwrap().is_required());
    assert!(!deploy.input.get("ensure").unwrap().is_required(), "it has a default");
    assert_eq!(deploy.aggregate[0].output(), Some("version"));
    assert_eq!(deploy.aggregate[0].option("format"), Some(&json!("%s on %d")));
    assert_eq!(deploy.aggregate[1].output(), Some("version"));
    assert!(!deploy.muster.read_only, "what does not say that it changes nothing may change something");
    assert_eq!(ddl.timeout_s(&deploy), 60);
    assert_eq!(
        ddl.warnings(),
        ["input `tags` of `deploy` has the unknown validator `puppet_tags` and is held to shellsafe"]
    );
    let again = Ddl::parse(&serde_json::to_string(&ddl).unwrap()).unwrap();
    assert_eq!(again, ddl);
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = Ddl::parse(text).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_is_not_a_description_is_refused() {
    refused("", "malformed: EOF");
    refused("{}", "missing field `metadata`");
    refused(r#"{"metadata": {"name": "No Name"}}"#, "plugin name `No Name` has `N` at column 1");
    refused(&FOREIGN.replace("\"status\"", "\"deploy\""), "action `deploy` stands there twice");
    refused(&FOREIGN.replace("\"note\":", "\"tags\":"), "`tags` stands there twice");
    refused(&FOREIGN.replace("\"note\":", "\"a b\":"), "`a b` is not a name");
    refused(&FOREIGN.replace("^\\\\d+", "(["), "does not compile");
    refused(&FOREIGN.replace("^\\\\d+", "a)|(b"), "does not compile");
    refused(&FOREIGN.replace("\"timeout\": 60", "\"timeout\": 9999999"), "its timeout is more than 86400 seconds");
    refused(&FOREIGN.replace("\"timeout\": 60", "\"timeout\": -1"), "malformed");
    refused(&" ".repeat(DDL_BYTES_MAX + 1), "at most 262144");
    refused(&"[".repeat(JSON_DEPTH_MAX + 1), "nests deeper than 32 levels");
    let long = "x+".repeat(DDL_PATTERN_BYTES_MAX);
    refused(&FOREIGN.replace("^\\\\d+\\\\.\\\\d+$", &long), "more than 1024 bytes");
    refused(&FOREIGN.replace("^\\\\d+\\\\.\\\\d+$", "(?:(?:x{900}){900}){900}"), "does not compile");
}

#[track_caller]
fn valid(arguments: Value, expected: Value) {
    let action = deploy();
    let complete = action.validate(&object(arguments)).unwrap();
    assert_eq!(Value::Object(complete.clone()), expected);
    assert_eq!(action.validate(&complete).unwrap(), complete);
}

#[track_caller]
fn invalid(arguments: Value, code: &str, message: &str) {
    let error = deploy().validate(&object(arguments)).unwrap_err();
    assert_eq!((error.code().code, error.to_string().as_str()), (code, message));
}

#[test]
fn defaults_are_filled_in() {
    valid(json!({ "version": "1.2" }), json!({ "version": "1.2", "ensure": "present", "force": false }));
    valid(
        json!({ "version": "1.2", "ensure": "latest", "force": true, "hosts": ["::1", "10.0.0.1"], "extra": {}, "ratio": 1 }),
        json!({ "version": "1.2", "ensure": "latest", "force": true, "hosts": ["::1", "10.0.0.1"], "extra": {}, "ratio": 1 }),
    );
}

#[test]
fn exactly_one_of_a_group_is_given() {
    let text = r#"{"action": "status", "input": {
        "name": {"type": "string", "optional": true},
        "names": {"type": "array", "optional": true},
        "all": {"type": "boolean", "optional": true, "default": false}
    }, "muster": {"one_of": [["name", "names", "all"]]}}"#;
    let action: Action = serde_json::from_str(text).unwrap();
    let check = |arguments: Value, expected: Option<&str>| {
        let done = action.validate(&object(arguments));
        assert_eq!(done.err().map(|error| error.to_string()).as_deref(), expected);
    };
    check(json!({"name": "a"}), None);
    check(json!({"names": ["a"], "all": false}), None);
    check(json!({"all": true}), None);
    let none = Some("one of the inputs name, names or all is needed");
    check(json!({}), none);
    check(json!({"names": [], "all": false}), none);
    let several = Some("only one of the inputs name, names or all is taken at a time");
    check(json!({"name": "a", "names": ["b"]}), several);
    check(json!({"name": "a", "all": true}), several);
    refused(r#"{"metadata": {"name": "x"}, "actions": [{"action": "y", "muster": {"one_of": [["z"]]}}]}"#, "names `z`");
}

#[test]
fn a_default_that_does_not_fit_is_ignored_with_a_warning() {
    let ddl = Ddl::parse(&FOREIGN.replace("\"default\": false", "\"default\": \"no\"")).unwrap();
    let complete = ddl.actions[0].validate(&object(json!({ "version": "1.2" }))).unwrap();
    assert!(!complete.contains_key("force"));
    assert!(ddl.warnings()[1].contains("`force`"), "{:?}", ddl.warnings());
}

#[test]
fn what_is_misspelt_is_warned_of() {
    let text = r#"{"metadata": {"name": "x"}, "muster": {"optin": true}, "actions": [{"action": "y",
        "muster": {"readonly": true}, "input": {"a": {"type": "string", "muster": {"secrets": true}}},
        "output": {"b": {"type": "strnig"}}, "aggregate": [{"function": "sumary", "args": ["b"]}]}]}"#;
    assert_eq!(
        Ddl::parse(text).unwrap().warnings(),
        [
            "the plugin has `optin` under `muster`, which means nothing to this version",
            "action `y` has `readonly` under `muster`, which means nothing to this version",
            "input `a` of `y` has `secrets` under `muster`, which means nothing to this version",
            "output `b` of `y` has the unknown type `strnig`",
            "an aggregate of `y` is `sumary`, which is not known",
        ]
    );
}

#[test]
fn each_refusal_says_what_would_be_accepted() {
    invalid(
        json!({}),
        "missing-argument",
        "input `version` is missing: it takes text that fits `^\\d+\\.\\d+$`, at most 10 characters",
    );
    invalid(
        json!({ "version": "1.2", "ensur": "x" }),
        "unknown-argument",
        "there is no input `ensur`; the inputs are version, ensure, note, tags, hosts, extra, force, retries, ratio or text",
    );
    invalid(
        json!({ "version": "1.2", "ensure": "lastest" }),
        "invalid-argument",
        "input `ensure` takes present, latest or absent",
    );
    invalid(json!({ "version": "1.2", "force": "yes" }), "invalid-argument", "input `force` takes true or false");
    invalid(json!({ "version": "1.2", "retries": 1.5 }), "invalid-argument", "input `retries` takes a whole number");
    invalid(json!({ "version": "1.2", "extra": [] }), "invalid-argument", "input `extra` takes a JSON object");
    invalid(
        json!({ "version": "1.2", "hosts": ["10.0.0.1", 7] }),
        "invalid-argument",
        "input `hosts` takes a list; each element is an IPv4 or IPv6 address",
    );
    invalid(
        json!({ "version": null }),
        "invalid-argument",
        "input `version` takes text that fits `^\\d+\\.\\d+$`, at most 10 characters",
    );
    // Whole text, not a part or a line of it.
    for text in ["1.2\n", "1.2 ", "x1.2", "1.2\nrm", "1234567.8901"] {
        assert!(deploy().validate(&object(json!({ "version": text }))).is_err(), "{text:?}");
    }
    let error = deploy().validate(&object(json!({ "version": "1.2", "ensure": "lastest" }))).unwrap_err();
    assert_eq!((error.given(), error.suggestion(), error.argument()), (Some("lastest"), Some("latest"), "ensure"));
    let error = deploy().validate(&object(json!({ "versoin": "1.2" }))).unwrap_err();
    assert_eq!(error.suggestion(), Some("version"));
}

#[test]
fn shellsafe_lets_nothing_through_that_a_shell_obeys() {
    for safe in ["", "plain", "two words", "a/b.c", "x=1,y:2", "user@host", "50%", "1.0~rc1", "größe", "日本"] {
        assert!(is_shellsafe(safe), "{safe:?}");
    }
    for c in "`$;|&><'\"\\(){}[]*?!#^\n\r\t\0\x1b\x7f\u{85}\u{a0}\u{2028}\u{202e}".chars() {
        for text in [format!("{c}"), format!("a{c}"), format!("{c}a"), format!("a{c}b")] {
            assert!(!is_shellsafe(&text), "{text:?}");
        }
    }
    for tilde in ["~", "~root", "a ~b", "a=~b", "a:~b", "a/~"] {
        assert!(!is_shellsafe(tilde), "{tilde:?}");
    }
}

#[test]
fn every_validator() {
    let check = |validation: &str, good: &[&str], bad: &[&str]| {
        let validation = Validation::parse(validation).unwrap();
        good.iter().for_each(|text| assert!(validation.accepts(text), "{validation:?} {text:?}"));
        bad.iter().for_each(|text| assert!(!validation.accepts(text), "{validation:?} {text:?}"));
    };
    check("", &["", "anything\n`"], &[]);
    check("string", &["anything\n`"], &[]);
    check(".", &["a", "many\nlines"], &[""]);
    check(".+", &["a", "ab"], &["", "many\nlines"]);
    check("a|b", &["a", "b"], &["ab", "xa", "bx"]);
    check("shellsafe", &["a b"], &["a&b"]);
    check("someones_own", &["a b"], &["a&b"]);
    check("ipv4address", &["10.0.0.1"], &["::1", "10.0.0", "10.0.0.1/8", "010.0.0.1", "256.0.0.1"]);
    check("ipv6address", &["::1", "fe80::1"], &["10.0.0.1", "fe80::1%eth0"]);
    check("ipaddress", &["::1", "10.0.0.1"], &["host", ""]);
}

#[track_caller]
fn typed(pairs: &[(&str, &str)], expected: Value) {
    let action = deploy();
    let pairs: Vec<_> = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    assert_eq!(action.parse_arguments(&pairs).map(Value::Object).unwrap(), expected);
}

#[track_caller]
fn mistyped(pairs: &[(&str, &str)], message: &str, given: Option<&str>) {
    let pairs: Vec<_> = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let error = deploy().parse_arguments(&pairs).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.given()), (message, given));
}

#[test]
fn words_become_what_the_description_says() {
    typed(&[("version", "1.2")], json!({ "version": "1.2" }));
    typed(
        &[("version", "1.2"), ("force", "Yes"), ("retries", "-3")],
        json!({ "version": "1.2", "force": true, "retries": -3 }),
    );
    typed(
        &[("version", "1.2"), ("force", "off"), ("ratio", "0.5")],
        json!({ "version": "1.2", "force": false, "ratio": 0.5 }),
    );
    typed(&[("version", "1.2"), ("retries", "18446744073709551615")], json!({ "version": "1.2", "retries": u64::MAX }));
    typed(&[("version", "1.2"), ("hosts", "::1, 10.0.0.1")], json!({ "version": "1.2", "hosts": ["::1", "10.0.0.1"] }));
    typed(&[("version", "1.2"), ("hosts", "[\"::1\"]")], json!({ "version": "1.2", "hosts": ["::1"] }));
    typed(
        &[("version", "1.2"), ("hosts", "::1"), ("hosts", "::2")],
        json!({ "version": "1.2", "hosts": ["::1", "::2"] }),
    );
    typed(&[("version", "1.2"), ("hosts", "")], json!({ "version": "1.2", "hosts": [] }));
    typed(&[("version", "1.2"), ("extra", "{\"a\":1}")], json!({ "version": "1.2", "extra": { "a": 1 } }));
    typed(&[("version:", "\"1.2\""), ("force:", "true")], json!({ "version": "1.2", "force": true }));
    typed(&[("version", "1.2"), ("text", "true")], json!({ "version": "1.2", "text": "true" }));
}

#[test]
fn mistyped_words_are_explained() {
    let version = ("version", "1.2");
    mistyped(&[version, ("ensure", "lastest")], "input `ensure` takes present, latest or absent", Some("lastest"));
    mistyped(&[version, ("force", "maybe")], "input `force` takes true or false", Some("maybe"));
    mistyped(&[version, ("retries", "1e3")], "input `retries` takes a whole number", Some("1e3"));
    mistyped(&[version, ("ratio", "inf")], "input `ratio` takes a number", Some("inf"));
    mistyped(&[version, ("extra", "a=1")], "input `extra` takes a JSON object", Some("a=1"));
    mistyped(&[version, ("force:", "yes")], "input `force` takes JSON after `:=`", Some("yes"));
    mistyped(&[version, version], "input `version` takes one value, not two", Some("1.2"));
    mistyped(
        &[version, ("note", "a\u{1b}[31m")],
        &format!("input `note` takes {}", Validation::Shellsafe.accepted()),
        Some("a\\u{1b}[31m"),
    );
    let long = "x".repeat(500);
    mistyped(
        &[version, ("retries", &long)],
        "input `retries` takes a whole number",
        Some(&format!("{}...", &long[..60])),
    );
    mistyped(
        &[("", "")],
        "there is no input ``; the inputs are version, ensure, note, tags, hosts, extra, force, retries, ratio or text",
        None,
    );
}

#[test]
fn a_query_names_its_arguments_by_position() {
    let text = r#"{"name": "package",
        "input": {"name": {"type": "string"}, "arch": {"type": "string", "optional": true}}}"#;
    let query: DataQuery = serde_json::from_str(text).unwrap();
    assert_eq!(query.validate(&[json!("bash")]).map(Value::Object), Ok(json!({ "name": "bash" })));
    assert_eq!(query.validate(&[json!("a"), json!("b")]).map(Value::Object), Ok(json!({ "name": "a", "arch": "b" })));
    assert_eq!(query.validate(&[]).unwrap_err().code().code, "missing-argument");
    assert_eq!(query.validate(&[json!(1)]).unwrap_err().code().code, "invalid-argument");
    let error = query.validate(&[json!("a"), json!("b"), json!("c")]).unwrap_err();
    assert_eq!((error.code().code, error.argument()), ("unknown-argument", "3"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof!["present", "latest", "1.2", "10.0.0.1", "a&b"].prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    let known: Vec<String> = deploy().input.names().map(str::to_owned).collect();
    prop_oneof![9 => prop::sample::select(known), 1 => any::<String>()]
}

fn any_arguments() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any_name(), any_json(), 0..4).prop_map(|given| {
        let version = ("version".to_owned(), json!("1.2"));
        std::iter::once(version).chain(given).collect()
    })
}

fn any_word() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z0-9.,:\\[\\]{}\"-]{0,8}", "1\\.[0-9]", "present|latest|true|no|7|::1|\\[\\]"]
}

proptest! {
    #[test]
    fn what_validation_accepts_it_accepts_again_unchanged(arguments in any_arguments()) {
        let action = deploy();
        if let Ok(complete) = action.validate(&arguments) {
            prop_assert!(arguments.iter().all(|(name, value)| complete.get(name) == Some(value)));
            prop_assert_eq!(action.validate(&complete), Ok(complete));
        }
    }

    #[test]
    fn typed_arguments_validate(pairs in prop::collection::vec((any_name(), any_word()), 0..5)) {
        let action = deploy();
        let pairs: Vec<_> = std::iter::once(("version".to_owned(), "1.2".to_owned()))
            .chain(pairs.into_iter().filter(|(name, _)| name != "version"))
            .collect();
        match action.parse_arguments(&pairs) {
            Ok(arguments) => prop_assert!(action.validate(&arguments).is_ok()),
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control), "{error}"),
        }
    }

    #[test]
    fn reading_never_panics(text in any::<String>(), at in 0..FOREIGN.len()) {
        let _any = Ddl::parse(&text);
        if FOREIGN.is_char_boundary(at) {
            prop_assert!(Ddl::parse(&FOREIGN[..at]).is_err());
        }
    }

    #[test]
    fn shellsafe_text_is_one_line_of_printable_characters(text in any::<String>()) {
        if is_shellsafe(&text) {
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(!text.contains(['&', ';', '|', '`', '$', '\'', '"', '\\', '<', '>', '(', ')', '*']));
        }
    }
}
