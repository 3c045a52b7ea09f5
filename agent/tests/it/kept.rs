//! What an agent keeps for the next one, on a disk that fails and under a host that ends.

use std::error::Error as _;
use std::path::PathBuf;

use muster_bus::Outgoing;
use muster_daemon::SimulatedDisk;
use muster_daemon::disk::Fault;
use muster_pki::{Credentials, Trust};
use muster_protocol::envelope::CONTENT_TYPE_CRL;
use muster_protocol::routing::reply_queue;
use serde_json::json;

use crate::kit::{NOW, Setup, Stage, command, eventually, route, signed};

/// Longer than a report is kept.
const LONG_MS: i64 = 40 * 24 * 3_600 * 1_000;

fn file(stage: &Stage, name: &str) -> PathBuf {
    stage.state.path().join("state").join(name)
}

fn text(stage: &Stage, disk: &SimulatedDisk, name: &str) -> String {
    String::from_utf8_lossy(&disk.content(&file(stage, name)).unwrap_or_default()).into_owned()
}

fn on(disk: &SimulatedDisk) -> Setup {
    Setup { disk: Some(disk.clone()), ..Setup::default() }
}

#[tokio::test(start_paused = true)]
async fn that_a_report_is_given_up_is_known_after_the_host_ended_right_then() {
    for seed in 0..6 {
        let (stage, disk) = (Stage::new(), SimulatedDisk::new(seed));
        let agent = stage.start(on(&disk)).await;
        let controller = stage.controller(&stage.site.lea).await;
        stage.broker.delete_queue(&reply_queue(&route(&stage.site.lea)));
        let change = command(&stage.site.lea, "change", json!({ "name": "x" }));
        controller.send(&change, &stage.site.lea).await;
        let spool = file(&stage, "spool");
        eventually("a report that waits", || {
            let files = disk.files();
            if files.iter().any(|path| path.starts_with(&spool)) { Ok(()) } else { Err(format!("{files:?}")) }
        })
        .await;
        stage.clock.advance_ms(LONG_MS);
        let is_recorded = || {
            let audit = text(&stage, &disk, "audit.jsonl");
            if audit.contains("given_up") { Ok(()) } else { Err(audit) }
        };
        eventually("a report that is given up", is_recorded).await;
        disk.end_host(seed);
        assert_eq!(is_recorded(), Ok(()), "seed {seed}");
        // Nothing that it mounted works any more.
        agent.stop().await;
    }
}

/// A list that revokes `eve`, as it comes over the bus.
fn revoking(stage: &Stage, eve: &Credentials) -> Outgoing {
    stage.site.authority.revoke(eve).unwrap();
    Outgoing {
        content_type: CONTENT_TYPE_CRL.to_owned(),
        body: stage.site.authority.crl_pem().unwrap().into(),
        signatures: Vec::new().into(),
        ..signed(&command(eve, "read", json!({})), &[eve])
    }
}

/// A trust that nobody told of any revocation.
fn fresh(stage: &Stage) -> Trust {
    Trust::from_pem(&stage.site.authority.ca_pem()).unwrap()
}

/// What a trust says of something that `eve` signed.
fn is_revoked(trust: &Trust, eve: &Credentials) -> Result<(), String> {
    let signature = eve.sign("text/plain", b"x");
    match trust.verify("text/plain", b"x", &[signature], NOW) {
        Ok(_) => Err("she is still believed".to_owned()),
        Err(_) => Ok(()),
    }
}

