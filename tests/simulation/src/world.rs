//! What was really done, seen from outside of the agents, and what is known to be right about it.
//!
//! The plugin of the simulated hosts tells the world whenever it begins and ends something. The world outlives every
//! crash. It also knows every command that somebody entitled made, so it can say at once when something starts
//! that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_protocol::{HostName, Identity, RequestId, Timestamp};
use serde_json::{Map, Value};

use crate::clock::SimulatedClock;
use crate::tally::Tally;
use crate::trace::Trace;

/// How long something may take from the decision to its start, in milliseconds of simulated time: what was right when
/// it was decided may have changed by then.
const DECISION_MS: u64 = 2_000;

/// How far a command may come from a host's future, in milliseconds; the agent's default.
const SKEW_MS: i64 = 60_000;

/// Something that must never be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise was broken.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// Which of the two policies a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Administrators may do everything, `max` may read.
    Open,
    /// Administrators may do everything but `stream`; nobody else may do anything.
    Closed,
}

impl Rules {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Open => {
                "[[rule]]\nname = \"admins\"\neffect = \"allow\"\nwhen = 'group = admins'\n\
                 [[rule]]\nname = \"readers\"\neffect = \"allow\"\nwhen = 'caller.name = max and read_only = true'\n"
            }
            Self::Closed => {
                "[[rule]]\nname = \"admins\"\neffect = \"allow\"\nwhen = 'group = admins and not action = \"lab.stream\"'\n"
            }
        }
    }

    fn allow(self, caller: &Identity, action: &str) -> bool {
        let is_admin = matches!(caller.name(), "lea" | "rita");
        match self {
            Self::Open => is_admin || (caller.name() == "max" && is_reading(action)),
            Self::Closed => is_admin && action != "stream",
        }
    }
}

/// Whether an action of the simulated plugin only reads.
pub(crate) fn is_reading(action: &str) -> bool {
    matches!(action, "read" | "look")
}

/// A command that somebody made with their own key.
#[derive(Debug, Clone)]
pub(crate) struct Paper {
    pub(crate) caller: Identity,
    pub(crate) action: String,
    pub(crate) arguments: Map<String, Value>,
    /// Whom it is for.
    pub(crate) hosts: BTreeSet<HostName>,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
}

/// How something ended, as the world saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It did what it was asked.
    Done,
    /// It gave up, because it should or was told to.
    Failed,
    /// Its agent or its host ended, or it was dropped because it did not stop.
    Dropped,
}

/// Something that was begun.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) action: String,
    /// The how-manieth life of the host it was.
    pub(crate) boot: u64,
    pub(crate) ended: Option<Ended>,
}

/// The last report of a request that reached the broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    pub(crate) code: String,
    pub(crate) sequence: u32,
    /// The start that a success is of, as the plugin numbered it.
    pub(crate) start: Option<u64>,
    /// Begin of the body's digest.
    pub(crate) body: String,
    /// The how-manieth life of the agent it was, and of the host.
    pub(crate) life: u64,
    pub(crate) boot: u64,
}

/// One host, as the world knows it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: HostName,
    pub(crate) clock: SimulatedClock,
    pub(crate) rules: Rules,
    /// When policy or clock changed last.
    pub(crate) changed_ms: u64,
    pub(crate) changed_before: bool,
    pub(crate) boot: u64,
    pub(crate) life: u64,
    pub(crate) revoked_since_ms: Option<u64>,
    pub(crate) starts: BTreeMap<RequestId, Vec<Start>>,
    /// What reached the broker of each request, refusals of copies left out.
    pub(crate) told: BTreeMap<RequestId, BTreeSet<Told>>,
}

#[derive(Debug, Default)]
struct State {
    papers: BTreeMap<RequestId, Vec<Paper>>,
    places: Vec<Place>,
    violations: Vec<Violation>,
}

/// The world. Clones are the same world.
#[derive(Debug, Clone)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    trace: Trace,
    tally: Tally,
}

impl World {
    pub(crate) fn new(trace: Trace, tally: Tally) -> Self {
        Self { state: Arc::default(), trace, tally }
    }

    pub(crate) fn add_host(&self, name: HostName, clock: SimulatedClock) {
        self.lock().places.push(Place {
            name,
            clock,
            rules: Rules::Open,
            changed_ms: 0,
            changed_before: false,
            boot: 0,
            life: 0,
            revoked_since_ms: None,
            starts: BTreeMap::new(),
            told: BTreeMap::new(),
        });
    }

