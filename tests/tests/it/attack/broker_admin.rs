//! Whoever administers the broker sees every message and may hold it back, send it again, anywhere, with any
//! properties. He can make nothing run that nobody asked for, nothing twice, and nobody believe what is not so.

use lapin::Consumer;
use muster_protocol::{Command, HostName, PayloadType, ProgressReport, Target, decode, routing};
use muster_tests::programs::AgentProcess;
use muster_tests::stage::{Stage, host};

use super::BROKER;
use super::rogue::{Rogue, Wire, command, next, now};

const EVERYTHING: &str = "[[rule]]\nname = \"everything\"\neffect = \"allow\"\nwhen = 'has(caller)'\n";

/// The code of the next answer, which has to be of this host and to this command.
async fn code(answers: &mut Consumer, host: &HostName, command: &Command) -> String {
    let report: ProgressReport = decode(&next(answers).await.data).unwrap();
    assert_eq!((&report.host, report.request_id), (host, command.id));
    report.result.expect("it is the last report").code
}

/// Waits until a command is too old to be obeyed.
async fn wait_until_expired(command: &Command) {
    while now() <= command.expires_at_ms {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn allowed(agent: &AgentProcess) -> usize {
    let is = |line: &str, word: &str| line.contains(&format!("\"{word}\""));
    agent.audit().lines().filter(|line| is(line, "allowed") && is(line, "host.ping")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_controls_the_broker_makes_nothing_run_twice_or_elsewhere() {
    let stage =
        Stage::on(BROKER.hostile(
            ["host/web-1.ams1", "host/web-2.ams1", "host/admin.ams1", "user/lea", "user/max"],
            "host/admin.ams1",
        ));
    let settings = ["web-1.ams1", "web-2.ams1"].map(|name| {
        let mut settings = host(name);
        settings.policy = EVERYTHING.to_owned();
        settings
    });
    let mut agents = stage.agents(settings);
    let admin = Rogue::open(&stage, "host/admin.ams1").await;
    let mut answers =
        admin.listen("overheard", routing::EXCHANGE_REPLY, &["user/lea.#", "user/max.#", "user/eve.#"]).await;
    let (lea, max) = (stage.site().member("user/lea").credentials, stage.site().member("user/max").credentials);
    let web: HostName = "web-1.ams1".parse().unwrap();
    let key = "host.web-1.ams1";

    // What lea and max have sent, for one host. It goes through, once.
    let made = |signer, life_ms| {
        let command = Command { target: Target::named([web.clone()]), ..command(signer, "ping", life_ms) };
        (Wire::signed(&command, &[signer]), command)
    };
    let (hers, of_lea) = made(&lea, 2_000);
    let (his, of_max) = made(&max, 60_000);
    admin.command(key, &hers).await;
    assert_eq!(code(&mut answers, &web, &of_lea).await, "ok");
    admin.command(key, &his).await;
    assert_eq!(code(&mut answers, &web, &of_max).await, "ok");

    // Again; to everybody, to another host, which keeps silent; both at once.
    for key in [key, "all", "collective.main", "host.web-2.ams1"] {
        admin.command(key, &hers).await;
        if key != "host.web-2.ams1" {
            assert_eq!(code(&mut answers, &web, &of_lea).await, "replayed", "by {key}");
        }
    }
    // With the signatures of another message, as another type, with one more signature.
    let both = serde_json::to_string(&[
        serde_json::from_str::<Vec<serde_json::Value>>(&hers.signatures).unwrap()[0].clone(),
        serde_json::from_str::<Vec<serde_json::Value>>(&his.signatures).unwrap()[0].clone(),
    ]);
    let mut forged = vec![
        Wire { signatures: his.signatures.clone(), ..hers.clone() },
        Wire { signatures: both.unwrap(), ..hers.clone() },
        Wire { body: [hers.body.as_slice(), b" "].concat(), ..hers.clone() },
    ];
    for kind in PayloadType::ALL.iter().filter(|kind| **kind != PayloadType::Command) {
        forged.push(Wire { content_type: kind.as_str().to_owned(), ..hers.clone() });
    }
    for wire in &forged {
        admin.command(key, wire).await;
    }
    // The host's own answer, sent to it as if it were a command.
    admin.command(key, &his).await;
    let delivery = next(&mut answers).await;
    admin.command(key, &Wire::overheard(&delivery)).await;

    // A copy that was held back until its time was over is not answered as if nothing had run: also not by an agent
    // that was killed meanwhile.
    wait_until_expired(&of_lea).await;
    admin.command(key, &hers).await;
    assert_eq!(code(&mut answers, &web, &of_lea).await, "replayed", "late");
    agents[0].kill().unwrap();
    let folder = agents[0].folder().to_owned();
    agents[0] = AgentProcess::start_in(web.clone(), &folder).unwrap();
    agents[0].wait_ready().unwrap();
    admin.command(key, &hers).await;
    assert_eq!(code(&mut answers, &web, &of_lea).await, "replayed", "late, to an agent that was killed");
    admin.command(key, &his).await;
    assert_eq!(code(&mut answers, &web, &of_max).await, "replayed");

    assert_eq!((allowed(&agents[0]), allowed(&agents[1])), (2, 0), "{}", agents[0].audit());
    let log = agents[0].log();
    assert!(!log.contains("panicked"), "{log}");
}

/// What is announced, answered or stopped by messages that are true and old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_revocation_list_takes_nothing_back() {
    let stage =
        Stage::on(BROKER.hostile(["host/web-1.ams1", "host/admin.ams1", "user/lea", "user/eve"], "host/admin.ams1"));
    // A site of its own: what is revoked here must not be revoked for the tests beside.
    let site = stage.site();
    let admin = Rogue::open(&stage, "host/admin.ams1").await;
    let mut answers =
        admin.listen("overheard", routing::EXCHANGE_REPLY, &["user/lea.#", "user/max.#", "user/eve.#"]).await;
    let old = site.authority().crl_pem().unwrap();
    let eve = site.authority().revoked("user/eve").unwrap();
    let new = site.authority().crl_pem().unwrap();
    assert_ne!(old, new);

    let mut settings = host("web-1.ams1");
    settings.policy = EVERYTHING.to_owned();
    let mut agents = stage.agents([settings]);
    let web: HostName = "web-1.ams1".parse().unwrap();
    let list = |text: &str| Wire {
        content_type: muster_protocol::envelope::CONTENT_TYPE_CRL.into(),
        body: text.as_bytes().to_vec(),
        signatures: "[]".into(),
    };
    let ask = async |answers: &mut Consumer, why: &str| {
        let command = command(&eve, "ping", 60_000);
        admin.command("host.web-1.ams1", &Wire::signed(&command, &[&eve])).await;
        assert_eq!(code(answers, &web, &command).await, "revoked-certificate", "{why}");
    };
    admin.command("all", &list(&new)).await;
    ask(&mut answers, "by the new list").await;
    admin.command("all", &list(&old)).await;
    ask(&mut answers, "an older list came").await;
    agents[0].kill().unwrap();
    let folder = agents[0].folder().to_owned();
    agents[0] = AgentProcess::start_in(web.clone(), &folder).unwrap();
    agents[0].wait_ready().unwrap();
    admin.command("all", &list(&old)).await;
    ask(&mut answers, "an older list came after a restart").await;
    assert_eq!(allowed(&agents[0]), 0);
}
