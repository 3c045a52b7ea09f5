//! What waits while the disk takes no more.

use amq_protocol::protocol::{connection, exchange, queue};
use muster_broker::session::{Progress, Shared as _};

use super::client::{Client, IntoClass, World, bind, declare};

fn press(world: &mut World, pressed: bool) {
    world.lock().0.engine.press(pressed);
}

fn unblock(world: &mut World, client: &mut Client) -> Progress {
    let now_ms = world.now_ms;
    client.progress = client.session.unblock(world, now_ms);
    client.progress
}

fn durable(name: &str) -> queue::Declare {
    queue::Declare { durable: true, ..declare(name) }
}

fn blocked() -> (u16, amq_protocol::protocol::AMQPClass) {
    (0, connection::Blocked { reason: "low on memory".into() }.into_class())
}

#[test]
fn what_would_have_to_be_kept_waits_and_is_done_then() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.ask(&mut world, 1, durable("old"));
    client.ask(&mut world, 1, bind("old", "cmd", "all"));
    let of_exchanges = exchange::Bind {
        source: "cmd".into(),
        destination: "reply".into(),
        routing_key: "k".into(),
        ..exchange::Bind::default()
    };
    let new_exchange = exchange::Declare {
        exchange: "new".into(),
        kind: "topic".into(),
        durable: true,
        ..exchange::Declare::default()
    };
    let added = |world: &World| {
        let counts = world.broker.engine.counts();
        (counts.queues, counts.bindings, counts.exchanges)
    };
    let steps = [
        durable("new").into_class(),
        bind("old", "cmd", "host.old").into_class(),
        bind("new", "cmd", "all").into_class(),
        of_exchanges.into_class(),
        new_exchange.into_class(),
    ];
    for step in steps {
        press(&mut world, true);
        let before = added(&world);
        client.send(&mut world, 1, step.clone());
        assert_eq!(client.progress, Progress::Blocked, "{step:?}");
        assert_eq!((client.methods(&mut world), added(&world)), (vec![blocked()], before), "{step:?}");
        // Still so.
        assert_eq!(unblock(&mut world, &mut client), Progress::Blocked, "{step:?}");
        client.methods(&mut world);
        press(&mut world, false);
        assert_eq!(unblock(&mut world, &mut client), Progress::Reading, "{step:?}");
        let methods = client.methods(&mut world);
        assert_eq!(methods.first(), Some(&(0, connection::Unblocked {}.into_class())), "{step:?}");
        assert_eq!(methods.len(), 2, "and its answer: {methods:?}");
        assert_ne!(added(&world), before, "{step:?}");
    }
}

#[test]
fn what_adds_nothing_to_keep_is_done_at_once() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.ask(&mut world, 1, durable("old"));
    client.ask(&mut world, 1, bind("old", "cmd", "all"));
    press(&mut world, true);
    let transient = declare("transient");
    let exclusive = queue::Declare { exclusive: true, ..durable("own") };
    let unbind = queue::Unbind {
        queue: "old".into(),
        exchange: "cmd".into(),
        routing_key: "all".into(),
        ..queue::Unbind::default()
    };
    for step in [
        durable("old").into_class(),
        bind("old", "cmd", "all").into_class(),
        // The queue that was declared last, by no name.
        bind("", "cmd", "all").into_class(),
        transient.into_class(),
        bind("transient", "cmd", "all").into_class(),
        exclusive.into_class(),
        unbind.into_class(),
        queue::Delete { queue: "old".into(), ..queue::Delete::default() }.into_class(),
    ] {
        client.ask(&mut world, 1, step.clone());
        assert_eq!(client.progress, Progress::Reading, "{step:?}");
    }
}

#[test]
fn a_broker_full_of_messages_takes_topology() {
    let mut limits = super::client::limits();
    limits.message_bytes_max = 0;
    let mut world = World::with(limits);
    let mut client = world.anybody();
    client.ask(&mut world, 1, durable("new"));
    client.ask(&mut world, 1, bind("new", "cmd", "all"));
    assert_eq!(client.progress, Progress::Reading);
}

#[test]
fn what_is_refused_when_its_turn_comes_is_refused_as_ever() {
    let mut world = World::new();
    let mut client = world.anybody();
    press(&mut world, true);
    client.send(&mut world, 1, durable("amq.mine"));
    assert_eq!(client.progress, Progress::Blocked);
    press(&mut world, false);
    unblock(&mut world, &mut client);
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, refused.method), (403, (50, 10)));
}
