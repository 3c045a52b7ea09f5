//! What somebody sends who has a certificate and a plain AMQP client: tampered, truncated, oversized, expired,
//! future-dated, replayed, re-routed, unsigned and wrongly signed commands. None of them may do anything; each
//! is audited with its code; answered are those whose sender is known.
//!
//! Every attack asks for `host.facts`, which nothing else in these tests does, so one line in the audit log
//! that allows it would be a break-in.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::Credentials;
use muster_protocol::limits::BODY_BYTES_MAX;
use muster_protocol::{
    Command, HostName, Identity, Options, Outcome, PayloadType, ProgressReport, ProtocolVersion, ReplyRoute, RequestId,
    Target, Timestamp, decode, encode, routing,
};
use muster_tests::pki::Site;
use muster_tests::stage::{Stage, host};
use serde_json::Map;

use super::BROKER;
use crate::amqp::{connect, publish};

const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    Timestamp(SystemClock.now_ms())
}

fn route(caller: &Identity) -> ReplyRoute {
    ReplyRoute::new(caller.clone(), "wire".parse().unwrap()).unwrap()
}

fn command(caller: &Identity, action: &str) -> Command {
    let created = now();
    Command {
        protocol: ProtocolVersion::V1,
        id: RequestId::from_parts(created, rand::random()),
        caller: caller.clone(),
        created_at_ms: created,
        expires_at_ms: created.plus_ms(30_000),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        plugin: "host".parse().unwrap(),
        action: action.parse().unwrap(),
        arguments: Map::new(),
        sealed: None,
        options: Options { progress: false, ..Options::default() },
        reply_to: route(caller),
        requires: Vec::new(),
    }
}

/// One message as it goes on the wire.
struct Shot {
    name: &'static str,
    content_type: String,
    body: Vec<u8>,
    signatures: Option<String>,
    /// The code in the audit log.
    code: &'static str,
    /// The request that has to be answered with this code, where the sender is known.
    answered: Option<RequestId>,
}

fn signed_as(payload_type: &str, body: &[u8], signer: &Credentials) -> Option<String> {
    Some(serde_json::to_string(&[signer.sign(payload_type, body)]).unwrap())
}

/// A shot that is signed as it should be; the fields of the command are what is wrong with it.
fn honest(name: &'static str, code: &'static str, answered: bool, command: &Command, signer: &Credentials) -> Shot {
    let body = serde_json::to_vec(command).unwrap();
    let content_type = PayloadType::Command.as_str().to_owned();
    let signatures = signed_as(&content_type, &body, signer);
    Shot { name, content_type, body, signatures, code, answered: answered.then_some(command.id) }
}

