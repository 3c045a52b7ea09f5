//! What the outputs of all hosts come to, below the groups: lines for people, records for programs.

use muster_client::aggregate::{Aggregated, Bar, Sum, aggregate, shown};
use muster_protocol::TaskState;
use muster_protocol::ddl::Action;
use serde::Serialize;
use serde_json::{Value, json};

use super::screen::Look;
use crate::outcome::{Group, Row};
use crate::output::{Style, Text, number};

/// Most lines of one summary; the rest is counted.
const LINES_MAX: usize = 10;

/// Widest heading.
const HEADING_WIDTH_MAX: usize = 24;

/// Columns of the longest bar.
const BAR_WIDTH: usize = 30;

/// Runs the functions of an action over the hosts that did what they were asked.
pub(crate) fn of_rows(rows: &[Row], action: &Action) -> Vec<Aggregated> {
    let succeeded = rows.iter().filter(|row| row.state == TaskState::Succeeded);
    aggregate(action, succeeded.filter(|row| row.result.is_some()).map(Row::data))
}

/// One function, as a record.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AggregateRecord {
    kind: &'static str,
    function: String,
    output: String,
    heading: String,
    values: usize,
    missing: usize,
    unusable: usize,
    /// Hosts that did not do what they were asked: nothing of theirs is in here.
    excluded_hosts: usize,
    /// `unknown_function` or `unknown_output`, where the description asks for what is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    /// Depends on the function; `null` where no host gave a value.
    result: Value,
    lines: Vec<String>,
}

impl AggregateRecord {
    /// The record of what a function came to.
    pub(crate) fn of(aggregated: &Aggregated, excluded_hosts: usize) -> Self {
        let bar = |bar: &Bar| json!({"from": bar.from, "to": bar.to, "count": bar.count});
        let (problem, result) = match &aggregated.sum {
            Sum::Summary { counts, more } => {
                let counts = counts.iter();
                let counts: Vec<Value> = counts
                    .map(|counted| json!({"value": counted.value, "title": counted.title, "count": counted.count}))
                    .collect();
                (None, json!({"counts": counts, "more_values": more}))
            }
            Sum::Average(average) => (None, json!({"average": average})),
            Sum::Percentiles(p) => {
                (None, json!({"min": p.min, "p50": p.p50, "p90": p.p90, "p99": p.p99, "max": p.max}))
            }
            Sum::Chart(bars) => (None, json!({"bars": bars.iter().map(bar).collect::<Vec<_>>()})),
            Sum::Nothing => (None, Value::Null),
            Sum::UnknownFunction => (Some("unknown_function"), Value::Null),
            Sum::UnknownOutput => (Some("unknown_output"), Value::Null),
        };
        Self {
            kind: "aggregate",
            function: aggregated.function.clone(),
            output: aggregated.output.clone(),
            heading: aggregated.heading.clone(),
            values: aggregated.values,
            missing: aggregated.missing,
            unusable: aggregated.unusable,
            excluded_hosts,
            problem,
            result,
            lines: aggregated.lines.clone(),
        }
    }
}

/// The lines below the groups. What the groups already say is not said twice.
pub(crate) fn lines(all: &[Aggregated], groups: &[Group], excluded_hosts: usize, look: Look) -> Vec<Text> {
    if groups.iter().all(|group| group.state != TaskState::Succeeded) {
        return Vec::new();
    }
    let told: Vec<&Aggregated> = all.iter().filter(|one| !is_in_groups(one, all, groups)).collect();
    if told.is_empty() {
        return Vec::new();
    }
    let width = told.iter().map(|one| Text::from(heading(one)).width()).max().unwrap_or(0).min(HEADING_WIDTH_MAX);
    let mut lines: Vec<Text> = Vec::new();
    for one in told {
        let mut start = Text::new().dim(heading(one)).cut_to(width, look.ascii).pad_to(width).plain("  ");
        for line in body(one, look) {
            lines.push(look.fitted(start.join(line)));
            start = Text::from(" ".repeat(width + 2));
        }
    }
    if excluded_hosts > 0 {
        let hosts = number::counted(excluded_hosts, "host that", "hosts that");
        lines.push(Text::from(" ".repeat(width + 2)).dim(format!("without {hosts} did not succeed")));
    }
    lines
}

