//! Somebody has the certificate of a host, and a broker that lets him do everything.

use std::process::Stdio;

use muster_protocol::envelope::CONTENT_TYPE_CRL;
use muster_protocol::{Command, HostName, PayloadType, ProgressReport, Target, decode, routing};
use muster_tests::pki::Site;
use muster_tests::stage::{Stage, host};
use nix::sys::signal::Signal;
use serde_json::json;

use super::BROKER;
use super::rogue::{Rogue, Wire, command, finished, next, next_command};

const EVERYTHING: &str = "[[rule]]\nname = \"everything\"\neffect = \"allow\"\nwhen = 'has(caller)'\n";

/// What a thief sends to another host's agent, and the code that the agent writes down.
fn shots(thief: &Rogue, captured: &Wire, stage: &Stage) -> Vec<(&'static str, Wire, &'static str)> {
    let (rogue, lea) = (thief.credentials(), stage.site().member("user/lea").credentials);
    let kind = PayloadType::Command.as_str();
    let mut own = command(&lea, "facts", 30_000);
    own.caller = rogue.identity().clone();
    let hers = command(&lea, "facts", 30_000);
    let theirs: Vec<serde_json::Value> = serde_json::from_str(&captured.signatures).unwrap();
    let seen: Command = decode(&captured.body).unwrap();
    let approved = vec![theirs[0].clone(), serde_json::to_value(rogue.sign(kind, &captured.body)).unwrap()];
    let mut chained = serde_json::to_value(rogue.sign(kind, &captured.body)).unwrap();
    chained["chain"] = theirs[0]["chain"].clone();
    let with = |signatures: &[serde_json::Value]| serde_json::to_string(signatures).unwrap();
    let wider = Command { target: Target::everyone(), action: "facts".parse().unwrap(), ..seen.clone() };
    let report = finished(&seen, &"web-1.ams1".parse().unwrap(), 0, "", json!(null));
    vec![
        ("a command in its own name", Wire::signed(&own, &[rogue]), "wrong-identity"),
        ("a command in a user's name", Wire::signed(&hers, &[rogue]), "wrong-identity"),
        (
            "a user's command that it claims to approve",
            Wire { signatures: with(&approved), ..captured.clone() },
            "wrong-identity",
        ),
        (
            "a user's certificate over its own signature",
            Wire { signatures: with(&[chained]), ..captured.clone() },
            "bad-signature",
        ),
        (
            "another command under a signature that it overheard",
            Wire { body: serde_json::to_vec(&wider).unwrap(), ..captured.clone() },
            "bad-signature",
        ),
        (
            "a user's command as a cancellation",
            Wire { content_type: PayloadType::Cancel.as_str().into(), ..captured.clone() },
            "bad-signature",
        ),
        ("a report, as if an agent obeyed it", Wire::signed(&report, &[rogue]), "unknown-type"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_host_certificate_gives_nothing_but_that_host_even_with_an_open_broker() {
    let stage = Stage::on(BROKER.hostile(["host/web-1.ams1", "host/rogue.ams1", "user/lea"], "host/rogue.ams1"));
    let mut settings = host("web-1.ams1");
    settings.policy = EVERYTHING.to_owned();
    let agents = stage.agents([settings]);
    let thief = Rogue::open(&stage, "host/rogue.ams1").await;
    let web: HostName = "web-1.ams1".parse().unwrap();
    let itself: HostName = "rogue.ams1".parse().unwrap();
    let mut commands = thief.listen("agent.rogue.ams1", routing::EXCHANGE_COMMAND, &["#"]).await;
    let mut answers =
        thief.listen("overheard", routing::EXCHANGE_REPLY, &["user/lea.#", "user/max.#", "user/eve.#"]).await;

    // A command goes by, and its true answer.
    let lea = stage.operator("lea", &[]);
    lea.run(&["run", "host.ping", "-H", "web-1.ams1", "--jsonl"]).unwrap().expect(0);
    let (_, delivery) = next_command(&mut commands).await;
    let captured = Wire::overheard(&delivery);
    let old_answer = Wire::overheard(&next(&mut answers).await);

    let shots = shots(&thief, &captured, &stage);
    for (_, wire, _) in &shots {
        thief.command("host.web-1.ams1", wire).await;
    }
    // Revocation lists: no list at all, and one of another authority that revokes the user.
    let other = Site::new().unwrap();
    let foreign = other.authority().crl_pem().unwrap();
    for body in [b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_vec(), foreign.into_bytes()] {
        let list = Wire { content_type: CONTENT_TYPE_CRL.into(), body, signatures: "[]".into() };
        thief.command("host.web-1.ams1", &list).await;
    }

    // Another command goes by. The thief is quicker than the host that was asked, and knows the request.
    let mut line = lea.command(&["run", "host.ping", "-H", "web-1.ams1", "--jsonl"]).unwrap();
    line.stdout(Stdio::piped()).stderr(Stdio::piped());
    agents[0].signal(Signal::SIGSTOP).unwrap();
    let waiting = line.spawn().unwrap();
    let asked = loop {
        let (command, _) = next_command(&mut commands).await;
        if command.id != decode::<Command>(&captured.body).unwrap().id && command.target.hosts.contains(&web) {
            break command;
        }
    };
    let lie = finished(&asked, &web, 0, "all is well", json!({ "lie": true }));
    thief.answer(&asked, &lie, thief.credentials()).await;
    let stranger = finished(&asked, &itself, 0, "all is well", json!({ "lie": true }));
    thief.answer(&asked, &stranger, thief.credentials()).await;
    let key = routing::reply_key(&asked.reply_to, &web);
    thief.send(routing::EXCHANGE_REPLY, &key, &old_answer).await;
    let body = serde_json::to_vec(&ProgressReport { request_id: asked.id, ..decode(&old_answer.body).unwrap() });
    thief.send(routing::EXCHANGE_REPLY, &key, &Wire { body: body.unwrap(), ..old_answer.clone() }).await;
    thief.send(routing::EXCHANGE_REPLY, &key, &captured).await;
    agents[0].signal(Signal::SIGCONT).unwrap();

    let output = tokio::task::spawn_blocking(move || waiting.wait_with_output()).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "the true answer counts:\n{stdout}{stderr}");
    assert!(!stdout.contains("all is well") && !stdout.contains("\"lie\""), "{stdout}{stderr}");
    assert!(stdout.contains("\"inventory_digest\""), "the host's own answer is there:\n{stdout}{stderr}");
    assert!(stderr.contains("rogue.ams1"), "the liar is named:\n{stdout}{stderr}");

    // Lea is no more revoked than before, and nothing but what she asked for was allowed.
    lea.run(&["run", "host.ping", "-H", "web-1.ams1"]).unwrap().expect(0);
    let audit = agents[0].audit();
    for (name, _, code) in &shots {
        assert!(audit.contains(&format!("\"{code}\"")), "{name} is not audited as {code}:\n{audit}");
    }
    let allowed: Vec<&str> = audit.lines().filter(|line| line.contains("\"decision\":\"allowed\"")).collect();
    assert_eq!(allowed.len(), 3, "{allowed:#?}");
    assert!(allowed.iter().all(|line| line.contains("host.ping")), "{allowed:#?}");
}
