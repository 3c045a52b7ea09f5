//! `muster broker status|reload|close|delete-queue|purge-queue`: what a running embedded broker is asked.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use clap::{Args, ValueEnum};
use muster_broker::control::{Answer, ControlError, Request, ask};
use muster_broker::server::status::{FileTrouble, RevocationListStatus, Status, Used, WatchedFile};
use muster_protocol::{Identity, Timestamp};

use super::documents;
use super::run::File;
use crate::output::{Column, ExitCode, Failure, Printer, Style, Table, Text, word};

/// From so many of ten on a bound is nearly reached.
const NEARLY: u64 = 9;

/// Rows of the lists within the overview.
const BUSIEST: usize = 5;

/// Arguments of `broker status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    file: File,
    /// Show a list in place of the overview.
    #[arg(long, value_name = "WHAT")]
    list: Option<Listed>,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    /// Connections by identity.
    Connections,
    /// Queues by name.
    Queues,
    /// Bindings by what receives.
    Bindings,
}

/// Arguments of `broker reload`.
#[derive(Debug, Args)]
pub(crate) struct ReloadArguments {
    #[command(flatten)]
    file: File,
}

/// Arguments of `broker close`.
#[derive(Debug, Args)]
pub(crate) struct CloseArguments {
    #[command(flatten)]
    file: File,
    /// Of whom, host/NAME, user/NAME or service/NAME.
    #[arg(long, value_name = "KIND/NAME", required_unless_present = "all")]
    identity: Option<Identity>,
    /// Of everybody.
    #[arg(long, conflicts_with = "identity")]
    all: bool,
    /// What the clients are told.
    #[arg(long, value_name = "WORDS", default_value = "closed by the operator")]
    reason: String,
}

/// Arguments of `broker delete-queue` and `broker purge-queue`.
#[derive(Debug, Args)]
pub(crate) struct QueueArguments {
    #[command(flatten)]
    file: File,
    /// The queue's name.
    #[arg(value_name = "QUEUE")]
    queue: String,
}

/// Shows how the broker is. Exit code 3 where something calls for attention, 7 where none runs.
pub(super) fn status(arguments: &StatusArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let bindings = printer.format().is_for_programs() || arguments.list == Some(Listed::Bindings);
    let status = match demand(&arguments.file, &Request::Status { bindings })? {
        Answer::Status { status } => status,
        other => return Err(unexpected(&other, &arguments.file)),
    };
    match arguments.list {
        Some(Listed::Connections) => printer.list(
            documents::CONNECTIONS,
            "connections",
            &documents::connections(&status),
            &connections(&status, usize::MAX),
        ),
        Some(Listed::Queues) => {
            printer.list(documents::QUEUES, "queues", &status.queues, &queues(&status, usize::MAX));
        }
        Some(Listed::Bindings) => {
            let all = status.bindings.clone().unwrap_or_default();
            printer.list(documents::BINDINGS, "bindings", &all, &self::bindings(&status));
        }
        None if printer.format().is_for_programs() => {
            printer.document(documents::STATUS, &documents::status(&status, &attention(&status)));
        }
        None => return Ok(show(&status, printer)),
    }
    Ok(if attention(&status).is_empty() { ExitCode::Success } else { ExitCode::HostFailed })
}

/// Has the broker read its configuration again.
pub(super) fn reload(arguments: &ReloadArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let (_, notes) = match demand(&arguments.file, &Request::Reload)? {
        Answer::Refused { code, why } => return Err(not_reloaded(&code, &why, &arguments.file)),
        answer => done(answer, &arguments.file)?,
    };
    printer.line("the broker has read its configuration again");
    notes.into_iter().for_each(|note| printer.warning(note));
    Ok(ExitCode::Success)
}

/// Closes connections.
pub(super) fn close(arguments: &CloseArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let request = Request::Close { identity: arguments.identity.clone(), reason: arguments.reason.clone() };
    let (count, _) = done(demand(&arguments.file, &request)?, &arguments.file)?;
    match &arguments.identity {
        Some(identity) if count == 0 => printer.line(format!("{} has no connection here", identity.short())),
        _ => printer.line(format!("{} closed", counted(count, "connection"))),
    }
    Ok(ExitCode::Success)
}

