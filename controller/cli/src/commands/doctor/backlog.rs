//! What waits on the hosts, and what they say is wrong with them: `host.status` of those that answer.
//!
//! Each host's policy decides who may see it. One that refuses is counted and no reason to worry.

use std::collections::{BTreeMap, BTreeSet};

use muster_client::{Audience, Controller, HostRecord, Question, limit};
use muster_protocol::{HostName, Options, TaskState};
use serde_json::{Map, Value};

use super::Check;
use crate::output::number::counted;
use crate::output::{fold, time};

/// Most hosts that are asked; of more, that many are chosen at random.
const ASKED_MAX: u32 = 1_000;

/// How long a host may take, in milliseconds.
const PATIENCE_MS: i64 = 5_000;

/// A connection younger than this is told, in milliseconds: many of them are a broker that was away.
const YOUNG_MS: i64 = 5 * 60 * 1000;

/// Kinds of problems that are told apart.
const PROBLEMS_MAX: usize = 8;

/// What hosts tell of themselves, a sample of them where there are many. Empty where they cannot be asked.
pub(super) async fn ask(controller: &mut Controller, hosts: &BTreeSet<HostName>) -> BTreeMap<HostName, HostRecord> {
    match question(hosts).map(|question| controller.ask(&question)) {
        Some(Ok(asking)) => asking.finish().await.hosts,
        // What cannot be asked here was told by the check before.
        Some(Err(_)) | None => BTreeMap::new(),
    }
}

fn question(hosts: &BTreeSet<HostName>) -> Option<Question> {
    if hosts.is_empty() {
        return None;
    }
    let asked = limit::choose(hosts.iter().cloned().collect(), limit::Amount::Count(ASKED_MAX), 1);
    let (plugin, action) = ("host".parse().ok()?, "status".parse().ok()?);
    Some(Question {
        options: Options { progress: false, ..Options::default() },
        reply_timeout_ms: PATIENCE_MS,
        time_limit_ms: PATIENCE_MS,
        ..Question::new(Audience::Hosts(asked.into_iter().collect()), plugin, action)
    })
}

/// What one host tells.
struct Told<'a> {
    host: &'a str,
    data: &'a Map<String, Value>,
}

impl Told<'_> {
    fn number(&self, name: &str) -> Option<i64> {
        self.data.get(name)?.as_i64()
    }

    fn problems(&self) -> impl Iterator<Item = &str> {
        self.data.get("problems").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// How long it has been connected, by its own clock, in milliseconds.
    fn connected_for_ms(&self) -> Option<i64> {
        let now = self.number("started_at_ms")?.checked_add(self.number("uptime_s")?.checked_mul(1_000)?)?;
        Some(now.saturating_sub(self.number("connected_at_ms")?).max(0))
    }
}

fn told<'a>((host, record): (&'a HostName, &'a HostRecord)) -> Option<Told<'a>> {
    let data = record.result.as_ref()?.data.as_object()?;
    let tells = record.state == TaskState::Succeeded && data.contains_key("spooled_reports");
    tells.then(|| Told { host: host.as_str(), data })
}