/// An agent that was told that `eve` is revoked, and has ended since.
async fn stopped_after_a_revocation() -> (Stage, SimulatedDisk, Credentials) {
    let (mut stage, disk) = (Stage::new(), SimulatedDisk::new(1));
    stage.site.trust = fresh(&stage);
    let eve = stage.site.authority.credentials("user/eve").unwrap();
    let agent = stage.start(on(&disk)).await;
    stage.controller(&stage.site.lea).await.publish(revoking(&stage, &eve)).await;
    eventually("the list", || is_revoked(&stage.site.trust, &eve)).await;
    agent.stop().await;
    (stage, disk, eve)
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_read_who_is_revoked_does_not_start() {
    let (mut stage, disk, eve) = stopped_after_a_revocation().await;
    // Whatever fails once while the next one starts: it knows, or it is not there.
    let (mut started, mut refused) = (0, 0);
    for step in 1.. {
        disk.end_process();
        let fired = disk.faults_fired();
        disk.inject(disk.operations() + step, Fault::InputOutput);
        stage.site.trust = fresh(&stage);
        match stage.try_build(on(&disk)) {
            Ok(agent) => {
                assert_eq!(is_revoked(&stage.site.trust, &eve), Ok(()), "step {step}");
                drop(agent);
                started += 1;
            }
            Err(_) => refused += 1,
        }
        disk.clear_faults();
        if disk.faults_fired() == fired {
            break;
        }
    }
    assert!(started > 0 && refused > 0, "{started} started, {refused} did not");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_kept_revocation_list_is_damaged_does_not_start() {
    let (mut stage, disk, _) = stopped_after_a_revocation().await;
    let path = file(&stage, "crl.pem");
    for damage in ["garbage", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
        disk.end_process();
        disk.put(&path, damage.as_bytes()).unwrap();
        stage.site.trust = fresh(&stage);
        let error = stage.try_build(on(&disk)).unwrap_err();
        let why = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(error.to_string().contains("crl.pem"), "{error}");
        assert!(why.contains("put the authority's newest list at `pki.crl`"), "{error}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_revoked_stays_so_over_a_reload_and_is_written_down_as_soon_as_there_is_room() {
    let (mut stage, disk) = (Stage::new(), SimulatedDisk::new(1));
    stage.site.trust = fresh(&stage);
    let eve = stage.site.authority.credentials("user/eve").unwrap();
    let (first, second) = (stage.site.trust.clone(), fresh(&stage));
    let reloaded = muster_agent::Materials { trust: second.clone(), ..stage.materials(crate::kit::ALLOW_ALL) };
    let reload: muster_agent::ReloadMaterials = Box::new(move || Ok(reloaded.clone()));
    let agent = stage.start(Setup { reload: Some(reload), ..on(&disk) }).await;
    disk.inject_from(disk.operations() + 1, Fault::NoRoom);
    stage.controller(&stage.site.lea).await.publish(revoking(&stage, &eve)).await;
    eventually("the list", || is_revoked(&first, &eve)).await;
    assert_eq!(text(&stage, &disk, "crl.pem"), "", "there was room for it");
    agent.handle.reload().await;
    assert_eq!(is_revoked(&second, &eve), Ok(()));
    disk.clear_faults();
    eventually("the list on the disk", || {
        let text = text(&stage, &disk, "crl.pem");
        if text.contains("X509 CRL") { Ok(()) } else { Err(text) }
    })
    .await;
    agent.stop().await;
}

/// Why an agent does not start.
fn refusal(stage: &Stage, disk: &SimulatedDisk) -> Option<String> {
    disk.end_process();
    let error = stage.try_build(on(disk)).err()?;
    Some(format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default()))
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_kept_revocation_list_is_gone_does_not_start() {
    let (mut stage, disk, eve) = stopped_after_a_revocation().await;
    let (list, numbers) = (file(&stage, "crl.pem"), file(&stage, "crl-numbers.json"));
    let newest = disk.content(&list).unwrap();
    let check = |stage: &mut Stage, trust: Trust, expected: Option<&str>| {
        stage.site.trust = trust;
        let said = refusal(stage, &disk);
        match expected {
            None => assert_eq!(said, None),
            Some(words) => assert!(said.as_ref().is_some_and(|it| it.contains(words)), "{said:?}"),
        }
    };
    let nobody_told = fresh(&stage);
    check(&mut stage, nobody_told, None);
    disk.mount().remove_file(&list).unwrap();
    // Each time anew: that an agent did not start must not make the next one forget.
    for _ in 0..2 {
        let nobody_told = fresh(&stage);
        check(&mut stage, nobody_told, Some("there is none; it was in force here"));
    }
    // An older one is no better, wherever it comes from.
    let other = muster_pki::testing::TestAuthority::new(NOW).unwrap();
    let stranger = Trust::from_pem(&other.ca_pem()).unwrap();
    let ours = fresh(&stage);
    ours.install_crl(&newest, NOW).unwrap();
    check(&mut stage, ours.clone(), None);
    assert_eq!(is_revoked(&ours, &eve), Ok(()), "the newest at `pki.crl` is as good");
    disk.put(&numbers, numbers_of(&ours, 1).as_bytes()).unwrap();
    let nobody_told = fresh(&stage);
    check(&mut stage, nobody_told, Some("there is none"));
    let same = fresh(&stage);
    same.install_crl(&newest, NOW).unwrap();
    check(&mut stage, same, Some("there is only number"));
    // What another authority had in force does not matter to whoever does not trust it.
    disk.put(&numbers, numbers_of(&stranger, 9).as_bytes()).unwrap();
    let nobody_told = fresh(&stage);
    check(&mut stage, nobody_told, None);
    // Damage that hides what was in force: no list is no answer then.
    disk.put(&numbers, b"{\"").unwrap();
    let nobody_told = fresh(&stage);
    check(&mut stage, nobody_told, Some("it is damaged, and an authority has no revocation list"));
    let same = fresh(&stage);
    same.install_crl(&newest, NOW).unwrap();
    check(&mut stage, same, None);
    let nobody_told = fresh(&stage);
    check(&mut stage, nobody_told, Some("there is none"));
}

/// What an agent remembers that had a list in force which is so much newer.
fn numbers_of(trust: &Trust, newer: u64) -> String {
    let numbers = trust.crl_numbers().into_iter().map(|(name, number)| (name, number.unwrap_or_default() + newer));
    serde_json::to_string(&numbers.collect::<std::collections::BTreeMap<_, _>>()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_list_from_the_configuration_is_missed_as_well() {
    let (mut stage, disk) = (Stage::new(), SimulatedDisk::new(1));
    assert!(!stage.site.trust.crl_info().is_empty());
    stage.start(on(&disk)).await.stop().await;
    stage.site.trust = fresh(&stage);
    assert!(refusal(&stage, &disk).unwrap().contains("there is none"), "nobody put another in its place");
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_from_the_damaged_files_is_written_down() {
    let (stage, disk) = (Stage::new(), SimulatedDisk::new(1));
    let spool = file(&stage, "spool");
    stage.start(on(&disk)).await.stop().await;
    for number in 0..=muster_agent::spool::DAMAGED_MAX {
        disk.put(&spool.join(format!("{number:04}.damaged")), b"x").unwrap();
    }
    disk.end_process();
    stage.start(on(&disk)).await.stop().await;
    assert!(!disk.files().contains(&spool.join("0000.damaged")) && disk.files().contains(&spool.join("0001.damaged")));
    let audit = text(&stage, &disk, "audit.jsonl");
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("since there are too many")).collect();
    assert!(lines.len() == 1 && lines[0].contains("0000.damaged"), "{lines:?}");
}

/// A spool with a report that `signer` has signed, and that says it is from `host`.
fn spooled(stage: &Stage, signer: &Credentials, host: &str) -> muster_protocol::RequestId {
    use muster_protocol::{PayloadType, ProgressReport, ProtocolVersion, ReportState, encode};
    let id = crate::kit::fresh_id();
    let report = ProgressReport {
        protocol: ProtocolVersion::V1,
        request_id: id,
        caller: stage.site.lea.identity().clone(),
        host: host.parse().unwrap(),
        sequence: 3,
        created_at_ms: NOW,
        state: ReportState::Finished,
        output: Vec::new(),
        result: Some(muster_protocol::ActionResult {
            outcome: muster_protocol::Outcome::Succeeded,
            code: "ok".to_owned(),
            message: String::new(),
            exit_code: None,
            data: json!({}),
            truncated_from_bytes: None,
            duration_ms: 1,
        }),
    };
    let body = encode(&report).unwrap();
    let parcel = muster_agent::spool::Parcel {
        request_id: id,
        routing_key: muster_protocol::routing::reply_key(&route(&stage.site.lea), &crate::kit::host()),
        content_type: PayloadType::Report.as_str().to_owned(),
        signatures: vec![signer.sign(PayloadType::Report.as_str(), &body)],
        body: body.into(),
        expires_at: NOW.plus_ms(60_000),
    };
    let (mut spool, _) = muster_agent::spool::Spool::open(&crate::kit::real_disk(), &file(stage, "spool")).unwrap();
    spool.put(parcel, muster_agent::spool::Keep::OnDisk, NOW, &mut |_| true).unwrap();
    id
}

/// A directory of state that was copied from another host, and one of a host that has another certificate now.
#[tokio::test]
async fn a_report_is_signed_anew_by_its_own_host_alone() {
    let stage = Stage::new();
    std::fs::create_dir(stage.state.path().join("state")).unwrap();
    let other = stage.site.authority.credentials("host/db1.example.com").unwrap();
    let before = stage.site.authority.credentials("host/web1.example.com").unwrap();
    let theirs = spooled(&stage, &other, "db1.example.com");
    let ours = spooled(&stage, &before, "web1.example.com");
    let mut lea = stage.controller(&stage.site.lea).await;
    let agent = stage.start(Setup::default()).await;
    // Checked as a controller does: signed by whom it says it is from.
    let (_, last) = lea.finished(ours).await;
    assert_eq!(last.sequence, 3);
    eventually("a record of the other", || {
        let audit = stage.audit();
        let about = |line: &&serde_json::Value| line["details"]["request_id"] == theirs.to_string();
        match audit.iter().find(about) {
            Some(line) if line["details"]["decision"] == "given_up" => {
                let message = line["details"]["message"].as_str().unwrap();
                if message.contains("no report of this host") { Ok(()) } else { Err(message.to_owned()) }
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let ping = command(&stage.site.lea, "read", json!({}));
    lea.send(&ping, &stage.site.lea).await;
    assert_eq!(lea.report().await.request_id, ping.id, "nothing else came");
    agent.stop().await;
}
