//! What is recorded, and what comes of it after a restart.

use super::*;

fn durable(name: &str) -> QueueSpec {
    QueueSpec { durable: true, ..queue_spec(name) }
}

fn persistent(exchange: &str, key: &str, body: &str) -> Message {
    Message { persistent: true, ..message(exchange, key, body) }
}

/// A bed whose engine has replayed these records.
fn restarted(records: Vec<Record>) -> Bed {
    let mut bed = Bed::new(0);
    records.into_iter().for_each(|record| bed.engine.replay(record));
    bed.connect(1);
    bed
}

fn shown(records: &[Record]) -> Vec<String> {
    let record = |record: &Record| match record {
        Record::ExchangeDeclared(spec) => format!("exchange {}", spec.name),
        Record::ExchangeDeleted { name } => format!("no exchange {name}"),
        Record::QueueDeclared(spec) => format!("queue {}", spec.name),
        Record::QueueDeleted { name } => format!("no queue {name}"),
        Record::Bound(binding) => format!("{} to {:?} by {}", binding.source, binding.destination, binding.key),
        Record::Unbound(binding) => format!("{} not to {:?} by {}", binding.source, binding.destination, binding.key),
        Record::Enqueued { message, expires_ms, content, queues } => {
            format!("{message} {:?} in {queues:?} until {expires_ms:?}", content.body)
        }
        Record::Removed { message, queue } => format!("{message} not in {queue}"),
    };
    records.iter().map(record).collect()
}

#[test]
fn only_what_is_durable_is_recorded() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.declare(1, QueueSpec { exclusive: true, ..durable("own") }).unwrap();
    bed.exchange("x", ExchangeKind::Direct);
    for queue in ["q", "own"] {
        bed.bind(to_queue("x", queue, "k")).unwrap();
        bed.bind(to_queue("amq.direct", queue, "k")).unwrap();
        bed.publish(persistent("", queue, "a")).unwrap();
    }
    assert_eq!(bed.recorded(), []);
    bed.declare(1, durable("kept")).unwrap();
    bed.declare(1, durable("kept")).unwrap();
    bed.bind(to_queue("x", "kept", "k")).unwrap();
    bed.bind(to_queue("amq.direct", "kept", "k")).unwrap();
    bed.bind(to_queue("amq.direct", "kept", "k")).unwrap();
    bed.publish(message("", "kept", "a")).unwrap();
    bed.publish(persistent("amq.direct", "k", "b")).unwrap();
    assert_eq!(
        shown(&bed.recorded()),
        ["queue kept", "amq.direct to Queue(\"kept\") by k", "1 b\"b\" in [\"kept\"] until None",]
    );
}

#[test]
fn a_message_is_recorded_before_its_confirm_and_removed_after() {
    let mut bed = Bed::new(1);
    bed.engine.confirm_select((ConnectionId(1), 1));
    for queue in ["q", "r"] {
        bed.declare(1, durable(queue)).unwrap();
        bed.bind(to_queue("amq.fanout", queue, "")).unwrap();
    }
    bed.consume(1, "q");
    bed.said();
    bed.publish(persistent("amq.fanout", "", "a")).unwrap();
    let order: Vec<bool> = bed.out.0.iter().map(|said| matches!(said, Said::Recorded(_))).collect();
    assert_eq!(order, [false, true, false], "delivery, record, confirm");
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #1", "1: ack 1 when durable"]));
    bed.put("q", "transient");
    assert_eq!(bed.said(), lines(&["1: q/1 gets transient #2", "1: ack 2"]));
    bed.ack(1, 2, true).unwrap();
    bed.engine.purge_queue(ConnectionId(1), "r", bed.now_ms, &mut bed.out).unwrap();
    assert_eq!(shown(&bed.recorded()), ["1 not in q", "1 not in r"]);
}

