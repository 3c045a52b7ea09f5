//! `muster host list|show|facts`: who is there and what they have.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use muster_client::cache::{CachedInventory, HostCache};
use muster_client::{WINDOW_MS_DEFAULT, discover};
use muster_protocol::expr::{Expression, did_you_mean};
use muster_protocol::{HostName, Inventory, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::ask::search::unwilling_note;
use crate::invocation::Invocation;
use crate::one_host;
use crate::output::number::counted;
use crate::output::{Column, ExitCode, Failure, Printer, Style, Table, Text, fold, time};
use crate::remembered;
use crate::session::client_failure;

/// Hosts whose inventory is asked for by one listing, and how long it may take: enough for the
/// first listing of a small site to be whole, little enough for a large one to stay quick.
const INVENTORIES_MAX: usize = 200;
const INVENTORY_WINDOW_MS: i64 = 2_000;

/// Verbs of `host`.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List the hosts that answer, and those that are remembered.
    #[command(before_help = "Examples:\n  \
        muster host list\n  \
        muster host list -t 'os.family = Debian' --format wide\n  \
        muster host list --cached --names")]
    List(ListArguments),
    /// Show what a host is and has.
    #[command(before_help = "Examples:\n  muster host show web1.example.com")]
    Show {
        /// The host's name.
        #[arg(add = crate::complete::hosts())]
        name: HostName,
    },
    /// Show a host's facts, all or those below a path.
    #[command(before_help = "Examples:\n  \
        muster host facts web1.example.com\n  \
        muster host facts web1.example.com os.release")]
    Facts {
        /// The host's name.
        #[arg(add = crate::complete::hosts())]
        name: HostName,
        /// A fact, or the beginning of several: `os` means `os.family`, `os.name` and so on.
        #[arg(add = crate::complete::facts())]
        path: Option<String>,
    },
}

/// Arguments of `host list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only hosts on which this expression is true.
    #[arg(short = 't', long = "target", value_name = "QUERY", add = crate::complete::targets())]
    target: Option<String>,
    /// Ask nobody: list what is remembered from earlier commands.
    #[arg(long)]
    cached: bool,
}

/// Runs a verb of `host`.
pub(crate) async fn run(command: &HostCommand, invocation: &Invocation) -> Result<ExitCode, Failure> {
    match command {
        HostCommand::List(arguments) => list(arguments, invocation).await,
        HostCommand::Show { name } => show(name, invocation).await,
        HostCommand::Facts { name, path } => facts(name, path.as_deref(), invocation).await,
    }
}

/// One host of the list.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    /// Whether it answered just now. Absent where nobody was asked.
    answered: Option<bool>,
    last_seen: Option<String>,
    agent_version: Option<String>,
    os: Option<String>,
    #[serde(skip)]
    seen: Option<Timestamp>,
}

async fn list(arguments: &ListArguments, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let target = arguments.target.as_deref().map(|text| {
        Expression::parse(text).map_err(|error| {
            Failure::new(ExitCode::Usage, "bad-target", "the target cannot be read")
                .why("target", error.render(text))
                .hint("muster explain bad-target")
        })
    });
    let target = target.transpose()?;
    let listed = match arguments.cached {
        true => known(target.as_ref(), invocation)?,
        false => asked(target.as_ref(), invocation).await?,
    };
    if listed.is_empty() {
        return Err(nobody(target.as_ref(), arguments.cached));
    }
    print_list(&listed, invocation);
    Ok(ExitCode::Success)
}

fn nobody(target: Option<&Expression>, cached: bool) -> Failure {
    let what = if cached { "no host is remembered" } else { "no host answers" };
    let failure = Failure::new(ExitCode::NoMatch, "no-match", what);
    match target {
        Some(target) => failure.why("target", target.as_str()).hint("muster host list"),
        None if cached => failure.hint("muster ping --all"),
        None => failure.why("note", "has any agent connected to this broker yet?").hint("muster doctor"),
    }
}

