//! Random sequences of methods of three connections on a few names, against the [`Model`](super::model::Model).
//!
//! After each method: every delivery was allowed and in order, everything else that was said is what the model expects,
//! queues and channels hold the same, nobody waits who could be served, deadlines are not missed, and what is durable is
//! the same in the model, in a snapshot, and in an engine that replays the snapshot or all records so far.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::{Given, Model, ModelChannel, ModelConsumer, ModelQueue, OUTBOX_BYTES_MAX};
use super::*;

const QUEUES: [&str; 4] = ["q", "r", "s", "t"];
const EXCHANGES: [&str; 3] = ["direct", "fanout", "topic"];
const KEYS: [&str; 6] = ["a", "b", "a.b", "a.*", "#", "*.b.#"];
const CONNECTIONS: u64 = 3;

/// A method. Connections are numbers of clients: each has one connection at a time, and channels 1 and 2.
#[derive(Debug, Clone)]
enum Step {
    DeclareQueue {
        client: usize,
        name: usize,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        limits: usize,
    },
    DeleteQueue {
        client: usize,
        name: usize,
        if_unused: bool,
        if_empty: bool,
    },
    Purge {
        client: usize,
        name: usize,
    },
    DeclareExchange {
        name: usize,
        durable: bool,
        auto_delete: bool,
    },
    DeleteExchange {
        name: usize,
        if_unused: bool,
    },
    Bind {
        client: usize,
        source: usize,
        to: Result<usize, usize>,
        key: usize,
    },
    Unbind {
        client: usize,
        source: usize,
        to: Result<usize, usize>,
        key: usize,
    },
    Publish {
        at: (usize, u16),
        to: Result<usize, usize>,
        key: usize,
        persistent: bool,
        mandatory: bool,
        time: u64,
        size: usize,
    },
    Consume {
        at: (usize, u16),
        queue: usize,
        tag: usize,
        no_ack: bool,
        exclusive: bool,
    },
    Cancel {
        at: (usize, u16),
        tag: usize,
    },
    Get {
        at: (usize, u16),
        queue: usize,
        no_ack: bool,
    },
    Settle {
        at: (usize, u16),
        which: usize,
        multiple: bool,
        requeue: Option<bool>,
    },
    Recover {
        at: (usize, u16),
    },
    Qos {
        at: (usize, u16),
        prefetch: u16,
        global: bool,
    },
    Flow {
        at: (usize, u16),
        active: bool,
    },
    Confirm {
        at: (usize, u16),
    },
    CloseChannel {
        at: (usize, u16),
    },
    Disconnect {
        client: usize,
    },
    Drain {
        client: usize,
        messages: usize,
    },
    Wait {
        milliseconds: i64,
    },
}

fn at() -> impl Strategy<Value = (usize, u16)> {
    (0..CONNECTIONS as usize, 1..3_u16)
}

