//! `musterd audit`: is the log whole, and what stands in it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use muster_agent::audit::show::{Filter, Found, look_up};
use muster_agent::audit::{Anchor, AuditError, Line, Verified, verify, verify_all};
use muster_agent::state::files;
use muster_daemon::terminal::{acts, push_escaped};
use muster_daemon::{Clock as _, SystemClock};
use muster_pki::time_text::utc;
use muster_protocol::Timestamp;
use serde::Serialize;

use super::{Files, Looked, looked, print};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no line was changed, removed, put in or moved. Exit code 0 if the log is whole, 1 if not.
    Verify {
        /// One file of the log: checked from there on. A directory: the whole log in it [default: the
        /// configured log].
        path: Option<PathBuf>,
        /// A line that was noted elsewhere and must be there.
        #[arg(long, value_name = "NUMBER:HASH")]
        anchor: Option<Anchor>,
        /// Print what was found as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what stands in the log, oldest first. Exit code 3 if a line of it is damaged.
    Show(Box<Show>),
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The log [default: the configured one].
    path: Option<PathBuf>,
    /// Not before: a time such as 2026-11-21T08:00:00Z, or how long ago, such as 90m, 1h, 2d.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Before: as with --since.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Who asked, such as user/lea. `*` and `?` stand for others, here and below.
    #[arg(long, value_name = "IDENTITY")]
    caller: Option<String>,
    /// What was asked for, such as package.*
    #[arg(long, value_name = "PLUGIN.ACTION")]
    action: Option<String>,
    /// allowed, refused, ignored, or how it ended, such as failed.
    #[arg(long, value_name = "WORD")]
    decision: Option<String>,
    /// Everything about one request.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// The policy rule that decided.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Only the last so many of them.
    #[arg(long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Print the lines as JSON, as they stand in the log.
    #[arg(long)]
    json: bool,
}

/// A time, or how long ago.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When(Timestamp);

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(Timestamp(at.as_millisecond())));
        }
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let seconds = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(wrong_time()),
        };
        let ago = number.parse::<i64>().ok().and_then(|number| number.checked_mul(seconds * 1000));
        let ago = ago.ok_or_else(wrong_time)?;
        Ok(Self(SystemClock.now_ms().checked_sub(ago).map(Timestamp).ok_or_else(wrong_time)?))
    }
}

fn wrong_time() -> String {
    "write a time as 2026-11-21T08:00:00Z, or how long ago as 30s, 90m, 1h, 2d".to_owned()
}

pub(crate) fn run(command: &AuditCommand, files: &Files) -> ExitCode {
    let done = match command {
        AuditCommand::Verify { path, anchor, json } => check(files, path.as_deref(), anchor.as_ref(), *json),
        AuditCommand::Show(show) => show_lines(files, show),
    };
    looked(done, files)
}

fn configured(files: &Files) -> anyhow::Result<PathBuf> {
    Ok(files.load()?.1.audit_file().to_owned())
}

fn check(files: &Files, path: Option<&Path>, anchor: Option<&Anchor>, json: bool) -> anyhow::Result<Looked> {
    let verified = match path {
        None => verify_all(&configured(files)?, anchor)?,
        Some(path) if path.is_dir() => verify_all(&log_in(path), anchor)?,
        Some(path) => verify(path, anchor)?,
    };
    if json {
        let document = Document { schema: "muster.audit-verified/v1", verified: &verified };
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&summary(&verified))?;
    }
    // A log that is not whole is an error.
    Ok(Looked::Whole)
}

/// What was verified, for programs.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    verified: &'a Verified,
}

/// The log in a directory: named as the agent names it unless it is told otherwise.
fn log_in(directory: &Path) -> PathBuf {
    directory.join(files::AUDIT)
}

fn summary(verified: &Verified) -> String {
    let plural = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let lines = plural(verified.lines, "line");
    let mut text = format!("{lines} in {}, all in order\n", plural(verified.files.len() as u64, "file"));
    if verified.first_sequence > 1 {
        text.push_str(&format!("begins with line {}; what came before is not there\n", verified.first_sequence));
    }
    if verified.torn_bytes > 0 {
        text.push_str(&format!("{} bytes of an unfinished line follow\n", verified.torn_bytes));
    }
    text.push_str(&format!("anchor {}:{}\n", verified.last_sequence, verified.last_hash));
    text
}

