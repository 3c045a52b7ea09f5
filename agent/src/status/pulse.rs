//! What the running parts leave behind for whoever looks: cheap notes, each a statement.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use muster_protocol::{Code, Identity, RequestId, Timestamp};

use super::{LastError, Phase};
use crate::core::lock;

/// How often the agent's thread notes that it took a turn.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// The notes.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// Milliseconds since `began` at the last turn.
    beat_ms: AtomicU64,
    /// The message that is being decided on, of which there is one at a time.
    pub(crate) at_hand: Mutex<Option<AtHand>>,
    /// How connecting goes.
    pub(crate) trouble: Mutex<Trouble>,
    /// When the policy in force was read.
    pub(crate) policy_loaded_at: Mutex<Timestamp>,
    /// Refusals by code. Codes are few.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// A message that is being decided on.
#[derive(Debug, Clone)]
pub(crate) struct AtHand {
    pub(crate) id: RequestId,
    pub(crate) caller: Identity,
    pub(crate) action: String,
    pub(crate) phase: Phase,
    pub(crate) since: Timestamp,
}

/// How connecting goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    /// Since when there is no connection.
    pub(crate) since: Option<Timestamp>,
    /// Tries since then.
    pub(crate) tries: u64,
    /// When the next try is due.
    pub(crate) next_try: Option<Timestamp>,
    /// The last failure.
    pub(crate) last: Option<LastError>,
}

impl Pulse {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            began: Instant::now(),
            beat_ms: AtomicU64::new(0),
            at_hand: Mutex::default(),
            trouble: Mutex::default(),
            policy_loaded_at: Mutex::new(now),
            refused: Mutex::default(),
        }
    }

    /// The agent's thread takes a turn.
    pub(crate) fn beat(&self) {
        self.beat_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// How long ago it did.
    pub(crate) fn stalled_ms(&self) -> u64 {
        self.elapsed_ms().saturating_sub(self.beat_ms.load(Ordering::Relaxed))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn count_refusal(&self, code: &'static Code) {
        *lock(&self.refused).entry(code.code).or_default() += 1;
    }

    pub(crate) fn refused(&self) -> BTreeMap<String, u64> {
        lock(&self.refused).iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
    }

    /// Notes which message is at hand, until the value that is returned goes.
    pub(crate) fn take_up(&self, at_hand: AtHand) -> PutDown<'_> {
        *lock(&self.at_hand) = Some(at_hand);
        PutDown(self)
    }

    pub(crate) fn phase(&self, phase: Phase) {
        if let Some(at_hand) = &mut *lock(&self.at_hand) {
            at_hand.phase = phase;
        }
    }

    pub(crate) fn failed(&self, why: &str, now: Timestamp, next_try: Timestamp) {
        let mut trouble = lock(&self.trouble);
        trouble.since.get_or_insert(now);
        trouble.tries += 1;
        trouble.next_try = Some(next_try);
        trouble.last = Some(LastError { at_ms: now, why: why.to_owned() });
    }

    pub(crate) fn tries(&self) {
        lock(&self.trouble).next_try = None;
    }

    pub(crate) fn connected(&self) {
        let mut trouble = lock(&self.trouble);
        *trouble = Trouble { last: trouble.last.take(), ..Trouble::default() };
    }
}

/// No message is at hand any more.
pub(crate) struct PutDown<'a>(&'a Pulse);

impl Drop for PutDown<'_> {
    fn drop(&mut self) {
        *lock(&self.0.at_hand) = None;
    }
}
