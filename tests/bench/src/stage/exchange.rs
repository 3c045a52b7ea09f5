//! Scenarios with the raw echo beside them: rounds that alternate.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use muster_client::Audience;
use muster_client::discover::ping;
use muster_fleet::raw::{Asked, Kind, Messages};
use muster_protocol::HostName;

use super::{Plan, Stage, Turn, count, float};
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

/// From so many hosts on fewer rounds are enough.
const MANY_HOSTS: usize = 5_000;

/// What a scenario asks, and of whom.
struct Questions {
    order: Order,
    controllers: usize,
    kind: Kind,
    /// What the raw echo exchanges, one step after the other.
    steps: Vec<(Messages, Asked)>,
}

/// Measures a scenario, or one side of it.
pub(super) async fn exchange(stage: &mut Stage, scenario: Scenario, turn: Turn, outcome: &mut Outcome) -> Result<()> {
    let questions = questions(stage, scenario).await.context("record what is said")?;
    let (messages, _) = questions.steps.last().context("a scenario has a step")?;
    if matches!(turn, Turn::Both | Turn::Muster) {
        let request = &messages.requests[0];
        outcome.add(Quantity::CommandBytes, count(request.body.len() + request.signatures.len()));
        outcome.add(Quantity::ReplyBytes, count(messages.reply_bytes()));
        outcome.add(Quantity::Reports, count(messages.replies.len()));
        stage.controllers(questions.controllers).await?;
    }
    let mut baseline = Baseline { wanted: turn != Turn::Muster };
    baseline.attempt(stage, outcome, |stage, _| stage.echo(questions.kind, messages));
    let (warm_ups, rounds) = rounds(&stage.plan, scenario);
    for round in 0..warm_ups + turn.rounds(rounds) {
        if turn != Turn::Both && turn != Turn::Muster && !baseline.wanted {
            return Ok(());
        }
        let counts = round >= warm_ups;
        // Neither is always the one that comes after the other.
        let raw_first = round % 2 == 0;
        let echo = |stage: &mut Stage, outcome: &mut Outcome| {
            raw(stage, &questions).map(|samples| samples.note(outcome, counts))
        };
        if raw_first {
            baseline.attempt(stage, outcome, echo);
        }
        if matches!(turn, Turn::Both | Turn::Muster) {
            let samples = muster(stage, &questions).await?;
            samples.note(outcome, counts);
        }
        if !raw_first {
            baseline.attempt(stage, outcome, echo);
        }
    }
    Ok(())
}

/// The raw side of a scenario, as long as it works.
struct Baseline {
    wanted: bool,
}

impl Baseline {
    /// Does something with the raw echo. Where that fails, the echo ends, and Muster is measured without it.
    fn attempt(
        &mut self,
        stage: &mut Stage,
        outcome: &mut Outcome,
        work: impl FnOnce(&mut Stage, &mut Outcome) -> Result<()>,
    ) {
        if !self.wanted {
            return;
        }
        if let Err(error) = work(stage, outcome) {
            eprintln!("    the raw baseline failed: {error:#}");
            outcome.give_baseline_up(format!("{error:#}"));
            self.wanted = false;
            stage.hang_up();
        }
    }
}

/// What one round has come to.
struct Samples(Vec<(Quantity, f64)>);

impl Samples {
    fn note(self, outcome: &mut Outcome, counts: bool) {
        for (quantity, sample) in self.0.into_iter().filter(|_| counts) {
            outcome.add(quantity, sample);
        }
    }
}

/// Warm-ups and rounds: fewer where one takes long and many hosts even it out.
fn rounds(plan: &Plan, scenario: Scenario) -> (usize, usize) {
    let most = match (plan.hosts >= MANY_HOSTS, scenario) {
        (true, Scenario::Run64k) => 3,
        (true, _) => 5,
        (false, _) => usize::MAX,
    };
    (plan.warm_ups.min(if plan.hosts >= MANY_HOSTS { 1 } else { usize::MAX }), plan.rounds.min(most))
}