#[test]
fn what_nobody_must_acknowledge_is_never_on_disk() {
    let mut bed = Bed::new(1);
    bed.engine.confirm_select((ConnectionId(1), 1));
    bed.declare(1, durable("q")).unwrap();
    bed.consume_as(ConsumerSpec { no_ack: true, ..consumer(1, "q") }).unwrap();
    bed.recorded();
    bed.publish(persistent("", "q", "a")).unwrap();
    let said = bed.out.0.len();
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #1", "1: ack 1"]));
    assert_eq!(said, 2);
}

#[test]
fn dropped_at_once_is_recorded_first() {
    let mut bed = Bed::new(1);
    bed.declare(1, QueueSpec { limits: QueueLimits { length_max: Some(0), ..QueueLimits::default() }, ..durable("q") })
        .unwrap();
    bed.recorded();
    bed.publish(persistent("", "q", "a")).unwrap();
    assert_eq!(shown(&bed.recorded()), ["1 b\"a\" in [\"q\"] until None", "1 not in q"]);
}

#[test]
fn each_time_has_its_record() {
    let mut bed = Bed::new(1);
    for (queue, ttl) in [("q", Some(100)), ("r", Some(200)), ("s", Some(100)), ("t", None)] {
        let limits = QueueLimits { message_ttl_ms: ttl, ..QueueLimits::default() };
        bed.declare(1, QueueSpec { limits, ..durable(queue) }).unwrap();
        bed.bind(to_queue("amq.fanout", queue, "")).unwrap();
    }
    bed.recorded();
    bed.publish(persistent("amq.fanout", "", "a")).unwrap();
    let records = bed.recorded();
    assert_eq!(
        shown(&records),
        [
            "1 b\"a\" in [\"q\", \"s\"] until Some(1100)",
            "1 b\"a\" in [\"r\"] until Some(1200)",
            "1 b\"a\" in [\"t\"] until None",
        ]
    );
    let mut again = restarted(bed.engine.snapshot());
    again.wait(100);
    let left = ["q", "r", "s", "t"].map(|queue| again.length(queue));
    assert_eq!(left, [Some(0), Some(1), Some(0), Some(1)]);
    again.wait(100);
    assert_eq!(again.length("r"), Some(0));
}

#[test]
fn everything_durable_is_there_again() {
    let mut bed = Bed::new(1);
    let spec = ExchangeSpec { durable: true, ..exchange_spec("x", ExchangeKind::Topic) };
    bed.engine.declare_exchange(spec, &mut bed.out).unwrap();
    bed.declare(1, durable("q")).unwrap();
    bed.declare(1, durable("r")).unwrap();
    bed.queue("forgotten");
    bed.bind(to_exchange("amq.topic", "x", "#")).unwrap();
    bed.bind(to_queue("x", "q", "a.*")).unwrap();
    bed.bind(to_queue("x", "r", "a.b")).unwrap();
    for (key, body) in [("a.c", "1"), ("a.b", "2"), ("a.d", "3"), ("a.e", "4")] {
        bed.publish(persistent("amq.topic", key, body)).unwrap();
    }
    bed.put("q", "transient");
    // The first two are unacknowledged, the second one is removed.
    bed.get(1, "q", false).unwrap();
    bed.get(1, "q", false).unwrap();
    bed.ack(1, 2, false).unwrap();
    for records in [bed.engine.snapshot(), bed.recorded()] {
        let mut again = restarted(records);
        assert_eq!(again.length("forgotten"), None);
        again.publish(persistent("amq.topic", "a.b", "5")).unwrap();
        again.consume(1, "q");
        again.consume(1, "r");
        assert_eq!(
            again.said(),
            lines(&[
                "1: q/1 gets 1 #1 again",
                "1: q/1 gets 3 #2 again",
                "1: q/1 gets 4 #3 again",
                "1: q/1 gets 5 #4",
                "1: r/1 gets 2 #5 again",
                "1: r/1 gets 5 #6",
            ])
        );
        // Numbers go on: none is used for two messages.
        let numbers: Vec<u64> = again
            .engine
            .snapshot()
            .iter()
            .filter_map(|record| if let Record::Enqueued { message, .. } = record { Some(*message) } else { None })
            .collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }
}

