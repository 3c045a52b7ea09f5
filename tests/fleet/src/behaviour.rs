//! How a host behaves, put between its agent and the broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_bus::{
    Bus, BusError, CloseReason, ConsumeOptions, Consumer, Guarantee, Link, Outgoing, PublishError, QueueSpec,
};
use muster_daemon::{TaskKind, Tasks};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::meter::Meter;

/// How a host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It answers as fast as it can.
    Prompt,
    /// Everything that it says leaves so much later.
    Late(Latency),
    /// It takes commands, and nothing that it says arrives.
    Silent,
    /// It has no agent.
    Absent,
}

/// How much later what a host says leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// At least so much.
    pub least: Duration,
    /// And at most so much more, drawn anew for each message. What was said first leaves first.
    pub jitter: Duration,
}

/// Messages that may be on their way from one host at the same time.
const ON_THE_WAY_MAX: usize = 256;

/// An agent's way to the broker: counted, and bent by the host's behaviour.
pub(crate) struct HostBus {
    pub(crate) inner: Arc<dyn Bus>,
    pub(crate) behaviour: Behaviour,
    /// What latencies are drawn from.
    pub(crate) seed: u64,
    pub(crate) meter: Arc<Meter>,
}

impl Bus for HostBus {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>> {
        async {
            self.meter.attempt();
            let link = self.inner.connect().await;
            self.meter.outcome(link.as_ref().err().map(BusError::code));
            let inner = link?;
            Ok(match self.behaviour {
                Behaviour::Prompt | Behaviour::Absent => inner,
                Behaviour::Silent => Arc::new(HostLink { inner, way: Way::Nowhere }),
                Behaviour::Late(latency) => {
                    Arc::new(HostLink { way: Way::Long(LongWay::new(inner.clone(), latency, self.seed)), inner })
                }
            })
        }
        .boxed()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

struct HostLink {
    inner: Arc<dyn Link>,
    way: Way,
}

/// What becomes of a message that a host sends.
enum Way {
    Nowhere,
    Long(LongWay),
}

/// A way that takes a while, and on which nothing overtakes.
struct LongWay {
    latency: Latency,
    state: Mutex<Departures>,
    line: mpsc::Sender<(Instant, Outgoing)>,
}

struct Departures {
    random: SmallRng,
    last: Instant,
}

impl LongWay {
    fn new(link: Arc<dyn Link>, latency: Latency, seed: u64) -> Self {
        let (line, mut waiting) = mpsc::channel::<(Instant, Outgoing)>(ON_THE_WAY_MAX);
        // Whoever sends without a guarantee does not wait, as on a real network. Ends with the link.
        Tasks::new().spawn(TaskKind::Worker, "messages on their way", async move {
            while let Some((due, message)) = waiting.recv().await {
                tokio::time::sleep_until(due).await;
                // It was sent without a guarantee.
                drop(link.publish(message, Guarantee::Fire).await);
            }
        });
        let state = Mutex::new(Departures { random: SmallRng::seed_from_u64(seed), last: Instant::now() });
        Self { latency, state, line }
    }

    /// When what is said now leaves.
    fn due(&self) -> Instant {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let more = self.latency.jitter.mul_f64(state.random.random_range(0.0..=1.0));
        state.last = state.last.max(Instant::now() + self.latency.least + more);
        state.last
    }

    async fn publish(&self, link: &dyn Link, message: Outgoing, guarantee: Guarantee) -> Result<(), PublishError> {
        let due = self.due();
        if guarantee == Guarantee::Fire {
            // A way that is full delays whoever sends, as the bus does.
            drop(self.line.send((due, message)).await);
            return Ok(());
        }
        // The timer's step, so that what was said before without a guarantee is gone.
        tokio::time::sleep_until(due + Duration::from_millis(1)).await;
        link.publish(message, guarantee).await
    }
}

impl Link for HostLink {
    fn declare_queue(&self, queue: QueueSpec) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.declare_queue(queue)
    }

    fn bind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.bind(queue, exchange, key)
    }

    fn unbind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.unbind(queue, exchange, key)
    }

    fn consume(&self, queue: &str, options: ConsumeOptions) -> BoxFuture<'_, Result<Consumer, BusError>> {
        self.inner.consume(queue, options)
    }

    fn publish(&self, message: Outgoing, guarantee: Guarantee) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            match &self.way {
                Way::Nowhere => Ok(()),
                Way::Long(way) => way.publish(&*self.inner, message, guarantee).await,
            }
        }
        .boxed()
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        self.inner.closed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_bus::{CloseReason, MemoryBroker};
    use muster_protocol::routing::EXCHANGE_REPLY;

    fn message(number: u8) -> Outgoing {
        Outgoing {
            exchange: EXCHANGE_REPLY,
            routing_key: "presence.a".to_owned(),
            content_type: String::new(),
            body: vec![number].into(),
            signatures: bytes::Bytes::new(),
            expiration_ms: None,
            persistent: false,
            mandatory: false,
            correlation_id: None,
        }
    }

    /// Sends alternately without and with a guarantee; says when each arrived and how long the sender waited.
    async fn arrivals(behaviour: Behaviour, count: u8) -> (Vec<(u8, Duration)>, Duration) {
        let broker = MemoryBroker::new();
        let identity = "host/a".parse().unwrap();
        let reader = broker.bus(&identity).connect().await.unwrap();
        reader.declare_queue(QueueSpec::durable("q")).await.unwrap();
        reader.bind("q", EXCHANGE_REPLY, "presence.#").await.unwrap();
        let mut consumer = reader.consume("q", ConsumeOptions { prefetch: 500, exclusive: true }).await.unwrap();
        let (inner, meter) = (Arc::new(broker.bus(&identity)), Arc::default());
        let link = HostBus { inner, behaviour, seed: 1, meter }.connect().await.unwrap();
        let began = Instant::now();
        let sender = async {
            for number in 0..count {
                link.publish(message(number), Guarantee::Fire).await.unwrap();
            }
            let waited = began.elapsed();
            link.publish(message(count), Guarantee::Confirmed).await.unwrap();
            waited
        };
        let mut seen = Vec::new();
        let receiver = async {
            while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(60), consumer.next()).await {
                seen.push((delivery.body[0], began.elapsed()));
            }
        };
        let (waited, ()) = tokio::join!(sender, receiver);
        link.close().await;
        assert_eq!(link.closed().await, CloseReason::Requested);
        (seen, waited)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_late_host_says_leaves_in_order_within_its_time_and_it_does_not_wait() {
        let [least, jitter, timers] = [100, 50, 10].map(Duration::from_millis);
        for latency in [Latency { least, jitter: Duration::ZERO }, Latency { least, jitter }] {
            let (seen, waited) = arrivals(Behaviour::Late(latency), 20).await;
            assert_eq!(seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..=20).collect::<Vec<_>>());
            assert!(waited < least, "{waited:?}");
            for (number, at) in &seen {
                assert!(*at >= least && *at <= least + 2 * latency.jitter + timers, "{number}: {at:?} of {latency:?}");
            }
            let times: std::collections::BTreeSet<_> = seen[..20].iter().map(|(_, at)| at.as_millis()).collect();
            assert_eq!(times.len() > 1, !latency.jitter.is_zero(), "{times:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_says_nothing_and_a_prompt_one_says_it_at_once() {
        assert!(arrivals(Behaviour::Silent, 3).await.0.is_empty());
        let (seen, _) = arrivals(Behaviour::Prompt, 3).await;
        assert!(seen.len() == 4 && seen.iter().all(|(_, at)| at.is_zero()), "{seen:?}");
    }
}
