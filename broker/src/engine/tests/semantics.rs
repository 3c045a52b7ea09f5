//! Routing, delivery, acknowledgement: what a client can tell.

use super::*;

#[test]
fn consumers_take_turns() {
    let mut bed = Bed::new(3);
    bed.queue("q");
    bed.consume(1, "q");
    bed.consume(2, "q");
    for body in ["a", "b", "c", "d"] {
        bed.put("q", body);
    }
    let expected = ["1: q/1 gets a #1", "2: q/2 gets b #1", "1: q/1 gets c #2", "2: q/2 gets d #2"];
    assert_eq!(bed.said(), lines(&expected));
}

#[test]
fn a_consumer_with_its_prefetch_unacknowledged_is_passed_over() {
    let mut bed = Bed::new(2);
    bed.queue("q");
    bed.qos(1, 1, false);
    bed.consume(1, "q");
    bed.consume(2, "q");
    for body in ["a", "b", "c"] {
        bed.put("q", body);
    }
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #1", "2: q/2 gets b #1", "2: q/2 gets c #2"]));
    bed.ack(1, 1, false).unwrap();
    bed.put("q", "d");
    bed.put("q", "e");
    assert_eq!(bed.said(), lines(&["2: q/2 gets d #3", "1: q/1 gets e #2"]));
}

#[test]
fn prefetch_of_a_channel_counts_all_its_consumers() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.queue("r");
    bed.qos(1, 2, true);
    bed.consume(1, "q");
    bed.consume(1, "r");
    for (queue, body) in [("q", "a"), ("r", "b"), ("q", "c"), ("r", "d")] {
        bed.put(queue, body);
    }
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #1", "1: r/1 gets b #2"]));
    bed.ack(1, 2, true).unwrap();
    assert_eq!(bed.said(), lines(&["1: q/1 gets c #3", "1: r/1 gets d #4"]));
    // A larger bound is room at once.
    bed.put("q", "e");
    assert_eq!(bed.said(), lines(&[]));
    bed.qos(1, 3, true);
    assert_eq!(bed.said(), lines(&["1: q/1 gets e #5"]));
}

#[test]
fn a_prefetch_holds_for_consumers_that_begin_after_it() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.consume(1, "q");
    bed.qos(1, 1, false);
    bed.put("q", "a");
    bed.put("q", "b");
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #1", "1: q/1 gets b #2"]));
}

#[test]
fn consume_ok_is_before_the_first_delivery() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.put("q", "a");
    let tag = bed.consume_as(ConsumerSpec { no_wait: false, tag: "".into(), ..consumer(1, "q") }).unwrap();
    assert!(tag.starts_with("amq.ctag-"));
    assert_eq!(bed.said(), [format!("1: consume-ok {tag}"), format!("1: {tag} gets a #1")]);
}

#[test]
fn what_comes_back_has_its_old_place_and_is_marked() {
    let mut bed = Bed::new(2);
    bed.queue("q");
    bed.qos(1, 3, false);
    bed.consume(1, "q");
    for body in ["a", "b", "c", "d"] {
        bed.put("q", body);
    }
    bed.said();
    bed.ack(1, 2, false).unwrap();
    bed.engine.cancel((ConnectionId(1), 1), "q/1", bed.now_ms, &mut bed.out);
    bed.said();
    // a, c and d are unacknowledged; they come back before what is published now.
    bed.put("q", "e");
    bed.requeue(1, 3, false).unwrap();
    bed.disconnect(1);
    bed.consume(2, "q");
    assert_eq!(
        bed.said(),
        lines(&["2: q/2 gets a #1 again", "2: q/2 gets c #2 again", "2: q/2 gets d #3 again", "2: q/2 gets e #4"])
    );
}

#[test]
fn recover_brings_everything_of_the_channel_back() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.qos(1, 2, false);
    bed.consume(1, "q");
    for body in ["a", "b", "c"] {
        bed.put("q", body);
    }
    bed.said();
    bed.engine.recover((ConnectionId(1), 1), bed.now_ms, &mut bed.out);
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #3 again", "1: q/1 gets b #4 again"]));
    assert!(bed.ack(1, 1, false).is_err(), "an old tag is no tag");
}

