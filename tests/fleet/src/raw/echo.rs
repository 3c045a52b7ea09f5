//! A fleet that only echoes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_bus::Outgoing;
use muster_pki::Credentials;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY, host_key, reply_binding, reply_key, reply_queue};
use muster_protocol::{HostName, ReplyRoute};
use serde::Serialize;

use super::connection::{Connection, FRAME_BYTES_MAX, Server};
use super::frames::{self, Subscription};
use super::lapin_echo::LapinEcho;
use super::lean::{self, Answer, Loop, Role};
use super::messages::Messages;
use super::storm::{ConnectStorm, Place, open_all};
use crate::blocking::blocking;
use crate::ground::Ground;
use crate::process::processor_of_self;

/// How many controllers an echo has; as many can ask at once.
const CONTROLLERS: usize = 2;

/// How long the answers to one question may take.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One thread and nothing but frames.
    Lean,
    /// lapin, in the plainest way.
    Lapin,
}

/// What is asked of an echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// How many controllers ask at the same time, at most two.
    pub controllers: usize,
    /// To how many hosts by name, each with a message of its own; `None`: one message to all.
    pub named: Option<usize>,
    /// How many of the hosts that are asked answer.
    pub replying: usize,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// From before the first message was sent until the last answer of the last controller was there.
    pub took: Duration,
    /// The same for each controller.
    pub each: Vec<Duration>,
    /// Answers of all controllers together. A host may send several.
    pub replies: usize,
    /// Bytes of their bodies.
    pub reply_bytes: u64,
    /// Processor time of the broker, in steps of 10 ms: add up several rounds.
    pub broker: Duration,
    /// Processor time of this process: hosts and controllers.
    pub own: Duration,
}

/// Connections that echo, and controllers that ask them. Its methods wait; a runtime with several threads
/// does other work meanwhile.
pub struct Echo {
    hosts: usize,
    names: Vec<HostName>,
    place: Place,
    requests: Vec<Outgoing>,
    replies_per_host: usize,
    controllers: Vec<(ReplyRoute, Credentials)>,
    /// The controllers' connections, then the hosts' of a lean echo.
    connections: Loop,
    lapin: Option<LapinEcho>,
    storm: Option<ConnectStorm>,
    round: lean::Round,
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Echo").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Echo {
    /// Connects the first `hosts` hosts of the ground, `at_once` of them at a time, and two controllers.
    ///
    /// # Errors
    /// A connection does not come about.
    pub fn start(ground: &Ground, hosts: usize, at_once: usize, kind: Kind, messages: &Messages) -> Result<Self> {
        Self::start_at(ground, Place::first(hosts), at_once, kind, messages)
    }

