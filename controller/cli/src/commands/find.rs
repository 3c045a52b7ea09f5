//! `muster find`: which hosts match.

use clap::Args;
use muster_protocol::{HostName, Timestamp};
use serde::Serialize;

use crate::ask::WaitArguments;
use crate::ask::follow::Stop;
use crate::ask::no_match;
use crate::ask::scene::{Scene, Stage};
use crate::ask::screen::Look;
use crate::ask::search::{matched, probe, search};
use crate::ask::stranger;
use crate::invocation::Invocation;
use crate::outcome::Reason;
use crate::output::{Column, ExitCode, Failure, Format, Printer, Style, Table, Text, Tolerated, fold, number, time};
use crate::target::{Target, TargetArguments};

/// Schema of the documents.
const SCHEMA: &str = "muster.find/v1";

/// Arguments of `find`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  \
    muster find -t 'os.family = \"Debian\" and not class = legacy'\n  \
    muster find --all --format wide\n  \
    muster find -t 'role = web' --names | muster run service.status name=nginx -H -")]
pub(crate) struct FindArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// One host that matches, or did when it was seen last.
#[derive(Debug, Clone, Serialize)]
struct FoundHost {
    kind: &'static str,
    host: HostName,
    online: bool,
    /// Why it is not: the word of a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<String>,
    #[serde(skip)]
    last_seen: Option<Timestamp>,
}

/// Everything in one document.
#[derive(Debug, Serialize)]
struct Document {
    kind: &'static str,
    context: String,
    target: String,
    matched: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    hosts: Vec<FoundHost>,
}

/// Finds the hosts of the target.
///
/// # Errors
/// No target, nobody matches, no broker.
pub(crate) async fn run(arguments: &FindArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let target = arguments.target.read("find")?;
    let mut stop = Stop::by_operator(arguments.wait.wait_for.map(|length| length.as_millis()))
        .map_err(|error| Failure::unexpected("signals cannot be listened to", &error))?;
    let mut stage = Stage::open(invocation, &mut stop).await?;
    let result = execute(&target, &arguments.wait, &mut stage.scene(&invocation.printer, stop)).await;
    stage.close(&invocation.printer).await;
    result
}

pub(crate) async fn execute(target: &Target, wait: &WaitArguments, scene: &mut Scene<'_>) -> Result<ExitCode, Failure> {
    let window_ms = wait.reply_timeout.map(|length| length.as_millis());
    let found = match (target.needs_discovery(), &target.hosts) {
        (false, Some(names)) => probe(scene, target.keep(names.iter().cloned()), window_ms).await?,
        _ => search(scene, target, window_ms).await?,
    };
    if found.hosts.is_empty() {
        return Err(no_match::explain(scene, target, &found.nobody()).await);
    }
    let chosen = target.choose(found.hosts.clone(), scene.fresh_seed);
    let printer = scene.printer;
    let now = scene.now();
    let host = |host: &HostName, online: bool| {
        let last_seen = scene.cache.last_seen(host);
        let last_seen_at = last_seen.map(time::rfc3339);
        let reason = found.no_queue.contains(host).then(|| Reason::NoQueue.word());
        FoundHost { kind: "host", host: host.clone(), online, reason, last_seen_at, last_seen }
    };
    let online = chosen.hosts.iter().map(|name| host(name, true));
    let hosts: Vec<FoundHost> = online.chain(found.silent.iter().map(|name| host(name, false))).collect();
    let silent: Vec<FoundHost> = hosts.iter().filter(|host| !host.online).cloned().collect();
    match printer.format() {
        Format::Json => {
            let context = scene.context.name.clone();
            let (matched, seed) = (chosen.of, chosen.seed);
            printer.document(SCHEMA, &Document { kind: "find", context, target: target.shown(), matched, seed, hosts });
        }
        Format::Jsonl => hosts.iter().for_each(|host| printer.record(SCHEMA, host)),
        Format::Names => chosen.hosts.iter().for_each(|host| printer.line(host.as_str())),
        Format::Wide | Format::Csv => printer.table(&table(&hosts, now, printer)),
        Format::Table => {
            fold::fold(chosen.hosts.iter().map(HostName::as_str)).into_iter().for_each(|line| printer.line(line));
        }
    }
    if let Format::Table | Format::Wide = printer.format() {
        printer.note(matched(target, &chosen, Look::of(printer).dot()));
        let (no_queue, silent): (Vec<_>, Vec<_>) = silent.iter().partition(|found| found.reason.is_some());
        if !silent.is_empty() && printer.format() == Format::Table {
            printer.note(silent_line(&silent, now));
        }
        for found in no_queue {
            printer.note(format!("{}  {}", found.host, stranger::no_queue(scene.cache, &found.host)));
        }
    }
    scene.learn(chosen.hosts).await;
    Ok(match !silent.is_empty() && !wait.tolerate.contains(&Tolerated::NoReply) {
        true => ExitCode::NoReply,
        false => ExitCode::Success,
    })
}

fn silent_line(silent: &[&FoundHost], now: Timestamp) -> String {
    let names = match silent {
        [FoundHost { host, last_seen: Some(seen), .. }] => format!("{host} last seen {}", time::ago(*seen, now)),
        many => fold::fold_line(many.iter().map(|found| found.host.as_str())),
    };
    format!("{} silent: {names}", number::count(silent.len()))
}

fn table(hosts: &[FoundHost], now: Timestamp, printer: &Printer) -> Table {
    let mut table = Table::new([Column::new("host"), Column::new("state"), Column::new("last_seen")]);
    for found in hosts {
        let plain = printer.format() == Format::Csv;
        let state = match found.online {
            _ if plain => Text::from(if found.online { "online" } else { found.reason.unwrap_or("silent") }),
            false if found.reason.is_some() => Text::styled(Style::Warning, "?").plain(" no queue"),
            true => Text::styled(Style::Good, printer.glyph("✓", "+")).plain(" online"),
            false => Text::styled(Style::Warning, "?").plain(" silent"),
        };
        let seen = match found.last_seen {
            Some(seen) if plain => time::rfc3339(seen),
            Some(seen) => time::ago(seen, now),
            None if plain => String::new(),
            None => "never".to_owned(),
        };
        table.row([Text::from(found.host.as_str()), state, Text::from(seen)]);
    }
    table
}
