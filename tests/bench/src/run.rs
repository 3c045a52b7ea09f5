//! The whole benchmark: one stage after the other, results kept after each outcome.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use muster_daemon::signals::{Request, Signals};
use muster_fleet::BrokerKind;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::page::{FILE_RESULTS, keep, render};
use crate::results::{Machine, Outcome, Results, Run, Scenario};
use crate::stage::{Plan, Word};
use crate::table::tables;

/// How long the stage of one number of hosts may take.
const STAGE_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How long a stage may take to stop: thousands of connections and a broker.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What to measure, and where to put it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Numbers of hosts.
    pub hosts: Vec<usize>,
    /// The brokers, on each of which everything is measured.
    pub brokers: Vec<BrokerKind>,
    /// What to measure.
    pub scenarios: BTreeSet<Scenario>,
    /// What each stage needs to know besides its number of hosts.
    pub plan: Plan,
    /// The folder for results, pictures and page.
    pub out: PathBuf,
    /// Whether results that are there already stay, except for what is measured anew.
    pub keep: bool,
}

/// Measures everything, prints the tables and leaves results, pictures and page.
///
/// # Errors
/// Nothing could be measured at all, or the folder cannot be written. Failed scenarios are in the results.
pub async fn run(options: &Options, machine: Machine, run: Run) -> Result<()> {
    let mut signals = Signals::install().context("listen for signals")?;
    let before = options.out.join(FILE_RESULTS);
    let mut results = if options.keep && before.exists() {
        Results::load(&before)?.continue_with(&machine, run)?
    } else {
        Results::new(machine, run)
    };
    let mut stopped = false;
    for plan in plans(options) {
        let mut stage = Stage::start(&plan)?;
        let mut missing: BTreeSet<Scenario> = plan.scenarios.clone();
        let ended = stage.follow(&mut signals, |outcome| {
            missing.remove(&outcome.scenario);
            results.put(outcome);
            keep(&options.out, &results)
        });
        match ended.await? {
            Ended::Well => {}
            Ended::Stopped => {
                stopped = true;
                break;
            }
            Ended::Badly(why) => {
                eprintln!("    {} hosts, {}: {why}", plan.hosts, plan.broker);
                for scenario in missing {
                    let mut outcome = Outcome::new(scenario, plan.hosts, plan.broker);
                    outcome.failed = Some(why.clone());
                    results.put(outcome);
                }
            }
        }
    }
    if results.outcomes.is_empty() {
        bail!("nothing was measured");
    }
    let results = results.without_idle_runs();
    keep(&options.out, &results)?;
    render(&options.out, &results)?;
    print(&results);
    eprintln!("\nResults, pictures and page are in `{}`.", options.out.display());
    if stopped {
        bail!("stopped before everything was measured");
    }
    Ok(())
}

/// One plan for each number of hosts and broker, and one for what needs no fleet on each. What is compared comes one right
/// after the other.
fn plans(options: &Options) -> Vec<Plan> {
    let of = |fleet: bool| -> BTreeSet<Scenario> {
        options.scenarios.iter().copied().filter(|scenario| scenario.needs_fleet() == fleet).collect()
    };
    let numbers = options.hosts.iter().map(|hosts| (*hosts, of(true))).chain([(0, of(false))]);
    let plans = numbers.flat_map(|(hosts, scenarios)| {
        let plan = move |broker: &BrokerKind| Plan {
            hosts,
            broker: *broker,
            scenarios: scenarios.clone(),
            ..options.plan.clone()
        };
        options.brokers.iter().map(plan)
    });
    plans.filter(|plan| !plan.scenarios.is_empty()).collect()
}

#[expect(clippy::print_stdout, reason = "the tables are what the program is for")]
fn print(results: &Results) {
    for table in tables(results) {
        println!("\n{}", table.to_text().trim_end());
    }
}

/// Makes pictures and page again from results.
///
/// # Errors
/// The results cannot be read, or the folder not be written.
pub fn render_again(file: &Path, out: &Path) -> Result<()> {
    let results = Results::load(file)?;
    render(out, &results)?;
    print(&results);
    Ok(())
}

