//! Tables of results, for the terminal and for the page: one content, two forms.

use muster_fleet::BrokerKind;

use crate::results::{Outcome, Quantity, Results, Run, Scenario, Unit};
use crate::statistics::Spread;
use crate::targets::judge;

/// A table with a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its heading.
    pub title: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With its columns in line, for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut lines = vec![self.title.to_owned(), line(&mut self.columns.iter().copied())];
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines.join("\n") + "\n"
    }

    /// For a Markdown document.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
        };
        let mut lines =
            vec![line(&mut self.columns.iter().copied()), format!("|{}", "---|".repeat(self.columns.len()))];
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        format!("### {}\n\n{}\n", self.title, lines.join("\n"))
    }
}

/// All tables, ratios first. One without rows is left out.
#[must_use]
pub fn tables(results: &Results) -> Vec<Table> {
    let all = [
        exchanges(results),
        brokers(results),
        storms(results),
        verdicts(results),
        processors(results),
        memory(results),
        programs(results),
        failures(results),
        runs(results),
    ];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn count(number: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "hosts are far below 2^52")]
    Unit::Count.show(number as f64)
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |spread| format!("{:.2} ({:.2} to {:.2})", spread.median, spread.least, spread.most),
    )
}

/// Median, with least and most where there is more than one sample.
fn whole(outcome: &Outcome, quantity: Quantity) -> String {
    let Some(spread) = outcome.spread(quantity) else { return "–".to_owned() };
    let unit = quantity.words().0;
    let median = unit.show(spread.median);
    if spread.least.total_cmp(&spread.most).is_eq() {
        return median;
    }
    format!("{median} ({} to {})", unit.show(spread.least), unit.show(spread.most))
}

fn median(outcome: &Outcome, quantity: Quantity) -> String {
    let spread = outcome.spread(quantity);
    spread.map_or_else(|| "–".to_owned(), |spread| quantity.words().0.show(spread.median))
}

fn name(outcome: &Outcome) -> String {
    let failed = if outcome.failed.is_some() { " **failed**" } else { "" };
    let apart = if outcome.apart { " (apart)" } else { "" };
    format!("{}{apart}{failed}", outcome.scenario.title())
}

/// The scenarios with a raw exchange beside them.
fn with_exchange(results: &Results) -> impl Iterator<Item = &Outcome> {
    results.outcomes.iter().filter(|outcome| outcome.samples.contains_key(&Quantity::CompleteMs))
}

fn exchanges(results: &Results) -> Table {
    use Quantity as Q;
    Table {
        title: "Times against the raw echo",
        columns: vec!["scenario", "hosts", "broker", "against raw", "Muster", "raw", "question over"],
        rows: with_exchange(results)
            .map(|outcome| {
                vec![
                    name(outcome),
                    count(outcome.hosts),
                    outcome.broker.to_string(),
                    ratio(outcome.against_raw()),
                    whole(outcome, Q::CompleteMs),
                    whole(outcome, Q::RawCompleteMs),
                    median(outcome, Q::EndedMs),
                ]
            })
            .collect(),
    }
}