fn heading(one: &Aggregated) -> &str {
    if one.heading.is_empty() { &one.function } else { &one.heading }
}

/// Whether the groups are the values of the only summary: they name each with its hosts.
fn is_in_groups(one: &Aggregated, all: &[Aggregated], groups: &[Group]) -> bool {
    let is_summary = |one: &Aggregated| matches!(one.function.as_str(), "summary" | "boolean_summary");
    let Sum::Summary { counts, more: 0 } = &one.sum else { return false };
    let succeeded: Vec<&Group> = groups.iter().filter(|group| group.state == TaskState::Succeeded).collect();
    let hosts: usize = succeeded.iter().map(|group| group.hosts.len()).sum();
    all.iter().filter(|one| is_summary(one)).count() == 1
        && counts.len() == succeeded.len()
        && one.missing + one.unusable == 0
        && one.values == hosts
}

fn body(one: &Aggregated, look: Look) -> Vec<Text> {
    let remark = |text: String| Text::new().dim(text);
    let warning = |text: String| Text::styled(Style::Warning, text);
    let mut lines: Vec<Text> = match &one.sum {
        Sum::UnknownFunction => {
            return vec![warning(format!("the description asks for `{}`, which is not known here", one.function))];
        }
        Sum::UnknownOutput if one.output.is_empty() => {
            return vec![warning(format!("the description does not say what `{}` is of", one.function))];
        }
        Sum::UnknownOutput => {
            return vec![warning(format!("the description asks for `{}`, and there is no such output", one.output))];
        }
        Sum::Nothing => vec![remark("no host gave a value".to_owned())],
        Sum::Chart(bars) => chart(bars, look),
        Sum::Summary { more, .. } => {
            let mut lines: Vec<Text> = one.lines.iter().take(LINES_MAX).map(Text::from).collect();
            let left = one.lines.len().saturating_sub(LINES_MAX) + more;
            if left > 0 {
                lines.push(remark(format!("and {}", number::counted(left, "more value", "more values"))));
            }
            lines
        }
        Sum::Average(_) | Sum::Percentiles(_) => one.lines.iter().map(Text::from).collect(),
    };
    if one.missing > 0 && one.sum != Sum::Nothing {
        lines.push(remark(format!("{} gave none", number::counted(one.missing, "host", "hosts"))));
    }
    if one.unusable > 0 {
        let hosts = number::counted(one.unusable, "host gave", "hosts gave");
        lines.push(warning(format!("{hosts} a value that `{}` cannot use", one.function)));
    }
    if let Some(format) = &one.bad_format {
        lines.push(warning(format!("the description's format `{format}` is not understood")));
    }
    lines
}

