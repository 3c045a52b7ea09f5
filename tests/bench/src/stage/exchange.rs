//! Scenarios with the raw echo beside them: rounds that alternate.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use muster_client::Audience;
use muster_client::discover::ping;
use muster_fleet::raw::{Asked, Kind, Messages};
use muster_protocol::HostName;

use super::{Stage, add_bytes, count};
use crate::controller::{run, target};
use crate::order::{Done, Order};
use crate::process::{processor_of_group, processor_of_self};
use crate::results::{Outcome, Quantity, Scenario};

/// Named hosts of the scenario `named`; a tenth where the fleet has fewer than ten times as many.
const NAMED: usize = 100;

/// The tenth that the filter matches. The first host is in it, whose messages are the models of the echo.
const GROUP: usize = 0;

/// How long one round may take.
const ROUND_LIMIT: Duration = Duration::from_secs(180);

/// How long a host may take to answer when messages are recorded, in milliseconds: only one answers.
const RECORDING_MS: i64 = 2_000;

/// Processor time of everybody at one moment, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    own: f64,
    broker: f64,
}

/// What a scenario asks, and of whom.
struct Questions {
    order: Order,
    controllers: usize,
    kind: Kind,
    /// What the raw echo exchanges, one step after the other.
    steps: Vec<(Messages, Asked)>,
}

/// Measures a scenario.
pub(super) async fn exchange(stage: &mut Stage, scenario: Scenario, outcome: &mut Outcome) -> Result<()> {
    let questions = questions(stage, scenario).await.context("record what is said")?;
    let (messages, _) = questions.steps.last().context("a scenario has a step")?;
    let request = &messages.requests[0];
    outcome.add(Quantity::CommandBytes, count(request.body.len() + request.signatures.len()));
    outcome.add(Quantity::ReplyBytes, count(messages.reply_bytes()));
    outcome.add(Quantity::Reports, count(messages.replies.len()));
    stage.controllers(questions.controllers).await?;
    stage.echo(questions.kind, messages)?;
    for round in 0..stage.plan.warm_ups + stage.plan.rounds {
        let mut unseen = Outcome::new(scenario, stage.plan.hosts);
        let into = if round < stage.plan.warm_ups { &mut unseen } else { &mut *outcome };
        // Neither is always the one that comes after the other.
        if round % 2 == 0 {
            raw(stage, &questions, into)?;
            muster(stage, &questions, into).await?;
        } else {
            muster(stage, &questions, into).await?;
            raw(stage, &questions, into)?;
        }
    }
    Ok(())
}

async fn questions(stage: &Stage, scenario: Scenario) -> Result<Questions> {
    let (hosts, ground) = (stage.plan.hosts, &stage.fleet.ground);
    let first = |count: usize| -> BTreeSet<HostName> { stage.fleet.hosts().take(count).cloned().collect() };
    let everybody = |controllers| Asked { controllers, named: None, replying: hosts };
    let by_name = |count| Asked { controllers: 1, named: Some(count), replying: count };
    let talk = async |names: BTreeSet<HostName>, bytes| {
        let question = muster_client::Question { reply_timeout_ms: RECORDING_MS, ..run(names, bytes) };
        Messages::record(ground, &question).await
    };
    let named = NAMED.min(hosts.div_ceil(10));
    let (order, controllers, kind, steps) = match scenario {
        Scenario::Ping => (Order::Ping, 1, Kind::Lean, vec![(Messages::ping(ground).await?, everybody(1))]),
        Scenario::Lapin => (Order::Ping, 1, Kind::Lapin, vec![(Messages::ping(ground).await?, everybody(1))]),
        Scenario::Two => (Order::Ping, 2, Kind::Lean, vec![(Messages::ping(ground).await?, everybody(2))]),
        Scenario::Named => {
            let order = Order::Run { hosts: named, bytes: 0 };
            (order, 1, Kind::Lean, vec![(talk(first(named), 0).await?, by_name(named))])
        }
        Scenario::Run1k | Scenario::Run64k => {
            let bytes = if scenario == Scenario::Run1k { 1_024 } else { 64 * 1_024 };
            let order = Order::Run { hosts, bytes };
            (order, 1, Kind::Lean, vec![(talk(first(hosts), bytes).await?, by_name(hosts))])
        }
        Scenario::Filter => {
            let order = Order::Filter { group: GROUP };
            let matching = order.answering(hosts);
            let likely: BTreeSet<HostName> = first(1);
            let search = ping(Audience::Matching(target(GROUP)?.as_str().to_owned()), RECORDING_MS, likely);
            let search = (Messages::record(ground, &search).await?, Asked { replying: matching, ..everybody(1) });
            let tenth = stage.fleet.hosts().step_by(10).cloned().collect();
            (order, 1, Kind::Lean, vec![search, (talk(tenth, 0).await?, by_name(matching))])
        }
        Scenario::Storm | Scenario::Cpu | Scenario::Idle | Scenario::Few => bail!("{scenario:?} has no exchange"),
    };
    Ok(Questions { order, controllers, kind, steps })
}

