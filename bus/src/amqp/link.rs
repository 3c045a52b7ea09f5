//! One open AMQP connection.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt as _, TryFutureExt as _};
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionStatus, ErrorKind, Event};
use muster_daemon::{TaskKind, Tasks};
use muster_protocol::limits::{BODY_BYTES_MAX, SIGNATURES_BYTES_MAX};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::Socket;
use super::consumer::AmqpSource;
use super::failure::{close_reason, refusal};
use super::line::Line;
use super::publisher::{self, Answer, Request};
use super::settings::AmqpSettings;
use crate::consumer::{Consumer, Source};
use crate::error::{BusError, CloseReason, Operation, PublishError};
use crate::link::{ConsumeOptions, Guarantee, Link, QueueSpec};
use crate::message::Outgoing;

/// Longest name or routing key in AMQP 0-9-1, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// How many requests may wait for the link's task.
const REQUESTS_MAX: usize = 64;

/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// One open connection.
pub(super) struct AmqpLink {
    connection: Connection,
    state: Arc<State>,
    socket: Socket,
    user: ShortString,
    limit: Duration,
    requests: mpsc::Sender<Request>,
    /// Declares and binds; the next consumer takes it over.
    control: AsyncMutex<Option<Channel>>,
    /// Publishes with confirms.
    confirmed: AsyncMutex<Option<Channel>>,
    /// Publishes without.
    unconfirmed: AsyncMutex<Option<Channel>>,
    /// What was published without and is not written yet.
    line: Line,
    /// Whether the channel of the consumer publishes without confirms too.
    one_channel: bool,
}

/// What everybody on a connection may know about it.
pub(super) struct State {
    status: ConnectionStatus,
    ended: CancellationToken,
    requested: AtomicBool,
    last_error: Mutex<Option<lapin::Error>>,
    blocked: watch::Sender<Option<String>>,
    reason: watch::Sender<Option<CloseReason>>,
}

impl State {
    fn new(status: ConnectionStatus, ended: CancellationToken) -> Self {
        Self {
            status,
            ended,
            requested: AtomicBool::new(false),
            last_error: Mutex::new(None),
            blocked: watch::Sender::new(None),
            reason: watch::Sender::new(None),
        }
    }

    /// Whether this side asked for the end.
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Whether the connection works.
    pub(super) fn is_alive(&self) -> bool {
        self.status.connected() && !self.ended.is_cancelled()
    }

    /// Whether the connection is over and done with.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled() || self.status.errored() || self.status.closed()
    }

    /// Resolves when lapin's thread has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Takes note of an event.
    pub(super) fn hear(&self, event: Event) {
        match event {
            Event::ConnectionBlocked(why) => drop(self.blocked.send_replace(Some(why))),
            Event::ConnectionUnblocked => drop(self.blocked.send_replace(None)),
            Event::Error(error) => {
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            _ => {}
        }
    }

    /// Publishes the reason of the end.
    pub(super) fn finish(&self) {
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = match last {
            _ if self.is_requested() => CloseReason::Requested,
            // A refused operation is not what ends a connection.
            Some(error) if !error.is_amqp_soft_error() => close_reason(&error),
            _ => CloseReason::Lost { why: "the broker hung up".to_owned() },
        };
        self.reason.send_replace(Some(reason));
    }

    /// The reason of the end, once there is one.
    async fn reason(&self) -> CloseReason {
        match self.reason.subscribe().wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            // The sender is part of `self`, and the condition excludes `None`.
            _ => CloseReason::Lost { why: "the broker hung up".to_owned() },
        }
    }

    /// The error for whoever uses a connection that is gone or going.
    pub(super) async fn closed_error(&self, error: Option<&lapin::Error>) -> BusError {
        // The task learns of the end a moment later than the operation that failed by it.
        let reason = match tokio::time::timeout(Duration::from_secs(1), self.reason()).await {
            Ok(reason) => reason,
            Err(_) => error.map_or_else(|| CloseReason::Lost { why: "unknown".to_owned() }, close_reason),
        };
        BusError::Closed(reason)
    }

    /// What a failed operation means.
    pub(super) async fn error(&self, error: &lapin::Error, operation: Operation, resource: &str) -> BusError {
        if let Some(refusal) = refusal(error, operation, resource) {
            return refusal;
        }
        if !self.is_alive() || error.is_io_error() || error.is_amqp_hard_error() {
            return self.closed_error(Some(error)).await;
        }
        BusError::Unexpected { operation, resource: resource.to_owned(), why: error.to_string() }
    }
}