/// Deletes a queue.
pub(super) fn delete_queue(arguments: &QueueArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let (count, _) =
        done(demand(&arguments.file, &Request::DeleteQueue { name: arguments.queue.clone() })?, &arguments.file)?;
    printer.line(format!("{} deleted, with {}", arguments.queue, counted(count, "message")));
    Ok(ExitCode::Success)
}

/// Empties a queue.
pub(super) fn purge_queue(arguments: &QueueArguments, printer: &Printer) -> Result<ExitCode, Failure> {
    let (count, _) =
        done(demand(&arguments.file, &Request::PurgeQueue { name: arguments.queue.clone() })?, &arguments.file)?;
    printer.line(format!("{} removed from {}", counted(count, "message"), arguments.queue));
    Ok(ExitCode::Success)
}

fn demand(file: &File, request: &Request) -> Result<Answer, Failure> {
    let control = file.reach()?;
    ask(&control, request).map_err(|error| unanswered(&error, &control, file))
}

fn unanswered(error: &ControlError, control: &Path, file: &File) -> Failure {
    let refused = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied);
    if refused {
        let failure = Failure::new(ExitCode::IdentityRejected, "broker-not-yours", "you may not ask this broker")
            .why("socket", control.display().to_string())
            .why("why", "only root and the user that the broker runs as are answered");
        return match std::fs::symlink_metadata(control) {
            Ok(found) => failure.hint(format!("sudo {}", file.command("status"))).hint(format!(
                "sudo -u '#{}' {}",
                found.uid(),
                file.command("status")
            )),
            Err(_) => failure.hint(format!("sudo {}", file.command("status"))),
        };
    }
    let failure = Failure::new(ExitCode::Unreachable, error.code(), "no embedded broker answers here").because(error);
    // The one of `muster dev` has a file of its own, which nobody would guess.
    match crate::commands::dev::running_broker().filter(|_| !file.is_named()) {
        Some(config) => failure
            .hint("muster broker check, for RabbitMQ")
            .hint(format!("muster broker status --config {}", word(&config.display().to_string()))),
        None => failure
            .hint("muster broker status --config FILE, with the file that the broker was started with")
            .hint("muster broker check, for RabbitMQ")
            .hint(file.command("run")),
    }
}

/// A reload that was refused changes nothing: exit 2, since a file has to be put right, with the broker's own reasons.
fn not_reloaded(code: &str, why: &str, file: &File) -> Failure {
    let code = crate::codes::all().map(|row| row.code).find(|known| *known == code).unwrap_or("broker-refused");
    let what = "the broker does not take its configuration; what is in force stays in force";
    let failure = why.lines().fold(Failure::new(ExitCode::Usage, code, what), |failure, line| failure.why("why", line));
    failure.hint(format!("muster explain {code}")).hint(format!("{}  # once it is right", file.command("reload")))
}

fn done(answer: Answer, file: &File) -> Result<(u64, Vec<String>), Failure> {
    match answer {
        Answer::Done { count, notes } => Ok((count, notes)),
        other => Err(unexpected(&other, file)),
    }
}

fn unexpected(answer: &Answer, file: &File) -> Failure {
    match answer {
        Answer::Refused { code, why } if code == "no-such-queue" => {
            Failure::new(ExitCode::NoMatch, "no-such-queue", "the broker has no such queue")
                .why("said", why)
                .hint(file.command("status --list queues"))
        }
        Answer::Refused { code, why } => {
            Failure::new(ExitCode::HostFailed, "broker-refused", "the broker does not do that")
                .why("code", code)
                .why("said", why)
        }
        _ => Failure::new(ExitCode::Unexpected, "unexpected", "the broker answers something else than was asked"),
    }
}

fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// What calls for attention, by the name of its line.
fn attention(status: &Status) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    found.extend(status.full.iter().map(|why| ("full", format!("publishers wait: {why}"))));
    let is_told = status.file_troubles.iter().any(|trouble| trouble.holds == WatchedFile::RevocationList);
    if status.revocation_lists.is_empty() && !is_told {
        let place = status.revocation_file.as_ref();
        let remedy =
            place.map_or_else(String::new, |path| format!("; copy the CA's `crl.pem` to `{}`", path.display()));
        found.push(("revocation", format!("no list: a certificate that was stolen is still believed{remedy}")));
    }
    let stale = status.revocation_lists.iter().filter(|list| list.next_ms < status.now_ms);
    found.extend(stale.map(|list| {
        let next = muster_pki::time_text::utc(list.next_ms);
        let made = muster_pki::time_text::utc(list.made_ms);
        let place = status.revocation_file.as_ref();
        let place = place.map_or_else(String::new, |path| format!(" to `{}`", path.display()));
        let why = format!("list {} of {made} is in force and should have been replaced by {next}", list.number);
        ("revocation", format!("{why}: copy the CA's newest `crl.pem`{place}"))
    }));
    found.extend(status.file_troubles.iter().map(|trouble| file_trouble(trouble, &status.revocation_lists)));
    if let Some(refused) = &status.reload_refused {
        let (at, why) = (muster_pki::time_text::utc(refused.at_ms), &refused.why);
        let remedy =
            "what was before it holds; correct it, then `muster broker run --check` and `muster broker reload`";
        found.push(("reload", format!("the last one, at {at}, was refused: {why}; {remedy}")));
    }
    if status.certificate_not_after_ms < status.now_ms {
        found.push(("certificate", "the broker's own certificate has expired: no client connects".to_owned()));
    }
    let bounds = [
        ("connections", status.connected.open),
        ("queues", status.counts.queues),
        ("bindings", status.counts.bindings),
        ("memory", status.counts.message_bytes),
    ];
    for (name, used) in bounds.into_iter().filter(|(_, used)| used.max > 0 && used.count >= used.max / 10 * NEARLY) {
        found.push((name, format!("{} of {}: the bound is nearly reached", used.count, used.max)));
    }
    for it in status.identities.iter().filter(|it| it.bytes_max > 0) {
        // Three quarters are for what is kept; beyond, its queues refuse or drop.
        let kept_max = it.bytes_max / 4 * 3;
        if it.kept_bytes >= kept_max / 10 * NEARLY {
            let (kept, most) = (it.kept_bytes / 1024, kept_max / 1024);
            found.push(("share", format!("{}: {kept} of {most} KiB in queues or unacknowledged", it.identity)));
        }
    }
    if status.connected.slow > 0 {
        found.push(("slow", format!("{} do not read what waits for them", counted(status.connected.slow, "client"))));
    }
    found
}

/// What is wrong with a watched file, what holds meanwhile, and what to do.
fn file_trouble(trouble: &FileTrouble, lists: &[RevocationListStatus]) -> (&'static str, String) {
    let FileTrouble { holds, path, since_ms, why } = trouble;
    let path = path.display();
    let wrong = format!("`{path}` cannot be used since {}: {why}", muster_pki::time_text::utc(*since_ms));
    match holds {
        WatchedFile::RevocationList => {
            let in_force: Vec<String> = lists
                .iter()
                .map(|list| format!("list {} of {}", list.number, muster_pki::time_text::utc(list.made_ms)))
                .collect();
            let in_force = if in_force.is_empty() {
                "no list is in force: a certificate that was stolen is still believed".to_owned()
            } else {
                format!("in force: {}", in_force.join(", "))
            };
            ("revocation", format!("{wrong}; {in_force}; copy the CA's `crl.pem` to it"))
        }
        WatchedFile::Members => {
            ("members", format!("{wrong}; who was on the list before may log in; one KIND/NAME a line"))
        }
    }
}

