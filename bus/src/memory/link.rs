//! One connection to the broker in memory.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_protocol::Identity;
use muster_protocol::limits::{BODY_BYTES_MAX, SIGNATURES_BYTES_MAX};
use tokio::sync::{mpsc, watch};

use super::broker::{ConsumerId, LinkId, Message};
use super::{Access, MemoryBroker, Permission};
use crate::consumer::{Consumer, ConsumerEnd, Source};
use crate::error::{BusError, CloseReason, Operation, PublishError};
use crate::link::{ConsumeOptions, Guarantee, Link, QueueSpec};
use crate::message::{Delivery, Outgoing, Settlement, Settler};

/// A connection, for as long as anybody uses it.
struct Session {
    broker: MemoryBroker,
    identity: Identity,
    id: LinkId,
    closed: watch::Receiver<Option<CloseReason>>,
}

impl Session {
    fn closed_error(&self) -> BusError {
        BusError::Closed(self.closed.borrow().clone().unwrap_or(CloseReason::Requested))
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

/// Connects; `None` while the broker is down.
pub(super) fn connect(broker: &MemoryBroker, identity: &Identity) -> Option<MemoryLink> {
    let (sender, closed) = watch::channel(None);
    let mut state = broker.lock();
    if state.down {
        return None;
    }
    let id = state.connect(identity, sender);
    drop(state);
    let session = Session { broker: broker.clone(), identity: identity.clone(), id, closed };
    Some(MemoryLink { session: Arc::new(session) })
}

impl MemoryLink {
    fn set_binding(&self, queue: &str, exchange: &str, key: &str, bound: bool) -> Result<(), BusError> {
        let operation = if bound { Operation::Bind } else { Operation::Unbind };
        self.session.check_open()?;
        self.session.allow(operation, Access::Write, queue, None)?;
        self.session.allow(operation, Access::Read, exchange, Some(key))?;
        self.session.broker.lock().bind(self.session.id, queue, exchange, key, bound)
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
        let mut blocked = self.session.broker.shared.blocked.subscribe();
        if blocked.borrow_and_update().is_none() {
            return Ok(());
        }
        let wait = async { drop(blocked.wait_for(Option::is_none).await) };
        tokio::select! {
            biased;
            result = tokio::time::timeout(limit, wait) => result.map_err(|_| PublishError::Blocked {
                why: self.session.broker.shared.blocked.borrow().clone().unwrap_or_default(),
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
            self.session.check_open()?;
            self.session.allow(Operation::Declare, Access::Configure, &queue.name, None)?;
            self.session.broker.lock().declare(self.session.id, queue)
        }
        .boxed()
    }

    fn bind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        async move { self.set_binding(&queue, &exchange, &key, true) }.boxed()
    }

    fn unbind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        let (queue, exchange, key) = (queue.to_owned(), exchange.to_owned(), key.to_owned());
        async move { self.set_binding(&queue, &exchange, &key, false) }.boxed()
    }

    fn consume(&self, queue: &str, options: ConsumeOptions) -> BoxFuture<'_, Result<Consumer, BusError>> {
        let queue = queue.to_owned();
        async move {
            self.session.check_open()?;
            self.session.allow(Operation::Consume, Access::Read, &queue, None)?;
            let subscription = self.session.broker.lock().consume(self.session.id, &queue, options)?;
            let handle = Arc::new(Handle { session: Arc::clone(&self.session), id: subscription.id, queue });
            let source = MemorySource { receiver: subscription.receiver, end: subscription.end, handle };
            Ok(Consumer { source: Source::Memory(source) })
        }
        .boxed()
    }

    fn publish(&self, message: Outgoing, guarantee: Guarantee) -> BoxFuture<'_, Result<(), PublishError>> {
        self.publish_message(message, guarantee).boxed()
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        let mut closed = self.session.closed.clone();
        async move {
            match closed.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
                Ok(Some(reason)) => reason,
                _ => CloseReason::Requested,
            }
        }
        .boxed()
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
}

impl MemorySource {
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let (tag, message) = self.receiver.recv().await?;
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
