//! Somebody who reads and writes on the broker, and has a certificate of his own that may do nothing.

use std::time::Duration;

use bytes::Bytes;
use muster_bus::Outgoing;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY, KEY_ALL, host_key, reply_key};
use muster_protocol::{Command, Message as _, PayloadType, ProgressReport, Target, decode, encode};
use serde_json::{Value, json};

use crate::options::FaultKind;
use crate::random::Random;
use crate::stage::Stage;
use crate::world::Paper;

/// Attacks until it is told to stop.
pub(crate) async fn attack(stage: Stage) {
    let mut random = Random::of(stage.options.seed, "attacker");
    if !stage.options.has(FaultKind::Attack) {
        return;
    }
    loop {
        tokio::time::sleep(random.pause(200, 6_000)).await;
        let Some(seen) = stage.network.capture(&mut random) else { continue };
        let (what, message) = match random.below(8) {
            0 | 1 => ("replay", Some(seen)),
            2 => ("replay to all", Some(Outgoing { routing_key: KEY_ALL.to_owned(), ..seen })),
            3 => (
                "widen",
                changed(&seen, |command| {
                    command["target"] = json!({ "all": true });
                }),
            ),
            4 => (
                "change",
                changed(&seen, |command| {
                    command["action"] = json!("change");
                }),
            ),
            5 => ("sign again", signed_by_eve(&stage, &seen, |_| {})),
            6 => ("own", {
                let eve = stage.site.eve.identity().clone();
                signed_by_eve(&stage, &seen, move |command| {
                    command.caller = eve.clone();
                    command.target = Target::everyone();
                    if let Some(route) = muster_protocol::ReplyRoute::new(eve, command.reply_to.session().clone()) {
                        command.reply_to = route;
                    }
                })
            }),
            _ => ("false report", false_report(&stage, &seen, &mut random)),
        };
        let Some(message) = message else { continue };
        let routing_key = if random.per_mille(300) && message.exchange == EXCHANGE_COMMAND {
            host_key(&stage.hosts[random.below(stage.hosts.len())].name)
        } else {
            message.routing_key.clone()
        };
        stage.tally.add(&format!("attack {what}"));
        stage.trace.note(format_args!("attack {what}: {} bytes", message.body.len()));
        stage.broker.inject(stage.site.eve.identity(), Outgoing { routing_key, ..message });
    }
}

/// The message with another body and the signature of before.
fn changed(seen: &Outgoing, change: impl FnOnce(&mut Value)) -> Option<Outgoing> {
    let mut body: Value = serde_json::from_slice(&seen.body).ok()?;
    change(&mut body);
    Some(Outgoing { body: serde_json::to_vec(&body).ok()?.into(), ..seen.clone() })
}

/// The command, changed and signed by somebody who may do nothing.
fn signed_by_eve(stage: &Stage, seen: &Outgoing, change: impl FnOnce(&mut Command)) -> Option<Outgoing> {
    let mut command: Command = decode(&seen.body).ok()?;
    change(&mut command);
    let body = encode(&command).ok()?;
    let signature = stage.site.eve.sign(Command::TYPE.as_str(), &body);
    if command.caller == *stage.site.eve.identity() {
        // It is a command in order; only the policy is against it.
        stage.world.publish(
            command.id,
            Paper {
                caller: command.caller.clone(),
                action: command.action.to_string(),
                arguments: command.arguments.clone(),
                hosts: stage.hosts.iter().map(|host| host.name.clone()).collect(),
                created: command.created_at_ms,
                expires: command.expires_at_ms,
            },
        );
    }
    Some(Outgoing {
        body: body.into(),
        signatures: serde_json::to_vec(&[signature]).ok()?.into(),
        content_type: Command::TYPE.as_str().to_owned(),
        ..seen.clone()
    })
}

/// A report of success that one host makes in the name of another.
fn false_report(stage: &Stage, seen: &Outgoing, random: &mut Random) -> Option<Outgoing> {
    let command: Command = decode(&seen.body).ok()?;
    let liar = &stage.hosts[random.below(stage.hosts.len())];
    let victim = &stage.hosts[random.below(stage.hosts.len())];
    if liar.name == victim.name {
        return None;
    }
    let report = json!({
        "protocol": command.protocol, "request_id": command.id, "caller": command.caller, "host": victim.name,
        "sequence": 1, "created_at_ms": liar.clock.now(), "state": "finished",
        "result": { "outcome": "succeeded", "code": "ok", "data": { "start": 99 }, "duration_ms": 1 }
    });
    let report: ProgressReport = serde_json::from_value(report).ok()?;
    let body = Bytes::from(encode(&report).ok()?);
    let content_type = PayloadType::Report.as_str();
    let signature = liar.credentials.sign(content_type, &body);
    Some(Outgoing {
        exchange: EXCHANGE_REPLY,
        routing_key: reply_key(&command.reply_to, &victim.name),
        content_type: content_type.to_owned(),
        body,
        signatures: serde_json::to_vec(&[signature]).ok()?.into(),
        expiration_ms: Some(u64::try_from(Duration::from_secs(60).as_millis()).unwrap_or(60_000)),
        persistent: false,
        mandatory: false,
        correlation_id: None,
    })
}
