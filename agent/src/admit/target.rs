//! Steps 8 and 13: is this host in the signed target?

use std::collections::BTreeMap;

use muster_protocol::expr::{Call, Expression, Truth};
use muster_protocol::{HostName, Target, code};
use serde_json::Value;

use super::{Host, Refusal};

/// Whether the host is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// It depends on these answers.
    Depends(Vec<Call>),
}

/// Whether the names of the target leave this host in. What its filter says is not looked at.
pub(super) fn names(target: &Target, host: &HostName) -> bool {
    target.all || target.hosts.is_empty() || target.hosts.contains(host)
}

/// Names first, since they cost nothing; then the expression without data calls, since it often
/// settles the matter; then with their answers, if there are any yet.
pub(super) fn check(target: &Target, host: &Host<'_>) -> Result<Match, Refusal> {
    if target.all {
        return Ok(Match::Yes);
    }
    if !names(target, host.name) {
        return Ok(Match::No);
    }
    let Some(filter) = &target.filter else {
        return Ok(if target.hosts.is_empty() { Match::No } else { Match::Yes });
    };
    let expression = Expression::parse(filter)
        .map_err(|error| Refusal::new(&code::BAD_TARGET, format!("the target expression is not valid: {error}")))?;
    let none = BTreeMap::new();
    let answers: &BTreeMap<String, Value> = host.answers.unwrap_or(&none);
    match expression.evaluate(&host.scope(answers)) {
        Truth::True => Ok(Match::Yes),
        Truth::False => Ok(Match::No),
        Truth::Unknown => {
            let calls = distinct(expression.calls());
            Ok(if host.answers.is_some() || calls.is_empty() { Match::No } else { Match::Depends(calls) })
        }
    }
}

fn distinct<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Vec<Call> {
    let sorted: std::collections::BTreeSet<&Call> = calls.into_iter().collect();
    sorted.into_iter().cloned().collect()
}
