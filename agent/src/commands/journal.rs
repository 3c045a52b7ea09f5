//! `musterd journal`: the requests that this host remembers.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use muster_agent::journal::{Kind, LIVE_BYTES_MAX, Summary, look};
use muster_agent::state::files;
use muster_daemon::RealDisk;
use muster_pki::time_text::utc;
use serde::Serialize;

use super::{Files, Looked, print};

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// List the requests that have begun and not ended, and say how full the journal is. Exit code 3 if it is damaged.
    List {
        /// The file [default: `journal` in the configured state_dir].
        file: Option<PathBuf>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &JournalCommand, files: &Files) -> anyhow::Result<Looked> {
    let JournalCommand::List { file, json } = command;
    let path = match file {
        Some(file) => file.clone(),
        None => files.load()?.1.state_dir().join(files::JOURNAL),
    };
    let summary = look(&RealDisk, &path).context("look into the journal")?;
    let summary = summary.with_context(|| format!("there is no journal in `{}`", path.display()))?;
    if *json {
        let document = Document { schema: "muster.journal/v1", file: &path, summary: &summary };
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&text(&summary))?;
    }
    // Half a record at the end is written just now, or was when the host stopped: no damage.
    Ok(Looked::of(summary.damaged_lines == 0))
}

/// The summary for programs.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    file: &'a Path,
    #[serde(flatten)]
    summary: &'a Summary,
}

fn text(summary: &Summary) -> String {
    let mut text = String::new();
    for started in &summary.unfinished {
        let kind = if started.read_only { "reads" } else { "changes" };
        text.push_str(&format!(
            "{}  {}  {}  {kind}  since {}\n",
            started.id,
            started.caller.short(),
            started.action.escape_debug(),
            utc(started.at_ms)
        ));
    }
    text.push_str(&format!("{} running or interrupted\n", summary.unfinished.len()));
    let of = |count: usize, kind: Kind| format!("{count} of {}", kind.budget());
    text.push_str(&format!(
        "remembered: {} that change something, {} that only read, {} refused",
        of(summary.changes, Kind::Change),
        of(summary.reads, Kind::Read),
        of(summary.refusals, Kind::Refusal)
    ));
    if summary.others > 0 {
        text.push_str(&format!(", {} of an older agent", summary.others));
    }
    if let Some(until) = summary.last_window_ends_at_ms {
        text.push_str(&format!(", the last until {}", utc(until)));
    }
    text.push_str(&format!("\n{} bytes (records in use at most {LIVE_BYTES_MAX})\n", summary.file_bytes));
    if summary.torn_bytes > 0 {
        text.push_str(&format!("{} bytes of an unfinished record follow\n", summary.torn_bytes));
    }
    if summary.damaged_lines > 0 {
        let plural = if summary.damaged_lines == 1 { "line is" } else { "lines are" };
        text.push_str(&format!(
            "{} {plural} damaged: what was in them is forgotten; restart the agent to keep the file as it is\n",
            summary.damaged_lines
        ));
    }
    text
}