#[test]
fn rejected_without_requeue_is_gone() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.put("q", "a");
    bed.get(1, "q", false).unwrap();
    bed.engine.reject((ConnectionId(1), 1), 1, false, false, bed.now_ms, &mut bed.out).unwrap();
    bed.get(1, "q", false).unwrap();
    assert_eq!(bed.said(), lines(&["1: got a #1, 0 left", "1: get-empty"]));
    assert_eq!(bed.engine.counts().unacknowledged, 0);
}

#[test]
fn get_counts_what_is_left_and_takes_no_prefetch() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.qos(1, 1, true);
    for body in ["a", "b", "c"] {
        bed.put("q", body);
    }
    bed.get(1, "q", false).unwrap();
    bed.get(1, "q", true).unwrap();
    bed.consume(1, "q");
    assert_eq!(bed.said(), lines(&["1: got a #1, 2 left", "1: got b #2, 1 left", "1: q/1 gets c #3"]));
    bed.ack(1, 1, false).unwrap();
    assert_eq!(bed.ack(1, 2, false).unwrap_err().code, 406, "delivered without acknowledgement");
}

#[test]
fn exchanges_route_by_their_kind() {
    let mut bed = Bed::new(1);
    for queue in ["q", "r", "s"] {
        bed.queue(queue);
    }
    for (exchange, queue, key) in [
        ("amq.direct", "q", "a"),
        ("amq.direct", "r", "a"),
        ("amq.direct", "s", "b"),
        ("amq.fanout", "q", "whatever"),
        ("amq.fanout", "q", "twice"),
        ("amq.fanout", "s", ""),
        ("amq.topic", "q", "host.*"),
        ("amq.topic", "q", "#"),
        ("amq.topic", "r", "*.*.#"),
        ("amq.topic", "s", "host.#.web"),
    ] {
        bed.bind(to_queue(exchange, queue, key)).unwrap();
    }
    for (exchange, key, expected) in [
        ("amq.direct", "a", "qr"),
        ("amq.direct", "b", "s"),
        ("amq.direct", "c", ""),
        ("amq.fanout", "c", "qs"),
        ("amq.topic", "host.web", "qrs"),
        ("amq.topic", "host.a.web", "qrs"),
        ("amq.topic", "host", "q"),
        ("amq.topic", "", "q"),
        ("", "r", "r"),
        ("", "nobody", ""),
    ] {
        bed.publish(message(exchange, key, "x")).unwrap();
        let mut found = String::new();
        for queue in ["q", "r", "s"] {
            match bed.length(queue) {
                Some(0) => {}
                Some(1) => found.push_str(queue),
                other => panic!("{exchange} {key}: {other:?} messages in {queue}"),
            }
            bed.engine.purge_queue(ConnectionId(1), queue, bed.now_ms, &mut bed.out).unwrap();
        }
        assert_eq!(found, expected, "{exchange} {key}");
    }
}

#[test]
fn exchanges_bound_in_a_circle_deliver_once() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    for (name, kind) in [("x", ExchangeKind::Fanout), ("y", ExchangeKind::Topic), ("z", ExchangeKind::Direct)] {
        bed.exchange(name, kind);
    }
    for binding in
        [to_exchange("x", "y", ""), to_exchange("y", "z", "#"), to_exchange("z", "x", "k"), to_exchange("x", "x", "")]
    {
        bed.bind(binding).unwrap();
    }
    bed.bind(to_queue("x", "q", "")).unwrap();
    bed.bind(to_queue("z", "q", "k")).unwrap();
    for entrance in ["x", "y", "z"] {
        bed.publish(message(entrance, "k", entrance)).unwrap();
    }
    assert_eq!(bed.length("q"), Some(3));
    // The middle goes: the circle is open, and nothing is left of its bindings.
    bed.engine.delete_exchange("y", false, bed.now_ms, &mut bed.out).unwrap();
    bed.publish(message("x", "k", "x")).unwrap();
    assert_eq!(bed.length("q"), Some(4));
    for exchange in ["x", "z"] {
        bed.engine.delete_exchange(exchange, false, bed.now_ms, &mut bed.out).unwrap();
    }
    assert_eq!(bed.engine.counts().bindings, 0);
}

