//! Reports that one must not believe: each is counted apart and changes nothing.

use bytes::Bytes;
use muster_bus::Outgoing;
use muster_client::testing::{FakeHost, Fleet, Say, behaving, succeeding};
use muster_client::{Event, Summary};
use muster_protocol::{Command, HostName, Identity, Outcome, ProgressReport, routing};
use serde_json::json;

use crate::asking::question;

/// Asks `web1` and `web2`; `web1` says what `bad` makes of its true answer and nothing else.
async fn ask_with(bad: impl Fn(&FakeHost, &Command, Outgoing) -> Vec<Outgoing> + Send + Sync + 'static) -> Summary {
    let fleet = Fleet::new();
    fleet.hosts(&["web2"], json!({}), succeeding(json!(null))).await;
    let behaviour = behaving(move |host, command| {
        let report = host.finished(command, 0, Outcome::Succeeded, json!({"a": 1}));
        bad(host, command, host.sealed(command, &report)).into_iter().map(Say::Raw).collect()
    });
    fleet.hosts(&["web1"], json!({}), behaviour).await;
    let mut controller = fleet.controller().await;
    controller.ask(&question(&["web1", "web2"])).unwrap().finish().await
}

/// `web1`'s only message is refused with this code and it counts as silent; `web2` is not disturbed.
async fn check(code: &str, bad: impl Fn(&FakeHost, &Command, Outgoing) -> Outgoing + Send + Sync + 'static) {
    let summary = ask_with(move |host, command, good| vec![bad(host, command, good)]).await;
    assert_eq!((summary.counts.succeeded, summary.counts.no_reply), (1, 1), "{code}");
    let seen: Vec<_> = summary.rejections.iter().collect();
    let web1 = HostName::new("web1").unwrap();
    assert_eq!(seen, [(&(code, Some(web1), None), &1)], "{code}");
}

fn with_body(message: Outgoing, change: impl FnOnce(&mut Vec<u8>)) -> Outgoing {
    let mut body = message.body.to_vec();
    change(&mut body);
    Outgoing { body: body.into(), ..message }
}

