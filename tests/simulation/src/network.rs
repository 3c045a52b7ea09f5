//! The network between everybody and the broker: what it does to messages, and what can be seen on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_bus::{Cut, Fault, MemoryBroker, Outgoing, Step, Stored, Weather};
use muster_protocol::{HostName, Identity, PayloadType, ProgressReport, ReportState, decode};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::options::{FaultKind, Options};
use crate::random::Random;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::world::{Told, World};

/// How long somebody tries to connect to what cannot be reached, as the agent's default.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How many messages whoever listens on the broker remembers.
const CAPTURED: usize = 64;

/// How often things go wrong, per thousand messages or steps.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Storm {
    pub(crate) drop: u32,
    pub(crate) duplicate: u32,
    pub(crate) delay: u32,
    pub(crate) cut: u32,
}

/// The network. Clones are the same network.
#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    seed: u64,
    options: Options,
    trace: Trace,
    tally: Tally,
    world: World,
    places: BTreeMap<HostName, usize>,
    storm: Storm,
    latency_ms: u64,
    unreachable: BTreeMap<Identity, Instant>,
    /// One stream for each identity's steps and each queue's messages.
    steps: BTreeMap<Identity, Random>,
    queues: BTreeMap<String, Random>,
    captured: VecDeque<Outgoing>,
    first_captured: Vec<Outgoing>,
}

impl Network {
    pub(crate) fn new(options: &Options, trace: &Trace, tally: &Tally, world: &World, hosts: &[HostName]) -> Self {
        let latency_ms = Random::of(options.seed, "latency").between(0, 20);
        let state = State {
            seed: options.seed,
            options: options.clone(),
            trace: trace.clone(),
            tally: tally.clone(),
            world: world.clone(),
            places: hosts.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect(),
            storm: Storm::default(),
            latency_ms,
            unreachable: BTreeMap::new(),
            steps: BTreeMap::new(),
            queues: BTreeMap::new(),
            captured: VecDeque::new(),
            first_captured: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Puts itself between a broker and its clients.
    pub(crate) fn install(&self, broker: &MemoryBroker) {
        let (faults, weather) = (self.clone(), self.clone());
        broker.set_faults(move |stored| faults.lock().message(stored));
        broker.set_weather(move |identity, step| weather.lock().step(identity, step));
    }

    pub(crate) fn set_storm(&self, storm: Storm) {
        self.lock().storm = storm;
    }

    /// Lets nothing of an identity through for so long.
    pub(crate) fn part(&self, identity: &Identity, time: Duration) {
        self.lock().unreachable.insert(identity.clone(), Instant::now() + time);
    }

    /// Everything gets through again.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.storm = Storm::default();
        state.unreachable.clear();
    }

    /// A message that went by, if there was any: one of the last, or one of the first.
    pub(crate) fn capture(&self, random: &mut Random) -> Option<Outgoing> {
        let state = self.lock();
        let old = random.per_mille(300) && !state.first_captured.is_empty();
        if old {
            return Some(random.one_of(&state.first_captured).clone());
        }
        (!state.captured.is_empty()).then(|| state.captured[random.below(state.captured.len())].clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has(&self, kind: FaultKind) -> bool {
        self.options.has(kind)
    }

    /// What becomes of a message on its way into a queue.
    fn message(&mut self, stored: &Stored) -> Fault {
        self.look_at(stored);
        let seed = self.seed;
        let random = self
            .queues
            .entry(stored.queue.clone())
            .or_insert_with_key(|queue| Random::of(seed, &format!("messages into {queue}")));
        let storm = self.storm;
        // Drawn whether they are used or not, so that switching one off leaves the others where they were.
        let (drop, twice, late) =
            (random.per_mille(storm.drop), random.per_mille(storm.duplicate), random.per_mille(storm.delay));
        let delay = random.pause(1, 4_000);
        let (kind, fault) = if drop && self.has(FaultKind::Drop) {
            (FaultKind::Drop, Fault::Drop)
        } else if twice && self.has(FaultKind::Duplicate) {
            (FaultKind::Duplicate, Fault::Duplicate)
        } else if late && self.has(FaultKind::Delay) {
            (FaultKind::Delay, Fault::Delay(delay))
        } else {
            return Fault::Deliver;
        };
        self.tally.add(&format!("fault {kind}"));
        self.trace.note(format_args!("fault {kind}: a message for {}", stored.queue));
        fault
    }

    /// What somebody on the broker sees of it.
    fn look_at(&mut self, stored: &Stored) {
        match PayloadType::from_content_type(&stored.content_type) {
            Some(PayloadType::Report) => self.report(stored),
            Some(PayloadType::Command | PayloadType::Cancel) => {
                let seen = Outgoing {
                    exchange: stored.exchange,
                    routing_key: stored.routing_key.clone(),
                    content_type: stored.content_type.clone(),
                    body: stored.body.clone(),
                    signatures: stored.signatures.clone(),
                    expiration_ms: None,
                    persistent: true,
                    mandatory: false,
                    correlation_id: None,
                };
                if self.first_captured.len() < 8 {
                    self.first_captured.push(seen.clone());
                }
                if self.captured.len() == CAPTURED {
                    self.captured.pop_front();
                }
                self.captured.push_back(seen);
            }
            _ => {}
        }
    }

    fn report(&mut self, stored: &Stored) {
        // What a host said counts only if the host said it.
        let Identity::Host(sender) = &stored.sender else { return };
        let Ok(report) = decode::<ProgressReport>(&stored.body) else { return };
        let Some(place) = self.places.get(sender).copied().filter(|_| report.host == *sender) else { return };
        self.tally.add("reports");
        if report.state != ReportState::Finished {
            return;
        }
        let Some(result) = report.result else { return };
        self.trace.note(format_args!("{sender} tells {} {}", report.request_id.short(), result.code));
        let body = Sha256::digest(&stored.body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let start = result.data["start"].as_u64();
        let told = Told { code: result.code, sequence: report.sequence, start, body, life: 0, boot: 0 };
        self.world.told(place, report.request_id, told);
    }

    /// How the network is for one step of a client.
    fn step(&mut self, identity: &Identity, step: Step) -> Weather {
        let seed = self.seed;
        let random = self
            .steps
            .entry(identity.clone())
            .or_insert_with_key(|identity| Random::of(seed, &format!("steps of {identity}")));
        let (before, after) = (random.pause(0, self.latency_ms), random.pause(0, self.latency_ms));
        let is_cut = random.per_mille(self.storm.cut);
        let cut = if random.per_mille(500) { Cut::Before } else { Cut::After };
        let now = Instant::now();
        if let Some(until) = self.unreachable.get(identity).copied() {
            if until > now {
                let left = until - now;
                return if step == Step::Connect && left > CONNECT_TIME {
                    Weather { before: CONNECT_TIME, cut: Cut::Before, ..Weather::default() }
                } else {
                    Weather { before: left + before, after, cut: Cut::Nowhere }
                };
            }
            self.unreachable.remove(identity);
        }
        if is_cut && self.has(FaultKind::Cut) {
            self.tally.add("fault cut");
            self.trace.note(format_args!("fault cut: {} at {step:?}, {cut:?}", identity.short()));
            return Weather { before, after, cut };
        }
        match step {
            // The way to the host was counted when the message was published.
            Step::Receive => Weather::default(),
            _ => Weather { before, after, cut: Cut::Nowhere },
        }
    }
}