fn known(target: Option<&Expression>, invocation: &Invocation) -> Result<Vec<Listed>, Failure> {
    let context = invocation.context()?;
    let mut cache = remembered::hosts(&context, invocation.now());
    let hosts = cache.likely(target);
    Ok(hosts.iter().map(|host| row(host, None, None, &mut cache)).collect())
}

async fn asked(target: Option<&Expression>, invocation: &Invocation) -> Result<Vec<Listed>, Failure> {
    let mut session = invocation.session().await?;
    let mut cache = remembered::hosts(&session.context, invocation.now());
    let mut progress = invocation.printer.progress(0, "asking who is there");
    let controller = &mut session.controller;
    let found = discover::discover(controller, &mut cache, target, WINDOW_MS_DEFAULT, |asking, _| {
        progress.update(asking.collector().counts().succeeded);
    })
    .await;
    drop(progress);
    let found = found.map_err(|error| client_failure(&error, &session.context))?;
    unwilling_note(&invocation.printer, &found.unwilling);
    let hosts = found.hosts.clone();
    if let Err(error) = discover::refresh(controller, &mut cache, hosts, INVENTORIES_MAX, INVENTORY_WINDOW_MS).await {
        // The list stands without them.
        invocation.printer.detail(1, format!("Inventories could not be asked for: {error}"));
    }
    let mut listed = Vec::new();
    for host in found.hosts.union(&found.silent) {
        let record = found.summary.hosts.get(host).and_then(|record| record.result.as_ref());
        let version = record.and_then(|result| result.data.get("agent_version")).and_then(Value::as_str);
        listed.push(row(host, Some(found.hosts.contains(host)), version.map(str::to_owned), &mut cache));
    }
    if let Err(error) = cache.save() {
        invocation.printer.detail(1, format!("What was learnt about the hosts could not be kept: {error}"));
    }
    session.close().await;
    Ok(listed)
}

fn row(host: &HostName, answered: Option<bool>, agent_version: Option<String>, cache: &mut HostCache) -> Listed {
    let seen = cache.last_seen(host);
    let os = cache.inventories().get(host).and_then(|cached| os(&cached.inventory));
    Listed { name: host.to_string(), answered, last_seen: seen.map(time::rfc3339), agent_version, os, seen }
}

/// `Debian 12.5` from the facts that agents have by themselves.
fn os(inventory: &Inventory) -> Option<String> {
    let os = inventory.facts.get("os")?;
    let name = os.get("name")?.as_str()?;
    match os.pointer("/release/full").and_then(Value::as_str) {
        Some(release) => Some(format!("{name} {release}")),
        None => Some(name.to_owned()),
    }
}

