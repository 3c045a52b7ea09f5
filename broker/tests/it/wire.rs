//! Frames and confirms.

use std::sync::Arc;

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, queue};
use bytes::Bytes;
use muster_broker::wire::{Encoder, Frame, Reader, Terms};
use muster_broker::{Message, Output};
use proptest::prelude::*;

const TERMS: Terms = Terms { frame_bytes_max: 4_096, cancel_notify: true };

fn frames(bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (after, frame) = parse_frame(rest).unwrap();
        rest = after;
        frames.push(frame);
    }
    frames
}

fn encoded(outputs: &[Output], terms: Terms) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for output in outputs {
        encoder.push(output, terms, &mut bytes);
    }
    encoder.finish(&mut bytes);
    bytes
}

fn message() -> Arc<Message> {
    Arc::new(Message {
        exchange: "e".to_owned(),
        routing_key: "k".to_owned(),
        properties: Bytes::from_static(&[0, 0]),
        body: Bytes::from(vec![5; 5_000]),
        persistent: false,
        expiration_ms: None,
    })
}

#[test]
fn what_is_written_the_library_reads() {
    let message = message();
    let outputs = [
        Output::Heartbeat,
        Output::Deliver { channel: 3, consumer: "c".into(), tag: 1 << 40, redelivered: true, message: message.clone() },
        Output::GetOk { channel: 3, tag: 9, redelivered: false, left: 77, message: message.clone() },
        Output::Return { channel: 3, code: 312, text: "NO_ROUTE", message },
    ];
    let frames = frames(&encoded(&outputs, TERMS));
    assert_eq!(frames[0], AMQPFrame::Heartbeat);
    let expected = [
        basic::AMQPMethod::Deliver(basic::Deliver {
            consumer_tag: "c".into(),
            delivery_tag: 1 << 40,
            redelivered: true,
            exchange: "e".into(),
            routing_key: "k".into(),
        }),
        basic::AMQPMethod::GetOk(basic::GetOk {
            delivery_tag: 9,
            redelivered: false,
            exchange: "e".into(),
            routing_key: "k".into(),
            message_count: 77,
        }),
        basic::AMQPMethod::Return(basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "e".into(),
            routing_key: "k".into(),
        }),
    ];
    for (chunk, expected) in frames[1..].chunks(4).zip(expected) {
        let [
            AMQPFrame::Method(3, method),
            AMQPFrame::Header(3, header),
            AMQPFrame::Body(3, one),
            AMQPFrame::Body(3, two),
        ] = chunk
        else {
            panic!("{chunk:?}")
        };
        assert_eq!(method, &AMQPClass::Basic(expected));
        assert_eq!((header.body_size, one.len(), two.len()), (5_000, 4_088, 912));
    }
}

#[test]
fn who_does_not_know_cancels_is_sent_none() {
    let cancel = |tag: &str| Output::Method {
        channel: 1,
        method: Box::new(AMQPClass::Basic(basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: tag.into(),
            nowait: true,
        }))),
    };
    assert_eq!(frames(&encoded(&[cancel("c")], TERMS)).len(), 1);
    assert!(encoded(&[cancel("c")], Terms { cancel_notify: false, ..TERMS }).is_empty());
}

fn confirm(channel: u16, tag: u64, taken: bool) -> Output {
    Output::Confirm { channel, tag, taken }
}

/// Confirms as (taken, tag, multiple).
fn confirms(outputs: &[Output]) -> Vec<(u16, bool, u64, bool)> {
    let confirms = frames(&encoded(outputs, TERMS)).into_iter().filter_map(|frame| match frame {
        AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
            Some((channel, true, ack.delivery_tag, ack.multiple))
        }
        AMQPFrame::Method(channel, AMQPClass::Basic(basic::AMQPMethod::Nack(nack))) => {
            Some((channel, false, nack.delivery_tag, nack.multiple))
        }
        _ => None,
    });
    confirms.collect()
}

#[test]
fn neighbouring_confirms_are_joined() {
    let all = |tags: &[u64]| tags.iter().map(|tag| confirm(1, *tag, true)).collect::<Vec<_>>();
    assert_eq!(confirms(&all(&[1])), [(1, true, 1, false)]);
    assert_eq!(confirms(&all(&[1, 2, 3])), [(1, true, 3, true)]);
    // 1 is still open, so nothing may be said of all up to 4.
    assert_eq!(confirms(&all(&[2, 3, 4])), [(1, true, 2, false), (1, true, 3, false), (1, true, 4, false)]);
    // Once it is not, it may again.
    let late = confirms(&all(&[2, 3, 1, 4, 5]));
    assert_eq!(late, [(1, true, 2, false), (1, true, 3, false), (1, true, 1, false), (1, true, 5, true)]);
    // Another answer, another channel, and anything else in between part them.
    let mixed = [confirm(1, 1, true), confirm(1, 2, true), confirm(1, 3, false), confirm(1, 4, false)];
    assert_eq!(confirms(&mixed), [(1, true, 2, true), (1, false, 4, true)]);
    let channels = [confirm(1, 1, true), confirm(2, 1, true), confirm(1, 2, true), confirm(1, 3, true)];
    assert_eq!(confirms(&channels), [(1, true, 1, false), (2, true, 1, false), (1, true, 3, true)]);
    let parted = [confirm(1, 1, true), Output::Heartbeat, confirm(1, 2, true), confirm(1, 3, true)];
    assert_eq!(confirms(&parted), [(1, true, 1, false), (1, true, 3, true)]);
}

