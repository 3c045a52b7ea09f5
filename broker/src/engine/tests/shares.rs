//! Each identity's share of the memory: what counts, what happens beyond, and that no account drifts.

use proptest::prelude::*;

use super::*;

/// Users of the connections, by number: two hosts with two connections each, and somebody with one who publishes.
const USERS: [(&str, Share); 5] = [
    ("host/one", Share::Host),
    ("host/one", Share::Host),
    ("host/two", Share::Host),
    ("host/two", Share::Host),
    ("user/lea", Share::Controller),
];

/// The connection that publishes.
const LEA: u64 = 5;

const HOST_BYTES_MAX: usize = 12_000;

const SHARES: Limits = Limits { host_bytes_max: HOST_BYTES_MAX, controller_bytes_max: 40_000, ..LIMITS };

fn bed() -> Bed {
    let mut bed = Bed::with(SHARES, Vec::new(), 0);
    (1..=LEA).for_each(|connection| join(&mut bed, connection));
    bed
}

fn join(bed: &mut Bed, connection: u64) {
    let (user, share) = USERS[(connection - 1) as usize];
    bed.engine.connect(ConnectionId(connection), &user.into(), share);
    bed.engine.open_channel((ConnectionId(connection), 1));
}

fn account(bed: &Bed, user: &str) -> AccountLook {
    bed.engine.accounts().into_iter().find(|account| &*account.user == user).unwrap()
}

/// Compares the accounts with what there is, and gives them.
pub(super) fn check(engine: &Engine) -> Vec<AccountLook> {
    let accounts = engine.accounts();
    let seen = accounts.iter().map(|it| (it.user.clone(), (it.kept_bytes, it.outbox_bytes, it.queues, it.connections)));
    assert_eq!(seen.collect::<std::collections::BTreeMap<_, _>>(), engine.counted_accounts());
    accounts
}

const REFUSES: QueueLimits = QueueLimits {
    overflow: Some(Overflow::RejectPublish),
    expires_ms: None,
    message_ttl_ms: None,
    length_max: None,
    bytes_max: None,
};

#[test]
fn many_queues_of_one_identity_hold_no_more_than_its_share_and_others_have_theirs() {
    let mut bed = bed();
    for queue in 0..4 {
        // From both of its connections: they have one account.
        bed.declare(1 + queue % 2, QueueSpec { limits: REFUSES, ..queue_spec(&format!("one.{queue}")) }).unwrap();
    }
    bed.declare(3, QueueSpec { limits: REFUSES, ..queue_spec("two") }).unwrap();
    bed.engine.confirm_select((ConnectionId(LEA), 1));
    let body = "x".repeat(1_000);
    let mut taken = 0;
    for turn in 0..40 {
        bed.publish_from(LEA, message("", &format!("one.{}", turn % 4), &body), false).unwrap();
        taken += usize::from(bed.said()[0].contains(": ack"));
    }
    let one = account(&bed, "host/one");
    // Three quarters of 12,000, without 512 for each queue, in pieces of 1,000 and about 230.
    assert_eq!((taken, one.queues, one.connections, one.refused), (5, 4, 2, 35), "{one:?}");
    assert!(one.kept_bytes <= HOST_BYTES_MAX / 4 * 3, "{one:?}");
    bed.publish_from(LEA, message("", "two", &body), false).unwrap();
    assert_eq!(bed.said(), ["5: ack 41"]);
    // A queue that is there may be declared again, a further one not before there is room.
    bed.declare(2, QueueSpec { limits: REFUSES, ..queue_spec("one.0") }).unwrap();
    while bed.declare(2, queue_spec(&format!("more.{}", account(&bed, "host/one").queues))).is_ok() {}
    let refused = bed.declare(2, queue_spec("further")).unwrap_err();
    assert_eq!(refused.code, 506);
    assert!(refused.text.contains("'host/one'") && refused.text.contains("`limits.host_bytes`"), "{refused}");
    bed.engine.purge_queue(ConnectionId(1), "one.0", bed.now_ms, &mut bed.out).unwrap();
    bed.declare(2, queue_spec("further")).unwrap();
    check(&bed.engine);
}

#[test]
fn a_queue_that_drops_its_oldest_does_so_at_the_share_too_and_what_is_unacknowledged_counts() {
    let mut bed = bed();
    bed.declare(1, queue_spec("one")).unwrap();
    let body = |number: usize| format!("{number:01000}");
    for number in 0..10 {
        bed.publish_from(LEA, message("", "one", &body(number)), false).unwrap();
    }
    let one = account(&bed, "host/one");
    assert_eq!((bed.length("one"), one.refused), (Some(6), 4));
    // All are delivered and none acknowledged: the account is as full as before, and what comes now is what goes.
    bed.consume(2, "one");
    assert_eq!(bed.said().len(), 3, "as much as may wait for its connections");
    while bed.length("one") != Some(0) {
        bed.engine.drained(ConnectionId(2), 1 << 20, bed.now_ms, &mut bed.out);
    }
    bed.engine.drained(ConnectionId(2), 1 << 20, bed.now_ms, &mut bed.out);
    bed.said();
    bed.publish_from(LEA, message("", "one", &body(10)), false).unwrap();
    assert_eq!((bed.said(), bed.length("one")), (lines(&[]), Some(0)));
    assert_eq!(account(&bed, "host/one").refused, 5);
    check(&bed.engine);
    bed.ack(2, 1, false).unwrap();
    bed.publish_from(LEA, message("", "one", &body(11)), false).unwrap();
    assert_eq!(bed.said().len(), 1);
    check(&bed.engine);
}

