//! People who ask: who, what, when, and what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_client::{Asking, Audience, Cause, Controller, End, FollowUp, Part, Parts, Question, Wish};
use muster_daemon::{Clock as _, TaskKind, Tasks};
use muster_pki::Credentials;
use muster_protocol::expr::Expression;
use muster_protocol::{HostName, RequestId, TaskState};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use crate::clock::SimulatedClock;
use crate::host::Host;
use crate::options::FaultKind;
use crate::plugin::ACTIONS;
use crate::random::Random;
use crate::site::NOW;
use crate::stage::Stage;
use crate::world::Paper;

/// What may pass beyond a question's own times until it has ended, in milliseconds: the client's own grace, and the
/// times without a connection, which hosts are given back.
const END_GRACE_MS: u64 = 600_000;

/// What a controller was told of one host.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) host: HostName,
    /// The requests the host may have been asked by.
    pub(crate) requests: Vec<RequestId>,
    pub(crate) state: TaskState,
    pub(crate) cause: Option<Cause>,
    /// The code of the host's own result.
    pub(crate) code: Option<String>,
    /// The start that a success names.
    pub(crate) start: Option<u64>,
}

/// What all controllers were told. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdicts(Arc<Mutex<Vec<Verdict>>>);

impl Verdicts {
    pub(crate) fn all(&self) -> Vec<Verdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, verdict: Verdict) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
    }
}

/// Somebody who asks.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) credentials: Credentials,
    stage: Stage,
    verdicts: Verdicts,
    clock: SimulatedClock,
    random: Mutex<Random>,
    /// Ends whatever is being asked, as the end of the program would.
    crash: Mutex<CancellationToken>,
    tasks: Tasks,
}

