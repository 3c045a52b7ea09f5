//! Tables of results, for the terminal and for the page: one content, two forms.

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
        columns: vec!["scenario", "hosts", "against raw", "Muster", "raw", "question over"],
        rows: with_exchange(results)
            .map(|outcome| {
                vec![
                    name(outcome),
                    count(outcome.hosts),
                    ratio(outcome.against_raw()),
                    whole(outcome, Q::CompleteMs),
                    whole(outcome, Q::RawCompleteMs),
                    median(outcome, Q::EndedMs),
                ]
            })
            .collect(),
    }
}

fn storms(results: &Results) -> Table {
    use Quantity as Q;
    Table {
        title: "Connect storm",
        columns: vec!["hosts", "against raw", "agents", "raw", "memory of all agents", "memory of the broker"],
        rows: results
            .of(Scenario::Storm)
            .map(|outcome| {
                vec![
                    count(outcome.hosts),
                    ratio(outcome.against_raw()),
                    whole(outcome, Q::ReadyPerSecond),
                    whole(outcome, Q::RawReadyPerSecond),
                    median(outcome, Q::FleetBytes),
                    median(outcome, Q::BrokerBytes),
                ]
            })
            .collect(),
    }
}

fn verdicts(results: &Results) -> Table {
    let row = |verdict: &crate::targets::Verdict<'_>| {
        let target = verdict.target;
        let measured = verdict.measured.map_or_else(|| "–".to_owned(), |spread| target.show(spread.median));
        vec![target.words.to_owned(), count(verdict.hosts), target.show_bound(), measured, verdict.word().to_owned()]
    };
    Table {
        title: "Targets",
        columns: vec!["what", "hosts", "target", "measured", "verdict"],
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
        columns: vec!["scenario", "hosts", "client library", "`muster`"],
        rows: with_exchange(results)
            .filter(|outcome| matches!(outcome.scenario, Scenario::Ping | Scenario::Run64k))
            .map(|outcome| {
                vec![
                    name(outcome),
                    count(outcome.hosts),
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
            vec![name(outcome), count(outcome.hosts), quantity.words().1.to_owned(), whole(outcome, *quantity)]
        })
    });
    Table { title: "The programs alone", columns: vec!["scenario", "hosts", "what", "measured"], rows: rows.collect() }
}

fn failures(results: &Results) -> Table {
    let failed = results.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.failed.as_ref()?)));
    Table {
        title: "What failed",
        columns: vec!["scenario", "hosts", "why"],
        rows: failed
            .map(|(outcome, why)| vec![outcome.scenario.title().to_owned(), count(outcome.hosts), why.clone()])
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
        let mut words: Vec<&str> = of_run().map(|outcome| outcome.scenario.word()).collect();
        words.dedup();
        vec![
            run.taken_at.clone(),
            hosts.into_iter().map(count).collect::<Vec<_>>().join(", "),
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
        let tables = tables(&results);
        let text: Vec<String> = tables.iter().map(Table::to_text).collect();
        insta::assert_snapshot!("text", text.join("\n"));
        let markdown: Vec<String> = tables.iter().map(Table::to_markdown).collect();
        insta::assert_snapshot!("markdown", markdown.join("\n"));
    }
}
