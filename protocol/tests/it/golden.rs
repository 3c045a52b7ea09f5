//! The golden messages decode to what they always meant, and what must not be a message is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use muster_protocol::envelope::parse_signatures;
use muster_protocol::{
    AccumulatedProgressReport, ActionResult, Announcement, AnnouncementKind, Cancel, Command, Encoding, Envelope,
    InstalledPlugin, Inventory, Message, MessageError, Options, Outcome, OutputChunk, OutputStream, PayloadType,
    Profile, ProgressReport, ProtocolVersion, ReportState, SealedArguments, SealedBox, SealedKey, Target, Timestamp,
    Watch, decode, encode,
};
use serde_json::{Map, Value, json};

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/muster-1")
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Decodes the file, compares, and looks at what is written again: stable, and nothing lost that was known.
#[track_caller]
fn check<M: Message + PartialEq + std::fmt::Debug>(name: &str, expected: &M) {
    let body = read(name);
    let message: M = decode(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(&message, expected, "{name}");

    let written = encode(&message).unwrap();
    assert_eq!(decode::<M>(&written).unwrap(), message, "{name} reads back");
    assert_eq!(encode(&decode::<M>(&written).unwrap()).unwrap(), written, "{name} is written the same way twice");

    let known = without_future(serde_json::from_slice(&body).unwrap());
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_contains(&written, &known, name);
}

fn without_future(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.into_iter().filter(|(name, _)| !name.starts_with("future_"));
            Value::Object(known.map(|(name, value)| (name, without_future(value))).collect())
        }
        Value::Array(elements) => elements.into_iter().map(without_future).collect(),
        other => other,
    }
}

/// Every known field of the file is in what was written, except those that stand for "nothing".
#[track_caller]
fn assert_contains(written: &Value, known: &Value, at: &str) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (name, value) in known {
                match written.get(name) {
                    Some(found) => assert_contains(found, value, &format!("{at}.{name}")),
                    None => assert!(
                        matches!(value, Value::Null | Value::Bool(false)) || value == &json!([]) || value == &json!({}),
                        "{at}.{name} was dropped"
                    ),
                }
            }
        }
        (Value::Array(written), Value::Array(known)) => {
            assert_eq!(written.len(), known.len(), "{at}");
            for (index, (written, known)) in written.iter().zip(known).enumerate() {
                assert_contains(written, known, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(written, known, "{at}"),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is not an object"),
    }
}

pub(crate) fn full_command() -> Command {
    Command {
        protocol: ProtocolVersion::V1,
        id: "019d2c97-3400-7abc-8def-0123456789ab".parse().unwrap(),
        caller: "muster:user/lea".parse().unwrap(),
        created_at_ms: Timestamp(1_774_569_600_000),
        expires_at_ms: Timestamp(1_774_569_660_000),
        collective: "main".parse().unwrap(),
        target: Target {
            all: false,
            hosts: ["web1.example.com", "db1.example.com"].map(|name| name.parse().unwrap()).into(),
            filter: Some(r#"os.family = "Debian" and not class = "legacy""#.to_owned()),
        },
        plugin: "package".parse().unwrap(),
        action: "status".parse().unwrap(),
        arguments: object(json!({"name": "openssl", "count": 3, "deep": {"list": [1, 2.5, null, "ä"]}})),
        sealed: None,
        options: Options {
            noop: true,
            effective_user: Some("www-data".to_owned()),
            timeout_ms: Some(30_000),
            progress: false,
        },
        reply_to: "user/lea.7f3a91c2".parse().unwrap(),
        requires: ["noop", "effective_user", "timeout"].map(str::to_owned).into(),
    }
}

pub(crate) fn full_sealed() -> SealedArguments {
    let sealed = |text: &str| SealedBox::encode(&[7; 32], text.as_bytes());
    let key = |text: &str| SealedKey { key_id: "0123456789abcdef".to_owned(), sealed: sealed(text) };
    SealedArguments {
        names: ["secret_input".to_owned()].into(),
        public_key: "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=".to_owned(),
        values: sealed("not really encrypted"),
        recipients: [("db1.example.com", "for db1"), ("web1.example.com", "for web1")]
            .map(|(host, text)| (host.parse().unwrap(), key(text)))
            .into(),
    }
}

pub(crate) fn full_watch() -> Watch {
    let cancel = full_cancel();
    Watch {
        protocol: ProtocolVersion::V1,
        id: "019d2c97-5728-7000-8000-000000000002".parse().unwrap(),
        request_id: cancel.request_id,
        caller: cancel.caller,
        created_at_ms: cancel.created_at_ms,
        expires_at_ms: cancel.expires_at_ms,
        collective: cancel.collective,
        target: cancel.target,
        reply_to: cancel.reply_to,
        replay: false,
        follow: false,
        requires: cancel.requires,
    }
}

pub(crate) fn full_cancel() -> Cancel {
    let command = full_command();
    Cancel {
        protocol: ProtocolVersion::V1,
        id: "019d2c97-5728-7000-8000-000000000001".parse().unwrap(),
        request_id: command.id,
        caller: command.caller,
        created_at_ms: Timestamp(1_774_569_609_000),
        expires_at_ms: Timestamp(1_774_569_669_000),
        collective: command.collective,
        target: Target::named(["web1.example.com".parse().unwrap()]),
        reply_to: command.reply_to,
        requires: vec!["feature-of-tomorrow".to_owned()],
    }
}

pub(crate) fn full_report() -> ProgressReport {
    let command = full_command();
    ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: command.id,
        caller: command.caller,
        host: "web1.example.com".parse().unwrap(),
        sequence: 2,
        created_at_ms: Timestamp(1_774_569_601_000),
        state: ReportState::Finished,
        output: vec![],
        result: Some(ActionResult {
            outcome: Outcome::Failed,
            code: "failed".to_owned(),
            message: "openssl is not installed".to_owned(),
            exit_code: Some(100),
            data: json!({"status": "absent", "version": null}),
            truncated_from_bytes: Some(1_048_577),
            duration_ms: 577,
        }),
    }
}

fn chunk(stream: OutputStream, offset: u64, encoding: Encoding, data: &str) -> OutputChunk {
    OutputChunk { stream, offset, encoding, data: data.to_owned() }
}

pub(crate) fn running_report() -> ProgressReport {
    ProgressReport {
        sequence: 1,
        created_at_ms: Timestamp(1_774_569_600_420),
        state: ReportState::Running,
        output: vec![
            chunk(OutputStream::Stdout, 0, Encoding::Text, "reading lists\n"),
            chunk(OutputStream::Stderr, 17, Encoding::Text, "ä"),
            chunk(OutputStream::Stdout, 14, Encoding::Base64, "/wD+"),
        ],
        result: None,
        ..full_report()
    }
}

pub(crate) fn full_accumulated_report() -> AccumulatedProgressReport {
    let report = full_report();
    AccumulatedProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: report.request_id,
        host: report.host,
        sequence: 4,
        first_report: 7,
        last_report: 12,
        missing_reports: 1,
        created_at_ms: Timestamp(1_774_569_602_000),
        state: ReportState::Finished,
        output: vec![chunk(OutputStream::Stdout, 4096, Encoding::Text, "done\n")],
        result: Some(ActionResult {
            outcome: Outcome::Succeeded,
            code: "ok".to_owned(),
            message: "1 package upgraded".to_owned(),
            exit_code: Some(0),
            data: json!([]),
            truncated_from_bytes: Some(900_000),
            duration_ms: 1577,
        }),
        success: Some(true),
    }
}

