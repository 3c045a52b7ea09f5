//! Takes the broker away from a fleet, and measures how the fleet comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_client::discover::ping;
use muster_client::{Audience, Controller};
use muster_daemon::{Clock as _, SystemClock};
use muster_protocol::{HostName, TaskState, Timestamp};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::crew::CrewState;
use crate::fleet::Fleet;
use crate::meter::Counted;
use crate::process::Usage;

/// How the broker goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// Killed, as by a power failure.
    Kill,
    /// Stopped and started in order, as for an upgrade.
    Restart,
    /// All connections are closed while the broker stays, as when something between breaks.
    CloseAll,
}

/// What is asked of a storm.
#[derive(Debug, Clone, Copy)]
pub struct StormOptions {
    /// How the broker goes away.
    pub blow: Blow,
    /// How many hosts run an action that changes something while it happens.
    pub running: usize,
    /// How long that action takes.
    pub running_for: Duration,
    /// How long the fleet may take to come back.
    pub limit: Duration,
}

impl StormOptions {
    /// A storm with a few running actions.
    #[must_use]
    pub fn new(blow: Blow) -> Self {
        Self { blow, running: 10, running_for: Duration::from_secs(5), limit: Duration::from_secs(600) }
    }
}

/// What was measured. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// How the broker went away.
    pub blow: Blow,
    /// Agents that should come back.
    pub agents: usize,
    /// How long `host.ping` of all took before.
    pub ping_before_ms: u64,
    /// From the blow until the broker listened again.
    pub broker_away_ms: u64,
    /// From then until all agents took commands again.
    pub all_back_ms: u64,
    /// From then until half of them did.
    pub half_back_ms: u64,
    /// From the same moment until a ping by name had an answer of everybody.
    pub ping_complete_ms: u64,
    /// How long `host.ping` of all took afterwards.
    pub ping_after_ms: u64,
    /// Attempts to connect while the broker was down and after.
    pub connecting: Counted,
    /// Attempts once the broker listened again, for each agent.
    pub attempts_per_agent_after: f64,
    /// Processor time of the broker until all were back.
    pub broker_processor_ms: u64,
    /// Most memory of the broker, in bytes.
    pub broker_resident_bytes: u64,
    /// Processor time of all agents together until all were back.
    pub agents_processor_ms: u64,
    /// Memory of this process with all agents, in bytes.
    pub agents_resident_bytes: u64,
    /// Agents whose announcement after the blow did not arrive.
    pub presence_lost: usize,
    /// Actions that ran during the blow and whose end the client has heard.
    pub running_answered: usize,
    /// Those that were begun.
    pub running_begun: usize,
    /// Requests that started more than once on a host.
    pub started_twice: usize,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Pings these hosts by name until all have answered; says how long that took and how many answered.
///
/// # Errors
/// The broker cannot be reached.
pub async fn ping_all(
    controller: &mut Controller,
    hosts: &BTreeSet<HostName>,
    window: Duration,
) -> Result<(u64, usize)> {
    let started = Instant::now();
    let window_ms = i64::try_from(window.as_millis())?;
    let question = ping(Audience::Hosts(hosts.clone()), window_ms, BTreeSet::new());
    let summary = controller.ask(&question)?.finish().await;
    Ok((ms(started.elapsed()), summary.counts.of(TaskState::Succeeded)))
}

