//! The echo with lapin, in the plainest way: a connection, a channel, a consumer, and a publish for each answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use futures_util::stream;
use lapin::auth::AuthProvider;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::types::FieldTable;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use muster_bus::Outgoing;
use muster_daemon::{TaskKind, Tasks};
use muster_pki::{Credentials, Trust};
use muster_protocol::routing::{VHOST_DEFAULT, reply_key};
use muster_protocol::{HostName, ReplyRoute};
use tokio::runtime::Runtime;

use super::frames::{self, short};
use super::lean::Round;
use super::messages::Messages;
use super::storm::Place;
use crate::ground::Ground;

/// How long everything may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Connections of lapin that answer, with a runtime of their own.
pub(super) struct LapinEcho {
    runtime: Option<Runtime>,
    connections: Vec<Connection>,
    tasks: Tasks,
    asked: Arc<Mutex<Asked>>,
}

/// What is asked now.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// How many of the hosts answer, counted from the first.
    replying: usize,
    round: Round,
}

/// One host, before it is connected.
struct Host {
    number: usize,
    name: HostName,
    credentials: Credentials,
    trust: Trust,
    port: u16,
}

/// An answer to be published.
struct Ready {
    message: Outgoing,
    key: String,
    properties: BasicProperties,
}

impl LapinEcho {
    pub(super) fn start(
        ground: &Ground,
        place: &Place,
        at_once: usize,
        messages: &Messages,
        routes: Vec<ReplyRoute>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start a runtime")?;
        let members = place.members(ground)?.into_iter().enumerate();
        let hosts: Vec<Host> = members
            .map(|(number, (name, credentials))| Host {
                number,
                name: name.clone(),
                credentials: credentials.clone(),
                trust: ground.site.trust(),
                port: ground.broker.port(),
            })
            .collect();
        let asked = Arc::new(Mutex::new(Asked { replying: hosts.len(), round: Round::default() }));
        let plain = messages.requests[0].body[0];
        let (connections, tasks) = runtime.block_on(async {
            let tasks = Tasks::new();
            let mut connections = Vec::with_capacity(hosts.len());
            let mut opening = stream::iter(hosts)
                .map(|host| async { connect(&host, place).await.map(|open| (host, open)) })
                .buffer_unordered(at_once.max(1));
            while let Some(opened) = opening.next().await {
                let (host, (connection, channel, consumer)) = opened?;
                let ready = routes.iter().map(|route| ready(&host, route, messages)).collect::<Result<Vec<_>>>()?;
                let asked = asked.clone();
                let controller = move |mark: u8| {
                    let asked = *asked.lock().unwrap_or_else(PoisonError::into_inner);
                    asked.round.controller(mark ^ plain).filter(|_| host.number < asked.replying)
                };
                tasks.spawn(TaskKind::Worker, "lapin echo", answer(channel, consumer, ready, controller));
                connections.push(connection);
            }
            anyhow::Ok((connections, tasks))
        })?;
        Ok(Self { runtime: Some(runtime), connections, tasks, asked })
    }

    /// Only the first `replying` hosts answer from now on, and only to requests of this round.
    pub(super) fn reply(&self, replying: usize, round: Round) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Asked { replying, round };
    }
}

impl Drop for LapinEcho {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let connections = std::mem::take(&mut self.connections);
        runtime.block_on(async {
            // The goodbye is polite; that the connections end is what counts.
            let all = stream::iter(&connections).for_each_concurrent(64, |connection| async {
                drop(connection.close(200, "".into()).await);
            });
            drop(tokio::time::timeout(END_LIMIT, all).await);
            drop(self.tasks.shutdown(END_LIMIT).await);
        });
        runtime.shutdown_timeout(END_LIMIT);
    }
}

/// The certificate is the login.
struct External;

impl AuthProvider for External {}

async fn connect(host: &Host, place: &Place) -> Result<(Connection, Channel, Consumer)> {
    let runtime = lapin::runtime::default_runtime()?;
    let connector = RustlsConnector::from(muster_pki::tls::client_config(&host.credentials, &host.trust)?);
    let address = SocketAddr::from(([127, 0, 0, 1], host.port));
    let open = async move |_, runtime| {
        AsyncTcpStream::connect(&runtime, address).await?.into_rustls(&connector, "localhost").await.map_err(Into::into)
    };
    let properties = ConnectionProperties::default().with_auth_provider(External);
    let connection = Connection::connector(uri(host.port), runtime, open, properties).await.context("connect")?;
    let channel = connection.create_channel().await?;
    let subscription = place.subscription(&host.name)?;
    let queue = short(&subscription.queue)?;
    let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), declare, FieldTable::default()).await?;
    for key in &subscription.keys {
        let (exchange, key) = (short(subscription.exchange)?, short(key)?);
        channel.queue_bind(queue.clone(), exchange, key, QueueBindOptions::default(), FieldTable::default()).await?;
    }
    let consume = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue, "".into(), consume, FieldTable::default()).await?;
    Ok((connection, channel, consumer))
}

fn uri(port: u16) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQPS,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: String::new(), password: String::new() },
            host: "localhost".to_owned(),
            port,
        },
        vhost: VHOST_DEFAULT.to_owned(),
        // As the bus does it: lapin's buffers are 64 frames each.
        query: AMQPQueryString { frame_max: Some(16 * 1024), heartbeat: Some(0), ..AMQPQueryString::default() },
    }
}

fn ready(host: &Host, route: &ReplyRoute, messages: &Messages) -> Result<Vec<Ready>> {
    let user = host.credentials.identity().to_string();
    let one = |reply: &Outgoing| -> Result<Ready> {
        Ok(Ready {
            message: reply.clone(),
            key: reply_key(route, &host.name),
            properties: frames::properties(reply, &user)?,
        })
    };
    messages.replies.iter().map(one).collect()
}

/// Answers until the connection ends. `controller` says by a request's first byte who is to be answered.
async fn answer(
    channel: Channel,
    mut consumer: Consumer,
    ready: Vec<Vec<Ready>>,
    controller: impl Fn(u8) -> Option<u8>,
) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let controller = delivery.data.first().and_then(|first| controller(*first));
        let replies = controller.and_then(|controller| ready.get(usize::from(controller)));
        for reply in replies.into_iter().flatten() {
            let options = BasicPublishOptions { mandatory: reply.message.mandatory, immediate: false };
            let exchange = reply.message.exchange.into();
            let published = channel.basic_publish(
                exchange,
                reply.key.as_str().into(),
                options,
                &reply.message.body,
                reply.properties.clone(),
            );
            if published.await.is_err() {
                return;
            }
        }
    }
}
