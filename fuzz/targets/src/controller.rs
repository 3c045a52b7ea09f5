//! What a controller makes of reports, and what the command line reads and shows.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use muster_broker_config::{Definitions, Site, check, definitions};
use muster_bus::BrokerUrl;
use muster_client::aggregate::aggregate;
use muster_client::collect::{Expected, Rules};
use muster_client::fold::Fold;
use muster_client::ordered::{Next, Ordered};
use muster_client::output::Output;
use muster_client::{Cause, Collector};
use muster_protocol::ddl::Ddl;
use muster_protocol::{
    AccumulatedProgressReport, ActionResult, Encoding, HostName, Identity, Outcome, OutputChunk, OutputStream,
    ProgressReport, ProtocolVersion, ReportState, RequestId, TaskState, Timestamp, decode, encode,
};
use serde_json::Value;

use crate::input::Input;
use crate::{Target, scratch};

/// When it begins.
const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// A collection of reports: steps of a few bytes each.
pub(crate) const COLLECTOR: Target =
    Target { name: "collector", bytes_max: 1024, seeds: &["fuzz/seeds/collector/"], words: &[], run: collector };

fn hosts() -> Vec<HostName> {
    (0..5).map(|number| HostName::new(format!("web{number}.example.com")).expect("a host's name")).collect()
}

fn request() -> RequestId {
    "0193a3f5-7b3c-7def-8123-456789abcdef".parse().expect("an id")
}

fn lea() -> Identity {
    "user/lea".parse().expect("an identity")
}

/// The next report that the input tells of.
fn report(input: &mut Input<'_>, hosts: &[HostName]) -> ProgressReport {
    let kind = input.byte();
    let sequence = match kind & 0x60 {
        0x60 => u32::MAX - u32::from(input.byte()),
        0x40 => u32::from(input.short()),
        _ => u32::from(input.byte() % 6),
    };
    let outcomes =
        [Outcome::Succeeded, Outcome::Failed, Outcome::Refused, Outcome::Cancelled, Outcome::Unknown("new".to_owned())];
    let finished = kind & 1 == 1;
    let result = finished.then(|| {
        let outcome = outcomes[usize::from(kind >> 1 & 3)].clone();
        let code = if kind & 0x18 == 0x18 { "replayed" } else { "ok" };
        ActionResult {
            outcome,
            code: code.to_owned(),
            message: String::new(),
            exit_code: None,
            duration_ms: 1,
            data: Value::Null,
            truncated_from_bytes: None,
        }
    });
    ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: request(),
        caller: lea(),
        host: hosts[usize::from(input.byte()) % hosts.len()].clone(),
        sequence,
        created_at_ms: NOW,
        state: if finished { ReportState::Finished } else { ReportState::Running },
        output: if kind & 0x80 == 0 { Vec::new() } else { vec![chunk(input)] },
        result,
    }
}

/// The next piece of output.
fn chunk(input: &mut Input<'_>) -> OutputChunk {
    let kind = input.byte();
    let offset = match kind & 6 {
        6 => u64::MAX - u64::from(input.byte()),
        4 => u64::from(input.short()),
        _ => u64::from(input.byte() % 16),
    };
    let bytes = input.piece();
    let stream = if kind & 8 == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
    let (encoding, data) = match (kind & 1, std::str::from_utf8(bytes)) {
        (0, Ok(text)) => (Encoding::Text, text.to_owned()),
        (0, Err(_)) => (Encoding::Base64, String::from_utf8_lossy(bytes).into_owned()),
        _ => (Encoding::Base64, base64::engine::general_purpose::STANDARD.encode(bytes)),
    };
    OutputChunk { stream, offset, encoding, data }
}

fn collector(input: &[u8]) {
    let mut input = Input(input);
    let hosts = hosts();
    let asked: BTreeSet<HostName> = hosts[..3].iter().cloned().collect();
    let anyone = input.byte() & 1 == 1;
    let expected = if anyone { Expected::Anyone } else { Expected::Hosts(asked.clone()) };
    let how = input.byte();
    let rules = Rules {
        start_timeout_ms: 1000,
        run_timeout_ms: 5000,
        output_bytes_max: 64,
        output_from_anywhere: how & 1 == 1,
        settle_ms: (how & 2 == 2).then_some(200),
        sent_before: how & 4 == 4,
    };
    let mut collector = Collector::new([request()], lea(), expected, rules, NOW);
    let mut now = NOW;
    let mut finals: BTreeMap<HostName, TaskState> = BTreeMap::new();
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => {
                now = now.plus_ms(i64::from(input.short()) * 10);
                drop(collector.advance(now));
            }
            1 => {
                let host = &hosts[usize::from(input.byte()) % hosts.len()];
                let cause = [Cause::NoQueue, Cause::NotSent][usize::from(input.byte() & 1)];
                collector.unreachable(host, cause, now);
            }
            2 => collector.unconfirmed(&hosts[usize::from(input.byte()) % hosts.len()]),
            3 if input.byte() == b'x' => collector.close(),
            4 if input.byte() == b'x' => collector.not_sent(now),
            5 => collector.all_sent(now),
            _ => {
                let report = report(&mut input, &hosts);
                let _ = collector.take(&report, now);
            }
        }
        let counts = collector.counts();
        assert_eq!(counts.total(), collector.hosts().count(), "every host is counted once");
        for (host, record) in collector.hosts() {
            assert!(anyone || asked.contains(host), "nobody else gets in");
            if let Some(stream) = record.output.stream(OutputStream::Stdout) {
                assert!(stream.beginning().len() <= 64, "output is bounded");
            }
            if record.is_final() {
                let state = finals.entry(host.clone()).or_insert(record.state);
                assert_eq!(*state, record.state, "a final state stays");
            } else {
                assert!(!finals.contains_key(host), "a final state stays");
            }
        }
        assert_eq!(finals.len(), counts.total() - counts.pending - counts.running);
    }
    // Time alone ends every collection.
    for _ in 0..10 {
        drop(collector.advance(now));
        let Some(wakeup) = collector.next_wakeup(now).filter(|_| !collector.is_complete(now)) else { break };
        assert!(wakeup > now, "whoever waits for a time that is over turns in circles");
        now = wakeup;
    }
    assert!(collector.is_complete(now), "every question ends");
}