/// Hits a fleet and measures.
///
/// # Errors
/// The broker does not come back, or the fleet does not within the limit.
pub async fn storm(fleet: &mut Fleet, options: StormOptions) -> Result<Measured> {
    let everybody: BTreeSet<HostName> = fleet.answering().cloned().collect();
    let agents = fleet.options().agents();
    fleet.listen_to_presence().await?;
    let mut controller = fleet.controller().await?;
    let (ping_before_ms, _) = ping_all(&mut controller, &everybody, options.limit).await?;
    let busy: BTreeSet<HostName> = everybody.iter().take(options.running).cloned().collect();
    let question = Fleet::question(busy, "change", json!({ "ms": ms(options.running_for) }));
    let begun_before = fleet.state(Timestamp(0)).await?.starts;
    let mut asking = controller.ask(&question)?;
    while fleet.state(Timestamp(0)).await?.starts < begun_before + options.running {
        // Whatever happens to the request is in its summary; this waits until it runs everywhere.
        if tokio::time::timeout(Duration::from_millis(20), asking.next()).await.is_ok_and(|event| event.is_none()) {
            break;
        }
    }
    let running_begun = fleet.state(Timestamp(0)).await?.starts - begun_before;

    let own = fleet.usage().await?;
    fleet.restart_meter().await?;
    let blow_at = Timestamp(SystemClock.now_ms());
    let blow = Instant::now();
    let mut broker_before = Usage::default();
    match options.blow {
        Blow::Kill => {
            fleet.ground.broker.kill()?;
            fleet.ground.broker.resume()?;
        }
        Blow::Restart => {
            fleet.ground.broker.stop()?;
            fleet.ground.broker.resume()?;
        }
        Blow::CloseAll => {
            broker_before = fleet.ground.broker.usage();
            fleet.ground.broker.cut_all()?;
        }
    }
    let listening = Instant::now();
    let attempts_before = fleet.state(Timestamp(0)).await?.counted.attempts;
    // The client goes on by itself; what it hears is looked at when the fleet is back.
    let (back, summary) = tokio::join!(come_back(fleet, blow_at, agents, options.limit), asking.finish());
    let back = back?;
    drop(controller);
    let CrewState { counted: connecting, usage, twice, .. } = fleet.state(Timestamp(0)).await?;
    let agents_processor = usage.processor.saturating_sub(own.processor);
    let running_answered = summary.counts.of(TaskState::Succeeded);

    let mut controller = fleet.controller().await?;
    let (ping_after_ms, answered) = ping_all(&mut controller, &everybody, options.limit).await?;
    let ping_complete_ms = ms(listening.elapsed());
    anyhow::ensure!(answered == everybody.len(), "{answered} of {} answer a ping after the storm", everybody.len());
    controller.close().await;
    let announced = fleet.announced_online(agents).await?;
    let attempts_after = connecting.attempts.saturating_sub(attempts_before);
    Ok(Measured {
        blow: options.blow,
        agents,
        ping_before_ms,
        broker_away_ms: ms(listening.duration_since(blow)),
        all_back_ms: ms(back.all),
        half_back_ms: ms(back.half),
        ping_complete_ms,
        ping_after_ms,
        attempts_per_agent_after: ratio(attempts_after, agents),
        connecting,
        broker_processor_ms: ms(back.broker.processor.saturating_sub(broker_before.processor)),
        broker_resident_bytes: back.broker.resident_bytes,
        agents_processor_ms: ms(agents_processor),
        agents_resident_bytes: usage.resident_bytes,
        presence_lost: everybody.iter().filter(|host| !announced.contains(*host)).count(),
        running_answered,
        running_begun,
        started_twice: twice,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of thousands, shown with one digit")]
fn ratio(count: u64, of: usize) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

struct Back {
    half: Duration,
    all: Duration,
    broker: Usage,
}

/// Watches agents come back, and what that costs the broker.
async fn come_back(fleet: &Fleet, since: Timestamp, agents: usize, limit: Duration) -> Result<Back> {
    let started = Instant::now();
    let mut half = None;
    let mut resident_peak = 0;
    loop {
        let online = fleet.online(since).await?;
        let broker = fleet.ground.broker.usage();
        resident_peak = resident_peak.max(broker.resident_bytes);
        if half.is_none() && online * 2 >= agents {
            half = Some(started.elapsed());
        }
        if online >= agents {
            let all = started.elapsed();
            let broker = Usage { resident_bytes: resident_peak, ..broker };
            return Ok(Back { half: half.unwrap_or(all), all, broker });
        }
        if started.elapsed() > limit {
            return fleet.all_online(since, Duration::ZERO).await.map(|_| unreachable!()).context("after the storm");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
