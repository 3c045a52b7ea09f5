//! What a benchmark leaves: samples, and under which circumstances they were taken. JSON with a version.
//!
//! Only samples are kept. Medians, ratios and verdicts are made from them ([`crate::statistics`], [`crate::targets`])
//! whenever somebody looks, so that a stored number cannot disagree with another.

mod names;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use muster_fleet::BrokerKind;
use serde::{Deserialize, Serialize};

pub use names::{Quantity, Scenario, Unit, digits};

use crate::statistics::{Spread, ratios, spread};

/// Name and version of the form. A reader refuses every other.
pub const SCHEMA: &str = "muster-bench/1";

/// Everything that was measured on one machine with one build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// The machine.
    pub machine: Machine,
    /// The runs that the outcomes come from, in order.
    pub runs: Vec<Run>,
    /// One for each scenario, number of hosts and broker.
    pub outcomes: Vec<Outcome>,
}

/// What was measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Logical processors that this process may use.
    pub processors: usize,
    /// What the processor calls itself.
    pub processor: String,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// RabbitMQ's version, where it is installed. The embedded broker's is Muster's.
    pub rabbitmq: Option<String>,
    /// Erlang's release, where it is installed.
    pub erlang: Option<String>,
}

/// One start of the benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// When it began, RFC 3339.
    pub taken_at: String,
    /// Load of the machine over one, five and fifteen minutes before it began.
    pub load_before: [f64; 3],
    /// Muster's version.
    pub version: String,
    /// Revision of the source, with `-changed` where it was not as committed.
    pub revision: Option<String>,
    /// Cargo's profile of fleet, controller and raw baseline.
    pub profile: String,
    /// Cargo's profile of the programs `muster` and `musterd`.
    pub programs_profile: String,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds before those.
    pub warm_ups: usize,
}

/// What came of one scenario with one number of hosts on one broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The scenario.
    pub scenario: Scenario,
    /// Hosts of the fleet.
    pub hosts: usize,
    /// The broker. Results from before there were two say nothing of it.
    #[serde(default)]
    pub broker: BrokerKind,
    /// Index of the run it comes from.
    pub run: usize,
    /// Why it does not count: an answer was missing, wrong or late. Its samples are shown, and never judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Why there is nothing to compare with, where the raw baseline did not come about and Muster was measured alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_failed: Option<String>,
    /// Whether the raw echo was measured before and after the fleet instead of beside it, because the machine does not allow
    /// so many connections at once. Its rounds are then compared with rounds of other minutes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
    /// Samples, one a round.
    pub samples: BTreeMap<Quantity, Vec<f64>>,
}

impl Outcome {
    /// One without samples.
    #[must_use]
    pub fn new(scenario: Scenario, hosts: usize, broker: BrokerKind) -> Self {
        let samples = BTreeMap::new();
        Self { scenario, hosts, broker, run: 0, failed: None, baseline_failed: None, apart: false, samples }
    }

    /// Gives the baseline up. Its samples go: rounds that are not all there compare with nothing.
    pub fn give_baseline_up(&mut self, why: String) {
        self.baseline_failed.get_or_insert(why);
        for quantity in [Quantity::RawCompleteMs, Quantity::RawOwnUs, Quantity::RawBrokerUs] {
            self.samples.remove(&quantity);
        }
    }

    /// What there is one outcome of.
    fn key(&self) -> (Scenario, usize, BrokerKind) {
        (self.scenario, self.hosts, self.broker)
    }

    /// Adds a sample, with three decimals: more was never measured.
    pub fn add(&mut self, quantity: Quantity, sample: f64) {
        self.samples.entry(quantity).or_default().push((sample * 1_000.0).round() / 1_000.0);
    }

    /// Median, least and most of a quantity, where it was measured.
    #[must_use]
    pub fn spread(&self, quantity: Quantity) -> Option<Spread> {
        spread(self.samples.get(&quantity)?)
    }

    /// A quantity divided by another, round by round.
    #[must_use]
    pub fn ratio(&self, quantity: Quantity, baseline: Quantity) -> Option<Spread> {
        spread(&ratios(self.samples.get(&quantity)?, self.samples.get(&baseline)?))
    }

    /// Muster against the raw baseline: times, or rates where the scenario has them.
    #[must_use]
    pub fn against_raw(&self) -> Option<Spread> {
        self.ratio(Quantity::ReadyPerSecond, Quantity::RawReadyPerSecond)
            .or_else(|| self.ratio(Quantity::CompleteMs, Quantity::RawCompleteMs))
    }
}

impl Results {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(machine: Machine, run: Run) -> Self {
        Self { schema: SCHEMA.to_owned(), machine, runs: vec![run], outcomes: Vec::new() }
    }

    /// Reads results.
    ///
    /// # Errors
    /// It is no JSON of this version, or an outcome names a run that is not there.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: String,
        }
        let version: Version = serde_json::from_str(text).context("these are no results of `cargo xtask bench`")?;
        ensure!(
            version.schema == SCHEMA,
            "these results are `{}` and this program reads `{SCHEMA}`: take them anew",
            version.schema
        );
        let results: Self = serde_json::from_str(text).context("read the results")?;
        for outcome in &results.outcomes {
            ensure!(
                outcome.run < results.runs.len(),
                "`{}` with {} hosts on {} names run {}, and there are {}",
                outcome.scenario.word(),
                outcome.hosts,
                outcome.broker,
                outcome.run,
                results.runs.len()
            );
        }
        Ok(results)
    }

    /// Reads results from a file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`Self::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("read `{}`", path.display()))
    }

    /// As JSON, ending in a line feed.
    ///
    /// # Panics
    /// Never: there are only strings and numbers in it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and numbers are JSON");
        text.push('\n');
        text
    }

    /// Puts an outcome of the last run in place of what was known of the same scenario, number of hosts and broker.
    pub fn put(&mut self, mut outcome: Outcome) {
        outcome.run = self.runs.len().saturating_sub(1);
        self.outcomes.retain(|known| known.key() != outcome.key());
        self.outcomes.push(outcome);
        self.outcomes.sort_by_key(Outcome::key);
    }

    /// Begins another run beside those before.
    ///
    /// # Errors
    /// It is another machine: results of two are not mixed.
    pub fn continue_with(mut self, machine: &Machine, run: Run) -> Result<Self> {
        if self.machine != *machine {
            bail!("the results before are of another machine or broker: write to another folder with `--out`");
        }
        self.runs.push(run);
        Ok(self)
    }

    /// Forgets runs that no outcome comes from any more.
    #[must_use]
    pub fn without_idle_runs(mut self) -> Self {
        let used: Vec<usize> =
            (0..self.runs.len()).filter(|run| self.outcomes.iter().any(|outcome| outcome.run == *run)).collect();
        for outcome in &mut self.outcomes {
            outcome.run = used.iter().position(|run| *run == outcome.run).unwrap_or_default();
        }
        self.runs = used.into_iter().map(|run| self.runs[run].clone()).collect();
        self
    }

    /// The same scenario and number of hosts on another broker, if both count.
    #[must_use]
    pub fn counterpart(&self, outcome: &Outcome, broker: BrokerKind) -> Option<&Outcome> {
        let counts = |outcome: &&Outcome| outcome.failed.is_none();
        let key = (outcome.scenario, outcome.hosts, broker);
        Some(outcome).filter(counts)?;
        self.outcomes.iter().find(|other| other.key() == key).filter(counts)
    }

    /// The outcomes of a scenario, by number of hosts and broker.
    pub fn of(&self, scenario: Scenario) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.scenario == scenario)
    }
}

#[cfg(test)]
mod tests;
