//! What is shown once everybody has answered or nobody is waited for any more: the same for a request that was
//! just made and for one that is watched.

use muster_protocol::ddl::Action;
use muster_protocol::{HostName, TaskState};

use super::aggregates::{self, AggregateRecord};
use super::details;
use super::record::{CountsRecord, EndRecord, GroupRecord, Plan, RequestRecord, SCHEMA, Task, Tasks, Whole};
use super::scene::Scene;
use super::screen::{self, Look};
use crate::outcome::{Group, Headline, Reason, Row, count, group};
use crate::output::{Column, Format, Table, Text};

/// What the results belong to.
#[derive(Debug)]
pub(crate) enum Head {
    /// A request that was just made.
    Plan(Box<Plan>),
    /// A request of before.
    Request(RequestRecord),
}

/// Shows the results in the format that was asked for.
pub(crate) fn show(scene: &Scene<'_>, action: Option<&Action>, head: Head, rows: &[Row], end: &EndRecord) {
    let printer = scene.printer;
    let headline = Headline { action };
    let groups: Vec<Group> = group(rows, &headline);
    let counts = count(rows);
    let aggregated = action.map(|action| aggregates::of_rows(rows, action)).unwrap_or_default();
    let excluded = rows.iter().filter(|row| row.state != TaskState::Succeeded).count();
    let aggregate_records = || aggregated.iter().map(|one| AggregateRecord::of(one, excluded));
    match printer.format() {
        Format::Json => {
            let (plan, request) = match head {
                Head::Plan(plan) => (Some(*plan), None),
                Head::Request(request) => (None, Some(request)),
            };
            let last_seen = |host: &HostName| scene.cache.last_seen(host);
            let tasks = Tasks { rows, last_seen: &last_seen };
            let groups = groups.iter().map(GroupRecord::of).collect();
            let (counts, aggregates, end) = (CountsRecord::of(&counts), aggregate_records().collect(), end.clone());
            let whole = Whole { kind: "job", plan, request, tasks, counts, groups, aggregates, end };
            printer.document(SCHEMA, &whole);
        }
        Format::Jsonl => {
            // The records of hosts that were asked went out with their wave.
            for row in rows.iter().filter(|row| row.request.is_none()) {
                printer.record(SCHEMA, &Task::of(row, scene.cache.last_seen(&row.host)));
            }
            groups.iter().for_each(|group| printer.record(SCHEMA, &GroupRecord::of(group)));
            aggregate_records().for_each(|record| printer.record(SCHEMA, &record));
            printer.record(SCHEMA, &CountsRecord::of(&counts));
            printer.record(SCHEMA, end);
        }
        Format::Names => rows.iter().for_each(|row| printer.line(row.host.as_str())),
        Format::Csv => printer.table(&table(rows, &headline)),
        Format::Table | Format::Wide => {
            let look = Look::of(printer);
            let single = rows.len() == 1;
            if !single {
                screen::groups(&groups, look).into_iter().for_each(|line| printer.line(line));
                let lines = aggregates::lines(&aggregated, &groups, excluded, look);
                lines.into_iter().for_each(|line| printer.line(line));
            }
            if single || printer.verbose() > 0 || printer.format() == Format::Wide {
                for row in rows {
                    details::lines(row, action, look.ascii).into_iter().for_each(|line| printer.line(line));
                }
            }
            printer.line(screen::end(&counts, end.duration_ms, look));
        }
    }
    end.warn(printer);
}

fn table(rows: &[Row], headline: &Headline<'_>) -> Table {
    let columns = ["host", "state", "reason", "code", "exit_code", "duration_ms", "headline", "message", "data"];
    let mut table = Table::new(columns.map(Column::new));
    for row in rows {
        let result = row.result.as_ref();
        let number = |number: Option<String>| Text::from(number.unwrap_or_default());
        table.row([
            Text::from(row.host.as_str()),
            Text::from(row.state.word()),
            Text::from(row.reason.map(Reason::word).unwrap_or_default()),
            Text::from(result.map(|result| result.code.as_str()).unwrap_or_default()),
            number(result.and_then(|result| result.exit_code).map(|code| code.to_string())),
            number(result.map(|result| result.duration_ms.to_string())),
            Text::from(headline.of(row)),
            Text::from(result.map(|result| result.message.as_str()).unwrap_or_default()),
            Text::from(
                result
                    .map(|_| row.data())
                    .filter(|data| !data.is_null())
                    .map(|data| data.to_string())
                    .unwrap_or_default(),
            ),
        ]);
    }
    table
}
