//! The wire format and its languages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::str::FromStr;

use muster_protocol::ddl::Ddl;
use muster_protocol::envelope::{Envelope, parse_signatures};
use muster_protocol::expr::mco::{McoFilters, translate};
use muster_protocol::expr::{Expression, HostScope, MapScope, Reading, Truth};
use muster_protocol::limits::{CHAIN_MAX, EXPRESSION_BYTES_MAX, JSON_DEPTH_MAX, SIGNATURES_MAX};
use muster_protocol::{
    AccumulatedProgressReport, Announcement, Cancel, CollectiveName, Command, GroupName, HostName, Identity, Message,
    PluginName, ProgressReport, ReplyRoute, RequestId, SessionName, TaskState, Watch, check_bounds, decode, encode,
};
use serde_json::{Map, Value};

use crate::Target;
use crate::input::Input;

/// The six kinds of signed bodies.
pub(crate) const MESSAGE: Target = Target {
    name: "message",
    bytes_max: 8192,
    seeds: &[
        "c=protocol/golden/muster-1/",
        "n=protocol/golden/muster-1/cancel.json",
        "w=protocol/golden/muster-1/watch.json",
        "r=protocol/golden/muster-1/progress-report-running.json",
        "r=protocol/golden/muster-1/progress-report-finished.json",
        "r=protocol/golden/muster-1/progress-report-unknown-outcome.json",
        "a=protocol/golden/muster-1/accumulated-progress-report.json",
        "p=protocol/golden/muster-1/announcement.json",
        "p=protocol/golden/muster-1/announcement-minimal.json",
        "p=protocol/golden/muster-1/announcement-profile.json",
        "c=protocol/golden/muster-1/refused/",
    ],
    words: &[
        "\"protocol\":\"muster/1\"",
        "\"requires\":[\"noop\"]",
        "\"filter\":\"",
        "\"hosts\":[",
        "\"sealed\":{",
        "\"options\":{",
        "\"result\":{",
        "\"outcome\":\"refused\"",
        "\"state\":\"finished\"",
        "\"encoding\":\"base64\"",
        "\"stream\":\"stderr\"",
        "\\u0000",
        "\\ud83d\\ude00",
        "1e999",
        "9223372036854775807",
        "18446744073709551616",
    ],
    run: message,
};