fn show(status: &Status, printer: &Printer) -> ExitCode {
    let line = |name: &str, text: String| printer.line(Text::new().dim(name).pad_to(13).plain(text));
    let up = span(status.now_ms, status.started_at_ms);
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    printer.line(Text::new().dim("broker").pad_to(13).strong(&status.identity).plain(format!(
        " {}, process {}, up {up}, {} MiB",
        status.version,
        status.pid,
        status.memory_bytes / (1024 * 1024)
    )));
    line("listens", format!("{}, virtual host {}", listen.join(", "), status.virtual_host));
    line("certificate", format!("until {}", muster_pki::time_text::utc(status.certificate_not_after_ms)));
    for list in &status.revocation_lists {
        let next = muster_pki::time_text::utc(list.next_ms);
        line("revocation", format!("list {}, {} revoked, next by {next}", list.number, list.revoked));
    }
    let connected = &status.connected;
    line(
        "connections",
        format!(
            "{}, {} in the handshake, {} in the last second, {} since the start",
            amount(connected.open),
            connected.handshaking.count,
            connected.admitted_per_second,
            connected.admitted_total
        ),
    );
    if !connected.refused.is_empty() {
        let refused: Vec<String> = connected.refused.iter().map(|(why, count)| format!("{why} {count}")).collect();
        line("refused", refused.join(", "));
    }
    if connected.blocked + connected.slow > 0 {
        line("waiting", format!("{} blocked, {} slow", connected.blocked, connected.slow));
    }
    let counts = &status.counts;
    line(
        "queues",
        format!("{}, bindings {}, consumers {}", amount(counts.queues), amount(counts.bindings), counts.consumers),
    );
    line(
        "messages",
        format!(
            "{} wait, {} unacknowledged, {} of {} KiB",
            counts.ready,
            counts.unacknowledged,
            counts.message_bytes.count / 1024,
            counts.message_bytes.max / 1024
        ),
    );
    if let Some(most) = status.identities.iter().max_by_key(|it| it.kept_bytes + it.outbox_bytes) {
        let refused: u64 = status.identities.iter().map(|it| it.refused_total).sum();
        line(
            "identities",
            format!(
                "{}, most of all has {}: {} of {} KiB; {refused} messages beyond shares",
                status.identities.len(),
                most.identity,
                (most.kept_bytes + most.outbox_bytes) / 1024,
                most.bytes_max / 1024
            ),
        );
    }
    if let Some(journal) = &status.journal {
        let number = |key: &str| journal.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        line(
            "journal",
            format!(
                "{} messages in {} of {} KiB, {} confirms wait, last group {} ms",
                number("messages"),
                number("bytes") / 1024,
                number("bytes_max") / 1024,
                number("waiting_confirms"),
                number("group_us") / 1000
            ),
        );
    }
    let fullest = queues(status, BUSIEST);
    if status.queues.iter().any(|queue| queue.ready > 0) {
        printer.line("");
        printer.table(&fullest);
    }
    let found = attention(status);
    for (name, why) in &found {
        printer.line(Text::styled(Style::Warning, "! ").push(Style::Warning, *name).pad_to(13).plain(why));
    }
    if found.is_empty() { ExitCode::Success } else { ExitCode::HostFailed }
}

fn amount(used: Used) -> String {
    format!("{} of {}", used.count, used.max)
}

fn queues(status: &Status, most: usize) -> Table {
    let columns = [
        Column::new("queue").text(),
        Column::new("ready").right(),
        Column::new("bytes").right(),
        Column::new("unacknowledged").right(),
        Column::new("consumers").right(),
        Column::new("durable").wide(),
    ];
    let mut table = Table::new(columns);
    let mut shown: Vec<_> = status.queues.iter().collect();
    if most < shown.len() {
        shown.sort_by_key(|queue| std::cmp::Reverse(queue.ready));
    }
    for queue in shown.into_iter().take(most) {
        table.row([
            Text::from(&queue.name),
            Text::from(queue.ready.to_string()),
            Text::from(queue.ready_bytes.to_string()),
            Text::from(queue.unacknowledged.to_string()),
            Text::from(queue.consumers.to_string()),
            Text::from(if queue.durable { "yes" } else { "no" }),
        ]);
    }
    table
}