#[test]
fn what_went_stays_away() {
    let mut bed = Bed::new(1);
    for name in ["x", "y"] {
        let spec = ExchangeSpec { durable: true, auto_delete: true, ..exchange_spec(name, ExchangeKind::Fanout) };
        bed.engine.declare_exchange(spec, &mut bed.out).unwrap();
    }
    bed.declare(1, durable("q")).unwrap();
    bed.declare(1, durable("r")).unwrap();
    bed.bind(to_queue("x", "q", "")).unwrap();
    bed.bind(to_queue("y", "r", "")).unwrap();
    bed.bind(to_queue("amq.fanout", "r", "")).unwrap();
    bed.publish(persistent("", "q", "a")).unwrap();
    bed.engine.delete_queue(ConnectionId(1), "q", false, false, bed.now_ms, &mut bed.out).unwrap();
    bed.engine.unbind(ConnectionId(1), &to_queue("amq.fanout", "r", ""), &mut bed.out).unwrap();
    let again = restarted(bed.recorded());
    assert_eq!(again.engine.counts().message_bytes, 0);
    assert_eq!((again.engine.counts().queues, again.engine.counts().bindings), (1, 1));
    assert!(again.engine.check_exchange("x").is_err() && again.engine.check_exchange("y").is_ok());
}

#[test]
fn the_exchanges_of_the_site_are_the_configurations() {
    let site = || {
        let cmd = ExchangeSpec { durable: true, ..exchange_spec("cmd", ExchangeKind::Topic) };
        Engine::new(LIMITS, Vec::new(), vec![cmd])
    };
    let mut bed = Bed::new(0);
    bed.engine = site();
    bed.connect(1);
    bed.declare(1, durable("q")).unwrap();
    bed.bind(to_queue("cmd", "q", "all")).unwrap();
    bed.engine.delete_exchange("cmd", false, bed.now_ms, &mut bed.out).unwrap();
    let records = bed.recorded();
    let mut again = site();
    records.iter().cloned().for_each(|record| again.replay(record));
    assert!(again.check_exchange("cmd").is_ok(), "it is there, since the site says so");
    assert_eq!(again.counts().bindings, 0, "its bindings were deleted with it");
    // A site that has it no longer.
    let mut other = Engine::new(LIMITS, Vec::new(), Vec::new());
    records.into_iter().for_each(|record| other.replay(record));
    assert!(other.check_exchange("cmd").is_err());
}

#[test]
fn a_queue_expires_after_the_restart_not_at_it() {
    let mut bed = Bed::new(1);
    let limits = QueueLimits { expires_ms: Some(100), ..QueueLimits::default() };
    bed.declare(1, QueueSpec { limits, ..durable("q") }).unwrap();
    let mut again = restarted(bed.engine.snapshot());
    assert!(
        again.engine.next_deadline().is_some_and(|deadline| deadline <= again.now_ms),
        "somebody must say the time"
    );
    again.wait(1_000_000);
    assert_eq!(again.length("q"), Some(0));
    again.wait(99);
    assert_eq!(again.length("q"), Some(0));
    again.wait(1);
    assert_eq!(again.length("q"), None);
}

/// Found by the model: the binding that kept the exchange was not a durable one, so the replay did not know of it.
#[test]
fn an_exchange_that_stayed_is_there_after_the_replay() {
    let mut bed = Bed::new(1);
    let spec = ExchangeSpec { durable: true, auto_delete: true, ..exchange_spec("x", ExchangeKind::Fanout) };
    bed.engine.declare_exchange(spec, &mut bed.out).unwrap();
    bed.declare(1, durable("kept")).unwrap();
    bed.queue("transient");
    for queue in ["kept", "transient"] {
        bed.bind(to_queue("x", queue, "")).unwrap();
    }
    bed.engine.delete_queue(ConnectionId(1), "kept", false, false, bed.now_ms, &mut bed.out).unwrap();
    assert!(bed.engine.check_exchange("x").is_ok());
    assert!(restarted(bed.recorded()).engine.check_exchange("x").is_ok());
}