#[test]
fn bindings_are_told_apart_by_their_arguments() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    let mut arguments = FieldTable::default();
    arguments.insert("a".into(), amq_protocol::types::AMQPValue::LongInt(1));
    let plain = to_queue("amq.direct", "q", "k");
    let other = BindingSpec { arguments, ..plain.clone() };
    for binding in [&plain, &plain, &other, &other] {
        bed.bind(binding.clone()).unwrap();
    }
    assert_eq!(bed.engine.counts().bindings, 2);
    bed.publish(message("amq.direct", "k", "x")).unwrap();
    assert_eq!(bed.length("q"), Some(1), "two bindings, one message");
    bed.engine.unbind(ConnectionId(1), &plain, &mut bed.out).unwrap();
    bed.engine.unbind(ConnectionId(1), &plain, &mut bed.out).unwrap();
    bed.publish(message("amq.direct", "k", "x")).unwrap();
    assert_eq!(bed.length("q"), Some(2), "the other binding is still there");
    bed.engine.unbind(ConnectionId(1), &other, &mut bed.out).unwrap();
    bed.publish(message("amq.direct", "k", "x")).unwrap();
    assert_eq!((bed.length("q"), bed.engine.counts().bindings), (Some(2), 0));
}

#[test]
fn a_broadcast_is_remembered_only_until_a_binding_changes() {
    let mut bed = Bed::new(1);
    for queue in 0..40 {
        bed.queue(&format!("q{queue}"));
        bed.bind(to_queue("amq.topic", &format!("q{queue}"), "all")).unwrap();
    }
    let reached = |bed: &mut Bed| {
        let before = bed.engine.counts().ready;
        bed.publish(message("amq.topic", "all", "x")).unwrap();
        bed.engine.counts().ready - before
    };
    assert_eq!((reached(&mut bed), reached(&mut bed)), (40, 40));
    bed.engine.unbind(ConnectionId(1), &to_queue("amq.topic", "q7", "all"), &mut bed.out).unwrap();
    assert_eq!(reached(&mut bed), 39);
    bed.bind(to_queue("amq.topic", "q7", "#")).unwrap();
    assert_eq!(reached(&mut bed), 40);
    bed.engine.delete_queue(ConnectionId(1), "q8", false, false, bed.now_ms, &mut bed.out).unwrap();
    assert_eq!(reached(&mut bed), 39);
    bed.exchange("further", ExchangeKind::Fanout);
    bed.queue("last");
    bed.bind(to_queue("further", "last", "")).unwrap();
    bed.bind(to_exchange("amq.topic", "further", "all")).unwrap();
    assert_eq!(reached(&mut bed), 40);
}

#[test]
fn confirms_count_from_the_selection_and_come_after_the_return() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.consume(1, "q");
    bed.put("q", "unconfirmed");
    bed.engine.confirm_select((ConnectionId(1), 1));
    bed.engine.confirm_select((ConnectionId(1), 1));
    bed.put("q", "a");
    bed.publish_from(1, message("", "nobody", "b"), true).unwrap();
    bed.publish_from(1, message("", "nobody", "c"), false).unwrap();
    assert_eq!(
        bed.said(),
        lines(&[
            "1: q/1 gets unconfirmed #1",
            "1: q/1 gets a #2",
            "1: ack 1",
            "1: returned b 312 NO_ROUTE",
            "1: ack 2",
            "1: ack 3",
        ])
    );
}

#[test]
fn a_full_queue_refuses_or_drops() {
    for (overflow, said, left) in [
        (Some(Overflow::RejectPublish), ["1: ack 1", "1: ack 2", "1: nack 3"], ["a", "b"]),
        (Some(Overflow::DropHead), ["1: ack 1", "1: ack 2", "1: ack 3"], ["b", "c"]),
        (None, ["1: ack 1", "1: ack 2", "1: ack 3"], ["b", "c"]),
    ] {
        for limits in [
            QueueLimits { length_max: Some(2), overflow, ..QueueLimits::default() },
            QueueLimits { bytes_max: Some(2), overflow, ..QueueLimits::default() },
        ] {
            let mut bed = Bed::new(2);
            bed.engine.confirm_select((ConnectionId(1), 1));
            bed.limited("q", limits);
            for body in ["a", "b", "c"] {
                bed.put("q", body);
            }
            assert_eq!(bed.said(), lines(&said), "{limits:?}");
            bed.consume(2, "q");
            let got: Vec<String> =
                (1..).zip(left).map(|(number, body)| format!("2: q/2 gets {body} #{number}")).collect();
            assert_eq!(bed.said(), got, "{limits:?}");
            // What is unacknowledged does not wait, so there is room again.
            bed.put("q", "d");
            assert_eq!(bed.said()[0], "2: q/2 gets d #3");
        }
    }
}