/// A queue, or an exchange.
fn end() -> impl Strategy<Value = Result<usize, usize>> {
    prop_oneof![3 => (0..QUEUES.len()).prop_map(Ok), 1 => (0..EXCHANGES.len()).prop_map(Err)]
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CONNECTIONS as usize;
    let (name, source, key, tag) = (0..QUEUES.len(), 0..EXCHANGES.len(), 0..KEYS.len(), 0..3_usize);
    let flag = any::<bool>;
    let rarely = || prop::bool::weighted(0.15);
    prop_oneof![
        5 => (client(), name.clone(), flag(), rarely(), rarely(), 0..6_usize).prop_map(
            |(client, name, durable, exclusive, auto_delete, limits)| Step::DeclareQueue { client, name, durable, exclusive, auto_delete, limits }),
        1 => (client(), name.clone(), flag(), flag()).prop_map(
            |(client, name, if_unused, if_empty)| Step::DeleteQueue { client, name, if_unused, if_empty }),
        1 => (client(), name.clone()).prop_map(|(client, name)| Step::Purge { client, name }),
        2 => (source.clone(), flag(), rarely()).prop_map(
            |(name, durable, auto_delete)| Step::DeclareExchange { name, durable, auto_delete }),
        1 => (source.clone(), flag()).prop_map(|(name, if_unused)| Step::DeleteExchange { name, if_unused }),
        5 => (client(), source.clone(), end(), key.clone()).prop_map(
            |(client, source, to, key)| Step::Bind { client, source, to, key }),
        1 => (client(), source, end(), key.clone()).prop_map(
            |(client, source, to, key)| Step::Unbind { client, source, to, key }),
        16 => (at(), end(), key, flag(), flag(), 0..8_u64, 1..40_usize).prop_map(
            |(at, to, key, persistent, mandatory, time, size)| Step::Publish { at, to, key, persistent, mandatory, time, size }),
        5 => (at(), name.clone(), tag.clone(), rarely(), rarely()).prop_map(
            |(at, queue, tag, no_ack, exclusive)| Step::Consume { at, queue, tag, no_ack, exclusive }),
        1 => (at(), tag).prop_map(|(at, tag)| Step::Cancel { at, tag }),
        3 => (at(), name, rarely()).prop_map(|(at, queue, no_ack)| Step::Get { at, queue, no_ack }),
        10 => (at(), 0..6_usize, rarely(), prop::option::of(flag())).prop_map(
            |(at, which, multiple, requeue)| Step::Settle { at, which, multiple, requeue }),
        1 => at().prop_map(|at| Step::Recover { at }),
        2 => (at(), 0..4_u16, rarely()).prop_map(|(at, prefetch, global)| Step::Qos { at, prefetch, global }),
        1 => (at(), flag()).prop_map(|(at, active)| Step::Flow { at, active }),
        1 => at().prop_map(|at| Step::Confirm { at }),
        1 => at().prop_map(|at| Step::CloseChannel { at }),
        1 => client().prop_map(|client| Step::Disconnect { client }),
        6 => (client(), 0..4_usize).prop_map(|(client, messages)| Step::Drain { client, messages }),
        4 => (1..80_i64).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

fn limits_of(number: usize) -> QueueLimits {
    let none = QueueLimits::default();
    match number {
        0 => QueueLimits { message_ttl_ms: Some(50), expires_ms: Some(120), ..none },
        1 => QueueLimits { length_max: Some(2), ..none },
        2 => QueueLimits { bytes_max: Some(30), overflow: Some(Overflow::DropHead), ..none },
        3 => QueueLimits { length_max: Some(2), overflow: Some(Overflow::RejectPublish), ..none },
        _ => none,
    }
}

/// What is expected beside deliveries.
#[derive(Debug, Default)]
struct Expected {
    /// The code of the refusal.
    refused: Option<u16>,
    /// Lines as [`line`] shows them, with the channel before.
    said: Vec<String>,
    /// A `get-ok` may come for this queue, without acknowledgement or with.
    got: Option<(String, bool)>,
    /// The queues in which the message that is published now is new.
    fresh: bool,
}

struct Play {
    bed: Bed,
    model: Model,
    /// The number of each client's connection.
    connections: Vec<u64>,
    connections_made: u64,
    published: u64,
    records: Vec<Record>,
    steps: u64,
    log: Vec<String>,
}

impl Play {
    fn new() -> Self {
        let limits = Limits { outbox_bytes_max: OUTBOX_BYTES_MAX, ..LIMITS };
        let mut play = Self {
            bed: Bed::with(limits, Vec::new(), 0),
            model: Model { now_ms: 1_000, ..Model::default() },
            connections: vec![0; CONNECTIONS as usize],
            connections_made: 0,
            published: 0,
            records: Vec::new(),
            steps: 0,
            log: Vec::new(),
        };
        (0..CONNECTIONS as usize).for_each(|client| play.connect(client));
        play
    }

    fn connect(&mut self, client: usize) {
        self.connections_made += 1;
        self.connections[client] = self.connections_made;
        self.bed.connect(self.connections_made);
        self.model.outboxes.insert(self.connections_made, Default::default());
        for channel in [1, 2] {
            self.bed.engine.open_channel((ConnectionId(self.connections_made), channel));
            self.model.channels.insert((self.connections_made, channel), ModelChannel::default());
        }
    }

    /// 404 or 405, if this connection may not use the queue.
    fn usable(&self, connection: u64, name: &str) -> Option<u16> {
        match self.model.queues.get(name) {
            None => Some(404),
            Some(queue) => queue.owner.filter(|&owner| owner != connection).map(|_| 405),
        }
    }

    fn binding(
        &self,
        connection: u64,
        source: usize,
        to: Result<usize, usize>,
        key: usize,
    ) -> (BindingSpec, Option<u16>) {
        let source = EXCHANGES[source];
        let (binding, target) = match to {
            Ok(queue) => (to_queue(source, QUEUES[queue], KEYS[key]), self.usable(connection, QUEUES[queue])),
            Err(exchange) => {
                let known = self.model.exchanges.contains_key(EXCHANGES[exchange]);
                (to_exchange(source, EXCHANGES[exchange], KEYS[key]), (!known).then_some(404))
            }
        };
        let unknown = (!self.model.exchanges.contains_key(source)).then_some(404);
        (binding, target.or(unknown))
    }

    /// Does a step in both, and compares.
    fn step(&mut self, step: &Step) {
        let (result, mut expected) = self.act(step);
        assert_eq!(result.err().map(|fault| fault.code), expected.refused, "{step:?}");
        self.bed.engine.tick(self.bed.now_ms, &mut self.bed.out);
        let said = std::mem::take(&mut self.bed.out.0);
        for said in &said {
            self.log.push(format!("{said:?}"));
            self.heard(said, &mut expected, step);
        }
        assert!(expected.got.is_none(), "{step:?}: no answer");
        assert!(expected.said.is_empty(), "{step:?}: not said: {:?}", expected.said);
        self.model.drop_overflow();
        self.model.expire();
        self.compare(step);
        if let Step::Disconnect { client } = step {
            self.connect(*client);
        }
    }

    /// Something that the engine said.
    fn heard(&mut self, said: &Said, expected: &mut Expected, step: &Step) {
        let (Said::Sent(connection, output) | Said::WhenDurable(connection, output)) = said else {
            let Said::Recorded(record) = said else { return };
            self.records.push(record.clone());
            return;
        };
        let connection = connection.0;
        match output {
            Output::Deliver { channel, consumer, tag, redelivered, message } => {
                let at = (connection, *channel);
                let Some(taker) =
                    self.model.consumers.iter().find(|known| known.channel == at && *known.tag == **consumer)
                else {
                    panic!("{step:?}: delivered to {at:?} {consumer}, who is not there")
                };
                assert!(self.model.has_room(taker), "{step:?}: {at:?} {consumer} has no room");
                let (queue, no_ack) = (taker.queue.clone(), taker.no_ack);
                let consumer = Some(consumer.to_string());
                self.taken(at, consumer, &queue, no_ack, *tag, *redelivered, message, expected.fresh);
            }
            Output::GetOk { channel, tag, redelivered, left, message } => {
                let (queue, no_ack) = expected.got.take().expect("a get-ok that nobody asked for");
                let at = (connection, *channel);
                self.taken(at, None, &queue, no_ack, *tag, *redelivered, message, false);
                assert_eq!(*left as usize, self.model.queues[&queue].ready.len(), "{step:?}");
            }
            Output::Return { message, .. } => {
                self.expect(said, expected, step);
                self.model.sent(connection, message.size());
            }
            _ => self.expect(said, expected, step),
        }
    }

    /// Something that was expected next, for its connection.
    fn expect(&mut self, said: &Said, expected: &mut Expected, step: &Step) {
        let said = line(said).unwrap();
        if said.ends_with("get-empty") {
            let (queue, _) = expected.got.take().expect("a get-empty that nobody asked for");
            assert_eq!(self.model.queues[&queue].ready, [], "{step:?}: it is not empty");
            return;
        }
        // Consumers of a queue that goes are told in any order.
        let at = if said.contains("cancel") { expected.said.iter().position(|line| *line == said) } else { Some(0) };
        assert_eq!(at.and_then(|at| expected.said.get(at)), Some(&said), "{step:?}");
        expected.said.remove(at.unwrap_or_default());
    }

    /// A message leaves the head of a queue for a channel.
    #[expect(clippy::too_many_arguments, reason = "all of them are compared")]
    fn taken(
        &mut self,
        at: (u64, u16),
        consumer: Option<String>,
        queue: &str,
        no_ack: bool,
        tag: u64,
        redelivered: bool,
        message: &Message,
        fresh: bool,
    ) {
        let body = String::from_utf8(message.body.to_vec()).unwrap();
        let now = self.model.now_ms;
        let found = self.model.queues.get_mut(queue).unwrap();
        // What comes now may be delivered though its time is over at once; what waits, not.
        while found.ready.first().is_some_and(|held| held.expires_ms <= now && !(fresh && held.body == body)) {
            found.ready.remove(0);
        }
        assert!(!found.ready.is_empty(), "nothing is in {queue}");
        let held = found.ready.remove(0);
        assert_eq!((held.body.as_str(), held.redelivered), (&*body, redelivered), "not the head of {queue}");
        assert!(held.expires_ms > now || fresh, "{body} has expired");
        let channel = self.model.channels.get_mut(&at).unwrap();
        channel.tag_last += 1;
        assert_eq!(tag, channel.tag_last, "tags count up by one");
        let life = found.life;
        if !no_ack {
            self.model.given.push(Given { channel: at, tag, consumer, queue: queue.to_owned(), life, held });
        }
        self.model.sent(at.0, message.size());
    }

    /// What both have now.
    fn compare(&mut self, step: &Step) {
        let (model, engine) = (&self.model, &self.bed.engine);
        super::shares::check(engine);
        let names: BTreeSet<&str> = engine.queue_names.keys().map(|name| &**name).collect();
        assert_eq!(names, model.queues.keys().map(String::as_str).collect(), "{step:?}: queues");
        for (name, expected) in &model.queues {
            let queue = &engine.queues[engine.queue_names[name.as_str()]];
            let ready: Vec<(String, bool)> = queue
                .ready
                .iter()
                .map(|entry| {
                    let message = engine.store.message(entry.stored).unwrap();
                    (String::from_utf8(message.body.to_vec()).unwrap(), entry.redelivered)
                })
                .collect();
            let expected_ready: Vec<(String, bool)> =
                expected.ready.iter().map(|held| (held.body.clone(), held.redelivered)).collect();
            assert_eq!(ready, expected_ready, "{step:?}: {name}");
            for consumer in model.consumers.iter().filter(|consumer| consumer.queue == *name) {
                let idle = expected.ready.is_empty() || !model.has_room(consumer);
                assert!(idle, "{step:?}: {} waits for what is in {name}", consumer.tag);
            }
        }
        let counts = engine.counts();
        assert_eq!(counts.bindings, model.bindings.len(), "{step:?}: bindings");
        assert_eq!(counts.exchanges, model.exchanges.len() + 4, "{step:?}: exchanges");
        assert_eq!(counts.consumers, model.consumers.len(), "{step:?}: consumers");
        assert_eq!(counts.unacknowledged, model.given.len(), "{step:?}: unacknowledged");
        if let Some(due) = model.deadline_ms() {
            assert!(
                engine.next_deadline().is_some_and(|deadline| deadline <= due),
                "{step:?}: a deadline at {due} is missed"
            );
        }
        // Costs as much as everything before together.
        self.steps += 1;
        if self.steps.is_multiple_of(6) {
            self.compare_durable(step);
        }
    }

    fn compare_durable(&self, step: &Step) {
        let model = &self.model;
        let survives = |name: &str, life: u64| {
            model
                .queues
                .get(name)
                .is_some_and(|queue| queue.life == life && queue.spec.durable && !queue.spec.exclusive)
        };
        let ready =
            model.queues.iter().flat_map(|(name, queue)| queue.ready.iter().map(move |held| (name, queue.life, held)));
        let given = model.given.iter().map(|given| (&given.queue, given.life, &given.held));
        let mut expected: Vec<(String, String)> = ready
            .chain(given)
            .filter(|(name, life, held)| held.persistent && survives(name, *life))
            .map(|(name, _, held)| (name.clone(), held.body.clone()))
            .collect();
        expected.sort();
        let snapshot = self.bed.engine.snapshot();
        let mut kept: Vec<(String, String)> = snapshot
            .iter()
            .filter_map(|record| match record {
                Record::Enqueued { content, queues, .. } => Some((content, queues)),
                _ => None,
            })
            .flat_map(|(content, queues)| {
                let body = String::from_utf8(content.body.to_vec()).unwrap();
                queues.iter().map(move |queue| (queue.to_string(), body.clone()))
            })
            .collect();
        kept.sort();
        assert_eq!(kept, expected, "{step:?}: durable messages");
        for records in [&snapshot, &self.records] {
            let mut again = Engine::new(LIMITS, Vec::new(), Vec::new());
            records.iter().cloned().for_each(|record| again.replay(record));
            assert_eq!(sorted(&again.snapshot()), sorted(&snapshot), "{step:?}: replayed");
        }
        if self.records.len().is_multiple_of(4) {
            assert_eq!(sorted(&crate::journal::kept(&self.records)), sorted(&snapshot), "{step:?}: in the journal");
        }
    }

    /// Everything goes: nothing is left in memory.
    fn end(mut self) -> Vec<String> {
        for client in 0..CONNECTIONS as usize {
            self.step(&Step::Disconnect { client });
        }
        for name in 0..QUEUES.len() {
            self.step(&Step::DeleteQueue { client: 0, name, if_unused: false, if_empty: false });
        }
        for name in 0..EXCHANGES.len() {
            self.step(&Step::DeleteExchange { name, if_unused: false });
        }
        let counts = self.bed.engine.counts();
        assert_eq!((counts.message_bytes, counts.ready, counts.unacknowledged, counts.bindings), (0, 0, 0, 0));
        assert_eq!(self.bed.engine.next_deadline(), None);
        assert_eq!(self.bed.engine.snapshot(), []);
        self.log
    }
}

/// Records without the order in which things that do not depend on each other come.
fn sorted(records: &[Record]) -> Vec<String> {
    let mut records: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
    records.sort();
    records
}

impl Play {
    /// Does a step in both; says what the engine answered, and what the model expects it to say.
    fn act(&mut self, step: &Step) -> (Result<(), Fault>, Expected) {
        let mut expected = Expected::default();
        let now = self.bed.now_ms;
        let of = |connections: &[u64], at: &(usize, u16)| (connections[at.0], at.1);
        let id = |at: (u64, u16)| (ConnectionId(at.0), at.1);
        let result = match step {
            Step::DeclareQueue { client, name, durable, exclusive, auto_delete, limits } => {
                let connection = self.connections[*client];
                let spec = QueueSpec {
                    durable: *durable,
                    exclusive: *exclusive,
                    auto_delete: *auto_delete,
                    limits: limits_of(*limits),
                    ..queue_spec(QUEUES[*name])
                };
                let owner = exclusive.then_some(connection);
                match self.model.queues.get_mut(QUEUES[*name]) {
                    Some(queue) if queue.owner != owner => expected.refused = Some(405),
                    Some(queue) if queue.spec != spec => expected.refused = Some(406),
                    Some(queue) => queue.used_ms = now,
                    None => {
                        self.model.lives += 1;
                        let queue = ModelQueue {
                            life: self.model.lives,
                            spec: spec.clone(),
                            owner,
                            used_ms: now,
                            positions: 0,
                            ready: Vec::new(),
                        };
                        self.model.queues.insert(QUEUES[*name].to_owned(), queue);
                    }
                }
                self.bed.declare(connection, spec).map(drop)
            }
            Step::DeleteQueue { client, name, if_unused, if_empty } => {
                let (connection, name) = (self.connections[*client], QUEUES[*name]);
                if let Some(queue) = self.model.queues.get(name) {
                    let used = self.model.consumers.iter().any(|consumer| consumer.queue == name);
                    expected.refused = self.usable(connection, name);
                    if expected.refused.is_none() && ((*if_unused && used) || (*if_empty && !queue.ready.is_empty())) {
                        expected.refused = Some(406);
                    }
                    if expected.refused.is_none() {
                        let told = self.model.remove_queue(name);
                        expected.said = told.iter().map(|((of, _), tag)| format!("{of}: cancel {tag}")).collect();
                    }
                }
                let (engine, out) = (&mut self.bed.engine, &mut self.bed.out);
                engine.delete_queue(ConnectionId(connection), name, *if_unused, *if_empty, now, out).map(drop)
            }
            Step::Purge { client, name } => {
                let (connection, name) = (self.connections[*client], QUEUES[*name]);
                expected.refused = self.usable(connection, name);
                let mut left = 0;
                if let Some(queue) = self.model.queues.get_mut(name).filter(|_| expected.refused.is_none()) {
                    left = std::mem::take(&mut queue.ready).len() as u32;
                }
                let purged = self.bed.engine.purge_queue(ConnectionId(connection), name, now, &mut self.bed.out);
                purged.map(|purged| assert_eq!(purged, left, "{step:?}"))
            }
            Step::DeclareExchange { name, durable, auto_delete } => {
                let kind = [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic][*name];
                let spec = ExchangeSpec {
                    durable: *durable,
                    auto_delete: *auto_delete,
                    ..exchange_spec(EXCHANGES[*name], kind)
                };
                let known = self.model.exchanges.entry(EXCHANGES[*name].to_owned()).or_insert_with(|| spec.clone());
                expected.refused = (*known != spec).then_some(406);
                self.bed.engine.declare_exchange(spec, &mut self.bed.out)
            }
            Step::DeleteExchange { name, if_unused } => {
                let name = EXCHANGES[*name];
                let used = self.model.bindings.iter().any(|binding| *binding.source == *name);
                expected.refused = (*if_unused && used).then_some(406);
                if expected.refused.is_none() {
                    self.model.remove_exchange(name);
                }
                self.bed.engine.delete_exchange(name, *if_unused, now, &mut self.bed.out)
            }
            Step::Bind { client, source, to, key } => {
                let connection = self.connections[*client];
                let (binding, refused) = self.binding(connection, *source, *to, *key);
                if refused.is_none() && !self.model.bindings.contains(&binding) {
                    self.model.bindings.push(binding.clone());
                }
                expected.refused = refused;
                self.bed.engine.bind(ConnectionId(connection), binding, &mut self.bed.out)
            }
            Step::Unbind { client, source, to, key } => {
                let connection = self.connections[*client];
                let (binding, refused) = self.binding(connection, *source, *to, *key);
                if refused.is_none() {
                    self.model.remove_bindings(|other| *other == binding);
                }
                expected.refused = refused;
                self.bed.engine.unbind(ConnectionId(connection), &binding, &mut self.bed.out)
            }
            Step::Publish { at, to, key, persistent, mandatory, time, size } => {
                return self.act_publish(of(&self.connections, at), *to, *key, *persistent, *mandatory, *time, *size);
            }
            Step::Consume { at, queue, tag, no_ack, exclusive } => {
                let at = of(&self.connections, at);
                let (queue, tag) = (QUEUES[*queue], format!("tag{tag}"));
                let others = self.model.consumers.iter().filter(|consumer| consumer.queue == queue);
                let busy = others.clone().any(|consumer| consumer.exclusive) || (*exclusive && others.count() > 0);
                let known = self.model.consumers.iter().any(|consumer| consumer.channel == at && consumer.tag == tag);
                expected.refused = known.then_some(530).or(self.usable(at.0, queue)).or(busy.then_some(403));
                if expected.refused.is_none() {
                    expected.said.push(format!("{}: consume-ok {tag}", at.0));
                    let prefetch = self.model.channels[&at].prefetch_each;
                    // What a consumer of this name was given before is not this one's.
                    for given in self.model.given.iter_mut().filter(|given| given.channel == at) {
                        if given.consumer.as_deref() == Some(&tag) {
                            given.consumer = Some(format!("{tag} of before"));
                        }
                    }
                    self.model.consumers.push(ModelConsumer {
                        channel: at,
                        tag: tag.clone(),
                        queue: queue.to_owned(),
                        no_ack: *no_ack,
                        exclusive: *exclusive,
                        prefetch,
                    });
                }
                let spec = ConsumerSpec {
                    connection: ConnectionId(at.0),
                    channel: at.1,
                    queue: queue.into(),
                    tag: tag.into(),
                    no_ack: *no_ack,
                    exclusive: *exclusive,
                    no_wait: false,
                };
                self.bed.consume_as(spec).map(drop)
            }
            Step::Cancel { at, tag } => {
                let (at, tag) = (of(&self.connections, at), format!("tag{tag}"));
                self.model.remove_consumers(|consumer| consumer.channel == at && consumer.tag == tag);
                self.bed.engine.cancel(id(at), &tag, now, &mut self.bed.out);
                Ok(())
            }
            Step::Get { at, queue, no_ack } => {
                let (at, queue) = (of(&self.connections, at), QUEUES[*queue]);
                expected.refused = self.usable(at.0, queue);
                if expected.refused.is_none() {
                    self.model.queues.get_mut(queue).unwrap().used_ms = now;
                    expected.got = Some((queue.to_owned(), *no_ack));
                }
                self.bed.engine.get(id(at), queue, *no_ack, now, &mut self.bed.out)
            }
            Step::Settle { at, which, multiple, requeue } => {
                let at = of(&self.connections, at);
                // One that was given, none, or one that never was.
                let mut tags: Vec<u64> =
                    self.model.given.iter().filter(|given| given.channel == at).map(|given| given.tag).collect();
                tags.extend([0, 999]);
                let tag = tags[which % tags.len()];
                let known = self.model.given.iter().any(|given| given.channel == at && given.tag == tag);
                if known || (*multiple && tag == 0) {
                    let requeue = *requeue == Some(true);
                    let up_to = if tag == 0 { u64::MAX } else { tag };
                    self.model.settle(
                        |given| given.channel == at && (given.tag == tag || (*multiple && given.tag <= up_to)),
                        requeue,
                    );
                } else {
                    expected.refused = Some(406);
                }
                let (engine, out) = (&mut self.bed.engine, &mut self.bed.out);
                match requeue {
                    None => engine.acknowledge(id(at), tag, *multiple, now, out),
                    Some(requeue) => engine.reject(id(at), tag, *multiple, *requeue, now, out),
                }
            }
            Step::Recover { at } => {
                let at = of(&self.connections, at);
                self.model.settle(|given| given.channel == at, true);
                self.bed.engine.recover(id(at), now, &mut self.bed.out);
                Ok(())
            }
            Step::Qos { at, prefetch, global } => {
                let at = of(&self.connections, at);
                let channel = self.model.channels.get_mut(&at).unwrap();
                *(if *global { &mut channel.prefetch } else { &mut channel.prefetch_each }) = *prefetch;
                self.bed.engine.qos(id(at), *prefetch, *global, now, &mut self.bed.out);
                Ok(())
            }
            Step::Flow { at, active } => {
                let at = of(&self.connections, at);
                self.model.channels.get_mut(&at).unwrap().stopped = !active;
                self.bed.engine.flow(id(at), *active, now, &mut self.bed.out);
                Ok(())
            }
            Step::Confirm { at } => {
                let at = of(&self.connections, at);
                self.model.channels.get_mut(&at).unwrap().confirmed.get_or_insert(0);
                self.bed.engine.confirm_select(id(at));
                Ok(())
            }
            Step::CloseChannel { at } => {
                let at = of(&self.connections, at);
                self.model.remove_consumers(|consumer| consumer.channel == at);
                self.model.settle(|given| given.channel == at, true);
                self.model.channels.insert(at, ModelChannel::default());
                self.bed.engine.close_channel(id(at), now, &mut self.bed.out);
                self.bed.engine.open_channel(id(at));
                Ok(())
            }
            Step::Disconnect { client } => {
                let connection = self.connections[*client];
                let own = self.model.queues.iter().filter(|(_, queue)| queue.owner == Some(connection));
                let own: Vec<String> = own.map(|(name, _)| name.clone()).collect();
                own.iter().for_each(|name| drop(self.model.remove_queue(name)));
                self.model.remove_consumers(|consumer| consumer.channel.0 == connection);
                self.model.settle(|given| given.channel.0 == connection, true);
                self.bed.disconnect(connection);
                Ok(())
            }
            Step::Drain { client, messages } => {
                let connection = self.connections[*client];
                let outbox = self.model.outboxes.get_mut(&connection).unwrap();
                let count = (*messages).min(outbox.waiting.len());
                let bytes = outbox.waiting.drain(..count).sum();
                outbox.slow &= outbox.waiting.iter().sum::<usize>() > OUTBOX_BYTES_MAX / 2;
                self.bed.engine.drained(ConnectionId(connection), bytes, now, &mut self.bed.out);
                Ok(())
            }
            Step::Wait { milliseconds } => {
                self.bed.now_ms += milliseconds;
                self.model.now_ms += milliseconds;
                self.model.expire();
                Ok(())
            }
        };
        (result, expected)
    }

    #[expect(clippy::too_many_arguments, reason = "what a publication has")]
    fn act_publish(
        &mut self,
        at: (u64, u16),
        to: Result<usize, usize>,
        key: usize,
        persistent: bool,
        mandatory: bool,
        time: u64,
        size: usize,
    ) -> (Result<(), Fault>, Expected) {
        self.published += 1;
        let body = format!("{:0>size$}", self.published);
        let (exchange, key) = match to {
            Ok(queue) => ("", QUEUES[queue]),
            Err(exchange) => (EXCHANGES[exchange], KEYS[key]),
        };
        // Half of them without a time of their own, some with none at all.
        let expiration_ms = [None, None, None, None, Some(0), Some(20), Some(60), Some(100)][time as usize];
        let message = Message { persistent, expiration_ms, ..message(exchange, key, &body) };
        let mut expected = Expected { fresh: true, ..Expected::default() };
        if !exchange.is_empty() && !self.model.exchanges.contains_key(exchange) {
            expected.refused = Some(404);
        } else {
            let queues = self.model.reached(exchange, key);
            let refused = self.model.publish(&message, &queues);
            if mandatory && queues.is_empty() {
                expected.said.push(format!("{}: returned {body} 312 NO_ROUTE", at.0));
            }
            if let Some(last) = &mut self.model.channels.get_mut(&at).unwrap().confirmed {
                *last += 1;
                let word = if refused.is_empty() { "ack" } else { "nack" };
                expected.said.push(format!("{}: {word} {last}", at.0));
            }
        }
        let at = (ConnectionId(at.0), at.1);
        let result = self.bed.engine.publish(at, Arc::new(message), mandatory, self.bed.now_ms, &mut self.bed.out);
        // Whether the confirm waits for the disk depends on who got the message: on whether it is recorded.
        let recorded = self.bed.out.0.iter().any(|said| matches!(said, Said::Recorded(Record::Enqueued { .. })));
        if let Some(confirm) = expected.said.last_mut().filter(|line| recorded && !line.contains("returned")) {
            confirm.push_str(" when durable");
        }
        (result, expected)
    }
}

fn play(steps: &[Step]) -> Vec<String> {
    let mut play = Play::new();
    steps.iter().for_each(|step| play.step(step));
    play.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_allows(steps in prop::collection::vec(step(), 1..120)) {
        play(&steps);
    }

    #[test]
    fn the_same_steps_give_the_same_outputs(steps in prop::collection::vec(step(), 1..80)) {
        let (one, other) = (play(&steps), play(&steps));
        prop_assert_eq!(one, other);
    }
}
