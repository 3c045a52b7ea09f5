//! The measured curve: how the cost of a full ping grows with the number of hosts.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::engine::count;
use crate::fit::{Line, fit};

/// The form of the benchmark's results that this reads.
const SCHEMA: &str = "muster-bench/1";

/// Full pings of one number of hosts: medians.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// How many hosts.
    pub hosts: usize,
    /// Until all answers were verified.
    pub complete_ms: f64,
    /// The raw echo of the same run.
    pub raw_complete_ms: f64,
    /// Processor time of the broker for each host.
    pub broker_us: f64,
    /// The same of the raw echo.
    pub raw_broker_us: f64,
    /// Processor time of all agents for each host.
    pub agents_us: f64,
    /// Processor time of the controller for each reply.
    pub controller_us: f64,
    /// Most memory that the controller's process held.
    pub controller_peak_bytes: f64,
}

/// What the curve says.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// By number of hosts.
    pub points: Vec<Point>,
    /// Processor time of the broker for a ping, in microseconds, over hosts.
    pub broker: Option<Line>,
    /// The same of the raw echo.
    pub raw_broker: Option<Line>,
    /// Time until all answers are verified, in milliseconds, over hosts.
    pub complete: Option<Line>,
    /// The controller's memory, in bytes, over hosts.
    pub controller_memory: Option<Line>,
}

#[derive(Deserialize)]
struct Results {
    schema: String,
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: String,
    hosts: usize,
    #[serde(default)]
    failed: Option<String>,
    samples: BTreeMap<String, Vec<f64>>,
}

/// Reads the pings in the benchmark's results. What failed there does not count.
///
/// # Errors
/// The text is of another form, or has no ping, or one lacks a quantity.
pub fn read(text: &str) -> Result<Curve> {
    let results: Results = serde_json::from_str(text).context("these are no results of `cargo xtask bench`")?;
    ensure!(results.schema == SCHEMA, "these results are `{}`, and this reads `{SCHEMA}`", results.schema);
    let mut points = Vec::new();
    for outcome in results.outcomes.iter().filter(|it| it.scenario == "ping" && it.failed.is_none()) {
        let median = |quantity: &str| -> Result<f64> {
            let samples = outcome.samples.get(quantity).map(Vec::as_slice).unwrap_or_default();
            middle(samples).with_context(|| format!("the ping of {} hosts has no `{quantity}`", outcome.hosts))
        };
        points.push(Point {
            hosts: outcome.hosts,
            complete_ms: median("complete_ms")?,
            raw_complete_ms: median("raw_complete_ms")?,
            broker_us: median("broker_us")?,
            raw_broker_us: median("raw_broker_us")?,
            agents_us: median("agents_us")?,
            controller_us: median("controller_us")?,
            controller_peak_bytes: median("controller_peak_bytes")?,
        });
    }
    ensure!(!points.is_empty(), "the results have no full ping that counts");
    points.sort_by_key(|point| point.hosts);
    let line = |value: &dyn Fn(&Point) -> f64| {
        let points: Vec<(f64, f64)> = points.iter().map(|point| (count(point.hosts), value(point))).collect();
        fit(&points)
    };
    Ok(Curve {
        broker: line(&|point| point.broker_us * count(point.hosts)),
        raw_broker: line(&|point| point.raw_broker_us * count(point.hosts)),
        complete: line(&|point| point.complete_ms),
        controller_memory: line(&|point| point.controller_peak_bytes),
        points,
    })
}

fn middle(samples: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(points: &[(usize, f64)], schema: &str) -> String {
        let outcomes: Vec<serde_json::Value> = points
            .iter()
            .map(|(hosts, complete_ms)| {
                serde_json::json!({"scenario": "ping", "hosts": hosts, "run": 0, "samples": {
                    "complete_ms": [complete_ms * 3.0, complete_ms, complete_ms * 0.5],
                    "raw_complete_ms": [1.0, 3.0], "broker_us": [200.0], "raw_broker_us": [150.0], "agents_us": [90.0],
                    "controller_us": [30.0], "controller_peak_bytes": [1e6 + 500.0 * count(*hosts)]}})
            })
            .collect();
        serde_json::json!({"schema": schema, "machine": {}, "runs": [], "outcomes": outcomes}).to_string()
    }

    #[test]
    fn the_line_through_the_medians_is_found() {
        let curve = read(&results(&[(1_000, 100.0), (100, 10.0), (10_000, 1_000.0)], SCHEMA)).unwrap();
        assert_eq!(curve.points.iter().map(|point| point.hosts).collect::<Vec<_>>(), [100, 1_000, 10_000]);
        assert!((curve.points[0].raw_complete_ms - 2.0).abs() < 1e-9);
        let (broker, memory) = (curve.broker.unwrap(), curve.controller_memory.unwrap());
        assert!((broker.each - 200.0).abs() < 1e-6 && broker.at_nought.abs() < 1e-3, "{broker:?}");
        assert!((memory.each - 500.0).abs() < 1e-6 && (memory.at_nought - 1e6).abs() < 1e-2, "{memory:?}");
        assert!((curve.complete.unwrap().each - 0.1).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let good = results(&[(100, 10.0)], SCHEMA);
        for (text, expected) in [
            ("[]".to_owned(), "no results"),
            (results(&[(100, 10.0)], "muster-bench/9"), "these results are `muster-bench/9`"),
            (results(&[], SCHEMA), "no full ping that counts"),
            (good.replace("agents_us", "agent_us"), "the ping of 100 hosts has no `agents_us`"),
            (good.replace("\"run\":0", "\"failed\":\"late\""), "no full ping that counts"),
        ] {
            let error = format!("{:#}", read(&text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
