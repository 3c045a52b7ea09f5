//! What must be so when everything has healed and everybody has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use muster_agent::{audit, spool};
use muster_client::Cause;
use muster_protocol::{RequestId, TaskState, code};
use serde_json::Value;

use crate::controllers::Verdict;
use crate::host::Host;
use crate::options::FaultKind;
use crate::stage::Stage;
use crate::world::{Ended, Place, Start, Told, is_reading};

/// Looks at everything that is left of a run.
pub(crate) fn judge(stage: &Stage, verdicts: &[Verdict]) {
    for host in stage.hosts.iter() {
        let kept = Kept::of(stage, host);
        let mut wrong: Vec<(&'static str, String)> = Vec::new();
        stage.world.at(host.index, |place| {
            for (id, starts) in &place.starts {
                judge_request(place, id, starts, &kept, &mut wrong);
            }
        });
        for (invariant, what) in wrong {
            stage.world.violate(invariant, what);
        }
    }
    for verdict in verdicts {
        judge_verdict(stage, verdict);
    }
}

/// What a host's disk holds.
struct Kept {
    /// Requests whose end waits in the spool.
    spooled: BTreeSet<RequestId>,
    /// Requests of which the audit log says that the report was given up.
    given_up: BTreeSet<String>,
    /// The codes with which the audit log says each request finished.
    finished: BTreeMap<String, Vec<String>>,
}

impl Kept {
    fn of(stage: &Stage, host: &Host) -> Self {
        let state = host.directory.path().join("state");
        let disk = host.disk.mount();
        let mut kept = Self { spooled: BTreeSet::new(), given_up: BTreeSet::new(), finished: BTreeMap::new() };
        match spool::list(&*disk, &state.join("spool")) {
            Ok(listed) => {
                kept.spooled = listed.into_iter().filter_map(|file| file.parcel).map(|it| it.request_id).collect();
            }
            Err(error) => stage.world.violate("the spool can be read", format!("{}: {error}", host.name)),
        }
        let log = state.join("audit.jsonl");
        if let Err(error) = audit::verify_all_on(&*disk, &log, None) {
            stage.world.violate("audit chains stay whole", format!("{}: {error}", host.name));
        }
        for line in lines(host, &log).iter().map(|line| &line["details"]) {
            let id = line["request_id"].as_str().unwrap_or_default().to_owned();
            match (line["event"].as_str(), line["decision"].as_str()) {
                (Some("report"), Some("given_up")) => drop(kept.given_up.insert(id)),
                (Some("finished"), Some(decision)) => {
                    let code = line["code"].as_str().unwrap_or(decision).to_owned();
                    kept.finished.entry(id).or_default().push(code);
                }
                _ => {}
            }
        }
        if kept.spooled.len() > spool::REPORTS_MAX {
            stage.world.violate("memory is bounded", format!("{}: {} reports", host.name, kept.spooled.len()));
        }
        kept
    }
}

/// The lines of an audit log and of the files before it.
fn lines(host: &Host, log: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> = host
        .disk
        .files()
        .into_iter()
        .filter(|path| path.to_string_lossy().starts_with(&*log.to_string_lossy()))
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|path| host.disk.content(path))
        .flat_map(|bytes| {
            String::from_utf8_lossy(&bytes)
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect::<Vec<Value>>()
        })
        .collect()
}

/// Codes that say something of a request's end on a host; the others refuse it, or a copy of it.
fn ends(told: &Told) -> bool {
    let ending =
        [&code::OK, &code::INTERRUPTED, &code::CANCELLED, &code::TIMED_OUT, &code::FAILED, &code::PLUGIN_ERROR];
    ending.iter().any(|code| code.code == told.code)
}

