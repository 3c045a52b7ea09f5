//! An exchange, and what its bindings say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use amq_protocol::types::FieldTable;

use super::keys::{ExchangeKey, Target};
use super::specs::{ExchangeKind, ExchangeSpec};
use super::topic::Tree;

/// An exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) spec: Arc<ExchangeSpec>,
    /// Was there from the beginning: AMQP's own, or the site's. Not in the journal.
    pub(super) given: bool,
    pub(super) table: Table,
    /// Bindings that begin here.
    pub(super) outgoing: usize,
    /// Those of them that lead to another exchange.
    pub(super) to_exchanges: usize,
    /// Bindings that end here.
    pub(super) incoming: Bindings,
    /// The last walk that came by.
    pub(super) mark: u64,
}

impl Exchange {
    pub(super) fn new(spec: ExchangeSpec, given: bool) -> Self {
        let table = Table::new(spec.kind);
        let spec = Arc::new(spec);
        Self { spec, given, table, outgoing: 0, to_exchanges: 0, incoming: Bindings::new(), mark: 0 }
    }

    /// Empties the table: all targets, each once, sorted.
    pub(super) fn take_targets(&mut self) -> Vec<Target> {
        std::mem::replace(&mut self.table, Table::new(self.spec.kind)).targets()
    }
}

/// The bindings that end at a queue or an exchange, by where they begin and their key.
pub(super) type Bindings = BTreeMap<(ExchangeKey, Arc<str>), Bound>;

/// The bindings with one beginning, key and end. They differ in their arguments.
#[derive(Debug)]
pub(super) struct Bound {
    /// Where the end is in the list of its key, in the table of the exchange.
    pub(super) place: usize,
    /// Whether one of them has no arguments.
    pub(super) plain: bool,
    /// Those with arguments, by the arguments' text.
    pub(super) others: BTreeMap<String, FieldTable>,
}

impl Bound {
    /// How many bindings these are.
    pub(super) fn count(&self) -> usize {
        usize::from(self.plain) + self.others.len()
    }

    /// Whether there is one with these arguments.
    pub(super) fn has(&self, arguments: &FieldTable) -> bool {
        if is_plain(arguments) { self.plain } else { self.others.contains_key(&text_of(arguments)) }
    }

    /// Adds the one with these arguments.
    pub(super) fn add(&mut self, arguments: &FieldTable) {
        if is_plain(arguments) {
            self.plain = true;
        } else {
            self.others.insert(text_of(arguments), arguments.clone());
        }
    }

    /// Takes the one with these arguments away: whether it was there.
    pub(super) fn take(&mut self, arguments: &FieldTable) -> bool {
        if is_plain(arguments) {
            std::mem::take(&mut self.plain)
        } else {
            self.others.remove(&text_of(arguments)).is_some()
        }
    }

    /// The arguments of each.
    pub(super) fn arguments(&self) -> impl Iterator<Item = FieldTable> + '_ {
        self.plain.then(FieldTable::default).into_iter().chain(self.others.values().cloned())
    }
}

fn is_plain(arguments: &FieldTable) -> bool {
    arguments.inner().is_empty()
}

/// A text that is the same for the same arguments, since a table is sorted by its keys.
fn text_of(arguments: &FieldTable) -> String {
    format!("{arguments:?}")
}

/// From keys to what they lead to. Each list has each target once.
#[derive(Debug)]
pub(super) enum Table {
    Direct(HashMap<Arc<str>, Vec<Target>>),
    /// In the order of keys, since all of them are gone through.
    Fanout(BTreeMap<Arc<str>, Vec<Target>>),
    Topic(Box<Tree>),
}

impl Table {
    fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(HashMap::new()),
            ExchangeKind::Fanout => Self::Fanout(BTreeMap::new()),
            ExchangeKind::Topic => Self::Topic(Box::default()),
        }
    }

    /// Adds a target that the list of this key does not have: where it is in the list.
    pub(super) fn add(&mut self, key: &Arc<str>, target: Target) -> usize {
        let list = match self {
            Self::Direct(keys) => Some(keys.entry(key.clone()).or_default()),
            Self::Fanout(keys) => Some(keys.entry(key.clone()).or_default()),
            Self::Topic(tree) => tree.list(key),
        };
        let Some(list) = list else { return 0 };
        list.push(target);
        list.len() - 1
    }

    /// Takes the target at a place of a key's list away. The last one of the list is there now, and is given.
    pub(super) fn remove(&mut self, key: &str, place: usize) -> Option<Target> {
        let list = match self {
            Self::Direct(keys) => keys.get_mut(key),
            Self::Fanout(keys) => keys.get_mut(key),
            Self::Topic(tree) => tree.existing(key),
        }?;
        if place < list.len() {
            list.swap_remove(place);
        }
        let moved = list.get(place).copied();
        if list.is_empty() {
            match self {
                Self::Direct(keys) => drop(keys.remove(key)),
                Self::Fanout(keys) => drop(keys.remove(key)),
                Self::Topic(tree) => tree.prune(key),
            }
        }
        moved
    }

    /// Appends what a routing key leads to; says from how many lists it is, so whether something may be there twice.
    pub(super) fn matching(&mut self, key: &str, found: &mut Vec<Target>) -> usize {
        match self {
            Self::Direct(keys) => {
                let Some(list) = keys.get(key) else { return 0 };
                found.extend_from_slice(list);
                1
            }
            Self::Fanout(keys) => {
                keys.values().for_each(|list| found.extend_from_slice(list));
                keys.len()
            }
            Self::Topic(tree) => tree.matching(key, found),
        }
    }

    /// All targets, each once, sorted.
    pub(super) fn targets(&self) -> Vec<Target> {
        let mut targets: Vec<Target> = match self {
            Self::Direct(keys) => keys.values().flatten().copied().collect(),
            Self::Fanout(keys) => keys.values().flatten().copied().collect(),
            Self::Topic(tree) => tree.targets().collect(),
        };
        targets.sort_unstable();
        targets.dedup();
        targets
    }
}
