//! From a host's certificate to an open connection that reads its queue, with a blocking socket.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use amq_protocol::frame::{AMQPFrame, ProtocolVersion, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use amq_protocol::types::FieldTable;
use anyhow::{Context as _, Result, bail};
use muster_pki::{Credentials, Trust};
use muster_protocol::routing::VHOST_DEFAULT;
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use super::frames::{self, Subscription, short};
use crate::ground::Ground;

/// Largest frame, as RabbitMQ offers it.
pub(super) const FRAME_BYTES_MAX: usize = 128 * 1024;

/// How long the broker may take for one answer while thousands ask.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Bytes that are read from the network at once.
const READ_BYTES: usize = 16 * 1024;

/// Where the broker is and whom to trust.
#[derive(Clone)]
pub(super) struct Server {
    address: SocketAddr,
    name: ServerName<'static>,
    trust: Trust,
}

impl Server {
    pub(super) fn of(ground: &Ground) -> Result<Self> {
        Ok(Self {
            address: SocketAddr::from(([127, 0, 0, 1], ground.broker.port())),
            name: ServerName::try_from("localhost").context("`localhost` is a name")?,
            trust: ground.site.trust(),
        })
    }
}

/// An open connection.
pub(super) struct Connection {
    pub(super) tls: ClientConnection,
    pub(super) socket: TcpStream,
    /// What came and was not looked at.
    pub(super) plain: Vec<u8>,
}

impl Connection {
    /// Opens a connection with this certificate and reads a queue on it.
    pub(super) fn open(server: &Server, credentials: &Credentials, subscription: &Subscription) -> Result<Self> {
        let config = muster_pki::tls::client_config(credentials, &server.trust)?;
        let mut tls = ClientConnection::new(config, server.name.clone()).context("prepare TLS")?;
        // What is written is sent at once.
        tls.set_buffer_limit(None);
        let socket = TcpStream::connect(server.address).context("connect")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut connection = Self { tls, socket, plain: Vec::new() };
        connection.log_in(subscription).with_context(|| format!("log in as `{}`", credentials.identity()))?;
        Ok(connection)
    }

    fn log_in(&mut self, subscription: &Subscription) -> Result<()> {
        let method = |method| AMQPFrame::Method(0, AMQPClass::Connection(method));
        self.send(&[AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1())])?;
        let AMQPClass::Connection(connection::AMQPMethod::Start(_)) = self.method()? else {
            bail!("the broker does not begin with a greeting")
        };
        self.send(&[method(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: short("EXTERNAL")?,
            response: String::new().into(),
            locale: short("en_US")?,
        }))])?;
        let AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) = self.method()? else {
            bail!("the broker does not propose limits")
        };
        let mut frames = vec![
            method(connection::AMQPMethod::TuneOk(connection::TuneOk {
                channel_max: tune.channel_max,
                frame_max: u32::try_from(FRAME_BYTES_MAX)?,
                heartbeat: 0,
            })),
            method(connection::AMQPMethod::Open(connection::Open { virtual_host: short(VHOST_DEFAULT)? })),
        ];
        frames.extend(subscription.frames()?);
        self.send(&frames)?;
        loop {
            match self.method()? {
                AMQPClass::Connection(connection::AMQPMethod::OpenOk(_))
                | AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)) => {}
                AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_)) => return Ok(()),
                other => bail!("the broker answers with {other:?}"),
            }
        }
    }

    fn send(&mut self, frames: &[AMQPFrame]) -> Result<()> {
        let bytes = frames.iter().try_fold(Vec::new(), frames::write)?;
        self.tls.writer().write_all(&bytes)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket).context("shake hands")?;
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).context("send")?;
        }
        Ok(())
    }

    fn method(&mut self) -> Result<AMQPClass> {
        match self.frame()? {
            AMQPFrame::Method(_, method) => Ok(method),
            other => bail!("the broker sends {other} where it should answer"),
        }
    }

    fn frame(&mut self) -> Result<AMQPFrame> {
        loop {
            if let Ok((rest, frame)) = parse_frame(self.plain.as_slice()) {
                let used = self.plain.len() - rest.len();
                self.plain.drain(..used);
                return Ok(frame);
            }
            // What cannot be read yet is incomplete: a broker that sends nonsense runs into the limit.
            let mut buffer = [0; READ_BYTES];
            let read = self.socket.read(&mut buffer).context("wait for an answer")?;
            if read == 0 {
                bail!("the broker hangs up");
            }
            receive(&mut self.tls, &buffer[..read], |bytes| {
                self.plain.extend_from_slice(bytes);
                Ok(())
            })?;
        }
    }
}

/// Decrypts what came from the network and hands it on piece by piece.
pub(super) fn receive(
    tls: &mut ClientConnection,
    mut bytes: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let state = tls.process_new_packets().context("decrypt")?;
        let mut left = state.plaintext_bytes_to_read();
        let mut reader = tls.reader();
        while left > 0 {
            let piece = reader.fill_buf()?;
            let size = piece.len();
            each(piece)?;
            reader.consume(size);
            left -= size;
        }
    }
    Ok(())
}
