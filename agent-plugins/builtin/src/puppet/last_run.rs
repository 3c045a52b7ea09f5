//! The last run, from its summary and its report.

use muster_plugin_api::ActionFailure;
use muster_protocol::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::files;
use super::paths::Installed;
use super::report::{ErrorMessage, Report, Resource};
use super::summary::Summary;

/// The summary and the report that belong to one run.
#[derive(Debug, Default)]
pub(super) struct LastRun {
    pub(super) summary: Summary,
    /// The report, where Puppet keeps one (the setting `report`) and it is of the same run.
    pub(super) report: Option<Report>,
}

/// What tells one run from another: changed by every run that gets as far as asking for a catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trace {
    summary: Option<(i64, i64)>,
    report: Option<String>,
}

/// What is told of a run: keys of the outputs of `last_run_summary` and of `runonce`.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) result: &'static str,
    noop: Option<bool>,
    pub(super) last_run_ms: Option<i64>,
    pub(super) since_last_run_s: Option<i64>,
    started_ms: Option<i64>,
    run_mode: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) config_version: Option<String>,
    pub(super) puppet_version: Option<String>,
    transaction_uuid: Option<String>,
    cached_catalog_status: Option<String>,
    pub(super) total_resources: Option<u64>,
    pub(super) changed_resources: Option<u64>,
    pub(super) failed_resources: Option<u64>,
    out_of_sync_resources: Option<u64>,
    skipped_resources: Option<u64>,
    restarted_resources: Option<u64>,
    corrected_resources: Option<u64>,
    total_time_s: Option<f64>,
    config_retrieval_time_s: Option<f64>,
    resources: Map<String, Value>,
    changes: Map<String, Value>,
    events: Map<String, Value>,
    times: Map<String, Value>,
    failed: Option<Vec<Resource>>,
    changed: Option<Vec<Resource>>,
    pending: Option<Vec<Resource>>,
    errors: Option<Vec<ErrorMessage>>,
    left_out: Option<u64>,
}

impl LastRun {
    /// Reads the newest summary, and the report if it is of the same run.
    ///
    /// # Errors
    /// When one of them is there and is not what it should be.
    pub(super) fn read(files: &Installed) -> Result<Option<Self>, ActionFailure> {
        let Some(summary) = newest_summary(files)? else { return Ok(None) };
        // `puppet apply` writes a summary, and its report too, but with settings of its own perhaps elsewhere.
        let report = Report::read(&files.report)?.filter(|report| belongs(&summary, report));
        Ok(Some(Self { summary, report }))
    }

    /// How it went, in one word: unchanged, changed, failed, interrupted, or unknown if there was none.
    pub(super) fn result(&self) -> &'static str {
        match (&self.report, self.summary.result()) {
            (_, "unknown") => "unknown",
            (Some(report), _) if report.was_interrupted() => "interrupted",
            (Some(report), _) if report.has_failed() => "failed",
            (_, result) => result,
        }
    }

    /// When it ended, in milliseconds since 1970.
    pub(super) fn ended_ms(&self) -> Option<i64> {
        self.summary.last_run_s.map(|seconds| seconds.saturating_mul(1000))
    }

    /// Everything that is told of it. The lists only where `details` are wanted.
    pub(super) fn told(&self, now: Timestamp, details: bool) -> Told {
        let summary = &self.summary;
        let report = self.report.as_ref();
        let listed = report.filter(|_| details);
        Told {
            result: self.result(),
            noop: report.and_then(|report| report.noop),
            last_run_ms: self.ended_ms(),
            since_last_run_s: self.ended_ms().map(|last| now.since_ms(Timestamp(last)).max(0) / 1000),
            started_ms: report.and_then(Report::started_ms),
            run_mode: summary.run_mode.clone(),
            environment: report.and_then(|report| report.environment.clone()).or_else(|| summary.environment.clone()),
            config_version: summary.config_version.clone().or_else(|| report.and_then(Report::config_version)),
            puppet_version: summary.puppet_version.clone().or_else(|| report.and_then(Report::puppet_version)),
            transaction_uuid: report.and_then(Report::transaction_uuid),
            cached_catalog_status: report.and_then(|report| report.cached_catalog_status.clone()),
            total_resources: summary.count("total"),
            changed_resources: summary.count("changed"),
            failed_resources: summary.count("failed"),
            out_of_sync_resources: summary.count("out_of_sync"),
            skipped_resources: summary.count("skipped"),
            restarted_resources: summary.count("restarted"),
            corrected_resources: summary.count("corrective_change"),
            total_time_s: summary.seconds("total"),
            config_retrieval_time_s: summary.seconds("config_retrieval"),
            resources: summary.resources.clone(),
            changes: summary.changes.clone(),
            events: summary.events.clone(),
            times: summary.times.clone(),
            failed: listed.map(|report| report.failed().to_vec()),
            changed: listed.map(|report| report.changed().to_vec()),
            pending: listed.map(|report| report.pending().to_vec()),
            errors: listed.map(|report| report.errors().to_vec()),
            left_out: listed.map(Report::left_out),
        }
    }
}

impl Trace {
    /// The trace of the last run as it is now. A file that is not what it should be leaves none.
    pub(super) fn read(files: &Installed) -> Self {
        let summary = newest_summary(files).ok().flatten().and_then(|summary| summary.last_run_s);
        let written = files.summaries.iter().filter_map(|path| files::written_ms(path)).max();
        let report = Report::read(&files.report).ok().flatten();
        Self { summary: summary.zip(written), report: report.and_then(|report| report.id().map(str::to_owned)) }
    }
}

/// Both are written at the end of the run, one after the other; `last_run` is in the summary only, the start in
/// the report only. Between start and end lies the time the run took, of which both know.
fn belongs(summary: &Summary, report: &Report) -> bool {
    /// A run without a catalog has no total; sending the report may take until a connection gives up.
    const SLACK_S: i64 = 600;
    let Some((ended_s, started_ms)) = summary.last_run_s.zip(report.started_ms()) else { return true };
    #[expect(clippy::cast_possible_truncation, reason = "a duration of a run in seconds")]
    let took_s = summary.seconds("total").unwrap_or_default() as i64;
    let between_s = ended_s - started_ms / 1000;
    let same_version = summary.config_version == report.config_version();
    same_version && (-5..=took_s.saturating_add(SLACK_S)).contains(&between_s)
}

fn newest_summary(files: &Installed) -> Result<Option<Summary>, ActionFailure> {
    let mut newest: Option<Summary> = None;
    for path in &files.summaries {
        let Some(text) = files::text(path)? else { continue };
        let summary = Summary::parse(&text).map_err(|why| {
            ActionFailure::failed(format!("`{}` is not a summary of a Puppet run: {why}", path.display()))
        })?;
        if newest.as_ref().is_none_or(|other| other.last_run_s < summary.last_run_s) {
            newest = Some(summary);
        }
    }
    Ok(newest)
}
