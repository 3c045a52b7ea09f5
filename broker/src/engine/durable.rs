//! What survives a restart, from records and to records.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::{QueueKey, Target};
use super::queue::{Entry, NEVER};
use super::{BindingSpec, Destination, Engine};
use crate::ids::ConnectionId;
use crate::journal::Record;
use crate::message::Message;
use crate::outlet::{Outlet, Output};

/// Says nothing to anybody.
struct Silent;

impl Outlet for Silent {
    fn send(&mut self, _: ConnectionId, _: Output) {}
    fn record(&mut self, _: Record) {}
    fn send_when_durable(&mut self, _: ConnectionId, _: Output) {}
}

impl Engine {
    /// Takes a record of before the restart. All of them, in order, before anything else.
    ///
    /// A record about what is not there is passed over. Messages come back as redelivered: nobody knows any more whether
    /// they were delivered. Bounds do not hold here, so that nothing is lost that was confirmed; they hold again for what
    /// comes afterwards.
    pub fn replay(&mut self, record: Record) {
        self.replaying = true;
        self.replay_one(record);
        self.replaying = false;
    }

    fn replay_one(&mut self, record: Record) {
        match record {
            Record::ExchangeDeclared(spec) => {
                if !self.exchange_names.contains_key(&spec.name) {
                    self.add_exchange((*spec).clone(), false);
                }
            }
            Record::ExchangeDeleted { name } => self.replay_exchange_deleted(&name),
            Record::QueueDeclared(spec) => {
                if !self.queue_names.contains_key(&spec.name) {
                    let owner = (self.owner_of)(&spec.name);
                    let account = owner.map(|(user, share)| self.account_of(&user, share));
                    self.add_queue((*spec).clone(), None, account, None);
                }
            }
            Record::QueueDeleted { name } => {
                if let Some(&key) = self.queue_names.get(&name) {
                    self.remove_queue(key, &mut Silent);
                }
            }
            Record::Bound(spec) => self.replay_bound(&spec, true),
            Record::Unbound(spec) => self.replay_bound(&spec, false),
            Record::Enqueued { message, expires_ms, content, queues } => {
                self.replay_enqueued(message, expires_ms, &content, &queues);
            }
            Record::Removed { message, queue } => self.replay_removed(message, &queue),
        }
    }