impl AmqpLink {
    /// Takes over a fresh connection and starts its task.
    pub(super) fn start(
        connection: Connection,
        ended: CancellationToken,
        socket: Socket,
        settings: &AmqpSettings,
    ) -> Self {
        let state = Arc::new(State::new(connection.status().clone(), ended));
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let user = ShortString::from(settings.credentials.identity().to_string());
        let task = publisher::run(Arc::clone(&state), connection.events_listener(), receiver, user.clone());
        // The task ends with the connection, which ends with the last handle to it.
        Tasks::new().spawn(TaskKind::Worker, "bus connection", task);
        Self {
            connection,
            state,
            socket,
            user,
            limit: settings.operation_timeout,
            requests,
            control: AsyncMutex::new(None),
            confirmed: AsyncMutex::new(None),
            unconfirmed: AsyncMutex::new(None),
            line: Line::default(),
            one_channel: settings.one_channel,
        }
    }

    /// Bounds an operation, and says at once when the connection is gone.
    async fn within<T>(
        &self,
        operation: Operation,
        resource: &str,
        work: impl Future<Output = Result<T, BusError>> + Send,
    ) -> Result<T, BusError> {
        if self.state.is_requested() || !self.state.is_alive() {
            return Err(self.state.closed_error(None).await);
        }
        tokio::select! {
            biased;
            result = tokio::time::timeout(self.limit, work) => result.unwrap_or_else(|_| {
                Err(BusError::Timeout { operation, resource: resource.to_owned(), limit_ms: self.limit_ms() })
            }),
            () = self.state.ended() => Err(self.state.closed_error(None).await),
        }
    }

    /// Runs an operation on the control channel. A channel that the broker closed is not used again.
    async fn control<T, F>(
        &self,
        operation: Operation,
        resource: &str,
        work: impl FnOnce(Channel) -> F + Send,
    ) -> Result<T, BusError>
    where
        T: Send,
        F: Future<Output = lapin::Result<T>> + Send,
    {
        self.within(operation, resource, async {
            let mut control = self.control.lock().await;
            // Taken, so that a channel whose operation is given up half-way is dropped with it.
            let channel = match control.take() {
                Some(channel) if channel.status().connected() => channel,
                _ => self.open().await?,
            };
            match work(channel.clone()).await {
                Ok(value) => {
                    *control = Some(channel);
                    Ok(value)
                }
                Err(error) => Err(self.state.error(&error, operation, resource).await),
            }
        })
        .await
    }

    async fn open(&self) -> Result<Channel, BusError> {
        match self.connection.create_channel().await {
            Ok(channel) => Ok(channel),
            Err(error) => Err(self.state.error(&error, Operation::Open, "a channel").await),
        }
    }

    /// The channel for confirmed messages, opened anew if the broker closed it.
    async fn confirmed_channel(&self) -> Result<Channel, BusError> {
        let mut confirmed = self.confirmed.lock().await;
        if let Some(channel) = confirmed.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.open().await?;
        if let Err(error) = channel.confirm_select(ConfirmSelectOptions::default()).await {
            return Err(self.state.error(&error, Operation::Open, "a channel with confirms").await);
        }
        *confirmed = Some(channel.clone());
        Ok(channel)
    }