    /// The same with other hosts of the ground.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(ground: &Ground, place: Place, at_once: usize, kind: Kind, messages: &Messages) -> Result<Self> {
        let members = place.members(ground)?;
        let names: Vec<HostName> = members.iter().map(|(name, _)| (*name).clone()).collect();
        let plain = messages.requests.first().and_then(|request| request.body.first()).copied();
        let mut connections = Loop::new(plain.context("a request has a body")?)?;
        let server = Server::of(ground)?;
        let mut controllers = Vec::new();
        for number in 0..CONTROLLERS {
            let (route, credentials) = (route(&messages.route, number)?, ground.controller());
            let connection = blocking(|| Connection::open(&server, &credentials, &reading(&route)))?;
            connections.add(connection, Role::Counts { messages: 0, bytes: 0 })?;
            controllers.push((route, credentials));
        }
        let (mut lapin, mut storm) = (None, None);
        match kind {
            Kind::Lean => {
                let (opened, measured) = open_all(ground, &place, at_once)?;
                for connection in opened {
                    connections.add(connection, Role::Answers { by_controller: Vec::new(), now: true })?;
                }
                storm = Some(measured);
            }
            Kind::Lapin => {
                let routes = controllers.iter().map(|(route, _)| route.clone()).collect();
                lapin = Some(blocking(|| LapinEcho::start(ground, &place, at_once, messages, routes))?);
            }
        }
        let mut echo = Self {
            hosts: names.len(),
            names,
            place,
            requests: messages.requests.clone(),
            replies_per_host: messages.replies.len(),
            controllers,
            connections,
            lapin,
            storm,
            round: lean::Round::default(),
        };
        if kind == Kind::Lean {
            echo.exchange(ground, messages)?;
        }
        Ok(echo)
    }

    /// Exchanges other messages from now on, over the connections that are there.
    ///
    /// # Errors
    /// This is no lean echo, or the messages cannot be written.
    pub fn exchange(&mut self, ground: &Ground, messages: &Messages) -> Result<()> {
        ensure!(self.lapin.is_none(), "an echo with lapin keeps its messages");
        let answers = Answers::of(messages, &self.controllers)?;
        let hosts = self.connections.peers.iter_mut().skip(self.controllers.len());
        for (peer, (host, credentials)) in hosts.zip(self.place.members(ground)?) {
            let user = credentials.identity().to_string();
            peer.role = Role::Answers { by_controller: answers.of_host(&user, host)?, now: true };
        }
        self.requests.clone_from(&messages.requests);
        self.replies_per_host = messages.replies.len();
        Ok(())
    }

    /// How fast the hosts of a lean echo connected.
    #[must_use]
    pub fn storm(&self) -> Option<ConnectStorm> {
        self.storm
    }

    /// One message to all, and everybody answers.
    ///
    /// # Errors
    /// Answers are missing.
    pub fn round(&mut self, ground: &Ground) -> Result<Round> {
        self.ask(ground, Asked { controllers: 1, named: None, replying: self.hosts })
    }

    /// A message to each of the first `hosts` hosts by name.
    ///
    /// # Errors
    /// Answers are missing.
    pub fn named(&mut self, ground: &Ground, hosts: usize) -> Result<Round> {
        self.ask(ground, Asked { controllers: 1, named: Some(hosts), replying: hosts })
    }

    /// Asks and counts until all answers are there.
    ///
    /// # Errors
    /// More is asked than there is, or answers are missing.
    pub fn ask(&mut self, ground: &Ground, asked: Asked) -> Result<Round> {
        let to = asked.named.unwrap_or(self.hosts);
        ensure!(
            asked.controllers <= self.controllers.len() && to <= self.hosts && asked.replying <= to,
            "{asked:?} of {} hosts",
            self.hosts
        );
        blocking(|| self.measure(ground, asked))
    }

    fn measure(&mut self, ground: &Ground, asked: Asked) -> Result<Round> {
        let all = self.controllers.len();
        self.round = self.round.next();
        let questions = (0..asked.controllers).map(|number| self.question(number, asked.named));
        let questions = questions.collect::<Result<Vec<_>>>()?;
        for (number, peer) in self.connections.peers.iter_mut().enumerate() {
            match &mut peer.role {
                Role::Counts { messages, bytes } => (*messages, *bytes) = (0, 0),
                Role::Answers { now, .. } => *now = number - all < asked.replying,
            }
        }
        if let Some(lapin) = &self.lapin {
            lapin.reply(asked.replying, self.round);
        }
        let expected = asked.replying * self.replies_per_host;
        self.connections.begin(self.round);
        let mut each: Vec<Option<Duration>> = vec![None; asked.controllers];
        let (broker_before, own_before, started) = (ground.broker.usage(), processor_of_self()?, Instant::now());
        for (number, question) in questions.iter().enumerate() {
            self.connections.send(number, question)?;
        }
        self.connections.run(ROUND_LIMIT, |peers| {
            for (done, peer) in each.iter_mut().zip(peers) {
                if let (None, Role::Counts { messages, .. }) = (&done, &peer.role)
                    && *messages >= expected
                {
                    *done = Some(started.elapsed());
                }
            }
            each.iter().all(Option::is_some)
        })?;
        let took = started.elapsed();
        let own = processor_of_self()?.saturating_sub(own_before);
        let broker = ground.broker.usage().processor.saturating_sub(broker_before.processor);
        let (mut replies, mut reply_bytes) = (0, 0);
        for peer in &self.connections.peers[..asked.controllers] {
            if let Role::Counts { messages, bytes } = peer.role {
                (replies, reply_bytes) = (replies + messages, reply_bytes + bytes);
            }
        }
        Ok(Round { took, each: each.into_iter().flatten().collect(), replies, reply_bytes, broker, own })
    }

    /// The frames of a question: to all, or to each of the first hosts by name. Who asks and in which round is on the first byte.
    fn question(&self, controller: usize, named: Option<usize>) -> Result<Vec<u8>> {
        let user = self.controllers[controller].1.identity().to_string();
        let mut frames = Vec::new();
        let mut add = |request: &Outgoing, key: &str| -> Result<()> {
            let mut body = request.body.to_vec();
            body[0] ^= self.round.mark(u8::try_from(controller)?);
            frames.extend(frames::head(request, &user, key)?);
            frames.extend(frames::body(&body, FRAME_BYTES_MAX)?);
            Ok(())
        };
        match named {
            None => add(&self.requests[0], self.place.broadcast())?,
            Some(hosts) => {
                for (host, request) in self.names[..hosts].iter().zip(self.requests.iter().cycle()) {
                    add(request, &host_key(host))?;
                }
            }
        }
        Ok(frames)
    }

    /// Hangs up and deletes all queues, so that a fleet can use the ground.
    ///
    /// # Errors
    /// The queues cannot be deleted.
    pub fn stop(self, ground: &Ground) -> Result<()> {
        blocking(move || drop(self));
        ground.clear()
    }
}

