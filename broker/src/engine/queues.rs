//! Queues come and go.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};

use super::accounts::Account;
use super::keys::{QueueKey, Target};
use super::queue::{Bounds, Queue};
use super::refusals::{inequivalent, limit, reserved};
use super::{Declared, Engine, Overflow, QueueCount, QueueLimits, QueueSpec, short};
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::journal::Record;
use crate::outlet::{Outlet, Output};

impl Engine {
    /// `queue.declare`, not passive.
    ///
    /// # Errors
    /// 403 for a name that begins with `amq.`, 405 if it is another connection's, 406 if it exists otherwise, 506 at the
    /// limit.
    pub fn declare_queue(
        &mut self,
        connection: ConnectionId,
        mut spec: QueueSpec,
        now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<Declared, Fault> {
        if spec.name.starts_with("amq.") {
            return Err(reserved("queue", &spec.name));
        }
        let account = self.connections_by_id.get(&connection).and_then(|&key| self.account_at(key)).cloned();
        if let Some(&key) = self.queue_names.get(&spec.name) {
            self.same_queue(connection, key, &spec)?;
            self.adopt_queue(key, account);
            self.queue_used(key, now_ms);
            return Ok(self.declared(key));
        }
        if self.queues.len() >= self.limits.queues_max {
            return Err(limit("queues", self.limits.queues_max));
        }
        if let Some(account) = &account {
            account.check_queue(&self.limits)?;
        }
        if spec.name.is_empty() {
            spec.name = self.queue_name();
        }
        let owner = self.connections_by_id.get(&connection).copied().filter(|_| spec.exclusive);
        if spec.exclusive && owner.is_none() {
            return Err(self.locked(&spec.name));
        }
        let key = self.add_queue(spec, owner, account, Some(now_ms));
        if let Some(connection) = owner.and_then(|owner| self.connections.get_mut(owner)) {
            connection.queues.insert(key);
        }
        if let Some(queue) = self.queues.get(key).filter(|queue| queue.journaled) {
            outlet.record(Record::QueueDeclared(queue.spec.clone()));
        }
        Ok(self.declared(key))
    }

    /// Charges a queue that is nobody's to an account.
    fn adopt_queue(&mut self, key: QueueKey, account: Option<Arc<Account>>) {
        let Some(queue) = self.queues.get_mut(key).filter(|queue| queue.account.is_none()) else { return };
        if let Some(account) = &account {
            account.add_queue();
            queue.ready.iter().for_each(|entry| account.keep(entry));
        }
        queue.account = account;
    }

    fn same_queue(&self, connection: ConnectionId, key: QueueKey, received: &QueueSpec) -> Result<(), Fault> {
        let Some(queue) = self.queues.get(key) else { return Ok(()) };
        // Not only who may use it: whether it is exclusive must be the same too.
        let owner = queue.owner.and_then(|owner| self.connections.get(owner)).map(|owner| owner.id);
        if owner != received.exclusive.then_some(connection) {
            return Err(self.locked(&received.name));
        }
        let current = &*queue.spec;
        let of = self.queue_named(&current.name);
        for (property, current, received) in
            [("durable", current.durable, received.durable), ("auto_delete", current.auto_delete, received.auto_delete)]
        {
            if current != received {
                return Err(inequivalent(property, &of, format_args!("'{received}'"), format_args!("'{current}'")));
            }
        }
        for ((property, current), (_, received)) in
            arguments(&current.limits).into_iter().zip(arguments(&received.limits))
        {
            if current == received {
                continue;
            }
            // RabbitMQ names the type where only one of both is there.
            let both = current.is_some() && received.is_some();
            let shown = |value: Option<(String, &str)>| match value {
                None => "none".to_owned(),
                Some((value, _)) if both => format!("'{value}'"),
                Some((value, kind)) => format!("the value '{value}' of type '{kind}'"),
            };
            return Err(inequivalent(property, &of, shown(received), shown(current)));
        }
        Ok(())
    }

    /// `queue.declare`, passive.
    ///
    /// # Errors
    /// 404, 405.
    pub fn check_queue(&mut self, connection: ConnectionId, name: &str, now_ms: i64) -> Result<Declared, Fault> {
        let key = self.queue_of(connection, name)?;
        self.queue_used(key, now_ms);
        Ok(self.declared(key))
    }

    /// `queue.delete`: how many messages went with it. Deleting what is not there is nothing.
    ///
    /// # Errors
    /// 405, 406.
    pub fn delete_queue(
        &mut self,
        connection: ConnectionId,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        _now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<u32, Fault> {
        if !self.queue_names.contains_key(name) {
            return Ok(0);
        }
        let key = self.queue_of(connection, name)?;
        let Some(queue) = self.queues.get(key) else { return Ok(0) };
        if if_unused && !queue.consumers.is_empty() {
            return Err(Fault::precondition_failed(format_args!("{} in use", self.queue_named(name))));
        }
        if if_empty && !queue.ready.is_empty() {
            return Err(Fault::precondition_failed(format_args!("{} not empty", self.queue_named(name))));
        }
        Ok(self.remove_queue(key, outlet))
    }

    /// `queue.purge`: how many messages went.
    ///
    /// # Errors
    /// 404, 405.
    pub fn purge_queue(
        &mut self,
        connection: ConnectionId,
        name: &str,
        _now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<u32, Fault> {
        let key = self.queue_of(connection, name)?;
        let mut purged = 0;
        while let Some(entry) = self.queues.get_mut(key).and_then(Queue::pop) {
            self.let_go(key, entry.stored, outlet);
            purged += 1;
        }
        Ok(purged)
    }

    /// Deletes a queue, whoever uses it: how many messages waited in it.
    pub(super) fn remove_queue(&mut self, key: QueueKey, outlet: &mut impl Outlet) -> u32 {
        let sources = self.unbind_all_to(Target::Queue(key));
        let Some(queue) = self.queues.remove(key) else { return 0 };
        self.queue_names.remove(&queue.spec.name);
        self.deadlines.remove(&(queue.scheduled_ms, key));
        if let Some(owner) = queue.owner.and_then(|owner| self.connections.get_mut(owner)) {
            owner.queues.remove(&key);
        }
        for consumer in queue.consumers {
            let Some(consumer) = self.forget_consumer(consumer) else { continue };
            let Some(connection) = self.connections.get(consumer.connection) else { continue };
            let Some(channel) = self.channels.get(consumer.channel) else { continue };
            if !connection.gone {
                let method =
                    basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: short(&consumer.tag), nowait: true });
                let method = Box::new(AMQPClass::Basic(method));
                outlet.send(connection.id, Output::Method { channel: channel.number, method });
            }
        }
        for entry in &queue.ready {
            self.store.release(entry.stored);
        }
        if let Some(account) = &queue.account {
            account.remove_queue(&queue.ready);
            self.forget_account(account);
        }
        if queue.journaled {
            outlet.record(Record::QueueDeleted { name: queue.spec.name.clone() });
        }
        for source in sources {
            self.drop_if_unbound(source, outlet);
        }
        count(queue.ready.len())
    }

    /// Adds a queue under a name that is free.
    pub(super) fn add_queue(
        &mut self,
        spec: QueueSpec,
        owner: Option<super::keys::ConnectionKey>,
        account: Option<Arc<Account>>,
        used_ms: Option<i64>,
    ) -> QueueKey {
        let policy = self.policies.iter().filter(|policy| spec.name.starts_with(&policy.prefix));
        let policy = policy.max_by_key(|policy| policy.prefix.len()).map(|policy| &policy.limits);
        let name = spec.name.clone();
        let bounds = Bounds::of(&spec.limits, policy);
        if let Some(account) = &account {
            account.add_queue();
        }
        let key = self.queues.insert(Queue::new(spec, bounds, owner, account, used_ms));
        self.queue_names.insert(name, key);
        self.schedule(key);
        key
    }

    /// The queue, if this connection may use it.
    pub(super) fn queue_of(&self, connection: ConnectionId, name: &str) -> Result<QueueKey, Fault> {
        let &key = self.queue_names.get(name).ok_or_else(|| self.no_queue(name))?;
        let owner = self.queues.get(key).and_then(|queue| queue.owner);
        let is_operator = connection == ConnectionId::OPERATOR;
        if owner.is_some() && owner != self.connections_by_id.get(&connection).copied() && !is_operator {
            return Err(self.locked(name));
        }
        Ok(key)
    }

    /// Something happened that puts off the time when the queue expires.
    pub(super) fn queue_used(&mut self, key: QueueKey, now_ms: i64) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.used_ms = Some(now_ms);
        }
    }

    fn declared(&self, key: QueueKey) -> Declared {
        let queue = self.queues.get(key);
        let name = queue.map_or_else(|| "".into(), |queue| queue.spec.name.clone());
        let of =
            |queue: &Queue| QueueCount { messages: count(queue.ready.len()), consumers: count(queue.consumers.len()) };
        Declared { name, count: queue.map(of).unwrap_or_default() }
    }

    /// A name that nobody has and nobody guesses.
    fn queue_name(&mut self) -> Arc<str> {
        loop {
            self.names_made += 1;
            let mut hasher = DefaultHasher::new();
            (self.seed, self.names_made).hash(&mut hasher);
            let name = format!("amq.gen-{:016x}{:x}", hasher.finish(), self.names_made);
            if !self.queue_names.contains_key(&*name) {
                return name.into();
            }
        }
    }
}

/// The arguments that a client sees, as text, with RabbitMQ's word for the type.
fn arguments(limits: &QueueLimits) -> [(&'static str, Option<(String, &'static str)>); 5] {
    let number = |value: Option<u64>| value.map(|value| (value.to_string(), "long"));
    let overflow = limits.overflow.map(|overflow| match overflow {
        Overflow::DropHead => ("drop-head".to_owned(), "longstr"),
        Overflow::RejectPublish => ("reject-publish".to_owned(), "longstr"),
    });
    [
        ("x-expires", number(limits.expires_ms)),
        ("x-message-ttl", number(limits.message_ttl_ms)),
        ("x-max-length", number(limits.length_max)),
        ("x-max-length-bytes", number(limits.bytes_max)),
        ("x-overflow", overflow),
    ]
}

pub(super) fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
