//! What is durable now, where on the disk it is, and what of it is still to be written.
//!
//! The journal writes states, not events: a message that was taken and acknowledged before its turn to be written is
//! written never, and after a failed write the same things are still to be written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::codec::{self, Entry, Malformed, Writer};
use super::record::Record;
use super::segment::Frames;
use crate::engine::{BindingSpec, Destination};
use crate::message::Message;

/// Where something was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From the engine: it is to be written.
    Engine,
    /// From this place on the disk.
    Disk(Place),
}

/// The bytes that name a binding, and are it: [`codec::Writer::binding`].
type BindingKey = Arc<[u8]>;

/// A message as far as it expires at one time: the same message may be in queues that drop it at different times.
type MessageKey = (u64, Option<i64>);

/// One thing that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Exchange(Arc<str>),
    Queue(Arc<str>),
    Binding(BindingKey),
    Message(MessageKey),
}

#[derive(Debug, Default)]
struct Queue {
    /// `None` as long as only messages or bindings speak of it, as they may before its own record was read.
    record: Option<Box<[u8]>>,
    place: Option<Place>,
    messages: BTreeSet<u64>,
}

#[derive(Debug)]
struct Exchange {
    record: Box<[u8]>,
    place: Option<Place>,
}

#[derive(Debug)]
struct Kept {
    content: Arc<Message>,
    /// In the order of their names, without doubles.
    queues: Box<[Arc<str>]>,
    /// One bit for each that it has left.
    left: Box<[u64]>,
    count: usize,
    place: Option<Place>,
}

impl Kept {
    fn is_in(&self, index: usize) -> bool {
        self.left[index / 64] >> (index % 64) & 1 == 0
    }

    /// Leaves a queue; gives its name if it was there.
    fn leave(&mut self, queue: &str) -> Option<Arc<str>> {
        let index = self.queues.binary_search_by(|name| (**name).cmp(queue)).ok()?;
        let was_in = self.is_in(index);
        self.left[index / 64] |= 1 << (index % 64);
        self.count -= usize::from(was_in);
        was_in.then(|| self.queues[index].clone())
    }

    fn queues(&self) -> impl Iterator<Item = &Arc<str>> {
        self.queues.iter().enumerate().filter(|(index, _)| self.is_in(*index)).map(|(_, queue)| queue)
    }
}

/// What the next group has to say. What is live and not named here is on the disk as it is.
#[derive(Debug, Default)]
struct Unwritten {
    /// To be written, or to be moved.
    live: BTreeSet<Key>,
    /// On the disk, and gone since.
    gone: BTreeSet<Key>,
    /// Messages on the disk that have left a queue since.
    removals: Vec<(u64, Arc<str>)>,
}

/// The durable state.
#[derive(Debug, Default)]
pub(super) struct State {
    exchanges: BTreeMap<Arc<str>, Exchange>,
    queues: HashMap<Arc<str>, Queue>,
    bindings: BTreeMap<BindingKey, Option<Place>>,
    messages: BTreeMap<MessageKey, Kept>,
    unwritten: Unwritten,
    /// Bytes of what is live, by segment.
    live: BTreeMap<u64, u64>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) exchanges: usize,
    pub(super) queues: usize,
    pub(super) bindings: usize,
    pub(super) messages: usize,
}

/// What was left out after everything had been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Orphans {
    pub(super) messages: u64,
    pub(super) bindings: u64,
}