    /// The channel for unconfirmed messages. Nobody hears why the broker closed the one before, so the log does.
    async fn unconfirmed_channel(&self) -> Result<Channel, BusError> {
        let mut unconfirmed = self.unconfirmed.lock().await;
        if let Some(channel) = unconfirmed.as_ref() {
            if channel.status().connected() {
                return Ok(channel.clone());
            }
            if self.state.is_alive() {
                let why = self.state.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let why = why.map_or_else(String::new, |error| error.to_string());
                tracing::warn!(why, "The broker refused unconfirmed messages; some are lost");
            }
        }
        let channel = self.open().await?;
        *unconfirmed = Some(channel.clone());
        Ok(channel)
    }

    /// Waits while the broker takes no messages.
    async fn unblocked(&self, deadline: Instant) -> Result<(), PublishError> {
        let mut blocked = self.state.blocked.subscribe();
        if blocked.borrow_and_update().is_none() {
            return Ok(());
        }
        // Nothing of the value is kept: it is a lock.
        let wait = async { drop(blocked.wait_for(Option::is_none).await) };
        let result = tokio::select! {
            biased;
            result = tokio::time::timeout_at(deadline, wait) => result,
            () = self.state.ended() => return Err(self.state.closed_error(None).await.into()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(_) => Err(self.blocked_error(false)),
        }
    }

    fn blocked_error(&self, sent: bool) -> PublishError {
        let why = self.state.blocked.borrow().clone().unwrap_or_default();
        PublishError::Blocked { why, limit_ms: self.limit_ms(), sent }
    }

    fn limit_ms(&self) -> u64 {
        u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX)
    }

