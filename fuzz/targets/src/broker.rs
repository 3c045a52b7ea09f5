//! The embedded broker: frames, and whole connections over a real engine.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use amq_protocol::frame::parse_frame;
use muster_broker::access::{Members, Peer, Rules, Users};
use muster_broker::engine::{Engine, ExchangeKind, ExchangeSpec, Limits, Share};
use muster_broker::journal::Record;
use muster_broker::noise::Noise;
use muster_broker::session::{Broker, Progress, Session, Settings, Shared};
use muster_broker::wire::{Encoder, Frame, Reader};
use muster_broker::{ConnectionId, Fault, Outlet, Output};
use muster_broker_config::{Permissions, Role};

use crate::Target;
use crate::input::Input;

/// Frames, as bytes in pieces: the first byte says how large the pieces are.
pub(crate) const AMQP_FRAMES: Target = Target {
    name: "amqp-frames",
    bytes_max: 2048,
    seeds: &["fuzz/seeds/amqp-frames/"],
    words: &["AMQP\0\0\x09\x01", "\x08\0\0\0\0\0\0", "\x03\0\x01\0\0\0\x01", "\x01\0\x01\0\0\0\x05\0\x14\0\x0a\0"],
    run: frames,
};

/// The largest frame of the target.
const FRAME_BYTES_MAX: u32 = 512;

/// Bytes of a frame around its payload.
const AROUND_BYTES: usize = 8;

/// The frames of some bytes as bytes again, and why there are no more.
fn reread(bytes: &[u8], piece_bytes: usize) -> (Vec<u8>, Option<Fault>) {
    let mut reader = Reader::new();
    let mut again = Vec::new();
    let mut body = Vec::new();
    for mut piece in bytes.chunks(piece_bytes) {
        loop {
            let (kind, channel, payload) = match reader.next(&mut piece, FRAME_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(Frame::ProtocolHeader(header))) => {
                    again.extend(header);
                    continue;
                }
                Ok(Some(Frame::Method { channel, payload })) => (1, channel, payload.to_vec()),
                Ok(Some(Frame::ContentHeader { channel, payload })) => (2, channel, payload.to_vec()),
                Ok(Some(Frame::Body { payload, .. })) => {
                    assert!(!payload.is_empty());
                    body.extend_from_slice(payload);
                    continue;
                }
                Ok(Some(Frame::BodyEnd { channel })) => (3, channel, std::mem::take(&mut body)),
                Ok(Some(Frame::Heartbeat { channel })) => (8, channel, Vec::new()),
                Err(fault) => return (again, Some(fault)),
            };
            again.push(kind);
            again.extend(channel.to_be_bytes());
            again.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
            again.extend(payload);
            again.push(0xCE);
        }
        assert!(piece.is_empty(), "what is not taken is lost");
        assert!(reader.held_bytes() <= FRAME_BYTES_MAX as usize + AROUND_BYTES);
    }
    (again, None)
}

fn frames(input: &[u8]) {
    let mut input = Input(input);
    let piece_bytes = usize::from(input.byte()).max(1);
    let bytes = input.rest();
    let (whole, fault) = reread(bytes, bytes.len().max(1));
    assert!(bytes.starts_with(&whole), "frames are what was sent");
    assert_eq!(reread(bytes, piece_bytes), (whole, fault));
}

/// A connection: who it is, then what it does, a letter for each thing.
pub(crate) const AMQP_SESSION: Target = Target {
    name: "amqp-session",
    bytes_max: 4096,
    seeds: &["fuzz/seeds/amqp-session/"],
    words: &[
        // Methods without content: channel, class, method, length of the arguments.
        "m\x01\x14\x0a\x01\0",
        "m\x01\x32\x0a",
        "m\x01\x32\x14",
        "m\x01\x28\x0a",
        "m\x01\x3c\x14",
        "m\x01\x3c\x28\x06\0\0\0\x01q\0",
        "m\x01\x3c\x50\x09\0\0\0\0\0\0\0\x01\x01",
        "m\x01\x3c\x78",
        "m\x01\x3c\x46",
        "m\x01\x55\x0a\x01\0",
        "m\x01\x14\x29\0",
        "h\x01\x01\x02\0\0",
        "b\x01\x04abcd",
        "x-expires",
        "x-max-length",
        "x-overflow",
        "reject-publish",
        "agent.web1.example.com",
        "reply.user/lea.s",
        "user/lea.s.web1.example.com",
        "amq.topic",
        "cmd",
        "reply",
    ],
    run: session,
};

