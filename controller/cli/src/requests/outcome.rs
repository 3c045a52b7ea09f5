//! What came of a request on its hosts, as far as it was seen from here.
//!
//! Kept beside the request, for `muster pending list`: whoever has sent a pending command wants to see whether there is
//! anything left to do with it. What is known of a host stays until something newer is known; that a host had the
//! request before is no news of it.

use std::collections::BTreeMap;

use muster_protocol::code::{NEEDS_APPROVAL, REPLAYED, UNKNOWN_REQUEST};
use muster_protocol::limits::TARGET_HOSTS_MAX;
use muster_protocol::{HostName, TaskState};

use crate::outcome::Row;
use crate::output::{fold, number};

/// A host that wants more signatures: nothing has begun there, and the same command may be sent again.
pub(crate) const NEEDS_APPROVAL_WORD: &str = "needs_approval";

/// Hosts by the word of how it ended there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome(BTreeMap<HostName, String>);

impl Outcome {
    /// What rows say of their hosts.
    pub(crate) fn of(rows: &[Row]) -> Self {
        Self(rows.iter().filter_map(|row| Some((row.host.clone(), word(row)?.to_owned()))).collect())
    }

    /// What is newer wins, host by host.
    pub(crate) fn learn(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every host of which something is known wants more signatures.
    pub(crate) fn only_needs_approval(&self) -> bool {
        !self.is_empty() && self.0.values().all(|word| word == NEEDS_APPROVAL_WORD)
    }

    /// How many hosts there are for each word.
    pub(crate) fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for word in self.0.values() {
            *counts.entry(word.as_str()).or_insert(0) += 1;
        }
        counts
    }

    /// `2 succeeded, 1 refused`: in the order of a summary.
    pub(crate) fn text(&self) -> String {
        let counts = self.counts();
        let states = TaskState::ALL.into_iter().map(|state| (state.word(), state.label()));
        let words: Vec<String> = [TaskState::Succeeded]
            .into_iter()
            .map(|state| (state.word(), state.label()))
            .chain(states.filter(|(word, _)| *word != TaskState::Succeeded.word()))
            .chain([(NEEDS_APPROVAL_WORD, "want more signatures")])
            .filter_map(|(word, label)| Some(format!("{} {label}", number::count(*counts.get(word)?))))
            .collect();
        words.join(", ")
    }

    /// For the file: hosts in folded ranges.
    pub(super) fn folded(&self) -> BTreeMap<String, String> {
        let mut hosts: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (host, word) in &self.0 {
            hosts.entry(word).or_default().push(host.as_str());
        }
        hosts.into_iter().map(|(word, hosts)| (word.clone(), fold::fold(hosts).join(","))).collect()
    }

    /// From the file. What is not understood is left out.
    pub(super) fn unfolded(folded: &BTreeMap<String, String>) -> Self {
        let mut outcome = Self::default();
        for (word, hosts) in folded {
            let names = fold::expand(hosts, TARGET_HOSTS_MAX).unwrap_or_default();
            let names = names.into_iter().filter_map(|name| HostName::new(name).ok());
            outcome.0.extend(names.map(|host| (host, word.clone())));
        }
        outcome
    }
}

/// What a row says of its request; nothing where the host only says that it had it before, or knows nothing of it.
fn word(row: &Row) -> Option<&'static str> {
    match row.result.as_ref().map(|result| (result.code.as_str(), &result.data)) {
        Some((code, data)) if code == REPLAYED.code => was_refused(data).then_some(TaskState::Refused.word()),
        Some((code, _)) if code == UNKNOWN_REQUEST.code => None,
        Some((code, _)) if code == NEEDS_APPROVAL.code => Some(NEEDS_APPROVAL_WORD),
        _ => Some(row.state.word()),
    }
}

/// Whether a host that had the request before says that it has refused it.
pub(crate) fn was_refused(data: &serde_json::Value) -> bool {
    data["before"] == "refused"
}