fn connections(status: &Status, most: usize) -> Table {
    let columns = [
        Column::new("identity").text(),
        Column::new("peer"),
        Column::new("for").right(),
        Column::new("channels").right(),
        Column::new("received").right(),
        Column::new("sent").right(),
        Column::new("waiting").right(),
        Column::new("id").wide(),
    ];
    let mut table = Table::new(columns);
    for connection in status.connections.iter().take(most) {
        table.row([
            Text::from(&connection.identity),
            Text::from(connection.peer.to_string()),
            Text::from(span(status.now_ms, connection.since_ms)),
            Text::from(connection.channels.to_string()),
            Text::from(connection.received_bytes.to_string()),
            Text::from(connection.sent_bytes.to_string()),
            Text::from(connection.waiting.to_string()),
            Text::from(connection.id.to_string()),
        ]);
    }
    table
}

fn bindings(status: &Status) -> Table {
    let mut table = Table::new([Column::new("destination"), Column::new("source"), Column::new("key").text()]);
    for binding in status.bindings.iter().flatten() {
        table.row([Text::from(&binding.destination), Text::from(&binding.source), Text::from(&binding.key)]);
    }
    table
}

/// The time between two moments in its largest unit.
fn span(now: Timestamp, then: Timestamp) -> String {
    let s = now.0.saturating_sub(then.0).max(0) / 1000;
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A broker with nothing to look at, changed.
    fn found(change: &serde_json::Value) -> Vec<(&'static str, String)> {
        let used = json!({"count": 0, "max": 10});
        let mut status = json!({
            "version": "1", "pid": 1, "identity": "broker/mq1", "certificate_not_after_ms": 9_000_000_000_000_i64,
            "started_at_ms": 0, "now_ms": 86_400_000, "virtual_host": "muster", "listen": [],
            "members": {"kind": "issued"}, "full": [],
            "connected": {"open": used, "handshaking": used, "blocked": 0, "slow": 0, "accepted_total": 0,
                "admitted_total": 0, "admitted_per_second": 0, "refused": {}},
            "counts": {"channels": 0, "consumers": 0, "exchanges": used, "queues": used, "bindings": used,
                "ready": 0, "unacknowledged": 0, "message_bytes": used},
            "memory_bytes": 0, "journal": null, "queues": [], "connections": [],
            "revocation_lists": [{"number": 7, "revoked": 1, "made_ms": 0, "next_ms": 172_800_000}],
            "revocation_file": "/etc/muster/crl.pem",
        });
        for (key, value) in change.as_object().unwrap() {
            status[key] = value.clone();
        }
        attention(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn what_calls_for_attention_says_what_holds_and_what_to_do() {
        let trouble =
            |holds: &str, why: &str| json!([{"holds": holds, "path": "/x", "since_ms": 3_600_000, "why": why}]);
        assert_eq!(found(&json!({})), []);
        for (change, name, words) in [
            (
                json!({"file_troubles": trouble("revocation_list", "it is not there")}),
                "revocation",
                &["`/x`", "since 1970-01-01T01:00", "it is not there", "list 7 of 1970-01-01T00:00", "`crl.pem` to it"]
                    [..],
            ),
            (
                json!({"file_troubles": trouble("revocation_list", "garbage"), "revocation_lists": []}),
                "revocation",
                &["`/x`", "garbage", "no list is in force", "stolen"],
            ),
            (json!({"file_troubles": trouble("members", "line 1")}), "members", &["`/x`", "line 1", "KIND/NAME"]),
            (json!({"revocation_lists": []}), "revocation", &["no list", "`/etc/muster/crl.pem`"]),
            (
                json!({"now_ms": 172_800_001}),
                "revocation",
                &["list 7 of 1970-01-01T00:00", "replaced by 1970-01-03T00:00", "`/etc/muster/crl.pem`"],
            ),
            (
                json!({"reload_refused": {"at_ms": 3_600_000, "why": "no such file"}}),
                "reload",
                &["1970-01-01T01:00", "no such file", "what was before it holds", "muster broker run --check"],
            ),
        ] {
            let found = found(&change);
            let [(what, why)] = &found[..] else { panic!("{change}: {found:?}") };
            assert_eq!(*what, name, "{change}");
            for word in words {
                assert!(why.contains(word), "`{word}` is not in `{why}`");
            }
        }
    }
}
