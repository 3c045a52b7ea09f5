//! Pending commands: written by one, signed by others, sent by the first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_client::testing::{Fleet, NOW, Say, behaving, succeeding};
use muster_client::{Approval, Audience, ClientError, Controller, Pending, PendingError, Question, Sending};
use muster_pki::Credentials;
use muster_protocol::{Envelope, HostName, Identity, Outcome, TaskState};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::asking::{names, question};

fn sending(hosts: BTreeSet<HostName>) -> Sending {
    Sending {
        sent_before: false,
        hosts,
        queue_ms: 60_000,
        reply_timeout_ms: 5_000,
        time_limit_ms: 5_000,
        output: Default::default(),
    }
}

fn hour(mut question: Question) -> Question {
    question.ttl_ms = 3_600_000;
    question
}

fn many(count: usize) -> BTreeSet<HostName> {
    (0..count).map(|number| HostName::new(format!("web{number:03}")).unwrap()).collect()
}

async fn written(fleet: &Fleet, hosts: BTreeSet<HostName>) -> Pending {
    let mut controller = fleet.controller().await;
    let question = Question::new(Audience::Hosts(hosts), "test".parse().unwrap(), "run".parse().unwrap());
    let pending = controller.write(&hour(question)).unwrap();
    controller.close().await;
    pending
}

fn signers(pending: &Pending) -> Vec<String> {
    pending.signers().iter().map(|signer| signer.identity.short()).collect()
}

/// What approvals do not change.
fn payloads(pending: &Pending) -> Vec<String> {
    let bytes = pending.to_bytes();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice::<Envelope>(line).unwrap().payload).collect()
}

