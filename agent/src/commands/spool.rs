//! `musterd spool`: final reports that the broker has not confirmed.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use muster_agent::spool::{BYTES_MAX, Listed, Parcel, REPORTS_MAX, SpoolState, Waiting, list, read_state};
use muster_agent::state::files;
use muster_daemon::{Clock as _, RealDisk, SystemClock};
use muster_pki::time_text::utc;
use muster_protocol::{ProgressReport, Timestamp, decode};
use serde_json::{Value, json};

use super::{Files, print};

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// List the reports on disk, oldest request first. Those in the agent's memory are not among them.
    List {
        /// The directory [default: `spool` in the configured state_dir].
        directory: Option<PathBuf>,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &SpoolCommand, files: &Files) -> anyhow::Result<()> {
    let SpoolCommand::List { directory, json } = command;
    let directory = match directory {
        Some(directory) => directory.clone(),
        None => files.load()?.1.state_dir().join(files::SPOOL),
    };
    let listed = list(&RealDisk, &directory).context("look into the spool")?;
    // Beside the spool lies what the agent knows beyond the files. It tells of this spool only.
    let state = directory.parent().and_then(|it| read_state(&RealDisk, &it.join(files::SPOOL_STATE)));
    let rows: Vec<Row<'_>> = listed.iter().map(|listed| Row::new(listed, state.as_ref())).collect();
    if *json {
        let all: Vec<Value> = rows.iter().map(Row::json).collect();
        return print(&format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    let now = Timestamp(SystemClock.now_ms());
    let mut text: String = rows.iter().map(|row| row.text(now)).collect();
    let waiting: Vec<&Parcel> = listed.iter().filter_map(|listed| listed.parcel.as_ref()).collect();
    let bytes: usize = waiting.iter().map(|parcel| parcel.body.len()).sum();
    text.push_str(&format!(
        "{}, {bytes} bytes (at most {REPORTS_MAX}, {BYTES_MAX} bytes)\n",
        counted(waiting.len(), "report")
    ));
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
    print(&text)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
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
            return json!({ "file": self.listed.path, "damaged": true, "file_bytes": self.listed.bytes });
        };
        json!({
            "file": self.listed.path,
            "damaged": false,
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
