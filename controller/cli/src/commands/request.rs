//! `muster request list`: what was asked from here lately.

use clap::{Args, Subcommand};
use muster_protocol::{HostName, RequestId};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::{Column, ExitCode, Failure, Format, Style, Table, Text, number, time};
use crate::requests::{Request, Requests};

/// What to do with requests.
#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// List what was asked from here lately, newest first.
    #[command(before_help = "Examples:\n  muster request list\n  muster request list --limit 50 --format wide")]
    List(ListArguments),
}

/// Arguments of `request list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Those of every context.
    #[arg(long)]
    pub(crate) all_contexts: bool,
}

#[derive(Debug, Serialize)]
struct Item {
    request_id: RequestId,
    asked_at: String,
    context: String,
    action: String,
    what: String,
    read_only: bool,
    request_ids: Vec<RequestId>,
    hosts: Vec<HostName>,
}

/// Lists the requests.
///
/// # Errors
/// No context is chosen.
pub(crate) fn run(command: &RequestCommand, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let RequestCommand::List(arguments) = command;
    let context = if arguments.all_contexts { None } else { Some(invocation.context()?.name) };
    list(&Requests::of_user(), arguments.limit, context.as_deref(), invocation);
    Ok(ExitCode::Success)
}

fn list(requests: &Requests, limit: usize, context: Option<&str>, invocation: &Invocation) {
    let (printer, now) = (&invocation.printer, invocation.now());
    let mut all = requests.all();
    all.retain(|request| context.is_none_or(|context| request.context == context));
    let left = all.len().saturating_sub(limit);
    let newest: Vec<&Request> = all.iter().rev().take(limit).collect();
    let columns = [
        Column::new("request"),
        Column::new("asked"),
        Column::new("hosts").right(),
        Column::new("what").text(),
        Column::new("context").wide(),
        Column::new("id").wide(),
    ];
    let mut table = Table::new(columns);
    for request in &newest {
        let asked = match printer.format() {
            Format::Csv => time::rfc3339(request.asked_at),
            _ => time::ago(request.asked_at, now),
        };
        table.row([
            Text::styled(Style::Accent, request.id.short()),
            asked.into(),
            number::count(request.hosts().len()).into(),
            (&request.what).into(),
            (&request.context).into(),
            request.id.to_string().into(),
        ]);
    }
    let item = |request: &&Request| Item {
        request_id: request.id,
        asked_at: time::rfc3339(request.asked_at),
        context: request.context.clone(),
        action: request.action.clone(),
        what: request.what.clone(),
        read_only: request.read_only,
        request_ids: request.commands.keys().copied().collect(),
        hosts: request.hosts().into_iter().collect(),
    };
    let items: Vec<Item> = newest.iter().map(item).collect();
    printer.list("muster.requests/v1", "requests", &items, &table);
    if newest.is_empty() {
        printer.note("nothing was asked from here lately");
    }
    if left > 0 {
        printer.note(format!("{} more: --limit {}", number::count(left), all.len()));
    }
}