fn judge_request(
    place: &Place,
    id: &RequestId,
    starts: &[Start],
    kept: &Kept,
    wrong: &mut Vec<(&'static str, String)>,
) {
    let name = &place.name;
    let action = &starts[0].action;
    let told: Vec<&Told> = place.told.get(id).into_iter().flatten().filter(|told| ends(told)).collect();
    if starts.iter().any(|start| start.ended.is_none()) {
        wrong.push(("everything that starts ends", format!("{name} {id} {action} still runs")));
    }
    let ran_once = starts.len() == 1;
    // An end that was kept may be told again after a crash, with another number, as long as it is the same end. What
    // only reads is told from memory: a crash right after that, before the journal knows, makes an interruption of it too.
    let outcomes: BTreeSet<&str> = told
        .iter()
        .map(|told| told.code.as_str())
        .filter(|told| !(is_reading(action) && *told == code::INTERRUPTED.code))
        .collect();
    if ran_once && outcomes.len() > 1 {
        let codes: Vec<&str> = outcomes.into_iter().collect();
        wrong.push(("a request has one outcome", format!("{name} {id} {action}: {}", codes.join(" and "))));
    }
    if ran_once && let (Some(told), Some(ended)) = (told.first(), starts[0].ended) {
        let fits = match told.code.as_str() {
            "ok" => ended == Ended::Done,
            // What an interrupted action did is not known, and it may have done it all.
            "interrupted" => true,
            "cancelled" | "timed-out" => ended != Ended::Done,
            _ => ended != Ended::Done,
        };
        if !fits {
            wrong
                .push(("what is told is what was", format!("{name} {id} {action}: told {}, was {ended:?}", told.code)));
        }
    }
    if is_reading(action) {
        return;
    }
    let known = !told.is_empty() || kept.spooled.contains(id) || kept.given_up.contains(&id.to_string());
    if !known {
        let finished = kept.finished.get(&id.to_string()).map(|codes| codes.join(", "));
        let what = format!("{name} {id} {action}: audit log says {}", finished.unwrap_or_else(|| "nothing".to_owned()));
        wrong.push(("no report is lost without a record", what));
    }
}

/// What a controller was told, against what was.
fn judge_verdict(stage: &Stage, verdict: &Verdict) {
    let Some(host) = stage.hosts.iter().find(|host| host.name == verdict.host) else {
        return stage.world.violate("only hosts answer", format!("{:?}", verdict.host));
    };
    let (starts, boots) = stage.world.at(host.index, |place| {
        let ids = verdict.requests.iter();
        let starts: Vec<Start> = ids.clone().flat_map(|id| place.starts.get(id).cloned().unwrap_or_default()).collect();
        let told: Vec<Told> = ids.flat_map(|id| place.told.get(id).into_iter().flatten()).cloned().collect();
        let boots: BTreeSet<u64> = told
            .iter()
            .filter(|told| Some(told.code.as_str()) == verdict.code.as_deref())
            .map(|told| told.boot)
            .collect();
        (starts, boots)
    });
    let code = verdict.code.as_deref();
    let done = starts.iter().filter(|start| start.ended == Some(Ended::Done)).count();
    let fits = match (verdict.state, code, verdict.cause) {
        (TaskState::Succeeded, ..) => done >= 1 && verdict.start.is_some_and(|start| start as usize <= starts.len()),
        (TaskState::Failed, Some("interrupted"), _) => true,
        (TaskState::Failed, Some(_), _) => starts.iter().any(|start| start.ended != Some(Ended::Done)),
        // That there was a copy says nothing of what became of the first.
        (TaskState::Refused, Some("replayed"), _) => true,
        // What could not be recorded has not run, and may be sent again.
        (TaskState::Refused, Some("journal-failed"), _) => true,
        // That it was refused is written and not synced, so only the end of the host can make it forgotten.
        (TaskState::Refused, Some(_), _) => starts.iter().all(|start| !boots.contains(&start.boot)),
        // Unless somebody who had seen the command sent it once more.
        (_, None, Some(Cause::NoQueue | Cause::NotSent)) => starts.is_empty() || stage.options.has(FaultKind::Attack),
        (TaskState::Pending | TaskState::Running, ..) => true,
        _ => true,
    };
    if !fits {
        let ids: Vec<String> = verdict.requests.iter().map(RequestId::short).collect();
        let what = format!(
            "{} {}: told {:?} {} {:?}, there were {:?}",
            verdict.host,
            ids.join(" "),
            verdict.state,
            code.unwrap_or("-"),
            verdict.cause,
            starts.iter().map(|start| (&start.action, start.ended)).collect::<Vec<_>>()
        );
        stage.world.violate("a controller knows what was", what);
    }
}