impl State {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            exchanges: self.exchanges.len(),
            queues: self.queues.len(),
            bindings: self.bindings.len(),
            messages: self.messages.len(),
        }
    }

    /// Bytes on the disk that are of use.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live.values().sum()
    }

    /// The oldest segment that has something of use.
    pub(super) fn oldest_live(&self) -> Option<u64> {
        self.live.keys().next().copied()
    }

    pub(super) fn has_unwritten(&self) -> bool {
        let Unwritten { live, gone, removals } = &self.unwritten;
        !(live.is_empty() && gone.is_empty() && removals.is_empty())
    }

    fn gained(live: &mut BTreeMap<u64, u64>, place: Option<Place>) {
        if let Some(place) = place {
            *live.entry(place.segment).or_default() += place.bytes;
        }
    }

    fn lost(live: &mut BTreeMap<u64, u64>, place: Option<Place>) {
        let Some(place) = place else { return };
        if let Some(bytes) = live.get_mut(&place.segment) {
            *bytes = bytes.saturating_sub(place.bytes);
            if *bytes == 0 {
                live.remove(&place.segment);
            }
        }
    }

    /// Something is there, from now on or anew.
    fn appeared(&mut self, key: Key, source: Source, before: Option<Place>) -> Option<Place> {
        match source {
            Source::Engine => {
                self.unwritten.live.insert(key);
                before
            }
            Source::Disk(place) => {
                Self::lost(&mut self.live, before);
                Self::gained(&mut self.live, Some(place));
                Some(place)
            }
        }
    }

    /// Something is gone.
    fn vanished(&mut self, key: Key, source: Source, place: Option<Place>) {
        self.unwritten.live.remove(&key);
        Self::lost(&mut self.live, place);
        if source == Source::Engine && place.is_some() {
            self.unwritten.gone.insert(key);
        }
    }

    /// Takes a change.
    pub(super) fn apply(&mut self, record: &Record, source: Source) {
        match record {
            Record::ExchangeDeclared(spec) => {
                let before = self.exchanges.get(&spec.name).and_then(|exchange| exchange.place);
                let place = self.appeared(Key::Exchange(spec.name.clone()), source, before);
                let record = codec::encode(record).into();
                self.exchanges.insert(spec.name.clone(), Exchange { record, place });
            }
            Record::ExchangeDeleted { name } => self.delete_exchange(name, source),
            Record::QueueDeclared(spec) => {
                let before = self.queues.get(&spec.name).and_then(|queue| queue.place);
                let place = self.appeared(Key::Queue(spec.name.clone()), source, before);
                let queue = self.queues.entry(spec.name.clone()).or_default();
                queue.record = Some(codec::encode(record).into());
                queue.place = place;
            }
            Record::QueueDeleted { name } => self.delete_queue(name, source),
            Record::Bound(spec) => {
                let key = binding_key(spec);
                let before = self.bindings.get(&key).copied();
                // Bound twice is bound once, also on the disk.
                if before.is_none() || source != Source::Engine {
                    let place = self.appeared(Key::Binding(key.clone()), source, before.flatten());
                    self.bindings.insert(key, place);
                }
            }
            Record::Unbound(spec) => {
                let key = binding_key(spec);
                if let Some(place) = self.bindings.remove(&key) {
                    self.vanished(Key::Binding(key), source, place);
                }
            }
            Record::Enqueued { message, expires_ms, content, queues } => {
                // As it will be read: no time before 1970 is written.
                let key = (*message, expires_ms.map(|at| at.max(0)));
                self.enqueue(key, content, queues, source);
            }
            Record::Removed { message, queue } => self.remove(*message, queue, source),
        }
    }

    fn enqueue(&mut self, key: MessageKey, content: &Arc<Message>, queues: &[Arc<str>], source: Source) {
        let mut names: Vec<Arc<str>> = Vec::with_capacity(queues.len());
        for queue in queues {
            match self.queues.get_key_value(queue) {
                // One copy of each name.
                Some((name, _)) => names.push(name.clone()),
                None if source == Source::Engine => {
                    let message = key.0;
                    tracing::error!(%queue, message, "A message is to be kept for a queue that the journal does not know");
                }
                None => {
                    self.queues.insert(queue.clone(), Queue::default());
                    names.push(queue.clone());
                }
            }
        }
        if names.is_empty() {
            return;
        }
        let before = self.messages.remove(&key);
        let still_in = before.iter().flat_map(Kept::queues).cloned();
        match source {
            Source::Engine => names.extend(still_in),
            // Written anew, it says where it is now.
            Source::Disk(_) => still_in.for_each(|name| self.leave_queue(&name, key.0)),
        }
        names.sort_unstable();
        names.dedup();
        if source != Source::Engine {
            // A message is in a queue once. We write no journal that says otherwise; of one that does, the last word counts.
            for name in &names {
                if self.queues.get(name).is_some_and(|queue| queue.messages.contains(&key.0)) {
                    self.take_out(key.0, name);
                }
            }
        }
        for name in &names {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.messages.insert(key.0);
            }
        }
        let place = self.appeared(Key::Message(key), source, before.and_then(|kept| kept.place));
        let (left, count) = (vec![0; names.len().div_ceil(64)].into(), names.len());
        self.messages.insert(key, Kept { content: content.clone(), queues: names.into(), left, count, place });
    }

    fn leave_queue(&mut self, queue: &str, message: u64) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.messages.remove(&message);
        }
    }

    /// Takes a message out of a queue. What is given is its place on the disk.
    fn take_out(&mut self, message: u64, queue: &str) -> Option<(Arc<str>, Option<Place>)> {
        let all = (message, None)..=(message, Some(i64::MAX));
        let (key, kept, name) = self
            .messages
            .range_mut(all)
            .find_map(|(key, kept)| Some((*key, kept.leave(queue)?)).map(|(key, name)| (key, kept, name)))?;
        let place = kept.place;
        if kept.count == 0 {
            // The disk learns it from what took it out of the last queue.
            self.messages.remove(&key);
            self.unwritten.live.remove(&Key::Message(key));
            Self::lost(&mut self.live, place);
        }
        Some((name, place))
    }

    fn remove(&mut self, message: u64, queue: &str, source: Source) {
        let Some((name, place)) = self.take_out(message, queue) else { return };
        self.leave_queue(&name, message);
        if source == Source::Engine && place.is_some() {
            self.unwritten.removals.push((message, name));
        }
    }

    fn delete_queue(&mut self, name: &Arc<str>, source: Source) {
        let Some(queue) = self.queues.remove(name) else { return };
        for message in queue.messages {
            self.take_out(message, name);
        }
        let bindings = self.bindings_to(&Destination::Queue(name.clone()));
        self.forget_bindings(bindings);
        self.vanished(Key::Queue(name.clone()), source, queue.place);
    }

    /// An exchange of the configuration has no record of its own, but bindings.
    fn delete_exchange(&mut self, name: &Arc<str>, source: Source) {
        let mut bindings = self.bindings_to(&Destination::Exchange(name.clone()));
        let from =
            self.bindings.keys().filter(|key| codec::binding_source(key).is_some_and(|source| source == &**name));
        bindings.extend(from.cloned());
        let had_bindings_on_disk = self.forget_bindings(bindings);
        let place = self.exchanges.remove(name).and_then(|exchange| exchange.place);
        self.vanished(Key::Exchange(name.clone()), source, place);
        if source == Source::Engine && had_bindings_on_disk {
            self.unwritten.gone.insert(Key::Exchange(name.clone()));
        }
    }

    fn bindings_to(&self, destination: &Destination) -> Vec<BindingKey> {
        let mut prefix = Vec::new();
        Writer(&mut prefix).destination(destination);
        let range = (Bound::Included(prefix.as_slice()), Bound::Unbounded);
        let keys = self.bindings.range::<[u8], _>(range).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(&prefix)).cloned().collect()
    }

    /// Forgets bindings whose queue or exchange goes, which is all that the disk has to know. Whether it has any of them.
    fn forget_bindings(&mut self, bindings: Vec<BindingKey>) -> bool {
        let mut on_disk = false;
        for key in bindings {
            let place = self.bindings.remove(&key).flatten();
            Self::lost(&mut self.live, place);
            self.unwritten.live.remove(&Key::Binding(key));
            on_disk |= place.is_some();
        }
        on_disk
    }

    /// Leaves out what has expired, as if it had been removed now; gives how many that were.
    pub(super) fn expire(&mut self, now_ms: i64) -> u64 {
        let is_over = |key: &MessageKey| key.1.is_some_and(|at| at <= now_ms);
        let expired: Vec<(u64, Arc<str>)> = self
            .messages
            .iter()
            .filter(|(key, _)| is_over(key))
            .flat_map(|(key, kept)| kept.queues().map(|queue| (key.0, queue.clone())))
            .collect();
        let before = self.messages.len();
        expired.iter().for_each(|(message, queue)| self.remove(*message, queue, Source::Engine));
        (before - self.messages.len()) as u64
    }

    /// Leaves out, after everything has been read, what belongs to queues whose own record was lost.
    pub(super) fn leave_out_orphans(&mut self) -> Orphans {
        let unknown: Vec<Arc<str>> =
            self.queues.iter().filter(|(_, queue)| queue.record.is_none()).map(|(name, _)| name.clone()).collect();
        let mut orphans = Orphans::default();
        for name in &unknown {
            let messages = self.queues.get(name).map(|queue| queue.messages.clone()).unwrap_or_default();
            orphans.messages += messages.len() as u64;
            messages.into_iter().for_each(|message| self.remove(message, name, Source::Engine));
            self.queues.remove(name);
        }
        let without_queue: Vec<BindingKey> = self
            .bindings
            .keys()
            .filter(|key| codec::binding_queue(key).is_some_and(|queue| !self.queues.contains_key(queue)))
            .cloned()
            .collect();
        orphans.bindings = without_queue.len() as u64;
        for key in without_queue {
            let place = self.bindings.remove(&key).flatten();
            self.vanished(Key::Binding(key), Source::Engine, place);
        }
        orphans
    }

    /// The durable state as the fewest records: exchanges, queues, bindings, messages in the order of their numbers.
    ///
    /// # Errors
    /// What was kept as bytes cannot be read, which reading it has shown before.
    pub(super) fn records(&self) -> Result<Vec<Record>, Malformed> {
        let declared = |record: &[u8]| match codec::decode(record)? {
            Entry::Record(record) => Ok(record),
            Entry::Commit(_) => Err(Malformed("it is no declaration")),
        };
        let mut records = Vec::with_capacity(self.queues.len() + self.bindings.len() + self.messages.len());
        for exchange in self.exchanges.values() {
            records.push(declared(&exchange.record)?);
        }
        let queues: BTreeMap<_, _> = self.queues.iter().collect();
        for record in queues.values().filter_map(|queue| queue.record.as_ref()) {
            records.push(declared(record)?);
        }
        for binding in self.bindings.keys() {
            records.push(Record::Bound(Arc::new(codec::decode_binding(binding)?)));
        }
        for ((message, expires_ms), kept) in &self.messages {
            records.push(Record::Enqueued {
                message: *message,
                expires_ms: *expires_ms,
                content: kept.content.clone(),
                queues: kept.queues().cloned().collect(),
            });
        }
        Ok(records)
    }

    /// What lies in a segment, to be moved out of it.
    pub(super) fn in_segment(&self, segment: u64) -> Vec<Key> {
        let is_there = |place: &Option<Place>| place.is_some_and(|place| place.segment == segment);
        let exchanges =
            self.exchanges.iter().filter(|(_, it)| is_there(&it.place)).map(|(it, _)| Key::Exchange(it.clone()));
        let queues = self.queues.iter().filter(|(_, it)| is_there(&it.place)).map(|(it, _)| Key::Queue(it.clone()));
        let bindings = self.bindings.iter().filter(|(_, it)| is_there(it)).map(|(it, _)| Key::Binding(it.clone()));
        let messages = self.messages.iter().filter(|(_, it)| is_there(&it.place)).map(|(it, _)| Key::Message(*it));
        exchanges.chain(queues).chain(bindings).chain(messages).collect()
    }

    /// Has something written again, if it is still where it was; gives its bytes.
    pub(super) fn rewrite(&mut self, key: Key, segment: u64) -> u64 {
        let place = match &key {
            Key::Exchange(name) => self.exchanges.get(name).and_then(|it| it.place),
            Key::Queue(name) => self.queues.get(name).and_then(|it| it.place),
            Key::Binding(binding) => self.bindings.get(binding).copied().flatten(),
            Key::Message(message) => self.messages.get(message).and_then(|it| it.place),
        };
        let Some(place) = place.filter(|place| place.segment == segment) else { return 0 };
        self.unwritten.live.insert(key);
        place.bytes
    }

    /// Writes what is unwritten. It stays unwritten until [`written`](Self::written) says that it is on the disk.
    pub(super) fn write(&self, frames: &mut Frames<'_>) -> Vec<(Key, u64)> {
        let mut written = Vec::with_capacity(self.unwritten.live.len());
        for key in &self.unwritten.gone {
            match key {
                Key::Exchange(name) => frames.push(|bytes| Writer(bytes).exchange_deleted(name)),
                Key::Queue(name) => frames.push(|bytes| Writer(bytes).queue_deleted(name)),
                Key::Binding(binding) => frames.push(|bytes| Writer(bytes).unbound(binding)),
                // Its removals say it.
                Key::Message(_) => continue,
            };
        }
        // In the order of the keys: exchanges, queues, bindings, messages.
        for key in &self.unwritten.live {
            let length = match key {
                Key::Exchange(name) => self
                    .exchanges
                    .get(name)
                    .map(|exchange| frames.push(|bytes| bytes.extend_from_slice(&exchange.record))),
                Key::Queue(name) => self
                    .queues
                    .get(name)
                    .and_then(|queue| queue.record.as_ref())
                    .map(|record| frames.push(|bytes| bytes.extend_from_slice(record))),
                Key::Binding(binding) => {
                    self.bindings.contains_key(binding).then(|| frames.push(|bytes| Writer(bytes).bound(binding)))
                }
                Key::Message(message) => self.messages.get(message).map(|kept| {
                    let queues: Vec<&str> = kept.queues().map(|queue| &**queue).collect();
                    frames.push(|bytes| {
                        Writer(bytes).enqueued(message.0, message.1, &kept.content, queues.into_iter());
                    })
                }),
            };
            if let Some(length) = length {
                written.push((key.clone(), length));
            }
        }
        for (message, queue) in &self.unwritten.removals {
            frames.push(|bytes| Writer(bytes).removed(*message, queue));
        }
        written
    }

    /// What [`write`](Self::write) gave is on the disk now, in this segment. Nothing was applied in between.
    pub(super) fn written(&mut self, written: Vec<(Key, u64)>, segment: u64) {
        self.unwritten = Unwritten::default();
        for (key, bytes) in written {
            let place = match &key {
                Key::Exchange(name) => self.exchanges.get_mut(name).map(|it| &mut it.place),
                Key::Queue(name) => self.queues.get_mut(name).map(|it| &mut it.place),
                Key::Binding(binding) => self.bindings.get_mut(binding),
                Key::Message(message) => self.messages.get_mut(message).map(|it| &mut it.place),
            };
            if let Some(place) = place {
                let before = place.replace(Place { segment, bytes });
                Self::lost(&mut self.live, before);
                Self::gained(&mut self.live, Some(Place { segment, bytes }));
            }
        }
    }
}

fn binding_key(spec: &BindingSpec) -> BindingKey {
    let mut bytes = Vec::new();
    Writer(&mut bytes).binding(spec);
    bytes.into()
}
