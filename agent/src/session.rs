//! Connections to the broker, one after the other, and what happens on one of them.
//!
//! One task owns the connection's events: deliveries, answers to data calls, the clock for
//! announcements, the end. It handles them one after the other, which is what makes "look into the
//! journal, then write into it" safe.
//!
//! A host whose own certificate has expired or is revoked takes no commands: nobody would believe what it tells of
//! them. Its reports wait until it has another one, and are signed anew then.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use muster_bus::{BusError, ConsumeOptions, Consumer, ConsumerEnd, Link, Operation, QueueSpec};
use muster_pki::VerifyError;
use muster_protocol::routing::{EXCHANGE_COMMAND, KEY_ALL, agent_queue, collective_key, host_key};
use muster_protocol::{AnnouncementKind, CollectiveName};
use rand::RngExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::core::{Connection, Core, chain};
use crate::presence::{self, Presence};
use crate::receive::{self, Resolved};
use crate::reconnect::{Answer, Reconnect};
use crate::state::files;

/// Deliveries the broker sends ahead (DESIGN.md section 5). Each holds at most a megabyte.
const PREFETCH: u16 = 10;

/// Longest pause before a subscription that the broker has ended is made again.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(2);

/// How often the log repeats that there is still no connection, for the same reason.
const REMIND_EVERY: Duration = Duration::from_secs(5 * 60);

/// How often a host looks whether its own certificate is still believed, without a reason.
const DOUBT_INTERVAL: Duration = Duration::from_secs(60);

/// What a host signs to see whether it would be believed: nothing that anybody takes.
const PROBE_TYPE: &str = "application/octet-stream";

/// Why a connection is not used any more.
enum End {
    /// The agent stops. The link is still open.
    Stopping(Presence),
    /// Certificates or addresses were replaced.
    Replaced,
    /// It broke.
    Lost(Failed),
}

/// What the log says about a time without a connection: the first failure, a new reason, now and then a
/// reminder, and the end.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    /// When each kind of reason was last told. Not its text: that names the brokers in the random order in
    /// which they were tried.
    told: BTreeMap<&'static str, Instant>,
    tries: u64,
}

/// How loudly a failure is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    New,
    Reminder,
    Repeated,
}

impl Outage {
    fn failed(&mut self, code: &'static str, now: Instant) -> Telling {
        self.since.get_or_insert(now);
        self.tries += 1;
        let telling = match self.told.get(code) {
            Some(at) if now.duration_since(*at) < REMIND_EVERY => return Telling::Repeated,
            Some(_) => Telling::Reminder,
            None => Telling::New,
        };
        self.told.insert(code, now);
        telling
    }

    /// How long it was and how many tries it took, if there was one.
    fn ended(&mut self, now: Instant) -> Option<(Duration, u64)> {
        let ended = std::mem::take(self);
        ended.since.map(|since| (now.duration_since(since), ended.tries))
    }
}

/// Why there is no connection.
struct Failed {
    /// What kind of reason it is.
    code: &'static str,
    why: String,
    /// What a broker said.
    answer: Answer,
}

impl Failed {
    fn lost(reason: impl std::fmt::Display) -> Self {
        Self { code: "connection-lost", why: reason.to_string(), answer: Answer::Refused }
    }
}

/// Connects and serves until the agent stops. Returns the last link, still open, with what it has
/// announced, if there is one.
pub(crate) async fn serve(core: &Arc<Core>, mut reloaded: watch::Receiver<u64>) -> Option<(Arc<dyn Link>, Presence)> {
    let mut reconnect = Reconnect::new(core.config.reconnect_spread(), core.config.reconnect_max());
    let mut outage = Outage::default();
    loop {
        reloaded.mark_unchanged();
        let bus = core.materials().bus;
        core.pulse.tries();
        let connected = match disbelieved(core) {
            Some(failed) => Err(failed),
            None => tokio::select! {
                biased;
                () = core.shutdown.cancelled() => return None,
                connected = bus.connect() => connected.map_err(|error| told(&error)),
            },
        };
        let Failed { code, why, answer } = match connected {
            Err(failed) => failed,
            Ok(link) => {
                let since = Instant::now();
                let end = on_link(core, &link, &bus.describe(), &mut reloaded, &mut outage).await;
                if !matches!(end, End::Stopping(_)) {
                    core.link.send_replace(None);
                }
                reconnect.lost(since.elapsed());
                match end {
                    End::Stopping(presence) => return Some((link, presence)),
                    End::Replaced => {
                        link.close().await;
                        reconnect.replaced();
                        continue;
                    }
                    End::Lost(why) => {
                        link.close().await;
                        why
                    }
                }
            }
        };
        let pause = core.with_random(|random| reconnect.pause(answer, random));
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        match outage.failed(code, Instant::now()) {
            Telling::New => tracing::warn!(why, pause_ms, "Not connected to the broker; trying again"),
            Telling::Reminder => tracing::warn!(why, tries = outage.tries, "Still not connected to the broker"),
            Telling::Repeated => {
                tracing::debug!(why, pause_ms, tries = outage.tries, "Still not connected to the broker")
            }
        }
        let now = core.now();
        core.pulse.failed(&why, now, now.plus_ms(i64::try_from(pause_ms).unwrap_or(i64::MAX)));
        core.connection.send_replace(Connection::Connecting { why });
        tokio::select! {
        biased;
                    () = core.shutdown.cancelled() => return None,
                    changed = reloaded.changed() => if changed.is_ok() { reconnect.replaced() },
                    () = tokio::time::sleep(pause) => {}
                }
    }
}

