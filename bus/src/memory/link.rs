//! One connection to the broker in memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_daemon::TaskKind;
use muster_protocol::Identity;
use muster_protocol::limits::{BODY_BYTES_MAX, SIGNATURES_BYTES_MAX};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::broker::{ConsumerId, LinkId, Message};
use super::level::Level;
use super::{Access, Cut, MemoryBroker, Permission, Step};
use crate::consumer::{Consumer, ConsumerEnd, Source};
use crate::error::{BusError, CloseReason, Operation, PublishError};
use crate::link::{ConsumeOptions, Guarantee, Link, QueueSpec};
use crate::message::{Delivery, Outgoing, Settlement, Settler};

/// A connection, for as long as anybody uses it.
struct Session {
    broker: MemoryBroker,
    identity: Identity,
    id: LinkId,
    closed: Arc<Level<Option<CloseReason>>>,
}

impl Session {
    fn closed_error(&self) -> BusError {
        BusError::Closed(self.closed.look(Clone::clone).unwrap_or(CloseReason::Requested))
    }

    async fn closed(&self) -> CloseReason {
        self.closed.wait(Clone::clone).await
    }

    /// Waits on the way to the broker or back.
    async fn travel(&self, time: Duration) -> Result<(), BusError> {
        if time.is_zero() {
            return self.check_open();
        }
        tokio::select! {
            biased;
            reason = self.closed() => Err(BusError::Closed(reason)),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Breaks the connection, as the weather says.
    fn cut(&self) -> BusError {
        let reason = CloseReason::Lost { why: "cut at this step".to_owned() };
        self.broker.lock().close(self.id, &reason);
        BusError::Closed(reason)
    }

    /// Has the broker do something, through the weather there and back.
    async fn ask<T>(&self, step: Step, act: impl FnOnce() -> Result<T, BusError>) -> Result<T, BusError> {
        let weather = self.broker.weather(&self.identity, step);
        self.travel(weather.before).await?;
        if weather.cut == Cut::Before {
            return Err(self.cut());
        }
        let done = act();
        if weather.cut == Cut::After {
            return Err(self.cut());
        }
        self.travel(weather.after).await?;
        done
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.broker.lock().is_open(self.id) { Ok(()) } else { Err(self.closed_error()) }
    }

    fn allow(
        &self,
        operation: Operation,
        access: Access,
        resource: &str,
        routing_key: Option<&str>,
    ) -> Result<(), BusError> {
        if self.broker.allows(&self.identity, Permission { access, resource, routing_key }) {
            return Ok(());
        }
        let why = format!("ACCESS_REFUSED - access to '{resource}' refused for user '{}'", self.identity);
        Err(BusError::Denied { operation, resource: resource.to_owned(), why })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.broker.lock().close(self.id, &CloseReason::Requested);
    }
}

/// One connection to the broker in memory.
pub(super) struct MemoryLink {
    session: Arc<Session>,
}

/// Connects; `None` while the broker is down, or if it cannot be reached.
pub(super) async fn connect(broker: &MemoryBroker, identity: &Identity) -> Option<MemoryLink> {
    let weather = broker.weather(identity, Step::Connect);
    tokio::time::sleep(weather.before).await;
    if weather.cut == Cut::Before {
        return None;
    }
    let closed = Arc::new(Level::new(None));
    let id = {
        let mut state = broker.lock();
        if state.down {
            return None;
        }
        state.connect(identity, closed.clone())
    };
    let session = Session { broker: broker.clone(), identity: identity.clone(), id, closed };
    if weather.cut == Cut::After {
        return None;
    }
    session.travel(weather.after).await.ok()?;
    Some(MemoryLink { session: Arc::new(session) })
}

impl MemoryLink {
    async fn set_binding(&self, queue: &str, exchange: &str, key: &str, bound: bool) -> Result<(), BusError> {
        let operation = if bound { Operation::Bind } else { Operation::Unbind };
        let act = || {
            self.session.check_open()?;
            self.session.allow(operation, Access::Write, queue, None)?;
            self.session.allow(operation, Access::Read, exchange, Some(key))?;
            self.session.broker.lock().bind(self.session.id, queue, exchange, key, bound)
        };
        self.session.ask(Step::Bind, act).await
    }

    async fn publish_message(&self, message: Outgoing, guarantee: Guarantee) -> Result<(), PublishError> {
        let session = &self.session;
        session.check_open()?;
        for (what, bytes, limit) in [
            ("body", message.body.len(), BODY_BYTES_MAX),
            ("signatures", message.signatures.len(), SIGNATURES_BYTES_MAX),
        ] {
            if bytes > limit {
                return Err(PublishError::TooLarge { what, bytes, limit });
            }
        }
        self.unblocked().await?;
        session.check_open()?;
        let weather = session.broker.weather(&session.identity, Step::Publish);
        // What nobody waits for was handed over, and gets lost with the connection.
        let routing_key = message.routing_key.clone();
        let on_the_way = |error: BusError| match guarantee {
            Guarantee::Confirmed => Err(PublishError::Unconfirmed { routing_key, cause: Box::new(error) }),
            Guarantee::Fire => Ok(()),
        };
        if let Err(error) = session.travel(weather.before).await {
            return on_the_way(error);
        }
        if weather.cut == Cut::Before {
            return on_the_way(session.cut());
        }
        let done = self.hand_over(message, guarantee);
        if weather.cut == Cut::After {
            return on_the_way(session.cut());
        }
        if guarantee == Guarantee::Confirmed
            && let Err(error) = session.travel(weather.after).await
        {
            return on_the_way(error);
        }
        done
    }

    /// What happens to a message once it is at the broker.
    fn hand_over(&self, message: Outgoing, guarantee: Guarantee) -> Result<(), PublishError> {
        let session = &self.session;
        let (exchange, routing_key) = (message.exchange, message.routing_key.clone());
        // A refusal of an unconfirmed message reaches nobody.
        let refused = |error: BusError| match guarantee {
            Guarantee::Confirmed => Err(error.into()),
            Guarantee::Fire => Ok(()),
        };
        if let Err(error) = session.allow(Operation::Publish, Access::Write, exchange, Some(&routing_key)) {
            return refused(error);
        }
        let mandatory = message.mandatory && guarantee == Guarantee::Confirmed;
        match session.broker.publish(&session.identity, message) {
            None => refused(BusError::NotFound {
                operation: Operation::Publish,
                resource: exchange.to_owned(),
                why: "NOT_FOUND - no such exchange".to_owned(),
            }),
            Some(0) if mandatory => Err(PublishError::Unroutable { exchange: exchange.to_owned(), routing_key }),
            Some(_) => Ok(()),
        }
    }

    async fn unblocked(&self) -> Result<(), PublishError> {
        let limit = self.session.broker.shared.limit;
        let blocked = &self.session.broker.shared.blocked;
        if blocked.look(Option::is_none) {
            return Ok(());
        }
        let wait = blocked.wait(|why| why.is_none().then_some(()));
        tokio::select! {
            biased;
            result = tokio::time::timeout(limit, wait) => result.map_err(|_| PublishError::Blocked {
                why: blocked.look(Clone::clone).unwrap_or_default(),
                limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                sent: false,
            }),
            reason = self.closed() => Err(BusError::Closed(reason).into()),
        }
    }
}

impl Link for MemoryLink {
    fn declare_queue(&self, queue: QueueSpec) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            let act = || {
                self.session.check_open()?;
                self.session.allow(Operation::Declare, Access::Configure, &queue.name, None)?;
                self.session.broker.lock().declare(self.session.id, queue)
            };
            self.session.ask(Step::Declare, act).await
        }
        .boxed()
    }

