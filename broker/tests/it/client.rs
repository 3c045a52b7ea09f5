//! A client that does only what a test says, byte by byte where it has to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, ProtocolVersion, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::basic::{self, AMQPProperties};
use amq_protocol::protocol::{AMQPClass, channel, connection, queue};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};
use muster_pki::Credentials;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::site::{LIMIT, Site};

/// An open TLS connection.
pub(crate) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    bytes: Vec<u8>,
}

pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}

pub(crate) fn method(channel: u16, class: AMQPClass) -> AMQPFrame {
    AMQPFrame::Method(channel, class)
}

/// Connects and shakes hands as far as the client's side goes: in TLS 1.3 it hears later what the broker thinks of it.
pub(crate) fn tls(site: &Site, config: Arc<ClientConfig>) -> std::io::Result<Client> {
    let mut tls = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(site.server.local_addr())?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(Client { stream: StreamOwned::new(tls, socket), bytes: Vec::new() })
}

impl Client {
    /// A connection with its channel 1 open.
    pub(crate) fn open(site: &Site, credentials: &Credentials) -> Self {
        let mut client = tls(site, muster_pki::tls::client_config(credentials, &site.trust()).unwrap()).unwrap();
        client.log_in().unwrap();
        client
    }

    /// The handshake of AMQP, with `connection.blocked` asked for; or what the broker says in place of `open-ok`.
    #[expect(clippy::result_large_err, reason = "a test looks at the frame")]
    pub(crate) fn log_in(&mut self) -> Result<(), AMQPFrame> {
        use connection::AMQPMethod::{Open, OpenOk, Start, StartOk, Tune, TuneOk};
        let own = method_of_connection;
        self.send([AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1())]);
        match self.frame() {
            AMQPFrame::Method(0, AMQPClass::Connection(Start(_))) => {}
            other => return Err(other),
        }
        let mut capabilities = FieldTable::default();
        capabilities.insert(short("connection.blocked"), AMQPValue::Boolean(true));
        capabilities.insert(short("authentication_failure_close"), AMQPValue::Boolean(true));
        let mut client_properties = FieldTable::default();
        client_properties.insert(short("capabilities"), AMQPValue::FieldTable(capabilities));
        self.send([own(StartOk(connection::StartOk {
            client_properties,
            mechanism: short("EXTERNAL"),
            response: LongString::from(""),
            locale: short("en_US"),
        }))]);
        match self.frame() {
            AMQPFrame::Method(0, AMQPClass::Connection(Tune(_))) => {}
            other => return Err(other),
        }
        self.send([
            own(TuneOk(connection::TuneOk { channel_max: 8, frame_max: 131_072, heartbeat: 0 })),
            own(Open(connection::Open { virtual_host: short("muster") })),
        ]);
        match self.frame() {
            AMQPFrame::Method(0, AMQPClass::Connection(OpenOk(_))) => {}
            other => return Err(other),
        }
        self.send([method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))]);
        match self.frame() {
            AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))) => Ok(()),
            other => Err(other),
        }
    }

    pub(crate) fn send(&mut self, frames: impl IntoIterator<Item = AMQPFrame>) {
        self.try_send(frames).unwrap();
    }

    pub(crate) fn try_send(&mut self, frames: impl IntoIterator<Item = AMQPFrame>) -> std::io::Result<()> {
        let write = |bytes, frame: AMQPFrame| gen_frame(&frame)(WriteContext::from(bytes)).unwrap().into_inner().0;
        let bytes = frames.into_iter().fold(Vec::new(), write);
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> AMQPFrame {
        self.next().unwrap()
    }

    /// The next frame, or how the connection ended.
    pub(crate) fn next(&mut self) -> std::io::Result<AMQPFrame> {
        let mut buffer = [0; 4096];
        loop {
            if let Ok((rest, frame)) = parse_frame(self.bytes.as_slice()) {
                let used = self.bytes.len() - rest.len();
                self.bytes.drain(..used);
                if matches!(frame, AMQPFrame::Heartbeat) {
                    continue;
                }
                return Ok(frame);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => self.bytes.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// The code and the words with which the broker closes the connection; what comes before is skipped.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            if let AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close))) = self.frame() {
                self.send([method_of_connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}))]);
                return (close.reply_code, close.reply_text.to_string());
            }
        }
    }

    /// Declares a queue, binds it and consumes from it without acknowledgements.
    pub(crate) fn subscribe(&mut self, queue: &str, exchange: &str, key: &str) {
        self.declare(queue, exchange, key);
        self.send([method(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
                queue: short(queue),
                consumer_tag: short(""),
                no_local: false,
                no_ack: true,
                exclusive: false,
                nowait: false,
                arguments: FieldTable::default(),
            })),
        )]);
        loop {
            match self.frame() {
                AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_))) => return,
                AMQPFrame::Method(1, AMQPClass::Queue(queue::AMQPMethod::BindOk(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Declares a durable queue and binds it.
    pub(crate) fn declare(&mut self, queue: &str, exchange: &str, key: &str) {
        self.send([
            method(
                1,
                AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                    queue: short(queue),
                    passive: false,
                    durable: true,
                    exclusive: false,
                    auto_delete: false,
                    nowait: true,
                    arguments: FieldTable::default(),
                })),
            ),
            method(
                1,
                AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                    queue: short(queue),
                    exchange: short(exchange),
                    routing_key: short(key),
                    nowait: false,
                    arguments: FieldTable::default(),
                })),
            ),
        ]);
        let frame = self.frame();
        assert!(matches!(frame, AMQPFrame::Method(1, AMQPClass::Queue(queue::AMQPMethod::BindOk(_)))), "{frame:?}");
    }
}

fn method_of_connection(method: connection::AMQPMethod) -> AMQPFrame {
    AMQPFrame::Method(0, AMQPClass::Connection(method))
}

/// The frames of a message.
pub(crate) fn publish(exchange: &str, key: &str, body: Vec<u8>) -> Vec<AMQPFrame> {
    let publish =
        basic::Publish { exchange: short(exchange), routing_key: short(key), mandatory: false, immediate: false };
    let header =
        AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties: AMQPProperties::default() };
    let mut frames =
        vec![method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))), AMQPFrame::Header(1, header)];
    frames.extend(body.chunks(100_000).map(|piece| AMQPFrame::Body(1, piece.to_vec())));
    frames
}