fn told(error: &BusError) -> Failed {
    let answer = match error {
        BusError::Unreachable { .. } | BusError::Settings { .. } => Answer::None,
        BusError::Conflict { operation: Operation::Consume, .. } => Answer::InUse,
        _ => Answer::Refused,
    };
    Failed { code: error.code(), why: format!("{} ({})", chain(error), error.hint()), answer }
}

/// Why nobody would believe what this host signs, if that is so.
fn disbelieved(core: &Core) -> Option<Failed> {
    let (materials, now) = (core.materials(), core.now());
    let probe = materials.credentials.sign(PROBE_TYPE, b"");
    let error = materials.trust.verify(PROBE_TYPE, b"", &[probe], now).err()?;
    let is_over = matches!(error, VerifyError::Expired { .. } | VerifyError::Revoked { .. });
    let why = format!(
        "this host's own certificate would not be believed: {error}; put another one at `{}` and reload",
        core.config.certificate().display()
    );
    is_over.then(|| Failed { code: error.code().code, why, answer: Answer::Refused })
}

/// When to look at the host's own certificate again: when it ends, and now and then, since the clock may be set.
fn next_doubt(core: &Core) -> Instant {
    let left_ms = core.materials().credentials.not_after().since_ms(core.now()).saturating_add(1_000);
    let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
    Instant::now() + left.clamp(Duration::from_secs(1), DOUBT_INTERVAL)
}