    async fn publish_message(&self, message: Outgoing, guarantee: Guarantee) -> Result<(), PublishError> {
        check_size(&message)?;
        let deadline = Instant::now() + self.limit;
        self.unblocked(deadline).await?;
        let resource = format!("{}` with key `{}", message.exchange, message.routing_key);
        if guarantee == Guarantee::Fire {
            let fired = self.fire(Arc::new(message), &resource);
            return self.within(Operation::Publish, &resource, fired).await.map_err(|error| match error {
                BusError::Timeout { .. } if self.state.blocked.borrow().is_some() => self.blocked_error(true),
                error => error.into(),
            });
        }
        // A channel that closes between opening and use costs a second attempt, not the message.
        for _ in 0..3 {
            let channel = self.within(Operation::Publish, &resource, self.confirmed_channel()).await?;
            match self.confirmed_publish(channel, &message, deadline, &resource).await {
                Err(None) => {}
                Err(Some(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        let why = "the broker closes the channel again and again".to_owned();
        Err(BusError::Unexpected { operation: Operation::Publish, resource, why }.into())
    }

    async fn fire(&self, message: Arc<Outgoing>, resource: &str) -> Result<(), BusError> {
        let bytes = message.body.len() + message.signatures.len();
        let mut attempts = 0;
        loop {
            let channel = self.unconfirmed_channel().await?;
            let mut sending = publisher::fire(channel.clone(), Arc::clone(&message), self.user.clone()).boxed();
            let written = match (&mut sending).now_or_never() {
                Some(written) => written,
                None => match self.line.leave(bytes, sending) {
                    // What goes wrong from here on is the fate of a message that may be lost.
                    None => return Ok(()),
                    Some(sending) => sending.await,
                },
            };
            let Err(error) = written else { return Ok(()) };
            attempts += 1;
            // The broker closed the channel because of an earlier message: this one has done nothing wrong.
            if attempts >= 3 || channel.status().connected() || !self.state.is_alive() {
                return Err(self.state.error(&error, Operation::Publish, resource).await);
            }
        }
    }

    /// Publishes and waits for the confirm; `None` if nothing was sent because the channel was gone.
    async fn confirmed_publish(
        &self,
        channel: Channel,
        message: &Outgoing,
        deadline: Instant,
        resource: &str,
    ) -> Result<(), Option<PublishError>> {
        let (answer, answered) = oneshot::channel();
        let request = Request { channel, message: message.clone(), answer };
        let unconfirmed = |cause| {
            Some(PublishError::Unconfirmed { routing_key: message.routing_key.clone(), cause: Box::new(cause) })
        };
        let timeout = || BusError::Timeout {
            operation: Operation::Publish,
            resource: resource.to_owned(),
            limit_ms: self.limit_ms(),
        };
        match tokio::time::timeout_at(deadline, self.requests.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Some(self.state.closed_error(None).await.into())),
            Err(_) if self.state.blocked.borrow().is_some() => return Err(Some(self.blocked_error(false))),
            Err(_) => return Err(Some(timeout().into())),
        }
        let answer = match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            // The task has ended with the connection.
            Ok(Err(_)) => return Err(unconfirmed(self.state.closed_error(None).await)),
            Err(_) if self.state.blocked.borrow().is_some() => return Err(Some(self.blocked_error(true))),
            Err(_) => return Err(unconfirmed(timeout())),
        };
        let (exchange, routing_key) = (message.exchange.to_owned(), message.routing_key.clone());
        match answer {
            Answer::Confirmed => Ok(()),
            Answer::Unroutable => Err(Some(PublishError::Unroutable { exchange, routing_key })),
            Answer::Refused => Err(Some(PublishError::Refused { exchange, routing_key })),
            Answer::NotSent if self.state.is_alive() => Err(None),
            Answer::NotSent => Err(Some(self.state.closed_error(None).await.into())),
            Answer::Failed(error) => {
                let guilty = is_about(&error, message);
                let error = self.state.error(&error, Operation::Publish, resource).await;
                if guilty { Err(Some(error.into())) } else { Err(unconfirmed(error)) }
            }
        }
    }

    async fn goodbye(&self) {
        self.state.requested.store(true, Ordering::Release);
        let polite = async {
            // lapin sends the goodbye before messages that are still in its line.
            self.line.written().await;
            // Whatever it answers, the end is what counts.
            drop(self.connection.close(200, "OK".into()).await);
            self.state.ended().await;
        };
        if tokio::time::timeout(GOODBYE, polite).await.is_err() {
            self.socket.shut();
            drop(tokio::time::timeout(GOODBYE, self.state.ended()).await);
        }
    }
}

/// Whether the broker closed the channel because of this message, rather than of one sent before it.
///
/// Its words name exchange and key; a refusal that names neither is about the message itself.
fn is_about(error: &lapin::Error, message: &Outgoing) -> bool {
    let ErrorKind::ProtocolError(amqp) = error.kind() else { return false };
    if !error.is_amqp_soft_error() {
        return false;
    }
    let text = amqp.get_message().as_str();
    if text.contains("topic '") {
        text.contains(&format!("topic '{}'", message.routing_key))
    } else if text.contains("exchange '") {
        text.contains(&format!("exchange '{}'", message.exchange))
    } else {
        true
    }
}

fn check_size(message: &Outgoing) -> Result<(), PublishError> {
    let key = message.routing_key.len().max(message.correlation_id.as_ref().map_or(0, String::len));
    for (what, bytes, limit) in [
        ("body", message.body.len(), BODY_BYTES_MAX),
        ("signatures", message.signatures.len(), SIGNATURES_BYTES_MAX),
        ("routing key", key, NAME_BYTES_MAX),
        ("content type", message.content_type.len(), NAME_BYTES_MAX),
    ] {
        if bytes > limit {
            return Err(PublishError::TooLarge { what, bytes, limit });
        }
    }
    Ok(())
}

fn name(text: &str, operation: Operation) -> Result<ShortString, BusError> {
    ShortString::try_new(text).map_err(|_| BusError::Unexpected {
        operation,
        resource: text.to_owned(),
        why: format!("a name on the broker has at most {NAME_BYTES_MAX} bytes"),
    })
}

fn declare_options(queue: &QueueSpec) -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: false,
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        nowait: false,
    }
}