    fn bind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        async move { self.set_binding(&queue, &exchange, &key, true).await }.boxed()
    }

    fn unbind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        async move { self.set_binding(&queue, &exchange, &key, false).await }.boxed()
    }

    fn consume(&self, queue: &str, options: ConsumeOptions) -> BoxFuture<'_, Result<Consumer, BusError>> {
        let queue = queue.to_owned();
        async move {
            let act = || {
                self.session.check_open()?;
                self.session.allow(Operation::Consume, Access::Read, &queue, None)?;
                let subscription = self.session.broker.lock().consume(self.session.id, &queue, options)?;
                let (session, queue) = (Arc::clone(&self.session), queue.clone());
                let handle = Arc::new(Handle { session, id: subscription.id, queue });
                let (receiver, end) = (subscription.receiver, subscription.end);
                let source = MemorySource { receiver, end, handle, underway: None };
                Ok(Consumer { source: Source::Memory(source) })
            };
            self.session.ask(Step::Consume, act).await
        }
        .boxed()
    }

    fn publish(&self, message: Outgoing, guarantee: Guarantee) -> BoxFuture<'_, Result<(), PublishError>> {
        self.publish_message(message, guarantee).boxed()
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        self.session.closed().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.session.broker.lock().close(self.session.id, &CloseReason::Requested) }.boxed()
    }
}

