//! Whose turn it is: processor time is shared between identities, however many connections each has.
//!
//! A connection's task does what there is to do until nothing is left or its [`Slice`] is over, and then others have theirs.
//! That alone would give eight connections of one host eight times what another gets. So what all connections of an identity
//! use is counted together, in its [`Allowance`]: a sixteenth of a processor, a little more for a moment. Whoever stays
//! within it, as everybody does most of the time, is not held up and costs nothing but the counting. The connections of an
//! identity that has used up its allowance stand in a line ([`Queue`]) and need one of its places, of which there are as many
//! as threads. A free place goes to the identity that was served least of those that wait, and to its connection that waits
//! longest.
//!
//! So whoever has little to do waits for as many slices as there are threads at most; those who have much to do share the
//! rest evenly; and if nobody else wants it, one identity has everything.
//!
//! # Invariants
//!
//! - Nobody waits while a place is free.
//! - No time is read here: it comes with each call, in microseconds of any clock that does not go back.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::ids::ConnectionId;

/// Rounds of reading and writing before others get their turn.
const ROUNDS_MAX: usize = 8;

/// Time after which others get theirs, however many rounds it were: a read full of small methods is milliseconds of work.
const SLICE_US: u64 = 1_000;

/// What an identity may use at once without standing in the line.
const BURST_US: i64 = 4_000;

/// The part of one processor, as a divisor, that it may use so in the long run.
const ALLOWANCE_PART: u64 = 16;

/// One poll's share of work.
#[derive(Debug)]
pub(super) struct Slice {
    until_us: u64,
    rounds_left: usize,
}

impl Slice {
    pub(super) fn new(now_us: u64) -> Self {
        Self { until_us: now_us + SLICE_US, rounds_left: ROUNDS_MAX }
    }

    /// A round is done: whether another may follow.
    pub(super) fn goes_on(&mut self, now_us: u64) -> bool {
        self.rounds_left = self.rounds_left.saturating_sub(1);
        self.rounds_left > 0 && now_us <= self.until_us
    }
}

/// What an identity may still use.
#[derive(Debug)]
pub(super) struct Allowance {
    user: Arc<str>,
    /// It was used up when it was last looked at.
    used_up: AtomicBool,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    left_us: i64,
    at_us: u64,
}

impl Allowance {
    fn new(user: Arc<str>) -> Self {
        Self { user, used_up: AtomicBool::new(false), left: Mutex::new(Left { left_us: BURST_US, at_us: 0 }) }
    }

    fn spend(&self, used_us: u64, now_us: u64) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = now_us.saturating_sub(left.at_us) / ALLOWANCE_PART;
        // What is left over of a division comes with the next one.
        left.at_us += granted * ALLOWANCE_PART;
        let (granted, used) = (signed(granted), signed(used_us));
        left.left_us = left.left_us.saturating_add(granted).min(BURST_US).saturating_sub(used).max(-BURST_US);
        self.used_up.store(left.left_us <= 0, Ordering::Relaxed);
    }

    fn is_used_up(&self, now_us: u64) -> bool {
        if self.used_up.load(Ordering::Relaxed) {
            self.spend(0, now_us);
        }
        self.used_up.load(Ordering::Relaxed)
    }
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// The line of connections whose identities have used up their allowances. `W` is what wakes one.
#[derive(Debug)]
struct Queue<W> {
    places: usize,
    /// Who has a place.
    holders: HashMap<ConnectionId, Arc<str>>,
    members: HashMap<Arc<str>, Member<W>>,
    /// Identities whose connections wait, least served first.
    order: BTreeSet<(u64, Arc<str>)>,
    /// How much the last one was served that got a place: where newcomers begin, so that nobody saves up.
    floor_us: u64,
}

#[derive(Debug)]
struct Member<W> {
    served_us: u64,
    waiting: VecDeque<(ConnectionId, W)>,
}

impl<W> Queue<W> {
    fn new(places: usize) -> Self {
        let (holders, members) = (HashMap::new(), HashMap::new());
        Self { places: places.max(1), holders, members, order: BTreeSet::new(), floor_us: 0 }
    }

    /// Stands in the line: whether there was a place at once.
    fn enter(&mut self, user: &Arc<str>, connection: ConnectionId, wakes: W) -> bool {
        let floor_us = self.floor_us;
        let member = self
            .members
            .entry(user.clone())
            .or_insert_with(|| Member { served_us: floor_us, waiting: VecDeque::new() });
        if member.waiting.is_empty() {
            member.served_us = member.served_us.max(floor_us);
            self.order.insert((member.served_us, user.clone()));
        }
        member.waiting.push_back((connection, wakes));
        // There is none free if somebody waits, so it can only be this one that gets it.
        self.give().is_some()
    }

    /// Gives a free place to whoever is next.
    fn give(&mut self) -> Option<W> {
        if self.holders.len() >= self.places {
            return None;
        }
        let (served_us, user) = self.order.pop_first()?;
        let member = self.members.get_mut(&user)?;
        self.floor_us = self.floor_us.max(served_us);
        let (connection, wakes) = member.waiting.pop_front()?;
        // As if it used all of it; what it does not use is given back.
        member.served_us += SLICE_US;
        if !member.waiting.is_empty() {
            self.order.insert((member.served_us, user.clone()));
        }
        self.holders.insert(connection, user);
        Some(wakes)
    }

