//! Contents: put together, looked at, handed on.

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic, queue};
use amq_protocol::types::{AMQPValue, FieldTable};

use super::client::{
    Client, IntoClass, World, consume, declare, frame_bytes, header_frame, method_frame, published, raw_frame,
};

/// What a consumer of `q` is sent of a message to it.
fn delivered(world: &mut World, client: &mut Client, bytes: &[u8]) -> Option<(BasicProperties, Vec<u8>)> {
    client.write(world, bytes);
    let frames = client.frames(world);
    let header = frames.iter().find_map(|frame| match frame {
        AMQPFrame::Header(1, header) => Some(header.clone()),
        _ => None,
    })?;
    let parts = frames.iter().filter_map(|frame| match frame {
        AMQPFrame::Body(1, part) => Some(part.clone()),
        _ => None,
    });
    let body = parts.collect::<Vec<_>>().concat();
    assert_eq!(header.body_size, body.len() as u64);
    Some((header.properties, body))
}

fn consumer(world: &mut World) -> Client {
    let mut client = world.anybody();
    client.ask(world, 1, declare("q"));
    client.ask(world, 1, basic::Consume { no_ack: true, ..consume("q", "c") });
    client
}

#[test]
fn what_is_published_is_delivered_unchanged() {
    let mut headers = FieldTable::default();
    headers.insert("h".into(), AMQPValue::LongString("v".into()));
    let full = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(1_795_000_000)
        .with_type("t".into())
        .with_user_id("user/anybody".into())
        .with_app_id("a".into())
        .with_cluster_id("l".into());
    let mut world = World::new();
    let mut client = consumer(&mut world);
    for properties in [BasicProperties::default(), full] {
        for size in [0, 1, 999, 1_000, 1_001, 8_184, 8_185, 50_000, 100_000] {
            let body: Vec<u8> = (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let bytes = published(1, "", "q", &properties, &body);
            let came = delivered(&mut world, &mut client, &bytes);
            assert_eq!(came.as_ref().map(|(_, body)| body.len()), Some(size));
            assert!(came == Some((properties.clone(), body)), "{size}");
        }
    }
}

#[test]
fn no_frame_is_larger_than_was_agreed() {
    let mut world = World::new();
    let mut client = consumer(&mut world);
    client.write(&mut world, &published(1, "", "q", &BasicProperties::default(), &[1; 50_000]));
    let bytes = client.bytes(&mut world);
    let mut rest = &bytes[..];
    let mut largest = 0;
    while let [_, _, _, a, b, c, d, ..] = *rest {
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap() + 8;
        assert_eq!(rest[size - 1], 0xCE);
        largest = largest.max(size);
        rest = &rest[size..];
    }
    assert_eq!((rest.len(), largest), (0, 8_192));
}

#[test]
fn a_content_without_a_queue_comes_back() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.publish(&mut world, 1, "", "none", b"lost");
    let frames = client.frames(&mut world);
    let AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Return(returned))) = &frames[0] else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (returned.reply_code, returned.reply_text.as_str(), returned.routing_key.as_str()),
        (312, "NO_ROUTE", "none")
    );
    assert!(matches!(&frames[2], AMQPFrame::Body(1, body) if body == b"lost"));
}

#[test]
fn properties_are_checked() {
    let plain = BasicProperties::default();
    let failed = |text: &str| Some((406, format!("PRECONDITION_FAILED - {text}")));
    let not = |text: &str| Some((540, format!("NOT_IMPLEMENTED - {text}")));
    let headers = |name: &str| {
        let mut table = FieldTable::default();
        table.insert(name.into(), AMQPValue::LongString("x".into()));
        BasicProperties::default().with_headers(table)
    };
    let large = |bytes: usize| {
        let mut table = FieldTable::default();
        table.insert("x".into(), AMQPValue::LongString("x".repeat(bytes).into()));
        BasicProperties::default().with_headers(table)
    };
    for (properties, expected) in [
        (plain.clone().with_expiration("0".into()), None),
        (plain.clone().with_expiration("+5".into()), None),
        (plain.clone().with_expiration("315360000000".into()), None),
        (plain.clone().with_expiration("".into()), failed("invalid expiration '': no_integer")),
        (plain.clone().with_expiration("soon".into()), failed("invalid expiration 'soon': no_integer")),
        (plain.clone().with_expiration("-".into()), failed("invalid expiration '-': no_integer")),
        (plain.clone().with_expiration("10s".into()), failed("invalid expiration '10s': {leftover_string,\"s\"}")),
        (plain.clone().with_expiration("1 ".into()), failed("invalid expiration '1 ': {leftover_string,\" \"}")),
        (plain.clone().with_expiration("-1".into()), failed("invalid expiration '-1': {value_negative,-1}")),
        (
            plain.clone().with_expiration("315360000001".into()),
            failed("invalid expiration '315360000001': {value_too_large,315360000001}"),
        ),
        (plain.clone().with_user_id("user/anybody".into()), None),
        (
            plain.clone().with_user_id("user/lea".into()),
            failed("user_id property set to 'user/lea' but authenticated user was 'user/anybody'"),
        ),
        (plain.clone().with_reply_to("anywhere".into()), None),
        (plain.with_reply_to("amq.rabbitmq.reply-to".into()), not("direct reply-to ('amq.rabbitmq.reply-to')")),
        (headers("cc"), None),
        (headers("CC"), not("sender-selected distribution (header 'CC')")),
        (headers("BCC"), not("sender-selected distribution (header 'BCC')")),
        // As many as fit into the frame that was agreed: signatures alone may be 12 KiB.
        (large(8_000), None),
    ] {
        let mut world = World::new();
        let mut client = consumer(&mut world);
        client.write(&mut world, &published(1, "", "q", &properties, b"x"));
        let refused = client.refused(&mut world).map(|refused| (refused.code, refused.text));
        assert_eq!(refused, expected, "{properties:?}");
    }
}