#[test]
fn what_waits_for_all_connections_of_an_identity_has_one_bound_and_reading_any_of_them_goes_on() {
    let mut bed = bed();
    for (connection, queue) in [(1, "a"), (2, "b"), (3, "c")] {
        bed.declare(connection, queue_spec(queue)).unwrap();
        bed.consume_as(ConsumerSpec { no_ack: true, ..consumer(connection, queue) }).unwrap();
    }
    let body = "x".repeat(1_000);
    // A quarter of 12,000: the third is the one that is too much, and the last one.
    for _ in 0..4 {
        bed.publish_from(LEA, message("", "a", &body), false).unwrap();
    }
    assert_eq!((bed.said().len(), bed.length("a")), (3, Some(1)));
    bed.publish_from(LEA, message("", "b", &body), false).unwrap();
    assert_eq!((bed.said().len(), bed.length("b")), (0, Some(1)), "its other connection gets nothing either");
    bed.publish_from(LEA, message("", "c", &body), false).unwrap();
    assert_eq!(bed.said().len(), 1, "another identity does");
    check(&bed.engine);
    // The first connection reads everything.
    bed.engine.drained(ConnectionId(1), 1 << 20, bed.now_ms, &mut bed.out);
    assert_eq!((bed.said().len(), bed.length("a"), bed.length("b")), (2, Some(0), Some(0)));
    // One that goes with all that waits for it lets the others go on too.
    for _ in 0..6 {
        bed.publish_from(LEA, message("", "a", &body), false).unwrap();
        bed.publish_from(LEA, message("", "b", &body), false).unwrap();
    }
    assert!(bed.length("b") > Some(0));
    bed.disconnect(1);
    assert!(account(&bed, "host/one").outbox_bytes > 0, "it goes on");
    check(&bed.engine);
}

#[test]
fn queues_from_before_a_restart_are_charged_to_whom_their_names_tell() {
    let mut bed = Bed::new(1);
    bed.declare(1, QueueSpec { durable: true, ..queue_spec("of.web1") }).unwrap();
    bed.declare(1, QueueSpec { durable: true, ..queue_spec("nobodys") }).unwrap();
    for queue in ["of.web1", "nobodys"] {
        bed.publish(Message { persistent: true, ..message("", queue, "body") }).unwrap();
    }
    let owner = |name: &str| name.strip_prefix("of.").map(|name| (name.into(), Share::Host));
    let mut again = Engine::new(LIMITS, Vec::new(), Vec::new()).with_owners(owner);
    bed.recorded().into_iter().for_each(|record| again.replay(record));
    let [web1] = &check(&again)[..] else { panic!("{:?}", again.accounts()) };
    assert_eq!((&*web1.user, web1.queues, web1.connections), ("web1", 1, 0));
    assert!(web1.kept_bytes > 512, "{web1:?}");
    // Whoever declares it first has the other.
    again.connect(ConnectionId(9), &"max".into(), Share::Controller);
    let spec = QueueSpec { durable: true, ..queue_spec("nobodys") };
    again.declare_queue(ConnectionId(9), spec, 1_000, &mut bed.out).unwrap();
    let accounts = check(&again);
    assert_eq!((&*accounts[0].user, accounts[0].kept_bytes), ("max", web1.kept_bytes));
    again.disconnect(ConnectionId(9), 1_000, &mut bed.out);
    assert_eq!(check(&again).len(), 2, "an account stays with its queues");
    for name in ["nobodys", "of.web1"] {
        again.delete_queue(ConnectionId::OPERATOR, name, false, false, 1_000, &mut bed.out).unwrap();
    }
    assert_eq!(check(&again), []);
}

