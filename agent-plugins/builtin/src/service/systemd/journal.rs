//! What a unit wrote last, and what systemd recorded about its jobs, from the journal.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::manager::{Bounds, LOG_LINES_MAX, LogLine};
use crate::process::Program;

/// A journal of years is searched within seconds; what takes longer is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(10);

/// `journalctl`.
#[derive(Debug)]
pub(super) struct Journal(PathBuf);

/// An entry, as `journalctl --output=json` writes it: one object in each line.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    time_us: String,
    /// Text, or bytes as numbers if it is not UTF-8, or null if it is very long.
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Option<String>,
    #[serde(rename = "_PID", default)]
    pid: Option<String>,
    #[serde(rename = "JOB_TYPE", default)]
    job_type: Option<String>,
    #[serde(rename = "JOB_RESULT", default)]
    job_result: Option<String>,
}

impl Entry {
    pub(super) fn time_us(&self) -> Option<i64> {
        self.time_us.parse().ok()
    }

    pub(super) fn text(&self) -> String {
        match &self.message {
            Value::String(text) => text.clone(),
            Value::Array(bytes) => {
                let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => "(a message too long to show)".to_owned(),
        }
    }
}

impl Journal {
    pub(super) fn new(journalctl: PathBuf) -> Self {
        Self(journalctl)
    }

    /// The last lines of the unit and about it.
    pub(super) async fn lines(&self, unit: &str, bounds: Bounds<'_>) -> Vec<LogLine> {
        self.sync(bounds).await;
        let entries = self.read(unit, LOG_LINES_MAX, bounds).await;
        let line = |entry: &Entry| {
            let source = entry.identifier.as_deref().unwrap_or("unknown");
            LogLine::new(entry.time_us().map(|time| time / 1000), source, &entry.text())
        };
        entries.iter().map(line).collect()
    }

    /// When the last entry was written, in microseconds.
    pub(super) async fn last_time(&self, unit: &str, bounds: Bounds<'_>) -> Option<i64> {
        self.read(unit, 1, bounds).await.last().and_then(Entry::time_us)
    }

    /// The result that systemd recorded for a job of that type after that time.
    pub(super) async fn job_result(
        &self,
        unit: &str,
        job_type: &str,
        after_us: Option<i64>,
        bounds: Bounds<'_>,
    ) -> Option<String> {
        self.sync(bounds).await;
        let entries = self.read(unit, 1000, bounds).await;
        let is_it = |entry: &&Entry| {
            // A restart is a stop and then a start.
            let is_type = entry.job_type.as_deref().is_some_and(|kind| kind == job_type || job_type == "restart");
            entry.pid.as_deref() == Some("1") && is_type && entry.time_us() > after_us
        };
        entries.iter().rev().filter(is_it).find_map(|entry| entry.job_result.clone())
    }

    /// Waits until what was written before is in the journal. Failing means that the last line may be missing.
    async fn sync(&self, bounds: Bounds<'_>) {
        let program = Program::new(&self.0, bounds.left().min(PATIENCE)).argument("--sync");
        let _best_effort = program.run(bounds.cancel).await;
    }

    async fn read(&self, unit: &str, lines: usize, bounds: Bounds<'_>) -> Vec<Entry> {
        let program = Program::new(&self.0, bounds.left().min(PATIENCE))
            .arguments(["--no-pager", "--quiet", "--output=json"])
            .argument(format!("--lines={lines}"))
            .argument(format!("--unit={unit}"))
            .output_bytes_max(4 * 1024 * 1024);
        let run = program.run(bounds.cancel).await;
        parse(&run.stdout.text())
    }
}

/// Lines that are no entries are left out: the journal only explains, it decides nothing.
pub(super) fn parse(output: &str) -> Vec<Entry> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_bytes_and_nothing() {
        let output = concat!(
            r#"{"__REALTIME_TIMESTAMP":"1795233356108799","MESSAGE":"Started.","SYSLOG_IDENTIFIER":"systemd","_PID":"1","JOB_TYPE":"start","JOB_RESULT":"done"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1795233356108800","MESSAGE":[104,105,255],"_PID":"7"}"#,
            "\nnot json\n",
            r#"{"MESSAGE":null}"#,
            "\n"
        );
        let entries = parse(output);
        let texts: Vec<_> = entries.iter().map(Entry::text).collect();
        assert_eq!(texts, ["Started.", "hi\u{fffd}", "(a message too long to show)"]);
        assert_eq!(entries[0].time_us(), Some(1_795_233_356_108_799));
        assert_eq!((entries[0].job_result.as_deref(), entries[2].time_us()), (Some("done"), None));
    }
}