#[test]
fn who_asks_for_what_is_not_done_publishes_nothing() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.ask(&mut world, 1, declare("q"));
    let publish = basic::Publish { routing_key: "q".into(), immediate: true, ..basic::Publish::default() };
    client.send(&mut world, 1, publish);
    client.write(&mut world, &header_frame(1, &BasicProperties::default(), 0));
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, &*refused.text, refused.channel), (540, "NOT_IMPLEMENTED - immediate=true", 0));
    let mut other = world.anybody();
    let AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) = other.ask(&mut world, 1, declare("q")) else { panic!() };
    assert_eq!(ok.message_count, 0);
}

/// A header by hand.
fn header(class: u16, weight: u16, size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(class.to_be_bytes());
    payload.extend(weight.to_be_bytes());
    payload.extend(size.to_be_bytes());
    payload.extend(properties);
    raw_frame(2, 1, &payload)
}

#[test]
fn frames_of_a_content_come_in_order() {
    let publish = method_frame(1, basic::Publish { routing_key: "q".into(), ..basic::Publish::default() });
    let good = header(60, 0, 3, &[0, 0]);
    let body = frame_bytes(&AMQPFrame::Body(1, b"abc".to_vec()));
    let no_method = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    let no_header = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
    let no_body = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
    let heartbeat = raw_frame(8, 0, b"");
    let other = method_frame(1, declare("q"));
    let table = |text: &str| format!("SYNTAX_ERROR - a content header cannot be read: {text}");
    for (frames, code, text) in [
        (vec![&good], 505, no_method.to_owned()),
        (vec![&body], 505, no_method.to_owned()),
        (vec![&publish, &body], 505, no_header.to_owned()),
        (vec![&publish, &publish], 505, no_header.to_owned()),
        (vec![&publish, &heartbeat, &other], 505, no_header.to_owned()),
        (vec![&publish, &good, &good], 505, no_body.to_owned()),
        (vec![&publish, &good, &heartbeat, &other], 505, no_body.to_owned()),
        (vec![&publish, &good, &body, &body], 505, no_method.to_owned()),
        (
            vec![&publish, &header(50, 0, 3, &[0, 0])],
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead".to_owned(),
        ),
        (vec![&publish, &header(60, 1, 3, &[0, 0])], 505, no_header.to_owned()),
        (
            vec![&publish, &raw_frame(2, 1, &[0, 60, 0, 0])],
            501,
            "FRAME_ERROR - type 2, all octets = <<0,60,0,0>>: unknown_frame".to_owned(),
        ),
        (
            vec![&publish, &header(60, 0, 2, &[0, 0]), &body],
            501,
            "FRAME_ERROR - a content body is longer than its header says".to_owned(),
        ),
        (vec![&publish, &header(60, 0, 0, &[0])], 502, table("its fields are longer or shorter than the frame")),
        (vec![&publish, &header(60, 0, 0, &[0, 0, 0])], 502, table("its fields are longer or shorter than the frame")),
        (vec![&publish, &header(60, 0, 0, &[0, 1])], 502, table("its fields are longer or shorter than the frame")),
        (vec![&publish, &header(60, 0, 0, &[0x80, 0, 1, 0xFF])], 502, table("a short string is not UTF-8")),
        (
            vec![&publish, &header(60, 0, 0, &[0x20, 0, 0, 0, 0, 3, 1, b'x', b'?'])],
            502,
            table("a table has a value of an unknown type"),
        ),
    ]
    .iter()
    .map(|(frames, code, text)| (frames, *code, text))
    {
        let mut world = World::new();
        let mut client = world.anybody();
        client.ask(&mut world, 1, declare("q"));
        for frame in frames {
            client.write(&mut world, frame);
        }
        let refused = client.refused(&mut world).unwrap();
        assert_eq!((refused.code, &refused.text, refused.channel), (code, text, 0), "{frames:?}");
    }
}