/// Serves one connection to its end.
async fn on_link(
    core: &Arc<Core>,
    link: &Arc<dyn Link>,
    broker: &str,
    reloaded: &mut watch::Receiver<u64>,
    outage: &mut Outage,
) -> End {
    let mut presence = Presence::default();
    core.counters.connections.add_one();
    loop {
        let consumer = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return End::Stopping(presence),
            consumer = subscribe(core, &**link) => consumer,
        };
        let consumer = match consumer {
            Ok(consumer) => consumer,
            Err(error) => return End::Lost(told(&error)),
        };
        core.link.send_replace(Some(link.clone()));
        core.spool_changed.notify_one();
        core.pulse.connected();
        core.connection.send_replace(Connection::Online { broker: broker.to_owned(), since: core.now() });
        match outage.ended(Instant::now()) {
            Some((away, tries)) => {
                tracing::info!(broker, away_s = away.as_secs(), tries, "Connected again; taking commands");
            }
            None => tracing::info!(broker, "Connected; taking commands"),
        }
        presence.announce(core, &**link, AnnouncementKind::Online).await;
        match Box::pin(consume(core, link, consumer, &mut presence, reloaded)).await {
            Some(end) => return end.unwrap_or(End::Stopping(presence)),
            None => tracing::warn!("The broker ended the subscription; declaring the queue again"),
        }
        // All hosts of a queue's node are told at once, and a broker that ends it again and again is not to be asked
        // in a circle.
        let pause = core.with_random(|random| RESUBSCRIBE_PAUSE.mul_f64(random.random_range(0.0..=1.0)));
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return End::Stopping(presence),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Declares the host's queue with its bindings and starts reading it.
async fn subscribe(core: &Core, link: &dyn Link) -> Result<Consumer, BusError> {
    let queue = agent_queue(&core.host);
    let mut keys = vec![KEY_ALL.to_owned(), host_key(&core.host)];
    keys.extend(core.config.collectives().iter().map(collective_key));
    link.declare_bound(QueueSpec::durable(&queue), EXCHANGE_COMMAND, &keys).await?;
    for collective in former_collectives(core) {
        link.unbind(&queue, EXCHANGE_COMMAND, &collective_key(&collective)).await?;
    }
    remember_collectives(core);
    link.consume(&queue, ConsumeOptions { prefetch: PREFETCH, exclusive: true }).await
}

/// Collectives the queue was bound to before and should not be any more. The broker cannot be asked
/// for a queue's bindings, so the agent remembers them.
fn former_collectives(core: &Core) -> Vec<CollectiveName> {
    let Ok(Some(text)) = core.state.read(files::COLLECTIVES) else { return Vec::new() };
    let before: Vec<CollectiveName> = serde_json::from_slice(&text).unwrap_or_default();
    before.into_iter().filter(|collective| !core.config.collectives().contains(collective)).collect()
}

fn remember_collectives(core: &Core) {
    let text = serde_json::to_vec(core.config.collectives()).unwrap_or_default();
    if core.state.read(files::COLLECTIVES).is_ok_and(|before| before.is_some_and(|before| before == text)) {
        return;
    }
    if let Err(error) = core.state.write(files::COLLECTIVES, &text) {
        tracing::warn!(error = chain(&error), "Could not remember the collectives of this host");
    }
}

/// Handles what comes. `None`: subscribe again on the same link. `Some(None)`: the agent stops.
async fn consume(
    core: &Arc<Core>,
    link: &Arc<dyn Link>,
    mut consumer: Consumer,
    presence: &mut Presence,
    reloaded: &mut watch::Receiver<u64>,
) -> Option<Option<End>> {
    // As many as the broker sends ahead, so that nobody who resolves a target ever waits here.
    let (resolved, mut answered) = mpsc::channel::<Resolved>(usize::from(PREFETCH));
    // What is waited for all the time is made once and not for each delivery.
    let mut announce = pin!(tokio::time::sleep(presence::pause(core)));
    let mut doubt = pin!(tokio::time::sleep_until(next_doubt(core)));
    let mut shutdown = pin!(core.shutdown.cancelled());
    let mut closed = link.closed();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return Some(None),
            changed = reloaded.changed(), if !core.shutdown.is_cancelled() => {
                if changed.is_ok() {
                    return Some(Some(End::Replaced));
                }
            }
            // Before the deliveries: what comes behind a list that revokes this host is not for it any more.
            () = core.certificate_doubted.notified() => {
                if let Some(failed) = disbelieved(core) {
                    return Some(Some(End::Lost(failed)));
                }
            }
            () = &mut doubt => {
                if let Some(failed) = disbelieved(core) {
                    return Some(Some(End::Lost(failed)));
                }
                doubt.as_mut().reset(next_doubt(core));
            }
            // Before the deliveries, so that a host that gets them without end is still known to be there.
            () = &mut announce => {
                presence.announce(core, &**link, AnnouncementKind::Alive).await;
                announce.as_mut().reset(Instant::now() + presence::pause(core));
            }
            () = core.inventory_changed.notified() => presence.announce(core, &**link, AnnouncementKind::Alive).await,
            message = answered.recv() => {
                if let Some(message) = message {
                    receive::handle_resolved(core, message, &resolved).await;
                }
            }
            delivery = consumer.next() => match delivery {
                Some(delivery) => receive::handle(core, delivery, &resolved).await,
                None => return ended(link, consumer.ended()).await,
            },
            reason = &mut closed => return Some(Some(End::Lost(Failed::lost(reason)))),
        }
    }
}

async fn ended(link: &Arc<dyn Link>, end: ConsumerEnd) -> Option<Option<End>> {
    match end {
        ConsumerEnd::CancelledByBroker => None,
        ConsumerEnd::ConnectionLost | ConsumerEnd::Closed => {
            // The reason may come a moment after the end.
            let reason = tokio::time::timeout(Duration::from_secs(1), link.closed()).await;
            Some(Some(End::Lost(reason.map_or_else(|_| Failed::lost("connection lost"), Failed::lost))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_said_decides_over_the_pause() {
        let (resource, why) = ("muster.agent.web-1.ams1".to_owned(), "in exclusive use".to_owned());
        let conflict = |operation| BusError::Conflict { operation, resource: resource.clone(), why: why.clone() };
        for (error, expected) in [
            (BusError::Unreachable { tries: Vec::new() }, Answer::None),
            (conflict(Operation::Consume), Answer::InUse),
            // A queue that somebody declared otherwise stays so until an operator does something.
            (conflict(Operation::Declare), Answer::Refused),
            (BusError::Denied { operation: Operation::Consume, resource: resource.clone(), why }, Answer::Refused),
        ] {
            let code = error.code();
            assert_eq!(told(&error).answer, expected, "{code}");
        }
    }

    #[test]
    fn an_outage_is_told_once_then_now_and_then() {
        let mut outage = Outage::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(outage.ended(at(0)), None);
        for (seconds, why, expected) in [
            (0, "refused", Telling::New),
            (1, "refused", Telling::Repeated),
            (299, "refused", Telling::Repeated),
            (300, "refused", Telling::Reminder),
            (301, "refused", Telling::Repeated),
            (302, "certificate", Telling::New),
            (303, "refused", Telling::Repeated),
        ] {
            assert_eq!(outage.failed(why, at(seconds)), expected, "after {seconds} s: {why}");
        }
        assert_eq!(outage.ended(at(310)), Some((Duration::from_secs(310), 7)));
        assert_eq!(outage.failed("refused", at(400)), Telling::New);
    }
}