pub(crate) fn full_announcement() -> Announcement {
    Announcement {
        protocol: ProtocolVersion::V1,
        host: "web1.example.com".parse().unwrap(),
        kind: AnnouncementKind::Online,
        created_at_ms: Timestamp(1_774_569_600_000),
        started_at_ms: Timestamp(1_774_569_599_000),
        agent_version: "0.1.0".to_owned(),
        inventory_digest: "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9".to_owned(),
        inventory: Some(Inventory {
            collectives: ["main", "ams1"].map(|name| name.parse().unwrap()).into(),
            classes: ["role::web", "apache::mod::ssl"].map(str::to_owned).into(),
            plugins: vec![InstalledPlugin { name: "host".parse().unwrap(), version: "0.1.0".to_owned() }],
            facts: object(json!({"os": {"family": "Debian", "release": {"major": "12"}}, "cpus": 8})),
        }),
        profile: Some(Profile {
            plugin: "package".parse().unwrap(),
            name: "repositories".to_owned(),
            digest: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
            data: json!([{"uri": "file:/srv/packages", "enabled": true}]),
        }),
    }
}

#[test]
fn commands() {
    check("command.json", &full_command());
    let minimal = Command {
        caller: "muster:service/jobs".parse().unwrap(),
        expires_at_ms: Timestamp(1_774_569_600_001),
        target: Target::everyone(),
        plugin: "host".parse().unwrap(),
        action: "ping".parse().unwrap(),
        arguments: Map::new(),
        options: Options::default(),
        reply_to: "service/jobs.0".parse().unwrap(),
        requires: vec![],
        ..full_command()
    };
    assert!(minimal.options.progress, "running reports come unless they are declined");
    check("command-minimal.json", &minimal);
    check("cancel.json", &full_cancel());
    check("watch.json", &full_watch());
    let sealed = Command {
        target: Target::named(["web1.example.com".parse().unwrap()]),
        sealed: Some(full_sealed()),
        requires: vec!["sealed".to_owned()],
        ..full_command()
    };
    check("command-sealed.json", &sealed);
}