#[test]
fn contents_of_two_channels_may_be_mixed() {
    let mut world = World::new();
    let mut client = consumer(&mut world);
    client.open_channel(&mut world, 2);
    let one = published(1, "", "q", &BasicProperties::default(), &[1; 2_500]);
    let two = published(2, "", "q", &BasicProperties::default(), &[2; 2_500]);
    let cut = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        while let [_, _, _, a, b, c, d, ..] = *rest {
            let (frame, after) = rest.split_at(usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap() + 8);
            frames.push(frame.to_vec());
            rest = after;
        }
        frames
    };
    for (one, two) in cut(&one).iter().zip(&cut(&two)) {
        client.write(&mut world, one);
        client.write(&mut world, two);
    }
    let bodies: Vec<u8> = client
        .frames(&mut world)
        .into_iter()
        .filter_map(|frame| match frame {
            AMQPFrame::Body(1, part) => Some(part),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(bodies, [[1; 2_500], [2; 2_500]].concat());
}

#[test]
fn properties_of_contents_that_never_come_are_bounded_too() {
    let mut world = World::new();
    world.settings.message_bytes_max = 10_000;
    let mut client = world.anybody();
    let mut headers = FieldTable::default();
    headers.insert("x".into(), AMQPValue::LongString(vec![b'x'; 7_000].into()));
    let properties = BasicProperties::default().with_headers(headers);
    for channel in 1..=6 {
        if channel > 1 {
            client.open_channel(&mut world, channel);
        }
        let publish = basic::Publish { routing_key: "q".into(), ..basic::Publish::default() };
        let mut bytes = method_frame(channel, publish);
        bytes.extend(header_frame(channel, &properties, 10_000));
        client.write(&mut world, &bytes);
        if channel < 6 {
            assert_eq!(client.frames(&mut world), [], "channel {channel}");
        }
    }
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, refused.channel), (506, 0));
    assert!(refused.text.contains("incomplete contents on all channels"), "{}", refused.text);
}

#[test]
fn incomplete_contents_are_bounded() {
    let mut world = World::new();
    world.settings.message_bytes_max = 10_000;
    let mut client = world.anybody();
    let unfinished = |channel: u16| {
        let mut bytes = method_frame(channel, basic::Publish { routing_key: "q".into(), ..basic::Publish::default() });
        bytes.extend(header_frame(channel, &BasicProperties::default(), 10_000));
        for _ in 0..9 {
            bytes.extend(frame_bytes(&AMQPFrame::Body(channel, vec![0; 1_100])));
        }
        bytes
    };
    for channel in 1..=4 {
        if channel > 1 {
            client.open_channel(&mut world, channel);
        }
        client.write(&mut world, &unfinished(channel));
        assert_eq!(client.frames(&mut world), []);
    }
    client.open_channel(&mut world, 5);
    client.write(&mut world, &unfinished(5));
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, refused.channel), (506, 0));
    assert!(refused.text.contains("incomplete contents on all channels"), "{}", refused.text);
    // A channel that ends gives back what it held.
    let mut client = world.anybody();
    for channel in 2..=4 {
        client.open_channel(&mut world, channel);
    }
    for round in 0..10 {
        let channel = 1 + round % 4;
        client.write(&mut world, &unfinished(channel));
        client.write(&mut world, &frame_bytes(&AMQPFrame::Body(channel, vec![0; 100])));
        client.frames(&mut world);
    }
    assert!(client.session.is_open());
}

#[test]
fn a_full_broker_lets_its_publishers_wait() {
    let mut limits = super::client::limits();
    limits.message_bytes_max = 50_000;
    let mut world = World::with(limits);
    let mut client = world.anybody();
    client.ask(&mut world, 1, declare("q"));
    for _ in 0..10 {
        client.publish(&mut world, 1, "", "q", &[0; 6_000]);
    }
    assert_eq!(client.progress, muster_broker::session::Progress::Blocked);
    let blocked = amq_protocol::protocol::connection::Blocked { reason: "low on memory".into() };
    assert_eq!(client.methods(&mut world), [(0, blocked.into_class())], "told once");
    // While nothing is read from it, it is not dead.
    world.now_ms += 300_000;
    let now_ms = world.now_ms;
    client.session.tick(&mut world, now_ms);
    assert!(client.session.is_open());
    client.frames(&mut world);
    // What filled it is taken, what came behind is not and waits, in order and not lost.
    let mut other = world.anybody();
    let waiting = |other: &mut super::client::Client, world: &mut World| match other.ask(
        world,
        1,
        queue::Declare { queue: "q".into(), passive: true, ..queue::Declare::default() },
    ) {
        AMQPClass::Queue(queue::AMQPMethod::DeclareOk(declared)) => declared.message_count,
        answer => panic!("{answer:?}"),
    };
    assert_eq!(waiting(&mut other, &mut world), 9);
    other.ask(&mut world, 1, queue::Purge { queue: "q".into(), nowait: false });
    assert_eq!(client.session.unblock(&mut world, now_ms), muster_broker::session::Progress::Reading);
    client.session.unblock(&mut world, now_ms);
    let unblocked = amq_protocol::protocol::connection::Unblocked {};
    assert_eq!(client.methods(&mut world), [(0, unblocked.into_class())]);
    assert_eq!(waiting(&mut other, &mut world), 1);
    client.ask(&mut world, 1, queue::Purge { queue: "q".into(), nowait: false });
    client.publish(&mut world, 1, "", "q", b"x");
    assert_eq!(client.progress, muster_broker::session::Progress::Reading);
}
