use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::*;
use crate::logging::LogFormat;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Example {
    host: String,
    #[serde(default)]
    collectives: Vec<String>,
    #[serde(default)]
    broker: Broker,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Broker {
    urls: Vec<String>,
    heartbeat_s: u16,
    retry: bool,
    factor: f64,
    ports: Vec<u16>,
    password: Option<String>,
}

impl Default for Broker {
    fn default() -> Self {
        Self { urls: Vec::new(), heartbeat_s: 30, retry: true, factor: 2.0, ports: Vec::new(), password: None }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Log {
    format: LogFormat,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Context {
    collective: String,
}

/// Loads a main file, drop-ins and variables from a fresh directory, which appears as `DIR` in the text of errors.
fn load_example(main: &str, drop_ins: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded<Example>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("main.toml"), main).unwrap();
    fs::create_dir(path.join("d")).unwrap();
    for (name, text) in drop_ins {
        fs::write(path.join("d").join(name), text).unwrap();
    }
    let sources = Sources::new().file(path.join("main.toml")).drop_ins(path.join("d")).environment(
        "EXAMPLE",
        &["EXAMPLE_NOT_OURS"],
        variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    );
    let shorten = |text: &str| text.replace(&path.display().to_string(), "DIR");
    load::<Example>(sources)
        .map(|mut loaded| {
            loaded.origins.values_mut().for_each(|origin| *origin = shorten(origin));
            loaded
        })
        .map_err(|error| shorten(&error.to_string()))
}

#[track_caller]
fn check_error(main: &str, variables: &[(&str, &str)], expected: &str) {
    match load_example(main, &[], variables) {
        Ok(loaded) => panic!("accepted: {loaded:?}"),
        Err(error) => assert_eq!(error, expected),
    }
}

#[test]
fn later_sources_win_and_every_value_knows_its_origin() {
    let loaded = load_example(
        "host = 'a'\ncollectives = ['x', 'y']\n[broker]\nurls = ['one']\nheartbeat_s = 10\n",
        &[
            ("20-late.toml", "[broker]\nheartbeat_s = 30\n"),
            ("10-early.toml", "host = 'b'\nbroker.heartbeat_s = 20\n"),
            ("README", "this is not read"),
            (".10-hidden.toml", "host = 'hidden'"),
        ],
        &[("EXAMPLE_COLLECTIVES", "z"), ("OTHER_HOST", "c"), ("EXAMPLE_NOT_OURS", "1"), ("EXAMPLES_HOST", "d")],
    )
    .unwrap();
    assert_eq!(loaded.value.host, "b");
    assert_eq!(loaded.value.collectives, ["z"]);
    assert_eq!(loaded.value.broker.urls, ["one"]);
    assert_eq!(loaded.value.broker.heartbeat_s, 30);
    let origins: Vec<_> = loaded.origins.iter().map(|(key, origin)| format!("{key} {origin}")).collect();
    assert_eq!(
        origins,
        [
            "broker.heartbeat_s DIR/d/20-late.toml:2",
            "broker.urls DIR/main.toml:4",
            "collectives environment variable EXAMPLE_COLLECTIVES",
            "host DIR/d/10-early.toml:1",
        ]
    );
    assert_eq!(loaded.files.len(), 3);
}

#[test]
fn variables_take_the_type_that_is_expected() {
    let loaded = load_example(
        "host = 'a'",
        &[],
        &[
            ("EXAMPLE_HOST", "17"),
            ("EXAMPLE_BROKER__URLS", " amqps://a , amqps://b,"),
            ("EXAMPLE_BROKER__HEARTBEAT_S", " 5 "),
            ("EXAMPLE_BROKER__RETRY", "false"),
            ("EXAMPLE_BROKER__FACTOR", "3"),
            ("EXAMPLE_BROKER__PORTS", "[1, 2]"),
            ("EXAMPLE_BROKER__PASSWORD", "true"),
            ("EXAMPLE_LOG__FORMAT", "json"),
            ("EXAMPLE_COLLECTIVES", "['a, b', \"c\"]"),
        ],
    )
    .unwrap()
    .value;
    assert_eq!(loaded.host, "17");
    assert_eq!(loaded.collectives, ["a, b", "c"]);
    let broker = Broker {
        urls: vec!["amqps://a".to_owned(), "amqps://b".to_owned()],
        heartbeat_s: 5,
        retry: false,
        factor: 3.0,
        ports: vec![1, 2],
        password: Some("true".to_owned()),
    };
    assert_eq!(loaded.broker, broker);
    assert_eq!(loaded.log.format, LogFormat::Json);
}

#[test]
fn the_prefix_may_end_in_an_underscore() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Small {
        host: String,
    }
    for prefix in ["EXAMPLE", "EXAMPLE_"] {
        let variables = [("EXAMPLE_HOST".to_owned(), "a".to_owned()), ("EXAMPLEHOST".to_owned(), "b".to_owned())];
        let loaded = load::<Small>(Sources::new().environment(prefix, &[], variables)).unwrap();
        assert_eq!(loaded.value.host, "a");
    }
}

#[test]
fn unknown_keys_can_be_left_to_the_caller() {
    let variables = [("EXAMPLE_FORMAT".to_owned(), "json".to_owned()), ("EXAMPLE_NEWER".to_owned(), "1".to_owned())];
    let (loaded, unknown) = load_lenient::<Log>(Sources::new().environment("EXAMPLE", &[], variables)).unwrap();
    assert_eq!(loaded.value.format, LogFormat::Json);
    let unknown: Vec<_> = unknown.iter().map(ToString::to_string).collect();
    assert_eq!(unknown, ["environment variable EXAMPLE_NEWER: unknown key `newer`, known here: `format`"]);
}

#[test]
fn a_type_says_its_own_rules() {
    #[derive(Debug, Deserialize)]
    struct Small {
        #[expect(dead_code, reason = "reading it is what is tested")]
        addresses: Vec<std::net::IpAddr>,
    }
    let variables = [("EXAMPLE_ADDRESSES".to_owned(), "127.0.0.1,localhost".to_owned())];
    let error = load::<Small>(Sources::new().environment("EXAMPLE", &[], variables)).unwrap_err();
    let text = "environment variable EXAMPLE_ADDRESSES: `addresses[1]`: invalid IP address syntax";
    assert_eq!(error.to_string(), text);
}

#[test]
fn names_may_have_dots() {
    let main = "host = 'a'\n[context.'prod.example']\ncollective = 'c'\n";
    let loaded = load_example(main, &[("1.toml", "[context.'prod.example']\ncollective = 'd'\n")], &[]).unwrap();
    assert_eq!(loaded.value.context["prod.example"].collective, "d");
    assert_eq!(loaded.origin("context.\"prod.example\".collective"), Some("DIR/d/1.toml:2"));
}

#[test]
fn unknown_keys_are_all_named_with_what_was_meant() {
    check_error(
        "host = 'a'\ncolectives = []\n[broker]\nurl = ['x']\nsecret = 1\n",
        &[("EXAMPLE_LOGG__FORMAT", "json")],
        "DIR/main.toml:2: unknown key `colectives`, did you mean `collectives`?\n\
         environment variable EXAMPLE_LOGG__FORMAT: unknown key `logg`, did you mean `log`?\n\
         DIR/main.toml:5: unknown key `broker.secret`, known here: `broker.urls`, `broker.heartbeat_s`, `broker.retry`, \
         `broker.factor`, `broker.ports`, `broker.password`\n\
         DIR/main.toml:4: unknown key `broker.url`, did you mean `broker.urls`?",
    );
}

#[test]
fn a_misspelt_required_key_is_reported_once() {
    check_error("hots = 'a'", &[], "DIR/main.toml:1: unknown key `hots`, did you mean `host`?");
    check_error("", &[], "`host` is not set, and it has no default");
    check_error("host='a'\n[context.x]\n", &[], "`context.x.collective` is not set, and it has no default");
}

#[test]
fn wrong_values_name_place_key_and_what_is_accepted() {
    let cases = [
        (
            "[broker]\nheartbeat_s = 'often'",
            "DIR/main.toml:3: `broker.heartbeat_s` is \"often\"; accepted: a whole number from 0 to 65535",
        ),
        (
            "[broker]\nheartbeat_s = 70000",
            "DIR/main.toml:3: `broker.heartbeat_s` is 70000; accepted: a whole number from 0 to 65535",
        ),
        (
            "[broker]\nheartbeat_s = -1",
            "DIR/main.toml:3: `broker.heartbeat_s` is -1; accepted: a whole number from 0 to 65535",
        ),
        ("[broker]\nretry = 'yes'", "DIR/main.toml:3: `broker.retry` is \"yes\"; accepted: true or false"),
        ("[broker]\nurls = 'amqps://a'", "DIR/main.toml:3: `broker.urls` is \"amqps://a\"; accepted: a list"),
        ("[broker]\nurls = [\n 'a',\n 5 ]", "DIR/main.toml:5: `broker.urls[1]` is 5; accepted: a text in quotes"),
        ("[log]\nformat = 'yaml'", "DIR/main.toml:3: `log.format` is \"yaml\"; accepted: `text`, `json`"),
        ("[log]\nformat = 1", "DIR/main.toml:3: `log.format` is not a word; accepted: `text`, `json`"),
        ("broker = 1", "DIR/main.toml:2: `broker` is 1; accepted: a table"),
    ];
    for (text, expected) in cases {
        check_error(&format!("host = 'a'\n{text}"), &[], expected);
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    check_error(
        "host = 'a'\n[brokr]\nx = 1\n[broker]\nheartbeat_s = 'often'\nurls = ['a', 5, 6]\nports = [70000]\n[log]\nformat = 'yaml'\n",
        &[("EXAMPLE_BROKER__RETRY", "perhaps")],
        "DIR/main.toml:3: unknown key `brokr`, did you mean `broker`?\n\
         DIR/main.toml:5: `broker.heartbeat_s` is \"often\"; accepted: a whole number from 0 to 65535\n\
         DIR/main.toml:7: `broker.ports[0]` is 70000; accepted: a whole number from 0 to 65535\n\
         environment variable EXAMPLE_BROKER__RETRY: `broker.retry` is \"perhaps\"; accepted: true or false\n\
         DIR/main.toml:6: `broker.urls[1]` is 5; accepted: a text in quotes\n\
         DIR/main.toml:9: `log.format` is \"yaml\"; accepted: `text`, `json`",
    );
    // A required key that is wrong is not called missing as well; another that is missing is.
    check_error("host = 5\n", &[], "DIR/main.toml:1: `host` is 5; accepted: a text in quotes");
    check_error(
        "[broker]\nretry = 1\n",
        &[],
        "DIR/main.toml:2: `broker.retry` is 1; accepted: true or false\n`host` is not set, and it has no default",
    );
}

#[test]
fn a_part_can_be_used_to_look_for_more() {
    let variables = [("EXAMPLE_FORMAT".to_owned(), "yaml".to_owned())];
    let (loaded, problems) = load_partial::<Log>(Sources::new().environment("EXAMPLE", &[], variables)).unwrap();
    assert_eq!(loaded.unwrap().value, Log::default());
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].key(), "format");
}

#[test]
fn wrong_variables_are_named() {
    let cases = [
        (
            ("EXAMPLE_BROKER__HEARTBEAT_S", "often"),
            "`broker.heartbeat_s` is \"often\"; accepted: a whole number from 0 to 65535",
        ),
        (("EXAMPLE_BROKER__PORTS", "1,x"), "`broker.ports[1]` is \"x\"; accepted: a whole number from 0 to 65535"),
        (("EXAMPLE_BROKER__URLS", "['a"), "`broker.urls` is \"['a\"; accepted: words between commas, or a TOML array"),
        (("EXAMPLE_LOG__FORMAT", "yaml"), "`log.format` is \"yaml\"; accepted: `text`, `json`"),
    ];
    for (variable, expected) in cases {
        let expected = format!("environment variable {}: {expected}", variable.0);
        check_error("host = 'a'", &[variable], &expected);
    }
}

#[test]
fn broken_toml_points_at_line_and_column() {
    let error = load_example("host = 'a'\nbroker = [\n", &[], &[]).unwrap_err();
    assert!(
        error.starts_with("DIR/main.toml:3:1: not valid TOML: ") || error.starts_with("DIR/main.toml:2:"),
        "{error}"
    );
    let error = load_example("host = 'a'\nhost = 'b'\n", &[], &[]).unwrap_err();
    assert!(error.starts_with("DIR/main.toml:2:1: not valid TOML: duplicate key"), "{error}");
}

#[test]
fn missing_files_matter_when_required() {
    let missing = Path::new("/nonexistent/muster/x.toml");
    let loaded = load::<Log>(Sources::new().optional_file(missing).drop_ins("/nonexistent/muster/d")).unwrap();
    assert_eq!((loaded.value, loaded.files.len()), (Log::default(), 0));
    let error = load::<Log>(Sources::new().file(missing)).unwrap_err();
    assert_eq!(error.to_string(), "read configuration `/nonexistent/muster/x.toml`");
    assert_eq!(error.code(), "config-unreadable");
}

#[test]
fn printing_shows_values_origins_and_no_secret() {
    let main = "host = 'a'\n[broker]\npassword = 'hunter2'\nurls = ['x', 'y']\n[context.'p.q']\ncollective = 'c'\n";
    let loaded = load_example(main, &[], &[("EXAMPLE_LOG__FORMAT", "json")]).unwrap();
    let printed = loaded.print(&["broker.password"]).unwrap();
    assert_eq!(
        printed,
        "broker.factor = 2.0  # default\n\
         broker.heartbeat_s = 30  # default\n\
         broker.password = \"(not shown)\"  # DIR/main.toml:3\n\
         broker.ports = []  # default\n\
         broker.retry = true  # default\n\
         broker.urls = [\"x\", \"y\"]  # DIR/main.toml:4\n\
         collectives = []  # default\n\
         context.\"p.q\".collective = \"c\"  # DIR/main.toml:6\n\
         host = \"a\"  # DIR/main.toml:1\n\
         log.format = \"json\"  # environment variable EXAMPLE_LOG__FORMAT\n"
    );
    assert!(!printed.contains("hunter2"));
    toml::from_str::<toml::Table>(&printed).unwrap();
}
