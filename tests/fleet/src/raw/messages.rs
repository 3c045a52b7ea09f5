//! The messages that Muster really sends, as models of the echo's.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_bus::{
    Bus, BusError, CloseReason, ConsumeOptions, Consumer, Guarantee, Link, MemoryBroker, Outgoing, PublishError,
    QueueSpec,
};
use muster_client::discover::ping;
use muster_client::{Audience, Controller, Parts, Question};
use muster_daemon::{SystemClock, TaskKind, Tasks};
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_PRESENCE};
use muster_protocol::{HostName, Identity, ReplyRoute};
use rand::SeedableRng as _;
use tokio_util::sync::CancellationToken;

use crate::ground::Ground;
use crate::member::{self, AgentParts};
use crate::options::Options;
use crate::plugin::Ledger;

/// One question and its answers, as a controller and one agent really sent them.
#[derive(Debug, Clone)]
pub struct Messages {
    /// The commands, in the order in which they were published.
    pub requests: Vec<Outgoing>,
    /// The reports of one host, in the order in which it published them.
    pub replies: Vec<Outgoing>,
    /// Where the answers went to.
    pub route: ReplyRoute,
    /// The host that answered.
    pub host: HostName,
}

impl Messages {
    /// `muster ping --all`: one broadcast, and what a host says to it.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub async fn ping(ground: &Ground) -> Result<Self> {
        let host = ground.hosts().next().context("a ground has hosts")?.clone();
        Self::record(ground, &ping(Audience::Everyone, PING_WINDOW_MS, [host].into())).await
    }

    /// Has the real controller ask the real agent of the ground's first host, over a bus in memory, and keeps every message.
    /// Audiences by name may name other hosts, too: the commands are then as large as they are, and nobody else answers.
    ///
    /// # Errors
    /// The host does not answer.
    pub async fn record(ground: &Ground, question: &Question) -> Result<Self> {
        let host = ground.hosts().next().context("a ground has hosts")?.clone();
        let (memory, tape) = (MemoryBroker::new(), Arc::new(Tape::default()));
        let recorded = |identity: &Identity| -> Arc<dyn Bus> {
            Arc::new(RecordingBus { inner: Arc::new(memory.bus(identity)), tape: tape.clone() })
        };
        let state = tempfile::tempdir().context("make a directory for an agent's state")?;
        let credentials = ground.credentials(1)?[0].clone();
        let parts = AgentParts {
            config: member::config(&ground.plans[0], &ground.broker.url(), &Options::new(1), state.path())?,
            bus: recorded(credentials.identity()),
            trust: ground.site.trust(),
            policy: member::policy()?,
            ledger: Ledger::default(),
        };
        let agent = member::agent(&ground.plans[0], credentials.clone(), 0, parts)?;
        let (shutdown, tasks) = (CancellationToken::new(), Tasks::new());
        let mut connection = agent.handle().connection();
        let stop = shutdown.clone();
        let ended = shutdown.clone().drop_guard();
        tasks.spawn(TaskKind::Worker, "recorded agent", async move {
            agent.run(stop).await;
        });
        connection.wait_for(|now| matches!(now, muster_agent::Connection::Online { .. })).await?;

        let credentials = ground.controller();
        let parts = Parts {
            bus: recorded(credentials.identity()),
            credentials,
            trust: ground.site.trust(),
            clock: Arc::new(SystemClock),
            random: rand::rngs::StdRng::from_rng(&mut rand::rng()),
            collective: "main".parse().context("`main` is a collective")?,
        };
        let mut controller = Controller::connect(parts).await.context("open a session in memory")?;
        let route = controller.route().clone();
        let summary = controller.ask(question)?.finish().await;
        ensure!(summary.hosts.contains_key(&host), "`{host}` does not answer to what is recorded");
        drop(ended);
        drop(tasks.shutdown(std::time::Duration::from_secs(10)).await);

        let (requests, replies) = tape.take().into_iter().partition(|message| message.exchange == EXCHANGE_COMMAND);
        let messages = Self { requests, replies, route, host };
        ensure!(!messages.requests.is_empty() && !messages.replies.is_empty(), "nothing was said");
        Ok(messages)
    }

    /// Bytes of body and signatures of all answers of one host.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.replies.iter().map(|message| message.body.len() + message.signatures.len()).sum()
    }
}

/// How long answers to a recorded ping are taken; it ends with the first.
const PING_WINDOW_MS: i64 = 10_000;

/// What was published.
#[derive(Default)]
struct Tape(Mutex<Vec<Outgoing>>);

impl Tape {
    fn keep(&self, message: &Outgoing) {
        // Announcements are no part of any question.
        if !message.routing_key.starts_with(KEY_PRESENCE) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
        }
    }

    fn take(&self) -> Vec<Outgoing> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct RecordingBus {
    inner: Arc<dyn Bus>,
    tape: Arc<Tape>,
}

impl Bus for RecordingBus {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>> {
        async {
            let inner = self.inner.connect().await?;
            Ok(Arc::new(RecordingLink { inner, tape: self.tape.clone() }) as Arc<dyn Link>)
        }
        .boxed()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

struct RecordingLink {
    inner: Arc<dyn Link>,
    tape: Arc<Tape>,
}

impl Link for RecordingLink {
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
        self.tape.keep(&message);
        self.inner.publish(message, guarantee)
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        self.inner.closed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
