//! Each refusal: its code, its words, and what it ends.

use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue, tx};
use amq_protocol::types::{AMQPValue, FieldArray, FieldTable};

use super::client::{Client, IntoClass, Refused, World, bind, consume, declare, method_frame, raw_frame};

/// What somebody is told who does this on channel 1, where queue `q` is declared.
fn told(method: impl IntoClass) -> Option<Refused> {
    told_of(&method_frame(1, method))
}

fn told_of(bytes: &[u8]) -> Option<Refused> {
    let mut world = World::new();
    let mut client = prepared(&mut world);
    client.write(&mut world, bytes);
    let refused = client.refused(&mut world);
    if let Some(refused) = &refused {
        assert_eq!(refused.channel == 0, !client.session.is_open(), "{refused:?}");
    }
    refused
}

fn prepared(world: &mut World) -> Client {
    let mut client = world.anybody();
    client.ask(world, 1, declare("q"));
    client.ask(world, 1, consume("q", "taken"));
    client
}

fn refused(code: u16, method: (u16, u16), channel: u16, text: &str) -> Option<Refused> {
    Some(Refused { code, text: text.to_owned(), method, channel })
}

fn with(name: &str, value: AMQPValue) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(name.into(), value);
    table
}

fn exchange(name: &str, kind: &str) -> exchange::Declare {
    exchange::Declare { exchange: name.into(), kind: kind.into(), ..exchange::Declare::default() }
}

#[test]
fn what_is_not_done_is_refused_and_named() {
    let not = |method: (u16, u16), what: &str| refused(540, method, 0, &format!("NOT_IMPLEMENTED - {what}"));
    let transactions = "transactions; publish with confirms instead";
    assert_eq!(told(tx::Select {}), not((90, 10), transactions));
    assert_eq!(told(tx::Commit {}), not((90, 20), transactions));
    assert_eq!(told(tx::Rollback {}), not((90, 30), transactions));
    assert_eq!(told(channel::Flow { active: false }), not((20, 20), "active=false"));
    assert_eq!(told(basic::Recover { requeue: false }), not((60, 110), "requeue=false"));
    assert_eq!(told(basic::RecoverAsync { requeue: false }), not((60, 100), "requeue=false"));
    assert_eq!(told(basic::Consume { no_local: true, ..consume("q", "c") }), not((60, 20), "no_local=true"));
    assert_eq!(told(exchange("e", "headers")), not((40, 10), "exchange type 'headers'"));
    assert_eq!(told(consume("amq.rabbitmq.reply-to", "c")), not((60, 20), "direct reply-to ('amq.rabbitmq.reply-to')"));
    assert_eq!(told(declare("amq.rabbitmq.reply-to")), not((50, 10), "direct reply-to ('amq.rabbitmq.reply-to')"));
    // basic.qos with a size, which the library cannot write; basic.credit; a class that nobody knows.
    let qos = [0, 60, 0, 10, 0, 0, 4, 0, 0, 1, 0];
    assert_eq!(told_of(&raw_frame(1, 1, &qos)), not((60, 10), "prefetch_size!=0 (1024)"));
    assert_eq!(told_of(&raw_frame(1, 1, &[0, 60, 0, 200])), not((60, 200), "method 60,200"));
    assert_eq!(told_of(&raw_frame(1, 1, &[0, 99, 0, 1, 5, 5])), not((99, 1), "method 99,1"));
    let secret = connection::UpdateSecret { new_secret: "x".into(), reason: "".into() };
    assert_eq!(
        told_of(&method_frame(0, secret)),
        not((10, 70), "connection.update-secret: there is no secret beside the certificate")
    );
}

