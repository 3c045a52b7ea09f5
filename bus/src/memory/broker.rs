//! The broker's state and what happens to it, step by step, without waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::Identity;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::level::Level;
use super::{Stored, topic};
use crate::consumer::ConsumerEnd;
use crate::error::{BusError, CloseReason, Operation};
use crate::link::{ConsumeOptions, QueueSpec};
use crate::message::{Outgoing, Settlement};

/// Number of a connection.
pub(super) type LinkId = u64;

/// Number of a consumer.
pub(super) type ConsumerId = u64;

/// A message as queues keep it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) sender: Identity,
    pub(super) exchange: &'static str,
    pub(super) routing_key: String,
    pub(super) content_type: String,
    pub(super) body: Bytes,
    pub(super) signatures: Bytes,
    pub(super) correlation_id: Option<String>,
    pub(super) persistent: bool,
    pub(super) redelivered: bool,
    expires: Option<Instant>,
}

impl Message {
    pub(super) fn new(sender: &Identity, message: Outgoing) -> Self {
        Self {
            sender: sender.clone(),
            exchange: message.exchange,
            routing_key: message.routing_key,
            content_type: message.content_type,
            body: message.body,
            signatures: message.signatures,
            correlation_id: message.correlation_id,
            persistent: message.persistent,
            redelivered: false,
            expires: message.expiration_ms.map(|ms| Instant::now() + Duration::from_millis(ms)),
        }
    }

    /// What the fault hook sees.
    pub(super) fn seen(&self, queue: &str) -> Stored {
        Stored {
            sender: self.sender.clone(),
            exchange: self.exchange,
            routing_key: self.routing_key.clone(),
            content_type: self.content_type.clone(),
            body: self.body.clone(),
            signatures: self.signatures.clone(),
            queue: queue.to_owned(),
        }
    }
}

/// Everything the broker knows.
pub(super) struct Broker {
    pub(super) down: bool,
    pub(super) held: Vec<(String, Message)>,
    queues: BTreeMap<String, Queue>,
    links: BTreeMap<LinkId, LinkState>,
    consumers: BTreeMap<ConsumerId, ConsumerState>,
    limits: Vec<(String, usize)>,
    /// The next number, for links, consumers and places in queues.
    next: u64,
}

struct Queue {
    spec: QueueSpec,
    owner: Option<LinkId>,
    bindings: BTreeSet<(String, String)>,
    /// By place, so that a message that comes back takes the one it had.
    ready: BTreeMap<u64, Message>,
    consumers: Vec<ConsumerId>,
}

struct LinkState {
    identity: Identity,
    closed: Arc<Level<Option<CloseReason>>>,
}

struct ConsumerState {
    link: LinkId,
    queue: String,
    prefetch: usize,
    exclusive: bool,
    /// Takes new messages; a cancelled consumer only settles old ones.
    active: bool,
    next_tag: u64,
    unsettled: BTreeMap<u64, (u64, Message)>,
    sender: Option<mpsc::Sender<(u64, Message)>>,
    end: Arc<std::sync::Mutex<Option<ConsumerEnd>>>,
}

/// What a new consumer gets.
pub(super) struct Subscription {
    pub(super) id: ConsumerId,
    pub(super) receiver: mpsc::Receiver<(u64, Message)>,
    pub(super) end: Arc<std::sync::Mutex<Option<ConsumerEnd>>>,
}