#[tokio::test(start_paused = true)]
async fn more_hosts_than_a_command_has_are_several_in_one_file() {
    let fleet = Fleet::new();
    let hosts = many(150);
    let all: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    fleet.hosts(&all, json!({}), succeeding(json!({ "x": 1 }))).await;
    let mut pending = written(&fleet, hosts.clone()).await;
    assert_eq!((pending.count(), pending.hosts().len()), (2, 150));
    let trust = fleet.authority.trust().unwrap();
    let (bob, eve) =
        (fleet.authority.credentials("user/bob").unwrap(), fleet.authority.credentials("user/eve").unwrap());
    let before = (payloads(&pending), pending.digest());

    // In parallel, on copies, one of them through a file and the other as signatures alone.
    let mut copy = Pending::read(&pending.to_bytes(), &trust, NOW).unwrap();
    copy.add(&copy.approve(&bob, NOW).unwrap(), &trust, NOW).unwrap();
    let alone = Approval::to_bytes(&pending.approve(&eve, NOW).unwrap());
    assert!(Approval::is_one(&alone) && !Approval::is_one(&pending.to_bytes()));
    let new = pending.add(&copy.approvals(), &trust, NOW).unwrap();
    assert_eq!(new, BTreeSet::from(["user/bob".parse::<Identity>().unwrap()]));
    pending.add(&Approval::read(&alone).unwrap(), &trust, NOW).unwrap();
    assert!(pending.add(&copy.approvals(), &trust, NOW).unwrap().is_empty(), "the same again changes nothing");
    assert_eq!(signers(&pending), ["user/lea", "user/bob", "user/eve"]);
    assert_eq!((payloads(&pending), pending.digest()), before);

    // Half of one person's signatures is nobody's.
    let half = &copy.approvals()[..1];
    let mut fresh = written(&fleet, names(&["db1"])).await;
    assert_eq!(fresh.add(half, &trust, NOW).unwrap_err(), PendingError::Differs);
    let mut fresh = Pending::read(&pending.to_bytes(), &trust, NOW).unwrap();
    let tom = fleet.authority.credentials("user/tom").unwrap();
    let half = &fresh.approve(&tom, NOW).unwrap()[..1];
    let before = fresh.to_bytes();
    assert!(matches!(fresh.add(half, &trust, NOW), Err(PendingError::Malformed { number: 2, .. })));
    assert_eq!(fresh.to_bytes(), before);

    let mut controller = Controller::connect_for(fleet.parts("user/lea", 9), &pending).await.unwrap();
    assert_eq!(*controller.route(), pending.command().reply_to);
    let summary = controller.send(&pending, &sending(hosts)).unwrap().finish().await;
    assert_eq!((summary.counts.succeeded, summary.counts.total()), (150, 150));
    assert_eq!(summary.requests.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_but_the_caller_sends_and_nobody_sends_what_has_expired() {
    let fleet = Fleet::new();
    let pending = written(&fleet, names(&["web1"])).await;
    let refused = Controller::connect_for(fleet.parts("user/bob", 1), &pending).await.unwrap_err();
    assert_eq!(refused.code(), "not-the-caller");
    // Of the same caller, and of another session.
    let mut other = Controller::connect(fleet.parts("user/lea", 77)).await.unwrap();
    assert!(matches!(other.send(&pending, &sending(names(&["web1"]))), Err(ClientError::NotTheCaller { .. })));
    fleet.clock.advance_ms(3_600_000);
    let mut controller = Controller::connect_for(fleet.parts("user/lea", 2), &pending).await.unwrap();
    let late = controller.send(&pending, &sending(names(&["web1"]))).map(drop).unwrap_err();
    assert_eq!(late.code(), "pending-expired");
}

/// A refusal of before can have waited on its host for a reader, and comes in the middle of the answers of now.
#[tokio::test(start_paused = true)]
async fn a_refusal_from_before_the_last_signature_is_not_an_answer() {
    let fleet = Fleet::new();
    let refusal = |signers: Value| {
        behaving(move |host, command| {
            let data = json!({ "rule": "two", "missing": [{ "count": 1 }], "signers": signers });
            let mut report = host.finished(command, 0, Outcome::Refused, data);
            report.result.as_mut().unwrap().code = "needs-approval".to_owned();
            vec![Say::Report(report), Say::Report(host.finished(command, 1, Outcome::Succeeded, json!(null)))]
        })
    };
    fleet.hosts(&["old"], json!({}), refusal(json!(["muster:user/lea"]))).await;
    fleet.hosts(&["now"], json!({}), refusal(json!(["muster:user/bob", "muster:user/lea"]))).await;
    let mut pending = written(&fleet, names(&["old", "now"])).await;
    let (bob, trust) = (fleet.authority.credentials("user/bob").unwrap(), fleet.authority.trust().unwrap());
    pending.add(&pending.approve(&bob, NOW).unwrap(), &trust, NOW).unwrap();
    let mut controller = Controller::connect_for(fleet.parts("user/lea", 2), &pending).await.unwrap();
    let summary = controller.send(&pending, &sending(names(&["old", "now"]))).unwrap().finish().await;
    let state = |name: &str| summary.hosts[&HostName::new(name).unwrap()].state;
    assert_eq!((state("old"), state("now")), (TaskState::Succeeded, TaskState::Refused));
}

#[tokio::test(start_paused = true)]
async fn it_goes_to_those_of_its_hosts_that_are_asked_for_and_to_nobody_else() {
    let fleet = Fleet::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    let behaviour = behaving(move |host, command| {
        counter.fetch_add(1, Ordering::SeqCst);
        vec![Say::Report(host.finished(command, 0, Outcome::Succeeded, json!(null)))]
    });
    fleet.hosts(&["web1", "web2", "db1"], json!({}), behaviour).await;
    let pending = written(&fleet, names(&["web1", "web2"])).await;
    let mut controller = Controller::connect_for(fleet.parts("user/lea", 2), &pending).await.unwrap();
    let summary = controller.send(&pending, &sending(names(&["web2", "db1"]))).unwrap().finish().await;
    assert_eq!((summary.counts.succeeded, summary.counts.total()), (1, 1));
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn who_can_approve() {
    let fleet = Fleet::new();
    let mut pending = written(&fleet, names(&["web1"])).await;
    let trust = fleet.authority.trust().unwrap();
    let of = |identity: &str| fleet.authority.credentials(identity).unwrap();
    let check = |pending: &Pending, who: &Credentials, code: &str| {
        assert_eq!(pending.check_approver(who, NOW).map_err(|error| error.code()), Err(code), "{}", who.identity());
        assert_eq!(pending.approve(who, NOW).map_err(|error| error.code()), Err(code), "{}", who.identity());
    };
    check(&pending, &of("user/lea"), "own-command");
    check(&pending, &of("service/deploy"), "not-an-approver");
    check(&pending, &of("host/web1"), "not-an-approver");
    assert_eq!(pending.approve(&of("user/bob"), NOW.plus_ms(3_600_000)).unwrap_err().code(), "pending-expired");
    assert_eq!(pending.approve(&of("user/bob"), NOW.plus_ms(-61_000)).unwrap_err().code(), "from-the-future");
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        pending.add(&pending.approve(&of(&format!("user/{name}")), NOW).unwrap(), &trust, NOW).unwrap();
    }
    check(&pending, &of("user/a"), "already-approved");
    check(&pending, &of("user/h"), "too-many-approvals");
    // Certificates with many groups leave less room; that is said before it is too late.
    let groups: Vec<String> = (0..16).map(|number| format!("{number:063}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut pending = written(&fleet, names(&["web1"])).await;
    let mut room = 0;
    for number in 0..7 {
        let large = fleet.authority.credentials_with_groups(&format!("user/large{number}"), &groups).unwrap();
        match pending.approve(&large, NOW) {
            Ok(approvals) => {
                pending.add(&approvals, &trust, NOW).unwrap();
                room += 1;
            }
            Err(error) => assert_eq!(error.code(), "too-many-approvals"),
        }
    }
    assert!((2..7).contains(&room), "{room}");
}

/// A pending command whose text was changed: what each change comes to.
#[tokio::test(start_paused = true)]
async fn nothing_in_it_is_believed_that_is_not_signed() {
    let fleet = Fleet::new();
    let trust = fleet.authority.trust().unwrap();
    let lea = fleet.authority.credentials("user/lea").unwrap();
    let pending = written(&fleet, names(&["web1", "web2"])).await;
    let command = serde_json::to_value(pending.command()).unwrap();
    let read =
        |bytes: &[u8]| Pending::read(bytes, &trust, NOW).map(drop).map_err(|error| (error.code(), error.to_string()));
    // Signed by the caller himself, and still nothing that others should sign.
    let check = |change: &dyn Fn(&mut Value), code: &str, words: &str| {
        let mut changed = command.clone();
        change(&mut changed);
        let body = serde_json::to_vec(&changed).unwrap();
        let kind = "application/vnd.muster.command.v1+json";
        let envelope = Envelope::new(kind, &body, vec![lea.sign(kind, &body)]);
        let (found, said) = read(&serde_json::to_vec(&envelope).unwrap()).unwrap_err();
        assert!(found == code && said.contains(words), "{found}: {said}");
    };
    check(&|it| it["target"] = json!({ "all": true }), "bad-pending", "not named");
    check(&|it| it["target"] = json!({ "filter": "role = web" }), "bad-pending", "not named");
    check(&|it| it["target"]["filter"] = json!("role = web"), "bad-pending", "not named");
    check(&|it| it["surprise"] = json!(1), "unsupported-feature", "`surprise`");
    check(&|it| it["options"]["also"] = json!(1), "unsupported-feature", "`options.also`");
    check(&|it| it["requires"] = json!(["magic"]), "unsupported-feature", "magic");
    check(&|it| it["caller"] = json!("muster:user/bob"), "bad-pending", "");
    check(&|it| it["protocol"] = json!("muster/2"), "bad-pending", "");

    // Two that are not the same, the same twice, and one that is something else.
    let mut controller = fleet.controller().await;
    let mut write = |hosts: &[&str], noop: bool| {
        let mut question = hour(question(hosts));
        question.options.noop = noop;
        controller.write(&question).unwrap().to_bytes()
    };
    let (one, other, different) = (write(&["web1"], false), write(&["web2"], false), write(&["web3"], true));
    assert!(read(&[&one[..], &one].concat()).unwrap_err().1.contains("a second time"));
    assert_eq!(read(&[&one[..], &other].concat()), Ok(()), "alike but for ids and hosts");
    assert!(read(&[&one[..], &different].concat()).unwrap_err().1.contains("another command"));
    let text = String::from_utf8(one).unwrap();
    let cancel = text.replace("muster.command.v1", "muster.cancel.v1");
    assert!(read(cancel.as_bytes()).unwrap_err().1.contains("not a command"));
    assert_eq!(read(&[b'x'; 100]).unwrap_err().0, "bad-pending");
    assert_eq!(
        read(&vec![b'\n'; 65 * 1024 * 1024]).unwrap_err().1,
        "it has 68157440 bytes; at most 67108864 are allowed"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No byte can be changed without being noticed, those between the values apart.
    #[test]
    fn every_byte_counts(at in any::<prop::sample::Index>(), bit in 0u8..7) {
        static MADE: std::sync::OnceLock<(Vec<u8>, String, muster_pki::Trust)> = std::sync::OnceLock::new();
        let (bytes, digest, trust) = MADE.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let fleet = Fleet::new();
                let trust = fleet.authority.trust().unwrap();
                let mut pending = written(&fleet, names(&["web1"])).await;
                let bob = fleet.authority.credentials("user/bob").unwrap();
                pending.add(&pending.approve(&bob, NOW).unwrap(), &trust, NOW).unwrap();
                (pending.to_bytes(), pending.digest(), trust)
            })
        });
        let mut changed = bytes.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        if let Ok(pending) = Pending::read(&changed, trust, NOW) {
            // A line break became something JSON does not mind, or the like: what is signed is the same.
            prop_assert_eq!(&pending.digest(), digest);
            prop_assert_eq!(signers(&pending), ["user/lea", "user/bob"]);
        }
    }
}