    /// Notes that somebody made a command.
    pub(crate) fn publish(&self, id: RequestId, paper: Paper) {
        self.lock().papers.entry(id).or_default().push(paper);
    }

    /// Looks at one host, or changes what is known of it.
    pub(crate) fn at<T>(&self, host: usize, look: impl FnOnce(&mut Place) -> T) -> T {
        look(&mut self.lock().places[host])
    }

    /// Notes that the rules or the clock of a host are others from now on.
    pub(crate) fn changed(&self, host: usize, change: impl FnOnce(&mut Place)) {
        let now_ms = self.trace.now_ms();
        self.at(host, |place| {
            place.changed_ms = now_ms;
            place.changed_before = true;
            change(place);
        });
    }

    pub(crate) fn violate(&self, invariant: &'static str, what: String) {
        self.trace.note(format_args!("VIOLATED {invariant}: {what}"));
        self.lock().violations.push(Violation { invariant, what });
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// An action begins. Gives its number, from 1, among those of the request on the host.
    pub(crate) fn start(
        &self,
        host: usize,
        id: RequestId,
        caller: &Identity,
        action: &str,
        arguments: &Map<String, Value>,
    ) -> u64 {
        let now_ms = self.trace.now_ms();
        let (mut wrong, number, name) = {
            let mut state = self.lock();
            let State { papers, places, .. } = &mut *state;
            let place = &mut places[host];
            let mut wrong = Vec::new();
            let settled = !place.changed_before || now_ms > place.changed_ms + DECISION_MS;
            let known: &[Paper] = papers.get(&id).map_or(&[], Vec::as_slice);
            let paper = known
                .iter()
                .find(|paper| paper.caller == *caller && paper.action == action && paper.arguments == *arguments);
            match paper {
                None => wrong.push(("nothing forged starts", format!("{caller} did not ask for `{action}`"))),
                Some(paper) => {
                    if !paper.hosts.contains(&place.name) {
                        wrong.push(("nothing starts where it was not meant", "not in its target".to_owned()));
                    }
                    let now = place.clock.now();
                    let slack = i64::try_from(DECISION_MS).unwrap_or(0);
                    if settled && now.since_ms(paper.expires) >= slack {
                        wrong.push(("nothing expired starts", format!("{} ms late", now.since_ms(paper.expires))));
                    }
                    if settled && paper.created.since_ms(now) > SKEW_MS {
                        wrong.push(("nothing from the future starts", "made later than now".to_owned()));
                    }
                }
            }
            if settled && !place.rules.allow(caller, action) {
                wrong.push(("nothing unauthorized starts", format!("{caller} may not `{action}`")));
            }
            if caller.name() == "rita" && place.revoked_since_ms.is_some_and(|since| now_ms > since + DECISION_MS) {
                wrong.push(("nothing of a revoked certificate starts", format!("`{action}`")));
            }
            let boot = place.boot;
            let starts = place.starts.entry(id).or_default();
            let may_again = is_reading(action) && starts.iter().all(|start| start.boot != boot);
            if !starts.is_empty() && !may_again {
                wrong.push(("nothing starts twice", format!("start number {} of `{action}`", starts.len() + 1)));
            }
            starts.push(Start { action: action.to_owned(), boot, ended: None });
            (wrong, starts.len(), place.name.clone())
        };
        self.tally.add(if is_reading(action) { "starts of reading actions" } else { "starts of changing actions" });
        self.trace.note(format_args!("{name} starts {} {action} ({number})", id.short()));
        for (invariant, what) in wrong.drain(..) {
            self.violate(invariant, format!("{name} {id}: {what}"));
        }
        number as u64
    }

    /// What was begun has ended.
    pub(crate) fn end(&self, host: usize, id: RequestId, number: u64, ended: Ended) {
        let name = self.at(host, |place| {
            let index = usize::try_from(number).unwrap_or(1) - 1;
            if let Some(start) = place.starts.get_mut(&id).and_then(|starts| starts.get_mut(index)) {
                start.ended.get_or_insert(ended);
            }
            place.name.clone()
        });
        self.trace.note(format_args!("{name} ends {} {ended:?}", id.short()));
    }

    /// The last report of a request has reached the broker.
    pub(crate) fn told(&self, host: usize, id: RequestId, told: Told) {
        self.at(host, |place| {
            let told = Told { life: place.life, boot: place.boot, ..told };
            place.told.entry(id).or_default().insert(told);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