fn clocks(stage: &Stage) -> Result<Clocks> {
    let group = stage.fleet.ground.broker.node().pid().context("the broker does not run")?;
    let us = |duration: Duration| duration.as_secs_f64() * 1e6;
    Ok(Clocks { own: us(processor_of_self()?), broker: us(processor_of_group(group)?) })
}

fn answers(stage: &Stage, questions: &Questions) -> f64 {
    count(questions.order.answering(stage.plan.hosts) * questions.controllers)
}

fn raw(stage: &mut Stage, questions: &Questions, outcome: &mut Outcome) -> Result<()> {
    let (mut took, mut own, mut broker) = (Duration::ZERO, 0.0, 0.0);
    for (messages, asked) in &questions.steps {
        if questions.steps.len() > 1 {
            stage.echo(questions.kind, messages)?;
        }
        let before = clocks(stage)?;
        let echo = stage.echo.as_mut().context("the echo is connected")?;
        let round = echo.ask(&stage.fleet.ground, *asked).context("ask the raw echo")?;
        let expected = asked.replying * asked.controllers * messages.replies.len();
        ensure!(round.replies == expected, "{} of {expected} raw answers came", round.replies);
        let after = clocks(stage)?;
        took += round.took;
        own += after.own - before.own;
        broker += after.broker - before.broker;
    }
    let answers = answers(stage, questions);
    outcome.add(Quantity::RawCompleteMs, took.as_secs_f64() * 1e3);
    outcome.add(Quantity::RawOwnUs, own / answers);
    outcome.add(Quantity::RawBrokerUs, broker / answers);
    Ok(())
}

async fn muster(stage: &mut Stage, questions: &Questions, outcome: &mut Outcome) -> Result<()> {
    let before = clocks(stage)?;
    let asking =
        stage.workers[..questions.controllers].iter_mut().map(|worker| worker.obey(questions.order, ROUND_LIMIT));
    let done: Vec<Done> = futures_util::future::try_join_all(asking).await?;
    let after = clocks(stage)?;
    if let Some(why) = done.iter().find_map(|done| done.failed.as_ref()) {
        bail!("{why}");
    }
    let answers = answers(stage, questions);
    let most = |value: fn(&Done) -> f64| done.iter().map(value).fold(0.0, f64::max);
    outcome.add(Quantity::CompleteMs, most(|done| done.complete_ms));
    outcome.add(Quantity::EndedMs, most(|done| done.ended_ms));
    outcome.add(Quantity::ControllerUs, done.iter().map(|done| done.processor_us).sum::<f64>() / answers);
    outcome.add(Quantity::AgentsUs, (after.own - before.own) / answers);
    outcome.add(Quantity::BrokerUs, (after.broker - before.broker) / answers);
    let peak = done.iter().map(|done| done.peak_bytes).max().unwrap_or_default();
    add_bytes(outcome, Quantity::ControllerPeakBytes, peak);
    Ok(())
}
