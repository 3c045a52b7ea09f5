//! Laws that hold for any bytes.

use amq_protocol::protocol::{BasicProperties, basic, channel, confirm, connection, exchange, queue};
use proptest::prelude::*;

use super::client::{
    IntoClass, World, anybody, bind, consume, declare, header_frame, method_frame, open, published, raw_frame,
    start_ok, tune_ok,
};

/// Everything that a connection does, and what is left of it.
fn outcome(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, String) {
    let mut world = World::new();
    let mut client = world.silent(anybody());
    let mut sent = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        client.write(&mut world, piece);
        sent.extend(client.bytes(&mut world));
        rest = after;
    }
    client.write(&mut world, rest);
    sent.extend(client.bytes(&mut world));
    let counts = world.broker.engine.counts();
    let state = format!("{:?} {:?} {} {counts:?}", client.progress, client.session.terms(), client.session.channels());
    (sent, state)
}

fn step() -> impl Strategy<Value = Vec<u8>> {
    let channel = 0..4_u16;
    let name = prop_oneof![Just("q"), Just("r"), Just(""), Just("amq.topic"), Just("none")];
    let body = prop::collection::vec(any::<u8>(), 0..3_000);
    (channel, name.clone(), name, body, 0..22_u8, any::<bool>()).prop_map(|(at, one, two, body, kind, flag)| {
        let plain = BasicProperties::default();
        let class = match kind {
            0 | 1 => channel::Open {}.into_class(),
            2 => queue::Declare { exclusive: flag, ..declare(one) }.into_class(),
            3 => bind(one, two, "k").into_class(),
            4 => basic::Consume { no_ack: flag, ..consume(one, two) }.into_class(),
            5 => basic::Ack { delivery_tag: 1, multiple: flag }.into_class(),
            6 => basic::Nack { delivery_tag: 0, multiple: true, requeue: flag }.into_class(),
            7 => confirm::Select { nowait: flag }.into_class(),
            8 => channel::CloseOk {}.into_class(),
            9 => basic::Get { queue: one.into(), no_ack: flag }.into_class(),
            10 => queue::Delete { queue: one.into(), ..queue::Delete::default() }.into_class(),
            11 => exchange::Declare { exchange: one.into(), kind: "topic".into(), ..exchange::Declare::default() }
                .into_class(),
            12 => basic::Publish { routing_key: one.into(), ..basic::Publish::default() }.into_class(),
            13 => return header_frame(at, &plain, body.len() as u64),
            14 => return raw_frame(3, at, &body),
            15 => return raw_frame(8, 0, b""),
            16 => return raw_frame(1, at, &body),
            17 if flag => {
                connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 }.into_class()
            }
            17 => channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 }.into_class(),
            _ => return published(at, two, one, &plain, &body),
        };
        method_frame(at, class)
    })
}

fn connected() -> Vec<u8> {
    let mut bytes = b"AMQP\x00\x00\x09\x01".to_vec();
    bytes.extend(method_frame(0, start_ok("EXTERNAL")));
    bytes.extend(method_frame(0, tune_ok()));
    bytes.extend(method_frame(0, open("muster")));
    for number in 1..=3 {
        bytes.extend(method_frame(number, channel::Open {}));
    }
    bytes.extend(method_frame(1, declare("q")));
    bytes
}

/// Confirms are joined where they are neighbours, so bytes are compared after the same number of writes: none in between.
fn comparable(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, String) {
    let mut world = World::new();
    let mut client = world.silent(anybody());
    let mut rest = bytes;
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        client.write(&mut world, piece);
        rest = after;
    }
    client.write(&mut world, rest);
    let counts = world.broker.engine.counts();
    let state = format!("{:?} {:?} {} {counts:?}", client.progress, client.session.terms(), client.session.channels());
    (client.bytes(&mut world), state)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn however_bytes_are_cut_the_same_happens(
        steps in prop::collection::vec(step(), 0..30),
        cuts in prop::collection::vec(1..700_usize, 0..200),
        broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = connected();
        bytes.extend(steps.concat());
        if let Some((index, octet)) = broken {
            *index.get_mut(&mut bytes) = octet;
        }
        let whole = comparable(&bytes, &[]);
        prop_assert_eq!(&comparable(&bytes, &cuts), &whole);
        prop_assert_eq!(&comparable(&bytes, &vec![1; bytes.len().min(4_000)]), &whole);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2_000), connect in any::<bool>()) {
        let mut all = if connect { connected() } else { Vec::new() };
        all.extend(&bytes);
        outcome(&all, &[all.len() / 2]);
    }

    #[test]
    fn a_session_leaves_nothing_behind(steps in prop::collection::vec(step(), 0..30)) {
        let mut world = World::new();
        let mut client = world.silent(anybody());
        let mut bytes = connected();
        bytes.extend(steps.concat());
        client.write(&mut world, &bytes);
        client.bytes(&mut world);
        let now_ms = world.now_ms;
        client.session.lost(&mut world, now_ms);
        let counts = world.broker.engine.counts();
        prop_assert_eq!((counts.connections, counts.channels, counts.consumers, counts.unacknowledged), (0, 0, 0, 0));
        prop_assert!(world.broker.users.is_empty());
    }
}