impl Link for AmqpLink {
    fn declare_queue(&self, queue: QueueSpec) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            let queue_name = name(&queue.name, Operation::Declare)?;
            let options = declare_options(&queue);
            self.control(Operation::Declare, &queue.name, move |channel| async move {
                channel.queue_declare(queue_name, options, FieldTable::default()).await.map(drop)
            })
            .await
        }
        .boxed()
    }

    fn declare_bound<'a>(
        &'a self,
        queue: QueueSpec,
        exchange: &'a str,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<(), BusError>> {
        async move {
            let operation = Operation::Declare;
            let (queue_name, exchange_name) = (name(&queue.name, operation)?, name(exchange, operation)?);
            let names = keys.iter().map(|key| name(key, operation)).collect::<Result<Vec<_>, _>>()?;
            let options = declare_options(&queue);
            // Everything is asked in one go, and the broker answers in order. What it refuses ends the channel, and the
            // error does not say what it was; then everything is asked again one by one.
            let in_one_go = self.control(operation, &queue.name, move |channel| async move {
                let declared = channel.queue_declare(queue_name.clone(), options, FieldTable::default()).map_ok(drop);
                let mut asked = vec![declared.boxed()];
                asked.extend(names.into_iter().map(|key| {
                    let (queue, exchange) = (queue_name.clone(), exchange_name.clone());
                    channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default()).boxed()
                }));
                try_join_all(asked).await.map(drop)
            });
            match in_one_go.await {
                Err(BusError::Denied { .. } | BusError::NotFound { .. } | BusError::Conflict { .. }) => {}
                done => return done,
            }
            let queue_name = queue.name.clone();
            self.declare_queue(queue).await?;
            for key in keys {
                self.bind(&queue_name, exchange, key).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn bind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        async move {
            let resource = format!("{queue}` to `{exchange}` with key `{key}");
            let operation = Operation::Bind;
            let (queue, exchange, key) =
                (name(&queue, operation)?, name(&exchange, operation)?, name(&key, operation)?);
            self.control(operation, &resource, move |channel| async move {
                channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default()).await
            })
            .await
        }
        .boxed()
    }

    fn unbind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        async move {
            let resource = format!("{queue}` from `{exchange}` with key `{key}");
            let operation = Operation::Unbind;
            let (queue, exchange, key) =
                (name(&queue, operation)?, name(&exchange, operation)?, name(&key, operation)?);
            self.control(operation, &resource, move |channel| async move {
                channel.queue_unbind(queue, exchange, key, FieldTable::default()).await
            })
            .await
        }
        .boxed()
    }

    fn consume(&self, queue: &str, options: ConsumeOptions) -> BoxFuture<'_, Result<Consumer, BusError>> {
        let queue = queue.to_owned();
        async move {
            let queue_name = name(&queue, Operation::Consume)?;
            let (channel, consumer) = self
                .control(Operation::Consume, &queue, move |channel| async move {
                    let consume =
                        BasicConsumeOptions { exclusive: options.exclusive, ..BasicConsumeOptions::default() };
                    // In one go; the broker takes them in order.
                    let ahead = channel.basic_qos(options.prefetch.max(1), BasicQosOptions { global: false });
                    let consuming = channel.basic_consume(queue_name, "".into(), consume, FieldTable::default());
                    let ((), consumer) = futures_util::future::try_join(ahead, consuming).await?;
                    Ok((channel, consumer))
                })
                .await?;
            // From here on the channel is the consumer's: a refused bind must not end it.
            let mut control = self.control.lock().await;
            if control.as_ref().is_some_and(|control| control.id() == channel.id()) {
                *control = None;
            }
            drop(control);
            if self.one_channel {
                *self.unconfirmed.lock().await = Some(channel.clone());
            }
            let source = AmqpSource::new(consumer, channel, Arc::clone(&self.state), &queue);
            Ok(Consumer { source: Source::Amqp(source) })
        }
        .boxed()
    }

    fn publish(&self, message: Outgoing, guarantee: Guarantee) -> BoxFuture<'_, Result<(), PublishError>> {
        self.publish_message(message, guarantee).boxed()
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        self.state.reason().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.goodbye().boxed()
    }
}