/// How a stage ended.
enum Ended {
    Well,
    Stopped,
    Badly(String),
}

/// A stage's process. It stops when its standard input closes.
struct Stage {
    child: Child,
    outcomes: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Stage {
    fn start(plan: &Plan) -> Result<Self> {
        let mut child = Command::new(&plan.own)
            .arg("stage")
            .arg(serde_json::to_string(plan)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for us.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start `{}`", plan.own.display()))?;
        let outcomes = BufReader::new(child.stdout.take().context("standard output was asked for")?).lines();
        Ok(Self { child, outcomes })
    }

    async fn follow(&mut self, signals: &mut Signals, mut each: impl FnMut(Outcome) -> Result<()>) -> Result<Ended> {
        let deadline = tokio::time::Instant::now() + STAGE_LIMIT;
        let mut why = None;
        loop {
            tokio::select! {
                biased;
                request = signals.next() => if request != Request::Reload {
                    eprintln!("    stopping; again to end at once");
                    self.stop(signals).await;
                    return Ok(Ended::Stopped);
                },
                line = self.outcomes.next_line() => match line.context("read from the stage")? {
                    Some(line) => match serde_json::from_str(&line).with_context(|| format!("read `{line}`"))? {
                        Word::Outcome(outcome) => each(*outcome)?,
                        Word::Failed(error) => why = Some(error),
                    },
                    None => break,
                },
                () = tokio::time::sleep_until(deadline) => {
                    self.stop(signals).await;
                    return Ok(Ended::Badly(format!("it was not over after {} s", STAGE_LIMIT.as_secs())));
                }
            }
        }
        let status = self.child.wait().await.context("wait for the stage")?;
        Ok(match why {
            _ if status.success() => Ended::Well,
            Some(why) => Ended::Badly(why),
            None => Ended::Badly(format!("its process ended with {status}")),
        })
    }

    /// Lets the stage clean up; ends it where it does not, or where the operator does not want to wait.
    async fn stop(&mut self, signals: &mut Signals) {
        drop(self.child.stdin.take());
        tokio::select! {
            biased;
            _ = signals.next() => {}
            _ = tokio::time::timeout(STOP_LIMIT, self.child.wait()) => {}
        }
        // It has ended already, if it could.
        self.child.kill().await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_of_hosts_has_a_plan_and_the_small_ones_share_one() {
        let plan = Plan {
            hosts: 0,
            broker: BrokerKind::default(),
            scenarios: BTreeSet::new(),
            rounds: 1,
            warm_ups: 0,
            programs: PathBuf::new(),
            own: PathBuf::new(),
            idle_s: 1,
        };
        use BrokerKind::{Embedded, RabbitMq};
        let check = |scenarios: &[Scenario], brokers: &[BrokerKind], expected: &[(usize, BrokerKind, usize)]| {
            let scenarios = scenarios.iter().copied().collect();
            let options = Options {
                hosts: vec![100, 1_000],
                brokers: brokers.to_vec(),
                scenarios,
                plan: plan.clone(),
                out: PathBuf::new(),
                keep: false,
            };
            let found: Vec<(usize, BrokerKind, usize)> =
                plans(&options).iter().map(|plan| (plan.hosts, plan.broker, plan.scenarios.len())).collect();
            assert_eq!(found, expected);
        };
        check(&Scenario::ALL, &[RabbitMq], &[(100, RabbitMq, 9), (1_000, RabbitMq, 9), (0, RabbitMq, 2)]);
        let both = [(100, RabbitMq, 1), (100, Embedded, 1), (1_000, RabbitMq, 1), (1_000, Embedded, 1)];
        check(&[Scenario::Ping], &BrokerKind::ALL, &both);
        check(&[Scenario::Idle], &[Embedded], &[(0, Embedded, 1)]);
        check(&[], &BrokerKind::ALL, &[]);
    }
}