    /// The durable state as the fewest records, for a journal that starts anew.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut exchanges: Vec<_> = self.exchanges.iter().filter(|(_, exchange)| exchange.spec.durable).collect();
        exchanges.sort_unstable_by_key(|(key, _)| *key);
        let mut queues: Vec<_> = self.queues.iter().filter(|(_, queue)| queue.journaled).collect();
        queues.sort_unstable_by_key(|(key, _)| *key);
        for (_, exchange) in exchanges.iter().filter(|(_, exchange)| !exchange.given) {
            records.push(Record::ExchangeDeclared(exchange.spec.clone()));
        }
        for (_, queue) in &queues {
            records.push(Record::QueueDeclared(queue.spec.clone()));
        }
        for &(key, exchange) in &exchanges {
            let destination = Destination::Exchange(exchange.spec.name.clone());
            self.snapshot_bindings(Target::Exchange(key), &destination, &mut records);
        }
        for (key, queue) in &queues {
            let destination = Destination::Queue(queue.spec.name.clone());
            self.snapshot_bindings(Target::Queue(*key), &destination, &mut records);
        }
        self.snapshot_messages(&mut records);
        records
    }

    fn snapshot_bindings(&self, target: Target, destination: &Destination, records: &mut Vec<Record>) {
        let bindings = match target {
            Target::Queue(queue) => self.queues.get(queue).map(|queue| &queue.bindings),
            Target::Exchange(exchange) => self.exchanges.get(exchange).map(|exchange| &exchange.incoming),
        };
        for ((source, key), bound) in bindings.into_iter().flatten() {
            let Some(exchange) = self.exchanges.get(*source).filter(|_| self.is_journaled(*source, target)) else {
                continue;
            };
            for arguments in bound.arguments() {
                records.push(Record::Bound(Arc::new(BindingSpec {
                    source: exchange.spec.name.clone(),
                    destination: destination.clone(),
                    key: key.clone(),
                    arguments,
                })));
            }
        }
    }

    /// Messages in the order of their numbers, which is that of each queue.
    fn snapshot_messages(&self, records: &mut Vec<Record>) {
        type Held<'a> = BTreeMap<(u64, i64), (Option<&'a Arc<Message>>, Vec<Arc<str>>)>;
        let mut held: Held<'_> = BTreeMap::new();
        let mut hold = |queue: QueueKey, entry: &Entry| {
            let Some(queue) = self.queues.get(queue).filter(|queue| queue.journaled) else { return };
            let Some(number) = self.store.journaled(entry.stored) else { return };
            let (content, names) = held.entry((number, entry.expires_ms)).or_default();
            *content = self.store.message(entry.stored);
            names.push(queue.spec.name.clone());
        };
        for (key, queue) in &self.queues {
            queue.ready.iter().for_each(|entry| hold(key, entry));
        }
        for channel in self.channels.values() {
            channel.unacked.iter().for_each(|delivery| hold(delivery.queue, &delivery.entry));
        }
        for ((message, expires_ms), (content, mut queues)) in held {
            let Some(content) = content.cloned() else { continue };
            queues.sort_unstable();
            let expires_ms = (expires_ms != NEVER).then_some(expires_ms);
            records.push(Record::Enqueued { message, expires_ms, content, queues });
        }
    }

    fn replay_exchange_deleted(&mut self, name: &str) {
        let Some(&key) = self.exchange_names.get(name) else { return };
        if self.exchanges.get(key).is_some_and(|exchange| exchange.given) {
            // The site has it again, without the bindings of before.
            self.unbind_all_to(Target::Exchange(key));
            self.unbind_all_from(key);
            return;
        }
        self.remove_exchanges(vec![key], &mut Silent);
    }

    fn replay_bound(&mut self, spec: &BindingSpec, bound: bool) {
        let Some(&source) = self.exchange_names.get(&spec.source) else { return };
        let target = match &spec.destination {
            Destination::Queue(name) => self.queue_names.get(name).map(|&queue| Target::Queue(queue)),
            Destination::Exchange(name) => self.exchange_names.get(name).map(|&exchange| Target::Exchange(exchange)),
        };
        let Some(target) = target else { return };
        if bound {
            let limit = std::mem::replace(&mut self.limits.bindings_max, usize::MAX);
            // Without a limit there is nothing to refuse.
            let _done = self.bound(source, target, spec);
            self.limits.bindings_max = limit;
        } else {
            self.unbound(source, target, spec);
        }
    }

    fn replay_enqueued(&mut self, number: u64, expires_ms: Option<i64>, content: &Arc<Message>, queues: &[Arc<str>]) {
        let known = self.replayed.get(&number).copied().filter(|&stored| self.store.message(stored).is_some());
        let stored = match known {
            Some(stored) => stored,
            None => self.store.insert(content.clone()),
        };
        if known.is_none() {
            self.store.set_number(stored, number);
            self.replayed.insert(number, stored);
        }
        for name in queues {
            let Some(&key) = self.queue_names.get(name) else { continue };
            let Some(queue) = self.queues.get_mut(key) else { continue };
            let mut entry = queue.entry(stored, content, 0);
            entry.expires_ms = expires_ms.unwrap_or(NEVER);
            entry.redelivered = true;
            queue.push(entry);
            self.store.hold(stored);
            self.schedule(key);
        }
        if known.is_none() {
            self.store.release(stored);
        }
    }

    fn replay_removed(&mut self, number: u64, queue: &str) {
        let Some(&stored) = self.replayed.get(&number) else { return };
        let Some(queue) = self.queue_names.get(queue).and_then(|&key| self.queues.get_mut(key)) else { return };
        if let Some(entry) = queue.take(stored) {
            self.store.release(entry.stored);
        }
    }
}