fn shots(lea: &Credentials, web: &Credentials) -> Vec<Shot> {
    let caller = lea.identity().clone();
    let facts = || command(&caller, "facts");
    let base = |name, code| honest(name, code, false, &facts(), lea);
    let kind = PayloadType::Command.as_str();
    let mut shots = Vec::new();

    shots.push(Shot { signatures: None, ..base("without a signature", "unsigned") });
    shots.push(Shot { signatures: Some("[]".into()), ..base("with an empty list of signatures", "unsigned") });
    shots.push(Shot { signatures: Some("{\"no\":".into()), ..base("with a header that is no JSON", "bad-envelope") });
    let mut tampered = base("tampered", "bad-signature");
    let text = String::from_utf8(tampered.body.clone()).unwrap().replace("\"noop\":false", "\"noop\":true ");
    tampered.body = text.into_bytes();
    shots.push(tampered);
    let mut truncated = base("truncated", "bad-signature");
    truncated.body.truncate(truncated.body.len() / 2);
    shots.push(truncated);
    let whole = facts();
    let body = serde_json::to_vec(&whole).unwrap();
    let half = body[..body.len() / 2].to_vec();
    let signatures = signed_as(kind, &half, lea);
    shots.push(Shot { body: half, signatures, ..base("truncated before it was signed", "malformed") });
    let mut big = serde_json::to_vec(&facts()).unwrap();
    big.resize(BODY_BYTES_MAX + 1, b' ');
    let signatures = signed_as(kind, &big, lea);
    shots.push(Shot { body: big, signatures, ..base("oversized", "too-large") });
    let deep = format!("{{\"protocol\":\"muster/1\",\"x\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000)).into_bytes();
    let signatures = signed_as(kind, &deep, lea);
    shots.push(Shot { body: deep, signatures, ..base("deeply nested", "too-deep") });
    shots.push(Shot { content_type: "application/json".into(), ..base("of an unknown type", "unknown-type") });
    let report = PayloadType::Report.as_str();
    let mut retyped = base("a command signed as a report", "bad-signature");
    retyped.signatures = signed_as(report, &retyped.body, lea);
    shots.push(retyped);

    let mut other = Site::new().unwrap().member("user/lea").credentials;
    shots.push(honest("signed under another CA", "untrusted-certificate", false, &facts(), &other));
    other = BROKER.site().authority().expired("user/lea").unwrap();
    shots.push(honest("signed with an expired certificate", "expired-certificate", true, &facts(), &other));
    shots.push(honest("in the name of a user, signed by a host", "wrong-identity", false, &facts(), web));
    let max = BROKER.site().member("user/max").credentials;
    shots.push(honest("in the name of another user", "wrong-identity", false, &facts(), &max));
    let mut both = base("signed rightly and, besides, wrongly", "bad-signature");
    let other_body = serde_json::to_vec(&facts()).unwrap();
    both.signatures = Some(serde_json::to_string(&[lea.sign(kind, &both.body), max.sign(kind, &other_body)]).unwrap());
    shots.push(both);

    let rerouted = Command { reply_to: route(max.identity()), ..facts() };
    shots.push(honest("with its answers led to somebody else", "malformed", false, &rerouted, lea));
    let old = Command { created_at_ms: now().plus_ms(-90_000), expires_at_ms: now().plus_ms(-60_000), ..facts() };
    shots.push(honest("expired", "expired", true, &old, lea));
    let early = Command { created_at_ms: now().plus_ms(600_000), expires_at_ms: now().plus_ms(630_000), ..facts() };
    shots.push(honest("from the future", "from-the-future", true, &early, lea));
    let long = Command { expires_at_ms: now().plus_ms(20 * 60 * 60 * 1000), ..facts() };
    shots.push(honest("with too long a life", "window-too-long", true, &long, lea));
    let novel = Command { requires: vec!["teleport".into()], ..facts() };
    shots.push(honest("that needs what we do not have", "unsupported-feature", true, &novel, lea));
    let filter = Command { target: Target::matching("role = = web"), ..facts() };
    shots.push(honest("with a target that does not parse", "bad-target", true, &filter, lea));
    let newer = Command { protocol: ProtocolVersion::Unknown("muster/2".into()), ..facts() };
    shots.push(honest("in another version", "unsupported-version", false, &newer, lea));
    let nobody = Command { target: Target::default(), ..facts() };
    shots.push(honest("for nobody", "malformed", false, &nobody, lea));
    shots
}

struct Desk {
    _connection: Connection,
    channel: Channel,
    answers: lapin::Consumer,
}

impl Desk {
    async fn open(stage: &Stage, who: &str) -> Self {
        let member = stage.site().member(who);
        let connection = connect(&stage.bus.urls[0], &member, &stage.site().trust()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let route = route(member.credentials.identity());
        let queue = routing::reply_queue(&route);
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
        let binding = routing::reply_binding(&route);
        let bind = QueueBindOptions::default();
        let exchange = routing::EXCHANGE_REPLY;
        channel
            .queue_bind(queue.as_str().into(), exchange.into(), binding.as_str().into(), bind, FieldTable::default())
            .await
            .unwrap();
        let consume = BasicConsumeOptions::default();
        let answers =
            channel.basic_consume(queue.as_str().into(), "desk".into(), consume, FieldTable::default()).await.unwrap();
        Self { _connection: connection, channel, answers }
    }

    async fn send(&self, shot: &Shot, key: &str) {
        let mut headers = FieldTable::default();
        if let Some(signatures) = &shot.signatures {
            headers.insert("muster-signatures".into(), AMQPValue::LongString(signatures.as_str().into()));
        }
        let properties =
            BasicProperties::default().with_content_type(shot.content_type.as_str().into()).with_headers(headers);
        publish(&self.channel, routing::EXCHANGE_COMMAND, key, properties, &shot.body)
            .await
            .unwrap_or_else(|error| panic!("send the one {}: {error}", shot.name));
    }

    /// Reads answers until the one to `last` is there; gives each request's codes.
    async fn answers_until(&mut self, last: RequestId) -> BTreeMap<RequestId, Vec<String>> {
        let mut codes: BTreeMap<RequestId, Vec<String>> = BTreeMap::new();
        loop {
            let delivery = tokio::time::timeout(PATIENCE, self.answers.next()).await;
            let delivery =
                delivery.unwrap_or_else(|_| panic!("no answer to the last; so far {codes:?}")).unwrap().unwrap();
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            let report: ProgressReport = decode(&delivery.data).unwrap();
            if let Some(result) = report.result {
                codes.entry(report.request_id).or_default().push(result.code);
            }
            if report.request_id == last {
                return codes;
            }
        }
    }
}

#[tokio::test]
async fn nothing_that_is_wrong_on_the_wire_does_anything() {
    let stage = Stage::new(BROKER, &["host/web-1.ams1", "user/lea", "user/max"]);
    let mut settings = host("web-1.ams1");
    settings.policy = "[[rule]]\nname = \"everything\"\neffect = \"allow\"\nwhen = 'has(caller)'\n".to_owned();
    let agents = stage.agents([settings]);
    let lea = stage.site().member("user/lea").credentials;
    let web = stage.site().member("host/web-1.ams1").credentials;
    let mut desk = Desk::open(&stage, "user/lea").await;

    let shots = shots(&lea, &web);
    for shot in &shots {
        desk.send(shot, "collective.main").await;
    }
    // A good one, then the same bytes again: the second copy is a replay. And to another host's key.
    let good = command(lea.identity(), "ping");
    let once = honest("good", "ok", true, &good, &lea);
    desk.send(&once, "collective.main").await;
    desk.send(&once, "host.web-1.ams1").await;
    let elsewhere = Command {
        target: Target::named(["web-2.ams1".parse::<HostName>().unwrap()]),
        ..command(lea.identity(), "facts")
    };
    desk.send(&honest("aimed at another host, routed to this one", "", false, &elsewhere, &lea), "host.web-1.ams1")
        .await;
    let last = command(lea.identity(), "ping");
    desk.send(&honest("last", "ok", true, &last, &lea), "collective.main").await;

    let codes = desk.answers_until(last.id).await;
    let audit = agents[0].audit();
    for shot in &shots {
        assert!(
            audit.contains(&format!("\"{}\"", shot.code)),
            "the one {} is not audited as {}:\n{audit}",
            shot.name,
            shot.code
        );
        if let Some(id) = shot.answered {
            assert_eq!(codes.get(&id), Some(&vec![shot.code.to_owned()]), "the one {}", shot.name);
        }
    }
    let answered: Vec<RequestId> = shots.iter().filter_map(|shot| shot.answered).chain([good.id, last.id]).collect();
    assert!(codes.keys().all(|id| answered.contains(id)), "somebody got an answer who should not: {codes:?}");
    let mut twice = codes[&good.id].clone();
    twice.sort();
    assert_eq!(twice, ["ok", "replayed"]);
    let broken_in: Vec<&str> =
        audit.lines().filter(|line| line.contains("host.facts") && line.contains("\"allow")).collect();
    assert!(broken_in.is_empty(), "{broken_in:#?}");
    assert!(agents[0].log().to_lowercase().find("panicked").is_none(), "{}", agents[0].log());
}

#[tokio::test]
async fn a_host_that_answers_for_another_is_not_believed_even_if_the_broker_lets_it() {
    // The broker is on the rogue's side: it may write whatever it likes.
    let bus = BROKER.hostile(["host/web-1.ams1", "host/rogue.ams1", "user/lea"], "host/rogue.ams1");
    let stage = Stage::on(bus);
    let rogue = stage.site().member("host/rogue.ams1");
    let connection = connect(&stage.bus.urls[0], &rogue, &stage.site().trust()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    // It listens in on commands to the host it wants to be.
    let declare = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("agent.web-1.ams1".into(), declare, FieldTable::default()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel
        .queue_bind("agent.web-1.ams1".into(), "cmd".into(), "host.web-1.ams1".into(), bind, FieldTable::default())
        .await
        .unwrap();
    let consume = BasicConsumeOptions::default();
    let mut commands =
        channel.basic_consume("agent.web-1.ams1".into(), "rogue".into(), consume, FieldTable::default()).await.unwrap();

    let lea = stage.operator("lea", &["admins"]);
    let waiting = lea
        .command(&["run", "host.ping", "-H", "web-1.ams1", "--reply-timeout", "3s", "--jsonl"])
        .unwrap()
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let delivery = tokio::time::timeout(PATIENCE, commands.next()).await.unwrap().unwrap().unwrap();
    let command: Command = decode(&delivery.data).unwrap();
    let lie = ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: command.id,
        caller: command.caller.clone(),
        host: "web-1.ams1".parse().unwrap(),
        sequence: 0,
        created_at_ms: now(),
        state: muster_protocol::ReportState::Finished,
        output: Vec::new(),
        result: Some(muster_protocol::ActionResult {
            outcome: Outcome::Succeeded,
            code: "ok".into(),
            message: "all is well".into(),
            exit_code: None,
            data: serde_json::Value::Null,
            truncated_from_bytes: None,
            duration_ms: 1,
        }),
    };
    let body = encode(&lie).unwrap();
    let kind = PayloadType::Report.as_str();
    let signatures = signed_as(kind, &body, &rogue.credentials).unwrap();
    let mut headers = FieldTable::default();
    headers.insert("muster-signatures".into(), AMQPValue::LongString(signatures.as_str().into()));
    let properties = BasicProperties::default().with_content_type(kind.into()).with_headers(headers);
    let key = routing::reply_key(&command.reply_to, &lie.host);
    publish(&channel, routing::EXCHANGE_REPLY, &key, properties, &body).await.unwrap();

    let output = tokio::task::spawn_blocking(move || waiting.wait_with_output()).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(5), "silence, not success:\n{stdout}{stderr}");
    assert!(stdout.contains("no_reply") && !stdout.contains("all is well"), "{stdout}{stderr}");
    assert!(stderr.contains("rogue.ams1"), "the liar is named:\n{stdout}{stderr}");
}
