//! One number of hosts, from an empty machine to its outcomes: broker, fleet, raw echo, controllers.
//!
//! A stage is a process, so that its memory is its own and whatever breaks in it breaks alone. It prints each outcome as a
//! line of JSON as soon as there is one.

mod exchange;
mod program;
mod small;
mod storm;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use muster_fleet::raw::{Echo, Kind, Messages, Place};
use muster_fleet::{BrokerKind, Fleet, Ground, Left, Options};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::order::{Desk, Worker};
use crate::process::status_bytes;
use crate::results::{Outcome, Quantity, Scenario};

use program::Desktop;
pub use program::answered;
pub use small::small;

/// Makes the same fleet each time.
const SEED: u64 = 1;

/// Connections that are opened at the same time, by agents and by the raw echo.
const AT_ONCE: usize = 64;

/// Most hosts for which the echo with lapin is started: it holds large buffers for each connection.
const LAPIN_HOSTS_MAX: usize = 1_000;

/// How long a fleet may take to connect.
const START_LIMIT: Duration = Duration::from_secs(600);

/// How long one scenario may take.
const SCENARIO_LIMIT: Duration = Duration::from_secs(420);

/// What a stage is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Hosts of the fleet; the raw echo has as many.
    pub hosts: usize,
    /// The broker.
    pub broker: BrokerKind,
    /// What to measure.
    pub scenarios: BTreeSet<Scenario>,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds before those.
    pub warm_ups: usize,
    /// The folder with the programs `muster` and `musterd`.
    pub programs: PathBuf,
    /// The program `muster-bench`.
    pub own: PathBuf,
    /// How long an idle agent is looked at, in seconds.
    pub idle_s: u64,
}

/// What a stage says: a line of JSON each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// What came of a scenario.
    Outcome(Box<Outcome>),
    /// Why it ends without those that are missing.
    Failed(String),
}

impl Plan {
    fn wants(&self, scenario: Scenario) -> bool {
        self.scenarios.contains(&scenario)
    }
}

/// The broker, with agents or without.
enum Field {
    /// Nobody but an echo is connected.
    Empty(Ground),
    /// The agents are.
    Manned(Fleet),
}

/// Everything that a scenario with a fleet works on.
struct Stage {
    plan: Plan,
    // Taken only while agents come and go.
    field: Option<Field>,
    /// Whether the echo and the fleet take turns, because both at once would be too many.
    apart: bool,
    echo: Option<Echo>,
    desk: Desk,
    workers: Vec<Worker>,
    desktop: Desktop,
    // Removed last.
    _folder: TempDir,
}

/// Measures with a fleet, and hands out each outcome.
///
/// # Errors
/// Broker, fleet or echo do not come up. What goes wrong later is in the outcomes.
pub async fn with_fleet(plan: Plan, mut emit: impl FnMut(Outcome) -> Result<()>) -> Result<()> {
    let (hosts, broker) = (plan.hosts, plan.broker);
    eprintln!("==> {hosts} hosts: certificates and a broker ({broker})");
    let (ground, apart) = match Ground::prepare(broker, 2 * hosts, SEED) {
        Ok(ground) => (ground, false),
        Err(error) => {
            eprintln!("    the raw echo cannot be beside the fleet: {error:#}");
            (Ground::prepare(broker, hosts, SEED)?, true)
        }
    };
    let exchanges: Vec<Scenario> = plan.scenarios.iter().copied().filter(|scenario| scenario.has_exchange()).collect();
    let exchanges =
        || exchanges.iter().copied().filter(|scenario| *scenario != Scenario::Lapin || hosts <= LAPIN_HOSTS_MAX);
    let mut stage = Stage::set_up(plan, ground, apart)?;
    if !apart {
        if let Some(storm) = stage.man().await? {
            emit(storm)?;
        }
        for scenario in exchanges() {
            emit(stage.measure(scenario, Turn::Both, None).await)?;
        }
        stage.programs(&mut emit).await?;
        return stage.tear_down().await;
    }
    let mut outcomes = Vec::new();
    // An echo with lapin has no rounds to be split.
    for scenario in exchanges().filter(|scenario| *scenario != Scenario::Lapin) {
        outcomes.push(stage.measure(scenario, Turn::RawBefore, None).await);
    }
    stage.hang_up_for_good()?;
    if let Some(storm) = stage.man().await? {
        emit(storm)?;
    }
    stage.programs(&mut emit).await?;
    for outcome in &mut outcomes {
        *outcome = stage.measure(outcome.scenario, Turn::Muster, Some(outcome.clone())).await;
        // Again when it is whole; until then nothing of it is lost.
        emit(outcome.clone())?;
    }
    stage.leave().await?;
    for outcome in outcomes {
        emit(stage.measure(outcome.scenario, Turn::RawAfter, Some(outcome)).await)?;
    }
    stage.tear_down().await
}