/// A session with a name as long as the recorded one's.
fn route(recorded: &ReplyRoute, number: usize) -> Result<ReplyRoute> {
    let text = recorded.to_string();
    let (controller, session) = text.rsplit_once('.').context("a route has a session")?;
    let width = session.len();
    format!("{controller}.{number:0>width$}").parse().context("name a session")
}

/// What a controller reads.
fn reading(route: &ReplyRoute) -> Subscription {
    Subscription {
        queue: reply_queue(route),
        exchange: EXCHANGE_REPLY,
        keys: vec![reply_binding(route)],
        durable: false,
    }
}

/// The answers of all hosts: what is the same for all is there once.
struct Answers<'a> {
    messages: &'a Messages,
    controllers: &'a [(ReplyRoute, Credentials)],
    bodies: Vec<Arc<[u8]>>,
}

impl<'a> Answers<'a> {
    fn of(messages: &'a Messages, controllers: &'a [(ReplyRoute, Credentials)]) -> Result<Self> {
        debug_assert_eq!(messages.requests[0].exchange, EXCHANGE_COMMAND);
        let bodies = messages.replies.iter().map(|reply| Ok(frames::body(&reply.body, FRAME_BYTES_MAX)?.into()));
        Ok(Self { messages, controllers, bodies: bodies.collect::<Result<_>>()? })
    }

    fn of_host(&self, user: &str, host: &HostName) -> Result<Vec<Vec<Answer>>> {
        let to = |(route, _): &(ReplyRoute, Credentials)| -> Result<Vec<Answer>> {
            let key = reply_key(route, host);
            let replies = self.messages.replies.iter().zip(&self.bodies);
            let answer = |(reply, body): (&Outgoing, &Arc<[u8]>)| -> Result<Answer> {
                Ok(Answer {
                    head: frames::head(reply, user, &key)?.into(),
                    body: body.clone(),
                    bytes: reply.body.len() as u64,
                })
            };
            replies.map(answer).collect()
        };
        self.controllers.iter().map(to).collect()
    }
}
