//! Scenarios without a fleet: one idle agent, and five agents that are pinged. All are the real programs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_fleet::Ground;
use muster_fleet::idle::{IdleOptions, measure};
use muster_tests::programs::{Access, AgentProcess, AgentSettings, Party};

use super::program::{ANSWERED, Desktop};
use super::{Plan, SEED, add_bytes};
use crate::order::Desk;
use crate::results::{Outcome, Quantity, Scenario};

/// Hosts of the scenario `few`.
const FEW: usize = 5;

/// For each round of a fleet, so many rounds of so short a program.
const ROUNDS_FACTOR: usize = 5;

/// How long an idle agent is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures what needs no fleet, and hands out each outcome.
///
/// # Errors
/// An outcome cannot be handed out. What goes wrong before is in the outcomes.
pub async fn small(plan: Plan, mut emit: impl FnMut(Outcome) -> Result<()>) -> Result<()> {
    for scenario in [Scenario::Few, Scenario::Idle].into_iter().filter(|scenario| plan.wants(*scenario)) {
        eprintln!("==> {} ({})", scenario.title(), plan.broker);
        let mut outcome = Outcome::new(scenario, if scenario == Scenario::Few { FEW } else { 1 }, plan.broker);
        let done = match scenario {
            Scenario::Few => few(&plan, &mut outcome).await,
            _ => idle(&plan, &mut outcome),
        };
        if let Err(error) = done {
            eprintln!("    {} failed: {error:#}", scenario.title());
            outcome.failed = Some(format!("{error:#}"));
        }
        emit(outcome)?;
    }
    Ok(())
}

async fn few(plan: &Plan, outcome: &mut Outcome) -> Result<()> {
    let ground = Ground::prepare(plan.broker, FEW, SEED)?;
    let folder = tempfile::Builder::new().prefix("muster-few-").tempdir()?;
    let mut agents = Vec::new();
    for name in ground.hosts() {
        let member = ground.site.member(&format!("host/{name}"));
        let access = Access {
            urls: vec![ground.broker.url()],
            ca: member.files.ca.clone(),
            crl: Some(member.files.crl.clone()),
        };
        let place = folder.path().join(name.as_str());
        AgentProcess::prepare(&AgentSettings::new(name.clone()), &access, &Party::from(&member), &place)?;
        agents.push(AgentProcess::start_as(name.clone(), &place, &plan.programs.join("musterd"), &[])?);
    }
    tokio::task::block_in_place(|| agents.iter_mut().try_for_each(AgentProcess::wait_ready))?;
    let names: Vec<String> = ground.hosts().map(ToString::to_string).collect();
    let desk = Desk::of(&ground, folder.path().join("names"));
    let desktop = Desktop::new(plan, &desk, folder.path())?;
    let list = names.join(",");
    for _ in 0..plan.rounds {
        desktop.forget()?;
        let ran = desktop.run(&["ping", "--all"], FEW, ANSWERED).await?;
        outcome.add(Quantity::ColdFirstByteMs, ran.first_byte_ms);
        outcome.add(Quantity::ColdExitMs, ran.exit_ms);
    }
    for _ in 0..plan.warm_ups {
        desktop.run(&["ping", "--all"], FEW, ANSWERED).await?;
    }
    for _ in 0..plan.rounds * ROUNDS_FACTOR {
        let ran = desktop.run(&["ping", "--all"], FEW, ANSWERED).await?;
        outcome.add(Quantity::WarmFirstByteMs, ran.first_byte_ms);
        outcome.add(Quantity::WarmExitMs, ran.exit_ms);
        let ran = desktop.run(&["ping", "-H", &list], FEW, ANSWERED).await?;
        outcome.add(Quantity::NamedFirstByteMs, ran.first_byte_ms);
        outcome.add(Quantity::NamedExitMs, ran.exit_ms);
        outcome.add(Quantity::ProgramStartUs, ran.processor_us);
        add_bytes(outcome, Quantity::ProgramPeakBytes, ran.peak_bytes);
    }
    tokio::task::block_in_place(|| {
        for agent in &mut agents {
            ensure!(agent.ended()?.is_none(), "the agent of `{}` has ended\n{}", agent.host(), agent.log());
            agent.stop().context("stop an agent")?;
        }
        ground.stop()
    })
}

fn idle(plan: &Plan, outcome: &mut Outcome) -> Result<()> {
    let window = Duration::from_secs(plan.idle_s);
    let options =
        IdleOptions { program: plan.programs.join("musterd"), broker: plan.broker, settle: SETTLE.min(window), window };
    let samples = if plan.rounds > 3 { 3 } else { 1 };
    for _ in 0..samples {
        let idle = tokio::task::block_in_place(|| measure(&options))?;
        add_bytes(outcome, Quantity::IdlePssBytes, idle.memory.pss_bytes);
        add_bytes(outcome, Quantity::IdleRefreshedPssBytes, idle.memory_after_refresh.pss_bytes);
        add_bytes(outcome, Quantity::IdlePrivateBytes, idle.memory.private_dirty_bytes);
        add_bytes(outcome, Quantity::AgentBinaryBytes, idle.program_bytes);
        outcome.add(Quantity::IdleUsPerMinute, idle.processor_us_per_minute);
        outcome.add(Quantity::IdleWakeUpsPerMinute, idle.wakeups_per_minute);
        outcome.add(Quantity::IdleTlsPerMinute, idle.tls_bytes_per_minute);
        outcome.add(Quantity::IdleWirePerMinute, idle.wire_bytes_per_minute);
    }
    Ok(())
}
