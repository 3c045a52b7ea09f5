//! A broker in memory: the same contract, no network, and faults on demand.
//!
//! It does what the protocol needs of RabbitMQ, no more: two topic exchanges and the default exchange,
//! queues with owners and bindings, prefetch, redelivery, mandatory returns, validated sender, limits
//! and lifetimes. Nothing in it waits for time by itself: with `tokio::time::pause` and one thread, a test
//! with the same steps gives the same result.

mod broker;
mod level;
mod link;
mod topic;
mod weather;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_daemon::{TaskKind, Tasks};
use muster_protocol::Identity;

use crate::error::{BusError, CloseReason, Try};
use crate::link::{Bus, Link};
use crate::message::Outgoing;

use broker::{Broker, Message};
use level::Level;
pub(crate) use link::{MemorySettler, MemorySource};
pub use weather::{Cut, Step, Weather};

/// What somebody is about to do, for the permission hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission<'a> {
    /// The kind of access, as RabbitMQ divides it.
    pub access: Access,
    /// The queue or exchange.
    pub resource: &'a str,
    /// The routing key, when it matters: on publishing, and on binding to an exchange.
    pub routing_key: Option<&'a str>,
}

/// RabbitMQ's three kinds of permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Declare a queue.
    Configure,
    /// Publish to an exchange; bind a queue.
    Write,
    /// Read a queue; bind to an exchange.
    Read,
}

/// A message on its way into one queue, for the fault hook.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Who published it.
    pub sender: Identity,
    /// The exchange.
    pub exchange: &'static str,
    /// The routing key.
    pub routing_key: String,
    /// The content type.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// The signatures header.
    pub signatures: Bytes,
    /// The queue that it is about to enter.
    pub queue: String,
}

/// What happens to a message on its way into one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing special.
    Deliver,
    /// It is lost, although its publisher gets a confirm.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives later; messages published in between overtake it.
    Delay(Duration),
    /// It waits for [`MemoryBroker::release`].
    Hold,
}