/// Whose rounds are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Both, in turn.
    Both,
    /// The first half of the echo's.
    RawBefore,
    /// The fleet's.
    Muster,
    /// The second half of the echo's.
    RawAfter,
}

impl Turn {
    /// How many of `rounds` are in it.
    fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::Both | Self::Muster => rounds,
            Self::RawBefore => rounds.div_ceil(2),
            Self::RawAfter => rounds / 2,
        }
    }
}

impl Stage {
    fn set_up(plan: Plan, ground: Ground, apart: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-bench-").tempdir()?;
        let names: Vec<String> = ground.hosts().take(plan.hosts).map(ToString::to_string).collect();
        let names_file = folder.path().join("names");
        std::fs::write(&names_file, names.join("\n") + "\n").context("write the hosts' names")?;
        let desk = Desk::of(&ground, names_file);
        let desktop = Desktop::new(&plan, &desk, folder.path())?;
        let field = Some(Field::Empty(ground));
        Ok(Self { plan, field, apart, echo: None, desk, workers: Vec::new(), desktop, _folder: folder })
    }

    fn ground(&self) -> Result<&Ground> {
        match self.field.as_ref().context("the broker has gone")? {
            Field::Empty(ground) => Ok(ground),
            Field::Manned(fleet) => Ok(&fleet.ground),
        }
    }

    fn fleet(&self) -> Result<&Fleet> {
        match &self.field {
            Some(Field::Manned(fleet)) => Ok(fleet),
            _ => bail!("there are no agents"),
        }
    }

    /// Connects the agents, in a storm if that is to be measured.
    async fn man(&mut self) -> Result<Option<Outcome>> {
        let Some(Field::Empty(ground)) = self.field.take() else { bail!("there is no empty field") };
        let hosts = self.plan.hosts;
        if !self.plan.wants(Scenario::Storm) {
            eprintln!("    {hosts} agents");
            self.field = Some(Field::Manned(Fleet::start_on(ground, options(hosts), START_LIMIT).await?));
            return Ok(None);
        }
        let before = own_memory()?;
        let (mut outcome, fleet) = storm::storm(ground, &self.plan).await?;
        storm::note_memory(&mut outcome, &fleet, before).await?;
        self.field = Some(Field::Manned(fleet));
        Ok(Some(outcome))
    }

    /// Stops the agents and leaves the broker as it was.
    async fn leave(&mut self) -> Result<()> {
        let Some(Field::Manned(fleet)) = self.field.take() else { bail!("there are no agents") };
        for worker in self.workers.drain(..) {
            worker.close().await?;
        }
        let (left, ground) = fleet.leave().await;
        tell_of(left?);
        ground.clear()?;
        self.field = Some(Field::Empty(ground));
        Ok(())
    }

    /// Measures the program `muster`.
    async fn programs(&mut self, emit: &mut impl FnMut(Outcome) -> Result<()>) -> Result<()> {
        if self.plan.wants(Scenario::Cpu) {
            emit(self.measure(Scenario::Cpu, Turn::Muster, None).await)?;
        }
        Ok(())
    }