#[test]
fn a_queue_that_nobody_reads_refuses_before_it_fills_the_broker() {
    let body = "x".repeat(60);
    for (overflow, read, last) in [
        (Overflow::RejectPublish, false, "1: nack 2"),
        (Overflow::RejectPublish, true, "1: ack 3"),
        (Overflow::DropHead, false, "1: ack 2"),
    ] {
        let mut bed = Bed::with(Limits { message_bytes_max: 400, ..LIMITS }, Vec::new(), 2);
        bed.engine.confirm_select((ConnectionId(1), 1));
        bed.limited("q", QueueLimits { overflow: Some(overflow), ..QueueLimits::default() });
        if read {
            bed.qos(2, 1, false);
            bed.consume(2, "q");
            bed.put("q", &body);
        }
        bed.put("q", &body);
        bed.put("q", &body);
        assert_eq!(bed.said().last().unwrap(), last, "{overflow:?}, read: {read}");
    }
}

#[test]
fn who_keeps_too_much_gets_nothing_more_until_it_is_acknowledged() {
    const BODY: usize = 1 << 20;
    // The bound is for what is kept too, but never less than the least.
    for (bytes_max, kept) in [(None, 40), (Some(20 * BODY as u64), 20), (Some(1 << 19), 16)] {
        let limits = QueueLimits { bytes_max, overflow: Some(Overflow::DropHead), ..QueueLimits::default() };
        let mut bed =
            Bed::with(Limits { message_bytes_max: 1 << 30, outbox_bytes_max: 1 << 30, ..LIMITS }, Vec::new(), 2);
        bed.limited("q", limits);
        bed.consume(2, "q");
        let body = "x".repeat(BODY);
        for _ in 0..40 {
            bed.put("q", &body);
        }
        assert_eq!(bed.said().len(), kept, "{bytes_max:?}");
        if kept == 40 {
            continue;
        }
        let waiting = bed.length("q").unwrap();
        // One after the other, or many at once; back to the queue, or gone with its channel.
        bed.ack(2, 1, false).unwrap();
        bed.ack(2, 4, true).unwrap();
        assert_eq!(bed.said().len(), (4).min(waiting as usize), "{bytes_max:?}");
        bed.requeue(2, 5, false).unwrap();
        assert!(bed.said().iter().all(|line| line.starts_with("2: q/2 gets")));
        bed.disconnect(2);
        let key = bed.engine.queue_names["q"];
        let queue = &bed.engine.queues[key];
        assert_eq!((queue.unacked_bytes, queue.is_owed_too_much()), (0, false));
    }
}

#[test]
fn what_comes_back_to_a_full_queue_is_its_oldest() {
    let mut bed = Bed::new(2);
    bed.limited("q", QueueLimits { length_max: Some(1), ..QueueLimits::default() });
    bed.put("q", "a");
    bed.get(1, "q", false).unwrap();
    bed.put("q", "b");
    bed.requeue(1, 1, false).unwrap();
    bed.said();
    bed.get(1, "q", false).unwrap();
    assert_eq!(bed.said(), lines(&["1: got b #2, 0 left"]));
}

#[test]
fn one_queue_that_refuses_makes_the_confirm_negative() {
    let mut bed = Bed::new(1);
    bed.engine.confirm_select((ConnectionId(1), 1));
    let overflow = Some(Overflow::RejectPublish);
    bed.limited("full", QueueLimits { length_max: Some(0), overflow, ..QueueLimits::default() });
    bed.queue("q");
    for queue in ["full", "q"] {
        bed.bind(to_queue("amq.fanout", queue, "")).unwrap();
    }
    bed.publish_from(1, message("amq.fanout", "", "a"), true).unwrap();
    assert_eq!(bed.said(), lines(&["1: nack 1"]));
    assert_eq!(bed.length("q"), Some(1));
}

