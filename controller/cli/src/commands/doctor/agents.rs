//! The hosts: how many answer, with which version, and whether their clocks agree with ours.

use std::collections::BTreeMap;

use muster_client::cache::HostCache;
use muster_client::{ClientError, Controller, End, HostRecord, Summary, WINDOW_MS_DEFAULT, discover};
use muster_pki::CrlInfo;
use muster_protocol::code;
use muster_protocol::limits::CLOCK_SKEW_MS_DEFAULT;
use muster_protocol::{HostName, TaskState, Timestamp};
use serde_json::Value;

use super::{Check, Report, Status, agreement, backlog};
use crate::context::Context;
use crate::output::number::counted;
use crate::output::{ExitCode, Failure, fold, time};
use crate::session::client_failure;

#[cfg(test)]
mod tests;

/// Clocks that differ by more are told: names of certificates and commands still work, logs no longer line up.
const SKEW_MS_WARNING: i64 = 5_000;

/// Asks everybody and judges the answers. `own` are the revocation lists that this machine has.
pub(super) async fn check(
    context: &Context,
    controller: &mut Controller,
    cache: &mut HostCache,
    own: &[CrlInfo],
    report: &mut Report<'_>,
) {
    let asked_at = controller.now();
    let found = discover::discover(controller, cache, None, WINDOW_MS_DEFAULT, |_, _| {}).await;
    match found {
        Ok(found) => {
            report.add(Check::ok("permissions", "may read its replies and publish commands"));
            let silent: Vec<&str> = found.silent.iter().map(HostName::as_str).collect();
            report.add(answering(&found.summary, &silent));
            if let Some(check) = clocks(&found.summary, asked_at) {
                report.add(check);
            }
            let told = backlog::ask(controller, &found.hosts).await;
            let judged = backlog::judge(&told, found.hosts.len()).into_iter();
            judged.chain(agreement::judge(&told, own)).for_each(|check| report.add(check));
        }
        Err(error @ ClientError::NobodyListens { .. }) => {
            report.add(Check::ok("permissions", "may read its replies and publish commands"));
            report.add(Check::failed(
                "agents",
                &client_failure(&error, context).hint("systemctl status musterd, on a host"),
            ));
        }
        Err(error) => {
            report.add(Check::failed("permissions", &client_failure(&error, context).hint("muster broker check")))
        }
    }
}

fn answering(summary: &Summary, silent: &[&str]) -> Check {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refusals: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (host, record) in &summary.hosts {
        let Some(result) = &record.result else { continue };
        if record.state == TaskState::Succeeded {
            let version = result.data.get("agent_version").and_then(Value::as_str).unwrap_or("unknown");
            *versions.entry(version).or_default() += 1;
        } else {
            refusals.entry(result.code.as_str()).or_default().push(host.as_str());
        }
    }
    let count: usize = versions.values().sum();
    let shown: Vec<String> = versions.iter().map(|(version, hosts)| format!("{version} on {hosts}")).collect();
    let what = match shown.as_slice() {
        [] => "none answers".to_owned(),
        _ => format!("{}; agent {}", counted(count, "host answers", "hosts answer"), shown.join(", ")),
    };
    let mut why: Vec<String> =
        refusals.iter().map(|(code, hosts)| format!("{code}: {}", fold::fold_line(hosts.iter().copied()))).collect();
    if !silent.is_empty() {
        why.push(format!("silent: {}", fold::fold_line(silent.iter().copied())));
    }
    if count == 0 && refusals.is_empty() {
        // Where nobody at all answers, the agents may be well, and we the stranger.
        why.push("perhaps no host accepts your certificate: one of another CA than theirs gets no answer".to_owned());
    }
    why.extend((summary.rejected > 0).then(|| format!("{} answers could not be believed", summary.rejected)));
    let refused = refusals.keys().next().map(|code| format!("muster explain {code}"));
    let mut check = match (count, &refused) {
        (0, Some(remedy)) => {
            let failure = Failure::new(ExitCode::Refused, "policy-denied", "every host that answers refuses");
            Check::failed("agents", &failure.hint(remedy))
        }
        (0, None) => {
            let failure = Failure::new(ExitCode::NoMatch, "no-match", what);
            Check::failed(
                "agents",
                &failure.hint("systemctl status musterd; journalctl -u musterd, on a host that should answer"),
            )
        }
        (_, Some(remedy)) => Check::warning("agents", what, remedy),
        (_, None) if !why.is_empty() => Check::warning("agents", what, "muster host list"),
        (_, None) => match &summary.end {
            End::Failed(error) => Check::warning("agents", what, error.hint()),
            End::Complete | End::Stopped => Check::ok("agents", what),
        },
    };
    if check.status == Status::Warning {
        // As of every other command: a fleet of which a part refuses or is silent is no success.
        check.exit = match (refusals.is_empty(), silent.is_empty()) {
            (false, _) => ExitCode::Refused,
            (true, false) => ExitCode::NoReply,
            (true, true) => ExitCode::Success,
        };
    }
    check.why = why;
    check
}

/// A host's clock less ours, in milliseconds, as well as one exchange can tell: its answer was made
/// half-way between question and arrival.
fn skew_ms(record: &HostRecord, asked_at: Timestamp) -> Option<i64> {
    let theirs = record.result.as_ref()?.data.get("time_ms")?.as_i64()?;
    let ours = asked_at.plus_ms(record.ended_ms? / 2);
    Some(theirs.saturating_sub(ours.as_millis()))
}

fn clocks(summary: &Summary, asked_at: Timestamp) -> Option<Check> {
    let skews: Vec<(&str, i64)> =
        summary.hosts.iter().filter_map(|(host, record)| Some((host.as_str(), skew_ms(record, asked_at)?))).collect();
    let refused = |record: &HostRecord| {
        let code = record.result.as_ref().map(|result| result.code.as_str());
        code == Some(code::FROM_THE_FUTURE.code) || code == Some(code::EXPIRED.code)
    };
    let strangers: Vec<&str> =
        summary.hosts.iter().filter(|(_, record)| refused(record)).map(|(host, _)| host.as_str()).collect();
    if !strangers.is_empty() {
        let what = format!("the clocks differ too much for {}", counted(strangers.len(), "host", "hosts"));
        let failure = Failure::new(ExitCode::Refused, code::FROM_THE_FUTURE.code, what)
            .why("hosts", fold::fold_line(strangers))
            .hint("timedatectl, here and there: is the time synchronised?");
        return Some(Check::failed("clocks", &failure));
    }
    let (worst_host, worst) = skews.iter().copied().max_by_key(|(_, skew)| skew.unsigned_abs())?;
    let side = if worst < 0 { "behind" } else { "ahead" };
    let by = time::span(worst.saturating_abs());
    Some(match worst.saturating_abs() {
        ..SKEW_MS_WARNING => {
            Check::ok("clocks", format!("all within {} of this one", time::span(worst.saturating_abs().max(1))))
        }
        skew => {
            let off = skews.iter().filter(|(_, skew)| skew.saturating_abs() >= SKEW_MS_WARNING).count();
            let limit = if skew > CLOCK_SKEW_MS_DEFAULT { ", more than hosts allow by default" } else { "" };
            let what = format!("{} off; most of all {worst_host}, {by} {side}{limit}", counted(off, "clock", "clocks"));
            Check::warning("clocks", what, "timedatectl, here and there: is the time synchronised?")
        }
    })
}