    /// Measures one scenario; whatever goes wrong is in its outcome.
    async fn measure(&mut self, scenario: Scenario, turn: Turn, before: Option<Outcome>) -> Outcome {
        let mut outcome = before.unwrap_or_else(|| Outcome::new(scenario, self.plan.hosts, self.plan.broker));
        outcome.apart = self.apart && scenario.has_exchange();
        let raw_alone = matches!(turn, Turn::RawBefore | Turn::RawAfter);
        if outcome.failed.is_some() || (raw_alone && outcome.baseline_failed.is_some()) {
            return outcome;
        }
        let whose = match turn {
            Turn::RawBefore | Turn::RawAfter => ", raw",
            Turn::Both | Turn::Muster => "",
        };
        eprintln!("    {} hosts: {}{whose}", self.plan.hosts, scenario.title());
        let measured = tokio::time::timeout(SCENARIO_LIMIT, self.scenario(scenario, turn, &mut outcome)).await;
        let failed = match measured {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("it was not over after {} s", SCENARIO_LIMIT.as_secs())),
        };
        if let Some(why) = failed {
            eprintln!("    {} failed: {why}", scenario.title());
            outcome.failed = Some(why);
            // Whatever state they are in, the next scenario begins with new ones.
            self.workers.clear();
            self.hang_up();
        }
        outcome
    }

    async fn scenario(&mut self, scenario: Scenario, turn: Turn, outcome: &mut Outcome) -> Result<()> {
        if scenario == Scenario::Cpu {
            return self.desktop.processor_a_reply(&self.plan, outcome).await;
        }
        exchange::exchange(self, scenario, turn, outcome).await?;
        if scenario == Scenario::Run64k && matches!(turn, Turn::Both | Turn::Muster) {
            self.desktop.memory_of_run(&self.plan, outcome).await?;
        }
        Ok(())
    }

    /// Makes sure that so many controllers are connected.
    async fn controllers(&mut self, count: usize) -> Result<()> {
        while self.workers.len() < count {
            self.workers.push(Worker::start(&self.plan.own, &self.desk).await?);
        }
        Ok(())
    }

    /// Makes sure that there is an echo of this kind for these messages.
    fn echo(&mut self, kind: Kind, messages: &Messages) -> Result<()> {
        let hosts = self.plan.hosts;
        if kind == Kind::Lean
            && let Some(mut echo) = self.echo.take()
        {
            let exchanges = self.ground().and_then(|ground| echo.exchange(ground, messages)).is_ok();
            self.echo = Some(echo);
            if exchanges {
                return Ok(());
            }
        }
        self.hang_up();
        eprintln!("    {hosts} raw connections");
        let place = if self.apart { Place::first(hosts) } else { Place::beside(hosts, hosts) };
        self.echo = Some(Echo::start_at(self.ground()?, place, AT_ONCE, kind, messages)?);
        Ok(())
    }

    fn hang_up(&mut self) {
        if let Some(echo) = self.echo.take() {
            tokio::task::block_in_place(|| drop(echo));
        }
    }

    /// Ends the echo and leaves the broker empty.
    fn hang_up_for_good(&mut self) -> Result<()> {
        self.hang_up();
        self.ground()?.clear()
    }

    async fn tear_down(mut self) -> Result<()> {
        for worker in self.workers.drain(..) {
            worker.close().await?;
        }
        self.hang_up();
        match self.field.take() {
            Some(Field::Manned(fleet)) => tell_of(fleet.stop().await?),
            Some(Field::Empty(ground)) => ground.stop()?,
            None => {}
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Where it is told to stop, too: connections are closed where that may wait.
        self.hang_up();
    }
}

fn tell_of(left: Left) {
    if left.failed > 0 {
        eprintln!("    {} agents did not stop in order", left.failed);
    }
}

/// Memory of this process.
fn own_memory() -> Result<u64> {
    status_bytes(std::process::id(), "VmRSS")
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn count(number: usize) -> f64 {
    float(number as u64)
}

fn options(hosts: usize) -> Options {
    Options { seed: SEED, start_at_once: AT_ONCE, ..Options::new(hosts) }
}

/// Puts a size of memory or file into an outcome.
fn add_bytes(outcome: &mut Outcome, quantity: Quantity, bytes: u64) {
    outcome.add(quantity, float(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echos_halves_are_as_many_rounds_as_the_fleets() {
        for rounds in 1..8 {
            assert_eq!(Turn::RawBefore.rounds(rounds) + Turn::RawAfter.rounds(rounds), Turn::Muster.rounds(rounds));
        }
    }
}
