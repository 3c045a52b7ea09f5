//! From a list of broker addresses to one open connection.

use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lapin::auth::AuthProvider;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use rand::seq::SliceRandom as _;
use tokio_util::sync::CancellationToken;

use super::failure::{Attempt, connecting, network, secure};
use super::link::AmqpLink;
use super::patience::Patience;
use super::settings::AmqpSettings;
use crate::error::{BusError, Try};
use crate::url::BrokerUrl;

/// Tries every address of every broker once, in random order, so that many clients spread over a cluster.
pub(super) async fn connect(
    settings: &AmqpSettings,
    patience: &Patience,
    connector: &OnceLock<RustlsConnector>,
) -> Result<AmqpLink, BusError> {
    let connector = match connector.get() {
        Some(connector) => connector,
        None => {
            // It asks for the revocation lists in force at each handshake, so it can be kept.
            let tls = muster_pki::tls::client_config(&settings.credentials, &settings.trust)
                .map_err(|error| BusError::Settings { why: chain(&error) })?;
            connector.get_or_init(|| RustlsConnector::from(tls))
        }
    };
    let mut urls = settings.urls.clone();
    urls.shuffle(&mut rand::rng());
    let mut tries = Vec::new();
    let mut telling = None;
    for url in &urls {
        let mut addresses = match resolve(settings, url).await {
            Ok(addresses) => addresses,
            Err(why) => {
                tries.push(Try { address: url.address(), why });
                continue;
            }
        };
        addresses.shuffle(&mut rand::rng());
        for address in addresses {
            match attempt(settings, patience, connector, url, address).await {
                Ok(link) => {
                    patience.was_in_time();
                    return Ok(link);
                }
                // A broker that answers and refuses says more than one that is not there.
                Err(Attempt::Telling(error)) => {
                    patience.was_in_time();
                    telling = telling.or(Some(error));
                }
                Err(Attempt::Network(why)) => tries.push(Try { address: describe(url, address), why }),
            }
        }
    }
    Err(telling.unwrap_or(BusError::Unreachable { tries }))
}

async fn resolve(settings: &AmqpSettings, url: &BrokerUrl) -> Result<Vec<SocketAddr>, String> {
    let lookup = tokio::net::lookup_host((url.host(), url.port()));
    match tokio::time::timeout(settings.connect_timeout, lookup).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() { Err("has no address in DNS".to_owned()) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(format!("does not resolve ({error})")),
        Err(_) => Err("does not resolve: the name service did not answer in time".to_owned()),
    }
}

/// The name as it was configured, with the address it resolved to where that differs.
fn describe(url: &BrokerUrl, address: SocketAddr) -> String {
    if url.address() == address.to_string() { address.to_string() } else { format!("{} ({address})", url.address()) }
}

async fn attempt(
    settings: &AmqpSettings,
    patience: &Patience,
    connector: &RustlsConnector,
    url: &BrokerUrl,
    address: SocketAddr,
) -> Result<AmqpLink, Attempt> {
    let deadline = tokio::time::Instant::now() + settings.connect_timeout;
    let silent = || Attempt::Network("did not answer in time (TCP)".to_owned());
    let runtime = lapin::runtime::default_runtime().map_err(|error| Attempt::Network(error.to_string()))?;
    let stream = tokio::time::timeout_at(deadline, AsyncTcpStream::connect(&runtime, address))
        .await
        .map_err(|_| silent())?
        .map_err(|error| network(&error))?;
    let late = |step: &str| {
        patience.was_late();
        Attempt::Network(format!("did not answer in time ({step})"))
    };
    let deadline = tokio::time::Instant::now() + patience.handshake(settings.connect_timeout);
    let socket = Socket::of(match &stream {
        AsyncTcpStream::Plain(stream) => stream.get_ref(),
        _ => return Err(Attempt::Network("is not a TCP connection".to_owned())),
    })
    .map_err(|error| network(&error))?;
    let stream = tokio::time::timeout_at(deadline, stream.into_rustls(connector, url.host()))
        .await
        .map_err(|_| late("TLS"))?
        .map_err(|error| secure(&error, url))?;

    // The closure lives exactly as long as lapin's I/O thread: its end is the connection's end.
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let stream = Mutex::new(Some(stream));
    let once = async move |_uri, _runtime| {
        let _alive = &guard;
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)))
    };
    let opening = Connection::connector(uri(settings, url), runtime, once, properties(settings));
    match tokio::time::timeout_at(deadline, opening).await {
        Ok(Ok(connection)) => Ok(AmqpLink::start(connection, ended, socket, settings)),
        Ok(Err(error)) => Err(connecting(&error, url, settings.credentials.identity())),
        Err(_) => {
            // lapin's thread waits for this socket; nothing else would wake it.
            socket.shut();
            Err(late("AMQP"))
        }
    }
}

/// A second handle of the connection's socket, to end it when the polite way takes too long.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<std::net::TcpStream>);

impl Socket {
    fn of(stream: &tokio::net::TcpStream) -> std::io::Result<Self> {
        Ok(Self(Arc::new(std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?))))
    }

    /// Ends the network connection at once. What was not sent is lost.
    pub(super) fn shut(&self) {
        // It may have ended by itself, which is what was wanted.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

/// The certificate is the login.
struct External;

impl AuthProvider for External {}

fn properties(settings: &AmqpSettings) -> ConnectionProperties {
    ConnectionProperties::default()
        .with_auth_provider(External)
        .with_connection_name(settings.connection_name.as_str().into())
        .with_client_property("product".into(), "Muster".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
}

fn uri(settings: &AmqpSettings, url: &BrokerUrl) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQPS,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: String::new(), password: String::new() },
            host: url.host().to_owned(),
            port: url.port(),
        },
        vhost: url.vhost().to_owned(),
        query: AMQPQueryString {
            frame_max: Some(settings.frame_max),
            heartbeat: Some(settings.heartbeat_s),
            ..AMQPQueryString::default()
        },
    }
}

/// An error with its causes, where it becomes part of another one's text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