impl Person {
    pub(crate) fn new(
        stage: &Stage,
        number: usize,
        credentials: &Credentials,
        verdicts: &Verdicts,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let clock = SimulatedClock::new(tokio::time::Instant::now(), NOW);
        let mut random = Random::of(stage.options.seed, &format!("person {number}"));
        let skew = i64::try_from(random.between(0, 20_000)).unwrap_or(0) - 10_000;
        if random.per_mille(200) && stage.options.has(FaultKind::Clock) {
            clock.set_wrong_by_ms(skew);
        }
        Arc::new(Self {
            credentials: credentials.clone(),
            stage: stage.clone(),
            verdicts: verdicts.clone(),
            clock,
            random: Mutex::new(random),
            crash: Mutex::default(),
            tasks: tasks.clone(),
        })
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn crash_token(&self) -> CancellationToken {
        self.crash.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the program of this person where it is.
    pub(crate) fn crash(&self) {
        let token = std::mem::take(&mut *self.crash.lock().unwrap_or_else(PoisonError::into_inner));
        token.cancel();
    }

    fn name(&self) -> &str {
        self.credentials.identity().name()
    }

    fn note(&self, line: impl std::fmt::Display) {
        self.stage.trace.note(format_args!("{} {line}", self.name()));
    }

    async fn connect(&self) -> Option<Controller> {
        let trust = self.stage.site.trust().ok()?;
        let parts = Parts {
            bus: Arc::new(self.stage.broker.bus(self.credentials.identity())),
            credentials: self.credentials.clone(),
            trust,
            clock: Arc::new(self.clock.clone()),
            random: StdRng::seed_from_u64(self.draw(Random::number)),
            collective: "main".parse().ok()?,
        };
        match Controller::connect(parts).await {
            Ok(controller) => Some(controller),
            Err(error) => {
                self.note(format_args!("cannot connect: {}", error.code()));
                None
            }
        }
    }

    /// Asks so many questions, one after the other.
    pub(crate) async fn work(self: Arc<Self>, questions: usize) {
        for _ in 0..questions {
            tokio::time::sleep(self.draw(|random| random.pause(0, 8_000))).await;
            let waves = self.draw(|random| random.per_mille(150));
            let (question, meant) = self.question();
            let Audience::Hosts(hosts) = question.audience.clone() else {
                self.clone().ask(question, meant).await;
                continue;
            };
            let size = if waves { (hosts.len() / 3).max(1) } else { hosts.len().max(1) };
            let hosts: Vec<HostName> = hosts.into_iter().collect();
            for wave in hosts.chunks(size) {
                let meant: BTreeSet<HostName> = wave.iter().cloned().collect();
                let question = Question { audience: Audience::Hosts(meant.clone()), ..question.clone() };
                self.clone().ask(question, meant).await;
            }
        }
    }

    /// A question, and the hosts for which it is.
    fn question(&self) -> (Question, BTreeSet<HostName>) {
        let hosts = &self.stage.hosts;
        self.draw(|random| {
            let (action, _, _) = random.one_of(&ACTIONS);
            let everyone: BTreeSet<HostName> = hosts.iter().map(|host| host.name.clone()).collect();
            let (audience, meant) = match random.below(10) {
                0..=1 => (Audience::Everyone, everyone),
                2 => {
                    let filter = Expression::parse("fact.role = web").expect("an expression").to_string();
                    let meant = hosts.iter().filter(|host| Host::role(host.index) == "web");
                    (Audience::Matching(filter), meant.map(|host| host.name.clone()).collect())
                }
                _ => {
                    let count = random.between(1, hosts.len().min(12) as u64);
                    let chosen: BTreeSet<HostName> =
                        (0..count).map(|_| hosts[random.below(hosts.len())].name.clone()).collect();
                    (Audience::Hosts(chosen.clone()), chosen)
                }
            };
            let longest = if matches!(*action, "change" | "stream" | "stubborn") { 12_000 } else { 500 };
            let mut arguments = Map::new();
            arguments.insert("ms".to_owned(), json!(random.between(0, longest)));
            arguments.insert("tag".to_owned(), json!(random.between(0, 1_000_000)));
            let mut question = Question::new(
                audience,
                "lab".parse().expect("a plugin's name"),
                action.parse().expect("an action's name"),
            );
            question.arguments = arguments;
            question.options.progress = random.per_mille(700);
            if random.per_mille(300) {
                question.options.timeout_ms = Some(random.between(500, 6_000));
            }
            question.time_limit_ms =
                question.options.timeout_ms.map_or(30_000, |ms| i64::try_from(ms).unwrap_or(30_000));
            question.ttl_ms = i64::try_from(*random.one_of(&[2_000_u64, 20_000, 60_000, 300_000])).unwrap_or(60_000);
            question.reply_timeout_ms = i64::try_from(random.between(2_000, 15_000)).unwrap_or(10_000);
            (question, meant)
        })
    }

    async fn ask(self: Arc<Self>, question: Question, meant: BTreeSet<HostName>) {
        let crash = self.crash_token();
        let asking = self.ask_to_the_end(&question, &meant);
        tokio::select! {
            biased;
            () = crash.cancelled() => self.note("is gone"),
            () = asking => {}
        }
    }

    async fn ask_to_the_end(self: &Arc<Self>, question: &Question, meant: &BTreeSet<HostName>) {
        let Some(mut controller) = self.connect().await else { return };
        let created = self.clock.now();
        let asking = match controller.ask(question) {
            Ok(asking) => asking,
            Err(error) => {
                self.stage.world.violate("a question can be asked", error.to_string());
                return;
            }
        };
        let requests: Vec<RequestId> = asking.requests().collect();
        let paper = Paper {
            caller: self.credentials.identity().clone(),
            action: question.action.to_string(),
            arguments: question.arguments.clone(),
            hosts: meant.clone(),
            created,
            expires: created.plus_ms(question.ttl_ms),
        };
        for id in &requests {
            self.stage.world.publish(*id, paper.clone());
            self.stage.tally.add("requests");
            self.note(format_args!("asks {} {} of {} hosts", id.short(), question.action, meant.len()));
        }
        self.meddle(&asking, question, &requests);
        let limit = u64::try_from(question.reply_timeout_ms + question.time_limit_ms).unwrap_or(0) + END_GRACE_MS;
        let parts: BTreeMap<HostName, RequestId> =
            asking.parts().flat_map(|(id, hosts)| hosts.iter().map(move |host| (host.clone(), id))).collect();
        let asked = if matches!(question.audience, Audience::Hosts(_)) { Some(parts) } else { None };
        self.finish(asking, limit, &requests, asked.as_ref(), "requests").await;
        controller.close().await;
    }

    /// Waits for the end of a question and notes what it says of each host.
    async fn finish(
        &self,
        asking: Asking<'_>,
        limit_ms: u64,
        requests: &[RequestId],
        asked: Option<&BTreeMap<HostName, RequestId>>,
        what: &str,
    ) {
        let summary = match tokio::time::timeout(Duration::from_millis(limit_ms), asking.finish()).await {
            Ok(summary) => summary,
            Err(_) => {
                let ids: Vec<String> = requests.iter().map(RequestId::short).collect();
                let what = format!("{} of {} has not ended after {limit_ms} ms", ids.join(" "), self.name());
                return self.stage.world.violate("every request ends", what);
            }
        };
        let end = match &summary.end {
            End::Complete => "complete",
            End::Stopped => "stopped",
            End::Failed(error) => error.code(),
        };
        self.stage.tally.add(&format!("{what} that ended"));
        let ids: Vec<String> = requests.iter().map(RequestId::short).collect();
        self.note(format_args!("knows {} {end}: {:?}", ids.join(" "), summary.counts));
        if end == "complete" && summary.counts.pending + summary.counts.running > 0 {
            self.stage.world.violate("every request ends", format!("{} is complete, and hosts are not", ids.join(" ")));
        }
        if what != "requests" {
            return;
        }
        for (host, record) in summary.hosts {
            self.verdicts.add(Verdict {
                requests: match asked {
                    Some(asked) => asked.get(&host).copied().into_iter().collect(),
                    None => requests.to_vec(),
                },
                host,
                state: record.state,
                cause: record.cause,
                start: record.result.as_ref().and_then(|result| result.data["start"].as_u64()),
                code: record.result.map(|result| result.code),
            });
        }
    }

    /// Perhaps somebody cancels or watches what was just asked, or its program ends.
    fn meddle(self: &Arc<Self>, asking: &Asking<'_>, question: &Question, requests: &[RequestId]) {
        let (cancels, watches, leaves, pause) = self.draw(|random| {
            (random.per_mille(200), random.per_mille(200), random.per_mille(80), random.pause(0, 10_000))
        });
        let parts: Vec<Part> = match &question.audience {
            Audience::Hosts(_) => asking
                .parts()
                .map(|(request, hosts)| Part { request, audience: Audience::Hosts(hosts.iter().cloned().collect()) })
                .collect(),
            audience => requests.iter().map(|request| Part { request: *request, audience: audience.clone() }).collect(),
        };
        if cancels {
            self.clone().follow(Wish::Cancel, parts.clone(), pause);
        }
        if watches {
            self.clone().follow(Wish::Watch { replay: true, follow: true }, parts, pause / 2);
        }
        if leaves && self.stage.options.has(FaultKind::Client) {
            let (person, crash) = (self.clone(), self.crash_token());
            self.tasks.spawn(TaskKind::Worker, "leave", async move {
                tokio::time::sleep(pause).await;
                person.stage.tally.add("fault client");
                // Only the program that runs now: a later one is another.
                crash.cancel();
                let mut current = person.crash.lock().unwrap_or_else(PoisonError::into_inner);
                if current.is_cancelled() {
                    *current = CancellationToken::new();
                }
            });
        }
    }

    /// A second program of the same person, with a wish about a request.
    fn follow(self: Arc<Self>, wish: Wish, parts: Vec<Part>, pause: Duration) {
        let tasks = self.tasks.clone();
        tasks.spawn(TaskKind::Worker, "follow", async move {
            tokio::time::sleep(pause).await;
            let Some(mut controller) = self.connect().await else { return };
            let mut follow_up = FollowUp::new(wish, parts);
            follow_up.time_limit_ms = follow_up.time_limit_ms.min(60_000);
            let limit = u64::try_from(follow_up.reply_timeout_ms + follow_up.time_limit_ms).unwrap_or(0) + END_GRACE_MS;
            let what = if wish == Wish::Cancel { "cancels" } else { "watches" };
            self.stage.tally.add(what);
            match controller.follow_up(&follow_up) {
                Ok(asking) => {
                    let ids: Vec<RequestId> = asking.requests().collect();
                    self.note(format_args!("{what} by {}", ids.first().map(RequestId::short).unwrap_or_default()));
                    self.finish(asking, limit, &ids, None, what).await;
                }
                Err(error) => self.note(format_args!("{what} cannot be sent: {}", error.code())),
            }
            controller.close().await;
        });
    }

    /// Sets this person's clock right.
    pub(crate) fn heal(&self) {
        self.clock.set_wrong_by_ms(0);
        // Read, so that what is left of the clock's error shows in the trace.
        self.note(format_args!("has the time {}", self.clock.now_ms()));
    }
}
