//! `musterd spool`: final reports that the broker has not confirmed.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use muster_agent::spool::{Listed, list};
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
    if *json {
        let all: Vec<Value> = listed.iter().map(as_json).collect();
        return print(&format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    let now = Timestamp(SystemClock.now_ms());
    let mut text: String = listed.iter().map(|listed| as_row(listed, now)).collect();
    let bytes: usize = listed.iter().filter_map(|listed| Some(listed.parcel.as_ref()?.body.len())).sum();
    let waiting = listed.iter().filter(|listed| listed.parcel.is_some()).count();
    let plural = if waiting == 1 { "" } else { "s" };
    text.push_str(&format!("{waiting} report{plural}, {bytes} bytes\n"));
    print(&text)
}

fn report(listed: &Listed) -> Option<ProgressReport> {
    decode(&listed.parcel.as_ref()?.body).ok()
}

fn as_row(listed: &Listed, now: Timestamp) -> String {
    let Some(parcel) = &listed.parcel else {
        return format!("{} is not a report\n", listed.path.display());
    };
    let report = report(listed);
    let result = report.as_ref().and_then(|report| report.result.as_ref());
    let caller = report.as_ref().map_or_else(|| "?".to_owned(), |report| report.caller.short());
    let code = result.map_or("?", |result| result.code.as_str());
    let expires =
        if parcel.expires_at <= now { "expired".to_owned() } else { format!("until {}", utc(parcel.expires_at)) };
    let (id, bytes) = (parcel.request_id, parcel.body.len());
    format!("{id}  {caller}  {code}  {bytes} bytes  {expires}  to {}\n", parcel.routing_key.escape_debug())
}

fn as_json(listed: &Listed) -> Value {
    let Some(parcel) = &listed.parcel else { return json!({ "file": listed.path, "damaged": true }) };
    let report = report(listed);
    json!({
        "file": listed.path,
        "damaged": false,
        "request_id": parcel.request_id,
        "caller": report.as_ref().map(|report| &report.caller),
        "code": report.as_ref().and_then(|report| Some(&report.result.as_ref()?.code)),
        "bytes": parcel.body.len(),
        "expires_at_ms": parcel.expires_at,
        "routing_key": parcel.routing_key,
    })
}
