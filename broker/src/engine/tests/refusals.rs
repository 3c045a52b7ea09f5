//! What is refused, with which code and which words.

use super::*;

fn words(result: Result<(), Fault>) -> String {
    result.unwrap_err().to_string()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
    result.unwrap_err().to_string()
}

const LOCKED: &str = "405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'own' in vhost 'muster'. It could \
    be originally declared on another connection or the exclusive property value does not match that of the original \
    declaration.";

#[test]
fn a_queue_of_another_connection() {
    let mut bed = Bed::new(2);
    let own = QueueSpec { exclusive: true, ..queue_spec("own") };
    bed.declare(1, own.clone()).unwrap();
    let two = ConnectionId(2);
    let now = bed.now_ms;
    assert_eq!(refused(bed.declare(2, own.clone())), LOCKED);
    assert_eq!(refused(bed.declare(2, queue_spec("own"))), LOCKED);
    assert_eq!(refused(bed.declare(1, queue_spec("own"))), LOCKED, "exclusive or not must be the same");
    assert_eq!(refused(bed.engine.check_queue(two, "own", now)), LOCKED);
    assert_eq!(refused(bed.engine.delete_queue(two, "own", false, false, now, &mut bed.out)), LOCKED);
    assert_eq!(refused(bed.engine.purge_queue(two, "own", now, &mut bed.out)), LOCKED);
    assert_eq!(words(bed.engine.bind(two, to_queue("amq.fanout", "own", ""), &mut bed.out)), LOCKED);
    assert_eq!(words(bed.engine.unbind(two, &to_queue("amq.fanout", "own", ""), &mut bed.out)), LOCKED);
    assert_eq!(words(bed.get(2, "own", true)), LOCKED);
    assert_eq!(refused(bed.consume_as(consumer(2, "own"))), LOCKED);
    bed.declare(1, own).unwrap();
    bed.publish_from(2, message("", "own", "a"), false).unwrap();
    assert_eq!(bed.length("own"), Some(1), "anybody may publish to it");
}

#[test]
fn what_is_not_there() {
    let mut bed = Bed::new(1);
    let one = ConnectionId(1);
    let now = bed.now_ms;
    let no_queue = "404 NOT_FOUND - no queue 'q' in vhost 'muster'";
    let no_exchange = "404 NOT_FOUND - no exchange 'x' in vhost 'muster'";
    assert_eq!(refused(bed.engine.check_queue(one, "q", now)), no_queue);
    assert_eq!(refused(bed.engine.purge_queue(one, "q", now, &mut bed.out)), no_queue);
    assert_eq!(words(bed.get(1, "q", true)), no_queue);
    assert_eq!(refused(bed.consume_as(consumer(1, "q"))), no_queue);
    assert_eq!(words(bed.bind(to_queue("amq.fanout", "q", ""))), no_queue);
    assert_eq!(words(bed.bind(to_exchange("amq.fanout", "x", ""))), no_exchange);
    bed.queue("q");
    assert_eq!(words(bed.bind(to_queue("x", "q", ""))), no_exchange);
    assert_eq!(words(bed.publish(message("x", "", "a"))), no_exchange);
    assert_eq!(refused(bed.engine.check_exchange("x")), no_exchange);
    assert_eq!(bed.engine.delete_queue(one, "other", true, true, now, &mut bed.out), Ok(0));
    assert_eq!(bed.engine.delete_exchange("x", true, now, &mut bed.out), Ok(()));
    for (tag, multiple) in [(0, false), (1, false), (1, true)] {
        let text = format!("406 PRECONDITION_FAILED - unknown delivery tag {tag}");
        assert_eq!(words(bed.ack(1, tag, multiple)), text);
        assert_eq!(words(bed.requeue(1, tag, multiple)), text);
    }
    bed.ack(1, 0, true).unwrap();
    let nowhere = (ConnectionId(9), 1);
    let unknown = bed.engine.publish(nowhere, Arc::new(message("", "q", "a")), false, now, &mut bed.out);
    assert_eq!(unknown.unwrap_err().code, 504);
}

