//! Asks one host one thing that its `host` plugin answers.

use std::collections::BTreeSet;

use muster_client::cache::HostCache;
use muster_client::{Audience, Cause, Controller, End, HostRecord, Question};
use muster_protocol::expr::did_you_mean;
use muster_protocol::{ActionResult, Code, HostName, Options, TaskState, Timestamp};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::invocation::Invocation;
use crate::output::{ExitCode, Failure, time};
use crate::remembered;
use crate::session::{client_failure, failure_after};

#[cfg(test)]
mod tests;

/// How long a host may take to answer, in milliseconds: these questions need no program to run.
const REPLY_TIMEOUT_MS: i64 = 5_000;

/// Opens a session, asks `host.ACTION` and closes it again. Returns the answer's data.
///
/// # Errors
/// No session; the host is unknown (exit code 4), silent (5), refuses (6) or fails (3).
pub(crate) async fn ask(
    invocation: &Invocation,
    host: &HostName,
    action: &'static str,
    arguments: Map<String, Value>,
) -> Result<Value, Failure> {
    let mut session = invocation.session().await?;
    let mut cache = remembered::hosts(&session.context, invocation.now());
    let (controller, context) = (&mut session.controller, &session.context);
    let answer = ask_in(controller, &mut cache, context, host, action, arguments).await;
    if let Err(error) = cache.save() {
        invocation.printer.detail(1, format!("What was learnt about the host could not be kept: {error}"));
    }
    session.close().await;
    answer
}

/// The same in a session that is open.
///
/// # Errors
/// As [`ask`], without those of the session.
pub(crate) async fn ask_in(
    controller: &mut Controller,
    cache: &mut HostCache,
    context: &Context,
    host: &HostName,
    action: &'static str,
    arguments: Map<String, Value>,
) -> Result<Value, Failure> {
    let name = |word: &str| word.parse().expect("a plain word is the name of a plugin and of an action");
    let plugin = "host".parse().expect("a plain word is the name of a plugin");
    let mut question = Question::new(Audience::Hosts(BTreeSet::from([host.clone()])), plugin, name(action));
    question.arguments = arguments;
    question.options = Options { progress: false, ..Options::default() };
    question.reply_timeout_ms = REPLY_TIMEOUT_MS;
    question.time_limit_ms = REPLY_TIMEOUT_MS;
    question.queue_ms = Some(REPLY_TIMEOUT_MS.unsigned_abs());
    let asking = controller.ask(&question).map_err(|error| client_failure(&error, context))?;
    let mut summary = asking.finish().await;
    let now = controller.now();
    if let Some(record) = summary.hosts.remove(host) {
        if record.first_report_ms.is_some() {
            cache.seen(host, None, now);
        }
        return match (record.state, &record.result) {
            (TaskState::Succeeded, Some(result)) => Ok(result.data.clone()),
            _ => Err(failure(host, &record, cache, now)),
        };
    }
    match &summary.end {
        End::Failed(error) => Err(failure_after(error, &summary, context)),
        End::Complete | End::Stopped => Err(strange(host)),
    }
}

/// Exit 1: a host answered what is no answer to the question.
pub(crate) fn strange(host: &HostName) -> Failure {
    Failure::new(ExitCode::Unexpected, "plugin-error", format!("`{host}` answered something else than was asked"))
        .why("note", "its agent may be of another version")
        .hint(format!("muster run host.status -H {host}"))
}

fn failure(host: &HostName, record: &HostRecord, cache: &HostCache, now: Timestamp) -> Failure {
    let seen = cache.last_seen(host).map(|seen| time::ago(seen, now));
    match (record.state, record.cause, &record.result) {
        (_, Some(Cause::NoQueue), _) => {
            let what = format!("no agent has connected as `{host}`");
            let failure = Failure::new(ExitCode::NoMatch, "no-such-host", what);
            let failure = seen.iter().fold(failure, |failure, seen| failure.why("seen", seen.as_str()));
            match did_you_mean(host.as_str(), cache.hosts().keys().map(HostName::as_str)) {
                Some(nearest) if nearest != host.as_str() => failure.why("nearest", format!("`{nearest}`")),
                _ => failure,
            }
            .hint("muster host list")
        }
        (TaskState::Refused, _, Some(result)) => answered(ExitCode::Refused, host, "refuses", result),
        (TaskState::Failed | TaskState::TimedOut, _, Some(result)) => {
            answered(ExitCode::HostFailed, host, "could not answer", result)
        }
        _ => Failure::new(ExitCode::NoReply, "no-reply", format!("`{host}` does not answer"))
            .why("seen", seen.unwrap_or_else(|| "never from here".to_owned()))
            .hint(format!("muster ping -H {host}")),
    }
}

fn answered(exit: ExitCode, host: &HostName, what: &str, result: &ActionResult) -> Failure {
    let known = Code::find(&result.code);
    let code = known.map_or("failed", |row| row.code);
    let why = known.map_or("", |row| row.summary);
    let message = if result.message.is_empty() { why } else { &result.message };
    Failure::new(exit, code, format!("`{host}` {what}")).why("why", message).hint(format!("muster explain {code}"))
}