fn print_list(listed: &[Listed], invocation: &Invocation) {
    let printer = &invocation.printer;
    let now = invocation.now();
    let columns = [
        Column::new("name"),
        Column::new("state"),
        Column::new("last_seen"),
        Column::new("agent"),
        Column::new("os").text(),
    ];
    let mut table = Table::new(columns);
    for host in listed {
        let state = match host.answered {
            Some(true) => Text::styled(Style::Good, "answered"),
            Some(false) => Text::styled(Style::Warning, "silent"),
            None => Text::styled(Style::Dim, "not asked"),
        };
        let seen = match printer.format().is_for_programs() {
            true => host.last_seen.clone().unwrap_or_default(),
            false => host.seen.map_or("never".to_owned(), |seen| time::ago(seen, now)),
        };
        let text = |value: &Option<String>| Text::from(value.clone().unwrap_or_default());
        table.row([Text::from(&host.name), state, seen.into(), text(&host.agent_version), text(&host.os)]);
    }
    printer.list("muster.hosts/v1", "hosts", listed, &table);
    if !printer.format().is_for_programs() {
        let silent: Vec<&str> =
            listed.iter().filter(|host| host.answered == Some(false)).map(|host| host.name.as_str()).collect();
        let mut summary = counted(listed.len() - silent.len(), "host", "hosts");
        if !silent.is_empty() {
            summary += &format!(", {} silent: {}", silent.len(), fold::fold_line(silent));
        }
        printer.note(summary);
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    answered: bool,
    last_seen: Option<String>,
    agent_version: Option<String>,
    uptime_s: Option<u64>,
    os: Option<String>,
    collectives: Vec<String>,
    classes: Vec<String>,
    plugins: Vec<String>,
    fact_count: usize,
}

async fn show(name: &HostName, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let mut session = invocation.session().await?;
    let mut cache = remembered::hosts(&session.context, invocation.now());
    let (controller, context) = (&mut session.controller, &session.context);
    let answer = one_host::ask_in(controller, &mut cache, context, name, "inventory", Map::new()).await;
    let status = match &answer {
        Ok(_) => one_host::ask_in(controller, &mut cache, context, name, "status", Map::new()).await.ok(),
        Err(_) => None,
    };
    let fresh = answer.as_ref().ok().map(|data| discover::read_inventory(data).ok_or_else(|| one_host::strange(name)));
    let fresh = fresh.transpose()?;
    if let Some((digest, inventory)) = &fresh {
        cache.keep(name, digest, inventory.clone());
    }
    let known: Option<CachedInventory> = cache.inventories().get(name).cloned();
    let seen = cache.last_seen(name);
    if let Err(error) = cache.save() {
        invocation.printer.detail(1, format!("What was learnt about the host could not be kept: {error}"));
    }
    session.close().await;
    let printer = &invocation.printer;
    match (answer, known) {
        (Ok(_), Some(known)) => {
            print_host(&shown(name, true, seen, status.as_ref(), &known.inventory), seen, invocation);
            Ok(ExitCode::Success)
        }
        // Silent, but remembered: better old news than none, said to be old.
        (Err(failure), Some(known)) if failure.exit == ExitCode::NoReply => {
            print_host(&shown(name, false, seen, None, &known.inventory), seen, invocation);
            printer.warning(format!("`{name}` does not answer; this is what it said last"));
            Ok(ExitCode::NoReply)
        }
        (Err(failure), _) => Err(failure),
        (Ok(_), None) => Err(one_host::strange(name)),
    }
}

fn shown(
    name: &HostName,
    answered: bool,
    seen: Option<Timestamp>,
    status: Option<&Value>,
    inventory: &Inventory,
) -> Shown {
    let status = |key: &str| status.and_then(|status| status.get(key));
    Shown {
        name: name.to_string(),
        answered,
        last_seen: seen.map(time::rfc3339),
        agent_version: status("agent_version").and_then(Value::as_str).map(str::to_owned),
        uptime_s: status("uptime_s").and_then(Value::as_u64),
        os: os(inventory),
        collectives: inventory.collectives.iter().map(ToString::to_string).collect(),
        classes: inventory.classes.iter().cloned().collect(),
        plugins: inventory.plugins.iter().map(|plugin| format!("{} {}", plugin.name, plugin.version)).collect(),
        fact_count: flat(&inventory.facts).len(),
    }
}

fn print_host(host: &Shown, seen: Option<Timestamp>, invocation: &Invocation) {
    let printer = &invocation.printer;
    if printer.format().is_json() {
        return printer.document("muster.host/v1", host);
    }
    let mut table = Table::new([Column::new("key"), Column::new("value").text()]);
    let list = |values: &[String]| if values.is_empty() { "none".to_owned() } else { values.join(", ") };
    let unknown = || "unknown".to_owned();
    let uptime = host.uptime_s.and_then(|seconds| i64::try_from(seconds).ok());
    let rows = [
        ("name", host.name.clone()),
        ("state", if host.answered { "answered".to_owned() } else { "silent".to_owned() }),
        ("last_seen", seen.map_or_else(unknown, |seen| time::ago(seen, invocation.now()))),
        ("agent", host.agent_version.clone().unwrap_or_else(unknown)),
        ("agent_up", uptime.map_or_else(unknown, |seconds| time::span(seconds.saturating_mul(1_000)))),
        ("os", host.os.clone().unwrap_or_else(unknown)),
        ("collectives", list(&host.collectives)),
        ("classes", list(&host.classes)),
        ("plugins", list(&host.plugins)),
        ("facts", format!("{} (muster host facts {})", host.fact_count, host.name)),
    ];
    for (key, value) in rows {
        table.row([key.into(), value.into()]);
    }
    printer.table(&table);
}

/// Every fact that is no object, by its path with dots.
fn flat(facts: &Map<String, Value>) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    walk(&format!("{path}.{name}"), value, found);
                }
            }
            _ => {
                found.insert(path.to_owned(), value.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    for (name, value) in facts {
        walk(name, value, &mut found);
    }
    found
}

#[derive(Debug, Serialize)]
struct Facts {
    host: String,
    facts: BTreeMap<String, Value>,
}

async fn facts(name: &HostName, path: Option<&str>, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let arguments = path.map(|path| Map::from_iter([("prefix".to_owned(), Value::from(path))])).unwrap_or_default();
    let data = one_host::ask(invocation, name, "facts", arguments).await?;
    let facts = data.get("facts").and_then(Value::as_object).map(flat).ok_or_else(|| one_host::strange(name))?;
    if let Some(path) = path
        && facts.is_empty()
    {
        return Err(unknown_fact(name, path, invocation));
    }
    print_facts(Facts { host: name.to_string(), facts }, &invocation.printer);
    Ok(ExitCode::Success)
}

fn print_facts(facts: Facts, printer: &Printer) {
    if printer.format().is_json() {
        return printer.document("muster.facts/v1", &facts);
    }
    let mut table = Table::new([Column::new("fact"), Column::new("value").text()]);
    for (path, value) in facts.facts {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        table.row([Text::styled(Style::Accent, path), value.into()]);
    }
    printer.table(&table);
}

fn unknown_fact(host: &HostName, path: &str, invocation: &Invocation) -> Failure {
    let failure = Failure::new(ExitCode::Usage, "unknown-fact", format!("`{host}` has no fact `{path}`"));
    let known = invocation.context().map(|context| remembered::hosts(&context, invocation.now()).names());
    let known = known.unwrap_or_default();
    // A path may also be meant as the beginning of others.
    let beginnings = known.iter().flat_map(|name| name.match_indices('.').map(|(dot, _)| &name[..dot]));
    match did_you_mean(path, known.iter().map(String::as_str).chain(beginnings)) {
        Some(nearest) => {
            failure.why("nearest", format!("`{nearest}`")).hint(format!("muster host facts {host} {nearest}"))
        }
        None => failure.hint(format!("muster host facts {host}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_are_flattened_by_path() {
        let facts = json!({"os": {"family": "Debian", "release": {}}, "disks": ["sda"], "cpus": 4});
        let Value::Object(facts) = facts else { panic!("an object") };
        let flat: Vec<(String, String)> =
            flat(&facts).into_iter().map(|(path, value)| (path, value.to_string())).collect();
        let expected = [("cpus", "4"), ("disks", "[\"sda\"]"), ("os.family", "\"Debian\""), ("os.release", "{}")];
        assert_eq!(flat, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_system_is_named_from_its_facts() {
        let named = |facts: Value| {
            let Value::Object(facts) = facts else { panic!("an object") };
            os(&Inventory { facts, ..Inventory::default() })
        };
        assert_eq!(
            named(json!({"os": {"name": "Debian", "release": {"full": "12.5"}}})).as_deref(),
            Some("Debian 12.5")
        );
        assert_eq!(named(json!({"os": {"name": "Arch"}})).as_deref(), Some("Arch"));
        assert_eq!(named(json!({"os": "linux"})), None);
    }
}