const NOW_MS: i64 = 1_795_000_000_000;

/// Everything there is beside the connection.
struct World {
    broker: Broker,
    outboxes: Outboxes,
}

#[derive(Default)]
struct Outboxes {
    waiting: HashMap<ConnectionId, VecDeque<Output>>,
}

impl Outlet for Outboxes {
    fn send(&mut self, connection: ConnectionId, output: Output) {
        self.waiting.entry(connection).or_default().push_back(output);
    }

    fn record(&mut self, _record: Record) {}

    fn send_when_durable(&mut self, connection: ConnectionId, output: Output) {
        self.send(connection, output);
    }
}

impl Shared for World {
    type Outlet = Outboxes;

    fn lock(&mut self) -> (&mut Broker, &mut Outboxes) {
        (&mut self.broker, &mut self.outboxes)
    }
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            queues_max: 10,
            bindings_max: 10,
            exchanges_max: 10,
            consumers_max: 5,
            message_bytes_max: 20_000,
            outbox_bytes_max: 5_000,
            host_bytes_max: 1 << 30,
            controller_bytes_max: 1 << 30,
        };
        let exchanges = ["cmd", "reply"].map(|name| ExchangeSpec {
            name: name.into(),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: false,
            internal: false,
        });
        Self {
            broker: Broker {
                engine: Engine::new(limits, Vec::new(), exchanges.into()),
                users: Users::new(),
                noise: Noise::default(),
            },
            outboxes: Outboxes::default(),
        }
    }
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        vhost: "muster".to_owned(),
        frame_bytes_max: 8_192,
        channels_max: 4,
        heartbeat_s: 60,
        message_bytes_max: 1_000,
        handshake_ms: 30_000,
        close_ms: 5_000,
        product: "Muster",
        version: "0",
        cluster_name: "fuzz".to_owned(),
    })
}

fn peer(letter: u8) -> Peer {
    let identity = match letter {
        b'a' => {
            let user = "user/anybody".to_owned();
            let permissions = Permissions { connections_max: 1, channels_max: 4, ..Permissions::everything(user) };
            return Peer {
                user: "user/anybody".into(),
                permissions: Some(Arc::new(permissions)),
                share: Share::Controller,
            };
        }
        b'u' => "user/lea",
        _ => "host/web1.example.com",
    };
    let rules = Rules { role: Role::Alone, members: Members::Issued, unbound: [].into() };
    rules.peer(Some(&identity.parse().expect("a name")))
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, channel];
    bytes.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

fn method(channel: u8, class: u8, method: u8, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&[0, class, 0, method], arguments].concat())
}

/// The bytes of a client up to its first channel.
fn connected() -> Vec<u8> {
    [
        b"AMQP\0\0\x09\x01".to_vec(),
        // start-ok with a capability, tune-ok with frames of 4,096 bytes, open, channel 1.
        method(
            0,
            10,
            11,
            b"\0\0\0\x31\x0ccapabilitiesF\0\0\0\x1f\x1cauthentication_failure_closet\x01\x08EXTERNAL\0\0\0\0\x00",
        ),
        method(0, 10, 31, &[0, 4, 0, 0, 0x10, 0, 0, 60]),
        method(0, 10, 40, b"\x06muster\0\0"),
        method(1, 20, 10, &[0]),
    ]
    .concat()
}

/// Something that happens to a connection.
enum Step {
    Bytes(Vec<u8>),
    Seconds(u8),
    Drained,
    Unblocked,
    Closed,
}

fn take<'a>(input: &mut Input<'a>) -> &'a [u8] {
    let length = usize::from(input.byte()).min(input.0.len());
    let (taken, rest) = input.0.split_at(length);
    input.0 = rest;
    taken
}

