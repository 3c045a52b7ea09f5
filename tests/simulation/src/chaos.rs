//! The plan of faults: what goes wrong, when and for how long.

use std::sync::Arc;
use std::time::Duration;

use muster_bus::Outgoing;
use muster_daemon::disk::Fault;
use muster_daemon::{TaskKind, Tasks};
use muster_protocol::envelope::CONTENT_TYPE_CRL;
use muster_protocol::routing::agent_queue;
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_ALL};

use crate::controllers::Person;
use crate::host::{Crash, Host};
use crate::network::Storm;
use crate::options::FaultKind;
use crate::random::Random;
use crate::stage::Stage;
use crate::world::Rules;

/// How long somebody who cannot be reached is taken for connected: two of the agent's heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(60);

/// Kinds that are begun here, with how often each is chosen.
const CHOICES: [(FaultKind, u32); 16] = [
    (FaultKind::Crash, 12),
    (FaultKind::Host, 8),
    (FaultKind::Step, 16),
    (FaultKind::Restart, 4),
    (FaultKind::Partition, 8),
    (FaultKind::Cut, 8),
    (FaultKind::Broker, 4),
    (FaultKind::Blocked, 3),
    (FaultKind::Queue, 2),
    (FaultKind::Full, 3),
    (FaultKind::Disk, 12),
    (FaultKind::Clock, 6),
    (FaultKind::Client, 4),
    (FaultKind::Policy, 6),
    (FaultKind::Revoke, 2),
    // Stands for messages that are lost, late and doubled.
    (FaultKind::Drop, 6),
];

/// Whoever lets things go wrong.
pub(crate) struct Chaos {
    stage: Stage,
    people: Vec<Arc<Person>>,
    tasks: Tasks,
    random: Random,
    revoked: bool,
}

impl Chaos {
    pub(crate) fn new(stage: &Stage, people: &[Arc<Person>], tasks: &Tasks) -> Self {
        let random = Random::of(stage.options.seed, "chaos");
        Self { stage: stage.clone(), people: people.to_vec(), tasks: tasks.clone(), random, revoked: false }
    }

    /// Lets things go wrong until it is dropped. How often is the seed's choice.
    pub(crate) async fn go_on(mut self) {
        let calm_ms = *self.random.one_of(&[500_u64, 2_000, 6_000, 30_000]);
        loop {
            tokio::time::sleep(self.random.pause(1, calm_ms)).await;
            self.look_for_revocation();
            let total: u32 = CHOICES.iter().map(|(_, weight)| weight).sum();
            let mut at = u32::try_from(self.random.between(0, u64::from(total) - 1)).unwrap_or(0);
            let mut kind = FaultKind::Crash;
            for (choice, weight) in CHOICES {
                if at < weight {
                    kind = choice;
                    break;
                }
                at -= weight;
            }
            // Drawn for every kind alike, so that a kind that is off does not change what the next ones do.
            let (host, person, short, long, number) = (
                self.random.below(self.stage.hosts.len()),
                self.random.below(self.people.len()),
                self.random.pause(50, 4_000),
                self.random.pause(1_000, 90_000),
                self.random.number(),
            );
            if self.stage.options.has(kind) {
                let host = self.stage.hosts[host].clone();
                self.strike(kind, &host, person, short, long, number);
            }
        }
    }

