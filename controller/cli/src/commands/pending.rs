//! `muster pending list|show|merge|discard`: the files of pending commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use muster_client::Pending;
use muster_protocol::{Identity, RequestId, Timestamp};
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::commands::send::approvals;
use crate::invocation::Invocation;
use crate::output::{Column, ExitCode, Failure, Format, Style, Table, Text, number, time};
use crate::pending::{SCHEMA, Store, View, failure, store};
use crate::requests::{Outcome, Requests};
use crate::session::Login;
use crate::target::quoted;

/// What to do with pending commands.
#[derive(Debug, Subcommand)]
pub(crate) enum PendingCommand {
    /// List the pending commands that lie here, oldest first.
    #[command(before_help = "Examples:\n  muster pending list\n  muster pending list /srv/pending --json")]
    List(ListArguments),
    /// Show one, whole, and who has signed it.
    #[command(before_help = "Examples:\n  muster pending show last\n  muster pending show restart.pending --full")]
    Show(ShowArguments),
    /// Put the signatures of copies, or signatures alone, into a file.
    #[command(before_help = "Examples:\n  muster pending merge restart.pending from-bob.pending eve.approval")]
    Merge(MergeArguments),
    /// Remove pending commands. What was sent goes on.
    #[command(before_help = "Examples:\n  muster pending discard last\n  muster pending discard --expired\n  \
        muster pending discard --expired /srv/pending")]
    Discard(DiscardArguments),
}

/// Arguments of `pending list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Another directory.
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

/// Arguments of `pending show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The pending command: its file, some characters of its id, or `last`.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: String,
    /// Show values at any length, and each host on a line.
    #[arg(long)]
    pub(crate) full: bool,
}

/// Arguments of `pending merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The pending command that gets the signatures.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: String,
    /// Copies of it that others have signed, or their signatures alone.
    #[arg(value_name = "FROM", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) from: Vec<PathBuf>,
}

/// Arguments of `pending discard`.
#[derive(Debug, Args)]
pub(crate) struct DiscardArguments {
    /// Which: files, characters of ids, or `last`. With `--expired`: directories.
    #[arg(value_name = "FILE", required_unless_present = "expired", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<String>,
    /// All that lie here, or in the directories that are named, and have expired.
    #[arg(long)]
    pub(crate) expired: bool,
}

/// Lists, shows, merges or discards.
///
/// # Errors
/// No context; no such file, or it is wrong.
pub(crate) fn run(command: &PendingCommand, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let context = invocation.context()?;
    let login = Login::load(&context, invocation.now())?;
    let store = Store::of_user();
    match command {
        PendingCommand::List(arguments) => {
            let store = arguments.directory.clone().map_or(store, Store::at);
            list(&store, &login, &Requests::of_user(), invocation)
        }
        PendingCommand::Show(arguments) => {
            let (path, now) = (store.find(&arguments.file)?, invocation.now());
            let pending = store::load(&path, &login.trust, now)?;
            let catalogue = Catalogue::load(Some(&context))?;
            let command = pending.command();
            let action = catalogue.action(&format!("{}.{}", command.plugin, command.action)).ok();
            let view = View::of(&pending, &path, action.map(|(_, action)| action), &context, now);
            show(&view, now, arguments.full, invocation);
            Ok(ExitCode::Success)
        }
        PendingCommand::Merge(arguments) => merge(&store.find(&arguments.file)?, &arguments.from, &login, invocation),
        PendingCommand::Discard(arguments) => discard(arguments, &store, &login, invocation),
    }
}

#[derive(Debug, Serialize)]
struct Item {
    kind: &'static str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// `waiting`, `sent`, `expired` or `unreadable`.
    state: &'static str,
    /// What came of it where it was sent: hosts by the word of their state, or `needs_approval`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    outcome: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    approved_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    hosts: usize,
}

fn list(store: &Store, login: &Login, requests: &Requests, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let (printer, now) = (&invocation.printer, invocation.now());
    let sent: BTreeMap<RequestId, Outcome> =
        requests.all().into_iter().map(|request| (request.id, request.outcome)).collect();
    let columns = [
        Column::new("request"),
        Column::new("state"),
        Column::new("outcome"),
        Column::new("until"),
        Column::new("hosts").right(),
        Column::new("caller"),
        Column::new("approved by"),
        Column::new("action").text(),
        Column::new("file").wide(),
    ];
    let mut table = Table::new(columns);
    let mut items = Vec::new();
    for path in store.files()? {
        let file = path.display().to_string();
        let pending = match store::load(&path, &login.trust, now) {
            Ok(pending) => pending,
            Err(failure) => {
                let why = failure.why.iter().map(|(_, why)| why.clone()).next_back().unwrap_or(failure.what);
                let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let mut row = vec![Text::from(name), Text::styled(Style::Bad, "unreadable")];
                row.resize_with(7, Text::new);
                row.extend([Text::from(&why), Text::from(&file)]);
                table.row(row);
                items.push(Item {
                    kind: "pending",
                    file,
                    request_id: None,
                    state: "unreadable",
                    outcome: BTreeMap::new(),
                    why: Some(why),
                    action: None,
                    caller: None,
                    approved_by: Vec::new(),
                    expires_at: None,
                    hosts: 0,
                });
                continue;
            }
        };
        let state = match pending.check_time(now) {
            Err(_) => "expired",
            // Nothing has begun anywhere, and more signatures make it another matter.
            Ok(()) if sent.get(&pending.id()).is_some_and(|outcome| !outcome.only_needs_approval()) => "sent",
            Ok(()) => "waiting",
        };
        let command = pending.command();
        let outcome = sent.get(&pending.id()).cloned().unwrap_or_default();
        let action = format!("{}.{}", command.plugin, command.action);
        let approvers: Vec<Identity> = pending.signers().iter().skip(1).map(|signer| signer.identity.clone()).collect();
        let until = match printer.format() {
            Format::Csv => time::rfc3339(pending.expires_at()),
            _ => time::ago(pending.expires_at(), now),
        };
        let approved_by = approvers.iter().map(Identity::short).collect::<Vec<_>>().join(", ");
        table.row([
            Text::styled(Style::Accent, pending.id().short()),
            state.into(),
            outcome.text().into(),
            until.into(),
            number::count(pending.hosts().len()).into(),
            pending.caller().short().into(),
            if approved_by.is_empty() { "nobody".into() } else { Text::from(approved_by) },
            Text::from(&action),
            Text::from(&file),
        ]);
        items.push(Item {
            kind: "pending",
            file,
            request_id: Some(pending.id().to_string()),
            state,
            outcome: outcome.counts().into_iter().map(|(word, count)| (word.to_owned(), count)).collect(),
            why: None,
            action: Some(action),
            caller: Some(pending.caller().to_string()),
            approved_by: approvers.iter().map(ToString::to_string).collect(),
            expires_at: Some(time::rfc3339(pending.expires_at())),
            hosts: pending.hosts().len(),
        });
    }
    printer.list(SCHEMA, "pending", &items, &table);
    if items.is_empty() {
        let place = store.directory().map(|directory| directory.display().to_string()).unwrap_or_default();
        printer.note(format!("no pending command lies in {place}"));
    }
    Ok(ExitCode::Success)
}