/// A consumer, for as long as it or one of its deliveries is there.
struct Handle {
    session: Arc<Session>,
    id: ConsumerId,
    queue: String,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.broker.lock().remove_consumer(self.id, ConsumerEnd::Closed);
    }
}

/// The deliveries of one consumer.
pub(crate) struct MemorySource {
    receiver: mpsc::Receiver<(u64, Message)>,
    end: Arc<Mutex<Option<ConsumerEnd>>>,
    handle: Arc<Handle>,
    /// A delivery that the broker has sent and that is not here yet, and when it is.
    underway: Option<(Instant, u64, Message)>,
}

impl MemorySource {
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let session = &self.handle.session;
        if self.underway.is_none() {
            let (tag, message) = self.receiver.recv().await?;
            let weather = session.broker.weather(&session.identity, Step::Receive);
            self.underway = Some((Instant::now() + weather.before, tag, message));
        }
        let (arrives, ..) = self.underway.as_ref()?;
        if session.travel(arrives.saturating_duration_since(Instant::now())).await.is_err() {
            // Everything that was on the way is lost with the connection, and delivered again.
            self.underway = None;
            self.receiver.close();
            while self.receiver.try_recv().is_ok() {}
            return None;
        }
        let (_, tag, message) = self.underway.take()?;
        let size = message.body.len() + message.signatures.len();
        let oversized =
            (message.body.len() > BODY_BYTES_MAX || message.signatures.len() > SIGNATURES_BYTES_MAX).then_some(size);
        let kept = |bytes: Bytes| if oversized.is_some() { Bytes::new() } else { bytes };
        Some(Delivery {
            exchange: message.exchange.to_owned(),
            routing_key: message.routing_key,
            content_type: message.content_type,
            body: kept(message.body),
            signatures: kept(message.signatures),
            redelivered: message.redelivered,
            sender: Some(message.sender.to_string()),
            correlation_id: message.correlation_id,
            oversized,
            settler: Settler::Memory(MemorySettler { tag, handle: Arc::clone(&self.handle) }),
        })
    }

    pub(crate) fn ended(&self) -> ConsumerEnd {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(ConsumerEnd::CancelledByBroker)
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.handle.session.broker.lock().cancel(self.handle.id, None);
    }
}

/// Settles one delivery.
pub(crate) struct MemorySettler {
    tag: u64,
    handle: Arc<Handle>,
}

impl MemorySettler {
    pub(crate) fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        let session = &self.handle.session;
        let weather = session.broker.weather(&session.identity, Step::Settle);
        if weather.cut == Cut::Before {
            return Err(session.cut());
        }
        if !weather.before.is_zero() {
            // Written to the connection; whether it arrives nobody tells.
            session.check_open()?;
            let (handle, tag) = (Arc::clone(&self.handle), self.tag);
            session.broker.shared.tasks.spawn(TaskKind::Worker, "settlement", async move {
                if handle.session.travel(weather.before).await.is_ok() {
                    handle.session.broker.lock().settle(handle.id, tag, settlement);
                }
            });
            return Ok(());
        }
        let settled = session.broker.lock().settle(self.handle.id, self.tag, settlement);
        if settled {
            return Ok(());
        }
        session.check_open()?;
        Err(BusError::NotFound {
            operation: Operation::Settle,
            resource: self.handle.queue.clone(),
            why: "its consumer has ended".to_owned(),
        })
    }
}
