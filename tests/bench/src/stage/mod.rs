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
use muster_fleet::{Fleet, Ground, Options};
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

/// Everything that a scenario with a fleet works on.
struct Stage {
    plan: Plan,
    fleet: Fleet,
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
    let hosts = plan.hosts;
    eprintln!("==> {hosts} hosts: a broker");
    let ground = Ground::prepare(2 * hosts, SEED)?;
    let memory_before = own_memory()?;
    let fleet = if plan.wants(Scenario::Storm) {
        let (mut outcome, fleet) = storm::storm(ground, &plan).await?;
        storm::note_memory(&mut outcome, &fleet, memory_before)?;
        emit(outcome)?;
        fleet
    } else {
        eprintln!("    {hosts} agents");
        Fleet::start_on(ground, options(hosts), START_LIMIT).await?
    };
    let mut stage = Stage::set_up(plan, fleet).await?;
    let wanted: Vec<Scenario> = stage.plan.scenarios.iter().copied().collect();
    for scenario in wanted.into_iter().filter(|scenario| scenario.needs_fleet() && *scenario != Scenario::Storm) {
        if scenario == Scenario::Lapin && hosts > LAPIN_HOSTS_MAX {
            continue;
        }
        emit(stage.measure(scenario).await)?;
    }
    stage.tear_down().await
}

impl Stage {
    async fn set_up(plan: Plan, fleet: Fleet) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-bench-").tempdir()?;
        let names: Vec<String> = fleet.hosts().map(ToString::to_string).collect();
        let names_file = folder.path().join("names");
        std::fs::write(&names_file, names.join("\n") + "\n").context("write the hosts' names")?;
        let lea = fleet.ground.site.member_in("user/lea", &["admins"]);
        let desk = Desk {
            url: fleet.ground.broker.url(),
            ca: lea.files.ca.clone(),
            crl: lea.files.crl.clone(),
            certificate: lea.files.certificate.clone(),
            key: lea.files.key.clone(),
            names: names_file,
        };
        let desktop = Desktop::new(&plan, &desk, folder.path())?;
        Ok(Self { plan, fleet, echo: None, desk, workers: Vec::new(), desktop, _folder: folder })
    }

    /// Measures one scenario; whatever goes wrong is in its outcome.
    async fn measure(&mut self, scenario: Scenario) -> Outcome {
        eprintln!("    {} hosts: {}", self.plan.hosts, scenario.title());
        let mut outcome = Outcome::new(scenario, self.plan.hosts);
        let measured = tokio::time::timeout(SCENARIO_LIMIT, self.scenario(scenario, &mut outcome)).await;
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

    async fn scenario(&mut self, scenario: Scenario, outcome: &mut Outcome) -> Result<()> {
        match scenario {
            Scenario::Cpu => self.desktop.processor_a_reply(&self.plan, outcome).await,
            Scenario::Run64k => {
                exchange::exchange(self, scenario, outcome).await?;
                self.desktop.memory_of_run(&self.plan, outcome).await
            }
            Scenario::Storm | Scenario::Idle | Scenario::Few => bail!("{scenario:?} has no exchange"),
            _ => exchange::exchange(self, scenario, outcome).await,
        }
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
        if let (Kind::Lean, Some(echo)) = (kind, &mut self.echo) {
            return echo.exchange(&self.fleet.ground, messages);
        }
        self.hang_up();
        eprintln!("    {hosts} raw connections");
        let place = Place::beside(hosts, hosts);
        self.echo = Some(Echo::start_at(&self.fleet.ground, place, AT_ONCE, kind, messages)?);
        Ok(())
    }

    fn hang_up(&mut self) {
        if let Some(echo) = self.echo.take() {
            tokio::task::block_in_place(|| drop(echo));
        }
    }

    async fn tear_down(mut self) -> Result<()> {
        for worker in self.workers.drain(..) {
            worker.close().await?;
        }
        self.hang_up();
        let left = self.fleet.stop().await?;
        if left.failed > 0 {
            eprintln!("    {} agents did not stop in order", left.failed);
        }
        Ok(())
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
