//! `musterd spool`: final reports that the broker has not confirmed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use muster_agent::detached::look::{Untold, untold};
use muster_agent::spool::{BYTES_MAX, Listed, Parcel, REPORTS_MAX, SpoolState, Waiting, list, read_state};
use muster_agent::state::files;
use muster_daemon::{Clock as _, RealDisk, SystemClock};
use muster_pki::time_text::utc;
use muster_protocol::{ProgressReport, Timestamp, decode};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Files, Looked, print};

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// List the reports on disk, oldest request first, and the actions that have ended and are not reported yet.
    /// Exit code 3 if a file is damaged.
    List {
        /// The directory [default: `spool` in the configured state_dir].
        directory: Option<PathBuf>,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What waits, for programs.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    directory: &'a Path,
    reports: Vec<Value>,
    damaged: Vec<Value>,
    ended: &'a [Untold],
    bytes: usize,
    reports_max: usize,
    bytes_max: usize,
    in_memory: Option<InMemory>,
}

/// What the agent had in its memory when it said so last.
#[derive(Debug, Serialize)]
struct InMemory {
    reports: usize,
    at_ms: Timestamp,
}

pub(crate) fn run(command: &SpoolCommand, files: &Files) -> anyhow::Result<Looked> {
    let SpoolCommand::List { directory, json } = command;
    let directory = match directory {
        Some(directory) => directory.clone(),
        None => files.load()?.1.state_dir().join(files::SPOOL),
    };
    let listed = list(&RealDisk, &directory).context("look into the spool")?;
    // Beside the spool lies what the agent knows beyond the files. It tells of this spool only.
    let beside = directory.parent();
    let state = beside.and_then(|it| read_state(&RealDisk, &it.join(files::SPOOL_STATE)));
    let ended =
        beside.map_or(Ok(Vec::new()), |it| untold(&RealDisk, it)).context("look for actions that have ended")?;
    let rows: Vec<Row<'_>> = listed.iter().map(|listed| Row::new(listed, state.as_ref())).collect();
    let waiting: Vec<&Parcel> = listed.iter().filter_map(|listed| listed.parcel.as_ref()).collect();
    let bytes: usize = waiting.iter().map(|parcel| parcel.body.len()).sum();
    let is_whole = listed.len() == waiting.len();
    if *json {
        let of = |damaged: bool| rows.iter().filter(move |row| row.listed.parcel.is_none() == damaged).map(Row::json);
        let document = Document {
            schema: "muster.spool/v1",
            directory: &directory,
            reports: of(false).collect(),
            damaged: of(true).collect(),
            ended: &ended,
            bytes,
            reports_max: REPORTS_MAX,
            bytes_max: BYTES_MAX,
            in_memory: state.as_ref().map(|state| InMemory { reports: state.in_memory, at_ms: state.at_ms }),
        };
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        return Ok(Looked::of(is_whole));
    }
    let now = Timestamp(SystemClock.now_ms());
    let mut text: String = rows.iter().map(|row| row.text(now)).collect();
    text.extend(ended.iter().map(ended_row));
    text.push_str(&format!(
        "{}, {bytes} bytes (at most {REPORTS_MAX}, {BYTES_MAX} bytes)\n",
        counted(waiting.len(), "report")
    ));
    if !ended.is_empty() {
        let what = if ended.len() == 1 { "action has ended" } else { "actions have ended" };
        text.push_str(&format!(
            "{} {what} whose output waits for the broker, and the last report behind it\n",
            ended.len()
        ));
    }
    let damaged = listed.len() - waiting.len();
    if damaged > 0 {
        text.push_str(&format!(
            "{} damaged: what was in it is lost; delete it once it is not needed as evidence\n",
            if damaged == 1 { "1 file is".to_owned() } else { format!("{damaged} files are") }
        ));
    }
    if let Some(state) = &state {
        let memory = counted(state.in_memory, "report");
        text.push_str(&format!("in the agent's memory {memory}, at {}\n", utc(state.at_ms)));
    }
    print(&text)?;
    Ok(Looked::of(is_whole))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// An action that has ended and is not among the reports yet.
fn ended_row(ended: &Untold) -> String {
    let Untold { request_id, caller, action, code, ended_at_ms } = ended;
    let (caller, at) = (caller.short(), utc(*ended_at_ms));
    format!("{request_id}  {caller}  {code}  {}  ended {at}  its output is told first\n", action.escape_debug())
}

/// A file, and what is known of the report in it.
struct Row<'a> {
    listed: &'a Listed,
    report: Option<ProgressReport>,
    waiting: Option<&'a Waiting>,
}

impl<'a> Row<'a> {
    fn new(listed: &'a Listed, state: Option<&'a SpoolState>) -> Self {
        let parcel = listed.parcel.as_ref();
        let is_it = |waiting: &&Waiting| parcel.is_some_and(|parcel| parcel.request_id == waiting.request_id);
        Self {
            listed,
            report: parcel.and_then(|parcel| decode(&parcel.body).ok()),
            waiting: state.and_then(|state| state.waiting.iter().find(is_it)),
        }
    }

    fn text(&self, now: Timestamp) -> String {
        let Some(parcel) = &self.listed.parcel else {
            return format!("{} is not a report\n", self.listed.path.display());
        };
        let result = self.report.as_ref().and_then(|report| report.result.as_ref());
        let caller = self.report.as_ref().map_or_else(|| "?".to_owned(), |report| report.caller.short());
        let code = result.map_or("?", |result| result.code.as_str());
        let since = self.listed.kept_since.map_or_else(String::new, |since| format!("since {}  ", utc(since)));
        let until =
            if parcel.expires_at <= now { "expired".to_owned() } else { format!("until {}", utc(parcel.expires_at)) };
        let why = self.waiting.map_or_else(String::new, |waiting| {
            let tries = if waiting.tries == 0 { String::new() } else { format!(" ({})", counted_tries(waiting.tries)) };
            format!("  {}{tries}", waiting.why.text())
        });
        let (id, bytes) = (parcel.request_id, parcel.body.len());
        format!(
            "{id}  {caller}  {code}  {bytes} bytes  {since}{until}  to {}{why}\n",
            parcel.routing_key.escape_debug()
        )
    }

    fn json(&self) -> Value {
        let Some(parcel) = &self.listed.parcel else {
            return json!({ "file": self.listed.path, "file_bytes": self.listed.bytes });
        };
        json!({
            "file": self.listed.path,
            "file_bytes": self.listed.bytes,
            "request_id": parcel.request_id,
            "caller": self.report.as_ref().map(|report| &report.caller),
            "code": self.report.as_ref().and_then(|report| Some(&report.result.as_ref()?.code)),
            "bytes": parcel.body.len(),
            "kept_since_ms": self.listed.kept_since,
            "expires_at_ms": parcel.expires_at,
            "routing_key": parcel.routing_key,
            "why": self.waiting.map(|waiting| waiting.why),
            "tries": self.waiting.map(|waiting| waiting.tries),
            "unroutable_since_ms": self.waiting.and_then(|waiting| waiting.unroutable_since_ms),
        })
    }
}

fn counted_tries(tries: u32) -> String {
    if tries == 1 { "tried once".to_owned() } else { format!("tried {tries} times") }
}
