//! The task of a connection: it hears of the connection's events and matches confirms with messages.
//!
//! All confirmed messages go through here, for two reasons. lapin numbers a message and queues it in two
//! steps, so two threads could swap numbers; one task cannot. And lapin hands a returned message to
//! whichever confirm comes first, which with pipelining may be another message's. Each mandatory message
//! therefore carries a number in `message-id`, and no confirm is believed before all confirms that are
//! there were looked at: a return always precedes its own confirm, so it is then known.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{FuturesUnordered, Stream};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use muster_protocol::envelope::SIGNATURES_HEADER;
use tokio::sync::{mpsc, oneshot};

use super::link::State;
use crate::message::Outgoing;

/// Most messages that wait for their confirms; more wait before they are sent.
const IN_FLIGHT_MAX: usize = 1024;

/// A message to publish with confirm.
pub(super) struct Request {
    pub(super) channel: Channel,
    pub(super) message: Outgoing,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Answer {
    Confirmed,
    Unroutable,
    Refused,
    /// The channel was gone before: nothing was sent.
    NotSent,
    Failed(lapin::Error),
}

struct Done {
    number: u64,
    answer: oneshot::Sender<Answer>,
    result: lapin::Result<Confirmation>,
}

/// Runs until the connection has ended.
pub(super) async fn run(
    state: Arc<State>,
    events: impl Stream<Item = Event> + Send + 'static,
    mut requests: mpsc::Receiver<Request>,
    user: ShortString,
) {
    let mut events = Box::pin(events);
    let mut in_flight = FuturesUnordered::new();
    let mut returned = HashSet::new();
    let mut number = 0_u64;
    let mut open = true;
    while !state.has_ended() {
        tokio::select! {
            biased;
            () = state.ended() => break,
            Some(event) = events.next() => state.hear(event),
            request = requests.recv(), if open && in_flight.len() < IN_FLIGHT_MAX => match request {
                Some(request) => {
                    number += 1;
                    in_flight.push(send(request, number, user.clone()));
                }
                // Nobody holds the link any more; consumers may still keep the connection.
                None => open = false,
            },
            Some(done) = in_flight.next(), if !in_flight.is_empty() => {
                let mut batch = vec![done];
                while let std::task::Poll::Ready(Some(done)) = futures_util::poll!(in_flight.next()) {
                    batch.push(done);
                }
                settle(batch, &mut returned);
            }
        }
    }
    // Events that explain the end may still be unread.
    while let std::task::Poll::Ready(Some(event)) = futures_util::poll!(events.next()) {
        state.hear(event);
    }
    state.finish();
}

/// Puts a message without confirm into the line; resolves when it is written.
pub(super) async fn fire(channel: Channel, message: Arc<Outgoing>, user: ShortString) -> lapin::Result<()> {
    publish(&channel, &message, 0, user).await.map(drop)
}

async fn send(request: Request, number: u64, user: ShortString) -> Done {
    let Request { channel, message, answer } = request;
    let result = match publish(&channel, &message, number, user).await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    Done { number, answer, result }
}

/// Hands a message to the connection, and waits until it is written.
pub(super) async fn publish(
    channel: &Channel,
    message: &Outgoing,
    number: u64,
    user: ShortString,
) -> lapin::Result<lapin::PublisherConfirm> {
    channel
        .basic_publish(
            message.exchange.into(),
            message.routing_key.as_str().into(),
            BasicPublishOptions { mandatory: message.mandatory, immediate: false },
            &message.body,
            properties(message, number, user),
        )
        .await
}

fn properties(message: &Outgoing, number: u64, user: ShortString) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_content_type(message.content_type.as_str().into())
        .with_delivery_mode(if message.persistent { 2 } else { 1 })
        .with_user_id(user);
    if !message.signatures.is_empty() {
        let mut headers = FieldTable::default();
        let text = LongString::from(message.signatures.to_vec());
        headers.insert(SIGNATURES_HEADER.into(), AMQPValue::LongString(text));
        properties = properties.with_headers(headers);
    }
    if let Some(expiration_ms) = message.expiration_ms {
        properties = properties.with_expiration(expiration_ms.to_string().into());
    }
    if let Some(correlation_id) = &message.correlation_id {
        properties = properties.with_correlation_id(correlation_id.as_str().into());
    }
    if message.mandatory {
        properties = properties.with_message_id(number.to_string().into());
    }
    properties
}

fn settle(batch: Vec<Done>, returned: &mut HashSet<u64>) {
    for done in &batch {
        if let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = &done.result
            && let Some(number) = message.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok())
        {
            returned.insert(number);
        }
    }
    for Done { number, answer, result } in batch {
        let unroutable = returned.remove(&number);
        let outcome = match result {
            _ if unroutable => Answer::Unroutable,
            Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => Answer::Confirmed,
            Ok(Confirmation::Nack(_)) => Answer::Refused,
            Err(error) if matches!(error.kind(), lapin::ErrorKind::InvalidChannelState(..)) => Answer::NotSent,
            Err(error) => Answer::Failed(error),
        };
        // Whoever asked may have given up.
        drop(answer.send(outcome));
    }
}