    fn strike(
        &mut self,
        kind: FaultKind,
        host: &Arc<Host>,
        person: usize,
        short: Duration,
        long: Duration,
        number: u64,
    ) {
        let mut random = Random::of(number, "strike");
        let pause = if random.per_mille(700) { short } else { long };
        let stage = self.stage.clone();
        if kind != FaultKind::Drop {
            stage.tally.add(&format!("fault {kind}"));
        }
        stage.trace.note(format_args!("fault {kind} at {} for {} ms", host.name, pause.as_millis()));
        match kind {
            FaultKind::Crash => host.crash(Crash::Agent, pause),
            FaultKind::Host => host.crash(Crash::Host, pause),
            FaultKind::Step => {
                let crash = if random.per_mille(500) { Crash::Agent } else { Crash::Host };
                host.crash_at(random.between(1, 40), crash, pause);
            }
            FaultKind::Restart => host.restart(pause),
            FaultKind::Partition => {
                let identity = if random.per_mille(300) {
                    self.people[person].credentials.identity().clone()
                } else {
                    host.credentials.identity().clone()
                };
                stage.network.part(&identity, pause);
                if pause > HEARTBEATS {
                    self.later(HEARTBEATS, move || {
                        stage.broker.disconnect(&identity);
                    });
                }
            }
            FaultKind::Cut => {
                let identity = if random.per_mille(400) {
                    self.people[person].credentials.identity().clone()
                } else {
                    host.credentials.identity().clone()
                };
                stage.broker.disconnect(&identity);
            }
            FaultKind::Broker => {
                stage.broker.stop();
                self.later(pause.min(Duration::from_secs(20)), move || stage.broker.start());
            }
            FaultKind::Blocked => {
                stage.broker.set_blocked(Some("low on memory"));
                self.later(pause, move || stage.broker.set_blocked(None));
            }
            FaultKind::Queue => {
                stage.broker.delete_queue(&agent_queue(&host.name));
            }
            FaultKind::Full => {
                host.disk.set_room(Some(host.disk.used() + random.between(0, 600)));
                let host = host.clone();
                self.later(pause, move || host.disk.set_room(None));
            }
            FaultKind::Disk => {
                let fault = *random.one_of(&[Fault::NoRoom, Fault::InputOutput, Fault::ShortWrite, Fault::FailedSync]);
                let at = host.disk.operations() + random.between(1, 40);
                host.disk.inject(at, fault);
                stage.trace.note(format_args!("{} has {fault:?} before it", host.name));
            }
            FaultKind::Clock => {
                let far = *random.one_of(&[2_000_u64, 50_000, 100_000, 4_000_000]);
                let ms = i64::try_from(random.between(0, 2 * far)).unwrap_or(0) - i64::try_from(far).unwrap_or(0);
                stage.world.changed(host.index, |_| host.clock.set_wrong_by_ms(ms));
                stage.trace.note(format_args!("{} is {ms} ms wrong", host.name));
                let host = host.clone();
                self.later(long, move || {
                    stage.world.changed(host.index, |_| host.clock.set_wrong_by_ms(0));
                });
            }
            FaultKind::Client => self.people[person].crash(),
            FaultKind::Policy => {
                let rules = if random.per_mille(500) { Rules::Open } else { Rules::Closed };
                stage.world.changed(host.index, |place| place.rules = rules);
                if let Some(handle) = host.handle() {
                    self.tasks.spawn(TaskKind::Worker, "reload", async move { handle.reload().await });
                }
            }
            FaultKind::Revoke => self.revoke(),
            _ => {
                let rate = |random: &mut Random| u32::try_from(random.between(0, 120)).unwrap_or(0);
                let storm = Storm {
                    drop: rate(&mut random),
                    duplicate: rate(&mut random),
                    delay: rate(&mut random) * 3,
                    cut: rate(&mut random) / 8,
                };
                stage.network.set_storm(storm);
                stage.trace.note(format_args!("weather {storm:?}"));
                self.later(long, move || stage.network.set_storm(Storm::default()));
            }
        }
    }

    /// Sends the list that revokes `rita` to all who listen.
    fn revoke(&mut self) {
        self.revoked = true;
        let message = Outgoing {
            exchange: EXCHANGE_COMMAND,
            routing_key: KEY_ALL.to_owned(),
            content_type: CONTENT_TYPE_CRL.to_owned(),
            body: self.stage.site.list_after.clone().into_bytes().into(),
            signatures: bytes::Bytes::new(),
            expiration_ms: None,
            persistent: true,
            mandatory: false,
            correlation_id: None,
        };
        self.stage.broker.inject(self.stage.site.lea.identity(), message);
    }

    /// Notes which hosts know of the revocation.
    fn look_for_revocation(&self) {
        if !self.revoked {
            return;
        }
        let now_ms = self.stage.trace.now_ms();
        let probe = self.stage.site.rita.sign("text/plain", b"probe");
        for host in self.stage.hosts.iter() {
            let Some(trust) = host.trust() else { continue };
            if trust.verify("text/plain", b"probe", std::slice::from_ref(&probe), crate::site::NOW).is_err() {
                self.stage.world.at(host.index, |place| *place.revoked_since_ms.get_or_insert(now_ms));
            }
        }
    }

    fn later(&self, time: Duration, act: impl FnOnce() + Send + 'static) {
        self.tasks.spawn(TaskKind::Worker, "end of a fault", async move {
            tokio::time::sleep(time).await;
            act();
        });
    }
}