#[test]
fn a_policy_and_an_argument_are_both_heeded() {
    let limits = |length_max, overflow| QueueLimits { length_max, overflow, ..QueueLimits::default() };
    let policy = |prefix: &str, limits| Policy { prefix: prefix.into(), limits };
    let policies = vec![
        policy("reply.", limits(Some(3), Some(Overflow::RejectPublish))),
        policy("reply.user/", limits(Some(2), None)),
    ];
    for (name, arguments, kept) in [
        ("other", limits(None, None), "abcd"),
        ("reply.x", limits(None, None), "abc"),
        ("reply.x", limits(Some(1), None), "a"),
        ("reply.x", limits(Some(9), None), "abc"),
        ("reply.x", limits(None, Some(Overflow::DropHead)), "bcd"),
        ("reply.user/x", limits(None, None), "cd"),
    ] {
        let mut bed = Bed::with(LIMITS, policies.clone(), 1);
        bed.limited(name, arguments);
        for body in ["a", "b", "c", "d"] {
            bed.put(name, body);
        }
        bed.consume(1, name);
        let said = bed.said();
        let got: String = said.iter().filter_map(|line| line.split(' ').nth(3)).collect();
        assert_eq!(got, kept, "{name} {arguments:?}");
    }
}

#[test]
fn queues_and_exchanges_go_with_their_last_user() {
    let mut bed = Bed::new(2);
    bed.declare(1, QueueSpec { auto_delete: true, ..queue_spec("auto") }).unwrap();
    let spec = ExchangeSpec { auto_delete: true, ..exchange_spec("x", ExchangeKind::Fanout) };
    bed.engine.declare_exchange(spec.clone(), &mut bed.out).unwrap();
    bed.engine.declare_exchange(ExchangeSpec { name: "before".into(), ..spec }, &mut bed.out).unwrap();
    bed.bind(to_exchange("before", "x", "")).unwrap();
    bed.bind(to_queue("x", "auto", "")).unwrap();
    bed.consume(1, "auto");
    bed.consume(2, "auto");
    bed.put("auto", "a");
    bed.disconnect(1);
    assert_eq!(bed.said(), lines(&["1: auto/1 gets a #1", "2: auto/2 gets a #1 again"]));
    assert_eq!(bed.engine.check_exchange("x"), Ok(ExchangeKind::Fanout));
    bed.engine.cancel((ConnectionId(2), 1), "auto/2", bed.now_ms, &mut bed.out);
    assert_eq!(bed.length("auto"), None);
    // The queue was the last binding of x, and x the last one of the exchange before it.
    for exchange in ["x", "before"] {
        assert_eq!(bed.engine.check_exchange(exchange).unwrap_err().code, 404, "{exchange}");
    }
    assert_eq!(bed.said(), lines(&[]), "who cancels is not told again");
    bed.ack(2, 1, false).unwrap();
    bed.disconnect(2);
    assert_eq!(bed.engine.counts().message_bytes, 0);
}

#[test]
fn consumers_hear_that_their_queue_is_gone() {
    let mut bed = Bed::new(3);
    bed.queue("q");
    for connection in 1..=3 {
        bed.consume(connection, "q");
    }
    bed.engine.delete_queue(ConnectionId(1), "q", false, false, bed.now_ms, &mut bed.out).unwrap();
    assert_eq!(bed.said(), lines(&["1: cancel q/1", "2: cancel q/2", "3: cancel q/3"]));
    assert_eq!(bed.engine.counts().consumers, 0);
    // The tag is free.
    bed.queue("q");
    bed.consume(1, "q");
}

#[test]
fn an_exclusive_queue_goes_with_its_connection() {
    let mut bed = Bed::new(2);
    let name = bed.declare(1, QueueSpec { exclusive: true, ..queue_spec("") }).unwrap().name;
    assert!(name.starts_with("amq.gen-"));
    bed.put(&name, "a");
    bed.consume(1, &name);
    bed.put(&name, "b");
    bed.disconnect(1);
    assert_eq!(bed.length(&name), None);
    assert_eq!((bed.engine.counts().message_bytes, bed.engine.counts().consumers), (0, 0));
    assert_eq!(bed.engine.check_queue(ConnectionId(2), &name, bed.now_ms).unwrap_err().code, 404);
}