fn steps(mut input: Input<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    while !input.is_empty() {
        steps.push(match input.byte() {
            b'm' => {
                let (channel, class, number) = (input.byte(), input.byte(), input.byte());
                Step::Bytes(method(channel, class, number, take(&mut input)))
            }
            b'h' => {
                let (channel, size) = (input.byte(), input.byte());
                let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0];
                payload.extend((u16::from(size) * 4).to_be_bytes());
                payload.extend(take(&mut input));
                Step::Bytes(frame(2, channel, &payload))
            }
            b'b' => {
                let channel = input.byte();
                Step::Bytes(frame(3, channel, take(&mut input)))
            }
            b'r' => Step::Bytes(take(&mut input).to_vec()),
            b't' => Step::Seconds(input.byte()),
            b'd' => Step::Drained,
            b'u' => Step::Unblocked,
            b'x' => Step::Closed,
            _ => continue,
        });
    }
    steps
}

/// Does all steps with the bytes in such pieces, and gives what was sent and what is there in the end.
fn done(who: u8, steps: &[Step], piece_bytes: usize) -> (Vec<u8>, String) {
    let mut world = World::new();
    let mut now_ms = NOW_MS;
    let id = ConnectionId(1);
    let peer = peer(who);
    let bounded = who != b'a';
    let mut session = Session::new(id, peer, settings(), now_ms);
    let mut progress = Progress::Reading;
    for step in steps {
        progress = match step {
            Step::Bytes(bytes) => {
                for piece in bytes.chunks(piece_bytes) {
                    progress = session.received(piece, &mut world, now_ms);
                }
                progress
            }
            Step::Seconds(seconds) => {
                now_ms += i64::from(*seconds) * 1_000;
                let (broker, outlet) = world.lock();
                broker.engine.tick(now_ms, outlet);
                session.tick(&mut world, now_ms)
            }
            Step::Drained => {
                let (broker, outlet) = world.lock();
                broker.engine.drained(id, 5_000, now_ms, outlet);
                continue;
            }
            Step::Unblocked => session.unblock(&mut world, now_ms),
            Step::Closed => session.close(&Fault::connection_forced("the end"), &mut world, now_ms),
        };
    }
    let terms = session.terms();
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for output in world.outboxes.waiting.remove(&id).unwrap_or_default() {
        encoder.push(&output, terms, &mut bytes);
    }
    encoder.finish(&mut bytes);
    let counts = world.broker.engine.counts();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (after, _) = parse_frame(rest).expect("what is sent can be read");
        assert!(rest.len() - after.len() <= terms.frame_bytes_max as usize, "and fits");
        rest = after;
    }
    assert!(!bounded || counts.exchanges == 6, "neither hosts nor users make exchanges");
    assert_eq!(counts.connections, usize::from(session.is_open()));
    assert_eq!(counts.connections == 0, world.broker.users.is_empty());
    let state = format!("{progress:?} {terms:?} {counts:?} {}", session.deadline_ms());
    session.lost(&mut world, now_ms);
    let counts = world.broker.engine.counts();
    assert_eq!((counts.connections, counts.channels, counts.consumers, counts.unacknowledged), (0, 0, 0, 0));
    assert!(world.broker.users.is_empty());
    (bytes, state)
}

fn session(input: &[u8]) {
    let mut input = Input(input);
    let (who, piece_bytes) = (input.byte(), usize::from(input.byte()).max(1));
    let mut steps = steps(input);
    if who != b'r' {
        steps.insert(0, Step::Bytes(connected()));
    }
    assert_eq!(done(who, &steps, piece_bytes), done(who, &steps, usize::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_connects() {
        let (_, state) = done(b'a', &[Step::Bytes(connected())], usize::MAX);
        assert!(state.contains("connections: 1, channels: 1") && state.contains("4096"), "{state}");
        let refused = Step::Bytes(method(1, 99, 99, b""));
        let (bytes, _) = done(b'a', &[Step::Bytes(connected()), refused], usize::MAX);
        assert!(bytes.windows(15).any(|window| window == b"NOT_IMPLEMENTED"));
    }
}