/// What somebody does. A host uses its own queues only, as permissions have it.
#[derive(Debug, Clone)]
enum Step {
    Declare { connection: u64, queue: usize, refuses: bool },
    Delete { connection: u64, queue: usize },
    Publish { host: usize, queue: usize, size: usize },
    Return { size: usize },
    Consume { connection: u64, queue: usize, no_ack: bool },
    Ack { connection: u64, tag: u64, multiple: bool },
    Requeue { connection: u64, tag: u64 },
    Drain { connection: u64, bytes: usize },
    Purge { connection: u64, queue: usize },
    Rejoin { connection: u64 },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let (connection, queue) = (1..5_u64, 0..4_usize);
    prop_oneof![
        3 => (connection.clone(), queue.clone(), any::<bool>())
            .prop_map(|(connection, queue, refuses)| Step::Declare { connection, queue, refuses }),
        1 => (connection.clone(), queue.clone()).prop_map(|(connection, queue)| Step::Delete { connection, queue }),
        16 => (0..2_usize, queue.clone(), 0..3_000_usize)
            .prop_map(|(host, queue, size)| Step::Publish { host, queue, size }),
        1 => (0..1_000_usize).prop_map(|size| Step::Return { size }),
        4 => (connection.clone(), queue.clone(), prop::bool::weighted(0.3))
            .prop_map(|(connection, queue, no_ack)| Step::Consume { connection, queue, no_ack }),
        4 => (connection.clone(), 0..12_u64, any::<bool>())
            .prop_map(|(connection, tag, multiple)| Step::Ack { connection, tag, multiple }),
        2 => (connection.clone(), 1..12_u64).prop_map(|(connection, tag)| Step::Requeue { connection, tag }),
        6 => (connection.clone(), 0..8_000_usize).prop_map(|(connection, bytes)| Step::Drain { connection, bytes }),
        1 => (connection.clone(), queue).prop_map(|(connection, queue)| Step::Purge { connection, queue }),
        1 => connection.prop_map(|connection| Step::Rejoin { connection }),
        1 => Just(Step::Wait),
    ]
}

/// A queue of the host whose connection it is.
fn queue_at(connection: u64, queue: usize) -> String {
    format!("{}.{queue}", (connection - 1) / 2)
}

/// The channel is gone with an exception, and opened again.
fn reopen(bed: &mut Bed, connection: u64) {
    let at = (ConnectionId(connection), 1);
    bed.engine.close_channel(at, bed.now_ms, &mut bed.out);
    bed.engine.open_channel(at);
}

fn act(bed: &mut Bed, step: &Step) {
    let now_ms = bed.now_ms;
    match *step {
        Step::Declare { connection, queue, refuses } => {
            let mut limits = QueueLimits { message_ttl_ms: (queue == 3).then_some(50), ..QueueLimits::default() };
            limits.overflow = refuses.then_some(Overflow::RejectPublish);
            // It may be there with other limits, or be too much.
            drop(bed.declare(connection, QueueSpec { limits, ..queue_spec(&queue_at(connection, queue)) }));
        }
        Step::Delete { connection, queue } => {
            let (id, name) = (ConnectionId(connection), queue_at(connection, queue));
            bed.engine.delete_queue(id, &name, false, false, now_ms, &mut bed.out).unwrap();
        }
        Step::Publish { host, queue, size } => {
            bed.publish_from(LEA, message("", &format!("{host}.{queue}"), &"x".repeat(size)), false).unwrap();
        }
        Step::Return { size } => bed.publish_from(LEA, message("", "nowhere", &"x".repeat(size)), true).unwrap(),
        Step::Consume { connection, queue, no_ack } => {
            let tag = format!("{queue}").into();
            let spec = ConsumerSpec { no_ack, tag, ..consumer(connection, &queue_at(connection, queue)) };
            // There may be no such queue, or the tag may be in use.
            drop(bed.consume_as(spec));
        }
        Step::Ack { connection, tag, multiple } => {
            if bed.ack(connection, tag, multiple).is_err() {
                reopen(bed, connection);
            }
        }
        Step::Requeue { connection, tag } => {
            if bed.requeue(connection, tag, false).is_err() {
                reopen(bed, connection);
            }
        }
        Step::Drain { connection, bytes } => {
            bed.engine.drained(ConnectionId(connection), bytes, now_ms, &mut bed.out);
        }
        Step::Purge { connection, queue } => {
            let name = queue_at(connection, queue);
            drop(bed.engine.purge_queue(ConnectionId(connection), &name, now_ms, &mut bed.out));
        }
        Step::Rejoin { connection } => {
            bed.disconnect(connection);
            join(bed, connection);
        }
        Step::Wait => bed.wait(40),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// An account is always the sum of what it counts, and a host's never more than its share and one message that is
    /// on its way to it.
    #[test]
    fn accounts_do_not_drift_and_hosts_stay_within_their_shares(steps in prop::collection::vec(step(), 1..150)) {
        let mut bed = bed();
        for step in &steps {
            act(&mut bed, step);
            bed.out.0.clear();
            for it in check(&bed.engine).iter().filter(|it| it.user.starts_with("host/")) {
                prop_assert!(it.kept_bytes <= HOST_BYTES_MAX / 4 * 3, "{:?}: {:?}", step, it);
                prop_assert!(it.outbox_bytes <= HOST_BYTES_MAX / 4 + 3_000 + 300, "{:?}: {:?}", step, it);
            }
        }
        for connection in 1..=LEA {
            bed.disconnect(connection);
        }
        for name in bed.engine.queues() {
            bed.engine.delete_queue(ConnectionId::OPERATOR, &name.name, false, false, bed.now_ms, &mut bed.out).unwrap();
        }
        prop_assert_eq!(check(&bed.engine), []);
        prop_assert_eq!(bed.engine.counts().message_bytes, 0);
    }
}