type PermissionHook = dyn Fn(&Identity, Permission<'_>) -> bool + Send + Sync;
type FaultHook = dyn FnMut(&Stored) -> Fault + Send;
type WeatherHook = dyn FnMut(&Identity, Step) -> Weather + Send;

/// The broker. Clones are the same broker.
#[derive(Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

struct Shared {
    broker: Mutex<Broker>,
    permissions: Mutex<Arc<PermissionHook>>,
    faults: Mutex<Box<FaultHook>>,
    weather: Mutex<Box<WeatherHook>>,
    blocked: Level<Option<String>>,
    limit: Duration,
    tasks: Tasks,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// A broker with Muster's two exchanges, where everybody may do everything.
    #[must_use]
    pub fn new() -> Self {
        Self::with_operation_timeout(Duration::from_secs(15))
    }

    /// The same, with another time after which a blocked publish gives up.
    #[must_use]
    pub fn with_operation_timeout(limit: Duration) -> Self {
        let shared = Shared {
            broker: Mutex::new(Broker::new()),
            permissions: Mutex::new(Arc::new(|_, _| true)),
            faults: Mutex::new(Box::new(|_| Fault::Deliver)),
            weather: Mutex::new(Box::new(|_, _| Weather::default())),
            blocked: Level::new(None),
            limit,
            tasks: Tasks::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A bus on which everything happens as this identity.
    #[must_use]
    pub fn bus(&self, identity: &Identity) -> MemoryBus {
        MemoryBus { broker: self.clone(), identity: identity.clone() }
    }

    /// Sets who may do what. The hook must not call the broker.
    pub fn set_permissions(&self, hook: impl Fn(&Identity, Permission<'_>) -> bool + Send + Sync + 'static) {
        *self.shared.permissions.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(hook);
    }

    /// Sets what happens to messages. The hook is asked once per message and queue, in order, and must not
    /// call the broker.
    pub fn set_faults(&self, hook: impl FnMut(&Stored) -> Fault + Send + 'static) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(hook);
    }

    /// Sets how the network between clients and the broker is. The hook is asked once per step of a client, in order,
    /// and must not call the broker.
    pub fn set_weather(&self, hook: impl FnMut(&Identity, Step) -> Weather + Send + 'static) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(hook);
    }

    /// Queues whose names begin so hold at most so many messages; the oldest go first.
    pub fn limit_queues(&self, prefix: &str, max_length: usize) {
        self.lock().limit_queues(prefix, max_length);
    }

    /// Breaks all connections of an identity, as a network failure would. Returns how many there were.
    pub fn disconnect(&self, identity: &Identity) -> usize {
        self.lock().disconnect(Some(identity), &CloseReason::Lost { why: "cut by the test".to_owned() })
    }

    /// Stops: connections end, messages that are not persistent and queues that are not durable are lost, and
    /// nobody can connect until [`MemoryBroker::start`].
    pub fn stop(&self) {
        let mut broker = self.lock();
        broker.down = true;
        let text = "CONNECTION_FORCED - broker forced connection closure".to_owned();
        broker.disconnect(None, &CloseReason::ByBroker { code: 320, text });
        broker.forget_transient();
    }

    /// Lets clients connect again after [`MemoryBroker::stop`].
    pub fn start(&self) {
        self.lock().down = false;
    }

    /// Takes no messages from publishers, as a broker without memory does; `None` takes them again.
    pub fn set_blocked(&self, why: Option<&str>) {
        self.shared.blocked.set(why.map(ToOwned::to_owned));
    }

    /// Deletes a queue, as an operator would. Returns whether it existed.
    pub fn delete_queue(&self, name: &str) -> bool {
        self.lock().delete_queue(name)
    }

    /// Delivers the messages that were held, in their order. Returns how many there were.
    pub fn release(&self) -> usize {
        let mut broker = self.lock();
        let held = std::mem::take(&mut broker.held);
        let count = held.len();
        for (queue, message) in held {
            broker.enqueue(&queue, message);
        }
        count
    }

    /// Publishes as somebody whose program is not ours: neither size nor permissions are checked. Returns how many
    /// queues took the message.
    pub fn inject(&self, sender: &Identity, message: Outgoing) -> usize {
        self.publish(sender, message).map_or(0, |queues| queues)
    }

    /// How many messages wait in a queue, those delivered and not settled not counted; `None` if there is no such queue.
    #[must_use]
    pub fn queue_length(&self, name: &str) -> Option<usize> {
        self.lock().queue_length(name)
    }

    /// The queues, sorted by name.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        self.lock().queue_names()
    }

    /// How many connections an identity has.
    #[must_use]
    pub fn connections(&self, identity: &Identity) -> usize {
        self.lock().connections(identity)
    }

    fn lock(&self) -> MutexGuard<'_, Broker> {
        self.shared.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weather(&self, identity: &Identity, step: Step) -> Weather {
        let mut hook = self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
        hook(identity, step)
    }

    fn allows(&self, identity: &Identity, permission: Permission<'_>) -> bool {
        let hook = Arc::clone(&self.shared.permissions.lock().unwrap_or_else(PoisonError::into_inner));
        hook(identity, permission)
    }

    /// Routes a message and puts it where the faults let it go. Returns the number of queues, or `None` without such
    /// an exchange.
    fn publish(&self, sender: &Identity, message: Outgoing) -> Option<usize> {
        let queues = self.lock().route(message.exchange, &message.routing_key)?;
        let stored = Message::new(sender, message);
        for queue in &queues {
            let fault = {
                let mut hook = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
                hook(&stored.seen(queue))
            };
            match fault {
                Fault::Deliver => self.lock().enqueue(queue, stored.clone()),
                Fault::Drop => {}
                Fault::Duplicate => {
                    let mut broker = self.lock();
                    broker.enqueue(queue, stored.clone());
                    broker.enqueue(queue, stored.clone());
                }
                Fault::Hold => self.lock().held.push((queue.clone(), stored.clone())),
                Fault::Delay(time) => {
                    let (broker, queue, message) = (self.clone(), queue.clone(), stored.clone());
                    self.shared.tasks.spawn(TaskKind::Worker, "delayed message", async move {
                        tokio::time::sleep(time).await;
                        broker.lock().enqueue(&queue, message);
                    });
                }
            }
        }
        Some(queues.len())
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryBroker").field("queues", &self.queues()).finish_non_exhaustive()
    }
}

/// One identity's way to a [`MemoryBroker`].
#[derive(Debug, Clone)]
pub struct MemoryBus {
    broker: MemoryBroker,
    identity: Identity,
}

impl MemoryBus {
    /// Who acts on this bus.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Bus for MemoryBus {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>> {
        async move {
            let link = link::connect(&self.broker, &self.identity).await;
            link.map(|link| Arc::new(link) as Arc<dyn Link>).ok_or_else(|| {
                let why = "refuses connections (nothing listens there)".to_owned();
                BusError::Unreachable { tries: vec![Try { address: "memory".to_owned(), why }] }
            })
        }
        .boxed()
    }

    fn describe(&self) -> String {
        format!("memory as {}", self.identity)
    }
}