/// Medians of one broker divided by those of the other. Both were measured in the same run, but not in the same minute.
fn brokers(results: &Results) -> Table {
    use Quantity as Q;
    let rows =
        results.outcomes.iter().filter(|outcome| outcome.broker == BrokerKind::Embedded).filter_map(|embedded| {
            let rabbitmq = results.counterpart(embedded, BrokerKind::RabbitMq)?;
            let divided = |quantity: Q| {
                let (of, to) = (embedded.spread(quantity)?.median, rabbitmq.spread(quantity)?.median);
                // What is counted in a second is turned round, so that less is always better.
                let (of, to) = if quantity.words().0 == Unit::PerSecond { (to, of) } else { (of, to) };
                (to > 0.0).then(|| of / to)
            };
            let cell = |quantities: [Q; 2]| quantities.into_iter().find_map(divided);
            let cells = [
                cell([Q::CompleteMs, Q::ReadyPerSecond]),
                cell([Q::RawCompleteMs, Q::RawReadyPerSecond]),
                divided(Q::BrokerUs),
                divided(Q::RawBrokerUs),
                cell([Q::BrokerBytes, Q::BrokerBytes]),
            ];
            if cells.iter().all(Option::is_none) {
                return None;
            }
            let cells = cells.into_iter().map(|cell| cell.map_or_else(|| "–".to_owned(), |cell| format!("{cell:.2}")));
            Some([name(embedded), count(embedded.hosts)].into_iter().chain(cells).collect())
        });
    Table {
        title: "The embedded broker, where RabbitMQ is 1",
        columns: vec![
            "scenario",
            "hosts",
            "Muster's time",
            "the raw echo's time",
            "broker's processor time",
            "the same, raw",
            "broker's memory",
        ],
        rows: rows.collect(),
    }
}

fn storms(results: &Results) -> Table {
    use Quantity as Q;
    Table {
        title: "Connect storm",
        columns: vec![
            "hosts",
            "broker",
            "against raw",
            "agents",
            "raw",
            "memory of all agents",
            "memory of the broker",
            "of it a raw connection",
        ],
        rows: results
            .of(Scenario::Storm)
            .map(|outcome| {
                vec![
                    count(outcome.hosts),
                    outcome.broker.to_string(),
                    ratio(outcome.against_raw()),
                    whole(outcome, Q::ReadyPerSecond),
                    whole(outcome, Q::RawReadyPerSecond),
                    median(outcome, Q::FleetBytes),
                    median(outcome, Q::BrokerBytes),
                    median(outcome, Q::ConnectionBytes),
                ]
            })
            .collect(),
    }
}

fn verdicts(results: &Results) -> Table {
    let row = |verdict: &crate::targets::Verdict<'_>| {
        let target = verdict.target;
        let measured = verdict.measured.map_or_else(|| "–".to_owned(), |spread| target.show(spread.median));
        vec![
            target.words.to_owned(),
            count(verdict.hosts),
            verdict.broker.to_string(),
            target.show_bound(),
            measured,
            verdict.word().to_owned(),
        ]
    };
    Table {
        title: "Targets",
        columns: vec!["what", "hosts", "broker", "target", "measured", "verdict"],
        rows: judge(results).iter().map(row).collect(),
    }
}

fn processors(results: &Results) -> Table {
    use Quantity as Q;
    Table {
        title: "Processor time a reply",
        columns: vec![
            "scenario",
            "hosts",
            "on",
            "broker, against raw",
            "broker",
            "broker, raw",
            "agents",
            "controller",
            "raw hosts and controller",
            "a command",
            "reports of a host",
        ],
        rows: with_exchange(results)
            .map(|outcome| {
                vec![
                    name(outcome),
                    count(outcome.hosts),
                    outcome.broker.to_string(),
                    ratio(outcome.ratio(Q::BrokerUs, Q::RawBrokerUs)),
                    median(outcome, Q::BrokerUs),
                    median(outcome, Q::RawBrokerUs),
                    median(outcome, Q::AgentsUs),
                    median(outcome, Q::ControllerUs),
                    median(outcome, Q::RawOwnUs),
                    median(outcome, Q::CommandBytes),
                    format!("{} in {}", median(outcome, Q::ReplyBytes), median(outcome, Q::Reports)),
                ]
            })
            .collect(),
    }
}

fn memory(results: &Results) -> Table {
    use Quantity as Q;
    Table {
        title: "The controller's memory, peak",
        columns: vec!["scenario", "hosts", "broker", "client library", "`muster`"],
        rows: with_exchange(results)
            .filter(|outcome| matches!(outcome.scenario, Scenario::Ping | Scenario::Run64k))
            .map(|outcome| {
                vec![
                    name(outcome),
                    count(outcome.hosts),
                    outcome.broker.to_string(),
                    median(outcome, Q::ControllerPeakBytes),
                    median(outcome, Q::ProgramPeakBytes),
                ]
            })
            .collect(),
    }
}

