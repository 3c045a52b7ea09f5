//! How fast agents connect, and how fast bare connections do.

use anyhow::Result;
use muster_fleet::raw::connect_storm;
use muster_fleet::{Fleet, Ground};
use tokio::time::Instant;

use super::{AT_ONCE, Plan, START_LIMIT, add_bytes, count, options};
use crate::process::memory_of_group;
use crate::results::{Outcome, Quantity, Scenario};

/// From so many hosts on one storm each is enough: it takes long and varies little.
const ONE_ROUND_FROM: usize = 5_000;

/// Storms of fewer hosts, where there are rounds enough.
const ROUNDS: usize = 3;

/// Lets raw connections and agents storm the broker in turn. The last agents stay connected.
pub(super) async fn storm(mut ground: Ground, plan: &Plan) -> Result<(Outcome, Fleet)> {
    let mut outcome = Outcome::new(Scenario::Storm, plan.hosts, plan.broker);
    let rounds = if plan.hosts >= ONE_ROUND_FROM || plan.rounds <= ROUNDS { 1 } else { ROUNDS };
    for round in 1..=rounds {
        eprintln!("    {} hosts: connect storm {round} of {rounds}", plan.hosts);
        let raw = connect_storm(&ground, plan.hosts, AT_ONCE)?;
        outcome.add(Quantity::RawReadyPerSecond, raw.per_second());
        if round == 1 {
            // Of a broker that nobody has used; one that has been may have memory left.
            outcome.add(Quantity::ConnectionBytes, raw.bytes_a_connection());
        }
        let started = Instant::now();
        let fleet = Fleet::start_on(ground, options(plan.hosts), START_LIMIT).await?;
        outcome.add(Quantity::ReadyPerSecond, count(plan.hosts) / started.elapsed().as_secs_f64());
        if round == rounds {
            return Ok((outcome, fleet));
        }
        (_, ground) = fleet.leave().await;
        ground.clear()?;
    }
    anyhow::bail!("a storm needs a round")
}

/// Notes what the connected agents and their broker hold.
pub(super) async fn note_memory(outcome: &mut Outcome, fleet: &Fleet, before: u64) -> Result<()> {
    let here = if fleet.processes() == 1 { before } else { 0 };
    add_bytes(outcome, Quantity::FleetBytes, fleet.usage().await?.resident_bytes.saturating_sub(here));
    if let Some(group) = fleet.ground.broker.pid() {
        add_bytes(outcome, Quantity::BrokerBytes, memory_of_group(group)?);
    }
    Ok(())
}