fn show_lines(files: &Files, show: &Show) -> anyhow::Result<Looked> {
    let path = match &show.path {
        Some(path) if path.is_dir() => log_in(path),
        Some(path) => path.clone(),
        None => configured(files)?,
    };
    let filter = Filter {
        since: show.since.map(|when| when.0),
        until: show.until.map(|when| when.0),
        caller: show.caller.clone(),
        action: show.action.clone(),
        decision: show.decision.clone(),
        request_id: show.request.clone(),
        rule: show.rule.clone(),
    };
    let mut last = VecDeque::new();
    let mut is_whole = true;
    look_up(&path, &filter, |found| -> Result<(), ShowError> {
        is_whole &= found.line.is_some();
        let text = if show.json { as_json(&found) } else { as_row(&found) };
        match show.last {
            None => print(&text)?,
            Some(0) => {}
            Some(most) => {
                if last.len() == most {
                    last.pop_front();
                }
                last.push_back(text);
            }
        }
        Ok(())
    })
    .map_err(|error| match error {
        ShowError::Audit(error) => error.into(),
        ShowError::Print(error) => error,
    })?;
    last.iter().try_for_each(|text| print(text)).context("print the last lines")?;
    Ok(Looked::of(is_whole))
}

enum ShowError {
    Audit(AuditError),
    Print(anyhow::Error),
}

impl From<AuditError> for ShowError {
    fn from(error: AuditError) -> Self {
        Self::Audit(error)
    }
}

impl From<anyhow::Error> for ShowError {
    fn from(error: anyhow::Error) -> Self {
        Self::Print(error)
    }
}

/// The line as JSON. It is the same JSON as in the log; only characters that a terminal might obey are written
/// with escapes.
fn as_json(found: &Found) -> String {
    if found.line.is_none() {
        let damaged = serde_json::json!({
            "damaged": { "file": found.path, "line": found.number, "text": found.text }
        });
        return escaped_in_json(&damaged.to_string());
    }
    escaped_in_json(&found.text)
}

/// On one line: a line feed cannot stand in JSON of one line, so here it is one of the things that act.
fn escaped_in_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if acts(c) { push_escaped(&mut escaped, c) } else { escaped.push(c) }
    }
    escaped.push('\n');
    escaped
}

fn as_row(found: &Found) -> String {
    let Some(Line { sequence, at_ms, details, .. }) = &found.line else {
        return format!("{} line {} is damaged; musterd audit verify says how\n", found.path.display(), found.number);
    };
    let mut row = format!("{}  {:>6}  {:<8}  {:<9}", utc(*at_ms), sequence, details.event, details.decision);
    let mut add = |label: &str, value: &str| {
        if !value.is_empty() {
            let space = if label.is_empty() { "" } else { " " };
            row.push_str(&format!("  {label}{space}{value}"));
        }
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    add("", text(&details.caller).trim_start_matches("muster:"));
    add("", &text(&details.action));
    if let Some(arguments) = details.arguments.as_ref().filter(|arguments| !arguments.is_empty()) {
        let each: Vec<String> = arguments.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        add("", &each.join(" "));
    }
    add("as", &text(&details.effective_user));
    add("", if details.noop { "noop" } else { "" });
    add("rule", &text(&details.rule));
    add("code", &text(&details.code));
    add("request", &text(&details.request_id));
    add("-", &details.message);
    if let Some(file) = &details.file {
        let name = file.name.as_deref().unwrap_or("a file");
        add("", &format!("({name}: {} lines to number {})", file.lines, file.last_sequence));
    }
    let mut shown = String::with_capacity(row.len() + 1);
    for c in row.chars() {
        if acts(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown.push('\n');
    shown
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) if !text.is_empty() && !text.contains([' ', '"']) => text.clone(),
        other => other.to_string(),
    }
}