#[tokio::test(start_paused = true)]
async fn a_changed_byte_is_noticed() {
    check("bad-signature", |_, _, good| with_body(good, |body| *body.last_mut().unwrap() = b' ')).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_is_noticed() {
    check("bad-signature", |_, _, good| with_body(good, |body| body.truncate(40))).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_without_signature_is_nothing() {
    check("unsigned", |_, _, good| Outgoing { signatures: Bytes::new(), ..good }).await;
    check("bad-envelope", |_, _, good| Outgoing { signatures: Bytes::from_static(b"{"), ..good }).await;
}

#[tokio::test(start_paused = true)]
async fn another_type_is_not_a_report() {
    check("unknown-type", |_, _, good| Outgoing { content_type: "application/json".to_owned(), ..good }).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_cannot_answer_in_another_name() {
    // web1 signs properly, with its own key, a report that names web2.
    let summary = ask_with(|host, command, _| {
        let web2 = HostName::new("web2").unwrap();
        let lie: ProgressReport =
            ProgressReport { host: web2, ..host.finished(command, 0, Outcome::Failed, json!("forged")) };
        vec![host.sealed(command, &lie)]
    })
    .await;
    assert_eq!((summary.counts.succeeded, summary.counts.failed, summary.counts.no_reply), (1, 0, 1));
    let web1 = HostName::new("web1").unwrap();
    let liar = Some(Identity::Host(web1.clone()));
    assert_eq!(summary.rejections.keys().collect::<Vec<_>>(), [&("wrong-identity", Some(web1), liar)]);
}

#[tokio::test(start_paused = true)]
async fn a_user_is_not_a_host() {
    let fleet = Fleet::new();
    let max = fleet.authority.credentials("user/web1").unwrap();
    let behaviour = behaving(move |host, command| {
        let impostor = FakeHost { credentials: max.clone(), ..host.clone() };
        let report = host.finished(command, 0, Outcome::Succeeded, json!(null));
        vec![Say::Raw(impostor.sealed(command, &report))]
    });
    fleet.hosts(&["web1"], json!({}), behaviour).await;
    let mut controller = fleet.controller().await;
    let summary = controller.ask(&question(&["web1"])).unwrap().finish().await;
    assert_eq!((summary.counts.no_reply, summary.rejected), (1, 1));
    let (code, _, signed_by) = summary.rejections.keys().next().unwrap();
    assert_eq!((*code, signed_by.as_ref().map(Identity::short)), ("wrong-identity", Some("user/web1".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn another_authority_is_not_believed() {
    let other = Fleet::new();
    let stolen = other.authority.credentials("host/web1").unwrap();
    check("untrusted-certificate", move |host, command, _| {
        let impostor = FakeHost { credentials: stolen.clone(), ..host.clone() };
        impostor.sealed(command, &host.finished(command, 0, Outcome::Succeeded, json!(null)))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_or_expired_host_is_not_believed() {
    for code in ["revoked-certificate", "expired-certificate"] {
        let mut fleet = Fleet::new();
        let credentials = match code {
            "revoked-certificate" => fleet.authority.revoked("host/web1"),
            _ => fleet.authority.expired("host/web1"),
        }
        .unwrap();
        fleet.trust_again();
        let host = FakeHost {
            name: HostName::new("web1").unwrap(),
            credentials,
            inventory: muster_protocol::Inventory::default(),
        };
        fleet.start(host, succeeding(json!(null))).await;
        let mut controller = fleet.controller().await;
        let summary = controller.ask(&question(&["web1"])).unwrap().finish().await;
        assert_eq!(summary.counts.no_reply, 1, "{code}");
        assert!(summary.rejections.keys().all(|(seen, ..)| *seen == code), "{:?}", summary.rejections);
    }
}

#[tokio::test(start_paused = true)]
async fn too_much_is_not_read() {
    check("too-large", |_, _, good| with_body(good, |body| body.resize(2 * 1024 * 1024, b' '))).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_to_somebody_else_is_not_ours() {
    // Properly signed by web1, made out to another caller, and sent to us.
    let summary = ask_with(|host, command, _| {
        let other: Identity = "user/max".parse().unwrap();
        let report = ProgressReport { caller: other, ..host.finished(command, 0, Outcome::Succeeded, json!(null)) };
        vec![host.sealed(command, &report)]
    })
    .await;
    assert_eq!((summary.counts.no_reply, summary.for_another, summary.rejected), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_not_asked_is_a_stranger() {
    let fleet = Fleet::new();
    fleet.hosts(&["web1"], json!({}), succeeding(json!(null))).await;
    fleet.hosts(&["web2"], json!({}), behaving(|_, _| Vec::new())).await;
    let spy = fleet.authority.credentials("host/web9").unwrap();
    let broker = fleet.broker.clone();
    let mut controller = fleet.controller().await;
    let mut asking = controller.ask(&question(&["web1", "web2"])).unwrap();
    let mut strangers = 0;
    let request = asking.requests().next().unwrap();
    let route = asking.route().clone();
    let host = FakeHost {
        name: HostName::new("web9").unwrap(),
        credentials: spy,
        inventory: muster_protocol::Inventory::default(),
    };
    let mut injected = false;
    while let Some(event) = asking.next().await {
        if !std::mem::replace(&mut injected, true) {
            let report = ProgressReport {
                request_id: request,
                ..host.finished(&sample_command(&route), 0, Outcome::Succeeded, json!(null))
            };
            let message = host.sealed(&sample_command(&route), &report);
            assert_eq!(message.routing_key, routing::reply_key(&route, &host.name));
            assert_eq!(broker.inject(host.credentials.identity(), message), 1);
        }
        strangers += usize::from(matches!(event, Event::Stranger(_)));
    }
    let summary = asking.into_summary();
    assert_eq!((strangers, summary.strangers.len(), summary.counts.total()), (1, 1, 2));
}

fn sample_command(route: &muster_protocol::ReplyRoute) -> Command {
    use muster_protocol::{Options, ProtocolVersion, RequestId, Target};
    let now = muster_client::testing::NOW;
    Command {
        protocol: ProtocolVersion::V1,
        id: RequestId::from_parts(now, [1; 10]),
        caller: route.controller().clone(),
        created_at_ms: now,
        expires_at_ms: now.plus_ms(1_000),
        collective: "main".parse().unwrap(),
        target: Target::everyone(),
        plugin: "test".parse().unwrap(),
        action: "run".parse().unwrap(),
        arguments: serde_json::Map::new(),
        sealed: None,
        options: Options::default(),
        reply_to: route.clone(),
        requires: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_does_not_drown_the_others() {
    let summary = ask_with(|host, command, good| {
        let mut flood: Vec<Outgoing> = (0..2_000)
            .map(|n| host.sealed(command, &host.output(command, n * 2, u64::from(n) * 100, &"x".repeat(100))))
            .collect();
        flood.extend((0..500).map(|_| with_body(good.clone(), |body| body[0] = b'x')));
        flood
    })
    .await;
    assert_eq!(summary.counts.succeeded, 1, "web2 was heard");
    assert_eq!((summary.counts.timed_out, summary.rejected), (1, 500));
    assert_eq!(summary.rejections.len(), 1);
}