#[test]
fn a_channel_that_is_opened_again_counts_from_one() {
    let open_ok = Output::Method {
        channel: 1,
        method: Box::new(AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}))),
    };
    let outputs = [confirm(1, 1, true), confirm(1, 2, true), open_ok, confirm(1, 2, true), confirm(1, 3, true)];
    assert_eq!(confirms(&outputs), [(1, true, 2, true), (1, true, 2, false), (1, true, 3, false)]);
}

proptest! {
    /// Whoever takes the confirms by the book knows of each message what became of it, and of none too early.
    #[test]
    fn joined_confirms_say_the_same(
        order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
        sorted in 0..40_usize,
        taken in prop::collection::vec(prop::bool::weighted(0.8), 41),
        parts in prop::collection::vec(any::<bool>(), 41),
        known in 0..=40_usize,
    ) {
        let mut order = order;
        order[..sorted].sort_unstable();
        let mut outputs = Vec::new();
        for tag in &order[..known] {
            outputs.push(confirm(1, *tag, taken[usize::try_from(*tag).unwrap()]));
            if parts[usize::try_from(*tag).unwrap()] {
                outputs.push(Output::Heartbeat);
            }
        }
        let mut open: std::collections::BTreeSet<u64> = (1..=40).collect();
        for (_, answer, tag, multiple) in confirms(&outputs) {
            let meant: Vec<u64> = if multiple { open.range(..=tag).copied().collect() } else { vec![tag] };
            for tag in meant {
                prop_assert!(open.remove(&tag), "{} twice", tag);
                prop_assert!(order[..known].contains(&tag), "{} was never confirmed", tag);
                prop_assert_eq!(answer, taken[usize::try_from(tag).unwrap()], "{}", tag);
            }
        }
        prop_assert_eq!(open.len(), 40 - known);
    }

    /// Frames come out as they went in, bodies in parts, whatever the pieces.
    #[test]
    fn frames_are_read_from_any_pieces(
        sent in prop::collection::vec(
            (prop_oneof![Just(1_u8), Just(2), Just(3)], any::<u16>(), prop::collection::vec(any::<u8>(), 0..300)),
            0..12,
        ),
        cuts in prop::collection::vec(1..50_usize, 0..100),
    ) {
        let mut bytes = b"AMQP\x00\x00\x09\x01".to_vec();
        for (kind, channel, payload) in &sent {
            bytes.push(*kind);
            bytes.extend(channel.to_be_bytes());
            bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend(payload);
            bytes.push(0xCE);
        }
        let mut reader = Reader::new();
        let mut came = Vec::new();
        let mut body = Vec::new();
        let mut rest = &bytes[..];
        let mut cuts = cuts.into_iter();
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at(cuts.next().unwrap_or(usize::MAX).min(rest.len()));
            rest = after;
            while let Some(frame) = reader.next(&mut piece, 4_096).unwrap() {
                match frame {
                    Frame::ProtocolHeader(header) => prop_assert_eq!(&header, b"AMQP\x00\x00\x09\x01"),
                    Frame::Method { channel, payload } => came.push((1, channel, payload.to_vec())),
                    Frame::ContentHeader { channel, payload } => came.push((2, channel, payload.to_vec())),
                    Frame::Body { payload, .. } => {
                        prop_assert!(!payload.is_empty());
                        body.extend_from_slice(payload);
                    }
                    Frame::BodyEnd { channel } => came.push((3, channel, std::mem::take(&mut body))),
                    Frame::Heartbeat { .. } => prop_assert!(false, "none was sent"),
                }
            }
            prop_assert!(piece.is_empty());
            prop_assert!(reader.held_bytes() <= 308, "no more than a frame is kept");
        }
        prop_assert_eq!(came, sent);
        prop_assert_eq!(reader.held_bytes(), 0);
    }
}

#[test]
fn the_queue_class_is_written_by_the_library() {
    let ok = queue::DeclareOk { queue: "q".into(), message_count: 1, consumer_count: 2 };
    let method = AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok));
    let output = Output::Method { channel: 5, method: Box::new(method.clone()) };
    assert_eq!(frames(&encoded(&[output.clone(), output], TERMS)), vec![AMQPFrame::Method(5, method); 2]);
}