    /// Gives a place back after some time: who has it now.
    fn leave(&mut self, connection: ConnectionId, used_us: u64) -> Option<W> {
        let user = self.holders.remove(&connection)?;
        if let Some(member) = self.members.get_mut(&user) {
            let waits = self.order.remove(&(member.served_us, user.clone()));
            member.served_us = (member.served_us + used_us).saturating_sub(SLICE_US);
            if waits {
                self.order.insert((member.served_us, user));
            }
        }
        let next = self.give();
        if self.holders.is_empty() {
            // Nobody wants anything: there is nothing to be fair about.
            self.members.clear();
        }
        next
    }

    /// A connection is gone: who has its place now, if it had one.
    fn forget(&mut self, user: &Arc<str>, connection: ConnectionId) -> Option<W> {
        if let Some(member) = self.members.get_mut(user) {
            member.waiting.retain(|(waiting, _)| *waiting != connection);
            if member.waiting.is_empty() {
                self.order.remove(&(member.served_us, user.clone()));
            }
        }
        self.leave(connection, 0)
    }
}

/// Something that can be woken.
pub(super) trait Wakes {
    /// Has its task polled.
    fn wake(&self);
}

/// The allowances of all identities, and the line.
#[derive(Debug)]
pub(super) struct Turns<W> {
    allowances: Mutex<HashMap<Arc<str>, Weak<Allowance>>>,
    queue: Mutex<Queue<W>>,
}

impl<W: Wakes> Turns<W> {
    /// With so many places.
    pub(super) fn new(places: usize) -> Self {
        Self { allowances: Mutex::default(), queue: Mutex::new(Queue::new(places)) }
    }

    /// A new connection of an identity.
    pub(super) fn join(&self, user: &Arc<str>, connection: ConnectionId) -> Standing {
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        let known = allowances.get(user).and_then(Weak::upgrade);
        let allowance = known.unwrap_or_else(|| {
            let new = Arc::new(Allowance::new(user.clone()));
            allowances.insert(user.clone(), Arc::downgrade(&new));
            new
        });
        Standing { allowance, connection, at: At::Large }
    }

    /// A connection is gone.
    pub(super) fn leave(&self, standing: &Standing) {
        let user = &standing.allowance.user;
        let next = if standing.at == At::Large { None } else { self.queue().forget(user, standing.connection) };
        if let Some(next) = next {
            next.wake();
        }
        // Theirs and ours: nobody else has one who could not ask for it anew.
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&standing.allowance) == 1 {
            allowances.remove(user);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a connection stands.
#[derive(Debug)]
pub(super) struct Standing {
    allowance: Arc<Allowance>,
    connection: ConnectionId,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Not in the line.
    Large,
    /// In the line.
    Waiting,
    /// It has a place.
    Place,
}

/// What a task does that is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Its work, for a slice.
    Work,
    /// Nothing: it is woken when it has a place.
    Wait,
    /// Nothing, but it has a place now, and stands at the end of the threads' own line.
    Yield,
}

/// What a task does whose slice is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It stands at the end of the threads' own line.
    Yield,
    /// It waits: for its place, or for something to do.
    Wait,
}

impl Standing {
    /// The task is polled.
    pub(super) fn begin<W: Wakes>(&mut self, turns: &Turns<W>, now_us: u64, wakes: impl FnOnce() -> W) -> Begin {
        match self.at {
            At::Place => Begin::Work,
            At::Large if !self.allowance.is_used_up(now_us) => Begin::Work,
            At::Large => match self.enter(turns, wakes) {
                // Others of its identity may stand before it in the threads' own line, each about to find this place free.
                true => Begin::Yield,
                false => Begin::Wait,
            },
            At::Waiting if turns.queue().holders.contains_key(&self.connection) => {
                self.at = At::Place;
                Begin::Yield
            }
            At::Waiting => Begin::Wait,
        }
    }

    /// It has worked for so long, and has more to do or not.
    pub(super) fn end<W: Wakes>(
        &mut self,
        turns: &Turns<W>,
        used_us: u64,
        has_more: bool,
        now_us: u64,
        wakes: impl FnOnce() -> W,
    ) -> Next {
        self.allowance.spend(used_us, now_us);
        if self.at == At::Place {
            self.at = At::Large;
            let next = turns.queue().leave(self.connection, used_us);
            if let Some(next) = next {
                next.wake();
            }
        }
        if has_more && (!self.allowance.is_used_up(now_us) || self.enter(turns, wakes)) {
            Next::Yield
        } else {
            Next::Wait
        }
    }

    fn enter<W: Wakes>(&mut self, turns: &Turns<W>, wakes: impl FnOnce() -> W) -> bool {
        let has_place = turns.queue().enter(&self.allowance.user, self.connection, wakes());
        self.at = if has_place { At::Place } else { At::Waiting };
        has_place
    }
}

#[cfg(test)]
mod tests;