#[test]
fn what_is_otherwise() {
    let mut bed = Bed::new(1);
    let limits = QueueLimits { expires_ms: Some(60_000), length_max: Some(5), ..QueueLimits::default() };
    bed.limited("q", limits);
    let of_queue = |text: &str| format!("406 PRECONDITION_FAILED - inequivalent arg {text}");
    for (spec, text) in [
        (
            QueueSpec { durable: true, limits, ..queue_spec("q") },
            "'durable' for queue 'q' in vhost 'muster': received 'true' but current is 'false'",
        ),
        (
            QueueSpec { auto_delete: true, limits, ..queue_spec("q") },
            "'auto_delete' for queue 'q' in vhost 'muster': received 'true' but current is 'false'",
        ),
        (
            queue_spec("q"),
            "'x-expires' for queue 'q' in vhost 'muster': received none but current is the value '60000' of type 'long'",
        ),
        (
            QueueSpec { limits: QueueLimits { length_max: Some(6), ..limits }, ..queue_spec("q") },
            "'x-max-length' for queue 'q' in vhost 'muster': received '6' but current is '5'",
        ),
        (
            QueueSpec { limits: QueueLimits { overflow: Some(Overflow::DropHead), ..limits }, ..queue_spec("q") },
            "'x-overflow' for queue 'q' in vhost 'muster': received the value 'drop-head' of type 'longstr' but current is none",
        ),
    ] {
        assert_eq!(refused(bed.declare(1, spec)), of_queue(text));
    }
    bed.exchange("x", ExchangeKind::Topic);
    let spec = exchange_spec("x", ExchangeKind::Topic);
    for (spec, text) in [
        (
            ExchangeSpec { kind: ExchangeKind::Direct, ..spec.clone() },
            "'type' for exchange 'x' in vhost 'muster': received 'direct' but current is 'topic'",
        ),
        (
            ExchangeSpec { durable: true, ..spec.clone() },
            "'durable' for exchange 'x' in vhost 'muster': received 'true' but current is 'false'",
        ),
        (
            ExchangeSpec { internal: true, ..spec.clone() },
            "'internal' for exchange 'x' in vhost 'muster': received 'true' but current is 'false'",
        ),
    ] {
        assert_eq!(words(bed.engine.declare_exchange(spec, &mut bed.out)), of_queue(text));
    }
    bed.engine.declare_exchange(spec, &mut bed.out).unwrap();
}

#[test]
fn what_is_in_use() {
    let mut bed = Bed::new(2);
    let one = ConnectionId(1);
    let now = bed.now_ms;
    bed.queue("q");
    bed.exchange("x", ExchangeKind::Direct);
    bed.bind(to_queue("x", "q", "k")).unwrap();
    bed.put("q", "a");
    let (out, engine) = (&mut bed.out, &mut bed.engine);
    assert_eq!(
        refused(engine.delete_queue(one, "q", false, true, now, out)),
        "406 PRECONDITION_FAILED - queue 'q' in vhost 'muster' not empty"
    );
    assert_eq!(
        words(engine.delete_exchange("x", true, now, out)),
        "406 PRECONDITION_FAILED - exchange 'x' in vhost 'muster' in use"
    );
    bed.consume(1, "q");
    assert_eq!(
        refused(bed.engine.delete_queue(one, "q", true, true, now, &mut bed.out)),
        "406 PRECONDITION_FAILED - queue 'q' in vhost 'muster' in use"
    );
    let in_use = "403 ACCESS_REFUSED - queue 'q' in vhost 'muster' in exclusive use";
    assert_eq!(refused(bed.consume_as(ConsumerSpec { exclusive: true, ..consumer(2, "q") })), in_use);
    bed.engine.cancel((one, 1), "q/1", now, &mut bed.out);
    bed.consume_as(ConsumerSpec { exclusive: true, ..consumer(1, "q") }).unwrap();
    assert_eq!(refused(bed.consume_as(consumer(2, "q"))), in_use);
    let again = bed.consume_as(consumer(1, "q")).unwrap_err();
    assert_eq!(again.to_string(), "530 NOT_ALLOWED - attempt to reuse consumer tag 'q/1'");
    assert_eq!(again.scope, crate::fault::Scope::Connection);
    bed.engine.cancel((one, 1), "q/1", now, &mut bed.out);
    bed.consume(2, "q");
}

