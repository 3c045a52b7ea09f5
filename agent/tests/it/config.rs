//! The configuration: what is accepted, and how it says what is not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use muster_agent::config::{Config, Raw, sources};
use muster_daemon::config::{ConfigError, Problem, load, load_lenient};

const GOOD: &str = "[broker]\nurls = [\"amqps://mq1.example.com:5671/muster\"]\n";

fn read(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Vec<Problem>), ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("musterd.toml");
    fs::write(&path, text).unwrap();
    let drop_ins = directory.path().join("musterd.d");
    fs::create_dir(&drop_ins).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let (loaded, unknown) = load_lenient::<Raw>(sources(&path, &drop_ins, variables))?;
    Ok((Config::new(&loaded)?, unknown))
}

#[test]
fn the_shortest_file_is_enough() {
    let (config, unknown) = read(GOOD, &[]).unwrap();
    assert_eq!(unknown, []);
    assert_eq!(config.state_dir(), Path::new("/var/lib/muster"));
    assert_eq!(config.collectives().iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["main"]);
    assert_eq!(config.audit_file(), Path::new("/var/lib/muster/audit.jsonl"));
    assert_eq!(config.limits().command_window, Duration::from_secs(3_600));
    assert_eq!(config.host(), None);
}

#[test]
fn the_environment_wins_over_the_file() {
    let variables = [("MUSTERD_LIMITS__CLOCK_SKEW_S", "5"), ("MUSTERD_HOST", "web9"), ("MUSTERD_CONFIG", "/elsewhere")];
    let (config, unknown) = read(&format!("host = \"web1\"\n{GOOD}[limits]\nclock_skew_s = 7\n"), &variables).unwrap();
    assert_eq!(unknown, [], "the variable that names the file is no key");
    assert_eq!(config.limits().clock_skew, Duration::from_secs(5));
    assert_eq!(config.host().unwrap().as_str(), "web9");
}

#[test]
fn an_unknown_key_is_told_and_does_not_stop_the_agent() {
    let text = format!("state_dri = \"/x\"\n{GOOD}[limits]\nconcurent_actions = 3\n");
    let (_, unknown) = read(&text, &[]).unwrap();
    let said: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2);
    assert!(said.iter().any(|line| line.contains("`state_dri`, did you mean `state_dir`?")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("musterd.toml:5") && line.contains("concurrent_actions")), "{said:?}");
}

#[test]
fn a_wrong_value_names_file_key_and_what_is_accepted() {
    #[track_caller]
    fn check(text: &str, words: &[&str]) {
        let error = read(text, &[]).expect_err(text).to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }
    check("", &["`broker.urls`", "amqps://"]);
    check("[broker]\nurls = [\"http://mq1\"]\n", &["musterd.toml:2", "broker.urls", "amqps"]);
    check("[broker]\nurls = [\"amqp://mq1\"]\n", &["TLS"]);
    check("[broker]\nurls = [\"amqps://u:secret@mq1\"]\n", &["broker.urls"]);
    check(
        &format!("{GOOD}[limits]\nconcurrent_actions = \"many\"\n"),
        &["musterd.toml:4", "limits.concurrent_actions"],
    );
    check(&format!("{GOOD}[limits]\nconcurrent_actions = 0\n"), &["musterd.toml:4", "1 to 256"]);
    check(&format!("{GOOD}[limits]\ncommand_window_s = 86401\n"), &["limits.command_window_s", "1 to 86400"]);
    check(&format!("{GOOD}[log]\nfilter = \"info,x=loud\"\n"), &["log.filter", "loud"]);
    check(&format!("{GOOD}[log]\nformat = \"xml\"\n"), &["log.format", "json"]);
    check(&format!("{GOOD}[pki]\nca = \"ca.pem\"\n"), &["pki.ca", "absolute"]);
    check(&format!("{GOOD}[plugins.file]\nread_roots = [\"srv\"]\n"), &["plugins.file.read_roots", "absolute"]);
    check(&format!("{GOOD}[plugins.file]\nwrite_roots = [\"/srv/../etc\"]\n"), &["plugins.file.write_roots", "`..`"]);
    check(&format!("{GOOD}[plugins.file]\nbytes_max = 0\n"), &["plugins.file.bytes_max", "1 to 1073741824"]);
    check(&format!("{GOOD}[plugins]\nenabled = [\"sh ell\"]\n"), &["plugins.enabled"]);
    check(&format!("host = \"Web 1\"\n{GOOD}"), &["musterd.toml:1", "`host`"]);
    check(&format!("collectives = []\n{GOOD}"), &["collectives"]);
    // Everything out of bounds is told at once.
    check(
        &format!("{GOOD}[presence]\ninterval_s = 1\n[facts]\nexecutable_timeout_ms = 0\n"),
        &["presence.interval_s", "facts.executable_timeout_ms"],
    );
    let secret = read("[broker]\nurls = [\"amqps://u:secret@mq1\"]\n", &[]).unwrap_err().to_string();
    assert!(!secret.contains("secret"), "{secret}");
}

#[test]
fn the_shipped_example_is_good_and_holds_the_defaults() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/etc/musterd.toml"));
    let example = load::<Raw>(sources(path, Path::new("/nonexistent"), [])).unwrap();
    Config::new(&example).unwrap();
    // Every line that is commented out in it is a key with its default.
    let text = fs::read_to_string(path).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("#").filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("musterd.toml");
    fs::write(&whole, uncommented).unwrap();
    let all = load::<Raw>(sources(&whole, Path::new("/nonexistent"), [])).unwrap();
    let mut defaults = serde_json::to_value(Raw::default()).unwrap();
    let mut shown = serde_json::to_value(&all.value).unwrap();
    // These have no fixed default; the example shows what one may look like.
    for value in [&mut defaults, &mut shown] {
        value["host"] = serde_json::Value::Null;
        value["broker"]["urls"] = serde_json::Value::Null;
        value["audit"]["file"] = serde_json::Value::Null;
        value["status"]["socket"] = serde_json::Value::Null;
    }
    assert_eq!(shown, defaults);
    // And every key is in it.
    for key in keys("", &serde_json::to_value(Raw::default()).unwrap()) {
        assert!(all.origins.contains_key(&key), "`{key}` is not in the example");
    }
}

#[test]
fn the_book_has_every_key_and_its_policy_parses() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/agent.md"));
    let text = fs::read_to_string(path).unwrap();
    let mut all = keys("", &serde_json::to_value(Raw::default()).unwrap());
    all.extend(["host".to_owned(), "audit.file".to_owned()]);
    for key in all.iter().filter(|key| *key != "audit") {
        assert!(text.contains(&format!("\n| `{key}` |")), "`{key}` has no line in the chapter on the agent");
    }
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/policy.md"));
    let text = fs::read_to_string(path).unwrap();
    let rules = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let policy = muster_agent::policy::Policy::parse(rules, path).unwrap();
    assert_eq!(policy.rules().len(), 6);
}

fn keys(prefix: &str, value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .flat_map(|(name, value)| {
                keys(&if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") }, value)
            })
            .collect(),
        _ => vec![prefix.to_owned()],
    }
}
