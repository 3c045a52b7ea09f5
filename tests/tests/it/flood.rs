//! A host that is flooded: its memory stays bounded, and what it cannot keep is told.

use std::fs;
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_bus::{AmqpBus, AmqpSettings, Bus as _, Guarantee, Link, Outgoing};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Credentials;
use muster_protocol::routing::{EXCHANGE_COMMAND, host_key};
use muster_protocol::{
    Command, Options, PayloadType, ProtocolVersion, ReplyRoute, RequestId, Target, Timestamp, encode,
};
use muster_tests::programs::{AgentProcess, PATIENCE, program};
use muster_tests::stage::{Stage, host};
use serde_json::{Map, Value, json};

use super::BROKER;

/// Commands that are sent.
const COMMANDS: u64 = 1_500;

/// Bytes of the argument that two of three bring. All of them together are 300 MB.
const ARGUMENT_BYTES: usize = 300_000;

/// Commands that may be under way: the broker keeps a thousand for a host.
const AHEAD_MAX: u64 = 300;

/// How often the agent is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Memory that an agent may hold, in bytes. It is some 30 MB before; kept, the commands alone would be 300 MB.
const RESIDENT_BYTES_MAX: u64 = 150_000_000;

fn resident_bytes(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

fn status(agent: &AgentProcess) -> Value {
    let output = Process::new(program("musterd").unwrap())
        .args(["status", "--json", "--config"])
        .arg(agent.folder().join("musterd.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A command that every host refuses or answers, with an argument that nobody wants; its reader does not exist.
fn command(caller: &Credentials, number: u64) -> Command {
    let now = Timestamp(SystemClock.now_ms());
    let mut arguments = Map::new();
    // Every third one is fine.
    if !number.is_multiple_of(3) {
        arguments.insert("nonsense".to_owned(), json!("x".repeat(ARGUMENT_BYTES)));
    }
    Command {
        protocol: ProtocolVersion::V1,
        id: RequestId::from_parts(now, rand::random()),
        caller: caller.identity().clone(),
        created_at_ms: now,
        expires_at_ms: now.plus_ms(600_000),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        plugin: "host".parse().unwrap(),
        action: "ping".parse().unwrap(),
        arguments,
        sealed: None,
        options: Options { progress: true, ..Options::default() },
        reply_to: ReplyRoute::new(caller.identity().clone(), "nobody".parse().unwrap()).unwrap(),
        requires: Vec::new(),
    }
}

async fn send(link: &Arc<dyn Link>, caller: &Credentials, agent: &AgentProcess, number: u64) {
    let body = encode(&command(caller, number)).unwrap();
    let content_type = PayloadType::Command.as_str();
    let message = Outgoing {
        exchange: EXCHANGE_COMMAND,
        routing_key: host_key(agent.host()),
        content_type: content_type.to_owned(),
        signatures: serde_json::to_vec(&[caller.sign(content_type, &body)]).unwrap().into(),
        body: body.into(),
        expiration_ms: None,
        persistent: false,
        mandatory: true,
        correlation_id: None,
    };
    link.publish(message, Guarantee::Confirmed).await.unwrap();
}

/// Waits until the agent has taken so many messages, and gives the most memory that it was seen with.
async fn wait_until_taken(agent: &AgentProcess, enough: u64) -> u64 {
    let (mut most, mut last) = (0, (0, Instant::now()));
    loop {
        most = most.max(resident_bytes(agent.pid()));
        let received = status(agent)["counters"]["messages_received"].as_u64().unwrap();
        if received >= enough {
            return most;
        }
        if received > last.0 {
            last = (received, Instant::now());
        }
        assert!(last.1.elapsed() < PATIENCE, "{received} of {enough} were taken");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_host_keeps_within_its_memory_and_tells_what_it_gave_up() {
    let stage = tokio::task::spawn_blocking(|| Stage::new(BROKER, &["host/flood-1.ams1", "user/lea"])).await.unwrap();
    let agents = tokio::task::block_in_place(|| stage.agents([host("flood-1.ams1")]));
    let agent = &agents[0];
    let lea = stage.site().member_in("user/lea", &["admins"]).credentials;
    let urls = stage.bus.urls.iter().map(|url| url.parse().unwrap()).collect();
    let link = AmqpBus::new(AmqpSettings::new(urls, lea.clone(), stage.site().trust())).connect().await.unwrap();

    let mut most = 0;
    for number in 1..=COMMANDS {
        send(&link, &lea, agent, number - 1).await;
        if number == COMMANDS {
            most = most.max(wait_until_taken(agent, COMMANDS).await);
        } else if number.is_multiple_of(100) {
            most = most.max(wait_until_taken(agent, number.saturating_sub(AHEAD_MAX)).await);
        }
    }
    most = most.max(resident_bytes(agent.pid()));
    let status = status(agent);
    assert!(most < RESIDENT_BYTES_MAX, "{most} bytes\n{status:#}");
    // Nobody reads the answers, so each of them waits in a spool that is full after a thousand, or was given up. Not one
    // is missing.
    let number =
        |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{status:#}"));
    let (waiting, given_up) = (number("/queues/spool/count"), number("/counters/reports_given_up"));
    assert!(waiting <= number("/queues/spool/count_max"), "{status:#}");
    let told = waiting + given_up + number("/counters/reports_sent") + number("/requests_count");
    assert!(told >= COMMANDS, "{told} answers of {COMMANDS} are accounted for\n{status:#}");
    assert_eq!(number("/refused/unknown-argument"), COMMANDS - COMMANDS / 3, "{status:#}");
    link.close().await;
}