#[test]
fn reports() {
    check("progress-report-running.json", &running_report());
    check("progress-report-finished.json", &full_report());
    let unknown = ProgressReport {
        sequence: 0,
        result: Some(ActionResult {
            outcome: Outcome::Unknown("postponed".to_owned()),
            code: "code-of-tomorrow".to_owned(),
            message: String::new(),
            exit_code: None,
            data: Value::Null,
            truncated_from_bytes: None,
            duration_ms: 0,
        }),
        ..full_report()
    };
    check("progress-report-unknown-outcome.json", &unknown);
    check("accumulated-progress-report.json", &full_accumulated_report());
}

#[test]
fn announcements() {
    check("announcement.json", &Announcement { profile: None, ..full_announcement() });
    let profile = Announcement { kind: AnnouncementKind::Profile, inventory: None, ..full_announcement() };
    check("announcement-profile.json", &profile);
    let minimal = Announcement {
        protocol: ProtocolVersion::V1,
        host: "web1".parse().unwrap(),
        kind: AnnouncementKind::Unknown("dreaming".to_owned()),
        created_at_ms: Timestamp(0),
        started_at_ms: Timestamp(-1),
        agent_version: String::new(),
        inventory_digest: String::new(),
        inventory: None,
        profile: None,
    };
    check("announcement-minimal.json", &minimal);
}

#[test]
fn signatures_and_envelopes() {
    let signatures = parse_signatures(&read("signatures.json")).unwrap();
    let lengths: Vec<usize> = signatures.iter().map(|signature| signature.chain.len()).collect();
    assert_eq!(lengths, [1, 2]);
    assert!(signatures[0].keyid.starts_with("e3b0c442"));

    let envelope: Envelope = serde_json::from_slice(&read("envelope.json")).unwrap();
    assert_eq!(envelope.payload_type, PayloadType::Report.as_str());
    assert_eq!(envelope.body().unwrap(), b"{ \"exact\" : 1 }\n");
    assert_eq!(envelope.signatures, signatures[..1]);
}

/// Whoever stores or passes on a message keeps its bytes, so an old program loses nothing of a newer one's.
#[test]
fn a_message_at_rest_keeps_what_its_keeper_does_not_know() {
    for name in names() {
        let body = read(&name);
        let signatures = parse_signatures(&read("signatures.json")).unwrap();
        let stored = serde_json::to_vec(&Envelope::new("type/of-tomorrow", &body, signatures.clone())).unwrap();
        let restored: Envelope = serde_json::from_slice(&stored).unwrap();
        assert_eq!(restored.body().unwrap(), body, "{name}");
        assert_eq!((restored.payload_type.as_str(), restored.signatures), ("type/of-tomorrow", signatures));
    }
}

pub(crate) fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.ends_with(".json")).collect()
}

#[test]
fn every_golden_file_has_something_of_the_future_or_nothing_at_all() {
    for name in names().iter().filter(|name| !name.contains("minimal") && !name.contains("unknown")) {
        let text = String::from_utf8(read(name)).unwrap();
        assert!(text.contains("future") || text.contains("tomorrow"), "{name} has no unknown field");
    }
}

fn decode_as(kind: &str, body: &[u8]) -> Result<(), MessageError> {
    match kind {
        "command" => decode::<Command>(body).map(drop),
        "cancel" => decode::<Cancel>(body).map(drop),
        "watch" => decode::<Watch>(body).map(drop),
        "report" => decode::<ProgressReport>(body).map(drop),
        "accumulated-report" => decode::<AccumulatedProgressReport>(body).map(drop),
        "announcement" => decode::<Announcement>(body).map(drop),
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn what_must_not_be_a_message_is_refused_with_a_reason() {
    let entries: Vec<PathBuf> =
        fs::read_dir(folder().join("refused")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() >= 40);
    for path in entries {
        let case: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let body = match case.get("text") {
            Some(text) => text.as_str().unwrap().as_bytes().to_vec(),
            None => serde_json::to_vec(&case["body"]).unwrap(),
        };
        let (kind, expected) = (case["type"].as_str().unwrap(), case["expected"].as_str().unwrap());
        let error = decode_as(kind, &body).expect_err(&format!("{}: taken for a message", path.display()));
        assert!(error.to_string().starts_with(expected), "{}:\n{error}", path.display());
    }
}

#[test]
fn a_message_is_measured_before_it_is_read() {
    let large = vec![b' '; muster_protocol::limits::BODY_BYTES_MAX + 1];
    assert_eq!(decode_as("command", &large), Err(MessageError::TooLarge { bytes: large.len() }));
    let mut deep = full_command();
    deep.arguments = object(json!({"a": (0..40).fold(json!(1), |inner, _| json!([inner]))}));
    assert_eq!(encode(&deep), Err(MessageError::TooDeep));
    let mut wrong = full_command();
    wrong.target = Target::default();
    assert!(encode(&wrong).is_err(), "nobody signs what nobody accepts");
}