fn message(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.byte();
    let body = input.rest();
    // What the limits say is checked against a second count.
    if check_bounds(body).is_ok()
        && let Ok(value) = serde_json::from_slice::<Value>(body)
    {
        assert!(depth(&value) <= JSON_DEPTH_MAX);
    }
    match kind {
        b'n' => signed_twice::<Cancel>(body),
        b'w' => signed_twice::<Watch>(body),
        b'a' => signed_twice::<AccumulatedProgressReport>(body),
        b'p' => signed_twice::<Announcement>(body),
        b'r' => {
            signed_twice::<ProgressReport>(body);
            if let Ok(ProgressReport { result: Some(result), .. }) = decode(body) {
                assert!(TaskState::from(&result.outcome).is_final(), "a result ends it");
            }
        }
        _ => {
            signed_twice::<Command>(body);
            if let Ok(command) = decode::<Command>(body) {
                assert!(command.caller.is_controller() && command.reply_to.controller() == &command.caller);
            }
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What is accepted can be signed again, and is read as the same.
fn signed_twice<M: Message + PartialEq + Debug>(body: &[u8]) {
    match decode::<M>(body) {
        Ok(message) => {
            let again = encode(&message).expect("what was accepted may be signed");
            assert_eq!(decode::<M>(&again).as_ref(), Ok(&message));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The header of signatures, and the envelope in files.
pub(crate) const SIGNATURES: Target = Target {
    name: "signatures",
    bytes_max: 4096,
    seeds: &["h=protocol/golden/muster-1/signatures.json", "e=protocol/golden/muster-1/envelope.json"],
    words: &["\"keyid\":\"", "\"sig\":\"", "\"chain\":[\"", "\"payload\":\"", "\"payloadType\":\"", "=\"", "=="],
    run: signatures,
};

fn signatures(input: &[u8]) {
    let mut input = Input(input);
    if input.byte() == b'e' {
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(input.rest())
            && let Ok(body) = envelope.body()
        {
            let again = Envelope::new(envelope.payload_type.clone(), &body, envelope.signatures.clone());
            assert_eq!(again, envelope, "base64 has one form");
        }
        return;
    }
    if let Ok(found) = parse_signatures(input.rest()) {
        assert!((1..=SIGNATURES_MAX).contains(&found.len()));
        assert!(found.iter().all(|signature| signature.chain.len() <= CHAIN_MAX));
        let again = serde_json::to_vec(&found).expect("signatures are JSON");
        // Written anew they may be longer, so that the limit of the header is passed.
        if let Ok(again) = parse_signatures(&again) {
            assert_eq!(again, found);
        }
    }
}

/// Expressions: `EXPRESSION 0 FACTS`.
pub(crate) const EXPRESSION: Target = Target {
    name: "expression",
    bytes_max: 2048,
    seeds: &["fuzz/seeds/expression/"],
    words: &[
        " and ",
        " or ",
        "not ",
        " in ",
        " like ",
        " has ",
        "true",
        "false",
        "name",
        "class",
        "plugin",
        "collective",
        "fact.",
        "os.family",
        " = ",
        " != ",
        " >= ",
        " <= ",
        " =~ ",
        " !~ ",
        "\"",
        "/",
        "(",
        ")",
        "[",
        "]",
        "*",
        "?",
        "\\",
        "package(",
        ").",
        "v\"1.2\"",
        "-9223372036854775809",
        "1e308",
        "(?i)",
        "\\p{L}",
        "{1,9}",
    ],
    run: expression,
};

fn expression(input: &[u8]) {
    let mut input = Input(input);
    let source = input.text();
    let parsed = match Expression::parse(&source) {
        Ok(parsed) => parsed,
        Err(error) => {
            let characters = source.chars().count();
            assert!(error.column >= 1 && error.column <= characters + 1 && error.length >= 1, "{error:?}");
            assert!(!error.render(&source).chars().any(|c| c.is_control() && c != '\n'), "{source:?}");
            return;
        }
    };
    assert!(parsed.as_str().len() <= EXPRESSION_BYTES_MAX);
    let again = Expression::parse(parsed.as_str()).expect("a printed expression parses");
    assert_eq!((&again, again.as_str()), (&parsed, parsed.as_str()), "printed and parsed it is the same");
    assert_eq!(Expression::from_node(parsed.root().clone()).as_ref(), Ok(&parsed));
    let facts: Map<String, Value> = serde_json::from_slice(input.rest()).unwrap_or_default();
    evaluate(&parsed, &facts);
}

/// Evaluates in a host's scope. A condition that surely holds also holds for any element.
fn evaluate(parsed: &Expression, facts: &Map<String, Value>) {
    let name = HostName::new("web1.example.com").expect("a host's name");
    let collectives: BTreeSet<CollectiveName> = CollectiveName::new("main").into_iter().collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<String>>();
    let (classes, plugins) = (words(&["web", "roles::web"]), words(&["host", "package"]));
    let answers: BTreeMap<String, Value> = parsed
        .calls()
        .take(8)
        .map(|call| (call.canonical(), serde_json::json!({"version": "1.2", "n": [1, 2]})))
        .collect();
    let scope = HostScope {
        name: &name,
        facts,
        classes: &classes,
        plugins: &plugins,
        collectives: &collectives,
        calls: &answers,
    };
    let truth = parsed.evaluate(&scope);
    assert_eq!(parsed.matches(&scope), truth == Truth::True);
    assert_eq!(parsed.evaluate(&scope), truth, "the same again");
    let negated = Expression::from_node(muster_protocol::expr::Node::negated(parsed.root().clone()));
    if let Ok(negated) = negated {
        assert_eq!(negated.evaluate(&scope), !truth, "`not` turns it around");
    }
    // Where nothing is known there is nothing that the readings take differently.
    assert_eq!(parsed.evaluate_as(Reading::Surely("arg"), &MapScope::new()), parsed.evaluate(&MapScope::new()));
    for path in parsed.paths() {
        assert!(!path.segments().is_empty());
    }
}

/// MCollective's filters: a letter for the option, the filter, a zero byte, and so on.
pub(crate) const MCO_FILTER: Target = Target {
    name: "mco-filter",
    bytes_max: 1024,
    seeds: &["fuzz/seeds/mco-filter/"],
    words: &[" and ", " or ", "not ", "!", "=~", ">=", "<=", "/", "(", ")", "\"", ".", "package(\"x\").version=1"],
    run: mco_filter,
};

fn mco_filter(input: &[u8]) {
    let mut filters = McoFilters::default();
    for text in Input(input).texts() {
        let mut characters = text.chars();
        let option = match characters.next() {
            Some('F') => &mut filters.facts,
            Some('C') => &mut filters.classes,
            Some('A') => &mut filters.agents,
            Some('I') => &mut filters.identities,
            _ => &mut filters.compound,
        };
        option.push(characters.as_str().to_owned());
    }
    match translate(&filters) {
        Ok(expression) => {
            assert_eq!(Expression::parse(expression.as_str()).as_ref(), Ok(&expression));
            evaluate(&expression, &Map::new());
        }
        Err(error) => {
            assert!(error.error.column >= 1, "{error:?}");
            drop(error.error.render(&error.given));
        }
    }
}

/// Plugin descriptions: `DESCRIPTION 0 ARGUMENTS`, and words as from a command line behind.
pub(crate) const DDL: Target = Target {
    name: "ddl",
    bytes_max: 16 * 1024,
    seeds: &["agent-plugins/api/ddl/", "fuzz/seeds/ddl/"],
    words: &[
        "\"type\":\"",
        "\"array\"",
        "\"Hash\"",
        "\"integer\"",
        "\"list\"",
        "\"validation\":\"",
        "shellsafe",
        "ipv4address",
        "ipv6address",
        "ipaddress",
        "typecheck",
        "\"maxlength\":",
        "\"optional\":",
        "\"default\":",
        "\"list\":[",
        "\"muster\":{",
        "\"one_of\":[[",
        "\"secret\":true",
        "\"detached\":true",
        "\"aggregate\":[{",
        "\"function\":\"summary\"",
        "\"display\":\"always\"",
    ],
    run: ddl,
};

fn ddl(input: &[u8]) {
    let mut input = Input(input);
    let text = input.text();
    let Ok(ddl) = Ddl::parse(&text) else { return };
    drop(ddl.warnings());
    let json = serde_json::to_string(&ddl).expect("a description is JSON");
    let again = Ddl::parse(&json).expect("a written description parses");
    assert_eq!(serde_json::to_string(&again).expect("a description is JSON"), json, "{text}");
    let arguments = input.text();
    let arguments: Map<String, Value> = serde_json::from_str(&arguments).unwrap_or_default();
    let pairs: Vec<(String, String)> = input
        .texts()
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for action in &ddl.actions {
        assert!(ddl.timeout_s(action) > 0);
        if let Ok(complete) = action.validate(&arguments) {
            let accepted = action.validate(&complete);
            // A default may make one of several out of none, which only the first look is about.
            if action.muster.one_of.is_empty() {
                assert_eq!(accepted.as_ref(), Ok(&complete), "what was accepted is accepted again");
            }
        }
        if let Ok(typed) = action.parse_arguments(&pairs) {
            assert!(action.validate(&typed).is_ok());
        }
    }
    let values: Vec<Value> = arguments.values().cloned().collect();
    for query in ddl.muster.data.iter() {
        drop(query.validate(&values));
    }
}

/// Names, identities, routes and ids.
pub(crate) const NAMES: Target = Target {
    name: "names",
    bytes_max: 512,
    seeds: &["fuzz/seeds/names/"],
    words: &["muster:", "host/", "user/", "service/", "broker/", ".", "0193", "-7"],
    run: names,
};

fn names(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    fn check<T: FromStr + Display + PartialEq + Debug>(text: &str)
    where
        T::Err: Display,
    {
        match text.parse::<T>() {
            Ok(name) => {
                let again = name.to_string().parse::<T>();
                assert!(again.is_ok_and(|again| again == name), "`{text}` is not read again");
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{text:?}"),
        }
    }
    check::<HostName>(&text);
    check::<GroupName>(&text);
    check::<PluginName>(&text);
    check::<SessionName>(&text);
    check::<Identity>(&text);
    check::<ReplyRoute>(&text);
    check::<RequestId>(&text);
    if let Ok(host) = text.parse::<HostName>() {
        assert!(!host.as_str().contains(['*', '#', ' ']), "a wildcard is no host");
    }
}