/// Judges. `None` where nobody tells anything.
pub(super) fn judge(hosts: &BTreeMap<HostName, HostRecord>, all: usize) -> Option<Check> {
    let told: Vec<Told<'_>> = hosts.iter().filter_map(told).collect();
    if told.is_empty() {
        return None;
    }
    let mut why = Vec::new();
    let waiting: Vec<&Told<'_>> = told.iter().filter(|one| one.number("spooled_reports").unwrap_or(0) > 0).collect();
    let reports: i64 = waiting.iter().filter_map(|one| one.number("spooled_reports")).sum();
    if !waiting.is_empty() {
        let names = fold::fold_line(waiting.iter().map(|one| one.host));
        let reports = counted(usize::try_from(reports).unwrap_or(0), "report waits", "reports wait");
        why.push(format!("{reports} for the broker: {names}"));
    }
    let mut problems: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for one in &told {
        for problem in one.problems() {
            problems.entry(kind(problem)).or_default().push(one.host);
        }
    }
    let kinds = problems.len();
    for (problem, hosts) in problems.into_iter().take(PROBLEMS_MAX) {
        why.push(format!("{problem}: {}", fold::fold_line(hosts)));
    }
    if kinds > PROBLEMS_MAX {
        why.push(format!("and {} more problems", kinds - PROBLEMS_MAX));
    }
    let wrong = !why.is_empty();
    let young: Vec<i64> = told.iter().filter_map(Told::connected_for_ms).filter(|age| *age < YOUNG_MS).collect();
    let mut what = match wrong {
        false => format!("nothing waits on {}", counted(told.len(), "host", "hosts")),
        true => format!("{} of {}", counted(told.len(), "host tells", "hosts tell"), all),
    };
    if let Some(youngest) = young.iter().min() {
        let again = counted(young.len(), "connection is", "connections are");
        what.push_str(&format!("; {again} young, the youngest {}", time::span(*youngest)));
    }
    if told.len() < all {
        let silent =
            counted(all - told.len(), "host does not tell or was not asked", "hosts do not tell or were not asked");
        what.push_str(&format!("; {silent}"));
    }
    let mut check = match wrong {
        true => Check::warning("backlog", what, "musterd status, on such a host"),
        false => Check::ok("backlog", what),
    };
    check.why = why;
    Some(check)
}

/// The problem without what differs from host to host, so that the same one is told once: times and numbers.
fn kind(problem: &str) -> String {
    let mut kind = String::new();
    for word in problem.split_whitespace() {
        let word = if word.starts_with(|first: char| first.is_ascii_digit()) { ".." } else { word };
        if !kind.is_empty() {
            kind.push(' ');
        }
        kind.push_str(word);
    }
    kind
}

#[cfg(test)]
mod tests {
    use muster_client::testing::{Fleet, succeeding};
    use serde_json::json;

    use super::*;

    async fn examined(hosts: &[(&str, Value)]) -> Option<Check> {
        let fleet = Fleet::new();
        for (name, data) in hosts {
            fleet.hosts(&[name], json!({}), succeeding(data.clone())).await;
        }
        let names: BTreeSet<HostName> = hosts.iter().map(|(name, _)| name.parse().unwrap()).collect();
        judge(&ask(&mut fleet.controller().await, &names).await, names.len())
    }

    fn status(spooled: u64, connected_for_s: i64, problems: &[&str]) -> Value {
        json!({
            "spooled_reports": spooled, "started_at_ms": 1_000_000, "uptime_s": 7_200,
            "connected_at_ms": 1_000_000 + (7_200 - connected_for_s) * 1_000, "problems": problems,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_fleet_and_one_with_reports_and_problems() {
        let quiet = examined(&[("web-1", status(0, 7_000, &[])), ("web-2", status(0, 7_000, &[]))]).await.unwrap();
        assert_eq!(quiet, Check::ok("backlog", "nothing waits on 2 hosts"));

        let ends = "the certificate of this host ends at 2026-12-01T00:00:00Z";
        let later = "the certificate of this host ends at 2026-12-02T00:00:00Z";
        let hosts = [
            ("web-1", status(3, 20, &[ends])),
            ("web-2", status(4, 90, &[later])),
            ("web-3", json!({ "not": "allowed to know" })),
        ];
        let told = examined(&hosts).await.unwrap();
        assert_eq!(told.status, super::super::Status::Warning);
        let what =
            "2 hosts tell of 3; 2 connections are young, the youngest 20 s; 1 host does not tell or was not asked";
        assert_eq!(told.what, what);
        assert_eq!(
            told.why,
            ["7 reports wait for the broker: web-[1-2]", "the certificate of this host ends at ..: web-[1-2]"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_tells_nothing_is_not_judged() {
        assert_eq!(examined(&[("web-1", json!({}))]).await, None);
    }
}