/// Output in pieces, as it comes: whatever the order, nothing is shown twice or made up.
pub(crate) const OUTPUT: Target =
    Target { name: "output", bytes_max: 1024, seeds: &["fuzz/seeds/output/"], words: &[], run: output };

fn output(input: &[u8]) {
    let mut input = Input(input);
    let (hold, most) = (usize::from(input.byte()), usize::from(input.byte()));
    let mut ordered = if input.byte() & 1 == 0 { Ordered::from_start() } else { Ordered::from_anywhere() };
    let mut whole = Output::default();
    let mut fold = Fold::new(request());
    let (mut shown, mut given) = (0u64, 0u64);
    let hosts = hosts();
    let mut number = 0;
    while !input.is_empty() {
        let chunk = chunk(&mut input);
        let bytes = chunk.data.len() as u64;
        given += bytes;
        let mut count = |pieces: &[Next]| {
            for piece in pieces {
                match piece {
                    Next::Bytes(bytes) => shown += bytes.len() as u64,
                    Next::Missing(missing) => assert!(*missing > 0),
                }
            }
        };
        count(&ordered.push(&chunk, hold));
        whole.insert(&chunk, most);
        if let Some(stream) = whole.stream(chunk.stream) {
            assert!(stream.beginning().len() <= most, "output is bounded");
            assert!(stream.length() >= stream.beginning().len() as u64);
            let _ = (stream.missing_bytes(), stream.text());
        }
        fold.add(&ProgressReport {
            protocol: ProtocolVersion::V1,
            request_id: request(),
            caller: lea(),
            host: hosts[0].clone(),
            sequence: number,
            created_at_ms: NOW,
            state: ReportState::Running,
            output: vec![chunk],
            result: None,
        });
        number += 1;
    }
    for piece in ordered.give_up() {
        if let Next::Bytes(bytes) = piece {
            shown += bytes.len() as u64;
        }
    }
    assert!(!ordered.is_waiting() && shown <= given, "{shown} of {given} bytes");
    let deltas = fold.take(NOW);
    assert!(fold.is_empty() && deltas.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    for delta in &deltas {
        if let Ok(body) = encode(delta) {
            assert_eq!(decode::<AccumulatedProgressReport>(&body).as_ref(), Ok(delta));
        }
    }
}

/// Aggregates: `FORMAT`, `FUNCTION`, then values as JSON.
pub(crate) const AGGREGATE: Target = Target {
    name: "aggregate",
    bytes_max: 1024,
    seeds: &["fuzz/seeds/aggregate/"],
    words: &[
        "%s",
        "%-10s",
        "%05d",
        "%.3f",
        "%g",
        "%v",
        "%%",
        "1e308",
        "-0.0",
        "18446744073709551615",
        "null",
        "[1,[2]]",
    ],
    run: aggregates,
};

fn aggregates(input: &[u8]) {
    let mut input = Input(input);
    let (format, function) = (input.text(), input.text());
    let description = serde_json::json!({
        "metadata": {"name": "x", "description": "", "version": "1", "author": "", "license": "", "url": "", "timeout": 10},
        "actions": [{
            "action": "x", "description": "", "display": "always", "input": {},
            "output": {"o": {"description": "", "display_as": "O", "type": "string"}},
            "aggregate": [{"function": function, "args": ["o", {"format": format}]}],
        }],
    });
    let Ok(ddl) = Ddl::parse(&description.to_string()) else { return };
    let values: Vec<Value> = serde_json::from_slice(input.rest()).unwrap_or_default();
    let answers: Vec<Value> = values.into_iter().map(|value| serde_json::json!({ "o": value })).collect();
    let found = aggregate(&ddl.actions[0], &answers);
    assert_eq!(found.len(), 1);
    for one in found {
        // At most 80 columns a field, of at most as many fields as there are arguments.
        assert!(one.values + one.missing + one.unusable <= answers.len() * (1 + input.rest().len()));
        assert!(one.lines.iter().all(|line| line.len() <= format.len() + input.rest().len() * 6 + 1024));
    }
}

/// Text from hosts on its way to a terminal: width, then the text.
pub(crate) const TERMINAL: Target = Target {
    name: "terminal",
    bytes_max: 512,
    seeds: &["fuzz/seeds/terminal/"],
    words: &[
        "\u{1b}[31m",
        "\u{1b}]0;",
        "\u{7}",
        "\u{9b}2J",
        "\u{202e}",
        "\u{2028}",
        "\u{200d}",
        "\u{feff}",
        "\u{301}",
        "\u{1f468}",
        "\u{fe0f}",
        "\u{e0041}",
        "\u{ad}",
        "\u{115f}",
        "\r\n",
        "\t",
        "\u{90}",
    ],
    run: |input| {
        let mut input = Input(input);
        let width = usize::from(input.byte() % 100);
        muster_cli::fuzzing::terminal(&input.rest_text(), width);
    },
};

/// Host names in ranges.
pub(crate) const FOLD: Target = Target {
    name: "fold",
    bytes_max: 512,
    seeds: &["fuzz/seeds/fold/"],
    words: &["[1-4]", "[001-104,7]", ",", "18446744073709551615", "-", "[0-", "]"],
    run: |input| muster_cli::fuzzing::fold_names(&String::from_utf8_lossy(input)),
};

/// The command line's configuration: the file, then pieces `NAME=VALUE` as variables.
pub(crate) const CONTEXT: Target = Target {
    name: "context",
    bytes_max: 2048,
    seeds: &["fuzz/seeds/context/"],
    words: &[
        "current = ",
        "[context.",
        "broker = [\"amqps://",
        "confirm_above = ",
        "production = true",
        "\"\"\"\n",
        "'''",
        "MUSTER_BROKER=",
    ],
    run: |input| {
        let mut input = Input(input);
        let file = scratch::file("config.toml", input.piece());
        let variables = input
            .texts()
            .into_iter()
            .filter_map(|text| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
        let variables: BTreeMap<String, String> = variables.filter(|(name, _)| name != "MUSTER_CONTEXT").collect();
        let _ = muster_cli::fuzzing::context(&file, &variables);
    },
};

/// What is typed or stands in small files: a letter for the form, then the text.
pub(crate) const TYPED: Target = Target {
    name: "typed",
    bytes_max: 2048,
    seeds: &["fuzz/seeds/typed/"],
    words: &["amqps://", "amqp://", ":5671", "/%2f", "[::1]", "@", "?x=1", "#", "%", "ms", "min"],
    run: typed,
};

fn typed(input: &[u8]) {
    let mut input = Input(input);
    match input.byte() {
        b'u' => {
            let text = input.rest_text();
            match text.parse::<BrokerUrl>() {
                Ok(url) => {
                    assert!(!url.host().is_empty() && url.port() > 0);
                    assert_eq!(url.to_string().parse::<BrokerUrl>().as_ref(), Ok(&url), "{text}");
                }
                Err(error) => {
                    let user = text.rsplit_once('@').map(|(before, _)| before.rsplit("://").next().unwrap_or(before));
                    if let Some(user) = user.filter(|user| user.len() > 3) {
                        assert!(!error.to_string().contains(&format!("{user}@")), "an address may hold a password");
                    }
                }
            }
        }
        b'd' => {
            if let Some(length) = muster_cli::fuzzing::duration(&input.rest_text()) {
                assert!((1..=24 * 60 * 60 * 1000).contains(&length));
            }
        }
        b'q' => {
            let file = scratch::file("requests.jsonl", input.rest());
            let _ = muster_cli::fuzzing::requests(&file);
        }
        b'a' => drop(input.rest_text().parse::<muster_agent::audit::Anchor>()),
        _ => {}
    }
}

/// A broker's exported definitions, compared with ours.
pub(crate) const DEFINITIONS: Target = Target {
    name: "definitions",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/definitions/"],
    words: &[
        "\"vhosts\":[{\"name\":\"",
        "\"users\":[",
        "\"permissions\":[",
        "\"configure\":\"",
        "\"topic_permissions\":[",
        "\".*\"",
        "^(a|b)$",
    ],
    run: broker_definitions,
};

fn broker_definitions(input: &[u8]) {
    let Ok(actual) = Definitions::parse(&String::from_utf8_lossy(input)) else { return };
    let identities = ["user/lea", "host/web1.example.com", "service/cron"].iter().filter_map(|name| name.parse().ok());
    let expected = definitions(&Site::new(identities));
    assert!(check(&expected, &expected).is_empty(), "ours has nothing wrong");
    for finding in check(&actual, &expected) {
        assert!(!finding.what.is_empty() && !finding.remedy.is_empty());
    }
    if let Ok(again) = Definitions::parse(&actual.to_json()) {
        assert_eq!(check(&again, &expected).len(), check(&actual, &expected).len());
    }
}