#[test]
fn arguments_are_known_or_refused() {
    use AMQPValue::{Boolean, LongInt, LongLongInt, LongString, Timestamp, Void};
    let text = |text: &str| LongString(text.into());
    let not = |what: &str| Some((540, format!("NOT_IMPLEMENTED - {what}")));
    let invalid = |name: &str, why: &str| {
        Some((406, format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'new' in vhost 'muster': {why}")))
    };
    for (name, value, expected) in [
        ("x-expires", LongInt(1_000), None),
        ("x-expires", LongLongInt(315_360_000_000), None),
        ("x-expires", LongInt(0), invalid("x-expires", "{value_zero,0}")),
        ("x-expires", LongInt(-1), invalid("x-expires", "{value_negative,-1}")),
        ("x-expires", LongLongInt(315_360_000_001), invalid("x-expires", "{value_too_large,315360000001}")),
        ("x-expires", text("1000"), invalid("x-expires", "\"expected integer, got longstr\"")),
        ("x-message-ttl", LongInt(0), None),
        ("x-message-ttl", Timestamp(5), invalid("x-message-ttl", "\"expected integer, got timestamp\"")),
        ("x-max-length", LongInt(0), None),
        ("x-max-length", LongInt(-5), invalid("x-max-length", "{value_negative,-5}")),
        ("x-max-length-bytes", LongLongInt(1 << 40), None),
        ("x-max-length-bytes", Void, invalid("x-max-length-bytes", "\"expected integer, got void\"")),
        ("x-overflow", text("drop-head"), None),
        ("x-overflow", text("reject-publish"), None),
        ("x-overflow", text("reject-publish-dlx"), not("argument 'x-overflow' with the value 'reject-publish-dlx'")),
        ("x-overflow", text("drop-tail"), invalid("x-overflow", "invalid_overflow")),
        ("x-overflow", Boolean(true), invalid("x-overflow", "{unacceptable_type,bool}")),
        ("x-queue-type", text("classic"), None),
        ("x-queue-type", text("quorum"), not("argument 'x-queue-type' with the value 'quorum'")),
        ("x-queue-type", text("stream"), not("argument 'x-queue-type' with the value 'stream'")),
        ("x-queue-type", text("fast"), invalid("x-queue-type", "\"unsupported queue type 'fast'\"")),
        ("x-queue-mode", text("default"), None),
        ("x-queue-mode", text("lazy"), not("argument 'x-queue-mode' with the value 'lazy'")),
        ("x-queue-version", LongInt(2), None),
        ("x-queue-version", LongInt(3), invalid("x-queue-version", "\"unsupported queue version '3'\"")),
        ("x-single-active-consumer", Boolean(false), None),
        ("x-single-active-consumer", Boolean(true), not("argument 'x-single-active-consumer' with the value 'true'")),
        ("x-max-priority", LongInt(5), not("argument 'x-max-priority' of a queue")),
        ("x-dead-letter-exchange", text("d"), not("argument 'x-dead-letter-exchange' of a queue")),
        ("x-dead-letter-routing-key", text("d"), not("argument 'x-dead-letter-routing-key' of a queue")),
        ("x-max-age", text("1D"), not("argument 'x-max-age' of a queue")),
        ("made-up", Boolean(false), not("argument 'made-up' of a queue")),
    ] {
        let declare = queue::Declare { arguments: with(name, value.clone()), ..declare("new") };
        let told = told(declare).map(|refused| (refused.code, refused.text));
        assert_eq!(told, expected, "{name} {value:?}");
    }
    let invalid = |name: &str, why: &str| {
        Some((406, format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost 'muster'{why}")))
    };
    for (name, value, expected) in [
        ("x-priority", LongInt(0), None),
        ("x-priority", LongInt(3), not("argument 'x-priority' with the value '3'")),
        ("x-priority", text("3"), invalid("x-priority", ": \"expected integer, got longstr\"")),
        ("x-cancel-on-ha-failover", Boolean(true), None),
        ("x-cancel-on-ha-failover", LongInt(1), invalid("x-cancel-on-ha-failover", ": {unacceptable_type,signedint}")),
        ("x-stream-offset", text("first"), invalid("x-stream-offset", " of queue type rabbit_classic_queue")),
        ("made-up", Boolean(false), not("argument 'made-up' of a consumer")),
    ] {
        let consume = basic::Consume { arguments: with(name, value.clone()), ..consume("q", "c") };
        let told = told(consume).map(|refused| (refused.code, refused.text));
        assert_eq!(told, expected, "{name} {value:?}");
    }
    let alternate = exchange::Declare { arguments: with("alternate-exchange", text("a")), ..exchange("e", "topic") };
    assert_eq!(
        told(alternate).map(|refused| (refused.code, refused.text)),
        not("argument 'alternate-exchange' of an exchange")
    );
    let large = with("x", text(&"x".repeat(2_000)));
    let told = told(queue::Bind { arguments: large, ..bind("q", "amq.topic", "k") }).unwrap();
    assert_eq!(
        (told.code, told.text.as_str()),
        (406, "PRECONDITION_FAILED - the arguments of a binding are 2007 bytes, more than 128")
    );
}

#[test]
fn names_of_the_broker_are_its_own() {
    let denied = |method: (u16, u16), text: &str| refused(403, method, 1, &format!("ACCESS_REFUSED - {text}"));
    assert_eq!(told(declare("amq.new")), denied((50, 10), "queue name 'amq.new' contains reserved prefix 'amq.*'"));
    assert_eq!(
        told(exchange("amq.new", "topic")),
        denied((40, 10), "exchange name 'amq.new' contains reserved prefix 'amq.*'")
    );
    let durable = exchange::Declare { durable: true, ..exchange("amq.topic", "topic") };
    assert_eq!(told(durable), None, "it is there already");
    let default = "operation not permitted on the default exchange";
    assert_eq!(told(exchange("", "topic")), denied((40, 10), default));
    assert_eq!(told(exchange::Declare { passive: true, ..exchange("", "") }), denied((40, 10), default));
    assert_eq!(told(bind("q", "", "k")), denied((50, 20), default));
    assert_eq!(told(exchange::Delete::default()), denied((40, 20), default));
    let delete = exchange::Delete { exchange: "amq.topic".into(), ..exchange::Delete::default() };
    assert_eq!(told(delete), denied((40, 20), "deletion of system exchange 'amq.topic' in vhost 'muster' not allowed"));
}

#[test]
fn the_engine_refuses_in_rabbitmqs_words() {
    let gone = |method: (u16, u16), text: &str| refused(404, method, 1, &format!("NOT_FOUND - {text}"));
    let no_queue = "no queue 'none' in vhost 'muster'";
    let no_exchange = "no exchange 'none' in vhost 'muster'";
    assert_eq!(told(queue::Declare { passive: true, ..declare("none") }), gone((50, 10), no_queue));
    assert_eq!(told(bind("none", "amq.topic", "k")), gone((50, 20), no_queue));
    assert_eq!(told(bind("q", "none", "k")), gone((50, 20), no_exchange));
    assert_eq!(told(consume("none", "c")), gone((60, 20), no_queue));
    assert_eq!(told(basic::Get { queue: "none".into(), no_ack: true }), gone((60, 70), no_queue));
    assert_eq!(told(queue::Purge { queue: "none".into(), nowait: false }), gone((50, 30), no_queue));
    assert_eq!(told(exchange::Declare { passive: true, ..exchange("none", "") }), gone((40, 10), no_exchange));
    assert_eq!(
        told(consume("q", "taken")),
        refused(530, (60, 20), 0, "NOT_ALLOWED - attempt to reuse consumer tag 'taken'")
    );
    assert_eq!(
        told(queue::Declare { durable: true, ..declare("q") }),
        refused(
            406,
            (50, 10),
            1,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost 'muster': received 'true' but \
             current is 'false'"
        )
    );
    assert_eq!(
        told(basic::Ack { delivery_tag: 77, multiple: false }),
        refused(406, (60, 80), 1, "PRECONDITION_FAILED - unknown delivery tag 77")
    );
}

#[test]
fn a_method_at_the_wrong_time_ends_the_connection() {
    let unimplemented = |method| refused(503, method, 0, "COMMAND_INVALID - unimplemented method");
    assert_eq!(told(channel::Open {}), refused(504, (20, 10), 0, "CHANNEL_ERROR - second 'channel.open' seen"));
    assert_eq!(
        told(exchange("e", "x-weird")),
        refused(503, (40, 10), 0, "COMMAND_INVALID - unknown exchange type 'x-weird'")
    );
    assert_eq!(told(connection::CloseOk {}), unimplemented((10, 51)));
    assert_eq!(told(channel::CloseOk {}), unimplemented((20, 41)));
    for (method, id) in [
        (channel::OpenOk {}.into_class(), (20, 11)),
        (queue::DeclareOk::default().into_class(), (50, 11)),
        (exchange::BindOk {}.into_class(), (40, 31)),
        (basic::GetEmpty {}.into_class(), (60, 72)),
        (basic::QosOk {}.into_class(), (60, 11)),
        (confirm::SelectOk {}.into_class(), (85, 11)),
        (start(), (10, 10)),
    ] {
        assert_eq!(told(method), unimplemented(id), "{id:?}");
    }
    let expected_open = refused(504, (50, 10), 0, "CHANNEL_ERROR - expected 'channel.open'");
    assert_eq!(told_of(&method_frame(2, declare("x"))), expected_open);
    let running = "CHANNEL_ERROR - unexpected method in connection state running";
    assert_eq!(told_of(&method_frame(0, declare("x"))), refused(504, (50, 10), 0, running));
    assert_eq!(told_of(&method_frame(0, super::client::tune_ok())), refused(504, (10, 31), 0, running));
}

/// The method that a broker begins with.
fn start() -> AMQPClass {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: FieldTable::default(),
        mechanisms: "PLAIN".into(),
        locales: "en_US".into(),
    }
    .into_class()
}

#[test]
fn frames_that_cannot_be_read_end_the_connection() {
    let bad = |text: &str| refused(501, (0, 0), 0, &format!("FRAME_ERROR - {text}"));
    assert_eq!(told_of(&[9, 0, 0, 0, 0, 0, 3]), bad("type 9, all octets = <<>>: unknown_frame"));
    assert_eq!(told_of(&[8, 0, 0, 0, 0, 0, 3]), bad("type 8, all octets = <<>>: unknown_frame"));
    assert_eq!(told_of(&raw_frame(1, 1, &[0, 60, 0])), bad("type 1, all octets = <<0,60,0>>: unknown_frame"));
    assert_eq!(
        told_of(&[3, 0, 1, 0, 0, 0x20, 1]),
        bad("type 3, all octets = <<>>: {frame_too_large,8193,8184}"),
        "8,192 was agreed on"
    );
    let mut frame = raw_frame(1, 1, &[0, 20, 0, 10, 0]);
    *frame.last_mut().unwrap() = 0;
    assert_eq!(told_of(&frame), bad("type 1, all octets = <<0,20,0,10,0>>: {invalid_frame_end_marker,0}"));
    let mut frame = raw_frame(3, 1, &[b'x'; 20]);
    *frame.last_mut().unwrap() = 7;
    // The body itself cannot come now; with a publish before it, its end is what is wrong.
    let mut bytes = method_frame(1, basic::Publish { routing_key: "q".into(), ..basic::Publish::default() });
    bytes.extend(super::client::header_frame(1, &amq_protocol::protocol::BasicProperties::default(), 20));
    bytes.extend(&frame);
    assert_eq!(
        told_of(&bytes),
        bad("type 3, first 16 octets = <<120,120,120,120,120,120,120,120,120,120,120,120,120,120,120,120>>: \
             {invalid_frame_end_marker,7}")
    );
    let unexpected = |text: &str| refused(505, (0, 0), 0, &format!("UNEXPECTED_FRAME - {text}"));
    assert_eq!(told_of(&raw_frame(8, 3, b"")), unexpected("type 8, all octets = <<>>"));
    assert_eq!(told_of(&raw_frame(3, 0, b"ab")), unexpected("type 3"));
}

#[test]
fn methods_that_cannot_be_read_end_the_connection() {
    let text = |payload: &[u8]| {
        let refused = told_of(&raw_frame(1, 1, payload)).unwrap();
        assert_eq!((refused.code, refused.channel), (502, 0), "{payload:?}");
        refused.text
    };
    let length = "its fields are longer or shorter than the frame";
    assert_eq!(text(&[0, 60, 0, 80, 1]), format!("SYNTAX_ERROR - method 60,80 cannot be read: {length}"));
    assert_eq!(text(&[0, 20, 0, 10, 0, 9]), format!("SYNTAX_ERROR - method 20,10 cannot be read: {length}"));
    assert_eq!(text(&[0, 60, 0, 40, 0, 0, 9, 1]), format!("SYNTAX_ERROR - method 60,40 cannot be read: {length}"));
    assert_eq!(
        text(&[0, 60, 0, 40, 0, 0, 1, 0xFF, 0, 0]),
        "SYNTAX_ERROR - method 60,40 cannot be read: a short string is not UTF-8"
    );
    assert_eq!(
        text(&[0, 50, 0, 40, 0, 0, 1, 0xFF, 0]),
        "SYNTAX_ERROR - method 50,40 cannot be read: a short string is not UTF-8"
    );
    // queue.declare of `a` with a table.
    let declare = |table: &[u8]| {
        let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'a', 0];
        payload.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        payload.extend(table);
        payload
    };
    assert_eq!(
        text(&declare(b"\x01xz")),
        "SYNTAX_ERROR - method 50,10 cannot be read: a table has a value of an unknown type"
    );
    assert_eq!(text(&declare(b"\x01xt")), format!("SYNTAX_ERROR - method 50,10 cannot be read: {length}"));
}

#[test]
fn no_table_is_too_deep_for_us() {
    // As deep as a frame can hold; the library would need megabytes of stack for it.
    let mut inner = Vec::new();
    while inner.len() < 7_000 {
        let mut outer = vec![0, b'F'];
        outer.extend(u32::try_from(inner.len()).unwrap().to_be_bytes());
        outer.extend(&inner);
        inner = outer;
    }
    let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'a', 0];
    payload.extend(u32::try_from(inner.len()).unwrap().to_be_bytes());
    payload.extend(&inner);
    let complex = "a table is too deep or has too many values";
    let refused = told_of(&raw_frame(1, 1, &payload)).unwrap();
    assert_eq!(refused.text, format!("SYNTAX_ERROR - method 50,10 cannot be read: {complex}"));
    // And as wide.
    let wide = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void; 2_000]));
    let declare = queue::Declare { arguments: with("x", wide), ..declare("a") };
    let refused = told(declare).unwrap();
    assert_eq!(refused.text, format!("SYNTAX_ERROR - method 50,10 cannot be read: {complex}"));
}

#[test]
fn long_words_are_cut() {
    let name = "x".repeat(250);
    let refused = told(queue::Declare { passive: true, ..declare(&name) }).unwrap();
    assert_eq!(refused.text.len(), 255);
    assert!(refused.text.starts_with("NOT_FOUND - no queue 'xxx") && refused.text.ends_with("xxx..."));
    // Not in the middle of a character.
    let name = "\u{e9}".repeat(127);
    let refused = told(queue::Declare { passive: true, ..declare(&name) }).unwrap();
    assert!(refused.text.len() <= 255 && refused.text.ends_with("\u{e9}..."), "{}", refused.text);
}
