//! A plain AMQP client, as somebody with a certificate and no respect for our programs would use.

use std::net::SocketAddr;
use std::sync::Arc;

use amq_protocol_tcp::{AsyncTcpStream, RustlsConnector};
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::protocol::AMQPErrorKind;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Error, ErrorKind, ExchangeKind};
use muster_broker_config::Operation;
use muster_pki::Trust;
use muster_tests::pki::Member;
use rustls::ClientConfig;

/// Connects with this TLS configuration and SASL mechanism.
pub(crate) async fn connect_with(url: &str, mechanism: &str, tls: Arc<ClientConfig>) -> lapin::Result<Connection> {
    let uri: AMQPUri = format!("{url}?auth_mechanism={mechanism}").parse().expect("a broker URL");
    let connector = RustlsConnector::from(tls);
    let runtime = lapin::runtime::default_runtime()?;
    let properties = ConnectionProperties::default();
    Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let host = uri.authority.host.clone();
            let found = tokio::net::lookup_host((host.as_str(), uri.authority.port)).await?;
            // The private node listens on 127.0.0.1 only.
            let addresses: Vec<SocketAddr> = found.filter(SocketAddr::is_ipv4).collect();
            let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
            Ok(stream.into_rustls(&connector, &host).await?)
        },
        properties,
    )
    .await
}

/// Logs in with a certificate, as agents and controllers do.
pub(crate) async fn connect(url: &str, member: &Member, trust: &Trust) -> lapin::Result<Connection> {
    let tls = muster_pki::tls::client_config(&member.credentials, trust).expect("a TLS configuration");
    connect_with(url, "external", tls).await
}

/// The AMQP reply code in an error; `None` for anything that is not the broker's answer.
pub(crate) fn reply_code(error: &Error) -> Option<u16> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    Some(match error.kind() {
        AMQPErrorKind::Soft(code) => code.get_id(),
        AMQPErrorKind::Hard(code) => code.get_id(),
    })
}

/// Does one operation on a channel of its own and waits for the broker's answer.
pub(crate) async fn perform(connection: &Connection, operation: &Operation<'_>) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let arguments = FieldTable::default();
    match *operation {
        Operation::DeclareQueue { queue } => declare(&channel, queue, arguments).await?,
        Operation::DeclareQueueDeadLettering { queue, exchange } => {
            let mut arguments = arguments;
            arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(exchange.into()));
            declare(&channel, queue, arguments).await?;
        }
        Operation::DeleteQueue { queue } => {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        Operation::PurgeQueue { queue } => {
            channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
        }
        Operation::Consume { queue } => {
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.into(), "test".into(), options, arguments).await?;
        }
        Operation::Bind { queue, exchange, key } => {
            let options = QueueBindOptions::default();
            channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await?;
        }
        Operation::BindExchange { destination, source, key } => {
            let options = ExchangeBindOptions::default();
            channel.exchange_bind(destination.into(), source.into(), key.into(), options, arguments).await?;
        }
        Operation::Publish { exchange, key } => {
            publish(&channel, exchange, key, BasicProperties::default(), b"test").await?;
        }
        Operation::DeclareExchange { exchange } => {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, arguments).await?;
        }
        Operation::DeleteExchange { exchange } => {
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
        }
    }
    channel.close(200, "done".into()).await
}

/// Publishes and waits for the broker's confirm.
pub(crate) async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    properties: BasicProperties,
    body: &[u8],
) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await.map(drop)
}

async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.map(drop)
}