#[test]
fn what_is_the_brokers_own() {
    let mut bed = Bed::new(1);
    let now = bed.now_ms;
    bed.queue("q");
    let default = "403 ACCESS_REFUSED - operation not permitted on the default exchange";
    assert_eq!(words(bed.bind(to_queue("", "q", "k"))), default);
    assert_eq!(words(bed.bind(to_exchange("amq.topic", "", "k"))), default);
    assert_eq!(words(bed.engine.unbind(ConnectionId(1), &to_queue("", "q", "q"), &mut bed.out)), default);
    assert_eq!(words(bed.engine.delete_exchange("", false, now, &mut bed.out)), default);
    assert_eq!(
        words(bed.engine.delete_exchange("amq.topic", false, now, &mut bed.out)),
        "403 ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost 'muster' not allowed"
    );
    assert_eq!(
        words(bed.engine.declare_exchange(exchange_spec("amq.mine", ExchangeKind::Topic), &mut bed.out)),
        "403 ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"
    );
    assert_eq!(
        refused(bed.declare(1, queue_spec("amq.mine"))),
        "403 ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"
    );
    let same = ExchangeSpec { durable: true, ..exchange_spec("amq.topic", ExchangeKind::Topic) };
    bed.engine.declare_exchange(same, &mut bed.out).unwrap();
    let internal = ExchangeSpec { internal: true, ..exchange_spec("inner", ExchangeKind::Fanout) };
    bed.engine.declare_exchange(internal, &mut bed.out).unwrap();
    assert_eq!(
        words(bed.publish(message("inner", "", "a"))),
        "403 ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost 'muster'"
    );
    bed.bind(to_exchange("amq.fanout", "inner", "")).unwrap();
    bed.bind(to_queue("inner", "q", "")).unwrap();
    bed.publish(message("amq.fanout", "", "a")).unwrap();
    assert_eq!(bed.length("q"), Some(1));
}

#[test]
fn limits_are_named() {
    let limits = Limits { queues_max: 2, bindings_max: 2, exchanges_max: 5, consumers_max: 2, ..LIMITS };
    let mut bed = Bed::with(limits, Vec::new(), 2);
    bed.queue("q");
    bed.queue("r");
    let fault = bed.declare(1, queue_spec("s")).unwrap_err();
    assert_eq!(fault.to_string(), "506 RESOURCE_ERROR - the broker has 2 queues, which is its limit");
    bed.queue("q");
    bed.exchange("x", ExchangeKind::Fanout);
    let more = exchange_spec("y", ExchangeKind::Fanout);
    assert_eq!(
        words(bed.engine.declare_exchange(more, &mut bed.out)),
        "506 RESOURCE_ERROR - the broker has 5 exchanges, which is its limit"
    );
    bed.bind(to_queue("x", "q", "a")).unwrap();
    bed.bind(to_queue("x", "q", "b")).unwrap();
    bed.bind(to_queue("x", "q", "b")).unwrap();
    assert_eq!(
        words(bed.bind(to_queue("x", "r", "a"))),
        "506 RESOURCE_ERROR - the broker has 2 bindings, which is its limit"
    );
    bed.publish(message("x", "", "a")).unwrap();
    assert_eq!((bed.length("q"), bed.length("r")), (Some(1), Some(0)), "what is refused is not done by half");
    bed.consume(1, "q");
    bed.consume(1, "r");
    assert_eq!(
        refused(bed.consume_as(ConsumerSpec { tag: "third".into(), ..consumer(1, "q") })),
        "506 RESOURCE_ERROR - the broker has 2 consumers on this connection, which is its limit"
    );
    bed.consume(2, "q");
}

#[test]
fn one_queue_or_exchange_takes_its_share_of_the_bindings_and_no_more() {
    let mut bed = Bed::with(Limits { bindings_max: 10_000, ..LIMITS }, Vec::new(), 1);
    for queue in ["q", "other"] {
        bed.queue(queue);
    }
    for number in 0..1_000 {
        bed.bind(to_queue("amq.topic", "q", &format!("key.{number}"))).unwrap();
    }
    bed.bind(to_queue("amq.topic", "q", "key.0")).unwrap();
    let fault = bed.bind(to_queue("amq.topic", "q", "one.more")).unwrap_err();
    assert_eq!((fault.code, fault.text.contains("bindings of one queue or exchange")), (506, true), "{fault}");
    bed.bind(to_queue("amq.topic", "other", "one.more")).unwrap();
    let with = |number: i32| {
        let mut binding = to_queue("amq.topic", "other", "alike");
        binding.arguments.insert("n".into(), amq_protocol::types::AMQPValue::LongInt(number));
        binding
    };
    (0..16).for_each(|number| bed.bind(with(number)).unwrap());
    bed.bind(with(3)).unwrap();
    let fault = bed.bind(with(16)).unwrap_err();
    assert_eq!((fault.code, fault.text.contains("arguments alone")), (506, true), "{fault}");
}
