//! A broker without a server, and clients without sockets.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic, channel, connection, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use muster_broker::access::{Members, Peer, Rules, Users};
use muster_broker::engine::{Engine, ExchangeKind, ExchangeSpec, Limits, Share};
use muster_broker::journal::Record;
use muster_broker::noise::Noise;
use muster_broker::session::{Broker, Progress, Session, Settings, Shared};
use muster_broker::wire::Encoder;
use muster_broker::{ConnectionId, Outlet, Output};
use muster_broker_config::{Permissions, Role};

pub(crate) const NOW_MS: i64 = 1_795_000_000_000;

/// What a test may need of a broker.
pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) outboxes: Outboxes,
    pub(crate) settings: Settings,
    pub(crate) now_ms: i64,
    connections: u64,
}

#[derive(Default)]
pub(crate) struct Outboxes {
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

pub(crate) fn limits() -> Limits {
    Limits {
        queues_max: 100,
        bindings_max: 100,
        exchanges_max: 20,
        consumers_max: 20,
        message_bytes_max: 1 << 20,
        outbox_bytes_max: 1 << 20,
        host_bytes_max: 1 << 30,
        controller_bytes_max: 1 << 30,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(limits())
    }

    pub(crate) fn with(limits: Limits) -> Self {
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
            settings: Settings {
                vhost: "muster".to_owned(),
                frame_bytes_max: 131_072,
                channels_max: 16,
                heartbeat_s: 60,
                message_bytes_max: 100_000,
                handshake_ms: 30_000,
                close_ms: 5_000,
                product: "Muster",
                version: "1.2.3",
                cluster_name: "test".to_owned(),
            },
            now_ms: NOW_MS,
            connections: 0,
        }
    }

    /// A client that has said nothing.
    pub(crate) fn silent(&mut self, peer: Peer) -> Client {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        let session = Session::new(id, peer, Arc::new(self.settings.clone()), self.now_ms);
        Client { session, encoder: Encoder::new(), progress: Progress::Reading }
    }

    /// A client whose connection is open, with channel 1.
    pub(crate) fn open(&mut self, peer: Peer) -> Client {
        let mut client = self.silent(peer);
        client.shake_hands(self);
        client.open_channel(self, 1);
        client
    }

    /// A client that may do everything, connected, with channel 1.
    pub(crate) fn anybody(&mut self) -> Client {
        self.open(anybody())
    }
}

/// A peer that may do everything, with few connections and channels.
pub(crate) fn anybody() -> Peer {
    let user = "user/anybody".to_owned();
    let permissions = Permissions { connections_max: 4, channels_max: 20, ..Permissions::everything(user) };
    Peer { user: "user/anybody".into(), permissions: Some(Arc::new(permissions)), share: Share::Controller }
}

/// The rules of a broker that is the only one.
pub(crate) fn rules(members: Members) -> Rules {
    Rules { role: Role::Alone, members, unbound: [].into() }
}

/// The peer of an identity.
pub(crate) fn peer(identity: &str) -> Peer {
    rules(Members::Issued).peer(Some(&identity.parse().unwrap()))
}

pub(crate) struct Client {
    pub(crate) session: Session,
    encoder: Encoder,
    pub(crate) progress: Progress,
}

/// How a refusal came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) method: (u16, u16),
    /// 0 if it ends the connection.
    pub(crate) channel: u16,
}

impl Client {
    pub(crate) fn write(&mut self, world: &mut World, bytes: &[u8]) {
        let now_ms = world.now_ms;
        self.progress = self.session.received(bytes, world, now_ms);
    }

    pub(crate) fn send(&mut self, world: &mut World, channel: u16, method: impl IntoClass) {
        self.write(world, &method_frame(channel, method));
    }

    /// What the broker has sent since, as bytes.
    pub(crate) fn bytes(&mut self, world: &mut World) -> Vec<u8> {
        let mut bytes = Vec::new();
        for output in world.outboxes.waiting.remove(&self.session.id()).unwrap_or_default() {
            self.encoder.push(&output, self.session.terms(), &mut bytes);
        }
        self.encoder.finish(&mut bytes);
        bytes
    }