impl Broker {
    pub(super) fn new() -> Self {
        Self {
            down: false,
            held: Vec::new(),
            queues: BTreeMap::new(),
            links: BTreeMap::new(),
            consumers: BTreeMap::new(),
            limits: Vec::new(),
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // --- connections

    pub(super) fn connect(&mut self, identity: &Identity, closed: Arc<Level<Option<CloseReason>>>) -> LinkId {
        let id = self.number();
        self.links.insert(id, LinkState { identity: identity.clone(), closed });
        id
    }

    pub(super) fn connections(&self, identity: &Identity) -> usize {
        self.links.values().filter(|link| link.identity == *identity).count()
    }

    pub(super) fn is_open(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    pub(super) fn disconnect(&mut self, identity: Option<&Identity>, reason: &CloseReason) -> usize {
        let chosen = |link: &LinkState| identity.is_none_or(|identity| link.identity == *identity);
        let ids: Vec<LinkId> = self.links.iter().filter(|(_, link)| chosen(link)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.close(*id, reason);
        }
        ids.len()
    }

    /// Ends a connection. What was delivered on it and not settled goes back.
    pub(super) fn close(&mut self, id: LinkId, reason: &CloseReason) {
        let Some(link) = self.links.remove(&id) else { return };
        let end = match reason {
            CloseReason::Requested => ConsumerEnd::Closed,
            _ => ConsumerEnd::ConnectionLost,
        };
        let consumers: Vec<_> =
            self.consumers.iter().filter(|(_, state)| state.link == id).map(|(id, _)| *id).collect();
        for consumer in consumers {
            self.remove_consumer(consumer, end);
        }
        let owned: Vec<_> =
            self.queues.iter().filter(|(_, queue)| queue.owner == Some(id)).map(|(name, _)| name.clone()).collect();
        for name in owned {
            self.delete_queue(&name);
        }
        link.closed.set(Some(reason.clone()));
    }

    // --- queues

    pub(super) fn limit_queues(&mut self, prefix: &str, max_length: usize) {
        self.limits.push((prefix.to_owned(), max_length));
    }

    pub(super) fn queue_names(&self) -> Vec<String> {
        self.queues.keys().cloned().collect()
    }

    pub(super) fn queue_length(&self, name: &str) -> Option<usize> {
        self.queues.get(name).map(|queue| queue.ready.len())
    }

    pub(super) fn declare(&mut self, link: LinkId, spec: QueueSpec) -> Result<(), BusError> {
        let owner = spec.exclusive.then_some(link);
        if let Some(queue) = self.queues.get(&spec.name) {
            let conflict = |why: &str| BusError::Conflict {
                operation: Operation::Declare,
                resource: spec.name.clone(),
                why: why.to_owned(),
            };
            if queue.owner.is_some_and(|owner| owner != link) {
                return Err(conflict("RESOURCE_LOCKED - another connection owns the queue"));
            }
            if queue.spec != spec {
                return Err(conflict("PRECONDITION_FAILED - the queue exists with other properties"));
            }
            return Ok(());
        }
        let name = spec.name.clone();
        let queue = Queue { spec, owner, bindings: BTreeSet::new(), ready: BTreeMap::new(), consumers: Vec::new() };
        self.queues.insert(name, queue);
        Ok(())
    }

    /// Whether somebody may use a queue: it exists and no other connection owns it.
    fn usable(&self, link: LinkId, name: &str, operation: Operation) -> Result<(), BusError> {
        let resource = name.to_owned();
        match self.queues.get(name) {
            None => Err(BusError::NotFound { operation, resource, why: "NOT_FOUND - no such queue".to_owned() }),
            Some(queue) if queue.owner.is_some_and(|owner| owner != link) => {
                let why = "RESOURCE_LOCKED - another connection owns the queue".to_owned();
                Err(BusError::Conflict { operation, resource, why })
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn bind(
        &mut self,
        link: LinkId,
        queue: &str,
        exchange: &str,
        key: &str,
        bound: bool,
    ) -> Result<(), BusError> {
        let operation = if bound { Operation::Bind } else { Operation::Unbind };
        self.usable(link, queue, operation)?;
        if exchange != EXCHANGE_COMMAND && exchange != EXCHANGE_REPLY {
            let why = "NOT_FOUND - no such exchange".to_owned();
            return Err(BusError::NotFound { operation, resource: exchange.to_owned(), why });
        }
        if let Some(queue) = self.queues.get_mut(queue) {
            let binding = (exchange.to_owned(), key.to_owned());
            if bound {
                queue.bindings.insert(binding);
            } else {
                queue.bindings.remove(&binding);
            }
        }
        Ok(())
    }

    pub(super) fn delete_queue(&mut self, name: &str) -> bool {
        let Some(queue) = self.queues.remove(name) else { return false };
        for consumer in queue.consumers {
            self.cancel(consumer, Some(ConsumerEnd::CancelledByBroker));
        }
        true
    }

    /// A broker that stops keeps durable queues with their persistent messages.
    pub(super) fn forget_transient(&mut self) {
        self.queues.retain(|_, queue| queue.spec.durable);
        for queue in self.queues.values_mut() {
            queue.ready.retain(|_, message| message.persistent);
        }
    }

    // --- messages

    /// The queues a message reaches; `None` without such an exchange.
    pub(super) fn route(&self, exchange: &str, key: &str) -> Option<Vec<String>> {
        match exchange {
            "" => Some(self.queues.keys().filter(|name| *name == key).cloned().collect()),
            EXCHANGE_COMMAND | EXCHANGE_REPLY => Some(
                self.queues
                    .iter()
                    .filter(|(_, queue)| {
                        queue.bindings.iter().any(|(bound, pattern)| bound == exchange && topic::matches(pattern, key))
                    })
                    .map(|(name, _)| name.clone())
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Puts a message at the end of a queue, if the queue is still there.
    pub(super) fn enqueue(&mut self, name: &str, message: Message) {
        let place = self.number();
        let limit = self.limits.iter().filter(|(prefix, _)| name.starts_with(prefix)).map(|(_, limit)| *limit).min();
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.ready.insert(place, message);
        while limit.is_some_and(|limit| queue.ready.len() > limit) {
            queue.ready.pop_first();
        }
        self.deliver(name);
    }

    /// Hands waiting messages to the consumers, in turn.
    fn deliver(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let now = Instant::now();
        queue.ready.retain(|_, message| message.expires.is_none_or(|expires| expires > now));
        while let Some((&place, _)) = queue.ready.first_key_value() {
            let free = |id: &ConsumerId| {
                self.consumers.get(id).is_some_and(|state| state.active && state.unsettled.len() < state.prefetch)
            };
            let Some(position) = queue.consumers.iter().position(free) else { return };
            let id = queue.consumers.remove(position);
            queue.consumers.push(id);
            let (Some(consumer), Some(message)) = (self.consumers.get_mut(&id), queue.ready.remove(&place)) else {
                return;
            };
            consumer.next_tag += 1;
            let tag = consumer.next_tag;
            // There is room: the channel holds as many as the prefetch allows. A receiver that is gone is
            // about to cancel, and what was delivered to it comes back then.
            if let Some(sender) = &consumer.sender {
                drop(sender.try_send((tag, message.clone())));
            }
            consumer.unsettled.insert(tag, (place, message));
        }
    }

    // --- consumers

    pub(super) fn consume(
        &mut self,
        link: LinkId,
        name: &str,
        options: ConsumeOptions,
    ) -> Result<Subscription, BusError> {
        self.usable(link, name, Operation::Consume)?;
        let id = self.number();
        let Some(queue) = self.queues.get_mut(name) else { return Err(BusError::Closed(CloseReason::Requested)) };
        let exclusive = queue.consumers.iter().any(|id| self.consumers.get(id).is_some_and(|other| other.exclusive));
        if exclusive || (options.exclusive && !queue.consumers.is_empty()) {
            return Err(BusError::Conflict {
                operation: Operation::Consume,
                resource: name.to_owned(),
                why: "ACCESS_REFUSED - the queue is in exclusive use".to_owned(),
            });
        }
        let prefetch = usize::from(options.prefetch.max(1));
        let (sender, receiver) = mpsc::channel(prefetch);
        let end = Arc::new(std::sync::Mutex::new(None));
        queue.consumers.push(id);
        self.consumers.insert(
            id,
            ConsumerState {
                link,
                queue: name.to_owned(),
                prefetch,
                exclusive: options.exclusive,
                active: true,
                next_tag: 0,
                unsettled: BTreeMap::new(),
                sender: Some(sender),
                end: Arc::clone(&end),
            },
        );
        self.deliver(name);
        Ok(Subscription { id, receiver, end })
    }

    /// No further messages for a consumer; what it has, it may still settle.
    pub(super) fn cancel(&mut self, id: ConsumerId, end: Option<ConsumerEnd>) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        consumer.active = false;
        consumer.sender = None;
        if end.is_some() {
            *consumer.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = end;
        }
        let name = consumer.queue.clone();
        let Some(queue) = self.queues.get_mut(&name) else { return };
        queue.consumers.retain(|other| *other != id);
        if queue.spec.auto_delete && queue.consumers.is_empty() {
            self.delete_queue(&name);
        }
    }

    /// Forgets a consumer; what it did not settle goes back to its place.
    pub(super) fn remove_consumer(&mut self, id: ConsumerId, end: ConsumerEnd) {
        self.cancel(id, Some(end));
        let Some(consumer) = self.consumers.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&consumer.queue) else { return };
        for (place, message) in consumer.unsettled.into_values() {
            queue.ready.insert(place, Message { redelivered: true, ..message });
        }
        self.deliver(&consumer.queue);
    }

    /// Settles a delivery; `false` if the consumer is gone and the delivery with it.
    pub(super) fn settle(&mut self, id: ConsumerId, tag: u64, settlement: Settlement) -> bool {
        let Some(consumer) = self.consumers.get_mut(&id) else { return false };
        let name = consumer.queue.clone();
        match settlement {
            Settlement::Ack | Settlement::Reject => drop(consumer.unsettled.remove(&tag)),
            Settlement::AckThrough => consumer.unsettled.retain(|other, _| *other > tag),
            Settlement::Requeue => {
                if let (Some((place, message)), Some(queue)) =
                    (consumer.unsettled.remove(&tag), self.queues.get_mut(&name))
                {
                    queue.ready.insert(place, Message { redelivered: true, ..message });
                }
            }
        }
        self.deliver(&name);
        true
    }
}
