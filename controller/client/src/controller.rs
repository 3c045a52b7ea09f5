//! One session of a controller: a connection, a reply queue with a live consumer, and what signs.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use muster_bus::{Bus, ConsumeOptions, Consumer, Link, QueueSpec};
use muster_daemon::Clock;
use muster_pki::{Credentials, Trust};
use muster_protocol::{CollectiveName, HostName, Identity, ReplyRoute, RequestId, SessionName, Timestamp, routing};
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::asking::{Asking, Course};
use crate::error::ClientError;
use crate::follow_up::{self, FollowUp};
use crate::pending::Pending;
use crate::question::{self, Prepared, Question, Sender, Sending};
use crate::receive::read_many;

/// Deliveries the broker sends ahead of their acknowledgement. With batched acknowledgements more
/// does not help, less makes the broker wait for us.
const PREFETCH: u16 = 500;

/// Most deliveries that are looked at after the end of a question.
const OVERHEARD_MAX: usize = 200;

/// What a controller is made of.
pub struct Parts {
    /// The way to the broker.
    pub bus: Arc<dyn Bus>,
    /// Who asks; signs the commands.
    pub credentials: Credentials,
    /// Whose answers are believed.
    pub trust: Trust,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where session names and request ids come from. Seeded from the system outside of tests.
    pub random: StdRng,
    /// The part of the fleet that is asked.
    pub collective: CollectiveName,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("bus", &self.bus.describe())
            .field("collective", &self.collective)
            .finish_non_exhaustive()
    }
}