fn programs(results: &Results) -> Table {
    let outcomes = results
        .outcomes
        .iter()
        .filter(|outcome| matches!(outcome.scenario, Scenario::Cpu | Scenario::Idle | Scenario::Few));
    let rows = outcomes.flat_map(|outcome| {
        outcome.samples.keys().map(|quantity| {
            vec![
                name(outcome),
                count(outcome.hosts),
                outcome.broker.to_string(),
                quantity.words().1.to_owned(),
                whole(outcome, *quantity),
            ]
        })
    });
    let columns = vec!["scenario", "hosts", "broker", "what", "measured"];
    Table { title: "The programs alone", columns, rows: rows.collect() }
}

fn failures(results: &Results) -> Table {
    let whole = |outcome: &'static str, why: &Option<String>| Some((outcome, why.clone()?));
    let failed = results.outcomes.iter().flat_map(|outcome| {
        let both = [whole("everything", &outcome.failed), whole("the raw baseline alone", &outcome.baseline_failed)];
        both.into_iter().flatten().map(move |(what, why)| (outcome, what, why))
    });
    Table {
        title: "What failed",
        columns: vec!["scenario", "hosts", "broker", "what", "why"],
        rows: failed
            .map(|(outcome, what, why)| {
                let scenario = outcome.scenario.title().to_owned();
                vec![scenario, count(outcome.hosts), outcome.broker.to_string(), what.to_owned(), why]
            })
            .collect(),
    }
}

fn runs(results: &Results) -> Table {
    let row = |(index, run): (usize, &Run)| {
        let of_run = || results.outcomes.iter().filter(move |outcome| outcome.run == index);
        let mut hosts: Vec<usize> =
            of_run().filter(|outcome| outcome.scenario.needs_fleet()).map(|outcome| outcome.hosts).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let mut brokers: Vec<BrokerKind> = of_run().map(|outcome| outcome.broker).collect();
        brokers.sort_unstable();
        brokers.dedup();
        let mut words: Vec<&str> = of_run().map(|outcome| outcome.scenario.word()).collect();
        words.dedup();
        vec![
            run.taken_at.clone(),
            hosts.into_iter().map(count).collect::<Vec<_>>().join(", "),
            brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            words.join(" "),
            format!("{} + {}", run.warm_ups, run.rounds),
            format!("{} / {}", run.profile, run.programs_profile),
            run.revision.clone().unwrap_or_else(|| run.version.clone()),
            run.load_before.map(|load| format!("{load:.2}")).join(" "),
        ]
    };
    Table {
        title: "Runs",
        columns: vec![
            "taken",
            "hosts",
            "brokers",
            "scenarios",
            "rounds: warm-up + counted",
            "profile: fleet / programs",
            "revision",
            "load before",
        ],
        rows: results.runs.iter().enumerate().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::testing::sample_results;

    #[test]
    fn the_tables_in_both_forms() {
        let mut results = sample_results();
        let two = results.outcomes.iter_mut().find(|outcome| outcome.scenario == Scenario::Two).unwrap();
        two.failed = Some("99 of 100 answered".to_owned());
        results.outcomes[1].apart = true;
        let large = results.outcomes.iter_mut().find(|outcome| outcome.scenario == Scenario::Run64k).unwrap();
        large.give_baseline_up("ask the raw echo: answers are missing after 120 s".to_owned());
        let tables = tables(&results);
        let text: Vec<String> = tables.iter().map(Table::to_text).collect();
        insta::assert_snapshot!("text", text.join("\n"));
        let markdown: Vec<String> = tables.iter().map(Table::to_markdown).collect();
        insta::assert_snapshot!("markdown", markdown.join("\n"));
    }
}