async fn questions(stage: &Stage, scenario: Scenario) -> Result<Questions> {
    let (hosts, ground) = (stage.plan.hosts, stage.ground()?);
    let first = |count: usize| -> BTreeSet<HostName> { ground.hosts().take(count).cloned().collect() };
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
            let tenth = ground.hosts().take(hosts).step_by(10).cloned().collect();
            (order, 1, Kind::Lean, vec![search, (talk(tenth, 0).await?, by_name(matching))])
        }
        Scenario::Storm | Scenario::Cpu | Scenario::Idle | Scenario::Few => bail!("{scenario:?} has no exchange"),
    };
    Ok(Questions { order, controllers, kind, steps })
}

/// Processor time of the broker until now, in microseconds.
fn broker_us(stage: &Stage) -> Result<f64> {
    let group = stage.ground()?.broker.pid().context("the broker does not run")?;
    Ok(us(processor_of_group(group)?))
}

/// Processor time of all agents until now, in microseconds.
async fn agents_us(stage: &Stage) -> Result<f64> {
    Ok(us(stage.fleet()?.usage().await?.processor))
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn answers(stage: &Stage, questions: &Questions) -> f64 {
    count(questions.order.answering(stage.plan.hosts) * questions.controllers)
}

fn raw(stage: &mut Stage, questions: &Questions) -> Result<Samples> {
    let (mut took, mut own, mut broker) = (Duration::ZERO, 0.0, 0.0);
    for (messages, asked) in &questions.steps {
        if questions.steps.len() > 1 {
            stage.echo(questions.kind, messages)?;
        }
        let (broker_before, own_before) = (broker_us(stage)?, us(processor_of_self()?));
        let mut echo = stage.echo.take().context("the echo is connected")?;
        let round = stage.ground().and_then(|ground| echo.ask(ground, *asked)).context("ask the raw echo");
        stage.echo = Some(echo);
        let round = round?;
        let expected = asked.replying * asked.controllers * messages.replies.len();
        ensure!(round.replies == expected, "{} of {expected} raw answers came", round.replies);
        took += round.took;
        own += us(processor_of_self()?) - own_before;
        broker += broker_us(stage)? - broker_before;
    }
    let answers = answers(stage, questions);
    Ok(Samples(vec![
        (Quantity::RawCompleteMs, took.as_secs_f64() * 1e3),
        (Quantity::RawOwnUs, own / answers),
        (Quantity::RawBrokerUs, broker / answers),
    ]))
}

async fn muster(stage: &mut Stage, questions: &Questions) -> Result<Samples> {
    let (broker_before, agents_before) = (broker_us(stage)?, agents_us(stage).await?);
    let asking =
        stage.workers[..questions.controllers].iter_mut().map(|worker| worker.obey(questions.order, ROUND_LIMIT));
    let done: Vec<Done> = futures_util::future::try_join_all(asking).await?;
    let (broker, agents) = (broker_us(stage)? - broker_before, agents_us(stage).await? - agents_before);
    if let Some(why) = done.iter().find_map(|done| done.failed.as_ref()) {
        bail!("{why}");
    }
    let answers = answers(stage, questions);
    let most = |value: fn(&Done) -> f64| done.iter().map(value).fold(0.0, f64::max);
    let peak = done.iter().map(|done| done.peak_bytes).max().unwrap_or_default();
    Ok(Samples(vec![
        (Quantity::CompleteMs, most(|done| done.complete_ms)),
        (Quantity::EndedMs, most(|done| done.ended_ms)),
        (Quantity::ControllerUs, done.iter().map(|done| done.processor_us).sum::<f64>() / answers),
        (Quantity::AgentsUs, agents / answers),
        (Quantity::BrokerUs, broker / answers),
        (Quantity::ControllerPeakBytes, float(peak)),
    ]))
}
