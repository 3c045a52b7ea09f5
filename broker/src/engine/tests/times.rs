//! What time does: messages and queues expire.

use super::*;

fn expiring(key: &str, body: &str, expiration_ms: u64) -> Message {
    Message { expiration_ms: Some(expiration_ms), ..message("", key, body) }
}

fn ttl(milliseconds: u64) -> QueueLimits {
    QueueLimits { message_ttl_ms: Some(milliseconds), ..QueueLimits::default() }
}

fn expires(milliseconds: u64) -> QueueLimits {
    QueueLimits { expires_ms: Some(milliseconds), ..QueueLimits::default() }
}

#[test]
fn messages_expire_by_the_queue_or_by_themselves() {
    let mut bed = Bed::new(1);
    bed.limited("q", ttl(100));
    bed.put("q", "a");
    bed.publish(expiring("q", "b", 500)).unwrap();
    bed.wait(50);
    bed.publish(expiring("q", "c", 10)).unwrap();
    assert_eq!(bed.length("q"), Some(3));
    bed.wait(49);
    assert_eq!(bed.length("q"), Some(3), "c is over, but not the head");
    assert_eq!(bed.engine.next_deadline(), Some(1_100));
    bed.wait(1);
    assert_eq!(bed.length("q"), Some(0));
    assert_eq!(bed.engine.next_deadline(), None);
    assert_eq!(bed.engine.counts().message_bytes, 0);
}

#[test]
fn what_has_expired_is_not_delivered_even_before_the_tick() {
    let mut bed = Bed::new(1);
    bed.queue("q");
    bed.publish(expiring("q", "a", 10)).unwrap();
    bed.put("q", "b");
    bed.now_ms += 10;
    bed.get(1, "q", true).unwrap();
    bed.publish(expiring("q", "c", 10)).unwrap();
    bed.now_ms += 10;
    bed.consume(1, "q");
    assert_eq!(bed.said(), lines(&["1: got b #1, 0 left"]));
}

#[test]
fn no_time_at_all_is_now_or_never() {
    let mut bed = Bed::new(2);
    bed.queue("q");
    bed.engine.confirm_select((ConnectionId(1), 1));
    bed.publish(expiring("q", "a", 0)).unwrap();
    assert_eq!((bed.said(), bed.length("q")), (lines(&["1: ack 1"]), Some(0)));
    bed.consume(2, "q");
    bed.publish(expiring("q", "b", 0)).unwrap();
    assert_eq!(bed.said(), lines(&["2: q/2 gets b #1", "1: ack 2"]));
    // Back in the queue, its time is over.
    bed.requeue(2, 1, false).unwrap();
    assert_eq!((bed.said(), bed.length("q")), (lines(&[]), Some(0)));
}

#[test]
fn what_comes_back_keeps_its_time() {
    let mut bed = Bed::new(1);
    bed.limited("q", ttl(100));
    bed.put("q", "a");
    bed.get(1, "q", false).unwrap();
    assert_eq!(bed.engine.next_deadline(), Some(1_100), "perhaps too early, and harmless");
    bed.wait(50);
    bed.requeue(1, 1, false).unwrap();
    bed.wait(49);
    assert_eq!(bed.length("q"), Some(1));
    bed.wait(1);
    assert_eq!(bed.length("q"), Some(0));
}

#[test]
fn a_queue_expires_without_consumers_gets_and_declarations() {
    type Use = fn(&mut Bed);
    let uses: [(&str, Use, bool); 5] = [
        ("nothing", |_| {}, false),
        ("publish", |bed| bed.put("q", "a"), false),
        ("get", |bed| bed.get(1, "q", true).unwrap(), true),
        ("declare", |bed| bed.limited("q", expires(100)), true),
        ("passive", |bed| drop(bed.engine.check_queue(ConnectionId(1), "q", bed.now_ms).unwrap()), true),
    ];
    for (name, action, prolongs) in uses {
        let mut bed = Bed::new(1);
        bed.limited("q", expires(100));
        bed.wait(60);
        action(&mut bed);
        bed.wait(39);
        assert!(bed.length("q").is_some(), "{name}: at 99");
        bed.wait(1);
        assert_eq!(bed.length("q").is_some(), prolongs, "{name}: at 100");
        bed.wait(60);
        assert_eq!(bed.length("q"), None, "{name}: at 160");
        assert_eq!(bed.engine.next_deadline(), None, "{name}");
    }
}

#[test]
fn a_queue_expires_after_its_last_consumer() {
    let mut bed = Bed::new(3);
    bed.limited("q", expires(100));
    bed.consume(1, "q");
    bed.consume(2, "q");
    bed.wait(1_000);
    bed.disconnect(1);
    bed.wait(1_000);
    assert_eq!(bed.length("q"), Some(0));
    bed.publish_from(3, message("", "q", "a"), false).unwrap();
    bed.disconnect(2);
    bed.wait(99);
    assert_eq!(bed.length("q"), Some(1), "what was unacknowledged is back");
    bed.wait(1);
    assert_eq!((bed.length("q"), bed.engine.counts().message_bytes), (None, 0));
}

#[test]
fn the_list_of_deadlines_has_each_queue_once() {
    let mut bed = Bed::new(1);
    for number in 0..20 {
        bed.limited(&format!("q{number}"), QueueLimits { expires_ms: Some(1_000_000), ..ttl(100 + number) });
    }
    for round in 0..50_u64 {
        for number in 0..20 {
            bed.publish(expiring(&format!("q{number}"), "x", 100 - round)).unwrap();
            if round % 3 == 0 {
                bed.get(1, &format!("q{number}"), true).unwrap();
            }
        }
        bed.wait(1);
        assert!(bed.engine.deadlines.len() <= 20);
    }
}
