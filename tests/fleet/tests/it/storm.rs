//! A small fleet loses its broker and comes back.

use std::time::Duration;

use muster_fleet::storm::{Blow, StormOptions, storm};
use muster_fleet::{BrokerKind, Fleet, Options};

/// How long a small fleet may take for anything on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

on_both_brokers!(a_fleet_is_back_after_its_broker_was_killed_and_no_action_ran_twice);

async fn a_fleet_is_back_after_its_broker_was_killed_and_no_action_ran_twice(broker: BrokerKind) {
    let mut fleet = Fleet::start(Options { broker, ..Options::new(50) }, LIMIT).await.unwrap();
    let options = StormOptions { limit: LIMIT, ..StormOptions::new(Blow::Kill) };
    let measured = storm(&mut fleet, options).await.unwrap();
    assert_eq!(measured.presence_lost, 0, "{measured:#?}");
    assert_eq!((measured.running_begun, measured.started_twice), (10, 0), "{measured:#?}");
    // Nobody is connected twice: the broker has one queue with one consumer for each host.
    let queues = fleet.ground.broker.queues().unwrap();
    let of_hosts: Vec<usize> =
        queues.iter().filter(|(name, _)| name.starts_with("agent.")).map(|(_, consumers)| *consumers).collect();
    assert_eq!(of_hosts, [1; 50], "{queues:?}");
    let left = fleet.stop().await.unwrap();
    assert_eq!((left.interrupted, left.reports, left.failed), (0, 0, 0));
}