    /// What the broker has sent since, as frames.
    pub(crate) fn frames(&mut self, world: &mut World) -> Vec<AMQPFrame> {
        let bytes = self.bytes(world);
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (after, frame) = parse_frame(rest).expect("the broker writes frames");
            rest = after;
            frames.push(frame);
        }
        frames
    }

    /// The methods that the broker has sent since, which came without content.
    pub(crate) fn methods(&mut self, world: &mut World) -> Vec<(u16, AMQPClass)> {
        let methods = self.frames(world).into_iter().map(|frame| match frame {
            AMQPFrame::Method(channel, class) => (channel, class),
            other => panic!("not a method: {other:?}"),
        });
        methods.collect()
    }

    /// Sends a method and gives the one that answers it on its channel.
    pub(crate) fn ask(&mut self, world: &mut World, channel: u16, method: impl IntoClass) -> AMQPClass {
        self.send(world, channel, method);
        let mut methods = self.methods(world);
        assert_eq!(methods.len(), 1, "one answer: {methods:?}");
        let (at, class) = methods.remove(0);
        assert_eq!(at, channel, "{class:?}");
        class
    }

    /// How the broker has just refused something; `None` if it has not, whatever else it sent.
    pub(crate) fn refused(&mut self, world: &mut World) -> Option<Refused> {
        self.frames(world).into_iter().find_map(|frame| match frame {
            AMQPFrame::Method(channel, AMQPClass::Channel(channel::AMQPMethod::Close(close))) => Some(Refused {
                code: close.reply_code,
                text: close.reply_text.to_string(),
                method: (close.class_id, close.method_id),
                channel,
            }),
            AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => Some(Refused {
                code: close.reply_code,
                text: close.reply_text.to_string(),
                method: (close.class_id, close.method_id),
                channel: 0,
            }),
            _ => None,
        })
    }

    pub(crate) fn shake_hands(&mut self, world: &mut World) {
        self.write(world, b"AMQP\x00\x00\x09\x01");
        self.send(world, 0, start_ok("EXTERNAL"));
        self.send(world, 0, tune_ok());
        self.send(world, 0, open("muster"));
        let methods = self.methods(world);
        assert_eq!(methods.len(), 3, "start, tune, open-ok: {methods:?}");
        assert!(self.session.is_open());
    }

    pub(crate) fn open_channel(&mut self, world: &mut World, number: u16) {
        let ok = self.ask(world, number, channel::Open {});
        assert_eq!(ok, channel::OpenOk {}.into_class());
    }

    /// Publishes with default properties.
    pub(crate) fn publish(&mut self, world: &mut World, channel: u16, exchange: &str, key: &str, body: &[u8]) {
        self.write(world, &published(channel, exchange, key, &BasicProperties::default(), body));
    }
}

pub(crate) fn start_ok(mechanism: &str) -> connection::StartOk {
    let mut capabilities = FieldTable::default();
    for name in ["consumer_cancel_notify", "connection.blocked", "authentication_failure_close"] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    connection::StartOk { client_properties, mechanism: mechanism.into(), response: "".into(), locale: "en_US".into() }
}

pub(crate) fn tune_ok() -> connection::TuneOk {
    connection::TuneOk { channel_max: 16, frame_max: 8_192, heartbeat: 60 }
}

pub(crate) fn open(vhost: &str) -> connection::Open {
    connection::Open { virtual_host: vhost.into() }
}

pub(crate) fn declare(queue: &str) -> queue::Declare {
    queue::Declare { queue: queue.into(), ..queue::Declare::default() }
}

pub(crate) fn bind(queue: &str, exchange: &str, key: &str) -> queue::Bind {
    queue::Bind { queue: queue.into(), exchange: exchange.into(), routing_key: key.into(), ..queue::Bind::default() }
}

pub(crate) fn consume(queue: &str, tag: &str) -> basic::Consume {
    basic::Consume { queue: queue.into(), consumer_tag: tag.into(), ..basic::Consume::default() }
}

/// `basic.publish` with a content in frames of at most 1,000 bytes.
pub(crate) fn published(channel: u16, exchange: &str, key: &str, properties: &BasicProperties, body: &[u8]) -> Vec<u8> {
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: key.into(),
        mandatory: true,
        ..basic::Publish::default()
    };
    let mut bytes = method_frame(channel, publish);
    bytes.extend(header_frame(channel, properties, body.len() as u64));
    for part in body.chunks(1_000) {
        bytes.extend(frame_bytes(&AMQPFrame::Body(channel, part.to_vec())));
    }
    bytes
}

pub(crate) fn header_frame(channel: u16, properties: &BasicProperties, body_size: u64) -> Vec<u8> {
    let header = AMQPContentHeader { class_id: 60, body_size, properties: properties.clone() };
    frame_bytes(&AMQPFrame::Header(channel, header))
}

pub(crate) fn method_frame(channel: u16, method: impl IntoClass) -> Vec<u8> {
    frame_bytes(&AMQPFrame::Method(channel, method.into_class()))
}

pub(crate) fn frame_bytes(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new())).unwrap().into_inner().0
}

/// A frame by hand.
pub(crate) fn raw_frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

/// Any method, so that tests can write it without its class.
pub(crate) trait IntoClass {
    fn into_class(self) -> AMQPClass;
}

impl IntoClass for AMQPClass {
    fn into_class(self) -> AMQPClass {
        self
    }
}

macro_rules! classes {
    ($($class:ident $module:ident: $($method:ident)*;)*) => {
        $($(impl IntoClass for $module::$method {
            fn into_class(self) -> AMQPClass {
                AMQPClass::$class($module::AMQPMethod::$method(self))
            }
        })*)*
    };
}

use amq_protocol::protocol::{access, confirm, tx};

classes! {
    Connection connection: Start StartOk SecureOk Tune TuneOk Open OpenOk Close CloseOk Blocked Unblocked UpdateSecret;
    Channel channel: Open OpenOk Flow FlowOk Close CloseOk;
    Access access: Request RequestOk;
    Exchange exchange: Declare DeclareOk Delete DeleteOk Bind BindOk Unbind UnbindOk;
    Queue queue: Declare DeclareOk Bind BindOk Unbind UnbindOk Purge PurgeOk Delete DeleteOk;
    Basic basic: Qos QosOk Consume ConsumeOk Cancel CancelOk Publish Get GetEmpty Ack Nack Reject Recover RecoverOk
        RecoverAsync;
    Confirm confirm: Select SelectOk;
    Tx tx: Select Commit Rollback;
}