/// Asks questions, one at a time. Two terminals of one user are two controllers.
pub struct Controller {
    pub(crate) parts: Parts,
    pub(crate) route: ReplyRoute,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) replies: Consumer,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("route", &self.route.to_string())
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Connects and has a live consumer for answers before it returns, so that no answer to a later
    /// question can come too early.
    ///
    /// # Errors
    /// When no broker can be reached, or it does not let this identity have its reply queue.
    pub async fn connect(mut parts: Parts) -> Result<Self, ClientError> {
        let identity = parts.credentials.identity().clone();
        let route = ReplyRoute::new(identity.clone(), session(&mut parts.random))
            .ok_or(ClientError::NotAController { identity })?;
        Self::connect_on(parts, route).await
    }

    /// Connects as the session that a pending command names: answers to it come nowhere else.
    ///
    /// # Errors
    /// As [`Self::connect`]; the command is another caller's, whose answers the broker gives to nobody else.
    pub async fn connect_for(parts: Parts, pending: &Pending) -> Result<Self, ClientError> {
        let (identity, caller) = (parts.credentials.identity(), pending.caller());
        if identity != caller {
            return Err(ClientError::NotTheCaller { caller: caller.clone(), identity: identity.clone() });
        }
        Self::connect_on(parts, pending.command().reply_to.clone()).await
    }

    async fn connect_on(parts: Parts, route: ReplyRoute) -> Result<Self, ClientError> {
        let link = parts.bus.connect().await?;
        let replies = listen(link.as_ref(), &route).await?;
        Ok(Self { parts, route, link, replies })
    }

    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.route.controller()
    }

    /// Where answers come to.
    #[must_use]
    pub fn route(&self) -> &ReplyRoute {
        &self.route
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.parts.clock.now_ms())
    }

    /// Signs the question's commands and begins to ask. Nothing is sent before the first
    /// [`Asking::next`].
    ///
    /// # Errors
    /// When the question breaks a rule of the protocol.
    pub fn ask(&mut self, question: &Question) -> Result<Asking<'_>, ClientError> {
        let messages = self.sign(|sender, next_id| question::prepare(question, sender, next_id))?;
        Ok(Asking::new(self, Course::of_question(question), messages))
    }

    /// Signs the question's commands and sends nothing: others have to sign them too. Answers will come to this
    /// controller's session, so whoever sends them connects with [`Self::connect_for`].
    ///
    /// # Errors
    /// When the question breaks a rule of the protocol, or does not name its hosts.
    pub fn write(&mut self, question: &Question) -> Result<Pending, ClientError> {
        let messages = self.sign(|sender, next_id| question::prepare(question, sender, next_id))?;
        Ok(Pending::of_prepared(messages, &self.parts.trust, self.now())?)
    }

    /// Begins to send a pending command. Nothing is sent before the first [`Asking::next`].
    ///
    /// # Errors
    /// When its time is over, or its answers would come to another session than this one.
    pub fn send(&mut self, pending: &Pending, sending: &Sending) -> Result<Asking<'_>, ClientError> {
        pending.check_time(self.now())?;
        if pending.command().reply_to != self.route {
            let (caller, identity) = (pending.caller().clone(), self.identity().clone());
            return Err(ClientError::NotTheCaller { caller, identity });
        }
        let course = Course::of_sending(pending, sending, self.now());
        let messages = pending.prepared(&sending.hosts);
        Ok(Asking::new(self, course, messages))
    }

    /// Signs a message about a request that was sent before, and begins to send it. What comes back is
    /// collected as answers to a question are: for a watch the request's own result, for a cancellation
    /// what the host did about it.
    ///
    /// # Errors
    /// When the message breaks a rule of the protocol, or a host stands in two parts.
    pub fn follow_up(&mut self, follow_up: &FollowUp) -> Result<Asking<'_>, ClientError> {
        let course = Course::of_follow_up(follow_up)?;
        let messages = self.sign(|sender, next_id| follow_up::prepare(follow_up, sender, next_id))?;
        Ok(Asking::new(self, course, messages))
    }

    /// Writes and signs messages as of now.
    pub(crate) fn sign(
        &mut self,
        prepare: impl FnOnce(&Sender<'_>, &mut dyn FnMut() -> RequestId) -> Result<Vec<Prepared>, ClientError>,
    ) -> Result<Vec<Prepared>, ClientError> {
        let now = self.now();
        let Self { parts, route, .. } = self;
        let random = &mut parts.random;
        let sender = Sender { credentials: &parts.credentials, collective: &parts.collective, route, now };
        prepare(&sender, &mut || {
            let mut bytes = [0; 10];
            random.fill_bytes(&mut bytes);
            RequestId::from_parts(now, bytes)
        })
    }

    /// Takes over the certificates that an earlier run has checked, see [`Trust::recall`].
    pub fn recall(&self, file: Vec<u8>) {
        let count = self.parts.trust.recall(file, &self.parts.credentials);
        tracing::debug!(count, "Certificates that were checked before");
    }

    /// The certificates that were checked, for the next run; see [`Trust::to_memory`].
    #[must_use]
    pub fn to_memory(&self) -> Option<Vec<u8>> {
        self.parts.trust.to_memory(&self.parts.credentials, self.now())
    }

    /// Hosts whose answers to earlier questions of this session have come in the meantime: nobody waits for them any more.
    pub fn overheard(&mut self) -> BTreeSet<HostName> {
        let mut deliveries = Vec::new();
        while deliveries.len() < OVERHEARD_MAX
            && let Some(Some(delivery)) = self.replies.next().now_or_never()
        {
            deliveries.push(delivery);
        }
        let now = self.now();
        let Parts { trust, random, .. } = &mut self.parts;
        let reports = read_many(&deliveries, trust, now, random).into_iter().flatten();
        // They are not acknowledged: the queue goes with the session, and the next question acknowledges all before.
        reports.filter(|report| report.caller == *self.route.controller()).map(|report| report.host).collect()
    }

    /// Closes the connection politely; the reply queue goes away with it.
    pub async fn close(self) {
        self.link.close().await;
    }
}

/// Declares and binds the reply queue and reads it.
pub(crate) async fn listen(link: &dyn Link, route: &ReplyRoute) -> Result<Consumer, ClientError> {
    let queue = routing::reply_queue(route);
    link.declare_queue(QueueSpec::exclusive(&queue)).await?;
    link.bind(&queue, routing::EXCHANGE_REPLY, &routing::reply_binding(route)).await?;
    Ok(link.consume(&queue, ConsumeOptions { prefetch: PREFETCH, exclusive: true }).await?)
}

/// A session name nobody else has: 64 random bits.
fn session(random: &mut StdRng) -> SessionName {
    SessionName::new(format!("{:016x}", random.next_u64())).expect("hexadecimal digits are a short name")
}