#[test]
fn names_differ_from_those_of_another_run() {
    let name = |seed| {
        let mut engine = Engine::new(LIMITS, Vec::new(), Vec::new()).named("v", seed);
        engine.declare_queue(ConnectionId(1), queue_spec(""), 0, &mut Recorder::default()).unwrap().name
    };
    assert_ne!(name(1), name(2));
    assert_eq!(name(1), name(1));
}

#[test]
fn a_slow_connection_stops_only_itself() {
    let mut bed = Bed::with(Limits { outbox_bytes_max: 600, ..LIMITS }, Vec::new(), 2);
    let size = message("", "slow", "a").size();
    for queue in ["slow", "fast", "both"] {
        bed.queue(queue);
    }
    bed.consume(1, "slow");
    bed.consume(2, "fast");
    bed.consume(1, "both");
    bed.consume(2, "both");
    for body in ["a", "b", "c", "d", "e"] {
        bed.put("slow", body);
    }
    let got = ["a", "b", "c", "d"].map(|body| format!("1: slow/1 gets {body} #{}", body.as_bytes()[0] - 96));
    assert_eq!(bed.said(), got, "600 bytes are three messages; the fourth is what is too much");
    assert!(bed.engine.is_slow(ConnectionId(1)) && !bed.engine.is_slow(ConnectionId(2)));
    for (queue, body) in [("fast", "f"), ("both", "g"), ("both", "h")] {
        bed.put(queue, body);
        bed.engine.drained(ConnectionId(2), message("", queue, body).size(), bed.now_ms, &mut bed.out);
    }
    assert_eq!(bed.said(), lines(&["2: fast/2 gets f #1", "2: both/2 gets g #2", "2: both/2 gets h #3"]));
    // Read again from half of the bound on; parts of messages count together.
    for _ in 0..2 * size {
        assert_eq!(bed.said(), lines(&[]));
        bed.engine.drained(ConnectionId(1), 1, bed.now_ms, &mut bed.out);
    }
    assert_eq!(bed.said(), lines(&[]), "two of four are more than half of the bound");
    bed.engine.drained(ConnectionId(1), size, bed.now_ms, &mut bed.out);
    assert_eq!(bed.said(), lines(&["1: slow/1 gets e #5"]));
}

#[test]
fn no_flow_no_deliveries() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.consume(1, "q");
    bed.engine.flow((ConnectionId(1), 1), false, bed.now_ms, &mut bed.out);
    bed.put("q", "a");
    assert_eq!(bed.said(), lines(&[]));
    bed.engine.flow((ConnectionId(1), 1), true, bed.now_ms, &mut bed.out);
    assert_eq!(bed.said(), lines(&["1: q/1 gets a #1"]));
}

#[test]
fn a_broker_is_full_until_a_fifth_is_free() {
    let size = message("", "q", "x").size() + 64;
    let mut bed = Bed::with(Limits { message_bytes_max: 10 * size, ..LIMITS }, Vec::new(), 1);
    bed.queue("q");
    let mut published = 0;
    while !bed.engine.is_full() {
        bed.put("q", "x");
        published += 1;
        assert!(published < 20);
    }
    assert!(published >= 10);
    let mut freed = 0;
    while bed.engine.is_full() {
        bed.get(1, "q", true).unwrap();
        bed.engine.drained(ConnectionId(1), message("", "q", "x").size(), bed.now_ms, &mut bed.out);
        freed += 1;
    }
    assert!((2..=4).contains(&freed), "{freed}");
}

#[test]
fn a_message_is_counted_once_however_many_hold_it() {
    let mut bed = Bed::new(1);
    for queue in 0..50 {
        bed.queue(&format!("q{queue}"));
        bed.bind(to_queue("amq.fanout", &format!("q{queue}"), "")).unwrap();
    }
    let body = "x".repeat(100_000);
    bed.publish(message("amq.fanout", "", &body)).unwrap();
    let bytes = bed.engine.counts().message_bytes;
    assert!((100_000..110_000).contains(&bytes), "{bytes}");
    for queue in 0..50 {
        bed.engine.purge_queue(ConnectionId(1), &format!("q{queue}"), bed.now_ms, &mut bed.out).unwrap();
    }
    assert_eq!(bed.engine.counts().message_bytes, 0);
}
