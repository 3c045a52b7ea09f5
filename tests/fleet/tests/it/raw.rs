//! The raw echo against a real broker.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_client::discover::ping;
use muster_client::{Audience, Question};
use muster_fleet::raw::{Asked, Echo, Kind, Messages, Place, connect_storm};
use muster_fleet::{BrokerKind, Fleet, Ground, Options};
use muster_protocol::HostName;
use serde_json::json;

const HOSTS: usize = 20;

fn body_bytes(messages: &Messages) -> usize {
    messages.replies.iter().map(|reply| reply.body.len()).sum()
}

on_both_brokers!(
    every_host_echoes_answers_as_large_as_a_real_agents,
    large_answers_and_commands_to_names_are_recorded_with_their_size,
    an_echo_beside_a_fleet_is_asked_alone_and_takes_other_messages,
);

async fn every_host_echoes_answers_as_large_as_a_real_agents(broker: BrokerKind) {
    let ground = Ground::prepare(broker, HOSTS, 1).unwrap();
    let messages = Messages::ping(&ground).await.unwrap();
    assert_eq!((messages.requests.len(), messages.replies.len()), (1, 1));
    assert!(messages.replies.iter().all(|reply| !reply.signatures.is_empty() && reply.body.len() > 100));
    for kind in [Kind::Lean, Kind::Lapin] {
        let mut echo = Echo::start(&ground, HOSTS, 4, kind, &messages).unwrap();
        assert_eq!(ground.queues().unwrap().len(), HOSTS + 2, "{kind:?}: a queue for each host and controller");
        // Asked, answers.
        let cases = [
            (Asked { controllers: 1, named: None, replying: HOSTS }, HOSTS),
            (Asked { controllers: 2, named: None, replying: HOSTS }, 2 * HOSTS),
            (Asked { controllers: 1, named: None, replying: 2 }, 2),
            (Asked { controllers: 1, named: Some(7), replying: 7 }, 7),
            (Asked { controllers: 1, named: None, replying: HOSTS }, HOSTS),
        ];
        for (asked, replies) in cases {
            let round = echo.ask(&ground, asked).unwrap();
            assert_eq!(round.replies, replies, "{kind:?} {asked:?}");
            assert_eq!(round.each.len(), asked.controllers);
            let bytes = u64::try_from(replies * body_bytes(&messages)).unwrap();
            assert_eq!(round.reply_bytes, bytes, "{kind:?} {asked:?}");
        }
        assert!(echo.ask(&ground, Asked { controllers: 3, named: None, replying: 1 }).is_err());
        echo.stop(&ground).unwrap();
        assert!(ground.queues().unwrap().is_empty(), "{kind:?}");
    }
    let storm = connect_storm(&ground, HOSTS, 4).unwrap();
    assert_eq!(storm.connections, HOSTS);
    assert!(ground.queues().unwrap().is_empty());
    ground.stop().unwrap();
}

async fn large_answers_and_commands_to_names_are_recorded_with_their_size(broker: BrokerKind) {
    let ground = Ground::prepare(broker, HOSTS, 1).unwrap();
    let host = ground.hosts().next().unwrap().clone();
    let talk = |bytes: usize| Question { ..Fleet::question([host.clone()].into(), "talk", json!({ "bytes": bytes })) };
    let (small, large) = (talk(1_024), talk(64 * 1_024));
    let (small, large) =
        (Messages::record(&ground, &small).await.unwrap(), Messages::record(&ground, &large).await.unwrap());
    assert!(small.reply_bytes() > 1_024 && large.reply_bytes() > 64 * 1_024 && small.reply_bytes() < 8 * 1_024);
    let one = ping(Audience::Hosts([host].into()), 5_000, Default::default());
    let one = Messages::record(&ground, &one).await.unwrap().requests[0].body.len();
    let all = ping(Audience::Hosts(ground.hosts().cloned().collect()), 200, Default::default());
    let all = Messages::record(&ground, &all).await.unwrap();
    assert!(all.requests[0].body.len() > one + (HOSTS - 1) * 20, "the names are in the command");
    // Larger than a frame and than a socket's buffer.
    let mut echo = Echo::start(&ground, HOSTS, 4, Kind::Lean, &large).unwrap();
    let round = echo.round(&ground).unwrap();
    assert_eq!(round.replies, HOSTS * large.replies.len());
    assert_eq!(round.reply_bytes, u64::try_from(HOSTS * body_bytes(&large)).unwrap());
    echo.stop(&ground).unwrap();
    ground.stop().unwrap();
}

async fn an_echo_beside_a_fleet_is_asked_alone_and_takes_other_messages(broker: BrokerKind) {
    let ground = Ground::prepare(broker, 2 * HOSTS, 1).unwrap();
    let small = Messages::ping(&ground).await.unwrap();
    let large = Fleet::question([ground.hosts().next().unwrap().clone()].into(), "talk", json!({ "bytes": 4_096 }));
    let large = Messages::record(&ground, &large).await.unwrap();
    let fleet = Fleet::start_on(ground, Options::new(HOSTS), Duration::from_secs(60)).await.unwrap();
    let mut echo = Echo::start_at(&fleet.ground, Place::beside(HOSTS, HOSTS), 4, Kind::Lean, &small).unwrap();
    let fleets: BTreeSet<HostName> = fleet.hosts().cloned().collect();
    let mut controller = fleet.controller().await.unwrap();
    for messages in [&small, &large, &small] {
        echo.exchange(&fleet.ground, messages).unwrap();
        let round = echo.round(&fleet.ground).unwrap();
        assert_eq!(round.replies, HOSTS * messages.replies.len());
        assert_eq!(round.reply_bytes, u64::try_from(HOSTS * body_bytes(messages)).unwrap());
        // All of the fleet, and nobody else.
        let question = ping(Audience::Everyone, 60_000, fleets.clone());
        let summary = controller.ask(&question).unwrap().finish().await;
        assert_eq!(summary.hosts.keys().cloned().collect::<BTreeSet<_>>(), fleets);
    }
    drop(echo);
    controller.close().await;
    fleet.stop().await.unwrap();
}