fn chart(bars: &[Bar], look: Look) -> Vec<Text> {
    let most = bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let last = bars.len().saturating_sub(1);
    let range = |(index, bar): (usize, &Bar)| match () {
        () if bar.from == bar.to => shown(bar.from),
        () if index == last => format!("{} to {}", shown(bar.from), shown(bar.to)),
        () => format!("{} to below {}", shown(bar.from), shown(bar.to)),
    };
    let ranges: Vec<String> = bars.iter().enumerate().map(range).collect();
    let width = ranges.iter().map(String::len).max().unwrap_or(0);
    let draw = |(bar, range): (&Bar, &String)| {
        // A bar with hosts is seen, however few they are.
        let columns = (bar.count * BAR_WIDTH).div_ceil(most);
        let block = if look.ascii { "#" } else { "█" };
        let bars = block.repeat(columns);
        let gap = if columns == 0 { "" } else { " " };
        Text::from(range).pad_to(width + 2).push(Style::Accent, bars).plain(gap).plain(number::count(bar.count))
    };
    bars.iter().zip(&ranges).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use muster_protocol::Outcome;
    use muster_protocol::ddl::Ddl;

    use super::*;
    use crate::outcome::tests::row;
    use crate::outcome::{Headline, group};

    fn action(aggregate: Value) -> Action {
        let output = |heading: &str, kind: &str| json!({"description": "d", "display_as": heading, "type": kind});
        let ddl = json!({
            "metadata": {
                "name": "thing", "description": "d", "author": "a", "license": "l", "version": "1.0.0", "url": "u", "timeout": 5
            },
            "actions": [{
                "action": "look", "description": "d", "display": "always", "input": {},
                "output": {
                    "state": output("State", "string"), "on": output("Switched on", "boolean"),
                    "size": output("Size in MB", "integer")
                },
                "aggregate": aggregate
            }]
        });
        Ddl::parse(&ddl.to_string()).unwrap().actions.remove(0)
    }

    fn rows() -> Vec<Row> {
        let mut rows: Vec<Row> = (1..=40usize)
            .map(|n| {
                let state = ["running", "running", "stopped"][n % 3];
                let data = json!({"state": state, "on": n % 4 == 0, "size": n * n});
                row(&format!("web-{n:02}"), Outcome::Succeeded, data, "")
            })
            .collect();
        rows.push(row("web-98", Outcome::Succeeded, json!({"state": "odd", "size": "big"}), ""));
        rows.push(row("web-99", Outcome::Failed, Value::Null, "it broke"));
        rows
    }

    fn drawn(aggregate: Value, look: Look, colored: bool) -> String {
        let action = action(aggregate);
        let rows = rows();
        let groups = group(&rows, &Headline { action: Some(&action) });
        let lines = lines(&of_rows(&rows, &action), &groups, 1, look);
        lines.iter().map(|line| line.render(colored)).collect::<Vec<_>>().join("\n")
    }

    fn everything() -> Value {
        json!([
            {"function": "summary", "args": ["state", {"format": "%s: %d hosts"}]},
            {"function": "boolean_summary", "args": ["on", {"titles": {"true": "on", "false": "off"}}]},
            {"function": "average", "args": ["size", {"format": "%.1f on average"}]},
            {"function": "percentiles", "args": ["size"]},
            {"function": "chart", "args": ["size"]},
            {"function": "median", "args": ["size"]},
            {"function": "summary", "args": ["colour"]}
        ])
    }

    #[test]
    fn every_function_has_its_lines() {
        let wide = Look { ascii: false, width: Some(80) };
        insta::assert_snapshot!("aggregates_80_columns", drawn(everything(), wide, false));
        insta::assert_snapshot!("aggregates_colour", drawn(everything(), wide, true));
        let ascii = drawn(everything(), Look { ascii: true, width: Some(80) }, false);
        assert!(ascii.is_ascii(), "{ascii}");
        insta::assert_snapshot!("aggregates_ascii", ascii);
    }

    #[test]
    fn what_the_groups_say_is_not_said_again() {
        let look = Look { ascii: false, width: Some(80) };
        let state = json!({"function": "summary", "args": ["state"]});
        assert_eq!(drawn(json!([state]), look, false), "");
        assert_ne!(drawn(json!([state, {"function": "summary", "args": ["size"]}]), look, false), "");
        assert_ne!(drawn(json!([{"function": "summary", "args": ["on"]}]), look, false), "", "one host has no value");
    }

    #[test]
    fn programs_get_numbers() {
        let action = action(everything());
        let records: Vec<AggregateRecord> =
            of_rows(&rows(), &action).iter().map(|one| AggregateRecord::of(one, 1)).collect();
        insta::assert_json_snapshot!("aggregates_json", records);
    }
}