fn show(view: &View, now: Timestamp, full: bool, invocation: &Invocation) {
    let printer = &invocation.printer;
    match printer.format() {
        Format::Json | Format::Jsonl => printer.document(SCHEMA, view),
        Format::Names => view.hosts.iter().for_each(|host| printer.line(host.as_str())),
        Format::Csv | Format::Table | Format::Wide => {
            view.lines(now, full).into_iter().for_each(|line| printer.line(line));
            view.warnings.iter().for_each(|warning| printer.warning(warning));
        }
    }
}

fn merge(path: &Path, from: &[PathBuf], login: &Login, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let (printer, now) = (&invocation.printer, invocation.now());
    let mut gathered = Vec::new();
    for file in from {
        gathered.push((file, approvals(file, login, now)?));
    }
    let add = |pending: &mut Pending| {
        let mut new: BTreeSet<Identity> = BTreeSet::new();
        for (file, approvals) in &gathered {
            new.extend(pending.add(approvals, &login.trust, now).map_err(|error| failure(&error, Some(file)))?);
        }
        Ok(new)
    };
    let (pending, new) = store::update(path, &login.trust, now, add)?;
    let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
    let file = quoted(&path.display().to_string());
    if printer.format().is_json() {
        #[derive(Serialize)]
        struct Merged {
            kind: &'static str,
            file: String,
            added: Vec<Identity>,
            signers: Vec<Identity>,
        }
        let signers = pending.signers().iter().map(|signer| signer.identity.clone()).collect();
        let added = new.into_iter().collect();
        printer.document(SCHEMA, &Merged { kind: "merged", file: path.display().to_string(), added, signers });
        return Ok(ExitCode::Success);
    }
    match new.is_empty() {
        true => printer.note(format!("{file} has all of these signatures already")),
        false => printer.note(format!("added the signatures of {}", names(&mut new.iter().map(Identity::short)))),
    }
    let all = names(&mut pending.signers().iter().map(|signer| signer.identity.short()));
    printer.note(format!("{file} is signed by {all}"));
    Ok(ExitCode::Success)
}

/// The files of the directories that are named, or of the usual one.
fn expired_among(directories: &[String], store: &Store) -> Result<Vec<PathBuf>, Failure> {
    if directories.is_empty() {
        return store.files();
    }
    let mut paths = Vec::new();
    for directory in directories {
        if !Path::new(directory).is_dir() {
            let what = format!("`{directory}` is no directory; nothing was removed");
            return Err(Failure::usage(what).hint("muster pending discard FILE, for one of them"));
        }
        paths.extend(Store::at(PathBuf::from(directory)).files()?);
    }
    Ok(paths)
}

fn discard(
    arguments: &DiscardArguments,
    store: &Store,
    login: &Login,
    invocation: &Invocation,
) -> Result<ExitCode, Failure> {
    let now = invocation.now();
    let paths = if arguments.expired {
        let mut paths = expired_among(&arguments.files, store)?;
        // By what was signed; a file that cannot be believed says nothing about its time and stays.
        paths.retain(|path| {
            let pending = store::load(path, &login.trust, now);
            pending.is_ok_and(|pending| now.since_ms(pending.expires_at()) >= 0)
        });
        paths
    } else {
        let mut paths = Vec::new();
        for given in &arguments.files {
            let path = store.find(given)?;
            // Nobody means a file that is something else.
            let bytes = store::read(&path)?;
            let ours = bytes.starts_with(b"{\"payloadType\"") || path.extension().is_some_and(|it| it == "pending");
            if !ours {
                let what = format!("`{}` is no pending command; nothing was removed", path.display());
                return Err(Failure::new(ExitCode::Usage, "bad-pending", what).hint("muster pending list"));
            }
            paths.push(path);
        }
        paths
    };
    for path in &paths {
        fs::remove_file(path).map_err(|error| Failure::file("remove", path, &error))?;
    }
    let count = number::counted(paths.len(), "pending command", "pending commands");
    invocation.printer.note(format!("removed {count}"));
    Ok(ExitCode::Success)
}
